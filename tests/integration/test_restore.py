"""kelpie cluster restore, clone and adopt: on real brokers and a real S3 store, with nodes that are stopped, and with such that run.
Killed at any moment and run again, both come to their end; what was committed is answered, what is lost is named."""
import glob
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time

import pytest

import remote_write
from conftest import BINARY, TOP, Node, run_kelpie, wait_until
from test_cluster import STRONG, Load, ready_text, request
from test_verify_cluster import keys, metric, s3

sys.path.insert(0, os.path.join(TOP, 'tools'))
import run_cluster  # noqa: E402

TTL_SECONDS = 1800
PARTITIONS = 8
STORAGE = 'storage:\n  head_rows: 200\n  idle_cut: 1s\n  compaction: false\n'


class Cluster(run_cluster.Cluster):
    def write_config(self, node, edit=None):
        super().write_config(node, lambda text: self.edited(edit(text) if edit else text))

    def edited(self, text):
        return text + STORAGE

    def config(self, node):
        return self.path('node-%d' % node, 'kelpie.yaml')

    def kill_nodes(self):
        for node in self.numbers():
            self.kill_node(node)

    def start_nodes(self):
        for node in self.numbers():
            self.start_node(node)
        for node in self.numbers():
            self.wait_ready(node)

    def ask_broker(self, broker, key, version, body):
        """One request of Kafka's protocol, and the body of its answer."""
        host, port = broker.split(':')
        body = struct.pack('>hhih', key, version, 7, -1) + body
        with socket.create_connection((host, int(port)), timeout=60) as s:
            s.sendall(struct.pack('>i', len(body)) + body)
            answer = s.makefile('rb')
            (size,) = struct.unpack('>i', answer.read(4))
            return answer.read(size)[4:]

    def delete_topic(self, name):
        """DeleteTopics, then until each broker has heard of it: each has its own view of what there is, and tells that."""
        text = name.encode()
        brokers = self.bootstrap.split(',')
        answer = self.ask_broker(brokers[0], 20, 1, struct.pack('>ih', 1, len(text)) + text + struct.pack('>i', 30000))
        assert answer[-2:] == bytes(2), answer
        ask = struct.pack('>i', -1) + bytes([0])   # Metadata: all topics, none is created
        wait_until('all brokers know that %s is gone' % name, 60,
                   lambda: all(struct.pack('>h', len(text)) + text not in self.ask_broker(b, 3, 4, ask) for b in brokers))

    def new_brokers(self):
        """All of them lost their disks."""
        self.kafka('destroy')
        self.bootstrap = self.kafka('start', self.settings['brokers'], self.settings['kafka']).strip().split('bootstrap=')[1]


class Copy(Cluster):
    """Of another one: the same services, with topics, a prefix, ports and directories of its own."""
    def __init__(self, source, folder):
        super().__init__(folder, ttl=TTL_SECONDS, **{k: v for k, v in source.settings.items() if k not in ('kafka', 's3', 'http')})
        self.settings.update(kafka=source.settings['kafka'], s3=source.settings['s3'])
        self.bootstrap = source.bootstrap

    def edited(self, text):
        text = text.replace('topic: kelpie\n', 'topic: copied\n').replace('control_topic: kelpie-control', 'control_topic: copied-control')
        return super().edited(text.replace('bucket: telemetry', 'bucket: telemetry\n    prefix: the/copy'))

    def destroy(self):
        self.kill_nodes()


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    reason = run_cluster.why_not()
    if reason is not None:
        pytest.skip(reason)
    run_cluster.BINARY = BINARY
    one = Cluster(str(tmp_path_factory.mktemp('restore') / 'c'), ttl=TTL_SECONDS, replicas=2, scrapes=False, partitions=PARTITIONS)
    try:
        yield one.start()
    finally:
        one.destroy()


def command(verb, *arguments, status=0):
    run = run_kelpie('cluster', verb, *arguments, timeout=300)
    assert run.returncode == status, run.stdout + run.stderr
    return run.stdout if status == 0 else run.stderr


def restore(cluster, *arguments, status=0):
    return command('restore', '--config', cluster.config(1), *arguments, status=status)


