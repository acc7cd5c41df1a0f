/* Relabelling. From: rules in scrape_configs. To: label sets of targets (once per discovery) and of series
 * (once per new line of a target; the result is cached). Semantics: Prometheus 3, model/relabel.
 *
 * Invariants
 * 1. Rules are immutable after loading and may be applied from many threads; what changes is the caller's
 *    label_set alone.
 * 2. A rule never makes a label without a valid UTF-8 name or with an empty value.
 * 3. Lists and values are bounded; growth beyond is ERR_LIMIT, never truncation. */
#include "ingest/relabel.h"

#include <openssl/evp.h>
#include <stdio.h>

#include "base/check.h"
#include "shim/regex.h"

#define GROUPS_MAX 32 /* $0 … $31 of one expression */

static const char *const action_names[] = {
    "replace",  "keep",      "drop",      "keepequal", "dropequal", "hashmod",
    "labelmap", "labeldrop", "labelkeep", "lowercase", "uppercase",
};
_Static_assert(sizeof action_names / sizeof action_names[0] == RELABEL_ACTION_COUNT, "a name for each");

/* ---- label sets ---- */

static struct label *find(const struct label_set *set, struct slice name)
{
    for (size_t i = 0; i < set->count; i++) {
        if (slice_equal(set->labels[i].name, name))
            return &set->labels[i];
    }
    return NULL;
}

struct slice label_set_get(const struct label_set *set, struct slice name)
{
    const struct label *label = find(set, name);
    return label != NULL ? label->value : slice_of("", 0);
}

void label_set_remove(struct label_set *set, struct slice name)
{
    struct label *label = find(set, name);
    if (label == NULL)
        return;
    size_t behind = set->count - (size_t)(label - set->labels) - 1;
    memmove(label, label + 1, behind * sizeof *label); /* keeps the order, which labelmap shows */
    set->count--;
}

err label_set_put(struct label_set *set, struct slice name, struct slice value)
{
    if (value.len == 0) {
        label_set_remove(set, name);
        return OK;
    }
    struct label *label = find(set, name);
    if (label != NULL) {
        label->value = value;
        return OK;
    }
    if (set->count == LABEL_SET_COUNT_MAX)
        return ERR_LIMIT;
    TRY(pool_block_reserve(set->pool, (void **)&set->labels, sizeof *set->labels, set->count + 1,
                           &set->capacity));
    set->labels[set->count++] = (struct label){ .name = name, .value = value };
    return OK;
}

err label_set_put_str(struct label_set *set, const char *name, struct slice value)
{
    return label_set_put(set, slice_str(name), value);
}

/* ---- loading ---- */

static bool is_label_name(struct slice s) { return s.len > 0 && utf8_valid(s); }

static bool has_variable(struct slice s) { return s.len > 0 && memchr(s.at, '$', s.len) != NULL; }

static err get_copy(struct yaml_node *map, const char *key, struct pool *pool, struct slice *out,
                    struct err_at *at)
{
    struct slice text = { 0 };
    TRY(yaml_get_string(map, key, &text, at));
    return text.at == NULL ? OK : pool_copy(pool, text, out);
}

static err load_sources(struct yaml_node *node, struct pool *pool, struct relabel_rule *rule,
                        struct err_at *at)
{
    struct yaml_node **items;
    TRY(yaml_get_sequence(node, "source_labels", &items, &rule->source_count, at));
    if (rule->source_count > RELABEL_SOURCES_MAX)
        return yaml_error(node, ERR_LIMIT, at, "more than %d source_labels", RELABEL_SOURCES_MAX);
    TRY(pool_alloc(pool, (rule->source_count + 1) * sizeof *rule->sources, (void **)&rule->sources));
    for (size_t i = 0; i < rule->source_count; i++) {
        struct slice name;
        TRY(yaml_string(items[i], &name, at));
        if (!is_label_name(name))
            return yaml_error(items[i], ERR_INPUT, at, "not a label name");
        TRY(pool_copy(pool, name, &rule->sources[i]));
    }
    return OK;
}

