/* The partitions of a node: from the log's tail to segments, and the source that queries read.
 *
 * struct shards owns, per partition, what the log's records mean (bindings, dedupe, unresolved rows),
 * the head, the stream file of the open range, the manifest chain and its live segments; and for all of
 * them one series index and one block cache. Work is done by three kinds of steps; each finds something to
 * do, does a bounded piece and returns. Simulation calls them from one thread in any order; the server
 * runs them on threads of their own (shards_run_threads).
 *
 *   log ─ shards_apply_step ─→ heads ─ shards_spill_step ─→ stream files
 *       ─ shards_background_step: CUT → build → verify → commit → forget; compaction; retention
 *
 * docs/format/{stream,manifest,state}.md; rules: docs/format/manifest.md §4. */
#ifndef SHARD_SHARD_H
#define SHARD_SHARD_H

#include "base/err.h"
#include "base/pool.h"
#include "base/sha256.h"
#include "base/slice.h"
#include "io/io.h"
#include "model/source.h"
#include "model/sum.h"

#include <stdbool.h>
#include <stdint.h>

struct blob; /* blob/blob.h */
struct log;  /* log/log.h */
struct shards;

#define SHARD_RANGE_BYTES_MAX_DEFAULT (UINT64_C(1) << 30)
#define SHARD_CONFIRMED_MS_MAX        5000 /* an answer is complete up to an end of the log that is no older */
#define SHARD_AFTER_MS_MAX            5000 /* a query waits so long for positions that it names */

/* Test-only sabotage, one bit each; the simulator proves that its checker finds every one. 0 in use. */
enum shard_canary {
    SHARD_CANARY_CHECKPOINT_FIRST = 1, /* the stream's checkpoint is written before its rows are synced */
    SHARD_CANARY_TRIM_FIRST = 2,       /* the log is trimmed before the chain names the segments */
    SHARD_CANARY_NO_DEDUPE = 4,        /* a record seen twice is applied twice */
    SHARD_CANARY_NO_DIR_SYNC = 8,      /* the name of a stream file is not made durable */
    SHARD_CANARY_FOLD_BLINDLY = 16,    /* another replica's commit is taken over without a look at its SUM */
    SHARD_CANARY_NO_WAIT = 32,     /* a query takes what is applied, and says that it is what was asked for */
    SHARD_CANARY_SWEEP_YOUNG = 64, /* what was put in the present era goes, too */
    SHARD_CANARY_SWEEP_TODAY = 128,  /* what the fold does not name now goes at once */
    SHARD_CANARY_HASTY_ERAS = 256,   /* an era is as short as it happens to be */
    SHARD_CANARY_SWEEP_HELD = 512,   /* holds are not looked at */
    SHARD_CANARY_SWEEP_GAPS = 1024,  /* the list need not have what is named */
    SHARD_CANARY_SWEEP_BLIND = 2048, /* entries that cannot be read named nothing */
    SHARD_CANARY_NAME_OLD = 4096,    /* the fold takes names of any era */
    SHARD_CANARY_NO_ERAS = 8192,     /* keys are as if there were none */
    SHARD_CANARY_READ_ONCE = 16384,  /* an opening takes a swept state for a lost one */
};

struct shards_config {
    const char *stream_directory;     /* below the io's root; created. "stream" */
    const char *quarantine_directory; /* "quarantine" */
    const char *blob_directory; /* "blob": where the blob store keeps its files, for snapshots by link */
    uint32_t partition_count;
    uint64_t range_bytes_max; /* log bytes of a range at most; fixed at init (NODE) */

    uint64_t head_rows_max;   /* rows of one head before it is spilled; the heads of n partitions that fill
                                            alike hold (n + 1) / 2 times as many together */
    uint64_t heads_bytes_max; /* of all heads together; beyond, the largest are spilled, and
                                            beyond twice that shards_intake refuses */
    int64_t head_age_ms;      /* a head with rows this old is spilled */
    uint64_t cut_bytes;       /* a range whose stream file is this large is cut */
    uint32_t cut_group_count; /* … or has this many row groups */
    int64_t cut_age_ms;       /* … or is this old */
    int64_t idle_ms;          /* … or got no record for this long and has rows */

