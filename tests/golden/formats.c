/* Golden files of the small formats: what version 1 wrote is still read as what it meant.
 *   golden_formats DIRECTORY         read them, compare with the values below; formats without a compressor
 *                                    must be written the same, byte for byte
 *   golden_formats make DIRECTORY    write them anew: only together with a new version, a page and a decision
 * NAME_1: NODE, batch record, file of the log, entries of a manifest chain, state object, stream file, index
 * part, a node's question to another with its answer. */
#include "base/hash.h"
#include "fanout/wire.h"
#include "log/log_frame.h"
#include "metric/metric.h"
#include "model/batch.h"
#include "model/histogram.h"
#include "model/labels.h"
#include "node/identity.h"
#include "shard/chain.h"
#include "shard/state.h"
#include "shard/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_MAX (1u << 20)

static struct pool *pool;
static struct io *io;

#define REQUIRE(condition)                                                          \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

static struct slice labels_of(const char *name, const char *job)
{
    struct buf b = buf_open(pool, 1000);
    labels_put(&b, slice_str("__name__"), slice_str(name));
    labels_put(&b, slice_str("job"), slice_str(job));
    REQUIRE(buf_err(&b) == OK);
    return buf_slice(&b);
}

/* ---- NODE ---- */

static const struct identity node = { .cluster_id = "golden cluster",
                                      .hash_key = "golden hash key",
                                      .partition_count = 8,
                                      .range_bytes_max = UINT64_C(1) << 30,
                                      .created_ms = 1700000000123,
                                      .program = "0.1.0" };

static void make_node(struct buf *out)
{
    uint8_t bytes[IDENTITY_BYTES];
    identity_encode(&node, bytes);
    buf_put(out, bytes, sizeof bytes);
}

static void read_node(struct slice bytes)
{
    struct identity got;
    REQUIRE(bytes.len == IDENTITY_BYTES && identity_decode(bytes.at, &got, NULL) == OK);
    REQUIRE(memcmp(got.cluster_id, node.cluster_id, 16) == 0 && memcmp(got.hash_key, node.hash_key, 16) == 0);
    REQUIRE(got.partition_count == 8 && got.range_bytes_max == node.range_bytes_max);
    REQUIRE(got.created_ms == node.created_ms && strcmp(got.program, "0.1.0") == 0);
}

/* ---- a batch record ---- */

static void make_batch(struct buf *out)
{
    struct batch_announce announces[] = { { 0, labels_of("up", "a") }, { 1, labels_of("up", "b") } };
    uint32_t numbers[] = { 0, 1, 0, 1 };
    int64_t t_ms[] = { 1700000000000, 1700000000000, 1700000015000, 1700000014999 };
    uint64_t bits[] = { double_bits(1), double_bits(0.1), SAMPLE_STALE_BITS, double_bits(-3e300) };
    struct batch_start starts[] = { { 1, 1699999990000 } };
    struct batch_exemplar exemplars[] = { { 1, 1700000000000, 0.5, labels_of("trace", "x") } };
    struct batch_metadata metadata[] = { { slice_str("up"), METRIC_GAUGE, slice_str("Is it?"),
                                           slice_str("") } };
    struct batch b = { .signal = SIGNAL_METRIC,
                       .tenant = slice_str("golden"),
                       .incarnation = "incarnation 1",
                       .sequence = 77,
                       .append_ms = 1700000000456,
                       .announces = announces,
                       .announce_count = 2,
                       .numbers = numbers,
                       .t_ms = t_ms,
                       .value_bits = bits,
                       .row_count = 4,
                       .starts = starts,
                       .start_count = 1,
                       .exemplars = exemplars,
                       .exemplar_count = 1,
                       .metadata = metadata,
                       .metadata_count = 1 };
    REQUIRE(batch_encode(&b, out) == OK);
}

static void read_batch(struct slice bytes)
{
    struct batch b;
    REQUIRE(batch_decode(bytes, pool, &b) == OK);
    REQUIRE(b.signal == SIGNAL_METRIC && slice_equal_str(b.tenant, "golden") && b.sequence == 77);
    REQUIRE(memcmp(b.incarnation, "incarnation 1", 14) == 0 && b.append_ms == 1700000000456);
    REQUIRE(b.announce_count == 2 && slice_equal(b.announces[1].labels, labels_of("up", "b")));
    REQUIRE(b.row_count == 4 && b.numbers[3] == 1 && b.t_ms[3] == 1700000014999);
    REQUIRE(b.value_bits[2] == SAMPLE_STALE_BITS && b.value_bits[3] == double_bits(-3e300));
    REQUIRE(b.start_count == 1 && b.starts[0].row == 1 && b.starts[0].start_ms == 1699999990000);
    REQUIRE(b.exemplar_count == 1 && b.exemplars[0].value == 0.5);
    REQUIRE(b.metadata_count == 1 && b.metadata[0].type == METRIC_GAUGE);
    REQUIRE(slice_equal_str(b.metadata[0].help, "Is it?"));
}

