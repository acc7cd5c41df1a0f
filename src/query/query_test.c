/* Admission, cancellation, deadlines, workers. Real threads and clocks; what is asserted does not depend on
 * how fast they are. */
#include "base/test.h"

#include "base/stat.h"
#include "io/thread.h"
#include "query/query.h"
#include "query/workers.h"

#include <stdatomic.h>
#include <string.h>

static struct io *io;
static struct pool *pool;
static struct source no_source;

static struct query_service *open_service(uint32_t concurrent, uint32_t queue, int64_t wait_ms)
{
    struct query_config config = query_config_default();
    struct query_service *service;
    config.concurrent_max = concurrent;
    config.queue_max = queue;
    config.queue_wait_ms_max = wait_ms;
    config.worker_count = 2;
    assert_ok(query_service_open(&config, io, &no_source, pool, &service));
    return service;
}

static struct query *begin(struct query_service *service)
{
    struct query_options options = { .tenant = slice_str("t"), .text = slice_str("q") };
    struct query *query;
    assert_ok(query_begin(service, &options, &query, NULL));
    return query;
}

static void slots_and_queue(void **state)
{
    struct query_service *service = open_service(2, 0, 10000);
    struct query_options options = { .tenant = slice_str("t") };
    struct err_at at = { 0 };
    struct query *a = begin(service), *b = begin(service), *c;
    assert_err(ERR_BUSY, query_begin(service, &options, &c, &at));
    assert_string_equal(at.text, "too many queries: 2 run, 0 wait");
    assert_ok(query_release(a, OK, NULL));
    c = begin(service); /* a's slot is free although a is still sending */
    assert_int_equal(query_service_usage(service).running, 2);
    query_end(a);
    query_end(b);
    query_end(c);
    query_end(NULL);
    assert_int_equal(query_service_usage(service).running, 0);
    query_service_close(service);
}

static void waiting_ends(void **state)
{
    struct query_service *service = open_service(1, 5, 30);
    struct query *a = begin(service), *b;
    struct query_options options = { .tenant = slice_str("t") };
    struct err_at at = { 0 };
    assert_err(ERR_BUSY, query_begin(service, &options, &b, &at));
    assert_string_equal(at.text, "too many queries: waited 30 ms for a slot");
    options.timeout_ms = 1;
    assert_err(ERR_TIMEOUT, query_begin(service, &options, &b, &at));
    query_end(a);
    query_service_close(service);
}

static bool always(void *context) { return true; }
static bool flag_is_set(void *context) { return atomic_load((_Atomic bool *)context); }

static void clients_that_left(void **state)
{
    struct query_service *service = open_service(1, 5, 60000);
    _Atomic bool has_left = false;
    struct query_options options = { .tenant = slice_str("t"),
                                     .is_canceled = flag_is_set,
                                     .context = &has_left };
    struct query *a, *b;
    assert_ok(query_begin(service, &options, &a, NULL));
    options.is_canceled = always;
    assert_err(ERR_CANCELED, query_begin(service, &options, &b, NULL));
    assert_ok(guard_check(query_guard(a)));
    atomic_store(&has_left, true);
    for (int i = 0; i < 400 && guard_check(query_guard(a)) == OK; i++)
        io_sleep_ns(io, 10 * NS_PER_MS);
    assert_err(ERR_CANCELED, guard_check(query_guard(a)));
    int64_t before = stat_get(STAT_QUERIES_CANCELED);
    assert_err(ERR_CANCELED, query_release(a, ERR_CANCELED, NULL));
    assert_ok(query_release(a, OK, NULL)); /* the second one counts nothing */
    assert_int_equal(stat_get(STAT_QUERIES_CANCELED), before + 1);
    query_end(a);
    query_service_close(service);
}

struct line {
    struct query_service *service;
    _Atomic int next;
};

static void stand_in_line(void *context)
{
    struct line *line = context;
    struct query *query = begin(line->service);
    query_end(query);
    atomic_fetch_add(&line->next, 1);
}

static void waiters_get_their_turn(void **state)
{
    struct line line = { .service = open_service(1, 64, 60000) };
    struct io_thread *threads[8];
    struct query *first = begin(line.service);
    for (int i = 0; i < 8; i++)
        assert_ok(io_thread_start(io, "line", stand_in_line, &line, &threads[i]));
    while (query_service_usage(line.service).waiting < 8)
        io_sleep_ns(io, NS_PER_MS);
    assert_int_equal(atomic_load(&line.next), 0);
    query_end(first);
    for (int i = 0; i < 8; i++)
        io_thread_join(threads[i]);
    assert_int_equal(atomic_load(&line.next), 8);
    query_service_close(line.service);
}

/* Positions of a query go with every request to the source; without them it does not begin. */
static struct source_request asked;
static err positions_result;

static err fake_select(struct source *source, const struct source_request *request, struct pool *p,
                       struct source_set **out_set)
{
    asked = *request;
    return ERR_IO;
}

static err fake_names(struct source *source, const struct source_request *requests, size_t count,
                      size_t limit, struct pool *p, struct slice **out_names, size_t *out_count,
                      struct proof *out_proof)
{
    asked = requests[count - 1];
    return ERR_IO;
}

