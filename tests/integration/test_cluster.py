"""Three nodes on three real brokers and a real S3 store: what any node takes, every node answers; a node that dies, stops,
or loses its disk is not missed. Started by the script of `./dev cluster`."""
import json
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
from conftest import TOP, Reply, kelpie, kelpie_cluster, nodes_of, wait_until
from round_robin import RoundRobin

SERIES = 400
SILENT_SECONDS = 4   # a dead node is steered around within three
STRONG = {'X-Kelpie-Consistency': 'strong'}


def request(url, data=None, headers=None, timeout=30):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers or {}), timeout=timeout) as r:
            return Reply(r.status, r.headers, r.read())
    except urllib.error.HTTPError as e:
        return Reply(e.code, e.headers, e.read())


def health_of(cluster, node):
    return json.loads(kelpie('health', cluster, '--json', node=node).stdout)['data']


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
        self.token = reply.headers.get('X-Kelpie-Token', '')
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
        received = request(cluster.url(node) + '/api/v1/query?stats=all&query=sum(wide)').json()['data']['stats']['received']
        assert received['groupsBytes'] > 0 and received['rowsBytes'] == 0


def test_a_strong_read_sees_what_was_acknowledged(cluster):
    load = Load(cluster, 'strong')
    for i in range(6):
        assert load.write(1 + i % 3, count=50) in (200, 204)
        complete, rows = load.ask(1 + (i + 1) % 3, **STRONG)
        assert complete and rows == load.written
    reply = request(cluster.url(1) + '/api/v1/query?query=strong', headers={'X-Kelpie-Consistency': 'eventual'})
    assert reply.status == 400 and 'must be "strong"' in reply.text.replace('\\', '')


def test_a_token_stands_for_a_write(cluster):
    """Whoever presents what a write's answer said, at any node, sees that write."""
    load = Load(cluster, 'token')
    for i in range(12):
        assert load.write(1 + i % 3, count=1 if i % 2 else 300) in (200, 204)
        assert 0 < len(load.token) <= 1024
        complete, rows = load.ask(1 + (i + 1) % 3, **{'X-Kelpie-Token': load.token})
        assert complete and rows == load.written
    cut = request(cluster.url(1) + '/api/v1/query?query=token', headers={'X-Kelpie-Token': load.token[:-5]})
    assert cut.status == 400 and cut.json()['errorType'] == 'bad_data' and 'token' in cut.json()['error']


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
    health = health_of(cluster, 2)
    assert health['state'] == 'warning' and health['members'] == {'expected': 3, 'present': 2}, health
    assert any(f['text'].startswith('node node-3 has left') for f in health['findings']), health
    assert 'must not be stopped' in kelpie('cluster', cluster, 'may-stop', 'node-1', status=1).stdout
    cluster.start_node(3)
    cluster.wait_ready(3)
    load.must_be_answered_by((3,))
    wait_until('all is well again', 60, lambda: health_of(cluster, 1)['state'] == 'well')
    assert 'may be stopped' in kelpie('cluster', cluster, 'may-stop', 'node-1').stdout
    assert kelpie('health', cluster).stdout == 'well\n'
    assert len({health_of(cluster, n)['configHash'] for n in (1, 2, 3)}) == 1


def test_what_a_person_suspends(cluster):
    """It has an end, an owner and a reason, which every node shows until it is resumed."""
    words = ('--for', '2h', '--owner', 'ada', '--reason', 'work & more, 100 %')
    assert 'decided' in kelpie('cluster', cluster, 'suspend', 'eviction', *words).stdout
    wait_until('node 3 knows it', 20, lambda: health_of(cluster, 3)['suspensions'])
    (suspension,) = health_of(cluster, 3)['suspensions']
    assert suspension['owner'] == 'ada' and suspension['reason'] == 'work & more, 100 %'
    assert 7100 < suspension['leftSeconds'] <= 7200, suspension
    text = kelpie('health', cluster, status=1).stdout
    assert text.startswith('warning\n') and 'eviction is suspended by ada' in text, text
    metrics = request(cluster.url(1) + '/metrics').body.decode()
    assert 'kelpie_cluster_placement_suspended_seconds 0\n' in metrics
    assert 'kelpie_cluster_eviction_suspended_seconds 7' in metrics
    assert 'kelpie_cluster_unsaved_expires_seconds ' in metrics
    assert 'decided' in kelpie('cluster', cluster, 'resume', 'eviction', node=2).stdout
    wait_until('node 3 knows that, too', 20, lambda: not health_of(cluster, 3)['suspensions'])
    for wrong, text in ((('eviction',), 'needs a duration'), (('naps', *words), 'no automation "naps"'),
                        (('repair', '--for', '2h'), 'needs an owner and a reason')):
        assert text in kelpie('cluster', cluster, 'suspend', *wrong, status=1).stderr


def test_a_disk_is_lost(cluster):
    load = Load(cluster, 'disk')
    assert load.write(1) in (200, 204)
    load.must_be_answered_by((1,))
    cluster.kill_node(1)
    shutil.rmtree(cluster.data(1))
    cluster.start_node(1)
    cluster.wait_ready(1)
    load.must_be_answered_by((1, 2, 3))


