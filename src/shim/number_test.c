/* Numbers as Go prints and reads them: fixed table, then round trips of random bits. */
#include "base/test.h"

#include "base/bytes.h"
#include "shim/number.h"

static void prints_as_go_does(void **state)
{
    const struct {
        double v;
        const char *json;
        const char *fixed;
    } rows[] = {
        { 0, "0", "0" },
        { -0.0, "-0", "-0" },
        { 1, "1", "1" },
        { -1.5, "-1.5", "-1.5" },
        { 0.1, "0.1", "0.1" },
        { 1e-6, "0.000001", "0.000001" },
        { 1e-7, "1e-07", "0.0000001" },
        { 1.25e-10, "1.25e-10", "0.000000000125" },
        { 1e20, "100000000000000000000", "100000000000000000000" },
        { 1e21, "1e+21", "1000000000000000000000" },
        { 1.2345678901234567e20, "123456789012345670000", "123456789012345670000" },
        { 123456.789, "123456.789", "123456.789" },
        { 5e-324, "5e-324", NULL },
        { 9007199254740993e0, "9007199254740992", "9007199254740992" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[NUMBER_TEXT_BYTES_MAX];
        size_t len = number_print_json(rows[i].v, text);
        assert_true(slice_equal_str(slice_of(text, len), rows[i].json));
        if (rows[i].fixed == NULL)
            continue;
        len = number_print_fixed(rows[i].v, text);
        assert_true(slice_equal_str(slice_of(text, len), rows[i].fixed));
    }
    char text[NUMBER_TEXT_BYTES_MAX];
    assert_true(
        slice_equal_str(slice_of(text, number_print_json(bits_double(0x7ff8000000000001), text)), "NaN"));
    assert_true(slice_equal_str(slice_of(text, number_print_json(__builtin_inf(), text)), "+Inf"));
    assert_true(slice_equal_str(slice_of(text, number_print_fixed(-__builtin_inf(), text)), "-Inf"));
}

static void prints_general(void **state)
{
    const struct {
        double v;
        const char *text;
    } rows[] = { { 0, "0" },
                 { -0.0, "-0" },
                 { 1.5, "1.5" },
                 { 999999.5, "999999.5" },
                 { 1e6, "1e+06" },
                 { 123456789, "1.23456789e+08" },
                 { 1e-4, "0.0001" },
                 { 1e-5, "1e-05" },
                 { 1e300, "1e+300" },
                 { -42, "-42" },
                 { __builtin_inf(), "+Inf" } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[NUMBER_TEXT_BYTES_MAX];
        size_t len = number_print_general(rows[i].v, text);
        assert_true(slice_equal_str(slice_of(text, len), rows[i].text));
    }
}

static void round_trips(void **state)
{
    struct test_random random = test_random_begin("round_trips");
    for (int i = 0; i < 200000; i++) {
        double v = bits_double(test_random_u64(&random)), back = 0;
        if (v != v)
            continue;
        char text[NUMBER_TEXT_BYTES_MAX];
        size_t len = number_print_json(v, text);
        assert_true(number_parse(slice_of(text, len), false, &back));
        assert_true(double_bits(v) == double_bits(back));
        len = number_print_fixed(v, text);
        assert_true(number_parse(slice_of(text, len), false, &back));
        assert_true(double_bits(v) == double_bits(back));
    }
}

static void refuses_and_accepts(void **state)
{
    const char *bad[] = { "", "-", "+-1", "1x", "0x10", "e5", "1e", " 1", "1 ", "--1", "." };
    double v;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(number_parse(slice_str(bad[i]), false, &v));
    assert_true(number_parse(slice_str("0x1p4"), true, &v) && v == 16);
    assert_true(number_parse(slice_str("+Inf"), false, &v) && v > 1e308);
    assert_true(number_parse(slice_str("-infinity"), false, &v) && v < -1e308);
    assert_true(number_parse(slice_str("nan"), false, &v) && double_bits(v) == 0x7ff8000000000001);
    assert_true(number_parse(slice_str("1e999"), false, &v) && v > 1e308);
    char tiny[420] = "0.";
    memset(tiny + 2, '0', 400);
    strcpy(tiny + 402, "1e10");
    assert_true(number_parse(slice_str(tiny), false, &v) && v == 0);
    tiny[403] = '\0';
    assert_true(number_parse(slice_str(tiny), false, &v) && v == 0);
    memset(tiny, '1', 400);
    strcpy(tiny + 400, "e-5");
    assert_true(number_parse(slice_str(tiny), false, &v) && v > 1e308);
    strcpy(tiny + 400, "e-999");
    assert_true(number_parse(slice_str(tiny), false, &v) && v == 0);
    assert_true(number_parse(slice_str("1e-999"), false, &v) && v == 0);
    assert_true(number_parse(slice_str(".5"), false, &v) && v == 0.5);
    assert_true(number_parse(slice_str("5."), false, &v) && v == 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prints_as_go_does),
        cmocka_unit_test(prints_general),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(refuses_and_accepts),
    };
    return cmocka_run_group_tests_name("number", tests, NULL, NULL);
}
