/* See cluster_sync.h.
 *
 * From: the agent's routes, which say who owns what and where it is; the HTTP server with requests of other nodes
 * and of people. To: sync/, shards, other nodes, the bucket.
 *
 * Invariants
 *  1. Nothing is told to who has not proven that it knows the secret, and nothing believed from who has not,
 *     in the life that was meant.
 *  2. The thread's client and memory are its own; a person's question brings its own.
 *  3. What is verified in the bucket is read from the bucket, never out of a cache. */
#include "node/cluster_sync.h"

#include "base/diag.h"
#include "base/time.h"
#include "io/thread.h"
#include "net/rpc.h"

#include <stdio.h>
#include <string.h>

#define ASK_MS           5000
#define LOOK_NS          (200 * NS_PER_MS)
#define URL_BYTES_MAX    (CLUSTER_ADDRESS_BYTES_MAX + 64)
#define READ_BYTES       (4u << 20)  /* of an object at once */
#define VERIFY_BYTES_MAX (64u << 20) /* of objects, read for one answer; one object at least */
#define VERIFY_NS_MAX    (8 * NS_PER_SECOND)

struct cluster_sync {
    struct io *io;
    struct pool *pool;
    struct cluster_sync_config config;
    struct sync *sync;
    struct net_client *client; /* the thread's */
    struct io_thread *thread;
    _Atomic bool is_closing;
};

static struct rpc_head own_head(struct cluster_sync *sync)
{
    struct agent_view view;
    agent_view(sync->config.agent, &view);
    struct rpc_head head = { .slot = RPC_SLOT_NONE, .epoch = view.epoch, .t_ms = io_now_ms(sync->io) };
    if (view.is_here) {
        head.slot = view.self.slot;
        head.incarnation = view.self.incarnation;
    }
    memcpy(head.cluster_id, view.cluster_id, sizeof head.cluster_id);
    io_random(sync->io, head.nonce, sizeof head.nonce);
    return head;
}

/* ---- asking ---- */

static void on_header(void *context, struct slice name, struct slice value)
{
    rpc_proof_header(context, name, value);
}

/* One exchange with a life of a node. ERR_DENIED: what answers is not it. */
static err exchange(struct cluster_sync *sync, struct net_client *client, const struct route_node *node,
                    struct slice body, struct buf *answer, struct err_at *at)
{
    const struct cluster_sync_config *config = &sync->config;
    char url[URL_BYTES_MAX], head[sizeof RPC_HEAD_NAME + RPC_HEAD_TEXT_BYTES + 2],
        code[sizeof RPC_CODE_NAME + SHA256_HEX_BYTES + 2];
    const char *const headers[] = { head, code, "Content-Type: application/octet-stream" };
    const struct rpc_request asked = { "POST", slice_str(SYNC_PATH), body };
    struct rpc_head own = own_head(sync), theirs;
    struct rpc_proof proof, back = { { 0 }, { 0 } };
    struct net_client_response response;
    rpc_request_sign(config->secret, &asked, &own, &proof);
    snprintf(url, sizeof url, "%s://%s%s", config->is_tls ? "https" : "http", node->address, SYNC_PATH);
    snprintf(head, sizeof head, "%s: %s", RPC_HEAD_NAME, proof.head);
    snprintf(code, sizeof code, "%s: %s", RPC_CODE_NAME, proof.code);
    const struct net_client_request request = { .url = url,
                                                .headers = headers,
                                                .header_count = sizeof headers / sizeof *headers,
                                                .method = "POST",
                                                .body = body,
                                                .tls = config->tls,
                                                .timeout_ms = ASK_MS,
                                                .encoded_bytes_max = SYNC_ANSWER_BYTES_MAX,
                                                .abort = &sync->is_closing,
                                                .path_as_is = true,
                                                .on_header = on_header,
                                                .header_context = &back };
    TRY(net_client_do(client, &request, answer, &response, at));
    err e = rpc_answer_check(config->secret, slice_str(proof.code), response.status, buf_slice(answer),
                             slice_str(back.head), slice_str(back.code), &theirs);
    if (e != OK)
        return err_set(at, ERR_DENIED, "status %u, without a proof that it knows the cluster's secret",
                       response.status);
    if (response.status != 200)
        return err_set(at, ERR_BUSY, "%.*s", SLICE_SHORT_ARG(buf_slice(answer)));
    if (theirs.slot != node->id.slot || theirs.incarnation != node->id.incarnation)
        return err_set(at, ERR_DENIED, "another node answers there");
    return OK;
}