/* ---- a file of the log: two copies of the header, two records and a marker ---- */

enum { LOG_PARTITIONS = 2, LOG_NUMBER = 5 };
static const uint8_t log_cluster[16] = "golden cluster";

static void make_log(struct buf *out)
{
    uint64_t starts[LOG_PARTITIONS] = { 100, 200 }, trims[LOG_PARTITIONS] = { 90, 0 };
    struct log_file_header header = { .partition_count = LOG_PARTITIONS,
                                      .number = LOG_NUMBER,
                                      .previous_number = 4,
                                      .previous_end = 123456,
                                      .generation = 1,
                                      .starts = starts,
                                      .trims = trims };
    memcpy(header.cluster_id, log_cluster, 16);
    static uint8_t file[1 << 16];
    uint64_t copy = log_header_copy_bytes(LOG_PARTITIONS), at = log_data_start(LOG_PARTITIONS);
    uint32_t seed = log_frame_seed(log_cluster, LOG_NUMBER);
    log_header_encode(&header, file);
    log_header_encode(&header, file + copy);
    uint64_t begin = at;
    static const char *const records[] = { "first record", "the second one" };
    for (uint32_t p = 0; p < 2; p++) {
        struct log_frame frame = { p, (uint32_t)strlen(records[p]), LOG_NUMBER, starts[p], begin };
        memcpy(file + at + LOG_FRAME_HEADER_BYTES, records[p], frame.length);
        log_frame_encode(&frame, seed, file + at);
        at += log_frame_bytes(frame.length);
    }
    struct log_frame marker = { LOG_MARKER_PARTITION, 8 * LOG_PARTITIONS, LOG_NUMBER, 0, at };
    put_le64(file + at + LOG_FRAME_HEADER_BYTES, 101);
    put_le64(file + at + LOG_FRAME_HEADER_BYTES + 8, 201);
    log_frame_encode(&marker, seed, file + at);
    buf_put(out, file, at + log_frame_bytes(marker.length));
}

static void read_log(struct slice bytes)
{
    uint64_t starts[LOG_PARTITIONS], trims[LOG_PARTITIONS], copy = log_header_copy_bytes(LOG_PARTITIONS);
    struct log_file_header header = { .starts = starts, .trims = trims };
    for (uint64_t i = 0; i < 2; i++) {
        REQUIRE(bytes.len > 2 * copy);
        REQUIRE(log_header_decode(slice_part(bytes, i * copy, copy), LOG_PARTITIONS, &header) == OK);
        REQUIRE(header.number == LOG_NUMBER && header.previous_end == 123456 && header.generation == 1);
        REQUIRE(starts[0] == 100 && starts[1] == 200 && trims[0] == 90);
    }
    struct log_scan scan = { .position = log_data_start(LOG_PARTITIONS),
                             .limit = bytes.len,
                             .seed = log_frame_seed(log_cluster, LOG_NUMBER),
                             .number = LOG_NUMBER,
                             .partition_count = LOG_PARTITIONS,
                             .window = bytes };
    struct log_item item;
    REQUIRE(log_scan_next(&scan, &item) == OK && item.kind == LOG_ITEM_RECORD && item.partition == 0);
    REQUIRE(item.offset == 100 && item.length == 12);
    REQUIRE(log_scan_next(&scan, &item) == OK && item.kind == LOG_ITEM_RECORD && item.partition == 1);
    REQUIRE(item.offset == 200 && memcmp(item.payload, "the second one", 14) == 0);
    REQUIRE(log_scan_next(&scan, &item) == OK && item.kind == LOG_ITEM_MARKER);
    REQUIRE(scan.durable == item.position && log_scan_next(&scan, &item) == ERR_END);
}

/* ---- entries of a manifest chain, one of each kind, each behind its length ---- */

