/*
 * steady: clients that must not notice anything while the server changes under them.
 *
 * Three crowds over one epoll loop: silent connections, busy ones that ask again and again, and
 * newcomers at a steady rate that connect, ask once and close.  Every answer is compared with
 * what an `upper` service must give back.
 *
 * `open` is printed once all connections stand; then the load runs until stdin ends.  Each line
 * on stdin is answered by one JSON object: the longest waits since the line before (a client that
 * waits just now included), and all failures so far.  A lost connection stays lost.  The line
 * `check` has every silent connection ask once before, so that one that only seems to stand is
 * found.
 *
 * `late_max_us` is how late the program itself came to its own clock's tick: waits as long as
 * that may be the load's, not the server's.  It knows nothing of the server but an address.
 */
#include "load.h"

#include <getopt.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

enum { SIZE = 64, BATCH = 64, EVENTS = 256, FLYING = 8192, TIMEOUT_S = 10 };
enum kind { TICK, INPUT, SILENT, CLIENT }; /* what an event is about */

struct client {
    int fd;           /* -1: not connected (never again, if a busy one) */
    int once;         /* a newcomer */
    int asked;        /* a request is on its way */
    int received;     /* bytes of the answer, always < SIZE */
    uint32_t number;  /* of the request */
    int64_t started;  /* CLOCK_MONOTONIC ns: of the request; of the connect, for a newcomer */
    int64_t due;      /* when a busy client that pauses asks again */
};

static struct {
    struct target target;
    int idle, busy, rate;
    long think_us;
} option = { .target = { "127.0.0.1", 0, 16, 0 }, .busy = 50 };

/* Since the last report. */
static struct {
    int64_t begun, busy_max, busy_sum, new_max, late_max;
    long messages, newcomers;
} interval;

static struct { long idle, busy, newcomers; } ended; /* connections that failed, of each crowd */
static struct client *clients;  /* the busy ones, then FLYING places for newcomers */
static int *unused, unused_count;   /* places without a newcomer */
static int *silent, poller, ticker;
static int64_t next_tick, tick_ns;
static long born; /* newcomers up to now */

static void watch(int operation, int fd, uint32_t events, enum kind kind, int index) {
    struct epoll_event event = { .events = events, .data.u64 = (uint64_t)kind << 32 | index };
    if (epoll_ctl(poller, operation, fd, &event) < 0) die("epoll_ctl");
}

/* The request of a client: its place and number, then letters; `upper` as it must come back. */
static void compose(const struct client *c, int upper, char *text) {
    for (int i = 0; i < SIZE; i++) text[i] = (char)((upper ? 'A' : 'a') + (i + c->number) % 26);
    char head[17];
    snprintf(head, sizeof head, upper ? "%08X%08X" : "%08x%08x",
             (unsigned)(c - clients), c->number);
    memcpy(text, head, 16);
}

/* The client's connection is over; a newcomer's place is free again. */
static void leave(struct client *c) {
    close(c->fd);
    c->fd = -1;
    c->asked = 0;
    if (c->once) unused[unused_count++] = (int)(c - clients);
}

static void fail(struct client *c) {
    if (c->once) ended.newcomers++;
    else ended.busy++;
    leave(c);
}

/* 64 bytes always fit into the send buffer of a client that has had its last answer. */
static void ask(struct client *c) {
    char text[SIZE];
    c->number++;
    c->received = 0;
    c->asked = 1;
    compose(c, 0, text);
    if (!c->once) c->started = now();
    ssize_t n = send(c->fd, text, SIZE, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n == SIZE) return;
    if (n < 0) count_errno(errno);
    else failures.other++;
    fail(c);
}

static void arrive(void) {
    int64_t time = now();
    if (!unused_count) { failures.other++; ended.newcomers++; return; }
    int place = unused[--unused_count];
    struct client *c = &clients[place];
    c->started = time;
    c->fd = open_connection(option.target, (int)born++, SOCK_NONBLOCK);
    if (c->fd < 0) { ended.newcomers++; unused[unused_count++] = place; return; }
    watch(EPOLL_CTL_ADD, c->fd, EPOLLOUT, CLIENT, place);
}

