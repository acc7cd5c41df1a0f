/* Nanoseconds and bytes a series of the live index, and a row of head and row groups, on series like
 * node_exporter's: 13 labels, 500 series a target, arrival target by target, spread over partitions. Not part
 * of any test run. Usage: bench_metric [series [rows a series [partitions]]]. */
#include "metric/metric.h"
#include "model/labels.h"
#include "model/sum.h"

#include "data.h"

#include <stdio.h>
#include <stdlib.h>

enum { TARGET_SERIES = 500 };

static void must(err e)
{
    if (e != OK) {
        fprintf(stderr, "failed: %s\n", err_text(e));
        exit(1);
    }
}

static void put_label(struct buf *out, const char *name, const char *format, unsigned value)
{
    char text[80];
    snprintf(text, sizeof text, format, value);
    labels_put(out, slice_str(name), slice_str(text));
}

static void make_labels(uint32_t number, struct buf *out)
{
    unsigned target = number / TARGET_SERIES, k = number % TARGET_SERIES, metric = k / 5;
    buf_clear(out);
    put_label(out, "__name__", "node_some_longer_metric_name_%u_total", metric);
    put_label(out, "az", "eu-central-1%u", target % 3);
    put_label(out, "cluster", "production-%u", target % 4);
    put_label(out, "container", "node-exporter", 0);
    put_label(out, "cpu", "%u", k % 5);
    put_label(out, "env", "production", 0);
    put_label(out, "instance", "host-%u.example.com:9100", target);
    put_label(out, "job", "kubernetes-node-exporter", 0);
    put_label(out, "mode", "mode_%u", metric % 8);
    put_label(out, "namespace", "monitoring-%u", target % 10);
    put_label(out, "pod", "node-exporter-%u", target * 7919u);
    put_label(out, "region", "eu-central-1", 0);
    put_label(out, "service", "node-exporter", 0);
    must(buf_err(out));
}

struct bench {
    struct pool *pool;
    struct metric_index *index;
    uint32_t series_count, rows_each, partition_count;
    struct slice *labels;
    uint32_t *partitions;
};

static const char tenant[] = "default";

static void bench_index(struct bench *b)
{
    struct pool *pool = pool_open(NULL, "index", POOL_BYTES_UNLIMITED);
    uint32_t id;
    bool is_new;
    must(metric_index_open(pool, b->partition_count, &b->index));
    double from = now_ns();
    for (uint32_t i = 0; i < b->series_count; i++) {
        must(metric_index_add(b->index, slice_str(tenant), b->labels[i], b->partitions[i], &id, &is_new));
    }
    double took = now_ns() - from;
    printf("index add, new        %7.0f ns a series, %5.2f s in all\n", took / b->series_count, took / 1e9);
    printf("index memory          %7.1f B a series (peak %.1f)\n", (double)pool_used(pool) / b->series_count,
           (double)pool_peak(pool) / b->series_count);
    from = now_ns();
    for (uint32_t i = 0; i < b->series_count; i += 10) {
        must(metric_index_add(b->index, slice_str(tenant), b->labels[i], b->partitions[i], &id, &is_new));
    }
    printf("index add, known      %7.0f ns a series\n", (now_ns() - from) / (b->series_count / 10.0));
    struct buf out = buf_open(b->pool, LABELS_BYTES_MAX);
    from = now_ns();
    for (uint32_t p = 0; p < b->partition_count; p++) {
        struct metric_index_describer *describer;
        must(metric_index_describer_open(b->index, p, pool, &describer));
        for (uint32_t local = 0; local < metric_index_local_count(b->index, p); local++) {
            struct slice tenant_of;
            buf_clear(&out);
            must(metric_index_describe(describer, local, &out, &tenant_of));
        }
        metric_index_describer_close(describer);
    }
    printf("index labels          %7.0f ns a series\n", (now_ns() - from) / b->series_count);
    buf_close(&out);
}

static void bench_select(struct bench *b, const char *what, const struct matcher *matchers, size_t count)
{
    uint32_t *ids;
    size_t found = 0;
    struct pool *pool = pool_open(b->pool, "select", POOL_BYTES_UNLIMITED);
    double from = now_ns();
    uint32_t token = metric_index_hold(b->index);
    for (int i = 0; i < 10; i++) {
        must(metric_index_select(b->index, slice_str(tenant), matchers, count, pool, &ids, &found));
        pool_reset(pool);
    }
    metric_index_release(b->index, token);
    printf("select %-38s %8.0f us, %zu series\n", what, (now_ns() - from) / 10e3, found);
    pool_close(pool);
}

