#!/usr/bin/env python3
"""What is promised, held against real faults: three nodes, three Kafka brokers and an S3 store in network namespaces of their own on
this machine, under 26,400 numbered samples a second and 6 queries a second, whose every answer is checked.

usage: ./dev chaos [EXPERIMENT …] [--reduced] [--seed N] [--folder FOLDER] [--list]

  --reduced  the shorter set, each with fewer and shorter faults, as `./dev test` runs it
  --promises half the load; thresholds are printed, and only a broken promise is a failure: for a machine that has other work
  --list     what there is

A report is written to build/chaos/report.md. Exit status: 0 when every promise and threshold was kept, 1 when one was missed, 2 when
this machine cannot do it. docs/chaos.md tells what each experiment does and promises."""
import argparse
import collections
import fcntl
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time

import chaos_load
import chaos_world
import run_cluster

WORK = os.path.join(run_cluster.TOP, 'build/chaos')
SAMPLES_A_SECOND_MIN, QUERIES_A_SECOND_MIN = 20000, 5
PAUSE_SECONDS_MAX = 5      # of writes, whatever single thing fails
RECOVERY_SECONDS_MAX = 60  # until everything is there as often as it should be
SEEN_SECONDS_MAX = 5       # until the cluster itself shows a node as silent
TTL_SECONDS = 7200

Figure = collections.namedtuple('Figure', 'what value limit good')


class Missed(Exception):
    """Something that an experiment waits for did not come."""


