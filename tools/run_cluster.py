#!/usr/bin/env python3
"""Three Kelpie nodes, three Kafka brokers and an S3 store on loopback: one broker and one node in each of three zones.

  run_cluster.py start FOLDER    start what does not run, wait until all nodes are ready, print the addresses
  run_cluster.py stop FOLDER     end all of it; what is stored stays
  run_cluster.py status FOLDER   what runs

`./dev cluster` is this with run/cluster, where the nodes scrape themselves and a real node_exporter; the integration tests
use the class. Everything is below the folder; processes are ended by their pids, services end by themselves after TTL."""
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KAFKA = os.path.join(TOP, 'tests/services/kafka.sh')
S3 = os.path.join(TOP, 'tests/services/s3.sh')
EXPORTER = os.path.join(TOP, '.cache/peers/usr/bin/prometheus-node-exporter')
BINARY = os.environ.get('KELPIE_BINARY', os.path.join(TOP, 'build/release/kelpie'))
KEYS = ('kelpie', 'kelpiesecret')
SECRET = 'a secret that only these nodes share\n'
BUCKET = 'telemetry'
READY_SECONDS = 120

CONFIG = """cluster:
  name: node-{node}
  zone: zone-{node}
  address: {host}:{port}
  secret_file: ../secret
  expect: {nodes}
  partitions: {partitions}
  replicas: {replicas}
  suspect_age: {suspect_age}
  repair_delay: {repair_delay}
log:
  kafka:
    bootstrap: {bootstrap}
    topic: kelpie
    control_topic: kelpie-control
blob:
  cache_bytes: 1GiB
  s3:
    endpoint: http://{s3_host}:{s3}
    bucket: {bucket}
    credentials: static
    access_key: {access}
    secret_key_file: ../s3.secret
memory:
  budget: {memory}
{more}"""

SCRAPING = """global:
  scrape_interval: 5s
  scrape_timeout: 4s
scrape_configs:
  - job_name: kelpie
    static_configs:
      - targets: ['{host}:{port}']
"""
SCRAPING_HOST = """  - job_name: node
    static_configs:
      - targets: ['127.0.0.1:{exporter}']
"""


