"""Every bound of docs/limits.md that can be reached from outside: just below it all is well, beyond it the status and
the text are the documented ones, and nothing else is lost."""
import concurrent.futures
import gzip
import http.client
import socket
import struct
import time
import urllib.parse

import pytest

from conftest import Node, run_kelpie
from remote_write import (HEADERS_V1, HEADERS_V2, double_field, encode_labels, encode_sample, field, number_field, request_v1,
                          request_v2, snappy, varint, write)

NOW = int(time.time())
MB = 1 << 20


def labels(name, **rest):
    return dict(rest, __name__=name)


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    """One node with defaults for all tests that only knock at its bounds."""
    node = Node(tmp_path_factory.mktemp('limits'))
    node.start()
    yield node
    node.end()


@pytest.fixture
def configured(tmp_path, start):
    """configured(text) starts a node with that configuration."""
    return lambda text: start(Node(tmp_path / 'node', text)).start()


def is_stored(node, name):
    return len(node.query(name, NOW + 1)['data']['result']) == 1


def refused(reply, status, text):
    """The reply has this status and says `text`."""
    assert reply.status == status, (reply.status, reply.text[:500])
    assert text in reply.text, reply.text[:500]


# ---- writing --------------------------------------------------------------------------------------------------

def test_body_as_sent(shared):
    refused(shared.request('/api/v1/write', b'\0' * (32 * MB + 1), HEADERS_V1), 413, 'the body has 33554433 bytes')


def snappy_zeros(size):
    """A small block that decompresses to `size` zeros: a literal, then copies of 64 bytes."""
    copies, rest = divmod(size - 64, 64)
    assert rest == 0
    return varint(size) + bytes([60 << 2, 63]) + b'\0' * 64 + (bytes([63 << 2 | 2]) + struct.pack('<H', 64)) * copies


def test_body_decompressed(shared):
    refused(shared.request('/api/v1/write', snappy_zeros(32 * MB + 64), HEADERS_V1), 413,
            'the decompressed body is larger than 33554432 bytes')


