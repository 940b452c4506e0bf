/*
 * load: request/response clients that check every byte, over one epoll loop.
 *
 * N connections each send one numbered message, wait for the whole answer, compare it with
 * what an `upper` service must give back, and send the next.  With --lines a message is so many
 * lines of the same length, sent in one go: a client that pipelines.  With --close each message
 * has a connection of its own; with --ask and --expect all messages and answers are these,
 * whatever the protocol.  Before them a silent crowd may be opened, from several 127.0.0.x addresses.
 * The result is one JSON object on stdout; the exit status is 1 when anything failed.
 *
 * With --steps the caller sets the pace: `open` is printed once all connections stand and are
 * warm, one line on stdin starts the load, and the connections are held after the result
 * until stdin ends.  So the server's CPU time and memory can be read around the load alone.
 *
 * It knows nothing of the server but an address, and nothing of CPU time or processes.
 */
#include "load.h"

#include <getopt.h>
#include <sys/epoll.h>

enum { MIN_SIZE = 24, MAX_SIZE = 1 << 20, CROWD_BATCH = 64, EVENTS = 256 };

struct client {
    int fd;                /* -1 while it has no connection */
    int failed;            /* and takes no further part */
    int connecting;        /* waits for EPOLLOUT, which says how that went */
    int sent, received;    /* bytes of the current message, always <= size */
    int busy;              /* a message is on its way */
    uint64_t number;       /* of the message, counted per connection */
    int64_t started;       /* CLOCK_MONOTONIC ns */
    unsigned char *request, *expected;
};

static struct {
    const char *host, *ask, *expect;
    int port, connections, size, answer, lines, idle, sources, steps, burst, close;
    long messages, warmup, pace_us;
    double seconds, timeout;
} option = { .host = "127.0.0.1", .connections = 50, .size = 64, .sources = 4,
             .warmup = 0, .seconds = 5, .timeout = 10 };

static struct client *clients;
static int *crowd;         /* descriptors of the silent connections */
static int crowd_size;     /* always <= option.idle */
static int poller;
static long idle_lost;
static unsigned char buffer[1 << 16];

/* ---- opening --------------------------------------------------------------------------- */

static struct target target(void) {
    return (struct target){ .host = option.host, .port = option.port, .sources = option.sources };
}

/*
 * Opens the silent crowd.  Every 64th connection asks once and waits for the answer: the
 * listen queue is first in, first out, so it is then empty and never overruns its backlog.
 */
static void open_crowd(void) {
    for (int i = 0; i < option.idle; i++) {
        int fd = open_connection(target(), i, option.burst ? SOCK_NONBLOCK : 0);
        if (fd < 0) continue;
        crowd[crowd_size++] = fd;
        if (option.pace_us) usleep((useconds_t)option.pace_us);
        else if (!option.burst && i % CROWD_BATCH == CROWD_BATCH - 1) greet(fd, option.timeout);
    }
}

/* A silent connection has nothing to read; anything else means that the server let it go. */
static void check_crowd(void) {
    for (int i = 0; i < crowd_size; i++)
        if (recv(crowd[i], buffer, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN) idle_lost++;
}

static void connect_client(struct client *c, int n, int flags) {
    c->fd = open_connection(target(), n, flags);
    c->failed = c->fd < 0;
    if (c->failed) return;
    c->connecting = flags != 0;
    struct epoll_event event = { .events = c->connecting ? EPOLLOUT : EPOLLIN, .data.ptr = c };
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0) die("epoll_ctl");
}

static void open_client(struct client *c, int n) {
    c->fd = -1;
    c->request = malloc((size_t)option.size);
    c->expected = malloc((size_t)option.answer);
    if (option.ask) {
        memcpy(c->request, option.ask, (size_t)option.size);
        memcpy(c->expected, option.expect, (size_t)option.answer);
    } else {
        for (int i = 0; i < option.size; i++) {
            c->request[i] = (unsigned char)('a' + (i + n) % 26);
            c->expected[i] = (unsigned char)('A' + (i + n) % 26);
        }
        for (int line = 1; line <= option.lines; line++) {
            int end = option.size / option.lines * line - 1;
            c->request[end] = c->expected[end] = '\n';
        }
    }
    if (!option.close) connect_client(c, n, 0);
}

