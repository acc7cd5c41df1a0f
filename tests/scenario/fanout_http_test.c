/* Questions and answers between nodes over real HTTP on 127.0.0.1. Goal: nodes over HTTP answer like one source
 * over all; what is not proven, not whole, not in its place, not of this request or this life is believed by
 * nobody; whoever hangs, is gone or has too much to do holds up nobody, and everything is given back. Method: a
 * server a node over sources in memory, which answers as it should or in ways that are wrong on purpose, and the
 * transport's own functions as well as a source over it. Nothing is decided by how long something takes. */
#include "promql/promql.h"
#include "scenario/fanout_http_world.h"

/* ---- a world over it ---- */

static void world_serve(struct world *w, const struct asking *a)
{
    static const struct fanout_answers_config plain;
    struct fanout *fanout;
    for (uint32_t i = 0; i < w->nodes->node_count; i++)
        node_start(&nodes[i], i, &w->nodes->nodes[i].source.source, &plain);
    w->nodes->config.transport = a->t;
    assert_ok(fanout_open(&w->nodes->config, w->pool, &fanout));
    w->nodes->source = fanout_source(fanout);
    w->guard.io = io;
}

static void world_stop(struct world *w, struct asking *a)
{
    asking_close(a);
    for (uint32_t i = 0; i < w->nodes->node_count; i++)
        if (nodes[i].server != NULL)
            node_stop(&nodes[i]);
    world_close(w);
}

static void nodes_over_http_answer_like_one_source(void **state)
{
    struct test_random random = test_random_begin("http");
    struct fanout_http_config config = asker();
    struct asking a = asking_open(&config);
    struct world w;
    struct question q;
    struct slice *got, *want;
    size_t got_count, want_count;
    struct proof proof;
    world_open(&w, &random, NODES, 2);
    world_serve(&w, &a);
    for (unsigned i = 0; i < 20; i++) {
        if (i == 10)
            node_stop(&nodes[1]); /* connections to it are cut, further ones refused */
        question_make(&w, &random, &q);
        assert_int_equal(ask_both(&w, &q.request, i % 2 == 0), 0);
        question_done(&q);
    }
    struct source_request request = all_of(&w);
    assert_ok(w.nodes->source->table->label_values(w.nodes->source, slice_str("number"), &request, 1, 0,
                                                   w.pool, &got, &got_count, &proof));
    assert_ok(w.whole.source.table->label_values(&w.whole.source, slice_str("number"), &request, 1, 0, w.pool,
                                                 &want, &want_count, &proof));
    assert_int_equal(got_count, want_count);
    world_stop(&w, &a);
}

static _Atomic unsigned helped;

static void run_backwards(void *context, size_t job_count, void (*job)(void *job_context, size_t index),
                          void *job_context)
{
    atomic_fetch_add(&helped, 1);
    for (size_t i = job_count; i > 0; i--)
        job(job_context, i - 1);
}

/* Aggregations, too, which come as groups: the value at an instant, as one source gives it. Windows so long are
 * worth several chunks, with which others help. */
static void groups_come_over_http(void **state)
{
    struct test_random random = test_random_begin("groups");
    struct fanout_http_config config = asker();
    struct asking a = asking_open(&config);
    struct world w;
    struct promql_result results[2];
    struct promql_expr *expr;
    world_open(&w, &random, NODES, 2);
    world_serve(&w, &a);
    assert_ok(promql_parse(slice_str("count by (group) (count_over_time({number!=\"\"}[30d]))"), w.pool,
                           &expr, NULL));
    const struct promql_runner runner = { .width = 2, .run = run_backwards };
    for (unsigned i = 0; i < NODES; i++)
        fanout_answers_set_runner(nodes[i].answers, &runner);
    for (unsigned i = 0; i < 4; i++) {
        if (i == 2)
            node_stop(&nodes[1]);
        for (unsigned k = 0; k < 2; k++) {
            struct promql_request request = { .expr = expr,
                                              .source = k == 0 ? w.nodes->source : &w.whole.source,
                                              .tenant = TENANT,
                                              .start_ms = 200000,
                                              .end_ms = 200000,
                                              .guard = &w.guard };
            assert_ok(promql_eval(&request, w.pool, &results[k], NULL));
        }
        assert_true(results[0].series_count == 7 && results[1].series_count == 7);
        for (size_t s = 0; s < 7; s++)
            assert_true(slice_equal(results[0].series[s].labels, results[1].series[s].labels) &&
                        results[0].series[s].values[0] == results[1].series[s].values[0]);
        assert_true(results[0].proof.complete && results[0].proof.partition_count == PARTITIONS);
    }
    assert_true(w.guard.groups_bytes > 0 && w.guard.rows_bytes == 0 && helped > 0);
    promql_expr_done(expr);
    world_stop(&w, &a);
}

