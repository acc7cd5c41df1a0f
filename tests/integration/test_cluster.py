"""Three nodes on three real brokers and a real S3 store: what any node takes, every node answers; a node that dies, stops,
or loses its disk is not missed. Started by the script of `./dev cluster`."""
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

import remote_write
from conftest import BINARY, TOP, Reply
from round_robin import RoundRobin

sys.path.insert(0, os.path.join(TOP, 'tools'))
import run_cluster  # noqa: E402

TTL_SECONDS = 900
SERIES = 400
SILENT_SECONDS = 4   # a dead node is steered around within three
STRONG = {'X-Kelpie-Consistency': 'strong'}


def request(url, data=None, headers=None, timeout=30):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers or {}), timeout=timeout) as r:
            return Reply(r.status, r.headers, r.read())
    except urllib.error.HTTPError as e:
        return Reply(e.code, e.headers, e.read())


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    reason = run_cluster.why_not()
    if reason is not None:
        pytest.skip(reason)
    run_cluster.BINARY = BINARY
    one = run_cluster.Cluster(str(tmp_path_factory.mktemp('cluster') / 'c'), ttl=TTL_SECONDS, replicas=2, scrapes=False)
    try:
        yield one.start()
    finally:
        one.destroy()


class Load:
    """Series of one metric, each with a value of its own; what was acknowledged is known."""
    def __init__(self, cluster, name):
        self.cluster, self.name, self.written = cluster, name, {}

    def write(self, node, count=SERIES, t_ms=None):
        """One sample each of so many new series, to that node. Returns the status."""
        first, t_ms = len(self.written), t_ms or int(time.time() * 1000)
        rows = [({'__name__': self.name, 'id': '%05d' % i}, [(t_ms, float(i))]) for i in range(first, first + count)]
        reply = request(self.cluster.url(node) + '/api/v1/write', remote_write.request_v1(rows),
                        {'Content-Encoding': 'snappy', 'Content-Type': 'application/x-protobuf'})
        if reply.status in (200, 204):
            self.written.update((row[0]['id'], row[1][0][1]) for row in rows)
        return reply.status

    def ask(self, node, **headers):
        """What the node answers now: (is it complete, value by id)."""
        query = urllib.parse.urlencode({'query': self.name, 'time': '%.3f' % time.time()}).encode()
        reply = request(self.cluster.url(node) + '/api/v1/query', query, headers)
        if reply.status != 200:
            return False, {}
        rows = reply.json()['data']['result']
        return (reply.headers['X-Kelpie-Complete'] == 'true',
                {row['metric']['id']: float(row['value'][1]) for row in rows})

    def must_be_answered_by(self, nodes, seconds=30):
        """Each of the nodes comes to answer everything that was acknowledged, and says of nothing less that it is complete."""
        for node in nodes:
            end = time.monotonic() + seconds
            while (answer := self.ask(node, **STRONG)) != (True, self.written):
                assert not answer[0], 'node %d calls %d of %d complete' % (node, len(answer[1]), len(self.written))
                assert time.monotonic() < end, 'node %d: complete=%s, %d of %d\n%s' % (
                    node, answer[0], len(answer[1]), len(self.written), self.cluster.output(node)[-2000:])
                time.sleep(0.1)


def test_what_any_node_takes_every_node_answers(cluster):
    load = Load(cluster, 'any')
    for node in (1, 2, 3, 1, 2, 3):
        assert load.write(node) in (200, 204)
    load.must_be_answered_by((1, 2, 3))


def test_a_wide_answer_is_of_several_nodes(cluster):
    load = Load(cluster, 'wide')
    assert load.write(1) in (200, 204)
    load.must_be_answered_by((1, 2, 3))
    for node in (1, 2, 3):
        proof = request(cluster.url(node) + '/api/v1/query?proof=true&query=count(wide)').json()['kelpie']
        assert proof['complete'] and len(proof['partitions']) == cluster.settings['partitions']
        assert len({partition['node'] for partition in proof['partitions']}) >= 2