def test_import_decompressed(shared):
    block = b'# a comment that says nothing\n' * 35000
    body = gzip.compress(block * (257 * MB // len(block) + 1), 1)
    reply = shared.request('/api/v1/import/prometheus', body, {'Content-Encoding': 'gzip'}, timeout=120)
    refused(reply, 413, 'the decompressed body is larger than 256 MB')


def test_import_line(shared):
    """Reading ends at a line that is too long: the text names it, and what came before is stored."""
    text = 'before 1 %d\n' % (NOW * 1000) + '# ' + 'x' * MB + '\nafter 1 %d\n' % (NOW * 1000)
    refused(shared.request('/api/v1/import/prometheus', text.encode()), 400, 'line 2, column 1: line is longer than 1 MiB')
    assert is_stored(shared, 'before') and not is_stored(shared, 'after')
    text = '# ' + 'x' * (MB - 2) + '\nlongest_line 1 %d\n' % (NOW * 1000)
    assert shared.request('/api/v1/import/prometheus', text.encode()).status == 204
    assert is_stored(shared, 'longest_line')


def test_samples_of_a_request(configured):
    node = configured('limits: {max_samples_per_request: 10}\n')
    ten = [(labels('ten', i=str(i)), [(NOW * 1000, i)]) for i in range(10)]
    assert write(node, ten).status == 204
    refused(write(node, ten + [(labels('eleven'), [(NOW * 1000, 1)])]), 413, 'more than 10 samples in a request')
    text = ''.join('line{i="%d"} 1 %d\n' % (i, NOW * 1000) for i in range(11))
    refused(node.request('/api/v1/import/prometheus', text.encode()), 413, 'more than 10 samples in a request')


def test_body_of_a_tenant(configured):
    node = configured('limits: {overrides: {small: {max_body_bytes: 1KiB}}}\n')
    small = {'X-Scope-OrgID': 'small'}
    few, many = ([(labels('m', i=str(i), text=str(i) * 90), [(NOW * 1000, i)]) for i in range(n)] for n in (2, 200))
    assert write(node, few, small).status == 204
    refused(write(node, many, small), 413, 'limit 1024')
    assert write(node, many).status == 204
    text = '# a comment\n' * 1000 + 'small 1 %d\n' % (NOW * 1000)
    refused(node.request('/api/v1/import/prometheus', text.encode(), small), 413, 'limit 1024')
    packed = node.request('/api/v1/import/prometheus', gzip.compress(text.encode()), dict(small, **{'Content-Encoding': 'gzip'}))
    assert packed.status == 204, packed.text


def test_import_larger_than_a_body(shared):
    """The bound of a body is for what was sent; decompressed it may be larger."""
    text = '# a comment that says nothing\n' * (40 * MB // 30) + 'large_import 1 %d\n' % (NOW * 1000)
    reply = shared.request('/api/v1/import/prometheus', gzip.compress(text.encode(), 1), {'Content-Encoding': 'gzip'}, timeout=60)
    assert reply.status == 204, reply.text
    assert is_stored(shared, 'large_import')


def test_tenants(shared):
    connection = http.client.HTTPConnection('127.0.0.1', shared.port, timeout=30)
    body = request_v1([(labels('tenant'), [(NOW * 1000, 1)])])
    statuses = []
    for i in range(4097):
        connection.request('POST', '/api/v1/write', body, dict(HEADERS_V1, **{'X-Scope-OrgID': 'tenant-%d' % i}))
        reply = connection.getresponse()
        text = reply.read().decode()
        statuses.append(reply.status)
        if reply.status != 204:
            break
    assert statuses[-1] == 429 and 'too many tenants' in text and reply.headers['Retry-After']
    assert statuses[:-1] == [204] * (len(statuses) - 1) and len(statuses) > 4000
    assert write(shared, [(labels('known'), [(NOW * 1000, 1)])], {'X-Scope-OrgID': 'tenant-0'}).status == 204


def test_series_of_a_tenant(configured):
    node = configured('limits: {max_series: 3, overrides: {large: {max_series: 4}}}\n')
    four = [(labels('s%d' % i), [(NOW * 1000, i)]) for i in range(4)]
    refused(write(node, four), 400, 'too many active series: 1 refused, first: limit 3; metric "s')
    assert [is_stored(node, 's%d' % i) for i in range(4)] == [True, True, True, False]
    assert write(node, four[:3]).status == 204
    assert write(node, four, {'X-Scope-OrgID': 'large'}).status == 204


def test_series_of_the_node(configured):
    """A metric that grows without end gets its share of the memory, and what is known flows on, after a restart too."""
    node = configured('memory: {budget: 256MiB}\n')
    known = [(labels('known', i=str(i)), [(NOW * 1000, i)]) for i in range(100)]
    assert write(node, known).status == 204
    for part in range(4):
        text = ''.join('wild{i="%d"} 1 %d\n' % (i, NOW * 1000) for i in range(part * 200000, (part + 1) * 200000))
        reply = node.request('/api/v1/import/prometheus', text.encode(), timeout=120)
        if reply.status != 204:
            break
    refused(reply, 400, 'no memory for more series')
    assert 'metric "wild"' in reply.text
    for restarted in (False, True):
        if restarted:
            node.end()
            node.start()
        later = [(name, [(NOW * 1000 + 1000 * (1 + restarted), 7)]) for name, _ in known]
        assert write(node, later).status == 204
        assert len(node.query('known == 7', NOW + 3)['data']['result']) == 100


def one_byte_values(count):
    """A request of remote write 2.0 with `count` series of one sample each (value 0, which takes no bytes): symbols make a
    million of them fit into a body."""
    symbols = field(4, b'') + field(4, b'__name__') + field(4, b'many') + field(4, b'i')
    symbols += b''.join(field(4, b'%x' % i) for i in range(count))
    sample = field(2, number_field(2, NOW * 1000))
    head = varint(1) + varint(2) + varint(3)
    return snappy(symbols + b''.join(field(5, field(1, head + varint(4 + i)) + sample) for i in range(count)))


def test_a_million_series_in_one_request(configured):
    """As many as a request may have are stored, all of them; what is over a bound has its status and text, and the rest is
    there."""
    node = configured('memory: {budget: 2GiB}\nlimits: {overrides: {few: {max_series: 600000}}}\n')

    def count(expression, tenant='default'):
        form = urllib.parse.urlencode({'query': expression, 'time': NOW + 1}).encode()
        result = node.request('/api/v1/query', form, {'X-Scope-OrgID': tenant}, timeout=120).json()['data']['result']
        return int(result[0]['value'][1]) if result else 0

    def lines(name, count):
        text = ''.join('%s{i="%x"} 1 %d\n' % (name, i, NOW * 1000) for i in range(count))
        return gzip.compress(text.encode(), 1)

    sample = encode_sample(NOW * 1000, 1.0)
    name = encode_labels({'__name__': 'large'})
    body = snappy(b''.join(field(1, name + encode_labels({'i': str(i)}) + sample) for i in range(1000000)))
    assert len(body) > 32 * MB
    refused(node.request('/api/v1/write', body, HEADERS_V1, timeout=120), 413,
            'the body has %d bytes, limit %d' % (len(body), 32 * MB))
    packed = {'Content-Encoding': 'gzip'}
    over = node.request('/api/v1/import/prometheus', lines('over', 1000001), packed, timeout=120)
    refused(over, 413, 'more than 1000000 samples in a request')
    assert count('count({__name__!=""})') == 0

    body = one_byte_values(1000000)
    reply = node.request('/api/v1/write', body, HEADERS_V2, timeout=120)
    assert reply.status == 204 and reply.headers['X-Prometheus-Remote-Write-Samples-Written'] == '1000000', reply.text
    assert count('count(many)') == 1000000 and count('count(many == 0)') == 1000000
    assert node.request('/api/v1/import/prometheus', lines('imported', 1000000), packed, timeout=120).status == 204
    assert count('sum(imported)') == 1000000

    reply = node.request('/api/v1/write', body, dict(HEADERS_V2, **{'X-Scope-OrgID': 'few'}), timeout=120)
    refused(reply, 400, 'too many active series: 400000 refused, first: limit 600000; metric "many"')
    assert reply.headers['X-Prometheus-Remote-Write-Samples-Written'] == '600000'
    assert count('count(many)', 'few') == 600000


TOO_LARGE = {
    'label count': labels('bad', **{'l%d' % i: 'x' for i in range(60)}),
    'name bytes': labels('bad', **{'n' * 1025: 'x'}),
    'metric name bytes': labels('m' * 1025),
    'value bytes': labels('bad', a='x' * 4097),
}
LARGEST = {
    'label count': labels('fits', **{'l%d' % i: 'x' for i in range(59)}),
    'name bytes': labels('fits', **{'n' * 1024: 'x'}),
    'metric name bytes': labels('m' * 1024),
    'value bytes': labels('fits', a='x' * 4096),
}


REFUSED = {   # the bound, and of which series
    'label count': 'too many labels in a series: 1 refused, first: 61 labels, limit 60 in bad{',
    'name bytes': 'label name or metric name too long: 1 refused, first: label name of 1025 bytes, limit 1024 in bad{nnn',
    'metric name bytes': 'label name or metric name too long: 1 refused, first: metric name of 1025 bytes, limit 1024 in mmm',
    'value bytes': 'label value too long: 1 refused, first: label "a" has 4097 bytes, limit 4096 in bad{a="xxx',
}


@pytest.mark.parametrize('what', TOO_LARGE)
def test_labels(shared, what):
    good = labels('good_' + what.replace(' ', '_'))
    refused(write(shared, [(TOO_LARGE[what], [(NOW * 1000, 1)]), (good, [(NOW * 1000, 1)])]), 400, REFUSED[what])
    assert is_stored(shared, good['__name__'])
    assert write(shared, [(LARGEST[what], [(NOW * 1000, 1)])]).status == 204


def test_all_labels_of_a_series(configured):
    node = configured('limits: {max_label_value_bytes: 65536}\n')
    large = {'l%d' % i: 'x' * 6000 for i in range(11)}
    reply = write(node, [(labels('bad', **large), [(NOW * 1000, 1)]), (labels('good'), [(NOW * 1000, 1)])])
    refused(reply, 400, 'invalid labels: 1 refused, first: labels take ')
    assert is_stored(node, 'good')


def test_tenant_name(shared):
    body = [(labels('a'), [(NOW * 1000, 1)])]
    assert write(shared, body, {'X-Scope-OrgID': 't' * 150}).status in (204, 429)
    for name in ('t' * 151, '.', '..', 'a/b', 'a b'):
        refused(write(shared, body, {'X-Scope-OrgID': name}), 400, 'invalid X-Scope-OrgID')
        failed(shared.request('/api/v1/query?query=1', headers={'X-Scope-OrgID': name}), 400, 'bad_data',
               "invalid X-Scope-OrgID: 1 to 150 letters, digits and !-_.*'() are allowed")


def histogram(span_count, buckets_a_span):
    """An integer histogram whose positive side has so many spans of so many buckets of 1."""
    spans = b''.join(field(11, number_field(1, 2) + number_field(2, buckets_a_span)) for _ in range(span_count))
    count = span_count * buckets_a_span
    deltas = field(12, b'\x02' + b'\x00' * (count - 1))
    return (number_field(1, count) + double_field(3, 1.0) + number_field(4, 0) + double_field(5, 0.001)
            + number_field(6, 0) + spans + deltas + number_field(15, NOW * 1000))


@pytest.mark.parametrize('spans, buckets, status', [(4096, 1, 204), (4097, 1, 400), (1, 8192, 204), (1, 8193, 400)])
def test_native_histograms(shared, spans, buckets, status):
    good = 'beside_%d_%d' % (spans, buckets)
    message = field(1, encode_labels(labels('h')) + field(4, histogram(spans, buckets)))
    other = field(1, encode_labels(labels(good)) + field(2, double_field(1, 1.0) + number_field(2, NOW * 1000)))
    text = '' if status == 204 else ('invalid native histogram: 1 refused, first: %d spans and %d buckets on the '
                                     'positive side, more than 4096 and 8192 in h\n' % (spans, spans * buckets))
    refused(shared.request('/api/v1/write', snappy(message + other), HEADERS_V1), status, text)
    assert is_stored(shared, good)


def test_exemplar_labels(shared):
    def send(size):
        return shared.request('/api/v1/write', request_v2([{
            'labels': labels('with_exemplar'), 'samples': [(NOW * 1000, 1, 0)],
            'exemplars': [({'id': 'x' * size}, 1.0, NOW * 1000)]}]), HEADERS_V2)
    assert send(1000).status == 204
    reply = send(1025)
    refused(reply, 400, 'invalid exemplar: 1 refused, first: labels take ')
    assert 'limit 1024 in with_exemplar' in reply.text, reply.text
    assert reply.headers['X-Prometheus-Remote-Write-Samples-Written'] == '1'
    assert reply.headers['X-Prometheus-Remote-Write-Exemplars-Written'] == '0'


def test_help(shared):
    def send(size):
        return shared.request('/api/v1/write', request_v2(
            [{'labels': labels('helped'), 'samples': [(NOW * 1000, 1, 0)]}], {'helped': (1, 'x' * size, '')}), HEADERS_V2)
    assert send(8192).status == 204
    reply = send(8193)
    refused(reply, 400, 'invalid metadata: 1 refused, first: help or unit too long in helped')
    assert reply.headers['X-Prometheus-Remote-Write-Samples-Written'] == '1'


@pytest.mark.parametrize('t_ms, status', [(253402300799999, 204), (253402300800000, 400), (-253402300799999, 204),
                                          (-253402300800000, 400), (2**63 - 1, 400), (-2**63, 400)])
def test_sample_times(shared, t_ms, status):
    good = labels('beside_time', t=str(t_ms))
    text = '' if status == 204 else ('timestamp beyond the year 9999, or as far before 1970: 1 refused, first: %d ms in times\n'
                                     % t_ms)
    refused(write(shared, [(labels('times'), [(t_ms, 1)]), (good, [(NOW * 1000, 1)])]), status, text)
    assert is_stored(shared, 'beside_time{t="%d"}' % t_ms)


# ---- HTTP -----------------------------------------------------------------------------------------------------

def test_connections(configured):
    """Beyond the bound the connection that is silent for longest makes room."""
    node = configured('http: {max_connections: 4}\n')
    held = [socket.create_connection(('127.0.0.1', node.port)) for _ in range(4)]
    time.sleep(0.3)
    assert node.request('/-/healthy').status == 200
    held[0].settimeout(20)
    assert held[0].recv(100) == b''
    for s in held:
        s.close()


def test_connections_of_an_address(configured):
    node = configured('http: {max_connections_per_ip: 4}\n')
    held = [socket.create_connection(('127.0.0.1', node.port)) for _ in range(4)]
    time.sleep(0.3)
    late = socket.create_connection(('127.0.0.1', node.port))
    late.settimeout(20)
    try:
        late.sendall(b'GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n')
        assert late.recv(100) == b''
    except ConnectionError:
        pass
    for s in held + [late]:
        s.close()


def test_body(configured):
    node = configured('http: {max_body_bytes: 1MiB}\n')
    with socket.create_connection(('127.0.0.1', node.port)) as s:   # the length alone is enough
        s.settimeout(20)
        s.sendall(b'POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n' % (MB + 1))
        reply = b''
        while b'the body is too large' not in reply:
            reply += s.recv(1000) or pytest.fail(repr(reply))
        assert reply.startswith(b'HTTP/1.1 413 ')
    assert write(node, [(labels('a'), [(NOW * 1000, 1)])]).status == 204


def test_parameters(shared):
    refused(shared.request('/api/v1/query?query=1&' + '&'.join('a%d=1' % i for i in range(10))), 200, 'success')
    form = 'query=1&' + '&'.join('a=1' for _ in range(10001))
    refused(shared.request('/api/v1/query', form.encode()), 413, 'too many parameters')
    form = 'query=1&a=' + 'x' * (10 * MB)
    refused(shared.request('/api/v1/query', form.encode()), 413, 'the form is too large')


def test_head_of_a_request(shared):
    """A head that drips is cut off 10 s after its first byte, by the clock of the node."""
    with socket.create_connection(('127.0.0.1', shared.port)) as s:
        s.settimeout(0.5)
        s.sendall(b'GET /-/healthy HTTP/1.1\r\n')
        for i in range(120):
            try:
                s.sendall(b'X-%d: y\r\n' % i)
                if s.recv(100) == b'':
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail('the connection was never cut')


def test_web_configuration_file(tmp_path):
    path = tmp_path / 'web.yml'
    path.write_text('# ' + 'x' * MB + '\n')
    run = run_kelpie('serve', '--check-config', '--web.config.file', path)
    assert run.returncode == 1 and 'web.yml' in run.stderr, run.stderr


# ---- reading --------------------------------------------------------------------------------------------------

SLOW = 'sum(count_over_time((vector(1) + vector(2) * vector(3))[900000s:1s]))'   # steps without a stored sample


def ask(node, expression, **arguments):
    return node.request('/api/v1/query', urllib.parse.urlencode(dict(arguments, query=expression)).encode(), timeout=60)


def failed(reply, status, kind, text=''):
    refused(reply, status, text)
    assert reply.json()['errorType'] == kind, reply.text


def test_queries_running_and_waiting(configured):
    node = configured('query: {max_concurrency: 1, max_queue: 1, queue_timeout: 50ms}\n')
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: ask(node, SLOW), range(8)))
    good = [r for r in replies if r.status == 200]
    assert good and len(good) < 8, [r.status for r in replies]
    for reply in replies:
        if reply.status != 200:
            failed(reply, 503, 'unavailable')
            assert reply.headers['Retry-After']
    assert ask(node, '1').status == 200


def test_time_of_a_query(shared, configured):
    failed(ask(shared, SLOW, timeout='1ms'), 503, 'timeout')
    failed(ask(configured('query: {timeout: 1ms}\n'), SLOW), 503, 'timeout')


def test_samples_memory_and_series_of_a_query(configured):
    node = configured('query: {max_samples: 3000, max_series: 20, max_memory: 1MiB}\n')
    rows = [(labels('m', i=str(i)), [(1000 * (NOW - k), k) for k in range(100, 0, -1)]) for i in range(20)]
    assert write(node, rows).status == 204
    assert ask(node, 'count(m)', time=NOW).json()['data']['result'][0]['value'][1] == '20'
    text = 'query processing would load more than 3000 samples'
    failed(ask(node, 'sum(count_over_time(m[100s])) + sum(count_over_time(m[99s]))', time=NOW), 422, 'execution', text)
    failed(node.request('/api/v1/query_range?query=m&start=%d&end=%d&step=1' % (NOW - 10000, NOW)), 422, 'execution',
           'query processing would need more memory than one query may have')
    assert write(node, [(labels('m', i='20'), [(NOW * 1000, 1)])]).status == 204
    failed(ask(node, 'count(m)', time=NOW), 422, 'execution', 'a selector matches more than 20 series')


def test_points_and_steps(shared):
    range_ = '/api/v1/query_range?query=vector(1)&start=0&step=1&end='
    assert shared.request(range_ + '11000').status == 200
    failed(shared.request(range_ + '11001'), 400, 'bad_data', 'exceeded maximum resolution of 11,000 points')
    failed(ask(shared, 'count_over_time(vector(1)[2000000s:1s])'), 422, 'execution', 'steps, more than 1000000')


def test_selectors_and_limits_of_a_call(shared):
    def series(count):
        return shared.request('/api/v1/series', '&'.join('match[]=a' for _ in range(count)).encode())
    assert series(1024).status == 200
    failed(series(1025), 400, 'bad_data', 'more than 1024 selectors')
    assert shared.request('/api/v1/status/tsdb?limit=10000').status == 200
    failed(shared.request('/api/v1/status/tsdb?limit=10001'), 400, 'bad_data',
           'limit must be a positive number of at most 10000')


def balanced(depth):
    """A sum of 2^depth numbers that is nested as little as can be."""
    half = balanced(depth - 1) if depth > 0 else ''
    return '(%s+%s)' % (half, half) if depth > 0 else '1'


@pytest.mark.parametrize('expression, text', [
    ('1' + ' ' * (64 << 10), 'expression is longer than 65536 bytes'),
    ('{a=~"%s"}' % ('x' * (64 << 10)), 'expression is longer than 65536 bytes'),
    ('(' * 257 + '1' + ')' * 257, 'expression is nested deeper than 256 levels'),
    (balanced(14), 'expression has more than 16384 parts'),
    ('{a=~"%s"}' % '(((x{100}){100}){100})', 'error parsing regexp: '),
], ids=['bytes', 'bytes of a regular expression', 'nesting', 'parts', 'memory of a regular expression'])
def test_expressions(shared, expression, text):
    failed(ask(shared, expression), 400, 'bad_data', text)
    assert shared.request('/-/ready').status == 200


# ---- the rest -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('text, words', [
    ('# ' + 'x' * (16 * MB), 'larger than'),
    ('a: ' + '[' * 65 + ']' * 65, 'nest'),
    ('storage: {log_file_bytes: 1KiB}', 'log_file_bytes'),
    ('storage: {log_file_bytes: 2GiB}', 'log_file_bytes'),
    ('storage: {cut_age: 2h}', 'cut_age'),
    ('storage: {head_rows: 99999999999}', 'storage.head_rows must be at most'),
    ('scrape_configs: [{job_name: a, relabel_configs: [{regex: "%s", target_label: a}]}]' % ('x' * 65537),
     'regular expression longer than 65536 bytes'),
    ('limits: {overrides: {%s}}' % ', '.join('t%d: {max_series: 1}' % i for i in range(100001)), '100000'),
], ids=['bytes', 'nesting', 'too small', 'too large', 'too long', 'rows', 'regular expression', 'tenants'])
def test_configuration(tmp_path, text, words):
    path = tmp_path / 'kelpie.yaml'
    path.write_text(text + '\n')
    run = run_kelpie('serve', '--check-config', '--config', path)
    assert run.returncode == 1 and words in run.stderr, run.stderr[-500:]


def test_names_given_to_a_command():
    """One more than a command takes is refused by its name."""
    for command, names in (('query', ['up', 'down']), ('restore', ['a', 'b']), ('verify', ['a']), ('config', ['show', 'x'])):
        run = run_kelpie(command, *names)
        assert run.returncode == 2 and 'unexpected "%s"' % names[-1] in run.stderr, run.stderr
