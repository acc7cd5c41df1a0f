"""kill -9 at random moments under full write load, and the same with a file system that forgets unsynced bytes.

A writer thread per connection sends numbered requests: request n of client c writes value n at time n to each of its
series. A request that got no answer is sent again, as Prometheus would. After the last kill the stored rows are counted
from the files, not by a query: every acknowledged (series, time) is there, none more often than it was attempted,
nothing is there that was never sent, and every value is right. KELPIE_SIM=full runs all rounds; SEED repeats."""
import collections
import os
import random
import shutil
import signal
import subprocess
import threading
import time
import urllib.error

import pytest

from conftest import TOP, Node, run_kelpie
from remote_write import HEADERS_V1, encode_labels, encode_sample, field, snappy

FULL = os.environ.get('KELPIE_SIM') == 'full'
SEED = int(os.environ.get('SEED', '7'), 0)
CLIENTS = 3
SERIES = 200
BASE_MS = 1700000000000

CONFIG = """
storage:
  log_file_bytes: 4MiB
  head_rows: 20000
"""


class Writer(threading.Thread):
    """One client: attempts[n] and acked count per request number."""
    def __init__(self, node, client):
        super().__init__(daemon=True)
        self.node, self.client = node, client
        self.heads = [encode_labels({'__name__': 'kill', 'client': str(client), 'i': str(i)}) for i in range(SERIES)]
        self.attempts = collections.Counter()
        self.acked = set()
        self.next = 0
        self.stopping = False

    def body(self, n):
        sample = encode_sample(BASE_MS + n, float(n))
        return snappy(b''.join(field(1, head + sample) for head in self.heads))

    def run(self):
        while not self.stopping:
            n = self.next
            self.attempts[n] += 1
            try:
                reply = self.node.request('/api/v1/write', self.body(n), HEADERS_V1, timeout=20)
            except (OSError, urllib.error.URLError, ValueError):
                time.sleep(0.01)
                continue
            except Exception:   # a reply cut in the middle
                continue
            if reply.status in (200, 204):
                self.acked.add(n)
                self.next = n + 1
            else:
                time.sleep(0.02)


def stored_rows(node):
    """Counter of (client, i, t_ms, value) over all stored rows, duplicates included, read from the files."""
    run = run_kelpie('export', '--data', node.data, '--rows', timeout=600)
    assert run.returncode == 0, run.stderr[-2000:]
    rows = collections.Counter()
    for line in run.stdout.split('\n'):
        if line.startswith('kill{'):
            labels, rest = line[5:].split('} ')
            values = dict(part.split('=') for part in labels.split(','))
            value, t_ms = rest.split()[:2]
            rows[(values['client'].strip('"'), values['i'].strip('"'), int(t_ms) - BASE_MS, float(value))] += 1
    return rows


def check_rows(writers, rows):
    lost, doubled, invented = [], [], []
    expected = set()
    for w in writers:
        for n, attempts in w.attempts.items():
            for i in range(SERIES):
                key = (str(w.client), str(i), n, float(n))
                expected.add(key)
                if n in w.acked and rows[key] == 0:
                    lost.append(key)
                if rows[key] > attempts:
                    doubled.append(key)
    invented = [key for key in rows if key not in expected]
    assert not lost, '%d acknowledged rows lost, first %s' % (len(lost), lost[0])
    assert not doubled, '%d rows stored more often than sent, first %s' % (len(doubled), doubled[0])
    assert not invented, '%d rows invented, first %s' % (len(invented), invented[0])


def verify(node):
    verified = run_kelpie('verify', '--data', node.data, timeout=600)
    assert verified.returncode == 0, verified.stdout[-2000:] + verified.stderr[-2000:]


def run_rounds(node, rounds, chance, power_cut=None):
    writers = [Writer(node, c) for c in range(CLIENTS)]
    node.start()
    for w in writers:
        w.start()
    for _ in range(rounds):
        time.sleep(chance.uniform(0.05, 1.2))
        node.end(signal.SIGKILL)
        if power_cut:
            power_cut()
        else:   # what a killed process leaves is all its own, and nothing of it is damage
            verify(node)
        node.start()
    time.sleep(0.3)
    for w in writers:
        w.stopping = True
    for w in writers:
        w.join(30)
    node.end()
    if power_cut:
        power_cut()
    assert sum(len(w.acked) for w in writers) > rounds, 'hardly anything was acknowledged'
    check_rows(writers, stored_rows(node))
    if power_cut:  # what a cut tore in a stream file is mended by the next start, as an operator would have it
        node.start()
        node.end()
    verify(node)


def test_kill_9_loses_nothing_acknowledged(tmp_path, start):
    rounds = 100 if FULL else 8
    print('kill -9: SEED=%d, %d rounds' % (SEED, rounds))
    run_rounds(start(Node(tmp_path / 'node', CONFIG)), rounds, random.Random(SEED))


class Forgetful:
    """The data directory of a node on the forgetful file system."""
    def __init__(self, folder, chance):
        self.mount, self.volatile, self.durable = (os.path.join(folder, n) for n in ('data', 'volatile', 'durable'))
        for path in (self.mount, self.volatile, self.durable):
            os.makedirs(path)
        self.chance = chance
        self.process = None
        self.begin()

    def begin(self):
        program = os.path.join(TOP, 'build/release/tests/forgetful')
        self.process = subprocess.Popen([program, self.mount, self.volatile, self.durable,
                                         str(self.chance.randrange(1 << 60))])
        end = time.monotonic() + 10
        while not os.path.ismount(self.mount):
            assert self.process.poll() is None and time.monotonic() < end, 'the file system did not come up'
            time.sleep(0.01)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)

    def power_cut(self):
        """What was not synced is gone (or half there): DURABLE becomes what processes see."""
        self.stop()
        shutil.rmtree(self.volatile)
        shutil.rmtree(os.path.join(self.durable, '.inode'))
        os.rename(self.durable, self.volatile)
        os.makedirs(self.durable)
        self.begin()


def test_power_cut_loses_nothing_acknowledged(tmp_path, start):
    if not os.path.exists('/dev/fuse') or not os.path.exists(os.path.join(TOP, 'build/release/tests/forgetful')):
        pytest.skip('FUSE is not available on this machine')
    rounds = 200 if FULL else 6
    print('power cut: SEED=%d, %d rounds' % (SEED, rounds))
    folder = tmp_path / 'node'
    os.makedirs(folder)
    layer = Forgetful(str(folder), random.Random(SEED + 1))
    node = start(Node(folder, CONFIG))
    try:
        run_rounds(node, rounds, random.Random(SEED), layer.power_cut)
    finally:
        node.end(signal.SIGKILL)
        layer.stop()
