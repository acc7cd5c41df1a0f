/* kelpie verify --cluster: do all owners of each partition of a running cluster agree, and has the bucket what
 * their chains name? One node is asked, partition by partition; it asks the others. Changes nothing.
 *
 * Invariant: the status is 0 only if every partition was found equal once, after the command began, and every
 * object was looked at. */
#include "io/io.h"
#include "node/ask.h"
#include "node/commands.h"
#include "node/options.h"

#include "base/time.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_BYTES_MAX (16u << 20)
#define TIMEOUT_MS       60000
#define WAIT_SECONDS     "60"
#define AGAIN_NS         (500 * NS_PER_MS)
#define PARTITION_MAX    65536
#define REPORT_BYTES_MAX 1024

struct verify {
    struct ask_whom whom;
    const char *timeout;
    bool is_cluster, is_quick;
    struct io *io;
    int64_t end_ns; /* partitions that cannot be compared are tried again until then */
    uint64_t objects, object_bytes, equal, unequal, unsure, wrong, lacking;
    uint64_t replica_count; /* that each partition is to have */
};

static uint64_t number_of(const struct yaml_node *map, const char *key)
{
    struct slice text = ask_text(map, key);
    uint64_t number = 0;
    for (size_t i = 0; i < text.len && text.at[i] >= '0' && text.at[i] <= '9'; i++)
        number = number * 10 + (uint64_t)(text.at[i] - '0');
    return number;
}

/* ---- asking ---- */

/* `data` of the answer, in pool. False: there is none, which was reported. */
static bool ask(const struct verify *verify, const char *path, const char *form, struct pool *pool,
                const struct yaml_node **out_data)
{
    const struct ask_question asked = { .command = "verify",
                                        .path = path,
                                        .form = slice_str(form),
                                        .answer_bytes_max = ANSWER_BYTES_MAX,
                                        .timeout_ms = TIMEOUT_MS };
    struct slice body;
    unsigned status;
    if (!ask_post(&verify->whom, &asked, pool, &status, &body))
        return false;
    *out_data = ask_data("verify", body, pool);
    return *out_data != NULL;
}

static bool ask_partition(const struct verify *verify, uint64_t partition, uint64_t first, struct pool *pool,
                          const struct yaml_node **out_data)
{
    char form[100];
    snprintf(form, sizeof form, "partition=%llu&first=%llu%s", (unsigned long long)partition,
             (unsigned long long)first, verify->is_quick ? "&quick=true" : "");
    return ask(verify, "/api/v1/admin/cluster/verify", form, pool, out_data);
}

/* ---- telling ---- */

static void print_replicas(const struct yaml_node *data)
{
    const struct yaml_node *replicas = ask_list(data, "replicas");
    for (size_t i = 0; replicas != NULL && i < replicas->count; i++) {
        const struct yaml_node *r = replicas->items[i];
        if (ask_find(r, "error") != NULL)
            printf("    %.*s: %.*s\n", SLICE_ARG(ask_text(r, "node")), SLICE_ARG(ask_text(r, "error")));
        else if (ask_find(r, "applied") == NULL)
            printf("    %.*s: it is not open there\n", SLICE_ARG(ask_text(r, "node")));
        else
            printf("    %.*s: generation %.*s, applied up to %.*s, chain up to %.*s, %.*s segments\n",
                   SLICE_ARG(ask_text(r, "node")), SLICE_ARG(ask_text(r, "generation")),
                   SLICE_ARG(ask_text(r, "applied")), SLICE_ARG(ask_text(r, "chain")),
                   SLICE_ARG(ask_text(r, "segments")));
    }
}

static void print_difference(const struct yaml_node *data)
{
    const struct yaml_node *d = ask_find(data, "difference"), *a = ask_find(d, "a"), *b = ask_find(d, "b");
    printf("partition %.*s: replicas differ: %.*s\n", SLICE_ARG(ask_text(data, "partition")),
           SLICE_ARG(ask_text(data, "why")));
    if (ask_find(d, "from") != NULL)
        printf("    offsets %.*s to %.*s of generation %.*s\n", SLICE_ARG(ask_text(d, "from")),
               SLICE_ARG(ask_text(d, "to")), SLICE_ARG(ask_text(d, "generation")));
    printf("    %.*s: %.*s rows, SUM %.*s\n    %.*s: %.*s rows, SUM %.*s\n", SLICE_ARG(ask_text(d, "nodeA")),
           SLICE_ARG(ask_text(a, "rows")), SLICE_ARG(ask_text(a, "sum")), SLICE_ARG(ask_text(d, "nodeB")),
           SLICE_ARG(ask_text(b, "rows")), SLICE_ARG(ask_text(b, "sum")));
    print_replicas(data);
}

static void print_wrong(const struct yaml_node *data)
{
    const struct yaml_node *wrong = ask_list(data, "wrong");
    for (size_t i = 0; wrong != NULL && i < wrong->count; i++) {
        const struct yaml_node *w = wrong->items[i];
        printf("partition %.*s: %.*s: %.*s\n    %.*s rows, offsets %.*s to %.*s of generation %.*s\n",
               SLICE_ARG(ask_text(data, "partition")), SLICE_ARG(ask_text(w, "object")),
               SLICE_ARG(ask_text(w, "what")), SLICE_ARG(ask_text(w, "rows")), SLICE_ARG(ask_text(w, "from")),
               SLICE_ARG(ask_text(w, "to")), SLICE_ARG(ask_text(w, "generation")));
    }
}

static void print_unsure(const struct yaml_node *data)
{
    printf("partition %.*s: not comparable yet: %.*s\n", SLICE_ARG(ask_text(data, "partition")),
           SLICE_ARG(ask_text(data, "why")));
    print_replicas(data);
}

