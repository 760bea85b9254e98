/* The floor under bulk downloads: just enough FTP for RETR, a process per client, sendfile(2). */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static int listen_on(int port, int *bound)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t len = sizeof a;
    int on = 1, s = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(s, (struct sockaddr *)&a, len) || listen(s, 128)) { perror("floor"); exit(1); }
    getsockname(s, (struct sockaddr *)&a, &len);
    *bound = ntohs(a.sin_port);
    return s;
}

static int retrieve(int pasv, const char *path)
{
    int file = open(path, O_RDONLY), data = accept(pasv, 0, 0);
    struct stat st;
    if (file < 0 || data < 0 || fstat(file, &st)) return 1;
    for (off_t at = 0; at < st.st_size;)
        if (sendfile(data, file, &at, st.st_size - at) <= 0) return 1;
    close(file);
    return close(data);
}

static void serve(FILE *in, FILE *out)
{
    char line[512];
    int pasv = -1, port;
    fputs("220 floor\r\n", out);
    while (fflush(out) == 0 && fgets(line, sizeof line, in)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!strncmp(line, "USER", 4)) fputs("331 Password\r\n", out);
        else if (!strncmp(line, "PASS", 4)) fputs("230 In\r\n", out);
        else if (!strncmp(line, "TYPE", 4)) fputs("200 Type\r\n", out);
        else if (!strcmp(line, "EPSV")) {
            if (pasv >= 0) close(pasv);
            pasv = listen_on(0, &port);
            fprintf(out, "229 Extended (|||%d|)\r\n", port);
        } else if (!strncmp(line, "RETR ", 5)) {
            fputs("150 Opening\r\n", out);
            fflush(out);
            fputs(retrieve(pasv, line + 5) ? "426 Broken\r\n" : "226 Done\r\n", out);
        } else if (!strcmp(line, "QUIT")) {
            fputs("221 Bye\r\n", out);
            fflush(out);
            return;
        } else fputs("502 Not here\r\n", out);
    }
}

int main(int argc, char **argv)
{
    int port, control;
    if (argc != 3 || chdir(argv[2])) return 2;
    signal(SIGCHLD, SIG_IGN);
    for (control = listen_on(atoi(argv[1]), &port);;) {
        int client = accept(control, 0, 0);
        if (client < 0) return 1;
        if (fork() == 0) {
            close(control);
            serve(fdopen(client, "r"), fdopen(dup(client), "w"));
            return 0;
        }
        close(client);
    }
}
