/* SUM: the two hashes that are fixed by the format.
 *
 * sum_series_hash names a series inside SUMs and in the live index; sum_histogram_bits stands for the
 * value bits of a histogram row. Both are XXH3 with constants of the format, never with a cluster's
 * hash_key: the SUM of a range must be the same in every cluster and every version (docs/format/sum.md).
 *
 * Invariants
 *   1. Neither function ever changes; a new row hash is a new format version with its own name.
 *   2. Tenants are told apart by the seed, so equal labels of two tenants never cancel. */
#include "model/sum.h"

#define SUM_TENANT_SEED    UINT64_C(0x4b656c7069653031) /* "Kelpie01" */
#define SUM_HISTOGRAM_SEED UINT64_C(0x4b656c7069653032) /* "Kelpie02" */

struct hash128 sum_series_hash(struct slice tenant, struct slice labels)
{
    return hash128(labels, hash64(tenant, SUM_TENANT_SEED));
}

uint64_t sum_histogram_bits(struct slice canonical_histogram)
{
    return hash64(canonical_histogram, SUM_HISTOGRAM_SEED);
}
