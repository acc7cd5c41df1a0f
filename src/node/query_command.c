/* kelpie query: ask a running node over HTTP and print the answer as text.
 *
 * The answer's JSON is read with the YAML parser, of which JSON is a subset. One line a series for an instant
 * query; for a range query a line with the labels, then one a point. What is missing from the answer goes to
 * standard error; the exit status is 1 when the node refuses (as with --partial deny), with --json, too. */
#include "model/yaml.h"
#include "node/ask.h"
#include "node/commands.h"
#include "node/options.h"

#include <stdio.h>
#include <string.h>

#define ANSWER_BYTES_MAX (256u << 20)
#define FORM_BYTES_MAX   (1u << 20)
#define TIMEOUT_MS       (5 * 60 * 1000)

struct question {
    struct ask_whom whom;
    const char *expression;
    const char *time, *start, *end, *step;
    const char *tenant;
    const char *partial;
    bool is_json;
};

/* name=value, percent-encoded (RFC 3986 §2.3 keeps letters, digits, -._~). */
static void put_param(struct buf *out, const char *name, const char *value)
{
    if (value == NULL)
        return;
    buf_printf(out, "%s%s=", out->len > 0 ? "&" : "", name);
    for (const char *c = value; *c != 0; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
                     strchr("-._~", *c) != NULL;
        if (plain)
            buf_put_u8(out, (uint8_t)*c);
        else
            buf_printf(out, "%%%02X", (unsigned char)*c);
    }
}

/* NULL as well when there is no map to look into. */
static const struct yaml_node *get(const struct yaml_node *map, const char *key)
{
    return map != NULL ? yaml_find(map, key) : NULL;
}

static size_t list_count(const struct yaml_node *list)
{
    return list != NULL && list->type == YAML_SEQUENCE ? list->count : 0;
}

/* name{a="b"} as selectors are written. */
static void print_labels(const struct yaml_node *metric)
{
    bool first = true;
    if (metric == NULL || metric->type != YAML_MAP)
        return;
    for (size_t i = 0; i < metric->count; i++)
        if (slice_equal_str(metric->pairs[i].key->text, "__name__"))
            printf("%.*s", SLICE_ARG(metric->pairs[i].value->text));
    printf("{");
    for (size_t i = 0; i < metric->count; i++) {
        if (slice_equal_str(metric->pairs[i].key->text, "__name__"))
            continue;
        printf("%s%.*s=\"%.*s\"", first ? "" : ", ", SLICE_ARG(metric->pairs[i].key->text),
               SLICE_ARG(metric->pairs[i].value->text));
        first = false;
    }
    printf("}");
}

/* [t, "v"], or [t, {count, sum, …}]. */
static void print_point(const struct yaml_node *point, const char *indent)
{
    if (list_count(point) != 2)
        return;
    const struct yaml_node *value = point->items[1];
    const struct yaml_node *count = get(value, "count"), *sum = get(value, "sum");
    if (count != NULL && sum != NULL)
        printf("%scount:%.*s sum:%.*s", indent, SLICE_ARG(count->text), SLICE_ARG(sum->text));
    else
        printf("%s%.*s", indent, SLICE_ARG(value->text));
    printf(" @%.*s\n", SLICE_ARG(point->items[0]->text));
}

static void print_series(const struct yaml_node *series)
{
    static const char *const lists[] = { "values", "histograms" };
    print_labels(get(series, "metric"));
    const struct yaml_node *value = get(series, "value");
    if (value == NULL)
        value = get(series, "histogram");
    if (value != NULL) {
        print_point(value, " ");
        return;
    }
    printf("\n");
    for (size_t i = 0; i < 2; i++) {
        const struct yaml_node *list = get(series, lists[i]);
        for (size_t k = 0; k < list_count(list); k++)
            print_point(list->items[k], "  ");
    }
}

static void print_notes(const struct yaml_node *root, const char *name)
{
    const struct yaml_node *list = get(root, name);
    for (size_t i = 0; i < list_count(list); i++)
        fprintf(stderr, "%s: %.*s\n", name, SLICE_ARG(list->items[i]->text));
}