    bool compact;               /* merge segments in the background */
    int64_t window_ms;          /* longest window of a merged segment; a divisor of a day or a day */
    uint32_t compact_count_min; /* neighbours of a tier that start a merge */

    uint64_t chain_base_count; /* manifest entries between two bases; a start reads up to twice as many */
    int64_t retention_ms;      /* 0 = for ever */
    uint64_t cache_bytes_max;  /* block cache over all segments */
    uint64_t opened_bytes_max; /* tables of open segments; idle ones are closed for others */
    uint64_t index_bytes_max;  /* live index: beyond it apply waits … */
    uint64_t index_bytes_new;  /* … and beyond this no new series are to be brought: shards_have_room */
    uint32_t thread_count;     /* threads that merge; 0 = half the cores, at least one */
    uint32_t canary;           /* enum shard_canary */
    bool starts_closed;        /* no partition is open at first: shards_partition_open */
    bool is_shared; /* log and blob store are those of other nodes, too: producers live elsewhere, other
                                  replicas append to the chains, nothing is trimmed, and sweeps alone delete */
    /* May a shared partition be swept now: what no manifest named for a day removed? Not while it is compared, or
     * the node does not know the cluster. Asked from any thread; NULL: never. */
    bool (*may_sweep)(void *context, uint32_t partition);
    void *sweep_context;
    bool read_only;   /* for tools: no file is created, changed or removed */
    bool without_log; /* for tools: a snapshot, whose chains are all there is */
};

/* Defaults for a machine with this much memory. */
struct shards_config shards_config_default(uint64_t memory_bytes);

/* Reasonable? ERR_INPUT with the reason. */
err shards_config_check(const struct shards_config *config, struct err_at *at);

/* Recover everything: fold the chains, attach segments, read the stream files, and set the readers behind
 * them; the log's tail is applied by the first apply steps (shards_ready tells when).
 * log, blob and io outlive the shards. ERR_CORRUPT, ERR_VERSION, ERR_CONFLICT, ERR_IO, ERR_SPACE, ERR_LIMIT
 * with the reason in at; damage that can be named is not an error but a missing range of answers.
 * Cost: 1 M series in 1–5 s. */
err shards_open(const struct shards_config *config, struct io *io, struct log *log, struct blob *blob,
                struct pool *pool, struct shards **out_shards, struct err_at *at);

/* Stop the threads after the step they are in, spill what the heads hold (so that the next start replays
 * little), free everything. Every set of the source is closed by then. */
void shards_close(struct shards *shards);

/* ---- partitions come and go ---- */

enum shard_stage {
    SHARD_CLOSED,  /* nothing of it is in memory but what open queries hold */
    SHARD_OPENING, /* a thread reads what is stored of it */
    SHARD_OPEN,
    SHARD_CLOSING, /* nothing new begins; it is closed by an apply step once what is under way has ended */
};

struct shard_status {
    enum shard_stage stage;
    bool is_replayed; /* it is open, and what the log had when it was opened is applied */
    uint64_t generation, applied_offset;
};

/* Recover one partition that is closed and set its reader behind what is stored; apply steps do the rest. Takes as
 * long as its chain and states take to read. Any thread, one call for a partition at a time; queries and steps go
 * on meanwhile, and a query that needs the partition names it as missing until it is open. ERR_EXISTS: it is
 * open; ERR_BUSY: it is not closed yet; else as shards_open, and it stays closed. */
err shards_partition_open(struct shards *shards, uint32_t partition, struct err_at *at);

/* Let go of a partition: from now on queries name it as missing, and no step of it begins. Rows that are not in
 * segments stay in the log; of a shared partition stream files are removed after an hour, when every range that
 * they could spare from replay is cut. Any thread; does not wait. Closed or closing: nothing happens. */
