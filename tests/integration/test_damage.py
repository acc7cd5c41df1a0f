"""Damage made by hand: bytes flipped, files cut, lost, or put back from an older time.

Each case takes a copy of one of two prepared data directories. `stored` was stopped cleanly: segments, chains and
states of a first set of rows (dmg_old), stream files of a second one (dmg_new). `tail` was killed: its rows
(dmg_tail) are in the log alone. Whatever is broken, the node either starts and says what is missing, or refuses to
start and names the file; nothing is answered as complete that is not."""
import glob
import os
import shutil
import signal
import threading
import time

import pytest

from conftest import Node, run_kelpie
from remote_write import write

OLD, NEW, TAIL = 1700000000, 1700100000, 1700200000
SERIES, SAMPLES = 64, 30
CONFIG = """
storage:
  log_file_bytes: 1MiB
  idle_cut: 1h
  compaction: false
"""


def put(node, name, start):
    for n in range(SAMPLES):
        series = [({'__name__': name, 'i': str(i)}, [(1000 * (start + 60 * n), i + n)]) for i in range(SERIES)]
        assert write(node, series).status in (200, 204)


class Answer:
    def __init__(self, node, name, start):
        reply = node.request('/api/v1/query?query=count_over_time(%s[2h])&time=%d' % (name, start + 60 * SAMPLES))
        assert reply.status == 200, reply.text
        self.is_complete = reply.headers['X-Kelpie-Complete'] == 'true'
        self.rows = sum(int(r['value'][1]) for r in reply.json()['data']['result'])

    @property
    def is_whole(self):
        return self.is_complete and self.rows == SERIES * SAMPLES


def ask(node):
    return Answer(node, 'dmg_old', OLD), Answer(node, 'dmg_new', NEW)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp('prepared')
    stored, tail = Node(folder / 'stored', CONFIG), Node(folder / 'tail', CONFIG)
    try:
        stored.start()
        put(stored, 'dmg_old', OLD)
        assert stored.request('/api/v1/admin/tsdb/snapshot', b'', method='POST').status == 200
        put(stored, 'dmg_new', NEW)
        assert all(a.is_whole for a in ask(stored))
        assert stored.end() == 0
        tail.start()
        put(tail, 'dmg_tail', TAIL)
        time.sleep(0.5)   # an idle log writes down what is durable
        tail.end(signal.SIGKILL)
    finally:
        for node in (stored, tail):
            node.end(signal.SIGKILL)
    for data in (stored.data, tail.data):
        run = run_kelpie('verify', '--data', data)
        assert run.returncode == 0, run.stdout + run.stderr
    return stored.data, tail.data


class Case:
    """A copy of a prepared directory, to be broken."""
    def __init__(self, tmp_path, start, data):
        self.node = start(Node(tmp_path / 'node', CONFIG))
        shutil.copytree(data, self.node.data)

    def files(self, pattern):
        found = sorted(glob.glob(os.path.join(self.node.data, pattern)))
        assert found, pattern
        return found

    def file(self, pattern):
        """The largest file of a pattern."""
        return max(self.files(pattern), key=os.path.getsize)

    def verify(self):
        run = run_kelpie('verify', '--data', self.node.data)
        return run.returncode, run.stdout + run.stderr

    def fsck(self):
        run = run_kelpie('fsck', '--data', self.node.data)
        return run.returncode, run.stdout + run.stderr

    def refusal(self):
        """What the node says that does not start."""
        run = self.node.start(wait=False)
        assert run.process.wait(30) == 1
        return self.node.output()


@pytest.fixture
def stored(tmp_path, start, prepared):
    return Case(tmp_path, start, prepared[0])


@pytest.fixture
def tail(tmp_path, start, prepared):
    return Case(tmp_path, start, prepared[1])


def flip(path, at):
    with open(path, 'r+b') as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 0x40]))


def flip_middle(path):
    flip(path, os.path.getsize(path) // 2)


def flip_start(path):
    flip(path, 10)


def flip_end(path):
    flip(path, os.path.getsize(path) - 5)


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def empty(path):
    os.truncate(path, 0)


def put_other(path):
    """Another file of the same kind in its place."""
    others = [p for p in glob.glob(os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(path))), '*',
                                                os.path.basename(os.path.dirname(path)), '*')) if p != path]
    assert others
    os.unlink(path)
    shutil.copy(others[0], path)


HARMS = [flip_start, flip_middle, flip_end, cut, empty, os.unlink]


