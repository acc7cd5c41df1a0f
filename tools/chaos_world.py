"""A cluster whose parts stand in network namespaces of their own, so that any of them can be cut off, slowed or delayed; and what its
brokers say of themselves.

The process that uses a World must have network, mount and process namespaces of its own (enter() does that): then no name, port
or process of it meets another's, and all of it ends with the process. Every part hangs on a veth pair at a bridge; cut() puts
parts to another bridge, where they reach one another and nobody else."""
import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request

import run_cluster

NODES = 6     # places for so many
BROKERS = 3
NETWORK = '10.98.0.'
HUB = NETWORK + '254'
SYSTEM = ('unshare', '--net', '--pid', '--mount', '--fork', '--kill-child', '--mount-proc')
FAKETIME = os.path.join(run_cluster.TOP, '.cache/peers/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1')
CUTTING = 'storage:\n  cut_age: 1m\n'   # segments go to the bucket all the time
CLONE_NEWNET = 0x40000000
TUNSETIFF, TAP_NO_INFO = 0x400454ca, 0x1002


def why_not():
    """What is missing for namespaces on this machine, or None."""
    done = subprocess.run(SYSTEM + ('sh', '-c', 'mount -t tmpfs none /run && mkdir /run/netns && ip netns add place && '
                                    'ip link add link0 type veth peer name eth0 netns place && ip link add hub type bridge'),
                          capture_output=True, text=True)
    if done.returncode != 0:
        return 'no network namespaces (root is needed, and iproute2): ' + done.stderr.strip()[-200:]
    return run_cluster.why_not()


def enter(arguments):
    """Runs this program once more, with namespaces of its own. Returns its status."""
    child = subprocess.Popen(list(SYSTEM) + [sys.executable] + arguments)
    try:
        return child.wait()
    finally:
        child.kill()
        child.wait()


def ip(*words, within=None):
    command = ['ip'] + (['-n', within] if within else []) + [str(w) for w in words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError('%s: %s' % (' '.join(command), done.stderr))


def inside(name, act):
    """Runs act in a thread that stands in that part's namespace, and waits for it."""
    def enter_and_act():
        fd = os.open('/run/netns/' + name, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), 'setns')
        finally:
            os.close(fd)
        act()
    thread = threading.Thread(target=enter_and_act, daemon=True)
    thread.start()
    thread.join()


def places():
    return ['node-%d' % n for n in range(1, NODES + 1)] + ['kafka-%d' % b for b in range(1, BROKERS + 1)]


def address(name):
    kind, _, number = name.partition('-')
    if kind == 's3':
        return HUB
    return NETWORK + ('' if kind == 'node' else '1') + number


