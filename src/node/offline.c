/* kelpie verify, fsck, export: work on a data directory whose node does not run.
 *
 * The directory is locked meanwhile, so that no node starts on it. verify and fsck are shard/'s functions and
 * account.c, their findings go to standard output line by line. export opens the storage as a node does, but
 * read-only, applies the tail of the log in this thread, and prints rows as exposition text with timestamps:
 * those a query of everything would get, or (--rows) all that are stored. */
#include "node/offline.h"

#include "base/time.h"
#include "model/histogram.h"
#include "model/labels.h"
#include "node/account.h"
#include "node/commands.h"
#include "node/node.h"
#include "node/options.h"
#include "node/progress.h"
#include "shim/number.h"

#include <stdio.h>
#include <string.h>

#define SERIES_TEXT_BYTES_MAX (4 * LABELS_BYTES_MAX) /* every byte escaped, and the quotes */

err offline_open(const char *data_directory, bool read_only, struct offline *out, struct err_at *at)
{
    *out = (struct offline){ 0 };
    err e = io_open(data_directory, &out->io);
    if (e != OK)
        return err_set(at, e, "cannot open the data directory %s: %s", data_directory,
                       e == ERR_NOT_FOUND ? "there is no such directory; --data names it" : err_text(e));
    node_secret_draw(out->io);
    out->pool = pool_open(NULL, "offline", POOL_BYTES_UNLIMITED);
    out->is_snapshot = identity_is_snapshot(out->io);
    if (out->is_snapshot && !read_only)
        return err_set(
            at, ERR_INPUT,
            "%s is a snapshot, and nothing changes one: kelpie restore %s --data NEWDIR makes a data"
            " directory of it, then kelpie fsck --data NEWDIR",
            data_directory, data_directory);
    struct err_at why = { 0 };
    e = identity_open(out->io, out->pool, NULL, &out->identity, &out->lock, &why);
    if (e != OK)
        return err_set(at, e, "data directory %s: %s", data_directory, why.text);
    if (out->identity.is_member)
        return err_set(
            at, ERR_INPUT,
            "%s is that of a node in a cluster: its data is in the log and the bucket, and all that is"
            " here can be had from them again",
            data_directory);
    uint64_t memory_bytes = io_memory_bytes(out->io) / 2;
    struct log_config log = {
        .directory = "log",
        .partition_count = out->identity.partition_count,
        .ack = LOG_ACK_FSYNC,
        .file_bytes = 64u << 20,
        .queue_bytes_max = 64u << 20,
        .tail_bytes_max = 64u << 20,
        .read_only = read_only,
    };
    memcpy(log.cluster_id, out->identity.cluster_id, sizeof log.cluster_id);
    TRY(log_open(&log, out->io, out->pool, &out->log, at));
    TRY((read_only ? blob_open_dir_as_is : blob_open_dir)("blob", out->io, out->pool, &out->blob));
    out->config = shards_config_default(memory_bytes);
    out->config.partition_count = out->identity.partition_count;
    out->config.range_bytes_max = out->identity.range_bytes_max;
    out->config.read_only = read_only;
    out->config.without_log = out->is_snapshot;
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

static bool has_foreign(const struct shard_check *check)
{
    const struct shard_class_sum *foreign = &check->classes[SHARD_CLASS_FOREIGN];
    return foreign->file_count > 0 || foreign->byte_count > 0;
}

typedef err (*check_function)(const struct shards_config *config, struct io *io, struct log *log,
                              struct blob *blob, struct pool *pool, const struct shard_report *report,
                              struct shard_check *out_check);

#define ACCEPT_MS_MAX (60 * MS_PER_MINUTE)

/* fsck has set aside what is damaged; what that takes away is accepted, and what a start would name. */
static err accept_losses(struct offline *offline, struct err_at *at)
{
    struct shards *shards;
    struct shards_accepted accepted;
    TRY(shards_open(&offline->config, offline->io, offline->log, offline->blob, offline->pool, &shards, at));
    err e = shards_losses_accept(shards, io_monotonic_ns(offline->io) + ACCEPT_MS_MAX * NS_PER_MS, &accepted);
    if (e == OK)
        printf("accepted: %llu losses, %llu segments, %llu rows without labels; answers are complete without "
               "them,"
               " verify lists them\n",
               (unsigned long long)accepted.loss_count, (unsigned long long)accepted.segment_count,
               (unsigned long long)accepted.waiting_row_count);
    shards_close(shards);
    return e;
}

/* What a person may do now. */
static void print_advice(const char *data_directory, bool is_snapshot, bool is_verify,
                         const struct shard_check *check)
{
    if (check->newer_count > 0)
        printf("%llu are of a newer format: run the Kelpie that wrote them, or a newer one\n",
               (unsigned long long)check->newer_count);
    if (has_foreign(check))
        printf("what is foreign is never read nor removed: move it out of %s\n", data_directory);
    if (is_snapshot && check->damage_count > 0)
        printf("to get what is whole: kelpie restore %s --data NEWDIR, then kelpie fsck --data NEWDIR\n",
               data_directory);
    else if (is_verify && check->damage_count > 0)
        printf("to set aside what is damaged and repair what can be: kelpie fsck --data %s\n",
               data_directory);
    if (!is_verify && check->damage_count > 0)
        printf(
            "the node can start; what could not be repaired is named in its answers. A snapshot may have it"
            " (kelpie restore); kelpie fsck --confirm-loss --data %s accepts that it is gone\n",
            data_directory);
}

static void print_sums(const struct shard_check *check)
{
    printf(
        "%llu files, %llu bytes, %llu rows, %llu segments, %llu row groups, %llu log records: %llu damaged\n",
        (unsigned long long)check->file_count, (unsigned long long)check->byte_count,
        (unsigned long long)check->row_count, (unsigned long long)check->segment_count,
        (unsigned long long)check->group_count, (unsigned long long)check->record_count,
        (unsigned long long)check->damage_count);
    account_print(check);
}

struct check_command {
    const char *name;
    const char *data_directory;
    bool accepts;      /* --confirm-loss */
    bool has_progress; /* --progress */
    check_function run;
};

static err check_directory(const struct check_command *command, struct offline *offline,
                           struct shard_check *check, struct err_at *at)
{
    TRY(offline_open(command->data_directory, command->run == shard_verify, offline, at));
    struct progress progress = progress_open(command->name, offline->io, command->has_progress);
    struct shard_report report = { print_line, &progress, progress_tell };
    err e = command->run(&offline->config, offline->io, offline->log, offline->blob, offline->pool, &report,
                         check);
    *at = check->at;
    return e == OK ? account_directory(offline, &report, check) : e;
}

static int run_check(const struct check_command *command)
{
    struct offline offline;
    struct err_at at = { 0 };
    struct shard_check check = { 0 };
    bool is_verify = command->run == shard_verify;
    err e = check_directory(command, &offline, &check, &at);
    if (e != OK)
        fprintf(stderr, "kelpie %s: %s\n", command->name, at.text[0] != 0 ? at.text : err_text(e));
    else
        print_sums(&check);
    bool is_fine = e == OK && check.damage_count == 0 && check.newer_count == 0;
    if (is_verify)
        is_fine = is_fine && !has_foreign(&check);
    if (e == OK && !command->accepts)
        print_advice(command->data_directory, offline.is_snapshot, is_verify, &check);
    if (e == OK && command->accepts) {
        e = accept_losses(&offline, &at);
        is_fine = e == OK;
        if (e != OK)
            fprintf(stderr, "kelpie %s: cannot accept the losses: %s\n", command->name,
                    at.text[0] != 0 ? at.text : err_text(e));
    }
    offline_close(&offline);
    return is_fine ? 0 : 1;
}

static int check_command(const char *name, const char *summary, check_function run, int argc, char **argv)
{
    struct check_command check = { .name = name, .data_directory = NODE_DATA_DEFAULT, .run = run };
    const struct option list[] = {
        { "--data", "DIR", "data directory (default: data)", &check.data_directory, NULL },
        PROGRESS_OPTION(&check.has_progress),
        { "--confirm-loss", NULL,
          "then accept everything that is lost: it stays listed, but answers are complete without it", NULL,
          &check.accepts },
    };
    const struct command self = { .name = name,
                                  .operands = "",
                                  .summary = summary,
                                  .options = list,
                                  .option_count = run == shard_fsck ? 3 : 2 };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    return run_check(&check);
}

int command_verify(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--cluster") == 0)
            return command_verify_cluster(argc, argv);
    return check_command(
        "verify",
        "Read every checksum and compare every sum of a data directory or a snapshot, and say what"
        " every\nbyte in it is. Changes nothing; exit status 1 if there is damage, or a file that is"
        " not Kelpie's.\nWith --cluster, of a running cluster: kelpie verify --cluster --help.",
        shard_verify, argc, argv);
}

int command_fsck(int argc, char **argv)
{
    return check_command(
        "fsck",
        "Verify, then move what is damaged to quarantine/, so that a node can start and answers"
        " name what\nis missing. What nothing names is told: the next start removes it. Exit status 1"
        " if there was damage.",
        shard_fsck, argc, argv);
}

/* ---- export ---- */

struct export
{
    struct offline offline;
    struct shards *shards;
    struct pool *pool; /* reset between series */
    const char *tenant;
    bool has_progress;
    struct progress progress;
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

/* Histograms have no form in exposition text: a comment with what people look for, and the canonical bytes
 * (docs/format/histogram.md), so that equal rows give equal lines. */
static err print_histogram(struct export *export, struct slice series, struct slice bytes, int64_t t_ms)
{
    char count[NUMBER_TEXT_BYTES_MAX], sum[NUMBER_TEXT_BYTES_MAX];
    struct histogram h;
    TRY(histogram_decode(bytes, export->pool, &h));
    size_t count_len = h.is_float
                           ? number_print_json(h.count_float, count)
                           : (size_t)snprintf(count, sizeof count, "%llu", (unsigned long long)h.count_int);
    size_t sum_len = number_print_json(h.sum, sum);
    printf("# histogram %.*scount=%.*s sum=%.*s bytes=", SLICE_ARG(series), (int)count_len, count,
           (int)sum_len, sum);
    for (size_t i = 0; i < bytes.len; i++)
        printf("%02x", bytes.at[i]);
    printf(" %lld\n", (long long)t_ms);
    return OK;
}

static err print_columns(struct export *export, struct slice series, const struct sample_columns *columns)
{
    char number[NUMBER_TEXT_BYTES_MAX];
    size_t histogram = 0;
    for (size_t i = 0; i < columns->count; i++) {
        if (histogram < columns->histogram_count && columns->histograms[histogram].row == i) {
            TRY(print_histogram(export, series, columns->histograms[histogram++].bytes, columns->t_ms[i]));
            continue;
        }
        size_t len = number_print_json(columns->values[i], number);
        printf("%.*s%.*s %lld\n", SLICE_ARG(series), (int)len, number, (long long)columns->t_ms[i]);
    }
    return OK;
}

static err export_series(struct export *export, const struct source_table *table,
                         struct source_reader *reader, size_t series, struct sample_columns *columns)
{
    pool_reset(export->pool);
    struct buf labels = buf_open(export->pool, LABELS_BYTES_MAX);
    struct buf text = buf_open(export->pool, SERIES_TEXT_BYTES_MAX);
    TRY(table->read_labels(reader, series, &labels));
    put_series(&text, buf_slice(&labels));
    TRY(buf_err(&text));
    TRY(table->read_samples(reader, series, columns));
    return print_columns(export, buf_slice(&text), columns);
}

static err export_set(struct export *export, struct source *source, struct source_set *set)
{
    struct sample_columns columns = sample_columns_open(export->offline.pool);
    struct source_reader *reader;
    TRY(source->table->reader_open(set, &reader));
    err e = OK;
    size_t count = source->table->set_count(set);
    export->progress.unit = "series";
    for (size_t i = 0; e == OK && i < count; i++) {
        e = export_series(export, source->table, reader, i, &columns);
        progress_tell(&export->progress, i + 1, count);
    }
    source->table->reader_close(reader);
    sample_columns_close(&columns);
    return e;
}

/* What a query of everything would get. */
static err export_resolved(struct export *export, struct err_at *at)
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
        .range = { TIME_MS_MIN, TIME_MS_MAX },
        .series_max = SIZE_MAX,
        .guard = &guard,
    };
    TRY(source->table->select(source, &request, offline->pool, &set));
    err e = export_set(export, source, set);
    const struct proof *proof = source->table->set_proof(set);
    for (size_t i = 0; i < proof->missing_count; i++)
        fprintf(stderr, "missing: %s, partition %u, %lld to %lld ms\n", proof->missing[i].reason,
                proof->missing[i].partition, (long long)proof->missing[i].range.min_ms,
                (long long)proof->missing[i].range.max_ms);
    if (e == OK && !proof->complete)
        e = err_set(at, ERR_CORRUPT, "the rows are not complete; what is missing is named above");
    source->table->set_close(set);
    return e;
}

