/* The Kafka driver over simulated brokers: three nodes write into one topic, some of them read it, brokers
 * die, lose power, freeze, are cut off and slow, leaders move, logs lose their ends, records expire and vanish
 * from the middle, nodes die and freeze, and say late or of a lower place where a log goes on; then all is
 * healed.
 *
 * The model stands outside the driver: what became of each append by its answer, what each reader applied,
 * and what the brokers hold for committed. Oracles
 *   acknowledged    is in the log at its position, unless the log went back to there or below; then its node
 *                   was told
 *   not stored      is nowhere in the log, and no reader ever saw it
 *   readers         tell offset after offset; what they applied is, when all is healed, the log: record for
 *                   record, but for what expired or was taken out of its middle
 *   went back       is told only where the log did, and each time it matters
 *   ends            are never above what was committed; a marker's is behind all that was acknowledged
 *                   before it
 *   time            every answer comes in time; when all is healed every append is acknowledged, readers
 *                   reach the end
 * Each life is one seed; the same seed has the same history. Planted bugs must be found by the same oracles. */
#include "base/test.h"

#include <string.h>

#include "base/bytes.h"
#include "base/time.h"
#include "log/log_kafka.h"
#include "sim/brokers_strike.h"
#include "sim/io_sim.h"

#define NODES       3 /* 0 reads all, 1 reads partition 0, 2 only writes */
#define PARTITIONS  2
#define APPENDS_MAX 12000
#define OFFSETS_MAX 16000
#define DELIVERY_MS 30000
/* A last try begins within DELIVERY_MS, is answered by the client a second after as long, or when it was
 * stopped. */
#define ANSWER_MS   (2 * DELIVERY_MS + 1000 + KAFKA_STOP_MS_MAX + 500)
#define STEP_MS_MAX 60
#define FAULTY_MS   60000
#define CALM_MS     30000 /* from healing until nothing is refused any more */
#define QUIET_MS    45000 /* … until nothing is written any more */
#define REST_MS     120000
#define NUMBER_NONE UINT64_MAX /* a marker, or no record at all */

enum fate { FATE_OPEN, FATE_ACKED, FATE_NOT_STORED, FATE_MAYBE, FATE_ORPHAN };

struct request {
    struct log_append append;
    struct slice part;
    uint8_t bytes[100];
    uint8_t node;
    enum fate fate;
    bool is_told; /* that the log went back to here or below, after it was acknowledged */
    unsigned life;
    uint64_t offset, acked_before;
    size_t backs_then;
    int64_t handed_ms, answered_ms;
};

struct applied {
    uint64_t number;
    int32_t epoch;
};

struct reading {
    bool is_mine;
    struct log_reader *reader;
    struct applied *applied; /* by offset */
    uint64_t next;
    int64_t deaf_until_ms;
};

struct node {
    struct kafka_client *client;
    struct log *log;
    unsigned life;
    struct reading readings[PARTITIONS];
    int64_t frozen_until_ms;
    int64_t told_ms[PARTITIONS];
    size_t backs_told[PARTITIONS];
    uint64_t end_told[PARTITIONS];
    int64_t go_on_ms[PARTITIONS]; /* when it says so of a log that went back; 0: it knows of none */
    uint64_t go_on_from[PARTITIONS];
};

static struct world {
    struct test_random random;
    struct brokers_sim *sim;
    struct io *io;
    struct pool *pool;
    struct node nodes[NODES];
    struct request *requests;
    size_t request_count;
    uint64_t acked_end[PARTITIONS]; /* behind the highest acknowledged one of this generation */
    uint64_t start_max[PARTITIONS];
    bool is_hole[PARTITIONS][OFFSETS_MAX]; /* was punched there */
    struct strikes strikes;
    int64_t healed_ms;
    unsigned plants;
    uint64_t trace;
    char violation[160];
} w;

/* clang-format off */
#define EVENTS(X) \
    X(ACKED) X(NOT_STORED) X(MAYBE) X(MARKER) X(READ) X(MARKER_READ) X(HOLE_TOLD) \
    X(WENT_BACK) X(BACK_ONLY_WRITTEN) X(BACK_EXACT) X(BACK_LOW) X(ACK_TAKEN_BACK) X(DOUBT) \
    X(FULL) X(NODE_DIED) X(NODE_FROZE) X(DEAF) X(REOPENED) X(GO_ON_LATE) X(GO_ON_LOW) X(EXPIRED_UNREAD) \
    X(ACKED_EXPIRED) X(ACKED_IN_HOLE)
