/*
 * tls_load: request/response clients over TLS that check every byte, and clients that only come.
 *
 * N connections each send a message, wait for the whole answer, compare it with what an `echo`
 * service must give back, and send the next.  With --handshakes each of the N connects, shakes
 * hands in full (no session is resumed), has four bytes echoed, says goodbye and comes again.
 * Steps and report are those of load.c: `open`, a line on stdin, one JSON object on stdout.
 *
 * It offers TLS 1.3 with one cipher, so that every server does the same work, and trusts anybody.
 */
#include "load.h"

#include <getopt.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>

enum { MAX_SIZE = 1 << 20, EVENTS = 256 };

struct client {
    SSL *ssl;
    int fd;
    int secured;
    int sent, received;    /* bytes of the current message, always <= its size */
};

static struct {
    int port, connections, size;
    long messages, warmup, handshakes;
    double timeout;
} option = { .connections = 50, .size = 64, .timeout = 60 };

static SSL_CTX *context;
static struct client *clients;
static int poller;
static long done, started, wanted;
static unsigned char *message, *answer;

static void fail(struct client *c, const char *what) {
    fprintf(stderr, "tls_load: %s: %s\n", what, ERR_error_string(ERR_peek_error(), NULL));
    ERR_clear_error();
    failures.other++;
    epoll_ctl(poller, EPOLL_CTL_DEL, c->fd, NULL);
}

/* Non-blocking from the connect on; the handshake goes on as events come. */
static void begin(struct client *c, int n) {
    struct target target = { .host = "127.0.0.1", .port = option.port, .sources = 4 };
    memset(c, 0, sizeof *c);
    if ((c->fd = open_connection(target, n, SOCK_NONBLOCK)) < 0) return;
    c->ssl = SSL_new(context);
    SSL_set_fd(c->ssl, c->fd);
    SSL_set_connect_state(c->ssl);
    struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c };
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
}

static void end(struct client *c) {
    SSL_shutdown(c->ssl);
    SSL_free(c->ssl);
    close(c->fd);
}

static int length(void) { return option.handshakes ? 4 : option.size; }

/* Whether `result` of an SSL call means "later"; counts anything worse. */
static int later(struct client *c, int result, const char *what) {
    int error = SSL_get_error(c->ssl, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) fail(c, what);
    ERR_clear_error();
    return 1;
}

/* Sends what is left of the message. */
static void send_rest(struct client *c) {
    while (c->sent < length()) {
        int n = SSL_write(c->ssl, message + c->sent, length() - c->sent);
        if (n <= 0) { later(c, n, "write"); return; }
        c->sent += n;
    }
}

static void next(struct client *c) {
    c->received = c->sent = 0;
    if (started < wanted) { started++; send_rest(c); }
    else c->sent = length();
}

/* Goes on as far as it can; the events are edge-triggered. */
static void advance(struct client *c, int n) {
    if (!c->secured) {
        int result = SSL_connect(c->ssl);
        if (result <= 0) { later(c, result, "handshake"); return; }
        c->secured = 1;
        if (!option.handshakes) { done++; c->sent = length(); return; }
        c->sent = 0;
    }
    if (c->sent < length()) send_rest(c);
    for (;;) {
        int got = SSL_read(c->ssl, answer, length() - c->received);
        if (got <= 0) { later(c, got, "read"); return; }
        if (memcmp(answer, message + c->received, (size_t)got)) failures.wrong++;
        c->received += got;
        if (c->received < length()) continue;
        done++;
        if (!option.handshakes) { next(c); continue; }
        end(c);
        if (started < wanted) { started++; begin(c, n); }
        return;
    }
}

/* Serves events until `done` has reached `goal`. */
static void run(long goal) {
    struct epoll_event events[EVENTS];
    int64_t deadline = now() + (int64_t)(option.timeout * 1e9);
    while (done < goal && !failures.other && !failures.wrong) {
        int count = epoll_wait(poller, events, EVENTS, 1000);
        if (now() > deadline) { failures.timeout++; return; }
        for (int i = 0; i < count; i++) {
            struct client *c = events[i].data.ptr;
            advance(c, (int)(c - clients));
        }
    }
}

/* Has `count` messages, or handshakes, done. */
static void load(long count) {
    done = started = 0;
    wanted = count;
    for (int i = 0; i < option.connections && started < wanted; i++) {
        if (!option.handshakes) next(&clients[i]);
        else { started++; begin(&clients[i], i); }
    }
    run(count);
}

static void wait_line(void) {
    char line[16];
    if (!fgets(line, sizeof line, stdin)) exit(2);
}

int main(int argc, char **argv) {
    static const struct option names[] = {
        { "port", 1, 0, 'p' }, { "connections", 1, 0, 'c' }, { "size", 1, 0, 's' },
        { "messages", 1, 0, 'm' }, { "warmup", 1, 0, 'w' }, { "handshakes", 1, 0, 'h' },
        { "steps", 0, 0, 'S' },  /* the only way; accepted because load.c has it */
        { 0 },
    };
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) switch (c) {
        case 'p': option.port = atoi(optarg); break;
        case 'c': option.connections = atoi(optarg); break;
        case 's': option.size = atoi(optarg); break;
        case 'm': option.messages = atol(optarg); break;
        case 'w': option.warmup = atol(optarg); break;
        case 'h': option.handshakes = atol(optarg); break;
        case 'S': break;
        default: return 2;
    }
    if (option.size < 4 || option.size > MAX_SIZE) { fprintf(stderr, "size\n"); return 2; }
    raise_limit(option.connections);
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    poller = epoll_create1(EPOLL_CLOEXEC);
    clients = calloc((size_t)option.connections, sizeof *clients);
    message = malloc(MAX_SIZE);
    answer = malloc(MAX_SIZE);
    srand(1);
    for (int i = 0; i < MAX_SIZE; i++) message[i] = (unsigned char)rand();
    if (!option.handshakes) {
        for (int i = 0; i < option.connections; i++) begin(&clients[i], i);
        run(option.connections);
    }
    load(option.warmup);
    puts("open");
    fflush(stdout);
    wait_line();
    int64_t begun = now();
    load(option.handshakes ? option.handshakes : option.messages);
    printf("{\"messages\": %ld, \"seconds\": %.3f, \"failures\": {\"refused\": %ld, \"reset\": %ld, "
           "\"early_end\": %ld, \"wrong\": %ld, \"timeout\": %ld, \"other\": %ld}}\n",
           done, (double)(now() - begun) / 1e9, failures.refused, failures.reset,
           failures.early_end, failures.wrong, failures.timeout, failures.other);
    fflush(stdout);
    while (getchar() != EOF) { }
    return failures.other || failures.wrong || failures.timeout;
}
