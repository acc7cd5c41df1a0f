"""What a person reads who made a mistake or meets damage: each text says what is wrong and what to do."""
import glob
import os
import shutil
import subprocess
import time

import pytest

from conftest import BINARY, Node, free_port, run_kelpie
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


def test_a_cluster(tmp_path):
    """Its settings are checked; a directory belongs to a node that is alone or to one of a cluster, and tools say which."""
    path = tmp_path / 'c.yaml'
    lacking = "cluster: {name: n, address: 'a:1', secret_file: s}\n"
    path.write_text(lacking)
    assert 'line 1 column 10: cluster needs log.kafka' in refusal('serve', '--check-config', '--config', path)
    path.write_text(lacking + "log: {kafka: {bootstrap: '127.0.0.1:1', topic: t, control_topic: c}}\n"
                    "blob: {s3: {endpoint: 'http://127.0.0.1:1', bucket: abc, credentials: static, access_key: a, secret_key_file: k}}\n")
    (tmp_path / 'k').write_text('key\n')
    assert '%s/s cannot be read: not found' % tmp_path in refusal('serve', '--check-config', '--config', path)
    (tmp_path / 's').write_text('a secret of 16 and more\n')
    assert run_kelpie('serve', '--check-config', '--config', path).stdout == 'the configuration is fine\n'
    assert 'the other nodes are to reach this one at a:1' in refusal('serve', '--config', path, '--data', tmp_path / 'x', '--http', '127.0.0.1:0')
    path.write_text(path.read_text().replace('a:1', '127.0.0.1:1'))
    alone = Node(tmp_path / 'alone').start()
    alone.end()
    assert 'it holds the data of a node that was alone' in refusal('serve', '--config', path, '--data', alone.data, '--http', '127.0.0.1:0')
    node = Node(tmp_path / 'member', arguments=['--config', str(path)]).start(wait=False)   # its brokers are away
    try:
        end = time.monotonic() + 20
        reply = None
        while reply is None or b'the bucket' not in reply.body:
            assert time.monotonic() < end, node.output()
            try:
                reply = node.request('/-/ready')
            except OSError:
                time.sleep(0.05)
        assert reply.status == 503
        assert node.request('/api/v1/write', b'x').status == 503
        assert node.request('/-/rpc/probe', b'x').status in (401, 503)
    finally:
        node.end()
    assert 'the configuration has no cluster section' in refusal('serve', '--data', node.data, '--http', '127.0.0.1:0')
    for command in ('verify', 'fsck', 'export'):
        assert 'is that of a node in a cluster' in refusal(command, '--data', node.data)


def test_a_cluster_from_its_bucket(tmp_path):
    """What restore and clone say before they have looked at anything."""
    assert '--config is missing' in refusal('cluster', 'restore', status=2)
    assert '--to is missing' in refusal('cluster', 'clone', '--config', 'x', status=2)
    assert 'did you mean --dry-run?' in refusal('cluster', 'restore', '--dryrun', status=2)
    alone = tmp_path / 'alone.yaml'
    alone.write_text('storage: {retention: 5d}\n')
    assert 'not that of a node in a cluster' in refusal('cluster', 'restore', '--config', alone)
    assert 'alone.yaml: the configuration is not that of a node in a cluster' in refusal('cluster', 'clone', '--config', alone, '--to', alone)
    member = tmp_path / 'member.yaml'
    (tmp_path / 's').write_text('a secret of 16 and more\n')
    (tmp_path / 'k').write_text('key\n')
    member.write_text("cluster: {name: n, address: 'a:1', secret_file: s}\nlog: {kafka: {bootstrap: '127.0.0.1:1', topic: t, control_topic: c}}\n"
                      "blob: {s3: {endpoint: 'http://127.0.0.1:1', bucket: abc, credentials: static, access_key: a, secret_key_file: k, retry_time: 1s}}\n")
    assert 'bucket abc: ' in refusal('cluster', 'restore', '--config', member)
    assert 'bucket abc: ' in refusal('cluster', 'clone', '--config', member, '--to', member)
    assert '--at-time takes Unix seconds' in refusal('cluster', 'clone', '--config', member, '--to', member, '--at-time', 'yesterday')


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


