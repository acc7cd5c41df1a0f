"""Real processes on loopback, each bounded in time and ended by pid.

KELPIE_BINARY chooses another build than build/release/kelpie."""
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get('KELPIE_BINARY', os.path.join(TOP, 'build/release/kelpie'))
PEERS = os.path.join(TOP, '.cache/peers/usr/bin')
CLUSTER_TTL_SECONDS = 900

sys.path.insert(0, os.path.join(TOP, 'tools'))
import run_cluster  # noqa: E402


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Reply:
    """Status, headers and body of one HTTP exchange; errors are replies, not exceptions."""
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.body.decode('utf-8', 'replace')


class Process:
    """A server process with a port of its own."""
    def __init__(self, folder, name):
        self.folder, self.name, self.port = str(folder), name, free_port()
        self.process = None
        os.makedirs(self.folder, exist_ok=True)

    @property
    def url(self):
        return 'http://127.0.0.1:%d' % self.port

    def launch(self, command, env=None):
        with open(os.path.join(self.folder, self.name + '.out'), 'ab') as out:
            self.process = subprocess.Popen([str(c) for c in command], stdout=out, stderr=out, env=env)
        return self

    def output(self):
        with open(os.path.join(self.folder, self.name + '.out'), encoding='utf-8', errors='replace') as f:
            return f.read()

    def request(self, path, data=None, headers=None, method=None, timeout=30):
        request = urllib.request.Request(self.url + path, data=data, headers=headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as r:
                return Reply(r.status, r.headers, r.read())
        except urllib.error.HTTPError as e:
            return Reply(e.code, e.headers, e.read())

    def wait_for(self, path, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError('%s ended with %d:\n%s' % (self.name, self.process.returncode, self.output()[-3000:]))
            try:
                if self.request(path, timeout=5).status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError('%s: %s not 200 after %d s:\n%s' % (self.name, path, seconds, self.output()[-3000:]))

    def query(self, expression, at, headers=None, **arguments):
        arguments.update(query=expression, time='%.3f' % at)
        return self.request('/api/v1/query', urllib.parse.urlencode(arguments).encode(), headers, timeout=120).json()

    def query_range(self, expression, start, end, step, headers=None, **arguments):
        arguments.update(query=expression, start='%.3f' % start, end='%.3f' % end, step=step)
        return self.request('/api/v1/query_range', urllib.parse.urlencode(arguments).encode(), headers).json()

    def end(self, how=signal.SIGTERM, seconds=30):
        """End the process; returns its exit status."""
        if self.process is None or self.process.poll() is not None:
            return None if self.process is None else self.process.returncode
        self.process.send_signal(how)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError('%s did not end within %d s' % (self.name, seconds)) from None


class Node(Process):
    """A Kelpie node; its data directory survives restarts."""
    def __init__(self, folder, config=None, arguments=()):
        super().__init__(folder, 'kelpie')
        self.data = os.path.join(self.folder, 'data')
        self.arguments = list(arguments)
        if config is not None:
            path = os.path.join(self.folder, 'kelpie.yaml')
            with open(path, 'w', encoding='utf-8') as f:
                f.write(config)
            self.arguments += ['--config', path]

    def start(self, wait=True):
        self.launch([BINARY, 'serve', '--data', self.data, '--http', '127.0.0.1:%d' % self.port] + self.arguments)
        return self.wait_for('/-/ready') if wait else self


@pytest.fixture
def start(tmp_path):
    """start(Process) keeps track of a process and ends it after the test, however that ends."""
    running = []

    def keep(process):
        running.append(process)
        return process
    yield keep
    for process in running:
        if process.process is not None and process.process.poll() is None:
            process.process.kill()
            process.process.wait()


@pytest.fixture
def node(tmp_path, start):
    return start(Node(tmp_path / 'node')).start()


@pytest.fixture(scope='module')
def cluster(request, tmp_path_factory):
    """Three nodes, three brokers and an S3 store, as `./dev cluster` starts them; a module says CLUSTER_SETTINGS that differ."""
    reason = run_cluster.why_not()
    if reason is not None:
        pytest.skip(reason)
    run_cluster.BINARY = BINARY
    settings = dict(replicas=2, scrapes=False, **getattr(request.module, 'CLUSTER_SETTINGS', {}))
    one = run_cluster.Cluster(str(tmp_path_factory.mktemp('cluster') / 'c'), ttl=CLUSTER_TTL_SECONDS, **settings)
    try:
        yield one.start()
    finally:
        one.destroy()


def wait_until(what, seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def run_kelpie(*arguments, timeout=60):
    """Run a command of the binary to its end."""
    return subprocess.run([BINARY] + [str(a) for a in arguments], capture_output=True, text=True, timeout=timeout)


def kelpie(command, cluster, *arguments, node=1, status=0):
    """Of that node; it must end with that status."""
    run = run_kelpie(command, *arguments, '--url', cluster.url(node))
    assert run.returncode == status, run.stdout + run.stderr
    return run


def kelpie_cluster(cluster, *arguments, node=1, status=0):
    run = kelpie('cluster', cluster, *arguments, node=node, status=status)
    return run.stdout if status == 0 else run.stderr


def nodes_of(cluster, node=1):
    """By name, as the cluster shows them."""
    return {n['name']: n for n in json.loads(kelpie_cluster(cluster, '--json', node=node))['data']['nodes']}


def peer(name):
    """Path of an unpacked peer program; the test is skipped with the reason where it cannot be had."""
    path = os.path.join(PEERS, name)
    if not os.path.exists(path):
        pytest.skip('%s is not unpacked below .cache/peers (./dev setup does it)' % name)
    return path
