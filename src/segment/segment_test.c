/* Segment files: what is written comes back; every damaged bit is found; the cache keeps its budget.
 * Method: files with sections of every shape in a temporary directory, then their bytes in memory: each bit of
 * a small one flipped, each length cut, and footers damaged with repaired checksums. */
#include "base/hash.h"
#include "base/test.h"
#include "segment/layout.h"
#include "segment/segment.h"

#include <string.h>
#include <unistd.h>

struct fixture {
    char directory[64];
    struct io *io;
    struct pool *pool;
};

static void open_fixture(struct fixture *f)
{
    strcpy(f->directory, "/tmp/kelpie-segment-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    assert_ok(io_open(f->directory, &f->io));
    f->pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
}

static void close_fixture(struct fixture *f)
{
    io_close(f->io);
    pool_close(f->pool);
    assert_int_equal(rmdir(f->directory), 0);
}

/* A file in memory as a source whose reads can fail. */
struct memory {
    uint8_t *at;
    size_t len;
    unsigned fail; /* this many reads from now fail with ERR_IO; 0 = none */
};

static err memory_read(void *context, uint64_t offset, void *at, size_t len)
{
    struct memory *m = context;
    if (m->fail != 0 && --m->fail == 0)
        return ERR_IO;
    struct slice bytes = slice_of(m->at, m->len);
    return segment_source_bytes(&bytes).read(&bytes, offset, at, len);
}

static struct segment_source memory_source(struct memory *m)
{
    return (struct segment_source){ .read = memory_read, .context = m, .size = m->len };
}

static void content_of(uint8_t *at, size_t len, unsigned seed, bool soft)
{
    struct test_random r = { .state = seed };
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)(soft ? i % 7 + seed : test_random_u64(&r));
}

static struct slice TENANTS[] = { { (const uint8_t *)"a", 1 }, { (const uint8_t *)"team", 4 } };

/* blocks: how many; each of another length and section, every second one compressible. */
static struct memory write_file(struct fixture *f, unsigned blocks, size_t bytes_max, uint8_t *out_digest)
{
    struct segment_writer *w;
    uint8_t *content = test_malloc(SEGMENT_BLOCK_BYTES_MAX);
    assert_ok(segment_writer_open(f->io, "s", SEGMENT_METRIC, f->pool, &w));
    uint32_t counts[3] = { 0 };
    for (unsigned i = 0; i < blocks; i++) {
        size_t len = 1 + (size_t)i * 7919 % bytes_max;
        uint32_t number;
        content_of(content, len, i, i % 2 == 0);
        assert_ok(segment_writer_block(w, i % 3 * 31, slice_of(content, len), i % 4 != 3, &number));
        assert_int_equal(number, counts[i % 3]++);
    }
    struct segment_info info = {
        .kind = SEGMENT_METRIC,
        .kind_version = 3,
        .partition = 7,
        .from_generation = 1,
        .from_offset = 2,
        .to_generation = 1,
        .to_offset = 99,
        .time = { -5, 1000 },
        .series_count = 12,
        .sum = { 1, 2, 3 },
        .distinct = { 4, 5, 6 },
        .dropped = { 7, 8, 9 },
        .expired = { 10, 11, 12 },
        .tenants = TENANTS,
        .tenant_count = 2,
    };
    struct segment_written written;
    assert_ok(segment_writer_finish(w, &info, &written));
    assert_err(ERR_CLOSED, segment_writer_block(w, 0, slice_str("x"), false, NULL));
    segment_writer_close(w);
    memcpy(out_digest, written.digest, SHA256_BYTES);
    struct slice all;
    assert_ok(io_read_file(f->io, "s", 1 << 26, f->pool, &all));
    assert_int_equal(all.len, written.size);
    struct memory m = { .at = test_malloc(all.len), .len = all.len };
    memcpy(m.at, all.at, all.len);
    test_free(content);
    return m;
}