def build_network():
    """Once, in namespaces of our own."""
    subprocess.run(['sh', '-c', 'mount -t tmpfs none /run && mkdir -p /run/netns'], check=True)
    ip('link', 'set', 'lo', 'up')
    for bridge in ('hub', 'island'):
        ip('link', 'add', bridge, 'type', 'bridge')
        ip('link', 'set', bridge, 'up')
    ip('addr', 'add', HUB + '/24', 'dev', 'hub')
    for name in places():
        ip('netns', 'add', name)
        ip('link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
        ip('link', 'set', name, 'master', 'hub', 'up')
        ip('link', 'set', 'lo', 'up', within=name)
        ip('addr', 'add', address(name) + '/24', 'dev', 'eth0', within=name)
        ip('link', 'set', 'eth0', 'up', within=name)


class World(run_cluster.Cluster):
    """Nodes and brokers in zones 1 to 3 (further nodes where their configuration says), the bucket and the clients at the hub."""
    arguments = ['--insecure']   # there is nobody else in this network

    def __init__(self, folder, **settings):
        super().__init__(folder, scrapes=False, **settings)
        self.members = list(range(1, self.settings['nodes'] + 1))
        self.clocks = {}   # node: what its clock is put on by, as libfaketime has it
        self.wires, self.limited = {}, set()
    def numbers(self):
        return self.members

    def host(self, name):
        return address(name)

    def within(self, name):
        command = ['nsenter', '--net=/run/netns/' + name]
        if name in self.clocks:
            command += ['env', 'LD_PRELOAD=' + FAKETIME, 'FAKETIME=' + self.clocks[name], 'FAKETIME_DONT_FAKE_MONOTONIC=1']
        return command

    def leave(self):
        """Everything ends, and the network is as it was."""
        self.destroy()
        self.mend()

    def write_config(self, node, edit=None):
        super().write_config(node, lambda text: (edit(text) if edit else text) + CUTTING)

    # ---- faults of the network ----

    def cut(self, *names):
        """These reach one another, and nobody else; nobody else reaches them."""
        for name in names:
            ip('link', 'set', name, 'master', 'island')

    def join(self, *names):
        for name in names:
            ip('link', 'set', name, 'master', 'hub')

    def mend(self):
        """Ends all faults of the network."""
        self.join(*places())
        for name in list(self.limited):
            self.limit(name, None)
        for name in list(self.wires):
            self.delay(name, 0)

    def limit(self, name, rate):
        """What goes to it and what it sends, each at so many bits a second; None: as fast as it can."""
        for command in (['tc', 'qdisc'], ['nsenter', '--net=/run/netns/' + name, 'tc', 'qdisc']):
            device = name if command[0] == 'tc' else 'eth0'
            if rate is None:
                words = ['del', 'dev', device, 'root']
            else:
                words = ['replace', 'dev', device, 'root', 'tbf', 'rate', rate, 'burst', '64kb', 'latency', '2s']
            subprocess.run(command + words, check=True, capture_output=True)
        (self.limited.discard if rate is None else self.limited.add)(name)

    def delay(self, name, seconds):
        """Everything to and from it takes so much longer each way; 0: no longer."""
        if name in self.wires:
            self.wires.pop(name).terminate()
            ip('link', 'set', 'eth0', 'up', within=name)
            ip('addr', 'add', self.host(name) + '/24', 'dev', 'eth0', within=name)
        if seconds > 0:
            wire = subprocess.Popen([sys.executable, os.path.abspath(__file__), 'wire', name, self.host(name), str(seconds)],
                                    stdout=subprocess.PIPE)
            self.wires[name] = wire
            if wire.stdout.readline() != b'ready\n':
                raise RuntimeError('no wire for ' + name)

    # ---- what its parts say ----

    def admin(self, node):
        """What the node knows of the cluster, or None."""
        try:
            with urllib.request.urlopen(self.url(node) + '/api/v1/admin/cluster', timeout=3) as r:
                return json.load(r)['data']
        except (OSError, ValueError):
            return None

    def metric(self, node, name):
        """Of the node itself: the sum of what this name has."""
        try:
            with urllib.request.urlopen(self.url(node) + '/metrics', timeout=3) as r:
                text = r.read().decode()
        except OSError:
            return None
        found = [float(line.rsplit(' ', 1)[1]) for line in text.split('\n') if line.partition('{')[0].partition(' ')[0] == name]
        return sum(found) if found else None

    def order(self, asked, action, **arguments):
        """An order to the cluster, by way of the node that is asked."""
        query = '&'.join('%s=%s' % pair for pair in arguments.items())
        request = urllib.request.Request(self.url(asked) + '/api/v1/admin/cluster/' + action, data=query.encode())
        with urllib.request.urlopen(request, timeout=30) as r:
            return json.load(r)

    def broker_address(self, broker):
        return self.host('kafka-%d' % broker), self.settings['kafka'] + broker

    def lacking_brokers(self):
        """What the brokers' partitions lack, in words, or None: each has all of its replicas in sync, and a leader."""
        for broker in range(1, BROKERS + 1):
            try:
                partitions = kafka_partitions(self.broker_address(broker))
            except (OSError, struct.error, IndexError):
                return 'broker %d does not answer' % broker
            short = sum(leader < 0 or len(isr) < len(replicas) for leader, replicas, isr in partitions)
            if short or not partitions:
                return '%d of %d of the brokers\' partitions lack replicas' % (short, len(partitions))
        return None

    def lacking(self):
        """What the cluster lacks, in words, or None."""
        for node in self.members:
            if not self.is_ready(node):
                return 'node %d is not ready' % node
        for node in self.members:
            view = self.admin(node)
            if view is None:
                return 'node %d shows no cluster' % node
            if view['redundancy']['unowned'] or view['redundancy']['lacking']:
                return 'node %d: partitions lack owners: %s' % (node, view['redundancy'])
        return self.lacking_brokers()


# ---- the brokers' own words ----

class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, form):
        v, = struct.unpack_from('>' + form, self.data, self.at)
        self.at += struct.calcsize(form)
        return v

    def text(self):
        count = self.number('h')
        self.at += max(count, 0)
        return self.data[self.at - max(count, 0):self.at]

    def list(self, read):
        return [read() for _ in range(self.number('i'))]


