/* The values behind stat.h: the one place, beside diag.c, with mutable globals. */
#include "base/stat.h"

_Atomic int64_t stat_values[STAT_COUNT];

const struct stat_row stat_rows[STAT_COUNT] = {
#define STAT_ROW(id, kind, text_name, text_help) \
    [id] = { .name = text_name, .help = text_help, .type = STAT_##kind },
    STAT_LIST(STAT_ROW)
#undef STAT_ROW
};
