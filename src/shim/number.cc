// Numbers as text: the digits of base/decimal.h, or std::to_chars; from_chars. See number.h.
#include "shim/number.h"

#include "base/decimal.h"

#include <charconv>
#include <cmath>
#include <cstring>

static size_t put_text(char *out, const char *text)
{
    size_t len = std::strlen(text);
    std::memcpy(out, text, len);
    return len;
}

static size_t print_special(double v, char *out)
{
    if (std::isnan(v))
        return put_text(out, "NaN");
    return put_text(out, v > 0 ? "+Inf" : "-Inf");
}

// Digits from the library, laid out by ourselves: its fixed form prints exact integers above 2^53 where Go pads
// the shortest digits with zeros.
static size_t print_unusual(double magnitude, char *out)
{
    char text[40];
    std::to_chars_result r =
        std::to_chars(text, text + sizeof text, magnitude, std::chars_format::scientific);
    const char *at = text;
    char *to = out;
    char digits[32];
    int digit_count = 0;
    for (; at != r.ptr && *at != 'e'; at++)
        if (*at != '.')
            digits[digit_count++] = *at;
    int exponent = 0;
    at++;   // 'e'
    bool negative = *at == '-';
    std::from_chars(at + 1, r.ptr, exponent);
    if (negative)
        exponent = -exponent;
    int point = exponent + 1;   // digits before the decimal point
    if (point <= 0) {
        *to++ = '0';
        *to++ = '.';
        for (int i = point; i < 0; i++)
            *to++ = '0';
        std::memcpy(to, digits, static_cast<size_t>(digit_count));
        return static_cast<size_t>(to + digit_count - out);
    }
    for (int i = 0; i < point || i < digit_count; i++) {
        if (i == point)
            *to++ = '.';
        *to++ = i < digit_count ? digits[i] : '0';
    }
    return static_cast<size_t>(to - out);
}

extern "C" size_t number_print_fixed(double v, char out[NUMBER_TEXT_BYTES_MAX])
{
    if (!std::isfinite(v))
        return print_special(v, out);
    char *to = out;
    if (std::signbit(v)) {
        *to++ = '-';
        v = -v;
    }
    size_t sign = static_cast<size_t>(to - out);
    if (v < 0x1p53 && v == static_cast<double>(static_cast<int64_t>(v)))   // the common case by far
        return sign + decimal_print(static_cast<uint64_t>(v), to);
    size_t len = decimal_print_double(v, to);
    return sign + (len != 0 ? len : print_unusual(v, to));
}

extern "C" size_t number_print_general(double v, char out[NUMBER_TEXT_BYTES_MAX])
{
    if (!std::isfinite(v))
        return print_special(v, out);
    double magnitude = std::fabs(v);
    if (magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e6)) {
        std::to_chars_result r =
            std::to_chars(out, out + NUMBER_TEXT_BYTES_MAX, v, std::chars_format::scientific);
        return static_cast<size_t>(r.ptr - out);
    }
    return number_print_fixed(v, out);
}

extern "C" size_t number_print_json(double v, char out[NUMBER_TEXT_BYTES_MAX])
{
    if (!std::isfinite(v))
        return print_special(v, out);
    double magnitude = std::fabs(v);
    if (magnitude != 0 && (magnitude < 1e-6 || magnitude >= 1e21)) {
        std::to_chars_result r =
            std::to_chars(out, out + NUMBER_TEXT_BYTES_MAX, v, std::chars_format::scientific);
        return static_cast<size_t>(r.ptr - out);   // Prometheus keeps Go's two exponent digits: 1e-07
    }
    return number_print_fixed(v, out);
}

static bool equal_fold(const char *at, size_t len, const char *word)
{
    if (std::strlen(word) != len)
        return false;
    for (size_t i = 0; i < len; i++)
        if ((at[i] | 0x20) != word[i])
            return false;
    return true;
}

static bool parse_special(const char *at, size_t len, bool negative, double *out_v)
{
    if (equal_fold(at, len, "inf") || equal_fold(at, len, "infinity")) {
        *out_v = negative ? -HUGE_VAL : HUGE_VAL;
        return true;
    }
    if (equal_fold(at, len, "nan")) {
        // Go's NaN: quiet with payload 1, as Prometheus stores it.
        unsigned long long bits = 0x7ff8000000000001ULL;
        std::memcpy(out_v, &bits, sizeof bits);
        return true;
    }
    return false;
}

// Of a number that is out of range: is it too small? Decided by the weight of its first digit that is not 0.
static bool is_tiny(const char *at, const char *end, bool hex)
{
    const long most = 1000000;
    long weight = 0;
    bool is_behind_point = false, is_found = false;
    for (; at < end; at++) {
        char c = *at;
        if (c == '.') {
            is_behind_point = true;
            continue;
        }
        if (c == (hex ? 'p' : 'e') || c == (hex ? 'P' : 'E'))
            break;
        if (is_found && !is_behind_point)
            weight++;
        else if (!is_found && is_behind_point)
            weight--;
        is_found = is_found || c != '0';
    }
    long exponent = 0;
    bool is_negative = at + 1 < end && at[1] == '-';
    for (at += at + 1 < end && (at[1] == '-' || at[1] == '+') ? 2 : 1; at < end && exponent < most; at++)
        exponent = exponent * 10 + (*at - '0');
    return weight * (hex ? 4 : 1) + (is_negative ? -exponent : exponent) < 0;
}

static bool parse_digits(const char *at, const char *end, std::chars_format format, bool negative,
                         double *out_v)
{
    double v = 0;
    std::from_chars_result r = std::from_chars(at, end, v, format);
    if (r.ptr != end || at == end)
        return false;
    if (r.ec == std::errc::result_out_of_range) {
        v = is_tiny(at, end, format == std::chars_format::hex) ? 0 : HUGE_VAL;
    } else if (r.ec != std::errc()) {
        return false;
    }
    *out_v = negative ? -v : v;
    return true;
}

extern "C" bool number_parse(struct slice text, bool go_syntax, double *out_v)
{
    const char *at = reinterpret_cast<const char *>(text.at);
    const char *end = at + text.len;
    if (at == end)
        return false;
    bool negative = *at == '-';
    if (*at == '-' || *at == '+')
        at++;
    if (at == end || *at == '-' || *at == '+')
        return false;
    size_t len = static_cast<size_t>(end - at);
    if (parse_special(at, len, negative, out_v))
        return true;
    if (!((*at >= '0' && *at <= '9') || *at == '.'))
        return false;
    if (go_syntax && len > 2 && at[0] == '0' && (at[1] | 0x20) == 'x')
        return parse_digits(at + 2, end, std::chars_format::hex, negative, out_v);
    return parse_digits(at, end, std::chars_format::general, negative, out_v);
}
