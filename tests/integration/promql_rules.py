"""The differences between Prometheus 2.42 and its newest release that random PromQL meets, one rule each.

A rule gets a Difference: the smallest expression that differs, what differs, both answers. It returns True when the
difference is exactly the one its docstring names. Everything else is a defect of Kelpie or of this file.

Each was looked up in the newest sources (promql/engine.go, functions.go, quantile.go, parser); "newer" means a release
after 2.42 whose number was not looked up. Ranges and the lookback, open at their left end since 3.0, make no
difference here: promql_data.py keeps samples off the edges; tests/scenario/windows.test and selectors.test hold them.
Functions that 2.42 lacks (first_over_time, histogram_avg, histogram_stddev, histogram_stdvar, histogram_fraction of classic
buckets) are not generated; annotations, which 2.42 hardly has, are in the scripts."""
import math
import re
from fractions import Fraction

from promql_compare import When, difference, key_of, points_of, same

COMPARES = re.compile(r'==|!=|>=|<=|[<>]')
SUMS = ('sum', 'avg', 'stddev', 'stdvar', 'sum_over_time', 'avg_over_time', 'stddev_over_time', 'stdvar_over_time',
        'deriv', 'predict_linear')
DATES = ('day_of_month', 'day_of_week', 'day_of_year', 'days_in_month', 'hour', 'minute', 'month', 'year')


class Difference:
    def __init__(self, pair, node, when, found, ours, theirs):
        self.pair, self.node, self.when, self.found, self.ours, self.theirs = pair, node, when, found, ours, theirs
        self.what = found[0]
        self.op, self.text = node.op, node.text
        self.answered = ours['status'] == theirs['status'] == 'success'

    def they_fail(self, *texts):
        return self.ours['status'] == 'success' and self.theirs['status'] != 'success' and \
            any(t in self.theirs['error'] for t in texts)

    def we_fail(self, *texts):
        return self.theirs['status'] == 'success' and self.ours['status'] != 'success' and \
            any(t in self.ours['error'] for t in texts)

    def values(self, answer):
        """{(series, time): value}"""
        data = answer['data']
        if data['resultType'] == 'scalar':
            return {((), data['result'][0]): float(data['result'][1])}
        return {(key_of(s), p[0]): float(p[1]) for s in data['result'] for p in points_of(s)}

    def wrong(self):
        """[(ours, theirs)] of the values that differ, where the series are the same."""
        if not self.answered:
            return []
        a, b = self.values(self.ours), self.values(self.theirs)
        return [(a[k], b[k]) for k in a if k in b and not same(a[k], b[k])]

    def operands(self):
        """What the operands are here and there."""
        return [self.pair.ask(c.text, self.when) for c in self.node.children
                if self.when.step is None or c.value in ('v', 's')]


def nameless(answer):
    """The answer with __name__ taken out."""
    data = answer['data']
    if data['resultType'] not in ('vector', 'matrix'):
        return answer
    result = [dict(s, metric={k: v for k, v in s['metric'].items() if k != '__name__'}) for s in data['result']]
    return dict(answer, data=dict(data, result=result))


def equal_but_names(d):
    return d.what == 'series' and difference(nameless(d.ours), nameless(d.theirs)) is None


def name_dropped_late(d):
    """3.0 (delayed name removal): __name__ goes at the very end, so series that are equal but for their names do not
    clash inside an expression, and series that follow each other in time are joined."""
    return d.they_fail('same labelset', 'grouping labels must ensure unique matches')


def name_seen_by_label_functions(d):
    """3.0 (delayed name removal): label_replace, label_join and `by (__name__)` still see the name."""
    return ('__name__' in d.text or re.search(r'__n\\\S+me__', d.text)) and d.op in ('label_replace', 'label_join', 'binary', 'topk', 'bottomk', 'quantile',
                                             'count_values', 'sum', 'avg', 'min', 'max', 'count', 'group', 'stddev',
                                             'stdvar')


def name_kept_by_atan2(d):
    """Newer (2.48): atan2 drops the metric name like every arithmetic operator."""
    return 'atan2' in d.text and (equal_but_names(d) or d.we_fail('same labelset', 'grouping labels must ensure'))