/* clang-format on */
enum event {
#define EVENT_ENUM(name) EVENT_##name,
    EVENTS(EVENT_ENUM)
#undef EVENT_ENUM
        EVENT_COUNT,
};
#define EVENT_NAME(name) #name,
static const char *const event_names[] = { EVENTS(EVENT_NAME) };
static uint64_t events[EVENT_COUNT], broker_events[BROKERS_SIM_COUNT_END];

static uint64_t below(uint64_t bound) { return test_random_below(&w.random, bound); }
static bool chance(uint64_t one_in) { return below(one_in) == 0; }
static int64_t now_ms(void) { return brokers_sim_now_ms(w.sim); }

static void note(enum event event, uint64_t a, uint64_t b)
{
    events[event]++;
    w.trace = hash_mix(w.trace ^ hash_mix((uint64_t)event ^ hash_mix(a ^ hash_mix(b ^ (uint64_t)now_ms()))));
}

/* The first one counts; the life ends with it. */
static void violate(const char *text, uint64_t a, uint64_t b, uint64_t c)
{
    if (w.violation[0] == 0)
        snprintf(w.violation, sizeof w.violation, "%s: %llu, %llu, %llu at %lld ms", text,
                 (unsigned long long)a, (unsigned long long)b, (unsigned long long)c, (long long)now_ms());
}

/* ---- the truth ---- */

static size_t backs_of(uint32_t p, const struct brokers_sim_back **out)
{
    size_t count;
    *out = brokers_sim_backs(w.sim, 0, p, &count);
    return count;
}

static bool went_back(uint32_t p, size_t since, uint64_t offset)
{
    const struct brokers_sim_back *backs;
    size_t count = backs_of(p, &backs);
    for (size_t i = since; i < count; i++)
        if (backs[i].at <= offset)
            return true;
    return false;
}

/* False: no record there. */
static bool true_number(uint32_t p, uint64_t offset, uint64_t *out_number)
{
    struct brokers_sim_record is;
    if (!brokers_sim_truth_record(w.sim, 0, p, offset, &is))
        return false;
    *out_number = NUMBER_NONE;
    if (is.bytes.at != NULL && is.bytes.at[4] == KAFKA_RECORD_BATCH)
        *out_number = get_le64(is.bytes.at + LOG_KAFKA_HEAD_BYTES);
    return true;
}

/* A control record, or a hole. */
static bool is_empty(uint32_t p, uint64_t offset)
{
    struct brokers_sim_record is;
    return brokers_sim_truth_record(w.sim, 0, p, offset, &is) && is.bytes.at == NULL;
}

/* A hole that was punched. */
static bool is_punched(uint32_t p, uint64_t offset)
{
    return offset < OFFSETS_MAX && w.is_hole[p][offset] && is_empty(p, offset);
}

/* By time, or by a hole. */
static bool is_taken(uint32_t p, uint64_t offset)
{
    return is_punched(p, offset) || offset < brokers_sim_truth(w.sim, 0, p).start_offset;
}

static int32_t true_epoch(uint32_t p, uint64_t offset)
{
    struct brokers_sim_record is;
    return brokers_sim_truth_record(w.sim, 0, p, offset, &is) ? is.leader_epoch : LOG_EPOCH_NONE;
}

/* That what was acknowledged in a hole was ever in this log can be told only by the epoch on both sides; the first
 * that a node ever wrote has none before it. */
static bool is_doubtful_hole(uint32_t p, uint64_t from)
{
    uint64_t end = brokers_sim_truth(w.sim, 0, p).end_offset;
    int32_t before = from == 0 ? LOG_EPOCH_NONE : true_epoch(p, from - 1);
    for (uint64_t at = from; at < end; at++)
        if (is_punched(p, at) && (at == from || before != true_epoch(p, at + 6 < end ? at + 6 : end - 1)))
            return true;
    return false;
}

/* ---- appends ---- */

