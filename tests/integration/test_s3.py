"""The S3 driver of the object store against two real stores on loopback: every call, races, a cache in front, refusals, a
store that is stopped and killed under load.

./dev test (or setup) fetches the programs before any test runs, pinned by version and checksum: tests/services/s3.sh get. A
store that is not there is skipped with the reason. KELPIE_S3_PORT is the first port that is tried for them (21000)."""
import contextlib
import http.server
import json
import os
import re
import socket
import subprocess
import threading
import time

import pytest

from conftest import BINARY, TOP

BATTERY = os.path.join(os.path.dirname(BINARY), 'tests/s3_battery')
SCRIPT = os.path.join(TOP, 'tests/services/s3.sh')
PORTS = int(os.environ.get('KELPIE_S3_PORT', 21000))
LOAD_SECONDS = 240
KEYS = {'S3_ACCESS': 'kelpie', 'S3_SECRET': 'kelpiesecret'}
RACES = {'versity': 30, 'weed': 2}   # SeaweedFS takes seconds for each, waiting for its own lock
OBJECTS = {'versity': 1500, 'weed': 900}   # put under load


def free_ports(count):
    """The first of so many free ports in a row, below those that the system gives to clients."""
    for first in range(PORTS, 32000, count):
        taken = []
        try:
            for port in range(first, first + count):
                taken.append(socket.socket())
                taken[-1].bind(('127.0.0.1', port))
            return first
        except OSError:
            continue
        finally:
            for s in taken:
                s.close()
    raise AssertionError('no free ports')


