/* Test only: a target server on 127.0.0.1 whose pages the test sets, and a sink that writes down what it is given.
 * One of each in a program: scrape_fixture_open before the tests, scrape_fixture_close behind them. */
#ifndef INGEST_SCRAPE_FIXTURE_H
#define INGEST_SCRAPE_FIXTURE_H

#include "base/test.h"

#include <string.h>

#include "codec/gzip.h"
#include "ingest/discovery_file.h"
#include "ingest/ingest.h"
#include "ingest/scrape_run.h"
#include "io/io.h"
#include "io/thread.h"
#include "model/sample.h"
#include "net/server.h"

static struct pool *root;
static struct io *io;
static struct net_server *server;
static char directory[100];

/* ---- the target ---- */

static struct io_mutex lock;
static char page[1 << 16];
static const char *page_type = "text/plain; version=0.0.4";
static unsigned page_status = 200;
static char last_path[300], last_accept[600], last_authorization[200];
static _Atomic int hits;

static inline void handle_page(void *context, struct net_request *q, struct net_response *r)
{
    atomic_fetch_add(&hits, 1);
    io_mutex_lock(&lock);
    snprintf(last_path, sizeof last_path, "%.*s", SLICE_ARG(q->target));
    snprintf(last_accept, sizeof last_accept, "%.*s", SLICE_ARG(net_request_header(q, "Accept")));
    snprintf(last_authorization, sizeof last_authorization, "%.*s",
             SLICE_ARG(net_request_header(q, "Authorization")));
    r->status = page_status;
    r->content_type = page_type;
    buf_put_str(&r->body, page);
    io_mutex_unlock(&lock);
}

static _Atomic int stalls_begun;

static inline void handle_stall(void *context, struct net_request *q, struct net_response *r)
{
    atomic_fetch_add(&stalls_begun, 1);
    while (!net_request_canceled(q))
        io_sleep_ns(io, 5000000);
}

static inline err endless(void *context, struct buf *chunk)
{
    for (int i = 0; i < 1000; i++)
        buf_put_str(chunk, "endless_metric{a=\"b\"} 1\n");
    return OK;
}

static inline void handle_endless(void *context, struct net_request *q, struct net_response *r)
{
    r->next = endless;
    r->content_type = "text/plain";
}

static inline void handle_bomb(void *context, struct net_request *q, struct net_response *r)
{
    static char zeros[1 << 20];
    struct gzip_writer *writer;
    assert_ok(gzip_writer_open(q->pool, 1, &writer));
    for (int i = 0; i < 4; i++)
        assert_ok(gzip_writer_add(writer, slice_of(zeros, sizeof zeros), i == 3, &r->body));
    gzip_writer_close(writer);
    assert_ok(net_response_header(r, "Content-Encoding", "gzip"));
}

static inline err cut(void *context, struct buf *chunk)
{
    buf_put_str(chunk, "cut 1\n");
    return ERR_IO;
}

static inline void handle_cut(void *context, struct net_request *q, struct net_response *r) { r->next = cut; }

static const struct net_route routes[] = {
    { NET_GET, "/metrics", handle_page, 0, false },    { NET_GET, "/stall", handle_stall, 0, false },
    { NET_GET, "/endless", handle_endless, 0, false }, { NET_GET, "/bomb", handle_bomb, 0, false },
    { NET_GET, "/cut", handle_cut, 0, false },
};

static inline void set_page(const char *text)
{
    io_mutex_lock(&lock);
    snprintf(page, sizeof page, "%s", text);
    io_mutex_unlock(&lock);
}

/* ---- the sink ---- */

static char rows_text[1 << 18];
static size_t rows_len;
static int sink_status = 204;

static inline void put_labels(struct slice labels)
{
    struct buf out = buf_open(root, 100000);
    labels_print(labels, &out);
    rows_len += (size_t)snprintf(rows_text + rows_len, sizeof rows_text - rows_len, "%.*s",
                                 SLICE_ARG(buf_slice(&out)));
    buf_close(&out);
}

