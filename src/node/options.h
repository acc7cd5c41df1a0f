/* Command-line options: --name VALUE, --name=VALUE, --flag; the rest are operands. */
#ifndef NODE_OPTIONS_H
#define NODE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#define OPTIONS_OPERANDS_MAX 4 /* more than any command takes */

struct option {
    const char *name;       /* "--config" */
    const char *value_name; /* "FILE"; NULL = a flag */
    const char *help;
    const char **text; /* set for options with a value */
    bool *flag;        /* set for flags */
};

struct command {
    const char *name;     /* "config show" */
    const char *operands; /* "EXPR [TIME]" for the usage line; "" = none */
    const char *summary;  /* one sentence */
    const struct option *options;
    size_t option_count;
    size_t operands_min, operands_max; /* at most OPTIONS_OPERANDS_MAX */
};

/* Parse argv[0 … argc); operands that are not there are NULL. False: end with *out_status: help was asked for and
 * printed (0), or a mistake was reported on standard error (2). */
bool options_parse(const struct command *command, int argc, char **argv,
                   const char *operands[OPTIONS_OPERANDS_MAX], int *out_status);

/* The name of names[0 … count) that is most like text, or NULL when none is near. */
const char *options_nearest(const char *text, const char *const *names, size_t count);

#endif
