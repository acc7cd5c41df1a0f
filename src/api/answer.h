/* Answers that may be long: written in pieces while they are sent, with warnings, statistics and the proof
 * of completeness around them. */
#ifndef API_ANSWER_H
#define API_ANSWER_H

#include "api/call.h"
#include "model/source.h"

#define ANSWER_MISSING_HEADER_BYTES_MAX 1024
#define ANSWER_SETS_MAX                 1024 /* selectors of one call */

/* One answer. Lives in the query's pool and ends the query when it has been sent. */
struct answer {
    struct query *query;
    struct json json;
    uint8_t stage;
    uint8_t part; /* of the item in work: see answer.c */
    size_t item, item_count;
    size_t point;                       /* next point of the item in work */
    size_t histogram;                   /* next histogram of it */
    const char *result_type;            /* NULL: data is a plain array */
    const struct promql_series *series; /* vector and matrix items */
    const struct slice *texts;          /* string items */
    const struct slice *labels;         /* label set items */
    double scalar;                      /* scalar and string results are one pair, no array */
    struct slice string;
    int64_t t_ms; /* of scalar and string */
    const struct slice *warnings;
    size_t warning_count;
    const struct slice *infos;
    size_t info_count;
    bool is_truncated; /* by limit: one more warning */
    const struct proof *proof;
    bool next_in_pieces; /* of PIECE_BYTES; else all at once */
    bool wants_proof;
    bool wants_stats;
    struct query_times times;
    uint64_t samples;
    uint64_t rows_bytes, groups_bytes; /* that answers of other nodes brought */
    struct pool *scratch;              /* for decoding histograms */
    struct source_set **sets;
    size_t set_count; /* closed at the end */
};

/* A zeroed answer in the query's pool. NULL: answered with an error, the query has ended. */
struct answer *answer_open(struct call *call, struct query *query);

/* End without sending: closes sets, ends the query. */
void answer_drop(struct answer *answer);

/* Set the headers, refuse an incomplete answer if partial=deny, then send: at once when the answer is
 * small (weight: about the number of points and labels), else piece by piece. Takes the answer. */
void answer_send(struct call *call, struct answer *answer, uint64_t weight);

/* End an answer whose data stands in the body already (call_success): headers, or the refusal, and the proof if it
 * is wanted. The answer stays the caller's. */
void answer_finish(struct call *call, const struct answer *answer, struct json *json);

#endif
