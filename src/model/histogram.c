/* Native histograms: check, canonical bytes, bounds. See histogram.h; byte table in docs/format/histogram.md.
 *
 * Data comes from remote write and exposition decoders, is checked once at the edge (histogram_check), and is
 * bytes from then on; queries decode it.
 *
 * Invariants
 *  1. Everything in the struct is in the bytes, in one way only: equal histograms are equal bytes.
 *  2. The number of buckets of a side is the sum of its spans' lengths; it is not stored a second time.
 *  3. The decoder allocates only what the bytes can fill: a bucket takes a byte at least, a span two. */
#include "model/histogram.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/pool.h"

#include <math.h>

#define VERSION              1
#define FLAG_FLOAT           1
#define HINT_SHIFT           1 /* two bits */
#define FLAG_USUAL_THRESHOLD 8 /* zero_threshold is 2^-128, what clients use */
#define FLAGS_KNOWN          15
#define USUAL_THRESHOLD      0x1p-128
#define SCHEMA_MIN           (-4)
#define SCHEMA_MAX           8

static bool schema_is_custom(int32_t schema) { return schema == HISTOGRAM_SCHEMA_CUSTOM; }

static bool schema_known(int32_t schema)
{
    return (schema >= SCHEMA_MIN && schema <= SCHEMA_MAX) || schema_is_custom(schema);
}

/* ---- checking ---- */

static err check_spans(const struct histogram_span *spans, size_t count, size_t buckets, const char *side,
                       struct err_at *at)
{
    if (count > HISTOGRAM_SPAN_COUNT_MAX || buckets > HISTOGRAM_BUCKET_COUNT_MAX)
        return err_set(at, ERR_INPUT, "%zu spans and %zu buckets on the %s side, more than %d and %d", count,
                       buckets, side, HISTOGRAM_SPAN_COUNT_MAX, HISTOGRAM_BUCKET_COUNT_MAX);
    int64_t index = 0;
    uint64_t covered = 0;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && spans[i].offset < 0)
            return err_set(at, ERR_INPUT, "%s span %zu has the negative offset %d", side, i, spans[i].offset);
        covered += spans[i].length;
        index += (int64_t)spans[i].offset + spans[i].length;
        if (index > INT32_MAX)
            return err_set(at, ERR_INPUT, "a %s bucket's index is out of range", side);
    }
    if (covered != buckets)
        return err_set(at, ERR_INPUT, "%s spans need %llu buckets, have %zu", side,
                       (unsigned long long)covered, buckets);
    return OK;
}

static err check_custom(const struct histogram *h, struct err_at *at)
{
    if (h->custom_value_count > HISTOGRAM_BUCKET_COUNT_MAX)
        return err_set(at, ERR_INPUT, "%zu custom bounds, more than %d", h->custom_value_count,
                       HISTOGRAM_BUCKET_COUNT_MAX);
    for (size_t i = 0; i < h->custom_value_count; i++) {
        double v = h->custom_values[i];
        if (isnan(v) || v <= (i > 0 ? h->custom_values[i - 1] : -INFINITY))
            return err_set(at, ERR_INPUT, "custom bounds do not ascend at %zu", i);
        if (v == INFINITY)
            return err_set(at, ERR_INPUT, "the last custom bound is +Inf, which is implied");
    }
    if (h->zero_count_int != 0 || h->zero_count_float != 0)
        return err_set(at, ERR_INPUT, "custom buckets with a zero count");
    if (h->zero_threshold != 0)
        return err_set(at, ERR_INPUT, "custom buckets with a zero threshold");
    if (h->negative_span_count != 0 || h->negative_bucket_count != 0)
        return err_set(at, ERR_INPUT, "custom buckets with negative buckets");
    int64_t index = 0;
    for (size_t i = 0; i < h->positive_span_count; i++) {
        if (i == 0 && h->positive_spans[0].offset < 0)
            return err_set(at, ERR_INPUT, "custom buckets begin before the first bound");
        index += (int64_t)h->positive_spans[i].offset + h->positive_spans[i].length;
    }
    if (index > (int64_t)h->custom_value_count + 1)
        return err_set(at, ERR_INPUT, "more custom buckets than bounds");
    return OK;
}

static err sum_deltas(const int64_t *deltas, size_t count, uint64_t *total, const char *side,
                      struct err_at *at)
{
    int64_t bucket = 0;
    for (size_t i = 0; i < count; i++) {
        if (__builtin_add_overflow(bucket, deltas[i], &bucket) || bucket < 0)
            return err_set(at, ERR_INPUT, "%s bucket %zu has a negative count", side, i);
        if (__builtin_add_overflow(*total, (uint64_t)bucket, total))
            return err_set(at, ERR_INPUT, "bucket counts overflow");
    }
    return OK;
}

