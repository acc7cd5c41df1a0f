"""Asks two servers the same PromQL, compares, and follows a difference down to the smallest expression that differs.

The reference is Prometheus 2.42; Kelpie follows the newest release. Where the two differ by intent, a rule below
recognises it: each names the change and the release that made it. A rule sees the smallest differing expression only,
so that it cannot hide a difference elsewhere."""
import http.client
import json
import math
import urllib.parse

from promql_data import data_set
from remote_write import HEADERS_V1, request_v1

TOLERANCE = 1e-9


class Asker:
    """One kept connection to a server. headers and arguments go with every question."""
    def __init__(self, port, headers=None, **arguments):
        self.connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
        self.headers, self.arguments = headers or {}, arguments

    def post(self, path, body, headers):
        self.connection.request('POST', path, body, headers)
        reply = self.connection.getresponse()
        return reply.status, reply.read()

    def ask(self, path, arguments):
        status, body = self.post(path, urllib.parse.urlencode(dict(arguments, **self.arguments)).encode(),
                                 dict(self.headers, **{'Content-Type': 'application/x-www-form-urlencoded'}))
        answer = json.loads(body)
        answer['code'] = status
        return answer

    def instant(self, text, at):
        return self.ask('/api/v1/query', {'query': text, 'time': '%.3f' % at})

    def range(self, text, start, end, step):
        return self.ask('/api/v1/query_range', {'query': text, 'start': '%.3f' % start, 'end': '%.3f' % end, 'step': step})


def load(*servers):
    """The same requests to each server, in time order: the reference takes nothing older than its newest sample."""
    samples = sorted((t, i, v) for i, (_, list_) in enumerate(data_set()) for t, v in ((a, b) for a, b in list_)
                     for t, v in [(t, Wrapped(v))])
    labels = [l for l, _ in data_set()]
    for at in range(0, len(samples), 5000):
        by_series = {}
        for t, i, v in samples[at:at + 5000]:
            by_series.setdefault(i, []).append((t, v.value))
        body = request_v1([(labels[i], s) for i, s in sorted(by_series.items())])
        for server in servers:
            status, reply = server.post('/api/v1/write', body, HEADERS_V1)
            assert status in (200, 204), reply


class Wrapped:
    """A value that sorting never compares by size."""
    def __init__(self, value):
        self.value = value

    def __lt__(self, other):
        return False


# ---- comparing

def same(a, b, tolerance=TOLERANCE):
    x, y = float(a), float(b)
    if math.isnan(x) or math.isnan(y):
        return math.isnan(x) and math.isnan(y)
    return x == y or abs(x - y) <= tolerance * max(abs(x), abs(y))


def key_of(series):
    return tuple(sorted(series['metric'].items()))


def points_of(series):
    return series['values'] if 'values' in series else [series['value']]


def difference(ours, theirs, tolerance=TOLERANCE):
    """(what, detail) of the first difference between two answers, None when there is none. what: error, type, series,
    times, value."""
    if (ours['status'] == 'success') != (theirs['status'] == 'success'):
        return 'error', '%s / %s' % (ours.get('error', 'answers'), theirs.get('error', 'answers'))
    if ours['status'] != 'success':
        if ours['errorType'] != theirs['errorType'] or ours['code'] != theirs['code']:
            return 'error type', '%s %s %s / %s %s %s' % (ours['code'], ours['errorType'], ours['error'],
                                                         theirs['code'], theirs['errorType'], theirs['error'])
        return None
    ours, theirs = ours['data'], theirs['data']
    if ours['resultType'] != theirs['resultType']:
        return 'type', '%s / %s' % (ours['resultType'], theirs['resultType'])
    if ours['resultType'] == 'string':
        return None if ours['result'] == theirs['result'] else ('value', '%s / %s' % (ours['result'], theirs['result']))
    if ours['resultType'] == 'scalar':
        if same(ours['result'][1], theirs['result'][1], tolerance):
            return None
        return 'value', '%s / %s' % (ours['result'][1], theirs['result'][1])
    left, right = ({key_of(s): s for s in d['result']} for d in (ours, theirs))
    if len(left) != len(ours['result']):
        return 'series', 'a label set twice here'
    if set(left) != set(right):
        return 'series', 'only here %s, only there %s' % (sorted(set(left) - set(right))[:3], sorted(set(right) - set(left))[:3])
    for key, s in left.items():
        a, b = points_of(s), points_of(right[key])
        if [p[0] for p in a] != [p[0] for p in b]:
            return 'times', '%s: %s / %s' % (key, [p[0] for p in a][:4], [p[0] for p in b][:4])
        for p, q in zip(a, b):
            if not same(p[1], q[1], tolerance):
                return 'value', '%s at %s: %s / %s' % (key, p[0], p[1], q[1])
    return None