static void judge_marker(const struct request *r)
{
    const struct brokers_sim_back *backs;
    if (backs_of(r->append.partition, &backs) == r->backs_then && r->offset < r->acked_before)
        violate("a marker's end is below what was acknowledged", r->offset, r->acked_before, 0);
}

static void judge_acked(const struct request *r)
{
    uint64_t number = NUMBER_NONE;
    bool is_there = true_number(r->append.partition, r->offset, &number);
    if ((!is_there || number != (uint64_t)(r - w.requests)) && !is_taken(r->append.partition, r->offset) &&
        !went_back(r->append.partition, r->backs_then, r->offset))
        violate("acknowledged, and not in the log", (uint64_t)(r - w.requests), r->append.partition,
                r->offset);
}

static void done(struct log_append *append, err result, struct log_position position)
{
    struct request *r = append->context;
    uint32_t p = append->partition;
    if (r->fate != FATE_OPEN)
        violate("answered twice", (uint64_t)(r - w.requests), p, 0);
    r->answered_ms = now_ms();
    r->offset = position.offset;
    if (r->answered_ms - r->handed_ms > ANSWER_MS && w.nodes[r->node].frozen_until_ms < r->handed_ms)
        violate("answered late", (uint64_t)(r - w.requests), p, (uint64_t)(r->answered_ms - r->handed_ms));
    bool was_full = result == ERR_BUSY && r->answered_ms == r->handed_ms;
    if (result != OK && !was_full && w.healed_ms != 0 && r->handed_ms > w.healed_ms + CALM_MS)
        violate("refused when all was healed", (uint64_t)(r - w.requests), p, (uint64_t)result);
    if (result == OK && append->is_marker) {
        r->fate = FATE_MAYBE;
        judge_marker(r);
        note(EVENT_MARKER, r->offset, p);
    } else if (result == OK) {
        r->fate = FATE_ACKED;
        judge_acked(r);
        note(EVENT_ACKED, r->offset, p);
        if (r->offset >= w.acked_end[p] && !went_back(p, r->backs_then, r->offset))
            w.acked_end[p] = r->offset + 1;
    } else {
        bool is_not = result == ERR_BUSY || result == ERR_LIMIT || result == ERR_CLOSED;
        r->fate = is_not ? FATE_NOT_STORED : FATE_MAYBE;
        note(is_not ? EVENT_NOT_STORED : EVENT_MAYBE, (uint64_t)(r - w.requests), p);
    }
}

static void append(struct node *n)
{
    if (w.request_count == APPENDS_MAX)
        return;
    struct request *r = &w.requests[w.request_count];
    uint32_t p = (uint32_t)below(PARTITIONS);
    const struct brokers_sim_back *backs;
    uint64_t end = brokers_sim_truth(w.sim, 0, p).end_offset;
    w.acked_end[p] = w.acked_end[p] < end ? w.acked_end[p] : end; /* the log went back */
    *r = (struct request){ .node = (uint8_t)(n - w.nodes),
                           .life = n->life,
                           .acked_before = w.acked_end[p],
                           .backs_then = backs_of(p, &backs),
                           .handed_ms = now_ms() };
    put_le64(r->bytes, w.request_count++);
    r->part = slice_of(r->bytes, 8 + below(sizeof r->bytes - 8));
    r->append = (struct log_append){ .partition = p, .done = done, .context = r };
    r->append.is_marker = chance(30);
    r->append.parts = &r->part;
    r->append.part_count = r->append.is_marker ? 0 : 1;
    log_append(n->log, &r->append);
}

/* ---- readers ---- */

static int32_t epoch_before(const struct reading *r)
{
    return r->next == 0 ? LOG_EPOCH_NONE : r->applied[r->next - 1].epoch;
}

static void open_reader(struct node *n, uint32_t p)
{
    struct reading *r = &n->readings[p];
    assert_ok(log_reader_open(n->log, p, r->next, epoch_before(r), &r->reader));
}

