/* Groups between nodes. Goal: groups that are written are read back bit for bit, however many steps they have and
 * however the stream is cut; a group without all its steps, or with more, is none, and no damaged byte passes; a
 * request for groups survives as others do, in the version that brought it. Method: random groups and requests
 * from a seed; every byte flipped, every prefix; pieces put together wrongly by hand. */
#include "base/test.h"
#include "fanout/gather.h"
#include "fanout/wire.h"
#include "fanout/wire_format.h"
#include "model/labels.h"

#define GROUPS_MAX 30

struct answer {
    uint64_t step_count;
    uint32_t column_count;
    struct source_group groups[GROUPS_MAX];
    size_t count;
    struct source_groups unit;
    struct buf bytes;
};

static err collect(void *context, struct slice bytes)
{
    buf_put_slice(context, bytes);
    return buf_err(context);
}

static struct slice labels_of(struct pool *pool, size_t number)
{
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    char text[32];
    snprintf(text, sizeof text, "some value %zu", number);
    if (number > 0) /* one without labels, as of an aggregation over all */
        labels_put(&labels, slice_str("instance"), slice_str(text));
    assert_ok(buf_err(&labels));
    return labels.len > 0 ? buf_slice(&labels) : slice_of("", 0);
}

static const double *column_of(struct pool *pool, struct test_random *random, uint64_t count)
{
    void *at;
    unsigned how = (unsigned)test_random_below(random, 3);
    assert_ok(pool_alloc(pool, count * sizeof(double), &at));
    double *values = at;
    for (uint64_t i = 0; i < count; i++)
        values[i] = how == 0                            ? (double)test_random_below(random, 100)
                    : test_random_below(random, 4) == 0 ? bits_double(SAMPLE_STALE_BITS)
                    : how == 1                          ? bits_double(test_random_u64(random))
                                                        : 0;
    return values;
}

static struct answer *answer_make(struct pool *pool, struct test_random *random, uint64_t step_count,
                                  size_t count)
{
    static struct slice notes[] = { { (const uint8_t *)"one", 3 }, { (const uint8_t *)"two", 3 } };
    void *at;
    assert_ok(pool_zalloc(pool, sizeof(struct answer), &at));
    struct answer *answer = at;
    answer->step_count = step_count;
    answer->column_count = 1 + (uint32_t)test_random_below(random, SOURCE_GROUP_COLUMNS_MAX);
    answer->count = count;
    answer->unit = (struct source_groups){ .series_count = count + test_random_below(random, 100),
                                           .sample_count = test_random_u64(random),
                                           .warnings = notes,
                                           .warning_count = test_random_below(random, 3),
                                           .infos = notes,
                                           .info_count = test_random_below(random, 3) };
    answer->bytes = buf_open(pool, 64u << 20);
    for (size_t i = 0; i < count; i++) {
        answer->groups[i].labels = labels_of(pool, i);
        answer->groups[i].drop_name = test_random_below(random, 2) == 0;
        for (uint32_t k = 0; k < answer->column_count; k++)
            answer->groups[i].columns[k] = column_of(pool, random, step_count);
    }
    return answer;
}

static void answer_write(struct pool *pool, struct answer *answer)
{
    struct wire_out *out;
    struct proof proof = { .complete = true };
    assert_ok(wire_out_open(pool, WIRE_GROUPS, collect, &answer->bytes, &out));
    assert_ok(wire_out_unit(out, &answer->unit, answer->step_count, answer->column_count));
    for (size_t i = 0; i < answer->count; i++)
        assert_ok(wire_out_group(out, &answer->groups[i]));
    assert_ok(wire_out_proof(out, &proof));
}

static void notes_compare(const struct slice *want, size_t want_count, const struct slice *got,
                          size_t got_count)
{
    assert_int_equal(want_count, got_count);
    for (size_t i = 0; i < want_count; i++)
        assert_true(slice_equal(want[i], got[i]));
}

static void unit_compare(struct pool *pool, const struct answer *answer, struct slice body)
{
    struct source_groups got = { .proof = { .complete = true } };
    assert_ok(wire_unit_read(body, pool, answer->step_count, answer->column_count, &got));
    assert_true(got.series_count == answer->unit.series_count &&
                got.sample_count == answer->unit.sample_count);
    notes_compare(answer->unit.warnings, answer->unit.warning_count, got.warnings, got.warning_count);
    notes_compare(answer->unit.infos, answer->unit.info_count, got.infos, got.info_count);
    assert_err(ERR_INPUT, wire_unit_read(body, pool, answer->step_count + 1, answer->column_count, &got));
    assert_err(ERR_INPUT, wire_unit_read(body, pool, answer->step_count, answer->column_count % 3 + 1, &got));
}

