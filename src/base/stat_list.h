/* The table of all statistics. See stat.h. */
#ifndef BASE_STAT_LIST_H
#define BASE_STAT_LIST_H

#define STAT_LIST(X)                                                                              \
    X(STAT_DIAG_LINES_DROPPED, COUNTER, "diag_lines_dropped_total",                               \
      "Diagnostic lines not written because of the rate limit.")

#endif
