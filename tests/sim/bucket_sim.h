/* A simulated bucket of an S3 store, and its driver as blob/blob.h promises it: requests get lost, are refused,
 * take their time, come when nobody waits for them any more, or are carried out and never answered; the driver
 * tries again until its patience ends, and tells by the object whether it was its own request that came first.
 *
 * Calls come from fibers (fibers.h) and wait there. Objects outlive the processes that put them. */
#ifndef TESTS_BUCKET_SIM_H
#define TESTS_BUCKET_SIM_H

#include "blob/blob.h"

#define BUCKET_SIM_NODES_MAX 16

struct bucket_sim;

/* What happens to requests: each kind to one in so many; 0: to none. */
struct bucket_sim_odds {
    uint64_t lost;        /* never comes */
    uint64_t unavailable; /* 500, 503 */
    uint64_t slow;        /* some seconds */
    uint64_t reply_lost;  /* carried out, and nobody hears of it */
    uint64_t conflict;    /* 409: another one of the key was under way */
    uint64_t late;        /* a PUT that is given up, and carried out up to a minute later */
    uint64_t partial;     /* a list that breaks off behind some pages */
};

struct bucket_sim *bucket_sim_open(uint64_t seed);
void bucket_sim_close(struct bucket_sim *bucket);

/* The driver of a node's process; the memory is the pool's, and may go without blob_close. */
err bucket_sim_store(struct bucket_sim *bucket, uint32_t node, struct io *io, struct pool *pool,
                     struct blob **out_blob);

/* What is late comes, when its time has come. */
void bucket_sim_pass(struct bucket_sim *bucket);
void bucket_sim_set_odds(struct bucket_sim *bucket, const struct bucket_sim_odds *odds);
/* From now on the node reaches it, or does not. */
void bucket_sim_cut(struct bucket_sim *bucket, uint32_t node, bool is_cut);

/* ---- what happened ---- */
/* clang-format off */
#define BUCKET_SIM_COUNTS(X) \
    X(PUT) X(GET) X(LIST) X(LOST) X(UNAVAILABLE) X(SLOW) X(REPLY_LOST) X(CONFLICT_409) \
    X(EXISTS_412) X(OWN_412) X(LATE) X(LATE_CAME) X(LATE_BEATEN) X(PARTIAL_LIST) X(AWAY) X(GAVE_UP)
/* clang-format on */
enum bucket_sim_count {
#define BUCKET_SIM_COUNT_ENUM(name) BUCKET_SIM_COUNT_##name,
    BUCKET_SIM_COUNTS(BUCKET_SIM_COUNT_ENUM)
#undef BUCKET_SIM_COUNT_ENUM
        BUCKET_SIM_COUNT_END,
};
const char *bucket_sim_count_name(enum bucket_sim_count count);
const uint64_t *bucket_sim_counts(const struct bucket_sim *bucket);

/* A hash over all requests. */
uint64_t bucket_sim_trace(const struct bucket_sim *bucket);
/* Keys below the directory, now: for oracles. Waits for nothing. */
size_t bucket_sim_count_keys(const struct bucket_sim *bucket, const char *prefix);

#endif
