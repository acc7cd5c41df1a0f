"""A small file system fills and is freed under load: writes get 507 with Retry-After before the disk is full, queries
go on, writes resume by themselves, and nothing acknowledged is lost."""
import os
import subprocess
import time

import pytest

from conftest import Node
from remote_write import write

CONFIG = """
storage:
  log_file_bytes: 4MiB
  free_space_floor: 8MiB
"""


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / 'disk'
    folder.mkdir()
    run = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=96m', 'tmpfs', str(folder)], capture_output=True, text=True)
    if run.returncode != 0:
        pytest.skip('no right to mount a tmpfs: %s' % run.stderr.strip())
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=False)


def test_full_disk_refuses_then_resumes(small_disk, start):
    node = start(Node(small_disk / 'node', CONFIG)).start()
    ballast = small_disk / 'ballast'
    acked, refused, n = [], None, 0

    def push():
        nonlocal n
        n += 1
        reply = write(node, [({'__name__': 'full', 'i': str(i)}, [(1700000000000 + n, float(n))]) for i in range(50)])
        if reply.status in (200, 204):
            acked.append(n)
        return reply

    assert push().status in (200, 204)
    with open(ballast, 'wb') as f:
        while True:   # leave less than the floor
            space = os.statvfs(small_disk)
            if space.f_bavail * space.f_frsize < 6 << 20:
                break
            f.write(b'x' * (1 << 20))
            f.flush()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        reply = push()
        if reply.status == 507:
            refused = reply
            break
        time.sleep(0.05)
    assert refused is not None, 'no 507 below the floor'
    assert refused.headers['Retry-After'] and refused.text
    assert node.query('count(full)', 1700000000.1 + n / 1000)['status'] == 'success'
    assert node.request('/-/healthy').status == 200
    os.unlink(ballast)
    end = time.monotonic() + 30
    while time.monotonic() < end and push().status not in (200, 204):
        time.sleep(0.1)
    assert push().status in (200, 204), 'writes did not resume'
    assert node.process.poll() is None
    node.end()
    node.start()
    for k in acked:
        answer = node.query('count(full == %d)' % k, 1700000000 + k / 1000)
        assert answer['data']['result'][0]['value'][1] == '50', k


def test_hard_full_disk_loses_nothing(small_disk, start):
    """The disk is filled to the last byte at once, faster than any floor can see."""
    node = start(Node(small_disk / 'node', CONFIG)).start()
    acked = []
    for n in range(1, 400):
        if n == 100:
            with open(small_disk / 'ballast', 'wb') as f:
                try:
                    while True:
                        f.write(b'x' * 65536)
                        f.flush()
                except OSError:
                    pass
        if n == 300:
            os.unlink(small_disk / 'ballast')
            time.sleep(1.5)
        reply = write(node, [({'__name__': 'hard', 'i': str(i)}, [(1700000000000 + n, float(n))]) for i in range(200)])
        assert reply.status in (200, 204, 503, 507), reply.text
        if reply.status in (200, 204):
            acked.append(n)
    assert node.process.poll() is None, node.output()[-2000:]
    end = time.monotonic() + 30
    while time.monotonic() < end:
        n += 1
        if write(node, [({'__name__': 'hard', 'i': '0'}, [(1700000000000 + n, 1.0)])]).status in (200, 204):
            break
        time.sleep(0.2)
    else:
        pytest.fail('writes did not resume')
    node.end()
    node.start()
    for k in acked:
        answer = node.query('count(hard == %d)' % k, 1700000000 + k / 1000)
        assert answer['data']['result'] and answer['data']['result'][0]['value'][1] == '200', k
