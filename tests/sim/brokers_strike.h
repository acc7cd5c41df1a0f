/* What the worlds over the simulated brokers do to them by chance, and how they mend it again: one mix for all.
 * Include after base/test.h. */
#ifndef TESTS_BROKERS_STRIKE_H
#define TESTS_BROKERS_STRIKE_H

#include "sim/brokers_sim.h"

#define STRIKES_ON_BROKERS 9

struct strikes {
    struct brokers_sim *sim;
    struct test_random *random;
    uint32_t brokers, nodes;
    int64_t resume_ms[BROKERS_SIM_BROKERS_MAX]; /* who is paused goes on then */
};

static inline uint64_t strike_below(struct strikes *s, uint64_t bound)
{
    return test_random_below(s->random, bound);
}

static inline bool strike_chance(struct strikes *s, uint64_t one_in) { return strike_below(s, one_in) == 0; }

/* which: below STRIKES_ON_BROKERS. */
static inline void strike_broker(struct strikes *s, uint64_t which)
{
    uint32_t b = (uint32_t)strike_below(s, s->brokers);
    uint32_t other = (uint32_t)strike_below(s, s->brokers + 1 + s->nodes);
    uint32_t place = other < s->brokers    ? other
                     : other == s->brokers ? BROKERS_SIM_CONTROLLER
                                           : BROKERS_SIM_AT_NODE(other - s->brokers - 1);
    switch (which) {
    case 0:
        brokers_sim_kill(s->sim, b);
        break;
    case 1:
        brokers_sim_lose_power(s->sim, b);
        break;
    case 2:
        if (strike_chance(s, 4))
            brokers_sim_wipe(s->sim, b);
        break;
    case 3:
        brokers_sim_pause(s->sim, b);
        s->resume_ms[b] =
            brokers_sim_now_ms(s->sim) + 500 + (int64_t)strike_below(s, strike_chance(s, 2) ? 3000 : 12000);
        break;
    case 4:
        brokers_sim_cut(s->sim, b, place, true);
        break;
    case 5:
        brokers_sim_cut(s->sim, place, b, true);
        break;
    case 6:
        brokers_sim_slow(s->sim, b, (int64_t)strike_below(s, 2000));
        break;
    case 7:
        brokers_sim_skew(s->sim, b, (int64_t)strike_below(s, 7200000) - 3600000);
        break;
    default:
        for (uint32_t i = 0; i < s->brokers && strike_chance(s, 3); i++)
            brokers_sim_lose_power(s->sim, i);
        break;
    }
}

/* At each step of time. */
static inline void strikes_mend(struct strikes *s)
{
    uint32_t b = (uint32_t)strike_below(s, s->brokers);
    for (uint32_t i = 0; i < s->brokers; i++)
        if (brokers_sim_now_ms(s->sim) >= s->resume_ms[i])
            brokers_sim_resume(s->sim, i);
    if (strike_chance(s, 50))
        brokers_sim_start(s->sim, b);
    if (strike_chance(s, 50))
        brokers_sim_slow(s->sim, b, 0);
    for (uint32_t place = 0; strike_chance(s, 35) && place < BROKERS_SIM_PLACES_COUNT; place++) {
        brokers_sim_cut(s->sim, b, place, false);
        brokers_sim_cut(s->sim, place, b, false);
    }
}

#endif
