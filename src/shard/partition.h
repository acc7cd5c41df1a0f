/* What the files of this room share: a partition in memory. Nobody else includes it.
 *
 * One mutex per partition (docs/locks.md) guards all of struct partition but where a comment says else. Work that
 * takes long (encode, write, sync, build, merge) runs without it, on frozen or immutable objects, by the one
 * thread that set `spilling`, `committing` or `compacting`. Queries take references under the mutex and read
 * without it.
 *
 *           append                freeze             spill               cut             commit
 *   record ────────→ open head ──────────→ frozen ─────────→ group of ────────→ closed ─────────→ segments
 *                    (apply)      (apply)          (worker)   open range (apply)  range  (worker)  of the chain
 */
#ifndef SHARD_PARTITION_H
#define SHARD_PARTITION_H

#include "shard/shard.h"

#include "blob/blob.h"
#include "io/thread.h"
#include "log/log.h"
#include "metric/metric.h"
#include "segment/segment.h"
#include "shard/chain.h"
#include "shard/mend.h"
#include "shard/object.h"
#include "shard/state.h"
#include "shard/stream.h"

#define SHARD_FROZEN_COUNT_MAX 8  /* heads of a partition that wait for spill; then apply waits */
#define SHARD_HEAD_ROW_BYTES   24 /* a row in a head: number, time, value, link */
#define SHARD_CLOSED_COUNT_MAX 4  /* closed ranges that wait for commit; then no CUT is appended */
#define SHARD_RETRY_NS         (2 * NS_PER_SECOND)
#define SHARD_FAR_FUTURE_MS    (10 * MS_PER_MINUTE)
#define SHARD_LOSS_BEHIND_MS \
    SHARD_FAR_FUTURE_MS /* a lost record's rows may be this far behind the next one's
                                                      append time, and of any age */
#define SHARD_THREAD_COUNT_MAX 64
#define SHARD_REPLAY_COUNT_MAX 8 /* threads that open partitions and apply what the log has at the start */

/* ---- the open file of a stream part; counted, closed and freed with the last reference ---- */
struct stream_part {
    struct io_file *file;
    uint32_t part;
    struct stream_part *next;
};

/* A row group of a range's stream file. Immutable. */
struct range_group {
    struct metric_group *group;
    struct io_file *file;
    uint64_t offset, bytes;
    struct log_position from, to;
    struct metric_group_facts facts; /* its SUM: of what was applied */
    struct range_group *next;
};

/* A full head that waits for spill, with the state at its end. */
struct frozen {
    struct metric_head *head; /* NULL: only a checkpoint (an empty range end) */
    struct metric_head_view view;
    struct pool *pool; /* of the checkpoint */
    struct state checkpoint;
    struct log_position from; /* rows of records in [from, checkpoint.at) */
    struct frozen *next;
};

/* Records [start, end) on their way to segments. Counted: the partition holds one reference while it is
 * in its list, every query one. Memory is in the range's own pool. */
struct range {
    _Atomic uint32_t references;
    struct pool *pool;        /* apply's */
    struct pool *worker_pool; /* the worker's: groups, numbers, parts */
    struct range *next;

    struct log_position start;
    struct log_position end; /* when closed */
    bool closed;
    uint8_t reason;
    uint16_t format_version;
    uint64_t record_count, log_bytes, row_count;
    struct sum sum, resolved_removed, resolved_added;
    struct chain_loss *losses; /* block */
    size_t loss_count, loss_capacity;
    uint64_t far_future_rows;
    int64_t opened_ns, closed_ns; /* monotonic */
    int64_t
        first_ms; /* of the first record, by the log; LOG_TIME_NONE: none was applied, or it is not known */

    struct stream_part *parts, **parts_end;
    uint32_t part_count;         /* names used so far */
    struct stream_writer writer; /* of the newest part; file NULL: the next spill opens one */
    struct metric_stream_numbers numbers;
    uint32_t *local_of_number; /* block: the inverse */
    size_t local_of_number_capacity;
    struct range_group *groups, **groups_end;
    uint32_t group_count;
    uint64_t stream_bytes, stream_rows;

    struct frozen *frozen, **frozen_end; /* of this range, oldest first */
    uint32_t frozen_count;

