#!/usr/bin/env python3
"""Seeds of the harnesses of small formats, from the golden files and from what people write: rewrites
tests/fuzz/corpus/{chain,state,stream,log,log_files,batch,index_part,identity,histogram,form,web_config,config,
node_config,float,compression,matcher,labels,control,rpc,rpc_stream,fanout_wire,sync}/golden-*. Seeds of other names are kept: files and
groups that a node wrote, and what fuzzing found."""
import os
import struct
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, '../golden')


def golden(name):
    with open(os.path.join(GOLDEN, name), 'rb') as f:
        return f.read()


def seed(harness, number, content):
    folder = os.path.join(HERE, 'corpus', harness)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, 'golden-%02d' % number), 'wb') as f:
        f.write(content if isinstance(content, bytes) else content.encode())


def entries(chain):
    while chain:
        (length,) = struct.unpack_from('<H', chain)
        yield chain[2:2 + length]
        chain = chain[2 + length:]


def frames(stream):
    at = 64
    while at < len(stream):
        checkpoint, group = struct.unpack_from('<QQ', stream, at + 16)
        yield stream[at + 48:at + 48 + checkpoint]
        at += 48 + checkpoint + group


def varint(n):
    out = b''
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


JOB = 'scrape_configs:\n- job_name: a\n  '

# Each is refused in a place of its own.
CONFIG_MISTAKES = [
    'global:\n  body_size_limit: 2GB\n',
    'global:\n  body_size_limit: 0\n  scrape_interval: 0s\n  scrape_timeout: 2m\n',
    'global:\n  external_labels:\n    "": x\n', 'global:\n  external_labels: {a: , b: 1}\n',
    'global:\n  external_labels: {%s}\n' % ', '.join('l%d: 1' % i for i in range(1100)),
    'scrape_configs: {}\n', 'scrape_configs:\n- job_name: ""\n', 'scrape_configs:\n- job_name: "\\xff"\n',
    'scrape_configs:\n- job_name: a\n- job_name: a\n', JOB + 'tenant: ""\n', JOB + 'scrape_timeout: 2m\n',
    JOB + 'scrape_interval: 5s\n', JOB + 'static_configs:\n  - targets: ["http://a/b"]\n',
    JOB + 'file_sd_configs:\n  - refresh_interval: 1m\n', JOB + 'file_sd_configs:\n  - files: [a.txt]\n',
    JOB + 'file_sd_configs:\n  - files: [/a/b*.yml, c.json, "x*/y*.yaml"]\n',
    JOB + 'file_sd_configs:\n  - files: [%s]\n' % ', '.join('f%d.yml' % i for i in range(1100)),
    JOB + 'params: {%s}\n' % ', '.join('p%d: [1]' % i for i in range(300)),
    JOB + 'basic_auth: {password: x}\n', JOB + 'basic_auth: {username: u, password: x, password_file: y}\n',
    JOB + 'authorization: {type: basic}\n', JOB + 'authorization: {credentials: x, credentials_file: y}\n',
    JOB + 'bearer_token: x\n  bearer_token_file: y\n', JOB + 'bearer_token: x\n  basic_auth: {username: u}\n',
    JOB + 'bearer_token: "x\\ny"\n', JOB + 'tls_config: {cert_file: x}\n',
    JOB + 'tls_config: {ca_file: /x, min_version: TLS12, server_name: s, insecure_skip_verify: true}\n',
    JOB + 'tls_config: {min_version: TLS9}\n', JOB + 'unknown: 1\n']


def floats(*values):
    return struct.pack('<%dd' % len(values), *values)


def float_seeds():
    """Values that the codec takes different ways: integers, decimals of many scales, bits, stale markers, holes."""
    stale = struct.pack('<Q', 0x7ff0000000000002)
    counters = floats(*(float(1000 + 7 * i) for i in range(256)))
    decimals = floats(*(round(0.001 * i * i, 3) for i in range(200)))
    tiny = floats(*(i * 1e-12 for i in range(1, 60)))
    rough = floats(*((0.1 + i) ** 0.5 for i in range(64)))
    odd = floats(float('nan'), float('inf'), -0.0, 1e300)
    mixed = floats(*range(40)) + stale + odd + floats(*range(20)) + stale
    holes = 20 * (3 * floats(float('nan')) + floats(*range(5)) + stale)
    for values in (counters, decimals, tiny, rough, mixed, 40 * stale, 300 * floats(2.5), holes):
        for choice in (3, 7, 1, 8 + 3, 8 + 7):   # vectors of floats at both efforts, of integers; columns
            yield bytes([choice, 255]) + values
    yield bytes([2, 7, 128]) + floats(float('nan')) + b'\x11\0\1\6\3' + bytes(5)   # an encoded one