/* Exit status. */
static int print_answer(struct slice body, struct pool *pool)
{
    struct yaml_node *root;
    struct err_at at = { 0 };
    if (yaml_parse(body, pool, &root, &at) != OK) {
        fprintf(stderr, "kelpie query: the answer is not JSON: %s\n", at.text);
        return 1;
    }
    const struct yaml_node *error = get(root, "error");
    if (error != NULL) {
        fprintf(stderr, "kelpie query: %.*s\n", SLICE_ARG(error->text));
        return 1;
    }
    const struct yaml_node *data = get(root, "data");
    const struct yaml_node *type = get(data, "resultType"), *result = get(data, "result");
    if (type == NULL || result == NULL || result->type != YAML_SEQUENCE) {
        fprintf(stderr, "kelpie query: the answer has no result\n");
        return 1;
    }
    if (slice_equal_str(type->text, "scalar") || slice_equal_str(type->text, "string"))
        print_point(result, "");
    else
        for (size_t i = 0; i < result->count; i++)
            print_series(result->items[i]);
    print_notes(root, "warnings");
    print_notes(root, "infos");
    const struct yaml_node *complete = get(get(root, "kelpie"), "complete");
    if (complete != NULL && slice_equal_str(complete->text, "false"))
        fprintf(stderr, "the answer is incomplete; --json shows what is missing\n");
    return 0;
}

/* Ask; the body of the answer is in the pool, be it a refusal. False: reported. */
static bool ask(const struct question *question, struct pool *pool, struct slice *out_body,
                bool *out_is_refusal)
{
    struct buf form = buf_open(pool, FORM_BYTES_MAX);
    bool is_range = question->step != NULL;
    unsigned status;
    put_param(&form, "query", question->expression);
    put_param(&form, is_range ? "start" : "time", is_range ? question->start : question->time);
    put_param(&form, "end", is_range ? question->end : NULL);
    put_param(&form, "step", question->step);
    put_param(&form, "partial", question->partial);
    put_param(&form, "proof", "true");
    if (buf_err(&form) != OK) {
        fprintf(stderr, "kelpie query: the question is too long\n");
        return false;
    }
    const struct ask_question asked = {
        .command = "query",
        .path = is_range ? "/api/v1/query_range" : "/api/v1/query",
        .form = buf_slice(&form),
        .tenant = question->tenant,
        .answer_bytes_max = ANSWER_BYTES_MAX,
        .timeout_ms = TIMEOUT_MS,
    };
    if (!ask_post(&question->whom, &asked, pool, &status, out_body))
        return false;
    bool is_envelope =
        slice_starts(*out_body, slice_str("{")); /* errors of the API are: print_answer shows them */
    if (status >= 400 && !is_envelope)
        fprintf(stderr, "kelpie query: %s: status %u: %.*s\n", question->whom.url, status,
                SLICE_ARG(*out_body));
    *out_is_refusal = status >= 400;
    return status < 400 || is_envelope;
}

static int run(const struct question *question)
{
    struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
    struct slice body;
    bool is_refusal;
    int status = 1;
    if (ask(question, pool, &body, &is_refusal)) {
        if (question->is_json) {
            fwrite(body.at, 1, body.len, stdout);
            printf("\n");
            status = is_refusal ? 1 : 0;
        } else {
            status = print_answer(body, pool);
        }
    }
    pool_close(pool);
    return status;
}

int command_query(int argc, char **argv)
{
    struct question question = { .whom = ASK_WHOM_DEFAULT };
    const struct option list[] = {
        { "--time", "TIME", "evaluate at this time: seconds or RFC 3339 (default: now)", &question.time,
          NULL },
        { "--start", "TIME", "with --end and --step: evaluate over a range", &question.start, NULL },
        { "--end", "TIME", "end of the range", &question.end, NULL },
        { "--step", "DURATION", "step of the range", &question.step, NULL },
        { "--tenant", "NAME", "whose data (default: default)", &question.tenant, NULL },
        { "--partial", "allow|deny", "take an incomplete answer (default) or refuse it", &question.partial,
          NULL },
        { "--json", NULL, "print the answer as it came", NULL, &question.is_json },
        ASK_OPTIONS(&question.whom),
    };
    const struct command self = { .name = "query",
                                  .operands = "EXPRESSION",
                                  .options = list,
                                  .summary = "Evaluate a PromQL expression on a running node.",
                                  .option_count = sizeof list / sizeof list[0],
                                  .operands_min = 1,
                                  .operands_max = 1 };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    if (question.step != NULL && (question.start == NULL || question.end == NULL)) {
        fprintf(stderr, "kelpie query: --step needs --start and --end\n");
        return 2;
    }
    if (question.step == NULL && (question.start != NULL || question.end != NULL)) {
        fprintf(stderr, "kelpie query: --start and --end need --step; one moment is --time\n");
        return 2;
    }
    question.expression = operands[0];
    return run(&question);
}