    struct pool *state_pool; /* closed: the whole state at `end` */
    struct state state;
    struct sum unresolved; /* closed: of state.unresolved */

    struct metric_head *last_head; /* the partition's, when it was closed with this range open; else NULL */
};

/* What reading stored bytes may end with because of them: something to be named or mended, while anything else is
 * for who reads. */
static inline bool is_damage(err e)
{
    return e == ERR_CORRUPT || e == ERR_IO || e == ERR_END || e == ERR_NOT_FOUND || e == ERR_UNSUPPORTED;
}

/* A live segment; counted as above. Opened at first use. */
struct live_segment {
    _Atomic uint32_t references;
    struct shards *shards;
    uint32_t partition;
    struct chain_segment facts;
    struct live_segment *next_doomed;
    _Atomic bool is_doomed;         /* replaced or expired: its object goes with the last reference */
    _Atomic int64_t merge_retry_ns; /* monotonic: not to be merged before; 0 = it may be */
    struct pool *pool;
    struct live_segment *next_idle; /* under shards.idle_lock */
    struct io_mutex lock;           /* of what follows */
    bool is_used;                   /* since the last look for idle ones */
    struct pool *opened;            /* below shards.opened; NULL: not open */
    struct blob_handle *handle;
    struct metric_compact *compact;
    err failed;              /* OK, or why it cannot be opened: named in answers */
    _Atomic bool is_damaged; /* it cannot be opened, or a block of it cannot be read. Any thread */
};

/* One producer in this partition. Owned by apply, like all of struct producers. */
struct producer {
    uint8_t id[INCARNATION_BYTES];
    struct dedupe seen;
    struct log_position last;
    uint32_t *locals; /* by number; STATE_UNBOUND */
    size_t capacity;
    uint32_t bound_count;
    uint32_t *fresh; /* numbers bound since the last checkpoint */
    size_t fresh_count, fresh_capacity;
    size_t waiting_count;    /* its rows among p->unresolved */
    int64_t heard_ns;        /* monotonic, of its last record */
    bool is_dead;            /* of a process that ended: no record of it can come */
    int64_t forget_asked_ns; /* monotonic, of the last FORGET sent for it; 0 = none */
};

/* The series of a producer's number, STATE_UNBOUND. */
static inline uint32_t producer_local(const struct producer *producer, uint32_t number)
{
    return number < producer->capacity ? producer->locals[number] : STATE_UNBOUND;
}

/* One append of a control record; embedded, reused. */
struct control_append {
    struct log_append append;
    struct slice part;
    uint8_t bytes[CONTROL_BYTES];
    struct partition *partition;
    _Atomic bool in_flight;
    _Atomic err result;
};

/* How far a record that failed for want of memory was applied; it is tried again. */
struct progress {
    bool floats_done;
    size_t histograms_done, exemplars_done;
};

/* What applying a record needs beside the partition; one per thread that applies. */
struct apply_scratch {
    struct pool *pool;
    uint32_t *locals; /* block of it: numbers of a record as series */
    size_t capacity;
};

/* What is remembered of a log that went back, or may have. */
struct gone_back {
    uint64_t generation; /* of what was seen, and others may have begun a later one; 0: of what is applied */
    uint64_t told_from, told_to; /* offsets whose loss was named already, or is to be; told_to 0: none */
    int64_t since_ns;            /* boot time */
};

struct partition {
    /* Through all its lives. */
    struct shards *shards;
    uint32_t number;
    struct io_mutex lock;
    struct io_mutex chain_lock;                     /* taken before `lock`: one entry is appended at a time */
    const struct metric_fingerprints *fingerprints; /* by local number */
    _Atomic enum shard_stage stage;                 /* written under the lock */
    _Atomic bool is_taken;                          /* by a thread that applies its records: "apply" below */
    uint32_t pins;       /* by who walks over it for long: it is not closed meanwhile */
    uint64_t past_end;   /* of the log when the shards were opened */
    int64_t closed_ns;   /* monotonic; while it is closed */
    bool may_have_files; /* of the stream, while it is closed */
    bool was_open;       /* in this process, before */
    /* To be named in the chain, which the partition's next life does: of which replicas differ, and what a log
     * that went back had. Kind 0: nothing. */
    struct chain_loss doubt, lost_end;
    struct gone_back gone_back;     /* until the log goes on */
    struct log_position anew_start; /* of the open range when it began anew, after a comparison … */
    uint32_t anew_count;            /* … so often */
    int64_t tell_ns;                /* monotonic; while it is closed: what was lost is not told before */
    _Atomic uint32_t rank; /* among the replicas of a shared one: 0 does first what one of them must do, … */
    _Atomic int64_t decides_until_ns; /* … and none of it from here on (boot time; INT64_MAX: for ever) */
    struct range *ended; /* committed or let go; a query looks into the index after it took them */
    uint64_t era_met;    /* shared: the newest era that was met in the chain by this process … */
    int64_t era_met_ns;  /* … first at this boot time; 0: it was not looked at yet */