/* What Prometheus refuses: parts that an action needs, or that it would ignore. */
static err check_rule(struct yaml_node *node, const struct relabel_rule *rule, struct err_at *at)
{
    const char *name = action_names[rule->action];
    enum relabel_action a = rule->action;
    bool needs_target = a == RELABEL_REPLACE || a == RELABEL_HASH_MOD || a == RELABEL_LOWERCASE ||
                        a == RELABEL_UPPERCASE || a == RELABEL_KEEP_EQUAL || a == RELABEL_DROP_EQUAL;
    if (needs_target && rule->target.len == 0)
        return yaml_error(node, ERR_INPUT, at, "action %s needs target_label", name);
    if (needs_target && (!utf8_valid(rule->target) || (a != RELABEL_REPLACE && has_variable(rule->target))))
        return yaml_error(node, ERR_INPUT, at, "target_label is not a label name");
    if (a == RELABEL_HASH_MOD && rule->modulus == 0)
        return yaml_error(node, ERR_INPUT, at, "action hashmod needs a modulus above 0");
    if (a == RELABEL_LABEL_MAP && !is_label_name(rule->replacement))
        return yaml_error(node, ERR_INPUT, at, "replacement is not a label name");
    bool is_equal = a == RELABEL_KEEP_EQUAL || a == RELABEL_DROP_EQUAL;
    if (is_equal && (!rule->is_regex_default || rule->modulus != 0 ||
                     !slice_equal_str(rule->separator, ";") || !slice_equal_str(rule->replacement, "$1")))
        return yaml_error(node, ERR_INPUT, at, "action %s takes source_labels and target_label only", name);
    bool is_name = a == RELABEL_LABEL_DROP || a == RELABEL_LABEL_KEEP;
    if (is_name && (rule->source_count > 0 || rule->target.len > 0 || rule->modulus != 0 ||
                    !slice_equal_str(rule->separator, ";") || !slice_equal_str(rule->replacement, "$1")))
        return yaml_error(node, ERR_INPUT, at, "action %s takes regex only", name);
    return OK;
}

static err load_rule(struct yaml_node *node, struct pool *pool, struct relabel_rule *rule, struct err_at *at)
{
    size_t action = RELABEL_REPLACE;
    int64_t modulus = 0;
    struct slice pattern = slice_str("(.*)");
    struct err_at why = { 0 };
    *rule = (struct relabel_rule){ .separator = slice_str(";"), .replacement = slice_str("$1") };
    TRY(yaml_map_begin(node, at));
    TRY(load_sources(node, pool, rule, at));
    TRY(get_copy(node, "separator", pool, &rule->separator, at));
    TRY(get_copy(node, "target_label", pool, &rule->target, at));
    TRY(get_copy(node, "replacement", pool, &rule->replacement, at));
    TRY(yaml_get_string(node, "regex", &pattern, at));
    TRY(yaml_get_int(node, "modulus", 0, INT64_MAX, &modulus, at));
    TRY(yaml_get_enum(node, "action", action_names, RELABEL_ACTION_COUNT, &action, at));
    TRY(yaml_map_end(node, at));
    rule->action = (enum relabel_action)action;
    rule->modulus = (uint64_t)modulus;
    rule->is_regex_default = slice_equal_str(pattern, "(.*)");
    TRY(check_rule(node, rule, at));
    err e = regex_open(pattern, REGEX_MEMORY_BYTES_MAX, &rule->regex, &why);
    if (e != OK)
        return yaml_error(node, ERR_INPUT, at, "regex: %.300s", why.text);
    if (regex_group_count(rule->regex) >= GROUPS_MAX)
        return yaml_error(node, ERR_LIMIT, at, "regex has more than %d groups", GROUPS_MAX - 1);
    return OK;
}

err relabel_rules_load(struct yaml_node **items, size_t count, struct pool *pool,
                       struct relabel_rules *out_rules, struct err_at *at)
{
    struct relabel_rules rules = { 0 };
    if (count > RELABEL_RULES_MAX)
        return yaml_error(items[0], ERR_LIMIT, at, "more than %d rules", RELABEL_RULES_MAX);
    TRY(pool_zalloc(pool, (count + 1) * sizeof *rules.rules, (void **)&rules.rules));
    for (size_t i = 0; i < count; i++) {
        rules.count++; /* a rule that fails may have its expression already */
        err e = load_rule(items[i], pool, &rules.rules[i], at);
        if (e != OK) {
            relabel_rules_close(&rules);
            return e;
        }
    }
    *out_rules = rules;
    return OK;
}