static err print_stored(void *context, const struct shard_rows *rows)
{
    struct export *export = context;
    pool_reset(export->pool);
    struct buf series = buf_open(export->pool, SERIES_TEXT_BYTES_MAX);
    if (rows->incarnation != NULL) {
        buf_put_str(&series, "# unresolved incarnation=");
        for (int i = 0; i < 16; i++)
            buf_printf(&series, "%02x", rows->incarnation[i]);
        buf_printf(&series, " number=%u ", rows->number);
    } else if (slice_equal_str(rows->tenant, export->tenant)) {
        put_series(&series, rows->labels);
    } else {
        return OK;
    }
    err e = buf_err(&series);
    if (e == OK)
        e = print_columns(export, buf_slice(&series), rows->columns);
    buf_close(&series);
    return e;
}

static void tell_stored(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
    struct export *export = context;
    progress_tell(&export->progress, done_bytes, total_bytes);
}

/* Every row that is stored, as often as it is. */
static err export_stored(struct export *export, struct err_at *at)
{
    struct offline *offline = &export->offline;
    struct shard_rows_door door = { print_stored, export, tell_stored };
    struct shard_exported exported;
    TRY(shard_export(&offline->config, offline->io, offline->log, offline->blob, offline->pool, &door,
                     &exported, at));
    fprintf(stderr,
            "%llu rows, %llu more of series without labels; %llu log records were seen before, %llu are"
            " damaged\n",
            (unsigned long long)exported.row_count, (unsigned long long)exported.unresolved_count,
            (unsigned long long)exported.duplicate_record_count,
            (unsigned long long)exported.lost_record_count);
    return OK;
}

