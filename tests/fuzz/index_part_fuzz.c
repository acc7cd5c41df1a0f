/* Any bytes as an index part: open, read every kind of thing, verify. Nothing but errors and answers inside
 * the bounds may come out; what verifies must read back without errors. Parts carry no checksum of their own,
 * so there is none to repair. Seeds: corpus/index_part. */
#include "base/check.h"
#include "metric/metric.h"
#include "model/labels.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX (64u << 20)

static void select_some(const struct metric_part *part, struct pool *pool)
{
    static const struct {
        enum match_type type;
        const char *name, *value;
    } matchers[] = {
        { MATCH_EQUAL, "__name__", "up" }, { MATCH_NOT_EQUAL, "job", "a" },   { MATCH_REGEX, "job", "a.*" },
        { MATCH_NOT_REGEX, "job", "a|b" }, { MATCH_REGEX, "instance", ".+" }, { MATCH_EQUAL, "job", "" },
    };
    for (size_t i = 0; i < sizeof matchers / sizeof *matchers; i++) {
        struct matcher m;
        uint32_t *ordinals;
        struct slice *texts;
        size_t count, text_count;
        if (matcher_init(pool, matchers[i].type, slice_str(matchers[i].name), slice_str(matchers[i].value),
                         &m, NULL) != OK)
            continue;
        if (metric_part_select(part, &m, 1, pool, &ordinals, &count) == OK) {
            for (size_t k = 0; k < count; k++)
                check(ordinals[k] < part->series_count && (k == 0 || ordinals[k - 1] < ordinals[k]));
            ERR_IGNORE(metric_part_names(part, ordinals, count, pool, &texts, &text_count));
            ERR_IGNORE(
                metric_part_values(part, slice_str("job"), ordinals, count, pool, &texts, &text_count));
        }
        matcher_done(&m);
    }
}

/* Several matchers at once: a short list is filtered by the labels themselves. */
static void select_together(const struct metric_part *part, struct pool *pool)
{
    struct matcher m[3];
    uint32_t *ordinals;
    size_t count, ready = 0;
    static const struct {
        enum match_type type;
        const char *name, *value;
    } matchers[] = {
        { MATCH_REGEX, "job", "job-1.*|api" },
        { MATCH_EQUAL, "__name__", "up" },
        { MATCH_NOT_EQUAL, "job", "a" },
    };
    while (ready < 3 && matcher_init(pool, matchers[ready].type, slice_str(matchers[ready].name),
                                     slice_str(matchers[ready].value), &m[ready], NULL) == OK)
        ready++;
    if (ready == 3 && metric_part_select(part, m, 3, pool, &ordinals, &count) == OK)
        for (size_t k = 0; k < count; k++)
            check(ordinals[k] < part->series_count);
    while (ready > 0)
        matcher_done(&m[--ready]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct metric_part part;
    if (metric_part_open(slice_of(data, size), &part) != OK || part.series_count > 100000)
        return 0;
    struct pool *pool = pool_open(NULL, "fuzz", FUZZ_BYTES_MAX);
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    bool sound = metric_part_verify(&part, pool) == OK;
    for (uint32_t i = 0; i < part.series_count && i < 200; i++) {
        buf_clear(&labels);
        err e = metric_part_labels(&part, i, &labels);
        check(e == OK || e == ERR_LIMIT || !sound);
    }
    for (uint32_t i = 0; i < part.pair_count && i < 200; i++) {
        struct metric_part_pair pair;
        err e = metric_part_pair_at(&part, i, &pair);
        check(e == OK || !sound);
    }
    select_some(&part, pool);
    select_together(&part, pool);
    pool_close(pool);
    return 0;
}
