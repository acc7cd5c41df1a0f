"""The log's Kafka driver against three real brokers: a leader is killed, another is frozen and goes on, all are restarted, while
numbered appends are written and read by two nodes. The checker is tests/services/log_probe.c; it prints what happened."""
import subprocess
import time

import pytest

from kafka_fixture import Load, probe_path, three_brokers  # noqa: F401 (a fixture)


@pytest.fixture
def probe():
    return probe_path('log_probe')


def test_brokers_die_freeze_and_restart(three_brokers, probe, tmp_path):  # noqa: F811
    with Load(tmp_path, probe, 'load', three_brokers.bootstrap, 'records', '35', '500') as load:
        time.sleep(2)
        three_brokers.kill(1)   # leads one of the four partitions at least
        time.sleep(4)
        three_brokers.up(1)
        time.sleep(2)
        three_brokers.pause(2)  # it still leads what it did
        time.sleep(8)
        three_brokers.resume(2)
        time.sleep(2)
        three_brokers.restart()
        load.must_succeed(120, r'(numbers|lost)=')


def test_appends_do_not_wait(three_brokers, probe):  # noqa: F811
    run = subprocess.run([probe, 'latency', three_brokers.bootstrap, 'turns', '200'], capture_output=True, text=True, timeout=120)
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