/* What a node holds; this one is asked directly. */
static err ask_node(struct cluster_sync *sync, struct net_client *client, uint32_t slot,
                    const struct sync_request *request, struct shard_sums *out_sums, struct err_at *at)
{
    struct agent_view view;
    struct route_node node;
    agent_view(sync->config.agent, &view);
    if (slot == view.self.slot) {
        shards_partition_sums(sync->config.shards, request->partition, request->first, request->count,
                              out_sums);
        return OK;
    }
    if (!routes_node(agent_routes(sync->config.agent), slot, &node))
        return err_set(at, ERR_NOT_FOUND, "it is not up");
    struct pool *pool = pool_open(sync->pool, "asking for sums", POOL_BYTES_UNLIMITED);
    struct buf body = buf_open(pool, SYNC_REQUEST_BYTES_MAX), answer = buf_open(pool, SYNC_ANSWER_BYTES_MAX);
    sync_request_encode(request, &body);
    err e = buf_err(&body);
    if (e == OK)
        e = exchange(sync, client, &node, buf_slice(&body), &answer, at);
    if (e == OK)
        e = sync_answer_decode(buf_slice(&answer), out_sums);
    pool_close(pool);
    return e;
}

/* As sync_config.ask. */
static err on_ask(void *context, uint32_t slot, const struct sync_request *request,
                  struct shard_sums *out_sums)
{
    struct cluster_sync *sync = context;
    struct err_at at = { 0 };
    return ask_node(sync, sync->client, slot, request, out_sums, &at);
}

/* As sync_config.owners. */
static uint32_t on_owners(void *context, uint32_t partition, uint32_t out_slots[SYNC_OWNERS_MAX],
                          uint32_t *out_self)
{
    struct cluster_sync *sync = context;
    _Static_assert(CLUSTER_REPLICAS_MAX <= SYNC_OWNERS_MAX, "each of them is told");
    return agent_other_owners(sync->config.agent, partition, out_slots, out_self);
}

/* ---- answering ---- */

static void say(struct net_response *response, unsigned status, const char *why)
{
    response->status = status;
    response->content_type = "text/plain";
    buf_clear(&response->body);
    buf_put_str(&response->body, why);
}

static bool is_of_another(const struct rpc_head *a, const struct rpc_head *b)
{
    static const uint8_t none[RPC_CLUSTER_BYTES];
    return memcmp(a->cluster_id, b->cluster_id, sizeof none) != 0 &&
           memcmp(a->cluster_id, none, sizeof none) != 0 && memcmp(b->cluster_id, none, sizeof none) != 0;
}

/* The proof is right. */
static void answer(struct cluster_sync *sync, struct net_request *request, struct net_response *response)
{
    struct sync_request asked;
    void *at;
    err e = sync_request_decode(request->body, &asked);
    if (e != OK || asked.partition >= sync->config.partition_count) {
        say(response, e == ERR_VERSION ? 505 : 400,
            e == ERR_VERSION ? "a request of a newer version" : "not a request for sums");
        return;
    }
    if (pool_zalloc(request->pool, sizeof(struct shard_sums), &at) != OK) {
        say(response, 503, "no memory for an answer");
        return;
    }
    shards_partition_sums(sync->config.shards, asked.partition, asked.first, asked.count, at);
    response->content_type = "application/octet-stream";
    sync_answer_encode(at, &response->body);
}

void cluster_sync_handle(struct cluster_sync *sync, struct net_request *request,
                         struct net_response *response)
{
    const struct rpc_request asked = { "POST", request->target, request->body };
    struct slice code = net_request_header(request, RPC_CODE_NAME), secret = sync->config.secret;
    struct rpc_head theirs, own = own_head(sync);
    struct rpc_proof proof;
    err e = rpc_request_check(secret, &asked, net_request_header(request, RPC_HEAD_NAME), code, own.t_ms,
                              &theirs);
    if (e == ERR_DENIED || e == ERR_VERSION)
        return say(response, e == ERR_VERSION ? 505 : 401,
                   e == ERR_VERSION ? "a request of a newer version"
                                    : "this is for nodes that know the cluster's secret");
    if (e == ERR_TIMEOUT)
        say(response, 401, "the clocks of the two nodes differ by more than 30 s");
    else if (is_of_another(&theirs, &own))
        say(response, 409, "this is a node of another cluster");
    else
        answer(sync, request, response);
    rpc_answer_sign(secret, code, response->status, buf_slice(&response->body), &own, &proof);
    if (net_response_header(response, RPC_HEAD_NAME, proof.head) != OK ||
        net_response_header(response, RPC_CODE_NAME, proof.code) != OK)
        say(response, 503, "no memory for an answer");
}

/* ---- verifying: who ---- */

