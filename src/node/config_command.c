/* kelpie config show: the configuration in force, defaults included. */
#include "node/commands.h"
#include "node/loaded.h"
#include "node/node.h"
#include "node/options.h"

#include <stdio.h>
#include <string.h>

/* The configuration in force with these options, as YAML, appended to out. */
static err print_config(const struct node_options *options, struct buf *out, struct err_at *at)
{
    struct io *cwd;
    struct loaded *loaded;
    TRY(io_open(".", &cwd));
    struct pool *pool = pool_open(NULL, "print", POOL_BYTES_UNLIMITED);
    err e = loaded_read(options, cwd, pool, &loaded, at);
    if (e == OK) {
        config_print(&loaded->config, out);
        loaded_free(loaded);
    }
    pool_close(pool);
    io_close(cwd);
    return e;
}

int command_config(int argc, char **argv)
{
    struct node_options options = { .data_directory = NODE_DATA_DEFAULT, .listen = NODE_LISTEN_DEFAULT };
    bool is_effective = false;
    const struct option list[] = {
        { "--config", "FILE", "configuration (YAML); without it defaults hold", &options.config_file, NULL },
        { "--effective", NULL,
          "with all defaults, each with whether a reload applies it (this is the default)", NULL,
          &is_effective },
    };
    const struct command self = { .name = "config",
                                  .operands = "show",
                                  .options = list,
                                  .summary = "Print every setting with its value in force.",
                                  .option_count = sizeof list / sizeof list[0],
                                  .operands_min = 1,
                                  .operands_max = 1 };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    if (strcmp(operands[0], "show") != 0) {
        fprintf(stderr, "kelpie config: unknown action %s; there is: show\n", operands[0]);
        return 2;
    }
    struct pool *pool = pool_open(NULL, "config", POOL_BYTES_UNLIMITED);
    struct buf out = buf_open(pool, CONFIG_BYTES_MAX);
    struct err_at at = { 0 };
    err e = print_config(&options, &out, &at);
    if (e == OK)
        fwrite(out.at, 1, out.len, stdout);
    else
        fprintf(stderr, "kelpie config: %s\n", at.text);
    buf_close(&out);
    pool_close(pool);
    return e == OK ? 0 : 1;
}
