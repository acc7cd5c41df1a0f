/* Parameters of queries and form bodies. From: a request's target and body. To: net_request.params.
 *
 * Invariants
 * 1. Each byte of the text is looked at a bounded number of times, and memory is at most the text's length
 *    plus one net_param a parameter, of which there are at most count_max.
 * 2. Order and repetition are kept. A malformed escape refuses the whole text: guessing what a query meant
 *    is worse than an error. */
#include "net/form.h"

#include "base/bytes.h"

static err decode(struct pool *pool, struct slice text, bool plus_is_space, struct slice *out_text)
{
    if (text.len == 0 || (memchr(text.at, '%', text.len) == NULL &&
                          (!plus_is_space || memchr(text.at, '+', text.len) == NULL))) {
        *out_text = text;
        return OK;
    }
    uint8_t *at;
    TRY(pool_alloc(pool, text.len + 1, (void **)&at));
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.at[i];
        if (c == '%') {
            int high = i + 2 < text.len ? hex_value(text.at[i + 1]) : -1;
            int low = i + 2 < text.len ? hex_value(text.at[i + 2]) : -1;
            if (high < 0 || low < 0)
                return ERR_INPUT;
            c = (uint8_t)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        at[len++] = c;
    }
    at[len] = 0;
    *out_text = slice_of(at, len);
    return OK;
}

err percent_decode(struct pool *pool, struct slice text, struct slice *out_text)
{
    return decode(pool, text, false, out_text);
}

err form_parse(struct pool *pool, struct slice text, struct form *form)
{
    for (size_t i = 0; i < text.len;) {
        const uint8_t *from = text.at + i;
        const uint8_t *end = memchr(from, '&', text.len - i);
        size_t len = end != NULL ? (size_t)(end - from) : text.len - i;
        i += len + 1;
        if (len == 0)
            continue;
        if (memchr(from, ';', len) != NULL)
            return ERR_INPUT; /* Go refuses it too: separators disagreed in the past */
        if (form->count == form->count_max)
            return ERR_LIMIT;
        const uint8_t *equal = memchr(from, '=', len);
        size_t name_len = equal != NULL ? (size_t)(equal - from) : len;
        struct slice value =
            equal != NULL ? slice_of(equal + 1, len - name_len - 1) : slice_of(from + len, 0);
        struct net_param param;
        TRY(decode(pool, slice_of(from, name_len), true, &param.name));
        TRY(decode(pool, value, true, &param.value));
        TRY(pool_block_reserve(pool, (void **)&form->params, sizeof *form->params, form->count + 1,
                               &form->capacity));
        form->params[form->count++] = param;
    }
    return OK;
}