    /* From here on all is zero while it is closed (open.c). */
    struct pool *pool;
    struct apply_scratch *scratch; /* of the thread that has taken it */

    /* apply's own, read by others under the lock */
    struct log_reader *reader;
    struct log_position applied; /* next offset to apply */
    int32_t leader_epoch;        /* of the record before */
    struct log_record pending;   /* read, not applied yet (memory); bytes are the reader's */
    bool has_pending;
    struct progress progress;
    struct producer *producers;
    size_t producer_count, producer_capacity;
    size_t producer_last;                /* index of the one found last */
    struct state_unresolved *unresolved; /* block; histogram bytes are blocks too */
    size_t unresolved_count, unresolved_capacity;
    struct state_metadata *metadata; /* block; the texts of each are a block of their own */
    size_t metadata_count, metadata_capacity, metadata_checkpointed; /* oldest first */
    int64_t data_through_ms;
    int64_t newest_ms; /* of the records applied, by the log; LOG_TIME_NONE: of none */
    uint64_t open_end; /* durable end when the shards were opened */
    bool is_recovered; /* frames of stream files were used */
    struct shard_mark marks[SHARD_MARK_LEVELS][SHARD_MARK_COUNT]; /* rings: */
    uint32_t mark_count[SHARD_MARK_LEVELS];                       /* … marks made so far */
    err apply_failed; /* OK, or corrupt: this partition applies no more */
    bool apply_waits; /* a record waits for memory or spill: intake is closed meanwhile */

    struct guard closing; /* canceled once it is to be closed: merges end early; above it shards.merging */

    struct metric_head *head;
    struct log_position head_from;
    uint64_t head_rows;
    int64_t head_since_ns; /* monotonic time of its first row */
    int64_t heard_ns;      /* of the last record that was not a control record */

    struct range *ranges; /* oldest first; the last one is open */
    struct range *open_range;
    uint32_t closed_count;

    struct chain chain;
    struct live_segment **segments; /* parallel to chain.segments */
    size_t segment_count, segment_capacity;

    /* workers: one thread at a time for each kind of work */
    bool spilling, committing, compacting;
    err spill_failed, commit_failed;                                         /* OK, or what stops intake */
    int64_t spill_retry_ns, commit_retry_ns, compact_retry_ns, cut_retry_ns; /* not before */
    int64_t follow_ns; /* shared: next look at the chain */
    int64_t behind_ns; /* … since when (boot time) an entry there waits for this replica; 0: none does */
    uint64_t sure_end; /* … one more than an end that was confirmed since then; 0: none was */
    err follow_failed;
    int64_t cut_wanted_ns, merge_wanted_ns; /* shared: since when; 0: it is not */
    int64_t sweep_ns;                       /* shared: next look (monotonic); 0: not known yet */
    uint64_t swept_era;                     /* of the last sweep that came to its end */
    size_t
        missing_count; /* objects that the fold names and the store's list lacks, as the last sweep found */
    struct live_segment *doomed; /* not live any more; references to be dropped outside the lock */
    bool cut_asked;              /* the range that starts at cut_asked_start is to be cut */
    struct log_position cut_asked_start;
    struct control_append cut, forget;
    bool cut_sent;
    struct log_position cut_position; /* what the last CUT closes */
    uint64_t quarantined_count;
    bool state_is_old;      /* the chain's newest state could not be read … */
    err state_failed;       /* … for this reason */
    int64_t retain_at_ns;   /* monotonic time of the last cut-off (or of the start) */
    int64_t retain_wait_ns; /* since when a large step waits; 0 = none */
    int64_t retain_wait_cutoff_ms;
    bool retain_confirmed;
    bool retain_is_first;   /* no cut-off since the start … */
    bool retain_is_changed; /* … or since the setting changed */
};

