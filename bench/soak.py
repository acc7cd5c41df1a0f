#!/usr/bin/env python3
"""Mixed load on one node for half an hour: does anything grow, get lost or go wrong?

usage: soak.py [--minutes 30] [--series 100000] [--plant] [--keep] [--work DIR] [--binary FILE]

Writers of five tenants go on through every restart, each request repeated until it is acknowledged: `default` gets
the benchmark's load with churn (bench/load), 5 s between scrapes; `numbered` requests whose value is their number;
`import` text with new series every quarter of a minute; `edge` rows a minute short of leaving retention. Three
clients ask a mix of queries, one reads /metrics. Heads, ranges and log files are small, so that spill, cut, build,
compaction and retention happen all the time. Before it begins the node is given an hour of history, which a query reads
now and then: so the block cache is full, and what grows afterwards is no cache that fills. A trickle keeps every partition
awake from then on: a quiet one merges all its segments to one, and their number, with what it costs in descriptors
and cursors, would grow through the first hour of the load, as it does only once.

The plan, in thirtieths of the run ("minutes"): restarts at 1, 2, 3, 4 (SIGTERM and kill -9 in turn), 5 and 24
(kill -9), the load ends at 30. Two verdicts on memory and descriptors, medians against medians, 5 % allowed:
  equal age     minutes 28 to 30 against 9 to 11: both processes are 4 to 6 minutes old; finds what grows with data
  same process  minutes 22 to 24 against 9 to 11: one process, 4 to 6 and 17 to 19 minutes old; finds leaks
Then the node is stopped and started, every acknowledged sample is asked for, and `kelpie verify` reads all files.
Also required: queries and compactions happened, nothing was answered wrongly or incompletely, no error in the log.

--plant loads a library into the node that leaks memory and descriptors (bench/leak.c): the verdict must be bad."""
import argparse
import collections
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import urllib.parse

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TOP, 'bench'), os.path.join(TOP, 'tests/integration')]

from bench import LOAD, Server                                                  # noqa: E402
from remote_write import HEADERS_V1, encode_labels, encode_sample, field, snappy  # noqa: E402

WORK = os.path.join(TOP, 'build/bench/soak')
GROWTH_MAX = 1.05
FDS_SLACK = 4            # sockets of clients that come and go
RESTARTS = [(1, signal.SIGTERM), (2, signal.SIGKILL), (3, signal.SIGTERM), (4, signal.SIGKILL),
            (5, signal.SIGKILL), (24, signal.SIGKILL)]
WINDOWS = {'early': (9, 11), 'same process': (22, 24), 'equal age': (28, 30)}
INTERVAL = 5             # seconds between scrapes of the load
RETENTION = 86400
LANES = 4
NUMBERED_SERIES = 100
CONFIG = """
storage: {retention: 1d, cut_age: 1m, log_file_bytes: 8MiB, head_rows: 1000}
memory: {budget: 384MiB}
"""   # the block cache is an eighth of it, which the history fills
HISTORY_STEPS, HISTORY_INTERVAL = 600, 6


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Node(Server):
    """The node under test; `life` counts its starts."""
    def __init__(self, options):
        super().__init__('kelpie', options.work)
        self.binary, self.plant, self.port, self.life = options.binary, options.plant, free_port(), 0
        self.begun = 0
        self.is_up = False
        with open(os.path.join(self.folder, 'kelpie.yaml'), 'w', encoding='utf-8') as f:
            f.write(CONFIG)

    def command(self):
        return [self.binary, 'serve', '--data', os.path.join(self.folder, 'data'), '--http', '127.0.0.1:%d' % self.port,
                '--config', os.path.join(self.folder, 'kelpie.yaml')]

    def start(self):
        env = dict(os.environ)
        if self.plant:
            env['LD_PRELOAD'] = os.path.join(os.path.dirname(LOAD), 'libleak.so')
        with open(os.path.join(self.folder, 'out.log'), 'ab') as out:
            self.process = subprocess.Popen(self.command(), stdout=out, stderr=out, env=env)
        self.begun = time.monotonic()
        self.life += 1
        self.wait_ready()
        self.is_up = True
        return self

    def end(self, how):
        self.is_up = False
        self.kill(how)

    def counters(self):
        return {line.split()[0]: float(line.split()[1])
                for line in self.get('/metrics', timeout=10).decode().split('\n') if line and line[0] != '#'}