static void make_chain(struct buf *out)
{
    struct chain_segment a = { .digest = { 1, 2, 3 },
                               .bytes = 4096,
                               .from = { 1, 0 },
                               .to = { 1, 10 },
                               .range = { 1000, 2000 },
                               .sum = { 5, 6, 7 },
                               .format_version = 1,
                               .flags = CHAIN_SEGMENT_WIDE };
    struct chain_segment b = a;
    struct chain_loss loss = { LOSS_LOG, { 1, 3 }, { 1, 4 }, { 1500, 1600 }, 2 };
    struct chain_loss gone = {
        .kind = LOSS_CHAIN, .from = { 2, 0 }, .to = { 2, 7 }, .range = { 1500, 1700 }
    };
    uint8_t inputs[3][SHA256_BYTES] = { { 1, 2, 3 }, { 7 }, { 5, 2, 3 } };
    struct chain_segment c = a;
    c.digest[0] = 5;
    c.from = (struct log_position){ 2, 0 };
    c.to = (struct log_position){ 2, 7 };
    b.digest[0] = 9;
    b.era = 4;
    b.sum = (struct sum){ 4, 5, 6 };
    struct chain_loss doubt = { LOSS_DOUBT, { 2, 3 }, { 2, 5 }, { 1700, 1800 }, 0, .accepted = false };
    struct chain_loss all[] = { loss,
                                gone,
                                { LOSS_SEGMENT, c.from, c.to, c.range, c.sum.count, .accepted = true } };
    all[1].accepted = true;
    struct chain_loss early = { LOSS_CHAIN, { 0, 0 }, { 0, 4 }, { 1800, 1900 }, 0, .accepted = false };
    struct chain_segment old = a;
    old.digest[0] = 10;
    old.era = CHAIN_ERA;
    old.from = (struct log_position){ 0, 2 };
    old.to = (struct log_position){ 0, 3 };
    struct chain_entry entries[] = {
        { .kind = CHAIN_COMMIT,
          .start = { 1, 0 },
          .end = { 1, 10 },
          .reason = CUT_SIZE,
          .format_version = 1,
          .record_count = 10,
          .log_bytes = 999,
          .sum = a.sum,
          .data_through_ms = 2000,
          .state_digest = { 8 },
          .state_bytes = 77,
          .losses = &loss,
          .loss_count = 1,
          .segments = &a,
          .segment_count = 1 },
        { .kind = CHAIN_REPLACE,
          .inputs = inputs,
          .input_count = 1,
          .dropped = { 1, 1, 1 },
          .distinct = { 4, 3, 2 },
          .segments = &b,
          .segment_count = 1 },
        { .kind = CHAIN_RETAIN, .cutoff_ms = 1200, .confirmed = true },
        { .kind = CHAIN_GENERATION, .end = { 2, 0 } },
        { .kind = CHAIN_LOST,
          .end = { 2, 7 },
          .state_digest = { 6 },
          .state_bytes = 55,
          .losses = &gone,
          .loss_count = 1,
          .inputs = &inputs[1],
          .input_count = 1,
          .segments = &c,
          .segment_count = 1 },
        { .kind = CHAIN_ACCEPT,
          .end = { 2, 6 },
          .losses = &gone,
          .loss_count = 1,
          .inputs = &inputs[2],
          .input_count = 1 },
        { .kind = CHAIN_BASE, /* of the six before */
          .end = { 2, 7 },
          .cutoff_ms = 1200,
          .data_through_ms = 2000,
          .state_digest = { 6 },
          .state_era = 5,
          .older_state_digest = { 8 },
          .older_state_era = 2,
          .eras = { 5, 4, 2 },
          .dropped = { 6, 7, 8 },
          .accepted_end = { 2, 6 },
          .lost_count = 1,
          .commit_count = 1,
          .losses = all,
          .loss_count = 3,
          .segments = &b,
          .segment_count = 1 },
        { .kind = CHAIN_LOSSES, .losses = &doubt, .loss_count = 1 },
        { .kind = CHAIN_ERA, .ended_era = 5 },
        { .kind = CHAIN_ADOPT,
          .end = { 0, 4 },
          .sum = old.sum,
          .losses = &early,
          .loss_count = 1,
          .segments = &old,
          .segment_count = 1 },
    };
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        struct buf one = buf_open(pool, CHAIN_ENTRY_BYTES_MAX);
        entries[i].partition = 3;
        entries[i].number = i + 1;
        entries[i].leader_epoch = -1;
        entries[i].written_ms = 1700000000000 + (int64_t)i;
        REQUIRE(chain_entry_encode(&entries[i], &one) == OK);
        buf_put_le16(out, (uint16_t)one.len);
        buf_put_slice(out, buf_slice(&one));
    }
}