static void apply(const struct node *n, uint32_t p, const struct log_record *record)
{
    struct reading *r = (struct reading *)&n->readings[p];
    uint64_t offset = record->position.offset, number = NUMBER_NONE;
    struct brokers_sim_record is;
    if (offset - record->missing != r->next || offset >= OFFSETS_MAX) {
        violate("not the next one", offset, record->missing, r->next);
        return;
    }
    if (record->damaged)
        violate("told as damaged", (uint64_t)(n - w.nodes), p, offset);
    for (uint64_t at = r->next; at < offset; at++)
        r->applied[at] = (struct applied){ NUMBER_NONE, record->leader_epoch };
    if (!record->is_marker)
        number = get_le64(record->bytes.at);
    if (number != NUMBER_NONE && (number >= w.request_count || w.requests[number].fate == FATE_NOT_STORED))
        violate("read what was not stored", number, p, offset);
    if (brokers_sim_truth_record(w.sim, 0, p, offset, &is) && is.leader_epoch == record->leader_epoch &&
        is.t_ms != record->t_ms)
        violate("another time than the log's", offset, (uint64_t)record->t_ms, (uint64_t)is.t_ms);
    r->applied[offset] = (struct applied){ number, record->leader_epoch };
    r->next = offset + 1;
    events[EVENT_HOLE_TOLD] += record->missing;
    note(record->is_marker ? EVENT_MARKER_READ : EVENT_READ, offset, number ^ (uint64_t)(n - w.nodes));
}

static void skip_expired(struct node *n, uint32_t p)
{
    struct reading *r = &n->readings[p];
    uint64_t start = log_watermarks(n->log, p).start_offset;
    if (start <= r->next || start > w.start_max[p])
        violate("expired, and did not", (uint64_t)(n - w.nodes), start, r->next);
    for (; r->next < start && r->next < OFFSETS_MAX; r->next++)
        r->applied[r->next] = (struct applied){ NUMBER_NONE, LOG_EPOCH_NONE };
    log_reader_close(r->reader);
    open_reader(n, p);
    note(EVENT_EXPIRED_UNREAD, start, p);
}

static void read_some(struct node *n, uint32_t p)
{
    struct reading *r = &n->readings[p];
    struct log_record record;
    err e = ERR_END;
    if (now_ms() < r->deaf_until_ms)
        return;
    for (uint64_t i = 1 + below(200); i > 0 && (e = log_reader_next(r->reader, &record)) == OK; i--)
        apply(n, p, &record);
    if (e == ERR_NOT_FOUND)
        skip_expired(n, p);
    else if (e != OK && e != ERR_END && e != ERR_ORDER && e != ERR_IO)
        violate("a reader ends", p, (uint64_t)e, r->next);
}

/* ---- a log that went back ---- */

static void judge_back(struct node *n, uint32_t p, uint64_t from)
{
    const struct brokers_sim_back *backs;
    size_t count = backs_of(p, &backs);
    bool is_true = false;
    uint64_t lowest = UINT64_MAX;
    for (size_t i = 0; i < count; i++) {
        bool is_new = i >= n->backs_told[p] || backs[i].when_ms > n->told_ms[p] - 30000;
        is_true = is_true || (is_new && backs[i].end > from);
        if (is_new && backs[i].at < lowest)
            lowest = backs[i].at;
    }
    if (!is_true && !is_doubtful_hole(p, from))
        violate("went back, and did not", (uint64_t)(n - w.nodes), p, from);
    note(from == lowest ? EVENT_BACK_EXACT : EVENT_BACK_LOW, from, p);
    n->backs_told[p] = count;
    n->told_ms[p] = now_ms();
    n->end_told[p] = 0;
}

/* What was told is where it goes on, or lower: at once, or so late that it may have gone back further. */
static void go_on(struct node *n, uint32_t p)
{
    struct reading *r = &n->readings[p];
    uint64_t from = n->go_on_from[p], heard;
    if (r->is_mine) {
        log_reader_close(r->reader);
        r->next = r->next < from ? r->next : from;
    }
    n->go_on_ms[p] = 0;
    n->end_told[p] = 0;
    log_go_on(n->log, p, from);
    if (log_went_back(n->log, p, &heard) == OK && heard >= from)
        violate("went back, and goes on there already", (uint64_t)(n - w.nodes), heard, from);
    if (r->is_mine)
        open_reader(n, p);
}

