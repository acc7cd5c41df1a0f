/* Answering one request from a local source, whoever takes what comes of it: serve.c sends it, own.c keeps it. */
#ifndef FANOUT_REPLY_H
#define FANOUT_REPLY_H

#include "fanout/fanout.h"
#include "fanout/wire.h"

/* What comes, in this order: what there is of the kind that was asked for, then the proof. Everything is borrowed
 * until the call's return, but a set until reply_close. What fails ends the answer. */
struct reply_taker {
    err (*series)(void *context, struct source_set *set); /* SAMPLES, EXEMPLARS */
    err (*texts)(void *context, const struct slice *texts, size_t count);
    err (*metadata)(void *context, const struct source_metadata *metadata, size_t count);
    err (*unit)(void *context, const struct source_groups *groups); /* once, before the first group */
    err (*group)(void *context, const struct source_group *group);
    err (*proof)(void *context, const struct proof *proof);
};

struct reply {
    struct source *source;
    struct pool *pool;                  /* of this request: no budget but those above */
    struct guard *guard;                /* is tightened to the asker's bounds */
    const struct promql_runner *runner; /* NULL: nobody helps */
    const struct reply_taker *taker;
    void *context;
    /* its own */
    struct wire_request wire; /* once it is read */
    struct source_request *requests;
    struct source_set *set;
    bool has_unit;
};

/* Read the request, whose bytes live until reply_close. As wire_request_decode. */
err reply_open(struct reply *a, struct slice request);
/* Make the answer. Errors: the source's and the taker's; ERR_BUSY: others use the memory that it needs;
 * ERR_UNSUPPORTED: this unit is not evaluated, rows may be had. */
err reply_make(struct reply *a);
/* Ends the set. After reply_open, however that ended. */
void reply_close(struct reply *a);

#endif
