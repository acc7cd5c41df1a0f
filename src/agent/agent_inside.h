/* The state of agent.c, for it and for tests that let a process die. */
#ifndef AGENT_AGENT_INSIDE_H
#define AGENT_AGENT_INSIDE_H

#include "agent/agent.h"
#include "agent/readiness.h"
#include "io/thread.h"

enum sending_kind { SENDING_RECORD, SENDING_BARRIER, SENDING_MARKER };

/* An append on its way; its bytes lie behind it. */
struct agent_sending {
    struct log_append append;
    struct agent *agent;
    struct agent_sending *next;
    enum sending_kind kind;
    struct slice bytes;
    int64_t asked_ns; /* when it was handed over: whatever was decided before lies before it */
    bool is_done;     /* under the lock, as all below */
    err result;
    uint64_t end; /* offset behind it */
};

/* What was said of a partition's opening; under the lock. */
struct agent_said {
    uint64_t opening; /* 0: nothing new */
    bool is_ready;
};

struct agent {
    struct io *io;
    struct pool *pool; /* this thread's */
    struct agent_config config;
    struct core *core;
    struct log_reader *reader;
    struct log_record record; /* read, and not folded yet for want of memory */
    bool has_record;
    uint64_t next; /* offset that is to come */
    unsigned plants;

    struct agent_sending *sendings;
    size_t sending_count;
    struct buf barrier; /* our NOOP */
    int64_t barrier_ns; /* when it was first handed over */
    int64_t retry_ns;   /* of barrier and marker: not before */
    bool is_asking;     /* one of them is on its way */
    bool is_known;      /* the barrier was read back */
    bool is_awaiting;   /* an end was told that is not reached yet: */
    uint64_t await_end; /* … this, … */
    int64_t await_ns;   /* … confirmed at that time */
    int64_t known_ns;   /* last told to the core; INT64_MIN: nothing */
    int64_t ranked_ns;  /* last look at ranks and readiness */
    uint64_t opening_count;
    uint32_t open_count;
    uint64_t openings[CLUSTER_PARTITIONS_MAX]; /* number of the opening; 0: it is not open */
    struct readiness readiness[CLUSTER_PARTITIONS_MAX];
    struct routes *routes;
    bool has_ended, is_leaving;
    uint64_t record_count, damaged_count, missing_count, refused_count;

    struct io_mutex lock; /* all below; a leaf */
    struct io_cond woken, answered;
    struct agent_question *questions; /* ask.c */
    bool is_woken, is_closing, wants_to_join, wants_to_leave;
    bool has_news;                             /* the two tables below have */
    struct member_id heard[CLUSTER_NODES_MAX]; /* by slot: the latest life that was heard */
    uint8_t is_heard[CLUSTER_NODES_MAX];       /* since the last step */
    struct agent_said said[CLUSTER_PARTITIONS_MAX];
    struct agent_view view;
    struct io_thread *thread;
};

/* Answer what other threads asked: ask.c. The agent's thread. */
void agent_answer_questions(struct agent *agent, int64_t now_ns);
/* Append a record. False: too much is on its way. The agent's thread. */
bool agent_send_record(struct agent *agent, struct slice bytes);

#endif
