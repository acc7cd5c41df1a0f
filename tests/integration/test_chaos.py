"""The reduced set of `./dev chaos`: real faults under load, every answer held against what was acknowledged. And its checker,
held against answers that are wrong.

What is asserted of the cluster are the promises (nothing lost, nothing twice, no answer called complete that is not) and that all
of it heals; the thresholds in seconds are `./dev chaos`'s own, for a machine that does nothing else."""
import os
import subprocess
import sys
import time

import pytest

from conftest import BINARY, TOP

sys.path.insert(0, os.path.join(TOP, 'tools'))
import chaos_load  # noqa: E402
from chaos_load import Answer, Load, SERIES  # noqa: E402

SECONDS_MAX = 1500   # minutes, beside other work
ACKED, SENT = 30, 31   # of each client, up to these numbers


def test_faults_under_load(tmp_path, capsys):
    run = subprocess.run([sys.executable, os.path.join(TOP, 'tools/run_chaos.py'), '--reduced', '--promises', '--folder', str(tmp_path)],
                         capture_output=True, text=True, timeout=SECONDS_MAX, env=dict(os.environ, KELPIE_BINARY=BINARY))
    if run.returncode == 2:
        pytest.skip(run.stderr.strip())
    with capsys.disabled():
        print('\n' + '\n'.join(line for line in run.stdout.split('\n') if line.startswith('chaos:') or ': kept, ' in line))
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]


class OneNode:
    """In the place of a balancer, and of a world's addresses."""
    def pick(self):
        return 1

    def failed(self, node):
        pass

    def url(self, node):
        return 'http://127.0.0.1:1'


class Liar(Load):
    """A load that has written for a while and is answered what the test says."""
    def __init__(self, answer):
        super().__init__(OneNode(), OneNode(), 'x', seed=1)
        self.says, self.begun = answer, time.monotonic() - (SENT + 0.5) * self.interval_ms / 1000
        for w in self.writers:
            w.acked_at, w.sent = [self.begun + n * self.interval_ms / 1000 for n in range(ACKED + 1)], SENT

    def ask(self, node, query, t_ms, strong, timeout=0):
        self.query = query
        return self.says(self)


def newest(numbers, complete=True):
    return lambda load: Answer(200, complete, '', [
        {'metric': {'i': '%04d' % i}, 'value': [0, str(float(n))]} for i, n in enumerate(numbers)])


def rows(numbers, complete=True, late_ms=0):
    return lambda load: Answer(200, complete, '', [
        {'metric': {}, 'values': [[(load.t_ms(n) + late_ms) / 1000, str(float(n))] for n in numbers]}])


def number(value, complete=True):
    return lambda load: Answer(200, complete, '', [{'metric': {}, 'value': [0, str(float(value))]}])


ALL = range(SENT + 1)
WRONG = [   # kind, answer, what is said of it
    ('newest', newest([ACKED] * (SERIES - 1)), 'of %d series' % SERIES),
    ('newest', newest([ACKED] * (SERIES - 1) + [ACKED - 1]), 'the oldest at %d' % (ACKED - 1)),
    ('newest', newest([SENT + 1] + [ACKED] * (SERIES - 1), complete=False), 'was not sent'),
    ('rows', rows([n for n in ALL if n != 7]), '1 samples lack, the first 7'),
    ('rows', rows(range(ACKED)), '1 samples lack, the first %d' % ACKED),
    ('rows', rows([]), 'samples lack'),
    ('rows', rows([*ALL, SENT], complete=False), 'twice'),
    ('rows', rows(ALL, late_ms=1), 'was not sent'),
    ('rows', rows(range(SENT + 2)), 'was not sent'),
    ('count', number((ACKED + 1) * SERIES - 1), 'acknowledged'),
    ('count', number((SENT + 1) * SERIES + 1, complete=False), 'sent'),
    ('sum', number(ACKED * SERIES - 1), 'acknowledged'),
    ('sum', number(SENT * SERIES + 1, complete=False), 'at most'),
]
RIGHT = [
    ('newest', newest([ACKED] * (SERIES - 1) + [SENT])),
    ('newest', newest([ACKED - 9] * 5, complete=False)),
    ('rows', rows(ALL)),
    ('rows', rows(range(5, 9), complete=False)),
    ('count', number((ACKED + 1) * SERIES)),
    ('count', number(17, complete=False)),
    ('sum', number(ACKED * SERIES)),
    ('sum', number(0, complete=False)),
]


@pytest.mark.parametrize('kind, answer, text', WRONG)
def test_the_checker_sees(kind, answer, text):
    load = Liar(answer)
    getattr(load, 'check_' + kind)(True, 0)
    assert len(load.failures) == 1 and text in load.failures[0], load.failures


@pytest.mark.parametrize('kind, answer', RIGHT)
def test_the_checker_takes(kind, answer):
    load = Liar(answer)
    getattr(load, 'check_' + kind)(True, 0)
    assert load.failures == [] and load.answered == 1


def test_a_plain_read_may_be_a_little_late():
    late = int(chaos_load.STALE_SECONDS * 1000 / chaos_load.INTERVAL_MS)
    for behind, is_good in ((late - 2, True), (late + 3, False)):
        load = Liar(newest([ACKED - behind] * SERIES))
        load.check_newest(False, 0)
        assert load.failures == [] and (load.late == []) == is_good, (behind, load.late)
        assert load.stalest > 0


@pytest.mark.parametrize('kind, answer, text', [w for w in WRONG if 'twice' in w[2] or 'sent' in w[2] or 'at most' in w[2]])
def test_a_plain_read_may_invent_nothing(kind, answer, text):
    load = Liar(answer)
    getattr(load, 'check_' + kind)(False, 0)
    assert len(load.failures) == 1 and text in load.failures[0] and load.late == [], load.failures


def audit_says(count_off=0, sum_off=0, series=SERIES, complete=True):
    def says(load):
        if not load.query.startswith(('count', 'sum')):
            return rows(range(ACKED + 1))(load)
        value = ACKED + 1 + count_off if load.query.startswith('count') else ACKED * (ACKED + 1) // 2 + sum_off
        return Answer(200, complete, '', [{'metric': {}, 'value': [0, str(value)]}] * series)
    return says


@pytest.mark.parametrize('wrong, text', [
    ({}, None), ({'count_off': -1}, 'count_over_time is not'), ({'count_off': 1}, 'count_over_time is not'),
    ({'sum_off': 1}, 'sum_over_time is not'), ({'series': SERIES - 1}, '%d series' % (SERIES - 1)),
    ({'complete': False}, 'no complete answer')])
def test_the_audit_sees(wrong, text):
    load = Liar(audit_says(**wrong))
    for w in load.writers:
        w.sent = ACKED
    load.audit([1], seconds=0)
    assert (load.failures == []) if text is None else text in load.failures[0], load.failures
