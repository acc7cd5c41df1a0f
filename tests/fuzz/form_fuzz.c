/* Any text as a form body, a percent-encoded path, and as the parameters of the API: times, durations, numbers,
 * truth values, escaped names, tenants. */
#include "api/params.h"
#include "base/check.h"
#include "base/time.h"
#include "model/labels.h"
#include "net/form.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_param(struct slice text, struct pool *pool)
{
    struct err_at at = { 0 };
    int64_t t_ms;
    uint64_t count;
    struct slice name;
    if (param_time(text, &t_ms, &at) == OK)
        check(t_ms >= TIME_MS_MIN && t_ms <= TIME_MS_MAX);
    else
        check(at.text[0] != '\0');
    ERR_IGNORE(param_duration(text, &t_ms, &at));
    ERR_IGNORE(param_uint(text, &count));
    param_is_true(text);
    check(!tenant_valid(text) || text.len > 0);
    ERR_IGNORE(param_unescape_name(text, pool, &name));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pool *pool = pool_open(NULL, "fuzz", 16u << 20);
    struct form form = { .count_max = 100 };
    struct slice text = slice_of(data, size), decoded;
    if (percent_decode(pool, text, &decoded) == OK)
        check(decoded.len <= text.len);
    ERR_IGNORE(form_parse(pool, text, &form));
    check(form.count <= form.count_max);
    read_param(text, pool);
    for (size_t i = 0; i < form.count; i++) {
        read_param(form.params[i].name, pool);
        read_param(form.params[i].value, pool);
    }
    pool_close(pool);
    return 0;
}