def test_a_strong_read_sees_what_was_acknowledged(cluster):
    load = Load(cluster, 'strong')
    for i in range(6):
        assert load.write(1 + i % 3, count=50) in (200, 204)
        complete, rows = load.ask(1 + (i + 1) % 3, **STRONG)
        assert complete and rows == load.written
    reply = request(cluster.url(1) + '/api/v1/query?query=strong', headers={'X-Kelpie-Consistency': 'eventual'})
    assert reply.status == 400 and 'must be "strong"' in reply.text.replace('\\', '')


def run_upstream_scripts(cluster, nodes):
    """Prometheus' own scripts, every request at the next node, every answer complete."""
    folder = os.path.join(os.path.dirname(TOP), 'shared', 'promql')
    if not os.path.isdir(folder):
        pytest.skip('the upstream scripts are not beside the checkout')
    scripts = [os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.endswith('.test')]
    proxy = RoundRobin([cluster.port(node) for node in nodes])
    try:
        run = subprocess.run([sys.executable, os.path.join(folder, 'promqltest_http.py'), '-v', '--only-feature', 'core', '--url',
                              proxy.url, '--header', 'X-Scope-OrgID: %d-t{n}' % len(nodes)] +
                             [a for k, v in STRONG.items() for a in ('--header', '%s: %s' % (k, v))] + scripts,
                             capture_output=True, text=True, timeout=300)
    finally:
        proxy.close()
    total = re.search(r'total: (\d+) passed, (\d+) failed', run.stdout)
    assert total, run.stdout[-2000:] + run.stderr[-2000:]
    assert int(total.group(1)) >= 178 and total.group(2) == '0', run.stdout[-4000:]
    assert proxy.incomplete == []
    assert sorted(proxy.used) == [cluster.port(node) for node in nodes] and min(proxy.used.values()) > 100


def test_upstream_scripts(cluster):
    run_upstream_scripts(cluster, (1, 2, 3))


def test_upstream_scripts_with_a_node_killed(cluster):
    cluster.kill_node(3)
    time.sleep(SILENT_SECONDS)
    run_upstream_scripts(cluster, (1, 2))
    cluster.start_node(3)
    cluster.wait_ready(3)


def test_a_node_is_killed(cluster):
    load = Load(cluster, 'killed')
    assert load.write(2) in (200, 204)
    load.must_be_answered_by((1, 2, 3))
    cluster.kill_node(2)
    for node in (1, 3):
        assert load.write(node) in (200, 204)
    load.must_be_answered_by((1, 3))
    cluster.start_node(2)
    cluster.wait_ready(2)
    load.must_be_answered_by((2,))


def test_a_node_stops(cluster):
    load = Load(cluster, 'stopped')
    assert load.write(3) in (200, 204)
    load.must_be_answered_by((3,))
    took = cluster.stop_node(3)
    print('left after %.1f s' % took)
    assert 'has left the cluster' in cluster.output(3)
    assert load.write(1) in (200, 204)
    load.must_be_answered_by((1, 2))
    cluster.start_node(3)
    cluster.wait_ready(3)
    load.must_be_answered_by((3,))


def test_a_disk_is_lost(cluster):
    load = Load(cluster, 'disk')
    assert load.write(1) in (200, 204)
    load.must_be_answered_by((1,))
    cluster.kill_node(1)
    shutil.rmtree(cluster.data(1))
    cluster.start_node(1)
    cluster.wait_ready(1)
    load.must_be_answered_by((1, 2, 3))


def test_all_are_killed_at_once(cluster):
    load = Load(cluster, 'all')
    for node in (1, 2, 3):
        assert load.write(node) in (200, 204)
    for node in (1, 2, 3):
        cluster.kill_node(node)
    for node in (1, 2, 3):
        cluster.start_node(node)
    for node in (1, 2, 3):
        cluster.wait_ready(node)
    load.must_be_answered_by((1, 2, 3))
