/* Builder of index parts. See index_part.h and docs/format/index.md.
 *
 * Series come in arrival order, where neighbours share most labels. So a label is first compared with the
 * bytes of the label at the same place of the series before; only what changed is looked up in a hash table
 * of pairs. Rows are kept in a compact provisional form (the final one, with provisional pair numbers), and
 * postings are gathered as runs: a label name's run ends when its value changes. Every 65,536 series the
 * runs are counting-sorted by pair and become containers. index_part_finish.c makes the image of it.
 *
 * Invariants
 *  1. Provisional numbers follow first appearance, so equal input gives equal images.
 *  2. run->last == row - 1 and run->pair == pair  <=>  the series before has this very label.
 *  3. Runs of one pair never overlap, and ascend; a container holds one chunk of one pair.
 *  4. After any failure the builder's only use is to be closed. */
#include "metric/index_part.h"

#include "base/check.h"
#include "base/hash.h"
#include "metric/index_part_build.h"
#include "model/labels.h"

err metric_part_builder_open(struct pool *parent, struct metric_part_builder **out_builder)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(parent, "index part builder", sizeof(struct metric_part_builder), &pool, &at));
    struct metric_part_builder *b = at;
    b->pool = pool;
    b->texts = buf_open(pool, METRIC_PART_IMAGE_BYTES_MAX);
    b->container_bytes = buf_open(pool, METRIC_PART_IMAGE_BYTES_MAX);
    b->rows = buf_open(pool, METRIC_PART_IMAGE_BYTES_MAX);
    *out_builder = b;
    return OK;
}

void metric_part_builder_close(struct metric_part_builder *builder)
{
    if (builder != NULL)
        pool_close(builder->pool);
}

uint32_t metric_part_builder_count(const struct metric_part_builder *builder)
{
    return builder->series_count;
}

size_t metric_part_builder_bytes(const struct metric_part_builder *builder)
{
    return pool_used(builder->pool);
}

#define RESERVE(b, array, count, capacity) \
    pool_block_reserve((b)->pool, (void **)&(b)->array, sizeof *(b)->array, (count), &(b)->capacity)

/* ---- interning ---- */

/* Double the table when it is over 3/4 full; `hash_of` gives the hash of entry i. */
static err table_grow(struct metric_part_builder *b, struct table *t,
                      uint32_t (*hash_of)(const struct metric_part_builder *b, uint32_t i))
{
    if (t->slot_count != 0 && (uint64_t)(t->used + 1) * 4 <= (uint64_t)t->slot_count * 3)
        return OK;
    uint32_t count = t->slot_count == 0 ? TABLE_SLOTS_MIN : t->slot_count * 2;
    void *at = NULL;
    TRY(pool_block_resize(b->pool, &at, (size_t)count * 4));
    uint32_t *slots = at;
    memset(slots, 0, (size_t)count * 4);
    for (uint32_t i = 0; i < t->used; i++) {
        uint32_t slot = hash_of(b, i) & (count - 1);
        while (slots[slot] != 0)
            slot = (slot + 1) & (count - 1);
        slots[slot] = i + 1;
    }
    pool_block_free(b->pool, t->slots);
    t->slots = slots;
    t->slot_count = count;
    return OK;
}

static uint32_t hash_of_pair(const struct metric_part_builder *b, uint32_t i) { return b->pairs[i].hash; }
static uint32_t hash_of_name(const struct metric_part_builder *b, uint32_t i) { return b->names[i].hash; }
static uint32_t hash_of_shape(const struct metric_part_builder *b, uint32_t i) { return b->shapes[i].hash; }

