/* Exposition text: a strict pull parser over Prometheus text 0.0.4 and OpenMetrics 1.0.
 *
 * Zero-copy: slices point into the body, or, when a label value or help text had escapes or when a name is
 * quoted, into the parser's scratch memory. Both live until the next text_next. */
#ifndef INGEST_TEXT_H
#define INGEST_TEXT_H

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"
#include "model/batch.h"
#include "model/labels.h"

#include <stdbool.h>
#include <stdint.h>

enum text_format { TEXT_PROMETHEUS, TEXT_OPENMETRICS };

/* The format that a Content-Type header names: OpenMetrics for application/openmetrics-text, else text. */
enum text_format text_format_of(struct slice content_type);

enum text_item_type { TEXT_SAMPLE, TEXT_HELP, TEXT_TYPE, TEXT_UNIT };

struct text_item {
    enum text_item_type type;

    /* TEXT_SAMPLE */
    struct slice series;  /* the source span, name and braces: equal spans are equal series */
    struct label *labels; /* with __name__ first, then as written; labels_encode may sort them */
    size_t label_count;
    double value;
    bool has_time;
    int64_t t_ms;
    bool has_exemplar;
    struct label *exemplar_labels;
    size_t exemplar_label_count;
    double exemplar_value;
    bool exemplar_has_time;
    int64_t exemplar_t_ms;

    /* TEXT_HELP, TEXT_TYPE, TEXT_UNIT */
    struct slice family;
    struct slice text; /* help (unescaped) or unit */
    enum metric_type metric_type;
};

#define TEXT_EXEMPLAR_LABEL_COUNT_MAX 64

struct text_parser {
    struct slice body;
    size_t at;     /* offset of the next line */
    uint32_t line; /* number of the line that the last item came from, from 1 */
    enum text_format format;
    bool ended;            /* # EOF was seen */
    struct slice expected; /* set by the caller: the series text that probably comes next (empty = none). If
                                  * it does, its labels are not taken apart again: item.label_count is 0 */
    struct buf scratch;
    struct label *labels; /* LABEL_COUNT_MAX + 1 of them, then the exemplar's */
};

/* Begin to parse body, which outlives the parser. pool holds labels and scratch. ERR_LIMIT. */
err text_open(struct text_parser *parser, struct slice body, enum text_format format, struct pool *pool);
void text_close(struct text_parser *parser);

/* The next item. ERR_END: no more (OpenMetrics: `# EOF` was there and nothing after it). ERR_INPUT: the
 * line is malformed, at tells line and column. After ERR_INPUT the parser stands behind that line and may
 * go on. ERR_LIMIT: the pool is spent. Source: Prometheus exposition formats; OpenMetrics 1.0. */
err text_next(struct text_parser *parser, struct text_item *out_item, struct err_at *at);

#endif