/* The whole answer is there. */
static void answered(struct client *c) {
    int64_t time = now(), took = time - c->started;
    c->asked = 0;
    if (c->once) {
        interval.newcomers++;
        if (took > interval.new_max) interval.new_max = took;
        leave(c);
        return;
    }
    interval.messages++;
    interval.busy_sum += took;
    note_latency(took);
    if (took > interval.busy_max) interval.busy_max = took;
    if (option.think_us) c->due = time + option.think_us * 1000;
    else ask(c);
}

static void on_client(struct client *c, uint32_t events) {
    char answer[SIZE], expected[SIZE];
    if (c->fd < 0) return;
    if (events & EPOLLOUT) { /* connected, or refused */
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error) { count_errno(error); fail(c); return; }
        watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, CLIENT, (int)(c - clients));
        ask(c);
        return;
    }
    ssize_t n = recv(c->fd, answer, SIZE, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) { count_errno(errno); fail(c); return; }
    if (n == 0) { failures.early_end++; fail(c); return; }
    compose(c, 1, expected);
    if (!c->asked || n > SIZE - c->received || memcmp(answer, expected + c->received, (size_t)n)) {
        failures.wrong++;
        fail(c);
        return;
    }
    if ((c->received += (int)n) == SIZE) answered(c);
}

/* Nothing is to be read from a silent connection: it was ended, or got another's answer. */
static void on_silent(int index) {
    char byte;
    if (silent[index] < 0) return;
    ssize_t n = recv(silent[index], &byte, 1, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) count_errno(errno);
    else if (n == 0) failures.early_end++;
    else failures.wrong++;
    ended.idle++;
    close(silent[index]);
    silent[index] = -1;
}

/* Newcomers arrive, pauses end, overdue answers are given up. */
static void on_tick(void) {
    uint64_t ticks;
    if (read(ticker, &ticks, sizeof ticks) != sizeof ticks) return;
    int64_t time = now(), late = time - next_tick;
    next_tick += (int64_t)ticks * tick_ns;
    if (late > interval.late_max) interval.late_max = late;
    if (option.rate) for (; ticks; ticks--) arrive();
    for (int i = 0; i < option.busy; i++)
        if (clients[i].fd >= 0 && !clients[i].asked && clients[i].due <= time) ask(&clients[i]);
    for (int i = 0; i < option.busy + FLYING; i++)
        if (clients[i].fd >= 0 && clients[i].started < time - TIMEOUT_S * 1000000000LL
            && (clients[i].asked || clients[i].once)) {
            failures.timeout++;
            fail(&clients[i]);
        }
}

static void report(void) {
    int64_t time = now();
    for (int i = 0; i < option.busy + FLYING; i++) { /* who waits just now */
        struct client *c = &clients[i];
        int64_t *longest = c->once ? &interval.new_max : &interval.busy_max;
        if (c->fd >= 0 && (c->asked || c->once) && time - c->started > *longest)
            *longest = time - c->started;
    }
    printf("{\"seconds\": %.3f, \"messages\": %ld, \"newcomers\": %ld, \"busy_mean_us\": %.1f, "
           "\"busy_p50_us\": %.1f, \"busy_p99_us\": %.1f, "
           "\"busy_max_us\": %.1f, \"new_max_us\": %.1f, \"late_max_us\": %.1f, "
           "\"failures\": {\"refused\": %ld, \"reset\": %ld, \"early_end\": %ld, "
           "\"wrong\": %ld, \"timeout\": %ld, \"other\": %ld}, "
           "\"ended\": {\"idle\": %ld, \"busy\": %ld, \"new\": %ld}}\n",
           (double)(time - interval.begun) / 1e9, interval.messages, interval.newcomers,
           interval.messages ? (double)interval.busy_sum / 1e3 / (double)interval.messages : 0.0,
           percentile_us(50), percentile_us(99),
           (double)interval.busy_max / 1e3, (double)interval.new_max / 1e3,
           (double)interval.late_max / 1e3, failures.refused, failures.reset,
           failures.early_end, failures.wrong, failures.timeout, failures.other,
           ended.idle, ended.busy, ended.newcomers);
    fflush(stdout);
    memset(&interval, 0, sizeof interval);
    memset(histogram, 0, sizeof histogram);
    interval.begun = now();
}