def name_kept_by_comparison(d):
    """3.0 (delayed name removal): a comparison of two vectors marks its result by `bool` alone, so that a name which
    was to be dropped from its left operand stays."""
    return d.op == 'binary' and COMPARES.search(d.text) and equal_but_names(d)


def name_of_what_came_first(d):
    """3.0 (delayed name removal): in a range query `or` joins series that are equal up to a name that is still to be
    dropped; what comes first in time tells whether it goes. Without names, the points are the same."""
    if d.op != 'binary' or d.when.step is None or not d.answered or not re.search(r'\bor\b', d.text):
        return False
    sides = []
    for answer in (d.ours, d.theirs):
        points = {}
        for (series, t), v in d.values(answer).items():
            points.setdefault((tuple(l for l in series if l[0] != '__name__'), t), []).append(v)
        sides.append(points)
    return set(sides[0]) == set(sides[1]) and all(
        len(a) == len(sides[1][k]) and all(same(x, y) for x, y in zip(sorted(a), sorted(sides[1][k])))
        for k, a in sides[0].items())


def many_to_one_comparison(d):
    """Newer: a comparison counts its matches before it filters: two left series for one right are an error also when
    no more than one passes."""
    return d.op == 'binary' and COMPARES.search(d.text) and d.we_fail('multiple matches for labels')


def deviation_of_nan(d):
    """Newer: stddev and stdvar of NaN or infinity are NaN, also of a single value."""
    return d.op in ('stddev', 'stdvar') and d.what == 'value' and all(math.isnan(a) and b == 0 for a, b in d.wrong())


def sum_overflows(d):
    """Newer: compensated sums know infinity, where the compensation made NaN of it in 2.42, and an average goes
    on where the sum would overflow."""
    return d.op in SUMS and d.what == 'value' and all(not math.isfinite(b) for a, b in d.wrong())


def sum_nearer_to_exact(d):
    """Newer: sum and avg are compensated, and avg comes from the compensated sum: fewer digits are lost; ours is at least as
    near to the exact result of the operand's values as theirs."""
    if d.op not in ('sum', 'avg', 'sum_over_time', 'avg_over_time') or d.what != 'value' or d.when.step is not None:
        return False
    values, theirs = d.values(d.ours), d.values(d.theirs)
    operand = d.operands()[-1][1]
    if operand['status'] != 'success':
        return False
    for key, ours in values.items():
        if same(ours, theirs[key]):
            continue
        wanted = dict(key[0])
        members = [Fraction(float(p[1])) for s in operand['data']['result'] for p in points_of(s)
                   if 'time' not in d.op or {k: v for k, v in s['metric'].items() if k != '__name__'} == wanted]
        if not members or 'by' in d.text.lower() or 'without' in d.text.lower():
            return False
        exact = sum(members) / (len(members) if d.op.startswith('avg') else 1)
        if abs(Fraction(ours) - exact) > abs(Fraction(theirs[key]) - exact):
            return False
    return True


def last_digits(d):
    """The operands agree to 1e-9 but not in every digit or in the sign of zero (a compensated sum, another mathematical
    library), and the operation turns that into a step: a comparison, floor, a label made of a value, a sort."""
    if d.op in ('selector', 'range selector', 'number'):
        return False
    for found, ours, theirs in d.operands():
        if found is not None:
            return False
        if ours['status'] == 'success' and ours['data']['resultType'] != 'string':
            if {str(v) for v in d.values(ours).values()} != {str(v) for v in d.values(theirs).values()}:
                return True
    return False


def ties(d):
    """Not defined: which of equal values topk and bottomk keep. The kept values are the same."""
    if d.op not in ('topk', 'bottomk') or not d.answered or d.when.step is not None:
        return False
    a, b = (sorted(map(str, d.values(x).values())) for x in (d.ours, d.theirs))
    return a == b


def nothing_asked_for(d):
    """Newer: topk and bottomk whose k is below 1 at every step give nothing before they look at k any further."""
    return d.op in ('topk', 'bottomk') and d.they_fail('overflows int64') and not d.ours['data']['result']


def ties_in_subquery(d):
    """Not defined, as above, inside a subquery, or in what is made of one."""
    return re.search(r'(topk|bottomk).*\[[^]]*:', d.text) and d.answered


