/* Self-measurement: every statistic of the program is one row of STAT_LIST, with unit and help, and
 * is exposed on /metrics under `kelpie_` + its name. Counters are relaxed atomics; anyone adds.
 * tools/check-stats fails the build when a row is never used. */
#ifndef BASE_STAT_H
#define BASE_STAT_H

#include <stdatomic.h>
#include <stdint.h>

/* identifier, type (COUNTER or GAUGE), exposed name, help. Keep rows sorted by identifier. */
#include "base/stat_list.h"

#define STAT_ENUM(id, type, name, help) id,
enum stat { STAT_LIST(STAT_ENUM) STAT_COUNT };
#undef STAT_ENUM

enum stat_type { STAT_COUNTER, STAT_GAUGE };

struct stat_row {
    const char *name;
    const char *help;
    enum stat_type type;
};

extern _Atomic int64_t stat_values[STAT_COUNT];
extern const struct stat_row stat_rows[STAT_COUNT];

static inline void stat_add(enum stat id, int64_t n)
{
    atomic_fetch_add_explicit(&stat_values[id], n, memory_order_relaxed);
}

static inline void stat_set(enum stat id, int64_t v)
{
    atomic_store_explicit(&stat_values[id], v, memory_order_relaxed);
}

static inline int64_t stat_get(enum stat id)
{
    return atomic_load_explicit(&stat_values[id], memory_order_relaxed);
}

#endif