/* Piece number `piece` of the answer's pieces, which come in order. */
static void piece_compare(const struct answer *answer, size_t piece, const struct wire_group *got)
{
    static double columns[SOURCE_GROUP_COLUMNS_MAX][WIRE_PIECE_ROW_COUNT_MAX];
    double *const to[] = { columns[0], columns[1], columns[2] };
    size_t pieces = (answer->step_count + WIRE_PIECE_ROW_COUNT_MAX - 1) / WIRE_PIECE_ROW_COUNT_MAX;
    uint64_t from = piece % pieces * WIRE_PIECE_ROW_COUNT_MAX;
    const struct source_group *want = &answer->groups[piece / pieces];
    assert_true(slice_equal(want->labels, got->labels) && want->drop_name == got->drop_name);
    assert_int_equal(got->continues, from > 0);
    wire_group_read(got, answer->column_count, to);
    assert_true(from + got->steps <= answer->step_count);
    for (uint32_t k = 0; k < answer->column_count; k++)
        assert_memory_equal(want->columns[k] + from, columns[k], got->steps * sizeof(double));
}

static void answer_read(struct pool *pool, const struct answer *answer, size_t cut)
{
    struct wire_in in = { .pool = pool, .kind = WIRE_GROUPS };
    struct slice all = buf_slice(&answer->bytes), chunk = slice_of("", 0);
    struct wire_block block = { 0 };
    struct wire_groups *groups;
    struct wire_group piece;
    size_t pieces = 0, used = 0;
    assert_ok(wire_groups_open(pool, answer->step_count, answer->column_count, &groups));
    while (block.type != WIRE_BLOCK_PROOF) {
        err e = wire_in_next(&in, &chunk, &block);
        if (e == ERR_END) {
            chunk = slice_part(all, used, all.len - used < cut ? all.len - used : cut);
            used += chunk.len;
            continue;
        }
        assert_ok(e);
        if (block.type == WIRE_BLOCK_UNIT)
            unit_compare(pool, answer, block.body);
        if (block.type != WIRE_BLOCK_GROUPS)
            continue;
        wire_groups_block(groups, block.body);
        while ((e = wire_groups_next(groups, &piece)) == OK)
            piece_compare(answer, pieces++, &piece);
        assert_err(ERR_END, e);
    }
    assert_true(wire_groups_are_whole(groups));
    assert_int_equal(pieces, answer->count * ((answer->step_count + WIRE_PIECE_ROW_COUNT_MAX - 1) /
                                              WIRE_PIECE_ROW_COUNT_MAX));
    wire_groups_close(groups);
}

static void groups_survive_any_cut(void **state)
{
    static const uint64_t step_counts[] = { 1, 2, 255, 300, 4095, 4096, 4097, 9000 };
    struct test_random random = test_random_begin("groups");
    for (unsigned turn = 0; turn < 40; turn++) {
        struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
        struct answer *answer =
            answer_make(pool, &random, step_counts[turn % 8], test_random_below(&random, GROUPS_MAX + 1));
        answer_write(pool, answer);
        answer_read(pool, answer, SIZE_MAX);
        answer_read(pool, answer, 1 + test_random_below(&random, 20000));
        pool_close(pool);
    }
}

/* Does an answer come to its good end? */
static bool is_whole(struct pool *pool, const struct answer *answer, struct slice bytes)
{
    struct wire_in in = { .pool = pool, .kind = WIRE_GROUPS };
    struct wire_block block = { 0 };
    struct source_groups unit = { 0 };
    struct wire_groups *groups;
    struct wire_group piece;
    struct proof proof;
    err e = OK;
    assert_ok(wire_groups_open(pool, answer->step_count, answer->column_count, &groups));
    while (e == OK && block.type != WIRE_BLOCK_PROOF) {
        e = wire_in_next(&in, &bytes, &block);
        if (e == OK && block.type == WIRE_BLOCK_UNIT)
            e = wire_unit_read(block.body, pool, answer->step_count, answer->column_count, &unit);
        if (e == OK && block.type == WIRE_BLOCK_GROUPS) {
            wire_groups_block(groups, block.body);
            while (e == OK)
                e = wire_groups_next(groups, &piece);
            e = e == ERR_END ? OK : e;
        }
    }
    bool are_whole = wire_groups_are_whole(groups);
    wire_groups_close(groups);
    return e == OK && are_whole && bytes.len == 0 && wire_proof_read(block.body, pool, &proof) == OK;
}

