/* kelpie cluster: show the cluster that a node is in, and order what people decide. Over HTTP, at any of its
 * nodes; the answer's JSON is read with the YAML parser, of which JSON is a subset. */
#include "node/ask.h"
#include "node/commands.h"
#include "node/options.h"

#include <stdio.h>
#include <string.h>

#define ANSWER_BYTES_MAX (16u << 20)
#define FORM_BYTES_MAX   4096
#define TIMEOUT_MS       15000

struct order {
    struct ask_whom whom;
    const char *action, *node, *zone, *owner, *reason, *duration;
    bool is_dry, is_json;
};

static bool is_true(const struct yaml_node *map, const char *key)
{
    return slice_equal_str(ask_text(map, key), "true");
}

static void print_node(const struct yaml_node *node)
{
    char notes[100];
    snprintf(notes, sizeof notes, "%s%s%s%s", is_true(node, "silent") ? " silent" : "",
             is_true(node, "suspected") ? " suspected" : "", is_true(node, "draining") ? " draining" : "",
             is_true(node, "leaving") ? " leaving" : "");
    printf("%-20.*s %-12.*s %-24.*s %-8.*s %8.*s %8.*s %s\n", SLICE_ARG(ask_text(node, "name")),
           SLICE_ARG(ask_text(node, "zone")), SLICE_ARG(ask_text(node, "address")),
           SLICE_ARG(ask_text(node, "status")), SLICE_ARG(ask_text(node, "assigned")),
           SLICE_ARG(ask_text(node, "owned")), notes);
}

static void print_cluster(const struct yaml_node *data)
{
    const struct yaml_node *nodes = ask_list(data, "nodes"), *r = ask_find(data, "redundancy");
    printf("cluster %.*s: %.*s partitions × %.*s replicas, epoch %.*s\n",
           SLICE_ARG(ask_text(data, "clusterId")), SLICE_ARG(ask_text(data, "partitions")),
           SLICE_ARG(ask_text(data, "replicas")), SLICE_ARG(ask_text(data, "epoch")));
    printf("live owners of the partition with the fewest: %.*s; partitions without an owner: %.*s, with too "
           "few: %.*s\n\n",
           SLICE_ARG(ask_text(r, "ownersMin")), SLICE_ARG(ask_text(r, "unowned")),
           SLICE_ARG(ask_text(r, "lacking")));
    printf("%-20s %-12s %-24s %-8s %8s %8s\n", "name", "zone", "address", "status", "assigned", "owned");
    for (size_t i = 0; nodes != NULL && i < nodes->count; i++)
        print_node(nodes->items[i]);
}

static void print_preview(const struct yaml_node *data)
{
    const struct yaml_node *nodes = ask_list(data, "nodes");
    printf("%.*s would move %.*s replicas; the partition with the fewest would have %.*s\n\n",
           SLICE_ARG(ask_text(data, "action")), SLICE_ARG(ask_text(data, "moved")),
           SLICE_ARG(ask_text(data, "replicasMin")));
    printf("%-20s %10s %8s %8s\n", "name", "partitions", "gained", "lost");
    for (size_t i = 0; nodes != NULL && i < nodes->count; i++) {
        const struct yaml_node *node = nodes->items[i];
        struct slice name = is_true(node, "isNew") ? slice_str("(the new node)") : ask_text(node, "name");
        printf("%-20.*s %10.*s %8.*s %8.*s\n", SLICE_ARG(name), SLICE_ARG(ask_text(node, "partitions")),
               SLICE_ARG(ask_text(node, "gained")), SLICE_ARG(ask_text(node, "lost")));
    }
}

/* Exit status: 1 for no. */
static int print_may_stop(const struct order *order, const struct yaml_node *data)
{
    bool may_stop = is_true(data, "mayStop");
    printf("%s %s be stopped: partitions with too few live owners now: %.*s, without an owner then: %.*s\n",
           order->node, may_stop ? "may" : "must not", SLICE_ARG(ask_text(data, "lacking")),
           SLICE_ARG(ask_text(data, "unownedWithout")));
    return may_stop ? 0 : 1;
}

/* Exit status. */
static int print_answer(const struct order *order, struct slice body, struct pool *pool)
{
    const struct yaml_node *data = ask_data("cluster", body, pool);
    if (data == NULL)
        return 1;
    if (order->action == NULL)
        print_cluster(data);
    else if (order->is_dry)
        print_preview(data);
    else if (strcmp(order->action, "may-stop") == 0)
        return print_may_stop(order, data);
    else
        printf("%s %s: decided; kelpie cluster shows how far it is\n", order->action, order->node);
    return 0;
}

