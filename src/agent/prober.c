/* See prober.h. Two rings of slots are the queues, a place for each slot holds the probe that is queued or under
 * way.
 *
 * Invariants: 1. A slot is in one ring at most once, and in none while its probe is under way. 2. A life is heard
 * when its answer proves that it was asked this, and says that it is this life: as it was asked, or in refusing
 * for the time of day that it was told. Nothing else is told to the agent. 3. The lock is not held during an
 * exchange. 4. Of those that did not answer last time PROBER_MUTE_MAX are under way at most. */
#include "agent/prober.h"

#include "agent/agent.h"
#include "base/check.h"
#include "base/diag.h"
#include "base/stat.h"
#include "io/io.h"
#include "io/thread.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define URL_BYTES_MAX (CLUSTER_ADDRESS_BYTES_MAX + 64)

enum place_state { PLACE_FREE, PLACE_QUEUED, PLACE_UNDER_WAY };

/* What came of the last probe. */
enum verdict {
    VERDICT_NONE,    /* none was sent */
    VERDICT_HERE,    /* that life is */
    VERDICT_REFUSED, /* as who does not know the asker's secret is */
    VERDICT_SILENT,
};

struct place {
    enum place_state state;
    enum verdict last;        /* changes only while its probe is under way */
    struct agent_probe probe; /* its address points to: */
    char address[CLUSTER_ADDRESS_BYTES_MAX + 1];
};

struct ring {
    uint16_t slots[CLUSTER_NODES_MAX];
    size_t first, count;
};

struct worker {
    struct prober *prober;
    struct pool *pool; /* the thread's */
    struct net_client *client;
    struct io_thread *thread;
};

struct prober {
    struct io *io;
    struct pool *pool;
    struct prober_config config;
    struct io_mutex lock; /* all below; a leaf but for the start of a thread */
    struct io_cond asked;
    struct place *places;        /* CLUSTER_NODES_MAX */
    struct ring answering, mute; /* by how it was last time */
    unsigned mute_count;         /* under way */
    struct worker workers[PROBER_THREADS_MAX];
    unsigned worker_count, idle_count;
    _Atomic bool is_closing;
    struct prober_counts counts;
};

/* ---- one exchange ---- */

static void on_header(void *context, struct slice name, struct slice value)
{
    rpc_proof_header(context, name, value);
}

static void sign(const struct worker *worker, const struct agent_probe *probe, struct slice body,
                 struct rpc_proof *out_proof)
{
    const struct prober *prober = worker->prober;
    const struct rpc_request asked = { "POST", slice_str(PROBE_PATH), body };
    struct rpc_head head = { .slot = probe->self.slot,
                             .incarnation = probe->self.incarnation,
                             .epoch = probe->epoch,
                             .t_ms = io_now_ms(prober->io) };
    memcpy(head.cluster_id, probe->cluster_id, sizeof head.cluster_id);
    io_random(prober->io, head.nonce, sizeof head.nonce);
    rpc_request_sign(prober->config.secret, &asked, &head, out_proof);
}

/* ERR_DENIED: it answers, and not as a node of this cluster does; text in at. It is here all the same, if it
 * proves that it was asked just now and refuses for the clocks alone: nodes whose clocks differ see each other, or
 * each would take itself for the first of the owners, and put the other out. */
static err judge_answer(const struct worker *worker, const struct agent_probe *probe, struct slice asked_code,
                        const struct rpc_proof *proof, unsigned status, struct slice body, enum verdict *out,
                        struct err_at *at)
{
    struct rpc_head head;
    err e = rpc_answer_check(worker->prober->config.secret, asked_code, status, body, slice_str(proof->head),
                             slice_str(proof->code), &head);
    bool is_here = false;
    *out = status == 401 ? VERDICT_REFUSED : VERDICT_SILENT;
    if (e != OK)
        return err_set(at, ERR_DENIED, "status %u, without a proof that it knows the cluster's secret",
                       status);
    bool is_life = head.slot == probe->of.slot && head.incarnation == probe->of.incarnation;
    if (status != 200) {
        *out = is_life && status == 401 ? VERDICT_HERE : *out;
        return err_set(at, ERR_DENIED, "%.*s", SLICE_SHORT_ARG(body));
    }
    TRY(probe_answer_decode(body, &is_here));
    *out = is_here && is_life ? VERDICT_HERE : *out;
    return OK;
}

