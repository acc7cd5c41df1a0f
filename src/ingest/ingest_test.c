/* Goal: what is sent is what a reader of the log finds, or it is refused with a reason and the rest is stored;
 * every answer has the status that its protocol asks for. Method: hand-built messages in tables, through a log in
 * memory. */
#include "base/test.h"

#include "base/time.h"
#include "codec/snappy.h"
#include "ingest/test_log.h"
#include "model/sample.h"

#define V1 "application/x-protobuf"
#define V2 "application/x-protobuf;proto=io.prometheus.write.v2.Request"

static struct pool *pool;
static struct io *io;
static struct log *fake;
static struct ingest *ingest;
static struct buf m; /* the message under construction */

static void open_with(struct ingest_config config)
{
    fake = fake_log_open(pool);
    m = buf_open(pool, 64u << 20);
    assert_ok(ingest_open(&config, io, fake, pool, &ingest));
}

static int setup(void **state)
{
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    return io_open("/tmp", &io) == OK ? 0 : -1;
}

static int teardown(void **state)
{
    io_close(io);
    pool_close(pool);
    return 0;
}

static struct slice tenant_a(void) { return slice_str("a"); }

static struct ingest_result send_as(const char *type, const char *encoding, struct slice body)
{
    struct ingest_result result;
    ingest_remote_write(ingest, tenant_a(), slice_str(type), slice_str(encoding), body, &result);
    assert_int_equal(strlen(result.text), result.text_len);
    return result;
}

/* Send m, empty it. */
static struct ingest_result send(const char *type)
{
    struct buf out = buf_open(pool, 64u << 20);
    assert_ok(snappy_block_encode(buf_slice(&m), &out));
    buf_clear(&m);
    struct ingest_result result = send_as(type, "snappy", buf_slice(&out));
    buf_close(&out);
    return result;
}

static struct slice print_labels(struct slice labels)
{
    struct buf out = buf_open(pool, 1 << 20);
    labels_print(labels, &out);
    return buf_slice(&out);
}

static void expect_row(size_t row, const char *labels, int64_t t_ms, uint64_t bits)
{
    assert_true(row < fake->row_count);
    struct slice got = print_labels(fake->rows[row].labels);
    if (!slice_equal_str(got, labels))
        fail_msg("row %zu is %.*s", row, SLICE_ARG(got));
    assert_true(fake->rows[row].t_ms == t_ms && fake->rows[row].bits == bits);
}

