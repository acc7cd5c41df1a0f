/* See pool_tree.h: a table of all pools that are open, each with its children.
 *
 * Invariant: what is charged to a pool by pool_charge is known, so that a pool is closed with nothing left. */
#include "sim/pool_tree.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/hash.h"

struct node {
    struct pool *pool; /* NULL: free */
    size_t charged;
    struct node *parent, *children, *next, **link; /* link: what points to it */
};

/* What a library had allocated for a process that died while it waited inside is lost: a digest, now and then. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void) { return 1; }

#define SLOTS (1u << 16) /* a power of two, some times as many as are open at once */

static struct {
    struct node *slots[SLOTS]; /* by the pool's address */
    struct node *spare;
    size_t count;
} t;

/* What the linker puts in the place of the calls, and what it calls the originals. */
struct pool *__real_pool_open(struct pool *parent, const char *name, size_t bytes_max);
struct pool *__wrap_pool_open(struct pool *parent, const char *name, size_t bytes_max);
void __real_pool_close(struct pool *pool);
void __wrap_pool_close(struct pool *pool);
err __wrap_pool_open_object(struct pool *parent, const char *name, size_t bytes, struct pool **out_pool,
                            void **out_object);
err __real_pool_charge(struct pool *pool, size_t bytes);
err __wrap_pool_charge(struct pool *pool, size_t bytes);
void __real_pool_uncharge(struct pool *pool, size_t bytes);
void __wrap_pool_uncharge(struct pool *pool, size_t bytes);

static size_t slot_of(const struct pool *pool) { return hash_mix((uint64_t)(uintptr_t)pool) & (SLOTS - 1); }

static size_t find(const struct pool *pool)
{
    size_t slot = slot_of(pool);
    while (t.slots[slot] != NULL && t.slots[slot]->pool != pool)
        slot = (slot + 1) & (SLOTS - 1);
    return slot;
}

static struct node *spare(void)
{
    struct node *node = t.spare;
    if (node == NULL)
        node = malloc(sizeof *node);
    else
        t.spare = node->next;
    check(node != NULL && ++t.count < SLOTS / 2);
    return node;
}

struct pool *__wrap_pool_open(struct pool *parent, const char *name, size_t bytes_max)
{
    struct pool *pool = __real_pool_open(parent, name, bytes_max);
    struct node *node = spare(), *above = parent == NULL ? NULL : t.slots[find(parent)];
    *node = (struct node){ .pool = pool, .parent = above };
    if (above != NULL) {
        node->next = above->children;
        node->link = &above->children;
        if (node->next != NULL)
            node->next->link = &node->next;
        above->children = node;
    }
    t.slots[find(pool)] = node;
    return pool;
}

/* Close the gap, so that whatever was put behind it is found. */
static void take_out(size_t slot)
{
    for (size_t next = (slot + 1) & (SLOTS - 1); t.slots[next] != NULL; next = (next + 1) & (SLOTS - 1)) {
        size_t home = slot_of(t.slots[next]->pool);
        if (((next - home) & (SLOTS - 1)) >= ((next - slot) & (SLOTS - 1))) {
            t.slots[slot] = t.slots[next];
            slot = next;
        }
    }
    t.slots[slot] = NULL;
}

static void forget(const struct pool *pool)
{
    size_t slot = find(pool);
    struct node *node = t.slots[slot];
    check(node != NULL && node->children == NULL); /* else a pool is closed before those below it */
    if (node->link != NULL)
        *node->link = node->next;
    if (node->next != NULL)
        node->next->link = node->link;
    take_out(slot);
    node->next = t.spare;
    t.spare = node;
    t.count--;
}

void __wrap_pool_close(struct pool *pool)
{
    if (pool != NULL)
        forget(pool);
    __real_pool_close(pool);
}

err __wrap_pool_open_object(struct pool *parent, const char *name, size_t bytes, struct pool **out_pool,
                            void **out_object)
{
    struct pool *pool = __wrap_pool_open(parent, name, POOL_BYTES_UNLIMITED);
    err e = pool_zalloc(pool, bytes, out_object);
    if (e == OK)
        *out_pool = pool;
    else
        __wrap_pool_close(pool);
    return e;
}

err __wrap_pool_charge(struct pool *pool, size_t bytes)
{
    TRY(__real_pool_charge(pool, bytes));
    t.slots[find(pool)]->charged += bytes;
    return OK;
}

void __wrap_pool_uncharge(struct pool *pool, size_t bytes)
{
    t.slots[find(pool)]->charged -= bytes;
    __real_pool_uncharge(pool, bytes);
}

void pool_tree_kill(struct pool *pool)
{
    struct node *node = t.slots[find(pool)];
    check(node != NULL);
    while (node->children != NULL)
        pool_tree_kill(node->children->pool);
    if (node->charged > 0)
        __wrap_pool_uncharge(pool, node->charged);
    __wrap_pool_close(pool);
}
