/* Parsing of API parameters. See params.h.
 *
 * Everything here is input from outside: lengths are bounded by the request (net), every form is
 * checked to its last byte. Source: Prometheus web/api/v1 parseTime, parseDuration;
 * model.UnescapeName (ValueEncodingEscaping). */
#include "api/params.h"

#include "base/bytes.h"
#include "base/time.h"
#include "model/labels.h"
#include "model/yaml.h"
#include "shim/number.h"

#include <math.h>

#define PARAM_ECHO_BYTES_MAX 200 /* of a bad parameter in an error text */

static int echo_len(struct slice text)
{
    return (int)(text.len < PARAM_ECHO_BYTES_MAX ? text.len : PARAM_ECHO_BYTES_MAX);
}

static int64_t clamp_ms(double ms)
{
    if (ms >= (double)TIME_MS_MAX)
        return TIME_MS_MAX;
    if (ms <= (double)TIME_MS_MIN)
        return TIME_MS_MIN;
    return (int64_t)ms;
}

/* Exactly `count` decimal digits at *r. */
static bool take_digits(struct reader *r, size_t count, int64_t *out_value)
{
    struct slice s = read_bytes(r, count);
    int64_t value = 0;
    if (s.len != count)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (s.at[i] < '0' || s.at[i] > '9')
            return false;
        value = value * 10 + (s.at[i] - '0');
    }
    *out_value = value;
    return true;
}

/* Days since 1970-01-01 of a proleptic Gregorian date (Hinnant, "chrono-compatible low-level date
 * algorithms"). */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static int64_t month_days(int64_t year, int64_t month)
{
    static const uint8_t days[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

/* ".123456789" → ms, rounded down; absent = 0. */
static bool take_fraction(struct reader *r, int64_t *out_ms)
{
    *out_ms = 0;
    if (read_left(r) == 0 || (*r->at != '.' && *r->at != ','))
        return true;
    r->at++;
    int64_t scale = 100;
    size_t count = 0;
    for (; read_left(r) > 0 && *r->at >= '0' && *r->at <= '9'; r->at++, count++) {
        *out_ms += (*r->at - '0') * scale;
        scale /= 10;
    }
    return count > 0;
}

/* "Z" or "+hh:mm" → ms to subtract. */
static bool take_zone(struct reader *r, int64_t *out_ms)
{
    *out_ms = 0;
    uint8_t sign = read_u8(r);
    if (sign == 'Z' || sign == 'z')
        return read_left(r) == 0;
    int64_t hours, minutes;
    if ((sign != '+' && sign != '-') || !take_digits(r, 2, &hours) || read_u8(r) != ':' ||
        !take_digits(r, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *out_ms = (hours * 60 + minutes) * MS_PER_MINUTE * (sign == '-' ? -1 : 1);
    return read_left(r) == 0;
}

static bool parse_rfc3339(struct slice text, int64_t *out_t_ms)
{
    struct reader r = reader_of(text);
    int64_t year, month, day, hour, minute, second, fraction_ms, zone_ms;
    if (!take_digits(&r, 4, &year) || read_u8(&r) != '-' || !take_digits(&r, 2, &month) ||
        read_u8(&r) != '-' || !take_digits(&r, 2, &day))
        return false;
    uint8_t separator = read_u8(&r);
    if ((separator != 'T' && separator != 't') || !take_digits(&r, 2, &hour) || read_u8(&r) != ':' ||
        !take_digits(&r, 2, &minute) || read_u8(&r) != ':' || !take_digits(&r, 2, &second))
        return false;
    if (!take_fraction(&r, &fraction_ms) || !take_zone(&r, &zone_ms))
        return false;
    if (month < 1 || month > 12 || day < 1 || day > month_days(year, month) || hour > 23 || minute > 59 ||
        second > 59)
        return false;
    *out_t_ms = days_of(year, month, day) * MS_PER_DAY + hour * MS_PER_HOUR + minute * MS_PER_MINUTE +
                second * MS_PER_SECOND + fraction_ms - zone_ms;
    return true;
}

err param_time(struct slice text, int64_t *out_t_ms, struct err_at *at)
{
    double seconds;
    if (number_parse(text, false, &seconds) && !isnan(seconds)) {
        *out_t_ms = clamp_ms(round(seconds * 1000));
        return OK;
    }
    if (parse_rfc3339(text, out_t_ms))
        return OK;
    if (slice_equal_str(text, "-292273086-05-16T16:47:06Z")) {
        *out_t_ms = TIME_MS_MIN;
        return OK;
    }
    if (slice_equal_str(text, "+292277025-08-18T07:12:54.999999999Z") ||
        slice_equal_str(text, "292277025-08-18T07:12:54.999999999Z")) {
        *out_t_ms = TIME_MS_MAX;
        return OK;
    }
    return err_set(at, ERR_INPUT, "cannot parse \"%.*s\" to a valid timestamp", echo_len(text),
                   (const char *)text.at);
}

err param_duration(struct slice text, int64_t *out_ms, struct err_at *at)
{
    double seconds;
    if (number_parse(text, false, &seconds)) {
        double ms = seconds * 1000;
        if (isnan(ms) || ms > (double)TIME_MS_MAX || ms < (double)TIME_MS_MIN)
            return err_set(at, ERR_INPUT, "cannot parse \"%.*s\" to a valid duration. It overflows int64",
                           echo_len(text), (const char *)text.at);
        *out_ms = (int64_t)round(ms);
        return OK;
    }
    if (text.len != 0 && yaml_duration_parse(text, out_ms))
        return OK;
    return err_set(at, ERR_INPUT, "cannot parse \"%.*s\" to a valid duration", echo_len(text),
                   (const char *)text.at);
}

err param_uint(struct slice text, uint64_t *out_value)
{
    uint64_t value = 0;
    if (text.len == 0)
        return ERR_INPUT;
    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9' || __builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text.at[i] - '0'), &value))
            return ERR_INPUT;
    }
    *out_value = value;
    return OK;
}

bool param_is_true(struct slice text)
{
    static const char *const yes[] = { "1", "t", "T", "true", "TRUE", "True" };
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++)
        if (slice_equal_str(text, yes[i]))
            return true;
    return false;
}

/* One "_…_" group behind the first underscore. False: not well formed. */
static bool unescape_group(struct reader *r, uint8_t *to, size_t *len)
{
    if (read_left(r) > 0 && *r->at == '_') {
        r->at++;
        to[(*len)++] = '_';
        return true;
    }
    uint32_t point = 0;
    for (size_t count = 0; count < 7 && read_left(r) > 0; count++) {
        uint8_t c = *r->at++;
        if (c == '_') {
            size_t put = count == 0 ? 0 : utf8_put(to + *len, point);
            *len += put;
            return put > 0;
        }
        int digit = hex_value(c);
        if (digit < 0)
            return false;
        point = point << 4 | (uint32_t)digit;
    }
    return false;
}

err param_unescape_name(struct slice name, struct pool *pool, struct slice *out_name)
{
    *out_name = name;
    if (!slice_starts(name, slice_str("U__")))
        return OK;
    void *room;
    TRY(pool_alloc(pool, name.len + 4, &room)); /* every group is at least as long as its result */
    uint8_t *to = room;
    size_t len = 0;
    struct reader r = reader_of(slice_part(name, 3, name.len - 3));
    while (read_left(&r) > 0) {
        uint8_t c = *r.at++;
        if (c != '_')
            to[len++] = c;
        else if (!unescape_group(&r, to, &len))
            return OK;
    }
    if (utf8_valid(slice_of(to, len)))
        *out_name = slice_of(to, len);
    return OK;
}
