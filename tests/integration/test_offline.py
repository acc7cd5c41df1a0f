"""Commands over a data directory whose node does not run: every byte in it is accounted for, a restore tells what it
puts in the place of what is damaged, and how far a command is told to who wants it."""
import glob
import os
import shutil
import signal
import subprocess

import pytest

from conftest import BINARY, Node, run_kelpie
from remote_write import write

NOW = 1700000000


def put(node, name='offline', count=100):
    series = [({'__name__': name, 'i': str(i)}, [(1000 * NOW, i)]) for i in range(count)]
    assert write(node, series).status in (200, 204)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """Segments, a snapshot of them, stream files behind; stopped."""
    node = Node(tmp_path_factory.mktemp('prepared') / 'node')
    try:
        node.start()
        put(node)
        assert node.request('/api/v1/admin/tsdb/snapshot', b'', method='POST').status == 200
        put(node, 'behind')
        assert node.end() == 0
    finally:
        node.end(signal.SIGKILL)
    return node.data


@pytest.fixture
def data(tmp_path, prepared):
    shutil.copytree(prepared, tmp_path / 'data')
    return str(tmp_path / 'data')


def add(*parts):
    path = os.path.join(*parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as f:
        f.write(b'0123456789')


def sums(text):
    """Class of the sums at the end of verify's text: (files, bytes)."""
    found = {}
    for line in text.split('\n'):
        words = line.split(':')[0].split()
        if len(words) >= 4 and words[-1] == 'bytes' and words[-3] == 'files' and words[0] != 'stream':
            found[' '.join(words[:-4])] = (int(words[-4]), int(words[-2]))
    return found


def total(folder):
    return sum(os.path.getsize(os.path.join(f, name)) for f, _, names in os.walk(folder) for name in names)


def verify(data, code=0):
    run = run_kelpie('verify', '--data', data)
    assert run.returncode == code, run.stdout + run.stderr
    found = sums(run.stdout)
    assert sum(b for _, b in found.values()) == total(data), run.stdout
    return found, run.stdout


def test_what_a_node_leaves_is_its_own(tmp_path, start):
    node = start(Node(tmp_path / 'node')).start()
    assert node.end() == 0
    assert set(verify(node.data)[0]) <= {'live', 'log space'}
    for how in (signal.SIGTERM, signal.SIGKILL):
        node.start()
        put(node)
        assert node.request('/api/v1/admin/tsdb/snapshot', b'', method='POST').status == 200
        put(node, 'behind')
        node.end(how)
        found = verify(node.data)[0]
        assert found['live'][1] > 0 and found['snapshots'][1] > 0
        assert 'foreign' not in found and 'set aside' not in found
    snapshot = glob.glob(os.path.join(node.data, 'snapshots', '*'))[0]
    assert set(verify(snapshot)[0]) == {'live'}


@pytest.mark.parametrize('path', ['notes.txt', 'log/notes.txt', 'log/1.log', 'log/00000001.log.bak', 'blob/notes.txt',
                                  'blob/p999/segment/x', 'blob/p000/notes.txt', 'blob/p000/chain/1', 'blob/p000/segment/x',
                                  'stream/notes.txt', 'stream/p999-1-0-0.stream', 'snapshots/notes.txt', 'backup/blob/x'])
def test_foreign_file(data, path):
    """It is named, it alone makes verify fail, and nothing takes it away."""
    add(data, path)
    found, text = verify(data, 1)
    assert found['foreign'] == (1, 10)
    name = path if path.split('/')[0] != 'backup' and 'p999/' not in path else os.path.dirname(os.path.dirname(path))
    assert name in text and "not Kelpie's" in text and '0 damaged' in text, text
    assert run_kelpie('fsck', '--data', data).returncode == 0
    assert os.path.exists(os.path.join(data, path))
    os.unlink(os.path.join(data, path))
    verify(data)


def test_bytes_behind_the_identity(data):
    with open(os.path.join(data, 'NODE'), 'ab') as f:
        f.write(b'xyz')
    found, text = verify(data, 1)
    assert found['foreign'][1] == 3 and 'NODE, 3 bytes behind its end' in text, text


def test_set_aside(data):
    add(data, 'quarantine', 'p000_chain_00000001')
    add(data, 'log', '00000099.lost')
    add(data, 'snapshots', '20000101T000000Z-00000000', 'SNAPSHOT')
    found, text = verify(data)
    assert found['set aside'] == (3, 30)
    for words in ('quarantine/ with 1 files, 10 bytes', 'log/00000099.lost, 10 bytes', 'a snapshot that was not finished'):
        assert words in text, text


def test_left_over(data, start, tmp_path):
    """What a process that died may leave: told, no failure, and gone after the next start."""
    paths = ['stream/build-1.tmp', 'blob/.tmp/5', 'blob/p000/segment/' + 'a' * 64, 'blob/p000/state/' + 'b' * 64]
    for path in paths:
        add(data, path)
    found, text = verify(data)
    assert found['left over'] == (4, 40), text
    node = start(Node(tmp_path / 'node'))
    node.data = data
    node.start()
    assert node.end() == 0
    assert 'left over' not in verify(data)[0]
    assert not any(os.path.exists(os.path.join(data, path)) for path in paths)


def test_recycled_log_file(data):
    add(data, 'log', '00000098.free')
    before = total(data)
    found, _ = verify(data)
    assert set(found) == {'live', 'log space', 'snapshots'} and total(data) == before


def test_snapshot(data):
    snapshot = glob.glob(os.path.join(data, 'snapshots', '*'))[0]
    verify(snapshot)
    add(data, 'snapshots', os.path.basename(snapshot), 'blob/p000/segment/x')
    found, _ = verify(snapshot, 1)
    assert found['foreign'] == (1, 10)
    found, _ = verify(data, 1)
    assert found['foreign'] == (1, 10)


def test_snapshot_with_a_log(data):
    """The mark of a snapshot in a data directory, by mistake."""
    snapshot = glob.glob(os.path.join(data, 'snapshots', '*'))[0]
    shutil.copy(os.path.join(snapshot, 'SNAPSHOT'), data)
    run = run_kelpie('verify', '--data', data)
    assert run.returncode == 1 and "log/ with" in run.stdout and "not Kelpie's" in run.stdout, run.stdout + run.stderr


def test_restore_tells_what_stands_in(data, tmp_path):
    """A damaged manifest entry of the snapshot: the new directory is made, the exit status is 1, and the entry named."""
    snapshot = glob.glob(os.path.join(data, 'snapshots', '*'))[0]
    path = glob.glob(os.path.join(snapshot, 'blob/p*/chain/*'))[0]
    whole = bytearray(open(path, 'rb').read())
    whole[len(whole) // 2] ^= 1
    os.unlink(path)
    with open(path, 'wb') as f:
        f.write(whole)
    new = str(tmp_path / 'new')
    run = run_kelpie('restore', snapshot, '--data', new)
    assert run.returncode == 1, run.stdout + run.stderr
    entry = '/'.join(path.split(os.sep)[-3:])
    assert 'DAMAGE manifest entry %s' % entry in run.stdout and 'restored to %s' % new in run.stdout, run.stdout
    assert entry.replace('/', '_') in os.listdir(os.path.join(new, 'quarantine'))
    assert 'set aside' in verify(new)[0]


def test_restore_of_nothing(tmp_path, start):
    node = start(Node(tmp_path / 'node')).start()
    assert node.request('/api/v1/admin/tsdb/snapshot', b'', method='POST').status == 200
    snapshot = glob.glob(os.path.join(node.data, 'snapshots', '*'))[0]
    run = run_kelpie('restore', snapshot, '--data', tmp_path / 'new')
    assert run.returncode == 0 and 'the snapshot holds no rows' in run.stdout, run.stdout + run.stderr


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def test_newer_format(data, tmp_path, start):
    """An entry of format 2: neither start nor verify nor export goes on, and each says which file and which format."""
    path = glob.glob(os.path.join(data, 'blob/p*/chain/*'))[0]
    body = bytearray(open(path, 'rb').read())[:-4]
    body[4] = 2
    with open(path, 'wb') as f:
        f.write(body + crc32c(body).to_bytes(4, 'little'))
    words = 'manifest entry blob/%s: written by a newer version: entry format 2, and this Kelpie reads up to 1' % \
        '/'.join(path.split(os.sep)[-3:])
    for command in ('verify', 'fsck', 'export'):
        run = run_kelpie(command, '--data', data)
        assert run.returncode == 1 and words in run.stderr, run.stdout + run.stderr
    node = start(Node(tmp_path / 'node'))
    node.data = data
    node.start(wait=False)
    assert node.process.wait(30) == 1 and words in node.output(), node.output()


def test_progress(data, tmp_path, start):
    """Asked for it is told on standard error; what goes to standard output is the same; unasked nothing is told."""
    snapshot = glob.glob(os.path.join(data, 'snapshots', '*'))[0]
    for command in (['verify'], ['fsck'], ['export'], ['export', '--rows']):
        quiet = run_kelpie(*command, '--data', data)
        told = run_kelpie(*command, '--data', data, '--progress')
        assert quiet.stdout == told.stdout and 'MiB (' not in quiet.stderr
        assert told.stderr.startswith('kelpie %s: ' % command[0]) and ' %)\n' in told.stderr, told.stderr
    told = run_kelpie('restore', snapshot, '--data', tmp_path / 'new', '--progress')
    assert told.returncode == 0 and told.stderr.startswith('kelpie restore: 0 of 1 MiB ('), told.stderr
    node = start(Node(tmp_path / 'node')).start()
    told = run_kelpie('snapshot', '--url', node.url, '--progress')
    assert told.returncode == 0 and told.stderr.startswith('kelpie snapshot: waiting for the node, 0 s'), told.stderr


def test_help_says_what_is_done():
    for command, words in (('fsck', 'What nothing names is told'), ('verify', "not Kelpie's"),
                           ('restore', '--accept-unreadable')):
        run = subprocess.run([BINARY, command, '--help'], capture_output=True, text=True, timeout=60)
        assert run.returncode == 0 and words in run.stdout.replace('\n', ' '), run.stdout