static void test_round_trip(void **state)
{
    struct fixture f;
    uint8_t digest[SHA256_BYTES];
    open_fixture(&f);
    struct memory m = write_file(&f, 60, SEGMENT_BLOCK_BYTES_MAX, digest);
    test_free(m.at);
    struct segment_writer *again;
    assert_err(ERR_EXISTS, segment_writer_open(f.io, "s", SEGMENT_METRIC, f.pool, &again));
    struct io_file *file;
    struct segment_source source;
    struct segment_cache *cache;
    struct segment *s;
    struct err_at at;
    assert_ok(io_file_open(f.io, "s", IO_READ, &file));
    assert_ok(segment_source_file(file, &source));
    assert_ok(segment_cache_open(f.pool, 300000, 2, &cache));
    assert_ok(segment_verify(source, digest, f.pool, &at));
    digest[0] ^= 1;
    assert_err(ERR_CORRUPT, segment_verify(source, digest, f.pool, &at));
    assert_ok(segment_open(source, cache, f.pool, &s, &at));
    const struct segment_info *info = segment_info(s);
    assert_int_equal(info->kind_version, 3);
    assert_int_equal(info->to_offset, 99);
    assert_int_equal(info->time.min_ms, -5);
    assert_int_equal(info->expired.high, 12);
    assert_int_equal(info->tenant_count, 2);
    assert_true(slice_equal_str(info->tenants[1], "team"));
    assert_int_equal(segment_block_count(s, 31), 20);
    assert_int_equal(segment_block_count(s, 1), 0);
    uint8_t *content = test_malloc(SEGMENT_BLOCK_BYTES_MAX);
    for (int turn = 0; turn < 3; turn++)
        for (unsigned i = 0; i < 60; i++) {
            struct segment_block b, twin;
            size_t len = 1 + (size_t)i * 7919 % SEGMENT_BLOCK_BYTES_MAX;
            content_of(content, len, i, i % 2 == 0);
            assert_ok(segment_block_get(s, i % 3 * 31, i / 3, &b, &at));
            assert_ok(segment_block_get(s, i % 3 * 31, i / 3, &twin, &at));
            assert_ptr_equal(b.content.at, twin.content.at);
            assert_true(slice_equal(b.content, slice_of(content, len)));
            segment_block_release(s, &b);
            segment_block_release(s, &twin);
            segment_block_release(s, &twin); /* an empty one is nothing */
        }
    struct segment_cache_usage u = segment_cache_usage(cache);
    assert_true(u.bytes <= u.bytes_max);
    assert_true(u.evicted > 0 && u.hits >= 180 && u.block_count > 0);
    struct segment_block b;
    assert_err(ERR_CORRUPT, segment_block_get(s, 31, 20, &b, &at));
    struct slice section;
    assert_ok(segment_section_read(s, 62, f.pool, &section, &at));
    assert_int_equal(section.len, segment_section_bytes(s, 62));
    assert_true(segment_stored_bytes(s, 0) < segment_section_bytes(s, 0));
    content_of(content, 1 + 2 * 7919, 2, true);
    assert_memory_equal(section.at, content, 1 + 2 * 7919);
    segment_close(s);
    u = segment_cache_usage(cache);
    assert_true(u.bytes == 0 && u.block_count == 0); /* nobody can ask for its blocks any more */
    segment_cache_close(cache);
    io_file_close(file);
    assert_ok(io_unlink(f.io, "s"));
    test_free(content);
    close_fixture(&f);
}

