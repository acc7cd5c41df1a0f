/* JSON, written token by token into a buf; commas come by themselves.
 *
 * The writer is a few bytes of state, so that an answer can be written in pieces: keep the state, let
 * the buf be emptied in between. Failures stick in the buf (buf_err). */
#ifndef MODEL_JSON_H
#define MODEL_JSON_H

#include "base/buf.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct json {
    struct buf *out;
    bool comma; /* a value stands before the next one */
};

static inline struct json json_begin(struct buf *out) { return (struct json){ .out = out }; }

void json_open(struct json *j, char bracket);  /* '{' or '[' */
void json_close(struct json *j, char bracket); /* '}' or ']' */

/* A member's name: static ASCII text that needs no escaping. Returns j, for the value:
 * json_uint(json_key(j, "count"), 7). */
struct json *json_key(struct json *j, const char *name);
/* A member's name from outside. */
struct json *json_key_slice(struct json *j, struct slice name);

/* Strings: escaped; bytes that are not UTF-8 become U+FFFD one by one. */
void json_string(struct json *j, struct slice text);
void json_str(struct json *j, const char *text);

void json_bool(struct json *j, bool value);
void json_null(struct json *j);
void json_int(struct json *j, int64_t value);
void json_uint(struct json *j, uint64_t value);
/* A JSON number with nine digits behind the point; not finite becomes 0. */
void json_seconds(struct json *j, double seconds);

/* A sample value: a *string* in Prometheus' notation ("1.5", "NaN", "+Inf"). */
void json_value(struct json *j, double value);

/* Unix milliseconds as seconds with 3 decimals when they are not zero: 1.500, 7, -0.001. */
void json_time(struct json *j, int64_t t_ms);

/* [t,"value"] in one go: the hot path of matrices. */
void json_point(struct json *j, int64_t t_ms, double value);

/* Canonical labels as an object. */
void json_labels(struct json *j, struct slice labels);

#endif
