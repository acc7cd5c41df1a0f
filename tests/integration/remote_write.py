"""Remote write 1.0 and 2.0 requests in plain Python: protobuf by hand, snappy blocks of literals only."""
import struct


def varint(v):
    v &= (1 << 64) - 1
    out = bytearray()
    while v >= 0x80:
        out.append(v & 0x7F | 0x80)
        v >>= 7
    out.append(v)
    return bytes(out)


def field(number, payload):
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def number_field(number, v):
    return varint(number << 3) + varint(v)


def double_field(number, v):
    """v is a float, or 8 raw bytes for an exact NaN."""
    return varint(number << 3 | 1) + (v if isinstance(v, bytes) else struct.pack('<d', v))


def snappy(data):
    """A snappy block without compression: any decoder must take it."""
    out = bytearray(varint(len(data)))
    for at in range(0, len(data), 65536):
        chunk = data[at:at + 65536]
        n = len(chunk) - 1
        if n < 60:
            out.append(n << 2)
        else:
            out += bytes([61 << 2]) + struct.pack('<H', n)
        out += chunk
    return bytes(out)


def encode_labels(labels):
    return b''.join(field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in sorted(labels.items()))


def encode_sample(t_ms, value):
    return field(2, double_field(1, value) + number_field(2, t_ms))


def series_v1(labels, samples):
    """One TimeSeries of version 1: labels is a dict or encoded labels, samples a list of (t_ms, value)."""
    head = labels if isinstance(labels, bytes) else encode_labels(labels)
    return field(1, head + b''.join(encode_sample(t, v) for t, v in samples))


def request_v1(series):
    """The body of a request: a list of (labels, samples)."""
    return snappy(b''.join(series_v1(labels, samples) for labels, samples in series))


HEADERS_V1 = {'Content-Type': 'application/x-protobuf', 'Content-Encoding': 'snappy',
              'X-Prometheus-Remote-Write-Version': '0.1.0'}
HEADERS_V2 = {'Content-Type': 'application/x-protobuf;proto=io.prometheus.write.v2.Request',
              'Content-Encoding': 'snappy', 'X-Prometheus-Remote-Write-Version': '2.0.0'}


class Symbols:
    def __init__(self):
        self.index = {'': 0}

    def __call__(self, text):
        return self.index.setdefault(text, len(self.index))

    def encode(self):
        return b''.join(field(4, s.encode()) for s in self.index)


def request_v2(series, metadata=None):
    """series: list of dicts {labels, samples: [(t_ms, value, start_ms)], exemplars: [(labels, value, t_ms)]};
    metadata: {metric name: (type number, help, unit)}."""
    symbols = Symbols()
    body = b''
    for s in series:
        refs = b''.join(varint(symbols(k)) + varint(symbols(v)) for k, v in sorted(s['labels'].items()))
        message = field(1, refs)
        for t_ms, value, start_ms in s.get('samples', ()):
            message += field(2, double_field(1, value) + number_field(2, t_ms)
                             + (number_field(3, start_ms) if start_ms else b''))
        for labels, value, t_ms in s.get('exemplars', ()):
            pairs = b''.join(varint(symbols(k)) + varint(symbols(v)) for k, v in sorted(labels.items()))
            message += field(4, field(1, pairs) + double_field(2, value) + number_field(3, t_ms))
        kind = (metadata or {}).get(s['labels'].get('__name__'))
        if kind:
            message += field(5, number_field(1, kind[0]) + number_field(3, symbols(kind[1]))
                             + number_field(4, symbols(kind[2])))
        body += field(5, message)
    return snappy(symbols.encode() + body)


def write(server, series, headers=None):
    """Send (labels, samples) pairs by version 1; returns the reply."""
    return server.request('/api/v1/write', request_v1(series), dict(HEADERS_V1, **(headers or {})))