/* Number of a name; text_at is where its bytes already lie in texts, should it be new. */
static err intern_name(struct metric_part_builder *b, uint32_t text_at, uint32_t len, uint32_t *out_name)
{
    struct slice name = part_builder_text(b, text_at, len);
    uint32_t hash = (uint32_t)hash64(name, hash_secret() + 1);
    TRY(table_grow(b, &b->name_table, hash_of_name));
    uint32_t slot = hash & (b->name_table.slot_count - 1);
    for (uint32_t found; (found = b->name_table.slots[slot]) != 0;
         slot = (slot + 1) & (b->name_table.slot_count - 1)) {
        const struct name_entry *n = &b->names[found - 1];
        if (n->hash == hash && slice_equal(part_builder_text(b, n->at, n->len), name)) {
            *out_name = found - 1;
            return OK;
        }
    }
    TRY(RESERVE(b, names, b->name_count + 1, name_capacity));
    TRY(RESERVE(b, name_runs, b->name_count + 1, name_run_capacity));
    b->names[b->name_count] = (struct name_entry){ .at = text_at, .len = len, .hash = hash };
    b->name_runs[b->name_count] = (struct name_run){ .last = ROW_NONE };
    *out_name = (uint32_t)b->name_count++;
    b->name_table.slots[slot] = *out_name + 1;
    b->name_table.used++;
    return OK;
}

/* Number of the pair with this canonical label field. The field may lie in texts itself, behind its end. */
static err intern_pair(struct metric_part_builder *b, struct slice field, uint32_t *out_pair)
{
    uint32_t hash = (uint32_t)hash64(field, hash_secret());
    TRY(table_grow(b, &b->pair_table, hash_of_pair));
    uint32_t slot = hash & (b->pair_table.slot_count - 1);
    for (uint32_t found; (found = b->pair_table.slots[slot]) != 0;
         slot = (slot + 1) & (b->pair_table.slot_count - 1)) {
        const struct pair_entry *p = &b->pairs[found - 1];
        if (p->hash == hash && slice_equal(part_builder_text(b, p->at, p->len), field)) {
            *out_pair = found - 1;
            return OK;
        }
    }
    uint32_t at = (uint32_t)b->texts.len;
    buf_put_slice(&b->texts, field);
    TRY(buf_err(&b->texts));
    struct reader r = reader_of(part_builder_text(b, at, (uint32_t)field.len));
    struct label label;
    check(labels_next(&r, &label)); /* looked at by the caller */
    uint32_t name;
    TRY(intern_name(b, (uint32_t)(label.name.at - b->texts.at), (uint32_t)label.name.len, &name));
    TRY(RESERVE(b, pairs, b->pair_count + 1, pair_capacity));
    b->pairs[b->pair_count] =
        (struct pair_entry){ .at = at, .len = (uint32_t)field.len, .name = name, .hash = hash };
    *out_pair = (uint32_t)b->pair_count++;
    b->pair_table.slots[slot] = *out_pair + 1;
    b->pair_table.used++;
    return OK;
}

/* Names of a label set must ascend; asked only when a list of names is new. */
static bool names_ascend(const struct metric_part_builder *b, const uint32_t *names, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        const struct name_entry *x = &b->names[names[i - 1]], *y = &b->names[names[i]];
        if (slice_compare(part_builder_text(b, x->at, x->len), part_builder_text(b, y->at, y->len)) >= 0)
            return false;
    }
    return true;
}

static err intern_shape(struct metric_part_builder *b, const uint32_t *names, uint32_t count,
                        uint32_t *out_shape)
{
    if (b->series_count > 0) {
        const struct shape_entry *s = &b->shapes[b->shape];
        if (s->count == count && memcmp(b->shape_names + s->at, names, count * 4) == 0) {
            *out_shape = b->shape;
            return OK;
        }
    }
    uint32_t hash = (uint32_t)hash64(slice_of(names, count * 4), hash_secret() + 2);
    TRY(table_grow(b, &b->shape_table, hash_of_shape));
    uint32_t slot = hash & (b->shape_table.slot_count - 1);
    for (uint32_t found; (found = b->shape_table.slots[slot]) != 0;
         slot = (slot + 1) & (b->shape_table.slot_count - 1)) {
        const struct shape_entry *s = &b->shapes[found - 1];
        if (s->hash == hash && s->count == count && memcmp(b->shape_names + s->at, names, count * 4) == 0) {
            *out_shape = found - 1;
            return OK;
        }
    }
    if (!names_ascend(b, names, count))
        return ERR_INPUT;
    if (b->shape_name_count + count > UINT32_MAX)
        return ERR_LIMIT;
    TRY(RESERVE(b, shapes, b->shape_count + 1, shape_capacity));
    TRY(RESERVE(b, shape_names, b->shape_name_count + count + 1, shape_name_capacity));
    b->shapes[b->shape_count] =
        (struct shape_entry){ .at = (uint32_t)b->shape_name_count, .count = count, .hash = hash };
    memcpy(b->shape_names + b->shape_name_count, names, count * 4);
    b->shape_name_count += count;
    *out_shape = (uint32_t)b->shape_count++;
    b->shape_table.slots[slot] = *out_shape + 1;
    b->shape_table.used++;
    return OK;
}