class Run:
    """One experiment under load: its figures, and whether they are good."""
    def __init__(self, world, balancer, experiment, options):
        self.world, self.balancer, self.experiment, self.reduced = world, balancer, experiment, options.reduced
        self.figures, self.troubles, self.begun = [], [], time.monotonic()
        self.is_judged_by_promises, self.is_world_spent = options.promises, False
        self.own_cpu = sum(os.times()[:2])
        self.load = chaos_load.Load(world, balancer, 'chaos_' + experiment.name.replace('-', '_'), options.seed,
                                    chaos_load.INTERVAL_MS * (2 if options.promises else 1))

    def say(self, text):
        print('  %6.1f s  %s' % (time.monotonic() - self.begun, text), flush=True)

    def figure(self, what, value, at_most=None, at_least=None, unit=''):
        good = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
        limit = '' if at_most is None and at_least is None else '%s %g%s' % (
            ('≤', at_most, unit) if at_most is not None else ('≥', at_least, unit))
        text = '%.2f%s' % (value, unit) if isinstance(value, float) else '%s%s' % (value, unit)
        self.figures.append(Figure(what, text, limit, good))
        if not good:
            self.say('MISSED: %s: %s, wanted %s' % (what, text, limit))

    def some(self, numbers):
        """All of them, or one in the reduced set."""
        return list(numbers)[1:2] if self.reduced else list(numbers)

    def long(self, seconds, reduced):
        return reduced if self.reduced else seconds

    def steady(self, seconds=None):
        time.sleep(seconds or self.long(8, 3))

    def wait(self, what, seconds, condition):
        """Until the condition holds; returns how long that took."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > seconds:
                raise Missed('not within %d s: %s' % (seconds, what))
            time.sleep(0.1)
        return time.monotonic() - begun

    def heal(self, seconds=RECOVERY_SECONDS_MAX, since=None):
        """Until nothing lacks any more. Returns the seconds since that time, or from now on."""
        begun, why = time.monotonic(), ''
        while (why := self.world.lacking()) is not None:
            if time.monotonic() - begun > seconds + 60:
                raise Missed('after %d s it is not as before: %s' % (seconds + 60, why))
            time.sleep(0.2)
        took = time.monotonic() - (since or begun)
        self.say('all is as before')
        return took

    def incomplete_since(self, since, but=None):
        """(asked, answered, node, what lacks) of answers since then; those of a node that is cut off are no news."""
        return [i for i in self.load.incomplete if i[1] >= since and i[2] != but]

    def tell_incomplete(self, what, since, at_most=None, but=None):
        """How many answers that came since then say of themselves that they lack something."""
        found = self.incomplete_since(since, but)
        self.figure('answers that say they are incomplete, ' + what, len(found), at_most=at_most)
        if found:
            self.say('incomplete for %.1f s, from %.1f s behind the fault on: node %d, %s' % (
                found[-1][1] - found[0][0], found[0][0] - since, found[0][2], found[0][3]))

    def tell_controller(self, what, broker):
        """Whether it is the active controller that goes with this broker: its successor has to be found before new leaders are."""
        controller = chaos_world.kafka_controller(self.world.broker_address(broker))
        self.figures.append(Figure(what + ': the active controller', 'goes with it' if controller == broker else 'stays', '', True))

    def finish(self):
        load = self.load
        load.end()
        self.say('all is acknowledged')
        load.audit(self.world.members)
        self.say('all is audited')
        self.figure('samples acknowledged a second', round(load.samples_a_second()), at_least=SAMPLES_A_SECOND_MIN)
        self.figure('queries asked a second', load.queries_a_second(), at_least=QUERIES_A_SECOND_MIN)
        self.figure('answers checked', load.answered, at_least=1)
        self.figure('broken promises (lost, twice, never sent; a strong read called complete that is not)', len(load.failures), at_most=0)
        self.figure('plain answers called complete that lack what was acknowledged 5 s before', len(load.late), at_most=0)
        for text in load.late[:3]:
            self.say('late: ' + text)
        self.figure('stalest answer that called itself complete', load.stalest, at_most=chaos_load.STALE_SECONDS, unit=' s')
        self.figure('answers that say they are incomplete, in all', len(load.incomplete))
        self.figure('queries that got no answer, in all', sum(load.not_answered.values()))
        self.figure('writes refused or not answered, sent again', sum(load.refused.values()))
        ack = load.ack_seconds()
        self.figure('acknowledgement p50', ack[len(ack) // 2] * 1000, unit=' ms')
        self.figure('acknowledgement p99', ack[len(ack) * 99 // 100] * 1000, unit=' ms')
        self.figure('CPU of clients and checker', sum(os.times()[:2]) - self.own_cpu, unit=' s')
        self.troubles += load.failures

    def is_good(self):
        return not self.troubles and (self.is_judged_by_promises or all(f.good for f in self.figures))


Experiment = collections.namedtuple('Experiment', 'name what act is_reduced')
EXPERIMENTS = {}
NOT_BUILT = 'replicas-disagree: a row changed on one replica\'s disk under a valid checksum: needs the comparison of replicas'


def experiment(name, reduced=False):
    """Registers one; its text is what it does."""
    def keep(act):
        EXPERIMENTS[name] = Experiment(name, ' '.join(act.__doc__.split()), act, reduced)
        return act
    return keep


# ---- nodes ----

def is_silent(world, node, witness):
    """Does the witness show the node as one that does not answer?"""
    view = world.admin(witness)
    return view is not None and any(n['name'] == 'node-%d' % node and (n['silent'] or n['status'] != 'up') for n in view['nodes'])


def lose_node(run, node, begin, return_it, seconds):
    """A node goes; nobody may notice; it comes back."""
    witness = [n for n in run.world.members if n != node][0]
    at = time.monotonic()
    begin()
    run.say('node %d is gone' % node)
    run.figure('node %d: seconds until the cluster shows it as silent' % node,
               run.wait('node %d is shown as silent' % node, 30, lambda: is_silent(run.world, node, witness)),
               at_most=SEEN_SECONDS_MAX, unit=' s')
    time.sleep(max(0.0, at + seconds - time.monotonic()))
    back = time.monotonic()
    return_it()
    run.world.wait_ready(node)
    run.figure('node %d: ready again' % node, time.monotonic() - back, unit=' s')
    run.figure('node %d: everything held as often as before' % node, run.heal(since=back), at_most=RECOVERY_SECONDS_MAX, unit=' s')
    run.figure('node %d: longest pause of a writer' % node, run.load.longest_pause(at), at_most=PAUSE_SECONDS_MAX, unit=' s')
    run.tell_incomplete('with node %d away and back' % node, at, at_most=0)


@experiment('kill-node', reduced=True)
def kill_node(run):
    """kill -9 each node in turn, and start it again."""
    for node in run.some((1, 2, 3)):
        lose_node(run, node, lambda: run.world.kill_node(node), lambda: run.world.start_node(node), run.long(20, 6))


@experiment('stop-node')
def stop_node(run):
    """SIGSTOP each node for a minute, longer than the others wait before they put it out, then SIGCONT."""
    for node in run.some((1, 2, 3)):
        pid = run.world.pid('node-%d' % node)
        lose_node(run, node, lambda: os.kill(pid, signal.SIGSTOP), lambda: go_on(run, node, pid), run.long(60, 15))


def go_on(run, node, pid):
    """What was put out meanwhile may end by itself, and is started again as a supervisor would."""
    os.kill(pid, signal.SIGCONT)
    end = time.monotonic() + 5
    while time.monotonic() < end and run.world.is_running(node):
        time.sleep(0.1)
    run.say('node %d %s' % (node, 'goes on' if run.world.is_running(node) else 'has ended by itself'))
    run.world.start_node(node)


@experiment('wipe-node')
def wipe_node(run):
    """kill -9 each node, wipe its disk, start it empty."""
    for node in run.some((1, 2, 3)):
        lose_node(run, node, lambda: wipe(run, [node]), lambda: run.world.start_node(node), run.long(20, 3))


def wipe(run, nodes, is_wiped=True):
    for node in nodes:
        run.world.kill_node(node)
    for node in nodes if is_wiped else []:
        shutil.rmtree(run.world.data(node))


def lose_many(run, nodes, is_wiped):
    """Of some partition nobody is left: answers say so, and everything comes back."""
    words, at = 'nodes %s' % ', '.join(map(str, nodes)), time.monotonic()
    wipe(run, nodes, is_wiped)
    run.say('%s are gone%s' % (words, ', and their disks' if is_wiped else ''))
    if len(nodes) < len(run.world.members):
        run.wait('an answer that says it is incomplete', 30, lambda: run.incomplete_since(at))
        run.figure(words + ': seconds until answers say they are incomplete', run.incomplete_since(at)[0][1] - at,
                   at_most=SEEN_SECONDS_MAX, unit=' s')
    time.sleep(run.long(10, 2))
    back = time.monotonic()
    for node in nodes:
        run.world.start_node(node)
    for node in nodes:
        run.world.wait_ready(node)
    run.figure(words + ': all ready again', time.monotonic() - back, unit=' s')
    run.figure(words + ': everything held as often as before', run.heal(since=back), at_most=RECOVERY_SECONDS_MAX, unit=' s')
    healed = time.monotonic()
    run.steady()
    run.tell_incomplete('after %s are back' % words, healed, at_most=0)


@experiment('kill-replicas')
def kill_replicas(run):
    """kill -9 both nodes that hold a partition at once, then all nodes at once."""
    lose_many(run, (1, 2), False)
    lose_many(run, (1, 2, 3), False)


@experiment('wipe-replicas')
def wipe_replicas(run):
    """kill -9 both nodes that hold a partition at once and wipe their disks."""
    lose_many(run, (2, 3), True)


@experiment('bootstrap', reduced=True)
def bootstrap(run):
    """kill -9 all nodes and wipe all their disks: nobody is left to ask, bucket and log are all there is."""
    lose_many(run, (1, 2, 3), True)


@experiment('rolling')
def rolling(run):
    """Restart all nodes in turn, five rounds; the next one when everything is held as often as before."""
    at = time.monotonic()
    for _ in range(run.long(5, 1)):
        for node in run.world.members:
            run.world.stop_node(node)
            run.world.start_node(node)
            run.world.wait_ready(node)
            run.heal()
    run.figure('longest pause of a writer', run.load.longest_pause(at), at_most=PAUSE_SECONDS_MAX, unit=' s')
    run.tell_incomplete('while nodes restart', at, at_most=0)


@experiment('members')
def members(run):
    """Add a node, remove it, put another one in the place of a node that is dead."""
    world, at = run.world, time.monotonic()
    add_node(run, 4, 'zone-4')
    begun = time.monotonic()
    world.order(1, 'drain', node='node-4')
    run.wait('nobody relies on node 4', 120, lambda: held_by(world, 4) == 0)
    world.members.remove(4)
    world.stop_node(4)
    world.order(1, 'remove', node='node-4')
    run.heal()
    run.figure('a node is removed', time.monotonic() - begun, unit=' s')
    begun = time.monotonic()
    wipe(run, [3])
    world.members.remove(3)
    run.say('node 3 is dead')
    run.steady()
    world.order(1, 'remove', node='node-3')
    add_node(run, 5, 'zone-3')
    run.figure('a dead node is replaced', time.monotonic() - begun, unit=' s')
    run.figure('longest pause of a writer', run.load.longest_pause(at), at_most=PAUSE_SECONDS_MAX, unit=' s')
    run.tell_incomplete('while members change', at, at_most=0)
    run.is_world_spent = True


def held_by(world, node):
    """Partitions that it owns, as node 1 knows it."""
    view = world.admin(1)
    found = [n['owned'] for n in view['nodes'] if n['name'] == 'node-%d' % node] if view else []
    return found[0] if found else None


def add_node(run, node, zone):
    begun = time.monotonic()
    run.world.start_node(node, edit=lambda text: text.replace('zone: zone-%d' % node, 'zone: ' + zone))
    run.world.wait_ready(node)
    run.world.members.append(node)
    run.wait('node %d holds something' % node, 120, lambda: (held_by(run.world, node) or 0) > 0)
    run.figure('node %d, new: everything held as often as it should be' % node, run.heal(since=begun), unit=' s')


# ---- the network ----

@experiment('cut-zone', reduced=True)
def cut_zone(run):
    """Cut each zone off, its node with its broker, and join it again."""
    for zone in run.some((1, 2, 3)):
        parts, witness, at = ('node-%d' % zone, 'kafka-%d' % zone), zone % 3 + 1, time.monotonic()
        run.tell_controller('zone %d' % zone, zone)
        run.world.cut(*parts)
        run.say('zone %d is cut off' % zone)
        run.figure('zone %d: seconds until the cluster shows its node as silent' % zone,
                   run.wait('node %d is shown as silent' % zone, 30, lambda: is_silent(run.world, zone, witness)),
                   at_most=SEEN_SECONDS_MAX, unit=' s')
        chaos_world.inside(parts[0], lambda: ask_inside(run, zone, at + run.long(30, 12)))
        back = time.monotonic()
        run.world.join(*parts)
        run.say('zone %d is joined again' % zone)
        run.figure('zone %d: everything held as often as before' % zone, run.heal(since=back), at_most=RECOVERY_SECONDS_MAX, unit=' s')
        run.figure('zone %d: longest pause of a writer' % zone, run.load.longest_pause(at), at_most=PAUSE_SECONDS_MAX, unit=' s')
        run.tell_incomplete('by the others, with zone %d away and back' % zone, at, at_most=0, but=zone)


def ask_inside(run, node, until):
    """Who is cut off together with a node gets answers of it, too: they must say what they lack. Of single series: the log of some is
    led by the broker that is cut off with them."""
    complete, before, turn = [0, 0], len(run.load.late), 0
    while time.monotonic() < until:
        turn += 1
        complete[turn % 2] += run.load.check_rows(turn % 2 == 0, turn % chaos_load.CLIENTS, of=node)
        time.sleep(0.25)
    run.figure('zone %d: strong, plain answers called complete to a client inside' % node, '%d, %d' % tuple(complete))
    run.figure('zone %d: of these, plain ones that lack what was acknowledged 5 s before' % node, len(run.load.late) - before, at_most=0)


@experiment('slow-broker')
def slow_broker(run):
    """A broker that takes 2 s longer for every answer, then one behind 1 Mbit/s, then one that is stopped for 10 s."""
    run.load.attempt_seconds = 15.0   # longer than the node's own patience: it has to refuse
    world = run.world
    for what, begin, end in (
            ('+2 s', lambda: world.delay('kafka-1', 1.0), lambda: world.delay('kafka-1', 0)),
            ('1 Mbit/s', lambda: world.limit('kafka-2', '1mbit'), lambda: world.limit('kafka-2', None)),
            ('stopped', lambda: world.kafka('pause', 3), lambda: world.kafka('cont', 3))):
        at = time.monotonic()
        begin()
        run.say('a broker is slow: ' + what)
        time.sleep(10 if what == 'stopped' else run.long(30, 10))
        end()
        back = time.monotonic()
        run.figure(what + ': everything held as often as before', run.heal(since=back), at_most=RECOVERY_SECONDS_MAX, unit=' s')
        ack = run.load.ack_seconds(at, back)
        run.figure(what + ': acknowledged meanwhile', len(ack), unit=' requests')
        run.figure(what + ': longest pause of a writer', run.load.longest_pause(at), unit=' s')
        run.tell_incomplete('of a slow broker, ' + what, at)
    run.figure('refusals that are not 503', sum(n for status, n in run.load.refused.items() if status not in (0, 503)), at_most=0)
    run.load.attempt_seconds = chaos_load.ATTEMPT_SECONDS


# ---- the bucket ----

@experiment('bucket-down', reduced=True)
def bucket_down(run):
    """The bucket does not answer for ten minutes (20 s in the reduced set)."""
    at = time.monotonic()
    run.world.s3('pause')
    run.say('the bucket is away')
    try:
        time.sleep(run.long(600, 20))
    finally:
        run.world.s3('cont')
    run.say('the bucket is back')
    run.figure('longest pause of a writer', run.load.longest_pause(at), at_most=PAUSE_SECONDS_MAX, unit=' s')
    run.tell_incomplete('while the bucket is away', at, at_most=0)
    before = run.world.metric(1, 'kelpie_shard_commits_total')
    run.figure('the next segment is in the bucket', run.wait('a segment is in the bucket', 150, lambda: any(
        (run.world.metric(node, 'kelpie_shard_commits_total') or 0) > before for node in run.world.members)), unit=' s')


# ---- clocks ----

@experiment('clock')
def clock(run):
    """Put the clock of each node an hour back, then an hour forward, then right (each time it is started anew)."""
    for node in run.some((1, 2, 3)):
        for shift in ('-1h', '+1h', None):
            at = time.monotonic()
            run.world.stop_node(node)
            run.world.clocks.pop('node-%d' % node, None)
            if shift is not None:
                run.world.clocks['node-%d' % node] = shift
            run.world.start_node(node)
            time.sleep(run.long(20, 8))
            run.say('node %d with its clock %s: %s' % (node, shift or 'right', 'ready' if run.world.is_ready(node) else 'not ready'))
            if shift is None:
                run.world.wait_ready(node)
            run.figure('node %d, clock %s: longest pause of a writer' % (node, shift or 'right'), run.load.longest_pause(at),
                       at_most=PAUSE_SECONDS_MAX, unit=' s')
            run.tell_incomplete('of node %d with its clock %s' % (node, shift or 'right'), at)
        run.heal()


# ---- brokers ----

@experiment('kill-controller')
def kill_controller(run):
    """kill -9 the broker at each address of the lists in turn, the first included, then the active controller; meanwhile a node is
    started anew, which then must do without that address."""
    addresses = run.world.broker_address
    for broker in [1] if run.reduced else [1, 2, 3, None]:
        if broker is None:
            broker = chaos_world.kafka_controller(addresses(1))
        at, node = time.monotonic(), broker % 3 + 1
        was = chaos_world.kafka_controller(addresses(broker % 3 + 1))
        run.world.kafka('kill', broker)
        run.say('broker %d is killed; the active controller was %d' % (broker, was))
        time.sleep(run.long(8, 4))
        run.world.stop_node(node)
        begun = time.monotonic()
        run.world.start_node(node)
        run.world.wait_ready(node)
        run.figure('broker %d away: node %d starts' % (broker, node), time.monotonic() - begun, unit=' s')
        run.world.kafka('up', broker)
        run.figure('broker %d: everything held as often as before' % broker, run.heal(), at_most=RECOVERY_SECONDS_MAX, unit=' s')
        run.figure('broker %d: longest pause of a writer' % broker, run.load.longest_pause(at), at_most=PAUSE_SECONDS_MAX, unit=' s')
        run.tell_incomplete('with broker %d away and back' % broker, at)



@experiment('kill-broker', reduced=True)
def kill_broker(run):
    """kill -9 each broker in turn, wipe its disk, start it empty."""
    for broker in run.some((1, 2, 3)):
        at = time.monotonic()
        run.tell_controller('broker %d' % broker, broker)
        run.world.kafka('kill', broker)
        run.say('broker %d is killed' % broker)
        time.sleep(run.long(12, 6))
        run.world.kafka('wipe', broker)
        back = time.monotonic()
        run.world.kafka('up', broker)
        run.say('broker %d is back, without what it had' % broker)
        run.figure('broker %d: everything held as often as before' % broker, run.heal(since=back), at_most=RECOVERY_SECONDS_MAX, unit=' s')
        run.figure('broker %d: longest pause of a writer' % broker, run.load.longest_pause(at), at_most=PAUSE_SECONDS_MAX, unit=' s')
        run.tell_incomplete('with broker %d away and back' % broker, at)


# ---- all of it ----

def execute(options, experiment, world):
    print('%s: %s' % (experiment.name, experiment.what), flush=True)
    balancer = chaos_load.Balancer(world)
    run = Run(world, balancer, experiment, options)
    run.load.begin()
    try:
        run.steady()
        experiment.act(run)
        run.heal()
        run.steady()
    except (Missed, RuntimeError, OSError, subprocess.SubprocessError) as e:
        run.troubles.append('%s: %s' % (type(e).__name__, e))
        run.say('MISSED: ' + run.troubles[-1])
    world.mend()
    run.finish()
    balancer.closing = True
    for f in run.figures:
        print('  %s  %-90s %12s  %s' % ('ok  ' if f.good else 'MISS', f.what, f.value, f.limit))
    for text in run.troubles:
        print('  MISS ' + text)
    print('%s: %s, %.0f s' % (experiment.name, 'kept' if run.is_good() else 'MISSED', time.monotonic() - run.begun), flush=True)
    return run


def commit():
    done = subprocess.run(['git', '-C', run_cluster.TOP, 'describe', '--always', '--dirty', '--abbrev=12'], capture_output=True, text=True)
    return done.stdout.strip() or 'unknown'


def machine():
    with open('/proc/meminfo', encoding='ascii') as f:
        memory = int(f.readline().split()[1]) / (1 << 20)
    return '%d cores, %.0f GiB, %s' % (os.cpu_count(), memory, platform.release())


def write_report(runs, options, path):
    lines = ['# Chaos: %s' % ('kept' if all(run.is_good() for run in runs) else 'MISSED'), '',
             'Commit %s, %s; load averages %s at the end; %s, seed %d.' % (
                 commit(), machine(), ' '.join('%.1f' % a for a in os.getloadavg()),
                 'the reduced set' if options.reduced else 'everything', options.seed), '',
             'All of it runs on this machine: nodes, brokers, bucket and clients share its cores.']
    for run in runs:
        lines += ['', '## %s: %s' % (run.experiment.name, 'kept' if run.is_good() else 'MISSED'), run.experiment.what, '',
                  '| figure | | wanted | |', '| --- | --- | --- | --- |']
        lines += ['| %s | %s | %s | %s |' % (f.what, f.value, f.limit, '' if f.good else 'MISSED') for f in run.figures]
        lines += [''] * bool(run.troubles) + ['- ' + text.replace('\n', '\n  ') for text in run.troubles]
    lines += ['', 'Not built: ' + NOT_BUILT + '.']
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding='utf-8') as f:
        f.write('\n'.join(lines) + '\n')


def begin_world(options):
    folder = os.path.join(options.folder, 'world')
    if os.path.isdir(folder):
        shutil.rmtree(folder)
    world = chaos_world.World(folder, ttl=TTL_SECONDS, partitions=12, memory='512MiB')
    return world.start()


def keep_messages(world, options, name):
    """Of a cluster in which something was missed: what its parts said."""
    kept = os.path.join(options.folder, 'kept', name)
    shutil.rmtree(kept, ignore_errors=True)
    os.makedirs(kept)
    for entry in os.listdir(world.folder):
        if entry.endswith('.out'):
            shutil.copy(world.path(entry), kept)
    for broker in range(1, chaos_world.BROKERS + 1):
        shutil.copy(world.path('kafka', 'n%d' % broker, 'log'), os.path.join(kept, 'kafka-%d.log' % broker))
    print('  what was said: ' + kept)


def run_all(options):
    """Within namespaces of our own. A cluster in which something was missed is left, and another one begun."""
    world, runs = None, []
    chaos_world.build_network()
    try:
        for name in options.experiments:
            if world is None:
                world = begin_world(options)
            runs.append(execute(options, EXPERIMENTS[name], world))
            if not runs[-1].is_good():
                keep_messages(world, options, name)
            if not runs[-1].is_good() or runs[-1].is_world_spent:
                world.leave()
                world = None
    finally:
        if runs:
            write_report(runs, options, os.path.join(options.folder, 'report.md'))
        if world is not None:
            world.leave()
    print('chaos: %d of %d experiments kept everything; %s' % (
        sum(run.is_good() for run in runs), len(runs), os.path.join(options.folder, 'report.md')))
    return 0 if all(run.is_good() for run in runs) else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage='./dev chaos …')
    parser.add_argument('experiments', nargs='*', metavar='EXPERIMENT')
    parser.add_argument('--reduced', action='store_true')
    parser.add_argument('--promises', action='store_true')
    parser.add_argument('--seed', type=int, default=None)
    parser.add_argument('--folder', default=WORK)
    parser.add_argument('--list', action='store_true')
    parser.add_argument('--inside', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        for e in EXPERIMENTS.values():
            print('%-16s %s%s' % (e.name, '(also reduced) ' if e.is_reduced else '', e.what))
        print('not built: ' + NOT_BUILT)
        return 0
    for name in options.experiments:
        if name not in EXPERIMENTS:
            print('no experiment %r; there are: %s' % (name, ' '.join(EXPERIMENTS)), file=sys.stderr)
            return 2
    options.folder = os.path.abspath(options.folder)
    options.experiments = options.experiments or [e.name for e in EXPERIMENTS.values() if e.is_reduced or not options.reduced]
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    if options.inside:
        return run_all(options)
    reason = chaos_world.why_not()
    if reason is not None:
        print('no chaos here: ' + reason, file=sys.stderr)
        return 2
    os.makedirs(options.folder, exist_ok=True)
    with open(os.path.join(options.folder, 'lock'), 'w', encoding='utf-8') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)   # two at a time would share the folder
        return chaos_world.enter([os.path.abspath(__file__), '--inside', '--seed', str(options.seed), '--folder', options.folder] +
                                 ['--reduced'] * options.reduced + ['--promises'] * options.promises + options.experiments)


if __name__ == '__main__':
    sys.exit(main())