static void bench_selects(struct bench *b)
{
    struct matcher name, regex, host, any, not_mode;
    must(matcher_init(b->pool, MATCH_EQUAL, slice_str("__name__"),
                      slice_str("node_some_longer_metric_name_7_total"), &name, NULL));
    must(matcher_init(b->pool, MATCH_REGEX, slice_str("instance"), slice_str("host-1.*"), &regex, NULL));
    must(matcher_init(b->pool, MATCH_EQUAL, slice_str("instance"), slice_str("host-17.example.com:9100"),
                      &host, NULL));
    must(matcher_init(b->pool, MATCH_REGEX, slice_str("pod"), slice_str(".*7.*"), &any, NULL));
    must(matcher_init(b->pool, MATCH_NOT_EQUAL, slice_str("mode"), slice_str("mode_1"), &not_mode, NULL));
    struct matcher pair[] = { name, regex }, single[] = { name, host }, slow[] = { name, any },
                   most[] = { not_mode };
    bench_select(b, "name", &name, 1);
    bench_select(b, "name, instance =", single, 2);
    bench_select(b, "name, instance =~ prefix", pair, 2);
    bench_select(b, "name, pod =~ .*7.*", slow, 2);
    bench_select(b, "mode != (nearly all)", most, 1);
    bench_select(b, "everything", NULL, 0);
    struct slice *values;
    size_t count;
    double from = now_ns();
    uint32_t token = metric_index_hold(b->index);
    must(metric_index_values(b->index, slice_str(tenant), slice_str("instance"), NULL, 0, b->pool, &values,
                             &count));
    metric_index_release(b->index, token);
    printf("values of instance                            %8.0f us, %zu values\n", (now_ns() - from) / 1e3,
           count);
    struct metric_cardinality cardinality;
    from = now_ns();
    must(metric_index_cardinality(b->index, slice_str(tenant), 10, b->pool, &cardinality));
    printf("cardinality                                   %8.0f us\n", (now_ns() - from) / 1e3);
    matcher_done(&name);
    matcher_done(&regex);
    matcher_done(&host);
    matcher_done(&any);
    matcher_done(&not_mode);
}

static bool keep_half(void *context, uint32_t id) { return id / 5000 % 3 == 0; }

static void bench_retain(struct bench *b)
{
    uint64_t dropped;
    double from = now_ns();
    must(metric_index_retain(b->index, keep_half, NULL, &dropped));
    printf("retain                %7.0f ns a series, %llu dropped\n", (now_ns() - from) / b->series_count,
           (unsigned long long)dropped);
}

static void bench_part(struct bench *b)
{
    struct pool *pool = pool_open(b->pool, "part", POOL_BYTES_UNLIMITED);
    struct metric_part_builder *builder;
    struct metric_part part;
    struct buf image = buf_open(pool, METRIC_PART_IMAGE_BYTES_MAX);
    must(metric_part_builder_open(pool, &builder));
    double from = now_ns();
    for (uint32_t i = 0; i < b->series_count; i++)
        must(metric_part_builder_add(builder, b->labels[i]));
    double added = now_ns();
    double held = (double)metric_part_builder_bytes(builder);
    must(metric_part_builder_finish(builder, &image));
    double finished = now_ns(), n = b->series_count;
    must(metric_part_open(buf_slice(&image), &part));
    printf("part: add %.0f ns, finish %.0f ns, builder %.0f B, image %.1f B a series: labels %.1f, postings "
           "%.1f, "
           "symbols and tables %.1f\n",
           (added - from) / n, (finished - added) / n, held / n, (double)image.len / n,
           (double)(part.blocks.len + part.block_index.len) / n,
           (double)(part.postings.len + part.pairs.len) / n,
           (double)(part.symbol_text.len + part.symbol_index.len + part.names.len + part.shapes.len +
                    part.shape_index.len) /
               n);
    metric_part_builder_close(builder);
    pool_close(pool);
}

/* ---- rows ---- */

static err describe(void *context, uint32_t local, struct buf *labels, struct slice *out_tenant)
{
    const struct bench *b = context;
    buf_put_slice(labels, b->labels[local]);
    *out_tenant = slice_str(tenant);
    return buf_err(labels);
}

static err read_at(void *context, uint64_t offset, void *at, size_t len)
{
    const struct slice *s = context;
    memcpy(at, s->at + offset, len);
    return OK;
}

