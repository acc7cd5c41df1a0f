#!/usr/bin/env python3
"""CPU of the server for one small request: how much of a query is not the query.

usage: tiny.py [--kelpie BINARY …] [--victoria] [--requests N] [--series N] [--rounds N] [--idle S] [--only WORD]

Each server is started on an empty directory and given N series (10,000) of 40 scrapes. Then each request is asked
N times (3,000) over one connection, again with a connection each, and over 16 connections at once; printed are
microseconds of the server's CPU a request: user and kernel time of all its threads, ended ones too. `head` is asked
at once, `settled` after S seconds (100) of silence, when the rows lie in segments. With several binaries rounds
alternate between them and the lowest of the rounds counts: another process on the machine can only add."""
import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
START = 1700000000
STEPS = 40
END = START + (STEPS - 1) * 15


def requests():
    one = 'node_s0_load{instance="10.0.0.0:9100",device="dev0"}'
    ask = lambda path, **arguments: path + '?' + urllib.parse.urlencode(arguments)
    return {
        'healthy': '/-/healthy',
        'scalar': ask('/api/v1/query', query='1', time=END - 5),
        'nothing': ask('/api/v1/query', query='no_such_metric', time=END - 5),
        'one series': ask('/api/v1/query', query=one, time=END - 5),
        'range of one': ask('/api/v1/query_range', query=one, start=END - 300, end=END, step=15),
        'rate of 20': ask('/api/v1/query', query='sum(rate(node_s0_packets_total[5m]))', time=END - 5),
        'label values': ask('/api/v1/label/device/values', start=END - 300, end=END),
        'series of one': ask('/api/v1/series', start=END - 300, end=END, **{'match[]': one}),
        'metadata': ask('/api/v1/metadata', limit=10),
    }


def find_load():
    for build in ('release', 'tiny', 'debug'):
        path = os.path.join(TOP, 'build', build, 'bench/load')
        if os.path.exists(path):
            return path
    sys.exit('bench/load is not built')


class Server:
    def __init__(self, name, binary, folder, port):
        self.name, self.folder, self.port = name, folder, port
        data, address = os.path.join(folder, name), '127.0.0.1:%d' % port
        if name.startswith('victoria'):
            command = [binary, '-storageDataPath', data, '-httpListenAddr', address, '-retentionPeriod', '100y',
                       '-search.latencyOffset=1ms']
        else:
            command = [binary, 'serve', '--data', data, '--http', address]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # The clock of a process' CPU: CPUCLOCK_SCHED of its id, in the kernel's encoding.
        self.clock = (~self.process.pid << 3) | 2

    def cpu_ns(self):
        return time.clock_gettime_ns(self.clock)

    def connect(self):
        s = socket.create_connection(('127.0.0.1', self.port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def wait_ready(self):
        path = '/health' if self.name.startswith('victoria') else '/-/ready'
        for _ in range(1000):
            try:
                with self.connect() as s:
                    if b' 200 ' in ask_once(s, path)[:20]:
                        return
            except OSError:
                pass
            time.sleep(0.02)
        sys.exit('%s does not start' % self.name)


HEAD = re.compile(rb'\r\nContent-Length: *(\d+)', re.IGNORECASE)


def ask_once(s, path):
    s.sendall(('GET %s HTTP/1.1\r\nHost: h\r\n\r\n' % path).encode())
    got = b''
    while True:
        part = s.recv(1 << 16)
        got += part
        end = got.find(b'\r\n\r\n')
        if end < 0 and part:
            continue
        length = HEAD.search(got, 0, end)
        if length is not None and len(got) - end - 4 >= int(length.group(1)):
            return got
        if not part or (length is None and got.endswith(b'0\r\n\r\n')):
            return got


def kept_alive(server, path, count):
    with server.connect() as s:
        for _ in range(count):
            ask_once(s, path)


def connection_each(server, path, count):
    for _ in range(count):
        with server.connect() as s:
            ask_once(s, path)


def sixteen(server, path, count):
    threads = [threading.Thread(target=kept_alive, args=(server, path, count // 16)) for _ in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def measure(servers, how, path, options):
    best = {}
    for _ in range(options.rounds):
        for server in servers:
            before = server.cpu_ns()
            how(server, path, options.requests)
            used = (server.cpu_ns() - before) / options.requests / 1000
            best[server.name] = min(used, best.get(server.name, used))
    return ['%8.1f' % best[server.name] for server in servers]


def print_all(title, servers, options):
    print('%-32s %s' % (title, ' '.join('%8.8s' % server.name for server in servers)))
    for name, path in requests().items():
        if options.only not in name:
            continue
        for how in (kept_alive, connection_each, sixteen):
            print('%-32s %s' % ('  %s, %s' % (name, how.__name__.replace('_', ' ')),
                                ' '.join(measure(servers, how, path, options))), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kelpie', nargs='*', default=[os.path.join(TOP, 'build/release/kelpie')])
    parser.add_argument('--victoria', action='store_true')
    parser.add_argument('--requests', type=int, default=3000)
    parser.add_argument('--series', type=int, default=10000)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--idle', type=float, default=100)
    parser.add_argument('--port', type=int, default=9551)
    parser.add_argument('--only', default='')
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix='kelpie-tiny-')
    servers = []
    try:
        for i, binary in enumerate(options.kelpie):
            servers.append(Server('kelpie%d' % i, binary, folder, options.port + i))
        if options.victoria:
            servers.append(Server('victoria', os.path.join(TOP, '.cache/peers/usr/bin/victoria-metrics'), folder,
                                  options.port + len(servers)))
        load = os.path.join(folder, 'load')
        subprocess.run([find_load(), 'make', load, '--series', str(options.series), '--steps', str(STEPS),
                        '--start', str(START * 1000)], check=True, stdout=subprocess.DEVNULL)
        for server in servers:
            server.wait_ready()
            subprocess.run([find_load(), 'send', load, '--port', str(server.port)], check=True,
                           stdout=subprocess.DEVNULL)
        if options.victoria:
            time.sleep(2)   # its rows become visible late
        print_all('head, µs a request', servers, options)
        time.sleep(options.idle)
        print_all('settled, µs a request', servers, options)
    finally:
        for server in servers:
            server.process.terminate()
        for server in servers:
            server.process.wait(60)
        shutil.rmtree(folder)


if __name__ == '__main__':
    main()
