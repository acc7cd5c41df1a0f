/* Reading a chain, around entries that cannot be read: what else is there stands in for them. */
#ifndef SHARD_MEND_H
#define SHARD_MEND_H

#include "blob/blob.h"
#include "shard/chain.h"
#include "shard/shard.h"

struct chain_reader {
    const struct shards_config
        *config; /* read_only: nothing is written; else a stand-in takes the entry's name */
    struct io *io;
    struct blob *blob;
    struct pool *pool; /* for the time of the call */
    uint32_t partition;
    uint64_t log_start; /* oldest offset of the partition's log; UINT64_MAX: there is none */
    int64_t now_ms;
    bool
        mends_io; /* read errors count as damage; else only what is proved stands in for an entry met by one */
    /* NULL is allowed. Called for each damaged entry with what stands in for it: the COMMIT as it was, a LOST, or,
     * for one that nobody needs any more, a BASE of which only the number tells. */
    void (*damaged)(void *context, const struct chain_entry *in_place, err why);
    void *context;
    uint64_t last_number; /* of the entries that count, as if none were behind it; 0: all */
};

/* Fold all entries into an opened chain. ERR_VERSION (of a live segment, too), ERR_IO, ERR_LIMIT, ERR_SPACE; at
 * names the entry or the segment. */
err shard_chain_read(const struct chain_reader *reader, struct chain *chain, struct err_at *at);

/* The same, into a chain that it opens, of a store without a log in which nothing may stand in for an entry:
 * one that cannot be read is refused by its key, ERR_CORRUPT or ERR_NOT_FOUND. where: what at calls the
 * store. The chain is to be closed with an error, too. Of how count config, io, blob, pool, partition and
 * last_number. clone.c */
err shard_chain_read_whole(const struct chain_reader *how, const char *where, struct chain *out_chain,
                           struct err_at *at);
/* e, told of an object. clone.c */
err shard_refuse_object(err e, const char *where, const char *key, struct err_at *at);

/* Put an entry under the chain's next number, without a partition that is open. ERR_EXISTS: that is taken; and as
 * blob_put. restore.c */
err shard_entry_put(struct io *io, struct blob *blob, const struct chain *chain, struct chain_entry *entry,
                    struct pool *pool);

/* What a fold tells of its partition; without newest_ms and damage_count. restore.c */
struct shard_facts shard_facts_of(const struct chain *chain);

/* Give a damaged file of a directory a second name in the quarantine, '_' for '/', with a number behind it
 * where that is taken: nothing there is replaced. Its own name is left to the caller. ERR_NOT_FOUND, ERR_EXISTS
 * (a hundred are there), ERR_LIMIT, ERR_IO, ERR_SPACE. */
err shard_quarantine(struct io *io, const struct shards_config *config, const char *directory,
                     const char *name, char out_path[IO_PATH_BYTES_MAX]);
/* The same with a stream file, which loses its own name. */
err shard_set_aside(struct io *io, const struct shards_config *config, const char *name,
                    char out_path[IO_PATH_BYTES_MAX]);

/* Tell of a damaged entry with what stands in for it, as `damaged` above gets it. verb: "is" or "can be". */
void shard_tell_stand_in(const struct shard_report *report, struct shard_check *check, const char *verb,
                         const struct chain_entry *in_place, err why);

/* ---- names, account.c ---- */
/* The number that an entry's name is: at least 8 digits, as written. 0: it is no such name. */
uint64_t chain_number_parse(const char *name);
/* What the name of a segment or state object says. */
struct object_name {
    uint8_t digest[SHA256_BYTES];
    uint64_t era;
};
/* False: not 64 hexadecimal digits, and, of an era above 0, '-' and its number as written. */
bool object_name_parse(const char *name, struct object_name *out_name);

#endif
