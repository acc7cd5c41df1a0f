/* Recovery of a partition: fold the chain, take the state at its end, read the stream files behind it, and
 * open the log behind those. See partition.h; rules in docs/format/stream.md §4.
 *
 * Invariants
 *  1. What is used is a path of positions: the chain's end, then each stream file whose range starts where the
 *     path has come to, frame by frame, until one is missing, torn or damaged. From there the log is replayed,
 * which keeps every record that no chain entry covers.
 *  2. Nothing old is written: a range that goes on gets a new part.
 *  3. A frame beyond the log's durable end is not used: offsets there are given again. The log lost its end then:
 *     a generation begins, the loss is named, and the stream file is kept in the quarantine. */
#include "shard/partition.h"

#include "base/check.h"
#include "base/diag.h"
#include "base/stat.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- chain ---- */

/* A damaged entry never stops the start: what stands in for it says what is missing. */
static void report_damage(void *context, const struct chain_entry *in_place, err why)
{
    const struct partition *p = context;
    bool is_rebuilt = in_place->kind != CHAIN_LOST;
    stat_add(STAT_SHARD_QUARANTINED, 1);
    if (in_place->kind == CHAIN_BASE) {
        diag(DIAG_WARN, "A manifest entry is damaged; a later one holds all that it told.",
             "partition=%u number=%llu error=\"%s\"", p->number, (unsigned long long)in_place->number,
             err_text(why));
        return;
    }
    diag(is_rebuilt ? DIAG_WARN : DIAG_ERROR,
         is_rebuilt
             ? "A manifest entry is damaged; it was built again from its state and segments."
             : "A manifest entry is damaged; what is known of it stands in for it, and answers name the"
               " rest until kelpie fsck --confirm-loss.",
         "partition=%u number=%llu error=\"%s\" segments=%zu losses=%zu", p->number,
         (unsigned long long)in_place->number, err_text(why), in_place->segment_count, in_place->loss_count);
}

err partition_chain_read(struct partition *p, uint64_t log_start, struct err_at *at)
{
    struct shards *shards = p->shards;
    struct chain_reader reader = { .config = &shards->config,
                                   .io = shards->io,
                                   .blob = shards->blob,
                                   .pool = shards->pool,
                                   .partition = p->number,
                                   .log_start = log_start,
                                   .now_ms = io_now_ms(shards->io),
                                   .damaged = report_damage,
                                   .context = p };
    p->chain = chain_open(p->pool, p->number, (struct log_position){ .generation = 1 });
    p->chain.takes_old = (shards->config.canary & SHARD_CANARY_NAME_OLD) != 0;
    TRY(shard_chain_read(&reader, &p->chain, at));
    if (p->chain.ignored_count > 0)
        diag(DIAG_WARN, "Manifest entries are not valid and ignored.", "partition=%u entries=%llu", p->number,
             (unsigned long long)p->chain.ignored_count);
    return p->chain.next_number > 1 && !shards->config.read_only ? partition_chain_promise(p) : OK;
}

/* ---- state ---- */

/* Where a decoder finds series again. */
struct finder {
    struct partition *p;
    struct range *range; /* NULL: no references */
};

static err find_reference(void *context, uint32_t reference, uint32_t *out_local)
{
    const struct finder *f = context;
    if (f->range == NULL || reference >= f->range->numbers.count)
        return ERR_CORRUPT;
    *out_local = f->range->local_of_number[reference];
    return OK;
}

static err find_labels(void *context, struct slice tenant, struct slice labels, uint32_t *out_local)
{
    const struct finder *f = context;
    return partition_series(f->p, tenant, labels, out_local);
}

static bool is_zero(const uint8_t digest[SHA256_BYTES])
{
    uint8_t any = 0;
    for (int i = 0; i < SHA256_BYTES; i++)
        any |= digest[i];
    return any == 0;
}

/* Its bytes, and what they hold, in scratch. */
static err read_state_once(struct partition *p, const char *key, struct pool *scratch,
                           struct slice *out_bytes, struct state *out_state)
{
    struct finder finder = { .p = p };
    struct state_series series = { find_reference, find_labels, &finder };
    TRY(blob_get(p->shards->blob, key, STATE_BYTES_MAX, scratch, out_bytes));
    return state_object_decode(*out_bytes, &series, scratch, out_state);
}