static err fake_groups(struct source *source, const struct source_request *request,
                       const struct source_unit *unit, struct pool *p, struct source_groups *out_groups)
{
    asked = *request;
    return ERR_UNSUPPORTED;
}

static bool positions_strong;

static err fake_positions(void *context, const struct query_need *need, struct guard *guard, struct pool *p,
                          struct source_position **out_positions, size_t *out_count, struct err_at *at)
{
    positions_strong = need->is_strong;
    assert_true(!need->is_strong || slice_equal_str(need->token, "a token"));
    static struct source_position positions[2] = { { 0, 1, 10 }, { 1, 1, 20 } };
    assert_ok(guard_check(guard));
    *out_positions = positions;
    *out_count = 2;
    return positions_result;
}

static void queries_know_how_far(void **state)
{
    static const struct source_table table = { .select = fake_select, .label_names = fake_names },
                                     groups_table = { .groups = fake_groups };
    struct source_groups groups;
    struct query_service *service = open_service(1, 1, 1000);
    struct query_options options = { .tenant = slice_str("t"), .need = { true, slice_str("a token") } };
    struct source_request requests[2] = { { .series_max = 3 }, { .series_max = 4 } };
    struct source_set *set;
    struct slice *names;
    size_t count;
    struct proof proof;
    struct err_at at = { 0 };
    struct query *query;
    no_source.table = &table;
    query_service_set_positions(service, fake_positions, NULL);
    query = begin(service); /* not a strong one */
    assert_false(positions_strong);
    assert_true(query_source(query) != &no_source);
    query_end(query);
    assert_ok(query_begin(service, &options, &query, &at));
    assert_true(positions_strong);
    struct source *source = query_source(query);
    assert_err(ERR_IO, source->table->select(source, &requests[0], query_pool(query), &set));
    assert_true(asked.series_max == 3 && asked.after_count == 2 && asked.after[1].offset == 20);
    assert_err(ERR_IO,
               source->table->label_names(source, requests, 2, 0, query_pool(query), &names, &count, &proof));
    assert_true(asked.series_max == 4 && asked.after_count == 2);
    assert_int_equal(requests[0].after_count, 0);
    assert_null(source->table->groups); /* the inner one has none */
    query_end(query);
    no_source.table = &groups_table;
    assert_ok(query_begin(service, &options, &query, &at));
    source = query_source(query);
    assert_err(ERR_UNSUPPORTED,
               source->table->groups(source, &requests[0], NULL, query_pool(query), &groups));
    assert_true(asked.series_max == 3 && asked.after_count == 2);
    query_end(query);
    no_source.table = &table;
    positions_result = ERR_TIMEOUT;
    int64_t before = stat_get(STAT_QUERIES_TIMED_OUT);
    assert_err(ERR_TIMEOUT, query_begin(service, &options, &query, &at));
    assert_non_null(strstr(at.text, "where the log ends"));
    assert_int_equal(stat_get(STAT_QUERIES_TIMED_OUT), before + 1);
    assert_int_equal(query_service_usage(service).running, 0);
    positions_result = ERR_INPUT; /* the text is the positions' own */
    memset(&at, 0, sizeof at);
    assert_err(ERR_INPUT, query_begin(service, &options, &query, &at));
    assert_string_equal(at.text, "");
    positions_result = OK;
    query_service_close(service);
}

static void stopping(void **state)
{
    struct query_service *service = open_service(4, 4, 1000);
    struct query_options options = { .tenant = slice_str("t") };
    struct query *a = begin(service), *b;
    query_service_stop(service);
    assert_err(ERR_CANCELED, guard_check(query_guard(a)));
    assert_err(ERR_CLOSED, query_begin(service, &options, &b, NULL));
    query_end(a);
    query_service_close(service);
}

static void evaluation_and_budgets(void **state)
{
    struct query_service *service = open_service(1, 1, 1000);
    struct query *query = begin(service);
    struct promql_result result;
    struct query_times times;
    struct err_at at = { 0 };
    assert_ok(query_evaluate(query, slice_str("1 + 2"), 0, 0, 0, &result, &times, &at));
    assert_int_equal(result.type, PROMQL_SCALAR);
    assert_true(result.scalar == 3 && result.proof.complete);
    assert_err(ERR_INPUT, query_evaluate(query, slice_str("1 +"), 0, 0, 0, &result, &times, &at));
    assert_true(at.line == 1);
    void *room;
    assert_err(ERR_LIMIT, pool_alloc(query_pool(query), (size_t)2 << 30, &room)); /* over query_bytes_max */
    assert_true(query_series_max(query) == SIZE_MAX);
    query_end(query);

    struct query_config config = query_config_default();
    config.query_bytes_max = 1 << 20;
    config.series_max = 7;
    config.samples_max = 10;
    assert_ok(query_service_configure(service, &config, NULL));
    query = begin(service);
    assert_err(ERR_LIMIT, pool_alloc(query_pool(query), 2 << 20, &room));
    assert_int_equal(query_series_max(query), 7);
    assert_err(ERR_LIMIT, guard_samples(query_guard(query), 11));
    at = (struct err_at){ 0 };
    assert_err(ERR_LIMIT, query_release(query, ERR_LIMIT, &at));
    assert_string_equal(at.text, "query processing would load more than 10 samples");
    assert_ok(guard_series(query_guard(query), 7, 7));
    assert_err(ERR_LIMIT, guard_series(query_guard(query), 8, 7));
    at.text[0] = '\0';
    assert_err(ERR_LIMIT, query_release(query, ERR_LIMIT, &at));
    assert_string_equal(at.text, "a selector matches more than 7 series");
    query_end(query);
    query_service_close(service);
}

