/* Goal: parameters come out as Go's url.ParseQuery gives them, bad ones are refused; routes choose the
 * best pattern. Method: tables. */
#include "base/test.h"

#include "net/form.h"
#include "net/router.h"

static struct pool *root;

/* "a=1|b=2" of the decoded pairs. */
static err parse(const char *text, size_t count_max, struct buf *out)
{
    struct form form = { .count_max = count_max };
    err e = form_parse(root, slice_str(text), &form);
    buf_clear(out);
    for (size_t i = 0; i < form.count && e == OK; i++)
        buf_printf(out, "%s%.*s=%.*s", i == 0 ? "" : "|", SLICE_ARG(form.params[i].name),
                   SLICE_ARG(form.params[i].value));
    return e;
}

static void test_forms(void **state)
{
    static const struct {
        const char *text, *pairs;
    } good[] = {
        { "", "" },
        { "a=1", "a=1" },
        { "a=1&a=2&b=", "a=1|a=2|b=" },
        { "a", "a=" },
        { "&&a=1&", "a=1" },
        { "q=a%2Bb+c%26", "q=a+b c&" },
        { "match%5B%5D=%7Bx%3D%22y%22%7D", "match[]={x=\"y\"}" },
        { "a=b=c", "a=b=c" },
        { "=x", "=x" },
        { "%c3%a4=%F0%9F%98%80", "ä=😀" },
    };
    static const char *const bad[] = { "a=%", "a=%1", "a=%zz", "%=1", "a=1;b=2", "a=%2" };
    struct buf out = buf_open(root, 1000);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_ok(parse(good[i].text, 10, &out));
        assert_true(slice_equal_str(buf_slice(&out), good[i].pairs));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_err(ERR_INPUT, parse(bad[i], 10, &out));
    assert_err(ERR_LIMIT, parse("a&b&c", 2, &out));
    buf_close(&out);
}

static void test_torture(void **state)
{
    for (uint64_t nth = 1; nth < 100; nth++) {
        struct pool *tree = pool_open(NULL, "form", POOL_BYTES_UNLIMITED);
        struct form form = { .count_max = 10 };
        pool_fault_at(tree, nth, true);
        err e = form_parse(tree, slice_str("a=%20&b=+&c=d"), &form);
        pool_fault_at(tree, 0, false);
        pool_close(tree);
        if (e == OK)
            return;
        assert_int_equal(e, ERR_LIMIT);
    }
    fail_msg("never succeeded");
}

static void handler(void *context, struct net_request *request, struct net_response *response) {}

static const struct net_route routes[] = {
    { NET_GET | NET_POST, "/api/v1/query", handler, 0, false },
    { NET_GET, "/api/v1/label/{name}/values", handler, 0, false },
    { NET_GET, "/api/v1/label/exact/values", handler, 0, false },
    { NET_POST, "/static/*", handler, 0, false },
    { NET_GET, "/", handler, 0, false },
};

static void assert_route(enum net_method method, const char *path, int route, const char *argument,
                         unsigned allowed)
{
    struct slice got;
    unsigned got_allowed;
    const struct net_route *found = router_find(routes, 5, method, slice_str(path), &got, &got_allowed);
    assert_ptr_equal(found, route < 0 ? NULL : &routes[route]);
    assert_int_equal(got_allowed, allowed);
    if (route >= 0)
        assert_true(slice_equal_str(got, argument));
}

static void test_routes(void **state)
{
    assert_ok(router_check(routes, 5, NULL));
    assert_route(NET_GET, "/", 4, "", NET_GET);
    assert_route(NET_HEAD, "/", 4, "", NET_GET);
    assert_route(NET_POST, "/api/v1/query", 0, "", NET_GET | NET_POST);
    assert_route(NET_PUT, "/api/v1/query", -1, "", NET_GET | NET_POST);
    assert_route(NET_GET, "/api/v1/query/", -1, "", 0);
    assert_route(NET_GET, "/api/v1/label/job/values", 1, "job", NET_GET);
    assert_route(NET_GET, "/api/v1/label/a%2Fb/values", 1, "a%2Fb", NET_GET);
    assert_route(NET_GET, "/api/v1/label/exact/values", 2, "", NET_GET);
    assert_route(NET_GET, "/api/v1/label//values", -1, "", 0);
    assert_route(NET_POST, "/static/a/b", 3, "a/b", NET_POST);
    assert_route(NET_POST, "/static", -1, "", 0);

    static const char *const bad[] = { "x", "/{a", "/a{b}", "/*/a", "/{a}b", "/{a}/{b}" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct net_route route = { NET_GET, bad[i], handler, 0, false };
        assert_err(ERR_INPUT, router_check(&route, 1, NULL));
    }
    struct net_route twice[] = { { NET_GET, "/a", handler, 0, false },
                                 { NET_GET | NET_PUT, "/a", handler, 0, false } };
    assert_err(ERR_INPUT, router_check(twice, 2, NULL));
    assert_err(ERR_LIMIT, router_check(routes, NET_ROUTES_MAX + 1, NULL));
}

int main(void)
{
    root = pool_open(NULL, "form_test", POOL_BYTES_UNLIMITED);
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_forms), cmocka_unit_test(test_torture),
                                        cmocka_unit_test(test_routes) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_close(root);
    return failed;
}
