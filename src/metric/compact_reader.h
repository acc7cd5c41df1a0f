/* The inside of an open compact segment, shared by compact_read.c (tables, index) and compact_cursor.c (rows). */
#ifndef METRIC_COMPACT_READER_H
#define METRIC_COMPACT_READER_H

#include "io/thread.h"
#include "metric/compact_format.h"

struct compact_tenant {
    uint32_t first, count; /* series */
    uint32_t index_block;  /* first of its image */
    uint64_t index_bytes;
};

struct metric_compact {
    struct pool *pool;
    struct segment *segment;
    const struct segment_info *info;
    struct compact_tenant *tenants; /* info->tenant_count */
    uint32_t *granule_firsts;       /* first series of each granule */
    uint32_t *granule_parts;        /* first part of each granule */
    uint32_t granule_count;
    uint32_t *exemplar_firsts;
    uint32_t exemplar_block_count;
};

/* Metadata of a tenant, or of all (NULL), with the tenant each belongs to; in arena memory of pool. */
err compact_metadata_list(struct metric_compact *compact, const struct slice *tenant, struct pool *pool,
                          struct slice **out_owners, struct batch_metadata **out_metadata, size_t *out_count,
                          struct err_at *at);

#endif