def frame(partition, offset, payload, durable=0):
    head = struct.pack('<2sHIIIQII', b'KF', partition, len(payload), 0, durable // 8, offset, 0, 0)
    return head + payload + bytes(-len(payload) % 8)


def log_file(number, frames, previous=0, previous_end=0, starts=(0, 0), trims=(0, 0), version=1, is_free=False):
    """A file of a log of two partitions as the harness takes it, which makes the checksums."""
    header = struct.pack('<8sII16sQQQQ', b'KELP_LOG', version, 2, b'', number, previous, previous_end, 0)
    header += struct.pack('<QQQQ', starts[0], trims[0], starts[1], trims[1])
    content = 2 * header.ljust(4096, b'\0') + b''.join(frames)
    content += bytes(-len(content) % 64)
    return struct.pack('<BH', number | 128 * is_free, len(content) // 64) + content


def log_seeds():
    """Chains of files: whole, torn, damaged in the middle, with gaps and markers, too new, left over."""
    ends = struct.pack('<QQ', 2, 1)
    whole = [frame(0, 0, b'first.'), frame(1, 0, b'second'), frame(0, 1, 100 * b'ab'), frame(65535, 0, ends)]
    end = 8192 + sum(map(len, whole))
    one = log_file(1, whole)
    yield one
    yield one + log_file(2, [frame(0, 2, b'more'), frame(0, 3, b'and more', 8192)], 1, end, (2, 1))
    yield (one + log_file(2, [frame(1, 1, b'xx')], 1, end, (2, 1), (1, 0))
           + log_file(3, [], 2, 8232, (2, 2), (2, 1)))
    yield log_file(1, [frame(0, 0, b'odd', 0), frame(0, 1, b'x'), frame(0, 2, b'is damaged', 8272)])
    yield log_file(1, [frame(0, 0, b'ab'), b'no frame' * 9, frame(0, 7, b'gap', 8300),
                       frame(1, 5, b'gap too.', 8300)])
    yield log_file(1, whole[:2] + [bytes(64), whole[3], b'torn tail'])
    yield log_file(2, whole, 1, 8192, (5, 5)) + log_file(4, whole, 9, 1) + log_file(5, [], is_free=True)
    yield log_file(1, whole, version=2)
    yield log_file(7, whole[:1]) + log_file(3, whole)


NODE_CONFIG = """storage:
  ack: os
  retention: 1y2w3d
  compaction: false
  log_file_bytes: 128MiB
  free_space_floor: 5GB
memory:
  budget: 2GiB
query:
  max_concurrency: 3
  timeout: 1m30s
  slow_query_threshold: 0
http:
  cors: false
  max_body_bytes: 1MB
log:
  level: debug
  format: json
limits:
  max_series: 100
  overrides:
    tenant-a: {max_series: 5, max_label_name_bytes: 1KiB}
    "b c": {}
global:
  scrape_interval: 15s
  external_labels: {a: "x: y", b: 'it''s'}
scrape_configs:
- job_name: j
  basic_auth: {username: u, password: secret}
  authorization: {credentials: secret}
  static_configs: [{targets: [a:1, b:2]}]
  params:
    q: ["1", "two words", "", "null", "0x1F", "~", "- a", "#"]
"""


def varint(value):
    out = b''
    while value >= 0x80:
        out += bytes([value & 0x7f | 0x80])
        value >>= 7
    return out + bytes([value])


def text(value):
    return varint(len(value)) + value


INIT, NOOP, JOIN, REFUTE, SUSPECT, VOTE, EVICT, LEAVE, VACATE, REMOVE, ASSIGN, OWN, DROP, SUSPEND, SET, DISOWN = range(1, 17)


def control_log():
    """Records of a control log as the harness reads them: kind, then what follows the cluster's id."""
    log, joins = [], {}

    def put(seconds, kind, rest=b'', by=0, of=0):
        member = [varint(slot) + varint(joins.get(slot, 0)) for slot in (by, of)]
        body = bytes([kind]) + b''.join(member) + rest
        log.append(struct.pack('<HB', len(body), seconds) + body)
        return 2 * len(log) - 1   # the harness folds each twice, first as it is

    def join(slot, name, zone, disk, process):
        joins[slot] = put(1, JOIN, text(name) + text(zone) + text(b'127.0.0.1:9009') + bytes([disk]) + bytes(15) +
                          bytes([process]) + bytes(15) + varint(1 << 40) + varint(0) + varint(1))
        return joins[slot]

    settings = varint(1000) + varint(5000)
    put(0, INIT, varint(4) + b'\2' + varint(3) + varint(1 << 20) + bytes(16) + settings)
    for slot, name in enumerate((b'a', b'b', b'c')):
        changed = join(slot, name, b'z%d' % slot, slot + 1, slot + 1)
    put(0, NOOP, bytes(16))
    changed = put(0, ASSIGN, varint(changed) + varint(4) + b'\2\0' + bytes([1, 2, 2, 3, 3, 1, 1, 2]))
    every = varint(4) + bytes(4)
    for slot in range(3):
        owned = put(0, OWN, varint(changed) + every, by=slot)
    put(0, DISOWN, varint(owned) + varint(1) + b'\1', by=2)
    refuted = put(1, SUSPECT, varint(5000), by=0, of=2)
    put(0, REFUTE, varint(refuted), by=2)
    accused = put(1, SUSPECT, varint(9000), by=0, of=2)
    put(0, VOTE, varint(accused), by=0, of=2)
    put(0, VOTE, varint(accused), by=1, of=2)
    put(2, EVICT, varint(accused), by=1, of=2)
    changed = join(3, b'd', b'z2', 9, 9)
    changed = put(6, VACATE, by=0, of=2)
    changed = put(0, ASSIGN, varint(changed) + varint(4) + b'\2\0' + bytes([1, 4, 2, 4, 4, 1, 1, 4]))
    put(0, OWN, varint(changed) + every, by=3)
    put(0, DROP, every, by=1)
    changed = put(0, REMOVE, b'\2', of=1)
    put(0, REMOVE, b'\3', of=1)
    claim = put(0, JOIN, text(b'd') + text(b'z2') + text(b'h:2') + b'\x2a' + bytes(15) + b'\x2a' + bytes(15) +
                varint(1 << 40) + varint(0) + varint(1))
    put(0, REFUTE, varint(claim), by=3)
    put(0, SUSPEND, b'\2' + varint(1 << 50) + text(b'ada') + text(b'too long'))
    put(0, SUSPEND, b'\1' + varint(60000) + text(b'ada') + text(b'new switches'))
    put(0, SET, settings)
    join(0, b'a', b'z0', 1, 7)
    put(0, NOOP, bytes(16), by=1)
    for stage in (b'\1', b'\2', b'\3'):
        put(0, LEAVE, stage, by=0)
    put(10, VACATE, by=1, of=0)
    put(0, REMOVE, b'\1', of=1)
    return log


def snapshot():
    def member(name, votes, owns):
        return (b'\1\2' + varint(7) + varint(3) + b'\0' + varint(7) + varint((1 << 64) - 1) + b'\0\1\x08' + text(name) + text(b'z') +
                text(b'h:1') + bytes(32) + b'\0\1' + votes + owns)
    settings = varint(1000) + varint(5000)
    return (b'\1' + varint(90) + varint(2000) + varint(4000) + varint(4000) + bytes(16) + varint(4) + b'\2' + varint(2) + varint(1 << 20) + bytes(16) +
            settings + settings + varint(9) + varint(9) + varint(2) + varint((1 << 64) - 1) + b'\0' + varint((1 << 64) - 1) +
            b'\x0a' + varint(2000) + b'\0' + 3 * (varint((1 << 64) - 1) + text(b'x') + text(b'y')) + varint(3) + member(b'a', b'\0', b'\x0f') +
            member(b'b', b'\0', b'\3') + b'\0' + bytes([1, 2, 2, 1, 1, 0, 2, 1]))


def blocks(answer):
    """The blocks of an answer behind its head, as the harness takes them: type, length, body."""
    while answer:
        kind, length = struct.unpack_from('<BI', answer)
        if kind != 1:
            yield struct.pack('<BH', kind, length) + answer[9:9 + length]
        answer = answer[9 + length:]


def wire_seeds():
    query = golden('query_1')
    (length,) = struct.unpack_from('<I', query)
    request, answer = query[4:4 + length], query[4 + length:]
    good = list(blocks(answer))
    texts = b'\0\1a\1\1b\0\1b'
    metadata = b'\2up\5gauge\3Up?\0\1a\7counter\0\0'
    lossless = b'\1\2\1\0\1\5\5\0'

    def block(kind, body):
        return struct.pack('<BH', kind, len(body)) + body
    return [
        b'\0\1' + request[6:-4], b'\0\3\1t\0\0\0\0\0\0\0\2\2\4\0\0\0\1\2\1a\2.*',
        b'\0\4\1t\3job\0\5\0\0\0\0\1\1\1\0', b'\0\5\1t\2up\0\0\0\0\0\0\0',
        b'\1\1' + b''.join(good), b'\1\2' + b''.join(good), b'\1\1' + good[0] + good[0] + good[1],
        b'\1\1' + good[0] + block(2, b'\1') + good[1], b'\1\3' + block(3, texts) + block(3, b'\0\1c') + block(5, lossless),
        b'\1\5' + block(4, metadata) + block(5, lossless), b'\1\1' + good[0] + block(6, b'\0\x64'),
        b'\1\1' + block(6, b'\x63\0'), b'\2\1' + answer, b'\2\1' + answer[:-3], b'\2\4' + answer] + group_seeds(block)


def group_seeds(block):
    """Groups of 98 steps in two columns, which the byte 4 stands for."""
    query = golden('query_2')
    (length,) = struct.unpack_from('<I', query)
    request, answer = query[4:4 + length], query[4 + length:]
    unit, groups, end = blocks(answer)
    return [
        b'\0\6' + request[6:-4], b'\1\6\4' + unit + groups + end, b'\1\6\4' + unit + groups + groups + end, b'\2\6\4' + answer,
        b'\2\6\4' + answer[:-3], b'\1\6\3' + unit + groups, b'\1\6\0' + block(7, b'\1\1\2\2\1\3one\0') + groups, b'\2\6\0' + golden('query_1')[4:],
        b'\1\6\4' + groups + unit, b'\1\6\4' + groups[:-20] + end]


def stream_seeds():
    """Bodies of streamed answers that nobody proved, and payloads for the harness to seal."""
    def sealed(how, piece, change, *payloads):
        return bytes([how, piece]) + struct.pack('<H', change) + b''.join(struct.pack('<H', len(p)) + p for p in payloads)
    return [b'\0\xff\0\0' + struct.pack('<I', 3) + b'abc' + bytes(32), b'\0\0\0\0' + struct.pack('<I', 1 << 31) + bytes(32),
            b'\0\7\0\0\xff\xff\xff\x7f' + bytes(40), b'\0\xff\0\0' + struct.pack('<I', 1 << 20) + b'rows',
            sealed(1, 255, 0, b'rows', b'', b'more rows' * 40, b'the proof'), sealed(1, 0, 40, b'the proof'),
            sealed(1, 100, 5, b'rows' * 300, b''), sealed(2, 63, 0, b'rows', b'the proof')]


def sums_seeds():
    """What a replica holds: docs/format/rpc.md §5."""
    def total(rows):
        return struct.pack('<QQQ', rows, rows * 7919, rows * 104729)

    def mark(generation, start, passed, epoch, rows):
        return varint(generation) + varint(start) + varint(passed) + struct.pack('<i', epoch) + total(rows)

    def segment(name, to):
        return bytes([name] * 32) + varint(name) + varint(5000) + varint(1) + varint(to - 10) + varint(1) + varint(to) + total(name)

    def answer(marks, segments, recovered=1):
        return (b'\1\1' + bytes([recovered]) + b'\2' + varint(3) + varint(190) + varint(17) + varint(len(segments)) + total(9) +
                total(2) + varint(len(marks)) + b''.join(marks) + b'\0' + varint(len(segments)) + b''.join(segments) + total(1))
    marks = [mark(3, 100, 90, 4, 80), mark(3, 100, 76, 4, 60), mark(3, 60, 40, -1, 30), mark(2, 0, 60, -1, 0)]
    segments = [segment(3, 60), segment(2, 40)]
    return [b'\1\7\0\0', b'\1\xff\1\x80\2\x80\2', b'\1\7\0\x81\2', b'\2\7\0\0', b'\1\0', b'\1\1', b'\1\2', b'\3', b'',
            answer(marks, segments), answer(marks[:1], []), answer([], segments, 0), answer(marks[::-1], []),
            answer(marks, segments, 2), answer(marks, segments)[:-9], answer(marks, []) + b'\0',
            answer([marks[0]] * 2, segments), answer([mark(3, (1 << 64) - 1, 2, 0, 1)], []), b'\1\1\0\x80\0']


def main():
    for i, content in enumerate(sums_seeds()):
        seed('sync', i, content)
    for i, content in enumerate(wire_seeds()):
        seed('fanout_wire', i, content)
    log = control_log()
    seed('control', 0, b'\0' + b''.join(log))
    for i in range(2, len(log), 5):
        seed('control', i, b'\0' + b''.join(log[:i]))
    seed('control', 90, b'\1' + snapshot())
    seed('control', 91, b'\1' + b'\0' + varint(5) + varint(8))
    for i, body in enumerate([b'\1\x07\xe7\x24', b'\1\1', b'\1\0', b'\2\0', b'']):   # docs/format/rpc.md
        head = b'01' + b'00' * 60
        seed('rpc', i, bytes([i, len(head)]) + head + bytes([64]) + b'5a' * 32 + body)
    for i, content in enumerate(stream_seeds()):
        seed('rpc_stream', i, content)
    bodies = [entry[4:-4] for entry in entries(golden('chain_1'))]   # the harness makes magic and checksum
    seed('chain', 0, b''.join(struct.pack('<H', len(b)) + b for b in bodies))
    for i, body in enumerate(bodies):
        seed('chain', i + 1, struct.pack('<H', len(body)) + body)
    seed('state', 0, b'\1' + golden('state_1')[:-4])
    for i, checkpoint in enumerate(frames(golden('stream_1'))):
        seed('state', i + 1, b'\2' + checkpoint)
    for kind in (1, 2):   # control records: CUT and FORGET
        seed('state', 2 + kind, b'\0' + bytes([3, 1, kind]) + bytes(37))
    seed('stream', 0, golden('stream_1'))
    seed('stream', 1, 'p003-1-0-2.stream')
    seed('log', 0, golden('log_1'))
    for i, content in enumerate(log_seeds()):
        seed('log_files', i, content)
    seed('batch', 0, b'\0' + golden('batch_1'))
    seed('index_part', 0, golden('index_part_1'))
    seed('identity', 0, golden('node_1'))
    d = struct.Struct('<d').pack
    spans, none = varint(1) + varint(2) + varint(3), varint(0)   # one of three buckets at zigzag offset 1
    for i, body in enumerate([
            bytes([1, 0b1000, 0]) + d(9.5) + varint(6) + varint(1) + spans + none
            + varint(2) + varint(2) + varint(1),
            bytes([1, 0b0111, 256 - 4]) + d(0.001) + d(1) + d(6) + d(1) + spans + spans + 6 * d(1),
            bytes([1, 0b1000, 256 - 53]) + d(1) + varint(3) + none + varint(1) + none + varint(3) + none
            + 3 * varint(0) + varint(2) + d(1) + d(2)]):
        seed('histogram', i, body)
    for i, text in enumerate([
            'query=up%7Ba%3D%22b%22%7D&time=1435781430.781&timeout=5m&limit=10&stats=true&x=',
            'start=2015-07-01T20:10:51.781Z&end=2015-07-01T20:10:51%2B02:00&step=1h30m15s250ms&max=1y2w3d',
            'match[]=up&match[]=%7Bjob%3D~%22a.*%22%7D&a+b=c+d&&=&;', 'U__my_2e_metric__x_1F600_', '/a%2Fb%zz',
            '-9223372036854775.808', '9223372036854775.807', '1e400', '-0x1p3', 'NaN', 'tenant-1_a.b*\'(c)']):
        seed('form', i, text)
    for i, text in enumerate([
            'tls_server_config:\n  cert_file: a.crt\n  key_file: /b.key\n  client_auth_type: RequireAndVerifyClientCert\n'
            '  client_ca_file: ca.crt\n  min_version: TLS12\n  max_version: TLS13\n'
            'basic_auth_users:\n  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze\n',
            'bearer_tokens:\n  - secret\n  - other\n', 'Bearer secret', 'http_server_config:\n  http2: true\n'
            '  headers:\n    X-Frame-Options: deny\n', 'tls_server_config: 1\n',
            'basic_auth_users: []\nx: y\n']):
        seed('web_config', i, text)
    for i, text in enumerate(CONFIG_MISTAKES):
        seed('config', i, text)
    for i, text in enumerate([NODE_CONFIG, 'storage: {ack: never}\n', 'storage:\n  retention: -1h\n',
                              'nothing: 1\n',
                              'limits: {overrides: {"": {}}}\n', 'query: {max_series: x}\n',
                              'http: {cors: maybe}\n',
                              'http: {max_body_bytes: 1}\n', 'storage: []\n', 'log: {level: }\n', '# empty\n']):
        seed('node_config', i, text)
    for i, text in enumerate([
            'a|b|c\na\nb\nab\n\n', 'prefix-(?:one|two|)-end\nprefix-one-end\nprefix--end\nprefix-',
            'ab*\na\nabb\nb',
            'job-1.*\njob-1\njob-2', '(a|b)c\nac\nbc\nc', 'a\\.b\\-c\na.b-c', '(?i)x|y\nX', 'a(b\n', '.+\n\nx',
            '\u00e9*|z\n\u00e9',
            '|'.join('v%d' % i for i in range(40)) + '\nv7\nv77', 'a{2}|b?\naa\na{2}\nb', '\\Qa.b\\E\na.b',
            '[a-c]|d\nb']):
        seed('matcher', i, text)
    up = b'\x0a\x0e\x0a\x08__name__\x12\x02up'
    job = b'\x0a\x08\x0a\x03job\x12\x01a'
    for i, content in enumerate([
            bytes([len(up)]) + up + up + job,
            bytes([len(up + job)]) + up + job + up + b'\x0a\x08\x0a\x03job\x12\x01b',
            bytes([0]) + up + job, bytes([len(up + job)]) + up + job + up, b'\0\1a\1b\1c\2de\x08__name__\2up',
            b'\0\1b\1x\1a\1y\1a\1z', b'\0\0\1x', b'\0\1a\0\1b\2\xff\xfe',
            b'\0\4my.x\5\xc3\xa9"\n\\\x08__name__\3a b', bytes([len(up)]) + job + up + b'\x0a\x05\x0a\x03job']):
        seed('labels', i, content)
    text = 20 * b'some text, some more text; '
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = deflate.compress(text) + deflate.flush()
    stored = zlib.compressobj(0, zlib.DEFLATED, -15)
    gzip = bytes([0x1f, 0x8b, 8]) + bytes(7) + deflated + struct.pack('<II', zlib.crc32(text), len(text))
    for i, content in enumerate([
            b'\1\5' + deflated, b'\1\xff' + stored.compress(text) + stored.flush(), b'\1\0\3\0',
            b'\0\x14' + gzip,
            b'\0\x14' + gzip + gzip, b'\0\x14' + gzip + b'behind', b'\0\7' + gzip[:-3],
            b'\0\x22' + zlib.compress(text),
            b'\0\4' + gzip[:3] + b'\x1e' + gzip[4:10] + b'\3\0abc' + b'name\0comment\0\0\0' + gzip[10:],
            b'\0\1\x28\xb5\x2f\xfd\x20\x05\x29\0\0hello', b'\0\1\x28\xb5\x2f\xfd\x60\xe8\2\x43\x1f\0x',
            b'\0\1\x28\xb5\x2f\xfd\x20\x05\x29\0\0hel',
            b'\0\1\xf0\1' + b'0123456789abcdef', b'\0\2\x1fa\1\0\7\x50final']):
        seed('compression', i, content)
    for i, content in enumerate(float_seeds()):
        seed('float', i, content)


if __name__ == '__main__':
    main()
