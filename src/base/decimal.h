/* Numbers as decimal digits: what answers consist of. */
#ifndef BASE_DECIMAL_H
#define BASE_DECIMAL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DECIMAL_TEXT_BYTES_MAX 48 /* what these may write, not all of it text */

/* The digits of v without leading zeros, "0" of 0. Returns how many, at most 20. */
size_t decimal_print(uint64_t v, char out[DECIMAL_TEXT_BYTES_MAX]);

/* A number above 0 that is no integer, without exponent, in the fewest digits that a reader rounds to it, of
 * several such the nearest: as Go and std::to_chars do. Returns the length; 0: not for this one (below 2^-37, or
 * from 2^53 on). */
size_t decimal_print_double(double v, char out[DECIMAL_TEXT_BYTES_MAX]);

#ifdef __cplusplus
}
#endif

#endif
