"""What a user of one node meets: writing by every protocol, reading back, tenants, bad input, wrong flags."""
import json
import math
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

from conftest import BINARY, TOP, Node, run_kelpie
from remote_write import (HEADERS_V1, HEADERS_V2, double_field, encode_labels, field, number_field, request_v1,
                          request_v2, snappy, write)

NOW = int(time.time())
STALE = struct.pack('<Q', 0x7FF0000000000002)


def labels(name, **rest):
    return dict(rest, __name__=name)


def test_version_1_round_trip(node):
    samples = [(1000 * (NOW - 60 + 15 * i), 1.5 * i) for i in range(4)]
    assert write(node, [(labels('a', x='1'), samples), (labels('a', x='2'), samples[:1])]).status in (200, 204)
    answer = node.query_range('a', NOW - 60, NOW - 15, 15)
    assert answer['status'] == 'success'
    values = {r['metric']['x']: r['values'] for r in answer['data']['result']}
    assert [float(v) for _, v in values['1']] == [0, 1.5, 3, 4.5]
    assert len(values['2']) == 4   # lookback carries the one sample on


def test_answers_say_they_are_complete(node):
    write(node, [(labels('a'), [(NOW * 1000, 1)])])
    reply = node.request('/api/v1/query?query=a')
    assert reply.headers['X-Kelpie-Complete'] == 'true'
    assert not reply.headers.get('X-Kelpie-Missing')


def test_survives_kill(node):
    for i in range(20):
        assert write(node, [(labels('a', i=str(i)), [(NOW * 1000 - 1000, i)])]).status in (200, 204)
    node.end(signal.SIGKILL)
    node.start()
    answer = node.query('sum(a)', NOW)
    assert float(answer['data']['result'][0]['value'][1]) == sum(range(20))


def test_survives_a_stop_and_stops_within_seconds(node):
    write(node, [(labels('a'), [(NOW * 1000 - 1000, 7)])])
    begun = time.monotonic()
    assert node.end() == 0
    assert time.monotonic() - begun < 8
    node.start()
    assert node.query('a', NOW)['data']['result'][0]['value'][1] == '7'


def test_stale_marker_ends_a_series(node):
    write(node, [(labels('a'), [(1000 * (NOW - 30), 1), (1000 * (NOW - 15), STALE)])])
    assert len(node.query('a', NOW - 20)['data']['result']) == 1
    assert node.query('a', NOW)['data']['result'] == []


def test_old_new_and_unordered_times(node):
    times = [0, 1, -6000000, 1000 * NOW, 1000 * (NOW - 86400 * 400), 253402300799999]
    for t in times:
        assert write(node, [(labels('t'), [(t, t)])]).status in (200, 204), t
    for t in times:
        answer = node.query('t', t / 1000)
        assert float(answer['data']['result'][0]['value'][1]) == t, t


def test_last_write_wins(node):
    for v in (1, 2, 3):
        write(node, [(labels('w'), [(NOW * 1000, v)])])
    answer = node.query('count_over_time(w[1m])', NOW + 1)
    assert answer['data']['result'][0]['value'][1] == '1'
    assert node.query('w', NOW + 1)['data']['result'][0]['value'][1] == '3'


def test_tenants_are_apart(node):
    write(node, [(labels('a'), [(NOW * 1000, 1)])], {'X-Scope-OrgID': 'one'})
    assert node.query('a', NOW + 1)['data']['result'] == []
    assert len(node.query('a', NOW + 1, {'X-Scope-OrgID': 'one'})['data']['result']) == 1


def test_version_2_headers_and_metadata(node):
    body = request_v2([{'labels': labels('requests_total', code='200'),
                        'samples': [(NOW * 1000, 5, (NOW - 100) * 1000)],
                        'exemplars': [({'trace_id': 'abc'}, 0.5, NOW * 1000)]}],
                      {'requests_total': (1, 'All requests.', '')})
    reply = node.request('/api/v1/write', body, HEADERS_V2)
    assert reply.status in (200, 204)
    assert reply.headers['X-Prometheus-Remote-Write-Samples-Written'] == '1'
    assert reply.headers['X-Prometheus-Remote-Write-Histograms-Written'] == '0'
    assert reply.headers['X-Prometheus-Remote-Write-Exemplars-Written'] == '1'
    assert node.query('requests_total', NOW + 1)['data']['result'][0]['value'][1] == '5'
    meta = node.request('/api/v1/metadata').json()['data']
    assert meta['requests_total'][0]['type'] == 'counter'
    assert meta['requests_total'][0]['help'] == 'All requests.'
    exemplars = node.request('/api/v1/query_exemplars?query=requests_total&start=%d&end=%d' % (NOW - 60, NOW + 60)).json()
    assert exemplars['data'][0]['exemplars'][0]['labels'] == {'trace_id': 'abc'}


