/* Worker threads that help queries to evaluate series in parallel. */
#ifndef QUERY_WORKERS_H
#define QUERY_WORKERS_H

#include "base/err.h"
#include "base/pool.h"
#include "io/io.h"

struct query_workers;

/* Start up to count threads; fewer (down to none) where the system refuses them. ERR_LIMIT. */
err query_workers_open(struct io *io, struct pool *pool, unsigned count, struct query_workers **out_workers);

/* No query_workers_run is under way. */
void query_workers_close(struct query_workers *workers);

/* Threads that run jobs of one call at once, the caller's included. */
unsigned query_workers_width(const struct query_workers *workers);

/* Call job(context, i) for every i in [0, count), on the workers and the caller's thread; returns after
 * the last ended. May be called from any thread, from inside a job too. Fits promql_runner.run. */
void query_workers_run(void *workers, size_t count, void (*job)(void *context, size_t index), void *context);

#endif
