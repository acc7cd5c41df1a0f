/* YAML text → tree, on libyaml's event parser. From: the node's configuration, rule files, discovery files,
 * read by their owners as whole texts. To: whoever reads the tree with the yaml_get_… helpers.
 *
 *   text ─ yaml_parser_parse ─→ events ─ on_event ─→ stack of open collections ─→ nodes in the pool
 *
 * Open collections keep their finished children on one shared array, `pending`; a frame remembers where its
 * own begin. When the collection ends they are copied into the pool as one array.
 *
 * Invariants
 * 1. Depth, node count and text size are bounded before anything is allocated for them; there is no
 *    recursion, and aliases are refused, so the tree is never larger than the text.
 * 2. Every node has the position of its first character; every error names one.
 * 3. Keys of a map are scalars and unique. Scalars hold no zero byte, so that text is a C string too.
 * 4. `is_used` and the list of absent keys that were asked for are all that changes after parsing, by yaml_get and
 *    what is made of it. */
#include "model/yaml.h"

#include <yaml.h>

#include "base/check.h"
#include "base/nearest.h"
#include "base/time.h"
#include "shim/number.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define ASKED_COUNT_MAX (1u << 16) /* 32 bytes each: 2 MiB of a document's pool */

/* A key that was asked for and is not there: an unknown one may have been meant to be it. */
struct asked {
    const struct yaml_node *map;
    const char *key;
    struct asked *before;
};

struct yaml_document {
    struct pool *pool;
    struct asked *last; /* those beyond ASKED_COUNT_MAX are not kept */
    size_t asked_count;
};

struct frame {
    struct yaml_node *node;
    size_t pending_start;
};

struct parse {
    struct pool *pool;
    struct err_at *at;
    struct yaml_document *document;
    struct yaml_node *root;
    struct frame frames[YAML_DEPTH_MAX];
    size_t depth;
    size_t node_count;
    size_t document_count;
    struct yaml_node **pending; /* children of open collections; keys and values alternate in maps */
    size_t pending_count;
    size_t pending_capacity;
    bool is_done;
};

static struct yaml_node position_node(yaml_mark_t mark)
{
    return (struct yaml_node){ .line = (uint32_t)mark.line + 1, .column = (uint32_t)mark.column + 1 };
}

err yaml_error(const struct yaml_node *node, err e, struct err_at *at, const char *format, ...)
{
    if (at == NULL)
        return e;
    char text[ERR_TEXT_BYTES_MAX];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return err_set_pos(at, node->line, node->column, e, "line %" PRIu32 " column %" PRIu32 ": %.440s",
                       node->line, node->column, text);
}

static err node_new(struct parse *p, enum yaml_type type, yaml_mark_t mark, struct yaml_node **out_node)
{
    struct yaml_node where = position_node(mark);
    if (p->node_count == YAML_NODE_COUNT_MAX)
        return yaml_error(&where, ERR_LIMIT, p->at, "more than %u values", YAML_NODE_COUNT_MAX);
    p->node_count++;
    struct yaml_node *node;
    TRY(pool_alloc(p->pool, sizeof *node, (void **)&node));
    *node = where;
    node->type = type;
    if (type == YAML_MAP)
        node->document = p->document;
    *out_node = node;
    return OK;
}

/* Append a finished or just begun node to the innermost open collection. */
static err node_attach(struct parse *p, struct yaml_node *node)
{
    if (p->depth == 0) {
        check(p->root == NULL);
        p->root = node;
        return OK;
    }
    const struct frame *frame = &p->frames[p->depth - 1];
    bool is_key = frame->node->type == YAML_MAP && (p->pending_count - frame->pending_start) % 2 == 0;
    if (is_key && node->type != YAML_SCALAR)
        return yaml_error(node, ERR_INPUT, p->at, "a key must be a plain text");
    TRY(pool_block_reserve(p->pool, (void **)&p->pending, sizeof *p->pending, p->pending_count + 1,
                           &p->pending_capacity));
    p->pending[p->pending_count++] = node;
    return OK;
}

