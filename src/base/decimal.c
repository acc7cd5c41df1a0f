/* Numbers as decimal digits. See decimal.h.
 *
 * The digits of a double are found as in Schubfach (R. Giulietti, "The Schubfach way to render doubles", 2020): v
 * and the ends of the interval that rounds to v, times 10^a so that v has 16 or 17 digits before the point, four
 * times as large to keep two bits behind it and the last bit "sticky" for what is beyond. What multiple of 10 or 1
 * the interval holds then takes a few comparisons. Only powers with 5^a < 2^64 are used: one exact multiplication
 * does what tables of 128-bit approximations do elsewhere, and the rest is left to the C++ library.
 *
 * Nothing is read back that was just written, and what nobody can predict (how many digits the shortest form has)
 * is computed both ways: a misprediction costs as much as all the multiplications.
 *
 * Data comes from values and times of answers; texts go to shim/number.cc and api/json.c. */
#include "base/decimal.h"

#include "base/bytes.h"
#include "base/check.h"

#define POWER_MAX 27 /* 5^27 < 2^63 */
#define ASCII     UINT64_C(0x3030303030303030)
#define E8        UINT64_C(100000000)

/* Eight digits of v < 10^8 as bytes 0 … 9, the first one lowest: halves, quarters, eighths at once. */
static inline uint64_t eight_digits(uint64_t v)
{
    uint64_t high = v / 10000, x = high | (v - high * 10000) << 32;
    uint64_t q = x * 10486 >> 20 & UINT64_C(0x7f0000007f); /* /100, right below 10,000 */
    x = q | (x - q * 100) << 16;
    q = x * 103 >> 10 & UINT64_C(0x000f000f000f000f); /* /10, right below 100 */
    return q | (x - q * 10) << 8;
}

size_t decimal_print(uint64_t v, char out[DECIMAL_TEXT_BYTES_MAX])
{
    uint64_t groups[2]; /* of eight digits behind the first ones */
    size_t count = 0;
    while (v >= E8) {
        groups[count++] = v % E8;
        v /= E8;
    }
    uint64_t text = eight_digits(v);
    unsigned zeros = text == 0 ? 7 : (unsigned)__builtin_ctzll(text) / 8;
    put_le64((uint8_t *)out, (text + ASCII) >> zeros * 8);
    size_t len = 8 - zeros;
    for (; count > 0; count--, len += 8)
        put_le64((uint8_t *)out + len, eight_digits(groups[count - 1]) + ASCII);
    return len;
}

/* 16 digits of v < 10^16. Returns how many are left without the zeros at the end. */
static size_t print_fraction(uint64_t v, char *out)
{
    uint64_t high = eight_digits(v / E8), low = eight_digits(v % E8);
    put_le64((uint8_t *)out, high + ASCII);
    put_le64((uint8_t *)out + 8, low + ASCII);
    if (low != 0)
        return 16 - (unsigned)__builtin_clzll(low) / 8;
    return high != 0 ? 8 - (unsigned)__builtin_clzll(high) / 8 : 0;
}

static const uint64_t FIVES[POWER_MAX + 1] = {
    1,
    5,
    25,
    125,
    625,
    3125,
    15625,
    78125,
    390625,
    1953125,
    9765625,
    48828125,
    244140625,
    1220703125,
    6103515625,
    30517578125,
    152587890625,
    762939453125,
    3814697265625,
    19073486328125,
    95367431640625,
    476837158203125,
    2384185791015625,
    11920928955078125,
    59604644775390625,
    298023223876953125,
    1490116119384765625,
    7450580596923828125,
};

/* x · power / 2^64, the last bit set when it is not exact. */
static uint64_t times(uint64_t x, uint64_t power)
{
    unsigned __int128 product = (unsigned __int128)x * power;
    return (uint64_t)(product >> 64) | ((uint64_t)product != 0);
}

/* The shortest decimal of v as digits / 10^a, zeros behind its last digit up to 16 or 17 digits in all. */
static uint64_t shortest(double v, int *out_a)
{
    uint64_t bits = double_bits(v), fraction = bits & ((UINT64_C(1) << 52) - 1);
    uint64_t c = fraction | UINT64_C(1) << 52; /* v = c · 2^q */
    int q = (int)(bits >> 52) - 1075;
    unsigned closer = fraction == 0; /* the next smaller double is at half the distance */
    int a = -((q * 1262611 - (closer ? 524031 : 0)) >> 22); /* −floor(log10(the interval's width)) */
    check_hot(a >= 1 && a <= POWER_MAX);
    int shift = __builtin_clzll(FIVES[a]);
    uint64_t power = FIVES[a] << shift; /* 10^a = power · 2^(a − shift) */
    int h = q + a - shift + 64;
    check_hot(h >= 1 && h <= 4);
    unsigned odd = c & 1; /* the interval's ends belong to even c */
    uint64_t low = times((4 * c - 2 + closer) << h, power) + odd;
    uint64_t middle = times(4 * c << h, power);
    uint64_t high = times((4 * c + 2) << h, power) - odd;
    uint64_t s = middle / 4, tens = s / 10;
    uint64_t ten_below = low <= 40 * tens, ten_above = 40 * tens + 40 <= high;
    uint64_t below = low <= 4 * s, above = 4 * s + 4 <= high;
    uint64_t nearer_above = (middle & 3) > 2 || ((middle & 3) == 2 && (s & 1) != 0);
    uint64_t one = s + (below ^ above ? above : nearer_above);
    *out_a = a;
    return ten_below ^ ten_above ? 10 * (tens + ten_above) : one;
}

size_t decimal_print_double(double v, char out[DECIMAL_TEXT_BYTES_MAX])
{
    if (!(v >= 0x1p-37 && v < 0x1p53))
        return 0;
    int a;
    uint64_t digits = shortest(v, &a);
    if (a <= 16) {
        /* integers are doubles themselves: no decimal that rounds to v reaches the next one */
        uint64_t unit = FIVES[a] << a, whole = (uint64_t)v;
        size_t len = decimal_print(whole, out);
        out[len++] = '.';
        return len + print_fraction((digits - whole * unit) * (FIVES[16 - a] << (16 - a)), out + len);
    }
    /* below 1/2: zeros, the first digit, 16 more */
    put_le64((uint8_t *)out, UINT64_C(0x303030303030) << 16 | '.' << 8 | '0');
    put_le64((uint8_t *)out + 8, ASCII);
    uint64_t unit = FIVES[16] << 16, first = digits / unit;
    size_t len = 2 + (size_t)a - 17;
    out[len++] = (char)('0' + first);
    return len + print_fraction(digits - first * unit, out + len);
}
