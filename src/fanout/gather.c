/* Asking nodes for partitions. From: remote.c, with the routes. To: the transport; answers back to remote.c.
 *
 * What is asked is a tree. A part is a set of partitions asked of one node in one call. A part that fails,
 * that is slow, or whose node says that it does not hold some of them, gets children: the same partitions,
 * each asked of the next node of its route that stands nowhere above. An answer cannot be cut by partition,
 * so it counts whole or not.
 *
 *     live ─(proof)→ done           its partitions are answered for, but those it says are not there: children
 *       ├──(error, garbage)→ failed   children answer for all
 *       └──(slow)→ live, hedged       children are asked too; whoever is through first wins, the other is
 *       given up
 *
 * Invariants
 *  1. Of a partition, the answers that count hold it once: that of the one part on its path that is done.
 *  2. A part below a done part's answered partitions, or above children that won, has no open call.
 *  3. The depth is bounded by the replicas of a route: no node is asked twice for a partition.
 *  4. When the time for answers is over, or nobody is left, what is not answered for is named. */
#include "fanout/gather.h"

#include "base/check.h"
#include "base/time.h"

#include <stdlib.h>

#define PART_COUNT_MAX 4096 /* calls of one question, whatever the routes say */
#define WAIT_NS        (10 * NS_PER_MS)
#define UNGUARDED_NS   (10 * NS_PER_SECOND) /* a question without a guard */
#define NODE_NONE      UINT32_MAX

enum part_state { PART_LIVE, PART_DONE, PART_FAILED };

struct part {
    struct part *parent, *children, *sibling;
    uint32_t node; /* NODE_NONE: the root, which asks nobody */
    struct gather_bits partitions;
    struct gather_bits elsewhere; /* DONE: of partitions, those that are not there */
    struct gather_bits lost;      /* of those that children were to have: nobody is left to ask */
    enum part_state state;
    bool has_children; /* they were sought */
    void *call;        /* LIVE */
    int64_t begin_ns, last_ns, took_ns;
    struct receive receive; /* while LIVE and DONE: its pool is open */
};

struct gathering {
    struct gather gather;
    const struct fanout_config *config;
    struct wire_request request;
    struct time_range range;
    struct guard *guard;
    struct pool *pool;
    struct part *parts[PART_COUNT_MAX]; /* all that ever were */
    size_t part_count;
    struct part *root;
    size_t partition_count; /* asked for */
    int64_t until_ns;       /* no answer is waited for beyond */
    err failure;            /* the question as a whole cannot be answered */
};

/* ---- calls ---- */

static void part_stop(struct gathering *g, struct part *part)
{
    if (part->call != NULL)
        g->config->transport.close(g->config->transport.context, part->call);
    part->call = NULL;
}

/* Give up its call and whatever it got. */
static void part_fail(struct gathering *g, struct part *part)
{
    part_stop(g, part);
    part->state = PART_FAILED;
    receive_close(&part->receive);
    pool_close(part->receive.answer.pool);
    part->receive.answer.pool = NULL;
}

static err part_new(struct gathering *g, struct part *parent, uint32_t node, struct part **out_part)
{
    void *at;
    if (g->part_count == PART_COUNT_MAX)
        return ERR_LIMIT;
    TRY(pool_zalloc(g->pool, sizeof(struct part), &at));
    struct part *part = at;
    part->parent = parent;
    part->node = node;
    part->state = PART_FAILED;
    if (parent != NULL) {
        part->sibling = parent->children;
        parent->children = part;
    }
    g->parts[g->part_count++] = part;
    *out_part = part;
    return OK;
}

static err request_bytes(struct gathering *g, const struct part *part, struct buf *out)
{
    struct wire_request request = g->request;
    int64_t now_ns = g->config->transport.now_ns(g->config->transport.context);
    request.partition_count = g->config->partition_count;
    request.partitions = part->partitions.word;
    request.left_ms = 0;
    if (g->until_ns != INT64_MAX)
        request.left_ms = now_ns >= g->until_ns ? 1 : (uint64_t)((g->until_ns - now_ns) / NS_PER_MS) + 1;
    return wire_request_encode(&request, out);
}

