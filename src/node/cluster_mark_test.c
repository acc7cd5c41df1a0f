/* CLUSTER: read as written, every bit counts, and what differs from the cluster as it is seen is named. */
#include "base/test.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "node/cluster_mark.h"

#include <string.h>

static const struct cluster_mark sample = { { 1, 2 }, { 3 }, { 4, 5 }, { 6, 7, 8 }, 1u << 30, 128, 2, false };

static void read_as_written(void **state)
{
    uint8_t bytes[CLUSTER_MARK_BYTES], changed[CLUSTER_MARK_BYTES];
    struct cluster_mark out;
    struct err_at at = { 0 };
    cluster_mark_encode(&sample, bytes);
    assert_ok(cluster_mark_decode(slice_of(bytes, sizeof bytes), &out, &at));
    assert_memory_equal(&out, &sample, sizeof out);
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
        memcpy(changed, bytes, sizeof bytes);
        changed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_err(ERR_CORRUPT, cluster_mark_decode(slice_of(changed, sizeof changed), &out, &at));
    }
    for (size_t len = 0; len < sizeof bytes; len++)
        assert_err(ERR_CORRUPT, cluster_mark_decode(slice_of(bytes, len), &out, &at));
    memcpy(changed, bytes, sizeof bytes);
    changed[123] = 1;
    put_le32(changed + 124, crc32c(slice_of(changed, 124), 0));
    assert_ok(cluster_mark_decode(slice_of(changed, sizeof changed), &out, &at));
    assert_true(out.is_unfinished);
    static const size_t bounded[] = { 112, 120, 122, 123 }; /* of which zero, or all ones, is out of bounds */
    for (size_t i = 0; i < 4; i++) {
        memcpy(changed, bytes, sizeof bytes);
        memset(changed + bounded[i], i == 3 ? 0xff : 0, i == 0 ? 8 : i == 1 ? 2 : 1);
        put_le32(changed + 124, crc32c(slice_of(changed, 124), 0));
        assert_err(ERR_CORRUPT, cluster_mark_decode(slice_of(changed, sizeof changed), &out, &at));
    }
    put_le32(bytes + 8, 3);
    put_le32(bytes + 124, crc32c(slice_of(bytes, 124), 0));
    assert_err(ERR_VERSION, cluster_mark_decode(slice_of(bytes, sizeof bytes), &out, &at));
    assert_non_null(strstr(at.text, KELPIE_VERSION));
}

static void what_differs(void **state)
{
    struct cluster_mark other = sample;
    struct err_at at = { 0 };
    assert_ok(cluster_mark_check(&sample, &other, "it", &at));
    other.topic_id[0] = 9;
    assert_err(ERR_CONFLICT, cluster_mark_check(&sample, &other, "it", &at));
    assert_null(strstr(at.text, "control log's"));
    memset(other.topic_id, 0, sizeof other.topic_id); /* brokers that do not tell */
    assert_ok(cluster_mark_check(&sample, &other, "it", &at));
    other.control_topic_id[0] = 9;
    assert_err(ERR_CONFLICT, cluster_mark_check(&sample, &other, "it", &at));
    assert_non_null(strstr(at.text, "control log's"));
    other = sample;
    other.hash_key[3] = 1;
    assert_err(ERR_CONFLICT, cluster_mark_check(&sample, &other, "it", &at));
    assert_non_null(strstr(at.text, "different partitions"));
    other = sample;
    other.is_unfinished = true;
    assert_err(ERR_CONFLICT, cluster_mark_check(&other, &sample, "the bucket", &at));
    assert_non_null(strstr(at.text, "the bucket is being made by kelpie cluster clone"));
    other.cluster_id[0] = 9;
    assert_err(ERR_CONFLICT, cluster_mark_check(&sample, &other, "the bucket", &at));
    assert_non_null(strstr(at.text, "the bucket belongs to another cluster"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_as_written),
        cmocka_unit_test(what_differs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