/* How long a replica waits for those before it to do what one of them must. */
#define SHARD_RANK_NS (60 * NS_PER_SECOND)
static inline int64_t partition_patience_ns(const struct partition *p)
{
    uint32_t rank = atomic_load(&p->rank);
    return (int64_t)(rank < 1000 ? rank : 1000) * SHARD_RANK_NS;
}

/* Segments and states that are named. Zero but for pool, of which objects is a block; to be sorted before it is
 * asked. */
struct named {
    struct pool *pool;
    struct object_name *objects;
    size_t count, capacity;
};

/* A sweep of one partition after the other: sweep.c. Of the one thread that makes its steps. */
struct old_object {
    struct object_name name;
    int kind;
};

struct sweep {
    enum { SWEEP_NONE, SWEEP_NAMES, SWEEP_LISTS, SWEEP_REMOVES } stage;
    struct pool *pool;
    uint32_t next;      /* partition to look at */
    int64_t idle_ns;    /* not before (monotonic) */
    uint32_t partition; /* … that is swept */
    uint64_t era, kept_era,
        since;              /* the last three when it began: objects of eras before the second may go, … */
    uint64_t last;          /* … if no entry named them from the third one to here */
    uint64_t number;        /* of the next entry to read */
    struct named named;     /* by these entries; once listed, sorted */
    struct named live[2];   /* segments, states of the fold before the lists were made */
    struct old_object *old; /* block */
    size_t count, capacity, done;
    uint64_t removed;
    bool is_more; /* than one sweep removes */
};

struct shards {
    struct shards_config config;
    struct sweep sweep;
    struct io *io;
    struct log *log;
    struct blob *blob;
    struct pool *pool;
    struct pool *index_pool;
    struct pool *opened;       /* tables of open segments */
    struct io_mutex idle_lock; /* one look for idle segments at a time */
    struct metric_index *index;
    struct segment_cache *cache;
    struct partition *partitions;
    struct source source;

    struct apply_scratch scratch[SHARD_REPLAY_COUNT_MAX]; /* the first is the apply thread's */
    _Atomic uint32_t open_next, replay_next;              /* what the next thread takes */
    _Atomic uint32_t replaying;                           /* threads beside apply that still apply */
    uint32_t apply_next;                                  /* partition to begin with */
    _Atomic bool retain_index;                            /* apply looks for series that nobody needs */
    struct io_mutex retain_lock;                          /* of a look at them, and of what follows */
    uint32_t opening;             /* partitions that bind series meanwhile: nothing is dropped */
    _Atomic uint32_t ended_count; /* ranges in the partitions' `ended` */

    _Atomic err intake;
    _Atomic bool heads_are_full; /* more rows wait for spill than heads may have together */
    _Atomic bool is_ready;
    struct guard stopping;          /* canceled once shards_close was called: what takes long ends early */
    struct guard merging;           /* likewise, and while no space is left above the floor */
    _Atomic uint64_t space_bytes;   /* above the floor */
    _Atomic uint64_t merging_bytes; /* inputs of running merges, which is what they may write */
    _Atomic int64_t retention_ms, idle_ms, cut_age_ms;
    _Atomic bool compact;
    _Atomic uint32_t work_next;
    _Atomic uint64_t temp_number; /* names of files being built */
    _Atomic uint64_t duplicate_records, lost_records, applied_records;

    bool has_threads;
    struct io_mutex wake_lock; /* of what follows */
    struct io_cond wake_apply, wake_work, applied_cond;
    bool apply_is_woken;
    uint32_t waiting;
    struct io_thread *threads[SHARD_THREAD_COUNT_MAX];
    uint32_t thread_count;
};

/* Has it a lease: may it cut, build, commit, merge and retain now? */
static inline bool partition_may_decide(const struct partition *p)
{
    int64_t until_ns = atomic_load(&p->decides_until_ns);
    return until_ns == INT64_MAX || io_boottime_ns(p->shards->io) < until_ns;
}

