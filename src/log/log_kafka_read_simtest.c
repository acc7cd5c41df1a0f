/* Readers of the Kafka driver, event by event. */
#include "sim/kafka_script.h"

static void open_reader(uint64_t offset, int32_t epoch)
{
    assert_ok(log_reader_open(kafka, 0, offset, epoch, &reader));
    pump();
    pump();
    assert_true(script.is_assigned[0]);
    assert_int_equal(script.assigned[0], offset);
    assert_int_equal(script.assigned_epoch[0], epoch);
}

static void tell_record(uint64_t offset, int32_t epoch, struct slice bytes)
{
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_RECORD,
                                     .partition = 0,
                                     .offset = offset,
                                     .leader_epoch = epoch,
                                     .record = { .bytes = bytes } });
    pump();
}

/* The bytes that the driver makes of a text; the append stays open. */
static struct slice made_of(const char *text)
{
    static struct request requests[8];
    static size_t count;
    append(&requests[count++ % 8], 1, text);
    pump();
    struct made *m = &script.made[script.made_count - 1];
    answer_made(script.made_count - 1, KAFKA_ACKED, 100 + script.made_count);
    pump();
    return slice_of(m->bytes, m->len);
}

static struct log_record next_record(void)
{
    struct log_record record;
    assert_ok(log_reader_next(reader, &record));
    return record;
}

static void records_come_in_order(void **state)
{
    struct log_record record;
    begin();
    struct slice a = made_of("first"), b = made_of("second");
    open_reader(7, 2);
    assert_err(ERR_END, log_reader_next(reader, &record));
    tell_record(7, 2, a);
    tell_record(8, 3, b);
    record = next_record();
    assert_true(record.position.offset == 7 && slice_equal_str(record.bytes, "first") &&
                record.leader_epoch == 2);
    record = next_record();
    assert_true(record.position.offset == 8 && slice_equal_str(record.bytes, "second") &&
                record.missing == 0);
    assert_err(ERR_END, log_reader_next(reader, &record));
    tell_record(9, 3, slice_str("somebody else's"));
    assert_true(next_record().damaged);
    uint8_t torn[64];
    memcpy(torn, a.at, a.len);
    torn[a.len - 1] ^= 1;
    tell_record(10, 3, slice_of(torn, a.len));
    assert_true(next_record().damaged);
    tell_record(10, 3, a); /* again: no */
    assert_err(ERR_END, log_reader_next(reader, &record));
}

static void holes_are_looked_at_again(void **state)
{
    begin();
    struct slice a = made_of("a");
    open_reader(0, LOG_EPOCH_NONE);
    tell_record(0, 1, a);
    next_record();
    for (int i = 0; i < LOG_KAFKA_HOLE_TRIES - 1; i++) {
        struct log_record record;
        tell_record(4, 1, a);
        assert_err(ERR_END, log_reader_next(reader, &record));
        assert_false(script.is_assigned[0]);
        pump_for(1000);
        assert_true(script.is_assigned[0] && script.assigned[0] == 1 && script.assigned_epoch[0] == 1);
    }
    tell_record(4, 1, a);
    struct log_record record = next_record();
    assert_true(record.position.offset == 4 && record.missing == 3 && !record.damaged);
}

static void an_old_leader_is_not_believed(void **state)
{
    struct log_record record;
    begin();
    struct slice a = made_of("a");
    open_reader(5, 1);
    tell_ends(0, 6, 1);
    tell_record(5, 1, a);
    next_record();
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_OUT_OF_RANGE, .partition = 0, .offset = 6 });
    pump();
    assert_false(script.is_assigned[0]);
    pump_for(100);
    size_t marker = script.made_count - 1; /* a word of our own */
    assert_int_equal(script.made[marker].len, LOG_KAFKA_HEAD_BYTES);
    answer_made(marker, KAFKA_ACKED, 9);
    pump_for(1000);
    assert_true(script.is_assigned[0] && script.assigned[0] == 6 && script.assigned_epoch[0] == 1);
    tell_record(6, 1, slice_of(script.made[marker].bytes, LOG_KAFKA_HEAD_BYTES));
    record = next_record();
    assert_true(record.is_marker && record.bytes.len == 0 && record.position.offset == 6);
}

