"""The hand-made series that random PromQL is asked over: written to Kelpie and to the reference alike.

Samples are 15 s apart and 3 ms behind a full second, evaluation times are 777 ms behind one, `@` times 300 ms, and
all durations are whole seconds: no sample ever lies on the left end of a range or of the lookback, which is where
Prometheus 2.42 (closed) and 3.x (open) differ. What the series are for is said at each."""
import math
import random
import struct

T0_MS = 1_700_000_000_000   # the first sample is 3 ms later
STEP_MS = 15_000
COUNT = 120                 # half an hour
STALE = struct.pack('<Q', 0x7FF0000000000002)
NAN = struct.pack('<Q', 0x7FF8000000000001)


def times(count=COUNT, step_ms=STEP_MS, first=0):
    return [T0_MS + 3 + (first + i) * step_ms for i in range(count)]


def counter(rng, up, reset_every=0, start=0.0):
    """A counter that grows by whole or fractional steps and falls to zero now and then."""
    values, v = [], start
    for i in range(COUNT):
        v += rng.choice(up)
        if reset_every and i % reset_every == reset_every - 1:
            v = rng.choice([0, 1, 2.5])
        values.append(v)
    return values


def gauges(rng):
    """Ordinary gauges; some series lack a label, one name has a single series without labels."""
    out = []
    for job in ('api', 'db'):
        for instance in ('a', 'b', 'c'):
            labels = {'__name__': 'g', 'job': job, 'instance': instance}
            if instance == 'c':
                labels['zone'] = 'eu'
            values, v = [], rng.choice([0, 10, -5, 100])
            for _ in range(COUNT):
                v += rng.choice([-3, -1.5, -1, 0, 0, 0.25, 1, 2, 4])
                values.append(v)
            out.append((labels, list(zip(times(), values))))
    out.append(({'__name__': 'g', 'job': 'api'}, [(t, 7) for t in times()]))
    out.append(({'__name__': 'lone'}, [(t, math.sin(i / 7) * 20) for i, t in enumerate(times())]))
    for job in ('api', 'db', 'web'):
        out.append(({'__name__': 'limit', 'job': job, 'zone': 'eu' if job == 'db' else 'us'},
                    [(t, {'api': 50, 'db': 100, 'web': -1}[job]) for t in times()]))
    for instance, version in (('a', '1.2'), ('b', '1.10'), ('c', '2.0')):
        out.append(({'__name__': 'build', 'instance': instance, 'version': version}, [(t, 1) for t in times()]))
    return out


def counters(rng):
    """Counters: with resets, beginning late near zero (the extrapolation to zero), standing still, irregular."""
    out = []
    for job in ('api', 'db'):
        for instance in ('a', 'b'):
            for code in ('200', '500'):
                values = counter(rng, [0, 1, 2, 3.5, 10], reset_every=rng.choice([0, 17, 40]))
                out.append(({'__name__': 'c_total', 'job': job, 'instance': instance, 'code': code},
                            list(zip(times(), values))))
    out.append(({'__name__': 'late_total', 'job': 'api'},
                [(t, v) for i, (t, v) in enumerate(zip(times(), counter(rng, [1, 2]))) if i > 40]))
    out.append(({'__name__': 'late_total', 'job': 'db'},
                [(t, v + 1000) for i, (t, v) in enumerate(zip(times(), counter(rng, [1, 2]))) if 20 < i < 90]))
    out.append(({'__name__': 'still_total', 'job': 'api'}, [(t, 12) for t in times()]))
    at, samples, v = T0_MS + 3, [], 0.0
    while at < T0_MS + COUNT * STEP_MS:
        v += rng.choice([0, 0.5, 3])
        samples.append((at, v))
        at += 1000 * rng.choice([1, 5, 14, 15, 16, 31, 60, 200])
    out.append(({'__name__': 'uneven_total', 'job': 'api'}, samples))
    return out