/* ---- requests -------------------------------------------------------------------------- */

static void fail(struct client *c) {
    close(c->fd);
    c->fd = -1;
    c->busy = 0;
    c->failed = 1;
}

/* Writes connection and message number into the first 24 bytes, as hexadecimal letters. */
static void number_message(struct client *c) {
    uint64_t words[2] = { (uint64_t)(c - clients), c->number };
    for (int w = 0, at = 0; w < 2; w++)
        for (int shift = w ? 60 : 28; shift >= 0; shift -= 4, at++) {
            unsigned digit = words[w] >> shift & 15;
            c->request[at] = (unsigned char)"0123456789abcdef"[digit];
            c->expected[at] = (unsigned char)"0123456789ABCDEF"[digit];
        }
}

/* Sends what is left of the request; EPOLLOUT is asked for only while some is left. */
static void send_rest(struct client *c) {
    ssize_t n = send(c->fd, c->request + c->sent, (size_t)(option.size - c->sent),
                     MSG_NOSIGNAL | MSG_DONTWAIT);
    int before = c->sent;
    if (n < 0 && errno != EAGAIN) { count_errno(errno); fail(c); return; }
    if (n > 0) c->sent += (int)n;
    if (before == 0 && c->sent == option.size) return;
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };
    if (c->sent < option.size) event.events |= EPOLLOUT;
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void start_message(struct client *c) {
    static int connections_begun;
    c->number++;
    c->sent = c->received = 0;
    c->busy = 1;
    if (!option.ask) number_message(c);
    c->started = now();
    if (!option.close) { send_rest(c); return; }
    connect_client(c, connections_begun++, SOCK_NONBLOCK);
    c->busy = !c->failed;
}

/* The connection of a message stands, or does not. */
static void connected(struct client *c) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) { count_errno(error); fail(c); return; }
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
    c->connecting = 0;
    send_rest(c);
}

/* Reads some of the answer; returns 1 when the message is complete and right. */
static int receive(struct client *c, int measure) {
    ssize_t n = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n < 0) {
        if (errno == EAGAIN) return 0;
        count_errno(errno);
        fail(c);
        return 0;
    }
    if (n == 0) { failures.early_end++; fail(c); return 0; }
    if (n > option.answer - c->received
        || memcmp(buffer, c->expected + c->received, (size_t)n)) {
        failures.wrong++;
        fail(c);
        return 0;
    }
    c->received += (int)n;
    if (c->received < option.answer) return 0;
    c->busy = 0;
    if (option.close) { close(c->fd); c->fd = -1; }
    if (measure) note_latency(now() - c->started);
    return 1;
}

/* Gives up on answers that are overdue. */
static void expire(int64_t limit) {
    for (int i = 0; i < option.connections; i++)
        if (clients[i].fd >= 0 && clients[i].busy && clients[i].started < limit) {
            failures.timeout++;
            fail(&clients[i]);
        }
}

/* Keeps one message on its way on every connection; returns how many were answered. */
static long run(long messages, double seconds, int measure) {
    long done = 0, begun = 0;
    int busy = 0;
    int64_t timeout_ns = (int64_t)(option.timeout * 1e9);
    int64_t deadline = seconds > 0 ? now() + (int64_t)(seconds * 1e9) : INT64_MAX;
    int64_t next_check = now() + 1000000000LL, time = now();
    for (int i = 0; i < option.connections && begun < messages; i++)
        if (!clients[i].failed) { start_message(&clients[i]); begun++; }
    do {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(poller, events, EVENTS, 200);
        time = now();
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (c->fd >= 0 && c->connecting) { connected(c); continue; }
            if (c->fd >= 0 && events[i].events & EPOLLOUT) send_rest(c);
            if (c->fd < 0 || !(events[i].events & ~EPOLLOUT) || !receive(c, measure)) continue;
            done++;
            if (begun < messages && time < deadline) { start_message(c); begun++; }
        }
        if (time >= next_check || n == 0) {
            expire(time - timeout_ns);
            next_check = time + 1000000000LL;
        }
        busy = 0;
        for (int i = 0; i < option.connections && !busy; i++) busy = clients[i].busy;
    } while (busy);
    return done;
}

/* ---- the program ----------------------------------------------------------------------- */

