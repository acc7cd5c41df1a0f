/* kelpie query: ask a running node over HTTP and print the answer as text.
 *
 * The answer's JSON is read with the YAML parser, of which JSON is a subset. One line a series for an instant
 * query; for a range query a line with the labels, then one a point. What is missing from the answer goes to
 * standard error, and the exit status is 1 then only with --partial deny (the server refuses). */
#include "io/io.h"
#include "model/yaml.h"
#include "net/client.h"
#include "node/commands.h"
#include "node/options.h"

#include <stdio.h>
#include <string.h>

#define ANSWER_BYTES_MAX (256u << 20)
#define TIMEOUT_MS       (5 * 60 * 1000)

struct question {
    const char *url;
    const char *expression;
    const char *time, *start, *end, *step;
    const char *tenant;
    const char *user, *password;
    const char *ca_file;
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

static struct yaml_node *get(struct yaml_node *map, const char *key)
{
    return map != NULL && map->type == YAML_MAP ? yaml_get(map, key) : NULL;
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
    if (point == NULL || point->type != YAML_SEQUENCE || point->count != 2)
        return;
    struct yaml_node *value = point->items[1];
    struct yaml_node *count = get(value, "count"), *sum = get(value, "sum");
    if (count != NULL && sum != NULL)
        printf("%scount:%.*s sum:%.*s", indent, SLICE_ARG(count->text), SLICE_ARG(sum->text));
    else
        printf("%s%.*s", indent, SLICE_ARG(value->text));
    printf(" @%.*s\n", SLICE_ARG(point->items[0]->text));
}

static void print_series(struct yaml_node *series)
{
    static const char *const lists[] = { "values", "histograms" };
    print_labels(get(series, "metric"));
    struct yaml_node *value = get(series, "value");
    if (value == NULL)
        value = get(series, "histogram");
    if (value != NULL) {
        print_point(value, " ");
        return;
    }
    printf("\n");
    for (size_t i = 0; i < 2; i++) {
        struct yaml_node *list = get(series, lists[i]);
        for (size_t k = 0; list != NULL && k < list->count; k++)
            print_point(list->items[k], "  ");
    }
}

static void print_notes(struct yaml_node *root, const char *name)
{
    struct yaml_node *list = get(root, name);
    for (size_t i = 0; list != NULL && list->type == YAML_SEQUENCE && i < list->count; i++)
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
    struct yaml_node *error = get(root, "error");
    if (error != NULL) {
        fprintf(stderr, "kelpie query: %.*s\n", SLICE_ARG(error->text));
        return 1;
    }
    struct yaml_node *data = get(root, "data");
    struct yaml_node *type = get(data, "resultType"), *result = get(data, "result");
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
    struct yaml_node *complete = get(get(root, "kelpie"), "complete");
    if (complete != NULL && slice_equal_str(complete->text, "false"))
        fprintf(stderr, "the answer is incomplete; --json shows what is missing\n");
    return 0;
}

/* Ask; the body of the answer is in *body. False: reported. */
static bool ask(const struct question *question, struct io *io, struct pool *pool, struct buf *body)
{
    struct buf form = buf_open(pool, 1u << 20), url = buf_open(pool, NET_CLIENT_URL_BYTES_MAX);
    struct buf tenant = buf_open(pool, 4096);
    struct net_client *client;
    struct net_client_response response;
    struct err_at at = { 0 };
    bool is_range = question->step != NULL;
    put_param(&form, "query", question->expression);
    put_param(&form, is_range ? "start" : "time", is_range ? question->start : question->time);
    put_param(&form, "end", is_range ? question->end : NULL);
    put_param(&form, "step", question->step);
    put_param(&form, "partial", question->partial);
    put_param(&form, "proof", "true");
    buf_printf(&url, "%s/api/v1/%s%c", question->url, is_range ? "query_range" : "query", 0);
    buf_printf(&tenant, "X-Scope-OrgID: %s%c", question->tenant != NULL ? question->tenant : "default", 0);
    const char *headers[] = { (const char *)tenant.at, "Content-Type: application/x-www-form-urlencoded" };
    struct net_client_request request = {
        .url = (const char *)url.at,
        .method = "POST",
        .headers = headers,
        .header_count = 2,
        .body = buf_slice(&form),
        .user = question->user,
        .password = question->password,
        .tls = { .ca_file = question->ca_file },
        .accept_gzip = true,
        .timeout_ms = TIMEOUT_MS,
        .encoded_bytes_max = ANSWER_BYTES_MAX,
    };
    if (buf_err(&form) != OK || buf_err(&url) != OK || buf_err(&tenant) != OK) {
        fprintf(stderr, "kelpie query: the question is too long\n");
        return false;
    }
    err e = net_client_open(io, pool, &client);
    if (e == OK) {
        e = net_client_do(client, &request, body, &response, &at);
        net_client_close(client);
    }
    buf_close(&form);
    buf_close(&url);
    buf_close(&tenant);
    if (e != OK) {
        fprintf(stderr, "kelpie query: %s: %s\n", question->url, at.text[0] != 0 ? at.text : err_text(e));
        return false;
    }
    bool is_envelope =
        body->len > 0 && body->at[0] == '{'; /* errors of the API are: print_answer shows them */
    if (response.status >= 400 && !is_envelope)
        fprintf(stderr, "kelpie query: %s: status %u: %.*s\n", question->url, response.status,
                SLICE_ARG(buf_slice(body)));
    return response.status < 400 || is_envelope;
}

static int run(const struct question *question)
{
    struct io *io;
    if (io_open(".", &io) != OK) {
        fprintf(stderr, "kelpie query: cannot open the working directory\n");
        return 1;
    }
    struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
    struct buf body = buf_open(pool, ANSWER_BYTES_MAX);
    int status = 1;
    if (ask(question, io, pool, &body)) {
        if (question->is_json) {
            fwrite(body.at, 1, body.len, stdout);
            printf("\n");
            status = 0;
        } else {
            status = print_answer(buf_slice(&body), pool);
        }
    }
    buf_close(&body);
    pool_close(pool);
    io_close(io);
    return status;
}

int command_query(int argc, char **argv)
{
    struct question question = { .url = "http://127.0.0.1:9428" };
    const struct option list[] = {
        { "--url", "URL", "of the node (default: http://127.0.0.1:9428)", &question.url, NULL },
        { "--time", "TIME", "evaluate at this time: seconds or RFC 3339 (default: now)", &question.time,
          NULL },
        { "--start", "TIME", "with --end and --step: evaluate over a range", &question.start, NULL },
        { "--end", "TIME", "end of the range", &question.end, NULL },
        { "--step", "DURATION", "step of the range", &question.step, NULL },
        { "--tenant", "NAME", "whose data (default: default)", &question.tenant, NULL },
        { "--user", "NAME", "for basic authentication", &question.user, NULL },
        { "--password", "TEXT", "for basic authentication", &question.password, NULL },
        { "--ca-file", "FILE", "certificate authority of the node", &question.ca_file, NULL },
        { "--partial", "allow|deny", "take an incomplete answer (default) or refuse it", &question.partial,
          NULL },
        { "--json", NULL, "print the answer as it came", NULL, &question.is_json },
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