def run_with_kills(folder, is_done, *arguments):
    """Run a command, killed after longer and longer times, until it comes to its end; is_done: what it says when there is nothing
    to do any more. Returns what the last run said, None if it was killed when all was done, and how often one was killed."""
    for kills in range(200):
        process = subprocess.Popen([BINARY, 'cluster', *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            said = process.communicate(timeout=0.05 + 0.15 * kills)[0]
            if process.returncode == 0:
                return said, kills
            assert kills > 0 and is_done in said, said
            return None, kills
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    raise AssertionError('it never ends')


def rows_in(said):
    return int(re.search(r'(\d+) rows in', said).group(1))


def wait_stored(cluster, count):
    """Until the bucket has so many rows: what is idle for a second is cut."""
    wait_until('%d rows are in the bucket' % count, 60,
               lambda: rows_in(restore(cluster, '--dry-run', '--nodes-are-stopped')) >= count)


loads = []   # of the source, in turn: what was committed of all of them


def write(cluster, name, nodes=(1, 2, 3)):
    load = Load(cluster, name)
    loads.append(load)
    for node in nodes:
        assert load.write(node) in (200, 204)
    return load


def stored():
    return sum(len(load.written) for load in loads)


def must_be_there(cluster, load, node):
    """Every sample, whatever else is missing."""
    end = time.monotonic() + 60
    while (answer := load.ask(node, **STRONG))[1] != load.written:
        assert time.monotonic() < end, 'node %d: complete=%s, %d of %d' % (node, answer[0], len(answer[1]), len(load.written))
        time.sleep(0.2)
    return answer[0]


def test_nothing_is_restored_that_is_there(cluster):
    write(cluster, 'before')
    wait_stored(cluster, stored())
    said = restore(cluster, status=1)
    assert 'nodes may still run' in said and '--nodes-are-stopped' in said
    assert 'nothing is to be restored: both topics are there' in restore(cluster, '--nodes-are-stopped', status=1)
    assert 'CLUSTER' in keys(cluster) and 'RESTORE' not in keys(cluster)
    loads[0].must_be_answered_by((1, 2, 3))


def test_the_control_topic_is_lost(cluster):
    """The log is there: nothing is lost, and answers say so."""
    load = write(cluster, 'control')
    cluster.kill_nodes()
    cluster.delete_topic('kelpie-control')
    cluster.start_node(2)
    wait_until('node 2 says what it lacks', 60, lambda: 'kelpie cluster restore' in ready_text(cluster, 2))
    cluster.kill_node(2)
    said = restore(cluster, '--dry-run', '--nodes-are-stopped')
    assert 'topic kelpie-control is gone, and would be created' in said and 'topic kelpie is there' in said
    said = restore(cluster, '--nodes-are-stopped')
    assert "the log's topic is there: nothing of it is lost" in said
    cluster.start_nodes()
    load.must_be_answered_by((1, 2, 3))
    loads[0].must_be_answered_by((1, 2, 3))
    write(cluster, 'control_after').must_be_answered_by((1, 2, 3))


def lose_brokers(cluster, name):
    load = write(cluster, name)
    wait_stored(cluster, stored())
    cluster.kill_nodes()
    cluster.new_brokers()
    return load


def test_all_brokers_are_lost(cluster):
    """Killed at any moment and run again; the loss is accepted, and what was committed is answered as complete."""
    lose_brokers(cluster, 'brokers')
    before = keys(cluster)
    said = restore(cluster, '--dry-run', '--nodes-are-stopped')
    assert rows_in(said) >= stored() and 'topic kelpie is gone, and would be created' in said
    assert len(re.findall(r'^\d+ +20\d\d-', said, re.M)) == PARTITIONS
    assert keys(cluster) == before
    said, kills = run_with_kills(cluster.folder, 'nothing is to be restored', 'restore', '--config', cluster.config(1), '--nodes-are-stopped', '--confirm-loss')
    print('killed %d times' % kills)
    assert kills > 2
    assert said is None or 'that is accepted' in said and 'the cluster can be started' in said
    assert 'RESTORE' not in keys(cluster)
    shutil.rmtree(cluster.data(3))   # the others go on with their directories
    cluster.start_nodes()
    assert 'The cluster was restored since this node ran' in cluster.output(1)
    for load in loads:
        load.must_be_answered_by((1, 2, 3), seconds=60)
    write(cluster, 'brokers_after').must_be_answered_by((1, 2, 3))
    assert 'nothing is to be restored' in restore(cluster, '--nodes-are-stopped', status=1)


def test_a_loss_is_named(cluster):
    """Without a person's word answers name it: in all partitions, as nobody knows how far the log reached."""
    lose_brokers(cluster, 'named')
    lost = Load(cluster, 'never_stored')
    assert "answers name it (--confirm-loss would have accepted it)" in restore(cluster, '--nodes-are-stopped')
    cluster.start_nodes()
    for load in loads:
        assert not must_be_there(cluster, load, 1)
    wait_until('each partition has its loss', 60, lambda: sum(metric(cluster, node, 'losses') for node in (1, 2, 3)) >= PARTITIONS)
    reply = request(cluster.url(1) + '/api/v1/query?query=named')
    assert reply.headers['X-Kelpie-Complete'] == 'false' and ('damaged log records' in reply.headers['X-Kelpie-Missing'] or
                                                                     'lost at another node' in reply.headers['X-Kelpie-Missing'])
    assert lost.write(2) in (200, 204)
    must_be_there(cluster, lost, 3)


def test_a_topic_of_somebody_else(cluster):
    """One that holds records and is not the cluster's is not touched."""
    cluster.kill_nodes()
    mark = s3(cluster, 'GET', 'CLUSTER')
    other = bytearray(mark)
    other[48] ^= 1   # the log's topic, as another id
    s3(cluster, 'PUT', 'CLUSTER', bytes(other[:124]) + crc32c(bytes(other[:124])))
    said = restore(cluster, '--nodes-are-stopped', status=1)
    assert 'topic kelpie is not the one that the bucket knows, and holds records in' in said
    s3(cluster, 'PUT', 'CLUSTER', mark)
    cluster.start_nodes()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return (crc ^ 0xffffffff).to_bytes(4, 'little')


# ---- clone ----

@pytest.fixture(scope='module')
def copy(cluster, tmp_path_factory):
    one = Copy(cluster, str(tmp_path_factory.mktemp('clone') / 'c'))
    for node in one.numbers():
        one.write_config(node)
    yield one
    one.destroy()


def clone(cluster, copy, *arguments, status=0):
    return command('clone', '--config', cluster.config(1), '--to', copy.config(1), *arguments, status=status)


def segment_of(cluster):
    """The key of the largest segment in the source's bucket."""
    return max((k for k in keys(cluster) if re.match(r'p\d+/segment/', k)), key=lambda k: len(s3(cluster, 'GET', k)))


def test_a_clone_while_the_source_goes_on(cluster, copy):
    """Killed at any moment and run again, with writes to the source meanwhile: it holds what was committed when it was begun, and
    the two know nothing of each other."""
    wait_stored(cluster, stored())
    objects = keys(cluster)
    said = clone(cluster, copy, '--dry-run')
    assert rows_in(said) >= stored() and int(re.search(r'(\d+) bytes, beside', said).group(1)) > 0
    assert not keys(cluster, 'the/copy')

    key = segment_of(cluster)
    whole = s3(cluster, 'GET', key)
    s3(cluster, 'PUT', key, whole[:100] + bytes([whole[100] ^ 4]) + whole[101:])
    said = clone(cluster, copy, status=1)
    assert 'object %s in the source: it is damaged' % key in said
    s3(cluster, 'PUT', key, whole)
    assert 'CLONE' in [k.split('/')[-1] for k in keys(cluster, 'the/copy')]   # begun: nodes wait
    copy.start_node(1)
    wait_until('a node of the copy refuses to begin', 60, lambda: not copy.is_running(1))
    assert 'the bucket is being made by kelpie cluster clone' in copy.output(1)

    later = Load(cluster, 'later')
    assert later.write(2) in (200, 204)
    said, kills = run_with_kills(copy.folder, "is a cluster's already", 'clone', '--config', cluster.config(1), '--to', copy.config(1))
    print('killed %d times' % kills)
    assert kills > 0
    assert said is None or 'a copy was begun here' in said and 'can be started' in said
    assert 'the/copy/CLONE' not in keys(cluster, 'the/copy') and set(objects) <= set(keys(cluster))
    assert not [f for f in os.listdir(copy.folder) if f.endswith('.tmp')]
    assert "the destination's bucket is a cluster's already" in clone(cluster, copy, status=1)

    copy.start_nodes()
    for load in loads:
        there = Load(copy, load.name)
        there.written = load.written
        must_be_there(copy, there, 1)
    beyond = Load(copy, 'only_in_the_copy')
    assert beyond.write(3) in (200, 204)
    must_be_there(copy, beyond, 2)
    must_be_there(cluster, later, 1)
    assert Load(cluster, 'only_in_the_copy').ask(1, **STRONG)[1] == {}
    assert Load(copy, 'later').ask(1, **STRONG)[1] == {}
    ids = [json.loads(request(one.url(1) + '/api/v1/admin/cluster', b'').body)['data']['clusterId'] for one in (cluster, copy)]
    assert ids[0] != ids[1]


def test_clones_that_are_refused(cluster, copy, tmp_path):
    with open(cluster.config(1), encoding='utf-8') as f:
        text = f.read()
    other = os.path.join(cluster.path('node-1'), 'other.yaml')
    with open(other, 'w', encoding='utf-8') as f:
        f.write(text.replace('bucket: telemetry', 'bucket: telemetry\n    prefix: nothing/here'))
    assert "the source's bucket has no CLUSTER" in command('clone', '--config', other, '--to', copy.config(1), status=1)
    assert "a cluster's already: the source's own" in command('clone', '--config', cluster.config(1), '--to', cluster.config(2), status=1)
    assert '--at-time takes Unix seconds' in clone(cluster, copy, '--at-time', 'yesterday', status=1)
    assert 'the bucket has no CLUSTER' in command('restore', '--config', other, status=1)


# ---- adopt ----

class Alone:
    """A single node, where a Load takes a cluster."""
    def __init__(self, node):
        self.node = node

    def url(self, node):
        return self.node.url


def adopt(cluster, snapshot, *arguments, status=0):
    return command('adopt', snapshot, '--config', cluster.config(1), *arguments, status=status)


def snapshot_of(node):
    assert run_kelpie('snapshot', '--url', node.url).returncode == 0
    return max(glob.glob(os.path.join(node.data, 'snapshots', '*')), key=os.path.getmtime)


def test_a_single_node_is_adopted(cluster, start, tmp_path):
    """Killed at any moment and run again, while both run: the cluster answers what the node had; what it has itself wins."""
    node = start(Node(tmp_path / 'alone')).start()
    history = Load(Alone(node), 'history')
    for _ in range(3):
        assert history.write(1) in (200, 204)
    t_ms = int(time.time() * 1000)
    both = Load(Alone(node), 'both')
    assert both.write(1, t_ms=t_ms) in (200, 204)
    newer = Load(cluster, 'both')
    newer.written = {i: value + 0.5 for i, value in both.written.items() if value % 2}
    rows = [({'__name__': 'both', 'id': i}, [(t_ms, value)]) for i, value in newer.written.items()]
    assert request(cluster.url(1) + '/api/v1/write', remote_write.request_v1(rows),
                   {'Content-Encoding': 'snappy', 'Content-Type': 'application/x-protobuf'}).status in (200, 204)

    snapshot = snapshot_of(node)
    rows = len(history.written) + len(both.written)
    said = adopt(cluster, snapshot, '--dry-run')
    assert rows_in(said) == rows and 'are to go to %d partitions' % PARTITIONS in said, said
    assert 'ADOPT' not in keys(cluster)
    said, kills = run_with_kills(tmp_path, 'has adopted this snapshot before', 'adopt', snapshot, '--config', cluster.config(1))
    print('killed %d times' % kills)
    assert kills > 0
    assert said is None or 'is gone on with' in said and 'adopted: ' in said, said
    assert 'ADOPT' not in keys(cluster) and any(k.startswith('adopted/') for k in keys(cluster))
    assert not [f for f in os.listdir(tmp_path) if f.endswith('.tmp')]

    history.cluster = cluster
    newer.written = {**both.written, **newer.written}
    for load in (history, newer):   # losses of the tests before may still be named
        for one in (1, 2, 3):
            must_be_there(cluster, load, one)
    cluster.kill_node(2)   # and who opens the chains anew reads it there
    cluster.start_node(2)
    cluster.wait_ready(2)
    must_be_there(cluster, history, 2)
    assert 'the cluster has adopted this snapshot before' in adopt(cluster, snapshot, status=1)


def test_adoptions_that_are_refused(cluster, start, tmp_path):
    node = start(Node(tmp_path / 'alone')).start()
    assert Load(Alone(node), 'refused').write(1) in (200, 204)
    snapshot = snapshot_of(node)
    assert 'is not a snapshot' in adopt(cluster, node.data, status=1)
    segment = glob.glob(os.path.join(snapshot, 'blob', 'p*', 'segment', '*'))[0]
    with open(segment, 'rb') as f:
        whole = f.read()
    os.unlink(segment)   # a link: the node keeps its own
    with open(segment, 'wb') as f:
        f.write(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    assert os.path.basename(segment) in adopt(cluster, snapshot, status=1)
    assert 'the adoption of another snapshot was begun' in adopt(cluster, take_another(node), status=1)
    with open(segment, 'wb') as f:
        f.write(whole)
    assert 'is gone on with' in adopt(cluster, snapshot)
    assert 'SNAPSHOT is missing' in run_kelpie('cluster', 'adopt', '--config', cluster.config(1)).stderr


def take_another(node):
    assert Load(Alone(node), 'more').write(1) in (200, 204)
    return snapshot_of(node)
