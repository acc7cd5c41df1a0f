/* check(): assertions that stay on in production. They are for our own mistakes only; whatever
 * comes from outside gets an `err`. A failed check prints one line and aborts. */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

_Noreturn void check_failed(const char *file, int line, const char *expression);

#define check(condition)                                  \
    do {                                                  \
        if (__builtin_expect(!(condition), 0))            \
            check_failed(__FILE__, __LINE__, #condition); \
    } while (0)

/* Only where a check would cost in an inner loop: on in debug and sanitizer builds. */
#ifdef KELPIE_CHECK_HOT
#define check_hot(condition) check(condition)
#else
#define check_hot(condition) ((void)0)
#endif

#endif
