/* kelpie verify, fsck, export: work on a data directory whose node does not run.
 *
 * The directory is locked meanwhile, so that no node starts on it. verify and fsck are shard/'s functions, their
 * findings go to standard output line by line. export opens the storage as a node does, applies the tail of
 * the log in this thread, and prints rows as exposition text with timestamps. */
#include "node/offline.h"

#include "base/time.h"
#include "model/labels.h"
#include "node/commands.h"
#include "node/node.h"
#include "node/options.h"
#include "shim/number.h"

#include <stdio.h>
#include <string.h>

err offline_open(const char *data_directory, struct offline *out, struct err_at *at)
{
    *out = (struct offline){ 0 };
    err e = io_open(data_directory, &out->io);
    if (e != OK)
        return err_set(at, e, "cannot open the data directory %s: %s", data_directory, err_text(e));
    out->pool = pool_open(NULL, "offline", POOL_BYTES_UNLIMITED);
    TRY(identity_open(out->io, out->pool, 0, 0, &out->identity, &out->lock, at));
    uint64_t memory_bytes = io_memory_bytes(out->io) / 2;
    struct log_config log = {
        .directory = "log",
        .partition_count = out->identity.partition_count,
        .ack = LOG_ACK_FSYNC,
        .file_bytes = 64u << 20,
        .queue_bytes_max = 64u << 20,
        .tail_bytes_max = 64u << 20,
    };
    memcpy(log.cluster_id, out->identity.cluster_id, sizeof log.cluster_id);
    TRY(log_open(&log, out->io, out->pool, &out->log, at));
    TRY(blob_open_dir("blob", out->io, out->pool, &out->blob));
    out->config = shards_config_default(memory_bytes);
    out->config.partition_count = out->identity.partition_count;
    out->config.range_bytes_max = out->identity.range_bytes_max;
    return OK;
}

void offline_close(struct offline *offline)
{
    if (offline->log != NULL)
        log_close(offline->log);
    if (offline->blob != NULL)
        blob_close(offline->blob);
    identity_close(offline->lock);
    pool_close(offline->pool);
    if (offline->io != NULL)
        io_close(offline->io);
}

/* ---- verify, fsck ---- */

static void print_line(void *context, bool is_damage, const char *text)
{
    printf("%s%s\n", is_damage ? "DAMAGE " : "", text);
}

typedef err (*check_function)(const struct shards_config *config, struct io *io, struct log *log,
                              struct blob *blob, struct pool *pool, const struct shard_report *report,
                              struct shard_check *out_check);

static int run_check(const char *name, const char *data_directory, check_function run)
{
    struct offline offline;
    struct err_at at = { 0 };
    struct shard_check check = { 0 };
    struct shard_report report = { .line = print_line };
    err e = offline_open(data_directory, &offline, &at);
    if (e == OK)
        e = run(&offline.config, offline.io, offline.log, offline.blob, offline.pool, &report, &check);
    if (e != OK)
        fprintf(stderr, "kelpie %s: %s\n", name, at.text[0] != 0 ? at.text : err_text(e));
    else
        printf("%llu files, %llu bytes, %llu rows, %llu segments, %llu row groups, %llu log records: %llu damaged,"
               " %llu bytes that nothing names\n", (unsigned long long)check.file_count,
               (unsigned long long)check.byte_count, (unsigned long long)check.row_count,
               (unsigned long long)check.segment_count, (unsigned long long)check.group_count,
               (unsigned long long)check.record_count, (unsigned long long)check.damage_count,
               (unsigned long long)check.unaccounted_bytes);
    offline_close(&offline);
    return e == OK && check.damage_count == 0 ? 0 : 1;
}

static int check_command(const char *name, const char *summary, check_function run, int argc, char **argv)
{
    const char *data_directory = NODE_DATA_DEFAULT;
    const struct option list[] = {
        { "--data", "DIR", "data directory (default: data)", &data_directory, NULL },
    };
    const struct command self = { .name = name, .operands = "", .summary = summary, .options = list,
                                  .option_count = 1 };
    const char *operands[OPTIONS_OPERANDS_MAX];
    size_t count;
    int failed = options_parse(&self, argc, argv, operands, &count);
    if (failed != 0)
        return failed == 1 ? 0 : failed;
    return run_check(name, data_directory, run);
}

int command_verify(int argc, char **argv)
{
    return check_command("verify",
                         "Read every checksum and compare every sum of a data directory. Changes nothing;"
                         " exit status 1 if there is damage.",
                         shard_verify, argc, argv);
}

int command_fsck(int argc, char **argv)
{
    return check_command("fsck", "Verify, then move what is damaged or unnamed to quarantine/, so that a node can"
                         " start and answers name what is missing.", shard_fsck, argc, argv);
}

/* ---- export ---- */

struct export {
    struct offline offline;
    struct shards *shards;
    const char *tenant;
    int64_t start_ms, end_ms;
    uint64_t histogram_count;
};