/* Every silent connection that stands asks once; what goes wrong is counted, and ends it. */
static void check_silent(void) {
    for (int i = 0; i < option.idle; i++) {
        struct failures before = failures;
        if (silent[i] < 0) continue;
        greet(silent[i], TIMEOUT_S);
        if (!memcmp(&before, &failures, sizeof failures)) continue;
        ended.idle++;
        close(silent[i]);
        silent[i] = -1;
    }
}

static void open_all(void) {
    for (int i = 0; i < option.idle; i++) {
        silent[i] = open_connection(option.target, i, 0);
        if (silent[i] < 0) { ended.idle++; continue; }
        watch(EPOLL_CTL_ADD, silent[i], EPOLLIN | EPOLLRDHUP, SILENT, i);
        if (i % BATCH == BATCH - 1) greet(silent[i], TIMEOUT_S); /* the listen queue is empty */
    }
    for (int i = 0; i < option.busy + FLYING; i++) {
        clients[i] = (struct client){ .fd = -1, .once = i >= option.busy };
        if (clients[i].once) { unused[unused_count++] = i; continue; }
        clients[i].fd = open_connection(option.target, i, 0);
        if (clients[i].fd < 0) { ended.busy++; continue; }
        watch(EPOLL_CTL_ADD, clients[i].fd, EPOLLIN, CLIENT, i);
    }
}

static void start_ticking(void) {
    tick_ns = option.rate ? 1000000000LL / option.rate : 1000000;
    struct itimerspec every = { .it_interval.tv_nsec = tick_ns, .it_value.tv_nsec = tick_ns };
    ticker = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    next_tick = now() + tick_ns;
    if (ticker < 0 || timerfd_settime(ticker, 0, &every, NULL) < 0) die("timerfd");
    watch(EPOLL_CTL_ADD, ticker, EPOLLIN, TICK, 0);
}

static void parse(int argc, char **argv) {
    static const struct option names[] = {
        { "port", 1, 0, 'p' }, { "idle", 1, 0, 'i' }, { "busy", 1, 0, 'b' },
        { "rate", 1, 0, 'r' }, { "think-us", 1, 0, 't' }, { "first", 1, 0, 'f' }, { 0 } };
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (c) {
        case 'p': option.target.port = atoi(optarg); break;
        case 'i': option.idle = atoi(optarg); break;
        case 'b': option.busy = atoi(optarg); break;
        case 'r': option.rate = atoi(optarg); break;
        case 't': option.think_us = atol(optarg); break;
        case 'f': option.target.first = atoi(optarg); break;
        default: option.target.port = 0;
        }
    if (!option.target.port || optind < argc || option.idle < 0 || option.busy < 0
        || option.rate < 0 || option.rate == 1) { /* tv_nsec must be below a second */
        fputs("usage: steady --port P [--idle N] [--busy N] [--rate PER_SECOND] "
              "[--think-us U] [--first N]\n", stderr);
        exit(2);
    }
}

int main(int argc, char **argv) {
    char line[16];
    parse(argc, argv);
    raise_limit(option.idle + option.busy);
    if ((poller = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
    clients = calloc((size_t)option.busy + FLYING, sizeof *clients);
    unused = calloc(FLYING, sizeof *unused);
    silent = calloc((size_t)option.idle + 1, sizeof *silent);
    open_all();
    watch(EPOLL_CTL_ADD, 0, EPOLLIN, INPUT, 0);
    puts("open");
    fflush(stdout);
    for (int i = 0; i < option.busy; i++)
        if (clients[i].fd >= 0) ask(&clients[i]);
    interval.begun = now();
    if (option.busy || option.rate) start_ticking();
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int index = (int)(uint32_t)events[i].data.u64;
            switch ((enum kind)(events[i].data.u64 >> 32)) {
            case TICK: on_tick(); break;
            case SILENT: on_silent(index); break;
            case CLIENT: on_client(&clients[index], events[i].events); break;
            case INPUT:
                if (read(0, line, sizeof line) <= 0) return 0;
                if (line[0] == 'c') check_silent();
                report();
            }
        }
    }
}
