/* Asking nodes for partitions. From: remote.c, with the routes. To: the transport, or own.c for what this node
 * holds; answers back to remote.c.
 *
 * What is asked is a tree. A part is a set of partitions asked of one node in one call; whether its answer
 * comes in bytes or is made within this node is all one to the tree. A part that fails, that is slow, or whose
 * answer does not hold some of them, gets children: the same partitions, each asked of the next node of its
 * route that stands nowhere above. An answer cannot be cut by partition, so all its rows count or none.
 *
 *     live ─(proof)→ done             its partitions are answered for, but those that the proof says are not
 *       │                               there, or says nothing of: children
 *       ├──(error, garbage)→ failed   children answer for all
 *       └──(slow)→ live, hedged       children are asked too; whoever is through first wins, the other is given
 *                                       up, but for what the winner does not hold
 *
 * Invariants
 *  1. Of a partition one part answers: the one on its path that is done and holds it. Its rows may stand in one
 *     more answer, of a hedge that is needed for other partitions; groups of them do not (6).
 *  2. A part below a done part's answered partitions, or above children that won, has no open call.
 *  3. The depth is bounded by the replicas of a route: no node is asked twice for a partition, but once more when
 *     there was no memory for hedges, or for less of what it makes groups of.
 *  4. When the time for answers is over, or nobody is left, what is not answered for is named. No answer, however
 *     long it goes on, is read beyond that time.
 *  5. Nothing fails for memory that hedges hold: they are given up first.
 *  6. Groups cannot be told apart by partition, nor by series: an answer with groups stands for exactly the
 *     partitions that were asked of it and that it holds. What is needed less of is asked again. */
#include "fanout/gather.h"

#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"

#include <stdlib.h>

#define PART_COUNT_MAX  4096 /* calls of one question, whatever the routes say */
#define PIECE_COUNT_MAX 64   /* taken of one answer before the others have their turn */
#define WAIT_NS         (10 * NS_PER_MS)
#define UNGUARDED_NS    (10 * NS_PER_SECOND) /* a question without a guard */
#define NODE_NONE       UINT32_MAX

enum part_state { PART_LIVE, PART_DONE, PART_FAILED };

struct part {
    struct part *parent, *children, *sibling;
    uint32_t node;                 /* NODE_NONE: the root, which asks nobody */
    struct gather_bits asked;      /* of the node, in its last call */
    struct gather_bits partitions; /* it stands for: those asked of the node, less what others had first */
    struct gather_bits elsewhere;  /* DONE: of partitions, those that the answer does not hold */
    struct gather_bits lost;       /* of those that children were to have: nobody is left to ask */
    enum part_state state;
    bool has_children; /* they were sought */
    bool is_narrowed;  /* others had some of what was asked: those rows are not its to count */
    bool is_dropped;   /* nobody needs it any more */
    void *call;        /* LIVE */
    struct own *own;   /* LIVE: of a call within this node */
    int64_t begin_ns, last_ns, took_ns;
    struct receive
        receive; /* while LIVE and DONE: its pool is open, but that of an own answer when DONE only */
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
    struct part *in_hand;   /* whose bytes are being taken */
    bool has_more;          /* there are bytes to be taken: nothing is waited for */
    bool is_over;           /* a bound of the question: no memory that is given back helps */
    bool has_no_hedges;     /* there was no memory for them */
};

/* ---- sets ---- */

/* Take out of *bits what is not in `in`. Was there any? */
static bool bits_keep(struct gather_bits *bits, const struct gather_bits *in)
{
    uint64_t out = 0;
    for (size_t i = 0; i < GATHER_WORDS; i++) {
        out |= bits->word[i] & ~in->word[i];
        bits->word[i] &= in->word[i];
    }
    return out != 0;
}

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
    struct gather_answer *answer = &part->receive.answer;
    struct own *own = part->own != NULL ? part->own : answer->own;
    part_stop(g, part);
    part->state = PART_FAILED;
    receive_close(&part->receive);
    if (own != NULL)
        own_close(own);
    else
        pool_close(answer->pool);
    answer->pool = NULL;
    answer->own = part->own = NULL;
}