def timestamp_at_with_offset(d):
    """2.42 (and 3.x still) leaves the offset out when it looks for the sample, of a selector with both `@` and
    offset inside timestamp(), but not when it loads the samples. Kelpie applies it."""
    return d.op == 'timestamp' and '@' in d.text and 'offset' in d.text


def ties_in_range(d):
    """Not defined, as above, in a range query: the order of series, and so the choice among equal values, is another
    than in an instant query."""
    return d.when.step is not None and re.search('topk|bottomk', d.text, re.I) and d.answered


def operand_without_steps(d):
    """2.42 evaluates the inside of a subquery even when its range holds no step of it, and so meets its errors; newer
    releases and Kelpie do not."""
    return d.op == 'subquery' and d.ours['status'] == 'success' and d.theirs['status'] != 'success' and \
        all(c['values'] == [] for c in d.ours['data']['result'])


def many_to_one_in_subquery(d):
    """As many_to_one_comparison, at a step of a subquery that the way down to it does not meet."""
    return '[' in d.text and d.we_fail('multiple matches for labels') and COMPARES.search(d.text)


def window_at_a_fixed_time(d):
    """2.42 reads another window at every step of a range query when a range function has `@` and a scalar argument that
    is not constant (predict_linear always); newer releases read the window once."""
    return d.op in ('predict_linear', 'quantile_over_time') and '@' in d.text and \
        (d.when.step is not None or d.what in ('times', 'value'))


def window_at_a_fixed_time_in_subquery(d):
    """As above, where the range query is the inside of a subquery."""
    return d.op == 'subquery' and '@' in d.text and re.search(r'predict_linear|quantile_over_time', d.text)


def date_of_no_date(d):
    """Kelpie's choice: NaN for values that no calendar has. Go converts them to integers in a way that differs from
    processor to processor."""
    return d.op in DATES and d.what == 'value' and all(math.isnan(a) for a, _ in d.wrong())


def dot_matches_newline(d):
    """3.0: `.` in a regular expression matches a newline."""
    return d.op in ('selector', 'range selector', 'label_replace') and 'words' in d.text and d.what in ('series', 'value')


def two_fixed_times(d):
    """2.42 loses the samples of a selector with `@` inside a subquery with `@` when the query's time is another."""
    return d.op in ('subquery', 'range selector') and d.text.count('@') >= 2


def arc_cosine_near_one(d):
    """Go computes acos as a difference from π/2, which leaves fewer digits near 1 (and near infinity, acosh)."""
    return d.op in ('acos', 'acosh', 'asin', 'atanh') and d.what == 'value' and \
        all(abs(a - b) < 1e-12 for a, b in d.wrong())


def logarithm_of_subnormal(d):
    """The reference's build is wrong about log2 and log10 of subnormal numbers."""
    return d.op in ('log2', 'log10', 'ln') and d.what == 'value' and \
        all(a < -307 and abs(a - b) < abs(a) / 10 for a, b in d.wrong())


def extrapolated(samples, start, end, op):
    """rate, increase of the newest release: the gap to the range's start is judged before it is cut at the time when
    the counter was zero."""
    change = samples[-1][1] - samples[0][1]
    for a, b in zip(samples, samples[1:]):
        if b[1] < a[1]:
            change += a[1]
    sampled = samples[-1][0] - samples[0][0]
    average = sampled / (len(samples) - 1)
    to_start, to_end = samples[0][0] - start, end - samples[-1][0]
    if to_start >= average * 1.1:
        to_start = average / 2
    if change > 0 and samples[0][1] >= 0:
        to_start = min(to_start, sampled * (samples[0][1] / change))
    if to_end >= average * 1.1:
        to_end = average / 2
    value = change * (sampled + to_start + to_end) / sampled
    return value / (end - start) if op == 'rate' else value


def seconds(text):
    units = {'h': 3600, 'm': 60, 's': 1, 'ms': 0.001}
    return sum(int(n) * units[u] for n, u in re.findall(r'(\d+)(ms|[hms])', text))