class Store:
    def __init__(self, kind, program, folder, **env):
        self.kind, self.folder, self.port = kind, str(folder), free_ports(8)
        self.env = dict(os.environ, S3_BIN=program, S3_TTL='900', **KEYS, **env)
        self.endpoint = 'http://127.0.0.1:%d' % self.port

    def script(self, verb, *more):
        done = subprocess.run(['bash', SCRIPT, verb, self.folder] + list(more), env=self.env, timeout=60,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stderr

    def start(self):
        self.script('start', self.kind, str(self.port))

    def destroy(self):
        """Whatever state it is in; a test that failed says why, not this."""
        subprocess.run(['bash', SCRIPT, 'destroy', self.folder], env=self.env, timeout=60)

    def command(self, bucket, *words):
        return [BATTERY, self.endpoint, bucket] + list(words)

    def call(self, bucket, *words, timeout=300, **env):
        done = subprocess.run(self.command(bucket, *words), env=dict(self.env, **env), capture_output=True, text=True,
                              timeout=timeout)
        print(done.stdout + done.stderr)
        return done.returncode, done.stdout + done.stderr


def program_of(kind):
    """The path of a store's program; the test is skipped with the reason if it is not there."""
    assert os.path.exists(BATTERY), '%s is not built' % BATTERY
    path = subprocess.run(['bash', SCRIPT, 'path', kind], capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    if not os.path.exists(path):
        pytest.skip('%s is not there (./dev setup fetches it, with a network)' % path)
    return path


@pytest.fixture(scope='module', params=['versity', 'weed'])
def store(request, tmp_path_factory):
    store = Store(request.param, program_of(request.param), tmp_path_factory.mktemp(request.param))
    try:
        store.start()
        assert store.call('bucket', 'make')[0] == 0
        yield store
    finally:
        store.destroy()


def test_every_call(store):
    status, text = store.call('bucket', 'battery', str(RACES[store.kind]))
    assert status == 0, text
    assert 'one winner each' in text and 'files: 12 MiB' in text and 'cache: 12 MiB' in text


def test_refusals(store):
    def refused(text, bucket='bucket', **env):
        status, said = store.call(bucket, 'open', **env)
        assert status == 1 and text in said, said
        assert KEYS['S3_SECRET'] not in said and 'not-this-one' not in said
    refused('not found: there is no bucket no-such-bucket', bucket='no-such-bucket')
    refused('SignatureDoesNotMatch', S3_SECRET='not-this-one')
    refused('access denied: ', S3_ACCESS='nobody')
    refused('clock is 7', S3_CLOCK_MS='7200000')
    refused("behind the store's", S3_CLOCK_MS='-7200000')
    assert store.call('bucket', 'open')[1] == 'OK\n'


def test_stopped_and_killed_under_load(store):
    count = OBJECTS[store.kind]
    load = subprocess.Popen(store.command('bucket', 'load', str(count)), env=store.env, stdout=subprocess.PIPE, text=True)
    seen = []
    watchdog = threading.Timer(LOAD_SECONDS, load.kill)   # ends the lines, too
    watchdog.start()
    try:
        for line in load.stdout:
            seen.append(line)
            if line == 'at %d\n' % (count // 6):
                store.script('pause')
                time.sleep(1)
                store.script('cont')
            if line in ('at %d\n' % (count // 3), 'at %d\n' % (count // 3 * 2)):
                store.script('kill')
                time.sleep(0.5)
                store.start()
        assert load.wait(60) == 0, 'ended after: ' + ''.join(seen[-5:])
    finally:
        watchdog.cancel()
        load.kill()
        load.wait()
    print(seen[-1])
    assert int(re.search(r'retries (\d+)', seen[-1]).group(1)) > 0
    assert store.call('bucket', 'verify', str(count))[0] == 0


def test_a_store_that_is_not_there(store):
    store.script('kill')   # SeaweedFS takes its time to stop
    status, text = store.call('bucket', 'open', timeout=60)
    assert status == 1 and 'cannot be used' in text, text
    store.start()
    assert store.call('bucket', 'open')[1] == 'OK\n'


def test_tls_and_hosts_of_buckets(tmp_path):
    """https with a certificate of its own, and the bucket as part of the host."""
    program = program_of('versity')
    cert, key = str(tmp_path / 'cert.pem'), str(tmp_path / 'key.pem')
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days',
                    '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,DNS:bucket.localhost', '-keyout',
                    key, '-out', cert], check=True, capture_output=True)
    store = Store('versity', program, tmp_path / 'store', VGW_CERT=cert, VGW_KEY=key, S3_TLS='1')
    store.env['VGW_VIRTUAL_DOMAIN'] = 'localhost:%d' % store.port
    store.endpoint = 'https://localhost:%d' % store.port
    try:
        store.start()
        assert store.call('bucket', 'make', S3_CA=cert)[0] == 0
        status, text = store.call('bucket', 'battery', '2', '20', S3_CA=cert, S3_VIRTUAL='1')
        assert status == 0 and 'one winner each' in text, text
        status, text = store.call('bucket', 'open', S3_CA=cert)
        assert status == 0, text
        status, text = store.call('bucket', 'open')
        assert status == 1 and text.startswith('access denied: ') and 'certificate' in text, text
    finally:
        store.destroy()


class Metadata(http.server.BaseHTTPRequestHandler):
    """IMDSv2: a token by PUT, then the role and its credentials with it."""
    expires = 3600

    def answer(self, status, text=''):
        self.send_response(status)
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self):
        good = self.path == '/latest/api/token' and self.headers.get('X-aws-ec2-metadata-token-ttl-seconds') == '21600'
        self.answer(200 if good else 400, 'a-token')

    def do_GET(self):
        roles = '/latest/meta-data/iam/security-credentials/'
        if self.headers.get('X-aws-ec2-metadata-token') != 'a-token':
            self.answer(401)
        elif self.path == roles:
            self.answer(200, 'a-role')
        elif self.path == roles + 'a-role':
            end = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + self.expires))
            self.answer(200, json.dumps({'Code': 'Success', 'AccessKeyId': KEYS['S3_ACCESS'], 'Token': '',
                                         'SecretAccessKey': KEYS['S3_SECRET'], 'Expiration': end}))
        else:
            self.answer(404)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def metadata(handler):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield 'http://127.0.0.1:%d' % server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_role_of_the_machine(store):
    with metadata(Metadata) as url:
        status, text = store.call('bucket', 'open', S3_METADATA=url, S3_SECRET='not-this-one')
        assert (status, text) == (0, 'OK\n')
    with metadata(type('Expired', (Metadata,), {'expires': -60})) as url:
        status, text = store.call('bucket', 'open', S3_METADATA=url)
        assert status == 1 and 'expired' in text, text
    status, text = store.call('bucket', 'open', S3_METADATA=url)
    assert status == 1 and 'no credentials from ' + url in text, text
