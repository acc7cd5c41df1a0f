/* The door of the log: checks what is the caller's mistake and hands over to the driver.
 *
 * Invariants:
 *   1. Drivers never see a partition that does not exist. */
#include "log/log.h"

#include "base/check.h"
#include "log/log_driver.h"
#include "log/log_file.h"

err log_open(const struct log_config *config, struct io *io, struct pool *pool, struct log **out_log,
             struct err_at *at)
{
    return log_file_open(config, io, pool, 0, out_log, at);
}

void log_close(struct log *log)
{
    if (log != NULL)
        log->driver->close(log);
}

const struct log_damage *log_damages(const struct log *log, size_t *out_count)
{
    return log->driver->damages(log, out_count);
}

void log_append(struct log *log, struct log_append *append)
{
    check(append->partition < log->partition_count);
    check(append->done != NULL);
    log->driver->append(log, append);
}

err log_pump(struct log *log) { return log->driver->pump(log); }
err log_run_thread(struct log *log) { return log->driver->run_thread(log); }
void log_drain(struct log *log) { log->driver->drain(log); }

void log_on_durable(struct log *log, void (*wake)(void *context), void *context)
{
    log->driver->on_durable(log, wake, context);
}

err log_reader_open(struct log *log, uint32_t partition, uint64_t offset, int32_t leader_epoch,
                    struct log_reader **out_reader)
{
    check(partition < log->partition_count);
    return log->driver->reader_open(log, partition, offset, leader_epoch, out_reader);
}

void log_reader_close(struct log_reader *reader)
{
    if (reader != NULL)
        reader->log->driver->reader_close(reader);
}

err log_reader_next(struct log_reader *reader, struct log_record *out_record)
{
    return reader->log->driver->reader_next(reader, out_record);
}

struct log_watermarks log_watermarks(struct log *log, uint32_t partition)
{
    check(partition < log->partition_count);
    return log->driver->watermarks(log, partition);
}

err log_went_back(struct log *log, uint32_t partition, uint64_t *out_from)
{
    check(partition < log->partition_count);
    return log->driver->went_back(log, partition, out_from);
}

void log_go_on(struct log *log, uint32_t partition, uint64_t from)
{
    check(partition < log->partition_count);
    log->driver->go_on(log, partition, from);
}

struct log_seen log_seen(struct log *log, uint32_t partition)
{
    check(partition < log->partition_count);
    return log->driver->seen(log, partition);
}

int32_t log_epoch_before(struct log *log, uint32_t partition, uint64_t offset)
{
    check(partition < log->partition_count);
    return log->driver->epoch_before(log, partition, offset);
}

err log_trim(struct log *log, uint32_t partition, uint64_t before)
{
    check(partition < log->partition_count);
    return log->driver->trim(log, partition, before);
}

bool log_is_held(struct log *log, uint32_t partition)
{
    check(partition < log->partition_count);
    return log->driver->is_held(log, partition);
}

err log_tidy(struct log *log) { return log->driver->tidy(log); }
struct log_usage log_usage(struct log *log) { return log->driver->usage(log); }
