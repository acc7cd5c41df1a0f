#!/usr/bin/env python3
"""Writes the seed corpora of ingest's fuzz targets below tests/fuzz/corpus/. Run from anywhere; same bytes each time."""
import os
import struct

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


CORPUS = {
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
