/* What all API groups share: the call (request + answer + tenant), Prometheus' error envelope, parameters
 * with their error texts, and a query slot. */
#ifndef API_CALL_H
#define API_CALL_H

#include "api/api.h"
#include "model/json.h"
#include "query/query.h"

struct api {
    struct api_config config;
};

/* errorType and HTTP status of Prometheus' API. */
#define CALL_ERROR_LIST(X)                  \
    X(CALL_BAD_DATA, "bad_data", 400)       \
    X(CALL_EXECUTION, "execution", 422)     \
    X(CALL_TIMEOUT, "timeout", 503)         \
    X(CALL_CANCELED, "canceled", 499)       \
    X(CALL_INTERNAL, "internal", 500)       \
    X(CALL_UNAVAILABLE, "unavailable", 503) \
    X(CALL_NOT_FOUND, "not_found", 404)

#define CONSISTENCY_HEADER "X-Kelpie-Consistency"
#define TOKEN_HEADER       "X-Kelpie-Token"

#define CALL_ERROR_ENUM(id, name, status) id,
enum call_error { CALL_ERROR_LIST(CALL_ERROR_ENUM) CALL_ERROR_COUNT };
#undef CALL_ERROR_ENUM

struct call {
    struct api *api;
    struct net_request *request;
    struct net_response *response;
    struct slice tenant;
    bool is_partial_denied; /* partial=deny */
    bool wants_proof;       /* proof=true, or stats=all */
    bool is_strong;         /* everything acknowledged before it is in the answer */
};

/* Is the node ready? Not until then may anything but is_ready, refresh and the like be asked. reason:
 * API_REASON_BYTES_MAX. */
bool call_is_open(const struct api *api, char *reason);

/* Read tenant and common parameters. False: the error is answered already. */
bool call_begin(struct call *call, void *context, struct net_request *request, struct net_response *response);

/* Answer in Prometheus' envelope. The text is cut to 2,048 bytes. */
void call_fail(struct call *call, enum call_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Answer with one line of plain text, or several; the last gets its line feed if it lacks one. */
void call_text(struct net_response *response, unsigned status, const char *text);

/* Answer an err of query/, promql/ or a source: kind by code, text from at or Prometheus' own. */
void call_fail_err(struct call *call, err e, const struct err_at *at);

/* `invalid parameter "name": …` with position when at has one ("1:5: parse error: …" for expressions). */
void call_fail_param(struct call *call, const char *name, const struct err_at *at);
void call_fail_expression(struct call *call, const char *name, const struct err_at *at);
/* Is an error of parsing or evaluating the fault of the text? A limit that has a position is. */
static inline bool is_bad_expression(err e, const struct err_at *at)
{
    return e == ERR_INPUT || (e == ERR_LIMIT && at->line != 0);
}

/* An optional parameter; *out stays when it is absent or empty. False: answered. */
bool call_time(struct call *call, const char *name, int64_t *out_t_ms);
bool call_duration(struct call *call, const char *name, int64_t *out_ms);
bool call_limit(struct call *call, const char *name, uint64_t *out_limit); /* 0 = none */

/* Value of a parameter, empty when absent. */
struct slice call_param(const struct call *call, const char *name);

/* Take a query slot for this call; timeout and lookback_delta are read. text is for the slow-query line.
 * NULL: answered. End it with query_end (or through an answer). */
struct query *call_query(struct call *call, struct slice text);

/* Begin `{"status":"success","data":` in the response's body; call_done closes the brace. */
struct json call_success(struct call *call);
void call_done(struct call *call, struct json *json);

#endif
