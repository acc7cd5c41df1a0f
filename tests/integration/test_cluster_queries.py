"""A cluster answers as a single node does: the queries of the comparison with Prometheus, over the same series written to both
(to the cluster at any node in turn), asked at every node with strong reads; then with one node killed, and with that node removed."""
import concurrent.futures
import http.client

import pytest

from conftest import Node, kelpie_cluster, nodes_of, wait_until
from node_queries import ASKED, INSTANT, RANGE, requests
from promql_compare import Asker, difference, order_difference
from remote_write import HEADERS_V1, request_v1
from round_robin import RoundRobin

CLUSTER_SETTINGS = dict(repair_delay='10m')   # the killed node's share is given to others when the test says so
TENANT = {'X-Scope-OrgID': 'queries'}
STRONG = {'X-Kelpie-Consistency': 'strong'}


def questions():
    """(path, arguments) of each."""
    for text in INSTANT:
        at = '%.3f' % ASKED
        yield text, ('/api/v1/query', {'query': text.replace('{T}', at), 'time': at})
    for text in RANGE:
        yield 'range ' + text, ('/api/v1/query_range', {'query': text, 'start': '%.3f' % (ASKED - 20), 'end': '%.3f' % ASKED, 'step': 1})


@pytest.fixture(scope='module')
def expected(cluster, tmp_path_factory):
    """What the single node answers to each question; the same is written to it and to the cluster."""
    single, proxy = Node(tmp_path_factory.mktemp('single')), RoundRobin([cluster.port(node) for node in cluster.numbers()])
    try:
        single.start()
        for series in requests():
            body = request_v1(series)
            for port in (single.port, proxy.port):
                wait_until('a write is taken', 30, lambda port=port, body=body: post_once(port, body) in (200, 204))
        assert len(proxy.used) == 3 and min(proxy.used.values()) == max(proxy.used.values())
        asker = Asker(single.port, TENANT, proof='true')
        count = asker.instant('count({job=~".+"})', ASKED)['data']['result'][0]['value'][1]
        assert int(count) >= 500
        answers = {name: asker.ask(*question) for name, question in questions()}
        assert sum(answer['kelpie']['partitions'] != [] for answer in answers.values()) >= 60
        for name, answer in answers.items():
            assert answer['status'] == 'success' and answer['data']['result'], '%s: %s' % (name, answer)
        yield answers
    finally:
        proxy.close()
        single.end()


def post_once(port, body):
    """On a connection of its own, as the proxy has it."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    try:
        connection.request('POST', '/api/v1/write', body, dict(HEADERS_V1, **TENANT))
        return connection.getresponse().status
    finally:
        connection.close()


def wrong(name, ours, theirs, partitions, nodes_min):
    """What is wrong with a node's answer, None when nothing is."""
    if ours['status'] != 'success':
        return ours['error']
    proof = ours['kelpie']
    if not proof['complete'] or proof['missing']:
        return 'incomplete: %s' % proof['missing']
    if theirs['kelpie']['partitions']:   # it selects something: of all partitions, which no node holds alone
        asked = {p['partition'] for p in proof['partitions']}
        if asked != set(range(partitions)) or len({p['node'] for p in proof['partitions']}) < nodes_min:
            return 'partitions %s of nodes %s' % (sorted(asked), sorted({p['node'] for p in proof['partitions']}))
    return difference(ours, theirs) or (order_difference(ours, theirs) if name.startswith('sort') else None)


def compare(cluster, expected, nodes, nodes_min, kind=''):
    """Every question whose name begins so at each of the nodes, at all of them at once."""
    def ask(node):
        asker = Asker(cluster.port(node), dict(TENANT, **STRONG), proof='true')
        found = {name: wrong(name, asker.ask(*question), expected[name], cluster.settings['partitions'], nodes_min)
                 for name, question in questions() if name.startswith(kind)}
        return ['node %d, %s: %s' % (node, name, what) for name, what in found.items() if what]
    with concurrent.futures.ThreadPoolExecutor(len(nodes)) as threads:
        failures = sum(threads.map(ask, nodes), [])
    assert not failures, '%d answers differ:\n%s' % (len(failures), '\n'.join(failures[:20]))


def must_own(cluster, nodes, holders):
    """The partitions' replicas are spread over `holders` nodes within one of each other; those named own their share."""
    total = cluster.settings['partitions'] * cluster.settings['replicas']
    low, high = total // holders, -(-total // holders)

    def owned():
        shown = nodes_of(cluster)
        return [shown['node-%d' % node]['owned'] for node in nodes]
    wait_until('nodes %s own %d to %d each: %s' % (nodes, low, high, owned()), 60, lambda: all(low <= n <= high for n in owned()))


def test_three_nodes(cluster, expected):
    must_own(cluster, (1, 2, 3), holders=3)
    compare(cluster, expected, (1, 2, 3), nodes_min=2)


def test_a_node_is_killed_then_removed(cluster, expected):
    cluster.kill_node(3)
    must_own(cluster, (1, 2), holders=3)
    compare(cluster, expected, (1, 2), nodes_min=2)
    assert 'decided' in kelpie_cluster(cluster, 'remove', 'node-3')
    must_own(cluster, (1, 2), holders=2)   # each holds everything now, and may answer alone
    compare(cluster, expected, (1, 2), nodes_min=1, kind='range ')
