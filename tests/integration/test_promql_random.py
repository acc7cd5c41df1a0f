"""Random PromQL, from a seed that is printed, beside a real Prometheus 2.42: same answers, same errors, same order where
it is defined. Both hold the series of promql_data.py; promql_random.py makes the expressions, promql_rules.py knows what
2.42 does otherwise than the newest release. KELPIE_SIM=full asks many more, of a seed drawn anew; KELPIE_SEED=N repeats
a seed."""
import collections
import os
import pathlib
import random
import time
import zlib

import pytest

from conftest import Node, Process, peer
from promql_compare import Asker, Pair, When, load
from promql_data import T0_MS
from promql_random import Generator, damage
from promql_rules import RULES, explain_refusal, find

FULL = os.environ.get('KELPIE_SIM') == 'full'
QUERIES = 400000 if FULL else 3000
FIXED_SEED = 1
SOURCES = pathlib.Path(__file__).parents[2] / 'src' / 'promql'


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp('random')
    prometheus, node = Process(folder / 'prometheus', 'prometheus'), Node(folder / 'node')
    try:
        with open(folder / 'prometheus' / 'prometheus.yml', 'w', encoding='utf-8'):
            pass
        prometheus.launch([peer('prometheus'), '--config.file', folder / 'prometheus' / 'prometheus.yml',
                           '--storage.tsdb.path', folder / 'tsdb', '--web.listen-address=127.0.0.1:%d' % prometheus.port,
                           '--web.enable-remote-write-receiver', '--storage.tsdb.retention.time=100y',
                           '--storage.tsdb.min-block-duration=24h', '--storage.tsdb.max-block-duration=24h'])
        node.start()
        prometheus.wait_for('/-/ready')
        both = Pair(Asker(node.port), Asker(prometheus.port))
        load(both.ours, both.theirs)
        yield both
    finally:
        for process in (prometheus, node):
            process.end()


def draw(rng):
    """A query and when to ask it."""
    query = Generator(rng).one()
    at = T0_MS / 1000 + rng.randrange(-100, 2100) + 0.777
    if rng.random() < 0.5 or query.value == 't':
        return query, When(at)
    step = rng.choice([1, 7, 15, 30, 60, 300])
    return query, When(at, at + step * rng.randrange(0, 40), step)


def ask_many(pair, seed, count, capsys):
    explained, defects = collections.Counter(), []
    for i in range(count):
        query, when = draw(random.Random('%d/%d' % (seed, i)))
        whole = query.text
        found = find(pair, query, when)
        if found is None:
            continue
        difference, rule = found
        explained[rule] += 1
        if rule is None and len(defects) < 20:
            defects.append('#%d %s at %s\n    %s: %s\n    in %s' % (i, difference.text, difference.when,
                                                                  *difference.found, whole))
    with capsys.disabled():
        print('SEED=%d %d queries, explained: %s' % (seed, count, dict(explained)))
    assert not defects, 'SEED=%d: %d queries differ\n%s' % (seed, explained[None], '\n'.join(defects))


def test_fixed_seed(pair, capsys):
    ask_many(pair, FIXED_SEED, QUERIES, capsys)


def seed_of_sources():
    """Another one with each change of the language, the same for everyone who has the same sources: what the reference
    does otherwise and no rule knows yet shows where the change is made, not at some later run."""
    seed = 0
    for path in sorted(SOURCES.glob('*.[ch]')):
        seed = zlib.crc32(path.read_bytes(), seed)
    return seed


def test_another_seed(pair, capsys):
    drawn = time.time_ns() // 1000 % 1000000 if FULL else seed_of_sources()
    ask_many(pair, int(os.environ.get('KELPIE_SEED', drawn)), QUERIES, capsys)


def test_damaged_texts_are_judged_alike(pair, capsys):
    """Both read a text or both refuse it, as mistake of the text or of the evaluation."""
    seed, explained, defects = FIXED_SEED, collections.Counter(), []
    for i in range(QUERIES // 2):
        rng = random.Random('%d/%d' % (seed, i))
        text = damage(rng, Generator(rng).one(3).text)
        ours, theirs = (s.instant(text, T0_MS / 1000 + 900.777) for s in (pair.ours, pair.theirs))
        if (ours['status'], ours.get('errorType')) == (theirs['status'], theirs.get('errorType')):
            continue
        why = explain_refusal(ours, theirs, text)
        explained[why] += 1
        if why is None and len(defects) < 20:
            defects.append('%s\n    %s / %s' % (text, ours.get('error', 'answers'), theirs.get('error', 'answers')))
    with capsys.disabled():
        print('%d damaged texts, explained: %s' % (QUERIES // 2, dict(explained)))
    assert not defects, '\n'.join(defects)


def test_every_rule_says_what_changed():
    for rule in RULES:
        assert rule.__doc__ and len(rule.__doc__) > 40