struct replica {
    uint32_t slot;
    char address[CLUSTER_ADDRESS_BYTES_MAX + 1];
    struct shard_sums sums;
    err result;
    struct err_at at;
};

/* What a person asks to be verified. */
struct asked {
    uint32_t partition;
    uint32_t first; /* of its segments, the newest first: objects from here on */
    bool is_quick;  /* sizes of objects, not their bytes */
};

struct verifying {
    struct cluster_sync *sync;
    const struct asked *asked;
    struct pool *pool;
    struct net_client *client;
    struct replica *replicas;
    size_t count;
};

static err find_replicas(struct verifying *v)
{
    uint32_t slots[CLUSTER_REPLICAS_MAX];
    struct routes *routes = agent_routes(v->sync->config.agent);
    void *at;
    v->count = routes_of(routes, v->asked->partition, slots);
    TRY(pool_zalloc(v->pool, (v->count + 1) * sizeof *v->replicas, &at));
    v->replicas = at;
    for (size_t i = 0; i < v->count; i++) {
        struct route_node node;
        v->replicas[i].slot = slots[i];
        if (routes_node(routes, slots[i], &node))
            snprintf(v->replicas[i].address, sizeof v->replicas[i].address, "%s", node.address);
    }
    return OK;
}

/* A page of each; the last of them that has an own way to be asked, this node, comes last: it is the newest. */
static void ask_all(struct verifying *v, uint32_t first)
{
    const struct sync_request request = { v->asked->partition, first, SHARD_SEGMENT_PAGE_MAX };
    for (size_t i = v->count; i-- > 0;) {
        struct replica *r = &v->replicas[i];
        r->at = (struct err_at){ 0 };
        r->result = ask_node(v->sync, v->client, r->slot, &request, &r->sums, &r->at);
    }
}

/* ---- verifying: do they agree? ---- */

struct verdict {
    enum sync_verdict verdict;
    const char *why;
    struct sync_result result; /* DIFFER */
    size_t a, b;               /* … of these replicas */
};

static struct verdict judge(const struct verifying *v)
{
    struct verdict verdict = { .verdict = SYNC_EQUAL, .why = "" };
    if (v->count == 0)
        return (struct verdict){ .verdict = SYNC_UNSURE, .why = "nobody owns it" };
    for (size_t i = 0; i < v->count; i++)
        if (v->replicas[i].result != OK)
            verdict = (struct verdict){ .verdict = SYNC_UNSURE, .why = "not every owner answers" };
    for (size_t a = 0; a < v->count; a++)
        for (size_t b = a + 1; b < v->count; b++) {
            if (v->replicas[a].result != OK || v->replicas[b].result != OK)
                continue;
            struct sync_result r = sync_compare(&v->replicas[a].sums, &v->replicas[b].sums);
            if (r.verdict > verdict.verdict)
                verdict = (struct verdict){ r.verdict, r.why, r, a, b };
        }
    if (v->count == 1 && v->replicas[0].result == OK && !v->replicas[0].sums.is_open)
        verdict = (struct verdict){ .verdict = SYNC_UNSURE, .why = "it is not open everywhere" };
    return verdict;
}

/* Which segments differ. What changes meanwhile ends it. */
static void narrow(struct verifying *v, struct verdict *verdict)
{
    const struct replica *a = &v->replicas[verdict->a], *b = &v->replicas[verdict->b];
    for (uint32_t first = 0;; first += SHARD_SEGMENT_PAGE_MAX) {
        ask_all(v, first);
        bool is_as_before = a->result == OK && b->result == OK && a->sums.chain_next == b->sums.chain_next &&
                            a->sums.is_open && b->sums.is_open;
        if (!is_as_before || sync_narrow(&a->sums, &b->sums, &verdict->result))
            return;
    }
}

static void put_sum(struct json *json, const char *name, struct sum sum)
{
    char text[40];
    json_open(json_key(json, name), '{');
    json_uint(json_key(json, "rows"), sum.count);
    snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)sum.high, (unsigned long long)sum.low);
    json_str(json_key(json, "sum"), text);
    json_close(json, '}');
}

static void put_replica(const struct replica *r, struct json *json)
{
    json_open(json, '{');
    json_str(json_key(json, "node"), r->address);
    json_uint(json_key(json, "slot"), r->slot);
    if (r->result != OK)
        json_str(json_key(json, "error"), r->at.text[0] != 0 ? r->at.text : err_text(r->result));
    if (r->result == OK && r->sums.is_open) {
        json_uint(json_key(json, "generation"), r->sums.generation);
        json_uint(json_key(json, "applied"), r->sums.applied);
        json_uint(json_key(json, "chain"), r->sums.chain_next);
        json_uint(json_key(json, "segments"), r->sums.segment_count);
        put_sum(json, "sealed", r->sums.segments);
        put_sum(json, "open", r->sums.marks[0].sum);
    }
    json_close(json, '}');
}