/* ---- postings: runs, then containers ---- */

static err close_run(struct metric_part_builder *b, struct name_run *run)
{
    if (run->last == ROW_NONE)
        return OK;
    TRY(RESERVE(b, runs, b->run_count + 1, run_capacity));
    b->runs[b->run_count++] = (struct run){ .pair = run->pair,
                                            .start = (uint16_t)run->start,
                                            .more = (uint16_t)(run->last - run->start) };
    run->last = ROW_NONE;
    return OK;
}

static unsigned varint_size(uint32_t v) { return v < 0x80 ? 1 : v < 0x4000 ? 2 : v < 0x200000 ? 3 : 4; }

static void put_deltas(uint8_t *at, const struct run *runs, size_t count, uint8_t **out_end)
{
    uint32_t next = 0; /* the smallest ordinal that may follow */
    for (size_t i = 0; i < count; i++) {
        at = put_varint(at, runs[i].start - next);
        for (uint32_t k = 0; k < runs[i].more; k++)
            *at++ = 0;
        next = (uint32_t)runs[i].start + runs[i].more + 1;
    }
    *out_end = at;
}

static void put_runs(uint8_t *at, const struct run *runs, size_t count, uint8_t **out_end)
{
    uint32_t next = 0;
    at = put_varint(at, count);
    for (size_t i = 0; i < count; i++) {
        at = put_varint(at, runs[i].start - next);
        at = put_varint(at, runs[i].more);
        next = (uint32_t)runs[i].start + runs[i].more + 1;
    }
    *out_end = at;
}

static void put_bitset(uint8_t *at, const struct run *runs, size_t count)
{
    memset(at, 0, PART_CHUNK_BITSET_BYTES);
    for (size_t i = 0; i < count; i++)
        for (uint32_t v = runs[i].start; v <= (uint32_t)runs[i].start + runs[i].more; v++)
            at[v / 8] |= (uint8_t)(1u << v % 8);
}

/* Neighbouring runs (a label that left for no series between) become one. Returns the new count. */
static size_t join_runs(struct run *runs, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && (uint32_t)runs[kept - 1].start + runs[kept - 1].more + 1 == runs[i].start)
            runs[kept - 1].more = (uint16_t)(runs[kept - 1].more + runs[i].more + 1);
        else
            runs[kept++] = runs[i];
    }
    return kept;
}

/* The runs of one pair in one chunk, as the smallest container. */
static err put_container(struct metric_part_builder *b, uint32_t chunk, struct run *runs, size_t count)
{
    count = join_runs(runs, count);
    size_t deltas = 0, run_bytes = varint_size((uint32_t)count), ordinals = 0;
    uint32_t next = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned gap = varint_size(runs[i].start - next);
        deltas += gap + runs[i].more;
        run_bytes += gap + varint_size(runs[i].more);
        ordinals += runs[i].more + 1u;
        next = (uint32_t)runs[i].start + runs[i].more + 1;
    }
    size_t best = deltas <= run_bytes ? deltas : run_bytes;
    enum part_container type = deltas <= run_bytes ? CONTAINER_DELTAS : CONTAINER_RUNS;
    if (PART_CHUNK_BITSET_BYTES < best) {
        best = PART_CHUNK_BITSET_BYTES;
        type = CONTAINER_BITSET;
    }
    TRY(RESERVE(b, containers, b->container_count + 1, container_capacity));
    uint32_t from = (uint32_t)b->container_bytes.len;
    buf_put_varint(&b->container_bytes, (uint64_t)(ordinals - 1) << 2 | type);
    uint8_t *at = buf_room(&b->container_bytes, best + VARINT_BYTES_MAX);
    if (at == NULL)
        return buf_err(&b->container_bytes);
    uint8_t *end = at + PART_CHUNK_BITSET_BYTES;
    if (type == CONTAINER_DELTAS)
        put_deltas(at, runs, count, &end);
    else if (type == CONTAINER_RUNS)
        put_runs(at, runs, count, &end);
    else
        put_bitset(at, runs, count);
    check((size_t)(end - at) == best);
    b->container_bytes.len += best;
    b->containers[b->container_count++] =
        (struct container){ .pair = runs[0].pair,
                            .at = from,
                            .len = (uint32_t)(b->container_bytes.len - from),
                            .count = (uint32_t)ordinals,
                            .chunk = chunk };
    return OK;
}