static int compare_keys(const void *a, const void *b)
{
    const struct yaml_node *x = *(struct yaml_node *const *)a, *y = *(struct yaml_node *const *)b;
    int order = slice_compare(x->text, y->text);
    if (order != 0)
        return order;
    if (x->line != y->line)
        return x->line < y->line ? -1 : 1;
    return x->column < y->column ? -1 : x->column > y->column;
}

static err check_keys_unique(struct parse *p, const struct yaml_node *map)
{
    struct yaml_node **keys = NULL;
    TRY(pool_block_resize(p->pool, (void **)&keys, (map->count + 1) * sizeof *keys));
    for (size_t i = 0; i < map->count; i++)
        keys[i] = map->pairs[i].key;
    qsort(keys, map->count, sizeof *keys, compare_keys);
    err e = OK;
    for (size_t i = 1; i < map->count && e == OK; i++) {
        if (slice_equal(keys[i - 1]->text, keys[i]->text))
            e = yaml_error(keys[i], ERR_INPUT, p->at, "key \"%.*s\" is given twice",
                           SLICE_ARG(keys[i]->text));
    }
    pool_block_free(p->pool, keys);
    return e;
}

static err end_collection(struct parse *p)
{
    check(p->depth > 0);
    struct frame *frame = &p->frames[--p->depth];
    struct yaml_node *node = frame->node;
    struct yaml_node **children = p->pending == NULL ? NULL : p->pending + frame->pending_start;
    size_t child_count = p->pending_count - frame->pending_start;
    p->pending_count = frame->pending_start;
    if (node->type == YAML_SEQUENCE) {
        node->count = child_count;
        TRY(pool_alloc(p->pool, (child_count + 1) * sizeof *children, (void **)&node->items));
        if (child_count > 0)
            memcpy(node->items, children, child_count * sizeof *children);
        return OK;
    }
    check(child_count % 2 == 0);
    node->count = child_count / 2;
    TRY(pool_alloc(p->pool, (node->count + 1) * sizeof *node->pairs, (void **)&node->pairs));
    for (size_t i = 0; i < node->count; i++)
        node->pairs[i] = (struct yaml_pair){ .key = children[2 * i], .value = children[2 * i + 1] };
    return check_keys_unique(p, node);
}

static err begin_collection(struct parse *p, enum yaml_type type, const yaml_event_t *event)
{
    struct yaml_node *node;
    TRY(node_new(p, type, event->start_mark, &node));
    if (p->depth == YAML_DEPTH_MAX)
        return yaml_error(node, ERR_LIMIT, p->at, "nested more than %d deep", YAML_DEPTH_MAX);
    TRY(node_attach(p, node));
    p->frames[p->depth++] = (struct frame){ .node = node, .pending_start = p->pending_count };
    return OK;
}

static err add_scalar(struct parse *p, const yaml_event_t *event)
{
    struct yaml_node *node;
    TRY(node_new(p, YAML_SCALAR, event->start_mark, &node));
    struct slice text = slice_of(event->data.scalar.value, event->data.scalar.length);
    if (text.len != 0 && memchr(text.at, 0, text.len) != NULL)
        return yaml_error(node, ERR_INPUT, p->at, "a zero byte in a text");
    node->is_plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    TRY(pool_copy(p->pool, text, &node->text));
    return node_attach(p, node);
}

static err refuse_extras(struct parse *p, const yaml_event_t *event, const yaml_char_t *anchor,
                         const yaml_char_t *tag)
{
    struct yaml_node where = position_node(event->start_mark);
    if (anchor != NULL)
        return yaml_error(&where, ERR_INPUT, p->at, "anchors and aliases are not supported");
    if (tag != NULL)
        return yaml_error(&where, ERR_INPUT, p->at, "tags are not supported");
    return OK;
}

