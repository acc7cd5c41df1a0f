/* See after.h. Requests get the positions on their way; sets are the inner source's own, and so are the
 * functions that read them: its table is copied, and only what takes a source is replaced. */
#include "query/after.h"

static struct source_request with_positions(const struct after_source *self,
                                            const struct source_request *request)
{
    struct source_request copy = *request;
    copy.after = self->after;
    copy.after_count = self->count;
    return copy;
}

static err copy_requests(const struct after_source *self, const struct source_request *requests, size_t count,
                         struct pool *pool, struct source_request **out_requests)
{
    void *room;
    TRY(pool_alloc(pool, (count + 1) * sizeof *requests, &room));
    *out_requests = room;
    for (size_t i = 0; i < count; i++)
        (*out_requests)[i] = with_positions(self, &requests[i]);
    return OK;
}

static err after_select(struct source *source, const struct source_request *request, struct pool *pool,
                        struct source_set **out_set)
{
    const struct after_source *self = (const struct after_source *)source;
    struct source_request copy = with_positions(self, request);
    return self->inner->table->select(self->inner, &copy, pool, out_set);
}

static err after_names(struct source *source, const struct source_request *requests, size_t request_count,
                       size_t limit, struct pool *pool, struct slice **out_names, size_t *out_count,
                       struct proof *out_proof)
{
    const struct after_source *self = (const struct after_source *)source;
    struct source_request *copies;
    TRY(copy_requests(self, requests, request_count, pool, &copies));
    return self->inner->table->label_names(self->inner, copies, request_count, limit, pool, out_names,
                                           out_count, out_proof);
}

static err after_values(struct source *source, struct slice name, const struct source_request *requests,
                        size_t request_count, size_t limit, struct pool *pool, struct slice **out_values,
                        size_t *out_count, struct proof *out_proof)
{
    const struct after_source *self = (const struct after_source *)source;
    struct source_request *copies;
    TRY(copy_requests(self, requests, request_count, pool, &copies));
    return self->inner->table->label_values(self->inner, name, copies, request_count, limit, pool, out_values,
                                            out_count, out_proof);
}

static err after_metadata(struct source *source, struct slice tenant, struct slice family, struct pool *pool,
                          struct source_metadata **out_metadata, size_t *out_count)
{
    struct source *inner = ((const struct after_source *)source)->inner;
    return inner->table->metadata(inner, tenant, family, pool, out_metadata, out_count);
}

static err after_groups(struct source *source, const struct source_request *request,
                        const struct source_unit *unit, struct pool *pool, struct source_groups *out_groups)
{
    const struct after_source *self = (const struct after_source *)source;
    struct source_request copy = with_positions(self, request);
    return self->inner->table->groups(self->inner, &copy, unit, pool, out_groups);
}

static err after_cardinality(struct source *source, struct slice tenant, size_t limit, struct pool *pool,
                             struct source_cardinality *out_cardinality)
{
    struct source *inner = ((const struct after_source *)source)->inner;
    return inner->table->cardinality(inner, tenant, limit, pool, out_cardinality);
}

struct source *after_source_open(struct after_source *self, struct source *inner,
                                 const struct source_position *after, size_t count)
{
    *self = (struct after_source){ .table = *inner->table, .inner = inner, .after = after, .count = count };
    self->table.select = after_select;
    self->table.label_names = after_names;
    self->table.label_values = after_values;
    self->table.metadata = after_metadata;
    self->table.cardinality = after_cardinality;
    if (inner->table->groups != NULL)
        self->table.groups = after_groups;
    self->source = (struct source){ &self->table, self };
    return &self->source;
}
