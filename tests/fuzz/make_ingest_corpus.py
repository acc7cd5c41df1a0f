#!/usr/bin/env python3
"""Writes the seed corpora of protocols and HTTP below tests/fuzz/corpus/, the same bytes each time."""
import os
import struct
import zlib

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def varint(v):
    v &= (1 << 64) - 1
    out = b""
    while v >= 0x80:
        out += bytes([v & 0x7F | 0x80])
        v >>= 7
    return out + bytes([v])


def zigzag(v):
    return varint(v << 1 if v >= 0 else (-v << 1) - 1)


def number(field, v):
    return varint(field << 3) + varint(v)


def double(field, v):
    return varint(field << 3 | 1) + struct.pack("<d", v)


def message(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


def labels(*pairs):
    return b"".join(message(1, message(1, k.encode()) + message(2, v.encode())) for k, v in pairs)


def sample(t, v, start=0):
    return message(2, double(1, v) + number(2, t) + (number(3, start) if start else b""))


def span(offset, length):
    return number(1, -2 * offset - 1 if offset < 0 else 2 * offset) + number(2, length)


INTEGER = (number(1, 6) + double(3, 5.5) + number(4, 4) + double(5, 1e-9) + number(6, 1) + message(11, span(-2, 2))
           + message(12, zigzag(2) + zigzag(1)) + number(14, 1) + number(15, 1000))
CUSTOM = (double(2, 4.5) + double(3, 1) + number(4, 105) + message(11, span(0, 3))
          + message(13, struct.pack("<ddd", 1, 2, 1.5)) + number(15, 1000) + message(16, struct.pack("<dd", 1, 2)))
EXEMPLAR = labels(("trace_id", "abc")) + double(2, 0.5) + number(3, 999)
METADATA = number(1, 1) + message(2, b"up") + message(4, b"help") + message(5, b"unit")
UP = labels(("__name__", "up"), ("job", "a"))


def string(s):
    return varint(len(s)) + s


def batch(announces=(), rows=(), exemplars=b"", exemplar_count=0, metadata=b"", metadata_count=0):
    head = bytes([1, 1, 0, 0]) + bytes(range(16)) + struct.pack("<QQ", 7, 1750000000000) + string(b"default")
    head += b"".join(varint(n) for n in (len(announces), len(rows), 0, 0, exemplar_count, metadata_count))
    body = b""
    if announces:
        plain = b"".join(zigzag(0 if i == 0 else n - announces[i - 1][0] - 1) + string(l)
                         for i, (n, l) in enumerate(announces))
        body += varint(len(plain)) + varint(0) + plain
    if rows:
        body += varint(rows[0][0] * 4 | (len(rows) > 1)) + (varint(len(rows) - 2) if len(rows) > 1 else b"")
        body += varint(0 | (len(rows) > 1)) + (varint(len(rows) - 2) if len(rows) > 1 else b"")
        codes = bytearray((len(rows) + 1) // 2)
        values = b""
        for i, (_, v) in enumerate(rows):
            raw = v.to_bytes(8, "little").rstrip(b"\0")
            codes[i // 2] |= len(raw) << 4 * (i % 2)
            values += raw
        body += bytes(codes) + values
    return head + body + exemplars + metadata


def request(line, *headers, body=b""):
    length = ["Content-Length: %d" % len(body)] if body else []
    head = [line + " HTTP/1.1", "Host: a", "Authorization: Bearer secret", *headers, *length, "", ""]
    return "\r\n".join(head).encode() + body


def snappy(plain):
    """A block of one literal."""
    return varint(len(plain)) + bytes([61 << 2]) + struct.pack("<H", len(plain) - 1) + plain


FORM = "Content-Type: application/x-www-form-urlencoded"
PROTOBUF = "Content-Type: application/x-protobuf"
WRITE_1 = message(1, UP + sample(1000, 1.5)) + message(3, METADATA)
WRITE_2 = b"".join(message(4, s) for s in (b"", b"__name__", b"up", b"job", b"a")) + message(
    5, message(1, b"\1\2\3\4") + sample(1000, 1.5, 500))
TEXT = [b"# HELP up is\\nit\n# TYPE up gauge\nup{a=\"b\",c=\"d\\\"e\"} 1.5 1000\n"
        b"up NaN\nup +Inf\nd_x{x1=\"y\"} 2\n",
        b"# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\n"
        b"h_count 2\ns{quantile=\"0.50\"} 1\n",
        b"# TYPE a counter\n# UNIT a s\na_total{x=\"y\"} 1 1.5 # {trace_id=\"z\"} 0.5 2.25\n# EOF\n",
        b"a{instance=\"x\",exported_instance=\"y\",job=\"\"} 1\n{\"my.metric\",\"a.b\"=\"c\"} 1e3\n"
        b"b{a=\"1\",a=\"2\"} 1\n"]
GETS = ["/api/v1/query?query=up%7Bjob%3D%22a%22%7D&time=3",
        "/api/v1/query?query=sum(rate(up%5B5s%5D))&time=9.5&stats=all",
        "/api/v1/query_range?query=up&start=1&end=20&step=1500ms&limit=1",
        "/api/v1/query?query=h&time=3&proof=true",
        "/api/v1/series?match[]=up&match[]=%7Bjob%3D~%22a.*%22%7D&start=0&end=9",
        "/api/v1/labels?match[]=up&limit=1",
        "/api/v1/label/job/values", "/api/v1/label/U__my_2e_label/values?match[]=dotted",
        "/api/v1/metadata?metric=a&limit=1",
        "/api/v1/query_exemplars?query=up&start=0&end=9", "/api/v1/status/buildinfo",
        "/api/v1/status/tsdb?limit=2",
        "/api/v1/status/runtimeinfo", "/api/v1/status/flags", "/api/v1/status/config",
        "/api/v1/targets?state=active",
        "/api/v1/rules", "/api/v1/alerts", "/-/healthy", "/-/ready", "/metrics", "/", "/nothing",
        "/api/v1/label//values",
        "/api/v1/query_range?query=up&start=1&end=20&step=0",
        "/api/v1/query_range?query=up&start=1&end=99999&step=1",
        "/api/v1/query_range?query=up&start=9&end=1&step=1", "/api/v1/query_range?query=up",
        "/api/v1/query?query=1&partial=x",
        "/api/v1/series", "/api/v1/series?match[]=1", "/api/v1/series?match[]=up&limit=-1",
        "/api/v1/labels?start=9&end=1",
        "/api/v1/series?match[]=sum(", "/api/v1/query_exemplars?query=1%2B",
        "/api/v1/query?query=up&timeout=x&limit=0",
        "/api/v1/query?query=up%5B20s%5D&time=20", "/api/v1/query?query=%22a%22&lookback_delta=y",
        "/api/v1/query?query=1&timeout=-1",
        "/api/v1/label/job/values?start=3&end=x", "/api/v1/query?query=h%20%2B%20h&time=3",
        "/api/v1/query?query=up&time=x", "/api/v1/query?query=up%zz", "/api/v1/query?query=sum(",
        "/api/v1/format_query?query=a"]


def answer(flags, status, *headers, body=b""):
    return bytes([flags]) + "\r\n".join(["HTTP/1.1 " + status, *headers, "", ""]).encode() + body


def gzip(plain):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(plain) + packer.flush()


MANY = b"".join(b"m%d 1\n" % i for i in range(1200))


def page(text):
    units = -(-len(text) // 64)
    return bytes([units]) + text.ljust(units * 64, b"\n")


CORPUS = {
    "client": [
        answer(0, "200 OK", "Content-Type: text/plain; version=0.0.4", "Content-Length: 4", body=b"up 1"),
        answer(1, "200 OK", "Content-Encoding: gzip", body=gzip(b"up 1\n")), answer(0, "204 No Content"),
        answer(1, "200 OK", "content-encoding:  gzip ", "Transfer-Encoding: chunked",
               body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(gzip(TEXT[0])), gzip(TEXT[0]))),
        answer(3, "200 OK", "Content-Encoding: gzip", body=gzip(5000 * b"a")),
        answer(0, "200 OK", "Content-Encoding: gzip", body=gzip(b"x")), answer(1, "200", "Content-Encoding: br"),
        answer(1, "200 OK", "Content-Encoding: gzip", body=gzip(b"up 1\n")[:-4]),
        answer(2, "200 OK", body=500 * b"a"),
        answer(1, "200 OK", "Content-Encoding: gzip", body=b"not gzip at all"),
        answer(0, "500 No", "Content-Length: 9"),
        answer(1, "200 OK", "Content-Encoding: identity", body=b"x"), answer(0, "301 Moved", "Content-Length: 0"),
        answer(1, "100 Continue")
        + answer(1, "200 OK", "Content-Encoding: gzip", "Content-Length: 3", body=b"abc")[1:],
        answer(0, "200 OK", "Content-Type: " + 400 * "x", body=b"a"), answer(0, "200 OK", "\tfolded: x", "A: b"),
        b"\0HTTP/0.9 none\r\n", b"\0garbage", b"\0\n",
    ],
    "http": [request("GET " + path) for path in GETS] + [
        request("GET /api/v1/labels", "Accept-Encoding: br, gzip;q=0.5", "Origin: http://x",
                "X-Scope-OrgID: a"),
        request("GET /metrics", "Accept-Encoding: gzip"),
        request("GET /metrics", "Accept-Encoding: gzip ;q=0.0, x"),
        request("POST /api/v1/import/prometheus", "Transfer-Encoding: chunked") + b"3000\r\n" + 12288 * b"\n"
        + b"\r\n0\r\n\r\n",
        request("POST /api/v1/import/prometheus", "Content-Encoding: br", body=b"x"),
        request("POST /api/v1/query", body=b"x=1"),
        request("POST /api/v1/import/prometheus", "Content-Encoding: identity", body=b"x 1\n"),
        request("POST /api/v1/import/prometheus", "X-Scope-OrgID: a b", body=b"x 1\n"),
        request("POST /api/v1/query", FORM, body=b"query=%zz"), request("GET /api/v1/query?" + 200 * "&a=b"),
        request("GET /api/v1/label/%ff/values"), request("GET /api/v1/series?" + 1100 * "&match[]=a"),
        request("GET /api/v1/series?match[]=" + 400 * "("), request("HEAD /metrics"),
        request("OPTIONS /api/v1/query"),
        request("POST /api/v1/query", FORM, body=b"query=1%2B1&time=4"), request("PATCH /metrics"),
        request("FOO /"),
        request("POST /api/v1/query_range?step=1", FORM, body=b"query=up&start=1&end=3")
        + request("GET /-/ready"),
        request("POST /api/v1/write", PROTOBUF, "Content-Encoding: snappy", body=snappy(WRITE_1)),
        request("POST /api/v1/write", PROTOBUF + ";proto=io.prometheus.write.v2.Request", body=snappy(WRITE_2)),
        request("POST /api/v1/write", "Content-Type: text/plain", body=b"x"),
        request("POST /api/v1/import/prometheus", "X-Scope-OrgID: t", body=TEXT[0]),
        request("POST /api/v1/import/prometheus", "Content-Encoding: gzip", body=TEXT[0]),
        request("POST /api/v1/import/prometheus", "Transfer-Encoding: chunked") + b"5\r\nup 1\n\r\n0\r\n\r\n",
        request("POST /api/v1/write", "Transfer-Encoding: chunked", "Content-Length: 3") + b"abc",
        request("POST /api/v1/write", "Content-Length: 3", "Content-Length: 4") + b"abcd",
        request("POST /api/v1/write", "Content-Length: 99999"),
        request("POST /api/v1/write", "Content-Length: -1"),
        request("POST /-/reload"), request("POST /api/v1/admin/tsdb/snapshot"), request("PUT /-/quit"),
        request("GET /api/v1/labels", "X-Scope-OrgID: a/b"),
        request("GET /api/v1/labels", "Expect: 100-continue"),
        b"GET /api/v1/labels HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /-/healthy HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET /\r\n", b"\r\n", b"\x16\3\1\2\0\1",
    ],
    "remote_write": [
        b"application/x-protobuf\nsnappy\n" + snappy(WRITE_1), b"\n\n" + snappy(WRITE_1),
        b"Application/X-Protobuf ; a=b; Proto=\"io.prometheus.write.v2.Request\"\n snappy\n" + snappy(WRITE_2),
        b"application/x-protobuf;proto=prometheus.WriteRequest\n\n" + snappy(WRITE_1),
        b"application/x-protobuf;proto=other\n\n", b"application/json\n\n{}",
        b"application/x-protobuf\ngzip\nx",
        b"\n\n\xff\xff\xff\xff\x0f", b"\n\n\xff\xff\x7f" + 70000 // 20 * b"\xfe\0\0",
        b"\n\n" + snappy(b"\x0a\5abc"),
        b"\n\n" + snappy(9000 * b"\0"),
    ],
    "import": [bytes([flags]) + text for flags in (0, 1, 2, 4, 8, 16, 32, 64) for text in TEXT],
    "scrape": [bytes([kind]) + b"".join(map(page, pages)) for kind in range(8) for pages in (
        (TEXT[0], TEXT[1]), (TEXT[1], TEXT[0]), (TEXT[2], TEXT[3]), (TEXT[3], TEXT[3], b"", TEXT[2], TEXT[2]))
    ] + [bytes([kind]) + page(MANY) + 6 * page(b"a 1\n") for kind in range(4)],
    "remote_write_1": [
        b"\0" + message(1, UP + sample(1000, 1.5)) + message(1, UP + sample(2000, 2)) + message(3, METADATA),
        b"\0" + message(1, labels(("job", "a"), ("__name__", "up")) + sample(1, 1)),
        b"\1" + sample(1, 1) + message(3, EXEMPLAR) + message(4, INTEGER),
        b"\2" + INTEGER, b"\2" + CUSTOM, b"\3" + EXEMPLAR, b"\4" + METADATA,
    ],
    "remote_write_2": [
        b"\0" + b"".join(message(4, s) for s in (b"", b"__name__", b"up", b"job", b"a"))
        + message(5, message(1, b"\1\2\3\4") + sample(1000, 1.5, 500)),
        b"\1" + message(1, b"\1\2") + sample(1, 1),
        b"\2" + sample(1, 1, 1) + message(3, INTEGER + number(17, 5)),
        b"\3" + CUSTOM, b"\4" + message(1, b"\1\2") + double(2, 1) + number(3, 5),
        b"\5" + number(1, 3) + number(3, 1) + number(4, 2),
    ],
    "text": [
        b"\0# HELP up is\\nit\n# TYPE up gauge\nup{a=\"b\",c=\"d\\\"e\"} 1.5 1000\nup NaN\nup +Inf\n",
        b"\0{\"my.metric\",\"a.b\"=\"c\"} 1e3\n\n# comment\nx{} -1 -5\n",
        b"\1# TYPE a counter\n# UNIT a s\na_total{x=\"y\"} 1 1.5 # {trace_id=\"z\"} 0.5 2.25\n# EOF\n",
    ],
    "snappy": [b"\x05\x10hello", b"\x40\x00a\xfe\x01\x00", b"\0", b"\xff\x06\0\0sNaPpY"],
    "batch": [
        b"\0" + batch(),
        b"\0" + batch([(0, UP), (1, labels(("__name__", "x")))], [(0, 5), (1, 70000), (2, 0)]),
        b"\0" + batch([], [(3, 9)], zigzag(3) + zigzag(0) + struct.pack("<d", 1) + string(UP), 1,
                      string(b"up") + b"\2" + string(b"help") + string(b""), 1),
        b"\1" + bytes(6), b"\1" + bytes([0, 1, 0, 0, 0, 0, 0, 0, 1, 5]),
    ],
}

for name, seeds in CORPUS.items():
    folder = os.path.join(ROOT, name)
    os.makedirs(folder, exist_ok=True)
    for i, seed in enumerate(seeds):
        with open(os.path.join(folder, "seed-%02d" % i), "wb") as f:
            f.write(seed)