/* What a hung node has others answer; of what nobody else has it is named. */
static void a_hung_node_is_passed_by(void **state)
{
    struct test_random random = test_random_begin("passed by");
    struct fanout_http_config config = asker();
    config.quiet_ms_max = 5000;
    for (uint32_t replicas = 2; replicas > 0; replicas--) {
        struct asking a = asking_open(&config);
        struct world w;
        world_open(&w, &random, NODES, replicas);
        world_serve(&w, &a);
        struct source_request request = all_of(&w);
        nodes[1].mode = MODE_HANG;
        w.guard.deadline_ns = io_monotonic_ns(io) + 60 * NS_PER_SECOND;
        assert_int_equal(ask_both(&w, &request, false), replicas == 2 ? 0 : 0x492); /* 1, 4, 7, 10 */
        world_stop(&w, &a);
    }
}

/* Everything that nobody answers for is named. */
static void assert_nobody_answers(struct world *w)
{
    struct source_request request = all_of(w);
    w->guard.deadline_ns = io_monotonic_ns(io) + 60 * NS_PER_SECOND;
    assert_int_equal(ask_both(w, &request, false), (1 << PARTITIONS) - 1);
}

static void only_who_proves_itself_is_believed(void **state)
{
    struct test_random random = test_random_begin("proofs");
    struct fanout_http_config config = asker();
    struct asking a = asking_open(&config);
    struct world w;
    world_open(&w, &random, NODES, 2);
    world_serve(&w, &a);
    struct source_request request = all_of(&w);
    assert_int_equal(ask_both(&w, &request, false), 0);
    for (unsigned i = 0; i < NODES; i++)
        nodes[i].mode = MODE_PLAIN;
    assert_nobody_answers(&w);
    for (unsigned i = 0; i < NODES; i++) {
        nodes[i].mode = MODE_REAL;
        nodes[i].incarnation++; /* others live there now */
    }
    assert_nobody_answers(&w);
    for (unsigned i = 0; i < NODES; i++) {
        nodes[i].incarnation--;
        nodes[i].slot += 10;
    }
    assert_nobody_answers(&w);
    for (unsigned i = 0; i < NODES; i++) {
        nodes[i].slot -= 10;
        nodes[i].cluster = 8;
    }
    assert_nobody_answers(&w);
    for (unsigned i = 0; i < NODES; i++)
        nodes[i].cluster = 0; /* a node that does not know yet answers, and is not believed */
    assert_nobody_answers(&w);
    for (unsigned i = 0; i < NODES; i++)
        nodes[i].cluster = 7;
    assert_int_equal(ask_both(&w, &request, false), 0);

    asking_close(&a);
    config.secret = slice_str("what others know");
    a = asking_open(&config);
    struct fanout *fanout;
    w.nodes->config.transport = a.t;
    assert_ok(fanout_open(&w.nodes->config, w.pool, &fanout));
    w.nodes->source = fanout_source(fanout);
    assert_nobody_answers(&w);
    world_stop(&w, &a);
}

/* ---- refusals ---- */

struct refusal {
    struct rpc_proof proof;
    unsigned status;
    struct buf text;
};

static void keep_proof(void *context, struct slice name, struct slice value)
{
    rpc_proof_header(context, name, value);
}

