/* Fuzz: exposition text. The first byte chooses the format. What parses must give labels that can be encoded or
 * are refused, and slices that lie in readable memory. */
#include "fuzz/fuzz_ingest.h"

#include "ingest/text.h"

static uint64_t touch(struct slice s) { return hash64(s, 0); }

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len)
{
    if (len == 0)
        return 0;
    struct pool *pool = pool_open(NULL, "fuzz", POOL_BYTES_UNLIMITED);
    struct text_parser parser;
    struct buf labels = buf_open(pool, 1u << 20);
    uint64_t sum = 0;
    enum text_format format = at[0] % 2 == 0 ? TEXT_PROMETHEUS : TEXT_OPENMETRICS;
    FUZZ_REQUIRE(text_open(&parser, slice_of(at + 1, len - 1), format, pool) == OK);
    for (size_t lines = 0;; lines++) {
        struct text_item item;
        struct err_at where;
        err e = text_next(&parser, &item, &where);
        if (e == ERR_END)
            break;
        FUZZ_REQUIRE(lines <= len + 1);
        if (e != OK)
            continue;
        sum += touch(item.series) + touch(item.family) + touch(item.text);
        if (item.type != TEXT_SAMPLE)
            continue;
        for (size_t i = 0; i < item.exemplar_label_count; i++)
            sum += touch(item.exemplar_labels[i].name) + touch(item.exemplar_labels[i].value);
        buf_clear(&labels);
        if (labels_encode(item.labels, item.label_count, &labels, NULL) == OK)
            FUZZ_REQUIRE(labels_check(buf_slice(&labels), NULL) == OK);
    }
    text_close(&parser);
    pool_close(pool);
    return sum == 1 ? 0 : 0;
}
