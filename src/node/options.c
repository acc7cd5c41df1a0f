/* Parsing of command-line options. See options.h. */
#include "node/options.h"

#include "base/check.h"
#include "base/nearest.h"

#include <stdio.h>
#include <string.h>

#define NAME_BYTES_MAX 64
#define OPTIONS_MAX    64

const char *options_nearest(const char *text, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        size_t d = nearest_distance(slice_str(text), slice_str(names[i]));
        if (d < best_distance) {
            best = names[i];
            best_distance = d;
        }
    }
    return best;
}

static void print_help(const struct command *command)
{
    printf("usage: kelpie %s%s%s%s\n\n%s\n", command->name, command->option_count > 0 ? " [OPTION …]" : "",
           command->operands[0] != 0 ? " " : "", command->operands, command->summary);
    if (command->option_count > 0)
        printf("\noptions:\n");
    for (size_t i = 0; i < command->option_count; i++) {
        const struct option *option = &command->options[i];
        char left[NAME_BYTES_MAX];
        snprintf(left, sizeof left, "%s%s%s", option->name, option->value_name != NULL ? " " : "",
                 option->value_name != NULL ? option->value_name : "");
        printf("  %-30s %s\n", left, option->help);
    }
    printf("  %-30s %s\n", "--help", "print this and exit");
}

static const struct option *find(const struct command *command, const char *name, size_t len)
{
    for (size_t i = 0; i < command->option_count; i++)
        if (strlen(command->options[i].name) == len && memcmp(command->options[i].name, name, len) == 0)
            return &command->options[i];
    return NULL;
}

static int unknown(const struct command *command, const char *name, size_t len)
{
    const char *names[OPTIONS_MAX];
    char text[NAME_BYTES_MAX + 1];
    check(command->option_count < OPTIONS_MAX);
    for (size_t i = 0; i < command->option_count; i++)
        names[i] = command->options[i].name;
    names[command->option_count] = "--help";
    snprintf(text, sizeof text, "%.*s", (int)len, name);
    const char *near = options_nearest(text, names, command->option_count + 1);
    fprintf(stderr, "kelpie %s: unknown option %.*s%s%s%s; see kelpie %s --help\n", command->name, (int)len,
            name, near != NULL ? ", did you mean " : "", near != NULL ? near : "", near != NULL ? "?" : "",
            command->name);
    return 2;
}

/* One option at argv[*at]. */
static int take(const struct command *command, int argc, char **argv, int *at)
{
    const char *arg = argv[*at];
    size_t len = strcspn(arg, "=");
    const struct option *option = find(command, arg, len);
    if (option == NULL)
        return unknown(command, arg, len);
    if (option->flag != NULL) {
        if (arg[len] == '=') {
            fprintf(stderr, "kelpie %s: %s takes no value\n", command->name, option->name);
            return 2;
        }
        *option->flag = true;
        return 0;
    }
    if (arg[len] == '=') {
        *option->text = arg + len + 1;
    } else if (*at + 1 < argc) {
        *option->text = argv[++*at];
    } else {
        fprintf(stderr, "kelpie %s: %s needs a value (%s)\n", command->name, option->name,
                option->value_name);
        return 2;
    }
    return 0;
}

/* As options_parse returns; -1: go on. */
static int parse(const struct command *command, int argc, char **argv,
                 const char *operands[OPTIONS_OPERANDS_MAX])
{
    size_t count = 0;
    bool only_operands = false;
    for (int i = 0; i < argc; i++) {
        if (only_operands || argv[i][0] != '-' || argv[i][1] == 0) {
            if (count == command->operands_max) {
                fprintf(stderr, "kelpie %s: unexpected \"%s\"; see kelpie %s --help\n", command->name,
                        argv[i], command->name);
                return 2;
            }
            operands[count++] = argv[i];
        } else if (strcmp(argv[i], "--") == 0) {
            only_operands = true;
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(command);
            return 0;
        } else {
            int failed = take(command, argc, argv, &i);
            if (failed != 0)
                return failed;
        }
    }
    if (count < command->operands_min) {
        fprintf(stderr, "kelpie %s: %s is missing; see kelpie %s --help\n", command->name, command->operands,
                command->name);
        return 2;
    }
    return -1;
}

bool options_parse(const struct command *command, int argc, char **argv,
                   const char *operands[OPTIONS_OPERANDS_MAX], int *out_status)
{
    check(command->operands_max <= OPTIONS_OPERANDS_MAX);
    for (size_t i = 0; i < OPTIONS_OPERANDS_MAX; i++)
        operands[i] = NULL;
    int status = parse(command, argc, argv, operands);
    if (status >= 0)
        *out_status = status;
    return status < 0;
}
