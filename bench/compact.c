/* Size and speed of compact segments on data like node_exporter's: targets × series, 15 s apart, a share of
 * each kind as measured there. Prints bytes a sample by section, then CPU time a sample of writing, verifying,
 * reading all and reading the last hour. Not part of any test run. Usage: bench_compact [targets [samples]]. */
#include "metric/metric.h"
#include "model/labels.h"

#include "data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KIND_COUNT = 8, PER_TARGET = 100, BUCKET_COUNT = 15 };

static void must(err e, const char *what)
{
    if (e != OK) {
        fprintf(stderr, "%s: %s\n", what, err_text(e));
        exit(1);
    }
}

/* Percent of series by kind: constant, at rest, integer counter, seconds, full counter, pages, gauge, full
 * gauge; the other 32 are two histograms with _count. */
static unsigned kind_of(unsigned series)
{
    static const unsigned ends[KIND_COUNT] = { 21, 37, 48, 54, 58, 64, 66, 68 };
    unsigned kind = 0;
    while (kind < KIND_COUNT && series >= ends[kind])
        kind++;
    return (enum data_kind)kind;
}

/* The bucket of rank `bucket` (0 = +Inf) of one histogram, always the same for the same seed. */
static void fill_bucket(uint64_t *bits, size_t n, unsigned bucket, uint64_t seed)
{
    uint64_t state = seed, count = 1000;
    for (size_t i = 0; i < n; i++) {
        for (int hits = 0; hits < 4; hits++)
            count += data_random(&state) % BUCKET_COUNT >= bucket;
        bits[i] = double_bits((double)count);
    }
}

static struct slice series_labels(struct pool *pool, unsigned series, unsigned target, uint64_t *out_seed,
                                  unsigned *out_bucket)
{
    char name[64], instance[32], le[16] = "", cpu[16] = "";
    unsigned h = series - 68;
    *out_seed = (uint64_t)target * 1000 + series;
    *out_bucket = BUCKET_COUNT + 1;
    if (series < 68) {
        snprintf(name, sizeof name, "node_metric_%u_total", series / 4);
        snprintf(cpu, sizeof cpu, "%u", series % 4);
    } else {
        unsigned bucket = h % 16;
        snprintf(name, sizeof name, "http_request_duration_seconds_%u_%s", h / 16,
                 bucket == 15 ? "count" : "bucket");
        if (bucket == 0)
            strcpy(le, "+Inf");
        else if (bucket < 15)
            snprintf(le, sizeof le, "%g", 1000.0 / (1u << bucket));
        *out_seed = (uint64_t)target * 1000 + h / 16 + 500;
        *out_bucket = bucket == 15 ? 0 : bucket;
    }
    snprintf(instance, sizeof instance, "host-%04u.example:9100", target);
    struct label l[] = { { slice_str("__name__"), slice_str(name) },
                         { slice_str("instance"), slice_str(instance) },
                         { slice_str("job"), slice_str("node") },
                         { slice_str("le"), slice_str(le) },
                         { slice_str("cpu"), slice_str(cpu) } };
    struct buf b = buf_open(pool, 4096);
    struct slice copy;
    must(labels_encode(l, 5, &b, NULL), "labels");
    must(pool_copy(pool, buf_slice(&b), &copy), "labels");
    buf_close(&b);
    return copy;
}

struct item {
    struct slice labels;
    uint64_t seed;
    unsigned series, target, bucket;
};

static int compare(const void *a, const void *b)
{
    return metric_series_compare(((const struct item *)a)->labels, ((const struct item *)b)->labels);
}

static void write_all(struct metric_compact_writer *w, struct item *items, size_t count, size_t samples)
{
    int64_t *t_ms = calloc(samples, 8);
    uint64_t *bits = calloc(samples, 8);
    if (t_ms == NULL || bits == NULL)
        exit(1);
    for (size_t i = 0; i < count; i++) {
        uint64_t state = items[i].target;
        int64_t offset = (int64_t)(data_random(&state) % 15000);
        for (size_t k = 0; k < samples; k++)
            t_ms[k] = INT64_C(1700000000000) + offset + (int64_t)k * 15000 +
                      (data_random(&state) % 50 == 0 ? (int64_t)(data_random(&state) % 20) : 0);
        if (items[i].bucket <= BUCKET_COUNT)
            fill_bucket(bits, samples, items[i].bucket, items[i].seed);
        else
            data_fill(bits, samples, kind_of(items[i].series), &items[i].seed);
        struct metric_rows rows = { .t_ms = t_ms, .value_bits = bits, .count = samples };
        must(metric_compact_writer_series(w, slice_str("default"), items[i].labels, &rows), "series");
    }
    free(t_ms);
    free(bits);
}

