"""Kelpie scrapes by itself: a real node_exporter, targets from a file, staleness, reload, the run script's promise."""
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conftest import Node, Process, peer


class Target:
    """A scrape target whose page the test sets; `page` None hangs, bytes are sent as they are."""
    def __init__(self):
        self.page = 'm 1\n'
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                page = outer.page
                if page is None:
                    time.sleep(30)
                    return
                if page == 'endless':
                    self.send_response(200)
                    self.end_headers()
                    try:
                        for _ in range(100000):
                            self.wfile.write(b'endless_metric 1\n' * 1000)
                    except OSError:
                        pass
                    return
                body = page.encode()
                self.send_response(200 if body else 500)
                self.send_header('Content-Type', 'text/plain; version=0.0.4')
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass
        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.address = '127.0.0.1:%d' % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def target():
    t = Target()
    yield t
    t.server.shutdown()


CONFIG = """
global: {scrape_interval: 1s, scrape_timeout: 900ms}
scrape_configs:
  - job_name: t
    body_size_limit: 1MB
    static_configs: [{targets: ['%s'], labels: {extra: e}}]
    metric_relabel_configs:
      - {source_labels: [__name__], regex: 'drop_.*', action: drop}
"""


def eventually(check, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if check():
                return
        except (KeyError, IndexError):
            pass
        time.sleep(0.2)
    assert check()


def value(node, expression):
    return float(node.query(expression, time.time())['data']['result'][0]['value'][1])


def test_scrapes_relabels_and_marks_stale(tmp_path, start, target):
    target.page = 'kept 7\ndrop_this 1\n# TYPE c counter\nc_total{a="b"} 3\n'
    node = start(Node(tmp_path, CONFIG % target.address)).start()
    eventually(lambda: value(node, 'kept') == 7)
    series = node.query('kept', time.time())['data']['result'][0]['metric']
    assert series == {'__name__': 'kept', 'job': 't', 'instance': target.address, 'extra': 'e'}
    assert value(node, 'up{job="t"}') == 1
    assert value(node, 'scrape_samples_scraped{job="t"}') == 3
    assert value(node, 'scrape_samples_post_metric_relabeling{job="t"}') == 2
    assert node.query('drop_this', time.time())['data']['result'] == []
    targets = node.request('/api/v1/targets').json()['data']['activeTargets']
    assert targets[0]['health'] == 'up' and targets[0]['labels']['job'] == 't'
    target.page = 'other 1\n'
    eventually(lambda: node.query('kept', time.time())['data']['result'] == [], 8)


@pytest.mark.parametrize('page', ['', None, 'endless', 'this is { not metrics\n'])
def test_bad_targets_are_down_and_named(tmp_path, start, target, page):
    target.page = page
    node = start(Node(tmp_path, CONFIG % target.address)).start()
    eventually(lambda: value(node, 'up{job="t"}') == 0)
    state = node.request('/api/v1/targets').json()['data']['activeTargets'][0]
    assert state['health'] == 'down' and state['lastError']


def test_targets_from_a_file_are_followed(tmp_path, start, target):
    listing = tmp_path / 'targets.json'
    listing.write_text('[]')
    node = start(Node(tmp_path / 'node', """
global: {scrape_interval: 1s, scrape_timeout: 900ms}
scrape_configs:
  - job_name: f
    file_sd_configs: [{files: ['%s'], refresh_interval: 1s}]
""" % listing)).start()
    time.sleep(1.5)
    assert node.query('m', time.time())['data']['result'] == []
    listing.write_text(json.dumps([{'targets': [target.address], 'labels': {'from': 'file'}}]))
    eventually(lambda: value(node, 'm{from="file"}') == 1)


def test_reload_is_all_or_nothing(tmp_path, start, target):
    node = start(Node(tmp_path, CONFIG % target.address)).start()
    eventually(lambda: value(node, 'm') == 1)
    path = tmp_path / 'kelpie.yaml'
    path.write_text('nonsense: 1\n')
    reply = node.request('/-/reload', method='POST', data=b'')
    assert reply.status in (400, 500) and 'nonsense' in reply.text
    time.sleep(2)
    assert value(node, 'm') == 1
    path.write_text((CONFIG % target.address).replace('extra: e', 'extra: f'))
    assert node.request('/-/reload', method='POST', data=b'').status == 200
    eventually(lambda: value(node, 'm{extra="f"}') == 1)


def test_scrapes_a_real_exporter_and_itself(tmp_path, start):
    exporter = start(Process(tmp_path / 'exporter', 'exporter'))
    exporter.launch([peer('prometheus-node-exporter'), '--web.listen-address=127.0.0.1:%d' % exporter.port])
    exporter.wait_for('/metrics')
    node = start(Node(tmp_path / 'node'))
    config = """
global: {scrape_interval: 1s, scrape_timeout: 900ms}
scrape_configs:
  - job_name: node
    static_configs: [{targets: ['127.0.0.1:%d']}]
  - job_name: kelpie
    static_configs: [{targets: ['127.0.0.1:%d']}]
""" % (exporter.port, node.port)
    path = tmp_path / 'k.yaml'
    path.write_text(config)
    node.arguments += ['--config', str(path)]
    node.start()
    eventually(lambda: value(node, 'node_memory_MemTotal_bytes') > 1e6)
    eventually(lambda: value(node, 'sum(rate(node_cpu_seconds_total[10s]))') > 0, 20)
    eventually(lambda: value(node, 'count({job="kelpie",__name__=~"kelpie_.*"})') > 10)