/* Is a record at this position of a process that ended? Only one process appends to a log that is not shared. */
static inline bool partition_is_past(const struct partition *p, struct log_position at)
{
    return !p->shards->config.is_shared &&
           (at.generation != p->applied.generation || at.offset < p->past_end);
}

/* ---- range.c: ranges, groups, references ---- */
err range_open(struct shards *shards, struct log_position start, struct range **out_range);
struct range *range_ref(struct range *range);
void range_unref(struct range *range); /* NULL is allowed */
/* Locked: the oldest range is committed, or its partition is being closed. Until the last query that took it is
 * closed its series stay in the index (retain.c), and so does it. */
void partition_range_end(struct partition *p);
/* Let go of ended ranges that no query sees any more. True: there were some. */
bool partition_ended_release(struct partition *p);
/* Attach a durable frame's group (bytes at offset of file); dictionary entries are bound in number order. */
err range_group_attach(struct range *range, struct io_file *file, uint64_t offset, uint64_t bytes,
                       struct log_position from, struct log_position to, struct range_group **out_group);
/* Under the partition's lock: make it visible and bind its new series' numbers. */
err range_numbers_bind(struct range *range, const uint32_t *locals, uint32_t count);
void range_group_publish(struct range *range, struct range_group *group);
err range_loss_add(struct range *range, const struct chain_loss *loss);
/* Move a part's file to the quarantine. ERR_LIMIT, ERR_EXISTS, ERR_IO, ERR_SPACE. */
err range_part_set_aside(struct partition *p, const struct range *range, uint32_t part);
/* Remove a part's file. False: its name is there still. */
bool range_part_unlink(struct partition *p, const struct range *range, uint32_t part);
/* Nothing that an entry would tell: no record, and no loss found at the start. Of a shared log whatever was passed
 * counts, or its retention would overtake the chain's end. */
static inline bool open_range_is_empty(const struct partition *p)
{
    const struct range *range = p->open_range;
    return range->record_count == 0 && range->loss_count == 0 &&
           (!p->shards->config.is_shared || position_compare(p->applied, range->start) == 0);
}
void frozen_free(struct frozen *frozen);

/* ---- capture.c: between struct partition and struct state ---- */
/* What changed since the last checkpoint (is_delta) or all of it. Under the lock. */
err partition_capture(struct partition *p, struct range *range, bool is_delta, struct pool *pool,
                      struct state *out_state);
/* After a captured delta was queued: it is what the next one starts from. */
void partition_captured(struct partition *p);
/* Take a decoded state over: whole at start, then each checkpoint. */
err partition_restore(struct partition *p, const struct state *state);
/* Find or register a series; its local number. */
err partition_series(struct partition *p, struct slice tenant, struct slice labels, uint32_t *out_local);
err producer_find(struct partition *p, const uint8_t id[INCARNATION_BYTES], size_t *out_index);
err producer_bind(struct partition *p, struct producer *producer, uint32_t number, uint32_t local);
void producer_done(struct partition *p, struct producer *producer);
err partition_metadata_add(struct partition *p, const struct state_metadata *m);

/* ---- apply.c ---- */
err apply_record(struct partition *p, const struct log_record *record);
/* Freeze the head with a checkpoint at p->applied. ERR_LIMIT. */
err partition_freeze(struct partition *p);
/* Freeze and end the open range at p->applied; a new one begins. ERR_LIMIT. */
err partition_close_range(struct partition *p, uint8_t reason, uint16_t format_version);
bool apply_partition(struct partition *p, size_t record_max);

/* ---- sums.c ---- */
/* Locked: everything below p->applied is applied, and `before` was, a record earlier. */
void partition_mark(struct partition *p, uint64_t before);

/* ---- spill.c ---- */
/* The first frozen head of p goes to its stream file. Caller set p->spilling. */
err partition_spill(struct partition *p);

/* ---- append.c, under chain_lock ---- */
/* Put an entry under the chain's next number, stamped with it. ERR_EXISTS: one is there, an attempt whose end was
 * not seen or somebody else's; ERR_BUSY: this replica may not decide, and the entry tells of a decision, not of a
 * loss; and what encoding and putting return. */
err partition_entry_put(struct partition *p, struct chain_entry *entry, struct pool *scratch);
/* The same, and fold it, under the lock for the fold; what is there under that number is taken over first.
 * *out_valid false: it came to nothing. Of a shared chain ERR_BUSY also: what is there cannot be taken over yet,
 * and ERR_ORDER: the partition begins anew. */