static err read_state_object(struct partition *p, int which, struct err_at *at)
{
    char key[SHARD_KEY_BYTES_MAX];
    state_key(p->number, p->chain.state_digests[which], p->chain.state_eras[which], key);
    struct pool *scratch = pool_open(p->shards->pool, "state", POOL_BYTES_UNLIMITED);
    struct slice bytes;
    struct state state;
    err e = read_state_once(p, key, scratch, &bytes, &state);
    if (e == ERR_CORRUPT && object_doubt(p->shards->blob, key)) {
        pool_reset(scratch);
        e = read_state_once(p, key, scratch, &bytes, &state);
    }
    if (e == ERR_VERSION) {
        struct err_at why = { 0 };
        ERR_IGNORE(state_object_check(bytes, &why));
        ERR_IGNORE(err_set(at, e, "state object %s/%s: %s", p->shards->config.blob_directory, key,
                           why.text[0] != '\0' ? why.text : err_text(e)));
    }
    if (e == OK) {
        if (which != 0)
            state.unresolved_count = 0; /* some got their labels since */
        e = partition_restore(p, &state);
    }
    pool_close(scratch);
    return e;
}

/* Of a shared store: is what the fold names gone because the chain went on since it was read, and a day passed, in
 * which this process slept? Then all is read anew. */
static bool chain_went_on(struct partition *p)
{
    struct pool *scratch = pool_open(p->shards->pool, "next", POOL_BYTES_UNLIMITED);
    struct slice bytes;
    struct chain_entry entry;
    bool is_there = p->shards->config.is_shared && !(p->shards->config.canary & SHARD_CANARY_READ_ONCE) &&
                    partition_entry_read(p, p->chain.next_number, scratch, &bytes, &entry) != ERR_NOT_FOUND;
    pool_close(scratch);
    return is_there;
}

/* Without the newest state the one before it serves: bindings are never changed, and none of those it lacks is
 * taken for another: their rows in the tail of the log have no labels, which answers name. */
static err read_state(struct partition *p, struct err_at *at)
{
    err e = OK, first = OK;
    int64_t through_ms = p->chain.data_through_ms;
    p->data_through_ms = through_ms;
    for (int i = 0; i < 2; i++) {
        if (is_zero(p->chain.state_digests[i]))
            break;
        e = read_state_object(p, i, at);
        if (e == ERR_NOT_FOUND && chain_went_on(p))
            return err_set(at, ERR_ORDER, "the chain of partition %u went on while it was read", p->number);
        if (e == OK || !is_damage(e))
            break;
        first = i == 0 ? e : first;
    }
    if (first == OK || (e != OK && !is_damage(e)))
        return e == OK || e == ERR_VERSION
                   ? e
                   : err_set(at, e, "a state object of partition %u: %s", p->number, err_text(e));
    p->data_through_ms = through_ms;
    p->state_is_old = true;
    p->state_failed = first;
    return OK;
}

/* The stream files are read. A read error may pass: the start goes on only if the state is not needed. That is so
 * when no record follows that could use its bindings, and no row waits in it alone. */
static err check_state(struct partition *p, uint64_t log_end, struct err_at *at)
{
    if (!p->state_is_old)
        return OK;
    char key[SHARD_KEY_BYTES_MAX];
    bool is_checkpointed = position_compare(p->applied, p->chain.end) > 0;
    state_key(p->number, p->chain.state_digests[0], p->chain.state_eras[0], key);
    if (p->state_failed == ERR_IO &&
        (log_end > p->applied.offset || (p->chain.unresolved.count > 0 && !is_checkpointed)))
        return err_set(at, ERR_IO, "state object %s/%s cannot be read (%s), and rows behind it need it",
                       p->shards->config.blob_directory, key, err_text(ERR_IO));
    stat_add(STAT_SHARD_QUARANTINED, 1);
    diag(DIAG_ERROR,
         "The newest state object cannot be read; the start goes on from an older one, and rows whose labels"
         " only it had are named in answers.",
         "object=%s error=\"%s\"", key, err_text(p->state_failed));
    return OK;
}

/* Rows that waited for their labels in the damaged state, unless a checkpoint behind it had them. */
static err lost_unresolved(struct partition *p)
{
    struct chain_loss loss = { .kind = LOSS_UNRESOLVED,
                               .from = p->chain.end,
                               .to = p->chain.end,
                               .range = { TIME_MS_MIN, TIME_MS_MAX },
                               .row_count = p->chain.unresolved.count };
    bool is_known = position_compare(p->applied, p->chain.end) > 0;
    return p->state_is_old && loss.row_count > 0 && !is_known ? range_loss_add(p->open_range, &loss) : OK;
}

