/* Where diagnostics go: one line each to standard error, with time and level, limited per message. */
#ifndef NODE_SINK_H
#define NODE_SINK_H

#include "base/diag.h"
#include "io/io.h"

struct sink;

/* Begin: from now on diag() lines go to standard error, as logfmt or JSON. One per process. Allocates its
 * small state in pool. ERR_LIMIT. */
err sink_open(struct io *io, struct pool *pool, bool is_json, enum diag_level min_level,
              struct sink **out_sink);

/* Change the level of later lines. */
void sink_set_level(struct sink *sink, enum diag_level min_level);

/* diag() goes nowhere again. */
void sink_close(struct sink *sink);

#endif