void shards_partition_close(struct shards *shards, uint32_t partition);

/* Of a shared store: an object of a key below here keeps sweeps away, as long as its text says: the end in seconds
 * since 1970, in decimal; without one for ever. What is live when it is put stays until then. */
#define SHARD_HOLD_PREFIX "hold"

/* A replica's place among those of a shared partition: what one of them must do for all (CUT, commit, merge,
 * retain) the one of rank 0 does at once and each other so much later, if nobody did; and a lease: by
 * io_boottime_ns from until_ns on it does nothing of that at all, not even what a person asks for, until it is
 * told again. INT64_MIN: nothing from now on; INT64_MAX: for ever, as it is for partitions that are not shared. A
 * shared one that was told nothing yet has none; opening and closing it change nothing. What is lost is named with
 * and without. Any thread. */
void shards_partition_rank(struct shards *shards, uint32_t partition, uint32_t rank, int64_t until_ns);

struct shard_status shards_partition_status(struct shards *shards, uint32_t partition);

/* ---- steps ---- */

/* Apply up to a few thousand durable records over all partitions. *out_worked: something was done. One thread
 * at a time. Errors are kept per partition and shown by shards_intake; the step itself only fails
 * with ERR_CLOSED. */
err shards_apply_step(struct shards *shards, bool *out_worked);

/* Spill at most one head that is due. Any thread; one partition is worked on by one thread at a time. */
err shards_spill_step(struct shards *shards, bool *out_worked);

/* At most one of: cut, build and commit, compact, retain, clean. Any thread. */
err shards_background_step(struct shards *shards, bool *out_worked);

/* Run the steps on threads until shards_close. Sets the log's durable listener. */
err shards_run_threads(struct shards *shards);

/* Everything that was durable when the shards were opened is applied, of the partitions open since then. */
bool shards_ready(struct shards *shards);

/* May ingest append? OK (always, of a shared log), ERR_SPACE (a spill, build or commit failed for want of space),
 * ERR_BUSY (memory: apply or spill lags), ERR_IO (a disk error: intake stays closed until restart). One atomic
 * load. */
err shards_intake(const struct shards *shards);

/* Wait until everything durable at the call is applied in all open partitions. deadline_ns on io_monotonic_ns.
 * ERR_TIMEOUT, ERR_CLOSED. Without threads (simulation) it runs apply steps itself. */
err shards_wait_applied(struct shards *shards, int64_t deadline_ns);

/* Ask every partition with rows to cut, build and commit, and wait for it: before a snapshot, and at a
 * drain. Without threads it runs the steps itself. ERR_TIMEOUT (of a shared one also: it has no lease), ERR_SPACE,
 * ERR_IO, ERR_CLOSED. */
err shards_cut_all(struct shards *shards, int64_t deadline_ns);

/* The node's metrics as a source; lives as long as the shards. Thread-safe. */
struct source *shards_source(struct shards *shards);

/* Change what can change while running: retention, idle and cut times, compaction. ERR_INPUT. */
err shards_reconfigure(struct shards *shards, const struct shards_config *config, struct err_at *at);

/* The owner tells now and then how many bytes the disk has above the floor of free space (UINT64_MAX until told).
 * Merges that might need more wait, and those that run end when none is left: they can be had later. Builds and
 * spills go on, for them the floor is kept: what they write gives back more. */
void shards_space_set(struct shards *shards, uint64_t bytes_above_floor);

/* The pending retention step that waits for a person (protocol §4.2): rows older than cutoff_ms would go.
 * Confirm it. ERR_NOT_FOUND: none waits. */
err shards_retention_confirm(struct shards *shards, int64_t *out_cutoff_ms);

struct shards_accepted {
    uint64_t loss_count;        /* damaged records, entries, rows that never got labels */
    uint64_t segment_count;     /* that cannot be opened */
    uint64_t waiting_row_count; /* of producers that ended, still without labels */
};