void relabel_rules_close(struct relabel_rules *rules)
{
    for (size_t i = 0; i < rules->count; i++) {
        if (rules->rules[i].regex != NULL)
            regex_close(rules->rules[i].regex);
    }
    *rules = (struct relabel_rules){ 0 };
}

/* ---- applying ---- */

/* The value of $name or ${name}; empty when the expression has no such group (Go's Expand). */
static struct slice group_value(const struct regex *regex, struct slice name, const struct slice *groups)
{
    int count = regex_group_count(regex), index = 0;
    bool is_number = name.len > 0 && name.len <= 4;
    for (size_t i = 0; i < name.len && is_number; i++) {
        is_number = name.at[i] >= '0' && name.at[i] <= '9';
        index = index * 10 + (name.at[i] - '0');
    }
    for (int i = 1; i <= count && !is_number; i++) {
        if (slice_equal(regex_group_name(regex, i), name))
            return groups[i].at != NULL ? groups[i] : slice_of("", 0);
    }
    return is_number && index <= count && groups[index].at != NULL ? groups[index] : slice_of("", 0);
}

static bool is_word(uint8_t c)
{
    return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Put the variables' values into the template; the result is in pool. */
static err expand(struct pool *pool, const struct regex *regex, struct slice template,
                  const struct slice *groups, struct slice *out_text)
{
    if (!has_variable(template)) {
        *out_text = template;
        return OK;
    }
    struct buf out = buf_open(pool, RELABEL_VALUE_BYTES_MAX);
    for (size_t i = 0; i < template.len;) {
        if (template.at[i] != '$') {
            buf_put_u8(&out, template.at[i++]);
            continue;
        }
        bool has_brace = i + 1 < template.len && template.at[i + 1] == '{';
        size_t start = i + 1 + has_brace, end = start;
        while (end < template.len && is_word(template.at[end]))
            end++;
        bool is_closed = !has_brace || (end < template.len && template.at[end] == '}');
        if (i + 1 < template.len && template.at[i + 1] == '$') {
            buf_put_u8(&out, '$');
            i += 2;
        } else if (end == start || !is_closed) {
            buf_put_u8(&out, '$'); /* malformed: the sign stands for itself */
            i++;
        } else {
            buf_put_slice(&out, group_value(regex, slice_part(template, start, end - start), groups));
            i = end + has_brace;
        }
    }
    err e = buf_err(&out);
    if (e == OK)
        e = pool_copy(pool, buf_slice(&out), out_text);
    buf_close(&out);
    return e;
}

/* Source values joined by the separator; borrowed when there is one source. */
static err join_sources(const struct relabel_rule *rule, struct label_set *set, struct slice *out_value)
{
    if (rule->source_count <= 1) {
        *out_value = rule->source_count == 0 ? slice_of("", 0) : label_set_get(set, rule->sources[0]);
        return OK;
    }
    struct buf out = buf_open(set->pool, (size_t)RELABEL_SOURCES_MAX * RELABEL_VALUE_BYTES_MAX);
    for (size_t i = 0; i < rule->source_count; i++) {
        if (i > 0)
            buf_put_slice(&out, rule->separator);
        buf_put_slice(&out, label_set_get(set, rule->sources[i]));
    }
    err e = buf_err(&out);
    if (e == OK)
        e = pool_copy(set->pool, buf_slice(&out), out_value);
    buf_close(&out);
    return e;
}

static err apply_replace(const struct relabel_rule *rule, struct label_set *set, struct slice value)
{
    struct slice groups[GROUPS_MAX], target, made;
    if (!regex_full_match_groups(rule->regex, value, groups, regex_group_count(rule->regex) + 1))
        return OK;
    TRY(expand(set->pool, rule->regex, rule->target, groups, &target));
    if (!is_label_name(target))
        return OK;
    TRY(expand(set->pool, rule->regex, rule->replacement, groups, &made));
    return label_set_put(set, target, made);
}

/* The low eight bytes of MD5, big-endian, modulo: what Prometheus computes, so that shards agree with it. */
static err apply_hash_mod(const struct relabel_rule *rule, struct label_set *set, struct slice value)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    int done = EVP_Digest(value.at, value.len, digest, &len, EVP_md5(), NULL);
    if (done != 1 || len != 16)
        return ERR_UNSUPPORTED; /* a library that forbids MD5 */
    uint64_t hash = 0;
    for (int i = 8; i < 16; i++)
        hash = hash << 8 | digest[i];
    char text[24];
    int text_len = snprintf(text, sizeof text, "%llu", (unsigned long long)(hash % rule->modulus));
    struct slice copy;
    TRY(pool_copy(set->pool, slice_of(text, (size_t)text_len), &copy));
    return label_set_put(set, rule->target, copy);
}

