/* What the settings of a node in a cluster must be: each text by itself, and all together. */
#ifndef NODE_CONFIG_CLUSTER_H
#define NODE_CONFIG_CLUSTER_H

#include "node/config.h"

#define CONFIG_NODES_MAX      1000
#define CONFIG_PARTITIONS_MAX 1024
#define CONFIG_REPLICAS_MAX   5

/* What a text must be: "KEY must be SAYS". Its length is checked before. */
struct config_text {
    bool (*holds)(struct slice text);
    const char *says;
};
extern const struct config_text config_name, config_word, config_path, config_address, config_addresses,
    config_topic, config_endpoint, config_bucket, config_prefix;

/* Do the settings fit together, and is nothing missing? Sets is_given. ERR_INPUT with a position: of the
 * section that lacks something, or of the key that fits nothing. */
err config_cluster_check(const struct yaml_node *root, struct config_cluster *cluster, struct err_at *at);

#endif