/* A person accepts everything that is lost: cut all, then record it. Answers are complete without it from then on;
 * shard_verify lists it until retention passes. Errors as shards_cut_all, and ERR_BUSY: a lease
 * ended meanwhile. */
err shards_losses_accept(struct shards *shards, int64_t deadline_ns, struct shards_accepted *out_accepted);

struct shards_usage {
    uint64_t series_count; /* in the live index */
    uint64_t head_rows, head_bytes;
    uint64_t stream_rows, stream_bytes, stream_group_count;
    uint64_t segment_rows, segment_bytes, segment_count;
    uint64_t cache_bytes;       /* of decoded blocks */
    uint64_t duplicate_records; /* not applied: seen before */
    uint64_t unresolved_rows;   /* of series whose labels are not known (yet) */
    uint64_t lost_records;      /* damaged in the log: named in answers */
    uint64_t quarantined_count; /* live segments known to be damaged */
    uint64_t far_future_rows;   /* later than 10 min after their append, in open ranges */
    uint64_t applied_records;   /* since the start */
    int64_t data_through_ms;    /* append time of the newest applied record; 0: there is none */
    uint64_t losses;            /* named in answers: of the chain and of open ranges */
    uint64_t losses_accepted;   /* … and those a person accepted */
    uint32_t retention_waits;   /* partitions whose cut-off waits for a person */
    uint32_t missing_count;     /* partitions of which a shared store's list lacked what the manifest names */
};
struct shards_usage shards_usage(struct shards *shards);

/* What is in the log alone, over all open partitions: in no segment that the chain names. */
struct shards_unsaved {
    int64_t since_ms; /* append time of the oldest such record, or an earlier one; INT64_MAX: there is none */
    int64_t newest_ms; /* append time of the newest record that was applied here; LOG_TIME_NONE: none was */
};
struct shards_unsaved shards_unsaved(struct shards *shards);

/* May rows of this series be brought? False: it is not in the live index, and that has taken its share of the
 * memory (bindings, stream numbers and what ingest keeps take as much again). Any thread. Labels canonical. */
bool shards_have_room(struct shards *shards, struct slice tenant, struct slice labels);

/* SUM and counts over everything a partition stores (segments by their entries, stream, head): what tests,
 * drills and the explorer compare. Zero while it is not open. */
struct shard_sum {
    struct sum sum;        /* every stored row, unresolved ones included */
    uint64_t dropped_rows; /* duplicates dropped by compaction, and rows dropped by retention */
    uint64_t generation, next_offset, applied_offset;
};
struct shard_sum shards_partition_sum(struct shards *shards, uint32_t partition);

/* ---- what replicas compare: docs/decisions/0019-comparing-replicas.md ---- */

/* SUM of the rows of records [start, at), as they were when they were applied; a range begins at start. */
struct shard_mark {
    uint64_t generation, start, at; /* offsets */
    int32_t leader_epoch;           /* of the record before `at`: another one is of another log */
    struct sum sum;
};
/* Newer < older; 0: of the same records, but for the leader epoch. */
static inline int shard_mark_order(const struct shard_mark *a, const struct shard_mark *b)
{
    if (a->generation != b->generation)
        return a->generation > b->generation ? -1 : 1;
    if (a->at != b->at)
        return a->at > b->at ? -1 : 1;
    return (a->start < b->start) - (a->start > b->start);
}
#define SHARD_MARK_LEVELS 4
#define SHARD_MARK_STEP_BITS \
    4                       /* between two levels: marks where offsets pass a multiple of 1, 16, 256, 4096 */
#define SHARD_MARK_COUNT 32 /* of a level, the newest */
#define SHARD_MARKS_MAX  (SHARD_MARK_LEVELS * SHARD_MARK_COUNT + 1)

