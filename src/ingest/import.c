/* Rows that come as exposition text, and rows that this process made itself. See request.h. */
#include "ingest/request.h"
#include "ingest/text.h"

#include "base/check.h"

#include <stdio.h>

/* ---- text ---- */

/* HELP, TYPE and UNIT of one family come as lines of their own; they are joined until another family begins. */
struct import {
    struct ingest_request *r;
    struct batch_metadata metadata; /* family.len 0 = none */
};

static err metadata_end(struct import *i)
{
    if (i->metadata.family.len == 0)
        return OK;
    err e = request_metadata(i->r, &i->metadata);
    i->metadata.family.len = 0;
    return e;
}

static err import_metadata(struct import *i, const struct text_item *item)
{
    if (!slice_equal(i->metadata.family, item->family)) {
        TRY(metadata_end(i));
        i->metadata = (struct batch_metadata){ .help = slice_of("", 0), .unit = slice_of("", 0) };
        TRY(pool_copy(i->r->pool, item->family, &i->metadata.family));
    }
    if (item->type == TEXT_TYPE)
        i->metadata.type = (uint8_t)item->metric_type;
    else if (item->type == TEXT_HELP)
        return pool_copy(i->r->pool, item->text, &i->metadata.help);
    else
        return pool_copy(i->r->pool, item->text, &i->metadata.unit);
    return OK;
}

/* Label pairs as they were written → raw label fields; request_series sorts and checks. */
static struct slice put_labels(struct buf *out, const struct label *labels, size_t count)
{
    buf_clear(out);
    for (size_t k = 0; k < count; k++)
        labels_put(out, labels[k].name, labels[k].value);
    return buf_slice(out);
}

static err import_sample(struct import *i, const struct text_item *item)
{
    struct ingest_request *r = i->r;
    struct series_ref ref;
    struct slice labels = put_labels(&r->raw, item->labels, item->label_count);
    if (buf_err(&r->raw) != OK) {
        request_refuse(r, INGEST_LABELS_INVALID, 1, slice_of(NULL, 0), "labels too long");
        return OK;
    }
    err e = request_series_next(r, labels, false, &ref);
    if (e != OK)
        return e == ERR_INPUT ? OK : e;
    TRY(request_sample(r, &ref, item->has_time ? item->t_ms : r->now_ms, double_bits(item->value), 0));
    if (!item->has_exemplar)
        return OK;
    labels = put_labels(&r->raw_exemplar, item->exemplar_labels, item->exemplar_label_count);
    if (buf_err(&r->raw_exemplar) != OK) {
        request_refuse(r, INGEST_EXEMPLAR_INVALID, 1, ref.labels, "labels too long");
        return OK;
    }
    int64_t t_ms = item->exemplar_has_time ? item->exemplar_t_ms : item->has_time ? item->t_ms : r->now_ms;
    return request_exemplar(r, &ref, t_ms, item->exemplar_value, labels);
}

static err import_items(struct import *i, struct text_parser *parser, struct err_at *at)
{
    for (;;) {
        struct text_item item;
        err e = text_next(parser, &item, at);
        if (e != OK) {
            TRY(metadata_end(i));
            return e;
        }
        TRY(item.type == TEXT_SAMPLE ? import_sample(i, &item) : import_metadata(i, &item));
        TRY(request_room(i->r));
    }
}

void import_text_decode(struct ingest_request *r, struct slice content_type, struct slice body,
                        size_t sent_bytes)
{
    if (!request_body_fits(r, sent_bytes))
        return;
    struct import import = { .r = r };
    struct text_parser parser;
    struct err_at at = { 0 };
    err e = text_open(&parser, body, text_format_of(content_type), r->pool);
    if (e == OK) {
        e = import_items(&import, &parser, &at);
        text_close(&parser);
    }
    char trouble[ERR_TEXT_BYTES_MAX + 64];
    snprintf(trouble, sizeof trouble, "line %u, column %u: %s", at.line, at.column, at.text);
    if (e == ERR_FULL)
        request_fail(r, 413, "more than %u samples in a request", r->tenant->limits.samples_per_request_max);
    else if (e == ERR_END || e == ERR_INPUT)
        request_seal(r, e == ERR_INPUT ? trouble : NULL);
    else
        request_fail(r, 503, "out of memory for this request");
}

/* ---- own rows ---- */

static err take_row(struct ingest_request *r, const struct ingest_row *row)
{
    struct series_ref ref;
    err e = request_series_next(r, row->labels, true, &ref);
    if (e != OK)
        return e == ERR_INPUT ? OK : e;
    if (row->histogram.len > 0)
        return request_histogram_bytes(r, &ref, row->t_ms, row->start_ms, row->histogram);
    return request_sample(r, &ref, row->t_ms, row->value_bits, row->start_ms);
}

static err take_rows(struct ingest_request *r, const struct ingest_rows *rows)
{
    for (size_t i = 0; i < rows->row_count; i++)
        TRY(take_row(r, &rows->rows[i]));
    for (size_t i = 0; i < rows->exemplar_count; i++) {
        const struct ingest_row_exemplar *x = &rows->exemplars[i];
        check(x->row < rows->row_count);
        struct series_ref ref;
        err e = request_series(r, rows->rows[x->row].labels, true, &ref);
        if (e == OK)
            e = request_exemplar(r, &ref, x->t_ms, x->value, x->labels);
        TRY(e == ERR_INPUT ? OK : e);
    }
    for (size_t i = 0; i < rows->metadata_count; i++)
        TRY(request_metadata(r, &rows->metadata[i]));
    return OK;
}

void rows_decode(struct ingest_request *r, const struct ingest_rows *rows)
{
    if (take_rows(r, rows) == OK)
        request_seal(r, NULL);
    else
        request_fail(r, 503, "out of memory for this request");
}
