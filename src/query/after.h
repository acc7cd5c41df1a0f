/* A source that asks another one for everything up to certain positions (read your writes, strong reads). */
#ifndef QUERY_AFTER_H
#define QUERY_AFTER_H

#include "model/source.h"

struct after_source {
    struct source source; /* first: what the room's users are given */
    struct source_table table;
    struct source *inner;
    const struct source_position *after; /* ascending */
    size_t count;
};

/* Everything is borrowed as long as the source is used, its sets included. */
struct source *after_source_open(struct after_source *self, struct source *inner,
                                 const struct source_position *after, size_t count);

#endif