/* A live segment, as the chain names it. */
struct shard_segment {
    uint8_t digest[SHA256_BYTES];
    uint64_t era; /* of its key */
    uint64_t bytes;
    uint64_t from_generation, from_offset, to_generation, to_offset; /* of the records */
    struct sum sum;
};
#define SHARD_SEGMENT_PAGE_MAX 256
#define SHARD_KEY_BYTES_MAX    128
/* The key of its object. */
void shard_segment_key(uint32_t partition, const struct shard_segment *segment,
                       char out_key[SHARD_KEY_BYTES_MAX]);

/* One replica at one moment. */
struct shard_sums {
    bool is_open;                 /* else nothing below is told */
    bool is_recovered;            /* rows of this life came from stream files, not all of them from the log */
    uint32_t anew_count;          /* times that it began anew in the range that is open */
    uint64_t generation, applied; /* the next offset to apply */
    uint64_t chain_next;          /* number of the next entry of the chain */
    uint32_t segment_count;
    struct sum segments; /* of their rows */
    struct sum digests;  /* Σ of their digests' first 16 bytes: equal where the same are live */
    struct shard_mark marks[SHARD_MARKS_MAX]; /* the newest first */
    uint32_t mark_count;
    /* A page of them: all but the `first` newest, the newest first; and Σ as above of what is older. */
    uint32_t first, page_count;
    struct sum older_digests;
    struct shard_segment page[SHARD_SEGMENT_PAGE_MAX];
};

/* Tell what a replica has; count: of segments, at most SHARD_SEGMENT_PAGE_MAX. Any thread; nothing is read. */
void shards_partition_sums(struct shards *shards, uint32_t partition, uint32_t first, uint32_t count,
                           struct shard_sums *out_sums);

/* What reading all row groups of a partition's stream files again came to. */
struct shard_read_back {
    uint64_t group_count, byte_count;
    uint64_t wrong_count; /* groups that do not hold the rows that were applied */
    /* Of the first of them: its records, what was applied and what is there (zero: it cannot be read). */
    uint64_t generation, from, to;
    struct sum applied, found;
};
/* Read them, skipping as many as skip says; ends early behind bytes_max, at least one is read. *out_next: what to
 * skip the next time; 0: all were read. Any thread. ERR_NOT_FOUND: it is not open. ERR_IO: the disk could not be
 * read, which may pass; ERR_LIMIT; ERR_CANCELED: the shards are closing. */
err shards_partition_read_back(struct shards *shards, uint32_t partition, uint64_t skip, uint64_t bytes_max,
                               uint64_t *out_next, struct shard_read_back *out_read);

/* What this replica of a shared partition has beyond the chain is not to be trusted: its stream files go to the
 * quarantine, and the partition closes; the owner opens it again, and it reads the log from the chain's end. Any
 * thread. ERR_BUSY: work is under way, try again; ERR_CONFLICT: the log does not reach back to the chain's end, so
 * that rows would be lost; ERR_NOT_FOUND: it is not open; and what the disk returns. */
err shards_partition_begin_anew(struct shards *shards, uint32_t partition, const char *why);

/* ---- offline tools: the node is not running ---- */

/* Where a tool tells what it finds and how far it is. */
struct shard_report {
    /* One finding; text is a sentence without newline. */
    void (*line)(void *context, bool is_damage, const char *text);
    void *context;
    void (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes); /* NULL is allowed */
};

/* What a byte of a data directory is. Every one is of one class. */
enum shard_class {
    SHARD_CLASS_LIVE, /* read, and damaged if its checksums say so */
    SHARD_CLASS_SPACE, /* of the log's files: headers, padding, records stored elsewhere by now, room for others */
    SHARD_CLASS_LEFTOVER, /* of a process that died: the next start removes it */
    SHARD_CLASS_SNAPSHOT, /* of snapshots, which are verified one by one */
    SHARD_CLASS_ASIDE,    /* kept for a person */
    SHARD_CLASS_FOREIGN,  /* not ours */
    SHARD_CLASS_COUNT
};

