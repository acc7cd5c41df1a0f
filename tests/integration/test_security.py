"""The port closed: TLS, basic and bearer authentication by Prometheus' web configuration file."""
import base64
import crypt
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from conftest import Node


@pytest.fixture
def certificate(tmp_path):
    run = subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost',
                          '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', tmp_path / 'key.pem', '-out', tmp_path / 'cert.pem'],
                         capture_output=True)
    assert run.returncode == 0, run.stderr
    return tmp_path / 'cert.pem', tmp_path / 'key.pem'


def ask(node, path, scheme, context=None, **headers):
    request = urllib.request.Request('%s://127.0.0.1:%d%s' % (scheme, node.port, path), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as reply:
            return reply.status
    except urllib.error.HTTPError as e:
        return e.code


def test_tls_with_basic_and_bearer(tmp_path, start, certificate):
    hashed = crypt.crypt('secret', crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16))
    web = tmp_path / 'web.yaml'
    web.write_text('tls_server_config:\n  cert_file: %s\n  key_file: %s\nbasic_auth_users:\n  ann: %s\nbearer_tokens:\n  - token-of-a-machine\n'
                   % (*certificate, hashed))
    node = start(Node(tmp_path / 'node', arguments=['--web.config.file', web]))
    node.start(wait=False)
    context = ssl.create_default_context(cafile=str(certificate[0]))

    def basic(name, password):
        return 'Basic ' + base64.b64encode(('%s:%s' % (name, password)).encode()).decode()
    for _ in range(100):
        try:
            if ask(node, '/-/ready', 'https', context, Authorization=basic('ann', 'secret')) == 200:
                break
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.1)
    assert ask(node, '/api/v1/query?query=1', 'https', context, Authorization=basic('ann', 'secret')) == 200
    assert ask(node, '/api/v1/query?query=1', 'https', context, Authorization='Bearer token-of-a-machine') == 200
    assert ask(node, '/api/v1/query?query=1', 'https', context, Authorization=basic('ann', 'wrong')) == 401
    assert ask(node, '/api/v1/query?query=1', 'https', context, Authorization='Bearer nonsense') == 401
    assert ask(node, '/api/v1/query?query=1', 'https', context) == 401
    with pytest.raises((OSError, urllib.error.URLError)):
        ask(node, '/api/v1/query?query=1', 'http')


def test_wrong_web_configuration_is_refused(tmp_path):
    from conftest import run_kelpie
    web = tmp_path / 'web.yaml'
    web.write_text('tls_server_confg: {}\n')
    run = run_kelpie('serve', '--data', tmp_path / 'd', '--http', '127.0.0.1:0', '--web.config.file', web, timeout=20)
    assert run.returncode != 0 and 'tls_server_confg' in run.stderr


def test_certificates_reload_both_ways(tmp_path, start, certificate):
    """By SIGHUP and by /-/reload, the file of the same name with another certificate is served."""
    web = tmp_path / 'web.yaml'
    web.write_text('tls_server_config:\n  cert_file: %s\n  key_file: %s\n' % certificate)
    node = start(Node(tmp_path / 'node', arguments=['--web.config.file', web]))
    node.start(wait=False)
    context = ssl._create_unverified_context()

    def served():
        return ssl.get_server_certificate(('127.0.0.1', node.port)).strip()

    def wait_for(text):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                if served() == text and ask(node, '/-/ready', 'https', context) == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        assert served() == text

    def renew():
        run = subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost',
                              '-keyout', certificate[1], '-out', certificate[0]], capture_output=True)
        assert run.returncode == 0, run.stderr
        return certificate[0].read_text().strip()

    wait_for(certificate[0].read_text().strip())
    second = renew()
    request = urllib.request.Request('https://127.0.0.1:%d/-/reload' % node.port, method='POST')
    with urllib.request.urlopen(request, timeout=10, context=context) as reply:
        assert reply.status == 200
    wait_for(second)
    third = renew()
    node.process.send_signal(signal.SIGHUP)
    wait_for(third)
