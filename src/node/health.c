/* See health.h. */
#include "node/health.h"

#include "base/time.h"

#include <stdarg.h>
#include <stdio.h>

void health_add(struct health *health, enum health_level level, const char *what, const char *format, ...)
{
    va_list args;
    if (level > health->level)
        health->level = level;
    if (health->count == HEALTH_FINDINGS_MAX) {
        health->beyond++;
        return;
    }
    struct health_finding *finding = &health->findings[health->count++];
    *finding = (struct health_finding){ .level = level, .what = what };
    va_start(args, format);
    vsnprintf(finding->text, sizeof finding->text, format, args);
    va_end(args);
}

/* ---- the node ---- */

void health_of_node(struct health *health, const struct health_node *node)
{
    if (node->not_ready != NULL)
        health_add(health, HEALTH_ALARM, "ready", "%s", node->not_ready);
    if (node->refuses != NULL)
        health_add(health, HEALTH_ALARM, "writes", "writes are refused: %s", node->refuses);
    if (node->losses > 0)
        health_add(health, HEALTH_ALARM, "losses",
                   "%llu losses are named in answers until retention passes them or a person accepts them",
                   (unsigned long long)node->losses);
    if (node->damaged_segments > 0)
        health_add(health, HEALTH_ALARM, "damage", "%llu segments cannot be read",
                   (unsigned long long)node->damaged_segments);
    if (node->retention_waits > 0)
        health_add(health, HEALTH_WARNING, "retention",
                   "in %u partitions a large step of retention waits for kelpie retention --confirm",
                   node->retention_waits);
    if (node->missing_count > 0)
        health_add(
            health, HEALTH_ALARM, "objects",
            "in %u partitions the bucket lacks objects that the manifest names; nothing is deleted there",
            node->missing_count);
}

/* ---- its cluster ---- */

static void look_at_members(struct health *health, const struct agent_copy *copy, struct json *json)
{
    const struct members *members = copy->members;
    uint32_t expected = 0;
    for (uint32_t i = 0; i < members_slot_count(members); i++) {
        const struct member *m = members_at(members, i);
        expected += m->status != MEMBER_NONE;
        if (m->status == MEMBER_LEFT || m->status == MEMBER_EVICTED)
            health_add(health, HEALTH_WARNING, "members", "node %s %s; what it held moves after %u s",
                       m->name, m->status == MEMBER_LEFT ? "has left" : "was put out",
                       members_settings(members)->repair_delay_ms / 1000);
        else if (m->status == MEMBER_UP && copy->is_silent[i])
            health_add(health, HEALTH_WARNING, "members", "node %s is silent", m->name);
        else if (m->status == MEMBER_UP && m->suspicion != UINT64_MAX)
            health_add(health, HEALTH_WARNING, "members", "node %s is suspected", m->name);
    }
    if (copy->self.slot == SLOT_NONE)
        health_add(health, HEALTH_ALARM, "members", "this node is not up in the cluster");
    json_open(json_key(json, "members"), '{');
    json_uint(json_key(json, "expected"), expected);
    json_uint(json_key(json, "present"), members_up_count(members));
    json_close(json, '}');
}

static void look_at_redundancy(struct health *health, const struct members *members, struct json *json)
{
    struct redundancy r = members_redundancy(members, SLOT_NONE);
    uint32_t replica_count = members_init(members)->replica_count;
    if (r.unowned_count > 0)
        health_add(health, HEALTH_ALARM, "redundancy",
                   "%u partitions have no live owner: answers lack them, nothing of them is lost yet",
                   r.unowned_count);
    else if (r.lacking_count > 0)
        health_add(health, HEALTH_WARNING, "redundancy",
                   "%u partitions have fewer than %u live owners, the one with the fewest has %u",
                   r.lacking_count, replica_count, r.owner_count_min);
    json_open(json_key(json, "redundancy"), '{');
    json_uint(json_key(json, "replicas"), replica_count);
    json_uint(json_key(json, "ownersMin"), r.owner_count_min);
    json_uint(json_key(json, "unowned"), r.unowned_count);
    json_uint(json_key(json, "lacking"), r.lacking_count);
    json_close(json, '}');
}

static void look_at_log(struct health *health, const struct health_cluster *cluster, struct json *json)
{
    if (cluster->retention != RETENTION_WELL)
        health_add(health, cluster->retention == RETENTION_EXPIRING ? HEALTH_ALARM : HEALTH_WARNING, "log",
                   "the oldest record that is in no segment expires in the log in %lld s",
                   (long long)(cluster->left_ms / 1000));
    if (!cluster->may_decide)
        health_add(
            health, HEALTH_WARNING, "log",
            "this node does not know what the cluster decided last: it cuts and commits nothing meanwhile");
    json_int(json_key(json, "unsavedExpiresSeconds"), cluster->left_ms / 1000);
}

static void look_at_suspensions(struct health *health, const struct members *members, struct json *json)
{
    int64_t now_ms = members_append_ms(members);
    json_open(json_key(json, "suspensions"), '[');
    for (int i = AUTOMATION_PLACEMENT; i < AUTOMATION_END; i++) {
        const struct suspension *s = members_suspension(members, (enum control_automation)i);
        if (s->until_ms <= now_ms)
            continue;
        const char *name = control_automation_text((enum control_automation)i);
        health_add(health, HEALTH_WARNING, "suspension", "%s is suspended by %.80s for %lld s more: %.200s",
                   name, s->owner, (long long)((s->until_ms - now_ms) / 1000), s->reason);
        json_open(json, '{');
        json_str(json_key(json, "automation"), name);
        json_str(json_key(json, "owner"), s->owner);
        json_str(json_key(json, "reason"), s->reason);
        json_int(json_key(json, "untilMs"), s->until_ms);
        json_int(json_key(json, "leftSeconds"), (s->until_ms - now_ms) / 1000);
        json_close(json, '}');
    }
    json_close(json, ']');
}

void health_of_cluster(struct health *health, const struct health_cluster *cluster, struct json *json)
{
    const struct members *members = cluster->copy->members;
    look_at_members(health, cluster->copy, json);
    look_at_redundancy(health, members, json);
    look_at_log(health, cluster, json);
    look_at_suspensions(health, members, json);
}

/* ---- told ---- */

static const char *level_text(enum health_level level)
{
    static const char *const texts[] = { "well", "warning", "alarm" };
    return texts[level];
}

void health_put(const struct health *health, struct json *json)
{
    json_str(json_key(json, "state"), level_text(health->level));
    json_open(json_key(json, "findings"), '[');
    for (size_t i = 0; i < health->count; i++) {
        json_open(json, '{');
        json_str(json_key(json, "level"), level_text(health->findings[i].level));
        json_str(json_key(json, "what"), health->findings[i].what);
        json_str(json_key(json, "text"), health->findings[i].text);
        json_close(json, '}');
    }
    json_close(json, ']');
    json_uint(json_key(json, "findingsNotTold"), health->beyond);
}