static err exchange(struct worker *worker, const struct agent_probe *probe, enum verdict *out,
                    struct err_at *at)
{
    const struct prober_config *config = &worker->prober->config;
    char url[URL_BYTES_MAX], head[sizeof RPC_HEAD_NAME + RPC_HEAD_TEXT_BYTES + 2],
        code[sizeof RPC_CODE_NAME + SHA256_HEX_BYTES + 2];
    const char *const headers[] = { head, code, "Content-Type: application/octet-stream" };
    struct buf body = buf_open(worker->pool, PROBE_BYTES_MAX), answer = buf_open(worker->pool, 4096);
    struct rpc_proof proof;
    struct rpc_proof back = { { 0 }, { 0 } };
    struct net_client_response response;
    probe_encode(probe->of, &body);
    err e = buf_err(&body);
    if (e != OK)
        goto out;
    sign(worker, probe, buf_slice(&body), &proof);
    snprintf(url, sizeof url, "%s://%s%s", config->is_tls ? "https" : "http", probe->address, PROBE_PATH);
    snprintf(head, sizeof head, "%s: %s", RPC_HEAD_NAME, proof.head);
    snprintf(code, sizeof code, "%s: %s", RPC_CODE_NAME, proof.code);
    const struct net_client_request request = { .url = url,
                                                .headers = headers,
                                                .header_count = sizeof headers / sizeof *headers,
                                                .method = "POST",
                                                .body = buf_slice(&body),
                                                .tls = config->tls,
                                                .timeout_ms = PROBER_TIMEOUT_MS,
                                                .encoded_bytes_max = 4096,
                                                .abort = &worker->prober->is_closing,
                                                .path_as_is = true,
                                                .on_header = on_header,
                                                .header_context = &back };
    TRY_OUT(net_client_do(worker->client, &request, &answer, &response, at));
    e = judge_answer(worker, probe, slice_str(proof.code), &back, response.status, buf_slice(&answer), out,
                     at);
out:
    buf_close(&answer);
    buf_close(&body);
    return e;
}

/* ---- threads ---- */

/* It was asked, and is not here. */
static bool is_mute(const struct place *place)
{
    return place->last == VERDICT_REFUSED || place->last == VERDICT_SILENT;
}

static void note(struct prober *prober, const struct agent_probe *probe, err e, bool is_here,
                 const struct err_at *at)
{
    prober->counts.answered += is_here;
    prober->counts.failed += !is_here;
    prober->counts.denied += e == ERR_DENIED;
    if (!is_here)
        stat_add(STAT_AGENT_PROBES_FAILED, 1);
    if (e == ERR_DENIED) /* silence is the core's business; this is for people to mend */
        diag(DIAG_WARN, "A node answers probes, and not as one of this cluster.", "address=%s error=\"%s\"",
             probe->address, at->text);
}

static void work(struct worker *worker, struct place *place)
{
    struct prober *prober = worker->prober;
    struct err_at at = { 0 };
    enum verdict verdict = VERDICT_SILENT;
    io_mutex_unlock(&prober->lock);
    err e = exchange(worker, &place->probe, &verdict, &at);
    bool is_here = verdict == VERDICT_HERE;
    if (is_here)
        prober->config.heard(prober->config.context, place->probe.of);
    io_mutex_lock(&prober->lock);
    note(prober, &place->probe, e, is_here, &at);
    prober->mute_count -= is_mute(place);
    prober->counts.here -= place->last == VERDICT_HERE;
    prober->counts.refusing -= place->last == VERDICT_REFUSED;
    place->last = verdict;
    prober->counts.here += is_here;
    prober->counts.refusing += verdict == VERDICT_REFUSED;
    place->state = PLACE_FREE;
}

static void put(struct ring *ring, uint32_t slot)
{
    ring->slots[(ring->first + ring->count++) % CLUSTER_NODES_MAX] = (uint16_t)slot;
}

/* The next probe that may be sent now; NULL: none. */
static struct place *take(struct prober *prober)
{
    bool is_mute = prober->answering.count == 0;
    struct ring *ring = is_mute ? &prober->mute : &prober->answering;
    if (ring->count == 0 || (is_mute && prober->mute_count >= PROBER_MUTE_MAX))
        return NULL;
    struct place *place = &prober->places[ring->slots[ring->first]];
    ring->first = (ring->first + 1) % CLUSTER_NODES_MAX;
    ring->count--;
    prober->mute_count += is_mute;
    place->state = PLACE_UNDER_WAY;
    return place;
}

