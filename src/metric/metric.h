/* The door of the room metric/: series index, head, row groups and compact metric segments, in the order
 * data meets them. */
#ifndef METRIC_METRIC_H
#define METRIC_METRIC_H

#include "metric/index_part.h"

#include "metric/index.h"

#include "metric/head.h"

#include "metric/group.h"

#include "metric/compact.h"

#endif