def test_drain_and_undrain(cluster):
    """Under load: no write fails, no answer lacks anything, and the dry run says what moves."""
    count, load = cluster.settings['partitions'], Load(cluster, 'drained')
    wait_until('all is owned', 60, lambda: 'without an owner: 0, with too few: 0' in kelpie_cluster(cluster, node=3))
    assert all('node-%d' % n in kelpie_cluster(cluster) for n in (1, 2, 3))
    held = nodes_of(cluster)['node-2']['assigned']
    assert 'drain would move %d replicas' % held in kelpie_cluster(cluster, 'drain', 'node-2', '--dry-run')
    assert nodes_of(cluster)['node-2']['assigned'] == held   # nothing but said
    assert 'decided' in kelpie_cluster(cluster, 'drain', 'node-2')
    end = time.monotonic() + 60
    while (nodes := nodes_of(cluster))['node-2']['owned'] > 0:
        assert time.monotonic() < end, nodes
        assert load.write(1 + len(load.written) // 50 % 3, count=50) in (200, 204)
        assert load.ask(3, **STRONG) == (True, load.written)
    assert nodes['node-1']['owned'] == nodes['node-3']['owned'] == count and nodes['node-2']['draining']
    load.must_be_answered_by((1, 2, 3))
    assert 'decided' in kelpie_cluster(cluster, 'undrain', 'node-2', node=2)
    wait_until('node-2 holds its share again', 60, lambda: nodes_of(cluster)['node-2']['owned'] == held)
    load.must_be_answered_by((1, 2, 3))


def test_wrong_orders(cluster):
    assert 'there is no node "node-9"' in kelpie_cluster(cluster, 'drain', 'node-9', status=1)
    assert 'no action "frob"' in kelpie_cluster(cluster, 'frob', 'x', status=1)
    assert 'it joins by itself' in kelpie_cluster(cluster, 'add', 'zone-9', status=1)
    assert 'needs the name' in kelpie_cluster(cluster, 'drain', status=2)
    assert '(the new node)' in kelpie_cluster(cluster, 'replace', 'node-1', '--zone', 'zone-1', '--dry-run')


def test_brokers_are_away(cluster):
    """Nothing is acknowledged, and no answer is called complete, until they are back; then everything goes on by itself."""
    load = Load(cluster, 'brokers')
    assert load.write(1) in (200, 204)
    load.must_be_answered_by((1, 2, 3))
    for broker in (1, 2, 3):
        cluster.kafka('pause', broker)
    try:
        begun = time.monotonic()
        assert load.write(2) == 503
        print('refused after %.1f s' % (time.monotonic() - begun))
        assert time.monotonic() - begun < 15
        for node in (1, 2, 3):
            wait_until('node %d says that it is incomplete' % node, 20, lambda: not load.ask(node)[0])
        assert not load.ask(1, **STRONG)[0]
    finally:
        for broker in (1, 2, 3):
            cluster.kafka('cont', broker)
    wait_until('a write is taken again', 60, lambda: load.write(2) in (200, 204))
    load.must_be_answered_by((1, 2, 3), seconds=60)
    assert [cluster.pid('node-%d' % node) is not None for node in (1, 2, 3)] == [True] * 3


def test_the_bucket_is_away(cluster):
    """Writes and answers go on; a node that starts says what it waits for."""
    load = Load(cluster, 'bucket')
    assert load.write(1) in (200, 204)
    cluster.s3('pause')
    try:
        assert load.write(3) in (200, 204)
        load.must_be_answered_by((1, 2, 3))
        cluster.kill_node(2)
        cluster.start_node(2)
        wait_until('node 2 waits for the bucket', 30, lambda: 'the bucket' in ready_text(cluster, 2))
        assert load.write(1) in (200, 204)
    finally:
        cluster.s3('cont')
    cluster.wait_ready(2)
    load.must_be_answered_by((1, 2, 3))


def ready_text(cluster, node):
    try:
        return request(cluster.url(node) + '/-/ready').text
    except OSError:
        return ''


@pytest.mark.parametrize('change, text', [
    (('bucket: telemetry', 'bucket: telemetry\n    prefix: other'), 'the bucket has no CLUSTER'),
    (('control_topic: kelpie-control', 'control_topic: kelpie'), 'topic and control_topic are the same'),
    (('topic: kelpie\n', 'topic: kelpie-control-2\n'), None),   # not there: it is waited for
])
def test_wrong_settings(cluster, change, text):
    cluster.kill_node(3)
    said = len(cluster.output(3))
    cluster.start_node(3, edit=lambda config: config.replace(*change))
    if text is None:
        wait_until('node 3 waits for its topic', 60, lambda: "the log's topic" in ready_text(cluster, 3))
        cluster.kill_node(3)
    else:
        wait_until('node 3 ends', 30, lambda: not cluster.is_running(3))
        assert text in cluster.output(3)[said:]
    cluster.start_node(3)
    cluster.wait_ready(3)


def test_a_node_with_another_secret_is_not_ready(cluster):
    """Its queries would lack what the others hold; they are not disturbed by it."""
    with open(cluster.path('other.secret'), 'w', encoding='utf-8') as f:
        f.write('what the others do not know\n')
    cluster.kill_node(3)
    cluster.start_node(3, edit=lambda config: config.replace('../secret', '../other.secret'))
    wait_until('node 3 says why it is not ready', 60, lambda: 'refuse to talk to this one' in ready_text(cluster, 3))
    assert request(cluster.url(3) + '/-/ready').status == 503
    assert [cluster.is_ready(node) for node in (1, 2)] == [True, True]
    cluster.kill_node(3)
    cluster.start_node(3)
    cluster.wait_ready(3)


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
