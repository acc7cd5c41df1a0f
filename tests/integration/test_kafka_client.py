"""The Kafka client against three real brokers: every call once, and a load of numbered records while a leader is killed and
another is paused. The checker is tests/services/kafka_probe.c; it prints what happened."""
import os
import subprocess
import time

import pytest

from kafka_fixture import Load, cluster, probe_path, three_brokers  # noqa: F401 (a fixture)


@pytest.fixture
def probe():
    return probe_path('kafka_probe')


def test_calls(three_brokers, probe):  # noqa: F811
    run = subprocess.run([probe, 'check', three_brokers.bootstrap, 'calls'], capture_output=True, text=True, timeout=180)
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr


def test_leaders_die_and_freeze(three_brokers, probe, tmp_path):  # noqa: F811
    with Load(tmp_path, probe, 'load', three_brokers.bootstrap, 'numbers', '50', '4000') as load:
        time.sleep(5)
        three_brokers.kill(1)   # leads one of the four partitions at least
        time.sleep(8)
        three_brokers.up(1)
        time.sleep(5)
        three_brokers.pause(2)  # it still leads what it did
        time.sleep(12)
        three_brokers.resume(2)
        load.must_succeed(240, r'(numbers|gap_s|lost|fatal|number |event )')


@pytest.fixture
def secure(tmp_path_factory):
    """One broker that asks for TLS and SCRAM on the port 11 above its block's first; yields (broker, certificate)."""
    folder = tmp_path_factory.mktemp('tls')
    for name in ('server', 'other'):
        subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=127.0.0.1',
                        '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', str(folder / (name + '.key')),
                        '-out', str(folder / (name + '.crt'))], check=True, capture_output=True)
    (folder / 'server.pem').write_text((folder / 'server.key').read_text() + (folder / 'server.crt').read_text())

    def conf(port):
        listener = 'SECURE://127.0.0.1:%d' % (port + 11)
        return """listeners=PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d,%s
advertised.listeners=PLAINTEXT://127.0.0.1:%d,%s
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location=%s
""" % (port + 1, port + 21, listener, port + 1, listener, folder / 'server.pem')

    for kafka in cluster(tmp_path_factory, 1, conf):
        kafka.order('user', 'alice', 'wonderland')
        yield kafka, folder


def test_login(secure, probe):
    kafka, folder = secure
    bootstrap = '127.0.0.1:%d' % (kafka.port + 11)
    for password, ca, answer in (('wonderland', 'server.crt', 'answer=not found denied=0'),
                                 ('wonderlamb', 'server.crt', 'answer=deadline passed denied=1'),
                                 ('wonderland', 'other.crt', 'answer=deadline passed denied=1')):
        env = dict(os.environ, PROBE_USER='alice', PROBE_PASSWORD=password, PROBE_CA=str(folder / ca))
        run = subprocess.run([probe, 'login', bootstrap, 'any'], capture_output=True, text=True, timeout=60, env=env)
        print(run.stdout)
        assert run.returncode == 0 and answer in run.stdout, run.stdout + run.stderr
        assert password not in run.stdout
