"""A real Prometheus scrapes node_exporter and itself and remote-writes to Kelpie; both are asked the same and
give the same answers.

Times are at least 30 s old (everything has been sent) and off the sample boundaries, because Prometheus 2.42
includes a sample at the left end of a range and Kelpie, like Prometheus 3, does not. Other known differences of
2.42 are listed at KNOWN_DIFFERENCES."""
import math
import time

import pytest

from conftest import Node, Process, peer
from node_queries import INSTANT, RANGE
from promql_compare import difference

INTERVAL_S = 1
RUN_S = 75

CONFIG = """
global:
  scrape_interval: %ds
  scrape_timeout: 1s
scrape_configs:
  - job_name: node
    static_configs: [{targets: ['127.0.0.1:%d']}]
  - job_name: prometheus
    static_configs: [{targets: ['127.0.0.1:%d']}]
remote_write:
  - url: %s/api/v1/write
    queue_config: {batch_send_deadline: 1s}
"""

# Prometheus 2.42 against the newest semantics, one by one; queries that touch these are not asked.
KNOWN_DIFFERENCES = [
    'holt_winters is named double_exponential_smoothing since 3.0 and is experimental',
    'ranges and lookback are left-open since 3.0 (avoided by the choice of times)',
    'rate and increase cap extrapolation of counters to zero at half the distance, changed in 2.5x; the counters '
    'asked here are far from zero',
    'quantile and stddev of NaN and Inf follow later fixes; no NaN series is asked',
    'the name is dropped at the end of the evaluation (delayed name removal), visible only in error cases',
    'atan2 kept the metric name until 2.48 (asked below a sum by instance)',
    'the last digits of avg and sum differ by compensated summation; compared to 1e-9',
]

def off_boundaries(prometheus, around):
    """A time near `around` that is at least 100 ms from every scrape of every target (scrapes are 1 s apart)."""
    fractions = set()
    for series in prometheus.query('up[10s]', around)['data']['result']:
        fractions.update(round(v[0] % 1, 3) for v in series['values'])
    for thousandth in range(37, 1000, 50):
        t = math.floor(around) + thousandth / 1000
        if all(min(abs(t % 1 - f), 1 - abs(t % 1 - f)) > 0.1 for f in fractions):
            return t
    raise AssertionError('no time off the boundaries: %s' % fractions)


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp('prometheus')
    exporter = Process(folder / 'exporter', 'exporter')
    prometheus = Process(folder / 'prometheus', 'prometheus')
    node = Node(folder / 'node')
    try:
        exporter.launch([peer('prometheus-node-exporter'), '--web.listen-address=127.0.0.1:%d' % exporter.port])
        exporter.wait_for('/metrics')
        node.start()
        with open(folder / 'prometheus.yml', 'w', encoding='utf-8') as f:
            f.write(CONFIG % (INTERVAL_S, exporter.port, prometheus.port, node.url))
        prometheus.launch([peer('prometheus'), '--config.file', folder / 'prometheus.yml', '--storage.tsdb.path',
                           folder / 'tsdb', '--web.listen-address=127.0.0.1:%d' % prometheus.port])
        prometheus.wait_for('/-/ready')
        time.sleep(RUN_S)
        yield prometheus, node
    finally:
        for process in (prometheus, exporter, node):
            process.end()


def test_answers_equal_prometheus(pair):
    prometheus, node = pair
    t = off_boundaries(prometheus, time.time() - 32)
    series = node.query('count({job=~".+"})', t)['data']['result']
    assert series and float(series[0]['value'][1]) >= 500
    failures = []
    for template in INSTANT:
        expression = template.replace('{T}', '%.3f' % t)
        ours, theirs = node.query(expression, t), prometheus.query(expression, t)
        if theirs['status'] != 'success' or ours['status'] != 'success':
            failures.append('%s: %s / %s' % (expression, ours.get('error'), theirs.get('error')))
        elif not theirs['data']['result']:
            failures.append('%s: empty answer from the reference' % expression)
        else:
            found = difference(ours, theirs)
            if found:
                failures.append('%s: %s' % (expression, found))
    for expression in RANGE:
        ours = node.query_range(expression, t - 20, t, 1)
        theirs = prometheus.query_range(expression, t - 20, t, 1)
        found = difference(ours, theirs) if ours['status'] == theirs['status'] == 'success' else str((ours, theirs))
        if found or not theirs['data']['result']:
            failures.append('range %s: %s' % (expression, found or 'empty'))
    assert len(INSTANT) + len(RANGE) >= 60
    assert not failures, '%d of %d differ:\n%s' % (len(failures), len(INSTANT) + len(RANGE), '\n'.join(failures))


def test_metadata_arrives(pair):
    prometheus, node = pair
    ours = node.request('/api/v1/metadata?metric=node_load1').json()
    assert ours['status'] == 'success'
    assert ours['data']['node_load1'][0]['type'] == 'gauge'
