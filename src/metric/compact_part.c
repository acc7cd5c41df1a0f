/* Parts of series on their way into a compact segment: up to METRIC_COMPACT_PART_ROWS_MAX rows each.
 *
 *   times ─ hash ─ timeline seen before? its number : encode, number it
 *   values ─ constant │ same as the +Inf bucket (a _count) │ bucket above minus this │ float vectors
 *   start times, native histograms ─ only where there are any
 *   payload ─ values section;   flags, rows, bytes, timeline ─ open granule
 *
 * Timelines are found by a 128-bit hash with a secret seed; a collision would be found by the verification that
 * follows every build. Invariants: 1. KIND_SAME and KIND_DIFFERENCE point back, to parts with the same timeline.
 * 2. A chain of differences is at most COMPACT_DIFFERENCE_CHAIN_MAX long. */
#include "base/check.h"
#include "metric/compact_writer.h"
#include "model/histogram.h"

#define MAP_CAPACITY_MIN 1024

static struct compact_map_slot *slot_of(const struct compact_map *map, struct hash128 key)
{
    size_t i = (size_t)key.low & (map->capacity - 1);
    while (map->slots[i].used && !hash128_equal(map->slots[i].key, key))
        i = (i + 1) & (map->capacity - 1);
    return &map->slots[i];
}

static err map_grow(struct compact_map *map)
{
    struct compact_map larger = { .pool = map->pool,
                                  .count = map->count,
                                  .capacity = map->capacity == 0 ? MAP_CAPACITY_MIN : 2 * map->capacity };
    TRY(pool_block_resize(map->pool, (void **)&larger.slots, larger.capacity * sizeof *larger.slots));
    memset(larger.slots, 0, larger.capacity * sizeof *larger.slots);
    for (size_t i = 0; i < map->capacity; i++)
        if (map->slots[i].used)
            *slot_of(&larger, map->slots[i].key) = map->slots[i];
    pool_block_free(map->pool, map->slots);
    *map = larger;
    return OK;
}

err compact_map_put(struct compact_map *map, struct hash128 key, uint32_t value)
{
    if (map->count + map->count / 2 >= map->capacity)
        TRY(map_grow(map));
    struct compact_map_slot *slot = slot_of(map, key);
    map->count += !slot->used;
    *slot = (struct compact_map_slot){ .key = key, .value = value, .used = true };
    return OK;
}

bool compact_map_get(const struct compact_map *map, struct hash128 key, uint32_t *out_value)
{
    if (map->count == 0)
        return false;
    const struct compact_map_slot *slot = slot_of(map, key);
    if (slot->used)
        *out_value = slot->value;
    return slot->used;
}

err compact_stream_flush(struct metric_compact_writer *w, struct compact_stream *stream)
{
    if (stream->content.len == 0)
        return OK;
    TRY(segment_writer_block(w->segment, stream->section, buf_slice(&stream->content), true, NULL));
    buf_clear(&stream->content);
    stream->block++;
    return OK;
}

err compact_stream_put(struct metric_compact_writer *w, struct compact_stream *stream, struct slice bytes,
                       uint32_t *out_block, uint32_t *out_offset)
{
    if (bytes.len > SEGMENT_BLOCK_BYTES_MAX)
        return ERR_LIMIT;
    if (stream->content.len > 0 && stream->content.len + bytes.len > SEGMENT_BLOCK_BYTES)
        TRY(compact_stream_flush(w, stream));
    if (out_block != NULL) {
        *out_block = stream->block;
        *out_offset = (uint32_t)stream->content.len;
    }
    buf_put_slice(&stream->content, bytes);
    return buf_err(&stream->content);
}

err compact_timelines_flush(struct metric_compact_writer *w)
{
    size_t n = w->timeline_count % COMPACT_TIMELINES;
    if (n == 0)
        n = w->timeline_count == 0 ? 0 : COMPACT_TIMELINES;
    if (n == 0)
        return OK;
    int64_t column[COMPACT_TIMELINES];
    struct buf *out = &w->scratch;
    buf_clear(out);
    buf_put_le32(out, w->timeline_block);
    buf_put_le32(out, w->timeline_offset);
    buf_put_le16(out, (uint16_t)n);
    for (int which = 0; which < 4; which++) {
        for (size_t i = 0; i < n; i++) {
            const struct compact_timeline *t = &w->open_timelines[i];
            column[i] = which == 0   ? (int64_t)t->rows
                        : which == 1 ? (int64_t)t->bytes
                        : which == 2 ? t->first_ms
                                     : (int64_t)((uint64_t)t->last_ms - (uint64_t)t->first_ms);
        }
        TRY(int_column_encode(column, n, CODEC_FULL, out));
    }
    return segment_writer_block(w->segment, SECTION_TIMELINE_TABLE, buf_slice(out), true, NULL);
}

