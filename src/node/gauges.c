/* See gauges.h. Usage in, statistics (stat_set) out. */
#include "node/gauges.h"

#include "base/stat.h"

void gauges_of_rooms(const struct shards_usage *shards, const struct log_usage *log,
                     const struct query_service_usage *queries)
{
    stat_set(STAT_NODE_DATA_THROUGH_MS, shards->data_through_ms);
    stat_set(STAT_NODE_FAR_FUTURE_ROWS, (int64_t)shards->far_future_rows);
    stat_set(STAT_NODE_HEAD_BYTES, (int64_t)shards->head_bytes);
    stat_set(STAT_NODE_HEAD_ROWS, (int64_t)shards->head_rows);
    stat_set(STAT_NODE_LOSSES, (int64_t)shards->losses);
    stat_set(STAT_NODE_LOSSES_ACCEPTED, (int64_t)shards->losses_accepted);
    stat_set(STAT_NODE_LOG_LIVE_BYTES, (int64_t)log->live_bytes);
    stat_set(STAT_NODE_LOG_RECYCLED_BYTES, (int64_t)log->recycled_bytes);
    stat_set(STAT_NODE_QUARANTINED, (int64_t)shards->quarantined_count);
    stat_set(STAT_NODE_QUERIES_RUNNING, queries->running);
    stat_set(STAT_NODE_QUERIES_WAITING, queries->waiting);
    stat_set(STAT_NODE_QUERY_BYTES, (int64_t)queries->bytes_used);
    stat_set(STAT_NODE_RETENTION_WAITS, shards->retention_waits);
    stat_set(STAT_NODE_CACHE_BYTES, (int64_t)shards->cache_bytes);
    stat_set(STAT_NODE_SEGMENT_BYTES, (int64_t)shards->segment_bytes);
    stat_set(STAT_NODE_SEGMENT_ROWS, (int64_t)shards->segment_rows);
    stat_set(STAT_NODE_SEGMENTS, (int64_t)shards->segment_count);
    stat_set(STAT_NODE_SERIES, (int64_t)shards->series_count);
    stat_set(STAT_NODE_STREAM_BYTES, (int64_t)shards->stream_bytes);
    stat_set(STAT_NODE_STREAM_GROUPS, (int64_t)shards->stream_group_count);
    stat_set(STAT_NODE_STREAM_ROWS, (int64_t)shards->stream_rows);
    stat_set(STAT_NODE_UNRESOLVED_ROWS, (int64_t)shards->unresolved_rows);
}

void gauges_of_cluster(const struct agent_view *view, bool may_decide, uint32_t unowned_count)
{
    stat_set(STAT_CLUSTER_DECIDES, may_decide);
    stat_set(STAT_CLUSTER_EPOCH, (int64_t)view->epoch);
    stat_set(STAT_CLUSTER_MEMBERS_UP, view->up_count);
    stat_set(STAT_CLUSTER_PARTITIONS_OPEN, view->open_count);
    stat_set(STAT_CLUSTER_PARTITIONS_UNOWNED, unowned_count);
    stat_set(STAT_CLUSTER_SUSPENDED_EVICTION_S, view->suspended_ms[AUTOMATION_EVICTION] / 1000);
    stat_set(STAT_CLUSTER_SUSPENDED_PLACEMENT_S, view->suspended_ms[AUTOMATION_PLACEMENT] / 1000);
    stat_set(STAT_CLUSTER_SUSPENDED_REPAIR_S, view->suspended_ms[AUTOMATION_REPAIR] / 1000);
    stat_set(STAT_CLUSTER_UP, view->self.slot != SLOT_NONE);
}
