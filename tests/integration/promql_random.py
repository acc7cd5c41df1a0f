"""Random valid PromQL, from a seed: the generator of the differential test.

A Node is an expression that can be asked by itself (value 'v' instant vector, 's' scalar, 'm' range vector), its
operation, and the expressions below it: a difference is followed down to the smallest one that differs
(promql_compare.py). `marks` says what of the language the whole tree uses, for the rules about known differences."""
import re

from promql_data import BUCKETS, METRICS, T0_MS

ELEMENTWISE = ['abs', 'acos', 'acosh', 'asin', 'asinh', 'atan', 'atanh', 'ceil', 'cos', 'cosh', 'deg', 'exp', 'floor',
               'ln', 'log10', 'log2', 'rad', 'sgn', 'sin', 'sinh', 'sqrt', 'tan', 'tanh', 'timestamp', 'round']
DATES = ['day_of_month', 'day_of_week', 'day_of_year', 'days_in_month', 'hour', 'minute', 'month', 'year']
WINDOWS = ['rate', 'increase', 'delta', 'irate', 'idelta', 'deriv', 'predict_linear', 'changes', 'resets',
           'avg_over_time', 'min_over_time', 'max_over_time', 'sum_over_time', 'count_over_time',
           'quantile_over_time', 'stddev_over_time', 'stdvar_over_time', 'last_over_time', 'present_over_time']
FOLDS = ['sum', 'avg', 'min', 'max', 'count', 'group', 'stddev', 'stdvar']
ARITHMETIC = ['+', '-', '*', '/', '%', '^', 'atan2']
COMPARISONS = ['==', '!=', '>', '<', '>=', '<=']
SETS = ['and', 'or', 'unless']
NUMBERS = ['0', '1', '2', '-1', '0.5', '3.25', '10', '1e3', '1e-3', '.5', '0x1F', '017', 'Inf', '-Inf', '+inf', 'NaN',
           'nan', '100', '-0', '1e300', '7', '60', '1E2']
QUANTILES = ['0.5', '0.9', '0', '1', '0.99', '0.25', '-1', '1.5', 'NaN', '0.333', '1e-9']
LABELS = ['job', 'instance', 'zone', 'code', 'kind', 'l', 'n', 'even', 'version', 'le', 'absent_label']
RANGES = ['20s', '1m', '2m', '5m', '10m', '45s', '1m30s', '15m', '3s', '600s', '1h', '0h2m0s', '31s']
OFFSETS = ['1m', '5m', '30s', '-1m', '-30s', '- 15s', '1s', '10m', '1h']
SUBQUERY_RANGES = ['30s500ms', '2m500ms', '5m500ms', '10m500ms', '1m15s500ms']
SUBQUERY_STEPS = ['10s', '30s', '1m', '', '15s', '7s', '2m']


class Node:
    __slots__ = ('op', 'value', 'text', 'children')

    def __init__(self, op, value, text, children=()):
        self.op, self.value, self.text, self.children = op, value, text, list(children)