static void ask_raw(struct pool *pool, const char *head, const char *code, struct slice body,
                    struct refusal *out)
{
    char url[100], lines[2][300];
    const char *const headers[] = { lines[0], lines[1] };
    struct net_client *client;
    struct net_client_response response;
    snprintf(url, sizeof url, "http://127.0.0.1:%u%s", nodes[0].port, FANOUT_HTTP_PATH);
    snprintf(lines[0], sizeof lines[0], "%s: %s", RPC_HEAD_NAME, head);
    snprintf(lines[1], sizeof lines[1], "%s: %s", RPC_CODE_NAME, code);
    struct net_client_request request = { .url = url,
                                          .headers = headers,
                                          .header_count = 2,
                                          .method = "POST",
                                          .body = body,
                                          .timeout_ms = 60000,
                                          .encoded_bytes_max = 1u << 20,
                                          .on_header = keep_proof,
                                          .header_context = &out->proof };
    assert_ok(net_client_open(io, pool, &client));
    *out = (struct refusal){ .text = buf_open(pool, 1u << 20) };
    assert_ok(net_client_do(client, &request, &out->text, &response, NULL));
    out->status = response.status;
    net_client_close(client);
}

/* A node that is asked by somebody else says so: proven to whoever has proven itself. */
static void whoever_asks_has_to_prove_itself(void **state)
{
    static const struct fanout_answers_config plain;
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct source_memory source;
    struct rpc_proof proof;
    struct refusal r;
    struct rpc_head got;
    source_memory_init(&source, pool);
    node_start(&nodes[0], 0, &source.source, &plain);
    struct rpc_head head = { .slot = 5, .t_ms = io_now_ms(io) };
    memset(head.cluster_id, 7, sizeof head.cluster_id);
    struct rpc_request request = { "POST", slice_str(FANOUT_HTTP_PATH), request_of(pool, 0) };

    ask_raw(pool, "", "", request.body, &r);
    assert_int_equal(r.status, 401);
    assert_string_equal(r.proof.code, "");
    ask_raw(pool, "02", "", request.body, &r);
    assert_int_equal(r.status, 505);
    rpc_request_sign(slice_str("what others know"), &request, &head, &proof);
    ask_raw(pool, proof.head, proof.code, request.body, &r);
    assert_int_equal(r.status, 401);
    rpc_request_sign(secret(), &request, &head, &proof);
    ask_raw(pool, proof.head, proof.code, slice_str("another body"), &r);
    assert_int_equal(r.status, 401);
    ask_raw(pool, proof.head, proof.code, request.body, &r);
    assert_int_equal(r.status, 200);

    head.cluster_id[3] = 99;
    rpc_request_sign(secret(), &request, &head, &proof);
    ask_raw(pool, proof.head, proof.code, request.body, &r);
    assert_int_equal(r.status, 409);
    assert_ok(rpc_answer_check(secret(), slice_str(proof.code), 409, buf_slice(&r.text),
                               slice_str(r.proof.head), slice_str(r.proof.code), &got));
    memset(head.cluster_id, 0, sizeof head.cluster_id);
    head.t_ms -= 60000;
    rpc_request_sign(secret(), &request, &head, &proof);
    ask_raw(pool, proof.head, proof.code, request.body, &r);
    assert_int_equal(r.status, 401);
    assert_ok(rpc_answer_check(secret(), slice_str(proof.code), 401, buf_slice(&r.text),
                               slice_str(r.proof.head), slice_str(r.proof.code), &got));
    node_stop(&nodes[0]);
    pool_close(pool);
}

/* ---- answers that are wrong ---- */

struct small {
    struct pool *pool;
    struct world w;
    struct slice request, answer;
    struct buf got;
};

/* One node with few rows. */
static void small_open(struct small *s, const char *name)
{
    static const struct fanout_answers_config plain;
    struct test_random random = test_random_begin(name);
    world_open(&s->w, &random, 1, 1);
    s->pool = s->w.pool;
    for (size_t i = 0; i < s->w.whole.count; i++) {
        s->w.whole.series[i].columns.count = i < 2 ? 1 : 0;
        s->w.whole.series[i].columns.histogram_count = 0;
    }
    s->request = request_of(s->pool, 0);
    s->answer = answer_of(s->pool, &s->w.whole.source, s->request);
    s->got = buf_open(s->pool, 64u << 20);
    node_start(&nodes[0], 0, &s->w.whole.source, &plain);
}

