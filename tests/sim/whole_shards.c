/* See whole_shards.h. */
#include "sim/whole_shards.h"

#include "shard/partition.h"

struct whole_fold whole_fold_of(struct shards *shards, uint32_t partition)
{
    if (shards == NULL || shards_partition_status(shards, partition).stage != SHARD_OPEN)
        return (struct whole_fold){ 0 };
    const struct partition *p = &shards->partitions[partition];
    const struct chain *c = &p->chain;
    uint64_t hash = c->segment_count;
    for (size_t i = 0; i < c->segment_count; i++)
        hash = hash64(slice_of(&c->segments[i], sizeof c->segments[i]), hash);
    return (struct whole_fold){ true, p->ranges->closed, c->next_number, c->end.generation,
                                hash, c->loss_count };
}

enum whole_record whole_record_of(struct slice record, struct log_position *out_closes)
{
    struct control control;
    if (record.len > CONTROL_BYTES)
        return WHOLE_ROWS;
    if (control_decode(record, &control) != OK || control.kind != CONTROL_CUT)
        return WHOLE_OTHER;
    *out_closes = control.position;
    return WHOLE_CUT;
}
