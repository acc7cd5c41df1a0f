/* Memory of a simulated process that dies: everything below one pool is freed at once, whoever still holds it.
 *
 * The link wraps the calls of base/pool.h that open, close and charge pools (pool_tree_wraps in
 * tests/meson.build), so that it is known what lies below what. One thread. */
#ifndef TESTS_POOL_TREE_H
#define TESTS_POOL_TREE_H

#include "base/pool.h"

/* Free a pool and all below it. What libraries hold on its behalf stays theirs: a decompressor, a digest. */
void pool_tree_kill(struct pool *pool);

#endif