/* The number of the timeline with these times, now written if it is new. */
static err timeline_of(struct metric_compact_writer *w, const int64_t *t_ms, size_t rows,
                       uint32_t *out_timeline)
{
    struct hash128 key = hash128(slice_of(t_ms, rows * sizeof *t_ms), w->seed);
    if (compact_map_get(&w->timeline_map, key, out_timeline))
        return OK;
    if (w->timeline_count == UINT32_MAX)
        return ERR_LIMIT;
    if (w->timeline_count > 0 && w->timeline_count % COMPACT_TIMELINES == 0)
        TRY(compact_timelines_flush(w));
    struct buf *out = &w->scratch;
    int64_t firsts[COMPACT_VECTORS_MAX];
    size_t k = compact_vector_count(rows);
    buf_clear(out);
    for (size_t i = 1; i < k; i++)
        firsts[i - 1] = t_ms[i * CODEC_VECTOR_COUNT_MAX];
    if (k > 1)
        TRY(int_column_encode(firsts, k - 1, CODEC_FULL, out));
    compact_vectors_put((const uint64_t *)t_ms, rows, false, w->effort, out);
    TRY(buf_err(out));
    if (w->timeline_count % COMPACT_TIMELINES == 0) {
        w->timeline_block = w->timelines.block;
        w->timeline_offset = (uint32_t)w->timelines.content.len;
    }
    TRY(compact_stream_put(w, &w->timelines, buf_slice(out), NULL, NULL));
    w->open_timelines[w->timeline_count % COMPACT_TIMELINES] = (struct compact_timeline){
        .rows = (uint32_t)rows,
        .bytes = (uint32_t)out->len,
        .first_ms = t_ms[0],
        .last_ms = t_ms[rows - 1],
    };
    TRY(compact_map_put(&w->timeline_map, key, w->timeline_count));
    *out_timeline = w->timeline_count++;
    return OK;
}

static bool all_equal(const uint64_t *bits, size_t n)
{
    uint64_t any = 0;
    for (size_t i = 1; i < n; i++)
        any |= bits[i] ^ bits[0];
    return any == 0;
}

/* Histogram bytes to their section; where they begin and which rows they are to the payload. */
static err put_histograms(struct metric_compact_writer *w, const struct sample_histogram *histograms,
                          size_t count, size_t from)
{
    uint32_t block = 0, offset = 0;
    for (size_t i = 0; i < count; i++) {
        if (histograms[i].bytes.len > HISTOGRAM_BYTES_MAX)
            return ERR_LIMIT;
        buf_clear(&w->scratch);
        buf_put_string(&w->scratch, histograms[i].bytes);
        TRY(buf_err(&w->scratch));
        TRY(compact_stream_put(w, &w->histograms, buf_slice(&w->scratch), i == 0 ? &block : NULL,
                               i == 0 ? &offset : NULL));
        w->part_rows[i] = histograms[i].row - (uint32_t)from;
    }
    buf_put_varint(&w->payload, block);
    buf_put_varint(&w->payload, offset);
    buf_put_varint(&w->payload, count);
    return int_column_encode_u32(w->part_rows, count, w->effort, &w->payload);
}

/* Start times in front of the values, with their length. */
static err put_start(struct metric_compact_writer *w, const int64_t *start_ms, size_t rows)
{
    buf_clear(&w->scratch);
    compact_vectors_put((const uint64_t *)start_ms, rows, false, w->effort, &w->scratch);
    TRY(buf_err(&w->scratch));
    buf_put_string(&w->payload, buf_slice(&w->scratch));
    return OK;
}

/* Can this part be told as the bucket above minus this? Fills ints with its values (kept for the next bucket) and
 * w->part_bits with the differences. */
