/* The floor under work over TLS: OpenSSL as it comes, and a blocking thread for each session, which
 * reads files and encrypts them. Enough FTP for that and no more; see floor.c. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A piece stays in the CPU's second cache. */
enum { PIECE = 128 << 10, LINE = 512, STACK = 64 << 10 };

struct session { int control, passive; SSL *tls; };

static SSL_CTX *context;

static void fail(const char *what) { perror(what); exit(1); }

static int listen_on(int port, int *bound)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t length = sizeof a;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    /* What it accepts has this from it. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&a, length) || listen(fd, 4096)) fail("floor: listen");
    getsockname(fd, (struct sockaddr *)&a, &length);
    *bound = ntohs(a.sin_port);
    return fd;
}

static void reply(struct session *s, const char *text)
{
    if (s->tls) SSL_write(s->tls, text, strlen(text));
    else if (send(s->control, text, strlen(text), MSG_NOSIGNAL) < 0) return;
}

static SSL *secured(int fd)
{
    SSL *tls = SSL_new(context);
    if (tls && SSL_set_fd(tls, fd) && SSL_accept(tls) == 1) return tls;
    SSL_free(tls);
    return 0;
}

static int send_file(SSL *tls, int file, char *piece)
{
    ssize_t got;
    while ((got = read(file, piece, PIECE)) > 0)
        if (SSL_write(tls, piece, got) <= 0) return 0;
    return got == 0 && SSL_shutdown(tls) >= 0;
}

static int receive_file(SSL *tls, int file, char *piece)
{
    int got;
    size_t used = 0;
    while ((got = SSL_read(tls, piece + used, PIECE - used)) > 0)
        if ((used += got) == PIECE) {
            if (write(file, piece, used) != PIECE) return 0;
            used = 0;
        }
    if (write(file, piece, used) != (ssize_t)used) return 0;
    return SSL_get_error(tls, got) == SSL_ERROR_ZERO_RETURN && SSL_shutdown(tls) >= 0;
}

static void transfer(struct session *s, const char *name, int is_upload)
{
    int flags = is_upload ? O_WRONLY | O_CREAT | O_TRUNC : O_RDONLY, done = 0;
    int file = open(name + strspn(name, "/"), flags, 0644);
    if (file < 0) {
        reply(s, "550 No file\r\n");
        return;
    }
    int data = accept(s->passive, 0, 0);
    reply(s, "150 Opening\r\n");
    SSL *tls = secured(data);
    char *piece = malloc(PIECE);
    if (tls && piece) done = is_upload ? receive_file(tls, file, piece) : send_file(tls, file, piece);
    free(piece);
    SSL_free(tls);
    close(data);
    close(file);
    reply(s, done ? "226 Done\r\n" : "426 Broken\r\n");
}

static void passive(struct session *s)
{
    char text[80];
    int port;
    struct sockaddr_in a;
    socklen_t length = sizeof a;
    if (s->passive < 0) s->passive = listen_on(0, &port);
    getsockname(s->passive, (struct sockaddr *)&a, &length);
    snprintf(text, sizeof text, "229 Extended (|||%d|)\r\n", ntohs(a.sin_port));
    reply(s, text);
}

/* Carries out a line; 0 when it was the last one. */
static int command(struct session *s, char *line)
{
    char *argument = line + strcspn(line, " ");
    if (*argument) *argument++ = 0;
    if (!strcmp(line, "RETR")) transfer(s, argument, 0);
    else if (!strcmp(line, "STOR")) transfer(s, argument, 1);
    else if (!strcmp(line, "EPSV")) passive(s);
    else if (!strcmp(line, "USER")) reply(s, "331 Password\r\n");
    else if (!strcmp(line, "PASS")) reply(s, "230 In\r\n");
    else if (!strcmp(line, "AUTH")) {
        reply(s, "234 Go on\r\n");
        return (s->tls = secured(s->control)) != 0;
    } else if (!strcmp(line, "QUIT")) {
        reply(s, "221 Bye\r\n");
        return 0;
    } else reply(s, "200 Fine\r\n");
    return 1;
}

static void *converse(void *data)
{
    struct session s = {.control = (int)(long)data, .passive = -1};
    char line[LINE], *stop;
    int used = 0, got, goes_on = 1;
    reply(&s, "220 floor\r\n");
    while (goes_on) {
        got = s.tls ? SSL_read(s.tls, line + used, LINE - 1 - used)
                    : recv(s.control, line + used, LINE - 1 - used, 0);
        if (got <= 0) break;
        line[used += got] = 0;
        /* The load sends one line and waits for its reply. */
        if (!(stop = strstr(line, "\r\n"))) continue;
        *stop = used = 0;
        goes_on = command(&s, line);
    }
    if (s.tls) SSL_shutdown(s.tls);
    SSL_free(s.tls);
    if (s.passive >= 0) close(s.passive);
    close(s.control);
    return 0;
}

int main(int argc, char **argv)
{
    pthread_attr_t detached;
    pthread_t thread;
    int port, fd;
    if (argc != 4 || !(context = SSL_CTX_new(TLS_server_method()))) return 2;
    if (SSL_CTX_use_certificate_chain_file(context, argv[3]) != 1
        || SSL_CTX_use_PrivateKey_file(context, argv[3], SSL_FILETYPE_PEM) != 1) return 2;
    /* Tickets do. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    if (chdir(argv[2])) fail("floor: chdir");
    signal(SIGPIPE, SIG_IGN);
    umask(022);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, STACK);
    int control = listen_on(atoi(argv[1]), &port);
    for (;;)
        if ((fd = accept(control, 0, 0)) >= 0
            && pthread_create(&thread, &detached, converse, (void *)(long)fd)) close(fd);
}
