/* What the two halves of the source over nodes share: remote.c has its sets, remote_union.c all else. */
#ifndef FANOUT_REMOTE_H
#define FANOUT_REMOTE_H

#include "fanout/fanout.h"
#include "fanout/gather.h"

struct fanout {
    struct fanout_config config;
    struct promql_runner runner; /* what config.own.runner points at, once it is set */
    struct source source;
};

/* A copy of the request's selector in pool. ERR_LIMIT. */
err remote_selector_of(const struct source_request *request, struct pool *pool, struct wire_selector *out);
/* What all kinds have in common; texts and arrays are the caller's. */
struct wire_request remote_request_of(enum wire_kind kind, const struct source_request *request);

/* As the functions of source_table. */
err remote_label_names(struct source *source, const struct source_request *requests, size_t request_count,
                       size_t limit, struct pool *pool, struct slice **out_names, size_t *out_count,
                       struct proof *out_proof);
err remote_label_values(struct source *source, struct slice name, const struct source_request *requests,
                        size_t request_count, size_t limit, struct pool *pool, struct slice **out_values,
                        size_t *out_count, struct proof *out_proof);
err remote_metadata(struct source *source, struct slice tenant, struct slice family, struct pool *pool,
                    struct source_metadata **out_metadata, size_t *out_count);
err remote_groups(struct source *source, const struct source_request *request, const struct source_unit *unit,
                  struct pool *pool, struct source_groups *out_groups);

#endif
