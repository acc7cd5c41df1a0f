/* A node's store taken into a shared one, on a real disk: what is answered from there is what the node had, and
 * whatever is wrong is refused by its name. Model and oracle: workload.h. */
#include "shard/fixture.h"

#include "shard/partition.h"

struct adopting {
    struct shard_adopt door;
    struct shards_config from_config, to_config;
    struct pool *pool;
    struct shard_adopt_facts facts;
    uint64_t bytes;
    bool by_hash; /* else by the world's own partitions */
};

static uint32_t partition_of(const struct adopting *a, struct slice labels)
{
    struct slice own = labels_get(labels, slice_str("partition"));
    assert_true(own.len == 1);
    return a->by_hash ? jump_hash(hash64(labels, 1), a->to_config.partition_count)
                      : own.at[0] - (uint32_t)'0';
}

static err route(void *context, struct slice tenant, struct slice labels, struct buf *scratch,
                 uint32_t *out_partition)
{
    *out_partition = partition_of(context, labels);
    return OK;
}

static uint32_t route_family(void *context, struct slice tenant, struct slice family) { return 0; }

static void on_written(void *context, uint64_t bytes) { ((struct adopting *)context)->bytes += bytes; }

static void adopting_open(struct fixture *f, struct adopting *a, uint32_t partitions, bool by_hash)
{
    *a = (struct adopting){ .from_config = f->world.config,
                            .to_config = f->world.config,
                            .pool = pool_open(f->pool, "adopting", POOL_BYTES_UNLIMITED),
                            .by_hash = by_hash };
    a->from_config.read_only = true;
    a->to_config.is_shared = true;
    a->to_config.partition_count = partitions;
    a->door = (struct shard_adopt){ .from_config = &a->from_config,
                                    .to_config = &a->to_config,
                                    .io = f->io,
                                    .pool = a->pool,
                                    .route = route,
                                    .route_family = route_family,
                                    .written = on_written,
                                    .context = a };
    assert_ok(blob_open_dir_as_is("blob", f->io, a->pool, &a->door.from));
    assert_ok(blob_open_dir("shared", f->io, a->pool, &a->door.to));
}

static void adopting_close(struct adopting *a)
{
    blob_close(a->door.from);
    blob_close(a->door.to);
    pool_close(a->pool);
}

/* All of it; begins at the first offset that each partition has now, or at `first` if it is not UINT64_MAX. */
static err adopt_all(struct adopting *a, uint64_t first, struct err_at *at)
{
    struct shard_adoption *adoption;
    uint64_t end;
    err e = OK;
    a->bytes = 0;
    TRY(shard_adoption_open(&a->door, &adoption, &a->facts, at));
    for (uint32_t p = 0; p < a->to_config.partition_count; p++) {
        TRY_OUT(shard_adoption_look(adoption, p, &end, at));
        if (first != UINT64_MAX)
            shard_adoption_begin(adoption, p, first);
    }
    for (uint32_t p = 0; p < a->from_config.partition_count; p++)
        TRY_OUT(shard_adoption_write(adoption, p, "piece.tmp", at));
    for (uint32_t p = 0; p < a->to_config.partition_count; p++)
        TRY_OUT(shard_adoption_name(adoption, p, at));
out:
    shard_adoption_close(adoption);
    return e;
}

/* Ranges, each a commit of both partitions; closed. */
static void make_source(struct fixture *f, int ranges)
{
    struct world *w = &f->world;
    assert_ok(world_open(w));
    for (int i = 0; i < ranges; i++) {
        world_write(w, 20);
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
    }
    world_close_quick(w);
}

static struct chain read_chain(struct adopting *a, const struct shards_config *config, struct blob *blob,
                               uint32_t partition)
{
    const struct chain_reader how = {
        .config = config, .io = a->door.io, .blob = blob, .pool = a->pool, .partition = partition
    };
    struct chain chain;
    assert_ok(shard_chain_read_whole(&how, "store", &chain, NULL));
    return chain;
}

static struct sum stored(struct adopting *a, const struct shards_config *config, struct blob *blob)
{
    struct sum sum = { 0 };
    for (uint32_t p = 0; p < config->partition_count; p++) {
        struct chain chain = read_chain(a, config, blob, p);
        sum_add(&sum, chain_stored_sum(&chain));
        chain_close(&chain);
    }
    return sum;
}

