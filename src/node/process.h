/* process_* metrics of this process, as Prometheus' client libraries name them. */
#ifndef NODE_PROCESS_H
#define NODE_PROCESS_H

#include "base/buf.h"
#include "io/io.h"

/* Append them in text format. What /proc does not tell is left out. start_ms: Unix time of the start. */
void process_metrics(struct io *io, int64_t start_ms, struct buf *out);

#endif