static void print_sizes(struct segment_source source, struct pool *pool, double rows)
{
    static const char *const names[] = { "",
                                         "tenants",
                                         "index",
                                         "directory",
                                         "directory table",
                                         "values",
                                         "timelines",
                                         "timeline directory",
                                         "histograms",
                                         "exemplars",
                                         "",
                                         "metadata" };
    struct segment *segment;
    must(segment_open(source, NULL, pool, &segment, NULL), "segment");
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (segment_block_count(segment, i) > 0)
            printf("  %-20s %8.4f B a sample (%.4f before the second stage)\n", names[i],
                   (double)segment_stored_bytes(segment, i) / rows,
                   (double)segment_section_bytes(segment, i) / rows);
    segment_close(segment);
}

static void time_reads(struct segment_source source, struct pool *pool, struct time_range range,
                       const char *what)
{
    struct segment_cache *cache;
    struct metric_compact *compact;
    struct metric_compact_cursor *cursor;
    struct sample_columns columns = sample_columns_open(pool);
    must(segment_cache_open(pool, 1u << 30, 4, &cache), "cache");
    must(metric_compact_open(source, cache, pool, &compact, NULL), "open");
    must(metric_compact_cursor_open(compact, METRIC_COMPACT_TIMELINES_MAX, pool, &cursor), "cursor");
    uint64_t series = metric_compact_info(compact)->series_count;
    double best = 1e18, rows = 0;
    for (int again = 0; again < 4; again++) {
        double from = now_ns();
        rows = 0;
        for (uint32_t i = 0; i < series; i++) {
            sample_columns_clear(&columns);
            must(metric_compact_read(cursor, i, range, &columns, NULL), "read");
            rows += (double)columns.count;
        }
        double took = now_ns() - from;
        best = again > 0 && took < best ? took : best;
    }
    printf("read %-12s %8.3f ns a sample, %.0f ns a series\n", what, best / rows, best / (double)series);
    sample_columns_close(&columns);
    metric_compact_cursor_close(cursor);
    metric_compact_close(compact);
    segment_cache_close(cache);
}

int main(int argc, char **argv)
{
    size_t targets = argc > 1 ? strtoul(argv[1], NULL, 10) : 10;
    size_t samples = argc > 2 ? strtoul(argv[2], NULL, 10) : 1440;
    char directory[] = "/tmp/kelpie-bench-XXXXXX";
    struct io *io;
    struct io_file *file;
    struct segment_source source;
    struct metric_compact_written written;
    struct metric_compact_writer *w;
    struct pool *pool = pool_open(NULL, "bench", POOL_BYTES_UNLIMITED);
    size_t count = targets * PER_TARGET;
    struct item *items = calloc(count, sizeof *items);
    if (items == NULL || mkdtemp(directory) == NULL)
        return 1;
    must(io_open(directory, &io), "io");
    for (size_t i = 0; i < count; i++) {
        items[i].series = (unsigned)(i % PER_TARGET);
        items[i].target = (unsigned)(i / PER_TARGET);
        items[i].labels =
            series_labels(pool, items[i].series, items[i].target, &items[i].seed, &items[i].bucket);
    }
    qsort(items, count, sizeof *items, compare);
    struct metric_compact_config config = { .path = "s" };
    double rows = (double)count * (double)samples;
    double from = now_ns();
    must(metric_compact_writer_open(io, &config, pool, &w), "writer");
    write_all(w, items, count, samples);
    must(metric_compact_writer_finish(w, NULL, NULL, &written), "finish");
    metric_compact_writer_close(w);
    printf("write %.1f ns a sample (with making the data); %.4f B a sample\n", (now_ns() - from) / rows,
           (double)written.file.size / rows);
    must(io_file_open(io, "s", IO_READ, &file), "open");
    must(segment_source_file(file, &source), "size");
    print_sizes(source, pool, rows);
    from = now_ns();
    must(metric_compact_verify(source, written.file.digest, pool, NULL, NULL), "verify");
    printf("verify %.2f ns a sample\n", (now_ns() - from) / rows);
    int64_t last_ms = written.info.time.max_ms;
    time_reads(source, pool, (struct time_range){ INT64_MIN, INT64_MAX }, "all");
    time_reads(source, pool, (struct time_range){ last_ms - MS_PER_HOUR, last_ms }, "last hour");
    io_file_close(file);
    must(io_unlink(io, "s"), "unlink");
    io_close(io);
    rmdir(directory);
    free(items);
    pool_close(pool);
    return 0;
}
