"""The port closed: TLS, basic and bearer authentication by Prometheus' web configuration file."""
import base64
import crypt
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
