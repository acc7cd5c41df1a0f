/* Ends of a log are behind everything that was acknowledged before the question, for several who ask at once. Real
 * threads; what is asserted does not depend on how fast they are. (A log that does not answer: the cluster's
 * integration tests.) */
#include "base/test.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/time.h"
#include "io/thread.h"
#include "node/log_ends.h"

#define PARTITIONS 4
#define ASKERS     6
#define ROUNDS     20

static struct pool *pool;
static struct io *io;
static struct log *the_log;
static struct log_ends *ends;
static char root[] = "/tmp/log_ends_test_XXXXXX";
static _Atomic uint64_t acked[PARTITIONS]; /* behind the highest acknowledged */
static _Atomic unsigned wrong;

static struct log_config config_of(void)
{
    return (struct log_config){ .directory = "log",
                                .cluster_id = "a cluster",
                                .partition_count = PARTITIONS,
                                .ack = LOG_ACK_OS,
                                .file_bytes = 1 << 20,
                                .queue_bytes_max = 1 << 20,
                                .tail_bytes_max = 1 << 20 };
}

/* ---- appends ---- */

struct one {
    struct log_append append;
    struct slice part;
    _Atomic bool is_done;
};

static void on_done(struct log_append *append, err result, struct log_position position)
{
    struct one *one = append->context;
    if (result == OK && atomic_load(&acked[append->partition]) < position.offset + 1)
        atomic_store(&acked[append->partition], position.offset + 1);
    atomic_store(&one->is_done, true);
}

static void append_to(uint32_t partition)
{
    struct one one = { .part = slice_str("a record") };
    one.append = (struct log_append){
        .partition = partition, .parts = &one.part, .part_count = 1, .done = on_done, .context = &one
    };
    log_append(the_log, &one.append);
    while (!atomic_load(&one.is_done))
        io_sleep_ns(io, NS_PER_MS / 10);
}

/* ---- asking ---- */

static void ask_once(struct pool *own)
{
    struct guard guard = { .io = io, .deadline_ns = INT64_MAX };
    struct query_need need = { .is_strong = true };
    struct err_at at;
    struct source_position *positions;
    size_t count;
    uint64_t before[PARTITIONS];
    for (uint32_t p = 0; p < PARTITIONS; p++)
        before[p] = atomic_load(&acked[p]);
    if (log_ends_ask(ends, &need, &guard, own, &positions, &count, &at) != OK || count != PARTITIONS) {
        atomic_fetch_add(&wrong, 1);
        return;
    }
    for (uint32_t p = 0; p < PARTITIONS; p++)
        if (positions[p].partition != p || positions[p].generation != SOURCE_GENERATION_ANY ||
            positions[p].offset == UINT64_MAX || positions[p].offset < before[p])
            atomic_fetch_add(&wrong, 1);
}

static void ask_often(void *context)
{
    struct pool *own = pool_open(NULL, "asker", POOL_BYTES_UNLIMITED);
    for (int i = 0; i < ROUNDS; i++)
        ask_once(own);
    pool_close(own);
}

static void ends_are_behind_what_was_acknowledged(void **state)
{
    struct io_thread *threads[ASKERS];
    assert_ok(log_run_thread(the_log));
    ask_once(pool); /* of an empty log */
    for (int i = 0; i < ASKERS; i++)
        assert_ok(io_thread_start(io, "asker", ask_often, NULL, &threads[i]));
    for (int i = 0; i < 200; i++)
        append_to((uint32_t)i % PARTITIONS);
    for (int i = 0; i < ASKERS; i++)
        io_thread_join(threads[i]);
    ask_once(pool);
    assert_int_equal(atomic_load(&wrong), 0);
}

static int set_up(void **state)
{
    struct err_at at;
    memset(acked, 0, sizeof acked);
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct log_config config = config_of();
    assert_ok(log_open(&config, io, pool, &the_log, &at));
    assert_ok(log_ends_open(the_log, PARTITIONS, 0, io, pool, &ends));
    return 0;
}

static int tear_down(void **state)
{
    char command[64];
    log_close(the_log);
    log_ends_close(ends);
    pool_close(pool);
    snprintf(command, sizeof command, "rm -rf %s/log", root);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ends_are_behind_what_was_acknowledged, set_up, tear_down),
    };
    if (mkdtemp(root) == NULL || io_open(root, &io) != OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[64];
    io_close(io);
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command) != 0 ? 1 : failed;
}
