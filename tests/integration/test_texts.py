"""What a person reads who made a mistake or meets damage: each text says what is wrong and what to do."""
import glob
import os
import shutil
import subprocess

import pytest

from conftest import Node, free_port, run_kelpie
from remote_write import write

NOBODY = 65534


def refusal(*arguments, status=1):
    run = run_kelpie(*arguments)
    assert run.returncode == status, run.stdout + run.stderr
    return run.stderr


@pytest.mark.parametrize('config, text', [
    ('storage:\n  retension: 5d\n', 'line 2 column 3: unknown key "retension", did you mean retention?'),
    ('storage:\n\tretention: 5d\n', 'line 2 column 1: a tab where YAML wants spaces'),
    ('global:\n  scrape_intervall: 5s\n', 'line 2 column 3: unknown key "scrape_intervall", did you mean scrape_interval?'),
    ('remote_write: []\n', 'line 1 column 1: unknown key "remote_write"\n'),
    ('query:\n  timeout: 5 minutes\n', 'line 2 column 12: expected a duration like 15s or 1h30m, got "5 minutes"'),
])
def test_configuration(tmp_path, config, text):
    path = tmp_path / 'c.yaml'
    path.write_text(config)
    assert '%s: %s' % (path, text.split('\n')[0]) in refusal('serve', '--check-config', '--config', path)


def test_command_line(tmp_path):
    here = ['--data', tmp_path / 'data']
    assert 'did you mean --data?' in refusal('serve', '--dat', 'x', status=2)
    for listen in ('99999', 'localhost', '127.0.0.1:', '127.0.0.1:99999'):
        assert 'is not host:port, as in 127.0.0.1:9428' in refusal('serve', '--http', listen, *here)
    assert '--insecure' in refusal('serve', '--http', '0.0.0.0:0', *here)
    assert '--step' in refusal('query', 'up', '--start', '1', status=2)
    missing = str(tmp_path / 'nofile')
    assert missing + ': cannot be read: not found' in refusal('serve', '--check-config', '--web.config.file', missing)
    assert 'there is no directory to create it in' in refusal('serve', '--data', tmp_path / 'no' / 'dir')
    for command in ('verify', 'fsck', 'export'):
        assert 'there is no such directory; --data names it' in refusal(command, '--data', missing)


@pytest.fixture
def stored(tmp_path, start):
    """A stopped node with one segment's worth of rows and a snapshot of them."""
    node = start(Node(tmp_path / 'node')).start()
    assert write(node, [({'__name__': 'text', 'i': str(i)}, [(1700000000000, i)]) for i in range(100)]).status in (200, 204)
    assert node.request('/api/v1/admin/tsdb/snapshot', b'', method='POST').status == 200
    node.end()
    return node


def snapshot_of(node):
    return glob.glob(os.path.join(node.data, 'snapshots', '*'))[0]


def test_directory_in_use(stored):
    stored.start()
    for command in ('serve', 'verify', 'fsck', 'export'):
        text = refusal(command, '--data', stored.data)
        assert 'data directory %s: in use by another process; stop that one first' % stored.data in text


def test_identity(stored):
    path = os.path.join(stored.data, 'NODE')
    whole = open(path, 'rb').read()
    for bytes in (b'', whole[:50], whole[:50] + b'\xff' + whole[51:], b'x' * len(whole)):
        with open(path, 'wb') as f:
            f.write(bytes)
        for command in ('serve', 'verify', 'fsck'):
            text = refusal(command, '--data', stored.data)
            assert 'data directory %s: ' % stored.data in text and 'put the NODE of a snapshot back' in text, text
    shutil.copy(os.path.join(snapshot_of(stored), 'NODE'), path)
    stored.start()
    assert stored.query('count(text)', 1700000000)['data']['result'][0]['value'][1] == '100'


def test_damage(stored):
    path = max(glob.glob(os.path.join(stored.data, 'blob/p*/segment/*')), key=os.path.getsize)
    with open(path, 'r+b') as f:
        f.seek(os.path.getsize(path) // 2)
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ 1]))
    verify = run_kelpie('verify', '--data', stored.data)
    assert verify.returncode == 1 and 'kelpie fsck --data %s' % stored.data in verify.stdout, verify.stdout
    assert ': stored bytes are damaged: ' in verify.stdout
    fsck = run_kelpie('fsck', '--data', stored.data)
    assert fsck.returncode == 1 and 'kelpie fsck --confirm-loss --data %s' % stored.data in fsck.stdout, fsck.stdout
    assert run_kelpie('fsck', '--confirm-loss', '--data', stored.data).returncode == 0
    assert run_kelpie('verify', '--data', stored.data).returncode == 0


def test_snapshot_is_no_data_directory(stored, tmp_path):
    """Served as it is, its log would count as lost."""
    snapshot, data = snapshot_of(stored), str(tmp_path / 'new')
    before = sorted(glob.glob(snapshot + '/**', recursive=True))
    assert 'kelpie restore %s --data' % snapshot in refusal('serve', '--data', snapshot, '--http', '127.0.0.1:%d' % free_port())
    assert sorted(glob.glob(snapshot + '/**', recursive=True)) == before
    assert run_kelpie('verify', '--data', snapshot).returncode == 0
    restored = run_kelpie('restore', snapshot, '--data', data)
    assert restored.returncode == 0 and 'kelpie serve --data %s' % data in restored.stdout
    assert run_kelpie('verify', '--data', data).returncode == 0
    assert 'it exists, and restore needs a directory that does not exist yet' in refusal('restore', snapshot, '--data', data)
    assert 'there is no directory to create it in' in refusal('restore', snapshot, '--data', tmp_path / 'no' / 'dir')
    stored.data = data
    stored.start()
    reply = stored.request('/api/v1/query?query=count(text)&time=1700000000')
    assert reply.headers['X-Kelpie-Complete'] == 'true' and reply.json()['data']['result'][0]['value'][1] == '100'


def test_directory_that_is_not_writable(stored):
    """What changes nothing needs no right to write; what does says which right it needs."""
    for folder, _, files in os.walk(stored.data):
        os.chmod(folder, 0o555)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o444)
    at = stored.data
    while at != '/tmp' and at != '/':   # pytest's folders are private
        at = os.path.dirname(at)
        os.chmod(at, os.stat(at).st_mode | 0o055)

    def become_nobody():
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    def run(command):
        binary = os.path.join(os.path.dirname(stored.folder), 'kelpie')
        if not os.path.exists(binary):
            import conftest
            shutil.copy(conftest.BINARY, binary)
        return subprocess.run([binary, command, '--data', stored.data], capture_output=True, text=True, timeout=60,
                              preexec_fn=become_nobody)
    verify = run('verify')
    assert verify.returncode == 0, verify.stderr
    export = run('export')
    assert export.returncode == 0 and export.stdout.count('text{') == 100, export.stderr
    serve = run('serve')
    assert serve.returncode == 1 and 'this user must own the directory' in serve.stderr, serve.stderr
    fsck = run('fsck')
    assert fsck.returncode == 1 and 'access denied' in fsck.stderr, fsck.stderr