static err on_event(struct parse *p, const yaml_event_t *event)
{
    struct yaml_node where = position_node(event->start_mark);
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (p->document_count++ > 0)
            return yaml_error(&where, ERR_INPUT, p->at, "more than one document");
        return OK;
    case YAML_ALIAS_EVENT:
        return yaml_error(&where, ERR_INPUT, p->at, "anchors and aliases are not supported");
    case YAML_SCALAR_EVENT:
        TRY(refuse_extras(p, event, event->data.scalar.anchor, event->data.scalar.tag));
        return add_scalar(p, event);
    case YAML_SEQUENCE_START_EVENT:
        TRY(refuse_extras(p, event, event->data.sequence_start.anchor, event->data.sequence_start.tag));
        return begin_collection(p, YAML_SEQUENCE, event);
    case YAML_MAPPING_START_EVENT:
        TRY(refuse_extras(p, event, event->data.mapping_start.anchor, event->data.mapping_start.tag));
        return begin_collection(p, YAML_MAP, event);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return end_collection(p);
    case YAML_STREAM_END_EVENT:
        p->is_done = true;
        return OK;
    default:
        return OK;
    }
}

static bool begins_character(uint8_t byte) { return (byte & 0xc0) != 0x80; }

/* Position of a byte: those the parser cannot read have an offset only. */
static yaml_mark_t mark_of_byte(struct slice text, size_t offset)
{
    yaml_mark_t mark = { 0 };
    for (size_t i = 0; i < offset && i < text.len; i++) {
        mark.column = text.at[i] == '\n' ? 0 : mark.column + begins_character(text.at[i]);
        mark.line += text.at[i] == '\n';
    }
    return mark;
}

/* Is character number `index` a tab? The text is UTF-8 up to there. */
static bool is_tab(struct slice text, size_t index)
{
    size_t i = 0;
    for (size_t begun = 0; i < text.len; i++)
        if (begins_character(text.at[i]) && begun++ == index)
            break;
    return i < text.len && text.at[i] == '\t';
}

static err parser_problem(const yaml_parser_t *parser, struct slice text, struct err_at *at)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return err_set(at, ERR_LIMIT, "out of memory");
    bool is_unread = parser->error == YAML_READER_ERROR;
    struct yaml_node where =
        position_node(is_unread ? mark_of_byte(text, parser->problem_offset) : parser->problem_mark);
    if (!is_unread && is_tab(text, parser->problem_mark.index))
        return yaml_error(&where, ERR_INPUT, at, "a tab where YAML wants spaces");
    return yaml_error(&where, ERR_INPUT, at, "%s", parser->problem != NULL ? parser->problem : "malformed");
}

err yaml_parse(struct slice text, struct pool *pool, struct yaml_node **out_root, struct err_at *at)
{
    if (text.len > YAML_BYTES_MAX)
        return err_set(at, ERR_LIMIT, "line 1 column 1: larger than %u bytes", YAML_BYTES_MAX);
    void *document;
    TRY(pool_zalloc(pool, sizeof(struct yaml_document), &document));
    yaml_parser_t parser;
    if (yaml_parser_initialize(&parser) == 0)
        return err_set(at, ERR_LIMIT, "out of memory");
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, text.len > 0 ? text.at : (const uint8_t *)"", text.len);

    err e = OK;
    struct parse p = { .pool = pool, .at = at, .document = document };
    p.document->pool = pool;
    while (!p.is_done) {
        yaml_event_t event;
        if (yaml_parser_parse(&parser, &event) == 0)
            TRY_OUT(parser_problem(&parser, text, at));
        e = on_event(&p, &event);
        yaml_event_delete(&event);
        if (e != OK)
            goto out;
    }
    check(p.depth == 0);
    if (p.root == NULL) {
        yaml_mark_t start = { 0 };
        TRY_OUT(node_new(&p, YAML_MAP, start, &p.root));
    }
    *out_root = p.root;
out:
    pool_block_free(pool, p.pending);
    yaml_parser_delete(&parser);
    return e;
}

/* ---- scalars ---- */

bool yaml_is_null(const struct yaml_node *node)
{
    return node->type == YAML_SCALAR && node->is_plain &&
           (node->text.len == 0 || slice_equal_str(node->text, "~") || slice_equal_str(node->text, "null") ||
            slice_equal_str(node->text, "Null") || slice_equal_str(node->text, "NULL"));
}