static struct metric_head *fill_head(struct bench *b, uint32_t series)
{
    struct metric_head_config config = metric_head_config_default();
    config.rows_max = series * b->rows_each;
    struct metric_head *head;
    must(metric_head_open(b->pool, &config, &head));
    enum { BATCH = 500 };
    uint32_t locals[BATCH];
    int64_t t_ms[BATCH];
    uint64_t bits[BATCH];
    double appending = 0;
    for (uint32_t round = 0; round < b->rows_each; round++)
        for (uint32_t from = 0; from < series; from += BATCH) {
            uint32_t count = series - from < BATCH ? series - from : BATCH;
            for (uint32_t i = 0; i < count; i++) {
                uint32_t local = from + i;
                uint64_t noise = hash_mix(local * 1000003ull + round);
                locals[i] = local;
                t_ms[i] = 1700000000000 + round * 15000 + (int64_t)(from / BATCH) % 15000;
                const double kinds[] = { 7.0, (double)(local * 100 + round * (noise % 90)),
                                         (double)(noise % 10000) / 100, (double)(noise >> 11) * 0x1p-53 };
                bits[i] = double_bits(kinds[local % 4]);
            }
            double start = now_ns();
            must(metric_head_append(head, locals, t_ms, bits, count, NULL, 0));
            metric_head_publish(head);
            appending += now_ns() - start;
        }
    printf("head append           %7.1f ns a row (fresh memory), %.1f B a row held\n",
           appending / ((double)series * b->rows_each),
           (double)pool_used(b->pool) / ((double)series * b->rows_each));
    return head;
}

static void bench_rows(struct bench *b)
{
    uint32_t series = b->series_count;
    double rows = (double)series * b->rows_each;
    b->pool = pool_open(NULL, "rows", POOL_BYTES_UNLIMITED);
    struct pool *block = pool_open(NULL, "block", POOL_BYTES_UNLIMITED);
    struct pool *scratch = pool_open(NULL, "scratch", POOL_BYTES_UNLIMITED);
    struct metric_head *head = fill_head(b, series);
    struct metric_head_view view = metric_head_view(head);
    struct sample_columns columns = sample_columns_open(scratch);
    struct time_range all = { INT64_MIN, INT64_MAX };
    double from = now_ns();
    for (uint32_t i = 0; i < series; i += 3) {
        sample_columns_clear(&columns);
        must(metric_head_read(&view, i, all, &columns));
    }
    printf("head read             %7.1f ns a row\n", (now_ns() - from) / (rows / 3));
    struct metric_stream_numbers numbers = metric_stream_numbers_open(scratch);
    struct metric_series_door door = { describe, b };
    for (int round = 0; round < 2; round++) {
        struct metric_group_result result;
        struct pool *encoding = pool_open(NULL, "encode", POOL_BYTES_UNLIMITED);
        struct buf bytes = buf_open(encoding, METRIC_GROUP_BYTES_MAX);
        from = now_ns();
        must(metric_group_encode(&view, (struct sum){ 0 }, &numbers, &door, encoding, &bytes, &result));
        printf("group encode, %s %7.1f ns a row, %.2f B a row, %.1f B a series\n",
               round == 0 ? "new series  " : "known series", (now_ns() - from) / rows,
               (double)bytes.len / rows, (double)bytes.len / series);
        struct slice s = buf_slice(&bytes);
        struct metric_group_bytes source = { read_at, &s, s.len };
        struct metric_group *group;
        must(metric_group_open(encoding, &source, &group));
        if (round == 1) {
            struct metric_group_walk *walk;
            struct metric_group_series one;
            from = now_ns();
            must(metric_group_walk_open(group, encoding, &walk));
            while (metric_group_walk_next(walk, &one) == OK)
                ;
            printf("group walk            %7.1f ns a row\n", (now_ns() - from) / rows);
            metric_group_walk_close(walk);
            from = now_ns();
            for (uint32_t i = 0; i < series; i += 97) {
                sample_columns_clear(&columns);
                must(metric_group_read(group, i, all, block, &columns));
                pool_reset(block);
            }
            printf("group read            %7.0f ns a series\n", (now_ns() - from) / (series / 97.0));
        }
        for (uint32_t i = 0; i < result.new_count; i++)
            must(metric_stream_numbers_add(&numbers, result.new_locals[i]));
        metric_group_close(group);
        pool_close(encoding);
    }
}

int main(int argc, char **argv)
{
    struct bench b = { .pool = pool_open(NULL, "bench", POOL_BYTES_UNLIMITED),
                       .series_count = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000000,
                       .rows_each = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 4,
                       .partition_count = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 16 };
    struct buf labels = buf_open(b.pool, LABELS_BYTES_MAX);
    void *at;
    must(pool_alloc(b.pool, (size_t)b.series_count * sizeof *b.labels, &at));
    b.labels = at;
    must(pool_alloc(b.pool, (size_t)b.series_count * sizeof *b.partitions, &at));
    b.partitions = at;
    for (uint32_t i = 0; i < b.series_count; i++) {
        make_labels(i, &labels);
        b.partitions[i] = (uint32_t)(hash64(buf_slice(&labels), 5) % b.partition_count);
        must(pool_copy(b.pool, buf_slice(&labels), &b.labels[i]));
    }
    bench_index(&b);
    bench_selects(&b);
    bench_retain(&b);
    bench_part(&b);
    bench_rows(&b);
    return 0;
}