struct shard_class_sum {
    uint64_t file_count, byte_count;
    uint64_t told_count; /* of them, one by one: the first hundred */
};

struct shard_check {
    uint64_t file_count, byte_count, row_count, segment_count, group_count, record_count;
    uint64_t record_bytes; /* of the log's records, without their frames */
    uint64_t damage_count;
    uint64_t newer_count; /* objects and files of a format that only a newer version reads */
    struct shard_class_sum classes[SHARD_CLASS_COUNT];
    struct err_at at; /* with an error: what could not be gone on with */
};

/* Tell a finding, and count it if it is damage. report and its line may be NULL. */
void shard_tell(const struct shard_report *report, struct shard_check *check, bool is_damage,
                const char *format, ...) __attribute__((format(printf, 4, 5)));

/* What a walk does with a name, beside giving it a class. */
enum { SHARD_WALK_INTO = SHARD_CLASS_COUNT, SHARD_WALK_PAST };

/* A walk over files that gives each a class. */
struct shard_walk {
    struct io *io;
    struct pool *pool; /* its children hold what a directory lists */
    const struct shard_report *report;
    struct shard_check *check;
    /* The enum shard_class of a file, or of all that is in a directory; or what to do with the name. path is
     * below the directory where the walk began. *out_why: what to say of it in place of the class's own words;
     * static. */
    int (*classify)(void *context, const char *path, bool is_dir, const char **out_why);
    void *context;
};

/* Count every file below directory ("" is the io's root; one that is not there holds nothing) by class, and
 * tell each that is left over, set aside or foreign. A directory that cannot be read is told as damage.
 * Symbolic links are files, but where classify says to look into them. ERR_LIMIT. */
err shard_account(const struct shard_walk *walk, const char *directory);

/* Is this the path of an object, below a blob directory of so many partitions? */
bool shard_is_object(const char *path, uint32_t partition_count);

/* Read every checksum of log, stream files, chains, segments and state, fold, compare every SUM, and give every
 * file of the blob and stream directories a class. Changes nothing. OK even with damage: see out_check, which
 * is also filled, as far as it came, with an error. */
err shard_verify(const struct shards_config *config, struct io *io, struct log *log, struct blob *blob,
                 struct pool *pool, const struct shard_report *report, struct shard_check *out_check);

/* shard_verify, then move what is damaged to the quarantine directory, so that a start succeeds and answers
 * name what is missing; what the log still has is built again by that start. Nothing else is moved. */
err shard_fsck(const struct shards_config *config, struct io *io, struct log *log, struct blob *blob,
               struct pool *pool, const struct shard_report *report, struct shard_check *out_check);

/* Rows of one series as they lie in one place of the files, duplicates included; slices live during the call. */
struct shard_rows {
    struct slice tenant, labels;          /* canonical labels */
    const struct sample_columns *columns; /* in any order; a histogram's value is NaN */
    const uint8_t *incarnation; /* not NULL: no labels are known yet, only the producer (16 bytes) … */
    uint32_t number;            /* … and its number */
};

struct shard_rows_door {
    err (*rows)(void *context, const struct shard_rows *rows);
    void *context;
    void (*progress)(void *context, uint64_t done_bytes,
                     uint64_t total_bytes); /* of segments; NULL is allowed */
};

struct shard_exported {
    uint64_t row_count;              /* handed out with labels */
    uint64_t unresolved_count;       /* … and without */
    uint64_t duplicate_record_count; /* log records not applied because they were seen before */
    uint64_t lost_record_count;      /* damaged log records */
};

/* Hand out every stored row as often as it is stored: live segments, row groups of stream files, and the log
 * behind them after dedupe of its records. log and blob are open (read-only ones will do); nothing on disk
 * changes.
 * ERR_CORRUPT and the like with the place in at, ERR_LIMIT, and what door returns. */
