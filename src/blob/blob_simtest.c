/* Goal: an object is there whole or not at all, and stays once promised. Method: a workload of puts, deletes and
 * lists on the simulated disk, crashed at every call with every pattern and failed at every call with every
 * error; afterwards each key is compared with what was promised. Bugs planted in the driver must be found. */
#include "base/test.h"

#include <string.h>

#include "base/time.h"
#include "blob/blob.h"
#include "blob/blob_driver.h"
#include "sim/io_sim.h"

#define KEYS 6

/* What was promised of each key: absent, whole, or either (a call failed). */
enum promise { ABSENT, WHOLE, EITHER };

struct world {
    struct io *io;
    struct pool *pool;
    unsigned plants; /* enum blob_plant */
    enum promise promises[KEYS];
};

static const char *const keys[KEYS] = {
    "p000/chain/00000001", "p000/chain/00000002", "p000/segment/aa",
    "p001/segment/bb",     "p001/state/cc",       "top",
};

static struct slice content(size_t key)
{
    static uint8_t bytes[4000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(key * 31 + i * 7 + i / 256);
    return slice_of(bytes, 700 * key); /* the first is empty */
}

static err put_file(struct world *w, struct blob *blob, size_t key,
                    err (*put)(struct blob *blob, const char *key, const char *temp_path))
{
    struct io_file *file = NULL;
    err e = OK;
    e = io_unlink(w->io, "built");
    if (e != OK && e != ERR_NOT_FOUND)
        return e;
    TRY_OUT(io_file_open(w->io, "built", IO_CREATE, &file));
    TRY_OUT(io_file_write(file, 0, content(key)));
out:
    io_file_close(file);
    if (e == OK)
        e = put(blob, keys[key], "built");
    return e;
}

static err workload(struct world *w)
{
    struct blob *blob = NULL;
    TRY(blob_open_dir("blob", w->io, w->pool, &blob));
    blob_dir_plant(blob, w->plants);
    err e = OK;
    for (size_t key = 0; key < KEYS; key++) {
        w->promises[key] = EITHER;
        TRY_OUT(key % 2 == 0 ? blob_put(blob, keys[key], content(key))
                             : put_file(w, blob, key, blob_put_file));
        w->promises[key] = WHOLE;
    }
    TRY_OUT(blob_replace(blob, keys[0], content(0))); /* whole at every moment */
    TRY_OUT(put_file(w, blob, 1, blob_replace_file));
    w->promises[2] = EITHER;
    TRY_OUT(blob_delete(blob, keys[2]));
    w->promises[2] = ABSENT;
out:
    blob_close(blob);
    return e;
}

/* What of the promises does not hold; NULL: all do. */
static const char *broken_promise(struct world *w)
{
    struct blob *blob = NULL;
    const char *wrong = NULL;
    assert_ok(blob_open_dir("blob", w->io, w->pool, &blob));
    for (size_t key = 0; key < KEYS && wrong == NULL; key++) {
        struct slice bytes;
        err e = blob_get(blob, keys[key], 10000, w->pool, &bytes);
        if (w->promises[key] == WHOLE && e != OK)
            wrong = "an object is gone";
        else if (w->promises[key] == ABSENT && e != ERR_NOT_FOUND)
            wrong = "an object is there again";
        else if (e == OK && !slice_equal(content(key), bytes))
            wrong = "an object has other bytes";
        else if (e != OK && e != ERR_NOT_FOUND)
            wrong = "an object cannot be read";
        else if (blob_put(blob, keys[key], content(key)) != (e == OK ? ERR_EXISTS : OK))
            wrong = "a put does not see what is there";
    }
    struct io_dir_entry *names;
    size_t count;
    assert_ok(io_dir_list(w->io, "blob/.tmp", w->pool, &names, &count));
    if (count != 0 && wrong == NULL)
        wrong = "temporary files are left";
    blob_close(blob);
    return wrong;
}

static void check_promises(struct world *w)
{
    const char *wrong = broken_promise(w);
    if (wrong != NULL)
        fail_msg("%s", wrong);
}

static void world_begin(struct world *w, uint64_t seed)
{
    *w = (struct world){ 0 };
    assert_ok(io_sim_open(seed, &w->io));
    w->pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
}

static void world_end(struct world *w)
{
    pool_close(w->pool);
    io_close(w->io);
}

/* The power goes at every call. What is wrong after the first state that shows a bug; NULL: none does. */
static const char *explore_crashes(uint64_t seed, unsigned plants, uint64_t *states)
{
    const char *wrong = NULL;
    bool was_down = true;
    for (uint64_t call = 1; was_down; call++)
        for (int keep = 0; keep < IO_SIM_KEEP_COUNT; keep++)
            for (uint64_t variant = 0; variant < (keep < IO_SIM_KEEP_PREFIX ? 1u : 4u); variant++) {
                struct world w;
                world_begin(&w, seed);
                w.plants = plants;
                io_sim_crash_at_call(w.io, call);
                ERR_IGNORE(workload(&w));
                was_down = io_sim_is_down(w.io);
                io_sim_crash(w.io, (enum io_sim_keep)keep, seed ^ call * 64 ^ variant);
                wrong = broken_promise(&w);
                world_end(&w);
                ++*states;
                if (wrong != NULL)
                    return wrong;
            }
    return NULL;
}

/* The process dies at any call and the machine stays up: what the next one finds and puts is promised as ever, and
 * the power that goes then takes nothing of it. Result as above. */
static const char *explore_kills(uint64_t seed, unsigned plants, uint64_t *states)
{
    const char *wrong = NULL;
    bool was_down = true;
    for (uint64_t call = 1; was_down; call++)
        for (int keep = 0; keep < IO_SIM_KEEP_COUNT; keep++) {
            struct world w;
            struct blob *blob;
            world_begin(&w, seed + call);
            w.plants = plants;
            io_sim_crash_at_call(w.io, call);
            ERR_IGNORE(workload(&w));
            was_down = io_sim_is_down(w.io);
            io_sim_kill(w.io);
            assert_ok(blob_open_dir("blob", w.io, w.pool, &blob));
            blob_dir_plant(blob, plants);
            for (size_t key = 0; key < KEYS; key++) {
                err e = blob_put(blob, keys[key], content(key));
                if (e == OK)
                    w.promises[key] = WHOLE;
                else
                    assert_err(ERR_EXISTS, e);
            }
            blob_close(blob);
            io_sim_crash(w.io, (enum io_sim_keep)keep, call);
            wrong = broken_promise(&w);
            world_end(&w);
            ++*states;
            if (wrong != NULL)
                return wrong;
        }
    return NULL;
}

static void test_crash_at_every_call(void **state)
{
    uint64_t states = 0;
    const char *wrong = explore_crashes(test_random_begin("crash").state, 0, &states);
    printf("# %llu crash states\n", (unsigned long long)states);
    if (wrong != NULL)
        fail_msg("%s", wrong);
}

static void test_kill_at_every_call(void **state)
{
    uint64_t states = 0;
    const char *wrong = explore_kills(test_random_begin("kill").state, 0, &states);
    printf("# %llu states after a kill\n", (unsigned long long)states);
    if (wrong != NULL)
        fail_msg("%s", wrong);
}

static void test_planted_bugs_are_found(void **state)
{
    static const struct {
        enum blob_plant plant;
        const char *name;
    } plants[] = {
        { BLOB_PLANT_NO_DIR_SYNC, "an object's name not synced" },
        { BLOB_PLANT_NO_PARENT_SYNC, "a directory that is there taken for durable" },
    };
    uint64_t seed = test_random_begin("planted").state;
    for (size_t i = 0; i < sizeof plants / sizeof plants[0]; i++) {
        uint64_t states = 0;
        const char *wrong = explore_crashes(seed, plants[i].plant, &states);
        if (wrong == NULL)
            wrong = explore_kills(seed, plants[i].plant, &states);
        if (wrong == NULL)
            fail_msg("not found: %s", plants[i].name);
        printf("# %s: found after %llu states: %s\n", plants[i].name, (unsigned long long)states, wrong);
    }
}

static void test_fail_every_call(void **state)
{
    static const err errors[] = { ERR_IO, ERR_SPACE };
    for (size_t i = 0; i < 2; i++) {
        for (int sticky = 0; sticky < 2; sticky++) {
            for (uint64_t call = 1;; call++) {
                struct world w;
                world_begin(&w, call);
                io_sim_fault_at(w.io, call, sticky != 0, errors[i]);
                ERR_IGNORE(workload(&w));
                bool failed = io_sim_faults(w.io) != 0;
                io_sim_crash(w.io, IO_SIM_KEEP_SECTORS, call);
                check_promises(&w);
                world_end(&w);
                if (!failed)
                    break;
            }
        }
    }
}

static void test_fail_every_allocation(void **state)
{
    for (uint64_t nth = 1;; nth++) {
        struct world w;
        world_begin(&w, nth);
        pool_fault_at(w.pool, nth, false);
        err e = workload(&w);
        pool_fault_at(w.pool, 0, false);
        check_promises(&w);
        world_end(&w);
        if (e == OK)
            break;
        assert_err(ERR_LIMIT, e);
    }
}

static void test_interface(void **state)
{
    struct world w;
    world_begin(&w, 1);
    assert_ok(workload(&w));
    struct blob *blob;
    assert_ok(blob_open_dir("blob", w.io, w.pool, &blob));
    assert_err(ERR_EXISTS, blob_put(blob, keys[1], content(3)));
    assert_err(ERR_NOT_FOUND, blob_put_file(blob, "new", "nowhere"));
    assert_err(ERR_NOT_FOUND, blob_delete(blob, keys[2]));
    assert_err(ERR_NOT_FOUND, blob_delete(blob, "p000"));

    struct blob_handle *handle;
    uint8_t bytes[64];
    assert_err(ERR_NOT_FOUND, blob_open(blob, keys[2], &handle));
    assert_err(ERR_NOT_FOUND, blob_open(blob, "p000/chain", &handle));
    assert_ok(blob_open(blob, keys[3], &handle));
    assert_int_equal(2100, blob_handle_size(handle));
    assert_ok(blob_read(handle, 2036, bytes, 64));
    assert_memory_equal(content(3).at + 2036, bytes, 64);
    assert_err(ERR_END, blob_read(handle, 2037, bytes, 64));
    assert_err(ERR_END, blob_read(handle, UINT64_MAX, bytes, 2));
    blob_handle_close(handle);
    assert_ok(blob_delete(blob, keys[3]));

    struct slice whole;
    uint64_t size;
    assert_err(ERR_LIMIT, blob_get(blob, keys[1], 699, w.pool, &whole));
    assert_ok(blob_get(blob, keys[1], 700, w.pool, &whole));
    assert_int_equal(0, whole.at[700]);
    assert_ok(blob_size(blob, keys[1], &size));
    assert_int_equal(700, size);
    assert_err(ERR_NOT_FOUND, blob_size(blob, keys[2], &size));

    struct blob_entry *entries;
    size_t count;
    assert_ok(blob_list(blob, "p000/chain", w.pool, &entries, &count));
    assert_int_equal(2, count);
    assert_string_equal(keys[0], entries[0].key);
    assert_string_equal(keys[1], entries[1].key);
    assert_true(entries[0].t_ms > 0 && entries[0].t_ms <= io_now_ms(w.io));
    int64_t first_ms = entries[0].t_ms;
    io_sim_clock_advance(w.io, 5 * NS_PER_SECOND);
    assert_ok(blob_replace(blob, keys[0], content(0)));
    assert_ok(blob_list(blob, "p000/chain", w.pool, &entries, &count));
    assert_true(entries[0].t_ms >= first_ms + 5 * MS_PER_SECOND &&
                entries[1].t_ms < first_ms + MS_PER_SECOND);
    io_sim_fault_at(w.io, 2, false, ERR_IO); /* a time that cannot be had does not make the list fail */
    assert_ok(blob_list(blob, "p000/chain", w.pool, &entries, &count));
    assert_int_equal(io_sim_faults(w.io), 1);
    assert_true(count == 2 && entries[0].t_ms == 0 && entries[1].t_ms > 0);
    io_sim_fault_at(w.io, 0, false, ERR_IO);
    assert_ok(blob_list(blob, "p777", w.pool, &entries, &count));
    assert_int_equal(0, count);

    static const char *const bad[] = {
        "", "/a", "a/", "a//b", ".", "..", "a/../b", ".tmp/1", "a b", "a\n", "\xc3\xa4", "a/.b",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_err(ERR_INPUT, blob_put(blob, bad[i], content(1)));
    char longest[BLOB_KEY_BYTES_MAX + 2];
    memset(longest, 'k', sizeof longest);
    longest[BLOB_KEY_BYTES_MAX + 1] = '\0';
    assert_err(ERR_INPUT, blob_put(blob, longest, content(1)));
    longest[BLOB_KEY_BYTES_MAX] = '\0';
    assert_ok(blob_put(blob, longest, content(1)));
    blob_close(blob);
    world_end(&w);
}

/* More handles than files: every one reads, whichever gave its file back. */
static void test_many_handles(void **state)
{
    enum { COUNT = BLOB_FILES_MAX * 2 + 7 };
    struct world w;
    struct blob *blob;
    struct blob_handle *handles[COUNT];
    char key[32];
    world_begin(&w, 2);
    assert_ok(blob_open_dir("blob", w.io, w.pool, &blob));
    for (uint32_t i = 0; i < COUNT; i++) {
        snprintf(key, sizeof key, "many/%03u", i);
        assert_ok(blob_put(blob, key, slice_of(&i, sizeof i)));
        assert_ok(blob_open(blob, key, &handles[i]));
    }
    for (uint32_t turn = 0; turn < 3; turn++)
        for (uint32_t k = 0; k < COUNT; k++) {
            uint32_t i = turn == 1 ? COUNT - 1 - k : k * 7 % COUNT, found;
            assert_ok(blob_read(handles[i], 0, &found, sizeof found));
            assert_int_equal(i, found);
        }
    for (uint32_t i = 0; i < COUNT; i += 2)
        blob_handle_close(handles[i]);
    for (uint32_t i = 1, found; i < COUNT; i += 2) {
        assert_ok(blob_read(handles[i], 0, &found, sizeof found));
        blob_handle_close(handles[i]);
    }
    blob_close(blob);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interface),
        cmocka_unit_test(test_many_handles),
        cmocka_unit_test(test_crash_at_every_call),
        cmocka_unit_test(test_kill_at_every_call),
        cmocka_unit_test(test_fail_every_call),
        cmocka_unit_test(test_fail_every_allocation),
        cmocka_unit_test(test_planted_bugs_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