static void read_chain(struct slice bytes)
{
    struct chain chain = chain_open(pool, 3, (struct log_position){ 1, 0 });
    struct reader r = reader_of(bytes);
    struct chain_entry entry;
    bool valid;
    const char *why;
    for (uint8_t kind = CHAIN_COMMIT; kind < CHAIN_KIND_COUNT; kind++) {
        size_t len = read_le16(&r);
        REQUIRE(chain_entry_decode(read_bytes(&r, len), pool, &entry) == OK);
        REQUIRE(entry.kind == kind && entry.number == kind && entry.written_ms == 1700000000000 + kind - 1);
        REQUIRE(chain_fold(&chain, &entry, &valid, &why) == OK && valid);
    }
    REQUIRE(r.ok && read_left(&r) == 0);
    REQUIRE(chain.segment_count == 2 && chain.segments[0].digest[0] == 10 &&
            chain.segments[0].era == CHAIN_ERA);
    REQUIRE(chain.adopted_end.generation == 0 && chain.adopted_end.offset == 4);
    REQUIRE(chain.segments[1].digest[0] == 9 && chain.segments[1].bytes == 4096);
    REQUIRE(chain.segments[1].flags == CHAIN_SEGMENT_WIDE && chain.segments[1].range.max_ms == 2000);
    REQUIRE(chain.loss_count == 5 && chain.losses[3].kind == LOSS_DOUBT && !chain.losses[0].accepted &&
            chain.losses[1].accepted);
    REQUIRE(chain.losses[1].kind == LOSS_CHAIN && chain.losses[2].kind == LOSS_SEGMENT &&
            chain.lost_count == 1);
    REQUIRE(chain.losses[0].range.max_ms == 1600 && chain.losses[0].row_count == 2);
    REQUIRE(chain.cutoff_ms == 1200 && chain.end.generation == 2 && chain.end.offset == 7 &&
            chain.data_through_ms == 2000);
    REQUIRE(chain.state_digests[0][0] == 6 && chain.state_digests[1][0] == 8 &&
            chain.accepted_end.offset == 6);
    REQUIRE(chain.dropped.count == 6 && chain.dropped.high == 8 && chain.commit_count == 1);
    REQUIRE(chain.base_number == CHAIN_BASE);
    REQUIRE(chain.eras[0] == CHAIN_ERA && chain.eras[1] == 5 && chain.eras[2] == 4);
    REQUIRE(chain.segments[1].era == 4 && chain.state_eras[0] == 5 && chain.state_eras[1] == 2);
    chain_close(&chain);
}

/* ---- state object and stream file: they carry the same state ---- */

static bool no_reference(void *context, uint32_t local, uint32_t *out_reference) { return false; }

static err describe(void *context, uint32_t local, struct buf *labels, struct slice *out_tenant)
{
    *out_tenant = slice_str("golden");
    buf_put_slice(labels, labels_of("up", local == 0 ? "a" : "b"));
    return buf_err(labels);
}

static err unknown_reference(void *context, uint32_t reference, uint32_t *out_local) { return ERR_CORRUPT; }

static err find_labels(void *context, struct slice tenant, struct slice labels, uint32_t *out_local)
{
    REQUIRE(slice_equal_str(tenant, "golden"));
    *out_local = slice_equal(labels, labels_of("up", "a")) ? 0 : 1;
    return OK;
}

static void make_state(bool is_object, struct buf *out)
{
    static struct state_incarnation incarnation;
    static uint32_t numbers[] = { 0, 5 }, locals[] = { 0, 1 };
    bool is_new;
    incarnation = (struct state_incarnation){ .id = "incarnation 1",
                                              .seen = dedupe_open(pool),
                                              .last = { 1, 9 },
                                              .numbers = numbers,
                                              .locals = locals,
                                              .binding_count = 2 };
    for (uint64_t sequence = 0; sequence < 10; sequence++)
        if (sequence != 4)
            REQUIRE(dedupe_add(&incarnation.seen, sequence, &is_new) == OK);
    struct state_unresolved unresolved = { .number = 7, .t_ms = 1700000000000, .bits = double_bits(2.5) };
    struct state_metadata metadata = { slice_str("golden"), slice_str("up"), slice_str("Is it?"),
                                       slice_str(""), METRIC_GAUGE };
    struct chain_loss loss = { LOSS_LOG, { 1, 3 }, { 1, 4 }, { 1500, 1600 }, 2 };
    struct state state = { .at = { 1, 10 },
                           .data_through_ms = 2000,
                           .start = { 1, 0 },
                           .record_count = 10,
                           .log_bytes = 999,
                           .sum = { 5, 6, 7 },
                           .resolved_removed = { 1, 2, 3 },
                           .resolved_added = { 1, 3, 4 },
                           .far_future_rows = 2,
                           .losses = &loss,
                           .loss_count = 1,
                           .closed = true,
                           .reason = CUT_AGE,
                           .format_version = 1,
                           .incarnations = &incarnation,
                           .incarnation_count = 1,
                           .unresolved = &unresolved,
                           .unresolved_count = 1,
                           .metadata = &metadata,
                           .metadata_count = 1 };
    struct state_names names = { no_reference, describe, NULL };
    REQUIRE((is_object ? state_object_encode : state_encode)(&state, &names, pool, out) == OK);
}

