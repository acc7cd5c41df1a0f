"""kelpie verify --cluster, and the comparison of replicas in the background: three nodes on real brokers and a real S3
store. Segments deleted from the bucket or changed there are told; a row changed on one node's disk is mended."""
import glob
import hashlib
import os
import re
import subprocess
import sys
import urllib.parse

import pytest

from conftest import BINARY, TOP, run_kelpie
from test_cluster import Load, request, wait_until

sys.path.insert(0, os.path.join(TOP, 'tools'))
import run_cluster  # noqa: E402

TTL_SECONDS = 900
FLIP = os.path.join(os.path.dirname(BINARY), 'tests', 'flip_stream')
STORAGE = 'storage:\n  head_rows: 200\n  idle_cut: %s\n'


class Cluster(run_cluster.Cluster):
    idle_cut = '1s'

    def write_config(self, node, edit=None):
        super().write_config(node, lambda text: text + STORAGE % self.idle_cut)


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    reason = run_cluster.why_not()
    if reason is not None:
        pytest.skip(reason)
    run_cluster.BINARY = BINARY
    one = Cluster(str(tmp_path_factory.mktemp('verify') / 'c'), ttl=TTL_SECONDS, replicas=2, scrapes=False, partitions=8)
    try:
        yield one.start()
    finally:
        one.destroy()


def verify(cluster, *arguments, node=1, status=0):
    run = run_kelpie('verify', '--cluster', '--url', cluster.url(node), *arguments, timeout=120)
    assert run.returncode == status, run.stdout + run.stderr
    return run.stdout if status < 2 else run.stderr


def metric(cluster, node, name):
    """Sum of a metric of the node."""
    text = request(cluster.url(node) + '/metrics').text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith('kelpie_' + name + ' '))


def everywhere(cluster, name):
    return sum(metric(cluster, node, name) for node in (1, 2, 3))


def objects(done):
    return int(re.search(r'(\d+) objects looked at', done).group(1))


def s3(cluster, method, key, body=None):
    """A request to the bucket past every node; what is put is described as a node's driver does. Returns the body."""
    url = 'http://127.0.0.1:%d/%s/%s' % (cluster.settings['s3'], run_cluster.BUCKET, key)
    sha256 = hashlib.sha256(body or b'').hexdigest()
    command = ['curl', '-sSf', '--aws-sigv4', 'aws:amz:us-east-1:s3', '-u', '%s:%s' % run_cluster.KEYS,
               '-H', 'x-amz-content-sha256: ' + sha256, '-X', method, url]
    if body is not None:
        command += ['--data-binary', '@-', '-H', 'x-amz-meta-kelpie-sha256: ' + sha256]
    return subprocess.run(command, input=body, capture_output=True, check=True, timeout=30).stdout


def keys(cluster, prefix=''):
    listed = s3(cluster, 'GET', '?list-type=2&prefix=' + urllib.parse.quote(prefix, safe='')).decode()
    return re.findall(r'<Key>([^<]*)</Key>', listed)


def test_a_healthy_cluster_under_load(cluster):
    load = Load(cluster, 'healthy')
    for turn in range(4):
        for node in (1, 2, 3):
            assert load.write(node) in (200, 204)
        done = verify(cluster, node=1 + turn % 3)
        assert '8 partitions: 8 equal, 0 differ, 0 not comparable' in done
    wait_until('all is in the bucket', 120, lambda: objects(verify(cluster)) >= 8)
    assert ', 0 wrong' in verify(cluster) and ', 0 wrong' in verify(cluster, '--quick')
    assert '(0 bytes read)' in verify(cluster, '--quick')


def test_what_lacks_in_the_bucket_is_told(cluster):
    segment = next(key for key in keys(cluster) if '/segment/' in key)
    whole, partition = s3(cluster, 'GET', segment), int(segment[1:4])
    s3(cluster, 'DELETE', segment)
    try:
        told = verify(cluster, node=2, status=1)
        assert 'partition %d: %s: it is not in the bucket' % (partition, segment) in told and ', 1 wrong' in told
        assert 'it is not in the bucket' in verify(cluster, '--quick', status=1)
        s3(cluster, 'PUT', segment, whole[:-1])
        assert "its size is not the chain's" in verify(cluster, '--quick', status=1)
        s3(cluster, 'PUT', segment, whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
        verify(cluster, '--quick')
        assert 'its bytes are not those of its digest' in verify(cluster, status=1)
    finally:
        s3(cluster, 'PUT', segment, whole)
    verify(cluster)


def test_without_an_answer(cluster):
    assert 'takes seconds' in verify(cluster, '--timeout', 'x', status=2)
    run = run_kelpie('verify', '--cluster', '--url', 'http://127.0.0.1:1')
    assert run.returncode == 1 and '127.0.0.1:1' in run.stderr
    assert 'Exit status 0' in run_kelpie('verify', '--cluster', '--help').stdout
    for wrong in ('partition=8', 'partition=x', '', 'partition=0&first=y'):
        assert request(cluster.url(1) + '/api/v1/admin/cluster/verify', wrong.encode()).status == 400
    assert request(cluster.url(1) + '/-/rpc/sums', b'\x01\x00\x00\x00').status == 401


def test_a_row_changed_on_one_disk_is_mended(cluster):
    """Under right checksums and SUMs, while the node is down: another replica tells, and the log decides."""
    for node in (1, 2, 3):
        cluster.stop_node(node)
    cluster.idle_cut = '1h'   # the range stays open
    for node in (1, 2, 3):
        cluster.start_node(node)
    for node in (1, 2, 3):
        cluster.wait_ready(node)
    load = Load(cluster, 'flipped')
    for node in (1, 2, 3) * 4:   # heads are spilled
        assert load.write(node) in (200, 204)
    load.must_be_answered_by((1, 2, 3))
    wait_until('rows are in stream files', 30, lambda: metric(cluster, 2, 'stream_rows') > 0)
    cluster.kill_node(2)
    partition = subprocess.run([FLIP, os.path.join(cluster.data(2), 'stream')], capture_output=True, text=True, check=True)
    cluster.start_node(2)
    cluster.wait_ready(2)
    wait_until('it began anew', 240, lambda: everywhere(cluster, 'sync_quarantined_total') > 0)
    wait_until('it was mended', 240, lambda: everywhere(cluster, 'sync_repaired_total') > 0)
    told = ''.join(cluster.output(node) for node in (1, 2, 3))
    assert re.search(r'Two replicas of a partition differ\." partition=%s ' % partition.stdout.strip(), told)
    verify(cluster)
    assert len([name for n in (1, 2, 3) for name in glob.glob(os.path.join(cluster.data(n), 'quarantine', '*'))]) > 0
    load.must_be_answered_by((1, 2, 3), seconds=60)
    assert everywhere(cluster, 'sync_partitions_undecided') == 0
    assert 'fewer owners' not in verify(cluster)
