/* The table of all statistics. See stat.h. */
#ifndef BASE_STAT_LIST_H
#define BASE_STAT_LIST_H

#define STAT_LIST(X)                                                                                         \
    X(STAT_AGENT_APPENDS, COUNTER, "cluster_appends_total", "Appends to the control log.")                   \
    X(STAT_AGENT_APPENDS_REFUSED, COUNTER, "cluster_appends_refused_total",                                  \
      "Appends to the control log that were not acknowledged.")                                              \
    X(STAT_AGENT_PROBES, COUNTER, "cluster_probes_total", "Probes of other nodes that were asked for.")      \
    X(STAT_AGENT_PROBES_FAILED, COUNTER, "cluster_probes_failed_total",                                      \
      "Probes without an answer that can be believed.")                                                      \
    X(STAT_AGENT_RECORDS, COUNTER, "cluster_records_total", "Records of the control log that were read.")    \
    X(STAT_AGENT_RECORDS_DAMAGED, COUNTER, "cluster_records_damaged_total",                                  \
      "Records of the control log that are damaged or missing.")                                             \
    X(STAT_BLOB_CACHE_BYTES, GAUGE, "blob_cache_bytes", "Local disk that cached blocks of objects take.")    \
    X(STAT_BLOB_CACHE_DAMAGED, COUNTER, "blob_cache_damaged_total",                                          \
      "Cached blocks found damaged; they are fetched again.")                                                \
    X(STAT_BLOB_CACHE_EVICTIONS, COUNTER, "blob_cache_evictions_total",                                      \
      "Cached blocks removed to make room for others.")                                                      \
    X(STAT_BLOB_CACHE_FAILURES, COUNTER, "blob_cache_failures_total",                                        \
      "Cached blocks that the local disk failed to write, read or remove.")                                  \
    X(STAT_BLOB_CACHE_HITS, COUNTER, "blob_cache_hits_total",                                                \
      "Reads of a block of an object answered from the local disk.")                                         \
    X(STAT_BLOB_CACHE_HIT_BYTES, COUNTER, "blob_cache_hit_bytes_total", "Bytes of those reads.")             \
    X(STAT_BLOB_CACHE_MISSES, COUNTER, "blob_cache_misses_total",                                            \
      "Reads of a block of an object that went to the store.")                                               \
    X(STAT_BLOB_S3_FAILURES, COUNTER, "blob_s3_failures_total",                                              \
      "Calls of the bucket that failed after all tries.")                                                    \
    X(STAT_BLOB_S3_RECEIVED_BYTES, COUNTER, "blob_s3_received_bytes_total",                                  \
      "Bytes of bodies received from the bucket.")                                                           \
    X(STAT_BLOB_S3_REQUESTS, COUNTER, "blob_s3_requests_total", "Requests sent to the bucket.")              \
    X(STAT_BLOB_S3_RETRIES, COUNTER, "blob_s3_retries_total",                                                \
      "Requests that were sent again after a failure.")                                                      \
    X(STAT_BLOB_S3_SENT_BYTES, COUNTER, "blob_s3_sent_bytes_total", "Bytes of bodies sent to the bucket.")   \
    X(STAT_CLUSTER_DECIDES, GAUGE, "cluster_may_decide", "1 while this node may cut and commit.")            \
    X(STAT_CLUSTER_EPOCH, GAUGE, "cluster_epoch",                                                            \
      "Offset behind the last record of the control log that was read.")                                     \
    X(STAT_CLUSTER_LOG_RETENTION_S, GAUGE, "cluster_log_retention_seconds",                                  \
      "How long the brokers keep a record of the log; 315360000 where nothing expires.")                     \
    X(STAT_CLUSTER_MEMBERS_UP, GAUGE, "cluster_members_up", "Nodes that are up, as the control log says.")   \
    X(STAT_CLUSTER_PARTITIONS_OPEN, GAUGE, "cluster_partitions_open",                                        \
      "Partitions that this node is to hold.")                                                               \
    X(STAT_CLUSTER_PARTITIONS_UNOWNED, GAUGE, "cluster_partitions_unowned",                                  \
      "Partitions that no node answers for.")                                                                \
    X(STAT_CLUSTER_SUSPENDED_EVICTION_S, GAUGE, "cluster_eviction_suspended_seconds",                        \
      "For how long more nobody is put out because a person wants it so; 0: it is not suspended.")           \
    X(STAT_CLUSTER_SUSPENDED_PLACEMENT_S, GAUGE, "cluster_placement_suspended_seconds",                      \
      "The same of placing partitions anew.")                                                                \
    X(STAT_CLUSTER_SUSPENDED_REPAIR_S, GAUGE, "cluster_repair_suspended_seconds",                            \
      "The same of giving away what nodes held that are gone.")                                              \
    X(STAT_CLUSTER_UNSAVED_EXPIRES_S, GAUGE, "cluster_unsaved_expires_seconds",                              \
      "Until the oldest record that this node holds and that is in no segment yet expires in the log.")      \
    X(STAT_CLUSTER_UP, GAUGE, "cluster_up", "1 while this node is a member that is up.")                     \
    X(STAT_DIAG_LINES_DROPPED, COUNTER, "diag_lines_dropped_total",                                          \
      "Diagnostic lines not written because of the rate limit.")                                             \
    X(STAT_FANOUT_ANSWERS, COUNTER, "fanout_answers_total", "Questions of other nodes.")                     \
    X(STAT_FANOUT_CALLS, COUNTER, "fanout_calls_total", "Questions to other nodes.")                         \
    X(STAT_FANOUT_CALLS_BROKEN, COUNTER, "fanout_calls_broken_total",                                        \
      "Questions to other nodes whose answers did not come to their end, or were given up.")                 \
    X(STAT_FANOUT_GROUPS_BYTES, COUNTER, "fanout_received_groups_bytes_total",                               \
      "Bytes of answers of nodes with groups of series.")                                                    \
    X(STAT_FANOUT_OWN, COUNTER, "fanout_own_total", "Questions that this node answered itself.")             \
    X(STAT_FANOUT_ROWS_BYTES, COUNTER, "fanout_received_rows_bytes_total",                                   \
      "Bytes of answers of nodes with series and rows, or their names.")                                     \
    X(STAT_INGEST_ANNOUNCEMENTS_BYTES, GAUGE, "ingest_announcements_bytes",                                  \
      "Memory of labels that are kept to be announced again, should the log go back.")                       \
    X(STAT_INGEST_ANNOUNCES, COUNTER, "ingest_announced_series_total",                                       \
      "Series whose labels were sent to the log and acknowledged.")                                          \
    X(STAT_INGEST_ANNOUNCES_AGAIN, COUNTER, "ingest_announced_again_series_total",                           \
      "Series whose labels were sent again because the log had gone back, and acknowledged.")                \
    X(STAT_INGEST_EXEMPLARS, COUNTER, "ingest_exemplars_total", "Exemplars stored durably.")                 \
    X(STAT_INGEST_HISTOGRAMS, COUNTER, "ingest_histograms_total",                                            \
      "Native histogram samples stored durably.")                                                            \
    X(STAT_INGEST_INCARNATIONS, COUNTER, "ingest_incarnations_total",                                        \
      "New producer incarnations taken because of dead series numbers.")                                     \
    X(STAT_INGEST_RECORDS, COUNTER, "ingest_records_total", "Batch records handed to the log.")              \
    X(STAT_INGEST_REFUSED_EXEMPLAR_INVALID, COUNTER, "ingest_refused_exemplar_invalid_total",                \
      "Exemplars refused as invalid.")                                                                       \
    X(STAT_INGEST_REFUSED_HISTOGRAM_INVALID, COUNTER, "ingest_refused_histogram_invalid_total",              \
      "Histogram samples refused as invalid.")                                                               \
    X(STAT_INGEST_REFUSED_LABELS_INVALID, COUNTER, "ingest_refused_labels_invalid_total",                    \
      "Samples refused for invalid labels.")                                                                 \
    X(STAT_INGEST_REFUSED_LABEL_COUNT, COUNTER, "ingest_refused_label_count_total",                          \
      "Samples refused for too many labels in a series.")                                                    \
    X(STAT_INGEST_REFUSED_METADATA_INVALID, COUNTER, "ingest_refused_metadata_invalid_total",                \
      "Metadata refused as invalid.")                                                                        \
    X(STAT_INGEST_REFUSED_NAME_LENGTH, COUNTER, "ingest_refused_name_length_total",                          \
      "Samples refused for a label or metric name that is too long.")                                        \
    X(STAT_INGEST_REFUSED_NAME_MISSING, COUNTER, "ingest_refused_name_missing_total",                        \
      "Samples refused for a missing __name__.")                                                             \
    X(STAT_INGEST_REFUSED_SAMPLE_MISSING, COUNTER, "ingest_refused_sample_missing_total",                    \
      "Series refused because they had no sample.")                                                          \
    X(STAT_INGEST_REFUSED_SERIES_LIMIT, COUNTER, "ingest_refused_series_limit_total",                        \
      "Samples refused because the tenant has too many active series.")                                      \
    X(STAT_INGEST_REFUSED_SERIES_MEMORY, COUNTER, "ingest_refused_series_memory_total",                      \
      "Samples refused because there is no memory for more series.")                                         \
    X(STAT_INGEST_REFUSED_TIME_RANGE, COUNTER, "ingest_refused_time_range_total",                            \
      "Samples refused for a timestamp beyond the year 9999, or as far before 1970.")                        \
    X(STAT_INGEST_REFUSED_VALUE_LENGTH, COUNTER, "ingest_refused_value_length_total",                        \
      "Samples refused for a label value that is too long.")                                                 \
    X(STAT_INGEST_REQUESTS, COUNTER, "ingest_requests_total", "Write requests answered.")                    \
    X(STAT_INGEST_REQUESTS_ABANDONED, COUNTER, "ingest_requests_abandoned_total",                            \
      "Write requests answered with 503 before the log told what became of them.")                           \
    X(STAT_INGEST_REQUESTS_FAILED, COUNTER, "ingest_requests_failed_total",                                  \
      "Write requests answered with 503 or 507.")                                                            \
    X(STAT_INGEST_REQUESTS_PARTIAL, COUNTER, "ingest_requests_partial_total",                                \
      "Write requests answered with 400: malformed, or stored in part.")                                     \
    X(STAT_INGEST_REQUESTS_REFUSED, COUNTER, "ingest_requests_refused_total",                                \
      "Write requests answered with 413, 415 or 429.")                                                       \
    X(STAT_INGEST_SAMPLES, COUNTER, "ingest_samples_total", "Float samples stored durably.")                 \
    X(STAT_INGEST_SAMPLES_FUTURE, COUNTER, "ingest_samples_future_total",                                    \
      "Samples stored whose time is beyond the future bound.")                                               \
    X(STAT_INGEST_SERIES, GAUGE, "ingest_series", "Series in the ingest table, over all tenants.")           \
    X(STAT_INGEST_SERIES_CREATED, COUNTER, "ingest_series_created_total",                                    \
      "Series entered into the ingest table.")                                                               \
    X(STAT_INGEST_SERIES_DROPPED, COUNTER, "ingest_series_dropped_total",                                    \
      "Series dropped from the ingest table as idle.")                                                       \
    X(STAT_INGEST_TABLE_BYTES, GAUGE, "ingest_table_bytes", "Memory of the ingest table.")                   \
    X(STAT_LOG_APPENDS, COUNTER, "log_records_total", "Records made durable in the log.")                    \
    X(STAT_LOG_APPENDS_FAILED, COUNTER, "log_records_failed_total",                                          \
      "Records that could not be written to the log.")                                                       \
    X(STAT_LOG_APPENDS_REFUSED, COUNTER, "log_records_refused_total",                                        \
      "Records refused because the queue was full, the disk below its floor, or at shutdown.")               \
    X(STAT_LOG_BYTES, COUNTER, "log_bytes_total", "Bytes of frames written to the log.")                     \
    X(STAT_LOG_FILES_OPENED, COUNTER, "log_files_opened_total",                                              \
      "Physical log files begun, new or recycled.")                                                          \
    X(STAT_LOG_FILES_SEALED, COUNTER, "log_files_sealed_total",                                              \
      "Log files given up after a failed write or sync.")                                                    \
    X(STAT_LOG_RECORDS_DAMAGED, COUNTER, "log_records_damaged_total",                                        \
      "Records found damaged by recovery or by a reader.")                                                   \
    X(STAT_LOG_RECORDS_FROM_DISK, COUNTER, "log_records_read_from_disk_total",                               \
      "Records that a reader fetched from disk instead of the tail in memory.")                              \
    X(STAT_LOG_SYNCS, COUNTER, "log_syncs_total", "Syncs of log files, each for a group of records.")        \
    X(STAT_LOG_SYNC_NS, COUNTER, "log_write_sync_nanoseconds_total",                                         \
      "Time spent in writes and syncs of groups.")                                                           \
    X(STAT_NET_BODY_BYTES, COUNTER, "http_request_body_bytes_total", "Bytes of request bodies received.")    \
    X(STAT_NET_BODY_BYTES_HELD, GAUGE, "http_request_body_bytes_held",                                       \
      "Bytes of request bodies now charged to the common budget.")                                           \
    X(STAT_NET_CONNECTIONS, GAUGE, "http_connections", "Open connections.")                                  \
    X(STAT_NET_CONNECTIONS_CUT, COUNTER, "http_connections_cut_total",                                       \
      "Connections cut for being too slow or idle for too long.")                                            \
    X(STAT_NET_CONNECTIONS_REFUSED, COUNTER, "http_connections_refused_total",                               \
      "Connections closed at once: too many of one address.")                                                \
    X(STAT_NET_PASSWORD_CHECKS, COUNTER, "http_password_checks_total",                                       \
      "Passwords compared with a bcrypt hash: those of which no verdict was remembered.")                    \
    X(STAT_NET_REFUSED_BUDGET, COUNTER, "http_requests_refused_budget_total",                                \
      "Requests answered with 503: too many bodies in flight, or passwords to compare.")                     \
    X(STAT_NET_REFUSED_DENIED, COUNTER, "http_requests_refused_denied_total",                                \
      "Requests answered with 401 or 403.")                                                                  \
    X(STAT_NET_REFUSED_MALFORMED, COUNTER, "http_requests_refused_malformed_total",                          \
      "Requests that broke HTTP's rules or had no route.")                                                   \
    X(STAT_NET_REFUSED_SIZE, COUNTER, "http_requests_refused_size_total",                                    \
      "Requests answered with 413 or with too many parameters.")                                             \
    X(STAT_NET_REQUESTS, COUNTER, "http_requests_total", "Requests answered.")                               \
    X(STAT_NET_REQUESTS_RUNNING, GAUGE, "http_requests_running",                                             \
      "Requests being read, handled or answered.")                                                           \
    X(STAT_NET_RESPONSE_BYTES, COUNTER, "http_response_body_bytes_total",                                    \
      "Bytes of answers' bodies as sent, after compression.")                                                \
    X(STAT_NODE_CACHE_BYTES, GAUGE, "segment_cache_bytes", "Memory of decoded blocks that are kept.")        \
    X(STAT_NODE_DATA_THROUGH_MS, GAUGE, "data_through_milliseconds",                                         \
      "Append time (Unix) of the newest record that queries see.")                                           \
    X(STAT_NODE_FAR_FUTURE_ROWS, GAUGE, "far_future_rows",                                                   \
      "Rows of open ranges later than 10 minutes after their append.")                                       \
    X(STAT_NODE_FREE_BYTES, GAUGE, "disk_free_bytes", "Free space on the data disk.")                        \
    X(STAT_NODE_HEAD_BYTES, GAUGE, "head_bytes", "Memory of the heads: rows not yet spilled.")               \
    X(STAT_NODE_HEAD_ROWS, GAUGE, "head_rows", "Rows in the heads.")                                         \
    X(STAT_NODE_INTAKE_CLOSED, GAUGE, "intake_closed",                                                       \
      "1 while writes are refused: free space below the floor, memory, disk error.")                         \
    X(STAT_NODE_LOSSES, GAUGE, "losses", "Known losses that answers name.")                                  \
    X(STAT_NODE_LOSSES_ACCEPTED, GAUGE, "losses_accepted", "Known losses that a person accepted.")           \
    X(STAT_NODE_LOG_LIVE_BYTES, GAUGE, "log_live_bytes",                                                     \
      "Bytes of log files with records that are still needed.")                                              \
    X(STAT_NODE_LOG_RECYCLED_BYTES, GAUGE, "log_recycled_bytes",                                             \
      "Bytes of log files that wait to be written again.")                                                   \
    X(STAT_NODE_MEMORY_BUDGET_BYTES, GAUGE, "memory_budget_bytes",                                           \
      "Memory that all pools together may take.")                                                            \
    X(STAT_NODE_MEMORY_BYTES, GAUGE, "memory_bytes", "Memory that all pools together hold.")                 \
    X(STAT_NODE_QUARANTINED, GAUGE, "quarantined_objects", "Live segments known to be damaged.")             \
    X(STAT_NODE_QUERIES_RUNNING, GAUGE, "queries_running", "Queries in evaluation.")                         \
    X(STAT_NODE_QUERIES_WAITING, GAUGE, "queries_waiting", "Queries that wait for a slot.")                  \
    X(STAT_NODE_QUERY_BYTES, GAUGE, "query_memory_bytes", "Memory that all queries together hold.")          \
    X(STAT_NODE_RELOADS, COUNTER, "config_reloads_total", "Reloads of the configuration that were applied.") \
    X(STAT_NODE_RELOADS_FAILED, COUNTER, "config_reloads_failed_total",                                      \
      "Reloads of the configuration that were refused.")                                                     \
    X(STAT_NODE_RETENTION_WAITS, GAUGE, "retention_waiting_partitions",                                      \
      "Partitions whose retention would drop much at once and waits for a confirmation.")                    \
    X(STAT_NODE_SEGMENTS, GAUGE, "segments", "Live segments.")                                               \
    X(STAT_NODE_SEGMENT_BYTES, GAUGE, "segment_bytes", "Bytes of live segments.")                            \
    X(STAT_NODE_SEGMENT_ROWS, GAUGE, "segment_rows", "Rows in live segments.")                               \
    X(STAT_NODE_SERIES, GAUGE, "series", "Series in the live index.")                                        \
    X(STAT_NODE_STREAM_BYTES, GAUGE, "stream_bytes", "Bytes of stream files: spilled rows of open ranges.")  \
    X(STAT_NODE_STREAM_GROUPS, GAUGE, "stream_groups", "Row groups in stream files.")                        \
    X(STAT_NODE_STREAM_ROWS, GAUGE, "stream_rows", "Rows in stream files.")                                  \
    X(STAT_NODE_UNRESOLVED_ROWS, GAUGE, "unresolved_rows",                                                   \
      "Rows of series whose labels are not known (yet); answers are incomplete.")                            \
    X(STAT_QUERIES, COUNTER, "queries_total", "Queries that were admitted and have ended.")                  \
    X(STAT_QUERIES_CANCELED, COUNTER, "queries_canceled_total",                                              \
      "Queries that ended because their client went away or the node stops.")                                \
    X(STAT_QUERIES_FAILED, COUNTER, "queries_failed_total",                                                  \
      "Queries that ended with an error other than deadline and cancellation.")                              \
    X(STAT_QUERIES_INCOMPLETE, COUNTER, "queries_incomplete_total", "Answers that named something missing.") \
    X(STAT_QUERIES_QUEUED, COUNTER, "queries_queued_total", "Queries that had to wait for a slot.")          \
    X(STAT_QUERIES_REFUSED, COUNTER, "queries_refused_total",                                                \
      "Queries that got no slot: queue full, waited too long, canceled or stopped.")                         \
    X(STAT_QUERIES_SLOW, COUNTER, "queries_slow_total",                                                      \
      "Queries longer than the configured slow_query_threshold.")                                            \
    X(STAT_QUERIES_TIMED_OUT, COUNTER, "queries_timed_out_total", "Queries that ended at their deadline.")   \
    X(STAT_QUERY_MILLISECONDS, COUNTER, "query_duration_milliseconds_total",                                 \
      "Time from arrival to the end of evaluation, over all queries.")                                       \
    X(STAT_QUERY_SAMPLES, COUNTER, "query_samples_total", "Samples read by queries.")                        \
    X(STAT_SCRAPES, COUNTER, "scrapes_total", "Scrapes of targets, failed ones included.")                   \
    X(STAT_SCRAPES_FAILED, COUNTER, "scrapes_failed_total",                                                  \
      "Scrapes that stored nothing but up = 0 and stale markers.")                                           \
    X(STAT_SCRAPES_SKIPPED, COUNTER, "scrapes_skipped_total",                                                \
      "Ticks of targets that passed while no worker was free.")                                              \
    X(STAT_SCRAPE_BYTES, COUNTER, "scrape_body_bytes_total", "Bytes of scraped bodies as received.")         \
    X(STAT_SCRAPE_SAMPLES, COUNTER, "scrape_samples_total", "Rows stored for scrapes.")                      \
    X(STAT_SCRAPE_TARGETS, GAUGE, "scrape_targets", "Targets being scraped.")                                \
    X(STAT_SCRAPE_WORKERS, GAUGE, "scrape_workers", "Threads that scrape.")                                  \
    X(STAT_SEGMENT_CACHE_EVICTIONS, COUNTER, "segment_cache_evictions_total",                                \
      "Blocks dropped from the block cache to stay within its budget.")                                      \
    X(STAT_SEGMENT_CACHE_HITS, COUNTER, "segment_cache_hits_total", "Blocks found in the block cache.")      \
    X(STAT_SEGMENT_CACHE_MISSES, COUNTER, "segment_cache_misses_total",                                      \
      "Blocks read from a segment because the block cache did not have them.")                               \
    X(STAT_SHARD_APPLIED_ROWS, COUNTER, "shard_applied_rows_total",                                          \
      "Rows of log records that were applied.")                                                              \
    X(STAT_SHARD_BEGUN_ANEW, COUNTER, "shard_begun_anew_total",                                              \
      "Times a partition was closed to begin anew at the end of its chain.")                                 \
    X(STAT_SHARD_BUILT_ROWS, COUNTER, "shard_built_rows_total",                                              \
      "Rows written to segments from closed ranges.")                                                        \
    X(STAT_SHARD_COMMITS, COUNTER, "shard_commits_total", "Ranges committed to manifest chains.")            \
    X(STAT_SHARD_COMPACTED_ROWS, COUNTER, "shard_compacted_rows_total", "Rows read by merges of segments.")  \
    X(STAT_SHARD_COMPACTIONS, COUNTER, "shard_compactions_total", "Merges of segments that were committed.") \
    X(STAT_SHARD_DOUBTS, COUNTER, "shard_doubts_total", "Ranges of which two replicas made different rows.") \
    X(STAT_SHARD_DUPLICATE_RECORDS, COUNTER, "shard_duplicate_records_total",                                \
      "Log records not applied because their sequence was seen before.")                                     \
    X(STAT_SHARD_EXEMPLARS_DROPPED, COUNTER, "shard_exemplars_dropped_total",                                \
      "Exemplars not kept: no row of their series came in the same hour or so.")                             \
    X(STAT_SHARD_HOLDS, GAUGE, "shard_sweep_holds",                                                          \
      "Holds in the shared store that keep sweeps away, as of the last look.")                               \
    X(STAT_SHARD_LOST_RECORDS, COUNTER, "shard_lost_records_total",                                          \
      "Log records that were damaged; answers name what may be missing.")                                    \
    X(STAT_SHARD_OBJECTS_DOUBTED, COUNTER, "shard_objects_doubted_total",                                    \
      "Objects of which bytes were wrong by a checksum, and were read once more.")                           \
    X(STAT_SHARD_OBJECTS_REMOVED, COUNTER, "shard_objects_removed_total",                                    \
      "Objects of a shared store that no manifest had named for a day, removed.")                            \
    X(STAT_SHARD_QUARANTINED, COUNTER, "shard_quarantined_total", "Files and objects found damaged.")        \
    X(STAT_SHARD_RACES, COUNTER, "shard_races_total",                                                        \
      "Manifest entries whose number was found taken, by another replica or an earlier attempt.")            \
    X(STAT_SHARD_SPILLED_BYTES, COUNTER, "shard_spilled_bytes_total",                                        \
      "Bytes of frames written to stream files.")                                                            \
    X(STAT_SHARD_SPILLED_ROWS, COUNTER, "shard_spilled_rows_total",                                          \
      "Rows of heads written to stream files.")                                                              \
    X(STAT_SHARD_SWEEPS, COUNTER, "shard_sweeps_total",                                                      \
      "Looks for such objects, of one partition each, that came to their end.")                              \
    X(STAT_SHARD_SWEEPS_MISSING, COUNTER, "shard_sweeps_missing_total",                                      \
      "Looks given up because the store's list lacks objects that the manifest names.")                      \
    X(STAT_SHARD_SWEEPS_SKIPPED, COUNTER, "shard_sweeps_skipped_total",                                      \
      "Looks that were given up, or not made, because something was in doubt or under way.")                 \
    X(STAT_SHARD_TAKEN_OVER, COUNTER, "shard_taken_over_total",                                              \
      "Manifest entries of other replicas that were taken over.")                                            \
    X(STAT_SYNC_COMPARED, COUNTER, "sync_compared_total",                                                    \
      "Comparisons of a partition with another replica that found them equal, or different.")                \
    X(STAT_SYNC_DIFFERED, COUNTER, "sync_differed_total",                                                    \
      "Differences found between replicas, or between a stream file and what was applied.")                  \
    X(STAT_SYNC_DOUBTFUL, GAUGE, "sync_partitions_doubtful",                                                 \
      "Partitions of this node that differ from another replica, or are being mended.")                      \
    X(STAT_SYNC_NOT_COMPARED, COUNTER, "sync_not_compared_total",                                            \
      "Comparisons that found nothing, or not everything, that could be compared at the time.")              \
    X(STAT_SYNC_QUARANTINED, COUNTER, "sync_quarantined_total",                                              \
      "Times that a replica put its stream files aside and read the log again.")                             \
    X(STAT_SYNC_READ_BYTES, COUNTER, "sync_read_bytes_total",                                                \
      "Bytes of stream files read again to compare them with what was applied.")                             \
    X(STAT_SYNC_REPAIRED, COUNTER, "sync_repaired_total",                                                    \
      "Replicas that began anew and were found equal to another one since.")                                 \
    X(STAT_SYNC_UNDECIDED, GAUGE, "sync_partitions_undecided",                                               \
      "Partitions whose replicas differ although both read the log: a person has to look.")                  \
    X(STAT_WRITES_REFUSED, COUNTER, "writes_refused_total",                                                  \
      "Write requests not taken because intake is closed: starting, disk full, memory.")

#endif