def test_asking_a_node(node):
    """kelpie query, snapshot and retention: answers as text, a node's refusals in its words, what cannot be asked by URL."""
    assert write(node, [({'__name__': 'text', 'i': str(i)}, [(1700000000000, i)]) for i in range(2)]).status in (200, 204)
    here = ['--url', node.url]

    def ask(*arguments):
        return run_kelpie('query', *arguments, *here)
    at = ['--time', '1700000000']
    assert ask('text', *at).stdout == 'text{i="0"} 0 @1700000000\ntext{i="1"} 1 @1700000000\n'
    over = ask('text{i="1"}', '--start', '1700000000', '--end', '1700000010', '--step', '10s')
    assert over.stdout == 'text{i="1"}\n  1 @1700000000\n  1 @1700000010\n'
    assert ask('1 + 1', *at).stdout == '2 @1700000000\n'
    assert ask('text', '--tenant', 'other', *at).stdout == ''
    assert ask('text', '--json', *at).stdout.startswith('{"status":"success"')
    wrong = ask('sum(')
    assert wrong.returncode == 1 and wrong.stderr.startswith('kelpie query: '), wrong.stderr
    assert '{' not in wrong.stderr
    wrong = ask('sum(', '--json')
    assert wrong.returncode == 1 and wrong.stdout.startswith('{"status":"error"'), wrong.stdout
    well = run_kelpie('health', *here)
    assert (well.returncode, well.stdout) == (0, 'well\n'), well
    missing = ['--url', 'http://127.0.0.1:%d' % free_port()]
    unknown = run_kelpie('health', *missing)
    assert unknown.returncode == 2 and 'onnect' in unknown.stderr, unknown
    for command in (['query', 'up'], ['snapshot'], ['retention', '--confirm']):
        text = refusal(*command, *missing)
        assert text.startswith('kelpie %s: %s: ' % (command[0], missing[1])) and 'onnect' in text, text
        text = refusal(*command, '--url', node.url + '/nowhere')
        assert 'status 404' in text or 'not found' in text.lower(), text
        assert 'too long' in refusal(*command, '--url', 'http://' + 'x' * 9000)
    assert run_kelpie('snapshot', *here).returncode == 0


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
    """A second process is refused, and the first one does not notice."""
    stored.start()
    for command in ('serve', 'verify', 'fsck', 'export'):
        text = refusal(command, '--data', stored.data)
        assert 'data directory %s: in use by another process; stop that one first' % stored.data in text
    assert write(stored, [({'__name__': 'text', 'i': '100'}, [(1700000000000, 1)])]).status in (200, 204)
    assert count(stored) == (True, 101)


def test_directory_of_another_cluster(stored, tmp_path, start):
    """The log of one node under the NODE of another one, either way round, is refused by name and left as it is."""
    other = start(Node(tmp_path / 'other')).start()
    assert write(other, [({'__name__': 'text', 'i': str(i)}, [(1700000000000, i)]) for i in range(7)]).status in (200, 204)
    other.end()
    for name in ('log', 'NODE'):
        aside = os.path.join(stored.folder, name)
        os.rename(os.path.join(stored.data, name), aside)
        os.rename(os.path.join(other.data, name), os.path.join(stored.data, name))
        before = tree(os.path.join(stored.data, 'log'))
        for command in ('serve', 'verify', 'fsck', 'export'):
            arguments = ['--http', '127.0.0.1:%d' % free_port()] if command == 'serve' else []
            text = refusal(command, '--data', stored.data, *arguments)
            assert 'belongs to another cluster' in text and '/log/' in text.replace('log: log/', '/log/'), text
        assert tree(os.path.join(stored.data, 'log')) == before
        os.rename(os.path.join(stored.data, name), os.path.join(other.data, name))
        os.rename(aside, os.path.join(stored.data, name))
    for node, rows in ((stored, 100), (other, 7)):
        assert run_kelpie('verify', '--data', node.data).returncode == 0
        node.start()
        assert count(node) == (True, rows)


