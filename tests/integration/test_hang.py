"""A disk that hangs: a write is answered within its deadline, nothing piles up, and all goes on when the disk does.

The data directory lies on a file system in user space, whose process is stopped for a while."""
import os
import random
import signal
import time

import pytest

from conftest import TOP, Node, run_kelpie
from test_kill import Forgetful

IMPORT = '/api/v1/import/prometheus'


def write(node, value):
    return node.request(IMPORT, b'hang{value="%d"} %d %d\n' % (value, value, 1700000000000 + value), timeout=60)


def counter(node, name):
    lines = node.request('/metrics').text.split('\n')
    return sum(float(line.split(' ')[1]) for line in lines if line.startswith(name + ' '))


def test_a_write_has_a_deadline(tmp_path, start):
    if not os.path.exists('/dev/fuse') or not os.path.exists(os.path.join(TOP, 'build/release/tests/forgetful')):
        pytest.skip('FUSE is not available on this machine')
    folder = tmp_path / 'node'
    os.makedirs(folder)
    layer = Forgetful(str(folder), random.Random(1))
    node = start(Node(folder))
    try:
        node.start()
        assert write(node, 1).status == 204
        layer.process.send_signal(signal.SIGSTOP)
        late = write(node, 2)   # waits its time
        assert late.status == 503 and int(late.headers['Retry-After']) > 0
        assert 'did not answer within' in late.text
        begun = time.monotonic()
        refused = write(node, 3)   # would wait behind it
        assert refused.status == 503 and int(refused.headers['Retry-After']) > 0
        print('refused after %.3f s' % (time.monotonic() - begun))
        assert 'takes too long' in refused.text
        assert counter(node, 'kelpie_ingest_requests_abandoned_total') == 1
        layer.process.send_signal(signal.SIGCONT)
        while write(node, 4).status != 204:
            time.sleep(0.05)
        found = node.query('hang[1h]', 1700000001)['data']['result']
        assert sorted(int(series['metric']['value']) for series in found) == [1, 2, 4]
        assert node.end() == 0
        assert run_kelpie('verify', '--data', node.data).returncode == 0
    finally:
        layer.process.send_signal(signal.SIGCONT)
        node.end(signal.SIGKILL)
        layer.stop()