err shard_export(const struct shards_config *config, struct io *io, struct log *log, struct blob *blob,
                 struct pool *pool, const struct shard_rows_door *door, struct shard_exported *out_exported,
                 struct err_at *at);

/* Snapshot into a new directory `to` (below the io's root, or absolute on the same file system): cut all,
 * link segments and state, write the chains up to that entry. `to` is then a blob directory; the node adds NODE.
 * ERR_EXISTS, ERR_CLOSED (a partition is not open), and as shards_cut_all. */
err shards_snapshot(struct shards *shards, const char *to, int64_t deadline_ns);

struct shard_restored {
    int64_t data_through_ms; /* append time of the newest record that is stored; INT64_MIN: none is */
    uint64_t damage_count;   /* manifest entries in whose place something else was put, each told */
};

/* After the blob directory of a snapshot was put in place of an empty one: append a generation to every
 * chain, so that a fresh log begins at (g + 1, 0). A read error may pass, so it ends the restore (ERR_IO, at
 * names the entry) but where takes_unreadable says to count it as damage, or nothing can be lost. Errors with
 * the reason in at, also ERR_VERSION, ERR_LIMIT, ERR_SPACE. */
err shard_restore(const struct shards_config *config, struct io *io, struct blob *blob, struct pool *pool,
                  bool takes_unreadable, const struct shard_report *report,
                  struct shard_restored *out_restored, struct err_at *at);

/* What a shared store has of a partition, by its chain alone. */
struct shard_facts {
    uint64_t last_number;            /* of its entries; 0: none */
    uint64_t generation, end_offset; /* where its log would be read on */
    int64_t data_through_ms;         /* append time of the newest record that is stored; INT64_MIN: none is */
    int64_t newest_ms;               /* when the newest entry was put, by the store's clock; 0: not known */
    uint64_t segment_count, segment_bytes, row_count;
    uint64_t damage_count; /* entries that cannot be read, each told */
};

/* Read a chain of a shared store (config.is_shared), changing nothing. Errors of reading it; at names the
 * entry. */
err shard_facts(const struct shards_config *config, struct io *io, struct blob *blob, struct pool *pool,
                uint32_t partition, const struct shard_report *report, struct shard_facts *out_facts,
                struct err_at *at);

/* How a chain goes on without its log. */
struct shard_revival {
    uint64_t generation;   /* the first that the chain did not have when this began */
    bool names_loss;       /* what the log had behind the chain's end is lost: named until it is accepted */
    bool accepts_loss;     /* … and accepted at once, by a person's word */
    int64_t lost_until_ms; /* nothing was appended later; tells this loss from others */
};

/* Let a chain of a shared store, whose log is gone and whose nodes do not run, go on at offset 0 of a generation
 * that is not below the wanted one. The same call again appends nothing. Errors of reading and of blob_put;
 * ERR_BUSY: somebody appends to it all the time. */
err shard_revive(const struct shards_config *config, struct io *io, struct blob *blob, struct pool *pool,
                 uint32_t partition, const struct shard_revival *wanted, struct err_at *at);

/* ---- a node's store taken into a shared one ---- */

struct shard_adopt {
    const struct shards_config *from_config; /* read_only, not is_shared */
    const struct shards_config *to_config;   /* is_shared */
    struct io *io;                           /* the one of temporary files */
    struct pool *pool;                       /* of what lives until the close; thread-safe */
    struct blob *from;                       /* of a snapshot: nobody writes there */
    struct blob *to;                         /* nodes may be writing there */
    /* The partition of `to` that a series (by canonical labels), or the metadata of a family, belongs to. Any
     * thread; scratch is overwritten. */
    err (*route)(void *context, struct slice tenant, struct slice labels, struct buf *scratch,
                 uint32_t *out_partition);
    uint32_t (*route_family)(void *context, struct slice tenant, struct slice family);
    bool (*is_canceled)(void *context); /* true: ERR_CANCELED before the next segment; may be NULL */
    void (*written)(void *context,
                    uint64_t bytes); /* of a segment of `from`, done; any thread; may be NULL */
    void *context;
    uint32_t entry_segments_max; /* that one entry of a chain names; 0: as many as fit */
};