static int run_export(struct export *export, const char *data_directory, bool is_stored)
{
    struct err_at at = { 0 };
    err e = offline_open(data_directory, true, &export->offline, &at);
    if (e == OK) {
        export->pool = pool_open(export->offline.pool, "export", POOL_BYTES_UNLIMITED);
        export->progress = progress_open("export", export->offline.io, export->has_progress);
        e = is_stored ? export_stored(export, &at) : export_resolved(export, &at);
    }
    if (export->shards != NULL)
        shards_close(export->shards);
    if (export->pool != NULL)
        pool_close(export->pool);
    offline_close(&export->offline);
    if (fflush(stdout) != 0 && e == OK)
        e = err_set(&at, ERR_IO, "cannot write the rows to standard output");
    if (e != OK)
        fprintf(stderr, "kelpie export: %s\n", at.text[0] != 0 ? at.text : err_text(e));
    return e == OK ? 0 : 1;
}

int command_export(int argc, char **argv)
{
    struct export export = { .tenant = "default" };
    const char *data_directory = NODE_DATA_DEFAULT;
    bool is_rows = false;
    const struct option list[] = {
        { "--data", "DIR", "data directory (default: data)", &data_directory, NULL },
        { "--tenant", "NAME", "whose rows (default: default)", &export.tenant, NULL },
        { "--rows", NULL, "every row as it is stored, duplicates too, not what a query would get", NULL,
          &is_rows },
        PROGRESS_OPTION(&export.has_progress),
    };
    const struct command self = { .name = "export",
                                  .operands = "",
                                  .options = list,
                                  .summary =
                                      "Print the rows of a tenant as exposition text with timestamps (ms)."
                                      " Changes nothing.",
                                  .option_count = sizeof list / sizeof list[0] };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    return run_export(&export, data_directory, is_rows);
}
