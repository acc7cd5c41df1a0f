/* Relabelling with Prometheus' rules: which targets and series stay, and under which labels. */
#ifndef INGEST_RELABEL_H
#define INGEST_RELABEL_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "model/labels.h"
#include "model/yaml.h"

#include <stdbool.h>

struct regex;

#define RELABEL_RULES_MAX       1000        /* of one list */
#define RELABEL_SOURCES_MAX     64          /* source_labels of one rule */
#define RELABEL_VALUE_BYTES_MAX (64u << 10) /* a label value that a rule makes */
#define LABEL_SET_COUNT_MAX     (2 * LABEL_COUNT_MAX)

enum relabel_action {
    RELABEL_REPLACE,
    RELABEL_KEEP,
    RELABEL_DROP,
    RELABEL_KEEP_EQUAL,
    RELABEL_DROP_EQUAL,
    RELABEL_HASH_MOD,
    RELABEL_LABEL_MAP,
    RELABEL_LABEL_DROP,
    RELABEL_LABEL_KEEP,
    RELABEL_LOWERCASE,
    RELABEL_UPPERCASE,
    RELABEL_ACTION_COUNT
};

struct relabel_rule {
    enum relabel_action action;
    struct slice *sources;
    size_t source_count;
    struct slice separator;
    struct regex *regex;   /* matches the whole text */
    bool is_regex_default; /* (.*) */
    struct slice target;   /* may have $1 with replace */
    struct slice replacement;
    uint64_t modulus;
};

struct relabel_rules {
    struct relabel_rule *rules;
    size_t count;
};

/* Labels being worked on: unique names, any order, values may be empty (then the label counts as absent). Strings
 * are borrowed from wherever they came and from the pool. */
struct label_set {
    struct pool *pool; /* of the array and of strings that rules make */
    struct label *labels;
    size_t count;
    size_t capacity;
};

struct slice label_set_get(const struct label_set *set, struct slice name);
/* Set, or remove with an empty value. ERR_LIMIT. */
err label_set_put(struct label_set *set, struct slice name, struct slice value);
err label_set_put_str(struct label_set *set, const char *name, struct slice value);
void label_set_remove(struct label_set *set, struct slice name);

/* Read a list of rules (relabel_configs, metric_relabel_configs), already known to be a list. Everything is
 * copied into pool, except the compiled expressions: relabel_rules_close. ERR_INPUT with position, ERR_LIMIT. */
err relabel_rules_load(struct yaml_node **items, size_t count, struct pool *pool,
                       struct relabel_rules *out_rules, struct err_at *at);
void relabel_rules_close(struct relabel_rules *rules);

/* Apply the rules in order. *out_keep: false when a rule dropped the whole set. ERR_LIMIT. */
err relabel_apply(const struct relabel_rules *rules, struct label_set *set, bool *out_keep);

#endif
