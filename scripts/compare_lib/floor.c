/* The floor under all work: just enough FTP, by the system calls that are necessary and no others.
 *
 * One process, one epoll loop. What is small is done at once; a download larger than SMALL, and an
 * upload once it is, goes to a child that may sleep in the kernel. Nothing is checked that only an
 * unfriendly client would need: this is a yardstick, not a server. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SMALL = 1 << 20, PIECE = 256 << 10, LINE = 512, EVENTS = 256 };

/* What a descriptor of the loop is: the control connection, or the data connection of an upload. */
struct watch { struct session *session; int fd; };

struct session {
    struct watch control, upload;
    int passive, port;           /* the listener, kept from one EPSV to the next, and its port */
    int file;
    size_t stored, used;
    struct sockaddr_in client;   /* where PORT and EPRT want us to connect; port 0: nowhere */
    char directory[64], input[LINE];
    struct session *next;        /* among those that have ended */
};

static int loop, forked;
static char piece[PIECE];
static struct session *ended;

static void fail(const char *what) { perror(what); exit(1); }

static void reply(struct session *s, const char *text)
{
    /* Replies are short and their reader waits for them: they fit. */
    if (send(s->control.fd, text, strlen(text), MSG_NOSIGNAL) < 0) return;
}

static int listen_on(int port, int flags, int *bound)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t length = sizeof a;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | flags, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&a, length) || listen(fd, 4096)) fail("floor: listen");
    getsockname(fd, (struct sockaddr *)&a, &length);
    *bound = ntohs(a.sin_port);
    return fd;
}

static void watch(struct watch *watch)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = watch};
    if (epoll_ctl(loop, EPOLL_CTL_ADD, watch->fd, &event)) fail("floor: epoll_ctl");
}

static void greet(int fd)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s) fail("floor: calloc");
    s->control = (struct watch){s, fd};
    s->upload = (struct watch){s, -1};
    s->passive = s->file = -1;
    watch(&s->control);
    reply(s, "220 floor\r\n");
}

static void end(struct session *s)
{
    /* A child may have it open for a moment yet, and then it would stay in the loop. */
    if (forked) epoll_ctl(loop, EPOLL_CTL_DEL, s->control.fd, 0);
    if (s->passive >= 0) close(s->passive);
    if (s->upload.fd >= 0) { close(s->upload.fd); close(s->file); }
    close(s->control.fd);
    /* More events of it may be among those that have been fetched. */
    s->control.fd = -1;
    s->next = ended;
    ended = s;
}

/* The data connection: the client's, or ours to the client. */
static int connect_data(struct session *s)
{
    if (s->client.sin_port) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&s->client, sizeof s->client)) { close(fd); fd = -1; }
        s->client.sin_port = 0;
        return fd;
    }
    int fd = accept(s->passive, 0, 0);
    while (fd < 0 && errno == EAGAIN) {
        struct pollfd wait = {.fd = s->passive, .events = POLLIN};
        if (poll(&wait, 1, 1000) <= 0) return -1;
        fd = accept(s->passive, 0, 0);
    }
    return fd;
}

/* Whether this is the child, which keeps three descriptors: those of other sessions would stay open
 * for as long as it runs. The parent has nothing more to do with the transfer. */
static int is_child(int control, int data, int file)
{
    forked = 1;
    pid_t pid = fork();
    if (pid < 0) fail("floor: fork");
    if (pid > 0) return 0;
    for (int fd = 3, last = getdtablesize(), next; fd < last; fd = next + 1) {
        next = last;
        if (control >= fd && control < next) next = control;
        if (data >= fd && data < next) next = data;
        if (file >= fd && file < next) next = file;
        if (next > fd) close_range(fd, next - 1, 0);
    }
    return 1;
}

static const char *path_of(struct session *s, const char *name)
{
    static char path[LINE + 80];
    if (*name == '/') return name[1] ? name + 1 : ".";
    if (!*s->directory) return *name ? name : ".";
    snprintf(path, sizeof path, "%s/%s", s->directory, name);
    return path;
}