static inline void sink(void *context, struct slice tenant, const struct ingest_rows *rows,
                        struct ingest_result *out_result)
{
    io_mutex_lock(&lock);
    for (size_t i = 0; i < rows->row_count && rows_len < sizeof rows_text - 2000; i++) {
        const struct ingest_row *row = &rows->rows[i];
        double v = bits_double(row->value_bits);
        put_labels(row->labels);
        rows_len += (size_t)snprintf(rows_text + rows_len, sizeof rows_text - rows_len,
                                     sample_is_stale(v) ? " stale @%lld\n" : " %2$g @%1$lld\n",
                                     (long long)row->t_ms, v);
    }
    for (size_t i = 0; i < rows->exemplar_count; i++) {
        rows_len += (size_t)snprintf(rows_text + rows_len, sizeof rows_text - rows_len,
                                     "exemplar of row %u: ", rows->exemplars[i].row);
        put_labels(rows->exemplars[i].labels);
        rows_len += (size_t)snprintf(rows_text + rows_len, sizeof rows_text - rows_len, " %g\n",
                                     rows->exemplars[i].value);
    }
    for (size_t i = 0; i < rows->metadata_count; i++)
        rows_len += (size_t)snprintf(rows_text + rows_len, sizeof rows_text - rows_len,
                                     "metadata %.*s %d %.*s\n", SLICE_ARG(rows->metadata[i].family),
                                     rows->metadata[i].type, SLICE_ARG(rows->metadata[i].help));
    *out_result = (struct ingest_result){ .status = sink_status, .samples = rows->row_count };
    if (sink_status != 204)
        snprintf(out_result->text, sizeof out_result->text, "no");
    io_mutex_unlock(&lock);
}

static inline char *take_rows(void)
{
    static char text[sizeof rows_text];
    io_mutex_lock(&lock);
    memcpy(text, rows_text, rows_len);
    text[rows_len] = 0;
    rows_len = 0;
    io_mutex_unlock(&lock);
    return text;
}

/* ---- configuration, and what tests ask ---- */

static inline struct scrape_config *load(const char *jobs)
{
    char text[4000];
    struct yaml_node *node;
    struct scrape_config *config = NULL;
    struct err_at at = { 0 };
    snprintf(text, sizeof text, "scrape_configs: %s", jobs);
    struct pool *tree = pool_open(root, "tree", POOL_BYTES_UNLIMITED);
    err e = yaml_parse(slice_str(text), tree, &node, &at);
    if (e == OK)
        e = scrape_config_load(NULL, yaml_get(node, "scrape_configs"), slice_str(""), root, &config, &at);
    if (e != OK)
        fail_msg("%s", at.text);
    pool_close(tree);
    return config;
}

#define assert_has(text, part)                             \
    do {                                                   \
        if (strstr(text, part) == NULL)                    \
            fail_msg("no \"%s\" in:\n%.900s", part, text); \
    } while (0)
#define assert_hasnt(text, part)                        \
    do {                                                \
        if (strstr(text, part) != NULL)                 \
            fail_msg("\"%s\" in:\n%.900s", part, text); \
    } while (0)

/* False: the machine does not allow it. */
static inline bool scrape_fixture_open(void)
{
    snprintf(directory, sizeof directory, "/tmp/kelpie-scrape-test-XXXXXX");
    if (mkdtemp(directory) == NULL || io_open(directory, &io) != OK)
        return false;
    root = pool_open(NULL, "scrape_test", POOL_BYTES_UNLIMITED);
    io_mutex_init(&lock);
    struct net_server_config config = net_server_config_default();
    config.listen = "127.0.0.1:0";
    config.routes = routes;
    config.route_count = sizeof routes / sizeof routes[0];
    struct err_at at;
    return net_server_open(io, root, &config, &server, &at) == OK;
}

static inline void scrape_fixture_close(void)
{
    net_server_close(server, 100);
    io_mutex_done(&lock);
    io_close(io);
    remove(directory);
    pool_close(root);
}

#endif