static void no_damaged_or_missing_byte_passes(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct test_random random = test_random_begin("damage");
    struct answer *answer = answer_make(pool, &random, 300, 2);
    answer_write(pool, answer);
    struct buf *b = &answer->bytes;
    assert_true(is_whole(pool, answer, buf_slice(b)));
    for (size_t i = 0; i < b->len; i++) {
        struct pool *one = pool_open(NULL, "one", POOL_BYTES_UNLIMITED);
        b->at[i] ^= (uint8_t)(1u << i % 8);
        assert_false(is_whole(one, answer, buf_slice(b)));
        b->at[i] ^= (uint8_t)(1u << i % 8);
        assert_false(is_whole(one, answer, slice_of(b->at, i)));
        pool_close(one);
    }
    pool_close(pool);
}

/* ---- pieces that do not go together ---- */

static void piece_put(struct buf *body, const char *labels, uint8_t flags, size_t vectors)
{
    static const uint8_t vector[4096];
    buf_put_varint(body, 0);
    buf_put_string(body, slice_str(labels));
    buf_put_u8(body, flags);
    buf_put(body, vector, vectors);
}

/* A piece of as many zeros as a group of steps takes, which the writer makes. */
static struct slice zeros(struct pool *pool, uint64_t step_count, struct slice labels, bool drop_name)
{
    void *at;
    struct wire_out *out;
    struct wire_in in = { .pool = pool, .kind = WIRE_GROUPS };
    struct wire_block block;
    struct source_groups unit = { .series_count = 1 };
    struct proof proof = { .complete = true };
    struct buf bytes = buf_open(pool, 1u << 20);
    assert_ok(pool_zalloc(pool, step_count * sizeof(double), &at));
    struct source_group group = { .labels = labels, .drop_name = drop_name, .columns = { at } };
    assert_ok(wire_out_open(pool, WIRE_GROUPS, collect, &bytes, &out));
    assert_ok(wire_out_unit(out, &unit, step_count, 1));
    assert_ok(wire_out_group(out, &group));
    assert_ok(wire_out_proof(out, &proof));
    struct slice left = buf_slice(&bytes);
    assert_ok(wire_in_next(&in, &left, &block));
    assert_ok(wire_in_next(&in, &left, &block));
    assert_int_equal(block.type, WIRE_BLOCK_GROUPS);
    return block.body;
}

static err read_bodies(struct pool *pool, uint64_t step_count, const struct slice *bodies, size_t count,
                       bool *out_are_whole)
{
    struct wire_groups *groups;
    struct wire_group piece;
    err e = OK;
    assert_ok(wire_groups_open(pool, step_count, 1, &groups));
    for (size_t i = 0; i < count && e == OK; i++) {
        wire_groups_block(groups, bodies[i]);
        while (e == OK)
            e = wire_groups_next(groups, &piece);
        e = e == ERR_END ? OK : e;
    }
    *out_are_whole = wire_groups_are_whole(groups);
    wire_groups_close(groups);
    return e;
}

static void pieces_that_do_not_go_together_are_refused(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct buf none = buf_open(pool, 10000);
    bool are_whole;
    struct slice a = zeros(pool, 4096, labels_of(pool, 1), false),
                 b = zeros(pool, 4096, labels_of(pool, 2), false);
    struct slice both[] = { a, b };
    assert_ok(read_bodies(pool, 4096, both, 2, &are_whole));
    assert_true(are_whole);
    assert_err(ERR_INPUT, read_bodies(pool, 4097, both, 2, &are_whole)); /* the second begins too early */
    assert_ok(read_bodies(pool, 4097, both, 1, &are_whole));
    assert_false(are_whole);
    struct slice empty = slice_of("", 0);
    assert_err(ERR_INPUT, read_bodies(pool, 1, &empty, 1, &are_whole));
    piece_put(&none, "", WIRE_GROUP_CONTINUES, 100); /* what does it continue? */
    struct slice continues = buf_slice(&none);
    assert_err(ERR_INPUT, read_bodies(pool, 1, &continues, 1, &are_whole));
    buf_clear(&none);
    piece_put(&none, "no labels", 0, 100);
    struct slice no_labels = buf_slice(&none);
    assert_err(ERR_INPUT, read_bodies(pool, 1, &no_labels, 1, &are_whole));
    buf_clear(&none);
    piece_put(&none, "", 4, 100); /* a flag that is none */
    struct slice flags = buf_slice(&none);
    assert_err(ERR_INPUT, read_bodies(pool, 1, &flags, 1, &are_whole));
    pool_close(pool);
}

