/* Any bytes as what a target says, scrape after scrape. Input: byte 0 chooses job and format; then pages, each a
 * byte for its length in units of 64 bytes (0: the target fails) and its text. Rows handed on have canonical
 * labels; a series gets a stale marker when it goes, and only then; at the end none is left alive. */
#include "base/test.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "ingest/ingest.h"
#include "ingest/scrape_run.h"
#include "io/thread.h"
#include "model/sample.h"
#include "model/yaml.h"
#include "net/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ALIVE_MAX 4096
#define PAGES_MAX 8

static struct io *io;
static struct pool *root;
static struct net_server *server;
static struct slice page; /* set while no request runs */
static const char *page_type;
static uint64_t alive[ALIVE_MAX]; /* hashes of series whose newest row is not a stale marker */
static size_t alive_count;

static void handle(void *context, struct net_request *request, struct net_response *response)
{
    response->status = page.len > 0 ? 200 : 500;
    response->content_type = page_type;
    buf_put_slice(&response->body, page);
}

static void set_alive(uint64_t hash, bool is_alive)
{
    size_t i = 0;
    while (i < alive_count && alive[i] != hash)
        i++;
    if (is_alive && i == alive_count && alive_count < ALIVE_MAX)
        alive[alive_count++] = hash;
    else if (!is_alive && i < alive_count)
        alive[i] = alive[--alive_count];
}

static int64_t now_ms;  /* of the scrape */
static bool is_tracked; /* false: pages say times of their own, and such series get no stale markers */

static void take(void *context, struct slice tenant, const struct ingest_rows *rows,
                 struct ingest_result *out_result)
{
    for (size_t i = 0; i < rows->row_count; i++) {
        const struct ingest_row *row = &rows->rows[i];
        check(labels_check(row->labels, NULL) == OK &&
              labels_get(row->labels, slice_str("__name__")).len > 0);
        if (is_tracked && row->t_ms == now_ms)
            set_alive(hash64(row->labels, 0), row->value_bits != SAMPLE_STALE_BITS);
    }
    for (size_t i = 0; i < rows->exemplar_count; i++)
        check(rows->exemplars[i].row < rows->row_count &&
              labels_check(rows->exemplars[i].labels, NULL) == OK);
    for (size_t i = 0; i < rows->metadata_count; i++)
        check(rows->metadata[i].family.len > 0);
    *out_result = (struct ingest_result){ .status = 204, .samples = rows->row_count };
}

static struct scrape_config *configs[4];

static void leave(void)
{
    for (size_t i = 0; i < 4; i++)
        scrape_config_release(configs[i]);
    net_server_close(server, 5000);
    pool_close(root);
    io_close(io);
}

static void open_all(void)
{
    static const struct net_route route = { NET_GET, "/metrics", handle, 0, false };
    static const char *const extras[4] = {
        "honor_timestamps: true",
        "honor_labels: true, honor_timestamps: false",
        "label_limit: 4, label_name_length_limit: 12, label_value_length_limit: 20, sample_limit: 8, "
        "honor_timestamps: false",
        "track_timestamps_staleness: true, metric_relabel_configs: [{action: drop, source_labels: "
        "[__name__], regex: "
        "'d.*'}, {action: labeldrop, regex: 'x.*'}, {source_labels: [a], target_label: b, replacement: "
        "'${1}c'}]",
    };
    struct net_server_config net = net_server_config_default();
    struct err_at at = { 0 };
    check(io_open("/tmp", &io) == OK);
    root = pool_open(NULL, "fuzz", POOL_BYTES_UNLIMITED);
    net.routes = &route;
    net.route_count = 1;
    net.listen = "127.0.0.1:0";
    check(net_server_open(io, root, &net, &server, &at) == OK);
    for (int i = 0; i < 4; i++) {
        char text[1000];
        struct yaml_node *node;
        snprintf(text, sizeof text,
                 "[{job_name: j, scrape_interval: 20s, scrape_timeout: 20s, static_configs: [{targets: "
                 "['127.0.0.1:%u'], labels: {instance: i}}], %s}]",
                 net_server_port(server), extras[i]);
        check(yaml_parse(slice_str(text), root, &node, &at) == OK);
        check(scrape_config_load(NULL, node, slice_str(""), root, &configs[i], &at) == OK);
    }
    atexit(leave);
}

static void scrape(struct scrape_work *work, struct target *target, const struct scrape_job *job,
                   struct slice text, int64_t t_ms)
{
    struct scrape_outcome outcome;
    page = text;
    now_ms = t_ms;
    scrape_run(work, target, job, target->timeout_ms, t_ms, &outcome);
    check((outcome.health == SCRAPE_UP) == (outcome.error[0] == 0));
    target->last_scrape_ms = t_ms;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    if (server == NULL)
        open_all();
    const struct scrape_job *job = &configs[data[0] & 3]->jobs[0];
    struct pool *pool = pool_open(NULL, "fuzz", 256u << 20);
    struct scrape_work work;
    struct target_spec spec;
    struct target *target;
    _Atomic bool abort = false;
    page_type = data[0] & 4 ? "application/openmetrics-text; version=1.0.0" : "text/plain; version=0.0.4";
    alive_count = 0;
    is_tracked = (data[0] & 3) != 0;
    check(target_build(job, &job->groups[0], 0, slice_of("", 0), pool, &spec) == OK && !spec.is_dropped);
    check(target_open(&spec, job, pool, &target) == OK);
    check(scrape_work_open(io, (struct scrape_sink){ take, NULL }, &abort, pool, &work) == OK);
    struct reader r = reader_of(slice_of(data + 1, size - 1));
    int64_t t_ms = 1000003;
    for (int i = 0; i < PAGES_MAX && read_left(&r) > 1; i++, t_ms += 1000000) {
        size_t len = read_u8(&r) * 64u;
        scrape(&work, target, job, read_bytes(&r, len < read_left(&r) ? len : read_left(&r)), t_ms);
    }
    now_ms = t_ms;
    scrape_end(&work, target, job, now_ms);
    check(alive_count == 0 || alive_count == ALIVE_MAX);
    scrape_work_close(&work);
    target_close(target);
    pool_close(pool);
    return 0;
}