def histogram_message(t_ms):
    """count 3, sum 4.5, schema 0, one bucket at offset 1 with 3 (integer)."""
    span = number_field(1, 2) + number_field(2, 1)
    return (number_field(1, 3) + double_field(3, 4.5) + number_field(4, 0) + double_field(5, 0.001)
            + number_field(6, 0) + field(11, span) + field(12, bytes([6])) + number_field(15, t_ms))


def test_native_histograms_are_stored_and_named_when_an_expression_needs_them(node):
    body = snappy(field(1, encode_labels(labels('h')) + field(4, histogram_message(NOW * 1000))))
    assert node.request('/api/v1/write', body, HEADERS_V1).status in (200, 204)
    result = node.query('h', NOW + 1)['data']['result']
    assert result[0]['histogram'][1]['count'] == '3' and result[0]['histogram'][1]['sum'] == '4.5'
    answer = node.query('rate(h[1m])', NOW + 1)
    assert answer['status'] == 'error' and answer['errorType'] == 'execution'
    assert 'rate' in answer['error'] and 'h' in answer['error']


@pytest.mark.parametrize('headers, status', [
    ({'Content-Type': 'text/csv'}, 415),
    ({'Content-Encoding': 'zstd'}, 415),
    ({'Content-Type': 'application/x-protobuf;proto=io.prometheus.write.v9.Request'}, 415),
])
def test_unknown_types_are_415(node, headers, status):
    reply = node.request('/api/v1/write', request_v1([(labels('a'), [(1, 1)])]), dict(HEADERS_V1, **headers))
    assert reply.status == status


