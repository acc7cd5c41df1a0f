"""The operator's guide does what it says: its commands are run, in their order, against three real brokers, a real S3 store and nodes
that its own unit file, configurations and certificates start. Machines are folders: paths, names and ports are mapped, and what a test must
not do (users, systemd, other machines) is done by stand_ins.py. What it names (metrics, messages, options, properties) must exist."""
import glob
import json
import os
import re
import shutil
import subprocess
import time

import pytest

import stand_ins
from conftest import BINARY, CLUSTER_TTL_SECONDS, PEERS, TOP, run_cluster

yaml = pytest.importorskip('yaml', reason='python3-yaml is not installed')
GUIDE = os.path.join(TOP, 'docs/operators-guide.md')
EXAMPLES = os.path.join(TOP, 'examples')
BLOCK_SECONDS = 150
NODES = (1, 2, 3)


def read(*names):
    with open(os.path.join(*names), encoding='utf-8') as f:
        return f.read()


def blocks():
    """(line, where, the rest of that line, commands) of each sh block of the guide."""
    lines, out = read(GUIDE).splitlines(), []
    for i, line in enumerate(lines):
        if line.startswith('```sh'):
            where, _, rest = line[5:].strip().partition(' ')
            out.append((i + 1, where, rest, '\n'.join(lines[i + 1:lines.index('```', i)]) + '\n'))
    return out


class Services(run_cluster.Cluster):
    def make_bucket(self):
        """The guide does that."""