static void small_close(struct small *s)
{
    node_stop(&nodes[0]);
    world_close(&s->w);
}

/* What came is a beginning of the answer, and not its end. */
static void assert_is_broken(struct small *s, err e)
{
    assert_err(ERR_IO, e);
    assert_true(s->got.len < s->answer.len && memcmp(s->got.at, s->answer.at, s->got.len) == 0);
}

static void no_byte_of_an_answer_may_change(void **state)
{
    struct fanout_http_config config = asker();
    struct asking a = asking_open(&config);
    struct small s;
    small_open(&s, "bytes");
    struct node *node = &nodes[0];
    node->mode = MODE_RECORD;
    assert_err(ERR_END, ask(&a, 0, s.request, &s.got));
    assert_true(slice_equal(buf_slice(&s.got), s.answer));
    size_t len = node->sent.len, frames = node->frame_count;
    assert_true(frames >= 3 && len >= s.answer.len + 3 * RPC_FRAME_MORE);

    node->mode = MODE_REPLAY; /* the same bytes again, for another request */
    assert_is_broken(&s, ask(&a, 0, s.request, &s.got));
    assert_int_equal(s.got.len, 0);
    node->mode = MODE_SPOIL;
    for (node->spoil = SPOIL_CUT; node->spoil < SPOIL_KINDS; node->spoil++) {
        size_t end = node->spoil == SPOIL_SWAP     ? frames - 1
                     : node->spoil == SPOIL_DROP   ? frames
                     : node->spoil == SPOIL_LENGTH ? 20
                                                   : len;
        for (node->spoil_at = 0; node->spoil_at < end; node->spoil_at++)
            assert_is_broken(&s, ask(&a, 0, s.request, &s.got));
    }
    node->mode = MODE_REAL;
    assert_err(ERR_END, ask(&a, 0, s.request, &s.got));
    assert_true(slice_equal(buf_slice(&s.got), s.answer));
    asking_close(&a);
    small_close(&s);
}

/* ---- connections and bounds ---- */

static void connections_are_kept(void **state)
{
    struct fanout_http_config config = asker();
    config.calls_max = 1; /* one after the other */
    struct asking a = asking_open(&config);
    struct small s;
    small_open(&s, "kept");
    nodes[0].notes_peers = true;
    for (int i = 0; i < 20; i++) {
        nodes[0].mode = i < 10 ? MODE_REAL : MODE_RECORD;
        assert_err(ERR_END, ask(&a, 0, s.request, &s.got));
    }
    assert_int_equal(atomic_load(&nodes[0].asked), 20);
    assert_int_equal(atomic_load(&nodes[0].peer_count), 1);
    asking_close(&a);
    small_close(&s);
}

static bool first_hangs(void) { return atomic_load(&nodes[0].hanging) > 0; }
static bool first_is_left(void) { return atomic_load(&nodes[0].canceled) > 0; }

/* A node that takes a question and says nothing has broken the call; it sees that nobody waits for it. */
static void who_hangs_is_given_up(void **state)
{
    struct fanout_http_config config = asker();
    config.quiet_ms_max = 100;
    config.calls_max = 1;
    struct asking a = asking_open(&config);
    struct small s;
    small_open(&s, "hangs");
    nodes[0].mode = MODE_HANG;
    assert_err(ERR_TIMEOUT, ask(&a, 0, s.request, &s.got));
    wait_until(first_is_left);
    void *call = start(&a, 0, s.request); /* when the thread is free again */
    a.t.close(a.t.context, call);         /* at once */
    asking_close(&a);
    small_close(&s);
}