def bad_bodies():
    good = request_v1([(labels('good', i=str(i)), [(NOW * 1000, i)]) for i in range(3)])
    yield 'not snappy', b'\xff\xff\xff\xff\xff\xff'
    yield 'lies about its size', bytes([good[0] + 9]) + good[1:]
    yield 'cut', good[:len(good) // 2]
    yield 'empty', b''
    yield 'garbage protobuf', snappy(b'\x0a\xff\xff\xff\xff\x0f')
    yield 'nested groups', snappy(b'\x0b' * 10000)


@pytest.mark.parametrize('name, body', list(bad_bodies()), ids=[n for n, _ in bad_bodies()])
def test_bad_bodies_are_400(node, name, body):
    reply = node.request('/api/v1/write', body, HEADERS_V1)
    assert reply.status == 400, reply.text
    assert reply.text.strip()
    assert node.request('/-/ready').status == 200


def test_a_body_that_claims_gigabytes_is_413(node):
    body = b'\xff\xff\xff\xff\x0f' + request_v1([(labels('a'), [(1, 1)])])[1:]
    assert node.request('/api/v1/write', body, HEADERS_V1).status == 413
    assert node.request('/-/ready').status == 200


def test_partial_write_keeps_what_is_good(node):
    duplicate = field(1, field(1, b'x') + field(2, b'1'))
    body = snappy(field(1, encode_labels(labels('good')) + field(2, double_field(1, 1.0) + number_field(2, NOW * 1000)))
                  + field(1, encode_labels(labels('bad')) + duplicate + duplicate
                          + field(2, double_field(1, 1.0) + number_field(2, NOW * 1000))))
    reply = node.request('/api/v1/write', body, HEADERS_V1)
    assert reply.status == 400
    assert len(node.query('good', NOW + 1)['data']['result']) == 1
    assert node.query('bad', NOW + 1)['data']['result'] == []


def test_unsorted_labels_are_sorted(node):
    pairs = [('z', '1'), ('__name__', 'unsorted'), ('a', '2')]
    head = b''.join(field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in pairs)
    body = snappy(field(1, head + field(2, double_field(1, 1.0) + number_field(2, NOW * 1000))))
    assert node.request('/api/v1/write', body, HEADERS_V1).status in (200, 204)
    assert node.query('unsorted', NOW + 1)['data']['result'][0]['metric'] == {'__name__': 'unsorted', 'a': '2', 'z': '1'}


def test_text_import(node):
    text = '# TYPE t counter\n# HELP t Help text.\nt_total{a="x\\"y"} 3 %d\nplain 4\n' % (NOW * 1000)
    reply = node.request('/api/v1/import/prometheus', text.encode(), {'Content-Type': 'text/plain'})
    assert reply.status in (200, 204), reply.text
    assert node.query('t_total', NOW + 1)['data']['result'][0]['metric']['a'] == 'x"y'
    assert node.query('plain', time.time() + 5)['data']['result'][0]['value'][1] == '4'


@pytest.mark.parametrize('path, status, kind', [
    ('/api/v1/query', 400, 'bad_data'),
    ('/api/v1/query?query=sum(', 400, 'bad_data'),
    ('/api/v1/query?query=' + '(' * 5000, 400, 'bad_data'),
    ('/api/v1/query_range?query=up&start=10&end=1&step=1', 400, 'bad_data'),
    ('/api/v1/query_range?query=up&start=0&end=100000&step=1', 400, 'bad_data'),
    ('/api/v1/query?query=up&time=yesterday', 400, 'bad_data'),
    ('/api/v1/series', 400, 'bad_data'),
    ('/api/v1/nothing', 404, None),
])
def test_bad_questions(node, path, status, kind):
    reply = node.request(path)
    assert reply.status == status, reply.text
    if kind:
        answer = reply.json()
        assert answer['status'] == 'error' and answer['errorType'] == kind and answer['error']


def test_label_endpoints(node):
    write(node, [(labels('m%d' % i, job='j%d' % (i % 2)), [(NOW * 1000, i)]) for i in range(4)])
    span = 'start=%d&end=%d' % (NOW - 60, NOW + 60)
    assert node.request('/api/v1/labels?' + span).json()['data'] == ['__name__', 'job']
    assert node.request('/api/v1/label/job/values?' + span).json()['data'] == ['j0', 'j1']
    assert node.request('/api/v1/label/__name__/values?match[]=%7Bjob="j1"%7D&' + span).json()['data'] == ['m1', 'm3']
    series = node.request('/api/v1/series?match[]=%7Bjob="j1"%7D&' + span).json()['data']
    assert sorted(s['__name__'] for s in series) == ['m1', 'm3']
    assert len(node.request('/api/v1/series?match[]=%7Bjob="j1"%7D&limit=1&' + span).json()['data']) == 1


def test_grafana_opens(node):
    """Save & test, then what the data source asks on load."""
    assert node.request('/api/v1/query', b'query=1%2B1&time=4').json()['data']['result'][1] == '2'
    info = node.request('/api/v1/status/buildinfo').json()
    assert info['status'] == 'success' and 'features' not in info['data']
    for path in ('/api/v1/rules', '/api/v1/alerts', '/api/v1/targets', '/api/v1/status/tsdb', '/api/v1/status/runtimeinfo',
                 '/api/v1/query_exemplars?query=test&start=%d000&end=%d000' % (NOW - 60, NOW),
                 '/api/v1/label/__name__/values?limit=40000', '/api/v1/metadata'):
        reply = node.request(path)
        assert reply.status == 200 and reply.json()['status'] == 'success', path


def test_own_metrics(node):
    text = node.request('/metrics').text
    assert re.search(r'^kelpie_\w+ \d', text, re.M)
    assert re.search(r'^process_resident_memory_bytes \d', text, re.M)


def test_second_process_is_refused(node):
    second = run_kelpie('serve', '--data', node.data, '--http', '127.0.0.1:1', timeout=20)
    assert second.returncode != 0 and 'in use' in second.stderr.lower() + second.stdout.lower(), second.stderr


def test_wrong_flag_and_wrong_config(tmp_path):
    wrong = run_kelpie('serve', '--htpp', 'x')
    assert wrong.returncode == 2 and '--htpp' in wrong.stderr
    config = tmp_path / 'k.yaml'
    config.write_text('global:\n  scrape_intervall: 5s\n')
    wrong = run_kelpie('serve', '--check-config', '--config', config)
    assert wrong.returncode != 0 and 'scrape_intervall' in wrong.stderr and '2' in wrong.stderr
    config.write_text('global:\n  scrape_interval: 5s\n')
    assert run_kelpie('serve', '--check-config', '--config', config).returncode == 0


def test_open_address_needs_insecure(tmp_path):
    refused = run_kelpie('serve', '--data', tmp_path / 'd', '--http', '0.0.0.0:0', timeout=20)
    assert refused.returncode != 0 and '--insecure' in refused.stderr


def test_dripping_client_is_cut_off(node):
    with socket.create_connection(('127.0.0.1', node.port)) as s:
        s.settimeout(60)
        s.sendall(b'POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n')
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < 60:
                s.sendall(b'x')
                time.sleep(0.5)
        except OSError:
            pass
        assert time.monotonic() - begun < 45
    assert node.request('/-/ready').status == 200


def test_upstream_scripts(node):
    """Prometheus' own scripts over HTTP, where they are beside the checkout."""
    folder = os.path.join(os.path.dirname(TOP), 'shared', 'promql')
    if not os.path.isdir(folder):
        pytest.skip('the upstream scripts are not beside the checkout')
    scripts = [os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.endswith('.test')]
    run = subprocess.run([sys.executable, os.path.join(folder, 'promqltest_http.py'), '--only-feature', 'core', '--url',
                          node.url, '--header', 'X-Scope-OrgID: t{n}'] + scripts,
                         capture_output=True, text=True, timeout=600)
    total = re.search(r'total: (\d+) passed, (\d+) failed', run.stdout)
    assert total, run.stdout[-2000:] + run.stderr[-2000:]
    assert int(total.group(1)) >= 178 and total.group(2) == '0', run.stdout[-4000:]
