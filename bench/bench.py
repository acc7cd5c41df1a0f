#!/usr/bin/env python3
"""Measure Kelpie beside Debian's VictoriaMetrics and Prometheus on this machine.

usage: ./dev bench metrics [PART] [--turns N] [--targets kelpie,victoria,prometheus]
  PART  ingest    known series: samples per server-CPU-second, request latency
        new       1,000,000 series appear; then memory per series; then kill -9 and time to ready
        disk      24 h x 10,000 + 1 h x 100,000 series: bytes per sample once settled; keeps the data for `queries`;
                  one turn, whatever N is: the bytes do not vary
        queries   the 20 fixed queries over what `disk` loaded
        all       the four in turn (the default)
        report    medians and ratios of everything measured for this commit; writes bench/results/

   or: ./dev bench soak [--minutes 30]: half an hour of mixed load and restarts (bench/soak.py)
   or: ./dev bench cluster: three nodes against one (bench/cluster.py)

Every part can be stopped and run again: each measured turn is kept in build/bench/. Turns alternate between the
targets. The load is made once by bench/load (build/bench/data). What is measured and how: docs/benchmark.md."""
import argparse
import datetime
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.parse
import urllib.request

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = os.path.join(TOP, 'build/bench')
DATA = os.path.join(WORK, 'data')
LOAD = os.path.join(TOP, 'build/release/bench/load')
TICKS = os.sysconf('SC_CLK_TCK')
DAY_START = 1700000000
HOUR_START = DAY_START + 30 * 3600
QUIET_WINDOW = 75       # seconds with less than QUIET_CPU of CPU: longer than any server's own timers
QUIET_CPU = 0.75
QUIET_MAX = 900
LOST_AFTER = 15.0       # seconds without a series more: what was not synced is gone
QUERY_SECONDS = 1.0      # of repeating a query: its CPU is counted in ticks of 10 ms