static void check_state(const struct state *s)
{
    REQUIRE(s->at.offset == 10 && s->data_through_ms == 2000 && s->record_count == 10 && s->log_bytes == 999);
    REQUIRE(sum_equal(s->sum, (struct sum){ 5, 6, 7 }) &&
            sum_equal(s->resolved_added, (struct sum){ 1, 3, 4 }));
    REQUIRE(s->far_future_rows == 2 && s->loss_count == 1 && s->losses[0].from.offset == 3);
    REQUIRE(s->closed && s->reason == CUT_AGE && s->format_version == 1);
    REQUIRE(s->incarnation_count == 1 && s->incarnations[0].last.offset == 9);
    REQUIRE(dedupe_has(&s->incarnations[0].seen, 9) && !dedupe_has(&s->incarnations[0].seen, 4));
    REQUIRE(s->incarnations[0].binding_count == 2 && s->incarnations[0].numbers[1] == 5);
    REQUIRE(s->incarnations[0].locals[0] == 0 && s->incarnations[0].locals[1] == 1);
    REQUIRE(s->unresolved_count == 1 && s->unresolved[0].number == 7 &&
            s->unresolved[0].bits == double_bits(2.5));
    REQUIRE(s->metadata_count == 1 && slice_equal_str(s->metadata[0].help, "Is it?"));
}

static void make_state_object(struct buf *out) { make_state(true, out); }

static void read_state_object(struct slice bytes)
{
    struct state_series series = { unknown_reference, find_labels, NULL };
    struct state state;
    REQUIRE(state_object_decode(bytes, &series, pool, &state) == OK);
    check_state(&state);
}

#define STREAM_NAME "p003-1-0-2.stream"

static void make_stream(struct buf *out)
{
    struct stream_name name = { .partition = 3, .start = { 1, 0 }, .part = 2 };
    struct stream_writer writer;
    struct buf checkpoint = buf_open(pool, BYTES_MAX);
    struct slice bytes;
    uint64_t offset;
    make_state(false, &checkpoint);
    REQUIRE(stream_part_create(io, ".", &name, 4242, false, &writer) == OK);
    REQUIRE(stream_frame_append(&writer, slice_str("a row group has a page of its own"),
                                buf_slice(&checkpoint), &offset) == OK);
    REQUIRE(stream_frame_append(&writer, slice_of(NULL, 0), buf_slice(&checkpoint), &offset) == OK);
    io_file_close(writer.file);
    REQUIRE(io_read_file(io, STREAM_NAME, BYTES_MAX, pool, &bytes) == OK);
    REQUIRE(io_unlink(io, STREAM_NAME) == OK);
    buf_put_slice(out, bytes);
}

static void read_stream(struct slice bytes)
{
    struct stream_part_header header;
    struct stream_frame frame;
    struct state_series series = { unknown_reference, find_labels, NULL };
    struct state state;
    struct io_file *file;
    uint64_t offset = STREAM_FILE_HEADER_BYTES;
    REQUIRE(io_file_open(io, "stream_1", IO_READ, &file) == OK);
    REQUIRE(stream_header_read(file, &header, NULL) == OK && header.before_bytes == 4242);
    REQUIRE(header.name.partition == 3 && header.name.part == 2 && header.name.start.generation == 1);
    for (int i = 0; i < 2; i++) {
        REQUIRE(stream_frame_read(file, offset, bytes.len, pool, &frame) == OK);
        REQUIRE(state_decode(frame.checkpoint, &series, pool, &state) == OK);
        check_state(&state);
        REQUIRE(frame.group_bytes == (i == 0 ? strlen("a row group has a page of its own") : 0));
        offset = frame.next_offset;
    }
    REQUIRE(stream_frame_read(file, offset, bytes.len, pool, &frame) == ERR_END);
    io_file_close(file);
}

/* ---- an index part ---- */

static void make_index_part(struct buf *out)
{
    struct metric_part_builder *builder;
    REQUIRE(metric_part_builder_open(pool, &builder) == OK);
    for (int i = 0; i < 300; i++) {
        char job[16];
        snprintf(job, sizeof job, "job-%d", i % 7 * 100 + i);
        REQUIRE(metric_part_builder_add(builder, labels_of(i % 2 == 0 ? "up" : "down", job)) == OK);
    }
    REQUIRE(metric_part_builder_finish(builder, out) == OK);
    metric_part_builder_close(builder);
}

static void read_index_part(struct slice bytes)
{
    struct metric_part part;
    struct matcher m;
    uint32_t *ordinals;
    size_t count;
    REQUIRE(metric_part_open(bytes, &part) == OK && metric_part_verify(&part, pool) == OK);
    REQUIRE(part.series_count == 300);
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    REQUIRE(metric_part_labels(&part, 299, &labels) == OK);
    REQUIRE(slice_equal(buf_slice(&labels), labels_of("down", "job-799")));
    REQUIRE(matcher_init(pool, MATCH_EQUAL, slice_str("__name__"), slice_str("down"), &m, NULL) == OK);
    REQUIRE(metric_part_select(&part, &m, 1, pool, &ordinals, &count) == OK);
    REQUIRE(count == 150 && ordinals[0] == 1 && ordinals[149] == 299);
    matcher_done(&m);
}