static void expect_text(const struct ingest_result *result, const char *part)
{
    if (strstr(result->text, part) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", result->text, part);
}

static void first_and_second_write(void **state)
{
    open_with(ingest_config_default());
    pb_series(&m, "__name__=up job=a", 1000, double_bits(1.5));
    struct ingest_result r = send(V1);
    assert_int_equal(r.status, 204);
    assert_int_equal(r.samples, 1);
    assert_int_equal(r.text_len, 0);
    assert_false(r.has_written_headers);
    pb_series(&m, "__name__=up job=a", -2000, SAMPLE_STALE_BITS);
    pb_series(&m, "__name__=up job=a", TIME_MS_MAX, UINT64_C(0xfff8dead0000beef));
    r = send(V1);
    assert_int_equal(r.status, 204);
    assert_int_equal(r.future_samples, 1);
    assert_int_equal(fake->row_count, 3);
    assert_int_equal(fake->announce_count, 1);
    expect_row(0, "up{job=\"a\"}", 1000, double_bits(1.5));
    expect_row(1, "up{job=\"a\"}", -2000, SAMPLE_STALE_BITS);
    expect_row(2, "up{job=\"a\"}", TIME_MS_MAX, UINT64_C(0xfff8dead0000beef));
    assert_int_equal(ingest_tenant_series(ingest, tenant_a()), 1);
    assert_int_equal(ingest_tenant_series(ingest, slice_str("b")), 0);
    assert_int_equal(ingest_usage(ingest).series, 1);
    assert_string_equal(ingest_reason_name(INGEST_LABEL_COUNT), "label_count");
    ingest_close(ingest);
}

/* One refused series between two good ones: labels, what the answer says, the reason. */
static void refused_series(void **state)
{
    struct ingest_config config = ingest_config_default();
    config.limits.labels_per_series_max = 4;
    config.limits.name_bytes_max = 12;
    config.limits.value_bytes_max = 10;
    open_with(config);
    static const struct {
        const char *labels;
        enum ingest_reason reason;
        const char *text;
    } rows[] = {
        { "job=a", INGEST_NAME_MISSING, "no __name__ in {job=\"a\"}" },
        { "__name__=x a=1 a=2", INGEST_LABELS_INVALID, "duplicate label \"a\"" },
        { "=x __name__=x", INGEST_LABELS_INVALID, "empty label name" },
        { "__name__=x a=\xff", INGEST_LABELS_INVALID, "value of label \"a\" is not UTF-8" },
        { "__name__=x a\xc0=b", INGEST_LABELS_INVALID, "a label name is not UTF-8" },
        { "__name__=x a=1 b=1 c=1 d=1", INGEST_LABEL_COUNT, "5 labels, limit 4" },
        { "__name__=abcdefghijklm", INGEST_NAME_LENGTH, "metric name of 13 bytes, limit 12" },
        { "__name__=x abcdefghijklm=1", INGEST_NAME_LENGTH, "label name of 13 bytes, limit 12" },
        { "__name__=x a=01234567890", INGEST_VALUE_LENGTH, "label \"a\" has 11 bytes, limit 10" },
        { "", INGEST_NAME_MISSING, "no __name__" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t before = fake->row_count;
        pb_series(&m, "__name__=good", 1, 1);
        struct buf series = buf_open(pool, 1 << 20);
        pb_labels(&series, rows[i].labels);
        pb_sample(&series, 1, 1, 0);
        pb_sample(&series, 2, 1, 0);
        pb_message(&m, 1, &series);
        pb_series(&m, "__name__=other", 1, 1);
        struct ingest_result r = send(V1);
        assert_int_equal(r.status, 400);
        assert_int_equal(r.samples, 2);
        assert_int_equal(r.refused[rows[i].reason], 2);
        expect_text(&r, rows[i].text);
        assert_int_equal(fake->row_count, before + 2);
    }
    assert_int_equal(ingest_usage(ingest).series, 2);
    ingest_close(ingest);
}

static void huge_labels(void **state)
{
    struct ingest_config config = ingest_config_default();
    config.limits = (struct ingest_limits){ 0 }; /* hard bounds remain */
    open_with(config);
    static char text[70000];
    memset(text, 'x', sizeof text - 1);
    memcpy(text, "__name__=", 9);
    struct buf series = buf_open(pool, 1 << 20), part = buf_open(pool, 1 << 20);
    pb_bytes(&part, 1, slice_str("__name__"));
    pb_bytes(&part, 2, slice_of(text, 65536));
    pb_message(&series, 1, &part);
    pb_sample(&series, 1, 1, 0);
    pb_message(&m, 1, &series);
    struct ingest_result r = send(V1);
    assert_int_equal(r.status, 400);
    assert_int_equal(r.refused[INGEST_LABELS_INVALID], 1);
    for (int i = 0; i <= LABEL_COUNT_MAX; i++) {
        char label[20];
        snprintf(label, sizeof label, "n%d=x", i);
        pb_labels(&series, label);
    }
    pb_sample(&series, 1, 1, 0);
    pb_message(&m, 1, &series);
    assert_int_equal(send(V1).refused[INGEST_LABELS_INVALID], 1);
    assert_int_equal(fake->row_count, 0);
    ingest_close(ingest);
}

/* However a sender writes a label set, it is the same series. */
static void one_series_many_forms(void **state)
{
    open_with(ingest_config_default());
    for (int round = 0; round < 3; round++) {
        pb_series(&m, "__name__=up a=1 b=2", 1, 1);
        pb_series(&m, "b=2 a=1 __name__=up", 2, 1);    /* not sorted */
        pb_series(&m, "__name__=up a=1 b=2 c=", 3, 1); /* an empty value is an absent label */
        struct buf series = buf_open(pool, 1 << 20);
        pb_labels(&series, "__name__=up a=1");
        pb_sample(&series, 4, 1, 0);
        pb_labels(&series, "b=2"); /* not all in front */
        pb_message(&m, 1, &series);
        pb_varint(&series, 99, 7);
        pb_labels(&series, "__name__=up a=1 b=2"); /* unknown fields around */
        pb_double(&series, 98, 7);
        pb_sample(&series, 5, 1, 0);
        pb_message(&m, 1, &series);
        pb_bytes(&m, 50, slice_str("unknown"));
        assert_int_equal(send(V1).status, 204);
    }
    assert_int_equal(fake->row_count, 15);
    for (size_t i = 0; i < 15; i++)
        expect_row(i, "up{a=\"1\", b=\"2\"}", (int64_t)(i % 5) + 1, 1);
    assert_int_equal(ingest_usage(ingest).series, 1);
    ingest_close(ingest);
}

static void samples_and_times(void **state)
{
    open_with(ingest_config_default());
    struct buf series = buf_open(pool, 1 << 20);
    pb_labels(&series, "__name__=up");
    pb_sample(&series, 1, 1, 0);
    pb_sample(&series, TIME_MS_MAX + 1, 1, 0);
    pb_sample(&series, INT64_MIN, 1, 0);
    pb_sample(&series, TIME_MS_MIN, 1, 0);
    pb_message(&m, 1, &series);
    pb_labels(&series, "__name__=none"); /* no rows: nothing stored, nothing refused, not a series */
    pb_message(&m, 1, &series);
    struct ingest_result r = send(V1);
    assert_int_equal(r.status, 400);
    assert_int_equal(r.samples, 2);
    assert_int_equal(r.refused[INGEST_TIME_RANGE], 2);
    expect_text(&r, "timestamp beyond the year 9999");
    expect_text(&r, "in up");
    assert_int_equal(ingest_usage(ingest).series, 1);
    ingest_close(ingest);
}

static void one_series_many_records(void **state)
{
    open_with(ingest_config_default());
    struct buf series = buf_open(pool, 32u << 20);
    pb_labels(&series, "__name__=up");
    for (int i = 0; i < 150000; i++)
        pb_sample(&series, i, (uint64_t)i, 0);
    pb_message(&m, 1, &series);
    struct ingest_result r = send(V1);
    assert_int_equal(r.status, 204);
    assert_int_equal(r.samples, 150000);
    assert_int_equal(fake->record_count, 3);
    assert_int_equal(fake->announce_count, 3); /* none of the three can rely on another one */
    assert_int_equal(fake->row_count, 150000);
    for (int i = 0; i < 150000; i++)
        assert_true(fake->rows[i].t_ms == i);
    ingest_close(ingest);
}

static void exemplars_and_metadata(void **state)
{
    open_with(ingest_config_default());
    struct buf series = buf_open(pool, 1 << 20), part = buf_open(pool, 1 << 20);
    pb_labels(&series, "__name__=up");
    pb_labels(&part, "trace_id=b span=c");
    pb_double(&part, 2, double_bits(0.5));
    pb_varint(&part, 3, 77);
    pb_message(&series, 3, &part);
    pb_labels(&part, "a=1 a=2");
    pb_message(&series, 3, &part);
    static char long_label[1200];
    memset(long_label, 'x', sizeof long_label - 1);
    memcpy(long_label, "a=", 2);
    pb_labels(&part, long_label);
    pb_message(&series, 3, &part);
    pb_varint(&part, 3, INT64_MAX);
    pb_message(&series, 3, &part);
    pb_message(&m, 1, &series);
    for (int i = 0; i < 2; i++) {
        pb_varint(&part, 1, METRIC_COUNTER);
        pb_bytes(&part, 2, slice_str(i == 0 ? "up" : ""));
        pb_bytes(&part, 4, slice_str("is it up"));
        pb_bytes(&part, 5, slice_str("bool"));
        pb_message(&m, 3, &part);
    }
    struct ingest_result r = send(V1);
    assert_int_equal(r.status, 400);
    assert_int_equal(r.exemplars, 1);
    assert_int_equal(r.refused[INGEST_EXEMPLAR_INVALID], 3);
    assert_int_equal(r.metadata, 1);
    assert_int_equal(r.refused[INGEST_METADATA_INVALID], 1);
    assert_int_equal(fake->exemplar_count, 1);
    assert_true(fake->exemplars[0].value == 0.5 && fake->exemplars[0].t_ms == 77);
    assert_true(slice_equal_str(print_labels(fake->exemplars[0].labels), "{span=\"c\", trace_id=\"b\"}"));
    assert_true(slice_equal_str(fake->metadata[0].family, "up") && fake->metadata[0].type == METRIC_COUNTER);
    assert_true(slice_equal_str(fake->metadata[0].help, "is it up"));
    assert_true(slice_equal_str(fake->metadata[0].unit, "bool"));

    /* The same again is not stored again, until an append failed. */
    for (int i = 0; i < 3; i++) {
        fake->answer = i == 1 ? ERR_BUSY : OK;
        pb_varint(&part, 1, METRIC_COUNTER);
        pb_bytes(&part, 2, slice_str("up"));
        pb_bytes(&part, 4, slice_str("is it up"));
        pb_bytes(&part, 5, slice_str("bool"));
        pb_message(&m, 3, &part);
        pb_series(&m, "__name__=up", 1, 1);
        r = send(V1);
        assert_int_equal(r.metadata, i == 2);
    }
    ingest_close(ingest);
}

static struct histogram_span spans[] = { { 0, 2 }, { 1, 1 } };
static int64_t deltas[] = { 1, 1, -1 };
static double counts[] = { 1, 2, 1.5 }, bounds[] = { 1, 2, 3 };

static void histograms(void **state)
{
    open_with(ingest_config_default());
    struct histogram integer = { .schema = 3,
                                 .sum = 5,
                                 .zero_threshold = 0x1p-128,
                                 .count_int = 9,
                                 .zero_count_int = 1,
                                 .hint = HINT_GAUGE,
                                 .positive_spans = spans,
                                 .positive_span_count = 2,
                                 .positive_deltas = deltas,
                                 .positive_bucket_count = 3,
                                 .negative_spans = spans,
                                 .negative_span_count = 2,
                                 .negative_deltas = deltas,
                                 .negative_bucket_count = 3 };
    struct histogram custom = { .is_float = true,
                                .schema = HISTOGRAM_SCHEMA_CUSTOM,
                                .count_float = 4.5,
                                .positive_spans = spans,
                                .positive_span_count = 2,
                                .positive_counts = counts,
                                .positive_bucket_count = 3,
                                .custom_values = bounds,
                                .custom_value_count = 3 };
    struct buf part = buf_open(pool, 1 << 20), canonical = buf_open(pool, 1 << 20);
    struct buf series = buf_open(pool, 1 << 20);
    for (int i = 0; i < 4; i++) {
        const struct histogram *h = i < 2 ? &integer : &custom;
        buf_clear(&canonical);
        histogram_encode(h, &canonical);
        pb_histogram(&part, h, 100 + i, 0, i % 2 == 0);
        pb_labels(&series, "__name__=h");
        pb_message(&series, 4, &part);
        pb_message(&m, 1, &series);
        struct ingest_result r = send(V1);
        assert_int_equal(r.status, 204);
        assert_int_equal(r.histograms, 1);
        expect_row((size_t)i, "h", 100 + i, hash64(buf_slice(&canonical), 0));
    }
    integer.count_int = 7;
    pb_histogram(&part, &integer, 1, 0, true);
    pb_labels(&series, "__name__=h");
    pb_message(&series, 4, &part);
    integer.count_int = 9;
    pb_histogram(&part, &integer, INT64_MAX, 0, true);
    pb_message(&series, 4, &part);
    pb_message(&m, 1, &series);
    struct ingest_result r = send(V1);
    assert_int_equal(r.status, 400);
    assert_int_equal(r.refused[INGEST_HISTOGRAM_INVALID], 1);
    assert_int_equal(r.refused[INGEST_TIME_RANGE], 1);
    expect_text(&r, "9 observations in buckets, but the count is 7 in h");
    ingest_close(ingest);
}

static void version_2(void **state)
{
    open_with(ingest_config_default());
    struct pb_symbols *symbols;
    void *at;
    assert_ok(pool_zalloc(pool, sizeof *symbols, &at));
    symbols = at;
    struct buf series = buf_open(pool, 1 << 20), part = buf_open(pool, 1 << 20);
    for (int round = 0; round < 2; round++) {
        pb_refs(&series, symbols, "__name__=up job=a");
        pb_sample(&series, 5, double_bits(2), 3);
        pb_sample(&series, 6, double_bits(3), 0);
        pb_refs(&part, symbols, "trace_id=t");
        pb_double(&part, 2, double_bits(0.5));
        pb_varint(&part, 3, 78);
        pb_message(&series, 4, &part);
        pb_varint(&part, 1, METRIC_GAUGE);
        pb_varint(&part, 3, pb_symbol(symbols, slice_str("help")));
        pb_varint(&part, 4, pb_symbol(symbols, slice_str("unit")));
        pb_message(&series, 5, &part);
        pb_message(&m, 5, &series);
        pb_refs(&series, symbols, "z=1 __name__=req_bucket");
        pb_sample(&series, 7, double_bits(4), 0);
        pb_varint(&part, 1, METRIC_HISTOGRAM);
        pb_message(&series, 5, &part);
        pb_message(&m, 5, &series);
        pb_symbols_put(&m, symbols); /* behind the series: they may lie anywhere */
        struct ingest_result r = send(V2);
        assert_int_equal(r.status, 204);
        assert_true(r.has_written_headers);
        assert_true(r.samples == 3 && r.exemplars == 1 && r.histograms == 0);
        assert_int_equal(r.metadata, round == 0 ? 2 : 0);
    }
    assert_int_equal(fake->row_count, 6);
    assert_int_equal(fake->announce_count, 2);
    uint64_t starts = 0;
    for (size_t i = 0; i < 6; i++)
        starts += fake->rows[i].start_ms == 3 && fake->rows[i].t_ms == 5;
    assert_int_equal(starts, 2);
    bool family =
        slice_equal_str(fake->metadata[0].family, "req") || slice_equal_str(fake->metadata[1].family, "req");
    assert_true(family);
    ingest_close(ingest);
}

static void version_2_refusals(void **state)
{
    open_with(ingest_config_default());
    struct pb_symbols symbols = { .count = 0 };
    struct buf series = buf_open(pool, 1 << 20), part = buf_open(pool, 1 << 20);
    pb_refs(&series, &symbols, "__name__=up job=a");
    pb_message(&m, 5, &series); /* no rows */
    buf_put_varint(&part, 1);
    pb_message(&series, 1, &part);
    pb_sample(&series, 1, 1, 0);
    pb_message(&m, 5, &series); /* odd */
    buf_put_varint(&part, 1);
    buf_put_varint(&part, 1000);
    pb_message(&series, 1, &part);
    pb_sample(&series, 1, 1, 0);
    pb_sample(&series, 2, 1, 0);
    pb_message(&m, 5, &series); /* beyond the symbols */
    pb_refs(&series, &symbols, "__name__=up");
    pb_varint(&series, 1, 3); /* not packed: job=a */
    pb_varint(&series, 1, 4);
    pb_sample(&series, 1, 1, INT64_MAX);
    pb_sample(&series, 2, 1, 0);
    struct histogram h = { .schema = 99 };
    pb_histogram(&part, &h, 1, 0, true);
    pb_message(&series, 3, &part);
    buf_put_varint(&part, 1);
    pb_message(&part, 1, &(struct buf){ .pool = pool, .max = 10 });
    buf_clear(&part);
    pb_varint(&part, 1, 5000);
    pb_message(&series, 4, &part);
    pb_message(&m, 5, &series);
    pb_symbols_put(&m, &symbols);
    struct ingest_result r = send(V2);
    assert_int_equal(r.status, 400);
    assert_int_equal(r.samples, 1);
    assert_int_equal(r.refused[INGEST_SAMPLE_MISSING], 1);
    assert_int_equal(r.refused[INGEST_LABELS_INVALID], 3);
    assert_int_equal(r.refused[INGEST_TIME_RANGE], 1);
    assert_int_equal(r.refused[INGEST_HISTOGRAM_INVALID], 1);
    assert_int_equal(r.refused[INGEST_EXEMPLAR_INVALID], 1);
    expect_row(0, "up{job=\"a\"}", 2, 1);
    ingest_close(ingest);
}

static void headers_and_bodies(void **state)
{
    struct ingest_config config = ingest_config_default();
    config.body_bytes_max = 4096;
    config.decoded_bytes_max = 100000;
    config.limits.samples_per_request_max = 3;
    open_with(config);
    static const struct {
        const char *type, *encoding;
        int status;
    } rows[] = {
        { "", "", 204 },
        { V1, "snappy", 204 },
        { "Application/X-Protobuf ; charset=x", " Snappy", 204 },
        { "application/x-protobuf;proto=prometheus.WriteRequest", "snappy", 204 },
        { "application/x-protobuf; proto=\"io.prometheus.write.v2.Request\"", "snappy", 204 },
        { "application/x-protobuf;proto=io.prometheus.write.v3.Request", "snappy", 415 },
        { "application/json", "snappy", 415 },
        { "text/plain", "", 415 },
        { V1, "gzip", 415 },
        { V1, "zstd", 415 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(send_as(rows[i].type, rows[i].encoding, slice_of("\0", 1)).status, rows[i].status);
    assert_int_equal(send_as(V1, "snappy", slice_str("\xff\x06\x00\x00sNaPpY")).status, 400);
    assert_int_equal(send_as(V1, "snappy", slice_str("")).status, 400);
    static uint8_t large[5000];
    assert_int_equal(send_as(V1, "snappy", slice_of(large, sizeof large)).status, 413);
    for (int i = 0; i < 100001; i++)
        buf_put_u8(&m, 0);
    assert_int_equal(send(V1).status, 413);
    for (int i = 0; i < 4; i++)
        pb_series(&m, "__name__=up", i, 1);
    struct ingest_result r = send(V1);
    assert_int_equal(r.status, 413);
    expect_text(&r, "more than 3 samples");
    assert_int_equal(fake->row_count, 0);
    struct ingest_result bad;
    ingest_remote_write(ingest, slice_of("", 0), slice_str(V1), slice_str(""), slice_of("\0", 1), &bad);
    assert_int_equal(bad.status, 400);
    ingest_remote_write(ingest, slice_of(large, 151), slice_str(V1), slice_str(""), slice_of("\0", 1), &bad);
    assert_int_equal(bad.status, 400);
    ingest_close(ingest);
}

static void answers_of_the_log(void **state)
{
    open_with(ingest_config_default());
    static const struct {
        err answer;
        int status;
        const char *text;
    } rows[] = {
        { ERR_BUSY, 503, "not stored" },
        { ERR_SPACE, 507, "not stored" },
        { ERR_IO, 503, "may be stored yet" },
        { ERR_TIMEOUT, 503, "may be stored yet: deadline passed" },
        { ERR_CLOSED, 503, "not stored" },
        { ERR_LIMIT, 503, "not stored" },
        { OK, 204, "" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fake->answer = rows[i].answer;
        pb_series(&m, "__name__=up", 1, 1);
        struct ingest_result r = send(V1);
        assert_int_equal(r.status, rows[i].status);
        assert_int_equal(r.samples, rows[i].answer == OK);
        assert_int_equal(r.retry_after_s > 0, rows[i].answer != OK);
        if (rows[i].answer != OK)
            expect_text(&r, err_text(rows[i].answer));
        expect_text(&r, rows[i].text);
    }
    ingest_close(ingest);
}

static void series_limit(void **state)
{
    struct ingest_config config = ingest_config_default();
    struct ingest_tenant_limits own = { slice_str("a"), ingest_limits_default() };
    own.limits.series_max = 10;
    config.tenants = &own;
    config.tenant_count = 1;
    open_with(config);
    own.tenant = slice_str("changed after the copy");
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 20; i++) {
            char text[60];
            snprintf(text, sizeof text, "__name__=%s id=%d", i < 2 ? "calm" : "wild", i);
            pb_series(&m, text, i, 1);
        }
        struct ingest_result r = send(V1);
        assert_int_equal(r.status, 400);
        assert_int_equal(r.samples, 10); /* known ones keep flowing */
        assert_int_equal(r.refused[INGEST_SERIES_LIMIT], 10);
        expect_text(&r, "limit 10; metric \"wild\" brought about 8 of the new ones in wild{id=\"10\"}");
    }
    assert_int_equal(ingest_tenant_series(ingest, tenant_a()), 10);
    struct ingest_limits none = ingest_limits_default();
    assert_ok(ingest_set_limits(ingest, &none, NULL, 0));
    pb_series(&m, "__name__=wild id=19", 1, 1);
    assert_int_equal(send(V1).status, 204);
    ingest_close(ingest);
}

static bool room_for_calm(void *context, struct slice tenant, struct slice labels)
{
    assert_ptr_equal(context, &m);
    assert_true(slice_equal(tenant, tenant_a()));
    return slice_equal_str(labels_get(labels, slice_str("__name__")), "calm");
}

static void no_memory_for_more_series(void **state)
{
    struct ingest_config config = ingest_config_default();
    config.has_room = room_for_calm;
    config.context = &m;
    open_with(config);
    for (int round = 0; round < 2; round++) {
        pb_series(&m, "__name__=calm id=1", round, 1);
        pb_series(&m, "__name__=wild id=1", round, 1);
        struct ingest_result r = send(V1);
        assert_int_equal(r.status, 400);
        assert_int_equal(r.samples, 1);
        assert_int_equal(r.refused[INGEST_SERIES_MEMORY], 1);
        expect_text(&r, "memory.budget is taken; metric \"calm\" brought about 1");
    }
    ingest_close(ingest);
}

static void too_many_requests(void **state)
{
    struct ingest_config config = ingest_config_default();
    config.requests_max = 3;
    config.limits.requests_in_flight_max = 2;
    open_with(config);
    fake->mode = FAKE_HOLD;
    struct ingest_row row = { .t_ms = 1, .labels = slice_str("\x0a\x0e\x0a\x08__name__\x12\x02up") };
    struct ingest_rows rows = { .rows = &row, .row_count = 1 };
    struct ingest_result result;
    struct ingest_request *requests[3];
    for (int i = 0; i < 2; i++) {
        requests[i] = ingest_begin_write(ingest, tenant_a(), &rows, &result);
        assert_non_null(requests[i]);
        assert_false(ingest_poll(requests[i], &result));
    }
    assert_null(ingest_begin_write(ingest, tenant_a(), &rows, &result));
    assert_true(result.status == 429 && result.retry_after_s > 0);
    expect_text(&result, "too many requests of this tenant");
    requests[2] = ingest_begin_write(ingest, slice_str("b"), &rows, &result);
    assert_non_null(requests[2]);
    assert_null(ingest_begin_write(ingest, slice_str("b"), &rows, &result));
    assert_int_equal(result.status, 429);
    while (fake->held_count > 0)
        fake_release(fake, 0, OK);
    for (int i = 0; i < 3; i++) {
        assert_true(ingest_poll(requests[i], &result));
        assert_int_equal(result.status, 204);
    }
    assert_int_equal(ingest_usage(ingest).requests, 0);
    ingest_close(ingest);
}

static void text_import(void **state)
{
    open_with(ingest_config_default());
    static const char text[] = "# HELP up is\\nit\n# TYPE up gauge\nup{b=\"2\",a=\"1\"} 1 1000\nup 2\n"
                               "dup{a=\"1\",a=\"2\"} 1\n# TYPE x counter\nx 1 2000\n";
    struct ingest_result r;
    ingest_import_text(ingest, tenant_a(), slice_str("text/plain"), slice_str(text), sizeof text - 1, &r);
    assert_int_equal(r.status, 400);
    assert_int_equal(r.samples, 3);
    assert_int_equal(r.refused[INGEST_LABELS_INVALID], 1);
    assert_int_equal(r.metadata, 2);
    int64_t now_ms = io_now_ms(io);
    for (size_t i = 0; i < 3; i++)
        if (slice_equal_str(print_labels(fake->rows[i].labels), "up"))
            assert_true(fake->rows[i].t_ms > now_ms - 60000 && fake->rows[i].t_ms <= now_ms);

    static const char open[] = "a_total{x=\"y\"} 5 1.5 # {trace_id=\"t\"} 0.5\nbroken\nb 1\n# EOF\n";
    ingest_import_text(ingest, tenant_a(), slice_str("application/openmetrics-text"), slice_str(open),
                       sizeof open - 1, &r);
    assert_int_equal(r.status, 400);
    assert_true(r.samples == 1 && r.exemplars == 1);
    expect_text(&r, "line 2, column 7: expected a space or {");
    assert_int_equal(fake->exemplars[0].t_ms, 1500);

    struct ingest_config config = ingest_config_default();
    static char large[2000];
    ingest_close(ingest);
    config.body_bytes_max = 1024;
    config.limits.samples_per_request_max = 2;
    open_with(config);
    ingest_import_text(ingest, tenant_a(), slice_str(""), slice_of(large, sizeof large), sizeof large, &r);
    assert_int_equal(r.status, 413);
    ingest_import_text(ingest, tenant_a(), slice_str(""), slice_str("a 1\na 2\na 3\n"), 12, &r);
    assert_int_equal(r.status, 413);
    assert_int_equal(fake->row_count, 0);
    ingest_close(ingest);
}

static void own_rows(void **state)
{
    open_with(ingest_config_default());
    struct buf up = buf_open(pool, 1 << 10), down = buf_open(pool, 1 << 10), h = buf_open(pool, 1 << 10);
    pb_labels(&up, "__name__=up a=1");
    pb_labels(&down, "__name__=down");
    struct histogram histogram = { .schema = 2, .sum = 0 };
    histogram_encode(&histogram, &h);
    struct ingest_row rows[] = {
        { .labels = buf_slice(&up), .t_ms = 1, .value_bits = 7, .start_ms = 1 },
        { .labels = buf_slice(&down), .t_ms = 2, .histogram = buf_slice(&h) },
        { .labels = buf_slice(&up), .t_ms = 3, .value_bits = 8 },
        { .labels = buf_slice(&down), .t_ms = 2, .histogram = slice_str("nonsense") },
        { .labels = slice_str("nonsense"), .t_ms = 2 },
    };
    struct ingest_row_exemplar exemplars[] = { { .row = 2, .t_ms = 9, .value = 1 }, { .row = 4 } };
    struct batch_metadata metadata = { slice_str("up"), METRIC_GAUGE, slice_str("h"), slice_str("") };
    struct ingest_rows all = { rows, 5, exemplars, 2, &metadata, 1 };
    struct ingest_result r;
    ingest_write(ingest, tenant_a(), &all, &r);
    assert_int_equal(r.status, 400);
    assert_true(r.samples == 2 && r.histograms == 1 && r.exemplars == 1 && r.metadata == 1);
    assert_int_equal(r.refused[INGEST_LABELS_INVALID], 2);
    assert_int_equal(r.refused[INGEST_HISTOGRAM_INVALID], 1);
    ingest_write(ingest, tenant_a(), &all, &r);
    assert_int_equal(fake->unbound, 0);
    assert_int_equal(fake->announce_count, 2);
    ingest_close(ingest);
}

static void configuration(void **state)
{
    struct err_at at;
    struct ingest_config good = ingest_config_default(), c;
    assert_ok(ingest_config_check(&good, &at));
#define REFUSES(field, value) \
    c = good;                 \
    c.field = value;          \
    assert_err(ERR_INPUT, ingest_config_check(&c, &at))
    REFUSES(partition_count, 0);
    REFUSES(partition_count, LOG_PARTITION_COUNT_MAX + 1);
    REFUSES(body_bytes_max, 1);
    REFUSES(decoded_bytes_max, (size_t)1 << 40);
    REFUSES(requests_max, 0);
    REFUSES(wait_ms_max, 0);
    REFUSES(idle_ms, 0);
    REFUSES(announce_ms, MS_PER_MINUTE);
    REFUSES(rotate_ms, 0);
    REFUSES(future_ms, -1);
    struct ingest_tenant_limits nameless = { .tenant = slice_of("", 0) };
    c = good;
    c.tenants = &nameless;
    c.tenant_count = 1;
    assert_err(ERR_INPUT, ingest_config_check(&c, &at));
    struct ingest *none;
    assert_err(ERR_INPUT, ingest_open(&c, io, NULL, pool, &none));
}

/* Every allocation of a request fails once: it is answered with 503 or not disturbed, and nothing breaks. */
static void no_memory(void **state)
{
    open_with(ingest_config_default());
    struct pool *root = pool;
    fake->discard = true;
    for (uint64_t nth = 1; nth < 200; nth++) {
        for (int i = 0; i < 40; i++) {
            char text[60];
            snprintf(text, sizeof text, "__name__=m%d z=%llu a=1", i, (unsigned long long)nth);
            pb_series(&m, text, i, 1);
        }
        struct buf out = buf_open(pool, 1 << 20);
        assert_ok(snappy_block_encode(buf_slice(&m), &out));
        buf_clear(&m);
        struct ingest_result result;
        pool_fault_at(root, nth, nth % 2 == 0);
        ingest_remote_write(ingest, tenant_a(), slice_str(V1), slice_str("snappy"), buf_slice(&out), &result);
        uint64_t seen = pool_fault_count(root);
        pool_fault_at(root, 0, false);
        assert_true(result.status == 204 || result.status == 503);
        buf_close(&out);
        if (result.status == 204 && seen < nth && nth > 20)
            break;
    }
    struct ingest *none;
    for (uint64_t nth = 1; nth < 30; nth++) {
        struct ingest_config config = ingest_config_default();
        pool_fault_at(root, nth, false);
        err e = ingest_open(&config, io, fake, pool, &none);
        pool_fault_at(root, 0, false);
        if (e == OK) {
            ingest_close(none);
            break;
        }
        assert_err(ERR_LIMIT, e);
    }
    pool_fault_at(root, 1, true);
    struct ingest_limits limits = ingest_limits_default();
    assert_err(ERR_LIMIT, ingest_set_limits(ingest, &limits, NULL, 0));
    pool_fault_at(root, 0, false);
    ingest_close(ingest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_and_second_write),
        cmocka_unit_test(refused_series),
        cmocka_unit_test(huge_labels),
        cmocka_unit_test(one_series_many_forms),
        cmocka_unit_test(samples_and_times),
        cmocka_unit_test(one_series_many_records),
        cmocka_unit_test(exemplars_and_metadata),
        cmocka_unit_test(histograms),
        cmocka_unit_test(version_2),
        cmocka_unit_test(version_2_refusals),
        cmocka_unit_test(headers_and_bodies),
        cmocka_unit_test(answers_of_the_log),
        cmocka_unit_test(series_limit),
        cmocka_unit_test(no_memory_for_more_series),
        cmocka_unit_test(too_many_requests),
        cmocka_unit_test(text_import),
        cmocka_unit_test(own_rows),
        cmocka_unit_test(configuration),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
