/* What the fuzz targets of ingest share: a fresh ingest before a log in memory that decodes every record. */
#ifndef TESTS_FUZZ_INGEST_H
#define TESTS_FUZZ_INGEST_H

#define FAKE_BINDING_COUNT (1u << 12) /* little memory, so that an input takes little time */

#include "base/test.h"

#include "codec/snappy.h"
#include "ingest/test_log.h"

#define FUZZ_REQUIRE(condition) \
    do {                        \
        if (!(condition))       \
            abort();            \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len);

static struct io *fuzz_io;

enum fuzz_entry { FUZZ_REMOTE_WRITE, FUZZ_TEXT };

/* Send a body twice: what prediction finds the second time must give the same rows. */
static inline void fuzz_ingest(struct ingest_config *config, enum fuzz_entry entry, struct slice content_type,
                               struct slice content_encoding, struct slice body)
{
    struct pool *pool = pool_open(NULL, "fuzz", POOL_BYTES_UNLIMITED);
    struct log *log = fake_log_open(pool);
    struct ingest *ingest;
    if (fuzz_io == NULL)
        FUZZ_REQUIRE(io_open("/tmp", &fuzz_io) == OK);
    config->partition_count = 2;
    FUZZ_REQUIRE(ingest_open(config, fuzz_io, log, pool, &ingest) == OK);
    struct ingest_result results[2];
    size_t rows[3] = { 0 };
    for (int i = 0; i < 2; i++) {
        if (entry == FUZZ_TEXT)
            ingest_import_text(ingest, slice_str("t"), content_type, body, body.len, &results[i]);
        else
            ingest_remote_write(ingest, slice_str("t"), content_type, content_encoding, body, &results[i]);
        rows[i + 1] = log->row_count;
        FUZZ_REQUIRE(results[i].samples + results[i].histograms == rows[i + 1] - rows[i]);
        FUZZ_REQUIRE(results[i].status >= 204 && results[i].status < 600 && results[i].status != 500);
        FUZZ_REQUIRE(results[i].text_len < INGEST_TEXT_BYTES_MAX &&
                     results[i].text[results[i].text_len] == 0);
    }
    FUZZ_REQUIRE(results[0].status == results[1].status && results[0].samples == results[1].samples);
    FUZZ_REQUIRE(memcmp(results[0].refused, results[1].refused, sizeof results[0].refused) == 0);
    FUZZ_REQUIRE(log->unbound == 0);
    uint64_t sums[2] = { 0 }; /* the order of partitions may differ */
    for (size_t i = 0; i < rows[2]; i++)
        sums[i >= rows[1]] += hash64(log->rows[i].labels, log->rows[i].bits);
    FUZZ_REQUIRE(rows[2] == 2 * rows[1] && sums[0] == sums[1]);
    ingest_close(ingest);
    pool_close(pool);
}

/* A message as the body of a remote write. */
static inline void fuzz_remote_write(struct slice message, const char *content_type)
{
    struct pool *pool = pool_open(NULL, "fuzz", POOL_BYTES_UNLIMITED);
    struct ingest_config config = ingest_config_default();
    struct buf body = buf_open(pool, 64u << 20);
    FUZZ_REQUIRE(snappy_block_encode(message, &body) == OK);
    fuzz_ingest(&config, FUZZ_REMOTE_WRITE, slice_str(content_type), slice_str("snappy"), buf_slice(&body));
    pool_close(pool);
}

#endif
