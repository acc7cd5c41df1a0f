/* kelpie serve: run a node until SIGTERM or SIGINT; SIGHUP reloads.
 *
 * Signals are blocked in every thread and taken one by one by this one, which also does the housekeeping, so
 * that no code runs in a signal handler. A second SIGTERM or SIGINT ends the process at once: nothing that
 * was acknowledged can be lost by that. For the same reason the first one does, while the storage is still being
 * opened, which may take long; a thread of its own takes it then. Once the node is open it serves, and a signal
 * that this thread still gets is kept for the one that closes the node. */
#include "io/io.h"
#include "io/thread.h"
#include "node/commands.h"
#include "node/node.h"
#include "node/options.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define STEP_SECONDS 1
#define WATCH_NS     (20 * 1000 * 1000)

static void block_signals(sigset_t *out_set)
{
    sigemptyset(out_set);
    sigaddset(out_set, SIGTERM);
    sigaddset(out_set, SIGINT);
    sigaddset(out_set, SIGHUP);
    sigprocmask(SIG_BLOCK, out_set, NULL); /* threads started later inherit it */
    signal(SIGPIPE, SIG_IGN);              /* a client that left is an error of its connection */
}

#define UNWANTED_STATUS 3 /* the cluster does not want it: a supervisor is not to start it again */

/* Until a signal that ends the node, or it has to end for a reason of its own. Returns the exit status. */
static int run(struct node *node, const sigset_t *signals)
{
    for (;;) {
        enum core_end end;
        node_step(node);
        if (node_has_ended(node, &end))
            return end == CORE_UNWANTED ? UNWANTED_STATUS : 1;
        struct timespec second = { .tv_sec = STEP_SECONDS };
        int got = sigtimedwait(signals, NULL, &second);
        if (got == SIGTERM || got == SIGINT)
            return 0;
        if (got == SIGHUP)
            ERR_IGNORE(node_reload(node, NULL)); /* it reports itself; the old configuration goes on */
    }
}

struct watch {
    _Atomic bool is_opened; /* node_open has returned */
    bool was_ended;         /* by a signal after that; written by the watcher, read when it has ended */
};

static void watch(void *context)
{
    struct watch *self = context;
    sigset_t ending;
    struct timespec wait = { .tv_nsec = WATCH_NS };
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    while (!atomic_load(&self->is_opened) && !self->was_ended)
        self->was_ended = sigtimedwait(&ending, NULL, &wait) > 0;
    if (self->was_ended && !atomic_load(&self->is_opened)) {
        fprintf(stderr,
                "kelpie serve: stopped while the storage was opening; nothing acknowledged is lost\n");
        _Exit(0);
    }
}

/* node_open, ended by SIGTERM and SIGINT. Without a thread they wait until it is done. *out_was_ended: one came
 * when it was. */
static err open_node(const struct node_options *options, struct node **out_node, bool *out_was_ended,
                     struct err_at *at)
{
    struct watch self = { 0 };
    struct io_thread *watcher = NULL;
    struct io *io;
    err e = io_open(".", &io);
    if (e != OK)
        return err_set(at, e, "cannot open the working directory: %s", err_text(e));
    ERR_IGNORE(io_thread_start(io, "watch-signals", watch, &self, &watcher));
    e = node_open(options, out_node, at);
    atomic_store(&self.is_opened, true);
    if (watcher != NULL)
        io_thread_join(watcher);
    io_close(io);
    *out_was_ended = self.was_ended;
    return e;
}

static int serve(const struct node_options *options)
{
    sigset_t signals;
    struct node *node;
    bool was_ended = false;
    struct err_at at = { 0 };
    block_signals(&signals);
    (void)io_files_max_raise();
    err e = open_node(options, &node, &was_ended, &at);
    if (e != OK) {
        fprintf(stderr, "kelpie serve: %s\n", at.text);
        return 1;
    }
    int status = was_ended ? 0 : run(node, &signals);
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    sigprocmask(SIG_UNBLOCK, &ending, NULL); /* the second one has its default effect */
    node_close(node);
    return status;
}

int command_serve(int argc, char **argv)
{
    struct node_options options = { .data_directory = NODE_DATA_DEFAULT, .listen = NODE_LISTEN_DEFAULT };
    bool check_config = false;
    const struct option list[] = {
        { "--config", "FILE", "configuration (YAML); without it defaults hold", &options.config_file, NULL },
        { "--data", "DIR", "data directory, created if missing (default: data)", &options.data_directory,
          NULL },
        { "--http", "ADDR", "address to listen on (default: " NODE_LISTEN_DEFAULT ")", &options.listen,
          NULL },
        { "--web.config.file", "FILE", "TLS and credentials, in Prometheus' format", &options.web_config_file,
          NULL },
        { "--insecure", NULL, "allow an address beyond loopback without TLS and credentials", NULL,
          &options.is_insecure },
        { "--check-config", NULL, "read and check the configuration, then exit", NULL, &check_config },
        { "--log.level", "LEVEL", "debug, info, warn or error", &options.log_level, NULL },
        { "--log.format", "FORMAT", "logfmt or json", &options.log_format, NULL },
    };
    const struct command self = {
        .name = "serve",
        .operands = "",
        .options = list,
        .summary = "Run a node until SIGTERM or SIGINT; SIGHUP reads the configuration again.",
        .option_count = sizeof list / sizeof list[0]
    };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    if (!check_config)
        return serve(&options);
    struct err_at at = { 0 };
    if (node_check_config(&options, &at) != OK) {
        fprintf(stderr, "kelpie serve: %s\n", at.text);
        return 1;
    }
    printf("the configuration is fine\n");
    return 0;
}