class Generator:
    def __init__(self, rng):
        self.rng = rng
        self.marks = set()

    def one(self, depth_max=5):
        """A whole query: mostly an instant vector."""
        self.marks = set()
        kind = self.rng.random()
        if kind < 0.05:
            return self.scalar(depth_max)
        if kind < 0.06:
            return Node('string', 't', self.string(self.rng.choice(['a', 'é"\'\\\n`', ''])))
        return self.vector(self.rng.choice([1, 2, 2, 3, 3, 4, depth_max]))

    # ---- words

    def pick(self, *choices):
        return self.rng.choice(choices)

    def chance(self, p):
        return self.rng.random() < p

    def space(self):
        if self.chance(0.02):
            return self.pick('  ', '\n', ' # a comment ) " \n', '\t')
        return ' '

    def string(self, text):
        """The text as a literal in one of the three quotes."""
        quote = self.pick('"', "'", '`')
        if quote == '`' and '`' not in text:
            return '`%s`' % text
        quote = '"' if quote == '`' else quote
        out = text.replace('\\', '\\\\').replace('\n', '\\n').replace(quote, '\\' + quote)
        if self.chance(0.2):
            out = out.replace('a', self.pick('\\x61', '\\u0061', '\\141', '\\U00000061'))
        return quote + out + quote

    def names(self, labels):
        return '(' + ', '.join(labels) + ')' + self.pick('', '', ' ')

    def some_labels(self, most=2):
        return self.rng.sample(LABELS, self.rng.randrange(most + 1))

    # ---- selectors

    def matchers(self, labels):
        out = []
        for name, values in labels.items():
            if not self.chance(0.35):
                continue
            value = self.rng.choice(values)
            kind = self.rng.randrange(7)
            if kind == 0:
                out.append('%s=%s' % (name, self.string(value)))
            elif kind == 1:
                out.append('%s!=%s' % (name, self.string(value)))
            elif kind == 2:
                out.append('%s=~%s' % (name, self.string('|'.join(self.rng.sample(values, min(2, len(values)))).replace('+', '.'))))
            elif kind == 3:
                out.append('%s!~%s' % (name, self.string(value[:1].replace('+', '.') + '.*')))
            elif kind == 4:
                out.append('%s%s%s' % (name, self.pick('=~', '!~'), self.string(self.pick('.*', '.+', '[a-c]', '(a|b)?', ''))))
            elif kind == 5:
                out.append('%s%s""' % (self.pick('absent_label', name), self.pick('=', '!=')))
            else:
                out.append('%s=%s' % (name, self.string('no such value')))
        return out

    def selector_text(self, name=None, several=0.04):
        if name is None and self.chance(several):
            self.marks.add('several names')
            return self.pick('{__name__=~"twin_.*"}', '{__name__=~"early|after"}', '{l="x"}', '{job="api"}',
                             '{__name__=~"h_(sum|count)"}', '{__name__!~"odd|gap",kind=~".+"}', '{l!=""}')
        name = name or self.rng.choice(list(METRICS))
        matchers = self.matchers(METRICS[name])
        if self.chance(0.05):
            return '{__name__="%s"%s}' % (name, ''.join(',' + m for m in matchers))
        if not matchers and self.chance(0.8):
            return name
        return '%s%s{%s%s}' % (name, self.pick('', '', ' '), ','.join(matchers), self.pick('', ',') if matchers else '')

    def modifiers(self):
        out = []
        if self.chance(0.12):
            out.append('offset %s' % self.rng.choice(OFFSETS))
        if self.chance(0.08):
            self.marks.add('@')
            at = self.pick('%d.300' % (T0_MS // 1000 + self.rng.randrange(-60, 1900)), 'start()', 'end()')
            out.append('@ %s' % at)
        self.rng.shuffle(out)
        return ''.join(self.space() + m for m in out)

    def selector(self, name=None, several=0.04):
        return Node('selector', 'v', self.selector_text(name, several) + self.modifiers())

    def matrix(self, depth, name=None, several=0.04):
        if depth > 1 and self.chance(0.25):
            inner = self.vector(depth - 1) if name is None else self.selector(name)
            text = inner.text
            if inner.op in ('binary', 'unary', 'scalar binary') or self.chance(0.1):
                text = '(%s)' % text
            return Node('subquery', 'm', '%s[%s:%s]%s' % (text, self.rng.choice(SUBQUERY_RANGES),
                                                         self.rng.choice(SUBQUERY_STEPS), self.modifiers()), [inner])
        return Node('range selector', 'm', '%s[%s]%s' % (self.selector_text(name, several), self.rng.choice(RANGES),
                                                          self.modifiers()))

    # ---- scalars

    def scalar(self, depth):
        kind = self.rng.random()
        if depth <= 1 or kind < 0.5:
            return Node('number', 's', self.rng.choice(NUMBERS))
        if kind < 0.6:
            return Node('time', 's', 'time()')
        if kind < 0.65:
            return Node('pi', 's', 'pi()')
        if kind < 0.8:
            inner = self.vector(depth - 1)
            return Node('scalar', 's', 'scalar(%s)' % inner.text, [inner])
        left, right = self.scalar(depth - 1), self.scalar(depth - 1)
        op = self.rng.choice(ARITHMETIC + ['%s bool' % c for c in COMPARISONS])
        return Node('scalar binary', 's', '(%s) %s (%s)' % (left.text, op, right.text), [left, right])

    # ---- vectors

    def vector(self, depth):
        if depth <= 1:
            return self.pick(self.selector, self.selector, self.selector, self.plain_vector)()
        make = self.rng.choices(
            [self.selector, self.elementwise, self.window, self.fold, self.top, self.binary, self.with_scalar,
             self.unary, self.labels, self.buckets, self.other, self.sets, self.dates, self.clamp],
            [4, 8, 18, 12, 6, 14, 8, 2, 4, 4, 4, 6, 1, 3])[0]
        return make() if make == self.selector else make(depth)

    def plain_vector(self):
        n = self.scalar(1)
        return Node('vector', 'v', 'vector(%s)' % n.text, [n])

    def call(self, name, *args):
        comma = ',' + self.space()
        text = '%s(%s)' % (name, comma.join(a.text for a in args))
        return Node(name, 'v', text, [a for a in args if a.value != 't'])

    def literal(self, text):
        return Node('string', 't', self.string(text))

    def elementwise(self, depth):
        name = self.rng.choice(ELEMENTWISE)
        inner = self.vector(depth - 1)
        if name == 'round' and self.chance(0.6):
            return self.call(name, inner, self.scalar(depth - 1))
        return self.call(name, inner)

    def dates(self, depth):
        name = self.rng.choice(DATES)
        self.marks.add('date')
        return Node(name, 'v', name + '()') if self.chance(0.3) else self.call(name, self.vector(depth - 1))

    def clamp(self, depth):
        name = self.pick('clamp', 'clamp_min', 'clamp_max')
        inner, low = self.vector(depth - 1), self.scalar(depth - 1)
        return self.call(name, inner, low, self.scalar(depth - 1)) if name == 'clamp' else self.call(name, inner, low)

    def window(self, depth):
        name = self.rng.choice(WINDOWS)
        metric = self.pick('c_total', 'c_total', 'late_total', 'uneven_total', 'still_total', None) \
            if name in ('rate', 'increase', 'irate') else None
        matrix = self.matrix(depth, metric)
        if name == 'quantile_over_time':
            return self.call(name, Node('number', 's', self.rng.choice(QUANTILES)), matrix)
        if name == 'predict_linear':
            return self.call(name, matrix, self.scalar(depth - 1))
        return self.call(name, matrix)

    def grouping(self):
        if self.chance(0.3):
            return ''
        labels = self.some_labels()
        if self.chance(0.02):
            labels.append('__name__')
            self.marks.add('__name__')
        return '%s %s' % (self.pick('by', 'without', 'by', 'BY'), self.names(labels))

    def aggregate(self, name, *args):
        grouping = self.grouping()
        inside = '(%s)' % ', '.join(a.text for a in args)
        text = '%s %s %s' % (name, grouping, inside) if self.chance(0.5) else '%s%s %s' % (name, inside, grouping)
        return Node(name, 'v', text, [a for a in args if a.value != 't'])

    def fold(self, depth):
        return self.aggregate(self.rng.choice(FOLDS), self.vector(depth - 1))

    def top(self, depth):
        name = self.pick('topk', 'bottomk', 'quantile', 'count_values')
        inner = self.vector(depth - 1)
        if name == 'quantile':
            q = Node('number', 's', self.rng.choice(QUANTILES)) if self.chance(0.8) else self.scalar(depth - 1)
            return self.aggregate(name, q, inner)
        if name == 'count_values':
            return self.aggregate(name, self.literal(self.pick('value', 'job', 'v')), inner)
        k = Node('number', 's', self.pick('1', '2', '3', '0', '-1', '100', '2.9')) if self.chance(0.9) \
            else self.scalar(depth - 1)
        return self.aggregate(name, k, inner)

    def matching(self, sets=False):
        if self.chance(0.35):
            return ''
        labels = self.some_labels()
        if self.chance(0.01):
            labels.append('__name__')
            self.marks.add('__name__')
        out = ' %s%s' % (self.pick('on', 'ignoring', 'on', 'ON'), self.names(labels))
        if not sets and self.chance(0.4):
            out += ' ' + self.pick('group_left', 'group_right')
            include = [l for l in self.some_labels() if l not in labels]
            if include or self.chance(0.5):
                out += self.names(include)
        return out

    def wrapped(self, node):
        return '(%s)' % node.text if node.op in ('binary', 'unary', 'scalar binary') else node.text

    def related(self, depth):
        """Two operands that match now and then: the same metric, or with labels in common."""
        kind = self.rng.random()
        if kind < 0.35:
            left = self.vector(depth - 1)
            return left, left
        if kind < 0.6:
            name = self.pick('g', 'c_total', 'many', 'gap', 'odd', 'h_bucket')
            return self.selector(name), self.selector(name)
        if kind < 0.75:
            return self.pick((self.selector('g'), self.selector('limit')), (self.selector('twin_a'), self.selector('twin_b')),
                             (self.selector('build'), self.selector('g')), (self.selector('h_sum'), self.selector('h_count')))
        return self.vector(depth - 1), self.vector(depth - 1)

    def binary(self, depth):
        left, right = self.related(depth)
        if self.chance(0.6):
            op = self.rng.choice(ARITHMETIC)
            if op == 'atan2':
                self.marks.add('atan2')
        else:
            op = self.rng.choice(COMPARISONS)
            self.marks.add('vector comparison')
            if self.chance(0.4):
                op += ' bool'
        matching = self.matching()
        if not matching and self.chance(0.3) and op in ('+', '*', '-') and self.chance(0.5):
            third = self.selector()   # precedence: no parentheses
            text = '%s %s %s %s %s' % (self.wrapped(left), op, self.wrapped(right), self.pick('+', '/', '^', '%'), third.text)
            return Node('binary', 'v', text, [left, right, third])
        return Node('binary', 'v', '%s %s%s %s' % (self.wrapped(left), op, matching, self.wrapped(right)), [left, right])

    def sets(self, depth):
        left, right = self.related(depth)
        return Node('binary', 'v', '%s %s%s %s' % (self.wrapped(left), self.rng.choice(SETS), self.matching(True),
                                                   self.wrapped(right)), [left, right])

    def with_scalar(self, depth):
        vector, scalar = self.vector(depth - 1), self.scalar(depth - 1)
        op = self.rng.choice(ARITHMETIC + COMPARISONS)
        if op == 'atan2':
            self.marks.add('atan2')
        if op in COMPARISONS and self.chance(0.4):
            op += ' bool'
        sides = [vector, scalar] if self.chance(0.6) else [scalar, vector]
        return Node('binary', 'v', '%s %s %s' % (self.wrapped(sides[0]), op, self.wrapped(sides[1])), sides)

    def unary(self, depth):
        inner = self.vector(depth - 1)
        return Node('unary', 'v', self.pick('-', '+', '-', '- ') + self.wrapped(inner), [inner])

    def labels(self, depth):
        inner = self.vector(depth - 1)
        if self.chance(0.5):
            source, target = self.rng.choice(LABELS), self.pick('new', 'job', 'l', 'instance')
            if self.chance(0.03):
                self.marks.add('__name__')
                source, target = self.pick((source, '__name__'), ('__name__', target))
            pattern = self.pick('(.*)', '(.+)', '(a|b).*', 'api', '(?P<word>[a-z]+)(.*)', '', '.', '((', '[0-9]+')
            template = self.pick('$1', 'x-$1', '', '${word}-$2', '$0', '$$', 'const', '$3', '${1}b', '$1b', '$', '${')
            return self.call('label_replace', inner, self.literal(target), self.literal(template), self.literal(source),
                             self.literal(pattern))
        sources = [self.literal(l) for l in self.some_labels(3)]
        return self.call('label_join', inner, self.literal(self.pick('new', 'job', 'l', '')), self.literal(self.pick('-', '', '::')),
                         *sources)

    def buckets(self, depth):
        metric = self.rng.choice(BUCKETS)
        kind = self.rng.random()
        if kind < 0.4:
            inner = self.selector(metric, several=0)
        elif kind < 0.6:
            inner = self.call('rate', self.matrix(1, metric))
        elif kind < 0.9:
            inner = self.aggregate('sum', self.selector(metric, several=0))
            inner = Node('sum', 'v', 'sum by (le, job) (%s)' % inner.children[0].text, inner.children)
        else:
            inner = self.vector(depth - 1)
        q = Node('number', 's', self.rng.choice(QUANTILES)) if self.chance(0.8) else self.scalar(depth - 1)
        return self.call('histogram_quantile', q, inner)

    def other(self, depth):
        kind = self.rng.randrange(6)
        if kind == 0:
            return self.call(self.pick('sort', 'sort_desc'), self.vector(depth - 1))
        if kind == 1:
            return self.call('absent', self.vector(depth - 1))
        if kind == 2:
            return self.call('absent_over_time', self.matrix(depth))
        if kind == 3:
            n = self.scalar(depth - 1)
            return self.call('vector', n)
        if kind == 4:
            selector = self.selector()
            return self.call('timestamp', selector)
        return self.call(self.pick('absent', 'timestamp', 'sort', 'sort_desc'), self.selector())


# ---- damaged texts

TOKEN = re.compile(r"""\s+|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`|[A-Za-z_:][A-Za-z0-9_:]*|\d[\w.]*"""
                   r"""|==|!=|>=|<=|=~|!~|.""", re.S)
INTRUDERS = ['(', ')', '{', '}', '[', ']', ',', ':', '@', 'offset', '5m', '-', '+', 'by', 'on', 'bool', 'group_left', 'sum',
             'foo', '"x"', '1', '1e', '0x', '=', '=~', '!', 'inf', 'nan', 'start()', 'end', '$', '.', 'and', 'or',
             'without', 'ignoring', '__name__', '1h30m', '5', '^', '%', '#', '\\', "'", '1.5.', '5mm', '1s500ms', 'atan2',
             '5m30', 'start', 'time()', 'up', 'x_y', ':a', '1_0', 'é', '1e400', '0xfg', '08']


def damage(rng, text):
    """The text with one to three of its tokens lost, doubled, replaced, swapped or joined by another."""
    tokens = TOKEN.findall(text)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if not tokens:
            break
        kind, i = rng.randrange(5), rng.randrange(len(tokens))
        if kind == 0:
            del tokens[i]
        elif kind == 1:
            tokens.insert(i, rng.choice(INTRUDERS))
        elif kind == 2:
            tokens[i] = rng.choice(INTRUDERS)
        elif kind == 3:
            tokens.insert(i, tokens[i])
        else:
            k = rng.randrange(len(tokens))
            tokens[i], tokens[k] = tokens[k], tokens[i]
    return ''.join(tokens)