/* Ask its node; it is FAILED when that does not work. */
static err part_start(struct gathering *g, struct part *part)
{
    const struct fanout_transport *t = &g->config->transport;
    struct buf bytes = buf_open(g->pool, WIRE_REQUEST_BYTES_MAX);
    struct receive_limits limits = { g->range, g->request.series_max, g->request.samples_max };
    void *call;
    TRY(request_bytes(g, part, &bytes));
    err e = t->start(t->context, part->node, buf_slice(&bytes), &call);
    buf_close(&bytes);
    if (e != OK)
        return OK;
    part->call = call;
    part->state = PART_LIVE;
    part->begin_ns = part->last_ns = t->now_ns(t->context);
    struct pool *pool = pool_open(g->pool, "answer of a node", POOL_BYTES_UNLIMITED);
    e = receive_open(&part->receive, g->request.kind, &limits, pool);
    if (e != OK)
        part_fail(g, part);
    return e;
}

/* ---- the tree ---- */

static bool was_asked(const struct part *part, uint32_t node)
{
    for (; part != NULL; part = part->parent)
        if (part->node == node)
            return true;
    return false;
}

/* The node to ask next for a partition of part. */
static uint32_t next_node(const struct gathering *g, const struct part *part, uint32_t partition)
{
    uint32_t nodes[FANOUT_REPLICA_COUNT_MAX];
    uint32_t count = g->config->route(g->config->route_context, partition, nodes);
    for (uint32_t i = 0; i < count && i < FANOUT_REPLICA_COUNT_MAX; i++)
        if (!was_asked(part, nodes[i]))
            return nodes[i];
    return NODE_NONE;
}

static err child_for(struct gathering *g, struct part *part, uint32_t node, struct part **out_child)
{
    for (struct part *child = part->children; child != NULL; child = child->sibling)
        if (child->node == node) {
            *out_child = child;
            return OK;
        }
    return part_new(g, part, node, out_child);
}

/* Ask others for `wanted`, and others again for what cannot be asked there. */
static err part_expand(struct gathering *g, struct part *part, const struct gather_bits *wanted)
{
    part->has_children = true;
    for (uint32_t p = 0; p < g->config->partition_count; p++) {
        if (!gather_has(wanted, p))
            continue;
        uint32_t node = next_node(g, part, p);
        struct part *child;
        if (node == NODE_NONE) {
            gather_put(&part->lost, p);
            continue;
        }
        TRY(child_for(g, part, node, &child));
        gather_put(&child->partitions, p);
    }
    for (struct part *child = part->children; child != NULL; child = child->sibling) {
        TRY(part_start(g, child));
        if (child->state == PART_FAILED)
            TRY(part_expand(g, child, &child->partitions));
    }
    return OK;
}

/* Nobody needs what is asked below. */
static void children_drop(struct gathering *g, struct part *part)
{
    for (struct part *child = part->children; child != NULL; child = child->sibling) {
        children_drop(g, child);
        if (child->receive.answer.pool != NULL)
            part_fail(g, child);
    }
    part->children = NULL;
    part->has_children = false;
    part->lost = (struct gather_bits){ 0 };
}

static bool children_answer(const struct part *part);

/* Is everything answered for, and by whom does not matter? */
static bool part_answers(const struct part *part)
{
    if (part->state == PART_DONE && gather_is_empty(&part->elsewhere))
        return true;
    return part->has_children && children_answer(part);
}

static bool children_answer(const struct part *part)
{
    if (!gather_is_empty(&part->lost))
        return false;
    for (const struct part *child = part->children; child != NULL; child = child->sibling)
        if (!part_answers(child))
            return false;
    return true;
}

