#!/usr/bin/env python3
"""What a cluster costs beside a single node, on this machine: three nodes, each partition at two of them, three Kafka brokers and an
S3 store, and a single node in the same run.

usage: ./dev bench cluster [--seconds 60] [--series 120000] [--steps 40] [--partitions 24] [--connections 16]

  throughput   samples per CPU-second of all nodes together (brokers and store are not counted), against the single node's: known
               series, the same requests, three senders of as many connections; until acknowledged and until settled, without what doing nothing costs; where the CPU goes, by thread
  latency      of acknowledgements under 26,400 samples a second; from an acknowledgement by one node until another one answers it;
               with all nodes, and with one killed
  queries      CPU of all nodes for a query against the single node's, and the bytes that move between nodes for it

Everything is printed, and kept in build/bench/cluster.md with the commit, the machine, and how busy it was before."""
import argparse
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import bench

sys.path.insert(0, os.path.join(bench.TOP, 'tools'))
import chaos_load  # noqa: E402
import run_cluster  # noqa: E402

SENDERS = 3
FIRST_MS = 1700000000000
INTERVAL_MS = 15000
SETTLED_SECONDS, SETTLED_CPU, SETTLE_SECONDS_MAX = 10, 0.3, 180
PROBES_A_SECOND = 10
ONE_NODE_DOWN_SECONDS = 5   # until everybody goes around it
STORED_SECONDS_MAX = 300
STORAGE = 'storage:\n  idle_cut: 2s\n'   # of both: all is built and merged before anything is asked
IDLE_LOAD = 0.5             # load average above which figures are disturbed
QUERIES = (('sum', 'sum({job=~"node|kubelet"})'), ('sum by of %(series)d series', 'sum by (instance) ({job=~"node|kubelet"})'),
           ('rate of one metric', 'sum by (mode) (rate(node_s0_cpu_seconds_total[5m]))'), ('one series', 'node_s0_load{device="dev0"}'))
MOVED = 'kelpie_fanout_received_'   # of rows, of groups: bytes


def cpu(pid):
    with open('/proc/%d/stat' % pid, encoding='ascii') as f:
        fields = f.read().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / bench.TICKS


def cpu_by_thread(pid):
    """CPU seconds by the threads' names, without their numbers."""
    found = {}
    for task in os.listdir('/proc/%d/task' % pid):
        try:
            with open('/proc/%d/task/%s/stat' % (pid, task), encoding='utf-8') as f:
                name, rest = f.read().split('(', 1)[1].rsplit(')', 1)
        except OSError:
            continue   # it has ended
        fields, name = rest.split(), re.sub(r'[-:/.]?\d+$', '', name)
        found[name] = found.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / bench.TICKS
    return found


