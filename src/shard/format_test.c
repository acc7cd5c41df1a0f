/* The byte formats of shard/: dedupe sets, chain entries and their fold, states, stream frames. Random content
 * against naive models; every truncation and many bit flips must be refused or read as something valid, never
 * crash. */
#include "base/test.h"

#include "shard/chain.h"
#include "shard/dedupe.h"
#include "shard/partition.h"

#include "model/labels.h"

#include <unistd.h>

static struct pool *root;

static int setup(void **unused)
{
    root = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    return 0;
}
static int teardown(void **unused)
{
    pool_close(root);
    return 0;
}

/* ---- dedupe ---- */

static void dedupe_agrees_with_bitmap(void **unused)
{
    struct test_random r = test_random_begin("dedupe");
    for (int round = 0; round < 200; round++) {
        struct dedupe d = dedupe_open(root);
        bool model[300] = { false };
        uint64_t size = 0, count = test_random_below(&r, 400), span = 1 + test_random_below(&r, 300);
        for (uint64_t i = 0; i < count; i++) {
            uint64_t sequence = test_random_below(&r, span);
            bool is_new;
            assert_int_equal(dedupe_has(&d, sequence), model[sequence]);
            assert_ok(dedupe_add(&d, sequence, &is_new));
            assert_int_equal(is_new, !model[sequence]);
            size += is_new;
            model[sequence] = true;
        }
        assert_int_equal(dedupe_size(&d), size);
        for (size_t i = 1; i < d.count; i++)
            assert_true(d.intervals[i - 1].last + 1 < d.intervals[i].first);
        struct buf bytes = buf_open(root, 1 << 16);
        dedupe_encode(&d, &bytes);
        struct dedupe back = dedupe_open(root);
        struct reader reader = reader_of(buf_slice(&bytes));
        assert_ok(dedupe_decode(&reader, &back));
        assert_int_equal(read_left(&reader), 0);
        assert_int_equal(back.count, d.count);
        for (size_t i = 0; i < d.count; i++)
            assert_memory_equal(&back.intervals[i], &d.intervals[i], sizeof d.intervals[i]);
        dedupe_close(&back);
        for (size_t len = 0; len < bytes.len; len++) {
            struct reader cut = reader_of(slice_of(bytes.at, len));
            struct dedupe part = dedupe_open(root);
            assert_err(ERR_CORRUPT, dedupe_decode(&cut, &part));
            dedupe_close(&part);
        }
        buf_close(&bytes);
        dedupe_close(&d);
    }
}

/* ---- chain ---- */

static struct chain_segment segment_at(uint8_t id, uint64_t from, uint64_t to, int64_t min_ms, int64_t max_ms,
                                       uint64_t rows)
{
    struct chain_segment s = { .digest = { id },
                               .bytes = 100,
                               .from = { 1, from },
                               .to = { 1, to },
                               .range = { min_ms, max_ms },
                               .sum = { rows, rows * 7, 0 },
                               .format_version = 1 };
    return s;
}

static struct chain_entry commit_of(struct chain *c, uint64_t end, struct chain_segment *segments,
                                    size_t count)
{
    struct chain_entry entry = { .kind = CHAIN_COMMIT,
                                 .number = c->next_number,
                                 .leader_epoch = -1,
                                 .start = c->end,
                                 .end = { 1, end },
                                 .segments = segments,
                                 .segment_count = count };
    for (size_t i = 0; i < count; i++)
        sum_add(&entry.sum, segments[i].sum);
    return entry;
}