/* Is nothing of it waited for any more? Ends the calls of hedged parts whose children were faster. */
static bool part_settle(struct gathering *g, struct part *part)
{
    bool settled = true;
    for (struct part *child = part->children; child != NULL; child = child->sibling)
        settled &= part_settle(g, child);
    if (part->state != PART_LIVE)
        return settled;
    if (!part->has_children || !children_answer(part))
        return false;
    part_fail(g, part);
    return true;
}

/* ---- answers ---- */

/* Which of the partitions the node says that it does not hold. What it says else of those does not count. */
static void note_elsewhere(struct part *part)
{
    struct proof *proof = &part->receive.answer.proof;
    size_t kept = 0, count = proof->missing_count;
    for (size_t i = 0; i < count; i++)
        if (strcmp(proof->missing[i].reason, PROOF_NOT_HERE) == 0 &&
            gather_has(&part->partitions, proof->missing[i].partition))
            gather_put(&part->elsewhere, proof->missing[i].partition);
    for (size_t i = 0; i < count; i++)
        if (!gather_has(&part->elsewhere, proof->missing[i].partition))
            proof->missing[kept++] = proof->missing[i];
    /* Was that all that kept it from being complete? A full list may have left out more. */
    if (kept == 0 && count > 0 && count < PROOF_MISSING_COUNT_MAX)
        proof->complete = true;
    proof->missing_count = kept;
}

static err part_done(struct gathering *g, struct part *part)
{
    part_stop(g, part);
    receive_close(&part->receive);
    part->state = PART_DONE;
    part->took_ns = g->config->transport.now_ns(g->config->transport.context) - part->begin_ns;
    children_drop(g, part);
    note_elsewhere(part);
    return gather_is_empty(&part->elsewhere) ? OK : part_expand(g, part, &part->elsewhere);
}

/* The call is of no use: ask others, if that was not done yet. */
static err part_broken(struct gathering *g, struct part *part)
{
    part_fail(g, part);
    return part->has_children ? OK : part_expand(g, part, &part->partitions);
}

/* A bound of the question, or this node's memory: asking others does not help. */
static err over_limit(struct gathering *g, const struct receive *r)
{
    if (g->guard != NULL && r->over == RECEIVE_OVER_SERIES)
        ERR_IGNORE(guard_series(g->guard, UINT64_MAX, g->request.series_max)); /* notes it */
    if (g->guard != NULL && r->over == RECEIVE_OVER_SAMPLES) {
        ERR_IGNORE(guard_samples(g->guard, g->guard->samples_max)); /* notes it */
        ERR_IGNORE(guard_samples(g->guard, 1));
    }
    return ERR_LIMIT;
}

/* Take what has come. */
static err part_receive(struct gathering *g, struct part *part)
{
    const struct fanout_transport *t = &g->config->transport;
    for (;;) {
        struct slice bytes;
        err e = t->next(t->context, part->call, &bytes);
        if (e == ERR_BUSY)
            return OK;
        if (e != OK)
            return part_broken(g, part);
        part->last_ns = t->now_ns(t->context);
        e = receive_bytes(&part->receive, bytes);
        if (e == ERR_LIMIT)
            return over_limit(g, &part->receive);
        if (e != OK)
            return part_broken(g, part);
        if (part->receive.is_whole)
            return part_done(g, part);
        if (g->guard != NULL)
            TRY(guard_check(g->guard));
    }
}

/* ---- hedging ---- */

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

struct progress {
    size_t answered;   /* partitions */
    int64_t median_ns; /* of the answers that are in; 0: none is */
};

static struct progress progress_of(const struct gathering *g)
{
    struct progress progress = { 0 };
    int64_t took_ns[64];
    size_t count = 0;
    for (size_t i = 0; i < g->part_count; i++) {
        const struct part *part = g->parts[i];
        if (part->state != PART_DONE || part->receive.answer.pool == NULL)
            continue;
        for (size_t k = 0; k < GATHER_WORDS; k++)
            progress.answered +=
                (size_t)__builtin_popcountll(part->partitions.word[k] & ~part->elsewhere.word[k]);
        if (count < sizeof took_ns / sizeof took_ns[0])
            took_ns[count++] = part->took_ns;
    }
    if (count > 0) {
        qsort(took_ns, count, sizeof *took_ns, by_number);
        progress.median_ns = took_ns[count / 2];
    }
    return progress;
}

