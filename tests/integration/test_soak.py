"""The verdict of `./dev bench soak` on made-up samples: a node that grows is found, one that breathes is not."""
import os
import random
import sys

from conftest import TOP

sys.path.insert(0, os.path.join(TOP, 'bench'))
import soak  # noqa: E402


def samples(resident, descriptors):
    """One sample a second of a run of 30 minutes: resident(minute) in MB and descriptors(minute), with noise."""
    chance = random.Random(1)
    return [(t, resident(t / 60) * 1e6 * chance.uniform(0.9, 1.1), descriptors(t / 60) + chance.randrange(3), 60e6)
            for t in range(1800)]


def bad(rows):
    return [text.split(':')[0] for text, good in rows if not good]


def test_a_steady_node_is_good():
    assert bad(soak.growth(samples(lambda m: 300, lambda m: 80), 60)) == []


def test_a_leak_of_memory_is_found_in_one_life():
    begun = [5, 24]   # what a restart gives back

    def resident(minute):
        return 300 + 2 * (minute - max([b for b in begun if b <= minute] or [0]))
    assert bad(soak.growth(samples(resident, lambda m: 80), 60)) == ['resident bytes, same process']


def test_memory_that_grows_with_the_data_is_found():
    assert 'resident bytes, equal age' in bad(soak.growth(samples(lambda m: 300 + 2 * m, lambda m: 80), 60))


def test_descriptors_that_are_not_closed_are_found():
    found = bad(soak.growth(samples(lambda m: 300, lambda m: 80 + m), 60))
    assert found == ['descriptors, same process', 'descriptors, equal age']


def test_a_run_that_was_cut_short_is_not_good():
    assert len(bad(soak.growth(samples(lambda m: 300, lambda m: 80)[:700], 60))) == 6