/* Sort the chunk's runs by pair (stable, so they ascend within one) and make containers of them. */
err part_builder_flush(struct metric_part_builder *b)
{
    err e = OK;
    void *starts_at = NULL, *sorted_at = NULL;
    for (size_t n = 0; n < b->name_count; n++)
        TRY(close_run(b, &b->name_runs[n]));
    if (b->run_count == 0)
        return OK;
    uint32_t chunk = (b->series_count - 1) / PART_CHUNK_SERIES;
    TRY_OUT(pool_block_resize(b->pool, &starts_at, (b->pair_count + 1) * 4));
    TRY_OUT(pool_block_resize(b->pool, &sorted_at, b->run_count * sizeof(struct run)));
    uint32_t *starts = starts_at;
    struct run *sorted = sorted_at;
    memset(starts, 0, (b->pair_count + 1) * 4);
    for (size_t i = 0; i < b->run_count; i++)
        starts[b->runs[i].pair + 1]++;
    for (size_t p = 0; p < b->pair_count; p++)
        starts[p + 1] += starts[p];
    for (size_t i = 0; i < b->run_count; i++)
        sorted[starts[b->runs[i].pair]++] = b->runs[i];
    for (size_t from = 0, to; from < b->run_count; from = to) {
        for (to = from + 1; to < b->run_count && sorted[to].pair == sorted[from].pair; to++)
            ;
        TRY_OUT(put_container(b, chunk, sorted + from, to - from));
    }
    b->run_count = 0;
out:
    pool_block_free(b->pool, starts_at);
    pool_block_free(b->pool, sorted_at);
    return e;
}

/* ---- rows ---- */

/* Append the series whose names are in row_names and pairs in row_pairs[side]. */
static err add_row(struct metric_part_builder *b, uint32_t count)
{
    uint32_t row = b->series_count;
    if (row == METRIC_PART_SERIES_MAX)
        return ERR_LIMIT;
    if (row > 0 && row % PART_CHUNK_SERIES == 0)
        TRY(part_builder_flush(b));
    const uint32_t *pairs = b->row_pairs[b->side];
    uint32_t shape;
    TRY(intern_shape(b, b->row_names, count, &shape));
    bool first = row % PART_BLOCK_SERIES == 0;
    if (first) {
        TRY(RESERVE(b, block_at, b->block_count + 1, block_capacity));
        b->block_at[b->block_count++] = (uint32_t)b->rows.len;
    }
    size_t mask_bytes = first ? 0 : (count + 7) / 8;
    uint8_t *at = buf_room(&b->rows, VARINT_BYTES_MAX + mask_bytes + (size_t)count * 5);
    if (at == NULL)
        return buf_err(&b->rows);
    at = put_varint(at, !first && shape == b->shape ? 0 : (uint64_t)shape + 1);
    uint8_t *mask = at;
    memset(mask, 0, mask_bytes);
    at += mask_bytes;
    for (uint32_t i = 0; i < count; i++) {
        struct name_run *run = &b->name_runs[b->row_names[i]];
        bool same = run->last != ROW_NONE && run->last + 1 == row && run->pair == pairs[i];
        if (!same) {
            TRY(close_run(b, run));
            *run = (struct name_run){ .pair = pairs[i], .start = row };
        }
        run->last = row;
        if (first || !same)
            at = put_varint(at, pairs[i]);
        else
            mask[i / 8] |= (uint8_t)(1u << i % 8);
    }
    b->rows.len = (size_t)(at - b->rows.at);
    b->shape = shape;
    b->before_count = count;
    b->side ^= 1;
    b->series_count++;
    b->posting_count += count;
    return OK;
}