err partition_entry_append(struct partition *p, struct chain_entry *entry, bool *out_valid);
/* Make every entry that can be read durable: one whose put failed in its last sync is there but not promised.
 * Putting and removing a mark beside them syncs their directory. */
#define CHAIN_MARK "mark"
err partition_chain_promise(struct partition *p);
/* The entry of a number, and its bytes, in scratch, as chain_entry_read. */
err partition_entry_read(struct partition *p, uint64_t number, struct pool *scratch, struct slice *out_bytes,
                         struct chain_entry *out_entry);
/* Takes chain_lock: take over what others appended. *out_worked: something was there. */
err partition_follow(struct partition *p, bool *out_worked);
/* Takes chain_lock: the log went back to this offset. What was lost is named in the chain, which begins a
 * generation if it, or what is applied, lies above; then the partition begins anew. */
err partition_log_went_back(struct partition *p, uint64_t back_to);
/* What was applied may be of a log that is no more: its generation is remembered until the log goes on. By who has
 * chain_lock, or has the partition for itself. */
void partition_remember(struct partition *p);
/* A partition that is being opened, its position known: if its log went back, and not below that, it goes on. */
void partition_log_goes_on(struct partition *p);
/* One that is not opened, its chain read: what waits to be named is, and what was lost of a log that went back. */
err partition_log_told(struct partition *p);

/* ---- commit.c ---- */
/* Under chain_lock: what the fold names is live, and the oldest range, if the chain has it, is not. */
err partition_chain_settle(struct partition *p);
/* Put an object named by its digest, in the place of one that may be there. */
err object_put_again(struct blob *blob, const char *key, struct slice bytes);
/* The oldest range, closed and spilled, becomes segments and an entry. Caller set p->committing. */
err partition_commit(struct partition *p);
/* base.c, under chain_lock: append a base when enough entries came since the last, and remove what is before the
 * one before it. Failures are tried again with the next commit. */
void partition_base(struct partition *p);
/* Put a finished temporary segment file under the key of its digest and era. */
err partition_segment_put(struct partition *p, const char *temp_path, const struct chain_segment *segment);
/* The era for keys of what is put now; not under the lock. */
uint64_t partition_put_era(struct partition *p);
/* Make p->segments parallel to p->chain.segments again; what is not live any more is doomed. Locked. */
err partition_segments_sync(struct partition *p);
/* Without the lock: let go of what the above doomed. */
void partition_doomed_release(struct partition *p);
void segment_key(uint32_t partition, const uint8_t digest[SHA256_BYTES], uint64_t era,
                 char out_key[SHARD_KEY_BYTES_MAX]);
void state_key(uint32_t partition, const uint8_t digest[SHA256_BYTES], uint64_t era,
               char out_key[SHARD_KEY_BYTES_MAX]);
void chain_key(uint32_t partition, uint64_t number, char out_key[SHARD_KEY_BYTES_MAX]);
void shards_temp_path(struct shards *shards, char out_path[IO_PATH_BYTES_MAX]);

/* ---- clean.c ---- */
/* ERR_LIMIT, all of them. A state that is zero is none. */
err named_add_segments(struct named *named, const struct chain_segment *segments, size_t count);
err named_add_state(struct named *named, const uint8_t digest[SHA256_BYTES], uint64_t era);
err named_add_states(struct named *named, const struct chain *chain);
/* What a chain's fold names. */
err named_add_chain(struct named *named, const struct chain *chain);
void named_sort(struct named *named);
bool named_has(const struct named *named, const struct object_name *name);
/* Of an own store, at the start: builds and merges that a crash cut short, inputs not deleted in time. */
err partition_remove_unnamed(struct partition *p);

/* ---- build.c ---- */
struct build_output {
    char path[IO_PATH_BYTES_MAX];
    struct chain_segment segment;
};
/* Rows of a closed range's groups as segment files. Arrays in pool. ERR_CANCELED: the node stops. */
err range_build(struct shards *shards, struct partition *p, struct range *range, struct pool *pool,
                struct build_output **out_outputs, size_t *out_count);