static void usage(void) {
    fputs("usage: load --port P [--host A] [--connections N] [--size BYTES] [--lines L]\n"
          "            [--seconds S | --messages M] [--warmup M] [--timeout S]\n"
          "            [--ask TEXT --expect TEXT] [--close]\n"
          "            [--idle K] [--sources N] [--pace-us U | --burst] [--steps]\n", stderr);
    exit(2);
}

static void parse(int argc, char **argv) {
    static const struct option names[] = {
        { "port", 1, 0, 'p' }, { "host", 1, 0, 'h' }, { "connections", 1, 0, 'c' },
        { "size", 1, 0, 'z' }, { "lines", 1, 0, 'l' },
        { "seconds", 1, 0, 's' }, { "messages", 1, 0, 'm' },
        { "warmup", 1, 0, 'w' }, { "timeout", 1, 0, 't' }, { "idle", 1, 0, 'i' },
        { "sources", 1, 0, 'n' }, { "pace-us", 1, 0, 'u' }, { "burst", 0, 0, 'b' },
        { "steps", 0, 0, 'S' }, { "ask", 1, 0, 'a' }, { "expect", 1, 0, 'e' },
        { "close", 0, 0, 'C' }, { 0 } };
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (c) {
        case 'p': option.port = atoi(optarg); break;
        case 'h': option.host = optarg; break;
        case 'c': option.connections = atoi(optarg); break;
        case 'z': option.size = atoi(optarg); break;
        case 'l': option.lines = atoi(optarg); break;
        case 's': option.seconds = atof(optarg); break;
        case 'm': option.messages = atol(optarg); option.seconds = 0; break;
        case 'w': option.warmup = atol(optarg); break;
        case 't': option.timeout = atof(optarg); break;
        case 'i': option.idle = atoi(optarg); break;
        case 'n': option.sources = atoi(optarg); break;
        case 'u': option.pace_us = atol(optarg); break;
        case 'b': option.burst = 1; break;
        case 'S': option.steps = 1; break;
        case 'a': option.ask = optarg; break;
        case 'e': option.expect = optarg; break;
        case 'C': option.close = 1; break;
        default: usage();
        }
    if (!option.ask != !option.expect) usage();
    if (option.ask) option.size = (int)strlen(option.ask);
    option.answer = option.expect ? (int)strlen(option.expect) : option.size;
    if (!option.ask && option.size < MIN_SIZE) usage();
    if (!option.port || optind < argc || option.size > MAX_SIZE
        || (option.lines && (option.lines < 0 || option.size % option.lines
                             || option.size / option.lines <= MIN_SIZE))
        || option.sources < 1 || option.connections < 0 || option.idle < 0) usage();
    if (!option.messages) option.messages = INT64_MAX;
}

int main(int argc, char **argv) {
    char line[16];
    parse(argc, argv);
    raise_limit(option.idle + option.connections);
    if ((poller = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
    clients = calloc((size_t)option.connections + 1, sizeof *clients);
    crowd = calloc((size_t)option.idle + 1, sizeof *crowd);
    open_crowd();
    for (int i = 0; i < option.connections; i++) open_client(&clients[i], i);
    if (option.warmup) run(option.warmup, 0, 0);
    if (option.steps) {
        puts("open");
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin)) exit(2);
    }
    int64_t start = now();
    long done = option.connections ? run(option.messages, option.seconds, 1) : 0;
    double elapsed = (double)(now() - start) / 1e9;
    check_crowd();
    long failed = failures.refused + failures.reset + failures.early_end + failures.wrong
                  + failures.timeout + failures.other + idle_lost;
    printf("{\"messages\": %ld, \"seconds\": %.6f, \"size\": %d, \"connections\": %d, "
           "\"idle\": %d, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
           "\"failures\": {\"refused\": %ld, \"reset\": %ld, \"early_end\": %ld, "
           "\"wrong\": %ld, \"timeout\": %ld, \"idle_lost\": %ld, \"other\": %ld}}\n",
           done, elapsed, option.size, option.connections, crowd_size, percentile_us(50),
           percentile_us(99), percentile_us(99.9), failures.refused, failures.reset,
           failures.early_end, failures.wrong, failures.timeout, idle_lost, failures.other);
    fflush(stdout);
    while (option.steps && fgets(line, sizeof line, stdin)) {}
    return failed != 0;
}