class Client:
    """Requests over one connection, made anew after errors."""
    def __init__(self, node):
        self.node, self.connection = node, None

    def send(self, method, path, body=None, headers=None):
        """(status, headers, body), or None when there was no whole reply. A connection that was used before may
        have ended meanwhile: then the request is sent once more."""
        while True:
            is_new = self.connection is None
            try:
                if is_new:
                    self.connection = http.client.HTTPConnection('127.0.0.1', self.node.port, timeout=60)
                self.connection.request(method, path, body, headers or {})
                reply = self.connection.getresponse()
                return reply.status, reply.headers, reply.read()
            except (OSError, http.client.HTTPException):
                self.connection.close()
                self.connection = None
                if is_new:
                    return None


class Writer(threading.Thread):
    """Sends what requests() yields: (due second, path, body, headers, samples), each until it is acknowledged."""
    def __init__(self, run, tenant):
        super().__init__(daemon=True)
        self.run_, self.tenant, self.client, self.begun = run, tenant, Client(run.node), time.time()
        self.acknowledged = self.repeated = 0

    def requests(self):
        raise NotImplementedError

    def run(self):
        for due, path, body, headers, samples in self.requests():
            while time.time() < due and not self.run_.stopping:
                time.sleep(min(0.1, max(0, due - time.time())))
            if self.run_.stopping:
                return
            headers['X-Scope-OrgID'] = self.tenant
            while not self.send(path, body, headers):
                self.repeated += 1
                time.sleep(0.05)
            self.acknowledged += samples

    def send(self, path, body, headers):
        reply = self.client.send('POST', path, body, headers)
        if reply is None or reply[0] in (429, 503):
            return False
        if reply[0] not in (200, 204):
            self.run_.fail('%s: write answered %d: %s' % (self.tenant, reply[0], reply[2][:200]))
        return True


class LaneWriter(Writer):
    """One lane of bench/load's requests at the pace of its scrapes, or (per_step 0) as fast as they are taken."""
    def __init__(self, run, path, per_step):
        super().__init__(run, 'default')
        self.path, self.per_step = path, per_step

    def requests(self):
        sent = 0
        with open(self.path, 'rb') as f:
            while record := f.read(8):
                size, samples = struct.unpack('<II', record)
                body = f.read(size).split(b'\r\n\r\n', 1)[1]
                due = self.run_.start + INTERVAL * (1 + sent / self.per_step) if self.per_step else 0
                yield due, '/api/v1/write', body, dict(HEADERS_V1), samples
                sent += samples


class NumberWriter(Writer):
    """Request n writes value n at its own millisecond to each series."""
    def __init__(self, run):
        super().__init__(run, 'numbered')
        self.rows = {}

    def requests(self):
        heads = [encode_labels({'__name__': 'numbered', 'i': str(i)}) for i in range(NUMBERED_SERIES)]
        for n in range(1 << 40):
            due = self.run_.start + n * 0.1
            t_ms = int(due * 1000)
            sample = encode_sample(t_ms, float(n))
            yield due, '/api/v1/write', snappy(b''.join(field(1, h + sample) for h in heads)), dict(HEADERS_V1), \
                NUMBERED_SERIES
            self.rows[t_ms] = n