def kafka_ask(address, key, version, body):
    request = struct.pack('>hhih', key, version, 7, 5) + b'chaos' + body
    with socket.create_connection(address, timeout=3) as s:
        s.sendall(struct.pack('>i', len(request)) + request)
        stream = s.makefile('rb')
        count, = struct.unpack('>i', stream.read(4))
        return Reader(stream.read(count)[4:])


def kafka_partitions(address):
    """(leader, replicas, those in sync) of each partition, by the metadata protocol, version 1."""
    answer, found = kafka_ask(address, 3, 1, struct.pack('>i', -1)), []

    def broker():
        answer.number('i'), answer.text(), answer.number('i'), answer.text()

    def partition():
        answer.number('h'), answer.number('i')
        found.append((answer.number('i'), answer.list(lambda: answer.number('i')), answer.list(lambda: answer.number('i'))))

    def topic():
        answer.number('h'), answer.text(), answer.number('b')
        answer.list(partition)
    answer.list(broker)
    answer.number('i')
    answer.list(topic)
    return found


def kafka_controller(address):
    """The broker that is the active controller: leader of the quorum (DescribeQuorum, version 0)."""
    topic = b'__cluster_metadata'
    body = b'\0' + b'\2' + bytes([len(topic) + 1]) + topic + b'\2' + struct.pack('>i', 0) + b'\0\0\0'
    answer = kafka_ask(address, 55, 0, body)
    answer.at += 1 + 2 + 1            # tags of the header, error, count of topics
    answer.at += 1 + len(topic) + 1   # its name, count of partitions
    answer.at += 4 + 2                # partition, error
    return answer.number('i')


# ---- a wire that is slow ----

def open_tap(name):
    fd = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack('16sH22x', name.encode(), TAP_NO_INFO))
    return fd


def carry(source, sink, seconds):
    """Frames in their order, each so much later."""
    queue, ready = [], threading.Condition()

    def deliver():
        while True:
            with ready:
                while not queue:
                    ready.wait()
                at, frame = queue.pop(0)
            time.sleep(max(0.0, at - time.monotonic()))
            try:
                os.write(sink, frame)
            except OSError:
                pass   # the device is not up
    threading.Thread(target=deliver, daemon=True).start()
    while True:
        frame = os.read(source, 65536 + 64)
        with ready:
            queue.append((time.monotonic() + seconds, frame))
            ready.notify()


def wire(name, host, seconds):
    """The process of World.delay: two taps instead of the pair; ends when it is told to, and they with it."""
    near, far = 'w-' + name, 'eth1'
    a, b = open_tap(near), open_tap(far)
    mac = json.loads(subprocess.run(['ip', '-n', name, '-j', 'link', 'show', 'eth0'], capture_output=True,
                                    check=True).stdout)[0]['address']
    ip('link', 'set', far, 'netns', name)
    ip('addr', 'del', host + '/24', 'dev', 'eth0', within=name)
    ip('link', 'set', 'eth0', 'down', within=name)
    ip('link', 'set', 'eth1', 'address', mac, within=name)   # the others know it
    ip('addr', 'add', host + '/24', 'dev', 'eth1', within=name)
    ip('link', 'set', 'eth1', 'up', within=name)
    ip('link', 'set', near, 'master', 'hub', 'up')
    print('ready', flush=True)
    threading.Thread(target=carry, args=(a, b, seconds), daemon=True).start()
    carry(b, a, seconds)


if __name__ == '__main__':
    wire(sys.argv[2], sys.argv[3], float(sys.argv[4]))