def free_block(first, count):
    """The first of so many ports in a row that nobody listens on."""
    for base in range(first, 32000, count):
        taken = []
        try:
            for port in range(base, base + count):
                taken.append(socket.socket())
                taken[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken[-1].bind(('127.0.0.1', port))
            return base
        except OSError:
            continue
        finally:
            for s in taken:
                s.close()
    raise RuntimeError('no free ports')


def why_not():
    """What is missing for a cluster on this machine, or None."""
    if subprocess.run([KAFKA, 'ready'], capture_output=True).returncode != 0:
        return "no Java runtime or no Kafka (./dev setup fetches them, with a network)"
    if store() is None:
        return 'no S3 store (./dev setup fetches them, with a network)'
    return None


def store():
    """The kind of S3 store that is here."""
    for kind in ('versity', 'weed'):
        path = subprocess.run([S3, 'path', kind], capture_output=True, text=True, check=True).stdout.strip()
        if os.path.exists(path):
            return kind
    return None


class Cluster:
    """Nodes count from 1. Settings are kept in the folder, so that another process finds what one has started."""
    arguments = []   # of every node, beside those that all have

    def __init__(self, folder, ttl=86400, **settings):
        self.folder, self.ttl = os.path.abspath(folder), ttl
        path = os.path.join(self.folder, 'settings.json')
        if os.path.exists(path):
            with open(path, encoding='utf-8') as f:
                self.settings = json.load(f)
            return
        os.makedirs(self.folder, exist_ok=True)
        for name, text in (('secret', SECRET), ('s3.secret', KEYS[1] + '\n')):
            with open(self.path(name), 'w', encoding='utf-8') as f:
                f.write(text)
        self.settings = dict(nodes=3, brokers=3, partitions=24, replicas=2, suspect_age='10s', repair_delay='30s',
                             memory='1GiB', scrapes=True, scrapes_host=False)
        self.settings.update(settings)
        self.settings['kafka'] = free_block(int(os.environ.get('KELPIE_KAFKA_PORT', 19300)), 30)
        self.settings['s3'] = free_block(int(os.environ.get('KELPIE_S3_PORT', 21000)), 10)
        self.settings['http'] = free_block(int(os.environ.get('KELPIE_PORT', 9428)), 10)
        with open(path, 'w', encoding='utf-8') as f:
            json.dump(self.settings, f)

    # ---- where things are: one host here, elsewhere with names 'node-1', 'kafka-1', 's3' ----

    def host(self, name):
        """The address at which it listens."""
        return '127.0.0.1'

    def within(self, name):
        """The command by which it is started there, in front of its own."""
        return []

    # ---- services ----

    def script(self, path, verb, *arguments, **env):
        done = subprocess.run(['bash', path, verb] + [str(a) for a in arguments], capture_output=True, text=True, timeout=180,
                              env=dict(os.environ, KAFKA_TTL=str(self.ttl), S3_TTL=str(self.ttl), S3_ACCESS=KEYS[0],
                                       S3_SECRET=KEYS[1], **env))
        if done.returncode != 0:
            raise RuntimeError('%s %s: %s' % (os.path.basename(path), verb, done.stdout + done.stderr))
        return done.stdout

    def kafka(self, verb, *arguments):
        """As tests/services/kafka.sh: kill, up, pause, cont with the number of a broker."""
        return self.script(KAFKA, verb, os.path.join(self.folder, 'kafka'), *arguments,
                           KAFKA_CONF='broker.rack=zone-@ID@', KAFKA_HOST=self.host('kafka-@ID@'),
                           KAFKA_WITHIN=' '.join(self.within('kafka-@ID@')))

    def s3(self, verb, *arguments):
        return self.script(S3, verb, os.path.join(self.folder, 's3'), *arguments, S3_HOST=self.host('s3'))

    def start_services(self):
        self.bootstrap = self.kafka('start', self.settings['brokers'], self.settings['kafka']).strip().split('bootstrap=')[1]
        self.s3('start', store(), self.settings['s3'])
        self.make_bucket()
        if self.settings['scrapes_host'] and os.path.exists(EXPORTER):
            self.launch('exporter', [EXPORTER, '--web.listen-address=127.0.0.1:%d' % (self.settings['http'] + 9)])

    def make_bucket(self):
        url = 'http://%s:%d/%s' % (self.host('s3'), self.settings['s3'], BUCKET)
        nothing = 'x-amz-content-sha256: ' + hashlib.sha256(b'').hexdigest()
        done = subprocess.run(['curl', '-sS', '-o', os.devnull, '-w', '%{http_code}', '--aws-sigv4', 'aws:amz:us-east-1:s3',
                               '-u', '%s:%s' % KEYS, '-H', nothing, '-X', 'PUT', url],
                              capture_output=True, text=True, timeout=30)
        if done.stdout not in ('200', '409'):   # made, or there already
            raise RuntimeError('no bucket: %s%s' % (done.stdout, done.stderr))

    # ---- processes of our own ----

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def pid(self, name):
        """Of a process that runs, or None: the number of one that has ended may be another's by now."""
        try:
            with open(self.path(name + '.pid'), encoding='utf-8') as f:
                pid = int(f.read())
            return pid if (EXPORTER if name == 'exporter' else self.folder).encode() in words_of(pid) else None
        except (OSError, ValueError):
            return None

    def launch(self, name, command):
        if self.pid(name) is not None:
            return
        with open(self.path(name + '.out'), 'ab') as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        with open(self.path(name + '.pid'), 'w', encoding='utf-8') as f:
            f.write(str(process.pid))

    def end(self, name, how, seconds):
        """Returns how long that took. how None: it was told already (a second SIGTERM ends a node at once)."""
        pid, begun = self.pid(name), time.monotonic()
        if pid is None:
            return 0
        if how is not None:
            os.kill(pid, how)
        while self.pid(name) is not None:
            reap(pid)
            if time.monotonic() - begun > seconds:
                os.kill(pid, signal.SIGKILL)
                raise RuntimeError('%s did not end within %d s' % (name, seconds))
            time.sleep(0.02)
        return time.monotonic() - begun

    # ---- nodes ----

    def numbers(self):
        return range(1, self.settings['nodes'] + 1)

    def port(self, node):
        return self.settings['http'] + node - 1

    def url(self, node):
        return 'http://%s:%d' % (self.host('node-%d' % node), self.port(node))

    def data(self, node):
        return self.path('node-%d' % node, 'data')

    def write_config(self, node, edit=None):
        os.makedirs(self.path('node-%d' % node), exist_ok=True)
        more = SCRAPING if self.settings['scrapes'] else ''
        if self.settings['scrapes_host'] and node == 1:
            more += SCRAPING_HOST
        names = dict(self.settings, node=node, port=self.port(node), host=self.host('node-%d' % node), s3_host=self.host('s3'),
                     bootstrap=self.bootstrap, bucket=BUCKET, access=KEYS[0])
        names['exporter'] = self.settings['http'] + 9
        with open(self.path('node-%d' % node, 'kelpie.yaml'), 'w', encoding='utf-8') as f:
            text = CONFIG.format(more=more.format(**names), **names)
            f.write(edit(text) if edit else text)

    def start_node(self, node, edit=None):
        """edit: what its configuration is changed by, from text to text."""
        self.write_config(node, edit)
        name = 'node-%d' % node
        self.launch(name, self.within(name) + [BINARY, 'serve', '--config', self.path(name, 'kelpie.yaml'), '--data',
                                               self.data(node), '--http', '%s:%d' % (self.host(name), self.port(node))] +
                    self.arguments)

    def stop_node(self, node, seconds=45):
        return self.end('node-%d' % node, signal.SIGTERM, seconds)

    def kill_node(self, node):
        return self.end('node-%d' % node, signal.SIGKILL, 10)

    def is_running(self, node):
        pid = self.pid('node-%d' % node)
        if pid is not None:
            reap(pid)
        return self.pid('node-%d' % node) is not None

    def output(self, node):
        with open(self.path('node-%d.out' % node), encoding='utf-8', errors='replace') as f:
            return f.read()

    def is_ready(self, node, timeout=1.0):
        try:
            with urllib.request.urlopen(self.url(node) + '/-/ready', timeout=timeout) as r:
                return r.status == 200
        except OSError:
            return False

    def wait_ready(self, node, seconds=READY_SECONDS):
        end, why = time.monotonic() + seconds, ''
        while time.monotonic() < end:
            if self.pid('node-%d' % node) is None:
                raise RuntimeError('node %d has ended:\n%s' % (node, self.output(node)[-3000:]))
            try:
                with urllib.request.urlopen(self.url(node) + '/-/ready', timeout=5):
                    return
            except urllib.error.HTTPError as e:
                why = e.read().decode()
            except OSError as e:
                why = str(e)
            time.sleep(0.1)
        raise RuntimeError('node %d is not ready after %d s: %s\n%s' % (node, seconds, why, self.output(node)[-3000:]))

    def start(self):
        self.start_services()
        for node in self.numbers():
            self.start_node(node)
        for node in self.numbers():
            self.wait_ready(node)
        return self

    def stop(self):
        for node in self.numbers():   # all at once: nobody is left to hand over to
            pid = self.pid('node-%d' % node)
            if pid is not None:
                os.kill(pid, signal.SIGTERM)
        for node in self.numbers():
            self.end('node-%d' % node, None, 60)
        self.end('exporter', signal.SIGTERM, 10)
        self.kafka('stop')
        self.s3('stop')

    def destroy(self):
        """Whatever state it is in."""
        for node in self.numbers():
            self.kill_node(node)
        self.end('exporter', signal.SIGKILL, 10)
        if os.path.exists(self.path('kafka', 'cluster')):
            self.kafka('destroy')
        if os.path.exists(self.path('s3', 'server')):
            self.s3('destroy')


def words_of(pid):
    """Its command line; of one that begins another program just now, that one's. Empty when it has ended: a first thread that has, while
    others still end, keeps ports and locks."""
    while True:
        with open('/proc/%d/cmdline' % pid, 'rb') as f:
            words = f.read()
        with open('/proc/%d/stat' % pid, encoding='utf-8', errors='replace') as f:
            fields = f.read().rsplit(')', 1)[1].split()
        state, threads = fields[0], int(fields[17])
        if words or (state in 'ZX' and threads <= 1):
            return words
        time.sleep(0.01)


def reap(pid):
    """A child that has ended is a process until somebody asks for its status."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except OSError:
        pass   # not ours


def announce(cluster):
    print('a cluster of %d nodes runs, data and messages are in %s:' % (cluster.settings['nodes'], os.path.relpath(cluster.folder)))
    for node in cluster.numbers():
        print('  node %d  %s   zone-%d' % (node, cluster.url(node), node))
    print('  brokers %s' % cluster.bootstrap)
    print('  bucket  http://127.0.0.1:%d/%s' % (cluster.settings['s3'], BUCKET))
    print("try:  curl -s '%s/api/v1/query?query=up'   (./dev cluster stop ends it)" % cluster.url(1))


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ('start', 'stop', 'status'):
        print(__doc__, file=sys.stderr)
        return 2
    if sys.argv[1] == 'start' and why_not() is not None:
        print('no cluster here: ' + why_not(), file=sys.stderr)
        return 1
    cluster = Cluster(sys.argv[2], scrapes_host=True)
    if sys.argv[1] == 'start':
        try:
            announce(cluster.start())
        except RuntimeError as e:
            print(e, file=sys.stderr)
            return 1
    elif sys.argv[1] == 'stop':
        cluster.stop()
    else:
        for name in ['node-%d' % node for node in cluster.numbers()]:
            print(name, cluster.pid(name) or 'down')
        print(cluster.kafka('status') + cluster.s3('status'), end='')
    return 0


if __name__ == '__main__':
    sys.exit(main())
