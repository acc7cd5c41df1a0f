/* Goal: the gate lets in as many as it should, in the order in which they came. Method: threads that say when they
 * are in. */
#include "base/test.h"

#include "base/time.h"
#include "blob/s3_gate.h"
#include "io/io.h"

#define VISITORS 12

static struct pool *root;
static struct io *io;
static struct s3_gate gate;
static _Atomic int next_place;

struct visitor {
    bool is_file, leaves;
    _Atomic int place; /* in the order of entering; -1 = not yet */
    struct io_thread *thread;
};

static void visit(void *context)
{
    struct visitor *v = context;
    if (s3_gate_enter(&gate, v->is_file, 60000, NULL) != OK)
        return;
    atomic_store(&v->place, atomic_fetch_add(&next_place, 1));
    if (v->leaves)
        s3_gate_leave(&gate, v->is_file);
}

static size_t waiting(void)
{
    size_t count = 0;
    io_mutex_lock(&gate.lock);
    for (const struct s3_gate_waiter *waiter = gate.first; waiter != NULL; waiter = waiter->next)
        count++;
    io_mutex_unlock(&gate.lock);
    return count;
}

/* Start a visitor that cannot enter now, and wait until it waits. */
static void send(struct visitor *v, bool is_file, bool leaves)
{
    size_t before = waiting();
    *v = (struct visitor){ .is_file = is_file, .leaves = leaves, .place = -1 };
    assert_ok(io_thread_start(io, "visitor", visit, v, &v->thread));
    while (waiting() == before)
        io_sleep_ns(io, NS_PER_MS);
}

static void test_first_come_first_served(void **state)
{
    struct visitor visitors[VISITORS];
    s3_gate_init(&gate, io, 1);
    atomic_store(&next_place, 0);
    assert_ok(s3_gate_enter(&gate, false, 0, NULL));
    for (int i = 0; i < VISITORS; i++)
        send(&visitors[i], i % 3 == 0, true);
    assert_int_equal(atomic_load(&next_place), 0);
    s3_gate_leave(&gate, false);
    for (int i = 0; i < VISITORS; i++) {
        io_thread_join(visitors[i].thread);
        assert_int_equal(atomic_load(&visitors[i].place), i);
    }
    s3_gate_done(&gate);
}

static void test_files_leave_room_for_others(void **state)
{
    struct visitor file;
    s3_gate_init(&gate, io, 4);
    atomic_store(&next_place, 0);
    assert_ok(s3_gate_enter(&gate, true, 0, NULL));
    assert_ok(s3_gate_enter(&gate, true, 0, NULL));
    assert_err(ERR_BUSY, s3_gate_enter(&gate, true, 0, NULL));
    send(&file, true, true);
    assert_ok(s3_gate_enter(&gate, false, 0, NULL)); /* passes the file, which waits for a file */
    assert_ok(s3_gate_enter(&gate, false, 0, NULL));
    assert_err(ERR_BUSY, s3_gate_enter(&gate, false, 50, NULL));
    s3_gate_leave(&gate, false);
    assert_int_equal(atomic_load(&file.place), -1);
    s3_gate_leave(&gate, true);
    io_thread_join(file.thread);
    assert_int_equal(atomic_load(&file.place), 0);
    s3_gate_leave(&gate, true);
    s3_gate_leave(&gate, false);
    s3_gate_done(&gate);
}

static void test_waiting_ends(void **state)
{
    static _Atomic bool abort;
    struct visitor next;
    s3_gate_init(&gate, io, 1);
    atomic_store(&next_place, 0);
    assert_ok(s3_gate_enter(&gate, false, 0, NULL));
    assert_err(ERR_BUSY, s3_gate_enter(&gate, false, 20, &abort));
    atomic_store(&abort, true);
    assert_err(ERR_CANCELED, s3_gate_enter(&gate, false, 60000, &abort));
    assert_int_equal(waiting(), 0); /* who gave up is not let in later */
    send(&next, false, true);
    s3_gate_leave(&gate, false);
    io_thread_join(next.thread);
    assert_int_equal(atomic_load(&next.place), 0);
    s3_gate_done(&gate);
}

int main(void)
{
    root = pool_open(NULL, "s3_gate_test", POOL_BYTES_UNLIMITED);
    if (io_open("/tmp", &io) != OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_files_leave_room_for_others),
        cmocka_unit_test(test_waiting_ends),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    io_close(io);
    pool_close(root);
    return failed;
}
