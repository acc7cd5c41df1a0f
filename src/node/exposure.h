/* Who gets through to the node's port: nobody who should not, and the other nodes of its cluster. */
#ifndef NODE_EXPOSURE_H
#define NODE_EXPOSURE_H

#include "node/loaded.h"

/* ERR_INPUT: the address is open to others without credentials and that was not said to be wanted; or other nodes
 * could not reach it, or would be asked for certificates that they do not have. */
err exposure_check(const struct node_options *options, const struct loaded *loaded, struct err_at *at);

#endif