def test_directory_on_a_read_only_file_system(tmp_path, start):
    disk = tmp_path / 'disk'
    disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=96m', 'tmpfs', str(disk)], check=False).returncode != 0:
        pytest.skip('no right to mount a tmpfs')
    try:
        node = start(Node(disk / 'node', 'storage: {log_file_bytes: 4MiB, free_space_floor: 1MiB}\n')).start()
        rows = [({'__name__': 'text', 'i': str(i)}, [(1700000000000, i)]) for i in range(100)]
        assert write(node, rows).status in (200, 204)
        node.end()
        subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
        assert run_kelpie('verify', '--data', node.data).returncode == 0
        assert run_kelpie('export', '--data', node.data).stdout.count('text{') == 100
        refused = refusal('serve', '--data', node.data, '--http', '127.0.0.1:%d' % free_port())
        assert ('data directory %s: cannot open NODE: access denied; this user must own the directory, and its file system '
                'must be writable' % node.data) in refused, refused
        assert 'access denied' in refusal('fsck', '--data', node.data)
        subprocess.run(['mount', '-o', 'remount,rw', str(disk)], check=True)
        node.start()
        assert count(node) == (True, 100)
        node.end()
    finally:
        subprocess.run(['umount', '-l', str(disk)], check=False)


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


