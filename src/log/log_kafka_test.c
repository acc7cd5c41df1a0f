/* The Kafka driver on a thread of its own: what other threads wait for. The client does nothing but wait. */
#include "base/test.h"

#include <string.h>

#include "base/time.h"
#include "log/log_kafka.h"

#define LONG_NS (INT64_C(20) * 1000 * NS_PER_MS) /* a failure, not a measure */

/* The pump's first turn ends when somebody wakes it, the second when the drain is over. */
static struct patience {
    struct kafka_client client;
    struct io_mutex mutex;
    struct io_cond changed;
    unsigned polls;
    bool is_woken, is_drained, was_missed;
} patience;

static void no_close(struct kafka_client *client) {}

static err wait_in_poll(struct kafka_client *client, int64_t budget_ms, bool with_records,
                        struct kafka_event *out_event)
{
    io_mutex_lock(&patience.mutex);
    unsigned poll = ++patience.polls;
    io_cond_broadcast(&patience.changed);
    while (poll == 1 && !patience.is_woken)
        io_cond_wait(&patience.changed, &patience.mutex);
    while (poll > 1 && !patience.is_drained && !patience.was_missed)
        patience.was_missed = !io_cond_wait_for(&patience.changed, &patience.mutex, LONG_NS);
    io_mutex_unlock(&patience.mutex);
    return ERR_END;
}

static void say(bool *what)
{
    io_mutex_lock(&patience.mutex);
    *what = true;
    io_cond_broadcast(&patience.changed);
    io_mutex_unlock(&patience.mutex);
}

static void wake(struct kafka_client *client) { say(&patience.is_woken); }
static err no_topic(struct kafka_client *client, int64_t budget_ms, uint64_t cookie) { return ERR_BUSY; }

/* A pump that never rests is not waited for longer than until the turn that it was in has ended. */
static void a_drain_waits_for_one_pump(void **state)
{
    static const struct kafka_client_calls calls = {
        .close = no_close, .poll = wait_in_poll, .wake = wake, .ask_topic = no_topic
    };
    struct log_kafka_config config = { .partition_count = 1, .delivery_ms_max = 1000 };
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct io *io;
    struct log *log;
    assert_ok(io_open("/tmp", &io));
    io_mutex_init(&patience.mutex);
    io_cond_init(&patience.changed);
    patience.client.calls = &calls;
    assert_ok(log_kafka_open(&config, &patience.client, io, pool, &log));
    assert_ok(log_run_thread(log));
    io_mutex_lock(&patience.mutex);
    while (patience.polls == 0)
        io_cond_wait(&patience.changed, &patience.mutex);
    io_mutex_unlock(&patience.mutex);
    log_drain(log);
    say(&patience.is_drained);
    log_close(log);
    assert_false(patience.was_missed);
    io_cond_done(&patience.changed);
    io_mutex_done(&patience.mutex);
    io_close(io);
    pool_close(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_drain_waits_for_one_pump),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