class ImportWriter(Writer):
    """100 lines a second, of series that live a quarter of a minute."""
    def requests(self):
        for n in range(1 << 40):
            due = self.run_.start + n
            lines = ['imported{batch="%d",i="%d"} %d %d\n' % (n // 15, i, n, due * 1000) for i in range(100)]
            yield due, '/api/v1/import/prometheus', ''.join(lines).encode(), {}, 100


class EdgeWriter(Writer):
    """20 rows a second that leave retention a minute later."""
    def __init__(self, run):
        super().__init__(run, 'edge')
        self.times = []

    def requests(self):
        heads = [encode_labels({'__name__': 'edge', 'i': str(i)}) for i in range(20)]
        for n in range(1 << 40):
            due = self.run_.start + n
            t_ms = int((due - RETENTION + 60) * 1000)
            sample = encode_sample(t_ms, float(n))
            yield due, '/api/v1/write', snappy(b''.join(field(1, h + sample) for h in heads)), dict(HEADERS_V1), 20
            self.times.append(t_ms)


class TrickleWriter(Writer):
    """128 rows a second over all partitions, from the end of the history on."""
    def requests(self):
        for n in range(1 << 40):
            due = self.begun + n / 2
            lines = ['trickle{i="%d"} %d %d\n' % (i, n, due * 1000) for i in range(64)]
            yield due, '/api/v1/import/prometheus', ''.join(lines).encode(), {}, 64


QUERIES = [   # path, arguments; {now}, {ago}, {history}, {history_end}: seconds
    ('query', {'query': 'sum by (mode) (rate(node_cpu_seconds_total[1m]))', 'time': '{now}'}),
    ('query', {'query': 'count({__name__!=""})', 'time': '{now}'}),
    ('query', {'query': 'topk(5, rate(node_cpu_seconds_total[30s]))', 'time': '{now}'}),
    ('query', {'query': 'histogram_quantile(0.9, sum by (le) (rate({__name__=~".*_bucket"}[1m])))',
               'time': '{now}'}),
    ('query_range', {'query': 'avg by (job) (avg_over_time({__name__=~".*_bytes"}[30s]))', 'start': '{ago}',
                     'end': '{now}', 'step': '15'}),
    ('query_range', {'query': 'max by (instance) (up or {__name__=~".*seconds_total"})', 'start': '{ago}',
                     'end': '{now}', 'step': '15'}),
    ('query_range', {'query': 'quantile(0.5, {__name__=~"node_[a-f].*"})', 'start': '{ago}', 'end': '{now}',
                     'step': '10'}),
    ('query_range', {'query': 'sum by (job) (rate({__name__=~".*_total"}[1m]))', 'start': '{history}',
                     'end': '{history_end}', 'step': '60'}),
    ('query_range', {'query': 'sum by (job) (max_over_time({__name__!~".*_total",job=~".+"}[1m]))',
                     'start': '{history}', 'end': '{history_end}', 'step': '60'}),
    ('series', {'match[]': '{__name__=~"node_.*",instance=~".*1.*"}', 'start': '{ago}', 'end': '{now}',
                'limit': '1000'}),
    ('labels', {'start': '{ago}', 'end': '{now}'}),
    ('label/instance/values', {'start': '{ago}', 'end': '{now}'}),
    ('label/__name__/values', {'match[]': '{job!=""}'}),
    ('metadata', {}),
    ('status/tsdb', {'limit': '20'}),
    ('query_exemplars', {'query': '{__name__=~".*_bucket"}', 'start': '{ago}', 'end': '{now}'}),
]


class Asker(threading.Thread):
    def __init__(self, run, seed):
        super().__init__(daemon=True)
        self.run_, self.client, self.chance = run, Client(run.node), random.Random(seed)
        self.answered = 0

    def run(self):
        node = self.run_.node
        while not self.run_.stopping:
            time.sleep(self.chance.uniform(0, 0.4))
            path, arguments = self.chance.choice(QUERIES)
            now = time.time() - 10
            times = {'{now}': '%.3f' % now, '{ago}': '%.3f' % (now - self.chance.choice([60, 300])),
                     '{history}': '%.3f' % self.run_.history[0], '{history_end}': '%.3f' % self.run_.history[1]}
            text = urllib.parse.urlencode({k: times.get(v, v) for k, v in arguments.items()})
            life = node.life
            reply = self.client.send('GET', '/api/v1/%s?%s' % (path, text))
            if not node.is_up or node.life != life:
                continue   # whatever a dying or starting node says
            if reply is None or reply[0] != 200 or reply[1]['X-Kelpie-Complete'] == 'false':
                if node.is_up and node.life == life:
                    time.sleep(0.2)
                if node.is_up and node.life == life:
                    self.run_.fail('%s?%s: %s' % (path, text, reply and (reply[0], reply[2][:300])))
                continue
            self.answered += 1


def process_figures(pid):
    """(resident bytes, anonymous bytes, descriptors, of them deleted files, threads)"""
    with open('/proc/%d/status' % pid, encoding='ascii') as f:
        status = dict(line.split(':', 1) for line in f)
    names = []
    for fd in os.listdir('/proc/%d/fd' % pid):
        try:
            names.append(os.readlink('/proc/%d/fd/%s' % (pid, fd)))
        except OSError:
            pass
    return (int(status['VmRSS'].split()[0]) * 1024, int(status['RssAnon'].split()[0]) * 1024, len(names),
            sum(n.endswith(' (deleted)') for n in names), int(status['Threads']))


def growth(samples, minute_s):
    """Verdict on samples of (second of the run, resident bytes, descriptors, bytes of pools but for queries, …): a
    list of (text, is good). Queries in flight come and go with the speed of the machine, so that resident memory is
    a fair figure only where nothing else runs; what the pools hold beside them is one anywhere."""
    def median(window, column):
        low, high = (m * minute_s for m in WINDOWS[window])
        values = [s[column] for s in samples if low <= s[0] <= high]
        return statistics.median(values) if values else None
    rows = []
    for column, name, slack in ((1, 'resident bytes', 0), (2, 'descriptors', FDS_SLACK), (3, 'bytes of pools', 0)):
        early = median('early', column)
        for window in ('same process', 'equal age'):
            late = median(window, column)
            if early is None or late is None:
                rows.append(('%s, %s: not measured' % (name, window), False))
                continue
            rows.append(('%s, %s: %.0f → %.0f, ratio %.3f' % (name, window, early, late, late / early),
                         late <= max(early * GROWTH_MAX, early + slack)))
    return rows


class Run:
    def __init__(self, options):
        self.minute_s = options.minutes * 2.0   # a thirtieth of the run, in seconds
        self.node = Node(options)
        self.stopping = False
        self.failures = []
        self.samples = []
        self.totals = collections.Counter()   # of /metrics, over all lives of the process
        self.last_counters = {}
        self.path, self.series = os.path.join(options.work, 'load'), options.series
        self.history = (0, 0)
        self.give_history()
        steps = int(self.minute_s * 30 / INTERVAL) + 1
        self.start = time.time() + options.series * steps / 2e6 + 2   # making the load takes that long
        self.make_load(steps, self.start, INTERVAL, 1)
        targets = options.series // 500
        self.lanes = [LaneWriter(self, '%s.%d' % (self.path, i), 500 * (targets // LANES + (i < targets % LANES)))
                      for i in range(LANES)]
        self.numbered, self.imported, self.edge = NumberWriter(self), ImportWriter(self, 'import'), EdgeWriter(self)
        self.writers = self.lanes + [self.numbered, self.imported, self.edge]   # the trickle runs already
        self.askers = [Asker(self, i) for i in range(3)]

    def make_load(self, steps, start, interval, churn):
        subprocess.run([LOAD, 'make', self.path, '--series', str(self.series), '--steps', str(steps), '--start',
                        str(int(start * 1000)), '--interval', str(interval * 1000), '--churn', str(churn),
                        '--connections', str(LANES)], check=True, stdout=subprocess.DEVNULL)

    def give_history(self):
        """The node runs from here on."""
        end = time.time() - 60
        self.history = (end - HISTORY_STEPS * HISTORY_INTERVAL, end)
        self.make_load(HISTORY_STEPS, self.history[0], HISTORY_INTERVAL, 0)
        self.node.start()
        writers = [LaneWriter(self, '%s.%d' % (self.path, i), 0) for i in range(LANES)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        print('history: %d samples' % sum(w.acknowledged for w in writers), flush=True)
        self.trickle = TrickleWriter(self, 'trickle')
        self.trickle.start()

    def fail(self, text):
        self.failures.append(text)
        if len(self.failures) <= 20:
            print('FAILURE at %s: %s' % (time.strftime('%H:%M:%S'), text), flush=True)

    def read_counters(self):
        """Add what the counters gained since the last reading; a new process begins at 0."""
        try:
            now = self.node.counters()
        except OSError:
            return
        for name, value in now.items():
            before = self.last_counters.get(name, 0)
            self.totals[name] += value - before if value >= before else value
        self.last_counters = now

    def look(self):
        """One sample of the process."""
        try:
            rss, anonymous, fds, deleted, threads = process_figures(self.node.process.pid)
        except OSError:
            return
        gauges = self.last_counters
        pools = gauges.get('kelpie_memory_bytes', 0) - gauges.get('kelpie_query_memory_bytes', 0)
        cache = gauges.get('kelpie_segment_cache_bytes', 0)
        self.samples.append((time.time() - self.start, rss, fds, pools, anonymous, deleted, threads, cache))

    def line(self):
        minute = (time.time() - self.start) / 60
        last = self.samples[-1]
        print('%6.2f  age %4.0f s  rss %6.1f MB  anon %6.1f  pools %6.1f (cache %5.1f)  fds %3d (deleted %d)  threads %2d  acknowledged %9d  '
              'repeated %3d  queries %6d  cuts %4d  compactions %4d  disk %7.1f MB'
              % (minute, time.monotonic() - self.node.begun, last[1] / 1e6, last[4] / 1e6, last[3] / 1e6, last[7] / 1e6,
                 last[2], last[5], last[6],
                 sum(w.acknowledged for w in self.writers), sum(w.repeated for w in self.writers),
                 sum(a.answered for a in self.askers), self.totals['kelpie_shard_commits_total'],
                 self.totals['kelpie_shard_compactions_total'], self.node.disk() / 1e6), flush=True)

    def restart(self, how):
        self.read_counters()
        self.node.end(how)
        self.last_counters = {}
        self.node.start()
        print('        %s, ready after %.2f s' % (signal.Signals(how).name, time.monotonic() - self.node.begun),
              flush=True)

    def load(self):
        """The whole plan; returns when the writers have stopped and everything they sent is acknowledged."""
        for thread in self.writers + self.askers:
            thread.start()
        restarts = list(RESTARTS)
        next_line = next_read = 0
        while time.time() < self.start + 30 * self.minute_s:
            time.sleep(1)
            now = time.time() - self.start
            if restarts and now >= restarts[0][0] * self.minute_s:
                self.restart(restarts.pop(0)[1])
            if self.node.process.poll() is not None:
                self.fail('the node ended by itself with %d' % self.node.process.returncode)
                return
            self.look()
            if now >= next_read:
                self.read_counters()
                next_read = now + 5
            if now >= next_line and self.samples:
                self.line()
                next_line += 60
        self.stopping = True
        for thread in self.writers + [self.trickle] + self.askers:
            thread.join(90)
            if thread.is_alive():
                self.fail('a client still waits for its reply')
        self.read_counters()

    # ---- the end: is everything there?
    def ask(self, tenant, query, at):
        text = urllib.parse.urlencode({'query': query, 'time': '%.3f' % at})
        reply = Client(self.node).send('GET', '/api/v1/query?' + text, None, {'X-Scope-OrgID': tenant})
        if reply is None or reply[0] != 200 or reply[1]['X-Kelpie-Complete'] != 'true':
            self.fail('%s: %s' % (query, reply and (reply[0], reply[2][:300])))
            return []
        return json.loads(reply[2])['data']['result']

    def count(self, tenant, start, end):
        """Samples of a tenant in (start, end], asked for a quarter of a minute at a time."""
        total, at = 0, start
        while at < end:
            span = min(15, end - at)
            for row in self.ask(tenant, 'sum(count_over_time({__name__!=""}[%dms]))' % round(span * 1000), at + span):
                total += int(float(row['value'][1]))
            at += span
        return total

    def check_stored(self):
        ended = time.time() + INTERVAL + 1
        for tenant, writers in (('default', self.lanes), ('numbered', [self.numbered]), ('import', [self.imported]),
                                ('trickle', [self.trickle])):
            want = sum(w.acknowledged for w in writers)
            have = self.count(tenant, min(self.start, *(w.begun for w in writers)) - 1, ended)
            print('%s: %d samples acknowledged, %d found' % (tenant, want, have), flush=True)
            if have != want:
                self.fail('%s: %d samples acknowledged, %d found' % (tenant, want, have))
        span = int(ended - self.start) + 2
        for i in random.Random(1).sample(range(NUMBERED_SERIES), 10):
            rows = self.ask('numbered', 'numbered{i="%d"}[%ds]' % (i, span), ended)
            found = {round(float(t) * 1000): float(v) for r in rows for t, v in r['values']}
            if found != {t: float(n) for t, n in self.numbered.rows.items()}:
                self.fail('numbered{i="%d"}: %d rows are not the %d sent' % (i, len(found), len(self.numbered.rows)))
        self.check_retention()

    def check_retention(self):
        """Rows of `edge` are there from some time on, which is at most 20 minutes below the present cut-off."""
        start = self.edge.times[0] / 1000
        rows = self.ask('edge', 'edge{i="0"}[%ds]' % (self.edge.times[-1] / 1000 - start + 10),
                        self.edge.times[-1] / 1000 + 1)
        found = sorted(round(float(t) * 1000) for r in rows for t, _ in r['values'])
        print('edge: %d of %d rows a series are left by retention' % (len(found), len(self.edge.times)))
        cutoff_ms = (time.time() - RETENTION) * 1000
        if found != self.edge.times[len(self.edge.times) - len(found):]:
            self.fail('edge: retention left a hole')
        if any(t >= cutoff_ms for t in self.edge.times[:len(self.edge.times) - len(found)]):
            self.fail('edge: rows within retention are gone')
        if self.minute_s * 30 >= 720 and len(found) == len(self.edge.times):
            self.fail('edge: retention never dropped a row')

    def check_messages(self):
        with open(os.path.join(self.node.folder, 'out.log'), encoding='utf-8', errors='replace') as f:
            lines = f.read().split('\n')
        kinds = collections.Counter(re.sub(r'.*level=(\w+) msg="([^"]*)".*', r'\1: \2', line) for line in lines
                                    if line and 'level=info' not in line)
        for text, count in kinds.items():
            print('message %d times: %s' % (count, text[:200]))
            if not text.startswith('warn: '):
                self.fail('the node said: %s' % text[:300])

    def verify(self):
        self.node.end(signal.SIGTERM)
        if self.node.process.returncode != 0:
            self.fail('SIGTERM: exit status %d' % self.node.process.returncode)
        run = subprocess.run([self.node.binary, 'verify', '--data', os.path.join(self.node.folder, 'data')], capture_output=True,
                             text=True)
        if run.returncode != 0:
            self.fail('verify: %s' % (run.stdout + run.stderr)[-2000:])

    def verdict(self):
        rows = growth(self.samples, self.minute_s)
        queries = sum(a.answered for a in self.askers)
        rows.append(('%d queries answered' % queries, queries > 0))
        for name in ('spilled_rows', 'commits', 'compactions'):
            value = self.totals['kelpie_shard_%s_total' % name]
            rows.append(('%s: %d' % (name, value), value > 0))
        rows.append(('%d failures' % len(self.failures), not self.failures))
        for text, good in rows:
            print('%s  %s' % ('ok  ' if good else 'BAD ', text))
        return all(good for _, good in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument('--series', type=int, default=100000)
    parser.add_argument('--plant', action='store_true', help='leak on purpose')
    parser.add_argument('--keep', action='store_true', help='leave the data and the load')
    parser.add_argument('--work', default=WORK, help='folder, emptied first (build/bench/soak)')
    parser.add_argument('--binary', default=os.path.join(TOP, 'build/release/kelpie'))
    options = parser.parse_args()
    run = Run(options)
    try:
        run.load()
        if run.node.process.poll() is None:
            run.restart(signal.SIGTERM)
            run.check_stored()
            run.verify()
        run.check_messages()
    finally:
        run.stopping = True
        run.node.kill()
    with open(os.path.join(options.work, 'samples.json'), 'w', encoding='utf-8') as f:
        json.dump(run.samples, f)
    good = run.verdict()
    if not options.keep:
        for name in ('data', *('load.%d' % i for i in range(LANES))):
            path = os.path.join(options.work, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    print('soak: %s' % ('good' if good else 'BAD'))
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
