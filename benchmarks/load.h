/*
 * What the load programs share: the clock, latencies, the tally of failures, and connecting.
 *
 * Each program is one translation unit, so all of it is static; not every one uses all of it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct failures {
    long refused, reset, early_end, wrong, timeout, other;
};

/* Where to connect to, and from how many addresses: 127.0.0.2 and up, from the `first` on. */
struct target {
    const char *host;
    int port, sources, first;
};

/* Latency histogram: 32 buckets for every power of two of nanoseconds: 3 % resolution. */
enum { SUB_BITS = 5, SUB = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS) * SUB };

static struct failures failures;
static uint64_t histogram[BUCKETS];

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int bucket_of(uint64_t ns) {
    if (ns < SUB) return (int)ns;
    int shift = 63 - __builtin_clzll(ns) - SUB_BITS;
    return (shift + 1) * SUB + (int)((ns >> shift) - SUB);
}

/* The middle of a bucket, in ns. */
static double bucket_value(int bucket) {
    if (bucket < SUB) return bucket;
    int shift = bucket / SUB - 1;
    return ((double)(SUB + bucket % SUB) + 0.5) * (double)(1ULL << shift);
}

__attribute__((unused)) static double percentile_us(double percent) {
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) total += histogram[i];
    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (total && (double)seen >= (double)total * percent / 100.0)
            return bucket_value(i) / 1000.0;
    }
    return 0;
}

__attribute__((unused)) static void note_latency(int64_t ns) {
    histogram[bucket_of((uint64_t)ns)]++;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* Sorts a failed system call into the failure that the report names. */
static void count_errno(int error) {
    switch (error) {
    case ECONNREFUSED: failures.refused++; break;
    case ECONNRESET: case EPIPE: failures.reset++; break;
    case ETIMEDOUT: failures.timeout++; break;
    default: failures.other++; fprintf(stderr, "load: %s\n", strerror(error));
    }
}

/* Connects from 127.0.0.2 + first + n % sources; returns the descriptor or -1 (counted). */
static int open_connection(struct target target, int n, int flags) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), one = 1;
    if (fd < 0) die("socket");
    /* Many sources: each has its own range of ports, and the crowd does not use up one. */
    struct sockaddr_in source = { .sin_family = AF_INET };
    source.sin_addr.s_addr = htonl(0x7f000002u + (unsigned)(target.first + n % target.sources));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0) die("bind");
    struct sockaddr_in server = { .sin_family = AF_INET, .sin_port = htons(target.port) };
    if (inet_pton(AF_INET, target.host, &server.sin_addr) != 1) die("host");
    if (connect(fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) {
        count_errno(errno);
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* One small request and its answer, blocking: proves that the server has accepted. */
__attribute__((unused)) static void greet(int fd, double timeout) {
    char text[4] = { 'p', 'i', 'n', 'g' };
    struct timeval limit = { .tv_sec = (long)timeout };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (send(fd, text, 4, MSG_NOSIGNAL) != 4) { count_errno(errno); return; }
    ssize_t n = recv(fd, text, 4, MSG_WAITALL);
    if (n < 0) count_errno(errno == EAGAIN ? ETIMEDOUT : errno);
    else if (n < 4) failures.early_end++;
    else if (memcmp(text, "PING", 4)) failures.wrong++;
}

/* Raises the soft limit on descriptors to the hard one and refuses what still cannot be. */
__attribute__((unused)) static void raise_limit(int connections) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if ((rlim_t)(connections + 16) > limit.rlim_cur) {
        fprintf(stderr, "load: %d connections need more descriptors than the limit of %ju\n",
                connections, (uintmax_t)limit.rlim_cur);
        exit(2);
    }
}