/* metric_compact_verify. ERR_CANCELED: the node stops. */
err stoppable_verify(struct shards *shards, struct segment_source source, const uint8_t digest[SHA256_BYTES],
                     struct pool *pool, struct segment_info *out_info, struct err_at *at);
/* The same of a file just written. */
err built_file_verify(struct shards *shards, const char *path, const uint8_t digest[SHA256_BYTES],
                      struct pool *pool, struct segment_info *out_info, struct err_at *at);

/* ---- live.c ---- */
err live_segment_open(struct shards *shards, uint32_t partition, const struct chain_segment *facts,
                      struct live_segment **out_segment);
struct live_segment *live_segment_ref(struct live_segment *segment);
void live_segment_unref(struct live_segment *segment);
/* Open it if it is not, for which others that nobody uses may be closed. The compact reader lives as long as the
 * reference. ERR_LIMIT: those in use take all of opened_bytes_max. */
err live_segment_use(struct live_segment *segment, struct metric_compact **out_compact);
/* Reading a block failed with e. What is not ERR_IO, which may pass, is counted and told to people once, and keeps
 * the segment out of merges. */
void live_segment_damaged(struct live_segment *segment, err e, const struct err_at *at);
/* Read all of an open segment for what is damaged. pool: scratch. What the reading ended with. */
err live_segment_examine(struct live_segment *segment, struct pool *pool);

/* ---- commit.c, compact.c ---- */
err shards_commit_step(struct shards *shards, bool *out_worked); /* cut, build, commit, retain */
err shards_compact_step(struct shards *shards, bool *out_worked);

/* ---- sweep.c ---- */
/* Of a shared store, by one thread at a time: a piece of a sweep, if one is due. OK. */
err shards_sweep_step(struct shards *shards, bool *out_worked);

/* ---- retain.c ---- */
/* Under committing: advance the cut-off when it is time. */
err partition_retain(struct partition *p, bool *out_worked);
/* The cut-off advanced, by whomever: the next step is measured from now. */
void partition_retained(struct partition *p);
/* Apply's: series that no producer, head or stream file needs leave the index. */
void shards_index_retain(struct shards *shards);

/* ---- open.c ---- */
/* Lock it if it is open. False: it is not, and is not locked. */
bool partition_lock(struct partition *p);
/* Keep it from being closed. False: it is not open, and not pinned. */
bool partition_pin(struct partition *p);
void partition_unpin(struct partition *p);
/* Of all partitions, once: what they have through all their lives. The index is there. ERR_LIMIT. */
err partitions_init(struct shards *shards);
/* Without threads; NULL partitions are fine. */
void partitions_done(struct shards *shards);
/* Apply's: close those that are to be closed and that nobody has in hand. */
void partitions_close_due(struct shards *shards);
/* Remove the stream files of one that is not open when their time has come. True: they were. */
bool partition_clean(struct partition *p, int64_t now_ns);
/* One that is not open: what waits to be named is, and what this process saw of a log that went back, which goes
 * on. True: it was. */
bool partition_tell_closed(struct partition *p, int64_t now_ns);

/* ---- recover.c ---- */
/* Its stream files, whatever they hold, are removed. */
err partition_streams_remove(struct partition *p);
/* The chain alone. log_start: the log's first offset. */
err partition_chain_read(struct partition *p, uint64_t log_start, struct err_at *at);
err partition_recover(struct partition *p, struct err_at *at);

/* ---- source.c ---- */
extern const struct source_table shard_source_table;

/* ---- shards.c ---- */
void shards_intake_update(struct shards *shards);
void shards_wake_work(struct shards *shards);
void shards_wake_apply(struct shards *shards);
/* What is durable of the partitions asked for (source_asks), and waiting until the open ones of them have applied
 * it, as shards_wait_applied; guard, which may be NULL, ends the wait with its error. out_ends: one for each
 * partition. */
void shards_ends(struct shards *shards, const uint64_t *partitions, uint64_t *out_ends);
err shards_ends_wait(struct shards *shards, const uint64_t *partitions, const uint64_t *ends,
                     int64_t deadline_ns, struct guard *guard);
/* Append a control record unless one of this kind is on its way; refusals are tried again by the caller's
 * next step. */
void control_send(struct partition *p, struct control_append *slot, const struct control *control);

#endif