static void put_text(const char *name, const char *value, struct buf *form)
{
    buf_printf(form, "%s%s=", form->len > 0 ? "&" : "", name);
    for (const unsigned char *c = (const unsigned char *)value; *c != 0; c++)
        buf_printf(form, "%%%02X", *c);
}

static bool put_form(const struct order *order, struct buf *form)
{
    const struct {
        const char *name, *value;
        bool is_text; /* not a name */
    } params[] = {
        { "node", order->node, false },         { "zone", order->zone, false },
        { "duration", order->duration, false }, { "owner", order->owner, true },
        { "reason", order->reason, true },      { "dry_run", order->is_dry ? "true" : NULL, false }
    };
    for (size_t i = 0; i < sizeof params / sizeof params[0]; i++) {
        const char *value = params[i].value;
        if (value == NULL)
            continue;
        if (params[i].is_text) {
            put_text(params[i].name, value, form);
            continue;
        }
        if (strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") !=
            strlen(value)) {
            fprintf(stderr, "kelpie cluster: %s \"%s\" is no name: letters, digits, '-', '_' and '.'\n",
                    params[i].name, value);
            return false;
        }
        buf_printf(form, "%s%s=%s", form->len > 0 ? "&" : "", params[i].name, value);
    }
    return true;
}

static int run(const struct order *order)
{
    struct pool *pool = pool_open(NULL, "cluster", POOL_BYTES_UNLIMITED);
    struct buf form = buf_open(pool, FORM_BYTES_MAX);
    struct slice body;
    unsigned status;
    int result = 1;
    char path[100];
    snprintf(path, sizeof path, "/api/v1/admin/cluster%s%.40s", order->action != NULL ? "/" : "",
             order->action != NULL ? order->action : "");
    if (put_form(order, &form)) {
        const struct ask_question asked = { .command = "cluster",
                                            .path = path,
                                            .form = buf_slice(&form),
                                            .answer_bytes_max = ANSWER_BYTES_MAX,
                                            .timeout_ms = TIMEOUT_MS };
        if (ask_post(&order->whom, &asked, pool, &status, &body)) {
            result = status >= 400;
            if (order->is_json)
                printf("%.*s\n", SLICE_ARG(body));
            else
                result = print_answer(order, body, pool);
        }
    }
    pool_close(pool);
    return result;
}

int command_cluster(int argc, char **argv)
{
    if (argc > 0 && strcmp(argv[0], "restore") == 0)
        return command_cluster_restore(argc - 1, argv + 1);
    if (argc > 0 && strcmp(argv[0], "clone") == 0)
        return command_cluster_clone(argc - 1, argv + 1);
    if (argc > 0 && strcmp(argv[0], "adopt") == 0)
        return command_cluster_adopt(argc - 1, argv + 1);
    struct order order = { .whom = ASK_WHOM_DEFAULT };
    const struct option list[] = {
        { "--dry-run", NULL, "only print what would move", NULL, &order.is_dry },
        { "--for", "DURATION", "of a suspension, as 2h", &order.duration, NULL },
        { "--owner", "TEXT", "of a suspension: who answers for it", &order.owner, NULL },
        { "--reason", "TEXT", "of a suspension", &order.reason, NULL },
        { "--zone", "NAME", "of the new node, for replace", &order.zone, NULL },
        { "--json", NULL, "print the answer as it came", NULL, &order.is_json },
        ASK_OPTIONS(&order.whom),
    };
    const struct command self = {
        .name = "cluster",
        .operands =
            "[drain|undrain|remove|replace|may-stop NODE | add ZONE | rebalance | suspend|resume AUTOMATION]",
        .options = list,
        .summary =
            "Show the cluster that a node is in; or drain a node (others are to hold what it holds), "
            "undrain it, remove\n"
            "it for good; or, with --dry-run, what replacing or adding one would move. may-stop exits "
            "with 0 if\n"
            "no partition would be without an owner and all have caught up. Automations (placement, "
            "eviction,\n"
            "repair) are suspended for a while, by somebody, for a reason.\n"
            "Of a cluster whose nodes do not run: kelpie cluster restore --help. A copy of one whose "
            "nodes do:\n"
            "kelpie cluster clone --help. What a single node has stored, taken in: kelpie cluster adopt "
            "--help.",
        .option_count = sizeof list / sizeof list[0],
        .operands_max = 2,
    };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    order.action = operands[0];
    order.node = operands[1];
    bool is_alone = order.action != NULL && strcmp(order.action, "rebalance") == 0;
    if (order.action != NULL && !is_alone && order.node == NULL) {
        fprintf(
            stderr,
            "kelpie cluster: %s needs the name of a node, zone or automation; see kelpie cluster --help\n",
            order.action);
        return 2;
    }
    return run(&order);
}
