"""Clients that drip, flood, never read, leave, or are there when the node stops: each has its bound and hurts nobody
else. Deadlines of single connections are tested beside the server; here a whole node answers meanwhile."""
import http.client
import re
import resource
import socket
import threading
import time
import urllib.parse

import pytest

from remote_write import write

NOW = int(time.time())
# Half a minute of work that asks for its deadline often: windows of 43,200 values, moved 10,000 times, 20 times.
LONG = ' + '.join('quantile_over_time(%s, vector(time() %% 97)[12h:1s])' % (i / 20) for i in range(20))


def long_path(**arguments):
    return '/api/v1/query_range?' + urllib.parse.urlencode(
        dict(arguments, query=LONG, start=NOW - 10000, end=NOW, step=1))


def get(path):
    return ('GET %s HTTP/1.1\r\nHost: x\r\n\r\n' % path).encode()


def dial(node, source='127.0.0.1'):
    return socket.create_connection(('127.0.0.1', node.port), timeout=30, source_address=(source, 0))


def statistic(node, name):
    return float(re.search(r'^kelpie_%s (\S+)$' % name, node.request('/metrics').text, re.MULTILINE).group(1))


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def answers(node):
    return node.query('1 + 1', NOW)['data']['result'][1] == '2'


def test_query_ends_when_its_client_leaves(node):
    with dial(node) as s:
        s.sendall(get(long_path()))
        wait_until(lambda: statistic(node, 'queries_running') == 1)
        assert statistic(node, 'queries_canceled_total') == 0
    wait_until(lambda: statistic(node, 'queries_canceled_total') == 1)
    assert statistic(node, 'queries_running') == 0


def test_query_ends_at_its_deadline(node):
    reply = node.request(long_path(timeout='500ms'), timeout=60)
    assert (reply.status, reply.json()['errorType']) == (503, 'timeout')
    assert statistic(node, 'queries_running') == 0


def test_pipelined_requests_are_answered_in_order(node):
    count = 500
    with dial(node) as s, s.makefile('rb') as replies:
        sender = threading.Thread(target=s.sendall, args=(b''.join(
            get('/api/v1/query?query=%d&time=1' % i) for i in range(count)),))
        sender.start()
        for i in range(count):
            assert replies.readline().startswith(b'HTTP/1.1 200 ')
            length = int(http.client.parse_headers(replies)['Content-Length'])
            assert b'[1,"%d"]' % i in replies.read(length)
        sender.join()


def test_ten_thousand_connections(node):
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 10000
    if hard != resource.RLIM_INFINITY and hard < count + 500:
        pytest.skip('this process may open %d files only' % hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, count + 500), hard))
    held = []
    try:
        for i in range(count):
            s = dial(node, '127.0.1.%d' % (1 + i // 400))
            if i % 3 == 1:
                s.send(b'GET /api/v1/query HTTP/1.1\r\nX: ')
            held.append(s)
            if i % 1000 == 999:
                assert answers(node)
    finally:
        for s in held:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    wait_until(lambda: statistic(node, 'http_connections') <= 4)


def test_readers_of_big_answers_hold_no_slots(node):
    """Thirty answers of some 20 MB that nobody reads: queries have 20 slots, and all of them stay free."""
    path = '/api/v1/query_range?' + urllib.parse.urlencode(dict(
        query='label_replace(vector(1), "a", "%s", "", "") or ' % ('x' * 1000) + ' or '.join(
            'label_replace(vector(time()), "a", "%d", "", "")' % i for i in range(50)),
        start=NOW - 10000, end=NOW, step=1))
    readers = []
    for _ in range(30):
        s = dial(node)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(get(path))
        readers.append(s)
    for s in readers:
        assert s.recv(15) == b'HTTP/1.1 200 OK'
    assert answers(node)
    assert statistic(node, 'queries_running') == 0
    for s in readers:
        s.close()
    wait_until(lambda: statistic(node, 'query_memory_bytes') < 1 << 20)


def test_drips_are_cut_while_others_are_served(node):
    """The head has 10 s, the body 1,024 bytes a second after 5 s."""
    was_cut = {}

    def drip(name, begin):
        begun = time.monotonic()
        with dial(node) as s:
            s.settimeout(0.25)
            s.sendall(begin)
            while time.monotonic() - begun < 60:
                try:
                    s.send(b'a')
                    was_cut[name] = s.recv(100) == b''
                    if was_cut[name]:
                        break
                except socket.timeout:
                    continue
                except OSError:
                    was_cut[name] = True
                    break

    heads = {'line': b'GET /', 'head': b'GET / HTTP/1.1\r\nHost: x\r\nX: ',
             'body': b'POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n'}
    threads = [threading.Thread(target=drip, args=item) for item in heads.items()]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        assert answers(node)
        time.sleep(0.1)
    assert was_cut == {name: True for name in heads}


def test_stop_under_load(node):
    """Writers, readers, a long query, readers that do not read, drips: SIGTERM ends the node within seconds, and what
    was acknowledged is there afterwards."""
    acknowledged, stop = [[] for _ in range(4)], threading.Event()

    def writer(number):
        i = 0
        while not stop.is_set():
            t_ms = NOW * 1000 + i
            try:
                reply = write(node, [({'__name__': 'load', 'writer': str(number)}, [(t_ms, i)])])
            except OSError:
                return
            if reply.status in (200, 204):
                acknowledged[number].append(i)
            i += 1

    def reader():
        while not stop.is_set():
            try:
                node.query('sum(load)', NOW + 1)
            except (OSError, ValueError, http.client.HTTPException):
                return

    threads = [threading.Thread(target=writer, args=(i,)) for i in range(4)]
    threads += [threading.Thread(target=reader) for _ in range(4)]
    for t in threads:
        t.start()
    others = [dial(node) for _ in range(20)]
    for i, s in enumerate(others):
        s.sendall([b'', b'GET / HT', get(long_path()),
                   b'POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n'][i % 4])
    wait_until(lambda: all(len(a) >= 20 for a in acknowledged) and statistic(node, 'queries_running') >= 5)
    assert node.end(seconds=60) == 0, node.output()[-2000:]
    stop.set()
    for t in threads:
        t.join()
    for s in others:
        s.close()
    node.start()
    for number, values in enumerate(acknowledged):
        result = node.query('load{writer="%d"}[1h]' % number, NOW + 600)['data']['result']
        stored = {int(v) for _, v in result[0]['values']}
        assert stored >= set(values)