struct shard_adoption;

/* What there is to adopt. */
struct shard_adopt_facts {
    uint8_t digest[SHA256_BYTES]; /* of the names of all live segments in order: equal of equal snapshots */
    uint64_t segment_count, segment_bytes, row_count;
    int64_t data_through_ms;  /* INT64_MIN: nothing was ever stored */
    uint64_t loss_count;      /* that nobody accepted: they go along, and are named in every partition */
    uint64_t unresolved_rows; /* whose labels never came: they are left behind, as one of the losses */
};

/* Read the chains of `from`. *adopt is copied, what it names is borrowed until the close. ERR_CORRUPT and the
 * like, the object in at. */
err shard_adoption_open(const struct shard_adopt *adopt, struct shard_adoption **out_adoption,
                        struct shard_adopt_facts *out_facts, struct err_at *at);
void shard_adoption_close(struct shard_adoption *adoption); /* NULL is allowed */

/* How far a partition of `to` has adopted: an adoption begins there. Each partition of `to` before the first
 * write; any thread. */
err shard_adoption_look(struct shard_adoption *adoption, uint32_t partition, uint64_t *out_end,
                        struct err_at *at);
/* … and where this one began, when an earlier run did: what shard_adoption_look gave then. */
void shard_adoption_begin(struct shard_adoption *adoption, uint32_t partition, uint64_t first);

/* Write a partition of `from` out, by the partitions of `to`, through a file temp_path of nobody else; what
 * is there already, whole, is not written again. Each partition once; any thread. ERR_CORRUPT: a segment is
 * damaged, or its rows are not those that were written out. Memory: 2 B for each series of a segment, and a
 * merge's. */
err shard_adoption_write(struct shard_adoption *adoption, uint32_t from_partition, const char *temp_path,
                         struct err_at *at);

/* After all writes: let the chain of a partition of `to` name what belongs to it. Again: nothing more happens.
 * ERR_ORDER: it took so long that what was put may be swept, or somebody else adopts; ERR_BUSY: others append
 * all the time. */
err shard_adoption_name(struct shard_adoption *adoption, uint32_t partition, struct err_at *at);

/* ---- a store copied to another one ---- */

/* Two shared stores; whoever copies other partitions at the same time has its own of these. */
struct shard_clone {
    const struct shards_config *config; /* is_shared */
    struct io *io;                      /* the one that `to` was opened with */
    struct pool *pool;                  /* for the time of the calls */
    struct blob *from, *to;
    const char *temp_path;      /* below the io's root: of a large object on its way; nobody else's */
    const _Atomic bool *cancel; /* true: ends with ERR_CANCELED before the next object; may be NULL */
    void (*copied)(void *context, uint64_t bytes,
                   bool was_there); /* an object is there, whole; may be NULL */
    void *context;
};

/* What is to be copied of a partition as of at_ms, by the clocks of those who wrote its entries; INT64_MAX: as of
 * now. Reads only. A chain that cannot be read whole is refused: ERR_CORRUPT, at names the entry. */
err shard_clone_look(const struct shard_clone *clone, uint32_t partition, int64_t at_ms,
                     struct shard_facts *out_facts, struct err_at *at);

/* Copy the partition as its chain was at entry last_number: live segments, states, entries, each read back; then a
 * generation begins in the copy. What is there already is read and kept if it is right. ERR_CORRUPT: an object is
 * damaged, ERR_NOT_FOUND: it is gone, ERR_CONFLICT: the copy's chain is another one: at names it; and what the
 * stores return. The same call again goes on where it stopped. */
err shard_clone_partition(const struct shard_clone *clone, uint32_t partition, uint64_t last_number,
                          struct err_at *at);

#endif