static void put_difference(const struct verifying *v, const struct verdict *verdict, struct json *json)
{
    const struct sync_result *r = &verdict->result;
    json_open(json_key(json, "difference"), '{');
    json_bool(json_key(json, "sealed"), r->is_sealed);
    if (r->has_range) {
        json_uint(json_key(json, "generation"), r->generation);
        json_uint(json_key(json, "from"), r->from);
        json_uint(json_key(json, "to"), r->to);
    }
    json_str(json_key(json, "nodeA"), v->replicas[verdict->a].address);
    json_str(json_key(json, "nodeB"), v->replicas[verdict->b].address);
    put_sum(json, "a", r->a);
    put_sum(json, "b", r->b);
    json_close(json, '}');
}

/* ---- verifying: the bucket ---- */

struct objects {
    uint64_t count, bytes;
    uint32_t next; /* 0: all were looked at */
};

/* All bytes of an object: are they those of the digest? */
static err read_object(struct verifying *v, const char *key, const struct shard_segment *s)
{
    struct blob_handle *handle;
    struct pool *pool = pool_open(v->pool, "object", POOL_BYTES_UNLIMITED);
    uint8_t digest[SHA256_BYTES];
    void *at;
    err e = pool_alloc(pool, READ_BYTES, &at);
    if (e == OK)
        e = blob_open(v->sync->config.bucket, key, &handle);
    if (e != OK) {
        pool_close(pool);
        return e;
    }
    struct sha256 *state = sha256_open();
    for (uint64_t offset = 0; offset < s->bytes && e == OK;) {
        size_t len = s->bytes - offset < READ_BYTES ? (size_t)(s->bytes - offset) : READ_BYTES;
        e = blob_read(handle, offset, at, len);
        if (e == OK)
            sha256_add(state, slice_of(at, len));
        offset += len;
    }
    sha256_finish(state, digest);
    blob_handle_close(handle);
    pool_close(pool);
    return e != OK ? e : memcmp(digest, s->digest, sizeof digest) == 0 ? OK : ERR_CORRUPT;
}

/* NULL: it is right. ERR of what may pass is told as such. */
static const char *look_at(struct verifying *v, const struct shard_segment *s, char key[BLOB_KEY_BYTES_MAX])
{
    char digest[SHA256_HEX_BYTES];
    uint64_t size;
    sha256_print(s->digest, digest);
    snprintf(key, BLOB_KEY_BYTES_MAX, "p%03u/segment/%s", v->asked->partition, digest);
    err e = blob_size(v->sync->config.bucket, key, &size);
    if (e == OK && size != s->bytes)
        return "its size is not the chain's";
    if (e == OK && !v->asked->is_quick)
        e = read_object(v, key, s);
    return e == OK              ? NULL
           : e == ERR_NOT_FOUND ? "it is not in the bucket"
           : e == ERR_CORRUPT   ? "its bytes are not those of its digest"
                                : err_text(e);
}

static void put_wrong(struct json *json, const char *key, const struct shard_segment *s, const char *what)
{
    json_open(json, '{');
    json_str(json_key(json, "object"), key);
    json_str(json_key(json, "what"), what);
    json_uint(json_key(json, "rows"), s->sum.count);
    json_uint(json_key(json, "generation"), s->from_generation);
    json_uint(json_key(json, "from"), s->from_offset);
    json_uint(json_key(json, "to"), s->to_offset);
    json_close(json, '}');
}

/* Those of the first owner that answers, from the page that was asked for. */
static struct objects put_objects(struct verifying *v, struct json *json)
{
    struct objects o = { 0 };
    const struct replica *r = v->replicas;
    int64_t end_ns = io_monotonic_ns(v->sync->io) + VERIFY_NS_MAX;
    uint32_t i = 0;
    while (r < v->replicas + v->count && (r->result != OK || !r->sums.is_open))
        r++;
    json_open(json_key(json, "wrong"), '[');
    for (; r < v->replicas + v->count && i < r->sums.page_count; i++) {
        const struct shard_segment *s = &r->sums.page[i];
        char key[BLOB_KEY_BYTES_MAX];
        bool is_enough = (!v->asked->is_quick && o.bytes + s->bytes > VERIFY_BYTES_MAX) ||
                         io_monotonic_ns(v->sync->io) >= end_ns;
        if (i > 0 && is_enough)
            break;
        const char *what = look_at(v, s, key);
        o.count++;
        o.bytes += v->asked->is_quick ? 0 : s->bytes;
        if (what != NULL)
            put_wrong(json, key, s, what);
    }
    json_close(json, ']');
    bool is_more = r < v->replicas + v->count && r->sums.first + i < r->sums.segment_count;
    o.next = is_more && i > 0 ? r->sums.first + i : 0;
    return o;
}