static void expect_all_stored(struct adopting *a)
{
    struct sum from = stored(a, &a->from_config, a->door.from), to = stored(a, &a->to_config, a->door.to);
    assert_true(from.count > 0 && sum_equal(from, to));
}

/* A node of the shared store alone, with a log of its own. */
static void serve_shared(struct fixture *f)
{
    fixture_remove(f, "blob");
    fixture_remove(f, "log");
    fixture_remove(f, "stream");
    assert_ok(io_rename(f->io, "shared", "blob"));
    world_producer_renew(&f->world);
    assert_ok(world_open(&f->world));
}

static int setup(void **state)
{
    fixture_setup(state);
    ((struct fixture *)*state)->world.config.compact = false;
    return 0;
}

/* ---- what is adopted ---- */

static void answers_are_the_same(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    struct adopting a;
    make_source(f, 5);
    adopting_open(f, &a, WORLD_PARTITIONS, false);
    assert_ok(adopt_all(&a, UINT64_MAX, NULL));
    assert_true(a.bytes > 0 && a.bytes == a.facts.segment_bytes);
    assert_int_equal(a.facts.row_count, stored(&a, &a.from_config, a.door.from).count);
    assert_true(a.facts.loss_count == 0 && a.facts.data_through_ms > 0);
    expect_all_stored(&a);
    assert_false(io_exists(f->io, "piece.tmp"));
    adopting_close(&a);
    serve_shared(f);
    world_expect(w);
    world_write(w, 30); /* and what comes then is beside it */
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_expect(w);
    w->config.compact = true; /* merges take both */
    world_close_quick(w);
    assert_ok(world_open(w));
    assert_ok(world_settle(w, 50));
    world_expect(w);
}

/* Each series is in its partition, and only there. */
static void expect_routed(struct adopting *a)
{
    for (uint32_t p = 0; p < a->to_config.partition_count; p++) {
        struct chain chain = read_chain(a, &a->to_config, a->door.to, p);
        for (size_t i = 0; i < chain.segment_count; i++) {
            char key[SHARD_KEY_BYTES_MAX];
            struct object object;
            struct metric_compact *compact;
            struct metric_compact_labels reader;
            struct buf labels = buf_open(a->pool, LABELS_BYTES_MAX);
            segment_key(p, chain.segments[i].digest, chain.segments[i].era, key);
            assert_ok(object_open(a->door.to, key, &object));
            assert_ok(metric_compact_open(object_source(&object), NULL, a->pool, &compact, NULL));
            assert_ok(metric_compact_labels_open(a->pool, &reader));
            for (uint32_t s = 0; s < metric_compact_info(compact)->series_count; s++) {
                buf_clear(&labels);
                assert_ok(metric_compact_labels_read(&reader, compact, s, &labels, NULL));
                assert_int_equal(partition_of(a, buf_slice(&labels)), p);
            }
            metric_compact_labels_close(&reader);
            metric_compact_close(compact);
            object_close(&object);
        }
        assert_int_equal(chain.adopted_end.offset, a->facts.segment_count);
        chain_close(&chain);
    }
}

static void other_partitions(void **state)
{
    struct fixture *f = *state;
    struct adopting a;
    make_source(f, 6);
    for (int few = 0; few < 2; few++) {
        adopting_open(f, &a, 7, true);
        a.door.entry_segments_max = few ? 3 : 0;
        assert_ok(adopt_all(&a, 0, NULL));
        expect_all_stored(&a);
        expect_routed(&a);
        assert_ok(adopt_all(&a, 0, NULL)); /* again: nothing more happens */
        expect_all_stored(&a);
        struct chain chain = read_chain(&a, &a.to_config, a.door.to, 3);
        assert_int_equal(chain.next_number, few ? 2 + (chain.segment_count - 1) / 3 : 2);
        chain_close(&chain);
        adopting_close(&a);
        fixture_remove(f, "shared");
    }
}

