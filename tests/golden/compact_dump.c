/* The text of a compact segment, and the making of the golden one.
 *   compact_dump make FILE    write tests/golden/compact_N.segment anew (N the format's version)
 *   compact_dump FILE         rows by ordinal: a line "series", then time, type, value bits or histogram in hex,
 *                             start; exemplars; metadata
 * tests/model/compact_model.py prints the same from the page alone. */
#include "metric/metric.h"
#include "model/labels.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(err e, const char *what)
{
    if (e != OK) {
        fprintf(stderr, "%s: %s\n", what, err_text(e));
        exit(1);
    }
}

static uint64_t random_u64(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return hash_mix(*state);
}

enum { ROWS = 700, BUCKETS = 4, PLAIN = 9 };

static void labels_of(struct buf *out, const char *name, const char *le)
{
    struct label l[] = { { slice_str("__name__"), slice_str(name) },
                         { slice_str("job"), slice_str("golden") },
                         { slice_str("le"), slice_str(le) } };
    buf_clear(out);
    must(labels_encode(l, 3, out, NULL), "labels");
}

static uint64_t value_of(int series, int row, uint64_t *state)
{
    uint64_t r = random_u64(state);
    switch (series) {
    case 0:
        return double_bits(42);
    case 1:
        return double_bits((double)(row * 100 + (int)(r % 7)));
    case 2:
        return double_bits((double)(row * 15 + (int)(r % 64)) / 100);
    case 3:
        return r;
    case 4:
        return double_bits(4096.0 * (double)(row / 10));
    case 5:
        return r % 50 == 0 ? SAMPLE_STALE_BITS : double_bits((double)(r % 9) / 10);
    case 6:
        return r % 40 == 0 ? UINT64_C(1) << 63 : double_bits(row < 350 ? 1e6 + row : row);
    case 7:
        return double_bits(1e9 + (double)row * (double)row);
    default:
        return double_bits((double)(r >> 11) * 0x1p-53);
    }
}

static void make_series(struct metric_compact_writer *w, struct slice tenant, struct buf *labels, int series)
{
    static int64_t t_ms[ROWS], start_ms[ROWS];
    static uint64_t bits[ROWS];
    static struct sample_histogram histograms[ROWS];
    static uint8_t bytes[ROWS][40];
    uint64_t state = (uint64_t)series;
    size_t count = series == 8 ? 200 : ROWS, histogram_count = 0;
    for (int i = 0; i < (int)count; i++) {
        t_ms[i] =
            INT64_C(1700000000000) + i * 15000 + (i % 90 == 7 ? 3 : 0) - (series == 1 && i == 20 ? 15000 : 0);
        start_ms[i] = i < 300 ? 1699999999000 : 1700004500000;
        bits[i] = value_of(series, i, &state);
        if (series == 2 && i % 3 == 0) {
            memset(bytes[i], i % 251, sizeof bytes[i]);
            histograms[histogram_count++] = (struct sample_histogram){ (uint32_t)i, slice_of(bytes[i], 40) };
        }
    }
    struct metric_rows rows = { .t_ms = t_ms,
                                .value_bits = bits,
                                .start_ms = series == 7 ? start_ms : NULL,
                                .count = count,
                                .histograms = histograms,
                                .histogram_count = histogram_count };
    must(metric_compact_writer_series(w, tenant, buf_slice(labels), &rows), "series");
    struct source_exemplar x[2] = { { buf_slice(labels), t_ms[0], 0.25 }, { slice_str(""), t_ms[9], -1 } };
    must(metric_compact_writer_exemplars(w, x, series % 3 == 1 ? 2 : 0), "exemplars");
}

static void make_buckets(struct metric_compact_writer *w, struct slice tenant, struct buf *labels)
{
    static const char *const les[BUCKETS + 1] = { "+Inf", "10", "2.5", "1", "" };
    for (int b = 0; b <= BUCKETS; b++) {
        static int64_t t_ms[ROWS];
        static uint64_t bits[ROWS];
        uint64_t state = 99, count = 0;
        for (int i = 0; i < ROWS; i++) {
            t_ms[i] = INT64_C(1700000000000) + i * 15000;
            count += random_u64(&state) % BUCKETS >= (uint64_t)(b % BUCKETS);
            bits[i] = double_bits((double)count);
        }
        struct metric_rows rows = { .t_ms = t_ms, .value_bits = bits, .count = ROWS };
        labels_of(labels, b < BUCKETS ? "seconds_bucket" : "seconds_count", les[b]);
        must(metric_compact_writer_series(w, tenant, buf_slice(labels), &rows), "bucket");
    }
}