static void tell_truncated(uint64_t offset, uint64_t end, int32_t epoch)
{
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_TRUNCATED,
                                     .partition = 0,
                                     .offset = offset,
                                     .truncated = { .end_offset = end, .end_epoch = epoch } });
    pump();
}

/* The topic is looked at before anything is told. */
static void expect_back(uint64_t at)
{
    struct log_record record;
    uint64_t from;
    assert_err(ERR_END, log_reader_next(reader, &record));
    assert_err(ERR_BUSY, log_went_back(kafka, 0, &from));
    pump();
    tell_topic();
    pump();
    assert_err(ERR_ORDER, log_reader_next(reader, &record));
    assert_ok(log_went_back(kafka, 0, &from));
    assert_int_equal(from, at);
}

/* A reader has read up to 50, and the log went back to 44. It is known, and the reader is closed. */
static void back_from_50_to_44(void)
{
    begin();
    open_reader(50, 4);
    tell_ends(0, 50, 4);
    tell_truncated(50, 44, 4);
    pump_for(100);
    answer_made(last_made(), KAFKA_ACKED, 45);
    pump_for(1000);
    tell_truncated(50, 44, 4);
    expect_back(44);
    log_reader_close(reader);
    reader = NULL;
}

/* A generation begins with the epoch of what stays: readers that begin there are checked by it. */
static void the_epoch_below_is_known(void **state)
{
    begin();
    struct slice a = made_of("a");
    open_reader(42, 3);
    for (uint64_t i = 42; i < 50; i++) {
        tell_record(i, i < 44 ? 3 : i < 47 ? 4 : 5, a);
        (void)next_record();
    }
    assert_int_equal(log_epoch_before(kafka, 0, 47), LOG_EPOCH_NONE); /* it did not go back */
    tell_truncated(50, 47, 4);
    pump_for(1000);
    answer_made(last_made(), KAFKA_ACKED, 48);
    pump_for(1000);
    tell_truncated(50, 47, 4);
    expect_back(47);
    assert_int_equal(log_epoch_before(kafka, 0, 47), 4);
    assert_int_equal(log_epoch_before(kafka, 0, 46), LOG_EPOCH_NONE);
}

static void a_log_that_went_back_is_told(void **state)
{
    struct log_record record;
    begin();
    open_reader(50, 4);
    tell_ends(0, 50, 4);
    tell_truncated(50, 44, 4);
    pump_for(100);
    assert_err(ERR_END, log_reader_next(reader, &record)); /* not yet sure */
    answer_made(last_made(), KAFKA_MAYBE_STORED, 0);
    pump_for(200);
    answer_made(last_made(), KAFKA_ACKED, 45);
    pump_for(1000);
    assert_true(script.is_assigned[0] && script.assigned[0] == 50 && script.assigned_epoch[0] == 4);
    tell_truncated(50, 44, 4); /* by a leader that has our marker */
    expect_back(44);
    uint64_t from;
    struct request r;
    assert_err(ERR_NOT_FOUND, log_went_back(kafka, 1, &from));
    append(&r, 0, "too early");
    pump();
    assert_int_equal(r.result, ERR_BUSY);
    log_reader_close(reader); /* whoever applies begins a generation there */
    log_go_on(kafka, 0, 44);
    open_reader(44, 4);
    assert_err(ERR_NOT_FOUND, log_went_back(kafka, 0, &from));
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 44);
    assert_true(log_watermarks(kafka, 0).confirmed_ns == INT64_MIN);
    append(&r, 0, "new");
    pump();
    answer_made(last_made(), KAFKA_ACKED, 46); /* below what was acknowledged in the life before */
    pump();
    assert_int_equal(r.result, OK);
}

static void go_on_and_open(void)
{
    log_go_on(kafka, 0, 44);
    assert_ok(log_reader_open(kafka, 0, 44, 4, &reader));
}