static const char *type_text(const struct yaml_node *node)
{
    if (node->type == YAML_MAP)
        return "a map";
    if (node->type == YAML_SEQUENCE)
        return "a list";
    return yaml_is_null(node) ? "nothing" : "a text";
}

static err expected(const struct yaml_node *node, const char *what, struct err_at *at)
{
    if (node->type == YAML_SCALAR && !yaml_is_null(node))
        return yaml_error(node, ERR_INPUT, at, "expected %s, got \"%.*s\"", what,
                          SLICE_SHORT_ARG(node->text));
    return yaml_error(node, ERR_INPUT, at, "expected %s, got %s", what, type_text(node));
}

err yaml_string(const struct yaml_node *node, struct slice *out_text, struct err_at *at)
{
    if (node->type != YAML_SCALAR || yaml_is_null(node))
        return expected(node, "a text", at);
    *out_text = node->text;
    return OK;
}

err yaml_bool(const struct yaml_node *node, bool *out_v, struct err_at *at)
{
    static const char *const yes[] = { "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON" };
    static const char *const no[] = { "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF" };
    if (node->type == YAML_SCALAR && node->is_plain) {
        for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
            bool is_yes = slice_equal_str(node->text, yes[i]);
            if (is_yes || slice_equal_str(node->text, no[i])) {
                *out_v = is_yes;
                return OK;
            }
        }
    }
    return expected(node, "true or false", at);
}

/* Decimal digits with an optional minus. False: malformed or outside int64. */
static bool parse_int(struct slice text, int64_t *out_v)
{
    bool minus = text.len > 0 && text.at[0] == '-';
    size_t i = minus || (text.len > 0 && text.at[0] == '+') ? 1 : 0;
    if (i == text.len)
        return false;
    int64_t v = 0;
    for (; i < text.len; i++) {
        unsigned digit = (unsigned)text.at[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, minus ? -(int64_t)digit : (int64_t)digit, &v))
            return false;
    }
    *out_v = v;
    return true;
}

err yaml_int(const struct yaml_node *node, int64_t min, int64_t max, int64_t *out_v, struct err_at *at)
{
    int64_t v;
    if (node->type != YAML_SCALAR || !node->is_plain || !parse_int(node->text, &v))
        return expected(node, "a whole number", at);
    if (v < min || v > max)
        return yaml_error(node, ERR_INPUT, at, "%" PRId64 " is not between %" PRId64 " and %" PRId64, v, min,
                          max);
    *out_v = v;
    return OK;
}

err yaml_double(const struct yaml_node *node, double *out_v, struct err_at *at)
{
    if (node->type != YAML_SCALAR || !node->is_plain || !number_parse(node->text, false, out_v))
        return expected(node, "a number", at);
    return OK;
}

bool yaml_duration_parse(struct slice text, int64_t *out_ms)
{
    static const struct {
        const char *name;
        int64_t ms;
    } units[] = {
        { "y", 365 * MS_PER_DAY }, { "w", 7 * MS_PER_DAY }, { "d", MS_PER_DAY }, { "h", MS_PER_HOUR },
        { "m", MS_PER_MINUTE },    { "s", MS_PER_SECOND },  { "ms", 1 },
    };
    if (slice_equal_str(text, "0")) {
        *out_ms = 0;
        return true;
    }
    int64_t sum_ms = 0;
    size_t unit = 0, i = 0;
    if (text.len == 0)
        return false;
    while (i < text.len) {
        size_t start = i;
        while (i < text.len && text.at[i] >= '0' && text.at[i] <= '9')
            i++;
        size_t name = i;
        while (i < text.len && text.at[i] >= 'a' && text.at[i] <= 'z')
            i++;
        while (unit < 7 && !slice_equal_str(slice_part(text, name, i - name), units[unit].name))
            unit++;
        int64_t count, ms;
        if (name == start || unit == 7 || !parse_int(slice_part(text, start, name - start), &count) ||
            __builtin_mul_overflow(count, units[unit].ms, &ms) ||
            __builtin_add_overflow(sum_ms, ms, &sum_ms) || sum_ms > INT64_MAX / NS_PER_MS)
            return false;
        unit++; /* each unit once, in this order */
    }
    *out_ms = sum_ms;
    return true;
}