static err apply_label_map(const struct relabel_rule *rule, struct label_set *set)
{
    struct slice groups[GROUPS_MAX], name;
    size_t count = set->count; /* names that the rule adds are not mapped again */
    for (size_t i = 0; i < count && i < set->count; i++) {
        struct label label = set->labels[i];
        if (!regex_full_match_groups(rule->regex, label.name, groups, regex_group_count(rule->regex) + 1))
            continue;
        TRY(expand(set->pool, rule->regex, rule->replacement, groups, &name));
        if (is_label_name(name))
            TRY(label_set_put(set, name, label.value));
    }
    return OK;
}

static void apply_name_filter(const struct relabel_rule *rule, struct label_set *set)
{
    size_t kept = 0;
    for (size_t i = 0; i < set->count; i++) {
        bool matches = regex_full_match(rule->regex, set->labels[i].name);
        if (matches == (rule->action == RELABEL_LABEL_KEEP))
            set->labels[kept++] = set->labels[i];
    }
    set->count = kept;
}

/* ASCII letters; other bytes stay, so UTF-8 stays valid. */
static err apply_case(const struct relabel_rule *rule, struct label_set *set, struct slice value)
{
    uint8_t *at;
    TRY(pool_alloc(set->pool, value.len + 1, (void **)&at));
    for (size_t i = 0; i < value.len; i++) {
        uint8_t c = value.at[i];
        bool is_upper = c >= 'A' && c <= 'Z', is_lower = c >= 'a' && c <= 'z';
        at[i] = rule->action == RELABEL_LOWERCASE ? (uint8_t)(is_upper ? c + 32 : c)
                                                  : (uint8_t)(is_lower ? c - 32 : c);
    }
    return label_set_put(set, rule->target, slice_of(at, value.len));
}

err relabel_apply(const struct relabel_rules *rules, struct label_set *set, bool *out_keep)
{
    *out_keep = true;
    for (size_t i = 0; i < rules->count && *out_keep; i++) {
        const struct relabel_rule *rule = &rules->rules[i];
        struct slice value;
        TRY(join_sources(rule, set, &value));
        switch (rule->action) {
        case RELABEL_KEEP:
            *out_keep = regex_full_match(rule->regex, value);
            break;
        case RELABEL_DROP:
            *out_keep = !regex_full_match(rule->regex, value);
            break;
        case RELABEL_KEEP_EQUAL:
            *out_keep = slice_equal(label_set_get(set, rule->target), value);
            break;
        case RELABEL_DROP_EQUAL:
            *out_keep = !slice_equal(label_set_get(set, rule->target), value);
            break;
        case RELABEL_REPLACE:
            TRY(apply_replace(rule, set, value));
            break;
        case RELABEL_HASH_MOD:
            TRY(apply_hash_mod(rule, set, value));
            break;
        case RELABEL_LABEL_MAP:
            TRY(apply_label_map(rule, set));
            break;
        case RELABEL_LABEL_DROP:
        case RELABEL_LABEL_KEEP:
            apply_name_filter(rule, set);
            break;
        case RELABEL_LOWERCASE:
        case RELABEL_UPPERCASE:
            TRY(apply_case(rule, set, value));
            break;
        default:
            check(false);
        }
    }
    return OK;
}
