/* The door of this room. */
#ifndef CLUSTER_CLUSTER_H
#define CLUSTER_CLUSTER_H

#include "cluster/core.h"
#include "cluster/placement.h"

#endif
