/* See retention_guard.h. From the shards: the age of what is unsaved; from the opener: since when a partition
 * could not be opened, of which nothing else is known; from the log's driver: the topic's retention. To the
 * driver: the order to raise it; to people: metrics, and a line an hour.
 *
 * Invariants: 1. The retention is never lowered: whoever lowers it knows what for.  2. Nodes that raise at
 * once raise to the same: twice what the topic has, which all of them read there. */
#include "node/retention_guard.h"

#include "base/diag.h"
#include "base/stat.h"
#include "base/time.h"

#define AGAIN_NS (2 * INT64_C(60) * NS_PER_SECOND) /* a raise is seen by then, or asked for once more */
#define TELL_NS  (INT64_C(3600) * NS_PER_SECOND)

static int64_t log_now_ms(struct retention_guard *guard, const struct retention_facts *facts)
{
    if (guard->newest_ns == 0 || facts->newest_ms > guard->newest_ms) {
        guard->newest_ms = facts->newest_ms;
        guard->newest_ns = facts->now_ns;
    }
    return guard->newest_ms + (facts->now_ns - guard->newest_ns) / NS_PER_MS;
}

/* Of what is unsaved in open partitions. */
static int64_t age_of_unsaved(struct retention_guard *guard, const struct retention_facts *facts)
{
    if (facts->newest_ms == LOG_TIME_NONE || facts->since_ms == INT64_MAX)
        return 0;
    return log_now_ms(guard, facts) - facts->since_ms;
}

/* Of what may be unsaved in a partition that should be open and is not, because the bucket is away or the disk
 * fails. Whoever looked after it before would have raised the retention at three quarters, so that it is no older
 * than that at the begin of the wait; the retention is raised after an eighth of it, before that can expire. An
 * opening that takes its usual time says nothing. */
static int64_t age_of_unopened(const struct retention_facts *facts)
{
    if (facts->waits_since_ns == INT64_MAX)
        return 0;
    int64_t waits_ms = (facts->now_ns - facts->waits_since_ns) / NS_PER_MS;
    return waits_ms < facts->retention_ms / 16 ? 0 : waits_ms + facts->retention_ms / 8 * 5;
}

struct retention_verdict retention_judge(struct retention_guard *guard, const struct retention_facts *facts)
{
    struct retention_verdict v = { RETENTION_FOREVER_MS, RETENTION_WELL, 0 };
    int64_t retention_ms = facts->retention_ms;
    if (retention_ms == LOG_RETENTION_UNKNOWN || retention_ms == LOG_RETENTION_NONE ||
        retention_ms >= RETENTION_FOREVER_MS)
        return v;
    int64_t age_ms = age_of_unsaved(guard, facts), other_ms = age_of_unopened(facts);
    age_ms = age_ms > other_ms ? age_ms : other_ms;
    v.left_ms = age_ms <= 0 ? retention_ms : age_ms < retention_ms ? retention_ms - age_ms : 0;
    if (v.left_ms <= retention_ms / 4)
        v.level = RETENTION_EXPIRING;
    else if (v.left_ms <= retention_ms / 2)
        v.level = RETENTION_SHORT;
    if (v.level == RETENTION_EXPIRING && facts->max_ms > retention_ms &&
        (guard->asked_ns == 0 || facts->now_ns - guard->asked_ns >= AGAIN_NS)) {
        guard->asked_ns = facts->now_ns;
        v.raise_to_ms = 2 * retention_ms < facts->max_ms ? 2 * retention_ms : facts->max_ms;
    }
    return v;
}

static void tell(struct retention_guard *guard, const struct retention_verdict *v, int64_t retention_ms,
                 const char *refused, int64_t now_ns)
{
    bool is_worse = v->level > atomic_load(&guard->level);
    if (v->level == RETENTION_WELL && atomic_load(&guard->level) != RETENTION_WELL)
        diag(DIAG_INFO, "What is in the log alone is in segments in time again.",
             "left_s=%lld retention_s=%lld", (long long)(v->left_ms / 1000),
             (long long)(retention_ms / 1000));
    if (v->level == RETENTION_WELL || (!is_worse && now_ns - guard->told_ns < TELL_NS))
        return;
    guard->told_ns = now_ns;
    diag(v->level == RETENTION_EXPIRING ? DIAG_ERROR : DIAG_WARN,
         "Records that are in no segment yet will expire in the log: see what keeps the bucket from being"
         " written, or raise the topic's retention.ms.",
         "left_s=%lld retention_s=%lld raise_refused=\"%s\"", (long long)(v->left_ms / 1000),
         (long long)(retention_ms / 1000), refused);
}

void retention_guard_step(struct retention_guard *guard, struct log *log, struct shards *shards,
                          int64_t waits_since_ns, int64_t max_ms, struct io *io)
{
    struct err_at refused = { 0 };
    struct shards_unsaved unsaved = shards_unsaved(shards);
    struct retention_facts facts = { .retention_ms = log_kafka_retention(log, &refused),
                                     .max_ms = max_ms,
                                     .since_ms = unsaved.since_ms,
                                     .newest_ms = unsaved.newest_ms,
                                     .waits_since_ns = waits_since_ns,
                                     .now_ns = io_boottime_ns(io) };
    if (facts.retention_ms == LOG_RETENTION_UNKNOWN)
        return;
    struct retention_verdict v = retention_judge(guard, &facts);
    tell(guard, &v, facts.retention_ms, refused.text, facts.now_ns);
    if (v.raise_to_ms != 0) {
        diag(DIAG_WARN, "The topic's retention is raised, so that nothing expires that is in no segment.",
             "from_s=%lld to_s=%lld", (long long)(facts.retention_ms / 1000),
             (long long)(v.raise_to_ms / 1000));
        log_kafka_retain(log, v.raise_to_ms);
    }
    atomic_store(&guard->left_ms, v.left_ms);
    atomic_store(&guard->level, v.level);
    bool is_forever = facts.retention_ms == LOG_RETENTION_NONE || facts.retention_ms > RETENTION_FOREVER_MS;
    stat_set(STAT_CLUSTER_LOG_RETENTION_S, (is_forever ? RETENTION_FOREVER_MS : facts.retention_ms) / 1000);
    stat_set(STAT_CLUSTER_UNSAVED_EXPIRES_S, v.left_ms / 1000);
}
