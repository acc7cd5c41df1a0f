/* See cluster_show.h. A copy of the state is asked of the agent; everything else happens here, in the thread
 * of who asks.
 *
 * Invariants: 1. With is_dry nothing is appended. 2. An order that is answered with OK has counted: it was
 * read back. */
#include "node/cluster_show.h"

#include "base/time.h"
#include "model/yaml.h"

#include <stdio.h>
#include <string.h>

#define DECIDE_MS 5000 /* an order is read back by then */
#define LOOK_MS   50
#define NEAR_MS   60000 /* a suspension that ends so much earlier than asked for is taken for that one */

static void put_hex(struct json *json, const char *name, const uint8_t id[CLUSTER_ID_BYTES])
{
    char text[2 * CLUSTER_ID_BYTES + 1];
    for (size_t i = 0; i < CLUSTER_ID_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", id[i]);
    json_str(json_key(json, name), text);
}

/* ---- the cluster as it is ---- */

static const char *status_text(const struct member *m)
{
    static const char *const texts[] = {
        [MEMBER_NONE] = "none", [MEMBER_UP] = "up", [MEMBER_LEFT] = "left", [MEMBER_EVICTED] = "evicted"
    };
    return texts[m->status];
}

static void put_node(const struct agent_copy *copy, const struct member *m, struct json *json)
{
    uint32_t assigned = 0, owned = 0;
    for (uint32_t p = 0; p < members_init(copy->members)->partition_count; p++) {
        assigned += members_is_assigned(copy->members, p, m->id.slot);
        owned += m->status == MEMBER_UP && member_owns(m, p);
    }
    json_open(json, '{');
    json_str(json_key(json, "name"), m->name);
    json_str(json_key(json, "zone"), m->zone);
    json_str(json_key(json, "address"), m->address);
    json_str(json_key(json, "status"), status_text(m));
    json_bool(json_key(json, "silent"), m->status == MEMBER_UP && copy->is_silent[m->id.slot]);
    json_bool(json_key(json, "suspected"), m->suspicion != UINT64_MAX);
    json_bool(json_key(json, "draining"), m->is_draining);
    json_bool(json_key(json, "leaving"), m->is_leaving);
    json_uint(json_key(json, "slot"), m->id.slot);
    json_uint(json_key(json, "incarnation"), m->id.incarnation);
    json_uint(json_key(json, "assigned"), assigned);
    json_uint(json_key(json, "owned"), owned);
    json_close(json, '}');
}

static void show(const struct agent_copy *copy, struct json *json)
{
    const struct members *members = copy->members;
    const struct control_init *init = members_init(members);
    struct redundancy r = members_redundancy(members, SLOT_NONE);
    json_open(json, '{');
    put_hex(json, "clusterId", members_cluster_id(members));
    json_uint(json_key(json, "epoch"), members_epoch(members));
    json_uint(json_key(json, "expectedNodes"), init->expected_nodes);
    json_uint(json_key(json, "partitions"), init->partition_count);
    json_uint(json_key(json, "replicas"), init->replica_count);
    json_str(json_key(json, "self"),
             copy->self.slot != SLOT_NONE ? members_at(members, copy->self.slot)->name : "");
    json_open(json_key(json, "redundancy"), '{');
    json_uint(json_key(json, "ownersMin"), r.owner_count_min);
    json_uint(json_key(json, "unowned"), r.unowned_count);
    json_uint(json_key(json, "lacking"), r.lacking_count);
    json_close(json, '}');
    json_open(json_key(json, "nodes"), '[');
    for (uint32_t i = 0; i < members_slot_count(members); i++)
        if (members_at(members, i)->status != MEMBER_NONE)
            put_node(copy, members_at(members, i), json);
    json_close(json, ']');
    json_close(json, '}');
}

/* ---- what would move ---- */

struct action {
    const char *name;
    enum preview_change change;
    enum control_removal removal; /* 0: no order does it */
    bool needs_node;              /* that is a member */
    const char *instead;          /* what a person does, where no order does it */
    bool is_question;             /* nothing is decided */
};

static const struct action actions[] = {
    { "drain", PREVIEW_DRAIN, REMOVAL_DRAIN, true, NULL, false },
    { "undrain", PREVIEW_UNDRAIN, REMOVAL_UNDRAIN, true, NULL, false },
    { "remove", PREVIEW_REMOVE, REMOVAL_GONE, true, NULL, false },
    { "replace", PREVIEW_REPLACE, 0, true, "start the new node, then remove the old one: it takes its place",
      false },
    { "add", PREVIEW_ADD, 0, false, "start the node: it joins by itself", false },
    { "rebalance", PREVIEW_REBALANCE, 0, false,
      "partitions are placed anew by themselves when members change", false },
    { .name = "may-stop", .needs_node = true, .is_question = true },
};

static const struct action *find_action(struct slice name)
{
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
        if (slice_equal_str(name, actions[i].name))
            return &actions[i];
    return NULL;
}

static void put_moved(const struct agent_copy *copy, const struct preview_node *node, struct json *json)
{
    json_open(json, '{');
    json_str(json_key(json, "name"), node->is_newcomer ? "" : members_at(copy->members, node->slot)->name);
    json_bool(json_key(json, "isNew"), node->is_newcomer);
    json_uint(json_key(json, "slot"), node->slot);
    json_uint(json_key(json, "partitions"), node->partition_count);
    json_uint(json_key(json, "gained"), node->gained_count);
    json_uint(json_key(json, "lost"), node->lost_count);
    json_close(json, '}');
}

static err preview(const struct agent_copy *copy, const struct action *action, uint32_t slot,
                   struct slice zone, struct pool *pool, struct json *json, struct err_at *at)
{
    const struct preview_request request = { .change = action->change, .slot = slot, .zone = zone };
    struct preview p;
    err e = members_preview(copy->members, &request, pool, &p);
    if (e != OK)
        return err_set(at, e == ERR_NOT_FOUND ? ERR_INPUT : e,
                       e == ERR_NOT_FOUND ? "nobody would be left who could hold anything"
                       : e == ERR_INPUT
                           ? "the newcomer's zone is missing or no name, or there is no slot left"
                           : "no memory to plan it");
    json_open(json, '{');
    json_str(json_key(json, "action"), action->name);
    json_bool(json_key(json, "dryRun"), true);
    json_uint(json_key(json, "moved"), p.moved_count);
    json_uint(json_key(json, "replicasMin"), p.replica_count_min);
    json_open(json_key(json, "nodes"), '[');
    for (uint32_t i = 0; i < p.node_count; i++)
        put_moved(copy, &p.nodes[i], json);
    json_close(json, ']');
    json_close(json, '}');
    return OK;
}

/* ---- orders ---- */

/* Give the order, and wait until it is seen to have counted: is_so of the state as it is then. */
struct order {
    struct control_record record;
    bool (*is_so)(const struct members *members, const struct order *order);
};

static err decide(struct agent *agent, struct io *io, struct order *order, const struct members *members,
                  struct pool *pool, struct err_at *at)
{
    int64_t end_ns = io_boottime_ns(io) + DECIDE_MS * NS_PER_MS;
    bool is_so = order->is_so(members, order);
    memcpy(order->record.cluster_id, members_cluster_id(members), sizeof order->record.cluster_id);
    if (!is_so) {
        err e = agent_append(agent, &order->record, pool);
        if (e != OK)
            return err_set(at, e, "the order could not be given: %s", err_text(e));
    }
    while (!is_so) {
        struct agent_copy *now;
        if (io_boottime_ns(io) >= end_ns)
            return err_set(at, ERR_TIMEOUT, "the order was given, and has not counted within %d s",
                           DECIDE_MS / 1000);
        io_sleep_ns(io, LOOK_MS * NS_PER_MS);
        struct pool *one = pool_open(pool, "look", POOL_BYTES_UNLIMITED);
        err e = agent_copy(agent, one, &now);
        if (e == OK) {
            is_so = order->is_so(now->members, order);
            members_close(now->members);
        }
        pool_close(one);
        if (e != OK)
            return err_set(at, e, "the order was given; what became of it is not known: %s", err_text(e));
    }
    return OK;
}

static bool is_done(const struct members *members, const struct order *order)
{
    struct member_id of = order->record.of;
    const struct member *m = of.slot < members_slot_count(members) ? members_at(members, of.slot) : NULL;
    bool is_there = m != NULL && m->status != MEMBER_NONE && m->id.incarnation == of.incarnation;
    if (order->record.removal == REMOVAL_GONE)
        return !is_there;
    return is_there && m->is_draining == (order->record.removal == REMOVAL_DRAIN);
}

static void put_done(const char *action, const char *what, const char *name, struct json *json)
{
    json_open(json, '{');
    json_str(json_key(json, "action"), action);
    json_bool(json_key(json, "dryRun"), false);
    json_str(json_key(json, what), name);
    json_close(json, '}');
}

static err do_it(struct agent *agent, struct io *io, const struct action *action, const struct member *m,
                 const struct members *members, struct pool *pool, struct json *json, struct err_at *at)
{
    struct order order = { .record = { .kind = CONTROL_REMOVE, .of = m->id, .removal = action->removal },
                           .is_so = is_done };
    TRY(decide(agent, io, &order, members, pool, at));
    put_done(action->name, "node", m->name, json);
    return OK;
}

/* ---- automations that stand still ---- */

#define SUSPEND_MS_MAX (INT64_C(365) * MS_PER_DAY)

static bool is_suspended_so(const struct members *members, const struct order *order)
{
    const struct suspension *s = members_suspension(members, order->record.suspend.automation);
    bool is_running = s->until_ms <= members_append_ms(members);
    if (order->record.suspend.duration_ms == 0)
        return is_running;
    return !is_running && slice_equal_str(order->record.suspend.owner, s->owner) &&
           slice_equal_str(order->record.suspend.reason, s->reason) &&
           s->until_ms - members_append_ms(members) > (int64_t)order->record.suspend.duration_ms - NEAR_MS;
}

static err read_suspension(const struct api_cluster_order *asked, struct order *out, struct err_at *at)
{
    bool is_resumed = slice_equal_str(asked->action, "resume");
    int64_t duration_ms = 0;
    *out = (struct order){ .record = { .kind = CONTROL_SUSPEND }, .is_so = is_suspended_so };
    for (int i = AUTOMATION_PLACEMENT; i < AUTOMATION_END; i++)
        if (slice_equal_str(asked->node, control_automation_text((enum control_automation)i)))
            out->record.suspend.automation = (enum control_automation)i;
    if (out->record.suspend.automation == 0)
        return err_set(at, ERR_INPUT, "no automation \"%.*s\": placement, eviction or repair",
                       SLICE_ARG(asked->node));
    if (!is_resumed && (!yaml_duration_parse(asked->duration, &duration_ms) || duration_ms <= 0 ||
                        duration_ms > SUSPEND_MS_MAX))
        return err_set(at, ERR_INPUT, "a suspension needs a duration, as 2h, up to 365d");
    if (!is_resumed && (!control_text_valid(asked->owner) || !control_text_valid(asked->reason)))
        return err_set(at, ERR_INPUT, "a suspension needs an owner and a reason, of at most %d bytes each",
                       CLUSTER_TEXT_BYTES_MAX);
    out->record.suspend.duration_ms = (uint64_t)duration_ms;
    out->record.suspend.owner = is_resumed ? slice_str("-") : asked->owner;
    out->record.suspend.reason = is_resumed ? slice_str("-") : asked->reason;
    return OK;
}

static err suspend_it(struct agent *agent, struct io *io, const struct api_cluster_order *asked,
                      const struct members *members, struct pool *pool, struct json *json, struct err_at *at)
{
    struct order order;
    TRY(read_suspension(asked, &order, at));
    order.record.by.slot = SLOT_NONE;
    TRY(decide(agent, io, &order, members, pool, at));
    put_done(order.record.suspend.duration_ms == 0 ? "resume" : "suspend", "automation",
             control_automation_text(order.record.suspend.automation), json);
    return OK;
}

/* ---- may a node be stopped? ---- */

/* Whoever restarts nodes one after the other asks before each: the answer is yes only while every partition
 * has all the owners it is to have, so that the one which was restarted last has caught up. */
static void may_stop(const struct members *members, const struct member *m, struct json *json)
{
    struct redundancy now = members_redundancy(members, SLOT_NONE),
                      without = members_redundancy(members, m->id.slot);
    bool is_gone = m->status != MEMBER_UP;
    json_open(json, '{');
    json_str(json_key(json, "action"), "may-stop");
    json_str(json_key(json, "node"), m->name);
    json_bool(json_key(json, "mayStop"), is_gone || (now.lacking_count == 0 && without.unowned_count == 0));
    json_uint(json_key(json, "lacking"), now.lacking_count);
    json_uint(json_key(json, "unownedWithout"), without.unowned_count);
    json_close(json, '}');
}

static err order_it(struct agent *agent, struct io *io, const struct api_cluster_order *order,
                    const struct agent_copy *copy, struct pool *pool, struct json *json, struct err_at *at)
{
    if (slice_equal_str(order->action, "suspend") || slice_equal_str(order->action, "resume"))
        return suspend_it(agent, io, order, copy->members, pool, json, at);
    const struct action *action = find_action(order->action);
    if (action == NULL)
        return err_set(
            at, ERR_INPUT,
            "no action \"%.*s\": drain, undrain, remove, replace, add, rebalance, may-stop, suspend or"
            " resume",
            SLICE_ARG(order->action));
    const struct member *m = members_find(copy->members, order->node);
    if (action->needs_node && m == NULL)
        return err_set(at, ERR_INPUT, "there is no node \"%.*s\" in the cluster", SLICE_ARG(order->node));
    if (action->is_question) {
        may_stop(copy->members, m, json);
        return OK;
    }
    if (order->is_dry)
        return preview(copy, action, action->needs_node ? m->id.slot : SLOT_NONE,
                       action->needs_node ? order->zone : order->node, pool, json, at);
    if (action->removal == 0)
        return err_set(at, ERR_INPUT, "%s is only for dry_run=true: %s", action->name, action->instead);
    return do_it(agent, io, action, m, copy->members, pool, json, at);
}

err cluster_show(struct agent *agent, struct io *io, const struct api_cluster_order *order, struct pool *pool,
                 struct json *json, struct err_at *at)
{
    struct agent_copy *copy;
    err e = agent_copy(agent, pool, &copy);
    if (e != OK)
        return err_set(at, e, "this node's part in the cluster does not answer: %s", err_text(e));
    if (members_init(copy->members) == NULL)
        e = err_set(at, ERR_BUSY, "the cluster has not begun");
    else if (order->action.len == 0)
        show(copy, json);
    else
        e = order_it(agent, io, order, copy, pool, json, at);
    members_close(copy->members);
    return e;
}
