/* Helpers around cmocka for what it lacks: the run's seed, a small random generator, and torture
 * loops. Include after nothing; it brings cmocka in the order that cmocka wants. */
#ifndef BASE_TEST_H
#define BASE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/pool.h"

/* The seed of this run: $SEED, or a constant, so that an unattended run is repeatable. Printed once
 * by test_random_begin with the command that repeats it. */
static inline uint64_t test_seed(void)
{
    const char *text = getenv("SEED");
    return text != NULL ? strtoull(text, NULL, 0) : UINT64_C(0x6b656c706965);
}

struct test_random {
    uint64_t state;
};

static inline struct test_random test_random_begin(const char *test_name)
{
    uint64_t seed = test_seed();
    printf("# %s: SEED=0x%llx\n", test_name, (unsigned long long)seed);
    return (struct test_random){ .state = seed };
}

static inline uint64_t test_random_u64(struct test_random *r)
{
    r->state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    return hash_mix(r->state);
}

/* Uniform in [0, bound), bound > 0. */
static inline uint64_t test_random_below(struct test_random *r, uint64_t bound)
{
    return test_random_u64(r) % bound;
}

/* assert_int_equal prints 64-bit values badly on failure; this names the error. */
#define assert_ok(expression)                                          \
    do {                                                               \
        err assert_result = (expression);                              \
        if (assert_result != OK)                                       \
            fail_msg("%s = %s", #expression, err_text(assert_result)); \
    } while (0)

#define assert_err(expected, expression)                                                                \
    do {                                                                                                \
        err assert_result = (expression);                                                               \
        if (assert_result != (expected))                                                                \
            fail_msg("%s = %s, expected %s", #expression, err_text(assert_result), err_text(expected)); \
    } while (0)

#endif