@pytest.mark.parametrize('harm', HARMS + [put_other])
def test_segment(stored, harm):
    path = stored.file('blob/p*/segment/*')
    harm(path)
    code, text = stored.verify()
    assert code != 0 and os.path.basename(path) in text, text
    for _ in range(2):
        stored.node.start()
        old, new = ask(stored.node)
        assert old.is_whole if harm is flip_start else not old.is_complete   # nobody reads a segment's first bytes
        assert new.is_whole
        assert stored.node.end() == 0
    code, text = stored.fsck()
    assert code != 0 and os.path.basename(path) in text, text
    if harm is not os.unlink:
        assert os.path.basename(path) in ' '.join(os.listdir(os.path.join(stored.node.data, 'quarantine')))
    stored.node.start()
    old, new = ask(stored.node)
    assert not old.is_complete and old.rows > 0 and new.is_whole


@pytest.mark.parametrize('harm', HARMS)
def test_stream_file(stored, harm):
    """The log still has its records: nothing is missing. One that just ends too early is what kill -9 leaves."""
    path = stored.file('stream/*.stream')
    harm(path)
    code, text = stored.verify()
    if harm in (cut, empty):
        assert code == 0 and os.path.basename(path) in text and 'do not count' in text, text
    elif harm is not os.unlink:
        assert code != 0 and os.path.basename(path) in text, text
        assert stored.fsck()[0] != 0
        assert os.path.basename(path) in ' '.join(os.listdir(os.path.join(stored.node.data, 'quarantine')))
    stored.node.start()
    assert all(a.is_whole for a in ask(stored.node))
    stored.node.end()
    assert stored.verify()[0] == 0


@pytest.mark.parametrize('harm', HARMS)
def test_stream_file_without_fsck(stored, harm):
    harm(stored.file('stream/*.stream'))
    stored.node.start()
    assert all(a.is_whole for a in ask(stored.node))
    put(stored.node, 'dmg_more', TAIL)
    stored.node.end(signal.SIGKILL)
    stored.node.start()
    assert all(a.is_whole for a in ask(stored.node))
    assert Answer(stored.node, 'dmg_more', TAIL).is_whole
    assert stored.node.request('/api/v1/admin/tsdb/snapshot', b'', method='POST').status == 200
    assert all(a.is_whole for a in ask(stored.node))


@pytest.mark.parametrize('kind', ['chain', 'state'])
@pytest.mark.parametrize('harm', [flip_start, flip_middle, flip_end, cut, empty])
def test_chain_entry_and_state(stored, kind, harm):
    """The newest entry is built again from state and segments; the newest state is needed by the tail of the log alone,
    which a clean stop has spilled."""
    path = stored.file('blob/p*/%s/*' % kind)
    harm(path)
    name = os.path.join(*path.split(os.sep)[-3:])
    code, text = stored.verify()
    assert code != 0 and name in text, text
    for _ in range(2):
        stored.node.start()
        assert all(a.is_whole for a in ask(stored.node))
        put(stored.node, 'dmg_more', TAIL)
        assert stored.node.end() == 0
    if kind == 'chain':
        assert name.replace(os.sep, '_') in os.listdir(os.path.join(stored.node.data, 'quarantine'))
        code, text = stored.verify()
        assert code == 0, text


@pytest.mark.parametrize('harm', [flip_middle, os.unlink])
def test_older_chain_entry(stored, harm):
    """Its segments are taken over; that they are all cannot be proved until a person says so."""
    for n in range(3):
        stored.node.start()
        put(stored.node, 'dmg_more', TAIL + 100000 * n)
        assert stored.node.request('/api/v1/admin/tsdb/snapshot', b'', method='POST').status == 200
        stored.node.end()
    harm(stored.files('blob/p*/chain/00000001')[0])
    stored.node.start()
    answers = ask(stored.node)
    assert all(a.rows == SERIES * SAMPLES for a in answers)
    assert not all(a.is_complete for a in answers)
    metrics = stored.node.request('/metrics').text
    assert 'kelpie_losses 1' in metrics, metrics
    put(stored.node, 'dmg_late', TAIL + 400000)
    stored.node.end()
    code, text = stored.fsck()
    assert code == 0 and 'damaged manifest entry' in text, text
    run = run_kelpie('fsck', '--confirm-loss', '--data', stored.node.data)
    assert run.returncode == 0 and 'accepted: 1 losses' in run.stdout, run.stdout + run.stderr
    for _ in range(2):
        stored.node.start()
        assert all(a.is_whole for a in ask(stored.node))
        assert Answer(stored.node, 'dmg_late', TAIL + 400000).is_whole
        assert stored.node.end() == 0
    code, text = stored.verify()
    assert code == 0 and 'loss accepted by a person' in text, text


def test_state_lost(stored):
    path = stored.file('blob/p*/state/*')
    os.unlink(path)
    code, text = stored.verify()
    assert code != 0 and os.path.basename(path) in text, text
    stored.node.start()
    assert all(a.is_whole for a in ask(stored.node))


