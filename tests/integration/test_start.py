"""Start and stop: the port answers while the node starts, SIGTERM under load ends within seconds and loses nothing,
a small memory budget refuses and is never exceeded by much, large steps of retention wait for a person."""
import json
import os
import signal
import socket
import threading
import time

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


def test_a_small_memory_budget(tmp_path, start):
    """Ever new large series and greedy queries against the smallest budget: refused, queries and process live on."""
    node = start(Node(tmp_path / 'node', 'memory:\n  budget: 256MiB\nquery:\n  max_memory: 32MiB\n  timeout: 5s\n')).start()
    refused = 0
    sent = 0
    end = time.monotonic() + 40
    while time.monotonic() < end and refused < 5:
        series = [({'__name__': 'fat', 'i': str(sent + i), **{'p%02d' % k: os.urandom(2000).hex() for k in range(16)}},
                   [(1000 * NOW, 1.0)]) for i in range(100)]
        try:
            reply = write(node, series)
        except OSError:   # refused before the body was read: the client may see a broken pipe only
            assert node.process.poll() is None, node.output()[-2000:]
            refused += 1
            continue
        assert reply.status in (200, 204, 400, 503), reply.text
        if reply.status == 503:
            assert reply.headers['Retry-After'] and reply.text
            refused += 1
        elif reply.status == 400:
            assert 'no memory for more series' in reply.text and 'metric "fat"' in reply.text
            refused += 1
        else:
            sent += 100
        if sent % 1000 == 0:
            query = node.request('/api/v1/query?query=fat&time=%d' % NOW)
            assert query.status in (200, 422, 503), query.text
        assert node.process.poll() is None, node.output()[-2000:]
    assert refused > 0, '%d series taken, the budget was never reached, %d MiB resident' % (sent, read(node) >> 20)
    print('%d series taken, %d writes refused, %d MiB resident' % (sent, refused, read(node) >> 20))
    assert read(node) < 600 << 20, 'far above the budget of 256 MiB'
    assert node.request('/-/healthy').status == 200
    assert node.query('1 + 1', NOW)['status'] == 'success'
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