static err check_counts(const struct histogram *h, struct err_at *at)
{
    if (h->is_float) {
        if (h->zero_count_float < 0 || h->count_float < 0)
            return err_set(at, ERR_INPUT, "negative count");
        for (size_t i = 0; i < h->positive_bucket_count; i++)
            if (h->positive_counts[i] < 0)
                return err_set(at, ERR_INPUT, "positive bucket %zu has a negative count", i);
        for (size_t i = 0; i < h->negative_bucket_count; i++)
            if (h->negative_counts[i] < 0)
                return err_set(at, ERR_INPUT, "negative bucket %zu has a negative count", i);
        return OK; /* sums of floats need not be equal to the bit */
    }
    uint64_t total = h->zero_count_int;
    TRY(sum_deltas(h->positive_deltas, h->positive_bucket_count, &total, "positive", at));
    TRY(sum_deltas(h->negative_deltas, h->negative_bucket_count, &total, "negative", at));
    /* Observed NaN is in no bucket, so then only too few counts are wrong. */
    if (isnan(h->sum) ? total > h->count_int : total != h->count_int)
        return err_set(at, ERR_INPUT, "%llu observations in buckets, but the count is %llu",
                       (unsigned long long)total, (unsigned long long)h->count_int);
    return OK;
}

err histogram_check(const struct histogram *h, struct err_at *at)
{
    if (!schema_known(h->schema))
        return err_set(at, ERR_INPUT, "unknown schema %d", h->schema);
    if ((unsigned)h->hint > HINT_GAUGE)
        return err_set(at, ERR_INPUT, "unknown reset hint %d", (int)h->hint);
    TRY(check_spans(h->positive_spans, h->positive_span_count, h->positive_bucket_count, "positive", at));
    TRY(check_spans(h->negative_spans, h->negative_span_count, h->negative_bucket_count, "negative", at));
    if (schema_is_custom(h->schema))
        TRY(check_custom(h, at));
    else if (h->custom_value_count != 0)
        return err_set(at, ERR_INPUT, "custom bounds with schema %d", h->schema);
    return check_counts(h, at);
}

/* ---- bytes ---- */

static void put_spans(struct buf *out, const struct histogram_span *spans, size_t count, size_t buckets)
{
    size_t covered = 0;
    buf_put_varint(out, count);
    for (size_t i = 0; i < count; i++) {
        buf_put_zigzag(out, spans[i].offset);
        buf_put_varint(out, spans[i].length);
        covered += spans[i].length;
    }
    check(covered == buckets);
}

static void put_buckets(struct buf *out, bool is_float, const int64_t *deltas, const double *counts,
                        size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_float)
            buf_put_le64(out, double_bits(counts[i]));
        else
            buf_put_zigzag(out, deltas[i]);
    }
}

void histogram_encode(const struct histogram *h, struct buf *out)
{
    check(schema_known(h->schema));
    bool usual = double_bits(h->zero_threshold) == double_bits(USUAL_THRESHOLD);
    buf_put_u8(out, VERSION);
    buf_put_u8(out, (uint8_t)((h->is_float ? FLAG_FLOAT : 0) | (unsigned)h->hint << HINT_SHIFT |
                              (usual ? FLAG_USUAL_THRESHOLD : 0)));
    buf_put_u8(out, (uint8_t)h->schema);
    if (!usual)
        buf_put_le64(out, double_bits(h->zero_threshold));
    buf_put_le64(out, double_bits(h->sum));
    if (h->is_float) {
        buf_put_le64(out, double_bits(h->count_float));
        buf_put_le64(out, double_bits(h->zero_count_float));
    } else {
        buf_put_varint(out, h->count_int);
        buf_put_varint(out, h->zero_count_int);
    }
    put_spans(out, h->positive_spans, h->positive_span_count, h->positive_bucket_count);
    put_spans(out, h->negative_spans, h->negative_span_count, h->negative_bucket_count);
    put_buckets(out, h->is_float, h->positive_deltas, h->positive_counts, h->positive_bucket_count);
    put_buckets(out, h->is_float, h->negative_deltas, h->negative_counts, h->negative_bucket_count);
    if (!schema_is_custom(h->schema))
        return;
    buf_put_varint(out, h->custom_value_count);
    for (size_t i = 0; i < h->custom_value_count; i++)
        buf_put_le64(out, double_bits(h->custom_values[i]));
}