err yaml_duration(const struct yaml_node *node, int64_t *out_ms, struct err_at *at)
{
    if (node->type != YAML_SCALAR || !yaml_duration_parse(node->text, out_ms))
        return expected(node, "a duration like 15s or 1h30m", at);
    return OK;
}

err yaml_bytes(const struct yaml_node *node, uint64_t *out_bytes, struct err_at *at)
{
    static const char units[] = "BKMGTPE";
    size_t len = node->type == YAML_SCALAR ? node->text.len : 0, digits = 0;
    while (digits < len &&
           ((node->text.at[digits] >= '0' && node->text.at[digits] <= '9') || node->text.at[digits] == '.'))
        digits++;
    double v;
    if (digits == 0 || !number_parse(slice_part(node->text, 0, digits), false, &v))
        return expected(node, "a size like 512MB", at);
    struct slice unit = slice_part(node->text, digits, len - digits);
    size_t power = 0;
    if (unit.len > 0) {
        while (units[power] != 0 && units[power] != unit.at[0])
            power++;
        struct slice rest = slice_part(unit, 1, unit.len - 1);
        bool is_known =
            units[power] != 0 &&
            (rest.len == 0 || (power > 0 && (slice_equal_str(rest, "B") || slice_equal_str(rest, "iB"))));
        if (!is_known)
            return expected(node, "a size like 512MB", at);
    }
    for (size_t i = 0; i < power; i++)
        v *= 1024;
    if (!(v < 9.2e18))
        return yaml_error(node, ERR_INPUT, at, "size out of range");
    *out_bytes = (uint64_t)v;
    return OK;
}

err yaml_percent(const struct yaml_node *node, double *out_fraction, struct err_at *at)
{
    struct slice text = node->type == YAML_SCALAR ? node->text : slice_of("", 0);
    bool has_sign = text.len > 0 && text.at[text.len - 1] == '%';
    double v;
    if (has_sign)
        text.len--;
    if (!number_parse(text, false, &v) || !(v >= 0 && v <= 1e9))
        return expected(node, "a share like 50% or 0.5", at);
    *out_fraction = has_sign ? v / 100 : v;
    return OK;
}

/* ---- maps ---- */

err yaml_map_begin(struct yaml_node *node, struct err_at *at)
{
    if (node->type != YAML_MAP && !yaml_is_null(node))
        return expected(node, "a map", at);
    return OK;
}

static struct yaml_pair *find(const struct yaml_node *map, const char *key)
{
    for (size_t i = 0; map->type == YAML_MAP && i < map->count; i++) /* else a null, read as an empty map */
        if (slice_equal_str(map->pairs[i].key->text, key))
            return &map->pairs[i];
    return NULL;
}

struct yaml_node *yaml_find(const struct yaml_node *map, const char *key)
{
    const struct yaml_pair *pair = find(map, key);
    return pair == NULL ? NULL : pair->value;
}

struct yaml_node *yaml_get(struct yaml_node *map, const char *key)
{
    struct yaml_pair *pair = find(map, key);
    if (pair != NULL) {
        pair->is_used = true;
        return pair->value;
    }
    struct yaml_document *d = map->type == YAML_MAP && map->count > 0 ? map->document : NULL;
    void *room;
    if (d == NULL || d->asked_count == ASKED_COUNT_MAX || pool_alloc(d->pool, sizeof *d->last, &room) != OK)
        return NULL; /* with a suggestion less */
    struct asked *asked = room;
    *asked = (struct asked){ .map = map, .key = key, .before = d->last };
    d->last = asked;
    d->asked_count++;
    return NULL;
}

/* The absent key that was asked for and is most like this one, of several the first, or NULL. */
static const char *meant(const struct yaml_node *map, struct slice text)
{
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;
    for (const struct asked *a = map->document->last; a != NULL; a = a->before) {
        size_t distance = a->map == map ? nearest_distance(text, slice_str(a->key)) : SIZE_MAX;
        if (distance != SIZE_MAX && distance <= best_distance) {
            best = a->key;
            best_distance = distance;
        }
    }
    return best;
}

