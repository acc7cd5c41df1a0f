/* Any text as tokens of a client, and any bytes as the body of one whose checksum is right. What is read can be
 * written and is read as the same again, and no end is the one that stands for an unknown end. */
#include "base/base64.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "model/token.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define COUNT     300 /* not all of them fit into one */
#define BYTES_MAX (TOKEN_LEN_MAX / 4 * 3)
#define SEED      7

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void tokens(struct slice text)
{
    uint64_t ends[COUNT] = { 0 }, again[COUNT] = { 0 };
    char written[TOKEN_LEN_MAX + 1];
    struct err_at at = { 0 };
    bool all = false, all_again = false;
    if (token_read(SEED, text, COUNT, ends, &all, &at) != OK) {
        check(at.text[0] != 0);
        return;
    }
    for (int p = 0; p < COUNT; p++)
        check(ends[p] != UINT64_MAX);
    size_t len = token_write(SEED, ends, COUNT, written);
    check(token_read(SEED, slice_of((const uint8_t *)written, len), COUNT, again, &all_again, &at) == OK);
    check(all_again || memcmp(ends, again, sizeof ends) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t bytes[BYTES_MAX] = { 1 };
    char text[BASE64_LEN(BYTES_MAX) + 1];
    tokens(slice_of(data, size));
    if (size < 1 || size > BYTES_MAX - 5)
        return 0;
    memcpy(bytes + 6, data + 1, size - 1);
    bytes[1] = data[0];
    put_le32(bytes + 2, crc32c(slice_of(data + 1, size - 1), SEED ^ bytes[1]));
    size_t len = base64_encode(slice_of(bytes, size + 5), text);
    tokens(slice_of((const uint8_t *)text, len));
    return 0;
}