def test_last_chain_entry_lost(stored):
    """Nobody can know that there was one, but the log's start may tell; segments are not removed."""
    path = stored.file('blob/p*/chain/*')
    segments = os.path.join(os.path.dirname(os.path.dirname(path)), 'segment')
    before = os.listdir(segments)
    os.unlink(path)
    stored.node.start()
    old, new = ask(stored.node)
    assert old.is_whole or not old.is_complete
    assert new.is_whole or not new.is_complete
    if not old.is_whole:
        assert set(os.listdir(segments)) >= set(before)


@pytest.mark.parametrize('harm', [flip_start, flip_middle, flip_end, cut, empty, os.unlink])
def test_identity(stored, harm):
    path = os.path.join(stored.node.data, 'NODE')
    whole = open(path, 'rb').read()
    harm(path)
    assert 'NODE' in stored.refusal()
    code, text = stored.verify()
    assert code != 0, text
    with open(path, 'wb') as f:
        f.write(whole)
    stored.node.start()
    assert all(a.is_whole for a in ask(stored.node))


def frames(path):
    """Positions of what looks like the frames of records."""
    data = open(path, 'rb').read()
    return [at for at in range(0, len(data) - 32, 8) if data[at:at + 2] == b'KF']


@pytest.mark.parametrize('where', ['header', 'payload'])
def test_log_record(tail, where):
    path = tail.file('log/*.log')
    found = frames(path)
    flip(path, found[len(found) // 2] + (4 if where == 'header' else 40))
    code, text = tail.verify()
    assert code != 0 and 'log record' in text, text
    for _ in range(2):
        tail.node.start()
        answer = Answer(tail.node, 'dmg_tail', TAIL)
        assert not answer.is_complete and 0 < answer.rows < SERIES * SAMPLES
        assert tail.node.end() == 0
    assert 'log is damaged' in tail.node.output()
    tail.node.start()
    put(tail.node, 'dmg_more', TAIL + 200000)
    assert Answer(tail.node, 'dmg_more', TAIL + 200000).rows == SERIES * SAMPLES
    assert tail.node.request('/api/v1/admin/tsdb/snapshot', b'', method='POST').status == 200
    assert not Answer(tail.node, 'dmg_tail', TAIL).is_complete   # the loss is in the chain now
    tail.node.end()
    run = run_kelpie('fsck', '--confirm-loss', '--data', tail.node.data)
    assert run.returncode == 0, run.stdout + run.stderr
    tail.node.start()
    answer = Answer(tail.node, 'dmg_tail', TAIL)
    assert answer.is_complete and 0 < answer.rows < SERIES * SAMPLES   # accepted, and still listed
    tail.node.end()
    assert 'loss accepted by a person: damaged log records' in tail.verify()[1]


def test_one_header_of_the_log(tail):
    flip(tail.files('log/*.log')[-1], 20)
    tail.node.start()
    assert Answer(tail.node, 'dmg_tail', TAIL).is_whole


def test_log_lost(stored):
    """Rows that only stream files still hold are not given up without a word, and their files are kept."""
    streams = [os.path.basename(p) for p in stored.files('stream/*.stream')]
    shutil.rmtree(os.path.join(stored.node.data, 'log'))
    assert stored.verify()[0] != 0
    for _ in range(2):
        stored.node.start()
        old, new = ask(stored.node)
        assert old.rows == SERIES * SAMPLES
        assert new.is_whole or not new.is_complete
        put(stored.node, 'dmg_more', TAIL + 100000)
        assert Answer(stored.node, 'dmg_more', TAIL + 100000).rows == SERIES * SAMPLES
        assert stored.node.end() == 0
    kept = os.listdir(os.path.join(stored.node.data, 'quarantine')) + os.listdir(os.path.join(stored.node.data, 'stream'))
    assert all(any(name in k for k in kept) for name in streams)


def test_second_process_is_refused(stored):
    stored.node.start()
    other = run_kelpie('serve', '--data', stored.node.data, '--http', '127.0.0.1:0')
    assert other.returncode == 1 and 'in use' in other.stderr
    assert stored.verify()[0] != 0
    assert all(a.is_whole for a in ask(stored.node))


def test_snapshot_under_load(tmp_path, start):
    """A snapshot waits for what was there when it was asked for, not for a pause of the writers."""
    node = start(Node(tmp_path / 'node', CONFIG)).start()
    stopping = threading.Event()

    def load(name):
        n = 0
        while not stopping.is_set():
            write(node, [({'__name__': name, 'i': str(i)}, [(1000 * (OLD + n), i)]) for i in range(SERIES)])
            n += 1

    writers = [threading.Thread(target=load, args=('load_%d' % i,)) for i in range(4)]
    for w in writers:
        w.start()
    try:
        time.sleep(0.5)
        begin = time.monotonic()
        reply = node.request('/api/v1/admin/tsdb/snapshot', b'', method='POST', timeout=60)
        assert reply.status == 200, reply.text
        assert time.monotonic() - begin < 20
    finally:
        stopping.set()
        for w in writers:
            w.join(30)