/* ---- verifying: the answer ---- */

static void put_answer(struct verifying *v, struct json *json)
{
    static const char *const texts[] = {
        [SYNC_EQUAL] = "equal", [SYNC_UNSURE] = "not comparable yet", [SYNC_DIFFER] = "differ"
    };
    struct verdict verdict = judge(v);
    if (verdict.verdict == SYNC_DIFFER && verdict.result.is_sealed) {
        narrow(v, &verdict);
        ask_all(v, v->asked->first);
    }
    json_open(json, '{');
    json_uint(json_key(json, "partition"), v->asked->partition);
    json_str(json_key(json, "verdict"), texts[verdict.verdict]);
    json_str(json_key(json, "why"), verdict.why);
    if (verdict.verdict == SYNC_DIFFER)
        put_difference(v, &verdict, json);
    json_open(json_key(json, "replicas"), '[');
    for (size_t i = 0; i < v->count; i++)
        put_replica(&v->replicas[i], json);
    json_close(json, ']');
    struct objects o = put_objects(v, json);
    json_uint(json_key(json, "objects"), o.count);
    json_uint(json_key(json, "objectBytes"), o.bytes);
    json_uint(json_key(json, "next"), o.next);
    json_close(json, '}');
}

/* The number in a text. False: it is none. */
static bool number_of(struct slice text, uint32_t *out_number)
{
    uint64_t number = 0;
    for (size_t i = 0; i < text.len && number <= UINT32_MAX; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        number = number * 10 + (uint64_t)(text.at[i] - '0');
    }
    *out_number = (uint32_t)number;
    return text.len > 0 && number <= UINT32_MAX;
}

err cluster_sync_verify(struct cluster_sync *sync, const struct api_cluster_order *order, struct pool *pool,
                        struct json *json, struct err_at *at)
{
    struct asked asked = { .is_quick = order->is_quick };
    struct verifying v = { .sync = sync, .asked = &asked, .pool = pool };
    if (!number_of(order->partition, &asked.partition) || asked.partition >= sync->config.partition_count)
        return err_set(at, ERR_INPUT, "verify needs a partition, a number below %u",
                       sync->config.partition_count);
    if (order->first.len > 0 && !number_of(order->first, &asked.first))
        return err_set(at, ERR_INPUT, "first is no number");
    TRY(find_replicas(&v));
    TRY(net_client_open(sync->io, pool, &v.client));
    ask_all(&v, asked.first);
    put_answer(&v, json);
    net_client_close(v.client);
    return OK;
}

/* ---- the thread ---- */

static void run(void *context)
{
    struct cluster_sync *sync = context;
    while (!atomic_load(&sync->is_closing)) {
        int64_t due_ns = sync_step(sync->sync), left_ns = due_ns - io_monotonic_ns(sync->io);
        io_sleep_ns(sync->io, left_ns > LOOK_NS ? LOOK_NS : left_ns > 0 ? left_ns : 0);
    }
}

err cluster_sync_open(const struct cluster_sync_config *config, struct io *io, struct pool *parent,
                      struct cluster_sync **out_sync)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(parent, "comparing", sizeof(struct cluster_sync), &pool, &at));
    struct cluster_sync *sync = at;
    sync->io = io;
    sync->pool = pool;
    sync->config = *config;
    const struct sync_config own = { .shards = config->shards,
                                     .partition_count = config->partition_count,
                                     .owners = on_owners,
                                     .ask = on_ask,
                                     .context = sync };
    err e = sync_open(&own, io, pool, &sync->sync);
    if (e == OK)
        e = net_client_open(io, pool, &sync->client);
    if (e == OK)
        e = io_thread_start(io, "sync", run, sync, &sync->thread);
    if (e != OK) {
        cluster_sync_close(sync);
        return e;
    }
    *out_sync = sync;
    return OK;
}

void cluster_sync_close(struct cluster_sync *sync)
{
    if (sync == NULL)
        return;
    atomic_store(&sync->is_closing, true);
    if (sync->thread != NULL)
        io_thread_join(sync->thread);
    if (sync->client != NULL)
        net_client_close(sync->client);
    sync_close(sync->sync);
    pool_close(sync->pool);
}