static void make(struct io *io, const char *path, struct pool *pool)
{
    struct metric_compact_config config = { .path = path,
                                            .partition = 2,
                                            .from_generation = 1,
                                            .from_offset = 10,
                                            .to_generation = 1,
                                            .to_offset = 20 };
    struct metric_compact_written written;
    struct metric_compact_writer *w;
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    must(metric_compact_writer_open(io, &config, pool, &w), "writer");
    for (int tenant = 0; tenant < 2; tenant++) {
        struct slice name = slice_str(tenant == 0 ? "alpha" : "beta");
        struct batch_metadata m = { .family = slice_str("seconds"),
                                    .type = METRIC_HISTOGRAM,
                                    .help = slice_str("How long."),
                                    .unit = slice_str("seconds") };
        for (int series = 0; series < PLAIN; series++) {
            char metric[32];
            snprintf(metric, sizeof metric, "metric_%d", series);
            labels_of(&labels, metric, "");
            make_series(w, name, &labels, series);
        }
        make_buckets(w, name, &labels);
        must(metric_compact_writer_metadata(w, name, &m), "metadata");
    }
    must(metric_compact_writer_finish(w, NULL, NULL, &written), "finish");
    metric_compact_writer_close(w);
    buf_close(&labels);
}

static void print_hex(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        printf("%02x", s.at[i]);
}

static void print_series(struct metric_compact *c, struct metric_compact_cursor *cursor, uint32_t ordinal,
                         struct pool *pool)
{
    struct metric_rows rows;
    struct source_exemplar *x;
    size_t count, h = 0;
    struct err_at at;
    must(metric_compact_read_all(cursor, ordinal, &rows, &at), "read");
    printf("series %" PRIu32 "\n", ordinal);
    for (size_t i = 0; i < rows.count; i++) {
        bool is_histogram = h < rows.histogram_count && rows.histograms[h].row == i;
        printf("%" PRId64 " ", rows.t_ms[i]);
        if (is_histogram) {
            printf("h ");
            print_hex(rows.histograms[h++].bytes);
        } else {
            printf("f %016" PRIx64, rows.value_bits[i]);
        }
        printf(" %" PRId64 "\n", rows.start_ms == NULL ? 0 : rows.start_ms[i]);
    }
    must(metric_compact_exemplars(c, ordinal, pool, &x, &count, &at), "exemplars");
    for (size_t i = 0; i < count; i++) {
        printf("exemplar %" PRId64 " %016" PRIx64 " ", x[i].t_ms, double_bits(x[i].value));
        print_hex(x[i].labels);
        printf("\n");
    }
}

static void dump(struct io *io, const char *path, struct pool *pool)
{
    struct io_file *file;
    struct segment_source source;
    struct segment_info info;
    struct metric_compact *c;
    struct metric_compact_cursor *cursor;
    struct err_at at = { 0 };
    must(io_file_open(io, path, IO_READ, &file), path);
    must(segment_source_file(file, &source), path);
    must(metric_compact_verify(source, NULL, pool, &info, &at), at.text);
    must(metric_compact_open(source, NULL, pool, &c, &at), at.text);
    must(metric_compact_cursor_open(c, METRIC_COMPACT_TIMELINES_MAX, pool, &cursor), "cursor");
    printf("rows %" PRIu64 " distinct %" PRIu64 " from %" PRId64 " to %" PRId64 "\n", info.sum.count,
           info.distinct.count, info.time.min_ms, info.time.max_ms);
    for (uint32_t i = 0; i < info.series_count; i++)
        print_series(c, cursor, i, pool);
    for (size_t t = 0; t < metric_compact_info(c)->tenant_count; t++) {
        struct batch_metadata *m;
        size_t count;
        struct slice tenant = metric_compact_info(c)->tenants[t];
        must(metric_compact_metadata(c, tenant, pool, &m, &count, &at), "metadata");
        for (size_t i = 0; i < count; i++)
            printf("metadata %.*s %.*s %u %.*s %.*s\n", SLICE_ARG(tenant), SLICE_ARG(m[i].family), m[i].type,
                   SLICE_ARG(m[i].help), SLICE_ARG(m[i].unit));
    }
    metric_compact_cursor_close(cursor);
    metric_compact_close(c);
    io_file_close(file);
}

int main(int argc, char **argv)
{
    struct io *io;
    struct pool *pool = pool_open(NULL, "dump", POOL_BYTES_UNLIMITED);
    if (argc < 2)
        return 2;
    must(io_open(".", &io), "io");
    if (argc == 3 && strcmp(argv[1], "make") == 0)
        make(io, argv[2], pool);
    else
        dump(io, argv[1], pool);
    io_close(io);
    pool_close(pool);
    return 0;
}
