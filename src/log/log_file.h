/* What the parts of the file driver share: log_file.c (append, pump), log_store.c (physical files),
 * log_recover.c (open), log_read.c (readers). Nobody else includes it but log.c and the room's tests. */
#ifndef LOG_LOG_FILE_H
#define LOG_LOG_FILE_H

#include "io/io.h"
#include "io/thread.h"
#include "log/log_driver.h"
#include "log/log_frame.h"

#define LOG_GROUP_BYTES_MAX    (4u << 20) /* of one write, unless one record is larger */
#define LOG_GROUP_RECORDS_MAX  4096u
#define LOG_FILE_BYTES_MIN     (16u << 10)
#define LOG_FILE_BYTES_MAX     (UINT64_C(1) << 30)
#define LOG_FILE_BYTES_SMALL   (UINT64_C(1) << 20) /* where a slow log ends */
#define LOG_RECYCLED_FILES_MAX 2u
#define LOG_BLOCKS_MAX         8u
#define LOG_FILES_MAX          (1u << 20)
#define LOG_DAMAGES_MAX        (1u << 16)
#define LOG_PATH_BYTES         320u

/* Bugs that tests plant to prove that the simulation finds them; 0 in the server. */
enum log_plant {
    LOG_PLANT_ACK_BEFORE_SYNC = 1 << 0,
    LOG_PLANT_NO_DIR_SYNC = 1 << 1,   /* a new file's name is not made durable */
    LOG_PLANT_UNSEEDED = 1 << 2,      /* frames of a file's former life match */
    LOG_PLANT_RETRY_SYNC = 1 << 3,    /* a failed sync is tried again and then believed */
    LOG_PLANT_SAME_FILE = 1 << 4,     /* go on behind a torn tail instead of in a new file */
    LOG_PLANT_EARLY_RECYCLE = 1 << 5, /* a file is recycled while its last records are needed */
    LOG_PLANT_NO_OPEN_SYNC = 1 << 6,  /* recovery believes bytes that are only in the page cache */
    LOG_PLANT_NO_DURABLE = 1 << 7,    /* frames do not tell what was durable */
};

/* Where one record lies: 8 bytes in memory a record that is not trimmed. */
struct log_place {
    uint32_t position_8; /* in the file, in units of 8 bytes */
    uint32_t length;
};

/* The records of one partition in one file, dense but for the log's damages. */
struct log_places {
    uint64_t first; /* offset of the first one; of the next file's when there is none */
    struct log_place *at;
    size_t count;
    size_t capacity;
};

/* A physical file with records. Shared under the log's mutex; `end` grows by the pump alone. */
struct log_store_file {
    uint64_t number;
    uint64_t size;
    uint64_t end; /* bytes that count and are durable (with ack=os: written) */
    struct io_file *file;
    unsigned reading; /* readers at it outside the mutex */
    uint32_t seed;
    uint64_t frame_number; /* as told in frames: the number */
    char path[LOG_PATH_BYTES];
    struct log_places places[]; /* per partition */
};

/* A file waiting for its next life, named NNNNNNNN.free. */
struct log_free_file {
    uint64_t number;
    uint64_t size;
};

/* The bytes of one group, kept for readers at the tail. */
struct log_chunk {
    uint64_t number;   /* of the file */
    uint64_t position; /* of the first byte */
    uint64_t len;
    uint64_t capacity;
    unsigned reading; /* readers that borrow from it */
    bool is_kept;     /* in the tail; else freed with its last reader */
    uint8_t bytes[];
};

struct log_file_reader {
    struct log_reader base;
    struct log_file_reader *next;
    uint32_t partition;
    uint64_t offset;         /* of the next record */
    struct log_chunk *chunk; /* of the tail, or a block: lent to the caller */
    struct pool *pool;
    uint64_t at_number; /* of the file of the last record */
    uint8_t *buffer;    /* one frame from disk */
    size_t buffer_capacity;
};

/* Locks: store_mutex before mutex (docs/locks.md). The pump's own fields need none. */
struct log_file {
    struct log base;
    struct io *io;
    struct pool *pool; /* under mutex */
    struct log_config config;
    char directory[LOG_PATH_BYTES];
    unsigned plants;

    struct io_mutex store_mutex; /* one thread at a time removes files */
    struct io_mutex mutex;
    struct io_cond work, idle;

