/* Has an open partition caught up with its log? Looked at now and then; the answer does not flutter. */
#ifndef AGENT_READINESS_H
#define AGENT_READINESS_H

#include "agent/agent.h"

/* All zero: not looked at yet. Owner: the agent's thread. */
struct readiness {
    bool is_ready;
    bool has_caught;      /* the next counts */
    int64_t caught_ns;    /* everything that was durable then is applied */
    int64_t confirmed_ns; /* the latest end was confirmed then */
    bool has_mark;
    uint64_t mark_end; /* an end that was not reached yet, … */
    int64_t mark_ns;   /* … and when it was confirmed */
};

/* What is so by this look. */
bool readiness_look(struct readiness *r, const struct agent_progress *progress, int64_t now_ns);

#endif
