/* Label sets. Any bytes as canonical labels: what is accepted is walked, found by name, printed, and encodes to
 * the same bytes. Any texts as labels: what encodes is canonical. Any two sets are ordered, whatever way they
 * are compared. Input: byte 0 is where the first of two sets ends; then texts of a length byte each, or sets. */
#include "base/bytes.h"
#include "base/check.h"
#include "model/labels.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LABELS_MAX 64

/* One canonical set. */
static void use(struct slice labels, struct pool *pool)
{
    struct label list[LABELS_MAX], label;
    struct reader r = reader_of(labels);
    struct buf out = buf_open(pool, 4 * LABELS_BYTES_MAX);
    size_t count = 0;
    while (labels_next(&r, &label)) {
        check(utf8_valid(label.name) && utf8_valid(label.value));
        check(slice_equal(labels_get(labels, label.name), label.value));
        if (count < LABELS_MAX)
            list[count] = label;
        count++;
    }
    check(r.ok && labels_count(labels) == count && labels_get(labels, slice_str("\xff")).len == 0);
    labels_print(labels, &out);
    if (count > LABELS_MAX)
        return;
    for (size_t i = 0; i < count / 2; i++) { /* in another order than they come out */
        struct label last = list[count - 1 - i];
        list[count - 1 - i] = list[i];
        list[i] = last;
    }
    buf_clear(&out);
    check(labels_encode(list, count, &out, NULL) == OK && slice_equal(buf_slice(&out), labels));
}

/* Texts of a length byte each, in turn names and values. */
static void encode(struct slice texts, struct pool *pool)
{
    struct label list[LABELS_MAX];
    struct reader r = reader_of(texts);
    struct buf out = buf_open(pool, LABELS_BYTES_MAX);
    struct err_at at = { 0 };
    size_t count = 0;
    while (count < LABELS_MAX && read_left(&r) > 0) {
        struct slice both[2];
        for (int i = 0; i < 2; i++) {
            size_t len = read_u8(&r);
            both[i] = read_bytes(&r, len < read_left(&r) ? len : read_left(&r));
        }
        list[count++] = (struct label){ both[0], both[1] };
    }
    err e = labels_encode(list, count, &out, &at);
    check(e != ERR_INPUT || at.text[0] != 0);
    if (e != OK)
        return;
    check(labels_check(buf_slice(&out), NULL) == OK);
    use(buf_slice(&out), pool);
}

/* With one partition more, a series stays where it is or goes to the new one. */
static void route(struct slice labels)
{
    uint64_t key = series_hash(series_hasher_of((const uint8_t *)"sixteen bytes ..", labels), labels).low;
    for (uint32_t count = 1, before = 0; count < 70; count++) {
        uint32_t bucket = jump_hash(key, count);
        check(bucket == before || bucket == count - 1);
        before = bucket;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct pool *pool = pool_open(NULL, "fuzz", 64u << 20);
    struct err_at at = { 0 };
    size_t cut = data[0] < size - 1 ? data[0] : size - 1;
    struct slice sets[] = { slice_of(data + 1, cut), slice_of(data + 1 + cut, size - 1 - cut),
                            slice_of(data + 1, size - 1) };
    bool are_good = true;
    for (int i = 0; i < 3; i++) {
        bool is_good = labels_check(sets[i], &at) == OK;
        if (is_good)
            use(sets[i], pool);
        route(sets[i]);
        are_good = are_good && (is_good || i == 2);
    }
    if (are_good) {
        uint32_t *order;
        int ab = labels_compare(sets[0], sets[1]), ba = labels_compare(sets[1], sets[0]);
        check((ab < 0) == (ba > 0) && (ab == 0) == slice_equal(sets[0], sets[1]));
        check(labels_order(sets, 2, pool, &order) == OK && (order[0] == 1) == (ab > 0));
    }
    encode(sets[2], pool);
    pool_close(pool);
    return 0;
}