    /* under mutex */
    struct log_append *queue, *queue_last;
    uint64_t queued_bytes;
    bool is_closing, is_pumping;
    uint64_t *ends, *trims; /* per partition: next offset; what is not needed below */
    struct log_store_file **files;
    size_t file_count, file_capacity;
    struct log_free_file free_files[LOG_RECYCLED_FILES_MAX];
    size_t free_count;
    struct log_chunk **chunks; /* the tail, oldest first */
    size_t chunk_count, chunk_capacity;
    uint64_t chunk_bytes;
    struct log_chunk *blocks[LOG_BLOCKS_MAX]; /* parts of files that readers share */
    size_t block_count, block_next;
    struct log_chunk *spare; /* one buffer kept for the next group */
    struct log_file_reader *readers;
    struct log_damage *damages; /* fixed after open */
    size_t damage_count, damage_capacity;
    uint64_t *damage_ends; /* per partition: no offset from here on is damaged; fixed after open */
    void (*wake)(void *context);
    void *wake_context;
    bool wants_small; /* log_tidy asks the pump for a small file */
    int64_t rotated_ns, appended_ns;

    /* the pump's own */
    struct log_store_file *active; /* NULL: the next append opens a new file */
    uint64_t next_number;
    uint64_t marked_end; /* of the active file: a marker tells of everything below */
    uint64_t synced_end; /* of the active file: told in frames as durable */
    uint64_t size_wanted;
    int64_t synced_ns;
    bool is_failing; /* the last attempt to open a file failed */
    uint64_t *group_offsets;
    size_t *group_counts; /* per partition */
    struct io_thread *thread;
};

/* log_open with planted bugs. */
err log_file_open(const struct log_config *config, struct io *io, struct pool *pool, unsigned plants,
                  struct log **out_log, struct err_at *at);

static inline struct log_file *log_file_of(struct log *log) { return (struct log_file *)log; }
static inline const struct log_file *log_file_of_const(const struct log *log)
{
    return (const struct log_file *)log;
}

/* log_recover.c: fill the empty log from its directory. */
err log_recover(struct log_file *log, struct err_at *at);

/* log_store.c. Names and opens of files. */
void log_store_path(const struct log_file *log, uint64_t number, const char *suffix,
                    char out_path[LOG_PATH_BYTES]);
/* A struct for a file, with no places; the caller adds it to log->files, for which there is room after
 * log_store_reserve (ERR_LIMIT). Under mutex, or before threads. */
err log_store_file_new(struct log_file *log, uint64_t number, struct log_store_file **out_file);
void log_store_file_free(struct log_file *log, struct log_store_file *file);
err log_store_reserve(struct log_file *log);
void log_store_add(struct log_file *log, struct log_store_file *file);
/* Open the next physical file with room for frame_bytes; log->active is it. The pump's. */
err log_store_rotate(struct log_file *log, uint64_t frame_bytes);
/* Remove or keep for reuse files that no partition needs. Any thread but the pump within a group. */
err log_store_release(struct log_file *log);
/* Remove files waiting for reuse beyond `keep`. */
err log_store_shrink(struct log_file *log, size_t keep);

/* log_read.c. */
err log_read_open(struct log *log, uint32_t partition, uint64_t offset, int32_t leader_epoch,
                  struct log_reader **out_reader);
void log_read_close(struct log_reader *reader);
err log_read_next(struct log_reader *reader, struct log_record *out_record);
/* The oldest offset of the partition that can be read. Under mutex. */
uint64_t log_start_offset(const struct log_file *log, uint32_t partition);
/* Take a buffer for a group; keep a written one in the tail; give one back. Under mutex. */
err log_chunk_take(struct log_file *log, uint64_t bytes, struct log_chunk **out_chunk);
void log_chunk_keep(struct log_file *log, struct log_chunk *chunk);
void log_chunk_give(struct log_file *log, struct log_chunk *chunk);
/* Free what no open reader needs. Under mutex. */
void log_chunks_release(struct log_file *log);
/* Room for one more chunk in the tail's list, so that keeping cannot fail. Under mutex. */
err log_chunks_reserve(struct log_file *log);
/* File and place of an offset that is in the log: false when it is damaged; *out_file_index is set anyway.
 * Under mutex. */
bool log_place_of(const struct log_file *log, uint32_t partition, uint64_t offset, size_t *out_file_index,
                  size_t *out_place_index);

#endif