/* What lies between is the old log's still, and was acknowledged in it. */
static void who_goes_on_lower_hears_of_the_rest(void **state)
{
    struct request r;
    back_from_50_to_44();
    log_go_on(kafka, 0, 40);
    append(&r, 0, "new");
    pump();
    answer_made(last_made(), KAFKA_ACKED, 46);
    pump();
    assert_int_equal(r.result, OK);
    tell_ends(0, 60, 6);
    pump();
    answer_made(last_made(), KAFKA_ACKED, 61);
    pump();
    assert_true(script.is_assigned[0] && script.assigned[0] == 44 && script.assigned_epoch[0] == 4);
}

/* Between a pump's look at what other threads said and its look at the readers. */
static void a_reader_of_the_new_generation_reads(void **state)
{
    struct log_record record;
    back_from_50_to_44();
    script.meanwhile = go_on_and_open;
    tell_ends(0, 50, 4);
    pump_for(3000);
    assert_null(script.meanwhile);
    assert_err(ERR_END, log_reader_next(reader, &record));
    assert_true(script.is_assigned[0] && script.assigned[0] == 44 && script.assigned_epoch[0] == 4);
}

/* It went back, and nothing was acknowledged here but a marker, below an end that was known when it was sent. */
static void a_marker_is_held_against_the_end(void **state)
{
    struct request early, r;
    uint64_t from;
    begin();
    open_reader(50, 4);
    append(&early, 0, NULL);
    pump();
    tell_ends(0, 60, 4);
    answer_made(last_made(), KAFKA_ACKED, 55); /* it was sent before that end was known */
    pump();
    assert_int_equal(early.result, OK);
    assert_err(ERR_NOT_FOUND, log_went_back(kafka, 0, &from));
    append(&r, 0, NULL);
    pump();
    answer_made(last_made(), KAFKA_ACKED, 57);
    pump();
    assert_int_equal(r.result, ERR_IO);
    assert_err(ERR_BUSY, log_went_back(kafka, 0, &from));
    pump_for(1000); /* where, is asked by one more marker */
    answer_made(last_made(), KAFKA_ACKED, 58);
    pump_for(100);
    tell_truncated(60, 53, 4);
    pump();
    tell_topic();
    assert_ok(log_went_back(kafka, 0, &from));
    assert_int_equal(from, 53);
}

/* What stands behind a record is of its epoch or a later one; else the log is another one. */
static void a_record_of_an_older_epoch_is_not_taken(void **state)
{
    struct log_record record;
    begin();
    struct slice a = made_of("a");
    open_reader(39, 2);
    tell_record(39, 2, a);
    tell_record(40, 4, a);
    tell_record(41, 4, a);
    for (int i = 0; i < 3; i++)
        next_record();
    tell_record(42, 3, a);
    assert_err(ERR_END, log_reader_next(reader, &record));
    assert_false(script.is_assigned[0]);
    pump_for(100);
    answer_made(last_made(), KAFKA_ACKED, 60);
    pump_for(1000);
    assert_true(script.is_assigned[0] && script.assigned[0] == 42);
    tell_record(42, 3, a); /* and a leader that has our marker says so, too */
    expect_back(40);
}

/* Between what was read and the place lies what was only acknowledged, under whatever epochs. */
static void the_epoch_of_what_was_not_read_is_not_known(void **state)
{
    struct request r[2];
    uint64_t from;
    begin();
    struct slice a = made_of("a");
    open_reader(42, 3);
    tell_ends(0, 44, 3);
    tell_record(42, 3, a);
    tell_record(43, 3, a);
    (void)next_record();
    (void)next_record();
    for (uint64_t i = 0; i < 2; i++) {
        append(&r[i], 0, i == 0 ? "b" : "c");
        pump();
        answer_made(last_made(), KAFKA_ACKED, 45 + i);
        pump();
    }
    size_t first = last_made() - 1;
    tell_ends(0, 47, 6);
    pump();
    answer_made(last_made(), KAFKA_ACKED, 47);
    pump();
    assert_true(script.assigned[0] == 44 && script.assigned_epoch[0] == 3);
    const struct made *m = &script.made[first];
    tell_record(45, 5, slice_of(m->bytes, m->len)); /* there is the one, and not the other */
    tell_record(46, 6, a);
    m = &script.made[last_made()];
    tell_record(47, 6, slice_of(m->bytes, m->len));
    pump();
    tell_topic();
    assert_ok(log_went_back(kafka, 0, &from));
    assert_int_equal(from, 46);
    assert_int_equal(log_epoch_before(kafka, 0, 46), LOG_EPOCH_NONE);
}