static void fold_is(struct chain *c, const struct chain_entry *entry, bool valid)
{
    bool was_valid;
    const char *why;
    /* through bytes and back, as every entry goes */
    struct buf bytes = buf_open(root, CHAIN_ENTRY_BYTES_MAX);
    assert_ok(chain_entry_encode(entry, &bytes));
    struct chain_entry back;
    assert_ok(chain_entry_decode(buf_slice(&bytes), root, &back));
    assert_ok(chain_fold(c, &back, &was_valid, &why));
    assert_int_equal(was_valid, valid);
    assert_int_equal(why == NULL, valid);
    for (size_t len = 0; len < bytes.len; len++)
        assert_err(ERR_CORRUPT, chain_entry_decode(slice_of(bytes.at, len), root, &back));
    for (size_t bit = 0; bit < bytes.len * 8; bit++) {
        bytes.at[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_err(ERR_CORRUPT, chain_entry_decode(buf_slice(&bytes), root, &back));
        bytes.at[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    buf_close(&bytes);
}

/* The fold as one entry: folded in it changes nothing, and alone it is all that is needed. */
static void base_folds(struct chain *c)
{
    bool valid;
    const char *why;
    struct chain_entry base;
    assert_ok(chain_base(c, root, &base));
    fold_is(c, &base, true); /* changes nothing … */
    assert_int_equal(c->segment_count, 2);
    struct chain alone = chain_open(root, 0, (struct log_position){ 1, 0 });
    fold_is(&alone, &base, true); /* … and is all that is needed */
    assert_int_equal(alone.next_number, c->next_number);
    assert_int_equal(alone.end.generation, 2);
    assert_int_equal(alone.cutoff_ms, 110);
    assert_int_equal(alone.ignored_count, c->ignored_count);
    assert_true(sum_equal(chain_stored_sum(&alone), chain_stored_sum(c)));
    assert_true(sum_equal(alone.dropped, c->dropped));
    base.number = 99;
    assert_err(ERR_CONFLICT,
               chain_fold(&alone, &base, &valid, &why)); /* only the first may have any number */
    chain_close(&alone);
}

static void chain_folds(void **unused)
{
    struct chain c = chain_open(root, 0, (struct log_position){ 1, 0 });
    struct chain_segment a = segment_at(1, 0, 10, 0, 99, 5), b = segment_at(2, 10, 20, 0, 99, 6),
                         d = segment_at(3, 20, 30, 50, 120, 7), other = segment_at(4, 20, 30, 1000, 1100, 8);
    struct chain_entry entry = commit_of(&c, 10, &a, 1);
    fold_is(&c, &entry, true);
    entry.number = c.next_number;
    fold_is(&c, &entry, false); /* not at the chain's end */
    entry = commit_of(&c, 20, &b, 1);
    struct chain_entry wrong = entry;
    wrong.sum.low++;
    fold_is(&c, &wrong, false); /* sums disagree */
    entry.number = c.next_number;
    fold_is(&c, &entry, true);
    struct chain_segment two[] = { d, other };
    entry = commit_of(&c, 30, two, 2);
    fold_is(&c, &entry, true);
    assert_int_equal(c.segment_count, 4);
    assert_int_equal(chain_stored_sum(&c).count, 26);

    size_t ad[] = { 0, 2 }, ab[] = { 0, 1 }, a_other[] = { 0, 3 };
    assert_false(chain_may_replace(&c, ad, 2)); /* b lies between and overlaps */
    assert_true(chain_may_replace(&c, ab, 2));
    assert_false(chain_may_replace(&c, a_other, 2));
    uint8_t inputs[2][SHA256_BYTES] = { { 2 }, { 1 } };
    struct chain_segment out = segment_at(9, 0, 20, 0, 99, 10);
    struct chain_entry replace = { .kind = CHAIN_REPLACE,
                                   .number = c.next_number,
                                   .inputs = inputs,
                                   .input_count = 2,
                                   .dropped = { 1, 7, 0 },
                                   .segments = &out,
                                   .segment_count = 1 };
    struct chain_entry bad = replace;
    bad.dropped.count = 2;
    fold_is(&c, &bad, false);
    replace.number = c.next_number;
    fold_is(&c, &replace, true);
    assert_int_equal(c.segment_count, 3);
    assert_int_equal(c.dropped.count, 1);
    replace.number = c.next_number;
    fold_is(&c, &replace, false); /* inputs are gone */

    struct chain_entry retain = { .kind = CHAIN_RETAIN, .number = c.next_number, .cutoff_ms = 110 };
    fold_is(&c, &retain, true);
    assert_int_equal(c.segment_count, 2); /* 0–99 gone, 50–120 and 1000–1100 live */
    retain.number = c.next_number;
    fold_is(&c, &retain, false); /* does not advance */
    struct chain_entry generation = { .kind = CHAIN_GENERATION, .number = c.next_number, .end = { 2, 5 } };
    fold_is(&c, &generation, true);
    assert_int_equal(c.end.generation, 2);
    generation.number = c.next_number;
    fold_is(&c, &generation, false);
    bool valid;
    const char *why;
    assert_err(ERR_CONFLICT, chain_fold(&c, &generation, &valid, &why));
    base_folds(&c);
    chain_close(&c);
}

static void era_begins(struct chain *c, uint64_t ended_era, bool valid)
{
    struct chain_entry era = { .kind = CHAIN_ERA, .number = c->next_number, .ended_era = ended_era };
    bool would;
    assert_ok(chain_would_take(c, &era, &would));
    assert_int_equal(would, valid);
    fold_is(c, &era, valid);
}

/* Takes the place of the segment {name}, which is live, under an era. */
static void replace_is(struct chain *c, uint8_t name, uint64_t era, bool valid)
{
    uint8_t input[1][SHA256_BYTES] = { { name } };
    struct chain_segment out = segment_at(name, 0, 10, 0, 99, 5);
    struct chain_entry replace = { .kind = CHAIN_REPLACE,
                                   .number = c->next_number,
                                   .inputs = input,
                                   .input_count = 1,
                                   .segments = &out,
                                   .segment_count = 1 };
    bool would;
    out.era = era;
    assert_ok(chain_would_take(c, &replace, &would));
    assert_int_equal(would, valid);
    fold_is(c, &replace, valid);
}

/* Adoptions tile generation 0, below every segment of the log; bases keep how far they reach. */
static void adoptions_fold(void **unused)
{
    struct chain c = chain_open(root, 0, (struct log_position){ 1, 0 });
    struct chain_segment own = segment_at(1, 0, 10, 0, 99, 5), old = segment_at(2, 0, 3, 0, 99, 6);
    struct chain_loss loss = { LOSS_CHAIN, { 0, 0 }, { 0, 3 }, { 5, 6 }, 0, .accepted = false };
    struct chain_entry entry = commit_of(&c, 10, &own, 1), base;
    fold_is(&c, &entry, true);
    old.from.generation = old.to.generation = 0;
    struct chain_entry adopt = { .kind = CHAIN_ADOPT,
                                 .number = c.next_number,
                                 .leader_epoch = -1,
                                 .end = { 0, 3 },
                                 .sum = old.sum,
                                 .losses = &loss,
                                 .loss_count = 1,
                                 .segments = &old,
                                 .segment_count = 1 };
    struct chain_entry wrong[4] = { adopt, adopt, adopt, adopt };
    wrong[0].end.offset = 2; /* its segment reaches beyond it */
    wrong[1].sum.count++;
    wrong[2].start.offset = 1; /* not where generation 0 ends */
    wrong[3].end.generation = 1;
    for (size_t i = 0; i < 4; i++) {
        bool would;
        wrong[i].number = c.next_number;
        assert_ok(chain_would_take(&c, &wrong[i], &would));
        assert_false(would);
        fold_is(&c, &wrong[i], false);
    }
    adopt.number = c.next_number;
    fold_is(&c, &adopt, true);
    adopt.number = c.next_number;
    fold_is(&c, &adopt, false); /* again */
    assert_true(c.segment_count == 2 && c.segments[0].digest[0] == 2 && c.loss_count == 1);
    assert_true(c.end.generation == 1 && c.end.offset == 10 && c.adopted_end.offset == 3);
    assert_ok(chain_base(&c, root, &base));
    struct chain alone = chain_open(root, 0, (struct log_position){ 1, 0 });
    fold_is(&alone, &base, true);
    assert_int_equal(alone.adopted_end.offset, 3);
    adopt = (struct chain_entry){
        .kind = CHAIN_ADOPT, .number = alone.next_number, .start = { 0, 3 }, .end = { 0, 9 }
    };
    fold_is(&alone, &adopt, true); /* another one, of nothing that belongs here */
    assert_int_equal(alone.adopted_end.offset, 9);
    chain_close(&alone);
    chain_close(&c);
}

/* Of an era before the last nothing becomes live, what is live stays so; bases keep eras. */
static void eras_fold(void **unused)
{
    struct chain c = chain_open(root, 0, (struct log_position){ 1, 0 });
    struct chain_segment a = segment_at(1, 0, 10, 0, 99, 5), b = segment_at(2, 10, 20, 0, 99, 6);
    struct chain_entry entry = commit_of(&c, 10, &a, 1), base;
    fold_is(&c, &entry, true);
    for (uint64_t i = 2; i < 5; i++) {
        era_begins(&c, c.eras[0], true);
        assert_int_equal(c.eras[0], i);
        assert_int_equal(chain_put_era(&c), i);
    }
    assert_true(c.eras[1] == 3 && c.eras[2] == 2);
    era_begins(&c, 3, false); /* somebody else ended that */
    assert_int_equal(c.segments[0].era, 0);
    replace_is(&c, 1, 2, false);
    replace_is(&c, 1, 3, true);
    replace_is(&c, 1, 4, true);
    assert_int_equal(c.segments[0].era, 4);
    for (uint64_t era = 0; era < 3; era++) { /* a commit's segment, and then its state */
        b.era = era;
        entry = commit_of(&c, 20, &b, 1);
        entry.state_era = 4;
        fold_is(&c, &entry, false);
        b.era = 4;
        entry.number = c.next_number;
        entry.state_era = era;
        fold_is(&c, &entry, false);
    }
    entry.number = c.next_number;
    b.era = entry.state_era = 3;
    fold_is(&c, &entry, true);
    assert_true(c.state_eras[0] == 3 && c.state_eras[1] == 0);
    assert_ok(chain_base(&c, root, &base));
    struct chain alone = chain_open(root, 0, (struct log_position){ 1, 0 });
    fold_is(&alone, &base, true);
    assert_memory_equal(alone.eras, c.eras, sizeof c.eras);
    assert_memory_equal(alone.state_eras, c.state_eras, sizeof c.state_eras);
    assert_true(alone.segments[0].era == 4 && alone.segments[1].era == 3);
    alone.era_unread = 77; /* an entry that nobody could read may have been an era */
    assert_int_equal(chain_put_era(&alone), 77);
    chain_close(&alone);
    chain_close(&c);
}

static void names_say_their_era(void **unused)
{
    static const char digest[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    static const char *const wrong[] = { "-", "-0", "-01", "-1x", "x", "-1000000000000000000", "--1", "0" };
    uint8_t bytes[SHA256_BYTES];
    struct object_name name;
    char key[SHARD_KEY_BYTES_MAX];
    assert_true(object_name_parse(digest, &name));
    assert_int_equal(name.era, 0);
    assert_int_equal(name.digest[1], 0x11);
    memcpy(bytes, name.digest, sizeof bytes);
    for (uint64_t era = 0; era < 100000000000000000; era = era * 7 + 1) {
        segment_key(3, bytes, era, key);
        assert_true(strncmp(key, "p003/segment/", 13) == 0 && object_name_parse(key + 13, &name));
        assert_int_equal(name.era, era);
        assert_memory_equal(name.digest, bytes, sizeof bytes);
        assert_true(shard_is_object(key, 4));
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(key, sizeof key, "%s%s", digest, wrong[i]);
        assert_false(object_name_parse(key, &name));
    }
    assert_false(object_name_parse(digest + 1, &name));
}

/* ---- state ---- */

struct names_model {
    struct slice labels[64];
};

static bool names_reference(void *context, uint32_t local, uint32_t *out_reference)
{
    *out_reference = local + 1000;
    return local % 3 == 0;
}

static err names_describe(void *context, uint32_t local, struct buf *labels, struct slice *out_tenant)
{
    struct names_model *model = context;
    buf_put_slice(labels, model->labels[local]);
    *out_tenant = slice_str(local % 2 == 0 ? "default" : "other");
    return OK;
}

static err series_reference(void *context, uint32_t reference, uint32_t *out_local)
{
    *out_local = reference - 1000;
    return reference >= 1000 && reference < 1064 ? OK : ERR_CORRUPT;
}

static err series_labels(void *context, struct slice tenant, struct slice labels, uint32_t *out_local)
{
    struct names_model *model = context;
    for (uint32_t i = 0; i < 64; i++)
        if (slice_equal(model->labels[i], labels)) {
            assert_true(slice_equal_str(tenant, i % 2 == 0 ? "default" : "other"));
            *out_local = i;
            return OK;
        }
    return ERR_CORRUPT;
}

static void state_comes_back(void **unused)
{
    struct names_model model;
    for (int i = 0; i < 64; i++) {
        struct buf b = buf_open(root, 1000);
        char value[32];
        snprintf(value, sizeof value, "instance-%d", i);
        labels_put(&b, slice_str("__name__"), slice_str("up"));
        labels_put(&b, slice_str("instance"), slice_str(value));
        model.labels[i] = buf_slice(&b);
    }
    uint32_t numbers[] = { 0, 1, 2, 7, 9, 100 }, locals[] = { 5, 6, 7, 8, 63, 5 };
    struct state_incarnation incarnations[2] = {
        { .id = { 1 },
          .seen = dedupe_open(root),
          .last = { 1, 17 },
          .numbers = numbers,
          .locals = locals,
          .binding_count = 6 },
        { .id = { 2 }, .seen = dedupe_open(root), .last = { 1, 18 } }
    };
    bool is_new;
    for (uint64_t i = 0; i < 10; i++)
        assert_ok(dedupe_add(&incarnations[0].seen, i * i, &is_new));
    struct state_unresolved unresolved[] = {
        { .incarnation = 1, .number = 3, .t_ms = -5, .bits = 77 },
        { .incarnation = 1, .number = 4, .t_ms = 5, .start_ms = 4, .bits = 78, .histogram = slice_str("abc") }
    };
    struct state_metadata metadata[] = { { slice_str("default"), slice_str("up"), slice_str("Is it up?"),
                                           slice_str(""), 2 } };
    struct chain_loss losses[] = { { LOSS_LOG, { 1, 3 }, { 1, 4 }, { -1, 9 }, 0 } };
    struct state state = { .at = { 1, 20 },
                           .start = { 1, 10 },
                           .data_through_ms = 123,
                           .record_count = 10,
                           .log_bytes = 999,
                           .sum = { 3, 4, 5 },
                           .losses = losses,
                           .loss_count = 1,
                           .closed = true,
                           .reason = CUT_AGE,
                           .format_version = 1,
                           .incarnations = incarnations,
                           .incarnation_count = 2,
                           .unresolved = unresolved,
                           .unresolved_count = 2,
                           .metadata = metadata,
                           .metadata_count = 1 };
    struct state_names names = { names_reference, names_describe, &model };
    struct state_series series = { series_reference, series_labels, &model };
    struct buf bytes = buf_open(root, 1 << 20);
    assert_ok(state_object_encode(&state, &names, root, &bytes));
    struct state back;
    assert_ok(state_object_decode(buf_slice(&bytes), &series, root, &back));
    assert_int_equal(back.at.offset, 20);
    assert_int_equal(back.start.offset, 10);
    assert_true(sum_equal(back.sum, state.sum));
    assert_true(back.closed);
    assert_int_equal(back.incarnation_count, 2);
    assert_int_equal(back.incarnations[0].binding_count, 6);
    assert_memory_equal(back.incarnations[0].numbers, numbers, sizeof numbers);
    assert_memory_equal(back.incarnations[0].locals, locals, sizeof locals);
    assert_int_equal(dedupe_size(&back.incarnations[0].seen), 10);
    assert_int_equal(back.unresolved_count, 2);
    assert_true(slice_equal_str(back.unresolved[1].histogram, "abc"));
    assert_true(sum_equal(state_unresolved_sum(&back), state_unresolved_sum(&state)));
    assert_true(slice_equal_str(back.metadata[0].help, "Is it up?"));
    assert_int_equal(back.losses[0].range.max_ms, 9);
    for (size_t bit = 0; bit < bytes.len * 8; bit++) {
        bytes.at[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_err(ERR_CORRUPT, state_object_decode(buf_slice(&bytes), &series, root, &back));
        bytes.at[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    /* the plain form has no checksum of its own: damage must not crash, that is all */
    struct buf plain = buf_open(root, 1 << 20);
    assert_ok(state_encode(&state, &names, root, &plain));
    for (size_t len = 0; len < plain.len; len++)
        assert_int_not_equal(OK, state_decode(slice_of(plain.at, len), &series, root, &back));
    /* every allocation fails once */
    for (uint64_t nth = 1;; nth++) {
        pool_fault_at(root, nth, false);
        struct pool *child = pool_open(root, "child", POOL_BYTES_UNLIMITED);
        struct buf again = buf_open(child, 1 << 20);
        err e = state_object_encode(&state, &names, child, &again);
        if (e == OK)
            e = state_object_decode(buf_slice(&again), &series, child, &back);
        bool was_hit = pool_fault_count(root) >= nth;
        pool_fault_at(root, 0, false);
        buf_close(&again);
        pool_close(child);
        if (!was_hit) {
            assert_ok(e);
            break;
        }
        assert_err(ERR_LIMIT, e);
    }
}

static void control_comes_back(void **unused)
{
    struct control c = { .kind = CONTROL_CUT,
                         .position = { 3, 44 },
                         .format_version = 1,
                         .reason = CUT_IDLE },
                   back;
    uint8_t bytes[CONTROL_BYTES];
    control_encode(&c, bytes);
    assert_int_equal(batch_signal(slice_of(bytes, sizeof bytes)), SIGNAL_CONTROL);
    assert_ok(control_decode(slice_of(bytes, sizeof bytes), &back));
    assert_memory_equal(&back, &c, sizeof c);
    for (size_t len = 0; len < sizeof bytes; len++)
        assert_err(ERR_CORRUPT, control_decode(slice_of(bytes, len), &back));
    bytes[2] = 9;
    assert_err(ERR_VERSION, control_decode(slice_of(bytes, sizeof bytes), &back));
}

/* ---- stream ---- */

static void stream_frames(void **unused)
{
    char directory[] = "/tmp/kelpie-shard-XXXXXX";
    assert_non_null(mkdtemp(directory));
    struct io *io;
    assert_ok(io_open(directory, &io));
    assert_ok(io_dir_create(io, "stream"));
    struct stream_name name = { .partition = 7, .start = { 1, 42 }, .part = 0 }, parsed;
    char path[IO_PATH_BYTES_MAX];
    assert_ok(stream_path("stream", &name, path));
    assert_string_equal(path, "stream/p007-1-42-0.stream");
    assert_true(stream_name_parse("p007-1-42-0.stream", &parsed));
    assert_true(parsed.partition == 7 && parsed.start.generation == 1 && parsed.start.offset == 42 &&
                parsed.part == 0);
    assert_false(stream_name_parse("p007-1-42-0.stream.tmp", &parsed));
    assert_false(stream_name_parse("x", &parsed));

    struct stream_writer w;
    assert_ok(stream_part_create(io, "stream", &name, 0, false, &w));
    uint64_t offsets[2];
    assert_ok(stream_frame_append(&w, slice_str("group one"), slice_str("checkpoint one"), &offsets[0]));
    assert_ok(stream_frame_append(&w, slice_of(NULL, 0), slice_str("two"), &offsets[1]));
    struct stream_part_header header;
    assert_ok(stream_header_read(w.file, &header, NULL));
    assert_int_equal(header.name.partition, name.partition);
    assert_int_equal(position_compare(header.name.start, name.start), 0);
    assert_int_equal(header.name.part, name.part);
    struct stream_frame frame;
    assert_ok(stream_frame_read(w.file, STREAM_FILE_HEADER_BYTES, w.end, root, &frame));
    assert_true(slice_equal_str(frame.checkpoint, "checkpoint one"));
    assert_int_equal(frame.group_offset, offsets[0]);
    assert_int_equal(frame.group_bytes, 9);
    uint64_t second = frame.next_offset;
    assert_ok(stream_frame_read(w.file, second, w.end, root, &frame));
    assert_int_equal(frame.group_bytes, 0);
    assert_err(ERR_END, stream_frame_read(w.file, frame.next_offset, w.end, root, &frame));
    for (uint64_t end = second + 1; end < w.end; end++) /* torn */
        assert_err(ERR_CORRUPT, stream_frame_read(w.file, second, end, root, &frame));
    uint8_t all[512];
    assert_ok(io_file_read(w.file, 0, all, (size_t)w.end, NULL));
    for (uint64_t bit = 0; bit < w.end * 8; bit++) { /* every bit is covered, but padding of headers */
        uint8_t flipped = all[bit / 8] ^ (uint8_t)(1u << bit % 8);
        assert_ok(io_file_write(w.file, bit / 8, slice_of(&flipped, 1)));
        err e = stream_header_read(w.file, &header, NULL);
        if (e == OK)
            e = stream_frame_read(w.file, STREAM_FILE_HEADER_BYTES, w.end, root, &frame);
        if (e == OK)
            e = stream_frame_read(w.file, second, w.end, root, &frame);
        if (e == OK)
            fail_msg("flip of bit %llu is not seen", (unsigned long long)bit);
        assert_ok(io_file_write(w.file, bit / 8, slice_of(&all[bit / 8], 1)));
    }
    io_file_close(w.file);
    assert_ok(io_unlink(io, path));
    assert_ok(io_dir_remove(io, "stream"));
    io_close(io);
    rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dedupe_agrees_with_bitmap),
        cmocka_unit_test(chain_folds),
        cmocka_unit_test(eras_fold),
        cmocka_unit_test(adoptions_fold),
        cmocka_unit_test(names_say_their_era),
        cmocka_unit_test(state_comes_back),
        cmocka_unit_test(control_comes_back),
        cmocka_unit_test(stream_frames),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