class World:
    """Folders node-1 … node-3 in place of machines, admin with the keys, source with the examples, bin with the stand-ins."""
    def __init__(self, root, services):
        self.root, self.services = str(root), services
        for name in ('admin', 'bin', *('node-%d/etc/systemd/system' % n for n in NODES)):
            os.makedirs(self.path(name))
        for name in ('systemctl', 'scp', 'useradd', 'chown', 'install', 'htpasswd'):
            os.symlink(os.path.abspath(stand_ins.__file__), self.path('bin', name))
        os.symlink(os.path.abspath(BINARY), self.path('bin', 'kelpie'))
        shutil.copytree(EXAMPLES, self.path('source', 'examples'))
        for folder, _, names in os.walk(self.path('source')):
            for name in names:
                text = stand_ins.mapped(read(folder, name), self.pairs(None))
                with open(os.path.join(folder, name), 'w', encoding='utf-8') as f:
                    f.write(re.sub(r'(endpoint: http://.*\n) *ca_file: .*\n', r'\1', text))
        with open(self.path('admin', 's3.env'), 'w', encoding='utf-8') as f:
            f.write('AWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n' % run_cluster.KEYS)

    def path(self, *names):
        return os.path.join(self.root, *names)

    def pairs(self, node):
        """What stands for what, on that node."""
        first = self.services.port(1)
        out = [('kelpie-$N.example:9428', 'localhost:$((%d + N))' % (first - 1)), ('DNS:%s', 'DNS:%s,DNS:localhost'),
               ('kafka-1.example:9092,kafka-2.example:9092,kafka-3.example:9092', self.services.bootstrap),
               ('https://s3.example:7070', 'http://127.0.0.1:%d' % self.services.settings['s3'])]
        out += [('kelpie-%d.example:9428' % n, 'localhost:%d' % self.services.port(n)) for n in NODES]
        if node is not None:
            out += [('/usr/local/bin/kelpie', os.path.abspath(BINARY)), ('0.0.0.0:9428', '127.0.0.1:%d' % self.services.port(node))]
            out += [(path, self.path('node-%d' % node, path[1:])) for path in ('/etc/kelpie', '/etc/systemd/system', '/var/lib/kelpie')]
        return out

    def run(self, commands, node=None, seconds=BLOCK_SECONDS):
        """In the admin's shell, or in that node's."""
        where = 'admin' if node is None else 'node-%d' % node
        env = dict(os.environ, PATH=self.path('bin') + ':' + os.environ['PATH'], STAND_IN_ROOT=self.root, KELPIE_SOURCE=self.path('source'),
                   STAND_IN_MAP=json.dumps(self.pairs(node)))
        if node is not None:
            env.update(STAND_IN_NODE=where, N=str(node))
        return subprocess.run(['timeout', str(seconds), 'bash', '-euo', 'pipefail', '-c', stand_ins.mapped(commands, self.pairs(node))],
                              cwd=self.path(where), env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def ask(self, node, path, *arguments):
        done = self.run('curl -sS -i --cacert ca.pem -u "operator:$(cat operator.password)" %s https://kelpie-%d.example:9428%s'
                        % (' '.join(arguments), node, path), seconds=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def journals(self):
        return ''.join('--- node-%d\n%s' % (n, read(self.path('node-%d' % n, 'journal'))[-1500:]) for n in NODES
                       if os.path.exists(self.path('node-%d' % n, 'journal')))

    def destroy(self):
        for node in NODES:
            stand_ins.NODE = self.path('node-%d' % node)
            if stand_ins.pid() is not None:
                os.kill(stand_ins.pid(), 9)
        self.services.destroy()


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    reason = run_cluster.why_not()
    if reason is not None:
        pytest.skip(reason)
    services = Services(str(tmp_path_factory.mktemp('services') / 's'), ttl=CLUSTER_TTL_SECONDS)
    try:
        services.start_services()
        one = World(tmp_path_factory.mktemp('guide'), services)
    except BaseException:
        services.destroy()
        raise
    try:
        yield one
    finally:
        one.destroy()


def test_every_block_says_where():
    for line, where, rest, commands in blocks():
        assert where in ('admin', 'each', 'node-1', 'node-2', 'node-3', 'skip'), 'line %d' % line
        assert commands.startswith('# ') and (where != 'skip' or rest), 'line %d' % line


def test_commands(world, capsys):
    ran = 0
    for line, where, rest, commands in blocks():
        if where == 'skip':
            with capsys.disabled():
                print('\nskipped: %s:%d: %s' % (os.path.relpath(GUIDE, TOP), line, rest))
            continue
        for node in {'admin': (None,), 'each': NODES}.get(where) or (int(where[-1]),):
            done = world.run(commands, node)
            assert done.returncode == 0, 'line %d, %s: status %d\n%s%s%s' % (
                line, where, done.returncode, done.stdout, done.stderr, world.journals())
        ran += 1
    assert ran >= 15


def test_what_was_written_is_at_every_node(world):
    """After the single node became three, one was restarted and one lost its disk."""
    for node in NODES:
        end = time.monotonic() + 150
        while not re.search('(?i)^x-kelpie-complete: true', answer := strong_answer(world, node), re.M):
            assert time.monotonic() < end, answer   # the last one may still apply what it was given a moment ago
            time.sleep(0.2)
        assert '"21.5"' in answer, answer


def strong_answer(world, node):
    return world.ask(node, '/api/v1/query', "-H 'X-Kelpie-Consistency: strong'",
                     "--data-urlencode 'query=last_over_time(room_temperature_celsius[1h])'")


def test_metrics_and_alerts(world):
    """Every name in guide and alerts is told by a node; every expression is one to Kelpie and to Prometheus."""
    told = set(re.findall(r'^([a-z0-9_]+)[ {]', world.ask(1, '/metrics'), re.M))
    rules = [r for g in yaml.safe_load(read(EXAMPLES, 'alerts.yaml'))['groups'] for r in g['rules']]
    assert len(rules) >= 15
    named = {name for r in rules for name in re.findall(r'\b(?:kelpie|process)_[a-z0-9_]+', r['expr'])}
    named |= set(re.findall(r'\bkelpie_[a-z0-9_]+\b(?!\*)', read(GUIDE)))
    assert named <= told | {'kelpie_cluster_'}, sorted(named - told)
    for rule in rules:
        answer = world.ask(2, '/api/v1/query', "--data-urlencode 'query=%s'" % rule['expr'])
        assert '"status":"success"' in answer, (rule['expr'], answer)


@pytest.mark.parametrize('arguments', [('rules', 'alerts.yaml'), ('config', 'prometheus.yaml')])
def test_prometheus_takes_the_files(arguments, tmp_path):
    promtool = os.path.join(PEERS, 'promtool')
    if not os.path.exists(promtool):
        pytest.skip('promtool is not unpacked below .cache/peers (./dev setup does it)')
    for name in ('alerts.yaml', 'prometheus.yaml'):
        shutil.copy(os.path.join(EXAMPLES, name), tmp_path)
    for name in ('ca.pem', 'operator.password'):
        (tmp_path / name).write_text('x')
    done = subprocess.run([promtool, 'check', *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def literals():
    """What the program's strings say, one a line, with … for what is printed into them."""
    out = []
    for folder, _, names in os.walk(os.path.join(TOP, 'src')):
        for name in names:
            if name.endswith(('.c', '.h')) and 'test' not in name:
                text = re.sub(r'"\s*\n?\s*"', '', read(folder, name))
                out += re.findall(r'"((?:[^"\\\n]|\\.)*)"', text)
    return '\n'.join(re.sub(r'%[-+ #0-9.*]*(?:l|ll|z|h)?[a-zA-Z]', '…', text) for text in out)


def test_messages_are_real():
    """What the guide quotes of the program is in its strings."""
    table = read(GUIDE).split('## When something fails')[1]
    quoted = [q for q in re.findall(r'`([^`]+)`', table) if re.search('[a-z] [a-z]', q) and not q.startswith(('kelpie ', 'openssl ', 'systemctl '))]
    pieces = {piece.strip(' .') for q in quoted for piece in re.split(r'…|\b\d+\b|: |\b[A-Z]{5,}\b|waiting for ', q) if len(piece) > 8}
    source = literals()
    assert len(pieces) >= 25
    assert [p for p in pieces if p not in source] == []


def test_unit(tmp_path):
    """systemd takes it as it is, but for where the program is."""
    if shutil.which('systemd-analyze') is None:
        pytest.skip('systemd-analyze is not here')
    unit = tmp_path / 'kelpie.service'
    unit.write_text(read(EXAMPLES, 'systemd/kelpie.service').replace('/usr/local/bin/kelpie', os.path.abspath(BINARY)))
    done = subprocess.run(['systemd-analyze', 'verify', str(unit)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and 'kelpie' not in done.stderr, done.stderr
    done = subprocess.run(['systemd-analyze', 'security', '--offline=yes', '--threshold=20', str(unit)], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stdout[-300:]   # of 100, less is better


def check_config(folder, command):
    env = dict(os.environ, AWS_ACCESS_KEY_ID='name', AWS_SECRET_ACCESS_KEY='secret')
    return subprocess.run([BINARY] + command + ['--check-config'], cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def test_what_is_commented_out_is_taken(tmp_path):
    """TLS and a user for the brokers."""
    text = read(EXAMPLES, 'systemd/node-1.yaml')
    assert text.count('    #tls:') == text.count('    #sasl:') == 1
    (tmp_path / 'kelpie.yaml').write_text(text.replace('    #tls:', '    tls:').replace('    #sasl:', '    sasl:'))
    for name in ('ca.pem', 'cluster.secret', 'kafka.password', 'operator.password'):
        (tmp_path / name).write_text('sixteen bytes and more\n')
    done = check_config(tmp_path, ['serve', '--config', 'kelpie.yaml'])
    assert done.returncode == 0, done.stderr


def test_the_three_configurations_differ_in_what_they_must():
    one = read(EXAMPLES, 'systemd/node-1.yaml')
    for n, zone in ((2, 'b'), (3, 'c')):
        other = read(EXAMPLES, 'systemd/node-%d.yaml' % n)
        assert other == one.replace('node-1', 'node-%d' % n).replace('kelpie-1', 'kelpie-%d' % n).replace('the node 1', 'the node %d' % n) \
            .replace('zone-a', 'zone-' + zone)


def test_compose(tmp_path):
    """Docker is not here: names, addresses, options, and properties that real brokers take in the other tests."""
    compose = yaml.safe_load(read(EXAMPLES, 'compose/compose.yaml'))
    services, config = compose['services'], yaml.safe_load(read(EXAMPLES, 'systemd/node-1.yaml'))
    assert sorted(services) == ['kafka-1', 'kafka-2', 'kafka-3', 'kelpie-1', 'kelpie-2', 'kelpie-3', 's3']
    aliases = {name: s['networks']['inside']['aliases'] for name, s in services.items()}
    assert aliases == {name: [name + '.example'] for name in services}
    assert config['log']['kafka']['bootstrap'] == ','.join('kafka-%d.example:9092' % n for n in NODES)
    assert config['blob']['s3']['endpoint'] == 'https://s3.example:7070' and services['s3']['environment']['VGW_PORT'] == ':7070'
    published = [p.split(':')[0] for s in services.values() for p in s.get('ports', [])]
    assert len(published) == len(set(published)) == 4
    for name, service in services.items():
        assert re.fullmatch(r'[a-z]+(/[a-z]+)*(:[a-zA-Z0-9.]+)?', service['image']) and service['restart'] == 'unless-stopped'
        for volume in service['volumes']:
            assert volume.startswith('./') or volume.split(':')[0] in compose['volumes']
    known = read(TOP, 'tests/services/kafka.sh') + 'broker.rack=\n'
    for n in NODES:
        kafka = services['kafka-%d' % n]['environment']
        assert kafka['KAFKA_NODE_ID'] == str(n) and kafka['KAFKA_ADVERTISED_LISTENERS'] == 'PLAINTEXT://kafka-%d.example:9092' % n
        for key in kafka.keys() - {'CLUSTER_ID'}:
            assert re.search(r'^%s=' % re.escape(key[6:].lower().replace('_', '.')), known, re.M), key
    assert len(services['kafka-1']['environment']['CLUSTER_ID']) == 22   # 16 bytes in base64
    for n in NODES:
        assert services['kelpie-%d' % n]['volumes'][0] == './node-%d:/etc/kelpie:ro' % n
        (tmp_path / 'web.yaml').write_text('')
        shutil.copy(os.path.join(EXAMPLES, 'systemd/node-%d.yaml' % n), tmp_path / 'kelpie.yaml')
        for name in ('ca.pem', 'cluster.secret', 'operator.password'):
            (tmp_path / name).write_text('sixteen bytes and more\n')
        command = [a.replace('/etc/kelpie/', '') for a in services['kelpie-%d' % n]['command']]
        done = check_config(tmp_path, command + ['--insecure'])   # this web.yaml has nothing in it
        assert done.returncode == 0, done.stderr


def test_the_image_has_what_the_program_is_linked_with():
    if shutil.which('readelf') is None or not os.path.isdir('/var/lib/dpkg/info'):
        pytest.skip('readelf or dpkg is not here')
    needed = re.findall(r'NEEDED.*\[(.*)\]', subprocess.run(['readelf', '-d', BINARY], capture_output=True, text=True, check=True).stdout)
    packages = set(read(EXAMPLES, 'compose/Dockerfile').split()) | {'libc6', 'libgcc-s1', 'libasan8', 'libubsan1'}
    files = {os.path.basename(line) for package in packages for path in glob.glob('/var/lib/dpkg/info/%s[.:]*list' % glob.escape(package))
             for line in read(path).splitlines()}
    assert needed and set(needed) <= files, set(needed) - files


def test_other_files():
    assert json.loads(read(EXAMPLES, 'bucket-policy.json'))['Statement']
    assert yaml.safe_load(read(EXAMPLES, 'grafana-datasource.yaml'))['datasources'][0]['type'] == 'prometheus'
    for path in re.findall(r'\]\(\.\./(examples[^)]*)\)', read(GUIDE)):
        assert os.path.exists(os.path.join(TOP, path)), path
