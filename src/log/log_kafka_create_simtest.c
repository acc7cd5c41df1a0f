/* Creating a topic: only where a broker says that there is none, repeated while brokers cannot answer, and never
 * beyond the budget. A client that plays a list of answers stands for the brokers. */
#include "base/test.h"

#include <string.h>

#include "base/time.h"
#include "log/log_kafka.h"
#include "sim/io_sim.h"

#define ANSWERS_MAX 8
#define BUDGET_MS   20000
#define SILENT      ERR_END       /* no answer to this one */
#define NOTHING     ERR_EXECUTION /* behind the last of a list */

static struct io *io;

/* What is asked, and what comes of it, in turn; the last answer of a list is given for ever. */
static struct {
    struct kafka_client client;
    err topic[ANSWERS_MAX], created[ANSWERS_MAX];
    size_t topic_asked, created_asked;
    bool is_waiting;
    struct kafka_event event;
    char settings[512];
    uint32_t partitions, replicas;
} play;

static err nth(const err *answers, size_t i)
{
    size_t at = 0;
    while (at < i && at + 1 < ANSWERS_MAX && answers[at + 1] != NOTHING)
        at++;
    return answers[at];
}

static void tell(enum kafka_event_kind kind, uint64_t cookie, err result)
{
    play.is_waiting = result != SILENT;
    play.event = (struct kafka_event){ .kind = kind, .cookie = cookie, .result = result, .text = "said so" };
}

static err play_topic(struct kafka_client *client, int64_t budget_ms, uint64_t cookie)
{
    assert_true(budget_ms >= 1 && budget_ms <= LOG_KAFKA_ASK_MS);
    tell(KAFKA_EVENT_TOPIC, cookie, nth(play.topic, play.topic_asked++));
    return OK;
}

static err play_create(struct kafka_client *client, const struct kafka_new_topic *wanted, int64_t budget_ms,
                       uint64_t cookie)
{
    size_t len = 0;
    for (size_t i = 0; i < wanted->config_count; i++)
        len += (size_t)snprintf(play.settings + len, sizeof play.settings - len, "%s=%s;",
                                wanted->configs[i].name, wanted->configs[i].value);
    play.partitions = wanted->partition_count;
    play.replicas = wanted->replica_count;
    tell(KAFKA_EVENT_DONE, cookie, nth(play.created, play.created_asked++));
    return OK;
}

static err play_poll(struct kafka_client *client, int64_t budget_ms, bool with_records,
                     struct kafka_event *out_event)
{
    if (!play.is_waiting) {
        io_sim_clock_advance(io, budget_ms * NS_PER_MS);
        return ERR_END;
    }
    play.is_waiting = false;
    *out_event = play.event;
    return OK;
}

static const struct kafka_client_calls calls = { .poll = play_poll,
                                                 .ask_topic = play_topic,
                                                 .create_topic = play_create };

static err create(const err *topic, size_t topic_count, const err *created, size_t created_count,
                  bool is_control, struct err_at *at)
{
    struct log_kafka_config config = { .partition_count = 4, .is_control = is_control };
    memset(&play, 0, sizeof play);
    memset(at, 0, sizeof *at);
    play.client.calls = &calls;
    for (size_t i = 0; i < ANSWERS_MAX; i++) {
        play.topic[i] = i < topic_count ? topic[i] : NOTHING;
        play.created[i] = i < created_count ? created[i] : NOTHING;
    }
    return log_kafka_create(&config, 3, 86400000, BUDGET_MS, &play.client, io, at);
}

#define CREATE(topic, created, is_control) \
    create(topic, sizeof(topic) / sizeof(err), created, sizeof(created) / sizeof(err), is_control, &at)

static void what_is_there_stays(void **state)
{
    const err there[] = { OK }, never[] = { ERR_IO };
    struct err_at at;
    assert_ok(CREATE(there, never, false));
    assert_int_equal(play.created_asked, 0);
}

static void what_is_not_there_is_created_fit(void **state)
{
    const err topic[] = { ERR_NOT_FOUND, ERR_NOT_FOUND, OK }, created[] = { OK, ERR_EXISTS };
    struct err_at at;
    assert_ok(CREATE(topic, created, false));
    assert_int_equal(play.created_asked, 2); /* a new topic takes a moment to spread */
    assert_true(play.partitions == 4 && play.replicas == 3);
    assert_non_null(strstr(play.settings,
                           "cleanup.policy=delete;retention.ms=86400000;retention.bytes=-1;"
                           "min.insync.replicas=2;unclean.leader.election.enable=false;"
                           "max.message.bytes=17826816;message.timestamp.type=LogAppendTime;"));
    assert_ok(CREATE(topic, created, true));
    assert_non_null(strstr(play.settings, "retention.ms=-1;"));
}

static void what_is_not_known_is_asked_again(void **state)
{
    const err topic[] = { ERR_TIMEOUT, SILENT, ERR_BUSY, ERR_NOT_FOUND, OK }, created[] = { ERR_BUSY };
    struct err_at at;
    assert_ok(CREATE(topic, created, false));
    assert_int_equal(play.created_asked, 1);
    assert_int_equal(play.topic_asked, 5);
}

static void refusals_end_it(void **state)
{
    const err gone[] = { ERR_NOT_FOUND }, refused[] = { ERR_INPUT }, denied[] = { ERR_DENIED },
              silent[] = { SILENT };
    struct err_at at;
    assert_err(ERR_INPUT, CREATE(gone, refused, false));
    assert_int_equal(play.created_asked, 1);
    assert_non_null(strstr(at.text, "said so"));
    assert_err(ERR_DENIED, CREATE(denied, refused, false));
    assert_int_equal(play.created_asked, 0);
    int64_t begun_ns = io_boottime_ns(io);
    assert_err(ERR_TIMEOUT, CREATE(silent, refused, false));
    assert_in_range((io_boottime_ns(io) - begun_ns) / NS_PER_MS, BUDGET_MS, BUDGET_MS + 1000);
}

static err find(const err *topic, size_t topic_count, struct err_at *at)
{
    memset(&play, 0, sizeof play);
    play.client.calls = &calls;
    for (size_t i = 0; i < ANSWERS_MAX; i++)
        play.topic[i] = i < topic_count ? topic[i] : NOTHING;
    return log_kafka_find(BUDGET_MS, &play.client, io, at);
}

static void a_look_creates_nothing(void **state)
{
    const err there[] = { ERR_TIMEOUT, OK }, gone[] = { SILENT, ERR_BUSY, ERR_NOT_FOUND },
              denied[] = { ERR_DENIED }, silent[] = { SILENT };
    struct err_at at = { 0 };
    assert_ok(find(there, 2, &at));
    assert_err(ERR_NOT_FOUND, find(gone, 3, &at));
    assert_err(ERR_DENIED, find(denied, 1, &at));
    assert_non_null(strstr(at.text, "said so"));
    assert_err(ERR_TIMEOUT, find(silent, 1, &at));
    assert_int_equal(play.created_asked, 0);
}

static int set_up(void **state)
{
    assert_ok(io_sim_open(1, &io));
    return 0;
}

static int tear_down(void **state)
{
    io_close(io);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_there_stays),
        cmocka_unit_test(what_is_not_there_is_created_fit),
        cmocka_unit_test(what_is_not_known_is_asked_again),
        cmocka_unit_test(refusals_end_it),
        cmocka_unit_test(a_look_creates_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