static void hear_back(struct node *n, uint32_t p, uint64_t from)
{
    note(n->readings[p].is_mine ? EVENT_WENT_BACK : EVENT_BACK_ONLY_WRITTEN, from, p);
    judge_back(n, p, from);
    for (size_t i = 0; i < w.request_count; i++) {
        struct request *q = &w.requests[i];
        if (q->fate == FATE_ACKED && q->node == n - w.nodes && q->append.partition == p &&
            q->offset >= from) {
            events[EVENT_ACK_TAKEN_BACK] += !q->is_told;
            q->is_told = true;
        }
    }
    n->go_on_from[p] = from;
    n->go_on_ms[p] = now_ms();
    if (w.healed_ms == 0 && chance(3)) {
        n->go_on_ms[p] += (int64_t)below(8000);
        note(EVENT_GO_ON_LATE, from, p);
    }
    if (w.healed_ms == 0 && chance(4)) {
        n->go_on_from[p] -= below(from < 100 ? from + 1 : 100);
        note(EVENT_GO_ON_LOW, from, p);
    }
}

static void watch_back(struct node *n, uint32_t p)
{
    uint64_t from;
    if (n->go_on_ms[p] == 0 && log_went_back(n->log, p, &from) == OK)
        hear_back(n, p, from);
    if (n->go_on_ms[p] != 0 && now_ms() >= n->go_on_ms[p])
        go_on(n, p);
}

/* ---- nodes ---- */

static void open_node(struct node *n)
{
    static const struct kafka_client_config client = { .record_bytes_max = 4096,
                                                       .send_bytes_max = 8192,
                                                       .read_bytes_max = 1 << 20,
                                                       .linger_ms = 5,
                                                       .socket_timeout_ms = 5000,
                                                       .delivery_ms_max = DELIVERY_MS };
    struct log_kafka_config config = { .cluster_id = "the cluster",
                                       .partition_count = PARTITIONS,
                                       .queue_bytes_max = 16384,
                                       .tail_bytes_max = 40000,
                                       .delivery_ms_max = DELIVERY_MS,
                                       .accept_weak_topic = true,
                                       .plants = w.plants };
    n->client = brokers_sim_client(w.sim, (uint32_t)(n - w.nodes), 0, &client);
    assert_ok(log_kafka_open(&config, n->client, w.io, w.pool, &n->log));
    for (uint32_t p = 0; p < PARTITIONS; p++)
        if (n->readings[p].is_mine)
            open_reader(n, p);
}

/* The process dies; what it had applied is saved up to some place. */
static void kill_node(struct node *n)
{
    brokers_sim_client_drop(n->client);
    pool_close(((struct log_kafka *)n->log)->pool);
    n->life++;
    n->frozen_until_ms = 0;
    for (size_t i = 0; i < w.request_count; i++)
        if (w.requests[i].node == n - w.nodes && w.requests[i].fate == FATE_OPEN)
            w.requests[i].fate = FATE_ORPHAN;
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        struct reading *r = &n->readings[p];
        n->end_told[p] = 0;
        n->go_on_ms[p] = 0;
        if (r->next > 0 && chance(2))
            r->next -= below(r->next < 200 ? r->next : 200);
    }
}

static void judge_ends(struct node *n, uint32_t p)
{
    struct log_watermarks marks = log_watermarks(n->log, p);
    const struct brokers_sim_back *backs;
    size_t count = backs_of(p, &backs);
    uint64_t end = brokers_sim_truth(w.sim, 0, p).end_offset;
    if (n->go_on_ms[p] != 0)
        return; /* until then it is the highest that ever was */
    for (size_t i = 0; i < count; i++)
        if ((i >= n->backs_told[p] || backs[i].when_ms > n->told_ms[p] - 30000) && backs[i].end > end)
            end = backs[i].end;
    if (marks.end_offset > end)
        violate("an end that is above the log", (uint64_t)(n - w.nodes), marks.end_offset, end);
    while (n->end_told[p] > marks.end_offset &&
           (is_empty(p, n->end_told[p] - 1) || is_taken(p, n->end_told[p] - 1)))
        n->end_told[p]--;
    if (marks.end_offset < n->end_told[p] && !went_back(p, n->backs_told[p], n->end_told[p] - 1))
        violate("an end that went down", (uint64_t)(n - w.nodes), marks.end_offset, n->end_told[p]);
    n->end_told[p] = marks.end_offset;
}

