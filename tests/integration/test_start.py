"""Start and stop: the port answers while the node starts, SIGTERM under load ends within seconds and loses nothing,
a small memory budget refuses and is never exceeded, large steps of retention wait for a person."""
import collections
import concurrent.futures
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.parse

from conftest import Node, run_kelpie
from remote_write import write

NOW = int(time.time())


def read(node):
    with open('/proc/%d/status' % node.process.pid, encoding='utf-8') as f:
        return int(next(line for line in f if line.startswith('VmRSS')).split()[1]) << 10


def test_the_port_answers_while_the_node_starts(tmp_path, start):
    """Every answer before it is ready is 503 with Retry-After in the API's own shape, but for health and metrics."""
    node = start(Node(tmp_path / 'node')).start()
    for n in range(20):
        series = [({'__name__': 'start', 'i': str(n * 2000 + i)}, [(1000 * NOW, i)]) for i in range(2000)]
        assert write(node, series).status in (200, 204)
    node.end(signal.SIGKILL)
    node.start(wait=False)
    early = 0
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            ready = node.request('/-/ready').status
            assert node.request('/-/healthy').status == 200
            metrics = node.request('/metrics')
            query = node.request('/api/v1/query?query=count(start)&time=%d' % NOW)
            pushed = write(node, [({'__name__': 'late'}, [(1000 * NOW, 1.0)])])
        except OSError:
            time.sleep(0.005)
            continue
        assert metrics.status == 200 and 'kelpie_build_info' in metrics.text
        if query.status == 503:
            assert ready == 503 and query.headers['Retry-After'], query.text
            assert json.loads(query.body)['errorType'] == 'unavailable'
            early += 1
        else:
            assert query.status == 200, query.text
        assert pushed.status in (200, 204) or (pushed.status == 503 and pushed.headers['Retry-After'])
        if ready == 200:
            break
    print('%d rounds of answers before it was ready' % early)
    answer = node.query('count(start)', NOW)
    assert answer['data']['result'][0]['value'][1] == '40000'


def test_sigterm_under_load(tmp_path, start):
    """Writers and readers at full speed; the node ends by itself, with 0, and has all that it acknowledged."""
    node = start(Node(tmp_path / 'node')).start()
    stopping = threading.Event()
    acked = [set() for _ in range(3)]

    def push(client):
        n = 0
        while not stopping.is_set():
            n += 1
            series = [({'__name__': 'term', 'client': str(client), 'i': str(i)}, [(1000 * NOW + n, float(n))]) for i in range(200)]
            try:
                if write(node, series).status in (200, 204):
                    acked[client].add(n)
            except Exception:   # the connection went with the node
                time.sleep(0.01)

    def ask():
        while not stopping.is_set():
            try:
                node.request('/api/v1/query_range?query=sum(rate(term[1m]))&start=%d&end=%d&step=1' % (NOW - 3000, NOW + 10))
            except Exception:
                time.sleep(0.01)

    threads = [threading.Thread(target=push, args=(c,)) for c in range(3)] + [threading.Thread(target=ask) for _ in range(3)]
    for t in threads:
        t.start()
    try:
        for _ in range(3):
            time.sleep(1.5)
            begin = time.monotonic()
            assert node.end(signal.SIGTERM, 30) == 0
            assert time.monotonic() - begin < 15, 'it took %.1f s to stop' % (time.monotonic() - begin)
            node.start()
    finally:
        stopping.set()
        for t in threads:
            t.join(30)
    assert all(acked)
    for client in range(3):
        reply = node.query('count_over_time(term{client="%d",i="7"}[1h])' % client, NOW + 600)
        assert int(reply['data']['result'][0]['value'][1]) >= len(acked[client])


def fat_series(i):
    """A series whose labels take nearly all that labels may: 64 KB that no compression makes less than half of."""
    return {'__name__': 'fat', 'i': str(i), **{'p%02d' % k: os.urandom(1950).hex() for k in range(16)}}


def ask(node, expression):
    return node.request('/api/v1/query', urllib.parse.urlencode({'query': expression, 'time': NOW}).encode(), timeout=60)


def used(node):
    """Bytes that the pools hold, and what they may."""
    text = node.request('/metrics').text
    return tuple(int(float(re.search(r'^kelpie_memory%s_bytes (\S+)$' % part, text, re.M).group(1))) for part in ('', '_budget'))


