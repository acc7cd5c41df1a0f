/* RE2 through its shim: anchoring, newline, groups, refusals. */
#include "base/test.h"

#include "shim/regex.h"

static void matches(void **state)
{
    struct regex *re;
    struct err_at at = { 0 };
    assert_ok(regex_open(slice_str("a(.)(c)?"), REGEX_MEMORY_BYTES_MAX, &re, &at));
    assert_true(regex_full_match(re, slice_str("a\nc")));
    assert_false(regex_full_match(re, slice_str("xabc")));
    struct slice groups[3];
    assert_int_equal(regex_group_count(re), 2);
    assert_true(regex_full_match_groups(re, slice_str("ab"), groups, 3));
    assert_true(slice_equal_str(groups[1], "b"));
    assert_null(groups[2].at);
    regex_close(re);
}

static void refuses(void **state)
{
    struct regex *re = NULL;
    struct err_at at = { 0 };
    const char *bad[] = { "a(", "\\C", "(?=x)", "a{2000}", "\\1" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_err(ERR_INPUT, regex_open(slice_str(bad[i]), REGEX_MEMORY_BYTES_MAX, &re, &at));
        assert_true(at.text[0] != 0);
    }
    assert_ok(regex_open(slice_str("\\Q\\C\\Ea"), REGEX_MEMORY_BYTES_MAX, &re, &at));
    assert_true(regex_full_match(re, slice_str("\\Ca")));
    regex_close(re);
    assert_ok(regex_open(slice_str("\\\\C"), REGEX_MEMORY_BYTES_MAX, &re, &at));
    assert_true(regex_full_match(re, slice_str("\\C")));
    regex_close(re);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(matches), cmocka_unit_test(refuses) };
    return cmocka_run_group_tests_name("regex", tests, NULL, NULL);
}
