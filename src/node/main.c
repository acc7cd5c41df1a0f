/* kelpie: the command line. The first word chooses the command; each has a file of its own. */
#include "node/commands.h"
#include "node/options.h"

#include <stdio.h>
#include <string.h>

static int command_version(int argc, char **argv)
{
    static const struct command self = { .name = "version", .operands = "", .summary = "Print the version." };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    printf("kelpie %s\n", KELPIE_VERSION);
    return 0;
}

struct entry {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
};

static const struct entry entries[] = {
    { "serve", command_serve, "run a node" },
    { "config", command_config, "show the configuration in force" },
    { "cluster", command_cluster,
      "show the cluster that a running node is in, drain or remove nodes; restore or clone one" },
    { "health", command_health, "tell what is not well with a running node and its cluster" },
    { "query", command_query, "ask a running node" },
    { "export", command_export, "print the rows of a data directory whose node does not run" },
    { "verify", command_verify,
      "read and check all of a data directory, or (--cluster) compare replicas; changes nothing" },
    { "fsck", command_fsck, "verify, then set aside what is damaged, so that a node can start" },
    { "snapshot", command_snapshot, "take a consistent copy of a running node's data" },
    { "retention", command_retention, "confirm a large step of a running node's retention" },
    { "restore", command_restore, "make a data directory from a snapshot" },
    { "version", command_version, "print the version" },
};

#define ENTRY_COUNT (sizeof entries / sizeof entries[0])

static void print_usage(FILE *to)
{
    fprintf(to,
            "usage: kelpie COMMAND [OPTION …]\n\nKelpie stores telemetry and answers questions about it.\n\n"
            "commands:\n");
    for (size_t i = 0; i < ENTRY_COUNT; i++)
        fprintf(to, "  %-10s %s\n", entries[i].name, entries[i].summary);
    fprintf(to, "\nkelpie COMMAND --help tells more.\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0)
        return command_version(0, argv);
    const char *names[ENTRY_COUNT];
    for (size_t i = 0; i < ENTRY_COUNT; i++) {
        if (strcmp(argv[1], entries[i].name) == 0)
            return entries[i].run(argc - 2, argv + 2);
        names[i] = entries[i].name;
    }
    const char *near = options_nearest(argv[1], names, ENTRY_COUNT);
    fprintf(stderr, "kelpie: unknown command %s%s%s%s; see kelpie --help\n", argv[1],
            near != NULL ? ", did you mean " : "", near != NULL ? near : "", near != NULL ? "?" : "");
    return 2;
}