static void run(struct node *n, bool writes)
{
    if (now_ms() < n->frozen_until_ms)
        return;
    brokers_sim_client_freeze(n->client, false);
    assert_ok(log_pump(n->log));
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        struct kafka_partition *at = &((struct log_kafka *)n->log)->partitions[p];
        events[EVENT_DOUBT] += at->doubt.stage == DOUBT_READING;
        events[EVENT_FULL] += at->reader != NULL && at->reader->stage == READER_FULL;
        watch_back(n, p);
        if (n->readings[p].is_mine)
            read_some(n, p);
        judge_ends(n, p);
    }
    for (uint64_t i = writes ? below(3) : 0; i > 0; i--)
        append(n);
}

/* ---- faults ---- */

/* Records vanish from the middle, often where they were just acknowledged. */
static void punch(uint32_t p, struct brokers_sim_truth truth)
{
    uint64_t len = truth.end_offset - truth.start_offset;
    uint64_t from = truth.end_offset - below(chance(2) && len > 20 ? 20 : len + 1), to = from + 1 + below(5);
    for (uint64_t at = from; at < to && at < truth.end_offset && at < OFFSETS_MAX; at++)
        w.is_hole[p][at] = true;
    brokers_sim_punch_hole(w.sim, 0, p, from, to);
}

static void expire(uint32_t p, struct brokers_sim_truth truth)
{
    uint64_t len = truth.end_offset - truth.start_offset;
    brokers_sim_expire_records(w.sim, 0, p, truth.start_offset + (chance(2) ? len : below(len / 2 + 1)));
    truth = brokers_sim_truth(w.sim, 0, p);
    w.start_max[p] = truth.start_offset > w.start_max[p] ? truth.start_offset : w.start_max[p];
}

static void strike(uint64_t which)
{
    struct node *n = &w.nodes[below(NODES)];
    uint32_t p = (uint32_t)below(PARTITIONS);
    struct brokers_sim_truth truth = brokers_sim_truth(w.sim, 0, p);
    if (which < STRIKES_ON_BROKERS) {
        strike_broker(&w.strikes, which);
        return;
    }
    which -= STRIKES_ON_BROKERS;
    if (which == 0) {
        brokers_sim_truncate_last_replica(w.sim, 0, p, truth.end_offset - below(truth.end_offset / 8 + 1));
    } else if (which == 1) {
        brokers_sim_move_leader(w.sim, 0, p, (uint32_t)below(3));
    } else if (which == 2) {
        kill_node(n);
        open_node(n);
        note(EVENT_NODE_DIED, (uint64_t)(n - w.nodes), 0);
    } else if (which == 3 && now_ms() >= n->frozen_until_ms) {
        n->frozen_until_ms = now_ms() + 500 + (int64_t)below(8000);
        brokers_sim_client_freeze(n->client, true);
        note(EVENT_NODE_FROZE, (uint64_t)(n - w.nodes), 0);
    } else if (which == 4 && n->readings[p].is_mine) {
        n->readings[p].deaf_until_ms = now_ms() + (int64_t)below(8000);
        note(EVENT_DEAF, p, 0);
    } else if (which == 5 && n->readings[p].is_mine && now_ms() >= n->frozen_until_ms) {
        log_reader_close(n->readings[p].reader);
        open_reader(n, p);
        note(EVENT_REOPENED, p, 0);
    } else if (which == 6) {
        punch(p, truth);
    } else if (which == 7) {
        expire(p, truth);
    }
}

/* ---- lives ---- */

static void step(bool writes)
{
    int64_t ms = 1 + (int64_t)below(STEP_MS_MAX);
    brokers_sim_advance(w.sim, ms);
    io_sim_clock_advance(w.io, ms * NS_PER_MS);
    for (unsigned i = 0; i < NODES; i++)
        run(&w.nodes[i], writes);
}

static void compare_reader(const struct node *n, uint32_t p)
{
    const struct reading *r = &n->readings[p];
    struct brokers_sim_truth truth = brokers_sim_truth(w.sim, 0, p);
    struct log_watermarks marks = log_watermarks(n->log, p);
    uint64_t number, end = truth.end_offset, at = truth.start_offset;
    while (end > 0 && is_empty(p, end - 1))
        end--;
    if (r->next < end)
        violate("a reader does not reach the end", (uint64_t)(n - w.nodes), r->next, truth.end_offset);
    if (at < w.start_max[p]) /* who passed over what expired has no epoch to know a log by that begins anew */
        at = w.start_max[p];
    for (; at < r->next && true_number(p, at, &number); at++)
        if (number != r->applied[at].number && !is_punched(p, at))
            violate("applied, and not in the log", p, at, r->applied[at].number);
    if (marks.end_offset != r->next || io_boottime_ns(w.io) - marks.confirmed_ns > 25000 * NS_PER_MS)
        violate("the end is not confirmed", (uint64_t)(n - w.nodes), marks.end_offset, truth.end_offset);
}