static void retrieve(struct session *s, const char *name)
{
    struct stat status;
    off_t at = 0;
    int file = open(path_of(s, name), O_RDONLY), data;
    if (file < 0 || fstat(file, &status)) {
        reply(s, "550 No file\r\n");
        return;
    }
    if ((data = connect_data(s)) < 0) {
        reply(s, "425 No connection\r\n");
    } else if (status.st_size <= SMALL / 16) {
        /* It fits into the socket's buffer; both replies go in one packet. */
        ssize_t sent = sendfile(data, file, &at, status.st_size);
        close(data);
        reply(s, sent == status.st_size ? "150 Opening\r\n226 Done\r\n" : "426 Broken\r\n");
    } else {
        if (is_child(s->control.fd, data, file)) {
            reply(s, "150 Opening\r\n");
            while (at < status.st_size && sendfile(data, file, &at, status.st_size - at) > 0) {}
            close(data);
            reply(s, at == status.st_size ? "226 Done\r\n" : "426 Broken\r\n");
            _exit(0);
        }
        close(data);
    }
    close(file);
}

static void store(struct session *s, const char *name)
{
    s->file = open(path_of(s, name), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    s->stored = 0;
    if (s->file < 0) {
        reply(s, "553 Not there\r\n");
    } else if ((s->upload.fd = connect_data(s)) < 0) {
        close(s->file);
        reply(s, "425 No connection\r\n");
    } else {
        reply(s, "150 Go on\r\n");
        watch(&s->upload);
    }
}

/* Takes what an upload has; 1 at its end. */
static int take(struct session *s, int flags)
{
    ssize_t got = recv(s->upload.fd, piece, sizeof piece, flags);
    if (got < 0) return errno != EAGAIN && errno != EINTR;
    if (got > 0 && write(s->file, piece, got) != got) fail("floor: write");
    s->stored += got;
    return got == 0;
}

static void upload(struct session *s)
{
    int done = take(s, MSG_DONTWAIT);
    if (!done && s->stored <= SMALL) return;
    if (!done) {
        /* The child has the same connection: the loop would go on hearing of it. */
        epoll_ctl(loop, EPOLL_CTL_DEL, s->upload.fd, 0);
        if (is_child(s->control.fd, s->upload.fd, s->file)) {
            /* Woken when there is a piece to take, not for each packet. */
            int least = PIECE;
            setsockopt(s->upload.fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof least);
            while (!take(s, 0)) {}
            close(s->file);
            close(s->upload.fd);
            reply(s, "226 Done\r\n");
            _exit(0);
        }
    }
    close(s->file);
    close(s->upload.fd);
    s->upload.fd = -1;
    if (done) reply(s, "226 Done\r\n");
}

static char *digits(char *out, long long value, int width, char fill)
{
    for (int at = width - 1; at >= 0; at--, value /= 10)
        out[at] = value || at == width - 1 ? '0' + value % 10 : fill;
    return out + width;
}

static char *format(char *out, char verb, const char *name, int directory)
{
    struct stat status;
    struct tm t;
    if (verb == 'N') return stpcpy(stpcpy(out, name), "\r\n");
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW)) return out;
    gmtime_r(&status.st_mtime, &t);
    int is_directory = S_ISDIR(status.st_mode);
    if (verb == 'M') {
        int parts[] = {t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec};
        out = stpcpy(out, is_directory ? "type=dir;size=" : "type=file;size=");
        out = digits(out, status.st_size, 12, '0');
        out = digits(stpcpy(out, ";modify="), t.tm_year + 1900, 4, '0');
        for (int i = 0; i < 5; i++) out = digits(out, parts[i], 2, '0');
        return stpcpy(stpcpy(stpcpy(out, "; "), name), "\r\n");
    }
    static const char months[] = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec ";
    out = stpcpy(out, is_directory ? "drwxr-xr-x 2 ftp ftp " : "-rw-r--r-- 1 ftp ftp ");
    *(out = digits(out, status.st_size, 12, ' ')) = ' ';
    out = (char *)mempcpy(out + 1, months + 4 * t.tm_mon, 4);
    out = digits(digits(out, t.tm_mday, 2, ' '), t.tm_year + 1900, 6, ' ');
    return stpcpy(stpcpy(stpcpy(out, " "), name), "\r\n");
}

static void list(struct session *s, char verb, const char *name)
{
    static char entries[PIECE];
    int directory = open(path_of(s, name), O_RDONLY | O_DIRECTORY);
    int data = directory < 0 ? -1 : connect_data(s);
    ssize_t got;
    char *out = piece;
    if (data < 0) {
        reply(s, directory < 0 ? "550 No directory\r\n" : "425 No connection\r\n");
        if (directory >= 0) close(directory);
        return;
    }
    reply(s, "150 Here it comes\r\n");
    while ((got = getdents64(directory, entries, sizeof entries)) > 0) {
        for (ssize_t at = 0; at < got;) {
            struct dirent64 *entry = (struct dirent64 *)(entries + at);
            at += entry->d_reclen;
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
            out = format(out, verb, entry->d_name, directory);
            if (out - piece > PIECE - 1024) {
                if (send(data, piece, out - piece, MSG_NOSIGNAL) < 0) perror("floor: send");
                out = piece;
            }
        }
    }
    if (out > piece && send(data, piece, out - piece, MSG_NOSIGNAL) < 0) perror("floor: send");
    close(data);
    close(directory);
    reply(s, "226 Done\r\n");
}