/* ---- whole answers ---- */

enum part { PART_UNIT, PART_GROUP, PART_PROOF, PART_NOTHING };

/* What a receiver makes of an answer of these parts, PART_NOTHING being its end. */
static err receive_parts(const enum part *parts, uint64_t series_count, uint64_t sample_count, int *out_over)
{
    static const double values[3] = { 1, 2, 3 };
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct receive_limits limits = {
        .series_max = 10, .samples_max = 1000, .step_count = 3, .column_count = 1
    };
    struct source_groups unit = { .series_count = series_count, .sample_count = sample_count };
    struct source_group group = { .labels = slice_of("", 0), .columns = { values } };
    struct proof proof = { .complete = true };
    struct buf bytes = buf_open(pool, 100000);
    struct wire_out *out;
    struct receive r;
    assert_ok(wire_out_open(pool, WIRE_GROUPS, collect, &bytes, &out));
    for (bool has_unit = false; *parts != PART_NOTHING; parts++) {
        if (*parts == PART_UNIT)
            assert_ok(wire_out_unit(out, &unit, 3, 1));
        else if (*parts == PART_PROOF)
            assert_ok(wire_out_proof(out, &proof));
        else if (has_unit)
            assert_ok(wire_out_group(out, &group));
        else { /* the writer knows its shape from the unit, which it can only be made to forget */
            assert_ok(wire_out_unit(out, &unit, 3, 1));
            bytes.len = WIRE_BLOCK_HEAD_BYTES + 6;
            assert_ok(wire_out_group(out, &group));
        }
        has_unit = has_unit || *parts == PART_UNIT;
    }
    assert_ok(receive_open(&r, WIRE_GROUPS, &limits, pool));
    err e = receive_bytes(&r, buf_slice(&bytes));
    assert_int_equal(r.is_whole, e == OK);
    *out_over = r.over;
    receive_close(&r);
    pool_close(pool);
    return e;
}

static void an_answer_is_one_unit_and_its_groups(void **state)
{
    static const enum part good[] = { PART_UNIT, PART_GROUP, PART_GROUP, PART_PROOF, PART_NOTHING };
    static const enum part no_groups[] = { PART_UNIT, PART_PROOF, PART_NOTHING };
    static const enum part no_unit[] = { PART_PROOF, PART_NOTHING };
    static const enum part late[] = { PART_GROUP, PART_UNIT, PART_PROOF, PART_NOTHING };
    static const enum part twice[] = { PART_UNIT, PART_UNIT, PART_PROOF, PART_NOTHING };
    int over;
    assert_ok(receive_parts(good, 2, 1000, &over));
    assert_ok(receive_parts(no_groups, 0, 0, &over));
    assert_ok(receive_parts(good, 1, 5, &over));             /* a series has a value at each step */
    assert_err(ERR_INPUT, receive_parts(good, 0, 5, &over)); /* more groups than values of series */
    assert_err(ERR_INPUT, receive_parts(no_unit, 2, 5, &over));
    assert_err(ERR_INPUT, receive_parts(late, 2, 5, &over));
    assert_err(ERR_INPUT, receive_parts(twice, 2, 5, &over));
    assert_err(ERR_LIMIT, receive_parts(good, 11, 5, &over));
    assert_int_equal(over, RECEIVE_OVER_SERIES);
    assert_err(ERR_LIMIT, receive_parts(good, 10, 1001, &over));
    assert_int_equal(over, RECEIVE_OVER_SAMPLES);
}

/* ---- requests ---- */