static void run(void *context)
{
    struct worker *worker = context;
    struct prober *prober = worker->prober;
    io_mutex_lock(&prober->lock);
    while (!atomic_load(&prober->is_closing)) {
        struct place *place = take(prober);
        if (place == NULL) {
            prober->idle_count++;
            io_cond_wait(&prober->asked, &prober->lock);
            prober->idle_count--;
            continue;
        }
        work(worker, place);
    }
    io_mutex_unlock(&prober->lock);
}

/* Nobody is idle: one more, while there may be. What cannot be started now is tried again with the next probe. */
static void add_worker(struct prober *prober)
{
    struct worker *worker = &prober->workers[prober->worker_count];
    struct pool *pool = pool_open(prober->pool, "probes", POOL_BYTES_UNLIMITED);
    *worker = (struct worker){ .prober = prober, .pool = pool };
    err e = net_client_open(prober->io, pool, &worker->client);
    if (e == OK)
        e = io_thread_start(prober->io, "probe", run, worker, &worker->thread);
    if (e == OK) {
        prober->worker_count++;
        return;
    }
    if (worker->client != NULL)
        net_client_close(worker->client);
    pool_close(pool);
}

static void keep(struct slice value, char *to, size_t bytes)
{
    size_t len = value.len < bytes ? value.len : 0; /* longer: it is none */
    if (len > 0)
        memcpy(to, value.at, len);
    to[len] = 0;
}

void prober_ask(struct prober *prober, const struct agent_probe *probe)
{
    check(probe->of.slot < CLUSTER_NODES_MAX);
    struct place *place = &prober->places[probe->of.slot];
    io_mutex_lock(&prober->lock);
    stat_add(STAT_AGENT_PROBES, 1);
    if (place->state != PLACE_FREE) {
        prober->counts.dropped++;
    } else {
        prober->counts.sent++;
        place->state = PLACE_QUEUED;
        place->probe = *probe;
        keep(slice_str(probe->address), place->address, sizeof place->address);
        place->probe.address = place->address;
        put(is_mute(place) ? &prober->mute : &prober->answering, probe->of.slot);
        if (prober->idle_count < prober->answering.count + prober->mute.count &&
            prober->worker_count < PROBER_THREADS_MAX)
            add_worker(prober);
        io_cond_signal(&prober->asked);
    }
    io_mutex_unlock(&prober->lock);
}

struct prober_counts prober_counts(struct prober *prober)
{
    io_mutex_lock(&prober->lock);
    struct prober_counts counts = prober->counts;
    io_mutex_unlock(&prober->lock);
    return counts;
}

/* ---- open and close ---- */

err prober_open(const struct prober_config *config, struct io *io, struct pool *parent,
                struct prober **out_prober)
{
    struct pool *pool;
    void *at;
    if (config->secret.len == 0)
        return ERR_INPUT;
    TRY(pool_open_object(parent, "prober", sizeof(struct prober), &pool, &at));
    struct prober *prober = at;
    prober->io = io;
    prober->pool = pool;
    prober->config = *config;
    err e = pool_copy(pool, config->secret, &prober->config.secret);
    if (e == OK)
        e = pool_zalloc(pool, CLUSTER_NODES_MAX * sizeof *prober->places, &at);
    if (e != OK) {
        pool_close(pool);
        return e;
    }
    prober->places = at;
    io_mutex_init(&prober->lock);
    io_cond_init(&prober->asked);
    *out_prober = prober;
    return OK;
}

void prober_close(struct prober *prober)
{
    if (prober == NULL)
        return;
    io_mutex_lock(&prober->lock);
    atomic_store(&prober->is_closing, true);
    io_cond_broadcast(&prober->asked);
    io_mutex_unlock(&prober->lock);
    for (unsigned i = 0; i < prober->worker_count; i++) {
        io_thread_join(prober->workers[i].thread);
        net_client_close(prober->workers[i].client);
        pool_close(prober->workers[i].pool);
    }
    io_cond_done(&prober->asked);
    io_mutex_done(&prober->lock);
    pool_close(prober->pool);
}