static err read_spans(struct reader *r, struct pool *pool, struct histogram_span **out_spans,
                      size_t *out_count, size_t *out_buckets)
{
    uint64_t count = read_varint(r), buckets = 0;
    if (!r->ok || count > read_left(r) / 2)
        return ERR_CORRUPT;
    if (count > HISTOGRAM_SPAN_COUNT_MAX)
        return ERR_CORRUPT;
    void *at;
    TRY(pool_alloc(pool, count * sizeof(struct histogram_span) + 1, &at));
    struct histogram_span *spans = at;
    for (size_t i = 0; i < count; i++) {
        int64_t offset = read_zigzag(r);
        uint64_t length = read_varint(r);
        if (!r->ok || offset < INT32_MIN || offset > INT32_MAX || length > UINT32_MAX)
            return ERR_CORRUPT;
        spans[i] = (struct histogram_span){ (int32_t)offset, (uint32_t)length };
        buckets += length;
    }
    if (buckets > HISTOGRAM_BUCKET_COUNT_MAX)
        return ERR_CORRUPT;
    *out_spans = spans;
    *out_count = (size_t)count;
    *out_buckets = (size_t)buckets;
    return OK;
}

static err read_floats(struct reader *r, struct pool *pool, size_t count, double **out_values)
{
    void *at;
    if (count > read_left(r) / 8)
        return ERR_CORRUPT;
    TRY(pool_alloc(pool, count * sizeof(double) + 1, &at));
    double *values = at;
    for (size_t i = 0; i < count; i++)
        values[i] = bits_double(read_le64(r));
    *out_values = values;
    return OK;
}

static err read_buckets(struct reader *r, struct pool *pool, bool is_float, size_t count,
                        int64_t **out_deltas, double **out_counts)
{
    if (is_float)
        return read_floats(r, pool, count, out_counts);
    void *at;
    if (count > read_left(r))
        return ERR_CORRUPT;
    TRY(pool_alloc(pool, count * sizeof(int64_t) + 1, &at));
    int64_t *deltas = at;
    for (size_t i = 0; i < count; i++)
        deltas[i] = read_zigzag(r);
    *out_deltas = deltas;
    return OK;
}

err histogram_decode(struct slice bytes, struct pool *pool, struct histogram *out_histogram)
{
    struct reader r = reader_of(bytes);
    uint8_t version = read_u8(&r), flags = read_u8(&r);
    struct histogram h = { .schema = (int8_t)read_u8(&r) };
    if (!r.ok || bytes.len > HISTOGRAM_BYTES_MAX || version != VERSION || flags > FLAGS_KNOWN ||
        !schema_known(h.schema))
        return ERR_CORRUPT;
    h.is_float = (flags & FLAG_FLOAT) != 0;
    h.hint = flags >> HINT_SHIFT & 3;
    h.zero_threshold = flags & FLAG_USUAL_THRESHOLD ? USUAL_THRESHOLD : bits_double(read_le64(&r));
    h.sum = bits_double(read_le64(&r));
    if (h.is_float) {
        h.count_float = bits_double(read_le64(&r));
        h.zero_count_float = bits_double(read_le64(&r));
    } else {
        h.count_int = read_varint(&r);
        h.zero_count_int = read_varint(&r);
    }
    TRY(read_spans(&r, pool, &h.positive_spans, &h.positive_span_count, &h.positive_bucket_count));
    TRY(read_spans(&r, pool, &h.negative_spans, &h.negative_span_count, &h.negative_bucket_count));
    TRY(read_buckets(&r, pool, h.is_float, h.positive_bucket_count, &h.positive_deltas, &h.positive_counts));
    TRY(read_buckets(&r, pool, h.is_float, h.negative_bucket_count, &h.negative_deltas, &h.negative_counts));
    if (schema_is_custom(h.schema)) {
        uint64_t count = read_varint(&r);
        if (count > HISTOGRAM_BUCKET_COUNT_MAX)
            return ERR_CORRUPT;
        h.custom_value_count = (size_t)count;
        TRY(read_floats(&r, pool, h.custom_value_count, &h.custom_values));
    }
    if (!r.ok || r.at != r.end)
        return ERR_CORRUPT;
    *out_histogram = h;
    return OK;
}

/* ---- buckets ---- */

/* Prometheus' table of these roots is not rounded to the nearest double everywhere, and buckets are compared and
 * shown by their exact bounds. So: by how many units of 2^-53 its entry for 2^(i/256 - 1) lies below the nearest
 * double; + is one above. Coarser schemas are every 2nd, 4th, … entry. */