/* Blocks that are read together are one entry of the cache, which pushes others out of any shard. */
static void test_runs(void **state)
{
    struct fixture f;
    uint8_t digest[SHA256_BYTES];
    open_fixture(&f);
    struct memory m = write_file(&f, 60, SEGMENT_BLOCK_BYTES_MAX, digest);
    struct slice bytes = slice_of(m.at, m.len), section;
    struct segment_cache *cache;
    struct segment *s;
    struct segment_block b, run, twin;
    struct err_at at;
    assert_ok(segment_cache_open(f.pool, 1500000, 16, &cache));
    assert_ok(segment_open(segment_source_bytes(&bytes), cache, f.pool, &s, &at));
    assert_ok(segment_section_read(s, 62, f.pool, &section, &at));
    assert_true(section.len > 1000000 && section.len < 1500000);
    for (uint32_t i = 0; i < 20; i++) {
        assert_ok(segment_block_get(s, 0, i, &b, &at));
        segment_block_release(s, &b);
    }
    uint64_t held = segment_cache_usage(cache).bytes;
    assert_ok(segment_blocks_get(s, 62, 0, 20, &run, &at));
    assert_true(slice_equal(run.content, section));
    assert_true(held + section.len > 1500000 && segment_cache_usage(cache).bytes <= 1500000);
    assert_ok(segment_blocks_get(s, 62, 0, 20, &twin, &at));
    assert_ptr_equal(run.content.at, twin.content.at);
    segment_block_release(s, &twin);
    segment_block_release(s, &run);
    assert_err(ERR_CORRUPT, segment_blocks_get(s, 62, 1, 20, &run, &at));
    segment_close(s);
    assert_true(segment_cache_usage(cache).bytes == 0);
    segment_cache_close(cache);
    test_free(m.at);
    assert_ok(io_unlink(f.io, "s"));
    close_fixture(&f);
}

