/* Test only: a world (workload.h) on a real disk, in a directory of its own that goes with the test. */
#ifndef SHARD_FIXTURE_H
#define SHARD_FIXTURE_H

#include "shard/workload.h"

struct fixture {
    struct world world;
    struct pool *pool;
    struct io *io;
    char root[64];
};

/* A world that is not open yet, with a producer. */
static inline int fixture_setup(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    snprintf(f.root, sizeof f.root, "/tmp/kelpie-shard-XXXXXX");
    assert_non_null(mkdtemp(f.root));
    f.pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    assert_ok(io_open(f.root, &f.io));
    world_init(&f.world, f.io, f.pool, test_seed());
    world_producer_renew(&f.world);
    *state = &f;
    return 0;
}

/* Remove a directory with all that is in it; none is fine. */
static inline void fixture_remove(struct fixture *f, const char *path)
{
    struct io_dir_entry *entries;
    size_t count;
    if (io_dir_list(f->io, path, f->pool, &entries, &count) != OK)
        return;
    for (size_t i = 0; i < count; i++) {
        char child[IO_PATH_BYTES_MAX];
        assert_true(snprintf(child, sizeof child, "%s/%s", path, entries[i].name) < IO_PATH_BYTES_MAX);
        if (entries[i].is_dir)
            fixture_remove(f, child);
        else
            ERR_IGNORE(io_unlink(f->io, child));
    }
    ERR_IGNORE(io_dir_remove(f->io, path));
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    if (f->world.shards != NULL)
        world_close_quick(&f->world);
    fixture_remove(f, ".");
    io_close(f->io);
    remove(f->root);
    pool_close(f->pool);
    return 0;
}

/* Flip a bit of the byte that lies at a `part`th of a file. */
static inline void fixture_flip(struct fixture *f, const char *path, uint64_t part)
{
    struct io_file *file;
    uint64_t size;
    uint8_t byte;
    assert_ok(io_file_open(f->io, path, IO_WRITE, &file));
    assert_ok(io_file_size(file, &size));
    assert_ok(io_file_read(file, size / part, &byte, 1, NULL));
    byte ^= 16;
    assert_ok(io_file_write(file, size / part, slice_of(&byte, 1)));
    io_file_close(file);
}

/* Records with rows of all ages, acknowledged. */
static inline void world_write(struct world *w, int records)
{
    for (int i = 0; i < records; i++)
        assert_ok(world_append(w, (uint32_t)test_random_below(&w->random, WORLD_PARTITIONS),
                               1 + test_random_below(&w->random, 40), true));
}

/* What is there is what was written, and answers are complete. */
static inline void world_expect(struct world *w)
{
    const char *wrong = world_check(w);
    if (wrong != NULL)
        fail_msg("%s", wrong);
}

/* A deadline for what takes no time. */
static inline int64_t world_soon(struct world *w) { return io_monotonic_ns(w->io) + 20 * NS_PER_SECOND; }

/* A report that counts what is damage, in an int. */
static inline void fixture_count_damage(void *context, bool is_damage, const char *text)
{
    *(int *)context += is_damage;
}

#endif
