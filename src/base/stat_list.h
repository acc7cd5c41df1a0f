/* The table of all statistics. See stat.h. */
#ifndef BASE_STAT_LIST_H
#define BASE_STAT_LIST_H

#define STAT_LIST(X)                                                                              \
    X(STAT_DIAG_LINES_DROPPED, COUNTER, "diag_lines_dropped_total",                               \
      "Diagnostic lines not written because of the rate limit.")                                  \
    X(STAT_QUERIES, COUNTER, "queries_total",                                                     \
      "Queries that were admitted and have ended.")                                               \
    X(STAT_QUERIES_CANCELED, COUNTER, "queries_canceled_total",                                   \
      "Queries that ended because their client went away or the node stops.")                     \
    X(STAT_QUERIES_FAILED, COUNTER, "queries_failed_total",                                       \
      "Queries that ended with an error other than deadline and cancellation.")                   \
    X(STAT_QUERIES_INCOMPLETE, COUNTER, "queries_incomplete_total",                               \
      "Answers that named something missing.")                                                    \
    X(STAT_QUERIES_QUEUED, COUNTER, "queries_queued_total",                                       \
      "Queries that had to wait for a slot.")                                                     \
    X(STAT_QUERIES_REFUSED, COUNTER, "queries_refused_total",                                     \
      "Queries that got no slot: queue full, waited too long, canceled or stopped.")              \
    X(STAT_QUERIES_SLOW, COUNTER, "queries_slow_total",                                           \
      "Queries longer than the configured slow_query_threshold.")                                 \
    X(STAT_QUERIES_TIMED_OUT, COUNTER, "queries_timed_out_total",                                 \
      "Queries that ended at their deadline.")                                                    \
    X(STAT_QUERY_MILLISECONDS, COUNTER, "query_duration_milliseconds_total",                      \
      "Time from arrival to the end of evaluation, over all queries.")                            \
    X(STAT_QUERY_SAMPLES, COUNTER, "query_samples_total",                                         \
      "Samples read by queries.")

#endif