/* name{a="b",c="d"} with the escapes of exposition text. */
static void put_series(struct buf *out, struct slice labels)
{
    struct reader r = reader_of(labels);
    struct label label;
    bool first = true;
    buf_put_slice(out, labels_get(labels, slice_str("__name__")));
    buf_put_u8(out, '{');
    while (labels_next(&r, &label)) {
        if (slice_equal_str(label.name, "__name__"))
            continue;
        buf_printf(out, "%s%.*s=\"", first ? "" : ",", SLICE_ARG(label.name));
        first = false;
        for (size_t i = 0; i < label.value.len; i++) {
            uint8_t c = label.value.at[i];
            if (c == '\\' || c == '"')
                buf_put_u8(out, '\\');
            if (c == '\n')
                buf_put_str(out, "\\n");
            else
                buf_put_u8(out, c);
        }
        buf_put_u8(out, '"');
    }
    buf_put_str(out, "} ");
}

static void print_rows(struct export *export, struct slice series, const struct sample_columns *columns)
{
    char number[NUMBER_TEXT_BYTES_MAX];
    size_t histogram = 0;
    for (size_t i = 0; i < columns->count; i++) {
        if (histogram < columns->histogram_count && columns->histograms[histogram].row == i) {
            histogram++;
            export->histogram_count++;
            continue;
        }
        size_t len = number_print_json(columns->values[i], number);
        printf("%.*s%.*s %lld\n", SLICE_ARG(series), (int)len, number, (long long)columns->t_ms[i]);
    }
}

static err export_set(struct export *export, struct source *source, struct source_set *set)
{
    struct pool *pool = pool_open(export->offline.pool, "export", POOL_BYTES_UNLIMITED);
    struct sample_columns columns = sample_columns_open(pool);
    struct buf series = buf_open(pool, 4 * LABELS_BYTES_MAX);
    err e = OK;
    for (size_t i = 0; e == OK && i < source->table->set_count(set); i++) {
        buf_clear(&series);
        put_series(&series, source->table->set_labels(set, i));
        e = source->table->set_read(set, i, &columns);
        if (e == OK)
            print_rows(export, buf_slice(&series), &columns);
    }
    sample_columns_close(&columns);
    buf_close(&series);
    pool_close(pool);
    return e;
}

static err export_rows(struct export *export, bool *out_complete, struct err_at *at)
{
    struct offline *offline = &export->offline;
    struct source_set *set;
    TRY(shards_open(&offline->config, offline->io, offline->log, offline->blob, offline->pool,
                    &export->shards, at));
    TRY(shards_wait_applied(export->shards, INT64_MAX));
    struct guard guard = { .io = offline->io, .deadline_ns = INT64_MAX, .samples_max = UINT64_MAX };
    struct source *source = shards_source(export->shards);
    struct source_request request = {
        .tenant = slice_str(export->tenant),
        .range = { export->start_ms, export->end_ms },
        .series_max = SIZE_MAX,
        .guard = &guard,
    };
    TRY(source->table->select(source, &request, offline->pool, &set));
    err e = export_set(export, source, set);
    const struct proof *proof = source->table->set_proof(set);
    *out_complete = proof->complete;
    for (size_t i = 0; i < proof->missing_count; i++)
        fprintf(stderr, "missing: %s, partition %u, %lld to %lld ms\n", proof->missing[i].reason,
                proof->missing[i].partition, (long long)proof->missing[i].range.min_ms,
                (long long)proof->missing[i].range.max_ms);
    source->table->set_close(set);
    return e;
}

static int run_export(struct export *export, const char *data_directory)
{
    struct err_at at = { 0 };
    bool is_complete = true;
    err e = offline_open(data_directory, &export->offline, &at);
    if (e == OK)
        e = export_rows(export, &is_complete, &at);
    if (export->shards != NULL)
        shards_close(export->shards);
    offline_close(&export->offline);
    if (e != OK)
        fprintf(stderr, "kelpie export: %s\n", at.text[0] != 0 ? at.text : err_text(e));
    if (export->histogram_count > 0)
        fprintf(stderr, "%llu native histograms have no form in exposition text and were left out\n",
                (unsigned long long)export->histogram_count);
    return e == OK && is_complete ? 0 : 1;
}

int command_export(int argc, char **argv)
{
    struct export export = { .tenant = "default", .start_ms = TIME_MS_MIN, .end_ms = TIME_MS_MAX };
    const char *data_directory = NODE_DATA_DEFAULT;
    bool is_rows = false;
    const struct option list[] = {
        { "--data", "DIR", "data directory (default: data)", &data_directory, NULL },
        { "--tenant", "NAME", "whose rows (default: default)", &export.tenant, NULL },
        { "--rows", NULL, "exposition text, one row a line (this is the default)", NULL, &is_rows },
    };
    const struct command self = { .name = "export", .operands = "", .options = list,
                                  .summary = "Print the rows of a tenant as exposition text with timestamps (ms).",
                                  .option_count = sizeof list / sizeof list[0] };
    const char *operands[OPTIONS_OPERANDS_MAX];
    size_t count;
    int failed = options_parse(&self, argc, argv, operands, &count);
    if (failed != 0)
        return failed == 1 ? 0 : failed;
    return run_export(&export, data_directory);
}
