/* A scheduled OpenAI-compatible server: every token leaves at a known time, so that the truth about a client's figures is
 * known. One thread, epoll, a heap of due chunks. Answers are ready-made text; sending one costs about 3 us.
 *
 *   scheduled_server PORT TTFT_MS TOKENS_PER_S TOKENS_PER_CHUNK [early=N] [words=N] [usage=0|1]
 *
 * Token i of a request (from 0) is due TTFT + i/rate after the request was read; a chunk leaves when its last token is due,
 * the first chunk at TTFT. Chat answers start with a chunk that holds a role and no token. GET /truth prints what really
 * left and when; GET /reset forgets it.
 *
 *   early=N  every request ends after N tokens, whatever it asked for
 *   words=N  a token is N white-space separated words (client-side counting is then N times too high)
 *   usage=0  no cumulative counts per chunk, only the final one
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 16384
#define MAX_LOG 200000

typedef struct {
    int fd, chat, each, include, limit, sent, prompt, heap_at, record;
    double start, due;
    char *in;
    size_t have, room, need;
} Conn;

typedef struct {
    double arrived, first, last;
    int tokens, first_tokens;
} Record;

static Conn *conns[MAX_FD];
static Conn *heap[MAX_FD];
static int heap_n;
static Record *records;
static int record_n;
static double ttft, rate, worst_late, late_sum;
static long chunks_sent, tokens_total, prompt_total;
static int per_chunk, early, words = 1, allow_usage = 1, live;
static char piece[4096];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void put(int at, Conn *c) {
    heap[at] = c;
    c->heap_at = at;
}

static void up(int i) {
    while (i > 0 && heap[(i - 1) / 2]->due > heap[i]->due) {
        Conn *a = heap[i], *b = heap[(i - 1) / 2];
        put(i, b);
        i = (i - 1) / 2;
        put(i, a);
    }
}

static void down(int i) {
    for (;;) {
        int s = i, l = 2 * i + 1, r = l + 1;
        if (l < heap_n && heap[l]->due < heap[s]->due) s = l;
        if (r < heap_n && heap[r]->due < heap[s]->due) s = r;
        if (s == i) return;
        Conn *a = heap[i], *b = heap[s];
        put(i, b);
        put(s, a);
        i = s;
    }
}

static void heap_remove(Conn *c) {
    int i = c->heap_at;
    if (i < 0) return;
    c->heap_at = -1;
    heap_n--;
    live--;
    if (i == heap_n) return;
    put(i, heap[heap_n]);
    up(i);
    down(i);
}

static void drop(Conn *c) {
    heap_remove(c);
    close(c->fd);
    conns[c->fd] = NULL;
    free(c->in);
    free(c);
}

static int push(Conn *c, const char *data, size_t n) {
    ssize_t done = send(c->fd, data, n, MSG_NOSIGNAL);
    if (done == (ssize_t)n) return 0;
    if (done < 0 && errno != EAGAIN) return -1;
    if (done < 0) done = 0;
    /* The client is behind: wait for it rather than lose bytes. */
    fcntl(c->fd, F_SETFL, 0);
    while ((size_t)done < n) {
        ssize_t k = send(c->fd, data + done, n - done, MSG_NOSIGNAL);
        if (k <= 0) return -1;
        done += k;
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    return 0;
}

static int event(char *out, Conn *c, const char *body, int usage) {
    char data[8192];
    int n = snprintf(data, sizeof data,
                     "data: {\"id\":\"cmpl-1\",\"object\":\"%s\",\"created\":1,\"model\":\"scripted\",\"choices\":[%s]",
                     c->chat ? "chat.completion.chunk" : "text_completion", body);
    if (usage)
        n += snprintf(data + n, sizeof data - n,
                      ",\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}", c->prompt, c->sent,
                      c->prompt + c->sent);
    n += snprintf(data + n, sizeof data - n, "}\n\n");
    int h = sprintf(out, "%x\r\n", n);
    memcpy(out + h, data, n);
    memcpy(out + h + n, "\r\n", 2);
    return h + n + 2;
}

