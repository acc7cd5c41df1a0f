/* Goal: a node's parts together, on threads and sockets: two agents on one control log (the file driver's) begin
 * a cluster, hear each other by probes over HTTP, share the partitions out, leave and come back, open again what
 * closed itself; and who does not know the secret is not believed.
 * Method: each node has an agent, a prober, an opener and an HTTP server; conditions are waited for as long as it
 * takes. Faults: tests/scenario/agent_simtest.c. */
#include "base/test.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/time.h"
#include "net/client.h"

#define PARTITIONS 8
#define WAIT_MS    120000

struct node {
    struct agent *agent;
    struct prober *prober;
    struct opener *opener;
    struct net_server *server;
    _Atomic uint32_t ranks[PARTITIONS];
    _Atomic int64_t untils_ns[PARTITIONS];
    _Atomic bool is_open[PARTITIONS];
    _Atomic bool has_stopped, is_wrong;
};

static struct pool *pool;
static struct io *io;
static struct log *control;
static char root[64];
static struct node nodes[2];
static uint8_t processes;

static struct slice secret(void) { return slice_str("what only nodes know"); }

/* ---- a node ---- */

static void on_probe(void *context, const struct agent_probe *probe)
{
    prober_ask(((struct node *)context)->prober, probe);
}

static void on_open(void *context, uint32_t partition, uint64_t opening)
{
    opener_want(((struct node *)context)->opener, partition, opening);
}

static void on_close(void *context, uint32_t partition)
{
    opener_drop(((struct node *)context)->opener, partition);
}

static void on_trouble(void *context, const char *why) {}

static void on_stop(void *context, const char *why, enum core_end end)
{
    struct node *n = context;
    atomic_store(&n->is_wrong, end != CORE_LEFT);
    atomic_store(&n->has_stopped, true);
}

static void on_rank(void *context, uint32_t partition, uint32_t rank, int64_t until_ns)
{
    atomic_store(&((struct node *)context)->ranks[partition], rank);
    atomic_store(&((struct node *)context)->untils_ns[partition], until_ns);
}

static struct agent_progress on_progress(void *context, uint32_t partition, uint64_t opening)
{
    struct node *n = context;
    if (!opener_holds(n->opener, partition, opening))
        return (struct agent_progress){ 0 };
    if (!atomic_load(&n->is_open[partition])) {
        opener_lost(n->opener, partition, opening);
        return (struct agent_progress){ 0 };
    }
    return (struct agent_progress){ .is_replayed = true, .confirmed_ns = io_boottime_ns(io) };
}

static err open_partition(void *context, uint32_t partition, struct err_at *at)
{
    io_sleep_ns(io, 5 * NS_PER_MS);
    atomic_store(&((struct node *)context)->is_open[partition], true);
    return OK;
}

static void close_partition(void *context, uint32_t partition)
{
    atomic_store(&((struct node *)context)->is_open[partition], false);
}

static void heard(void *context, struct member_id id) { agent_heard(((struct node *)context)->agent, id); }

static void handle(void *context, struct net_request *request, struct net_response *response)
{
    probe_handle(((struct node *)context)->agent, io, secret(), request, response);
}

static const struct net_route routes[] = { { NET_POST, PROBE_PATH, handle, PROBE_BYTES_MAX, true, true } };

static void open_agent(struct node *n, const char *address)
{
    static const struct control_init init = { .partition_count = PARTITIONS,
                                              .replica_count = 2,
                                              .expected_nodes = 2,
                                              .range_bytes_max = 1 << 20,
                                              .settings = { 30000, 60000 } };
    char name[2] = { (char)('a' + (n - nodes)) };
    struct agent_config config = {
        .log = control,
        .calls = { on_probe, on_open, on_close, on_trouble, on_stop, on_rank, on_progress },
        .context = n,
    };
    config.core.init = &init;
    config.core.init_id[0] = 1 + (uint8_t)(n - nodes);
    config.core.self.disk_id[0] = 1 + (uint8_t)(n - nodes);
    config.core.self.process_id[0] = ++processes;
    config.core.self.name = slice_str(name);
    config.core.self.zone = slice_str(name);
    config.core.self.address = slice_str(address);
    assert_ok(agent_open(&config, io, pool, &n->agent));
}