def flip_middle(path):
    """In a file of its own: other names of it keep their bytes."""
    whole = bytearray(open(path, 'rb').read())
    whole[len(whole) // 2] ^= 1
    os.unlink(path)
    with open(path, 'wb') as f:
        f.write(whole)


def tree(folder):
    return {path: open(path, 'rb').read() if os.path.isfile(path) else None
            for path in glob.glob(folder + '/**', recursive=True)}


def count(node, expression='count(text)'):
    reply = node.request('/api/v1/query?query=%s&time=1700000000' % expression)
    result = reply.json()['data']['result']
    return reply.headers['X-Kelpie-Complete'] == 'true', int(result[0]['value'][1]) if result else 0


def refuses_to_serve(folder, text):
    assert text in refusal('serve', '--data', folder, '--http', '127.0.0.1:%d' % free_port())


def test_snapshot_is_no_data_directory(stored, tmp_path):
    """Served as it is, its log would count as lost."""
    snapshot, data = snapshot_of(stored), str(tmp_path / 'new')
    before = tree(snapshot)
    refuses_to_serve(snapshot, 'kelpie restore %s --data' % snapshot)
    assert run_kelpie('verify', '--data', snapshot).returncode == 0
    assert run_kelpie('export', '--data', snapshot).stdout.count('text{') == 100
    for arguments in ([], ['--confirm-loss']):
        assert 'kelpie restore %s --data' % snapshot in refusal('fsck', '--data', snapshot, *arguments)
    assert tree(snapshot) == before
    restored = run_kelpie('restore', snapshot, '--data', data)
    assert restored.returncode == 0 and 'kelpie serve --data %s' % data in restored.stdout
    assert 'acknowledged through %s' % time.strftime('%Y-', time.gmtime()) in restored.stdout, restored.stdout
    assert run_kelpie('verify', '--data', data).returncode == 0
    assert tree(snapshot) == before
    assert 'it exists, and restore needs a directory that does not exist yet' in refusal('restore', snapshot, '--data', data)
    assert 'there is no directory to create it in' in refusal('restore', snapshot, '--data', tmp_path / 'no' / 'dir')
    stored.data = data
    stored.start()
    assert count(stored) == (True, 100)


def test_damaged_snapshot(stored, tmp_path):
    """Nothing changes a snapshot, nor makes a data directory of it, but restore, which takes what is whole."""
    snapshot, data = snapshot_of(stored), str(tmp_path / 'new')
    flip_middle(max(glob.glob(os.path.join(snapshot, 'blob/p*/segment/*')), key=os.path.getsize))
    before = tree(snapshot)
    for _ in range(2):
        verify = run_kelpie('verify', '--data', snapshot)
        assert verify.returncode == 1 and '1 damaged' in verify.stdout, verify.stdout
        assert 'kelpie restore %s --data NEWDIR' % snapshot in verify.stdout
        assert 'kelpie fsck --data %s' % snapshot not in verify.stdout
        for arguments in ([], ['--confirm-loss']):
            assert 'is a snapshot' in refusal('fsck', '--data', snapshot, *arguments)
        refuses_to_serve(snapshot, 'is a snapshot')
        assert tree(snapshot) == before
    assert run_kelpie('restore', snapshot, '--data', data).returncode == 0
    fsck = run_kelpie('fsck', '--data', data)
    assert fsck.returncode == 1 and 'DAMAGE' in fsck.stdout
    assert tree(snapshot) == before
    stored.data = data
    stored.start()
    is_complete, rows = count(stored)
    assert not is_complete and 0 < rows < 100


def test_not_taken_for_a_snapshot(stored, tmp_path):
    """A data directory without its log, a restore that was killed: neither is a snapshot, and nothing is lost unseen."""
    snapshot, half = snapshot_of(stored), str(tmp_path / 'half')
    assert run_kelpie('restore', snapshot, '--data', half).returncode == 0
    os.unlink(os.path.join(half, 'NODE'))   # written last
    refuses_to_serve(half, 'a restore that was interrupted')

    stored.start()   # rows that are in the log and the streams alone
    assert write(stored, [({'__name__': 'tail', 'i': str(i)}, [(1700000000000, i)]) for i in range(100)]).status in (200, 204)
    stored.end()
    for name in ('log', 'stream'):
        shutil.rmtree(os.path.join(stored.data, name))
    verify = run_kelpie('verify', '--data', stored.data)
    assert verify.returncode == 1 and 'DAMAGE the log of partition' in verify.stdout, verify.stdout
    new = tmp_path / 'new'
    assert 'is not a snapshot: there is no file SNAPSHOT in it' in refusal('restore', stored.data, '--data', new)
    assert not os.path.exists(new)
    stored.start()
    assert not count(stored, 'count(tail)')[0]
    stored.end()

    shutil.copy(os.path.join(snapshot, 'SNAPSHOT'), stored.data)   # with the NODE of a snapshot, by mistake
    assert 'is not a snapshot: there is a log in it' in refusal('restore', stored.data, '--data', new)
    os.unlink(os.path.join(snapshot, 'NODE'))   # written last
    assert 'is no whole snapshot: there is no NODE in it' in refusal('restore', snapshot, '--data', new)
    assert not os.path.exists(new)


def test_lock_is_taken_on_a_file_open_for_writing(stored):
    """Where flock is emulated by locks of ranges (NFS), an exclusive one needs that."""
    stored.start()
    for n in range(20):   # more text than a pipe holds
        rows = [({'__name__': 'text', 'i': str(i)}, [(1700000000000 + 1000 * n, i)]) for i in range(1000)]
        assert write(stored, rows).status in (200, 204)
    stored.end()
    with subprocess.Popen([BINARY, 'export', '--data', stored.data], stdout=subprocess.PIPE) as export:
        try:
            assert export.stdout.read(1) == b't'   # it is at work, and waits for a reader
            proc = '/proc/%d/' % export.pid
            node = [n for n in os.listdir(proc + 'fd') if os.readlink(proc + 'fd/' + n) == os.path.join(stored.data, 'NODE')]
            assert len(node) == 1
            with open(proc + 'fdinfo/' + node[0], encoding='utf-8') as f:
                flags = int(next(line for line in f if line.startswith('flags:')).split()[1], 8)
            assert flags & os.O_ACCMODE == os.O_RDWR
        finally:
            export.kill()


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
            shutil.copy(BINARY, binary)
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
