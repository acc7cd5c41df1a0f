/* The topics of a cluster that is made of a bucket: found, created where they are not there, and the control log
 * begun. For kelpie cluster restore and clone; nodes have their own way (cluster_node.c). */
#ifndef NODE_CLUSTER_TOPICS_H
#define NODE_CLUSTER_TOPICS_H

#include "log/log.h"
#include "node/cluster_mark.h"
#include "node/config.h"
#include "node/secrets.h"

struct cluster_topics {
    struct io *io;
    struct pool *pool;
    const struct config_cluster *config;
    const struct secrets *secrets;
    struct log *control, *log;
    /* What was found. */
    uint8_t control_topic_id[16], topic_id[16];
    bool is_control_kept, is_log_kept; /* it is the topic that the mark knows */
    uint32_t written_count;            /* partitions of the log's topic that hold, or held, records */
};

/* Is a topic there? Nothing is created. OK, ERR_NOT_FOUND,
 * or why nobody says. */
err cluster_topics_look(const struct config_cluster *config, const struct secrets *secrets, bool is_control,
                        struct io *io, struct pool *pool, struct err_at *at);

/* Have both topics, created as a founder creates them where they are not there, and see which they are and what
 * they hold. config and secrets are borrowed until close. Errors, with the topic's name in at: brokers that do not
 * answer (ERR_TIMEOUT) or refuse, topics that are too weak or have another number of partitions (ERR_CONFLICT). */
err cluster_topics_open(const struct config_cluster *config, const struct secrets *secrets,
                        const struct cluster_mark *mark, struct io *io, struct pool *pool,
                        struct cluster_topics *out_topics, struct err_at *at);
void cluster_topics_close(struct cluster_topics *topics); /* also after a failed open, and zeroed */

/* Have a control log that begins with INIT of the cluster that the mark tells; the configuration says how many
 * nodes it awaits. One that has begun already is read; ERR_CONFLICT: it is another cluster's. *out_up_count: its
 * members that have not left. */
err cluster_topics_begin(struct cluster_topics *topics, const struct cluster_mark *mark,
                         uint32_t *out_up_count, struct err_at *at);

#endif