static void start(struct node *n)
{
    struct opener_config opener = { open_partition, close_partition, NULL, n, NULL };
    struct prober_config prober = { .secret = secret(), .heard = heard, .context = n };
    struct net_server_config server = net_server_config_default();
    struct err_at at = { 0 };
    char address[64];
    memset(n, 0, sizeof *n);
    for (int p = 0; p < PARTITIONS; p++) {
        n->ranks[p] = UINT32_MAX;
        n->untils_ns[p] = INT64_MIN;
    }
    server.listen = "127.0.0.1:0";
    server.context = n;
    server.routes = routes;
    server.route_count = 1;
    assert_ok(net_server_open(io, pool, &server, &n->server, &at));
    snprintf(address, sizeof address, "127.0.0.1:%u", net_server_port(n->server));
    open_agent(n, address);
    assert_ok(prober_open(&prober, io, pool, &n->prober));
    assert_ok(opener_open(&opener, io, pool, &n->opener));
    assert_ok(agent_run_thread(n->agent));
}

/* What calls the agent ends before it, but what it calls, after its thread: so it is told to stand still first. */
static void stop(struct node *n)
{
    net_server_close(n->server, 1000);
    agent_stop(n->agent);
    prober_close(n->prober);
    opener_close(n->opener);
    log_drain(control);
    agent_close(n->agent);
}

