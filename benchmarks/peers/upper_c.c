/*
 * upper in C: a plain level-triggered epoll loop, the yardstick of the benchmarks.
 *
 * It reads 64 KiB at most, turns it to upper case and sends it at once, as epoll(7) shows.
 * What the socket does not take is not kept: it waits in poll(2), which request/response
 * clients never reach.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static char buffer[64 * 1024];

/* Sends all, or gives up on the connection. */
static int send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = { .fd = fd, .events = POLLOUT };
            poll(&wait, 1, -1);
        } else if (n < 0) {
            return -1;
        } else {
            data += n;
            size -= (size_t)n;
        }
    }
    return 0;
}

static void serve(int fd) {
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) return;
    for (ssize_t i = 0; i < n; i++) buffer[i] = (char)toupper((unsigned char)buffer[i]);
    if (n <= 0 || send_all(fd, buffer, (size_t)n) < 0) close(fd);
}

int main(int argc, char **argv) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    address.sin_port = htons((unsigned short)(argc > 1 ? atoi(argv[1]) : 0));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0
        || listen(listener, 1024) < 0) {
        perror("upper_c");
        return 1;
    }
    int poller = epoll_create1(0);
    struct epoll_event events[256], event = { .events = EPOLLIN, .data.fd = listener };
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd != listener) {
                serve(events[i].data.fd);
                continue;
            }
            int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0) continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            event.events = EPOLLIN;
            event.data.fd = fd;
            epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
        }
    }
}