static const char root_steps[] = "00000010001000000012001111111111001000100111001100110+1100110011"
                                 "0000001111221021001000100001000000010+00102200110111001010221111"
                                 "1010112211211011111111212122212200110010112210221122101121221121"
                                 "1132112122322232222222333344324311211222213311222132112222432233";

static double root(int32_t schema, int64_t part)
{
    double exact = (double)exp2l((long double)part / (long double)(INT64_C(1) << schema) - 1);
    char steps = root_steps[part << (SCHEMA_MAX - schema)];
    return exact - (steps == '+' ? -1 : steps - '0') * 0x1p-53;
}

double histogram_bound(const struct histogram *h, int32_t index)
{
    if (schema_is_custom(h->schema)) {
        if (index < 0)
            return -INFINITY;
        return (size_t)index < h->custom_value_count ? h->custom_values[index] : INFINITY;
    }
    int64_t exponent;
    double fraction = 0.5;
    if (h->schema <= 0) {
        exponent = (int64_t)index * (INT64_C(1) << -h->schema);
    } else {
        /* index = exponent · 2^schema + part */
        fraction = root(h->schema, index & ((INT64_C(1) << h->schema) - 1));
        exponent = index >> h->schema;
    }
    if (exponent == 1024 && fraction == 0.5)
        return 0x1.fffffffffffffp1023; /* the last finite bucket; the next one is for ±Inf */
    if (exponent >= 1024)
        return INFINITY;
    if (exponent < -1100)
        return 0;
    return ldexp(fraction, (int)exponent + 1);
}

/* Absolute counts of one side with its bounds, in order of the spans. */
static size_t side_buckets(const struct histogram *h, bool positive, struct histogram_bucket *to)
{
    const struct histogram_span *spans = positive ? h->positive_spans : h->negative_spans;
    size_t span_count = positive ? h->positive_span_count : h->negative_span_count;
    const int64_t *deltas = positive ? h->positive_deltas : h->negative_deltas;
    const double *counts = positive ? h->positive_counts : h->negative_counts;
    size_t bucket = 0, put = 0;
    int64_t index = 0;
    uint64_t absolute = 0; /* unsigned: stored bytes may hold anything */
    for (size_t s = 0; s < span_count; s++) {
        index += spans[s].offset;
        for (uint32_t k = 0; k < spans[s].length; k++, index++, bucket++) {
            absolute += h->is_float ? 0 : (uint64_t)deltas[bucket];
            double count = h->is_float ? counts[bucket] : (double)(int64_t)absolute;
            if (count == 0 || index >= INT32_MAX || index <= INT32_MIN)
                continue;
            double upper = histogram_bound(h, (int32_t)index), lower = histogram_bound(h, (int32_t)index - 1);
            struct histogram_bucket b = { .lower = positive ? lower : -upper,
                                          .upper = positive ? upper : -lower,
                                          .count = count };
            bool lower_in = schema_is_custom(h->schema) ? index == 0 : b.lower < 0;
            bool upper_in = schema_is_custom(h->schema) || b.upper > 0;
            b.boundaries = (uint8_t)(lower_in ? (upper_in ? 3 : 1) : (upper_in ? 0 : 2));
            if (b.upper < 0 && b.upper > -h->zero_threshold)
                b.upper = -h->zero_threshold;
            else if (b.lower > 0 && b.lower < h->zero_threshold)
                b.lower = h->zero_threshold;
            to[put++] = b;
        }
    }
    return put;
}

err histogram_buckets(const struct histogram *h, struct pool *pool, struct histogram_bucket **out_buckets,
                      size_t *out_count)
{
    void *at;
    TRY(pool_alloc(pool,
                   (h->positive_bucket_count + h->negative_bucket_count + 1) *
                       sizeof(struct histogram_bucket),
                   &at));
    struct histogram_bucket *buckets = at;
    size_t count = side_buckets(h, false, buckets);
    for (size_t i = 0; i < count / 2; i++) {
        struct histogram_bucket swap = buckets[i];
        buckets[i] = buckets[count - 1 - i];
        buckets[count - 1 - i] = swap;
    }
    double zero_count = h->is_float ? h->zero_count_float : (double)h->zero_count_int;
    if (zero_count > 0)
        buckets[count++] = (struct histogram_bucket){ 3, -h->zero_threshold, h->zero_threshold, zero_count };
    count += side_buckets(h, true, buckets + count);
    *out_buckets = buckets;
    *out_count = count;
    return OK;
}