static void compare_all(void)
{
    uint64_t number;
    for (unsigned i = 0; i < NODES; i++)
        for (uint32_t p = 0; p < PARTITIONS; p++)
            if (w.nodes[i].readings[p].is_mine)
                compare_reader(&w.nodes[i], p);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        for (uint64_t at = brokers_sim_truth(w.sim, 0, p).start_offset; true_number(p, at, &number); at++)
            if (number != NUMBER_NONE && w.requests[number].fate == FATE_NOT_STORED)
                violate("not stored, and in the log", number, p, at);
    for (size_t i = 0; i < w.request_count; i++) {
        const struct request *r = &w.requests[i];
        uint32_t p = r->append.partition;
        if (r->fate == FATE_OPEN)
            violate("not answered", i, r->node, p);
        if (r->fate != FATE_ACKED || (true_number(p, r->offset, &number) && number == i))
            continue;
        events[EVENT_ACKED_IN_HOLE] += is_punched(p, r->offset);
        events[EVENT_ACKED_EXPIRED] += r->offset < brokers_sim_truth(w.sim, 0, p).start_offset;
        if (is_taken(p, r->offset))
            continue;
        if (!went_back(p, r->backs_then, r->offset))
            violate("acknowledged and lost", i, p, r->offset);
        else if (!r->is_told && r->life == w.nodes[r->node].life)
            violate("acknowledged, lost and not told", i, p, r->offset);
    }
}

static void begin(uint64_t seed, unsigned plants)
{
    struct brokers_sim_config config = {
        .broker_count = 3, .zone_count = 3, .topics = { { PARTITIONS, -1, seed % 2 == 0 } }, .topic_count = 1
    };
    memset(&w, 0, sizeof w);
    w.random.state = seed;
    w.plants = plants;
    w.sim = brokers_sim_open(seed, &config);
    w.strikes = (struct strikes){ w.sim, &w.random, config.broker_count, NODES, { 0 } };
    assert_ok(io_sim_open(seed, &w.io));
    w.pool = pool_open(NULL, "world", POOL_BYTES_UNLIMITED);
    assert_ok(pool_zalloc(w.pool, APPENDS_MAX * sizeof *w.requests, (void **)&w.requests));
    for (unsigned i = 0; i < NODES; i++) {
        for (uint32_t p = 0; p < PARTITIONS; p++) {
            struct reading *r = &w.nodes[i].readings[p];
            r->is_mine = i == 0 || (i == 1 && p == 0);
            if (r->is_mine)
                assert_ok(pool_zalloc(w.pool, OFFSETS_MAX * sizeof *r->applied, (void **)&r->applied));
            w.nodes[i].told_ms[p] = INT64_MIN / 2;
        }
        open_node(&w.nodes[i]);
    }
}

/* True: no oracle had anything to say. */
static bool live(uint64_t seed, unsigned plants)
{
    begin(seed, plants);
    uint64_t enabled = test_random_u64(&w.random), rarity = 15 + below(80); /* each seed has its own mix */
    while (now_ms() < FAULTY_MS && w.violation[0] == 0) {
        uint64_t which = below(STRIKES_ON_BROKERS + 8);
        if (chance(rarity) && enabled >> which & 1)
            strike(which);
        strikes_mend(&w.strikes);
        step(true);
    }
    brokers_sim_heal(w.sim);
    brokers_sim_calm(w.sim);
    w.healed_ms = now_ms();
    for (unsigned i = 0; i < NODES; i++) {
        w.nodes[i].frozen_until_ms =
            w.nodes[i].frozen_until_ms > now_ms() ? now_ms() : w.nodes[i].frozen_until_ms;
        for (uint32_t p = 0; p < PARTITIONS; p++) {
            w.nodes[i].readings[p].deaf_until_ms = 0;
            if (w.nodes[i].go_on_ms[p] > now_ms())
                w.nodes[i].go_on_ms[p] = now_ms();
        }
    }
    while (now_ms() < w.healed_ms + REST_MS && w.violation[0] == 0)
        step(now_ms() < w.healed_ms + QUIET_MS && chance(16));
    if (w.violation[0] == 0)
        compare_all();
    for (unsigned i = 0; i < BROKERS_SIM_COUNT_END; i++) {
        broker_events[i] += brokers_sim_counts(w.sim)[i];
        w.trace = hash_mix(w.trace ^ brokers_sim_counts(w.sim)[i]);
    }
    for (unsigned i = 0; i < NODES; i++)
        kill_node(&w.nodes[i]);
    io_close(w.io);
    pool_close(w.pool);
    brokers_sim_close(w.sim);
    return w.violation[0] == 0;
}