class Server:
    """One server process with a data directory of its own."""
    def __init__(self, target, folder, fresh=True):
        self.target, self.folder = target, folder
        self.port = {'kelpie': 9528, 'victoria': 9529, 'prometheus': 9530}[target]
        if fresh and os.path.isdir(folder):
            shutil.rmtree(folder)
        os.makedirs(folder, exist_ok=True)
        self.process = None
        self.arguments = []   # more of them

    def command(self):
        peers = os.path.join(TOP, '.cache/peers/usr/bin')
        address = '127.0.0.1:%d' % self.port
        data = os.path.join(self.folder, 'data')
        if self.target == 'kelpie':
            return [os.path.join(TOP, 'build/release/kelpie'), 'serve', '--data', data, '--http', address] + self.arguments
        if self.target == 'victoria':
            return [os.path.join(peers, 'victoria-metrics'), '-storageDataPath', data, '-httpListenAddr', address,
                    '-retentionPeriod', '100y', '-search.maxUniqueTimeseries=5000000',
                    '-search.maxSamplesPerQuery=2000000000', '-search.latencyOffset=1ms']
        config = os.path.join(self.folder, 'prometheus.yml')
        with open(config, 'w', encoding='utf-8') as f:
            f.write('global:\n  scrape_interval: 1m\n')
        return [os.path.join(peers, 'prometheus'), '--config.file', config, '--storage.tsdb.path', data,
                '--web.listen-address', address, '--web.enable-remote-write-receiver',
                '--storage.tsdb.retention.time=100y', '--query.max-samples=200000000']

    def start(self):
        with open(os.path.join(self.folder, 'out.log'), 'ab') as out:
            self.process = subprocess.Popen(self.command(), stdout=out, stderr=out)
        return self

    def wait_ready(self, seconds=300):
        """Poll until an instant query answers; returns the seconds it took."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            if self.process.poll() is not None:
                raise RuntimeError('%s ended with %d; see %s/out.log'
                                   % (self.target, self.process.returncode, self.folder))
            try:
                path = '/health' if self.target == 'victoria' else '/-/ready'
                self.get(path, timeout=5)
                return time.monotonic() - begun
            except OSError:
                time.sleep(0.01)
        raise RuntimeError('%s not ready' % self.target)

    def get(self, path, timeout=300):
        with urllib.request.urlopen('http://127.0.0.1:%d%s' % (self.port, path), timeout=timeout) as reply:
            return reply.read()

    def cpu(self):
        with open('/proc/%d/stat' % self.process.pid, encoding='ascii') as f:
            fields = f.read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident(self):
        with open('/proc/%d/status' % self.process.pid, encoding='ascii') as f:
            for line in f:
                if line.startswith('VmRSS:'):
                    return int(line.split()[1]) * 1024
        return 0

    def disk(self):
        total = 0
        for folder, _, names in os.walk(os.path.join(self.folder, 'data')):
            for name in names:
                try:
                    info = os.lstat(os.path.join(folder, name))
                    total += max(info.st_blocks * 512, info.st_size)
                except FileNotFoundError:
                    pass
        return total

    def wait_quiet(self):
        """Until the server used less than QUIET_CPU seconds in QUIET_WINDOW, at most QUIET_MAX."""
        begun = time.monotonic()
        history = [(begun, self.cpu())]
        while time.monotonic() - begun < QUIET_MAX:
            time.sleep(2.5)
            now, used = time.monotonic(), self.cpu()
            history.append((now, used))
            past = [h for h in history if h[0] <= now - QUIET_WINDOW]
            if past and used - past[-1][1] < QUIET_CPU:
                return True
        return False

    def kill(self, how=signal.SIGKILL):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(120)


def make_data(name, **options):
    """The request files of one load, made once for these options."""
    path = os.path.join(DATA, '-'.join([name] + ['%s%s' % (k, v) for k, v in sorted(options.items())]))
    if not os.path.exists(path + '.json'):
        os.makedirs(DATA, exist_ok=True)
        command = [LOAD, 'make', path]
        for key, value in options.items():
            command += ['--' + key.replace('_', '-'), str(value)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        with open(path + '.json', 'w', encoding='utf-8') as f:
            f.write(out)
    with open(path + '.json', encoding='utf-8') as f:
        return path, json.load(f)['samples']


def send(server, path):
    out = subprocess.run([LOAD, 'send', path, '--port', str(server.port)], capture_output=True, text=True)
    if out.returncode not in (0, 3):
        raise RuntimeError('load: %s' % out.stderr)
    figures = json.loads(out.stdout)
    if figures['refused']:
        print('  %s refused %d of %d samples: %s' % (server.target, figures['refused'],
              figures['samples'] + figures['refused'], out.stderr.strip()[:200]))
    return figures


def commit():
    rev = subprocess.run(['git', 'rev-parse', '--short=12', 'HEAD'], cwd=TOP, capture_output=True, text=True)
    dirty = subprocess.run(['git', 'status', '--porcelain', '-uno'], cwd=TOP, capture_output=True, text=True)
    return rev.stdout.strip() + ('-dirty' if dirty.stdout.strip() else '')


def keep(part, target, figures):
    row = dict(part=part, target=target, commit=commit(), at=datetime.datetime.utcnow().isoformat()[:19], **figures)
    with open(os.path.join(WORK, 'turns.jsonl'), 'a', encoding='utf-8') as f:
        f.write(json.dumps(row) + '\n')
    print('%-10s %-10s %s' % (part, target, json.dumps(figures)), flush=True)


def part_ingest(target, turn):
    first, _ = make_data('known-first', series=100000, steps=2, start=DAY_START * 1000)
    load, _ = make_data('known', series=100000, steps=200, start=(DAY_START + 30) * 1000)
    server = Server(target, os.path.join(WORK, 'ingest-' + target)).start()
    try:
        server.wait_ready()
        send(server, first)
        server.wait_quiet()
        before = server.cpu()
        figures = send(server, load)
        at_end = server.cpu()
        settled = server.wait_quiet()
        cpu = server.cpu() - before
        keep('ingest', target, dict(samples_per_cpu_s=figures['samples'] / cpu, cpu_s=cpu,
                                    acknowledged_per_cpu_s=figures['samples'] / (at_end - before),
                                    p99_ms=figures['p99_ms'], p50_ms=figures['p50_ms'],
                                    samples_per_s=figures['samples'] / figures['seconds'], settled=settled))
    finally:
        server.kill()


def part_new(target, turn):
    load, _ = make_data('new', series=1000000, steps=1, start=DAY_START * 1000)
    more, _ = make_data('new-more', series=1000000, steps=3, start=(DAY_START + 15) * 1000)
    server = Server(target, os.path.join(WORK, 'new-' + target)).start()
    try:
        server.wait_ready()
        before = server.cpu()
        figures = send(server, load)
        load_cpu = server.cpu() - before
        rest = send(server, more)
        four_cpu = server.cpu() - before
        resident = server.resident()
        server.kill()
        begun = time.monotonic()
        server.start()
        server.wait_ready()
        ready = time.monotonic() - begun
        count = 0
        query = '/api/v1/query?' + urllib.parse.urlencode(
            {'query': 'count({__name__!=""})', 'time': DAY_START + 15 * 4 + 10})
        all_answer = grown = ready
        while count < 1000000 and grown - all_answer < LOST_AFTER and grown < 300:
            try:
                result = json.loads(server.get(query))['data']['result']
                found = int(float(result[0]['value'][1])) if result else 0
            except (OSError, ValueError, KeyError):
                found = 0
            grown = time.monotonic() - begun
            if found > count:
                count, all_answer = found, grown
            else:
                time.sleep(0.05)
            if count == 0:
                all_answer = grown
        keep('new', target, dict(new_per_cpu_s=(figures['samples'] + rest['samples']) / four_cpu, cpu_s=four_cpu,
                                 first_per_cpu_s=figures['samples'] / load_cpu,
                                 p99_ms=figures['p99_ms'], later_p99_ms=rest['p99_ms'],
                                 resident_per_series=resident / 1e6, ready_s=ready, all_answer_s=all_answer,
                                 series_found=count))
    finally:
        server.kill()


def part_disk(target, turn):
    day, day_samples = make_data('day', series=10000, steps=5760, start=DAY_START * 1000)
    hour, hour_samples = make_data('hour', series=100000, steps=240, start=HOUR_START * 1000, seed=2)
    server = Server(target, os.path.join(WORK, 'disk-' + target)).start()
    try:
        server.wait_ready()
        a = send(server, day)
        server.wait_quiet()
        day_bytes = server.disk()
        b = send(server, hour)
        settled = server.wait_quiet()
        keep('disk', target, dict(bytes_per_sample=server.disk() / (a['samples'] + b['samples']),
                                  day_bytes_per_sample=day_bytes / a['samples'], settled=settled,
                                  cpu_s=server.cpu(), resident=server.resident(),
                                  samples_per_cpu_s=(a['samples'] + b['samples']) / server.cpu()))
        server.kill(signal.SIGTERM)
    finally:
        server.kill()


def query_path(target, q):
    end = (DAY_START + 86400 - 15) if q['set'] == 'day' else (HOUR_START + 3600 - 15)
    if 'label_values' in q:
        return '/api/v1/label/%s/values?' % q['label_values'] + urllib.parse.urlencode(
            {'start': end - 3600, 'end': end})
    arguments = {'query': q['query']}
    if target == 'victoria':
        arguments['nocache'] = '1'
    if 'step' in q:
        arguments.update(start=end - q['from'], end=end - q['to'], step=q['step'])
        return '/api/v1/query_range?' + urllib.parse.urlencode(arguments)
    arguments['time'] = end - q['at']
    return '/api/v1/query?' + urllib.parse.urlencode(arguments)


class Client:
    """Asks over one kept connection with as little work of its own as can be: a whole HTTP library costs more than
    the small answers measured with it."""
    def __init__(self, port):
        self.port = port
        self.socket = socket.create_connection(('127.0.0.1', port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(1 << 20)

    def ask(self, path):
        """Seconds and bytes of one answer; an answer in chunks counts as sent."""
        request = ('GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n' % (path, self.port)).encode()
        begun = time.monotonic()
        self.socket.sendall(request)
        n = head = size = 0
        chunked = False
        tail = b''
        while not head or (not tail.endswith(b'\r\n0\r\n\r\n') if chunked else n < head + size):
            got = self.socket.recv_into(memoryview(self.buffer)[0 if head else n:])
            if got == 0:
                raise RuntimeError('connection closed within an answer')
            if not head:
                end = self.buffer.find(b'\r\n\r\n', 0, n + got)
                if end >= 0:
                    head = end + 4
                    field = re.search(br'\r\ncontent-length: *([0-9]+)', self.buffer[:head], re.I)
                    size, chunked = int(field.group(1)) if field else 0, field is None
                    if not self.buffer.startswith(b'HTTP/1.1 200'):
                        print('  refused: %s' % bytes(self.buffer[:n + got]))
                tail = bytes(self.buffer[max(0, n + got - 7):n + got])
            else:
                tail = (tail + bytes(self.buffer[max(0, got - 7):got]))[-7:]
            n += got
        return time.monotonic() - begun, n - head


def part_queries(target, turn):
    with open(os.path.join(TOP, 'bench/queries.json'), encoding='utf-8') as f:
        queries = json.load(f)['queries']
    server = Server(target, os.path.join(WORK, 'disk-' + target), fresh=False).start()
    try:
        server.wait_ready()
        time.sleep(3)
        client = Client(server.port)
        for q in queries:
            path = query_path(target, q)
            first, size = client.ask(path)
            again = min(client.ask(path)[0] for _ in range(3))
            repeats = max(5, min(5000, int(QUERY_SECONDS / again)))
            used = server.cpu()
            walls = [client.ask(path)[0] for _ in range(repeats)]
            cpu = (server.cpu() - used) / repeats
            keep('queries', target, dict(query=q['name'], wall_s=statistics.median(walls), cpu_s=cpu,
                                         first_wall_s=first, repeats=repeats, bytes=size, turn=turn))
    finally:
        server.kill(signal.SIGTERM)


PARTS = {'ingest': part_ingest, 'new': part_new, 'disk': part_disk, 'queries': part_queries}


def load_turns():
    path = os.path.join(WORK, 'turns.jsonl')
    if not os.path.exists(path):
        return []
    with open(path, encoding='utf-8') as f:
        return [json.loads(line) for line in f]


def medians(rows, part, target, key, **match):
    values = [r[key] for r in rows if r['part'] == part and r['target'] == target and key in r
              and all(r.get(k) == v for k, v in match.items())]
    return statistics.median(values) if values else None


FIGURES = [   # part, key, title, higher is better
    ('ingest', 'samples_per_cpu_s', 'known series: samples per CPU-second, settled', True),
    ('ingest', 'acknowledged_per_cpu_s', 'known series: samples per CPU-second, until acknowledged', True),
    ('ingest', 'p99_ms', 'request latency p99, ms', False),
    ('new', 'new_per_cpu_s', 'first four scrapes of 1,000,000 new series: samples per CPU-second', True),
    ('new', 'first_per_cpu_s', 'the first of them alone', True),
    ('new', 'resident_per_series', 'resident bytes per active series at 1,000,000', False),
    ('new', 'all_answer_s', 'kill -9 to all series answering that come back, s', False),
    ('new', 'series_found', 'series of 1,000,000 that come back after kill -9', True),
    ('disk', 'bytes_per_sample', 'bytes per sample on disk, settled', False),
]


def report():
    rows = load_turns()
    lines = ['| figure | kelpie | victoria | prometheus | ratio to the better |', '|---|---|---|---|---|']
    for part, key, title, higher in FIGURES:
        values = {t: medians(rows, part, t, key) for t in ('kelpie', 'victoria', 'prometheus')}
        lines.append(figure_line(title, values, higher))
    products = {'wall_s': [], 'cpu_s': []}
    names = []
    for row in rows:
        if row['part'] == 'queries' and row['query'] not in names:
            names.append(row['query'])
    for name in names:
        for key in ('wall_s', 'cpu_s'):
            values = {t: medians(rows, 'queries', t, key, query=name) for t in ('kelpie', 'victoria', 'prometheus')}
            peers = [v for t, v in values.items() if t != 'kelpie' and v is not None]
            if values['kelpie'] is not None and peers:
                floor = 0.00005   # below this the clock's grain decides
                products[key].append(max(min(peers), floor) / max(values['kelpie'], floor))
            lines.append(figure_line('%s: %s' % (name, key), values, False))
    for key, ratios in products.items():
        if ratios:
            lines.append('| geometric mean of %d query ratios, %s | | | | %.2f (worst %.2f) |'
                         % (len(ratios), key, statistics.geometric_mean(ratios), min(ratios)))
    text = '\n'.join(lines)
    print(text)
    os.makedirs(os.path.join(TOP, 'bench/results'), exist_ok=True)
    machine = '%s, %d cores, kernel %s' % (platform.machine(), os.cpu_count(), platform.release().split('-')[0])
    counts = {p: len([r for r in rows if r['part'] == p and r['target'] == 'kelpie']) for p in PARTS}
    name = os.path.join(TOP, 'bench/results', 'metrics-%s.md' % commit())
    with open(name, 'w', encoding='utf-8') as f:
        f.write('# Metrics benchmark at %s\n\nMachine: %s. Medians; turns of Kelpie: %s.\n\n%s\n'
                % (commit(), machine, json.dumps(counts), text))
    print('written to', os.path.relpath(name, TOP))


def figure_line(title, values, higher):
    peers = [v for t, v in values.items() if t != 'kelpie' and v]
    ratio = ''
    if values['kelpie'] and peers:
        best = max(peers) if higher else min(peers)
        ratio = '%.2f' % (values['kelpie'] / best)
    return '| %s | %s | %s |' % (title, ' | '.join('' if values[t] is None else '%.4g' % values[t]
                                                   for t in ('kelpie', 'victoria', 'prometheus')), ratio)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['metrics'])
    parser.add_argument('part', nargs='?', default='all', choices=list(PARTS) + ['all', 'report'])
    parser.add_argument('--turns', type=int, default=5)
    parser.add_argument('--targets', default='kelpie,victoria,prometheus')
    if len(sys.argv) == 1:
        print(__doc__)
        return
    options = parser.parse_args()
    os.makedirs(WORK, exist_ok=True)
    if options.part == 'report':
        report()
        return
    for part in (PARTS if options.part == 'all' else [options.part]):
        for turn in range(options.turns if part != 'disk' else 1):
            for target in options.targets.split(','):
                print('%s: turn %d of %s' % (part, turn + 1, target), flush=True)
                PARTS[part](target, turn)
    report()


if __name__ == '__main__':
    sys.exit(main())
