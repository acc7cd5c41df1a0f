/* Annotations: what an answer should tell besides its values, in Prometheus' words.
 *
 * Texts come from all over the evaluation and go, each once, to the result: at most PROMQL_ANNOTATION_COUNT_MAX
 * of a kind, then how many more there were. A repaired histogram is told once for a metric, with the span of all
 * its repairs.
 * Invariants: 1. Only the evaluation's thread adds. 2. An annotation is a courtesy: without memory the answer goes
 * without it. 3. Everything lives in the result's pool.
 * Source: Prometheus 3.14, util/annotations. */
#include "promql/eval.h"

#include "shim/number.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#define ANNOTATION_COUNT_KEPT 65536 /* distinct ones that are counted */

struct annotations annotations_open(struct pool *pool)
{
    return (struct annotations){ .texts = label_index_open(pool) };
}

void annotate_text(struct annotations *list, struct slice text)
{
    uint32_t number;
    bool is_new;
    if (list->texts.count < ANNOTATION_COUNT_KEPT)
        ERR_IGNORE(label_index_get(&list->texts, text, &number, &is_new));
}

void annotate(struct annotations *list, const char *format, ...)
{
    char text[ERR_TEXT_BYTES_MAX];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    annotate_text(list, slice_of(text, len < (int)sizeof text ? (size_t)len : sizeof text - 1));
}

struct position_text position_of(const struct eval *eval, const struct node *n)
{
    struct position_text position;
    uint32_t line, column;
    uint32_t begin = n != NULL ? node_unwrap((struct node *)n)->begin : 0;
    lex_position(eval->request->expr->source, begin, &line, &column);
    snprintf(position.text, sizeof position.text, " (%u:%u)", line, column);
    return position;
}

/* Is the byte at i, 0x80 or above, part of a valid sequence? */
static bool utf8_at(struct slice s, size_t i)
{
    size_t begin = i;
    while (begin > 0 && i - begin < 3 && (s.at[begin] & 0xc0) == 0x80)
        begin--;
    uint8_t lead = s.at[begin];
    size_t len = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    return lead >= 0xc0 && begin + len > i && begin + len <= s.len && utf8_valid(slice_part(s, begin, len));
}

struct quoted quote(struct slice s)
{
    struct quoted q = { .text = { '"' } };
    size_t len = 1;
    for (size_t i = 0; i < s.len && len < sizeof q.text - 6; i++) {
        uint8_t c = s.at[i];
        static const char escaped[] = "\"\\\a\b\f\n\r\t\v", letters[] = "\"\\abfnrtv";
        const char *found = c != 0 ? strchr(escaped, c) : NULL;
        if (found != NULL) {
            q.text[len++] = '\\';
            q.text[len++] = letters[found - escaped];
        } else if (c < 0x20 || c == 0x7f || (c >= 0x80 && !utf8_at(s, i))) {
            len += (size_t)snprintf(q.text + len, 5, "\\x%02x", c);
        } else {
            q.text[len++] = (char)c;
        }
    }
    q.text[len] = '"';
    return q;
}

/* " for metric name "x"", nothing without a name. */
static struct quoted for_metric(struct slice labels)
{
    struct slice name = labels_get(labels, label_name);
    struct quoted q = { .text = "" };
    if (name.len > 0)
        snprintf(q.text, sizeof q.text, " for metric name %.220s", quote(name).text);
    return q;
}

void annotate_quantile(struct eval *eval, double q, const struct node *n)
{
    char text[NUMBER_TEXT_BYTES_MAX];
    annotate(&eval->warnings, "PromQL warning: quantile value should be between 0 and 1, got %.*s%s",
             (int)number_print_general(q, text), text, position_of(eval, n).text);
}

void annotate_bucket_label(struct eval *eval, struct slice labels, struct slice bound, const struct node *n)
{
    annotate(&eval->warnings,
             "PromQL warning: bucket label \"le\" is missing or has a malformed value of %s%s%s",
             quote(bound).text, for_metric(labels).text, position_of(eval, n).text);
}

/* ---- notes of workers ---- */

static bool ends_with(struct slice s, const char *suffix)
{
    size_t len = strlen(suffix);
    return s.len >= len && memcmp(s.at + s.len - len, suffix, len) == 0;
}

err note_non_counter(struct notes *notes, struct slice name, struct pool *parent)
{
    if (name.len == 0 || ends_with(name, "_total") || ends_with(name, "_sum") || ends_with(name, "_count") ||
        ends_with(name, "_bucket") || notes->non_counter_count == NOTE_COUNT_MAX)
        return OK;
    for (size_t i = 0; i < notes->non_counter_count; i++)
        if (slice_equal(notes->non_counters[i], name))
            return OK;
    if (notes->pool == NULL)
        notes->pool = pool_open(parent, "promql_notes", POOL_BYTES_UNLIMITED);
    TRY(pool_copy(notes->pool, name, &notes->non_counters[notes->non_counter_count]));
    notes->non_counter_count++;
    return OK;
}

