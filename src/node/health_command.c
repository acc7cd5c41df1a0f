/* kelpie health: what a running node finds not well, a line each. Over HTTP; the answer's JSON is read with
 * the YAML parser, of which JSON is a subset. */
#include "node/ask.h"
#include "node/commands.h"
#include "node/options.h"

#include <stdio.h>

#define ANSWER_BYTES_MAX (1u << 20)
#define TIMEOUT_MS       15000

/* Exit status. */
static int print_health(struct slice body, struct pool *pool)
{
    const struct yaml_node *data = ask_data("health", body, pool), *findings = ask_list(data, "findings");
    if (data != NULL && findings == NULL)
        fprintf(stderr, "kelpie health: the answer has no findings\n");
    if (findings == NULL)
        return 2;
    printf("%.*s\n", SLICE_ARG(ask_text(data, "state")));
    for (size_t i = 0; i < findings->count; i++)
        printf("%-8.*s %-12.*s %.*s\n", SLICE_ARG(ask_text(findings->items[i], "level")),
               SLICE_ARG(ask_text(findings->items[i], "what")),
               SLICE_ARG(ask_text(findings->items[i], "text")));
    return slice_equal_str(ask_text(data, "state"), "well") ? 0 : 1;
}

int command_health(int argc, char **argv)
{
    struct ask_whom whom = ASK_WHOM_DEFAULT;
    bool is_json = false;
    const struct option list[] = {
        { "--json", NULL, "print the answer as it came", NULL, &is_json },
        ASK_OPTIONS(&whom),
    };
    const struct command self = {
        .name = "health",
        .options = list,
        .summary = "Tell what is not well with a running node and its cluster, a line each.\n"
                   "Exit status: 0 all is well, 1 something is not, 2 it is not known.",
        .option_count = sizeof list / sizeof list[0]
    };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int result;
    if (!options_parse(&self, argc, argv, operands, &result))
        return result;
    struct pool *pool = pool_open(NULL, "health", POOL_BYTES_UNLIMITED);
    struct slice body;
    unsigned status;
    const struct ask_question asked = { .command = "health",
                                        .path = "/api/v1/admin/health",
                                        .answer_bytes_max = ANSWER_BYTES_MAX,
                                        .timeout_ms = TIMEOUT_MS };
    result = 2;
    if (ask_post(&whom, &asked, pool, &status, &body)) {
        if (is_json)
            printf("%.*s\n", SLICE_ARG(body));
        else
            result = print_health(body, pool);
        if (is_json)
            result = status >= 400 ? 2 : 0;
    }
    pool_close(pool);
    return result;
}
