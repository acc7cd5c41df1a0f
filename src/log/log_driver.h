/* The function table between log.h and its drivers. A driver embeds struct log and struct log_reader as the first
 * member of its own structs. Every function has the contract of the log.h call of its name. */
#ifndef LOG_LOG_DRIVER_H
#define LOG_LOG_DRIVER_H

#include "log/log.h"

struct log_driver {
    void (*close)(struct log *log);
    const struct log_damage *(*damages)(const struct log *log, size_t *out_count);
    void (*append)(struct log *log, struct log_append *append);
    err (*pump)(struct log *log);
    err (*run_thread)(struct log *log);
    void (*drain)(struct log *log);
    void (*on_durable)(struct log *log, void (*wake)(void *context), void *context);
    err (*reader_open)(struct log *log, uint32_t partition, uint64_t offset, int32_t leader_epoch,
                       struct log_reader **out_reader);
    void (*reader_close)(struct log_reader *reader);
    err (*reader_next)(struct log_reader *reader, struct log_record *out_record);
    struct log_watermarks (*watermarks)(struct log *log, uint32_t partition);
    err (*went_back)(struct log *log, uint32_t partition, uint64_t *out_from);
    void (*go_on)(struct log *log, uint32_t partition, uint64_t from);
    struct log_seen (*seen)(struct log *log, uint32_t partition);
    int32_t (*epoch_before)(struct log *log, uint32_t partition, uint64_t offset);
    err (*trim)(struct log *log, uint32_t partition, uint64_t before);
    bool (*is_held)(struct log *log, uint32_t partition);
    err (*tidy)(struct log *log);
    struct log_usage (*usage)(struct log *log);
};

struct log {
    const struct log_driver *driver;
    uint32_t partition_count;
};

struct log_reader {
    struct log *log;
};

#endif