static bool part_holds(const struct part *part)
{
    return part->receive.answer.pool != NULL || part->own != NULL;
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

/* Whoever is asked: what comes of it is taken by part_receive. */
static err call_start(struct gathering *g, struct part *part, struct slice request)
{
    const struct fanout_transport *t = &g->config->transport;
    const struct fanout_own *own = &g->config->own;
    if (own->source != NULL && t->within != NULL && own->is_own(own->context, part->node))
        return own_start(g->config, request, g->guard != NULL ? g->guard->io : NULL, &part->own, &part->call);
    return t->start(t->context, part->node, request, &part->call);
}

/* What a call over the transport needs to receive its answer. */
static err part_open(struct gathering *g, struct part *part)
{
    struct receive_limits limits = { g->range, g->request.series_max, g->request.samples_max,
                                     g->request.unit.step_count, g->request.unit.column_count };
    part->receive = (struct receive){ 0 };
    if (part->own != NULL)
        return OK;
    struct pool *pool = pool_open(g->pool, "answer of a node", POOL_BYTES_UNLIMITED);
    return receive_open(&part->receive, g->request.kind, &limits, pool);
}

/* Ask its node; it is FAILED when that does not work. */
static err part_start(struct gathering *g, struct part *part)
{
    struct buf bytes = buf_open(g->pool, WIRE_REQUEST_BYTES_MAX);
    TRY(request_bytes(g, part, &bytes));
    err e = call_start(g, part, buf_slice(&bytes));
    buf_close(&bytes);
    if (e != OK) {
        part->call = NULL;
        return OK;
    }
    part->state = PART_LIVE;
    part->asked = part->partitions;
    part->elsewhere = (struct gather_bits){ { 0 } };
    part->is_narrowed = false;
    part->begin_ns = part->last_ns = g->config->transport.now_ns(g->config->transport.context);
    e = part_open(g, part);
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

static void children_drop(struct gathering *g, struct part *part);

/* Nobody needs it, nor what is asked below. */
static void part_drop(struct gathering *g, struct part *part)
{
    children_drop(g, part);
    if (part_holds(part))
        part_fail(g, part);
    part->is_dropped = true;
}

static void children_drop(struct gathering *g, struct part *part)
{
    for (struct part *child = part->children; child != NULL; child = child->sibling)
        part_drop(g, child);
    part->children = NULL;
    part->has_children = false;
    part->lost = (struct gather_bits){ { 0 } };
}

/* Ask its node for what is left of its partitions, others when it fails. What it has, and what is below, goes. */
static err part_again(struct gathering *g, struct part *part)
{
    part_drop(g, part);
    part->is_dropped = false;
    TRY(part_start(g, part));
    return part->state == PART_FAILED ? part_expand(g, part, &part->partitions) : OK;
}

/* Of what is asked below only `wanted` is needed still. Who has some of that goes on, or stays with what it
 * answered: to ask for less of it once more might find nobody. Groups would count what is not wanted. */
static err children_narrow(struct gathering *g, struct part *part, const struct gather_bits *wanted)
{
    struct part **link = &part->children;
    (void)bits_keep(&part->lost, wanted);
    while (*link != NULL) {
        struct part *child = *link;
        bool is_less = bits_keep(&child->partitions, wanted);
        if (gather_is_empty(&child->partitions)) {
            part_drop(g, child);
            *link = child->sibling;
            continue;
        }
        link = &child->sibling;
        if (is_less && g->request.kind == WIRE_GROUPS && child->state != PART_FAILED) {
            TRY(part_again(g, child));
            continue;
        }
        child->is_narrowed = child->is_narrowed || is_less;
        (void)bits_keep(&child->elsewhere, wanted);
        TRY(children_narrow(g, child, wanted));
    }
    return OK;
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

/* Which of its partitions the answer does not hold: those that the node says are not there, and those that it
 * says nothing of, for it may know of fewer. Metadata are of no partition. */
static void note_elsewhere(const struct gathering *g, struct part *part)
{
    const struct proof *proof = &part->receive.answer.proof;
    struct gather_bits told = { { 0 } }, not_here = { { 0 } };
    if (g->request.kind == WIRE_METADATA)
        return;
    for (size_t i = 0; i < proof->partition_count; i++)
        gather_put(&told, proof->partitions[i].partition);
    for (size_t i = 0; i < proof->missing_count; i++) {
        bool is_here = strcmp(proof->missing[i].reason, PROOF_NOT_HERE) != 0;
        gather_put(is_here ? &told : &not_here, proof->missing[i].partition);
    }
    for (size_t i = 0; i < GATHER_WORDS; i++)
        part->elsewhere.word[i] = part->partitions.word[i] & (~told.word[i] | not_here.word[i]);
}

static err part_done(struct gathering *g, struct part *part)
{
    part_stop(g, part);
    receive_close(&part->receive);
    part->state = PART_DONE;
    part->took_ns = g->config->transport.now_ns(g->config->transport.context) - part->begin_ns;
    note_elsewhere(g, part);
    if (gather_is_empty(&part->elsewhere))
        children_drop(g, part);
    else if (part->has_children)
        return children_narrow(g, part, &part->elsewhere);
    else
        return part_expand(g, part, &part->elsewhere);
    return OK;
}

/* The call is of no use: ask others, if that was not done yet. */
static err part_broken(struct gathering *g, struct part *part)
{
    part_fail(g, part);
    return part->has_children ? OK : part_expand(g, part, &part->partitions);
}

/* A bound of the question: asking others does not help. */
static err over_limit(struct gathering *g, int over)
{
    g->is_over = true;
    if (g->guard != NULL && over == RECEIVE_OVER_SERIES)
        ERR_IGNORE(guard_series(g->guard, UINT64_MAX, g->request.series_max)); /* notes it */
    if (g->guard != NULL && over == RECEIVE_OVER_SAMPLES) {
        ERR_IGNORE(guard_samples(g->guard, g->guard->samples_max)); /* notes it */
        ERR_IGNORE(guard_samples(g->guard, 1));
    }
    return ERR_LIMIT;
}

/* Samples of the answers that will count, as far as they have come: of a call and its hedges, who has more. */
static uint64_t samples_of(const struct part *part)
{
    bool counts = part_holds(part) && !part->is_narrowed;
    uint64_t own = counts ? part->receive.answer.row_count : 0, below = 0;
    for (const struct part *child = part->children; child != NULL; child = child->sibling)
        below += samples_of(child);
    return part->state == PART_DONE ? own + below : own > below ? own : below;
}

static void count_bytes(struct gathering *g, size_t bytes)
{
    bool has_groups = g->request.kind == WIRE_GROUPS;
    stat_add(has_groups ? STAT_FANOUT_GROUPS_BYTES : STAT_FANOUT_ROWS_BYTES, (int64_t)bytes);
    if (g->guard != NULL)
        atomic_fetch_add_explicit(has_groups ? &g->guard->groups_bytes : &g->guard->rows_bytes, bytes,
                                  memory_order_relaxed);
}

/* Bytes of its answer, or all of an own one, were taken with this outcome. ERR_UNSUPPORTED: it makes no groups of
 * this. ERR_LIMIT without is_over: memory. */
static err part_took(struct gathering *g, struct part *part, err e)
{
    if (part->receive.is_refused)
        return ERR_UNSUPPORTED;
    if (e == ERR_LIMIT)
        return part->receive.over == RECEIVE_OVER_NONE ? e : over_limit(g, part->receive.over);
    if (e != OK)
        return part_broken(g, part);
    if (samples_of(g->root) > g->request.samples_max)
        return over_limit(g, RECEIVE_OVER_SAMPLES);
    return part->receive.is_whole ? part_done(g, part) : OK;
}

static err part_take_bytes(struct gathering *g, struct part *part, struct slice bytes)
{
    count_bytes(g, bytes.len);
    return part_took(g, part, receive_bytes(&part->receive, bytes));
}

/* The work within this node has ended. */
static err part_take_own(struct gathering *g, struct part *part)
{
    err e = own_take(part->own, g->guard, &part->receive);
    if (e == OK)
        part->own = NULL; /* the answer has it */
    return part_took(g, part, e);
}

/* Who selects for long, or makes groups, which go out when all of them are made, says meanwhile that it is at
 * work: that is no silence. */
static void note_work(const struct gathering *g, struct part *part)
{
    const struct fanout_transport *t = &g->config->transport;
    if (t->heard_ns == NULL)
        return;
    int64_t heard_ns = t->heard_ns(t->context, part->call);
    part->last_ns = heard_ns > part->last_ns ? heard_ns : part->last_ns;
}

/* Take what has come, but so that others have their turn, too. */
static err part_receive(struct gathering *g, struct part *part)
{
    const struct fanout_transport *t = &g->config->transport;
    for (unsigned i = 0; i < PIECE_COUNT_MAX && part->state == PART_LIVE; i++) {
        struct slice bytes;
        err e = t->next(t->context, part->call, &bytes);
        if (e == ERR_BUSY) {
            note_work(g, part);
            return OK;
        }
        if (e == ERR_END && part->own != NULL)
            return part_take_own(g, part);
        if (e != OK)
            return part_broken(g, part);
        part->last_ns = t->now_ns(t->context);
        TRY(part_take_bytes(g, part, bytes));
        if (g->guard != NULL)
            TRY(guard_check(g->guard));
    }
    g->has_more = g->has_more || part->state == PART_LIVE;
    return OK;
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
        if (part->state != PART_DONE || !part_holds(part))
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

static bool is_silent(const struct gathering *g, const struct part *part, int64_t now_ns)
{
    int64_t silent_ns = g->config->silent_ns != 0 ? g->config->silent_ns : FANOUT_SILENT_NS;
    return now_ns - part->last_ns >= silent_ns;
}

static bool is_slow(const struct gathering *g, const struct part *part, const struct progress *progress,
                    int64_t now_ns)
{
    int64_t age_ns = now_ns - part->begin_ns;
    int64_t hedge_ns = g->config->hedge_ns != 0 ? g->config->hedge_ns : FANOUT_HEDGE_NS;
    if (is_silent(g, part, now_ns))
        return true;
    if (age_ns < hedge_ns || progress->answered == 0)
        return false;
    return progress->answered * 10 >= g->partition_count * 9 || age_ns / 3 >= progress->median_ns;
}

struct others {
    bool any, all; /* of the part's partitions somebody else can be asked for */
};

static struct others others_of(const struct gathering *g, const struct part *part)
{
    struct others others = { .all = true };
    for (uint32_t p = 0; p < g->config->partition_count; p++) {
        if (!gather_has(&part->partitions, p))
            continue;
        bool is_other = next_node(g, part, p) != NODE_NONE;
        others.any = others.any || is_other;
        others.all = others.all && is_other;
    }
    return others;
}

/* Ask others for what is slow, as far as there are others: what only this node has goes on being waited for, and
 * the rest counts should it never come. Without memory for two, a silent node is given up for them. */
static err hedge(struct gathering *g)
{
    int64_t now_ns = g->config->transport.now_ns(g->config->transport.context);
    struct progress progress = progress_of(g);
    for (size_t i = 0, count = g->part_count; i < count; i++) {
        struct part *part = g->parts[i];
        if (part->state != PART_LIVE || part->has_children || !is_slow(g, part, &progress, now_ns))
            continue;
        struct others others = others_of(g, part);
        if (!g->has_no_hedges && others.any)
            TRY(part_expand(g, part, &part->partitions));
        else if (g->has_no_hedges && others.all && is_silent(g, part, now_ns))
            TRY(part_broken(g, part));
    }
    return OK;
}

/* There was no memory for all that is under way. Hedges can be spared: they go, and do not come again. Whoever
 * failed begins anew, with what they held. ERR_LIMIT: there are none. */
static err without_hedges(struct gathering *g)
{
    struct part *failed = g->in_hand;
    bool any = false;
    for (size_t i = 0; i < g->part_count; i++)
        if (g->parts[i]->state == PART_LIVE && g->parts[i]->has_children) {
            children_drop(g, g->parts[i]);
            any = true;
        }
    g->has_no_hedges = true;
    if (!any)
        return ERR_LIMIT;
    if (failed == NULL || failed->is_dropped)
        return OK;
    return part_again(g, failed);
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

/* One look at all calls. *out_ended: everything is answered for, or nothing is waited for any more. */
static err turn(struct gathering *g, bool *out_ended)
{
    const struct fanout_transport *t = &g->config->transport;
    g->has_more = false;
    for (size_t i = 0; i < g->part_count; i++) {
        g->in_hand = g->parts[i];
        if (g->in_hand->state == PART_LIVE)
            TRY(part_receive(g, g->in_hand));
    }
    g->in_hand = NULL;
    *out_ended = part_settle(g, g->root);
    if (*out_ended)
        return OK;
    TRY(hedge(g));
    *out_ended = t->now_ns(t->context) >= g->until_ns;
    if (*out_ended)
        give_up(g);
    return *out_ended || g->has_more ? OK : wait_for_more(g);
}

static err run(struct gathering *g)
{
    bool has_ended = false;
    TRY(part_expand(g, g->root, &g->root->partitions));
    while (!has_ended) {
        err e = turn(g, &has_ended);
        if (e == ERR_LIMIT && !g->is_over)
            e = without_hedges(g);
        TRY(e);
    }
    return OK;
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

/* What a done part says of the partitions that it answers for. What it lacks of others does not make it less
 * complete; but a full list may have left out more. */
static void proof_of_part(struct part *part, struct proof *out)
{
    const struct proof *proof = &part->receive.answer.proof;
    struct gather_bits left = part->partitions;
    size_t lacking = 0;
    for (size_t i = 0; i < GATHER_WORDS; i++)
        left.word[i] &= ~part->elsewhere.word[i];
    part->receive.answer.answered = left;
    if (proof->data_through_ms > out->data_through_ms)
        out->data_through_ms = proof->data_through_ms;
    for (size_t i = 0; i < proof->missing_count; i++)
        if (gather_has(&left, proof->missing[i].partition)) {
            proof_miss(out, &proof->missing[i]);
            lacking++;
        }
    for (size_t i = 0; i < proof->partition_count; i++) {
        uint32_t p = proof->partitions[i].partition;
        if (gather_has(&left, p)) { /* once, however often it says so */
            out->partitions[out->partition_count] = proof->partitions[i];
            out->partitions[out->partition_count++].node = part->node + 1;
            left.word[p / 64] &= ~(UINT64_C(1) << p % 64);
        }
    }
    bool lacks_of_others =
        lacking == 0 && proof->missing_count > 0 && proof->missing_count < PROOF_MISSING_COUNT_MAX;
    if (!proof->complete && !lacks_of_others)
        out->complete = false;
}

/* seen: what was asked of those that answered. */
static void collect(struct gathering *g, struct part *part, struct gather_bits *seen)
{
    struct proof *proof = &g->gather.proof;
    if (part->state == PART_DONE) {
        proof_of_part(part, proof);
        for (size_t i = 0; i < GATHER_WORDS; i++) {
            g->gather.may_meet = g->gather.may_meet || (part->asked.word[i] & seen->word[i]) != 0;
            seen->word[i] |= part->asked.word[i];
        }
        part->receive.answer.next = g->gather.answers;
        g->gather.answers = &part->receive.answer;
    }
    for (uint32_t p = 0; p < g->config->partition_count; p++)
        if (gather_has(&part->lost, p))
            proof_miss(proof,
                       &(struct proof_missing){
                           p, g->range, part->state == PART_DONE ? PROOF_NOT_HERE : PROOF_UNANSWERED });
    for (struct part *child = part->children; child != NULL; child = child->sibling)
        collect(g, child, seen);
}

static err finish(struct gathering *g)
{
    size_t answers = 0, partitions = 0;
    struct gather_bits seen = { { 0 } };
    struct proof *proof = &g->gather.proof;
    void *at;
    count_partitions(g->root, &answers, &partitions);
    TRY(pool_alloc(g->pool, partitions * sizeof *proof->partitions + 1, &at));
    proof->complete = true;
    proof->partitions = at;
    TRY(proof_reserve(proof, g->pool));
    collect(g, g->root, &seen);
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

err fanout_gather_open(const struct fanout_config *config, const struct wire_request *request,
                       struct time_range range, struct guard *guard, struct pool *pool,
                       struct gather **out_gather)
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
        fanout_gather_close(&g->gather);
        return e;
    }
    *out_gather = &g->gather;
    return OK;
}

void fanout_gather_close(struct gather *gather)
{
    if (gather == NULL)
        return;
    struct gathering *g = (struct gathering *)gather; /* its first member */
    for (size_t i = 0; i < g->part_count; i++)
        if (part_holds(g->parts[i]))
            part_fail(g, g->parts[i]);
    pool_close(g->pool);
}