static bool is_slow(const struct gathering *g, const struct part *part, const struct progress *progress,
                    int64_t now_ns)
{
    int64_t age_ns = now_ns - part->begin_ns;
    int64_t hedge_ns = g->config->hedge_ns != 0 ? g->config->hedge_ns : FANOUT_HEDGE_NS;
    int64_t silent_ns = g->config->silent_ns != 0 ? g->config->silent_ns : FANOUT_SILENT_NS;
    if (now_ns - part->last_ns >= silent_ns)
        return true;
    if (age_ns < hedge_ns || progress->answered == 0)
        return false;
    return progress->answered * 10 >= g->partition_count * 9 || age_ns / 3 >= progress->median_ns;
}

/* Ask others for what is slow, if there are others for all of it: a part is answered for whole. */
static err hedge(struct gathering *g)
{
    int64_t now_ns = g->config->transport.now_ns(g->config->transport.context);
    struct progress progress = progress_of(g);
    for (size_t i = 0, count = g->part_count; i < count; i++) {
        struct part *part = g->parts[i];
        if (part->state != PART_LIVE || part->has_children || !is_slow(g, part, &progress, now_ns))
            continue;
        bool others = true;
        for (uint32_t p = 0; p < g->config->partition_count && others; p++)
            others = !gather_has(&part->partitions, p) || next_node(g, part, p) != NODE_NONE;
        if (others)
            TRY(part_expand(g, part, &part->partitions));
    }
    return OK;
}

/* ---- the whole ---- */

/* The time for answers is over: what is still asked is lost, as far as no other call answered for it. */
static void give_up(struct gathering *g)
{
    for (size_t i = 0; i < g->part_count; i++) {
        struct part *part = g->parts[i];
        if (part->state != PART_LIVE)
            continue;
        part_fail(g, part);
        if (!part->has_children)
            part->lost = part->partitions;
    }
}

static err wait_for_more(struct gathering *g)
{
    const struct fanout_transport *t = &g->config->transport;
    void **calls;
    size_t count = 0;
    void *at = NULL;
    TRY(pool_block_resize(g->pool, &at, (g->part_count + 1) * sizeof *calls));
    calls = at;
    for (size_t i = 0; i < g->part_count; i++)
        if (g->parts[i]->state == PART_LIVE)
            calls[count++] = g->parts[i]->call;
    t->wait(t->context, calls, count, WAIT_NS);
    pool_block_free(g->pool, at);
    return g->guard != NULL ? guard_check(g->guard) : OK;
}

static err run(struct gathering *g)
{
    const struct fanout_transport *t = &g->config->transport;
    TRY(part_expand(g, g->root, &g->root->partitions));
    for (;;) {
        for (size_t i = 0; i < g->part_count; i++)
            if (g->parts[i]->state == PART_LIVE)
                TRY(part_receive(g, g->parts[i]));
        if (part_settle(g, g->root))
            return OK;
        TRY(hedge(g));
        if (t->now_ns(t->context) >= g->until_ns) {
            give_up(g);
            return OK;
        }
        TRY(wait_for_more(g));
    }
}

/* ---- the answers that count, and their proof ---- */

static void count_partitions(const struct part *part, size_t *answers, size_t *partitions)
{
    *answers += part->state == PART_DONE;
    *partitions += part->state == PART_DONE ? part->receive.answer.proof.partition_count : 0;
    for (const struct part *child = part->children; child != NULL; child = child->sibling)
        count_partitions(child, answers, partitions);
}

static int by_partition(const void *a, const void *b)
{
    uint32_t x = ((const struct proof_partition *)a)->partition,
             y = ((const struct proof_partition *)b)->partition;
    return x < y ? -1 : x > y;
}