def broken(rng):
    """Gaps beyond the lookback, stale markers, series that end and begin, NaN, infinities, negative zero, extremes."""
    out = []
    out.append(({'__name__': 'gap', 'kind': 'hole'},
                [(t, i) for i, t in enumerate(times()) if not 30 <= i < 60]))
    out.append(({'__name__': 'gap', 'kind': 'stale'},
                [(t, STALE if i in (20, 21, 70) else i % 9) for i, t in enumerate(times()) if not 70 < i < 80]))
    out.append(({'__name__': 'gap', 'kind': 'ends'}, [(t, STALE if i == 50 else 3) for i, t in enumerate(times(51))]))
    out.append(({'__name__': 'gap', 'kind': 'begins'}, [(t, i) for i, t in enumerate(times(60, first=60))]))
    out.append(({'__name__': 'gap', 'kind': 'flaps'},
                [(t, STALE if i % 4 == 3 else float(i)) for i, t in enumerate(times())]))
    odd = {'nan': [NAN], 'inf': [math.inf], 'ninf': [-math.inf], 'zero': [0.0, -0.0],
           'mixed': [1.0, NAN, 3, math.inf, -2, -math.inf, 0.0, -0.0, 5], 'huge': [1e308, 1.5e308, -1e308, 1e300],
           'tiny': [5e-324, 1e-310, -1e-320, 2e-308], 'sign': [-1, 1, -0.5, 0.5],
           'rare_nan': [1, 2, 3, 4, NAN, 5, 6], 'big': [2.0**53, 2.0**53 + 2, 1e16, 1.0]}
    for kind, values in odd.items():
        out.append(({'__name__': 'odd', 'kind': kind}, [(t, values[i % len(values)]) for i, t in enumerate(times())]))
    for name, step in (('twin_a', 1), ('twin_b', 2)):   # equal but for their names
        for l in ('x', 'y'):
            out.append(({'__name__': name, 'l': l}, [(t, i * step + (l == 'y')) for i, t in enumerate(times())]))
    for name, first, last in (('early', 0, 55), ('after', 65, 120)):   # equal but for their names, never together
        out.append(({'__name__': name, 'l': 'x'}, [(t, i) for i, t in enumerate(times()) if first <= i < last]))
    for i in range(12):   # many, with ties
        out.append(({'__name__': 'many', 'n': str(i), 'even': str(i % 2 == 0).lower()},
                    [(t, rng.choice([i, i // 3, 4])) for t in times()]))
    out.append(({'__name__': 'words', 'path': '/a/b-c', 'text': 'é "q" \\ n\nl', 'empty_not': 'x'}, [(t, 2) for t in times()]))
    out.append(({'__name__': 'words', 'path': '/a/d', 'text': 'plain'}, [(t, 5) for t in times()]))
    return out


def histograms(rng):
    """Classic histograms: good ones, decreasing buckets, no +Inf bucket, malformed bounds, equal bounds."""
    def buckets(name, bounds, labels, bend=None):
        counts, out = [0.0] * len(bounds), [[] for _ in bounds]
        for i, t in enumerate(times()):
            for k in range(len(bounds)):
                if k >= rng.randrange(len(bounds)):
                    counts[k] += 1
            total = 0.0
            for k in range(len(bounds)):
                total += counts[k]
                out[k].append((t, bend(i, k, total) if bend else total))
        return [(dict(labels, __name__=name, le=le), s) for le, s in zip(bounds, out)]
    good = ['0.1', '0.5', '1', '2.5', '10', '+Inf']
    out = buckets('h_bucket', good, {'job': 'api'}) + buckets('h_bucket', good, {'job': 'db'})
    out += buckets('neg_bucket', ['-10', '-1', '0', '5', '+Inf'], {})
    out += buckets('dent_bucket', good, {}, lambda i, k, v: v * (0.5 if k == 3 and i % 3 == 0 else 1))
    out += buckets('noinf_bucket', good[:-1], {})
    out += buckets('one_bucket', ['+Inf'], {})
    out += buckets('zero_bucket', good, {}, lambda i, k, v: 0)
    out += buckets('bad_bucket', good + ['abc', '1e999', ''], {'job': 'x'})[:-1]
    out += buckets('same_bucket', ['1', '1.0', '2', '+Inf', 'Inf'], {})
    out += buckets('infs_bucket', ['-Inf', '1', '+Inf'], {})
    for suffix in ('sum', 'count'):
        for job in ('api', 'db'):
            out.append(({'__name__': 'h_' + suffix, 'job': job},
                        list(zip(times(), counter(rng, [0.5, 1, 2] if suffix == 'sum' else [1, 2])))))
    return out


def data_set():
    """[(labels, [(t_ms, value or eight raw bytes)])], the same at every call."""
    rng = random.Random(20)
    return gauges(rng) + counters(rng) + broken(rng) + histograms(rng)


# What a random selector may choose: name, labels with values that occur, weight.
METRICS = {
    'g': {'job': ['api', 'db'], 'instance': ['a', 'b', 'c'], 'zone': ['eu']},
    'lone': {}, 'limit': {'job': ['api', 'db', 'web'], 'zone': ['eu', 'us']},
    'build': {'instance': ['a', 'b', 'c'], 'version': ['1.2', '1.10', '2.0']},
    'c_total': {'job': ['api', 'db'], 'instance': ['a', 'b'], 'code': ['200', '500']},
    'late_total': {'job': ['api', 'db']}, 'still_total': {'job': ['api']}, 'uneven_total': {'job': ['api']},
    'gap': {'kind': ['hole', 'stale', 'ends', 'begins', 'flaps']},
    'odd': {'kind': ['nan', 'inf', 'ninf', 'zero', 'mixed', 'huge', 'tiny', 'sign', 'rare_nan', 'big']},
    'twin_a': {'l': ['x', 'y']}, 'twin_b': {'l': ['x', 'y']}, 'early': {'l': ['x']}, 'after': {'l': ['x']},
    'many': {'n': [str(i) for i in range(12)], 'even': ['true', 'false']},
    'words': {'path': ['/a/b-c', '/a/d'], 'text': ['plain']},
    'h_bucket': {'job': ['api', 'db'], 'le': ['0.1', '1', '+Inf']}, 'h_sum': {'job': ['api', 'db']},
    'h_count': {'job': ['api', 'db']}, 'dent_bucket': {'le': ['1']}, 'noinf_bucket': {'le': ['1']},
    'neg_bucket': {'le': ['0']}, 'bad_bucket': {'le': ['abc']}, 'same_bucket': {'le': ['1']},
    'one_bucket': {}, 'zero_bucket': {}, 'infs_bucket': {}, 'nothing_here': {'job': ['api']},
}
BUCKETS = ['h_bucket', 'dent_bucket', 'noinf_bucket', 'neg_bucket', 'bad_bucket', 'same_bucket', 'one_bucket',
           'zero_bucket', 'infs_bucket']