/* Nothing of ours was lost, but what others wrote, and we read: the place is theirs. */
static void what_was_read_is_looked_for(void **state)
{
    struct request r[2];
    uint64_t from;
    begin();
    struct slice a = made_of("a");
    open_reader(42, 3);
    tell_ends(0, 42, 3);
    append(&r[0], 0, "b");
    pump();
    size_t ours = last_made();
    answer_made(ours, KAFKA_ACKED, 42);
    pump();
    tell_record(42, 3, slice_of(script.made[ours].bytes, script.made[ours].len));
    for (uint64_t i = 43; i < 48; i++)
        tell_record(i, 3, a);
    append(&r[1], 0, "c"); /* of the new log */
    pump();
    answer_made(last_made(), KAFKA_ACKED, 50);
    pump();
    tell_ends(0, 51, 6);
    pump();
    size_t marker = last_made();
    answer_made(marker, KAFKA_ACKED, 51);
    pump();
    assert_true(script.assigned[0] == 42 && script.assigned_epoch[0] == 3);
    tell_record(42, 3, slice_of(script.made[ours].bytes, script.made[ours].len));
    for (uint64_t i = 43; i < 50; i++)
        tell_record(i, i < 45 ? 3 : 6, a);
    tell_record(50, 6, slice_of(script.made[marker - 1].bytes, script.made[marker - 1].len));
    tell_record(51, 6, slice_of(script.made[marker].bytes, script.made[marker].len));
    pump();
    tell_topic();
    assert_ok(log_went_back(kafka, 0, &from));
    assert_int_equal(from, 45);
    assert_int_equal(log_epoch_before(kafka, 0, 45), 3);
}

/* It went back and others wrote since, beyond what was read: the check by epoch tells, the marker does not. */
static void a_log_that_grew_again_is_told(void **state)
{
    struct log_record record;
    begin();
    open_reader(50, 4);
    tell_truncated(50, 44, 4);
    pump_for(100);
    answer_made(last_made(), KAFKA_ACKED, 60);
    pump_for(1000);
    assert_true(script.is_assigned[0] && script.assigned[0] == 50);
    assert_err(ERR_END, log_reader_next(reader, &record));
    tell_truncated(50, 44, 4);
    expect_back(44);
}

/* The one leader says 44 in an epoch of which another knew less: what was read since 40 is of the next one. */
static void the_log_parts_where_an_epoch_ended(void **state)
{
    begin();
    struct slice a = made_of("a");
    open_reader(39, 2);
    tell_record(39, 2, a);
    tell_record(40, 3, a);
    tell_record(41, 4, a);
    for (int i = 0; i < 3; i++)
        next_record();
    tell_truncated(42, 44, 2);
    pump_for(100);
    answer_made(last_made(), KAFKA_ACKED, 60);
    pump_for(1000);
    tell_truncated(42, 41, 2);
    expect_back(40);
}

/* What was acknowledged to others behind the place where the log went back is not passed over. */
static void the_lowest_end_counts(void **state)
{
    begin();
    open_reader(50, 4);
    tell_ends(0, 50, 4);
    for (int i = 0; i <= LOG_KAFKA_HOLE_TRIES; i++) { /* no leader checks the epoch */
        push_event((struct kafka_event){ .kind = KAFKA_EVENT_OUT_OF_RANGE, .partition = 0, .offset = 50 });
        pump();
        pump_for(100);
        answer_made(last_made(), KAFKA_ACKED, 46 + (uint64_t)i);
        pump();
        if (i < LOG_KAFKA_HOLE_TRIES)
            pump_for(1000);
    }
    expect_back(46);
}

