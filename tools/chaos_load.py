"""Load of numbered records, queries beside it, and the model that every answer is held against.

Client c writes request n at its time t(n) = begin + n × 500 ms: one sample with value n for each of its series. It sends n + 1 when
n was acknowledged, and n again, at the next node, until it is; what a fault held up is sent after it without a pause, as
Prometheus does. So two numbers are the model of a client: the highest that was acknowledged and the highest that was ever
sent. An answer that calls itself complete must hold, of all series:

  strong  every sample acknowledged before it was asked for
  plain   every sample acknowledged STALE_SECONDS before it was asked for (else it is late: told apart, for seconds are not promised on a
          busy machine)

and any answer only samples that were sent before it came, each with its own value, none twice."""
import collections
import http.client
import json
import random
import sys
import os
import threading
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'tests/integration'))
from remote_write import HEADERS_V1, encode_labels, encode_sample, snappy, varint  # noqa: E402

CLIENTS = 6
SERIES = 2200
INTERVAL_MS = 500            # 6 × 2,200 × 2 a second = 26,400 samples
QUERIES_A_SECOND = 6
ASKERS = 24                  # queries that may wait at a time
ATTEMPT_SECONDS = 3.0        # a sender's patience; what became of the attempt it does not know
QUERY_SECONDS = 10.0
STALE_SECONDS = 5.0
DRAIN_SECONDS = 90           # for what is left to be acknowledged at the end
ROWS_SECONDS = 60            # how far back a query for raw samples looks
FAILURES_KEPT = 20
CHECK_SECONDS = 0.5          # the balancer looks at /-/ready so often

Answer = collections.namedtuple('Answer', 'status complete missing rows')


def one_host(url):
    return urllib.parse.urlsplit(url).netloc


class Balancer:
    """Picks a node that was ready when last looked at, each in its turn; one that failed is left out until it was seen ready again."""
    def __init__(self, world):
        self.world, self.good, self.turn, self.closing = world, set(world.numbers()), 0, False
        self.lock = threading.Lock()
        threading.Thread(target=self.look, daemon=True).start()

    def look(self):
        while not self.closing:
            for node in list(self.world.numbers()):
                threading.Thread(target=self.look_at, args=(node,), daemon=True).start()
            time.sleep(CHECK_SECONDS)

    def look_at(self, node):
        is_good = self.world.is_ready(node)
        with self.lock:
            (self.good.add if is_good else self.good.discard)(node)

    def failed(self, node):
        with self.lock:
            self.good.discard(node)

    def pick(self):
        with self.lock:
            self.turn += 1
            nodes = sorted(self.good & set(self.world.numbers())) or list(self.world.numbers())
            return nodes[self.turn % len(nodes)]


class Writer(threading.Thread):
    """One client. acked_at[n]: when n was acknowledged; sent: the highest number that was ever sent."""
    def __init__(self, load, client):
        super().__init__(daemon=True)
        self.load, self.client = load, client
        self.acked_at, self.sent, self.first_sent_at = [], -1, []
        self.connections = {}
        self.heads = []   # of each series, what stands before its sample

    def body(self, n):
        sample = encode_sample(self.load.t_ms(n), float(n))
        return snappy(sample.join(self.heads) + sample)

    def send(self, node, body):
        """The status, or 0 when there was no answer."""
        connection = self.connections.pop(node, None)
        try:
            if connection is None:
                connection = http.client.HTTPConnection(one_host(self.load.world.url(node)),
                                                        timeout=self.load.attempt_seconds)
            connection.request('POST', '/api/v1/write', body, HEADERS_V1)
            reply = connection.getresponse()
            reply.read()
            self.connections[node] = connection
            return reply.status
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0

    def make_heads(self):
        for i in range(SERIES):
            labels = encode_labels({'__name__': self.load.name, 'client': str(self.client), 'i': '%04d' % i})
            self.heads.append(b'\x0a' + varint(len(labels) + len(encode_sample(self.load.t_ms(0), 0.0))) + labels)

    def run(self):
        self.make_heads()
        n = 0
        while True:
            due = self.load.begun + n * self.load.interval_ms / 1000
            if self.load.ends_at is not None and due > self.load.ends_at:
                return
            time.sleep(max(0.0, due - time.monotonic()))
            body = self.body(n)
            self.sent = n
            self.first_sent_at.append(time.monotonic())
            while not self.load.aborted:
                node = self.load.balancer.pick()
                status = self.send(node, body)
                if status in (200, 204):
                    break
                self.load.refused[status] += 1
                if status == 0:
                    self.load.balancer.failed(node)
                time.sleep(0.02)
            if self.load.aborted:
                return
            self.acked_at.append(time.monotonic())
            n += 1

    def longest_pause(self, since, until):
        """Without an acknowledgement, in seconds, of pauses that end behind since."""
        longest, before = 0.0, self.load.begun
        for at in self.acked_at + [min(until, time.monotonic())]:
            if since < at <= until:
                longest = max(longest, at - before)
            before = at
        return longest