static void calls_are_bounded(void **state)
{
    static const struct fanout_answers_config plain;
    struct fanout_http_config config = asker();
    config.calls_max = 2;
    config.calls_of_a_node_max = 1;
    struct asking a = asking_open(&config);
    struct small s;
    void *first, *second, *third;
    small_open(&s, "bounded");
    node_start(&nodes[1], 1, &s.w.whole.source, &plain);
    node_start(&nodes[2], 2, &s.w.whole.source, &plain);
    nodes[0].mode = nodes[1].mode = MODE_HANG;
    assert_ok(a.t.start(a.t.context, 0, s.request, &first));
    assert_err(ERR_BUSY, a.t.start(a.t.context, 0, s.request, &second));
    assert_ok(a.t.start(a.t.context, 1, s.request, &second));
    assert_err(ERR_BUSY, a.t.start(a.t.context, 2, s.request, &third));
    assert_err(ERR_NOT_FOUND, a.t.start(a.t.context, NODES, s.request, &third));
    wait_until(first_hangs);
    a.t.close(a.t.context, first);
    assert_err(ERR_END, ask(&a, 2, s.request, &s.got)); /* when the first has ended */
    a.t.close(a.t.context, second);
    asking_close(&a);
    node_stop(&nodes[1]);
    node_stop(&nodes[2]);
    nodes[1].port = nodes[2].port = 0;
    small_close(&s);
}

/* However slow it is taken, all of a large answer comes, and little of it lies in between. */
static void a_large_answer_waits_for_who_asked(void **state)
{
    struct fanout_http_config config = asker();
    struct asking a = asking_open(&config);
    struct test_random random = test_random_begin("large");
    struct small s;
    struct slice bytes;
    small_open(&s, "large");
    for (size_t i = 0; i < 10; i++) {
        struct sample_columns *c = &s.w.whole.series[i].columns;
        int64_t t_ms = c->count > 0 ? c->t_ms[c->count - 1] : 0;
        for (unsigned k = 0; k < 60000; k++)
            assert_ok(sample_columns_add(c, t_ms += 1000, bits_double(test_random_u64(&random)), 0));
    }
    struct slice answer = answer_of(s.pool, &s.w.whole.source, s.request);
    assert_true(answer.len > 4u << 20);
    void *call = start(&a, 0, s.request);
    buf_clear(&s.got);
    err e = ERR_BUSY;
    for (unsigned i = 0; e == OK || e == ERR_BUSY; i++) {
        a.t.wait(a.t.context, &call, 1, 100 * NS_PER_MS);
        io_sleep_ns(io, (i < 5 ? 100 : 1) * NS_PER_MS); /* all of it would come meanwhile */
        e = a.t.next(a.t.context, call, &bytes);
        if (e == OK)
            buf_put_slice(&s.got, bytes);
        assert_true(pool_used(a.pool) < 3u << 19);
    }
    assert_err(ERR_END, e);
    a.t.close(a.t.context, call);
    assert_true(slice_equal(buf_slice(&s.got), answer));
    asking_close(&a);
    small_close(&s);
}

static void an_asker_may_lack_memory(void **state)
{
    struct fanout_http_config config = asker();
    struct asking a = asking_open(&config);
    struct small s;
    void *call;
    small_open(&s, "memory");
    assert_err(ERR_END, ask(&a, 0, s.request, &s.got)); /* a thread is there */
    unsigned failed = 0;
    err e = ERR_LIMIT;
    for (uint64_t nth = 1; e != ERR_END; nth++) {
        pool_fault_at(a.pool, nth, false);
        e = a.t.start(a.t.context, 0, s.request, &call);
        buf_clear(&s.got);
        if (e == OK) {
            e = take(&a, call, &s.got);
            a.t.close(a.t.context, call);
        }
        pool_fault_at(a.pool, 0, false);
        assert_true(e == ERR_END || e == ERR_LIMIT || e == ERR_IO);
        failed += e != ERR_END;
        if (e == ERR_END)
            assert_true(slice_equal(buf_slice(&s.got), s.answer));
    }
    assert_true(failed >= 4); /* call, request, frame, what is ready */
    asking_close(&a);
    small_close(&s);
}

/* ---- answers that take long ---- */

static _Atomic bool is_released;
static _Atomic unsigned waiting, ended_with;

/* A source that waits for its guard, or until it is released. */
static err select_waits(struct source *source, const struct source_request *request, struct pool *pool,
                        struct source_set **out_set)
{
    err e = OK;
    atomic_fetch_add(&waiting, 1);
    while (!atomic_load(&is_released) && (e = guard_check(request->guard)) == OK)
        io_sleep_ns(io, NS_PER_MS);
    atomic_store(&ended_with, e);
    return e != OK ? e : ERR_CORRUPT;
}