/* A query that lacks memory because others have it may be asked again; one that is too large by itself may not. */
static void memory_of_others(void **state)
{
    struct query_config config = query_config_default();
    struct pool *all = pool_open(pool, "queries", 8u << 20);
    struct query_service *service;
    void *room;
    config.worker_count = 2;
    assert_ok(query_service_open(&config, io, &no_source, all, &service));
    struct query *a = begin(service), *b = begin(service);
    assert_ok(pool_alloc(query_pool(a), 6u << 20, &room));
    assert_err(ERR_LIMIT, pool_alloc(query_pool(b), 3u << 20, &room));
    struct err_at at;
    assert_err(ERR_BUSY, query_release(b, err_set(&at, ERR_LIMIT, "too much"), &at));
    assert_string_equal(at.text, ""); /* the caller's own words */
    query_end(b);
    assert_err(ERR_LIMIT, pool_alloc(query_pool(a), 7u << 20, &room));
    assert_err(ERR_LIMIT, query_release(a, ERR_LIMIT, &at));
    assert_string_equal(at.text, "query processing would need more memory than one query may have");
    query_end(a);
    query_service_close(service);
    pool_close(all);
}

static void bad_configurations(void **state)
{
    struct query_config good = query_config_default();
    struct err_at at;
    assert_ok(query_config_check(&good, &at));
    for (int i = 0; i < 6; i++) {
        struct query_config config = good;
        switch (i) {
        case 0:
            config.concurrent_max = 0;
            break;
        case 1:
            config.queue_max = QUERY_QUEUE_MAX + 1;
            break;
        case 2:
            config.timeout_ms = 0;
            break;
        case 3:
            config.lookback_ms = 0;
            break;
        case 4:
            config.query_bytes_max = 1000;
            break;
        case 5:
            config.worker_count = QUERY_WORKERS_MAX + 1;
            break;
        }
        assert_err(ERR_INPUT, query_config_check(&config, &at));
    }
}

struct sums {
    struct query_workers *workers;
    _Atomic uint64_t sum;
    _Atomic uint32_t calls[1000];
};

static void add_index(void *context, size_t index)
{
    struct sums *sums = context;
    atomic_fetch_add(&sums->sum, index);
    atomic_fetch_add(&sums->calls[index], 1);
}

static void run_inside(void *context, size_t index)
{
    struct sums *sums = context;
    query_workers_run(sums->workers, 100, add_index, sums);
}

static void run_from_thread(void *context)
{
    struct sums *sums = context;
    for (int i = 0; i < 200; i++)
        query_workers_run(sums->workers, 10, add_index, sums);
}

/* Every index exactly once, from several callers at once, and from inside jobs. */
static void workers(void **state)
{
    struct sums sums = { .workers = NULL };
    struct io_thread *threads[3];
    assert_ok(query_workers_open(io, pool, 3, &sums.workers));
    assert_int_equal(query_workers_width(sums.workers), 4);
    query_workers_run(sums.workers, 0, add_index, &sums);
    query_workers_run(sums.workers, 1000, add_index, &sums);
    assert_int_equal(atomic_load(&sums.sum), 499500);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(atomic_load(&sums.calls[i]), 1);
    atomic_store(&sums.sum, 0);
    query_workers_run(sums.workers, 50, run_inside, &sums);
    assert_int_equal(atomic_load(&sums.sum), 50 * 4950);
    atomic_store(&sums.sum, 0);
    for (int i = 0; i < 3; i++)
        assert_ok(io_thread_start(io, "caller", run_from_thread, &sums, &threads[i]));
    for (int i = 0; i < 3; i++)
        io_thread_join(threads[i]);
    assert_int_equal(atomic_load(&sums.sum), 3 * 200 * 45);
    query_workers_close(sums.workers);
    query_workers_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_and_queue),        cmocka_unit_test(waiting_ends),
        cmocka_unit_test(clients_that_left),      cmocka_unit_test(waiters_get_their_turn),
        cmocka_unit_test(queries_know_how_far),   cmocka_unit_test(stopping),
        cmocka_unit_test(evaluation_and_budgets), cmocka_unit_test(memory_of_others),
        cmocka_unit_test(bad_configurations),     cmocka_unit_test(workers),
    };
    if (io_open(".", &io) != OK)
        return 1;
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_close(pool);
    io_close(io);
    return failed;
}