static void reply(Conn *c, int status, const char *kind, const char *body) {
    static char out[1 << 22];
    int n = snprintf(out, sizeof out,
                     "HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: keep-alive\r\n\r\n%s", status, kind,
                     strlen(body), body);
    push(c, out, n);
}

static int number(const char *body, const char *name, int otherwise) {
    const char *at = strstr(body, name);
    if (!at) return otherwise;
    at += strlen(name);
    while (*at == ' ' || *at == ':' || *at == '"') at++;
    return *at >= '0' && *at <= '9' ? atoi(at) : otherwise;
}

static int truthy(const char *body, const char *name) {
    const char *at = strstr(body, name);
    if (!at) return 0;
    at += strlen(name);
    while (*at == ' ' || *at == ':' || *at == '"') at++;
    return !strncmp(at, "true", 4);
}

static void begin(Conn *c, const char *body, int chat) {
    char out[1024];
    c->start = now();
    c->chat = chat;
    c->each = allow_usage && truthy(body, "continuous_usage_stats");
    c->include = truthy(body, "include_usage");
    c->limit = number(body, "\"max_tokens\"", number(body, "\"max_completion_tokens\"", 16));
    if (early && early < c->limit) c->limit = early;
    c->sent = 0;
    c->prompt = 1;
    for (const char *p = body; *p; p++) c->prompt += *p == ' ';
    prompt_total += c->prompt;
    c->record = record_n < MAX_LOG ? record_n++ : MAX_LOG - 1;
    records[c->record] = (Record){.arrived = c->start};
    int n = sprintf(out,
                    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n");
    if (chat)
        n += event(out + n, c, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}",
                   c->each);
    if (push(c, out, n)) return;
    c->due = c->start + ttft;
    put(heap_n, c);
    heap_n++;
    live++;
    up(heap_n - 1);
}