/* What a done part says of the partitions that it answers for. */
static void proof_of_part(const struct part *part, struct proof *out)
{
    const struct proof *proof = &part->receive.answer.proof;
    out->complete = out->complete && proof->complete;
    if (proof->data_through_ms > out->data_through_ms)
        out->data_through_ms = proof->data_through_ms;
    for (size_t i = 0; i < proof->partition_count; i++) {
        uint32_t p = proof->partitions[i].partition;
        if (gather_has(&part->partitions, p) && !gather_has(&part->elsewhere, p))
            out->partitions[out->partition_count++] = proof->partitions[i];
    }
    for (size_t i = 0; i < proof->missing_count; i++)
        if (gather_has(&part->partitions, proof->missing[i].partition))
            proof_miss(out, &proof->missing[i]);
}

static void collect(struct gathering *g, struct part *part)
{
    struct proof *proof = &g->gather.proof;
    if (part->state == PART_DONE) {
        proof_of_part(part, proof);
        part->receive.answer.next = g->gather.answers;
        g->gather.answers = &part->receive.answer;
    }
    for (uint32_t p = 0; p < g->config->partition_count; p++)
        if (gather_has(&part->lost, p))
            proof_miss(proof,
                       &(struct proof_missing){
                           p, g->range, part->state == PART_DONE ? PROOF_NOT_HERE : PROOF_UNANSWERED });
    for (struct part *child = part->children; child != NULL; child = child->sibling)
        collect(g, child);
}

static err finish(struct gathering *g)
{
    size_t answers = 0, partitions = 0;
    struct proof *proof = &g->gather.proof;
    void *at;
    count_partitions(g->root, &answers, &partitions);
    TRY(pool_alloc(g->pool, partitions * sizeof *proof->partitions + 1, &at));
    proof->complete = true;
    proof->partitions = at;
    TRY(proof_reserve(proof, g->pool));
    collect(g, g->root);
    qsort(proof->partitions, proof->partition_count, sizeof *proof->partitions, by_partition);
    return OK;
}

static err root_open(struct gathering *g)
{
    TRY(part_new(g, NULL, NODE_NONE, &g->root));
    for (uint32_t p = 0; p < g->config->partition_count; p++)
        if (source_asks(g->request.partitions, p)) {
            gather_put(&g->root->partitions, p);
            g->partition_count++;
        }
    return OK;
}

/* How long answers are waited for: the rest of the time is for what is done with them. */
static int64_t until(const struct fanout_config *config, const struct guard *guard)
{
    int64_t now_ns = config->transport.now_ns(config->transport.context);
    if (guard == NULL)
        return now_ns + UNGUARDED_NS;
    if (guard->deadline_ns == INT64_MAX)
        return INT64_MAX;
    return guard->deadline_ns <= now_ns ? now_ns : now_ns + (guard->deadline_ns - now_ns) / 4 * 3;
}

err gather_open(const struct fanout_config *config, const struct wire_request *request,
                struct time_range range, struct guard *guard, struct pool *pool, struct gather **out_gather)
{
    struct pool *own;
    void *at;
    TRY(pool_open_object(pool, "gathering", sizeof(struct gathering), &own, &at));
    struct gathering *g = at;
    g->config = config;
    g->request = *request;
    g->range = range;
    g->guard = guard;
    g->pool = own;
    g->until_ns = until(config, guard);
    err e = root_open(g);
    if (e == OK)
        e = run(g);
    if (e == OK)
        e = finish(g);
    if (e != OK) {
        gather_close(&g->gather);
        return e;
    }
    *out_gather = &g->gather;
    return OK;
}

void gather_close(struct gather *gather)
{
    if (gather == NULL)
        return;
    struct gathering *g = (struct gathering *)gather; /* its first member */
    for (size_t i = 0; i < g->part_count; i++)
        if (g->parts[i]->receive.answer.pool != NULL)
            part_fail(g, g->parts[i]);
    pool_close(g->pool);
}
