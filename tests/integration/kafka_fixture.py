"""Real Kafka brokers on loopback: one or three nodes of tests/services/kafka.sh, each with a time limit, ended by pid.

A cluster takes 3 to 6 seconds to start: one for a test file, not for a test. Port 0 of a cluster is a free block of 30;
KELPIE_KAFKA_PORT chooses one."""
import os
import re
import shutil
import socket
import subprocess
import time

import pytest

from conftest import BINARY

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(TOP, 'tests/services/kafka.sh')
TTL_SECONDS = 900


def why_not():
    """Why there can be no brokers here, or None."""
    if shutil.which('java') is None:
        return 'no Java runtime is installed (./dev setup does it)'
    if subprocess.run([SCRIPT, 'ready'], capture_output=True).returncode != 0:
        return "Kafka's jars are not fetched (./dev setup does it)"
    return None


def free_block(count=30):
    """First of `count` ports that nobody listens on, where no connection is given its own port."""
    for base in range(int(os.environ.get('KELPIE_KAFKA_PORT', 19300)), 32000, count):
        taken = False
        for port in range(base, base + count):
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind(('127.0.0.1', port))
                except OSError:
                    taken = True
                    break
        if not taken:
            return base
    raise AssertionError('no free ports')


class Kafka:
    """A cluster; nodes count from 1."""
    def __init__(self, folder, nodes):
        self.folder, self.nodes = str(folder), nodes
        self.bootstrap = self.port = None

    def order(self, verb, *arguments, conf=''):
        env = dict(os.environ, KAFKA_TTL=str(TTL_SECONDS), KAFKA_CONF=conf)
        done = subprocess.run([SCRIPT, verb, self.folder] + [str(a) for a in arguments], env=env, capture_output=True,
                              text=True, timeout=120)
        if done.returncode != 0:
            raise AssertionError('kafka.sh %s: %s' % (verb, done.stdout + done.stderr))
        return done.stdout

    def start(self, conf=None):
        """conf(port): lines that every node's server.properties gets besides, given the first port of the block."""
        self.port = free_block()
        self.bootstrap = self.order('start', self.nodes, self.port, conf=conf(self.port) if conf else '').strip().split('bootstrap=')[1]
        return self

    def kill(self, node):
        self.order('kill', node)

    def up(self, node):
        self.order('up', node)

    def pause(self, node):
        self.order('pause', node)

    def resume(self, node):
        self.order('cont', node)

    def restart(self):
        """All die at once and start again."""
        for node in range(1, self.nodes + 1):
            self.kill(node)
        self.order('start')

    def destroy(self):
        if os.path.exists(os.path.join(self.folder, 'cluster')):
            self.order('destroy')


def cluster(tmp_path_factory, nodes, conf=None):
    """Yields a running cluster, or skips the test and says why."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    kafka = Kafka(tmp_path_factory.mktemp('kafka') / 'nodes', nodes)
    try:
        yield kafka.start(conf)
    finally:
        kafka.destroy()


@pytest.fixture(scope='module')
def one_broker(tmp_path_factory):
    yield from cluster(tmp_path_factory, 1)


@pytest.fixture(scope='module')
def three_brokers(tmp_path_factory):
    yield from cluster(tmp_path_factory, 3)


def probe_path(name):
    """The checker tests/services/NAME.c, or the test is skipped."""
    path = os.path.join(os.path.dirname(BINARY), 'tests', name)
    if not os.path.exists(path):
        pytest.skip('%s is not built' % path)
    return path


class Load:
    """A checker that writes and reads all the while; entered when its load has begun, ended when the block is left."""
    def __init__(self, folder, *command):
        self.path, self.command = str(folder / 'probe.out'), list(command)
        self.process = None

    def text(self):
        with open(self.path, encoding='utf-8') as f:
            return f.read()

    def __enter__(self):
        with open(self.path, 'w', encoding='utf-8') as out:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=out)
        end = time.monotonic() + 60
        while 'loading\n' not in self.text():
            if self.process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise AssertionError('no load: ' + self.text())
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def must_succeed(self, seconds, shown):
        """Wait for it, print the lines that match `shown`; the test fails if the checker did."""
        status = self.process.wait(seconds)
        print('\n'.join(line for line in self.text().split('\n') if re.match(shown, line)))
        assert status == 0, self.text()[-4000:]