void note_quantiles(struct notes *notes, const double *q, const double *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!quantile_is_bad(q[i]) || is_absent(values[i]))
            continue;
        size_t k = 0;
        while (k < notes->bad_quantile_count && double_bits(notes->bad_quantiles[k]) != double_bits(q[i]))
            k++;
        if (k == notes->bad_quantile_count && k < NOTE_COUNT_MAX)
            notes->bad_quantiles[notes->bad_quantile_count++] = q[i];
    }
}

void notes_done(struct notes *notes)
{
    if (notes->pool != NULL)
        pool_close(notes->pool);
    notes->pool = NULL;
}

void notes_tell(struct eval *eval, const struct notes *notes, const struct pipeline *p)
{
    for (size_t i = 0; i < notes->non_counter_count; i++)
        annotate(&eval->infos,
                 "PromQL info: metric might not be a counter, name does not end in "
                 "_total/_sum/_count/_bucket: %s%s",
                 quote(notes->non_counters[i]).text, position_of(eval, p->position).text);
    for (size_t i = 0; i < notes->bad_quantile_count; i++)
        annotate_quantile(eval, notes->bad_quantiles[i], p->arg_position);
}

void annotate_sort(struct eval *eval, const struct node *n)
{
    if (!node_is_fixed(n, false))
        annotate(&eval->warnings,
                 "PromQL warning: sort is ineffective for range queries since results are always ordered by "
                 "labels%s",
                 position_of(eval, n).text);
}

/* ---- forced monotonicity ---- */

void annotate_monotonicity(struct eval *eval, struct slice labels, const struct bucket_repair *repair,
                           const struct node *n)
{
    char text[ERR_TEXT_BYTES_MAX];
    uint32_t number;
    bool is_new;
    int len = snprintf(text, sizeof text, "%s%s", for_metric(labels).text, position_of(eval, n).text);
    if (eval->repair_texts.count >= ANNOTATION_COUNT_KEPT ||
        label_index_get(&eval->repair_texts, slice_of(text, (size_t)len), &number, &is_new) != OK)
        return;
    if (is_new) {
        if (pool_block_reserve(eval->result_pool, (void **)&eval->repairs, sizeof *eval->repairs, number + 1,
                               &eval->repair_capacity) == OK)
            eval->repairs[number] = *repair;
        return;
    }
    if (number >= eval->repair_capacity)
        return;
    struct bucket_repair *all = &eval->repairs[number];
    all->count += repair->count;
    all->begin_ms = repair->begin_ms < all->begin_ms ? repair->begin_ms : all->begin_ms;
    all->end_ms = repair->end_ms > all->end_ms ? repair->end_ms : all->end_ms;
    all->lowest = fmin(all->lowest, repair->lowest);
    all->highest = fmax(all->highest, repair->highest);
    all->difference = fmax(all->difference, repair->difference);
}

/* t_ms in whole seconds: 2026-01-31T23:59:59Z. */
static struct quoted second_text(int64_t t_ms)
{
    struct quoted q;
    char text[TIME_TEXT_BYTES];
    time_print(t_ms / 1000 * 1000, text);
    snprintf(q.text, sizeof q.text, "%.*sZ", (int)(strlen(text) - 5), text);
    return q;
}

static void repairs_finish(struct eval *eval)
{
    for (size_t i = 0; i < eval->repair_texts.count && i < eval->repair_capacity; i++) {
        const struct bucket_repair *r = &eval->repairs[i];
        struct slice where = eval->repair_texts.keys[i]; /* …for metric name "x" (1:2) */
        size_t split = where.len;
        while (where.at[split - 1] != ' ')
            split--;
        char lowest[NUMBER_TEXT_BYTES_MAX], highest[NUMBER_TEXT_BYTES_MAX], difference[32];
        snprintf(difference, sizeof difference, isinf(r->difference) ? "+Inf" : "%.2g", r->difference);
        annotate(&eval->infos,
                 "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see "
                 "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)%.*s, "
                 "from buckets %.*s to %.*s, with a max diff of %s, over %llu samples from %s to %s %.*s",
                 (int)split - 1, where.at, (int)number_print_general(r->lowest, lowest), lowest,
                 (int)number_print_general(r->highest, highest), highest, difference,
                 (unsigned long long)r->count, second_text(r->begin_ms).text, second_text(r->end_ms).text,
                 (int)(where.len - split), where.at + split);
    }
}

static void list_finish(struct annotations *list, struct pool *pool, const char *kind,
                        struct slice **out_texts, size_t *out_count)
{
    size_t count = list->texts.count, kept = count;
    if (kept > PROMQL_ANNOTATION_COUNT_MAX)
        kept = PROMQL_ANNOTATION_COUNT_MAX;
    *out_texts = list->texts.keys;
    *out_count = kept;
    if (kept == count)
        return;
    struct buf text = buf_open(pool, 128);
    buf_printf(&text, "%zu more %s annotations omitted", count - kept, kind);
    if (buf_err(&text) != OK)
        return;
    list->texts.keys[kept] = buf_slice(&text);
    (*out_count)++;
}

void annotations_finish(struct eval *eval, struct promql_result *out)
{
    repairs_finish(eval);
    list_finish(&eval->warnings, eval->result_pool, "warning", &out->warnings, &out->warning_count);
    list_finish(&eval->infos, eval->result_pool, "info", &out->infos, &out->info_count);
}
