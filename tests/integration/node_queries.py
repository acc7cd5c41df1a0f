"""PromQL over what node_exporter and Prometheus tell of themselves, and series of the same names made by hand: what the tests ask
that compare whole servers.

The made series are of one machine and one Prometheus scraped every second, deterministic. Samples lie on full seconds and times
asked are 537 ms behind one, so that none is on the left end of a range."""
import random

INSTANT = [
    'node_load1', 'node_cpu_seconds_total', 'node_memory_MemFree_bytes', '{job="node"}', '{job="prometheus"}',
    'up', '{__name__=~"node_cpu.*",mode!="idle"}', '{__name__=~"go_.*",job!~"n.*"}', 'node_load1 offset 10s',
    'node_load1 @ {T}', 'node_cpu_seconds_total{mode=~"user|system"} @ end()',
    '-node_load1', 'node_load1 + 1', '2 * node_load1', 'node_load1 - node_load5', 'node_memory_MemFree_bytes / node_memory_MemTotal_bytes',
    'node_memory_MemTotal_bytes % 1000', 'node_load1 ^ 2', 'sum by (instance) (node_load1 atan2 node_load5)',
    'node_load1 == node_load1', 'node_load1 != bool node_load5', 'node_cpu_seconds_total > 1', 'node_cpu_seconds_total < bool 5',
    'node_cpu_seconds_total >= 1', 'node_cpu_seconds_total <= 100000', 'up and on (job) node_load1', 'up or node_load1',
    'up unless on (job) node_load1', 'node_cpu_seconds_total * on (instance) group_left node_load1',
    'node_load1 * on (instance) group_right node_cpu_seconds_total',
    'node_cpu_seconds_total / ignoring (mode) group_left sum without (mode) (node_cpu_seconds_total)',
    'sum by (mode) (node_cpu_seconds_total)', 'sum without (cpu) (node_cpu_seconds_total)', 'avg by (mode) (node_cpu_seconds_total)',
    'min(node_cpu_seconds_total)', 'max by (cpu) (node_cpu_seconds_total)', 'count by (job) ({job=~".+"})', 'group by (job) (up)',
    'stddev by (mode) (node_cpu_seconds_total)', 'stdvar(node_cpu_seconds_total)', 'topk(3, node_cpu_seconds_total)',
    'bottomk(2, node_memory_MemFree_bytes)', 'quantile(0.5, node_cpu_seconds_total)', 'count_values("v", up)',
    'rate(node_cpu_seconds_total[20s])', 'irate(node_cpu_seconds_total[20s])', 'increase(node_cpu_seconds_total[20s])',
    'delta(node_memory_MemFree_bytes[20s])', 'idelta(node_memory_MemFree_bytes[20s])', 'deriv(node_memory_MemFree_bytes[20s])',
    'predict_linear(node_memory_MemFree_bytes[20s], 60)', 'changes(node_memory_MemFree_bytes[20s])', 'resets(node_memory_MemFree_bytes[20s])',
    'avg_over_time(node_load1[20s])', 'min_over_time(node_memory_MemFree_bytes[20s])', 'max_over_time(node_memory_MemFree_bytes[20s])',
    'sum_over_time(node_load1[20s])', 'count_over_time(node_cpu_seconds_total[20s])', 'quantile_over_time(0.7, node_memory_MemFree_bytes[20s])',
    'stddev_over_time(node_memory_MemFree_bytes[20s])', 'stdvar_over_time(node_load1[20s])', 'last_over_time(node_load1[20s])',
    'present_over_time(node_load1[20s])', 'absent(nonexistent{job="x"})', 'absent_over_time(nonexistent[20s])',
    'histogram_quantile(0.9, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[30s])))',
    'histogram_quantile(0.5, prometheus_tsdb_compaction_chunk_range_seconds_bucket) or vector(1)',
    'abs(-node_load1)', 'ceil(node_load1)', 'floor(node_load1)', 'round(node_load1, 0.1)', 'sgn(node_load1)', 'sqrt(node_load1)',
    'exp(node_load1)', 'ln(node_load1 + 1)', 'log2(node_load1 + 1)', 'log10(node_load1 + 1)', 'clamp(node_load1, 0.1, 0.2)',
    'clamp_min(node_load1, 1)', 'clamp_max(node_load1, 1)', 'sin(node_load1)', 'cos(node_load1)', 'tan(node_load1)',
    'asin(node_load1 / 100)', 'acos(node_load1 / 100)', 'atan(node_load1)', 'sinh(node_load1 / 10)', 'cosh(node_load1 / 10)',
    'tanh(node_load1)', 'asinh(node_load1)', 'acosh(node_load1 + 1)', 'atanh(node_load1 / 100)', 'deg(node_load1)', 'rad(node_load1)',
    'pi()', 'time()', 'vector(1)', 'scalar(node_load1)', 'timestamp(node_load1)', 'sort(node_cpu_seconds_total)',
    'sort_desc(node_cpu_seconds_total)', 'label_replace(up, "x", "$1-y", "job", "(.*)")', 'label_join(up, "x", "/", "job", "instance")',
    'day_of_month(vector(time()))', 'day_of_week(vector(time()))', 'day_of_year(vector(time()))', 'days_in_month(vector(time()))',
    'hour(vector(time()))', 'minute(vector(time()))', 'month(vector(time()))', 'year(vector(time()))',
    'max_over_time(rate(node_cpu_seconds_total[10s])[20s:2s])', 'sum(rate(node_cpu_seconds_total[20s])) by (mode) > 0',
    'sum_over_time((node_load1 > 0)[15s:3s] offset 5s)',
]