/* ---- stream files ---- */

/* The parts of one range that exist, by number. */
struct found_part {
    struct stream_name name;
    const char *file_name;
    bool is_used;
};

static int part_order(const void *a, const void *b)
{
    const struct stream_name *x = &((const struct found_part *)a)->name,
                             *y = &((const struct found_part *)b)->name;
    int order = position_compare(x->start, y->start);
    return order != 0 ? order : x->part < y->part ? -1 : x->part > y->part;
}

static err find_parts(struct partition *p, struct pool *pool, struct found_part **out_parts,
                      size_t *out_count)
{
    struct io_dir_entry *entries;
    size_t entry_count, count = 0;
    void *at;
    err e = io_dir_list(p->shards->io, p->shards->config.stream_directory, pool, &entries, &entry_count);
    if (e == ERR_NOT_FOUND) /* read only, and nothing was ever spilled */
        entry_count = 0;
    else
        TRY(e);
    TRY(pool_zalloc(pool, entry_count * sizeof(struct found_part) + 1, &at));
    struct found_part *parts = at;
    for (size_t i = 0; i < entry_count; i++) {
        struct stream_name name;
        if (!entries[i].is_dir && stream_name_parse(entries[i].name, &name) && name.partition == p->number)
            parts[count++] = (struct found_part){ .name = name, .file_name = entries[i].name };
    }
    qsort(parts, count, sizeof *parts, part_order);
    *out_parts = parts;
    *out_count = count;
    return OK;
}

/* Entries of a dictionary, gathered so that the index is asked for many at once. */
struct dictionary {
    struct partition *p;
    struct pool *pool; /* of what is gathered */
    uint32_t *locals;
    uint32_t first, count, done;
    struct slice tenant;
    struct metric_index_item items[METRIC_INDEX_ITEMS];
    size_t item_count;
};

static err dictionary_flush(struct dictionary *d)
{
    size_t done;
    if (d->item_count == 0)
        return OK;
    TRY(metric_index_add_all(d->p->shards->index, d->tenant, d->items, d->item_count, d->p->number, &done));
    for (size_t i = 0; i < d->item_count; i++)
        d->locals[d->done++] = d->items[i].local;
    d->item_count = 0;
    pool_reset(d->pool);
    return OK;
}

static err dictionary_entry(void *context, uint32_t number, struct slice tenant, struct slice labels)
{
    struct dictionary *d = context;
    if (number - d->first >= d->count)
        return ERR_CORRUPT;
    if (d->item_count == METRIC_INDEX_ITEMS || (d->item_count > 0 && !slice_equal(d->tenant, tenant)))
        TRY(dictionary_flush(d));
    if (d->item_count == 0)
        TRY(pool_copy(d->pool, tenant, &d->tenant));
    TRY(pool_copy(d->pool, labels, &d->items[d->item_count].labels));
    d->item_count++;
    return OK;
}

/* Series of a group's dictionary, found or registered, get the range's next numbers. */
static err use_dictionary(struct partition *p, struct range *range, const struct range_group *group,
                          struct pool *scratch)
{
    if (group->facts.first_new_number != range->numbers.count)
        return ERR_CORRUPT;
    struct dictionary d = { .p = p,
                            .pool = pool_open(scratch, "dictionary", POOL_BYTES_UNLIMITED),
                            .first = group->facts.first_new_number,
                            .count = group->facts.new_count };
    void *at;
    err e = OK;
    TRY_OUT(pool_zalloc(scratch, (size_t)d.count * sizeof(uint32_t) + 1, &at));
    d.locals = at;
    TRY_OUT(metric_group_dictionary(group->group, scratch, dictionary_entry, &d));
    TRY_OUT(dictionary_flush(&d));
    TRY_OUT(range_numbers_bind(range, d.locals, d.count));
out:
    pool_close(d.pool);
    return e;
}