/* ---- a node's question to another and the answer: length of the request, request, blocks ---- */

static err answer_write(void *context, struct slice bytes)
{
    buf_put_slice(context, bytes);
    return OK;
}

static void make_query(struct buf *out)
{
    uint64_t partitions[] = { 0x805 };
    struct source_position after[] = { { 0, 1, 700 }, { 11, 2, 5 } };
    struct wire_matcher matchers[] = { { MATCH_EQUAL, slice_str("__name__"), slice_str("up") },
                                       { MATCH_NOT_REGEX, slice_str("job"), slice_str("x|y") } };
    struct wire_selector selector = { { 1700000000000, 1700000060000 }, matchers, 2 };
    struct wire_request request = { .kind = WIRE_SAMPLES,
                                    .tenant = slice_str("golden"),
                                    .left_ms = 30000,
                                    .series_max = UINT64_MAX,
                                    .samples_max = 50000000,
                                    .partition_count = 12,
                                    .partitions = partitions,
                                    .after = after,
                                    .after_count = 2,
                                    .selectors = &selector,
                                    .selector_count = 1 };
    struct buf bytes = buf_open(pool, 1000);
    REQUIRE(wire_request_encode(&request, &bytes) == OK);
    buf_put_le32(out, (uint32_t)bytes.len);
    buf_put_slice(out, buf_slice(&bytes));

    struct wire_out *wire;
    struct sample_columns columns = sample_columns_open(pool);
    struct source_exemplar exemplar = { labels_of("trace", "x"), 1700000000000, 0.5 };
    struct proof_partition read[] = { { 0, 1, 701, 701 }, { 2, 1, 9, 10 }, { 11, 2, 5, 5 } };
    struct proof proof = { .data_through_ms = 1700000050000, .partitions = read, .partition_count = 3 };
    REQUIRE(sample_columns_add(&columns, 1700000000000, 1, 0) == OK);
    REQUIRE(sample_columns_add(&columns, 1700000015000, bits_double(SAMPLE_STALE_BITS), 0) == OK);
    REQUIRE(sample_columns_add(&columns, 1700000030000, -3e300, 1699999990000) == OK);
    REQUIRE(wire_out_open(pool, WIRE_SAMPLES, answer_write, out, &wire) == OK);
    REQUIRE(wire_out_series(wire, labels_of("up", "a"), &columns, &exemplar, 1) == OK);
    REQUIRE(wire_out_series(wire, labels_of("up", "b"), &columns, NULL, 0) == OK);
    struct histogram histogram = { .sum = 7.5, .count_int = 4, .zero_count_int = 4 };
    struct buf canonical = buf_open(pool, HISTOGRAM_BYTES_MAX);
    histogram_encode(&histogram, &canonical);
    REQUIRE(sample_columns_add_histogram(&columns, 1700000045000, buf_slice(&canonical), 0) == OK);
    REQUIRE(wire_out_series(wire, labels_of("up", "c"), &columns, NULL, 0) == OK);
    REQUIRE(proof_reserve(&proof, pool) == OK);
    proof_miss(&proof, &(struct proof_missing){ 2, { 1700000000000, 1700000060000 }, PROOF_NOT_APPLIED });
    REQUIRE(wire_out_proof(wire, &proof) == OK);
}

static void read_query_request(struct slice bytes)
{
    struct wire_request request;
    REQUIRE(wire_request_decode(bytes, pool, &request, NULL) == OK);
    REQUIRE(request.kind == WIRE_SAMPLES && slice_equal_str(request.tenant, "golden"));
    REQUIRE(request.left_ms == 30000 && request.series_max == UINT64_MAX && request.samples_max == 50000000);
    REQUIRE(request.partition_count == 12 && request.partitions[0] == 0x805 && request.after_count == 2);
    REQUIRE(request.after[1].partition == 11 && request.after[1].generation == 2 &&
            request.after[1].offset == 5);
    REQUIRE(request.selector_count == 1 && request.selectors[0].range.max_ms == 1700000060000);
    REQUIRE(request.selectors[0].matcher_count == 2);
    REQUIRE(request.selectors[0].matchers[1].type == MATCH_NOT_REGEX);
    REQUIRE(slice_equal_str(request.selectors[0].matchers[1].value, "x|y"));
}

