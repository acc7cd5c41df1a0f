/* Asks other nodes whether they are there: probes go into a queue, threads send them, answers go to the agent.
 *
 * At most one probe of a node is queued or under way; a probe that comes meanwhile is dropped, the core asks again
 * after CORE_PROBE_MS. Nodes that did not answer last time get half of the threads at most: however many there are
 * that take a second each, those that answer are asked at once. Any thread. */
#ifndef AGENT_PROBER_H
#define AGENT_PROBER_H

#include "base/slice.h"
#include "cluster/cluster.h"
#include "net/client.h"

struct agent_probe; /* agent/agent.h */
struct prober;

#define PROBER_THREADS_MAX 8
#define PROBER_MUTE_MAX    4 /* of them, for nodes that did not answer last time */
#define PROBER_TIMEOUT_MS  1000

struct prober_config {
    struct slice secret;                               /* of the cluster, not empty; copied */
    bool is_tls;                                       /* https */
    struct net_tls_options tls;                        /* strings are borrowed until close */
    void (*heard)(void *context, struct member_id id); /* that life answered; from the prober's threads */
    void *context;
};

struct prober_counts {
    uint64_t sent, answered;
    uint64_t dropped; /* one of that node was queued or under way */
    uint64_t failed;  /* no answer, or none that can be believed */
    uint64_t denied;  /* answers without proof, or refusals with one: secrets or clocks differ */
    /* Nodes, by their last answer: the life that was asked for; not, and it refuses to talk to this one. */
    uint32_t here, refusing;
};

/* ERR_LIMIT; ERR_INPUT: an empty secret is none. Threads start as they are needed. */
err prober_open(const struct prober_config *config, struct io *io, struct pool *pool,
                struct prober **out_prober);
/* Ends what is under way, within a second, and frees everything; nobody asks any more. NULL is allowed. */
void prober_close(struct prober *prober);

/* Queue a probe; as agent_calls.probe. Waits for nothing. */
void prober_ask(struct prober *prober, const struct agent_probe *probe);

struct prober_counts prober_counts(struct prober *prober);

#endif
