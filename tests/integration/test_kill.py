"""kill -9 at random moments under full write load, and the same with a file system that forgets unsynced bytes.

A writer thread per connection sends numbered requests: request n of client c writes value n at time n to each of its
series, a quarter of which are new ones every few requests. A request that got no answer is sent again, as Prometheus
would. After the last kill the stored rows are counted from the files, not by a query: every acknowledged (series, time)
is there, none more often than it was attempted, nothing is there that was never sent, and every value is right. Beside
them another tenant is written by bench/load with all the speed the machine has, with series that come and go.
KELPIE_SIM=full runs all rounds. The seed is drawn and printed; SEED=… repeats it (the moments of the kills, not what
the machine does meanwhile)."""
import collections
import json
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
SEED = int(os.environ['SEED'], 0) if 'SEED' in os.environ else random.SystemRandom().randrange(1 << 32)
CLIENTS = 3
SERIES = 200
CHURNING = 50             # of them; others of these every CHURN_REQUESTS
CHURN_REQUESTS = 4
BASE_MS = 1700000000000
TENANT = {'X-Scope-OrgID': 'kill'}
LOAD = os.path.join(TOP, 'build/release/bench/load')
READY_SECONDS = 5         # what is promised after kill -9 with a million series

CONFIG = """
storage:
  log_file_bytes: 4MiB
  head_rows: 20000
"""


def series_of(n):
    """Labels `i` of the series that request n writes."""
    return [str(i) for i in range(SERIES - CHURNING)] + ['%d-%d' % (n // CHURN_REQUESTS, i) for i in range(CHURNING)]


class Writer(threading.Thread):
    """One client: attempts[n] and acked count per request number."""
    def __init__(self, node, client):
        super().__init__(daemon=True)
        self.node, self.client = node, client
        self.heads = {}
        self.attempts = collections.Counter()
        self.acked = set()
        self.next = 0
        self.stopping = False

    def head(self, i):
        if i not in self.heads:
            self.heads[i] = encode_labels({'__name__': 'kill', 'client': str(self.client), 'i': i})
        return self.heads[i]

    def body(self, n):
        sample = encode_sample(BASE_MS + n, float(n))
        return snappy(b''.join(field(1, self.head(i) + sample) for i in series_of(n)))

    def run(self):
        while not self.stopping:
            n = self.next
            self.attempts[n] += 1
            try:
                reply = self.node.request('/api/v1/write', self.body(n), dict(HEADERS_V1, **TENANT), timeout=20)
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
    run = run_kelpie('export', '--data', node.data, '--rows', '--tenant', TENANT['X-Scope-OrgID'], timeout=600)
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
            for i in series_of(n):
                key = (str(w.client), i, n, float(n))
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


class Background:
    """bench/load at full speed to another tenant, begun anew after each kill: known series, and in each of its steps
    twentieths of them replaced."""
    def __init__(self, folder, node):
        self.path, self.node, self.process = os.path.join(str(folder), 'load'), node, None
        subprocess.run([LOAD, 'make', self.path, '--series', '20000', '--steps', '40', '--churn', '50',
                        '--start', str(BASE_MS)], check=True, stdout=subprocess.DEVNULL)

    def series(self):
        """Series that came so far."""
        answer = self.node.query('count(count_over_time({__name__!=""}[1h]))', BASE_MS / 1000 + 900)
        return int(answer['data']['result'][0]['value'][1])

    def begin(self):
        self.process = subprocess.Popen([LOAD, 'send', self.path, '--port', str(self.node.port), '--loops', '1000'],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def run_rounds(node, rounds, chance, power_cut=None, background=None):
    writers = [Writer(node, c) for c in range(CLIENTS)]
    node.start()
    for w in writers:
        w.start()
    for _ in range(rounds):
        if background:
            background.begin()
        time.sleep(chance.uniform(0.05, 1.2))
        node.end(signal.SIGKILL)
        if background:
            background.end()
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
    series = background.series() if background else 0
    assert not background or series > 20000, 'the load beside them brought no new series'
    node.end()
    if power_cut:
        power_cut()
    assert sum(len(w.acked) for w in writers) > rounds, 'hardly anything was acknowledged'
    check_rows(writers, stored_rows(node))
    if power_cut:  # what a cut tore in a stream file is mended by the next start, as an operator would have it
        node.start()
        node.end()
    verify(node)
    return '%d requests acknowledged, %d attempted, %d other series' % (
        sum(len(w.acked) for w in writers), sum(sum(w.attempts.values()) for w in writers), series)


@pytest.fixture
def say(capsys):
    """Print also when the test passes."""
    def say(text):
        with capsys.disabled():
            print('\n' + text, flush=True)
    return say


def test_kill_9_loses_nothing_acknowledged(tmp_path, start, say):
    rounds = 100 if FULL else 8
    say('kill -9: SEED=%d, %d rounds' % (SEED, rounds))
    node = start(Node(tmp_path / 'node', CONFIG))
    background = Background(tmp_path, node)
    try:
        say('kill -9: ' + run_rounds(node, rounds, random.Random(SEED), background=background))
    finally:
        background.end()


@pytest.mark.skipif(not FULL, reason='a million series are for KELPIE_SIM=full')
def test_kill_9_with_a_million_series(tmp_path, start, say):
    """Ready, and all of them answer, within what is promised, from the moment the process is started again."""
    load = str(tmp_path / 'load')
    subprocess.run([LOAD, 'make', load, '--series', '1000000', '--steps', '1', '--start', str(BASE_MS)], check=True,
                   stdout=subprocess.DEVNULL)
    node = start(Node(tmp_path / 'node')).start()
    sent = json.loads(subprocess.run([LOAD, 'send', load, '--port', str(node.port)], check=True, capture_output=True,
                                     timeout=300).stdout)
    assert sent['samples'] == 1000000 and sent['refused'] == 0, sent
    node.end(signal.SIGKILL)
    begun = time.monotonic()
    node.start()
    ready = time.monotonic() - begun
    answer = node.query('count({__name__!=""})', BASE_MS / 1000 + 15)
    answered = time.monotonic() - begun
    say('a million series after kill -9: ready after %.2f s, all answered after %.2f s' % (ready, answered))
    assert answer['data']['result'][0]['value'][1] == '1000000', answer
    assert answered < READY_SECONDS


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


def test_power_cut_loses_nothing_acknowledged(tmp_path, start, say):
    if not os.path.exists('/dev/fuse') or not os.path.exists(os.path.join(TOP, 'build/release/tests/forgetful')):
        pytest.skip('FUSE is not available on this machine')
    rounds = 200 if FULL else 6
    say('power cut: SEED=%d, %d rounds' % (SEED, rounds))
    folder = tmp_path / 'node'
    os.makedirs(folder)
    layer = Forgetful(str(folder), random.Random(SEED + 1))
    node = start(Node(folder, CONFIG))
    try:
        say('power cut: ' + run_rounds(node, rounds, random.Random(SEED), layer.power_cut))
    finally:
        node.end(signal.SIGKILL)
        layer.stop()