/* What these worlds do not do or do not show. */
static bool is_elsewhere(enum brokers_sim_count count)
{
    switch (count) {
    case BROKERS_SIM_COUNT_DONE:
    case BROKERS_SIM_COUNT_OUT_OF_RANGE_FALSE: /* these readers know their epochs */
    case BROKERS_SIM_COUNT_READ_FAILED:
    case BROKERS_SIM_COUNT_EXPIRED_BY_AGE:
    case BROKERS_SIM_COUNT_RECREATE:
    case BROKERS_SIM_COUNT_DENY:
    case BROKERS_SIM_COUNT_REFUSED_TOO_LARGE:
    case BROKERS_SIM_COUNT_ORDER_AFTER_TIMEOUT:
    case BROKERS_SIM_COUNT_READING_BLOCKED:
        return true;
    default:
        return false;
    }
}

static void any_life_keeps_its_word(void **state)
{
    struct test_random r = test_random_begin("any_life_keeps_its_word");
    const char *life = getenv("LIFE"), *many = getenv("LIVES");
    uint64_t lives = life != NULL                   ? 1
                     : many != NULL                 ? strtoull(many, NULL, 0)
                     : getenv("KELPIE_SIM") != NULL ? 1000
                                                    : 40;
    unsigned missing = 0;
    for (uint64_t i = 0; i < lives; i++) {
        uint64_t seed = life != NULL ? strtoull(life, NULL, 0) : test_random_u64(&r);
        if (getenv("VERBOSE") != NULL)
            fprintf(stderr, "# LIFE=0x%llx\n", (unsigned long long)seed);
        if (!live(seed, 0))
            fail_msg("LIFE=0x%llx: %s", (unsigned long long)seed, w.violation);
    }
    printf("# %llu lives\n", (unsigned long long)lives);
    for (unsigned i = 0; i < EVENT_COUNT; i++) {
        printf("# %s: %llu\n", event_names[i], (unsigned long long)events[i]);
        missing += events[i] == 0;
    }
    for (unsigned i = 0; i < BROKERS_SIM_COUNT_END; i++) {
        if (is_elsewhere((enum brokers_sim_count)i))
            continue;
        printf("# brokers' %s: %llu\n", brokers_sim_count_name((enum brokers_sim_count)i),
               (unsigned long long)broker_events[i]);
        missing += broker_events[i] == 0;
    }
    if (lives >= 40)
        assert_int_equal(missing, 0);
}

static void one_seed_one_history(void **state)
{
    live(5, 0);
    uint64_t first = w.trace;
    live(5, 0);
    assert_true(w.trace == first);
    live(6, 0);
    assert_true(w.trace != first);
}

static void planted_bugs_are_found(void **state)
{
    static const char *const names[] = { "NOT_STORED", "EARLY_ACK", "NO_RESEND", "NO_EPOCH",
                                         "NO_DOUBT",   "NO_MARKER", "HIGH_BACK", "ANY_END" };
    for (unsigned plant = 0; plant < sizeof names / sizeof *names; plant++) {
        uint64_t seed = 1;
        while (seed < 400 && live(seed, 1u << plant))
            seed++;
        printf("# %s: life %llu: %s\n", names[plant], (unsigned long long)seed, w.violation);
        assert_true(seed < 400);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_life_keeps_its_word),
        cmocka_unit_test(one_seed_one_history),
        cmocka_unit_test(planted_bugs_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