static void test_every_bit(void **state)
{
    struct fixture f;
    uint8_t digest[SHA256_BYTES];
    struct err_at at;
    open_fixture(&f);
    struct memory m = write_file(&f, 9, 300, digest);
    assert_ok(io_unlink(f.io, "s"));
    assert_ok(segment_verify(memory_source(&m), NULL, f.pool, &at));
    for (size_t bit = 0; bit < m.len * 8; bit++) {
        m.at[bit / 8] ^= (uint8_t)(1 << bit % 8);
        err e = segment_verify(memory_source(&m), NULL, f.pool, &at);
        if (e != ERR_CORRUPT && e != ERR_VERSION)
            fail_msg("bit %zu of %zu: %s", bit, m.len * 8, err_text(e));
        m.at[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    size_t len = m.len;
    for (m.len = 0; m.len < len; m.len++)
        assert_err(ERR_CORRUPT, segment_verify(memory_source(&m), NULL, f.pool, &at));
    m.at = test_realloc(m.at, len + 1);
    m.at[len] = 0;
    m.len = len + 1;
    assert_err(ERR_CORRUPT, segment_verify(memory_source(&m), NULL, f.pool, &at));
    struct segment_source source = memory_source(&m);
    source.size = len - 1; /* says less than there is */
    assert_err(ERR_CORRUPT, segment_verify(source, NULL, f.pool, &at));
    m.len = len;
    m.at[len - 32 + 16] = 9; /* another version, checksum repaired */
    put_le32(m.at + len - 32 + 20, crc32c(slice_of(m.at + len - 32, 20), 0));
    assert_err(ERR_VERSION, segment_verify(memory_source(&m), NULL, f.pool, &at));
    test_free(m.at);
    close_fixture(&f);
}

/* Damage that the checksums do not see: they are repaired. Nothing but errors may follow. */
static void test_hostile_footer(void **state)
{
    struct fixture f;
    uint8_t digest[SHA256_BYTES];
    struct err_at at;
    struct test_random r = test_random_begin("hostile footer");
    open_fixture(&f);
    struct memory m = write_file(&f, 30, 300, digest);
    assert_ok(io_unlink(f.io, "s"));
    uint8_t *tail = m.at + m.len - SEGMENT_TAIL_BYTES;
    size_t footer = get_le64(tail), len = get_le32(tail + 8);
    uint8_t *original = test_malloc(m.len);
    memcpy(original, m.at, m.len);
    for (int round = 0; round < 20000; round++) {
        memcpy(m.at, original, m.len);
        for (unsigned hits = 1 + (unsigned)test_random_below(&r, 4); hits > 0; hits--)
            m.at[footer + test_random_below(&r, len)] = (uint8_t)test_random_u64(&r);
        put_le32(tail + 12, crc32c(slice_of(m.at + footer, len), 0));
        put_le32(tail + 20, crc32c(slice_of(tail, 20), 0));
        struct segment *s;
        err e = segment_open(memory_source(&m), NULL, f.pool, &s, &at);
        assert_true(e == OK || e == ERR_CORRUPT);
        if (e != OK)
            continue;
        for (unsigned section = 0; section < SEGMENT_SECTION_COUNT_MAX; section++)
            for (uint32_t i = 0; i < segment_block_count(s, section); i++) {
                struct segment_block b = { 0 };
                e = segment_block_get(s, section, i, &b, &at);
                assert_true(e == OK || e == ERR_CORRUPT);
                if (e == OK)
                    segment_block_release(s, &b);
            }
        segment_close(s);
    }
    test_free(original);
    test_free(m.at);
    close_fixture(&f);
}

/* Failing reads and failing allocations end as themselves and leak nothing. */
static void test_faults(void **state)
{
    struct fixture f;
    uint8_t digest[SHA256_BYTES];
    struct err_at at;
    open_fixture(&f);
    struct memory m = write_file(&f, 6, 5000, digest);
    for (unsigned nth = 1; nth <= 9; nth++) {
        m.fail = nth;
        assert_err(ERR_IO, segment_verify(memory_source(&m), digest, f.pool, &at));
    }
    m.fail = 0;
    err e = ERR_LIMIT;
    for (uint64_t nth = 1; e != OK; nth++) {
        pool_fault_at(f.pool, nth, false);
        e = segment_verify(memory_source(&m), digest, f.pool, &at);
        pool_fault_at(f.pool, 0, false);
        assert_true(e == OK || e == ERR_LIMIT);
        assert_true(nth < 1000);
    }
    e = ERR_LIMIT;
    for (uint64_t nth = 1; e != OK; nth++) {
        struct segment *s = NULL;
        struct segment_block b = { 0 };
        pool_fault_at(f.pool, nth, false);
        e = segment_open(memory_source(&m), NULL, f.pool, &s, &at);
        if (e == OK)
            e = segment_block_get(s, 0, 0, &b, &at);
        pool_fault_at(f.pool, 0, false);
        assert_true(e == OK || e == ERR_LIMIT);
        if (b.entry != NULL)
            segment_block_release(s, &b);
        segment_close(s);
    }
    e = ERR_LIMIT;
    for (uint64_t nth = 1; e != OK; nth++) {
        struct segment_writer *w;
        pool_fault_at(f.pool, nth, false);
        e = segment_writer_open(f.io, "t", SEGMENT_METRIC, f.pool, &w);
        if (e == OK) {
            uint8_t bytes[1000] = { 0 };
            struct segment_info info = { .kind = SEGMENT_METRIC };
            struct segment_written written;
            e = segment_writer_bytes(w, 1, slice_of(bytes, sizeof bytes), true);
            if (e == OK)
                e = segment_writer_finish(w, &info, &written);
            segment_writer_close(w);
        }
        pool_fault_at(f.pool, 0, false);
        assert_true(e == OK || e == ERR_LIMIT);
        err gone = io_unlink(f.io, "t");
        assert_true(gone == OK || gone == ERR_NOT_FOUND);
    }
    assert_ok(io_unlink(f.io, "s"));
    test_free(m.at);
    close_fixture(&f);
}

/* A source that gives wrong bytes, once or from then on. */
struct liar {
    struct memory memory;
    unsigned reads, doubts;
    unsigned lies_at; /* the number of a read; 0 = never */
    bool goes_on;
    unsigned fails_at; /* … which is ERR_IO */
};

static err liar_read(void *context, uint64_t offset, void *at, size_t len)
{
    struct liar *l = context;
    l->reads++;
    if (l->reads == l->fails_at)
        return ERR_IO;
    TRY(memory_read(&l->memory, offset, at, len));
    if (l->lies_at != 0 && (l->reads == l->lies_at || (l->goes_on && l->reads > l->lies_at)))
        ((uint8_t *)at)[len / 2] ^= 4;
    return OK;
}

static bool liar_doubt(void *context)
{
    ((struct liar *)context)->doubts++;
    return true;
}

static struct segment_source liar_source(struct liar *l, unsigned lies_at, bool goes_on, bool may_be_doubted)
{
    l->reads = l->doubts = l->fails_at = 0;
    l->lies_at = lies_at;
    l->goes_on = goes_on;
    return (struct segment_source){
        .read = liar_read, .doubt = may_be_doubted ? liar_doubt : NULL, .context = l, .size = l->memory.len
    };
}

/* What is wrong by a checksum is read once more, where that may help, and not more often. */
static void test_doubts(void **state)
{
    struct fixture f;
    uint8_t digest[SHA256_BYTES];
    struct err_at at;
    open_fixture(&f);
    struct liar l = { .memory = write_file(&f, 9, 300, digest) };
    assert_ok(io_unlink(f.io, "s"));
    assert_ok(segment_verify(liar_source(&l, 0, false, true), digest, f.pool, &at));
    unsigned reads = l.reads; /* tail, footer, head, blocks */
    assert_int_equal(reads, 12);
    assert_int_equal(l.doubts, 0);
    for (unsigned nth = 1; nth <= reads; nth++) {
        assert_ok(segment_verify(liar_source(&l, nth, false, true), digest, f.pool, &at));
        assert_int_equal(l.doubts, 1);
        assert_int_equal(l.reads, reads + (nth == 2 ? 2 : 1)); /* the footer with its tail */
        assert_err(ERR_CORRUPT, segment_verify(liar_source(&l, nth, true, true), digest, f.pool, &at));
        assert_int_equal(l.doubts, 1);
        assert_int_equal(l.reads, nth + 1);
        assert_err(ERR_CORRUPT, segment_verify(liar_source(&l, nth, false, false), digest, f.pool, &at));
        assert_int_equal(l.reads, nth);
        struct segment_source source = liar_source(&l, nth, false, true);
        l.fails_at = nth + 1;
        assert_err(ERR_IO, segment_verify(source, digest, f.pool, &at));
        err e = ERR_LIMIT;
        for (uint64_t alloc = 1; e != OK; alloc++) {
            pool_fault_at(f.pool, alloc, false);
            e = segment_verify(liar_source(&l, nth, false, true), digest, f.pool, &at);
            pool_fault_at(f.pool, 0, false);
            assert_true(e == OK || e == ERR_LIMIT);
        }
    }
    for (unsigned nth = 3; nth <= 11; nth++) { /* one by one, through a cache: what was wrong is not kept */
        struct segment *s;
        struct segment_block b;
        uint8_t content[300];
        assert_ok(segment_open(liar_source(&l, nth, false, true), NULL, f.pool, &s, &at));
        for (unsigned i = 0; i < 9; i++) {
            size_t len = 1 + (size_t)i * 7919 % 300;
            assert_ok(segment_block_get(s, i % 3 * 31, i / 3, &b, &at));
            content_of(content, len, i, i % 2 == 0);
            assert_true(slice_equal(b.content, slice_of(content, len)));
            segment_block_release(s, &b);
        }
        assert_int_equal(l.doubts, 1);
        assert_int_equal(l.reads, 12);
        segment_close(s);
    }
    test_free(l.memory.at);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_runs),
        cmocka_unit_test(test_every_bit),  cmocka_unit_test(test_hostile_footer),
        cmocka_unit_test(test_faults),     cmocka_unit_test(test_doubts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