static void send_due(Conn *c) {
    char out[20000], body[6000], text[5000];
    int k = per_chunk, n;
    if (k > c->limit - c->sent) k = c->limit - c->sent;
    double t = now(), late = t - c->due;
    late_sum += late;
    if (late > worst_late) worst_late = late;
    c->sent += k;
    tokens_total += k;
    chunks_sent++;
    Record *r = &records[c->record];
    if (r->tokens == 0) r->first = t, r->first_tokens = k;
    r->last = t;
    r->tokens = c->sent;
    int whole = c->sent >= c->limit;
    const char *why = whole ? (early ? "\"stop\"" : "\"length\"") : "null";
    text[0] = 0;
    for (int i = 0; i < k; i++) strcat(text, piece);
    snprintf(body, sizeof body,
             c->chat ? "{\"index\":0,\"delta\":{\"content\":\"%s\"},\"logprobs\":null,\"finish_reason\":%s}"
                     : "{\"index\":0,\"text\":\"%s\",\"logprobs\":null,\"finish_reason\":%s}",
             text, why);
    n = event(out, c, body, c->each);
    if (whole) {
        if (c->include) n += event(out + n, c, "", 1);
        n += sprintf(out + n, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
        heap_remove(c);
        if (push(c, out, n)) drop(c);
        return;
    }
    int next = per_chunk < c->limit - c->sent ? per_chunk : c->limit - c->sent;
    c->due = c->start + ttft + (c->sent + next - (records[c->record].first_tokens)) / rate;
    down(c->heap_at);
    if (push(c, out, n)) drop(c);
}

static void truth(Conn *c) {
    static char out[1 << 22];
    int n = sprintf(out, "{\"late_worst_ms\":%.4f,\"late_mean_ms\":%.4f,\"tokens\":%ld,\"requests\":[", 1e3 * worst_late,
                    chunks_sent ? 1e3 * late_sum / chunks_sent : 0.0, tokens_total);
    for (int i = 0; i < record_n && n < (1 << 22) - 200; i++)
        n += sprintf(out + n, "%s[%.7f,%.7f,%.7f,%d,%d]", i ? "," : "", records[i].arrived, records[i].first, records[i].last,
                     records[i].tokens, records[i].first_tokens);
    sprintf(out + n, "]}");
    reply(c, 200, "application/json", out);
}

static void request(Conn *c, char *head, char *body) {
    char page[1024];
    if (!strncmp(head, "POST /v1/chat/completions", 25)) begin(c, body, 1);
    else if (!strncmp(head, "POST /v1/completions", 20)) begin(c, body, 0);
    else if (!strncmp(head, "GET /v1/models", 14))
        reply(c, 200, "application/json",
              "{\"object\":\"list\",\"data\":[{\"id\":\"scripted\",\"object\":\"model\",\"root\":\"scripted\",\"max_model_len\":131072}]}");
    else if (!strncmp(head, "GET /health", 11)) reply(c, 200, "application/json", "{}");
    else if (!strncmp(head, "GET /truth", 10)) truth(c);
    else if (!strncmp(head, "GET /reset", 10)) {
        record_n = 0, worst_late = late_sum = 0, chunks_sent = 0;
        reply(c, 200, "application/json", "{}");
    } else if (!strncmp(head, "GET /metrics", 12)) {
        sprintf(page,
                "vllm:generation_tokens_total{engine=\"0\",model_name=\"scripted\"} %ld\n"
                "vllm:prompt_tokens_total{engine=\"0\",model_name=\"scripted\"} %ld\n"
                "vllm:num_requests_running{engine=\"0\",model_name=\"scripted\"} %d\n",
                tokens_total, prompt_total, live);
        reply(c, 200, "text/plain; version=0.0.4", page);
    } else reply(c, 404, "application/json", "{\"detail\":\"Not Found\"}");
}

static void readable(Conn *c) {
    for (;;) {
        if (c->room - c->have < 65536) c->in = realloc(c->in, c->room = c->room * 2 + 131072);
        ssize_t n = recv(c->fd, c->in + c->have, c->room - c->have - 1, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            drop(c);
            return;
        }
        if (n < 0) return;
        c->have += n;
        c->in[c->have] = 0;
        char *end = strstr(c->in, "\r\n\r\n");
        if (!end) continue;
        char *length = strcasestr(c->in, "content-length:");
        size_t head = end + 4 - c->in, size = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
        if (c->have < head + size) continue;
        c->have = 0;
        request(c, c->in, c->in + head);
        return;
    }
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: scheduled_server PORT TTFT_MS TOKENS_PER_S TOKENS_PER_CHUNK [early=N] [words=N] [usage=0|1]\n");
        return 2;
    }
    ttft = atof(argv[2]) / 1e3, rate = atof(argv[3]), per_chunk = atoi(argv[4]);
    for (int i = 5; i < argc; i++) {
        if (!strncmp(argv[i], "early=", 6)) early = atoi(argv[i] + 6);
        if (!strncmp(argv[i], "words=", 6)) words = atoi(argv[i] + 6);
        if (!strncmp(argv[i], "usage=", 6)) allow_usage = atoi(argv[i] + 6);
    }
    for (int i = 0; i < words; i++) strcat(piece, " word");
    records = calloc(MAX_LOG, sizeof *records);
    signal(SIGPIPE, SIG_IGN);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) {
        perror("scheduled_server");
        return 1;
    }
    struct epoll_event ready[256], want = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &want);
    for (;;) {
        double wait = heap_n ? heap[0]->due - now() : 1.0;
        struct timespec t = {0, 0};
        if (wait > 0) t.tv_sec = (time_t)wait, t.tv_nsec = (long)((wait - (time_t)wait) * 1e9);
        int n = epoll_pwait2(poll, ready, 256, &t, NULL);
        for (int i = 0; i < n; i++) {
            if (ready[i].data.fd == listener) {
                int fd;
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0 && fd < MAX_FD) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    Conn *c = conns[fd] = calloc(1, sizeof *c);
                    c->fd = fd, c->heap_at = -1, c->in = malloc(c->room = 262144);
                    want.data.fd = fd;
                    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &want);
                }
            } else if (conns[ready[i].data.fd]) readable(conns[ready[i].data.fd]);
        }
        double t_now = now();
        while (heap_n && heap[0]->due <= t_now) send_due(heap[0]);
    }
}
