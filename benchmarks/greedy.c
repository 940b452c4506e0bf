/*
 * greedy: one client that takes all it can get: it sends without waiting for answers, as fast
 * as the server takes it, and reads and checks them.
 *
 * It prints `open` when its stream runs, goes on until stdin ends, and prints one JSON object.
 * The stream repeats the alphabet, so what an `upper` service must answer is known at any place.
 */
#include "load.h"

#include <poll.h>

enum { BLOCK = 26 * 4096 };

static char asked[BLOCK], expected[BLOCK], answer[1 << 16];

int main(int argc, char **argv) {
    int64_t sent = 0, received = 0;
    if (argc != 2) { fputs("usage: greedy PORT\n", stderr); return 2; }
    for (int i = 0; i < BLOCK; i++) {
        asked[i] = (char)('a' + i % 26);
        expected[i] = (char)('A' + i % 26);
    }
    int fd = open_connection((struct target){ .host = "127.0.0.1", .port = atoi(argv[1]), .sources = 1 }, 0, 0);
    if (fd < 0) return 1;
    struct pollfd wait[2] = { { .fd = fd, .events = POLLIN | POLLOUT }, { .fd = 0, .events = POLLIN } };
    int64_t began = now();
    while (poll(wait, 2, 5000) > 0 && !wait[1].revents) {
        if (wait[0].revents & POLLOUT) {
            int at = (int)(sent % BLOCK);
            ssize_t n = send(fd, asked + at, (size_t)(BLOCK - at), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN) { count_errno(errno); break; }
            if (n > 0 && !sent) { puts("open"); fflush(stdout); }
            if (n > 0) sent += n;
        }
        if (wait[0].revents & ~POLLOUT) {
            ssize_t n = recv(fd, answer, sizeof answer, MSG_DONTWAIT);
            if (n == 0) { failures.early_end++; break; }
            if (n < 0 && errno != EAGAIN) { count_errno(errno); break; }
            for (ssize_t i = 0; i < n; i++)
                if (answer[i] != expected[(received + i) % BLOCK]) { failures.wrong++; break; }
            if (n > 0) received += n;
            if (failures.wrong) break;
        }
    }
    if (!wait[1].revents && !failures.early_end && !failures.wrong && !failures.reset) failures.timeout++;
    printf("{\"seconds\": %.3f, \"sent\": %ld, \"received\": %ld, \"failures\": {\"reset\": %ld, "
           "\"early_end\": %ld, \"wrong\": %ld, \"timeout\": %ld, \"other\": %ld}}\n",
           (double)(now() - began) / 1e9, (long)sent, (long)received, failures.reset,
           failures.early_end, failures.wrong, failures.timeout, failures.other);
    return 0;
}