/* Take one frame over: its group's series and rows, its checkpoint. */
static err use_frame(struct partition *p, struct range *range, struct io_file *file,
                     const struct stream_frame *frame, uint64_t log_end, struct pool *scratch)
{
    struct range_group *group = NULL;
    err e = OK;
    if (frame->group_bytes > 0) {
        TRY(range_group_attach(range, file, frame->group_offset, frame->group_bytes, p->applied, p->applied,
                               &group));
        TRY_OUT(use_dictionary(p, range, group, scratch));
    }
    struct finder finder = { .p = p, .range = range };
    struct state_series series = { find_reference, find_labels, &finder };
    struct state state;
    TRY_OUT(state_decode(frame->checkpoint, &series, scratch, &state));
    TRY_OUT(position_compare(state.start, range->start) == 0 &&
                    state.at.generation == range->start.generation && state.at.offset >= p->applied.offset
                ? OK
                : ERR_CORRUPT);
    struct sum added = state.sum; /* rows and checkpoint tell the same, or neither is believed */
    sum_subtract(&added, range->sum);
    TRY_OUT(sum_equal(added, group != NULL ? group->facts.sum : (struct sum){ 0 }) ? OK : ERR_CORRUPT);
    if (state.at.offset > log_end)
        TRY_OUT(p->shards->config.read_only ? ERR_CORRUPT : ERR_ORDER);
    TRY_OUT(partition_restore(p, &state));
    range->record_count = state.record_count;
    range->log_bytes = state.log_bytes;
    range->sum = state.sum;
    range->row_count = state.sum.count;
    range->resolved_removed = state.resolved_removed;
    range->resolved_added = state.resolved_added;
    range->far_future_rows = state.far_future_rows;
    range->loss_count = 0;
    for (size_t i = 0; i < state.loss_count; i++)
        TRY_OUT(range_loss_add(range, &state.losses[i]));
    p->applied = state.at;
    p->is_recovered = true;
    if (group != NULL) {
        group->to = state.at;
        range_group_publish(range, group);
        group = NULL;
    }
    range->stream_bytes += frame->next_offset - frame->offset;
    if (state.closed) {
        range->closed = true;
        range->end = state.at;
        range->reason = state.reason;
        range->format_version = state.format_version;
    }
out:
    if (group != NULL)
        metric_group_close(group->group);
    return e;
}

/* A part that ends where the power went is cut off there, and the log is replayed from it. Every other error
 * refuses the start: what another start can read again must not be followed by a part that stands in for it. */
static bool is_torn(err e) { return e == ERR_CORRUPT || e == ERR_END; }

/* Use the frames of a part up to valid_end. ERR_CORRUPT: it ends before. */
static err use_part(struct partition *p, struct range *range, const struct found_part *found,
                    uint64_t valid_end, uint64_t log_end, struct io_file *file)
{
    uint64_t offset = STREAM_FILE_HEADER_BYTES;
    err e = OK;
    struct pool *scratch = pool_open(p->shards->pool, "frame", POOL_BYTES_UNLIMITED);
    while (!range->closed) {
        struct stream_frame frame;
        pool_reset(scratch);
        e = stream_frame_read(file, offset, valid_end, scratch, &frame);
        if (e == OK)
            e = use_frame(p, range, file, &frame, log_end, scratch);
        if (e != OK)
            break;
        offset = frame.next_offset;
    }
    pool_close(scratch);
    range->writer.end = offset;
    if (e == ERR_CORRUPT)
        diag(DIAG_WARN, "A stream file ends in a torn or damaged frame; the log is replayed from there.",
             "file=%s offset=%llu", found->file_name, (unsigned long long)offset);
    return e == ERR_END ? OK : e;
}

/* All parts of the range that starts where the path has come to. *out_whole: go on behind it if it is closed. */
static err use_range(struct partition *p, struct range *range, struct found_part *parts, size_t count,
                     uint64_t log_end, bool *out_whole, struct err_at *at)
{
    struct shards *shards = p->shards;
    *out_whole = true;
    for (size_t i = 0; i < count && *out_whole && !range->closed; i++) {
        char path[IO_PATH_BYTES_MAX];
        struct io_file *file;
        uint64_t valid_end;
        struct stream_part_header header;
        void *block;
        TRY(pool_zalloc(range->worker_pool, sizeof(struct stream_part), &block));
        TRY(stream_path(shards->config.stream_directory, &parts[i].name, path));
        TRY(io_file_open(shards->io, path, IO_READ, &file));
        struct stream_part *part = block;
        part->file = file;
        part->part = parts[i].name.part;
        *range->parts_end = part;
        range->parts_end = &part->next;
        TRY(io_file_size(file, &valid_end));
        struct err_at why = { 0 };
        err e = stream_header_read(file, &header, &why);
        if (e == ERR_VERSION)
            return err_set(at, e, "stream file %s: %s", path, why.text);
        if (!is_torn(e))
            TRY(e);
        if (e != OK || header.before_bytes != range->writer.end)
            continue;                            /* never got a header, or followed bytes that are not used */
        for (size_t k = i + 1; k < count; k++) { /* the next part says how much of this one was promised */
            struct io_file *next;
            struct stream_part_header next_header;
            TRY(stream_path(shards->config.stream_directory, &parts[k].name, path));
            TRY(io_file_open(shards->io, path, IO_READ, &next));
            e = stream_header_read(next, &next_header, NULL);
            io_file_close(next);
            if (!is_torn(e) && e != ERR_VERSION) /* that one is refused by name when it is its turn */
                TRY(e);
            if (e == OK && next_header.before_bytes >= STREAM_FILE_HEADER_BYTES) {
                valid_end = next_header.before_bytes < valid_end ? next_header.before_bytes : valid_end;
                break;
            }
        }
        parts[i].is_used = true;
        e = use_part(p, range, &parts[i], valid_end, log_end, file);
        if (e == ERR_VERSION)
            return err_set(at, e, "a frame of stream file %s/%s was written by a newer version",
                           shards->config.stream_directory, parts[i].file_name);
        if (!is_torn(e))
            TRY(e);
    }
    return OK;
}