def extrapolation_to_zero(d):
    """Newer: rate and increase judge the gap before the first sample before they cut it at zero. Ours is what the newest
    formula gives."""
    if d.op not in ('rate', 'increase') or d.when.step is not None or d.what != 'value':
        return False
    child = d.node.children[0]
    tail = child.text[child.text.rindex('['):]
    length = seconds(tail[1:].split(':')[0].split(']')[0])
    end = d.when.start
    fixed = re.search(r'@ ([0-9.]+)', tail)
    if fixed:
        end = float(fixed.group(1))
    offset = re.search(r'offset (-?) ?(\w+)', tail)
    if offset:
        end -= seconds(offset.group(2)) * (-1 if offset.group(1) else 1)
    raw = d.pair.ours.instant(child.text, d.when.start)
    ours = d.values(d.ours)
    for s in raw['data']['result']:
        labels = tuple(sorted((k, v) for k, v in s['metric'].items() if k != '__name__'))
        samples = [(p[0], float(p[1])) for p in s['values']]
        mine = [v for k, v in ours.items() if k[0] == labels]
        if len(samples) >= 2 and not same(mine[0], extrapolated(samples, end - length, end, d.op), 1e-8):
            return False
    return True


RULES = [
    name_dropped_late, name_seen_by_label_functions, name_kept_by_atan2, name_kept_by_comparison,
    name_of_what_came_first,
    many_to_one_comparison, many_to_one_in_subquery, deviation_of_nan, sum_overflows, sum_nearer_to_exact, ties,
    ties_in_subquery, ties_in_range, nothing_asked_for, operand_without_steps, timestamp_at_with_offset,
    window_at_a_fixed_time, window_at_a_fixed_time_in_subquery, two_fixed_times, date_of_no_date, dot_matches_newline,
    logarithm_of_subnormal, arc_cosine_near_one, extrapolation_to_zero, last_digits,
]


# Texts that 2.42 refuses and newer releases read, by what it says.
NEW_SYNTAX = {
    'unexpected duration': '3.0: durations are numbers',
    'missing unit character in duration': '3.0: numbers are durations',
    'bad number or duration syntax': 'newer: 1_000',
    'bad duration syntax': 'newer: as above, in brackets',
    'in offset, expected duration': 'newer: durations are expressions',
    'trailing commas not allowed': 'said of a duration as the last argument; 3.0: durations are numbers',
    'unexpected string': '3.0: names in quotes',
    'unexpected <without> in grouping opts': 'Kelpie takes this word for a label, as it takes all others',
    'invalid destination label name': '3.0: every UTF-8 text is a label name',
    'invalid label name': '3.0: as above',
    'invalid source label name': '3.0: as above',
    'value out of range': '3.0: times of `@` are read as numbers',
    'unexpected number of samples': 'newer: a range selector with @ at the top',
    'duration must be greater than 0': '3.0: offset 0',
}


def explain_refusal(ours, theirs, text):
    """Why one server refuses a text that the other reads, or refuses in another way; None when nothing tells."""
    if theirs['status'] != 'success':
        for says, why in NEW_SYNTAX.items():
            if says in theirs['error']:
                return why
        if 'same labelset' in theirs['error'] or 'overflows int64' in theirs['error']:
            return '3.0: delayed name removal; k below one'
        return None
    if 'atan2' in text and 'same labelset' in ours['error']:
        return name_kept_by_atan2.__doc__
    if 'multiple matches for labels' in ours['error'] and (COMPARES.search(text) or 'atan2' in text):
        return many_to_one_comparison.__doc__
    return None


def explain(d):
    """The name of the rule that explains a difference, or None."""
    for rule in RULES:
        if rule(d):
            return rule.__name__
    return None


def find(pair, node, when):
    """Ask a query; None when the answers agree, else the Difference of its smallest part and the rule that explains it
    (None: nothing does)."""
    if pair.ask_node(node, when)[0] is None:
        return None
    when.fix(node)
    smallest = pair.smallest(node, when)
    if smallest is None:
        found, ours, theirs = pair.ask(node.text, when)
        if found is None:
            return None   # the reference's choice among equal values is another each time
        smallest = node, when, found, ours, theirs
    d = Difference(pair, *smallest)
    return d, explain(d)