static void passive(struct session *s, int extended)
{
    char text[80];
    if (s->passive < 0) s->passive = listen_on(0, SOCK_NONBLOCK, &s->port);
    s->client.sin_port = 0;
    if (extended) snprintf(text, sizeof text, "229 Extended (|||%d|)\r\n", s->port);
    else snprintf(text, sizeof text, "227 Passive (127,0,0,1,%d,%d)\r\n", s->port >> 8,
        s->port & 255);
    reply(s, text);
}

static void active(struct session *s, const char *where)
{
    int a, b, port;
    s->client = (struct sockaddr_in){.sin_family = AF_INET};
    s->client.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (sscanf(where, "|1|127.0.0.1|%d|", &port) == 1) s->client.sin_port = htons(port);
    else if (sscanf(where, "127,0,0,1,%d,%d", &a, &b) == 2) s->client.sin_port = htons(a << 8 | b);
    reply(s, s->client.sin_port ? "200 So be it\r\n" : "501 Where?\r\n");
}

static void change_directory(struct session *s, const char *name)
{
    snprintf(s->directory, sizeof s->directory, "%s", name + strspn(name, "/"));
    reply(s, "250 There\r\n");
}

/* Carries out a line; 0 when it was the last one. */
static int command(struct session *s, char *line)
{
    char *argument = line + strcspn(line, " ");
    if (*argument) *argument++ = 0;
    if (!strcmp(line, "NOOP")) reply(s, "200 Fine\r\n");
    else if (!strcmp(line, "EPSV")) passive(s, 1);
    else if (!strcmp(line, "PASV")) passive(s, 0);
    else if (!strcmp(line, "EPRT") || !strcmp(line, "PORT")) active(s, argument);
    else if (!strcmp(line, "RETR")) retrieve(s, argument);
    else if (!strcmp(line, "STOR")) store(s, argument);
    else if (!strcmp(line, "LIST") || !strcmp(line, "NLST") || !strcmp(line, "MLSD"))
        list(s, *line, argument);
    else if (!strcmp(line, "USER")) reply(s, "331 Password\r\n");
    else if (!strcmp(line, "PASS")) reply(s, "230 In\r\n");
    else if (!strcmp(line, "TYPE")) reply(s, "200 Type\r\n");
    else if (!strcmp(line, "FEAT")) reply(s, "211-It has\r\n MLST\r\n211 End\r\n");
    else if (!strcmp(line, "CWD")) change_directory(s, argument);
    else if (!strcmp(line, "QUIT")) {
        reply(s, "221 Bye\r\n");
        return 0;
    } else reply(s, "502 Not here\r\n");
    return 1;
}

static void converse(struct session *s)
{
    ssize_t got = recv(s->control.fd, s->input + s->used, LINE - 1 - s->used, MSG_DONTWAIT);
    char *line = s->input, *stop;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) { end(s); return; }
    s->used += got;
    s->input[s->used] = 0;
    for (; (stop = strstr(line, "\r\n")); line = stop + 2) {
        *stop = 0;
        if (!command(s, line)) { end(s); return; }
    }
    s->used -= line - s->input;
    memmove(s->input, line, s->used);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    struct rlimit limit;
    int port, control, on = 1;
    if (argc != 3 || chdir(argv[2])) return 2;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    umask(022);
    loop = epoll_create1(0);
    control = listen_on(atoi(argv[1]), SOCK_NONBLOCK, &port);
    /* What it accepts has this from it: no reply waits for the one before to be acknowledged. */
    setsockopt(control, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct watch door = {.fd = control};
    watch(&door);
    for (;;) {
        int count = epoll_wait(loop, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct watch *ready = events[i].data.ptr;
            int fd;
            if (!ready->session)
                while ((fd = accept4(control, 0, 0, SOCK_NONBLOCK)) >= 0) greet(fd);
            else if (ready->session->control.fd < 0) continue;
            else if (ready == &ready->session->control) converse(ready->session);
            else upload(ready->session);
        }
        for (struct session *s; (s = ended); free(s)) ended = s->next;
    }
}