static void a_reader_may_go_while_its_marker_is_on_its_way(void **state)
{
    begin();
    open_reader(50, 4);
    tell_ends(0, 50, 4);
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_OUT_OF_RANGE, .partition = 0, .offset = 50 });
    pump();
    pump_for(100);
    log_reader_close(reader);
    open_reader(7, 1); /* its place is free at once */
    log_reader_close(reader);
    reader = NULL;
    log_close(kafka);
    kafka = NULL;
}

static void close_reader(void)
{
    log_reader_close(reader);
    reader = NULL;
}

/* What was queued is freed, and a record comes before the pump has looked. */
static void a_reader_may_go_while_records_come(void **state)
{
    begin();
    struct slice a = made_of("a");
    open_reader(7, 2);
    tell_record(7, 2, a);
    tell_ends(0, 8, 2);
    io_sim_clock_advance(io, 2 * LOG_KAFKA_ENDS_MS * NS_PER_MS);
    script.meanwhile = close_reader;
    tell_record(8, 2, a);
    assert_null(script.meanwhile);
    open_reader(8, 2);
}

static void what_expired_is_told(void **state)
{
    struct log_record record;
    begin();
    open_reader(10, 1);
    tell_ends(20, 30, 1);
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_OUT_OF_RANGE, .partition = 0, .offset = 10 });
    pump();
    assert_err(ERR_NOT_FOUND, log_reader_next(reader, &record));
    assert_int_equal(log_watermarks(kafka, 0).start_offset, 20);
}

static void ends_of_old_leaders_do_not_count(void **state)
{
    begin();
    open_reader(0, LOG_EPOCH_NONE);
    tell_ends(0, 10, 3);
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 10);
    tell_ends(0, 40, 2);
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 10);
    tell_ends(0, 8, 3);
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 10);
    tell_ends(0, 12, 4);
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 12);
    tell_ends(0, 8, 6); /* not believed, and no older leader after it */
    tell_ends(0, 50, 5);
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 12);
    tell_ends(0, 50, 6);
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 50);
}

static void reading_stops_when_nobody_takes(void **state)
{
    struct log_reader *other;
    uint64_t count = 0;
    begin();
    struct slice a = made_of("0123456789012345678901234567890123456789012345678901234567890123456789");
    assert_ok(log_reader_open(kafka, 1, 0, LOG_EPOCH_NONE, &other));
    open_reader(0, LOG_EPOCH_NONE);
    while (script.is_assigned[0])
        tell_record(count++, 1, a);
    assert_true(count > 4 && count < 40);
    assert_true(script.is_assigned[1] && script.records_are_wanted); /* the other one goes on */
    pump_for(1000);
    assert_false(script.is_assigned[0]);
    unsigned wakes = script.wakes;
    for (uint64_t i = 0; i < count; i++)
        assert_int_equal(next_record().position.offset, i);
    assert_int_equal(script.wakes, wakes + 1);
    pump_for(100);
    assert_true(script.is_assigned[0] && script.assigned[0] == count);
    log_reader_close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(records_come_in_order),
        TEST(holes_are_looked_at_again),
        TEST(an_old_leader_is_not_believed),
        TEST(the_epoch_below_is_known),
        TEST(a_log_that_went_back_is_told),
        TEST(who_goes_on_lower_hears_of_the_rest),
        TEST(a_reader_of_the_new_generation_reads),
        TEST(a_marker_is_held_against_the_end),
        TEST(a_record_of_an_older_epoch_is_not_taken),
        TEST(the_epoch_of_what_was_not_read_is_not_known),
        TEST(what_was_read_is_looked_for),
        TEST(a_log_that_grew_again_is_told),
        TEST(the_log_parts_where_an_epoch_ended),
        TEST(the_lowest_end_counts),
        TEST(a_reader_may_go_while_its_marker_is_on_its_way),
        TEST(a_reader_may_go_while_records_come),
        TEST(what_expired_is_told),
        TEST(ends_of_old_leaders_do_not_count),
        TEST(reading_stops_when_nobody_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
