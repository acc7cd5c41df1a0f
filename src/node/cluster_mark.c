/* See cluster_mark.h. Bytes in, bytes out; who keeps them is node/cluster_node.c. */
#include "node/cluster_mark.h"

#include "base/bytes.h"
#include "base/hash.h"

#include <string.h>

#define MAGIC         "KELPCLUS"
#define FORMAT        1
#define PROGRAM_BYTES 32

void cluster_mark_encode(const struct cluster_mark *mark, uint8_t out[CLUSTER_MARK_BYTES])
{
    _Static_assert(sizeof KELPIE_VERSION <= PROGRAM_BYTES, "docs/format/cluster.md");
    memset(out, 0, CLUSTER_MARK_BYTES);
    memcpy(out, MAGIC, 8);
    put_le32(out + 8, FORMAT);
    memcpy(out + 16, mark->cluster_id, 16);
    memcpy(out + 32, mark->control_topic_id, 16);
    memcpy(out + 48, mark->topic_id, 16);
    memcpy(out + 64, KELPIE_VERSION, sizeof KELPIE_VERSION);
    put_le32(out + 124, crc32c(slice_of(out, 124), 0));
}

err cluster_mark_decode(struct slice bytes, struct cluster_mark *out_mark, struct err_at *at)
{
    if (bytes.len != CLUSTER_MARK_BYTES || memcmp(bytes.at, MAGIC, 8) != 0 ||
        get_le32(bytes.at + 124) != crc32c(slice_of(bytes.at, 124), 0))
        return err_set(at, ERR_CORRUPT, "CLUSTER is damaged");
    if (get_le32(bytes.at + 8) != FORMAT)
        return err_set(at, ERR_VERSION,
                       "CLUSTER was written by kelpie %.*s, and this one does not know its format",
                       PROGRAM_BYTES - 1, (const char *)bytes.at + 64);
    memcpy(out_mark->cluster_id, bytes.at + 16, 16);
    memcpy(out_mark->control_topic_id, bytes.at + 32, 16);
    memcpy(out_mark->topic_id, bytes.at + 48, 16);
    return OK;
}

static bool differ(const uint8_t *a, const uint8_t *b)
{
    static const uint8_t none[16];
    return memcmp(a, none, 16) != 0 && memcmp(b, none, 16) != 0 && memcmp(a, b, 16) != 0;
}

err cluster_mark_check(const struct cluster_mark *found, const struct cluster_mark *seen, const char *what,
                       struct err_at *at)
{
    if (memcmp(found->cluster_id, seen->cluster_id, 16) != 0)
        return err_set(at, ERR_CONFLICT, "%s belongs to another cluster than the control log", what);
    bool is_control = differ(found->control_topic_id, seen->control_topic_id);
    if (is_control || differ(found->topic_id, seen->topic_id))
        return err_set(at, ERR_CONFLICT,
                       "%s knows another topic of that name: the %stopic was deleted and created anew", what,
                       is_control ? "control log's " : "");
    return OK;
}