static int set_up(void **state)
{
    struct err_at at;
    strcpy(root, "/tmp/kelpie-agent-XXXXXX");
    assert_non_null(mkdtemp(root));
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    assert_ok(io_open(root, &io));
    struct log_config config = { .directory = "log",
                                 .cluster_id = "a cluster",
                                 .partition_count = 1,
                                 .ack = LOG_ACK_OS,
                                 .file_bytes = 1 << 20,
                                 .queue_bytes_max = 1 << 20,
                                 .tail_bytes_max = 1 << 20 };
    assert_ok(log_open(&config, io, pool, &control, &at));
    assert_ok(log_run_thread(control));
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    log_close(control);
    io_close(io);
    pool_close(pool);
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

static void wait_until(bool (*is_so)(void))
{
    for (int i = 0; i < WAIT_MS / 10 && !is_so(); i++)
        io_sleep_ns(io, 10 * NS_PER_MS);
    assert_true(is_so());
}

/* ---- stories ---- */

static bool all_is_shared_out(void)
{
    for (int i = 0; i < 2; i++) {
        struct agent_view view;
        agent_view(nodes[i].agent, &view);
        if (view.known_ns == INT64_MIN || view.self.slot == SLOT_NONE || view.up_count != 2 ||
            view.open_count != PARTITIONS || !agent_may_decide(nodes[i].agent) ||
            prober_counts(nodes[i].prober).answered == 0)
            return false;
    }
    for (int p = 0; p < PARTITIONS; p++) {
        uint32_t a = atomic_load(&nodes[0].ranks[p]), b = atomic_load(&nodes[1].ranks[p]);
        if (a > 1 || b > 1 || a == b || !atomic_load(&nodes[0].is_open[p]) ||
            !atomic_load(&nodes[1].is_open[p]))
            return false;
    }
    return true;
}

static bool has_leases(struct node *n)
{
    int64_t now_ns = io_boottime_ns(io);
    for (int p = 0; p < PARTITIONS; p++)
        if (atomic_load(&n->untils_ns[p]) > now_ns)
            return true;
    return false;
}

static bool second_has_stopped(void) { return atomic_load(&nodes[1].has_stopped); }

static bool first_is_alone(void)
{
    struct agent_view view;
    agent_view(nodes[0].agent, &view);
    return view.up_count == 1;
}

static void two_nodes_share_leave_and_come_back(void **state)
{
    start(&nodes[0]);
    start(&nodes[1]);
    wait_until(all_is_shared_out);
    agent_leave(nodes[1].agent);
    wait_until(second_has_stopped);
    assert_false(atomic_load(&nodes[1].is_wrong) || has_leases(&nodes[1]));
    wait_until(first_is_alone);
    stop(&nodes[1]);
    start(&nodes[1]);
    wait_until(all_is_shared_out);
    assert_true(has_leases(&nodes[1]));
    stop(&nodes[1]); /* before it left */
    assert_false(has_leases(&nodes[1]));
    stop(&nodes[0]);
}

/* Nobody asked for it; it is found, let go of, and opened again. */
static void what_closes_itself_comes_back(void **state)
{
    start(&nodes[0]);
    start(&nodes[1]);
    wait_until(all_is_shared_out);
    atomic_store(&nodes[0].is_open[3], false);
    wait_until(all_is_shared_out);
    stop(&nodes[1]);
    stop(&nodes[0]);
}

static bool all_are_routed(void)
{
    for (int i = 0; i < 2; i++)
        if (routes_unowned(agent_routes(nodes[i].agent)) > 0)
            return false;
    return true;
}

/* A copy of what the cluster is, a person's order, and whom to ask: from another thread than the agent's. */
static void others_ask_the_agent(void **state)
{
    struct agent_copy *copy;
    struct route_node node;
    uint32_t slots[CLUSTER_REPLICAS_MAX];
    start(&nodes[0]);
    assert_int_equal(routes_unowned(agent_routes(nodes[0].agent)), CLUSTER_PARTITIONS_MAX);
    assert_int_equal(routes_of(agent_routes(nodes[0].agent), 0, slots), 0);
    start(&nodes[1]);
    wait_until(all_is_shared_out);
    wait_until(all_are_routed);
    assert_ok(agent_copy(nodes[1].agent, pool, &copy));
    const struct member *a = members_find(copy->members, slice_str("a"));
    assert_non_null(a);
    assert_int_equal(members_up_count(copy->members), 2);
    assert_string_equal(members_at(copy->members, copy->self.slot)->name, "b");
    assert_true(routes_node(agent_routes(nodes[1].agent), a->id.slot, &node));
    assert_string_equal(node.address, a->address);
    assert_true(node.id.incarnation == a->id.incarnation);
    assert_false(routes_node(agent_routes(nodes[1].agent), 7, &node));
    assert_int_equal(routes_of(agent_routes(nodes[1].agent), 0, slots), 2);
    assert_int_equal(slots[0], copy->self.slot); /* its own first */
    assert_int_equal(routes_of(agent_routes(nodes[1].agent), PARTITIONS, slots), 0);

    struct control_record drain = { .kind = CONTROL_REMOVE, .of = a->id, .removal = REMOVAL_DRAIN };
    memcpy(drain.cluster_id, members_cluster_id(copy->members), sizeof drain.cluster_id);
    members_close(copy->members);
    assert_ok(agent_append(nodes[1].agent, &drain, pool));
    for (bool is_draining = false; !is_draining;) { /* as long as it takes */
        assert_ok(agent_copy(nodes[0].agent, pool, &copy));
        is_draining = members_find(copy->members, slice_str("a"))->is_draining;
        members_close(copy->members);
        io_sleep_ns(io, 10 * NS_PER_MS);
    }
    agent_leave(nodes[1].agent);
    wait_until(second_has_stopped);
    for (err e = OK; e == OK;) { /* its last step may answer yet */
        e = agent_copy(nodes[1].agent, pool, &copy);
        if (e == OK)
            members_close(copy->members);
        else
            assert_err(ERR_CLOSED, e);
    }
    stop(&nodes[1]);
    stop(&nodes[0]);
}

static bool first_is_up(void)
{
    struct agent_view view;
    agent_view(nodes[0].agent, &view);
    return view.self.slot != SLOT_NONE;
}

/* One request with this proof; the answer's status, and whether it is proven. */
static unsigned ask(const char *head, const char *code, struct slice body, struct buf *answer)
{
    struct net_client *client;
    struct net_client_response response = { 0 };
    char url[128], lines[2][300];
    const char *const headers[] = { lines[0], lines[1] };
    snprintf(url, sizeof url, "http://127.0.0.1:%u%s", net_server_port(nodes[0].server), PROBE_PATH);
    snprintf(lines[0], sizeof lines[0], "%s: %s", RPC_HEAD_NAME, head);
    snprintf(lines[1], sizeof lines[1], "%s: %s", RPC_CODE_NAME, code);
    struct net_client_request request = { .url = url,
                                          .headers = headers,
                                          .header_count = 2,
                                          .method = "POST",
                                          .body = body,
                                          .timeout_ms = 10000,
                                          .encoded_bytes_max = 4096 };
    assert_ok(net_client_open(io, pool, &client));
    buf_clear(answer);
    assert_ok(net_client_do(client, &request, answer, &response, NULL));
    net_client_close(client);
    return response.status;
}

static bool says(const struct buf *answer, const char *text)
{
    return answer->len == strlen(text) && memcmp(answer->at, text, answer->len) == 0;
}

static void whoever_asks_has_to_prove_itself(void **state)
{
    struct buf answer = buf_open(pool, 4096), body = buf_open(pool, PROBE_BYTES_MAX);
    struct agent_view view;
    struct rpc_proof proof;
    start(&nodes[0]);
    wait_until(first_is_up);
    agent_view(nodes[0].agent, &view);
    struct rpc_head head = { .slot = RPC_SLOT_NONE, .t_ms = io_now_ms(io) };
    probe_encode(view.self, &body);
    struct rpc_request request = { "POST", slice_str(PROBE_PATH), buf_slice(&body) };

    assert_int_equal(ask("", "", buf_slice(&body), &answer), 401);
    rpc_request_sign(slice_str("what others know"), &request, &head, &proof);
    assert_int_equal(ask(proof.head, proof.code, buf_slice(&body), &answer), 401);
    rpc_request_sign(secret(), &request, &head, &proof);
    assert_int_equal(ask(proof.head, proof.code, buf_slice(&body), &answer), 200);
    assert_true(says(&answer, "\1\1"));
    assert_int_equal(ask(proof.head, proof.code, slice_str("another body"), &answer), 401);
    head.cluster_id[3] = 99;
    rpc_request_sign(secret(), &request, &head, &proof);
    assert_int_equal(ask(proof.head, proof.code, buf_slice(&body), &answer), 409);
    memset(head.cluster_id, 0, sizeof head.cluster_id);
    head.t_ms -= 60000;
    rpc_request_sign(secret(), &request, &head, &proof);
    assert_int_equal(ask(proof.head, proof.code, buf_slice(&body), &answer), 401);
    assert_true(says(&answer, "the clocks of the two nodes differ by more than 30 s"));
    head.t_ms = io_now_ms(io);
    request.body = slice_str("no probe");
    rpc_request_sign(secret(), &request, &head, &proof);
    assert_int_equal(ask(proof.head, proof.code, request.body, &answer),
                     505); /* its first byte says version 110 */
    request.body = slice_str("\1");
    rpc_request_sign(secret(), &request, &head, &proof);
    assert_int_equal(ask(proof.head, proof.code, request.body, &answer), 400);
    buf_close(&answer);
    buf_close(&body);
    stop(&nodes[0]);
}

/* ---- the prober alone ---- */

static _Atomic unsigned heard_count;
static struct prober *prober;

static void count_heard(void *context, struct member_id id) { atomic_fetch_add(&heard_count, 1); }

static bool prober_has_failed(void) { return prober_counts(prober).failed > 0; }
static bool prober_was_denied(void) { return prober_counts(prober).denied > 0; }
static bool prober_has_answered(void) { return prober_counts(prober).here == 1; }
static bool prober_has_heard(void) { return atomic_load(&heard_count) > 0; }

/* Only the life that is asked for is heard, and only from who knows the secret. */
static void only_a_proven_answer_is_heard(void **state)
{
    struct prober_config config = { .secret = secret(), .heard = count_heard };
    struct agent_probe probe = { .self = { .slot = SLOT_NONE } };
    struct agent_view view;
    char address[64];
    start(&nodes[0]);
    wait_until(first_is_up);
    agent_view(nodes[0].agent, &view);
    snprintf(address, sizeof address, "127.0.0.1:%u", net_server_port(nodes[0].server));
    probe.address = address;
    probe.of = view.self;
    atomic_store(&heard_count, 0);

    assert_ok(prober_open(&config, io, pool, &prober));
    probe.of.incarnation++;
    prober_ask(prober, &probe);
    wait_until(prober_has_failed);
    assert_int_equal(atomic_load(&heard_count), 0);
    assert_int_equal(prober_counts(prober).denied, 0);
    probe.of = view.self;
    prober_ask(prober, &probe);
    wait_until(prober_has_answered);
    assert_true(atomic_load(&heard_count) == 1 && prober_counts(prober).refusing == 0);
    prober_close(prober);

    atomic_store(&heard_count, 0);
    config.secret = slice_str("what others know");
    assert_ok(prober_open(&config, io, pool, &prober));
    prober_ask(prober, &probe);
    wait_until(prober_was_denied);
    assert_int_equal(atomic_load(&heard_count), 0);
    assert_true(prober_counts(prober).refusing == 1 && prober_counts(prober).here == 0);
    prober_close(prober);
    stop(&nodes[0]);
}

/* ---- clocks that differ ---- */

static struct member_id speaker;

/* As a node answers whose clock is an hour ahead. */
static void refuse_for_clock(void *context, struct net_request *request, struct net_response *response)
{
    struct rpc_head head = { .slot = speaker.slot,
                             .incarnation = speaker.incarnation,
                             .t_ms = io_now_ms(io) + MS_PER_HOUR };
    struct rpc_proof proof;
    response->status = 401;
    buf_put_str(&response->body, "the clocks differ");
    rpc_answer_sign(secret(), net_request_header(request, RPC_CODE_NAME), 401, buf_slice(&response->body),
                    &head, &proof);
    assert_ok(net_response_header(response, RPC_HEAD_NAME, proof.head));
    assert_ok(net_response_header(response, RPC_CODE_NAME, proof.code));
}

static bool was_denied_twice(void) { return prober_counts(prober).denied == 2; }

/* Each would take the other for dead, and itself for the first of the owners: a refusal that is proven is a sign
 * of life, of the life that speaks. */
static void who_refuses_for_the_clock_is_alive(void **state)
{
    static const struct net_route clock_routes[] = { { NET_POST, PROBE_PATH, refuse_for_clock, 64, true,
                                                       true } };
    struct prober_config config = { .secret = secret(), .heard = count_heard };
    struct agent_probe probe = { .self = { .slot = SLOT_NONE }, .of = { 5, 9 } };
    struct net_server_config server = net_server_config_default();
    struct net_server *late;
    char address[64];
    server.listen = "127.0.0.1:0";
    server.routes = clock_routes;
    server.route_count = 1;
    assert_ok(net_server_open(io, pool, &server, &late, NULL));
    snprintf(address, sizeof address, "127.0.0.1:%u", net_server_port(late));
    probe.address = address;
    atomic_store(&heard_count, 0);
    assert_ok(prober_open(&config, io, pool, &prober));
    speaker = probe.of;
    prober_ask(prober, &probe);
    wait_until(prober_was_denied);
    wait_until(prober_has_heard);
    speaker.incarnation++; /* another life: a sign of that alone */
    prober_ask(prober, &probe);
    wait_until(was_denied_twice);
    assert_int_equal(atomic_load(&heard_count), 1);
    assert_int_equal(prober_counts(prober).answered, 1);
    prober_close(prober);
    net_server_close(late, 1000);
}

static void an_empty_secret_is_none(void **state)
{
    struct prober_config config = { .heard = count_heard };
    assert_err(ERR_INPUT, prober_open(&config, io, pool, &prober));
}

/* ---- nodes that do not answer ---- */

static _Atomic unsigned hanging;
static _Atomic bool is_released;

static void hang(void *context, struct net_request *request, struct net_response *response)
{
    atomic_fetch_add(&hanging, 1);
    while (!atomic_load(&is_released) && !net_request_canceled(request))
        io_sleep_ns(io, NS_PER_MS);
}

static bool prober_has_heard_twice(void) { return atomic_load(&heard_count) > 1; }
static bool some_hang(void) { return atomic_load(&hanging) > 0; }
static bool all_have_failed(void)
{
    struct prober_counts counts = prober_counts(prober);
    return counts.failed > 0 && counts.failed + counts.answered == counts.sent;
}

/* Nodes that take a probe and do not answer hold up nobody for long; of each one probe is under way. */
static void who_does_not_answer_is_given_up(void **state)
{
    static const struct net_route hanging_routes[] = { { NET_POST, PROBE_PATH, hang, 64, true, true } };
    struct prober_config config = { .secret = secret(), .heard = count_heard };
    struct agent_probe probe = { .self = { .slot = SLOT_NONE } };
    struct net_server_config server = net_server_config_default();
    struct net_server *deaf;
    struct agent_view view;
    char address[64];
    server.listen = "127.0.0.1:0";
    server.routes = hanging_routes;
    server.route_count = 1;
    assert_ok(net_server_open(io, pool, &server, &deaf, NULL));
    start(&nodes[0]);
    wait_until(first_is_up);
    agent_view(nodes[0].agent, &view);
    atomic_store(&heard_count, 0);
    assert_ok(prober_open(&config, io, pool, &prober));
    snprintf(address, sizeof address, "127.0.0.1:%u", net_server_port(deaf));
    probe.address = address;
    for (uint32_t slot = 100; slot < 112; slot++) {
        probe.of = (struct member_id){ slot, 1 };
        prober_ask(prober, &probe);
        prober_ask(prober, &probe); /* one is under way, for a second */
    }
    wait_until(some_hang);
    assert_int_equal(prober_counts(prober).sent + prober_counts(prober).dropped, 24);
    assert_true(prober_counts(prober).dropped > 0);
    probe.of = view.self;
    snprintf(address, sizeof address, "127.0.0.1:%u", net_server_port(nodes[0].server));
    prober_ask(prober, &probe);
    wait_until(prober_has_heard);
    wait_until(all_have_failed);
    assert_int_equal(atomic_load(&heard_count), 1);
    uint64_t failed = prober_counts(prober).failed;
    for (uint32_t slot = 100; slot < 112; slot++) { /* known for it, they get half of the threads; … */
        snprintf(address, sizeof address, "127.0.0.1:%u", net_server_port(deaf));
        probe.of = (struct member_id){ slot, 1 };
        prober_ask(prober, &probe);
    }
    probe.of = view.self;
    snprintf(address, sizeof address, "127.0.0.1:%u", net_server_port(nodes[0].server));
    prober_ask(prober, &probe);
    wait_until(prober_has_heard_twice);
    assert_true(prober_counts(prober).failed - failed <=
                PROBER_MUTE_MAX); /* the others were not waited for */
    prober_close(prober);         /* … and do not hold up the end */
    atomic_store(&is_released, true);
    net_server_close(deaf, 1000);
    stop(&nodes[0]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(others_ask_the_agent),          TEST(two_nodes_share_leave_and_come_back),
        TEST(what_closes_itself_comes_back), TEST(whoever_asks_has_to_prove_itself),
        TEST(only_a_proven_answer_is_heard), TEST(who_refuses_for_the_clock_is_alive),
        TEST(an_empty_secret_is_none),       TEST(who_does_not_answer_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