static struct wire_request request_of(const struct wire_selector *selector)
{
    return (struct wire_request){ .kind = WIRE_GROUPS,
                                  .tenant = slice_str("t"),
                                  .series_max = 10,
                                  .samples_max = UINT64_MAX,
                                  .selectors = selector,
                                  .selector_count = 1,
                                  .unit = { .text = slice_str("1 + sum(x)"),
                                            .begin = 4,
                                            .end = 10,
                                            .query_start_ms = -5,
                                            .query_end_ms = 1700000000000,
                                            .query_step_ms = 1000,
                                            .start_ms = -7,
                                            .step_ms = 15000,
                                            .step_count = 300,
                                            .lookback_ms = 300000,
                                            .subquery_step_ms = 60000,
                                            .column_count = 2 } };
}

static err request_again(struct pool *pool, const struct wire_request *request, struct wire_request *out)
{
    struct buf bytes = buf_open(pool, WIRE_REQUEST_BYTES_MAX);
    assert_ok(wire_request_encode(request, &bytes));
    assert_int_equal(bytes.at[4], wire_version(request->kind));
    return wire_request_decode(buf_slice(&bytes), pool, out, NULL);
}

static void a_request_for_groups_survives(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct wire_selector selector = { .range = { -100, 100 } };
    struct wire_request request = request_of(&selector), got;
    struct source_unit *u = &request.unit;
    assert_ok(request_again(pool, &request, &got));
    assert_true(slice_equal(got.unit.text, u->text) && got.unit.begin == 4 && got.unit.end == 10);
    assert_true(got.unit.query_start_ms == -5 && got.unit.query_end_ms == 1700000000000);
    assert_true(got.unit.query_step_ms == 1000 && got.unit.start_ms == -7 && got.unit.step_ms == 15000);
    assert_true(got.unit.step_count == 300 && got.unit.lookback_ms == 300000);
    assert_true(got.unit.subquery_step_ms == 60000 && got.unit.column_count == 2);
    u->end = 11;
    assert_err(ERR_INPUT, request_again(pool, &request, &got));
    u->end = 3;
    assert_err(ERR_INPUT, request_again(pool, &request, &got));
    u->end = 10;
    u->step_count = WIRE_STEP_COUNT_MAX + 1;
    assert_err(ERR_INPUT, request_again(pool, &request, &got));
    u->step_count = 0;
    assert_err(ERR_INPUT, request_again(pool, &request, &got));
    u->step_count = 1;
    u->column_count = SOURCE_GROUP_COLUMNS_MAX + 1;
    assert_err(ERR_INPUT, request_again(pool, &request, &got));
    u->column_count = 1;
    assert_ok(request_again(pool, &request, &got));
    request.selector_count = 0;
    assert_err(ERR_INPUT, request_again(pool, &request, &got));
    pool_close(pool);
}

/* Who does not know groups says so in the version that it knows, and nothing but that. */
static void a_refusal_of_an_older_node_is_read(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct buf bytes = buf_open(pool, 10000);
    struct wire_in in = { .pool = pool, .kind = WIRE_GROUPS };
    struct proof proof = { .complete = true };
    struct wire_out *out;
    struct wire_block block;
    err error;
    uint64_t series_over;
    assert_ok(wire_out_open(pool, WIRE_SAMPLES, collect, &bytes, &out));
    assert_ok(wire_out_error(out, ERR_VERSION, 0));
    struct slice left = buf_slice(&bytes);
    assert_ok(wire_in_next(&in, &left, &block));
    assert_ok(wire_error_read(block.body, &error, &series_over));
    assert_int_equal(error, ERR_VERSION);
    buf_clear(&bytes);
    in = (struct wire_in){ .pool = pool, .kind = WIRE_GROUPS };
    assert_ok(wire_out_open(pool, WIRE_SAMPLES, collect, &bytes, &out));
    assert_ok(wire_out_proof(out, &proof));
    left = buf_slice(&bytes);
    assert_err(ERR_INPUT, wire_in_next(&in, &left, &block));
    pool_close(pool);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_survive_any_cut),
        cmocka_unit_test(no_damaged_or_missing_byte_passes),
        cmocka_unit_test(pieces_that_do_not_go_together_are_refused),
        cmocka_unit_test(an_answer_is_one_unit_and_its_groups),
        cmocka_unit_test(a_request_for_groups_survives),
        cmocka_unit_test(a_refusal_of_an_older_node_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