/* Length of the canonical field of a label. */
static size_t field_bytes(const struct label *l)
{
    uint8_t scratch[VARINT_BYTES_MAX];
    size_t inner = 2 + l->name.len + l->value.len + (size_t)(put_varint(scratch, l->name.len) - scratch) +
                   (size_t)(put_varint(scratch, l->value.len) - scratch);
    return 1 + (size_t)(put_varint(scratch, inner) - scratch) + inner;
}

err metric_part_builder_add(struct metric_part_builder *b, struct slice labels)
{
    uint32_t *pairs = b->row_pairs[b->side];
    const uint32_t *before = b->row_pairs[b->side ^ 1];
    struct reader r = reader_of(labels);
    uint32_t count = 0;
    while (r.at != r.end) {
        if (count == LABEL_COUNT_MAX)
            return ERR_LIMIT;
        if (count < b->before_count) {
            const struct pair_entry *p = &b->pairs[before[count]];
            if (p->len <= read_left(&r) && memcmp(b->texts.at + p->at, r.at, p->len) == 0) {
                pairs[count] = before[count];
                b->row_names[count++] = p->name;
                r.at += p->len;
                continue;
            }
        }
        struct label label;
        const uint8_t *from = r.at;
        if (!labels_next(&r, &label) || label.name.len == 0 || label.value.len == 0 ||
            (size_t)(r.at - from) != field_bytes(&label))
            return ERR_INPUT;
        TRY(intern_pair(b, slice_of(from, (size_t)(r.at - from)), &pairs[count]));
        b->row_names[count] = b->pairs[pairs[count]].name;
        count++;
    }
    return add_row(b, count);
}

err metric_part_builder_add_part(struct metric_part_builder *b, const struct metric_part *part,
                                 const uint64_t *keep)
{
    err e = OK;
    void *map_at = NULL;
    struct metric_part_cursor cursor;
    struct buf field = buf_open(b->pool, LABELS_BYTES_MAX * 2);
    struct pool *scratch = pool_open(b->pool, "index part merge", POOL_BYTES_UNLIMITED);
    TRY_OUT(pool_block_resize(b->pool, &map_at, ((size_t)part->pair_count + 1) * 4));
    uint32_t *map = map_at; /* the part's pair number → ours, filled as they are met */
    memset(map, 0xff, ((size_t)part->pair_count + 1) * 4);
    TRY_OUT(metric_part_cursor_open(part, scratch, &cursor));
    for (uint32_t row = 0; row < part->series_count; row++) {
        if (keep != NULL && (keep[row / 64] >> row % 64 & 1) == 0)
            continue;
        TRY_OUT(metric_part_cursor_seek(&cursor, row));
        uint32_t *pairs = b->row_pairs[b->side];
        for (uint32_t i = 0; i < cursor.count; i++) {
            uint32_t theirs = cursor.pairs[i];
            if (map[theirs] == UINT32_MAX) {
                struct metric_part_pair pair;
                TRY_OUT(metric_part_pair_at(part, theirs, &pair));
                buf_clear(&field);
                labels_put(&field, pair.name, pair.value);
                TRY_OUT(buf_err(&field));
                TRY_OUT(intern_pair(b, buf_slice(&field), &map[theirs]));
            }
            pairs[i] = map[theirs];
            b->row_names[i] = b->pairs[pairs[i]].name;
        }
        TRY_OUT(add_row(b, cursor.count));
    }
out:
    pool_block_free(b->pool, map_at);
    buf_close(&field);
    pool_close(scratch);
    return e == ERR_INPUT ? ERR_CORRUPT : e;
}
