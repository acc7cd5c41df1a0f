#!/usr/bin/env python3
"""Seeds of the harnesses of small formats, from the golden files and from what people write: rewrites
tests/fuzz/corpus/{chain,state,stream,log,batch,index_part,identity,histogram,form,web_config}/golden-*."""
import os
import struct

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


def main():
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
    seed('batch', 0, b'\0' + golden('batch_1'))
    seed('index_part', 0, golden('index_part_1'))
    seed('identity', 0, golden('node_1'))
    d = struct.Struct('<d').pack
    spans, none = varint(1) + varint(2) + varint(3), varint(0)   # one of three buckets at zigzag offset 1
    for i, body in enumerate([
            bytes([1, 0b1000, 0]) + d(9.5) + varint(6) + varint(1) + spans + none + varint(2) + varint(2) + varint(1),
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
            '  headers:\n    X-Frame-Options: deny\n', 'tls_server_config: 1\n', 'basic_auth_users: []\nx: y\n']):
        seed('web_config', i, text)


if __name__ == '__main__':
    main()
