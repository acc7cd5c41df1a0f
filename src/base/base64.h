/* Base64, RFC 4648 §4. */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include "base/slice.h"

#include <stddef.h>
#include <stdint.h>

#define BASE64_LEN(bytes) (((bytes) + 2) / 3 * 4) /* of so many bytes, padded */

/* Write BASE64_LEN(bytes.len) characters and a NUL. Returns the length. */
size_t base64_encode(struct slice bytes, char *out);

/* Padded or not. Returns how many bytes were written to out, or -1: another character, or more than out_max. */
ptrdiff_t base64_decode(struct slice text, uint8_t *out, size_t out_max);

#endif