static const struct source_table waiting_table = { .select = select_waits };
static struct source waiting_source = { .table = &waiting_table };

static bool somebody_waits(void) { return atomic_load(&waiting) > 0; }
static bool two_wait(void) { return atomic_load(&waiting) > 1; }
static bool was_canceled(void) { return atomic_load(&ended_with) == ERR_CANCELED; }

static struct pool *waiting_open(const struct fanout_answers_config *config)
{
    atomic_store(&is_released, false);
    atomic_store(&waiting, 0);
    atomic_store(&ended_with, OK);
    node_start(&nodes[0], 0, &waiting_source, config);
    return pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
}

/* The error with which an answer ends. */
static err error_of(struct pool *pool, struct slice bytes)
{
    struct wire_in in = { .pool = pool, .kind = WIRE_SAMPLES };
    struct wire_block block;
    uint64_t series_over;
    err error;
    assert_ok(wire_in_next(&in, &bytes, &block));
    assert_int_equal(block.type, WIRE_BLOCK_ERROR);
    assert_ok(wire_error_read(block.body, &error, &series_over));
    return error;
}

static void the_work_ends_when_the_asker_is_gone(void **state)
{
    static const struct fanout_answers_config plain;
    struct fanout_http_config config = asker();
    struct asking a = asking_open(&config);
    struct pool *pool = waiting_open(&plain);
    void *call = start(&a, 0, request_of(pool, 0));
    wait_until(somebody_waits);
    a.t.close(a.t.context, call);
    wait_until(was_canceled);
    asking_close(&a);
    node_stop(&nodes[0]);
    pool_close(pool);
}

static void the_work_ends_with_the_server(void **state)
{
    static const struct fanout_answers_config plain;
    struct fanout_http_config config = asker();
    struct asking a = asking_open(&config);
    struct pool *pool = waiting_open(&plain);
    struct buf got = buf_open(pool, 10000);
    void *call = start(&a, 0, request_of(pool, 0));
    wait_until(somebody_waits);
    net_server_close(nodes[0].server, 0);
    assert_true(was_canceled());
    assert_err(ERR_IO, take(&a, call, &got)); /* cut, and not ended */
    a.t.close(a.t.context, call);
    asking_close(&a);
    fanout_answers_close(nodes[0].answers);
    buf_close(&nodes[0].sent);
    pool_close(nodes[0].pool);
    pool_close(pool);
}

static void the_time_of_either_side_ends_the_work(void **state)
{
    struct fanout_http_config config = asker();
    struct fanout_answers_config answers = { .time_ms_max = 50 };
    for (int i = 0; i < 2; i++) {
        struct asking a = asking_open(&config);
        struct pool *pool = waiting_open(&answers);
        struct buf got = buf_open(pool, 10000);
        assert_err(ERR_END, ask(&a, 0, request_of(pool, i == 0 ? 0 : 50), &got));
        assert_err(ERR_TIMEOUT, error_of(pool, buf_slice(&got)));
        asking_close(&a);
        node_stop(&nodes[0]);
        pool_close(pool);
        answers.time_ms_max = 0; /* the asker's, then */
    }
}

static void answers_are_bounded(void **state)
{
    struct fanout_http_config config = asker();
    struct fanout_answers_config answers = { .answers_max = 2 };
    struct asking a = asking_open(&config);
    struct pool *pool = waiting_open(&answers);
    struct slice request = request_of(pool, 0);
    struct buf got = buf_open(pool, 10000);
    void *first = start(&a, 0, request), *second = start(&a, 0, request);
    wait_until(two_wait);
    assert_err(ERR_IO, ask(&a, 0, request, &got)); /* refused */
    assert_int_equal(got.len, 0);
    atomic_store(&is_released, true);
    assert_err(ERR_END, take(&a, first, &got));
    assert_err(ERR_CORRUPT, error_of(pool, buf_slice(&got)));
    a.t.close(a.t.context, first);
    a.t.close(a.t.context, second);
    asking_close(&a);
    node_stop(&nodes[0]);
    pool_close(pool);
}