static void read_query(struct slice bytes)
{
    struct reader r = reader_of(bytes);
    struct wire_in in = { .pool = pool, .kind = WIRE_SAMPLES };
    struct wire_block block;
    struct wire_series *series;
    struct wire_entry entry;
    struct proof proof;
    read_query_request(read_bytes(&r, read_le32(&r)));
    struct slice answer = read_bytes(&r, read_left(&r));
    REQUIRE(wire_series_open(pool, &series) == OK);
    REQUIRE(wire_in_next(&in, &answer, &block) == OK && block.type == WIRE_BLOCK_SERIES);
    wire_series_block(series, block.body);
    for (int i = 0; i < 3; i++) {
        static const char *const jobs[] = { "a", "b", "c" };
        struct sample_columns c = sample_columns_open(pool);
        REQUIRE(wire_series_next(series, &entry) == OK);
        REQUIRE(slice_equal(entry.labels, labels_of("up", jobs[i])));
        REQUIRE(entry.exemplar_count == (i == 0 ? 1 : 0) && wire_piece_read(&entry.piece, &c) == OK);
        REQUIRE(c.count == (i == 2 ? 4 : 3) && c.t_ms[1] == 1700000015000 && sample_is_stale(c.values[1]));
        REQUIRE(c.histogram_count == (i == 2) && (i < 2 || c.histograms[0].row == 3));
        REQUIRE(c.values[2] == -3e300 && c.start_ms[2] == 1699999990000 && c.start_ms[1] == 0);
    }
    REQUIRE(wire_series_next(series, &entry) == ERR_END);
    wire_series_close(series);
    REQUIRE(wire_in_next(&in, &answer, &block) == OK && block.type == WIRE_BLOCK_PROOF && answer.len == 0);
    REQUIRE(wire_proof_read(block.body, pool, &proof) == OK && !proof.complete && proof.partition_count == 3);
    REQUIRE(proof.partitions[1].end_offset == 10 && proof.data_through_ms == 1700000050000);
    REQUIRE(proof.missing_count == 1 && strcmp(proof.missing[0].reason, PROOF_NOT_APPLIED) == 0);
}

/* ---- the same, of groups ---- */

#define GROUP_STEPS 98

static void make_groups(struct buf *out)
{
    uint64_t partitions[] = { 0x6 };
    struct wire_selector selector = { .range = { 1699999700001, 1700001455000 } };
    struct wire_request request = { .kind = WIRE_GROUPS,
                                    .tenant = slice_str("golden"),
                                    .left_ms = 30000,
                                    .series_max = UINT64_MAX,
                                    .samples_max = 50000000,
                                    .partition_count = 3,
                                    .partitions = partitions,
                                    .selectors = &selector,
                                    .selector_count = 1,
                                    .unit = { .text = slice_str("1 + sum by (job) (up)"),
                                              .begin = 4,
                                              .end = 21,
                                              .query_start_ms = 1700000000000,
                                              .query_end_ms = 1700001460000,
                                              .query_step_ms = 15000,
                                              .start_ms = 1700000000000,
                                              .step_ms = 15000,
                                              .step_count = GROUP_STEPS,
                                              .lookback_ms = 300000,
                                              .subquery_step_ms = 60000,
                                              .column_count = 2 } };
    struct buf bytes = buf_open(pool, 1000);
    REQUIRE(wire_request_encode(&request, &bytes) == OK);
    buf_put_le32(out, (uint32_t)bytes.len);
    buf_put_slice(out, buf_slice(&bytes));

    struct wire_out *wire;
    double sums[GROUP_STEPS], rests[GROUP_STEPS] = { 0 };
    struct slice info = slice_str("an info (1:5)");
    struct source_groups unit = { .series_count = 5, .sample_count = 490, .infos = &info, .info_count = 1 };
    struct source_group group = { .columns = { sums, rests } };
    struct proof proof = { .complete = true, .data_through_ms = 1700000050000 };
    for (int i = 0; i < GROUP_STEPS; i++)
        sums[i] = i == 3 ? bits_double(SAMPLE_STALE_BITS) : i;
    rests[97] = 0.25;
    REQUIRE(wire_out_open(pool, WIRE_GROUPS, answer_write, out, &wire) == OK);
    REQUIRE(wire_out_unit(wire, &unit, GROUP_STEPS, 2) == OK);
    group.labels = labels_of("up", "a");
    REQUIRE(wire_out_group(wire, &group) == OK);
    group.labels = labels_of("up", "b");
    group.drop_name = true;
    REQUIRE(wire_out_group(wire, &group) == OK);
    REQUIRE(wire_out_proof(wire, &proof) == OK);
}