/* ---- one partition ---- */

static void count_replicas(struct verify *verify, const struct yaml_node *data)
{
    const struct yaml_node *replicas = ask_list(data, "replicas");
    struct slice verdict = ask_text(data, "verdict");
    bool is_equal = slice_equal_str(verdict, "equal"), differs = slice_equal_str(verdict, "differ");
    verify->equal += is_equal;
    verify->unequal += differs;
    verify->unsure += !is_equal && !differs;
    verify->lacking += (replicas != NULL ? replicas->count : 0) < verify->replica_count;
    if (differs)
        print_difference(data);
    else if (!is_equal)
        print_unsure(data);
}

static void count_objects(struct verify *verify, const struct yaml_node *data)
{
    const struct yaml_node *wrong = ask_list(data, "wrong");
    verify->objects += number_of(data, "objects");
    verify->object_bytes += number_of(data, "objectBytes");
    verify->wrong += wrong != NULL ? wrong->count : 0;
    print_wrong(data);
}

/* The objects behind the first page. */
static bool check_objects(struct verify *verify, uint64_t partition, uint64_t first)
{
    bool is_answered = true;
    while (first != 0 && is_answered) {
        const struct yaml_node *data;
        struct pool *pool = pool_open(NULL, "objects", POOL_BYTES_UNLIMITED);
        is_answered = ask_partition(verify, partition, first, pool, &data);
        if (is_answered) {
            count_objects(verify, data);
            first = number_of(data, "next");
        }
        pool_close(pool);
    }
    return is_answered;
}

/* Ask until the replicas can be compared, or the time is over. False: no answer. */
static bool check_partition(struct verify *verify, uint64_t partition)
{
    for (;;) {
        const struct yaml_node *data;
        struct pool *pool = pool_open(NULL, "partition", POOL_BYTES_UNLIMITED);
        bool is_answered = ask_partition(verify, partition, 0, pool, &data);
        bool is_unsure = is_answered && slice_equal_str(ask_text(data, "verdict"), "not comparable yet");
        bool is_over = !is_unsure || io_monotonic_ns(verify->io) >= verify->end_ns;
        uint64_t next = 0;
        if (is_over && is_answered) {
            count_replicas(verify, data);
            count_objects(verify, data);
            next = number_of(data, "next");
        }
        pool_close(pool);
        if (is_over)
            return is_answered && check_objects(verify, partition, next);
        io_sleep_ns(verify->io, AGAIN_NS);
    }
}

/* ---- all of them ---- */

/* Exit status. */
static int run(struct verify *verify)
{
    struct pool *pool = pool_open(NULL, "verify", POOL_BYTES_UNLIMITED);
    const struct yaml_node *cluster;
    bool is_answered = ask(verify, "/api/v1/admin/cluster", "", pool, &cluster);
    uint64_t partitions = is_answered ? number_of(cluster, "partitions") : 0;
    verify->replica_count = is_answered ? number_of(cluster, "replicas") : 0;
    for (uint64_t p = 0; p < partitions && p < PARTITION_MAX && is_answered; p++)
        is_answered = check_partition(verify, p);
    pool_close(pool);
    if (!is_answered)
        return 1;
    printf(
        "%llu partitions: %llu equal, %llu differ, %llu not comparable; %llu objects looked at (%llu bytes "
        "read), %llu wrong\n",
        (unsigned long long)partitions, (unsigned long long)verify->equal,
        (unsigned long long)verify->unequal, (unsigned long long)verify->unsure,
        (unsigned long long)verify->objects, (unsigned long long)verify->object_bytes,
        (unsigned long long)verify->wrong);
    if (verify->lacking > 0)
        printf("%llu partitions have fewer owners than the cluster has replicas: kelpie cluster shows why\n",
               (unsigned long long)verify->lacking);
    return partitions > 0 && verify->equal == partitions && verify->wrong == 0 ? 0 : 1;
}

int command_verify_cluster(int argc, char **argv)
{
    struct verify verify = { .whom = ASK_WHOM_DEFAULT, .timeout = WAIT_SECONDS };
    const struct option list[] = {
        { "--cluster", NULL, "of a running cluster", NULL, &verify.is_cluster },
        { "--quick", NULL, "look at the sizes of objects, do not read them", NULL, &verify.is_quick },
        { "--timeout", "SECONDS", "for replicas that cannot be compared at once (default: " WAIT_SECONDS ")",
          &verify.timeout, NULL },
        ASK_OPTIONS(&verify.whom),
    };
    const struct command self = {
        .name = "verify",
        .operands = "",
        .options = list,
        .option_count = sizeof list / sizeof list[0],
        .summary =
            "Ask a node of a running cluster whether all owners of each partition hold the same rows, and\n"
            "read every segment that their chains name in the bucket. Changes nothing. Exit status 0: all\n"
            "agree and every object is right; 1: some differ, could not be compared in time, or an object\n"
            "is missing or wrong, each told; or no answer.",
    };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    char *end;
    unsigned long seconds = strtoul(verify.timeout, &end, 10);
    if (end == verify.timeout || *end != 0 || seconds > 86400) {
        fprintf(stderr, "kelpie verify: --timeout takes seconds, at most 86400\n");
        return 2;
    }
    err e = io_open(".", &verify.io);
    if (e != OK) {
        fprintf(stderr, "kelpie verify: cannot open the working directory: %s\n", err_text(e));
        return 1;
    }
    verify.end_ns = io_monotonic_ns(verify.io) + (int64_t)seconds * NS_PER_SECOND;
    status = run(&verify);
    io_close(verify.io);
    return status;
}
