/* Queries over many nodes: fanout_serve answers one request of another node from a local source; a struct
 * fanout is a source (model/source.h) that asks the nodes which hold the partitions and puts their answers
 * together; what this node holds itself is read in place. Neither knows how bytes travel: that is a table of
 * functions, and http.h has one.
 * docs/decisions/0017-query-fan-out.md. */
#ifndef FANOUT_FANOUT_H
#define FANOUT_FANOUT_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "fanout/http.h"
#include "model/guard.h"
#include "model/source.h"
#include "promql/promql.h"

#define FANOUT_REPLICA_COUNT_MAX 5
#define FANOUT_PARTITION_MAX     1024

/* ---- answering ---- */

struct fanout_serve {
    struct source *source;
    struct pool *pool; /* of all requests being answered; its budget bounds them */
    struct guard
        *guard; /* this node's bounds for the request, tightened to those of the asker; canceled may be set
                            from another thread when the asker is gone */
    /* Takes one block, at most some 0.5 MB, and may wait for the asker to take it, as long as the guard allows.
     * Anything but OK ends the work. */
    err (*write)(void *context, struct slice bytes);
    void *context;
    const struct promql_runner *runner; /* helps to evaluate units; NULL: nobody does */
};

/* Answer one request, given as its bytes, to the end: with a proof, or with an error as the last block. OK: the
 * answer has ended, whatever it says; else what write returned, or ERR_LIMIT when there was no memory to begin.
 * Calls write from this thread only. */
err fanout_serve(const struct fanout_serve *serve, struct slice request);

/* ---- asking ---- */

/* How bytes travel. A call belongs to the thread that started it. */
struct fanout_transport {
    void *context;
    /* Begin to ask a node; request is borrowed until return. Any error: the node cannot be asked now. */
    err (*start)(void *context, uint32_t node, struct slice request, void **out_call);
    /* What came of the answer since, borrowed until the next call of any of these. OK with bytes; ERR_BUSY:
     * nothing yet; ERR_END: that was all; else the call broke. */
    err (*next)(void *context, void *call, struct slice *out_bytes);
    /* Give it up, or be done with it. */
    void (*close)(void *context, void *call);
    /* Wait until one of the calls has something, at most timeout_ns. */
    void (*wait)(void *context, void *const *calls, size_t count, int64_t timeout_ns);
    int64_t (*now_ns)(void *context); /* the clock of guard.deadline_ns */
    /* When the node last said that it is at work; NULL: only what comes of its answer tells. */
    int64_t (*heard_ns)(void *context, void *call);
    /* Begin a call within this node: work(work_context) on another thread, once. next: ERR_BUSY until it has
     * returned, then ERR_END; the call may be closed before. Any error: work is not done. NULL: this node asks
     * itself as it asks others. */
    err (*within)(void *context, void (*work)(void *work_context), void *work_context, void **out_call);
};

/* What this node answers itself, without bytes. */
struct fanout_own {
    struct source *source; /* its alone; NULL: it is asked as others are */
    struct pool *pool;     /* of its answers; its budget bounds them */
    /* Does a route mean this node, as it is now? Any thread. */
    bool (*is_own)(void *context, uint32_t node);
    void *context;
    const struct promql_runner *runner; /* helps to evaluate units; NULL: nobody does */
};

struct fanout_config {
    struct fanout_transport transport;
    uint32_t partition_count; /* 1 … FANOUT_PARTITION_MAX */
    /* The nodes that hold a partition now, the one to ask first in front. Returns how many; 0: nobody. Any
     * thread. */
    uint32_t (*route)(void *context, uint32_t partition, uint32_t out_nodes[FANOUT_REPLICA_COUNT_MAX]);
    void *route_context;
    struct fanout_own own;
    int64_t hedge_ns; /* no call is asked elsewhere before it is so old; 0: FANOUT_HEDGE_NS */
    int64_t
        silent_ns; /* one that is silent so long, and does not say that it is at work either, always is; 0:
                          FANOUT_SILENT_NS */
};

#define FANOUT_HEDGE_NS  (10 * NS_PER_MS)
#define FANOUT_SILENT_NS (2 * NS_PER_SECOND)

struct fanout;

/* The config is copied; context and functions live as long. ERR_LIMIT. Ends with pool. */
err fanout_open(const struct fanout_config *config, struct pool *pool, struct fanout **out_fanout);

/* own.runner, copied, when it is not known before; before the first question. */
void fanout_set_runner(struct fanout *fanout, const struct promql_runner *runner);

/* Its source. What it differs in from a local one: what comes of other nodes is here when select returns, so
 * samples_max of the guard bounds that, too; cardinality is ERR_UNSUPPORTED. */
struct source *fanout_source(struct fanout *fanout);

#endif