static void range_append(struct partition *p, struct range *range)
{
    struct range **end = &p->ranges;
    while (*end != NULL)
        end = &(*end)->next;
    *end = range;
    p->open_range = range;
}

/* Of a generation whose log is gone: what it holds may be nowhere else. */
static err set_aside(struct partition *p, const char *name)
{
    char to[IO_PATH_BYTES_MAX];
    TRY(shard_set_aside(p->shards->io, &p->shards->config, name, to));
    diag(DIAG_ERROR, "A stream file holds rows of a log that is gone; it is set aside.", "file=%s", to);
    return OK;
}

/* Files that are not part of the path: what they hold is in the chain or will be replayed. */
static err remove_unused(struct partition *p, const struct found_part *parts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (parts[i].is_used)
            continue;
        char path[IO_PATH_BYTES_MAX];
        TRY(stream_path(p->shards->config.stream_directory, &parts[i].name, path));
        if (parts[i].name.start.generation < p->chain.end.generation) {
            TRY(set_aside(p, parts[i].file_name));
            continue;
        }
        err e = io_unlink(p->shards->io, path);
        if (e != OK && e != ERR_NOT_FOUND)
            return e;
    }
    return OK;
}

err partition_streams_remove(struct partition *p)
{
    struct pool *pool = pool_open(p->shards->pool, "streams", POOL_BYTES_UNLIMITED);
    struct found_part *parts;
    size_t count;
    err e = find_parts(p, pool, &parts, &count);
    for (size_t i = 0; i < count && e == OK; i++) {
        char path[IO_PATH_BYTES_MAX];
        e = stream_path(p->shards->config.stream_directory, &parts[i].name, path);
        if (e == OK)
            e = io_unlink(p->shards->io, path);
        e = e == ERR_NOT_FOUND ? OK : e;
    }
    pool_close(pool);
    return e;
}

static err read_streams(struct partition *p, uint64_t log_end, struct err_at *at)
{
    err e = OK;
    struct pool *pool = pool_open(p->shards->pool, "streams", POOL_BYTES_UNLIMITED);
    struct found_part *parts;
    size_t count;
    TRY_OUT(find_parts(p, pool, &parts, &count));
    for (bool go_on = true; go_on;) {
        struct range *range;
        TRY_OUT(range_open(p->shards, p->applied, &range));
        range_append(p, range);
        size_t first = 0, own = 0;
        while (first < count && position_compare(parts[first].name.start, range->start) != 0)
            first++;
        while (first + own < count && position_compare(parts[first + own].name.start, range->start) == 0)
            own++;
        bool whole;
        TRY_OUT(use_range(p, range, parts + first, own, log_end, &whole, at));
        range->part_count = own > 0 ? parts[first + own - 1].name.part + 1 : 0;
        for (size_t i = first; i < first + own; i++)
            parts[i].is_used = true; /* unlinked with the range, after its commit */
        go_on = range->closed;
        if (range->closed) {
            range->state_pool = pool_open(p->shards->pool, "state", POOL_BYTES_UNLIMITED);
            TRY_OUT(partition_capture(p, range, false, range->state_pool, &range->state));
            range->unresolved = state_unresolved_sum(&range->state);
            range->closed_ns = p->heard_ns;
            p->closed_count++;
        }
    }
    if (!p->shards->config.read_only)
        TRY_OUT(remove_unused(p, parts, count));
out:
    pool_close(pool);
    return e;
}