RANGE = ['node_load1', 'rate(node_cpu_seconds_total[10s])', 'sum by (mode) (rate(node_cpu_seconds_total[10s]))',
         'avg_over_time(node_memory_MemFree_bytes[7s])', 'topk(2, node_cpu_seconds_total)', 'max(up) by (job)',
         'changes(node_memory_MemFree_bytes[9s])', 'count({job=~".+"})', 'quantile(0.9, node_cpu_seconds_total)',
         'deriv(node_memory_MemFree_bytes[10s:1s])']

JOBS = {'node': '127.0.0.1:9100', 'prometheus': '127.0.0.1:9090'}
T0_MS = 1_700_000_000_000
SCRAPES = 75
ASKED = T0_MS / 1000 + SCRAPES - 10 + 0.537   # what precedes it is 64 s, a range looks back 20 s, a window 30 s
MODES = ('idle', 'iowait', 'irq', 'nice', 'softirq', 'steal', 'system', 'user')
BOUNDS = ('0.1', '0.2', '0.4', '1', '3', '8', '20', '60', '120', '+Inf')


class Made:
    """Series that are scraped together: each is a function of the scrape's number."""
    def __init__(self, job):
        self.rng, self.job, self.series = random.Random(job), job, []

    def add(self, name, value, **labels):
        self.series.append((dict(labels, __name__=name, job=self.job, instance=JOBS[self.job]), value))

    def gauge(self, name, low, high, **labels):
        values = [round(self.rng.uniform(low, high), 2) for _ in range(SCRAPES)]
        self.add(name, values.__getitem__, **labels)

    def counter(self, name, speed, start=1000, **labels):
        """Far from zero; stands still now and then."""
        at, values = start + self.rng.uniform(0, 500), []
        for _ in range(SCRAPES):
            at += speed * self.rng.choice((0, 0.5, 1, 2))
            values.append(round(at, 2))
        self.add(name, values.__getitem__, **labels)

    def histogram(self, name, grows, **labels):
        """Counts that grow all the same in every bucket they reach; at rest if it does not grow."""
        first = self.rng.randrange(len(BOUNDS) - 1)
        for k, bound in enumerate(BOUNDS):
            below = max(0, k - first + 1)
            self.add(name + '_bucket', lambda i, below=below: float(below * (100 + i * grows)), le=bound, **labels)
        self.counter(name + '_sum', grows, **labels)
        self.add(name + '_count', lambda i: float((len(BOUNDS) - first) * (100 + i * grows)), **labels)


def machine():
    made = Made('node')
    for cpu in range(8):
        for mode in MODES:
            made.counter('node_cpu_seconds_total', 0.01, cpu=str(cpu), mode=mode)
    for minutes in (1, 5, 15):
        made.gauge('node_load%d' % minutes, 0.1 * minutes, 0.1 * minutes + 0.09)
    made.add('node_memory_MemTotal_bytes', lambda i: 8323653632.0)
    for what in ('MemFree', 'MemAvailable', 'Cached', 'Buffers', 'Slab', 'Dirty', 'Mapped', 'Shmem', 'Active', 'Inactive'):
        made.gauge('node_memory_%s_bytes' % what, 1e8, 8e9)
    for device in ('vda', 'vdb', 'vdc', 'vdd', 'dm-0', 'dm-1'):
        for what in ('reads_completed', 'read_bytes', 'read_time_seconds', 'writes_completed', 'written_bytes', 'write_time_seconds',
                     'io_time_seconds', 'io_time_weighted_seconds', 'discards_completed', 'flush_requests'):
            made.counter('node_disk_%s_total' % what, 40, device=device)
    for device in ('lo', 'eth0', 'eth1', 'docker0', 'veth1', 'veth2', 'veth3'):
        for way in ('receive', 'transmit'):
            for what in ('bytes', 'packets', 'errs', 'drop', 'fifo', 'compressed'):
                made.counter('node_network_%s_%s_total' % (way, what), 900, device=device)
    for mount in ('/', '/boot', '/home', '/srv', '/tmp', '/var'):
        for what in ('size', 'free', 'avail'):
            made.gauge('node_filesystem_%s_bytes' % what, 1e10, 2e11, mountpoint=mount, fstype='ext4')
    return made


def server():
    made = Made('prometheus')
    for handler in ('/metrics', '/-/ready', '/graph') + tuple('/api/v1/' + name for name in (
            'query', 'query_range', 'series', 'labels', 'targets', 'write', 'metadata', 'rules', 'status')):
        for what in ('request_duration_seconds', 'response_size_bytes'):
            made.histogram('prometheus_http_' + what, 1 + len(handler) % 3, handler=handler)
        for code in ('200', '400', '503'):
            made.counter('prometheus_http_requests_total', 3, handler=handler, code=code)
    made.histogram('prometheus_tsdb_compaction_chunk_range_seconds', 0)
    for what in ('alloc', 'sys', 'heap_alloc', 'heap_sys', 'heap_idle', 'heap_inuse', 'stack_inuse', 'mspan_inuse', 'buck_hash_sys'):
        made.gauge('go_memstats_%s_bytes' % what, 1e6, 5e8)
    made.gauge('go_goroutines', 30, 60)
    for quantile in ('0', '0.25', '0.5', '0.75', '1'):
        made.gauge('go_gc_duration_seconds', 0.01, 0.5, quantile=quantile)
    return made


def requests():
    """In order of time, one list of (labels, [(t_ms, value)]) for every five scrapes of a job: what a scraper would send."""
    jobs = [machine(), server()]
    for made in jobs:
        made.add('up', lambda i: 1.0)
        made.add('scrape_samples_scraped', lambda i, made=made: float(len(made.series) - 2))
    return [[(labels, [(T0_MS + 1000 * i, value(i)) for i in range(first, first + 5)]) for labels, value in made.series]
            for first in range(0, SCRAPES, 5) for made in jobs]