def order_difference(ours, theirs):
    """Of sort() and sort_desc(): the sequence of values."""
    a, b = ([p['value'][1] for p in d['data']['result']] for d in (ours, theirs))
    if any(not same(x, y) for x, y in zip(a, b)):
        return 'order', '%s / %s' % (a[:6], b[:6])
    return None


def first_time(ours, theirs):
    """The first time at which two matrices differ, None when they do not."""
    left, right = ({key_of(s): dict((p[0], p[1]) for p in points_of(s)) for s in d['data']['result']} for d in (ours, theirs))
    times = set()
    for key in set(left) | set(right):
        a, b = left.get(key, {}), right.get(key, {})
        times.update(t for t in set(a) | set(b) if t not in a or t not in b or not same(a[t], b[t]))
    return min(times) if times else None


class When:
    """The times of a query: an instant, or start, end and step."""
    def __init__(self, start, end=None, step=None):
        self.start, self.end, self.step = start, start if end is None else end, step

    def fix(self, node):
        """Write the query's start and end where a tree says start() and end(), so that a part of it can be asked at
        another time."""
        node.text = node.text.replace('start()', '%.3f' % self.start).replace('end()', '%.3f' % self.end)
        for child in node.children:
            self.fix(child)

    def __str__(self):
        return '%.3f' % self.start if self.step is None else '%.3f … %.3f step %s' % (self.start, self.end, self.step)


class Pair:
    """Kelpie and the reference."""
    def __init__(self, ours, theirs):
        self.ours, self.theirs = ours, theirs
        self.asked = 0

    def ask(self, text, when, ordered=False):
        """(difference or None, our answer, their answer); ordered: the order of an instant answer counts"""
        self.asked += 1
        if when.step is not None:
            ours, theirs = (s.range(text, when.start, when.end, when.step) for s in (self.ours, self.theirs))
            return difference(ours, theirs), ours, theirs
        ours, theirs = (s.instant(text, when.start) for s in (self.ours, self.theirs))
        found = difference(ours, theirs)
        if found is None and ours['status'] == 'success' and ordered:
            found = order_difference(ours, theirs)
        return found, ours, theirs

    def ask_node(self, node, when):
        return self.ask(node.text, when, node.op in ('sort', 'sort_desc'))

    def smallest(self, node, when):
        """(node, when, difference, ours, theirs) of the smallest expression below node that differs; None when node
        does not. A range query is followed down as instant queries at the first time that differs, and as range
        queries where only those differ."""
        found, ours, theirs = self.ask_node(node, when)
        if found is None:
            return None
        if when.step is not None:
            t = when.start
            if ours['status'] == theirs['status'] == 'success':
                t = first_time(ours, theirs)
            below = None if t is None else self.smallest(node, When(t))
            if below is not None:
                return below
        for child in node.children:
            if when.step is not None and child.value not in ('v', 's'):
                continue
            for inner in self.inner(node, when):
                below = self.smallest(child, inner)
                if below is not None:
                    return below
        return node, when, found, ours, theirs

    def inner(self, node, when):
        """When to ask the expression inside a node."""
        if node.op != 'subquery':
            return [when]
        _, ours, theirs = self.ask(node.text, when)
        if ours['status'] != 'success' or theirs['status'] != 'success':
            return [When(math.floor(when.start / 60) * 60 - 60 * i) for i in range(4)]
        t = first_time(ours, theirs)
        return [] if t is None else [When(t)]