class Target:
    """Servers that take the same load and answer the same questions: one node, or several."""
    def __init__(self, name, ports, pids):
        self.name, self.ports, self.pids = name, ports, pids
        self.idle = 0.0   # CPU seconds a second that it takes to do nothing

    def cpu(self):
        return sum(cpu(pid) for pid in self.pids)

    def threads(self):
        total = {}
        for pid in self.pids:
            for name, seconds in cpu_by_thread(pid).items():
                total[name] = total.get(name, 0.0) + seconds
        return total

    def rest(self):
        """CPU seconds a second of the next seconds."""
        before, begun = self.cpu(), time.monotonic()
        time.sleep(SETTLED_SECONDS)
        return (self.cpu() - before) / (time.monotonic() - begun)

    def begin(self):
        """(CPU, time) to measure work from."""
        return self.cpu(), time.monotonic()

    def work(self, begun):
        """CPU seconds since then, but for what nothing costs."""
        return self.cpu() - begun[0] - self.idle * (time.monotonic() - begun[1])

    def unstored(self):
        """Rows that are in no segment yet."""
        return sum(self.metric('kelpie_head_rows') + self.metric('kelpie_stream_rows'))

    def settle(self):
        """Until everything is in segments, and hardly more CPU is used than for nothing."""
        limit = time.monotonic() + STORED_SECONDS_MAX
        while self.unstored() > 0:
            if time.monotonic() > limit:
                raise RuntimeError('%s: %d rows are in no segment after %d s' % (self.name, self.unstored(), STORED_SECONDS_MAX))
            time.sleep(1)
        limit = time.monotonic() + SETTLE_SECONDS_MAX
        while time.monotonic() < limit and self.rest() > self.idle * 1.2 + SETTLED_CPU / SETTLED_SECONDS:
            pass

    def send(self, files):
        """Each file by a process of its own, each to the next node. Returns (samples, seconds)."""
        begun = time.monotonic()
        senders = [subprocess.Popen([bench.LOAD, 'send', path, '--port', str(self.ports[i % len(self.ports)])],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for i, path in enumerate(files)]
        samples = refused = 0
        for sender in senders:
            out, err = sender.communicate(timeout=1200)
            if sender.returncode not in (0, 3):
                raise RuntimeError('load: ' + err)
            figures = json.loads(out)
            samples, refused = samples + figures['samples'], refused + figures['refused']
        if refused:
            raise RuntimeError('%s refused %d samples' % (self.name, refused))
        return samples, time.monotonic() - begun

    def ask(self, query, at_ms):
        form = urllib.parse.urlencode({'query': query, 'time': '%.3f' % (at_ms / 1000)}).encode()
        request = urllib.request.Request('http://127.0.0.1:%d/api/v1/query' % self.ports[0], data=form,
                                         headers={'X-Kelpie-Consistency': 'strong'})
        with urllib.request.urlopen(request, timeout=120) as r:
            if r.headers['X-Kelpie-Complete'] != 'true':
                raise RuntimeError('%s: %s is incomplete: %s' % (self.name, query, r.headers['X-Kelpie-Missing']))
            return json.load(r)['data']['result']

    def metric(self, prefix):
        """The values of all metrics of all servers whose names begin so."""
        found = []
        for port in self.ports:
            with urllib.request.urlopen('http://127.0.0.1:%d/metrics' % port, timeout=30) as r:
                found += [int(float(line.rsplit(' ', 1)[1])) for line in r.read().decode().split('\n') if line.startswith(prefix)]
        return found

    def moved(self):
        """Bytes that came from other nodes, or None where nobody counts them."""
        found = self.metric(MOVED)
        return sum(found) if found else None


class Cluster(run_cluster.Cluster):
    def write_config(self, node, edit=None):
        super().write_config(node, lambda text: (edit(text) if edit else text) + STORAGE)


class Report:
    def __init__(self):
        self.lines, self.good = [], True

    def say(self, line):
        self.lines.append(line)
        print(line, flush=True)

    def figure(self, what, text, limit='', good=True):
        self.good = self.good and good
        self.say('| %s | %s | %s%s |' % (what, text, limit, '' if good else ' MISSED'))


def measure_load(target, first, files):
    target.idle = target.rest()
    target.send(first)
    target.settle()
    begun, threads = target.begin(), target.threads()
    samples, seconds = target.send(files)
    acknowledged = target.work(begun)
    target.settle()
    settled = target.work(begun)
    spent = {name: used - threads.get(name, 0.0) for name, used in target.threads().items()}
    whole = sum(spent.values())
    return dict(idle=target.idle, samples_per_s=samples / seconds, per_cpu_acknowledged=samples / acknowledged, per_cpu_settled=samples / settled,
                threads=sorted(((used, name) for name, used in spent.items() if used > 0.02 * whole), reverse=True), whole=whole)


def throughput(report, targets, options):
    each = options.series // SENDERS
    made = [[bench.make_data('cluster-' + kind, series=each, steps=steps, seed=seed + 1, connections=options.connections,
                             first=seed * each, start=start)[0] for seed in range(SENDERS)] for kind, steps, start in
            (('first', 2, FIRST_MS), ('known', options.steps, FIRST_MS + 2 * INTERVAL_MS))]
    found = {target.name: measure_load(target, *made) for target in targets}
    for name, f in found.items():
        report.figure('%s: CPU of doing nothing, all nodes' % name, '%.3f cores' % f['idle'])
        report.figure('%s: samples a second' % name, '%.2f M' % (f['samples_per_s'] / 1e6))
        report.figure('%s: samples per CPU-second until acknowledged' % name, '%.2f M' % (f['per_cpu_acknowledged'] / 1e6))
        report.figure('%s: samples per CPU-second, settled' % name, '%.2f M' % (f['per_cpu_settled'] / 1e6))
        report.figure('%s: CPU by threads, idling in it' % name, ', '.join('%s %.0f %%' % (n, used * 100 / f['whole']) for used, n in f['threads']))
    ratio = found['three nodes']['per_cpu_settled'] / found['one node']['per_cpu_settled']
    report.figure('three nodes (R = 2) against one, per CPU-second, settled', '%.2f ×' % ratio, '≥ 0.4, aim 0.6', ratio >= 0.4)


def cost_of(target, query, at_ms, seconds):
    """(rows, CPU seconds a query, bytes moved a query or None)."""
    rows = target.ask(query, at_ms)
    count, moved, begun = 0, target.moved(), target.begin()
    while time.monotonic() - begun[1] < seconds or count < 3:
        target.ask(query, at_ms)
        count += 1
    return len(rows), max(target.work(begun), 0.0) / count, None if moved is None else (target.moved() - moved) / count


def queries(report, targets, options):
    at_ms = FIRST_MS + (options.steps + 1) * INTERVAL_MS
    for what, query in QUERIES:
        one, three = [cost_of(target, query, at_ms, options.seconds / 10) for target in targets]
        if one[0] != three[0]:
            raise RuntimeError('%s: %d rows of one node, %d of three' % (query, one[0], three[0]))
        ratio, what = three[1] / max(one[1], 1e-6), what % vars(options)
        report.figure(what + ': CPU of three nodes against one', '%.2f × (%.1f, %.1f ms)' % (ratio, three[1] * 1000, one[1] * 1000),
                      '≤ 1.3 and the transfer')
        report.figure(what + ': bytes moved between nodes', 'n/a' if three[2] is None else '%.0f' % three[2])


class Visible(threading.Thread):
    """Numbered samples by one node, asked of another one until they are seen."""
    def __init__(self, cluster, nodes):
        super().__init__(daemon=True)
        self.cluster, self.nodes, self.seconds, self.ending = cluster, nodes, [], False

    def run(self):
        number = 0
        while not self.ending:
            begun, number = time.monotonic(), number + 1
            writer, asker = (self.nodes[(number + i) % len(self.nodes)] for i in (0, 1))
            text = 'bench_visible{probe="%d"} %d\n' % (number % 64, number)
            try:
                urllib.request.urlopen(self.cluster.url(writer) + '/api/v1/import/prometheus', text.encode(), timeout=10).close()
                acked = time.monotonic()
                while not self.sees(asker, number) and not self.ending:
                    pass
                self.seconds.append(time.monotonic() - acked)
            except OSError:
                continue   # not acknowledged: nothing to be seen
            time.sleep(max(0.0, begun + 1 / PROBES_A_SECOND - time.monotonic()))

    def sees(self, node, number):
        query = urllib.parse.urlencode({'query': 'bench_visible{probe="%d"} == %d' % (number % 64, number)})
        with urllib.request.urlopen(self.cluster.url(node) + '/api/v1/query?' + query, timeout=10) as r:
            return bool(json.load(r)['data']['result'])

    def end(self):
        self.ending = True
        self.join(30)
        return sorted(self.seconds)


def quantile(values, q):
    return values[min(len(values) - 1, int(len(values) * q))] if values else float('nan')


def latency(report, cluster, options):
    for words, down in (('all nodes', None), ('one node down', 3)):
        nodes = [n for n in cluster.numbers() if n != down]
        if down is not None:
            cluster.kill_node(down)
            time.sleep(ONE_NODE_DOWN_SECONDS)
        balancer = chaos_load.Balancer(cluster)
        load = chaos_load.Load(cluster, balancer, 'bench_' + words.replace(' ', '_'), seed=1).begin()
        visible = Visible(cluster, nodes)
        visible.start()
        time.sleep(options.seconds)
        seen = visible.end()
        load.end()
        balancer.closing = True
        if load.failures:
            raise RuntimeError('; '.join(load.failures))
        ack = load.ack_seconds()
        report.figure(words + ': samples acknowledged a second', '%.0f' % load.samples_a_second(), '≥ 20,000 or it counts nothing',
                      load.samples_a_second() >= 20000)
        report.figure(words + ': acknowledged, p50, p99', '%.0f, %.0f ms' % (quantile(ack, 0.5) * 1000, quantile(ack, 0.99) * 1000))
        p99 = quantile(seen, 0.99)
        report.figure(words + ': from acknowledged to visible at another node, p50, p99 (%d probes)' % len(seen),
                      '%.0f, %.0f ms' % (quantile(seen, 0.5) * 1000, p99 * 1000), '≤ 2,000', p99 <= 2)
    cluster.start_node(3)
    cluster.wait_ready(3)


def measure(report, options):
    folder = os.path.join(bench.WORK, 'cluster')
    shutil.rmtree(folder, ignore_errors=True)
    cluster = Cluster(os.path.join(folder, 'three'), ttl=7200, scrapes=False, memory='2GiB', partitions=options.partitions)
    single = bench.Server('kelpie', os.path.join(folder, 'one'))
    config = os.path.join(single.folder, 'kelpie.yaml')
    with open(config, 'w', encoding='utf-8') as f:
        f.write(STORAGE)
    single.arguments = ['--config', config]
    try:
        single.start().wait_ready()
        cluster.start()
        targets = [Target('one node', [single.port], [single.process.pid]),
                   Target('three nodes', [cluster.port(n) for n in cluster.numbers()],
                          [cluster.pid('node-%d' % n) for n in cluster.numbers()])]
        throughput(report, targets, options)
        queries(report, targets, options)
        single.kill()
        latency(report, cluster, options)
    finally:
        single.kill()
        cluster.destroy()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=int, default=60)
    parser.add_argument('--series', type=int, default=120000)
    parser.add_argument('--steps', type=int, default=40)
    parser.add_argument('--partitions', type=int, default=24)
    parser.add_argument('--connections', type=int, default=16, help='of each sender, as the shards of a Prometheus that remote-writes')
    options = parser.parse_args()
    if run_cluster.why_not() is not None:
        print('no cluster here: ' + run_cluster.why_not(), file=sys.stderr)
        return 1
    busy, report = os.getloadavg()[0], Report()
    os.makedirs(bench.WORK, exist_ok=True)
    report.say('# A cluster beside a single node')
    report.say('\nCommit %s, %d cores; nodes, brokers, store and senders share them.' % (bench.commit(), os.cpu_count()))
    if busy > IDLE_LOAD:
        report.say('\n**Disturbed: the load average was %.1f at the begin. These figures prove nothing.**' % busy)
    report.say('\n| figure | | wanted |\n| --- | --- | --- |')
    try:
        with open(os.path.join(bench.WORK, 'cluster.lock'), 'w', encoding='utf-8') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)   # two at a time would share the folder
            measure(report, options)
    finally:
        with open(os.path.join(bench.WORK, 'cluster.md'), 'w', encoding='utf-8') as f:
            f.write('\n'.join(report.lines) + '\n')
    return 0 if report.good else 1


if __name__ == '__main__':
    sys.exit(main())