class Load:
    """begin(); faults; end(); audit(). failures: sentences, each a broken promise."""
    def __init__(self, world, balancer, name, seed, interval_ms=INTERVAL_MS):
        self.world, self.balancer, self.name = world, balancer, name
        self.interval_ms = interval_ms
        self.begin_ms, self.begun = int(time.time() * 1000), time.monotonic()
        self.ends_at, self.aborted, self.ended_at = None, False, None
        self.attempt_seconds = ATTEMPT_SECONDS
        self.refused = collections.Counter()
        self.chance = random.Random(seed)
        self.lock = threading.Lock()
        self.late = []
        self.failures, self.asked, self.answered, self.not_answered = [], 0, 0, collections.Counter()
        self.incomplete, self.stalest, self.staleness = [], 0.0, []
        self.ask_seconds = []
        self.writers = [Writer(self, c) for c in range(CLIENTS)]
        self.free = threading.Semaphore(ASKERS)

    def t_ms(self, n):
        return self.begin_ms + n * self.interval_ms

    def number_at(self, t_ms):
        """The highest number whose time is not beyond t_ms."""
        return (t_ms - self.begin_ms) // self.interval_ms

    def begin(self):
        for w in self.writers:
            w.start()
        threading.Thread(target=self.keep_asking, daemon=True).start()
        return self

    def end(self):
        """Nothing new is sent; what was sent is sent on until it is acknowledged."""
        self.ends_at = time.monotonic()
        limit = self.ends_at + DRAIN_SECONDS
        for w in self.writers:
            w.join(max(0.0, limit - time.monotonic()))
        if any(w.is_alive() for w in self.writers):
            self.aborted = True
            self.fail('after %d s writes are not acknowledged yet: %s' % (DRAIN_SECONDS, dict(self.refused)))
            for w in self.writers:
                w.join(10)
        self.ended_at = time.monotonic()

    def fail(self, text):
        with self.lock:
            if len(self.failures) < FAILURES_KEPT:
                self.failures.append(text)

    def samples(self):
        return sum(len(w.acked_at) for w in self.writers) * SERIES

    def samples_a_second(self):
        return self.samples() / ((self.ended_at or time.monotonic()) - self.begun)

    def queries_a_second(self):
        return self.asked / ((self.ended_at or time.monotonic()) - self.begun)

    def longest_pause(self, since, until=float('inf')):
        return max(w.longest_pause(since, until) for w in self.writers)

    def ack_seconds(self, since=0.0, until=float('inf')):
        """Of each request that was acknowledged between these times: from its first sending on."""
        return sorted(acked - sent for w in self.writers for sent, acked in zip(w.first_sent_at, w.acked_at)
                      if since <= acked <= until)

    # ---- asking ----

    def keep_asking(self):
        turn = 0
        while self.ended_at is None:
            turn += 1
            time.sleep(max(0.0, self.begun + turn / QUERIES_A_SECOND - time.monotonic()))
            if not self.free.acquire(blocking=False):
                self.not_answered['too many wait'] += 1
                continue
            self.asked += 1
            threading.Thread(target=self.ask_once, args=(turn,), daemon=True).start()

    def ask_once(self, turn):
        try:
            kind = (self.check_newest, self.check_rows, self.check_count, self.check_sum)[turn % 4]
            kind(turn // 4 % 2 == 0, self.chance.randrange(CLIENTS))
        finally:
            self.free.release()

    def ask(self, node, query, t_ms, strong, timeout=QUERY_SECONDS):
        headers = {'Content-Type': 'application/x-www-form-urlencoded'}
        if strong:
            headers['X-Kelpie-Consistency'] = 'strong'
        connection = http.client.HTTPConnection(one_host(self.world.url(node)), timeout=timeout)
        try:
            connection.request('POST', '/api/v1/query', urllib.parse.urlencode(
                {'query': query, 'time': '%.3f' % (t_ms / 1000), 'timeout': '%.1f' % timeout}), headers)
            reply = connection.getresponse()
            body = reply.read()
            if reply.status != 200:
                return Answer(reply.status, False, '', None)
            return Answer(200, reply.headers['X-Kelpie-Complete'] == 'true', reply.headers['X-Kelpie-Missing'],
                          json.loads(body)['data']['result'])
        except (OSError, http.client.HTTPException, ValueError):
            return Answer(0, False, '', None)
        finally:
            connection.close()

    def answer(self, query, strong, client, of=None):
        """(an answer, t_ms, the highest number that must be in it, the highest that may be, when it was asked, by which node), or
        None: nobody answered. A client asks the next node when one gives no answer; of: this node alone is asked."""
        writer, asked_at = self.writers[client], time.monotonic()
        if strong:
            must = len(writer.acked_at) - 1
        else:
            must = sum(1 for at in writer.acked_at if at < asked_at - STALE_SECONDS) - 1
        t_ms = self.begin_ms + int((asked_at - self.begun) * 1000)
        for _ in range(3):
            node = of or self.balancer.pick()
            answer = self.ask(node, query, t_ms, strong, ATTEMPT_SECONDS if of else QUERY_SECONDS)
            if answer.status == 200:
                with self.lock:
                    self.answered += 1
                    self.ask_seconds.append(time.monotonic() - asked_at)
                    if not answer.complete:
                        self.incomplete.append((asked_at, time.monotonic(), node, answer.missing))
                return answer, t_ms, min(must, self.number_at(t_ms)), min(writer.sent, self.number_at(t_ms)), asked_at, node
            if of is not None:
                return None
            if answer.status == 0:
                self.balancer.failed(node)
            self.not_answered[answer.status] += 1
        self.not_answered['by no node'] += 1
        return None

    def held(self, what, answer, strong, complaint, is_late, asked_at, node):
        """is_late: all that is wrong is that something acknowledged is not there yet."""
        if not complaint:
            return
        text = '%s %s read of node %d after %.1f s, complete=%s: %s' % (
            what, 'strong' if strong else 'plain', node, asked_at - self.begun, answer.complete, complaint)
        if strong or not is_late:
            self.fail(text)
        else:
            self.late.append(text)

    def note_staleness(self, client, seen, asked_at):
        """The newest number seen of a series: how long has the next one been acknowledged?"""
        acked_at = self.writers[client].acked_at
        stale = max(0.0, asked_at - acked_at[seen + 1]) if seen + 1 < len(acked_at) else 0.0
        with self.lock:
            self.stalest = max(self.stalest, stale)
            self.staleness.append(stale)

    def check_newest(self, strong, client):
        """The newest sample of each series of a client."""
        if (got := self.answer('%s{client="%d"}' % (self.name, client), strong, client)) is None:
            return
        answer, _, must, may, asked_at, node = got
        values = [float(row['value'][1]) for row in answer.rows]
        complaint, is_late = '', False
        if any(v > may or v < 0 or v != int(v) for v in values):
            complaint = 'a sample %s that was not sent (sent up to %d)' % (max(values), may)
        elif len({row['metric']['i'] for row in answer.rows}) != len(values):
            complaint = 'a series twice'
        elif answer.complete and must >= 0 and (len(values) != SERIES or min(values) < must):
            complaint = '%d of %d series, the oldest at %s, acknowledged up to %d' % (len(values), SERIES, min(values or [-1]), must)
            is_late = True
        self.held('newest', answer, strong, complaint, is_late, asked_at, node)
        if answer.complete and not strong and len(values) == SERIES:
            self.note_staleness(client, int(min(values)), asked_at)

    def wrong_rows(self, row, since_ms, must, may, is_complete):
        """What is wrong with the raw samples of one series behind since_ms, or ''."""
        numbers = [int(float(v)) for _, v in row]
        if any(round(float(t) * 1000) != self.t_ms(int(float(v))) for t, v in row) or any(n > may for n in numbers):
            return 'a sample that was not sent'
        if any(a >= b for a, b in zip(numbers, numbers[1:])):
            return 'samples twice, or out of order'
        first = max(0, self.number_at(since_ms) + 1)
        if is_complete and must >= first:
            lacking = set(range(first, must + 1)) - set(numbers)
            if lacking:
                return '%d samples lack, the first %d, of those acknowledged up to %d' % (len(lacking), min(lacking), must)
        return ''

    def check_rows(self, strong, client, of=None):
        """All samples of a minute of one series. Returns whether there was an answer that called itself complete."""
        series = self.chance.randrange(SERIES)
        query = '%s{client="%d",i="%04d"}[%ds]' % (self.name, client, series, ROWS_SECONDS)
        if (got := self.answer(query, strong, client, of)) is None:
            return False
        answer, t_ms, must, may, asked_at, node = got
        rows = answer.rows[0]['values'] if answer.rows else []
        complaint = self.wrong_rows(rows, t_ms - ROWS_SECONDS * 1000, must, may, answer.complete)
        self.held('rows', answer, strong, complaint, 'lack' in complaint, asked_at, node)
        return answer.complete

    def check_count(self, strong, client):
        """How many samples half a minute has."""
        query = 'sum(count_over_time(%s{client="%d"}[30s]))' % (self.name, client)
        if (got := self.answer(query, strong, client)) is None:
            return
        answer, t_ms, must, may, asked_at, node = got
        first = max(0, self.number_at(t_ms - 30000) + 1)
        count = float(answer.rows[0]['value'][1]) if answer.rows else 0
        complaint, is_late = '', False
        if count > max(0, may - first + 1) * SERIES:
            complaint = '%d samples counted, %d sent' % (count, (may - first + 1) * SERIES)
        elif answer.complete and count < (must - first + 1) * SERIES:
            complaint, is_late = '%d samples counted, %d acknowledged' % (count, (must - first + 1) * SERIES), True
        self.held('count', answer, strong, complaint, is_late, asked_at, node)

    def check_sum(self, strong, client):
        """A sum over all series of a client."""
        query = 'sum by (client) (%s{client="%d"})' % (self.name, client)
        if (got := self.answer(query, strong, client)) is None:
            return
        answer, _, must, may, asked_at, node = got
        total = float(answer.rows[0]['value'][1]) if answer.rows else 0.0
        complaint, is_late = '', False
        if total > max(0, may) * SERIES:
            complaint = 'a sum of %s, at most %d was sent' % (total, may * SERIES)
        elif answer.complete and total < must * SERIES:
            complaint, is_late = 'a sum of %s, %d acknowledged' % (total, must * SERIES), True
        self.held('sum', answer, strong, complaint, is_late, asked_at, node)

    # ---- at the end ----

    def audit(self, nodes, seconds=60):
        """Every sample of every series, from each of the nodes: exactly what was acknowledged (by then all that was sent), once."""
        for node in nodes:
            for writer in self.writers:
                self.audit_client(node, writer, time.monotonic() + seconds)

    def audit_client(self, node, writer, limit):
        """Counts and sums of all series prove the whole; three series are looked at one sample after the other."""
        last = len(writer.acked_at) - 1
        if last < 0:
            return self.fail('client %d: nothing was acknowledged' % writer.client)
        what = '%s{client="%d"}[%dms]' % (self.name, writer.client, self.t_ms(last) - self.begin_ms + 1)
        for function, right in (('count_over_time', last + 1), ('sum_over_time', last * (last + 1) // 2)):
            answer = self.ask_until_complete(node, '%s(%s)' % (function, what), self.t_ms(last), limit)
            if answer is None:
                return self.fail('node %d gives no complete answer' % node)
            wrong = [row for row in answer.rows if float(row['value'][1]) != right]
            if len(answer.rows) != SERIES or wrong:
                return self.fail('node %d, client %d, at the end: %s is not %d but %s; %d series' % (
                    node, writer.client, function, right, wrong[0]['value'][1] if wrong else right, len(answer.rows)))
        some = '|'.join('%04d' % i for i in self.chance.sample(range(SERIES), 3))
        answer = self.ask_until_complete(node, what.replace('}', ',i=~"%s"}' % some), self.t_ms(last), limit)
        for row in answer.rows if answer else []:
            wrong = self.wrong_rows(row['values'], self.begin_ms - 1, last, last, True)
            if wrong:
                return self.fail('node %d, client %d, at the end: %s' % (node, writer.client, wrong))
        return None

    def ask_until_complete(self, node, query, t_ms, limit):
        while True:
            answer = self.ask(node, query, t_ms, strong=True, timeout=30)
            if answer.status == 200 and answer.complete:
                return answer
            if time.monotonic() > limit:
                return None
            time.sleep(0.2)