/* ---- the log ---- */

/* The log ends below what the chain or a stream file holds: it was lost, in whole or its newest part. A generation
 * begins where it can be read on; how much there was behind the end, nobody knows: times up to now are a loss. */
static err generation_begin(struct partition *p, uint64_t log_end)
{
    struct log_position end = p->chain.end;
    struct chain_loss loss = { .kind = LOSS_LOG,
                               .from = end,
                               .to = end,
                               .range = { TIME_MS_MIN, io_now_ms(p->shards->io) + SHARD_LOSS_BEHIND_MS } };
    struct chain_entry entry = { .kind = CHAIN_GENERATION,
                                 .leader_epoch = -1,
                                 .losses = &loss,
                                 .loss_count = p->shards->config.without_log ? 0 : 1,
                                 .end = { end.generation + 1, log_end < end.offset ? log_end : end.offset } };
    bool valid;
    diag(DIAG_ERROR,
         "The log ends below what was stored; a new generation begins, and answers name the loss.",
         "partition=%u generation=%llu stored_offset=%llu log_end=%llu", p->number,
         (unsigned long long)entry.end.generation, (unsigned long long)end.offset,
         (unsigned long long)log_end);
    if (p->shards->config.read_only) { /* as the next start will write it */
        const char *why;
        entry.partition = p->number;
        entry.number = p->chain.next_number;
        return chain_fold(&p->chain, &entry, &valid, &why);
    }
    TRY(partition_entry_append(p, &entry, &valid));
    return valid ? OK : ERR_CONFLICT;
}

/* Records between what is applied and what the log still has are lost: named. */
static err log_hole(struct partition *p, uint64_t start_offset)
{
    if (start_offset <= p->applied.offset)
        return OK;
    struct chain_loss loss = { .kind = LOSS_LOG,
                               .from = p->applied,
                               .to = { p->applied.generation, start_offset },
                               .range = { TIME_MS_MIN, TIME_MS_MAX } };
    diag(DIAG_ERROR, "The log lacks records that were not stored yet; answers name it.",
         "partition=%u from=%llu to=%llu", p->number, (unsigned long long)p->applied.offset,
         (unsigned long long)start_offset);
    TRY(range_loss_add(p->open_range, &loss));
    p->applied.offset = start_offset;
    return OK;
}

err partition_recover(struct partition *p, struct err_at *at)
{
    struct log_watermarks w = log_watermarks(p->shards->log, p->number);
    TRY(partition_chain_read(p, w.start_offset, at));
    /* Of a shared log the reader finds out whether it went back. */
    uint64_t log_end = p->shards->config.is_shared ? UINT64_MAX : w.end_offset;
    if (log_end < p->chain.end.offset)
        TRY(generation_begin(p, log_end));
    /* With a hole between chain and log an entry may be lost, and what it named is kept for a person. */
    bool is_own = !p->shards->config.read_only && !p->shards->config.is_shared;
    if (is_own && !p->was_open && /* else queries may still hold what it had */
        w.start_offset <= p->chain.end.offset && p->chain.lost_count == 0)
        TRY(partition_remove_unnamed(p));
    TRY(partition_segments_sync(p));
    TRY(read_state(p, at));
    p->applied = p->chain.end;
    p->leader_epoch = p->chain.leader_epoch;
    err e = read_streams(p, log_end, at);
    if (e == ERR_ORDER) /* the caller opens the partition again */
        TRY(generation_begin(p, log_end));
    if (e == ERR_IO)
        return err_set(at, e, "a stream file of partition %u in %s/ cannot be read (%s)", p->number,
                       p->shards->config.stream_directory, err_text(e));
    TRY(e);
    TRY(check_state(p, w.end_offset, at));
    TRY(lost_unresolved(p));
    TRY(log_hole(p, w.start_offset));
    p->head_from = p->applied;
    partition_log_goes_on(p);
    p->open_end = log_watermarks(p->shards->log, p->number).end_offset;
    p->was_open = true;
    for (size_t i = 0; i < p->producer_count; i++) {
        p->producers[i].is_dead = partition_is_past(p, p->producers[i].last);
        p->producers[i].heard_ns = p->heard_ns;
    }
    if (is_own) /* the log remembers trims only as of its newest file's header */
        TRY(log_trim(p->shards->log, p->number, p->chain.end.offset));
    return log_reader_open(p->shards->log, p->number, p->applied.offset, p->leader_epoch, &p->reader);
}