/* Rows that the store itself has, of the same series and time, are of a later generation: they win. */
static void own_rows_win(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    struct adopting a;
    make_source(f, 2);
    adopting_open(f, &a, WORLD_PARTITIONS, false);
    assert_ok(adopt_all(&a, UINT64_MAX, NULL));
    adopting_close(&a);
    serve_shared(f);
    struct world_record *first = w->records[0];
    struct batch b = world_batch(w, first->partition);
    struct batch_announce announce = { first->rows[0].series,
                                       w->labels[first->partition][first->rows[0].series] };
    uint32_t number = first->rows[0].series;
    uint64_t bits = double_bits(4711);
    b.announces = &announce;
    b.announce_count = 1;
    b.numbers = &number;
    b.t_ms = &first->rows[0].t_ms;
    b.value_bits = &bits;
    b.row_count = 1;
    struct world_record *r = world_record_make(w, first->partition, 0, false);
    buf_clear(&r->bytes);
    assert_ok(batch_encode(&b, &r->bytes));
    sum_add_hash(&first->sum, /* both are stored */
                 sum_row_hash(sum_series_hash(b.tenant, announce.labels), b.t_ms[0], bits, 0, SAMPLE_FLOAT));
    world_send(w, r);
    assert_ok(log_pump(w->log));
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    for (size_t i = 0; i < first->row_count; i++)
        if (first->rows[i].series == number && first->rows[i].t_ms == first->rows[0].t_ms)
            first->rows[i].bits = bits;
    world_expect(w);
}

/* ---- what stays behind, and what comes along ---- */

static void append_entry(struct world *w, uint32_t partition, struct chain_entry *entry)
{
    struct partition *p = &w->shards->partitions[partition];
    bool valid;
    entry->leader_epoch = LOG_EPOCH_NONE;
    io_mutex_lock(&p->chain_lock);
    assert_ok(partition_entry_append(p, entry, &valid));
    io_mutex_lock(&p->lock);
    assert_ok(partition_segments_sync(p));
    io_mutex_unlock(&p->lock);
    io_mutex_unlock(&p->chain_lock);
    partition_doomed_release(p);
    assert_true(valid);
}

static void losses_and_cutoffs(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    struct adopting a;
    struct chain_loss loss = { LOSS_LOG, { 1, 3 }, { 1, 4 }, { 1500, 1600 }, 2, .accepted = false };
    struct chain_entry losses = { .kind = CHAIN_LOSSES, .losses = &loss, .loss_count = 1 };
    struct chain_entry retain = { .kind = CHAIN_RETAIN, .cutoff_ms = WORLD_EPOCH_MS - MS_PER_DAY };
    make_source(f, 3);
    assert_ok(world_open(w));
    append_entry(w, 1, &losses);
    loss.range.max_ms = 1700;
    append_entry(w, 1, &losses);
    losses.kind = CHAIN_ACCEPT;
    append_entry(w, 1, &losses);               /* the second one */
    retain.cutoff_ms = WORLD_EPOCH_MS + 40000; /* in the midst of a segment */
    append_entry(w, 0, &retain);
    world_close_quick(w);
    adopting_open(f, &a, 3, true);
    assert_ok(adopt_all(&a, UINT64_MAX, NULL));
    assert_int_equal(a.facts.loss_count, 1);
    uint64_t old = 0;
    for (size_t i = 0; i < w->record_count; i++)
        for (size_t k = 0; k < w->records[i]->row_count; k++)
            old += w->records[i]->partition == 0 && w->records[i]->rows[k].t_ms < retain.cutoff_ms;
    struct sum from = stored(&a, &a.from_config, a.door.from), to = stored(&a, &a.to_config, a.door.to);
    printf("# %llu rows below the cut-off, %llu of %llu adopted\n", (unsigned long long)old,
           (unsigned long long)to.count, (unsigned long long)from.count);
    assert_true(old > 0 && to.count < from.count);
    for (uint32_t p = 0; p < 3; p++) {
        struct chain chain = read_chain(&a, &a.to_config, a.door.to, p);
        assert_true(chain.loss_count == 1 && !chain.losses[0].accepted && chain.losses[0].kind == LOSS_LOG);
        assert_true(chain.losses[0].range.max_ms == 1600 && chain.losses[0].from.generation == 0);
        chain_close(&chain);
    }
    adopting_close(&a);
}

static void nothing_to_adopt(void **state)
{
    struct fixture *f = *state;
    struct adopting a;
    assert_ok(world_open(&f->world));
    world_close_quick(&f->world);
    adopting_open(f, &a, 2, true);
    assert_ok(adopt_all(&a, UINT64_MAX, NULL));
    assert_int_equal(a.facts.row_count, 0);
    struct chain chain = read_chain(&a, &a.to_config, a.door.to, 0);
    assert_int_equal(chain.next_number, 1);
    chain_close(&chain);
    adopting_close(&a);
}

