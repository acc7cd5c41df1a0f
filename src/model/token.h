/* Read your writes: what a write's reply names, and a later query waits for. Text that a client carries: base64 of
 *   u8 version (1), u8 kind, u32 CRC32C of what follows, seeded with the cluster's id,
 *   kind 1: runs of partitions, ascending: varint(first − end of the run before), varint(length), then of each
 *   varint(offset); kind 2, of more partitions than there is room for: nothing. */
#ifndef MODEL_TOKEN_H
#define MODEL_TOKEN_H

#include "base/err.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define TOKEN_LEN_MAX 1024 /* of one */

/* Of a cluster: tokens of others are told from its own. */
uint32_t token_seed(const uint8_t cluster_id[16]);

/* ends[partition]: the next offset behind what was acknowledged; 0: nothing of it. Returns the length, 0: no
 * partition has an end. out is NUL-terminated. */
size_t token_write(uint32_t seed, const uint64_t *ends, uint32_t partition_count,
                   char out[TOKEN_LEN_MAX + 1]);

/* Raise ends to those of the tokens in text, which commas and spaces part. *out_all: one of them stands for
 * everything that was acknowledged before now; it stays as it is otherwise. ERR_INPUT with the reason. */
err token_read(uint32_t seed, struct slice text, uint32_t partition_count, uint64_t *ends, bool *out_all,
               struct err_at *at);

#endif