/* ---- signs of life ---- */

struct watching {
    struct pool *pool;
    struct rpc_proof asked, answered;
    struct rpc_stream stream;
    bool has_stream, has_ended;
    unsigned empty;
};

static err watch_body(void *context, struct slice part)
{
    struct watching *w = context;
    struct rpc_head head;
    struct rpc_frame frame;
    err e = OK;
    if (!w->has_stream)
        e = rpc_stream_open(secret(), slice_str(w->asked.code), 200, slice_str(w->answered.head),
                            slice_str(w->answered.code), w->pool, &head, &w->stream);
    w->has_stream = w->has_stream || e == OK;
    while (e == OK && (e = rpc_stream_next(&w->stream, &part, &frame)) == OK) {
        w->has_ended = frame.is_last;
        w->empty += frame.payload.len == 0;
        if (w->empty == 2)
            atomic_store(&is_released, true);
    }
    return e == ERR_END ? OK : e;
}

static void watch_header(void *context, struct slice name, struct slice value)
{
    rpc_proof_header(&((struct watching *)context)->answered, name, value);
}

/* While an answer is being made, proven empty frames say so. */
static void who_is_at_work_says_so(void **state)
{
    static const struct fanout_answers_config plain;
    char url[100], lines[2][300];
    const char *const headers[] = { lines[0], lines[1] };
    struct watching w = { .pool = waiting_open(&plain) };
    struct rpc_request asked = { "POST", slice_str(FANOUT_HTTP_PATH), request_of(w.pool, 0) };
    struct rpc_head head = { .slot = 5, .t_ms = io_now_ms(io) };
    struct net_client *client;
    struct net_client_response response;
    struct buf none = buf_open(w.pool, 0);
    rpc_request_sign(secret(), &asked, &head, &w.asked);
    snprintf(url, sizeof url, "http://127.0.0.1:%u%s", nodes[0].port, FANOUT_HTTP_PATH);
    snprintf(lines[0], sizeof lines[0], "%s: %s", RPC_HEAD_NAME, w.asked.head);
    snprintf(lines[1], sizeof lines[1], "%s: %s", RPC_CODE_NAME, w.asked.code);
    struct net_client_request request = { .url = url,
                                          .headers = headers,
                                          .header_count = 2,
                                          .method = "POST",
                                          .body = asked.body,
                                          .timeout_ms = 60000,
                                          .encoded_bytes_max = 1u << 20,
                                          .on_header = watch_header,
                                          .header_context = &w,
                                          .on_body = watch_body,
                                          .body_context = &w };
    assert_ok(net_client_open(io, w.pool, &client));
    assert_ok(net_client_do(client, &request, &none, &response, NULL));
    assert_true(w.has_ended && w.empty >= 2);
    rpc_stream_close(&w.stream);
    net_client_close(client);
    node_stop(&nodes[0]);
    pool_close(w.pool);
}

int main(void)
{
    if (io_open("/tmp", &io) != OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_over_http_answer_like_one_source),
        cmocka_unit_test(groups_come_over_http),
        cmocka_unit_test(a_hung_node_is_passed_by),
        cmocka_unit_test(only_who_proves_itself_is_believed),
        cmocka_unit_test(whoever_asks_has_to_prove_itself),
        cmocka_unit_test(no_byte_of_an_answer_may_change),
        cmocka_unit_test(connections_are_kept),
        cmocka_unit_test(who_hangs_is_given_up),
        cmocka_unit_test(calls_are_bounded),
        cmocka_unit_test(a_large_answer_waits_for_who_asked),
        cmocka_unit_test(an_asker_may_lack_memory),
        cmocka_unit_test(the_work_ends_when_the_asker_is_gone),
        cmocka_unit_test(the_work_ends_with_the_server),
        cmocka_unit_test(the_time_of_either_side_ends_the_work),
        cmocka_unit_test(answers_are_bounded),
        cmocka_unit_test(who_is_at_work_says_so),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    io_close(io);
    return failed;
}