static bool difference(struct metric_compact_writer *w, const struct compact_series *series,
                       const uint64_t *bits, size_t rows, size_t from, uint32_t part_index, uint32_t timeline)
{
    struct compact_previous *p = &w->previous;
    const int64_t *above = p->ints + from;
    int64_t ints[CODEC_VECTOR_COUNT_MAX];
    if (!series->may_differ || p->timelines[part_index] != timeline)
        return false;
    for (size_t i = 0; i < rows; i += CODEC_VECTOR_COUNT_MAX) {
        size_t n = rows - i < CODEC_VECTOR_COUNT_MAX ? rows - i : CODEC_VECTOR_COUNT_MAX;
        if (!float_integers(bits + i, n, ints))
            return false;
        for (size_t k = 0; k < n; k++)
            w->part_bits[i + k] = (uint64_t)(above[i + k] - ints[k]);
    }
    return true;
}

/* The values behind what is in the payload; *out_kind. */
static err put_values(struct metric_compact_writer *w, const struct compact_series *series,
                      const uint64_t *bits, size_t rows, size_t from, uint32_t part_index, uint32_t timeline,
                      enum compact_kind *out_kind)
{
    if (all_equal(bits, rows)) {
        *out_kind = KIND_CONSTANT;
        compact_vectors_put(bits, 1, true, w->effort, &w->payload);
        return buf_err(&w->payload);
    }
    struct hash128 key = { 0 };
    if (series->is_infinity || series->is_count) {
        uint32_t twin;
        key = hash128(slice_of(bits, rows * sizeof *bits), w->seed ^ timeline);
        if (series->is_count && compact_map_get(&w->same_map, key, &twin)) {
            *out_kind = KIND_SAME;
            buf_put_varint(&w->payload, w->part_count - twin);
            return buf_err(&w->payload);
        }
    }
    if (difference(w, series, bits, rows, from, part_index, timeline)) {
        *out_kind = KIND_DIFFERENCE;
        buf_put_varint(&w->payload, w->previous.part_count);
        compact_vectors_put(w->part_bits, rows, false, w->effort, &w->payload);
        return buf_err(&w->payload);
    }
    *out_kind = KIND_PLAIN;
    compact_vectors_put(bits, rows, true, w->effort, &w->payload);
    if (series->is_infinity)
        TRY(compact_map_put(&w->same_map, key, w->part_count));
    return buf_err(&w->payload);
}

static bool any_set(const int64_t *start_ms, size_t rows)
{
    for (size_t i = 0; i < rows; i++)
        if (start_ms[i] != 0)
            return true;
    return false;
}

err compact_part_put(struct metric_compact_writer *w, const struct compact_series *series,
                     const struct metric_rows *rows, size_t from, size_t count, uint32_t part_index,
                     const struct sample_histogram *histograms, size_t histogram_count)
{
    struct compact_part part = { .rows = (uint16_t)count };
    struct compact_granule *g = &w->granule;
    const uint64_t *bits = rows->value_bits + from;
    if (w->part_count == UINT32_MAX)
        return ERR_LIMIT;
    TRY(timeline_of(w, rows->t_ms + from, count, &part.timeline));
    buf_clear(&w->payload);
    if (rows->start_ms != NULL && any_set(rows->start_ms + from, count)) {
        part.flags |= PART_START;
        TRY(put_start(w, rows->start_ms + from, count));
    }
    if (histogram_count > 0) {
        part.flags |= PART_HISTOGRAM;
        TRY(put_histograms(w, histograms, histogram_count, from));
        memcpy(w->part_bits, bits, count * sizeof *bits);
        for (size_t i = 0; i < histogram_count; i++)
            w->part_bits[histograms[i].row - from] = 0;
        bits = w->part_bits;
    }
    enum compact_kind kind;
    TRY(put_values(w, series, bits, count, from, part_index, part.timeline, &kind));
    part.flags |= (uint8_t)kind;
    part.bytes = (uint32_t)w->payload.len;
    if (g->part_count == 0) {
        g->value_block = w->values.block;
        g->value_offset = (uint32_t)w->values.content.len;
    }
    TRY(compact_stream_put(w, &w->values, buf_slice(&w->payload), NULL, NULL));
    TRY(pool_block_reserve(w->pool, (void **)&g->parts, sizeof *g->parts, g->part_count + 1,
                           &g->part_capacity));
    g->parts[g->part_count++] = part;
    w->part_count++;
    return OK;
}