err yaml_map_end(struct yaml_node *map, struct err_at *at)
{
    for (size_t i = 0; map->type == YAML_MAP && i < map->count; i++) {
        if (map->pairs[i].is_used)
            continue;
        const struct yaml_node *key = map->pairs[i].key;
        const char *near = meant(map, key->text);
        return yaml_error(key, ERR_INPUT, at, "unknown key \"%.*s\"%s%s%s", SLICE_SHORT_ARG(key->text),
                          near != NULL ? ", did you mean " : "", near != NULL ? near : "",
                          near != NULL ? "?" : "");
    }
    return OK;
}

/* The value of a key, NULL when absent or null. */
static struct yaml_node *get_value(struct yaml_node *map, const char *key)
{
    struct yaml_node *node = yaml_get(map, key);
    return node == NULL || yaml_is_null(node) ? NULL : node;
}

err yaml_get_string(struct yaml_node *map, const char *key, struct slice *out_text, struct err_at *at)
{
    struct yaml_node *node = get_value(map, key);
    return node == NULL ? OK : yaml_string(node, out_text, at);
}

err yaml_get_bool(struct yaml_node *map, const char *key, bool *out_v, struct err_at *at)
{
    struct yaml_node *node = get_value(map, key);
    return node == NULL ? OK : yaml_bool(node, out_v, at);
}

err yaml_get_int(struct yaml_node *map, const char *key, int64_t min, int64_t max, int64_t *out_v,
                 struct err_at *at)
{
    struct yaml_node *node = get_value(map, key);
    return node == NULL ? OK : yaml_int(node, min, max, out_v, at);
}

err yaml_get_double(struct yaml_node *map, const char *key, double *out_v, struct err_at *at)
{
    struct yaml_node *node = get_value(map, key);
    return node == NULL ? OK : yaml_double(node, out_v, at);
}

err yaml_get_duration(struct yaml_node *map, const char *key, int64_t *out_ms, struct err_at *at)
{
    struct yaml_node *node = get_value(map, key);
    return node == NULL ? OK : yaml_duration(node, out_ms, at);
}

err yaml_get_bytes(struct yaml_node *map, const char *key, uint64_t *out_bytes, struct err_at *at)
{
    struct yaml_node *node = get_value(map, key);
    return node == NULL ? OK : yaml_bytes(node, out_bytes, at);
}

err yaml_get_percent(struct yaml_node *map, const char *key, double *out_fraction, struct err_at *at)
{
    struct yaml_node *node = get_value(map, key);
    return node == NULL ? OK : yaml_percent(node, out_fraction, at);
}

err yaml_get_sequence(struct yaml_node *map, const char *key, struct yaml_node ***out_items,
                      size_t *out_count, struct err_at *at)
{
    struct yaml_node *node = get_value(map, key);
    if (node != NULL && node->type != YAML_SEQUENCE)
        return expected(node, "a list", at);
    *out_items = node == NULL ? NULL : node->items;
    *out_count = node == NULL ? 0 : node->count;
    return OK;
}

err yaml_get_map(struct yaml_node *map, const char *key, struct yaml_node **out_map, struct err_at *at)
{
    struct yaml_node *node = get_value(map, key);
    if (node != NULL)
        TRY(yaml_map_begin(node, at));
    *out_map = node;
    return OK;
}

err yaml_get_enum(struct yaml_node *map, const char *key, const char *const *names, size_t count,
                  size_t *out_index, struct err_at *at)
{
    struct yaml_node *node = get_value(map, key);
    if (node == NULL)
        return OK;
    for (size_t i = 0; i < count; i++) {
        if (node->type == YAML_SCALAR && slice_equal_str(node->text, names[i])) {
            *out_index = i;
            return OK;
        }
    }
    char list[200] = "";
    for (size_t i = 0, len = 0; i < count && len < sizeof list - 40; i++)
        len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", i == 0 ? "one of " : ", ", names[i]);
    return expected(node, list, at);
}
