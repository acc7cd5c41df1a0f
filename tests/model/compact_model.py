#!/usr/bin/env python3
"""A second, slow decoder of compact segments, written from docs/format/{segment,compact}.md and docs/codecs.md alone.

usage: compact_model.py DUMP FILE   prints nothing and exits 0 when `DUMP FILE` (tests/golden/compact_dump) says the
                                    same as this decoder; else the first difference
Labels (index parts) are not decoded here."""
import ctypes
import ctypes.util
import struct
import subprocess
import sys

M64 = (1 << 64) - 1
CRC_TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82f63b78 if byte & 1 else 0)
    CRC_TABLE.append(byte)


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 255]
    return crc ^ 0xffffffff


def signed(v):
    v &= M64
    return v - (1 << 64) if v >> 63 else v


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def left(self):
        return len(self.data) - self.at

    def bytes(self, n):
        assert n <= self.left(), 'short'
        self.at += n
        return self.data[self.at - n:self.at]

    def u(self, n):
        return int.from_bytes(self.bytes(n), 'little')

    def varint(self):
        v = shift = 0
        while True:
            b = self.u(1)
            v |= (b & 127) << shift
            shift += 7
            if b < 128:
                return v

    def zigzag(self):
        v = self.varint()
        return v >> 1 ^ -(v & 1)

    def string(self):
        return self.bytes(self.varint())

    def ints(self, n):
        """codecs.md section 2, one vector."""
        head = self.u(1)
        assert head >> 5 == 0
        transform = head & 7
        if transform == 0:
            return [self.zigzag()] * n
        g = self.varint() if head & 8 else 1
        first = self.zigzag()
        fields, bitmap = {1: n, 2: n - 1, 3: 0, 4: n - 2}[transform], 0
        if transform == 3:
            bitmap = self.u((n - 1 + 7) // 8)
            fields = bin(bitmap).count('1')
        delta = self.zigzag() if transform == 4 else 0
        width = self.u(1)
        base = self.zigzag() if transform != 1 else 0
        positions, patches = [], []
        if head & 16:
            count = self.u(1)
            positions = list(self.bytes(count))
            patches = [self.zigzag() for _ in range(count)]
        packed = self.u((fields * width + 7) // 8)
        u = [packed >> i * width & (1 << width) - 1 for i in range(fields)]
        for position, patch in zip(positions, patches):
            u[position] = patch
        if transform == 1:
            return [signed(first + g * x) for x in u]
        out = [first]
        if transform == 2:
            for x in u:
                out.append(signed(out[-1] + g * (base + x)))
        elif transform == 3:
            rest = iter(u)
            for i in range(n - 1):
                out.append(signed(out[-1] + g * (base + next(rest))) if bitmap >> i & 1 else out[-1])
        else:
            out.append(signed(first + g * delta))
            for x in u:
                delta += base + x
                out.append(signed(out[-1] + g * delta))
        return out

    def floats(self, n):
        """codecs.md section 3: bits."""
        head = self.u(1)
        if head == 128:
            pattern, holes = self.u(8), self.u((n + 7) // 8)
            rest = iter(self.floats(n - bin(holes).count('1')))
            return [pattern if holes >> i & 1 else next(rest) for i in range(n)]
        scale, stale, others, patterns = head & 31, [], [], []
        if head & 32:
            stale = list(self.bytes(self.u(1) + 1))
        if head & 64:
            others = list(self.bytes(self.u(1) + 1))
            patterns = [self.u(8) for _ in others]
        values = self.ints(n)
        if scale == 31:
            out = [v & M64 for v in values]
        else:
            out = [struct.unpack('<Q', struct.pack('<d', float(v) / 10.0 ** scale))[0] for v in values]
        for position in stale:
            out[position] = 0x7ff0000000000002
        for position, pattern in zip(others, patterns):
            out[position] = pattern
        return out

    def column(self, n):
        out = []
        while n > 0:
            out += self.ints(min(n, 256))
            n -= 256
        return out


def lz4(data, size):
    r, out = Reader(data), bytearray()
    while True:
        token = r.u(1)
        n = token >> 4
        while n >= 15 and (n - 15) % 255 == 0:
            more = r.u(1)
            n += more
            if more != 255:
                break
        out += r.bytes(n)
        if r.left() == 0:
            assert len(out) == size
            return bytes(out)
        offset, n = r.u(2), token & 15
        while n >= 15 and (n - 15) % 255 == 0:
            more = r.u(1)
            n += more
            if more != 255:
                break
        for _ in range(n + 4):
            out.append(out[-offset])


def zstd(data, size):
    library = ctypes.CDLL(ctypes.util.find_library('zstd') or 'libzstd.so.1')
    library.ZSTD_decompress.restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(size)
    assert library.ZSTD_decompress(out, ctypes.c_size_t(size), data, ctypes.c_size_t(len(data))) == size
    return out.raw


class Segment:
    """segment.md"""

    def __init__(self, data):
        tail = data[-32:]
        assert data[:16] == b'kelpseg\n\1\0\1\0\0\0\0\0' and tail[24:] == b'\ngespleK'
        assert crc32c(tail[:20]) == int.from_bytes(tail[20:24], 'little')
        offset, length, crc = struct.unpack('<QII', tail[:16])
        footer = data[offset:offset + length]
        assert offset + length + 32 == len(data) and crc32c(footer) == crc
        r = Reader(footer)
        assert (r.u(2), r.u(2)) == (1, 0)
        r.bytes(36)
        self.first_ms, self.last_ms, self.series = signed(r.u(8)), signed(r.u(8)), r.u(8)
        sums = [r.u(8) for _ in range(12)]
        self.rows, self.distinct = sums[0], sums[3]
        self.tenants = [r.string() for _ in range(r.varint())]
        n = r.u(4)
        columns = [r.column(n) for _ in range(4)]
        self.sections, at = {}, 16
        for section, stage, content_bytes, stored_bytes in zip(*columns):
            stored = data[at:at + stored_bytes]
            at += stored_bytes
            assert crc32c(stored) == r.u(4)
            content = stored if stage == 0 else lz4(stored, content_bytes) if stage == 1 else zstd(stored, content_bytes)
            self.sections.setdefault(section, []).append(content)
        assert at == offset and r.left() == 0

    def blocks(self, section):
        return self.sections.get(section, [])

    def whole(self, section):
        return Reader(b''.join(self.blocks(section)))


def vectors(data, n, is_float):
    k = (n + 255) // 256
    r = Reader(data[2 * (k - 1):])
    out = []
    for i in range(k):
        rows = min(256, n - 256 * i)
        out += r.floats(rows) if is_float else r.ints(rows)
        end = int.from_bytes(data[2 * i:2 * i + 2], 'little') if i + 1 < k else r.at
        assert r.at == end
    assert r.left() == 0
    return out


def places(block, offset, lengths):
    for length in lengths:
        if offset > 0 and offset + length > 65536:
            block, offset = block + 1, 0
        yield block, offset
        offset += length


class Compact:
    """compact.md"""

    def __init__(self, segment):
        self.segment = segment
        self.timelines = []
        for content in segment.blocks(7):
            r = Reader(content)
            block, offset, n = r.u(4), r.u(4), r.u(2)
            rows, lengths, first, span = (r.column(n) for _ in range(4))
            for i, (b, o) in enumerate(places(block, offset, lengths)):
                payload = Reader(segment.blocks(6)[b][o:o + lengths[i]])
                firsts = payload.column((rows[i] + 255) // 256 - 1)
                times = vectors(payload.bytes(payload.left()), rows[i], False)
                assert times == sorted(times) and times[0] == first[i] and times[-1] == first[i] + span[i]
                assert firsts == times[256::256]
                self.timelines.append(times)
        self.parts, self.series = [], []
        for content in segment.blocks(3):
            r = Reader(content)
            first_series, first_part, block, offset, n, part_count = (r.u(4), r.u(4), r.u(4), r.u(4), r.u(2), r.u(2))
            assert first_series == len(self.series) and first_part == len(self.parts)
            counts = r.column(n)
            flags, rows, lengths, timelines = (r.column(part_count) for _ in range(4))
            firsts = iter(r.column(sum(f >> 4 & 1 for f in flags)))
            assert sum(counts) == part_count and r.left() == 0
            for count in counts:
                self.series.append(range(first_part, first_part + count))
                first_part += count
            for i, (b, o) in enumerate(places(block, offset, lengths)):
                first = next(firsts) if flags[i] & 16 else 0
                self.parts.append((flags[i], rows[i], timelines[i], first, segment.blocks(5)[b][o:o + lengths[i]]))
        self.values = {}

    def part(self, number):
        """times, bits, start times, histograms by row"""
        flags, rows, timeline, first, payload = self.parts[number]
        r, start, histograms = Reader(payload), [0] * rows, {}
        if flags & 4:
            start = vectors(r.string(), rows, False)
        if flags & 8:
            block, offset, count = r.varint(), r.varint(), r.varint()
            stream = Reader(b''.join([self.segment.blocks(8)[block][offset:]] + self.segment.blocks(8)[block + 1:]))
            histograms = {row: stream.string() for row in r.column(count)}
        kind = flags & 3
        if kind == 0:
            bits = vectors(r.bytes(r.left()), rows, True)
        elif kind == 1:
            bits = r.floats(1) * rows
        else:
            other = number - r.varint()
            bits = self.part(other)[1]
            if kind == 3:
                above = [int(struct.unpack('<d', struct.pack('<Q', b))[0]) for b in bits]
                minus = vectors(r.bytes(r.left()), rows, False)
                bits = [struct.unpack('<Q', struct.pack('<d', a - m))[0] for a, m in zip(above, minus)]
        return self.timelines[timeline][first:first + rows], bits, start, histograms

    def exemplars(self):
        firsts = self.segment.whole(10).column(len(self.segment.blocks(9)))
        out = {}
        for ordinal, content in zip(firsts, self.segment.blocks(9)):
            r = Reader(content)
            while r.left():
                ordinal += r.varint()
                out.setdefault(ordinal, []).append((r.zigzag(), r.u(8), r.string()))
        return out


def dump(data):
    s = Segment(data)
    c = Compact(s)
    exemplars = c.exemplars()
    assert len(c.series) == s.series
    yield 'rows %d distinct %d from %d to %d' % (s.rows, s.distinct, s.first_ms, s.last_ms)
    for ordinal, parts in enumerate(c.series):
        yield 'series %d' % ordinal
        for part in parts:
            times, bits, start, histograms = c.part(part)
            for i, t in enumerate(times):
                value = 'h ' + histograms[i].hex() if i in histograms else 'f %016x' % bits[i]
                yield '%d %s %d' % (t, value, start[i])
        for t, value, labels in exemplars.get(ordinal, []):
            yield 'exemplar %d %016x %s' % (t, value, labels.hex())
    r = s.whole(11)
    while r.left():
        tenant, family, kind, text, unit = r.string(), r.string(), r.u(1), r.string(), r.string()
        yield 'metadata %s %s %d %s %s' % (tenant.decode(), family.decode(), kind, text.decode(), unit.decode())


def main():
    with open(sys.argv[2], 'rb') as f:
        mine = list(dump(f.read()))
    theirs = subprocess.run([sys.argv[1], sys.argv[2]], capture_output=True, text=True, check=True).stdout.split('\n')
    for number, (a, b) in enumerate(zip(mine + [''], theirs)):
        if a != b:
            sys.exit('line %d: model %r, program %r' % (number + 1, a, b))
    if len(mine) + 1 != len(theirs):
        sys.exit('%d lines, program %d' % (len(mine), len(theirs) - 1))


main()