/* ---- what is wrong ---- */

static void first_segment(struct fixture *f, const char *store, char out_path[IO_PATH_BYTES_MAX])
{
    struct io_dir_entry *entries;
    size_t count;
    char directory[64];
    snprintf(directory, sizeof directory, "%s/p000/segment", store);
    assert_ok(io_dir_list(f->io, directory, f->pool, &entries, &count));
    assert_true(count > 0);
    snprintf(out_path, IO_PATH_BYTES_MAX, "%s/%s", directory, entries[0].name);
}

static void damage_is_refused(void **state)
{
    struct fixture *f = *state;
    struct adopting a;
    struct err_at at = { 0 };
    char path[IO_PATH_BYTES_MAX];
    make_source(f, 3);
    first_segment(f, "blob", path);
    fixture_flip(f, path, 3);
    adopting_open(f, &a, 3, true);
    assert_err(ERR_CORRUPT, adopt_all(&a, UINT64_MAX, &at));
    assert_true(at.text[0] != '\0');
    for (uint32_t p = 0; p < 3; p++) {
        struct chain chain = read_chain(&a, &a.to_config, a.door.to, p);
        assert_int_equal(chain.next_number, 1); /* nothing is named */
        chain_close(&chain);
    }
    fixture_flip(f, path, 3); /* the disk thought better of it */
    assert_ok(adopt_all(&a, 0, NULL));
    expect_all_stored(&a);
    adopting_close(&a);
}

/* An object of an earlier run is whole, or it is put again. */
static void wrong_objects_are_replaced(void **state)
{
    struct fixture *f = *state;
    struct adopting a;
    char path[IO_PATH_BYTES_MAX];
    struct io_dir_entry *entries;
    size_t count;
    make_source(f, 3);
    adopting_open(f, &a, 3, true);
    assert_ok(adopt_all(&a, UINT64_MAX, NULL));
    for (uint32_t p = 0; p < 3; p++) {
        char directory[64];
        snprintf(directory, sizeof directory, "shared/p%03u/chain", p);
        assert_ok(io_dir_list(f->io, directory, f->pool, &entries, &count));
        for (size_t i = 0; i < count; i++) { /* as if it had ended before */
            assert_true(snprintf(path, sizeof path, "%s/%s", directory, entries[i].name) < (int)sizeof path);
            assert_ok(io_unlink(f->io, path));
        }
    }
    first_segment(f, "shared", path);
    fixture_flip(f, path, 2);
    assert_ok(adopt_all(&a, 0, NULL));
    expect_all_stored(&a);
    struct chain chain = read_chain(&a, &a.to_config, a.door.to, 0);
    for (size_t i = 0; i < chain.segment_count; i++) {
        char key[SHARD_KEY_BYTES_MAX];
        struct object object;
        struct segment_info info;
        segment_key(0, chain.segments[i].digest, chain.segments[i].era, key);
        assert_ok(object_open(a.door.to, key, &object));
        assert_ok(
            metric_compact_verify(object_source(&object), chain.segments[i].digest, a.pool, &info, NULL));
        object_close(&object);
    }
    chain_close(&chain);
    adopting_close(&a);
}

/* Whoever adopts meanwhile has the place; whoever was canceled names nothing. */
static bool always(void *context) { return true; }

static void others_and_ends(void **state)
{
    struct fixture *f = *state;
    struct adopting a;
    make_source(f, 2);
    adopting_open(f, &a, 3, true);
    a.door.is_canceled = always;
    assert_err(ERR_CANCELED, adopt_all(&a, UINT64_MAX, NULL));
    a.door.is_canceled = NULL;
    assert_err(ERR_ORDER, adopt_all(&a, 5, NULL)); /* generation 0 does not reach so far */
    assert_ok(adopt_all(&a, UINT64_MAX, NULL));
    assert_ok(adopt_all(&a, UINT64_MAX, NULL)); /* a second one, behind it */
    struct chain chain = read_chain(&a, &a.to_config, a.door.to, 1);
    assert_int_equal(chain.adopted_end.offset, 2 * a.facts.segment_count);
    chain_close(&chain);
    adopting_close(&a);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(answers_are_the_same),       TEST(other_partitions), TEST(own_rows_win),
        TEST(losses_and_cutoffs),         TEST(nothing_to_adopt), TEST(damage_is_refused),
        TEST(wrong_objects_are_replaced), TEST(others_and_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
