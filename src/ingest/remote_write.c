/* Remote write: headers → protocol version → decompressed message → its decoder. See request.h.
 * Source: Prometheus remote write 1.0 and 2.0 specifications. */
#include "ingest/protobuf.h"
#include "ingest/request.h"

#include "codec/snappy.h"

#define V1_MESSAGE "prometheus.WriteRequest"
#define V2_MESSAGE "io.prometheus.write.v2.Request"

static struct slice trim(struct slice s)
{
    while (s.len > 0 && (s.at[0] == ' ' || s.at[0] == '\t'))
        s = slice_part(s, 1, s.len - 1);
    while (s.len > 0 && (s.at[s.len - 1] == ' ' || s.at[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static struct slice cut(struct slice *rest, uint8_t separator)
{
    const uint8_t *found = rest->len == 0 ? NULL : memchr(rest->at, separator, rest->len);
    struct slice head = *rest;
    if (found == NULL) {
        *rest = slice_of(rest->at + rest->len, 0);
        return trim(head);
    }
    head.len = (size_t)(found - rest->at);
    *rest = slice_part(*rest, head.len + 1, rest->len - head.len - 1);
    return trim(head);
}

/* 1 or 2 as the content type says; 0: not remote write, or a message that we do not know. */
static int version_of(struct slice content_type)
{
    if (content_type.len == 0)
        return 1;
    struct slice type = cut(&content_type, ';');
    if (!slice_equal_fold(type, "application/x-protobuf"))
        return 0;
    while (content_type.len > 0) {
        struct slice value = cut(&content_type, ';');
        struct slice key = cut(&value, '=');
        if (!slice_equal_fold(key, "proto"))
            continue;
        value = trim(value);
        if (value.len >= 2 && value.at[0] == '"' && value.at[value.len - 1] == '"')
            value = slice_part(value, 1, value.len - 2);
        return slice_equal_str(value, V1_MESSAGE) ? 1 : slice_equal_str(value, V2_MESSAGE) ? 2 : 0;
    }
    return 1;
}

void remote_write_decode(struct ingest_request *r, struct slice content_type, struct slice content_encoding,
                         struct slice body)
{
    const struct ingest_config *config = &r->ingest->config;
    int version = version_of(content_type);
    r->result.has_written_headers = version == 2;
    if (version == 0) {
        request_fail(r, 415,
                     "unknown content type; expected application/x-protobuf with proto=" V1_MESSAGE
                     " or " V2_MESSAGE);
        return;
    }
    if (content_encoding.len != 0 && !slice_equal_fold(trim(content_encoding), "snappy")) {
        request_fail(r, 415, "unknown content encoding; expected snappy (block format)");
        return;
    }
    if (!request_body_fits(r, body.len))
        return;
    err e = snappy_block_decode(body, config->decoded_bytes_max, &r->decoded);
    if (e == ERR_LIMIT && buf_err(&r->decoded) == OK) {
        request_fail(r, 413, "the decompressed body is larger than %zu bytes", config->decoded_bytes_max);
        return;
    }
    struct err_at at = { 0 };
    if (e == ERR_INPUT)
        e = err_set(&at, e, "the body is not a snappy block");
    if (e == OK)
        e = version == 1 ? remote_write_1_decode(r, buf_slice(&r->decoded), &at)
                         : remote_write_2_decode(r, buf_slice(&r->decoded), &at);
    if (e == ERR_INPUT)
        request_fail(r, 400, "%s", at.text);
    else if (e == ERR_FULL && at.text[0] != 0)
        request_fail(r, 413, "%s", at.text);
    else if (e == ERR_FULL)
        request_fail(r, 413, "more than %u samples in a request", r->tenant->limits.samples_per_request_max);
    else if (e != OK)
        request_fail(r, 503, "out of memory for this request");
    else
        request_seal(r, NULL);
}

void remote_series_refused(struct ingest_request *r, struct slice message)
{
    struct reader reader = reader_of(message);
    struct field f;
    uint64_t count = 0;
    while (field_next(&reader, &f))
        count += f.wire == WIRE_BYTES && f.number >= 2 && f.number <= 4;
    if (count > 1)
        request_refuse_more(r, count - 1);
}