static void read_groups_answer(struct slice answer)
{
    struct wire_in in = { .pool = pool, .kind = WIRE_GROUPS };
    struct source_groups unit = { 0 };
    struct wire_block block;
    struct wire_groups *groups;
    struct wire_group piece;
    double sums[GROUP_STEPS], rests[GROUP_STEPS];
    double *const columns[] = { sums, rests };
    REQUIRE(wire_groups_open(pool, GROUP_STEPS, 2, &groups) == OK);
    REQUIRE(wire_in_next(&in, &answer, &block) == OK && block.type == WIRE_BLOCK_UNIT);
    REQUIRE(wire_unit_read(block.body, pool, GROUP_STEPS, 2, &unit) == OK);
    REQUIRE(unit.series_count == 5 && unit.sample_count == 490 && unit.warning_count == 0);
    REQUIRE(unit.info_count == 1 && slice_equal_str(unit.infos[0], "an info (1:5)"));
    REQUIRE(wire_in_next(&in, &answer, &block) == OK && block.type == WIRE_BLOCK_GROUPS);
    wire_groups_block(groups, block.body);
    for (int i = 0; i < 2; i++) {
        REQUIRE(wire_groups_next(groups, &piece) == OK && piece.drop_name == (i == 1));
        REQUIRE(slice_equal(piece.labels, labels_of("up", i == 0 ? "a" : "b")));
        wire_group_read(&piece, 2, columns);
        REQUIRE(sums[2] == 2 && sample_is_stale(sums[3]) && rests[97] == 0.25);
    }
    REQUIRE(wire_groups_next(groups, &piece) == ERR_END && wire_groups_are_whole(groups));
    wire_groups_close(groups);
    REQUIRE(wire_in_next(&in, &answer, &block) == OK && block.type == WIRE_BLOCK_PROOF && answer.len == 0);
}

static void read_groups(struct slice bytes)
{
    struct reader r = reader_of(bytes);
    struct wire_request request;
    REQUIRE(wire_request_decode(read_bytes(&r, read_le32(&r)), pool, &request, NULL) == OK);
    REQUIRE(request.kind == WIRE_GROUPS && slice_equal_str(request.unit.text, "1 + sum by (job) (up)"));
    REQUIRE(request.unit.begin == 4 && request.unit.end == 21 && request.unit.step_count == GROUP_STEPS);
    REQUIRE(request.unit.start_ms == 1700000000000 && request.unit.step_ms == 15000);
    REQUIRE(request.unit.query_end_ms == 1700001460000 && request.unit.lookback_ms == 300000);
    REQUIRE(request.selectors[0].range.min_ms == 1699999700001 && request.unit.column_count == 2);
    read_groups_answer(read_bytes(&r, read_left(&r)));
}

/* ---- all of them ---- */

static const struct {
    const char *name;
    void (*make)(struct buf *out);
    void (*read)(struct slice bytes);
    bool is_exact; /* no compressor has a part in it */
} formats[] = {
    { "node_1", make_node, read_node, true },
    { "batch_1", make_batch, read_batch, false },
    { "log_1", make_log, read_log, true },
    { "chain_1", make_chain, read_chain, true },
    { "state_1", make_state_object, read_state_object, false },
    { "stream_1", make_stream, read_stream, true },
    { "index_part_1", make_index_part, read_index_part, true },
    { "query_1", make_query, read_query, true },
    { "query_2", make_groups, read_groups, true },
};

int main(int argc, char **argv)
{
    bool makes = argc == 3 && strcmp(argv[1], "make") == 0;
    char scratch[] = "/tmp/kelpie-golden-XXXXXX";
    if (!makes && argc != 2) {
        fprintf(stderr, "usage: golden_formats [make] DIRECTORY\n");
        return 2;
    }
    pool = pool_open(NULL, "golden", POOL_BYTES_UNLIMITED);
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        struct buf made = buf_open(pool, BYTES_MAX);
        struct slice bytes;
        REQUIRE(mkdtemp(scratch) != NULL && io_open(scratch, &io) == OK);
        formats[i].make(&made);
        REQUIRE(buf_err(&made) == OK);
        io_close(io);
        REQUIRE(remove(scratch) == 0);
        memcpy(scratch + strlen(scratch) - 6, "XXXXXX", 6);
        REQUIRE(io_open(argv[argc - 1], &io) == OK);
        if (makes)
            REQUIRE(io_replace_file(io, formats[i].name, buf_slice(&made)) == OK);
        REQUIRE(io_read_file(io, formats[i].name, BYTES_MAX, pool, &bytes) == OK);
        formats[i].read(bytes);
        if (formats[i].is_exact && !slice_equal(bytes, buf_slice(&made))) {
            fprintf(stderr, "%s is written differently now: a new format version is due\n", formats[i].name);
            return 1;
        }
        io_close(io);
        printf("%s: %zu bytes, as ever\n", formats[i].name, bytes.len);
    }
    pool_close(pool);
    return 0;
}