def test_a_small_memory_budget(tmp_path, start):
    """New large series against the smallest budget: refused by name when the index has its share, and never more is held
    than the budget; what is known flows on. A query too large for its own budget is refused as such, whatever else runs;
    one that finds the memory taken by others is told to come again."""
    budget = 256 << 20
    node = start(Node(tmp_path / 'node', 'memory: {budget: 256MiB}\nquery: {max_memory: 32MiB, timeout: 20s}\n')).start()
    known, refused, busy = [], None, 0
    while refused is None and len(known) < 3000 and busy < 200:
        series = [fat_series(len(known) + i) for i in range(20)]
        reply = write(node, [(labels, [(1000 * NOW, 1.0)]) for labels in series])
        pools, limit = used(node)
        assert limit == budget and pools <= budget, (pools, limit)
        if reply.status == 400:
            refused = reply
        elif reply.status == 503:   # spills lag
            assert reply.headers['Retry-After'] and 'memory' in reply.text, reply.text
            busy += 1
            time.sleep(0.2)
        else:
            assert reply.status == 204, reply.text
            known += series
    assert refused is not None, '%d series taken, %d times 503' % (len(known), busy)
    assert 'no memory for more series: ' in refused.text and 'metric "fat" brought about' in refused.text, refused.text
    share = len(known) * 63000   # a fifth of the budget, give or take what compression and tables make of it
    assert budget // 10 < share < budget // 2, '%d series of 63,000 bytes taken' % len(known)
    for labels in known[:50]:
        assert write(node, [(labels, [(1000 * NOW + 1000, 2.0)])]).status == 204

    one = 'fat{i=~"[0-9]|[0-9]{2}"}'   # 100 series, 6.3 MB
    assert len(ask(node, one).json()['data']['result']) == 100
    own = ask(node, 'fat')
    assert own.status == 422 and own.json()['errorType'] == 'execution', own.text[:300]
    assert 'more memory than one query may have' in own.text
    some = 'fat{i=~"[0-9]|[0-9]{2}|1[0-9]{2}"}'   # 200 series, 13 MB of labels and as much of answer: all may have 64 MiB
    assert len(ask(node, some).json()['data']['result']) == 200
    end = time.monotonic() + 60
    replies = []
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        while time.monotonic() < end and not {200, 503} <= {r.status for r in replies}:
            replies += pool.map(lambda i: ask(node, some if i > 0 else 'fat'), range(12))
    kinds = collections.Counter((r.status, r.json().get('errorType')) for r in replies)
    print('%d series; answers of queries at once: %s; %d MiB resident' % (len(known), dict(kinds), read(node) >> 20))
    assert set(kinds) <= {(200, None), (422, 'execution'), (503, 'unavailable')}, kinds
    assert kinds[(200, None)] > 0 and kinds[(503, 'unavailable')] > 0, kinds
    said = 'other queries have the memory', 'all memory for queries is in use'   # on the way, or before it began
    for reply in replies:
        assert reply.status != 503 or (reply.headers['Retry-After'] and any(s in reply.text for s in said)), reply.text
    assert kinds[(422, 'execution')] <= len(replies) // 12, kinds   # those that ask for all
    assert used(node)[0] <= budget
    assert len(ask(node, some).json()['data']['result']) == 200
    assert node.end() == 0


def test_retention_waits_for_a_person(tmp_path, start):
    config = tmp_path / 'node' / 'kelpie.yaml'
    node = start(Node(tmp_path / 'node', 'storage:\n  idle_cut: 1s\n')).start()
    old = NOW - 40 * 86400
    assert write(node, [({'__name__': 'old', 'i': str(i)}, [(1000 * old, 1.0)]) for i in range(50)]).status in (200, 204)
    assert node.request('/api/v1/admin/tsdb/snapshot', b'', method='POST').status == 200
    none = run_kelpie('retention', '--confirm', '--url', node.url)
    assert none.returncode == 1 and 'no retention step waits' in none.stderr
    config.write_text('storage:\n  idle_cut: 1s\n  retention: 30d\n')
    assert node.request('/-/reload', b'', method='POST').status == 200
    end = time.monotonic() + 30
    while 'kelpie_retention_waiting_partitions 0\n' in node.request('/metrics').text:
        assert time.monotonic() < end, 'nothing waits'
        time.sleep(0.1)
    time.sleep(1)   # all partitions had their turn
    assert node.query('count(old)', old + 1)['data']['result'] != []
    done = run_kelpie('retention', '--confirm', '--url', node.url)
    assert done.returncode == 0 and 'cutoffMs' in done.stdout, done.stderr
    end = time.monotonic() + 30
    while node.query('count(old)', old + 1)['data']['result'] != []:
        assert time.monotonic() < end, 'it did not go'
        time.sleep(0.1)
    assert os.path.exists(os.path.join(node.data, 'blob'))
    shown = run_kelpie('retention')
    assert shown.returncode == 2 and '--confirm' in shown.stderr


def test_sigterm_while_the_storage_opens(tmp_path, start):
    """A start that takes long ends at once, with 0, and has lost nothing. The log, read at each start, is what takes long."""
    node = start(Node(tmp_path / 'node')).start()
    for n in range(40):
        series = [({'__name__': 'opening', 'i': str(n * 2000 + i)}, [(1000 * NOW, i)]) for i in range(2000)]
        assert write(node, series).status in (200, 204)
    node.end(signal.SIGKILL)
    for _ in range(5):
        node.start(wait=False)
        time.sleep(0.05)
        begin = time.monotonic()
        assert node.end(signal.SIGTERM, 30) in (0, -signal.SIGTERM)   # by the default action before any code of ours ran
        assert time.monotonic() - begin < 15
    node.start()
    assert node.query('count(opening)', NOW)['data']['result'][0]['value'][1] == '80000'


def test_sigterm_at_the_moment_of_readiness(tmp_path, start):
    """A node that says it is ready is stopped as any other: what runs ends, heads are spilled."""
    node = start(Node(tmp_path / 'node'))
    for n in range(1, 11):
        node.start(wait=False)
        end = time.monotonic() + 30
        is_ready = False
        while not is_ready and time.monotonic() < end:
            try:
                with socket.create_connection(('127.0.0.1', node.port)) as s:
                    s.sendall(b'GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n')
                    is_ready = s.recv(4096).startswith(b'HTTP/1.1 200')
            except OSError:
                pass
        assert is_ready and node.end() == 0
        assert 'stopped while the storage was opening' not in node.output()
        assert node.output().count('msg="stopped"') == n, node.output()
