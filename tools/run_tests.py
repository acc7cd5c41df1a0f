#!/usr/bin/env python3
"""Run every test and end with one plain line: N passed, N failed, N skipped.

Unit and simulation tests are meson's (C, cmocka; each cmocka case counts), built with sanitizers;
integration tests are pytest's and drive the release binary, or the one that --binary names. Skips are listed with their
reason."""
import argparse
import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SANITIZERS = {'ASAN_OPTIONS': 'detect_leaks=1:abort_on_error=1', 'UBSAN_OPTIONS': 'print_stacktrace=1',
              'TSAN_OPTIONS': 'halt_on_error=1:suppressions=' + os.path.join(TOP, 'tests/tsan.suppressions')}


def run_unit(build):
    """Meson's tests below `build`. Returns (passed, failed, skipped)."""
    log = os.path.join(TOP, build, 'meson-logs/testlog.json')
    if os.path.exists(log):
        os.unlink(log)
    env = dict(os.environ, **SANITIZERS)
    subprocess.run(['meson', 'test', '-C', build, '--print-errorlogs', '--num-processes', '2',
                    '--timeout-multiplier', '3'], cwd=TOP, env=env)
    passed = failed = skipped = 0
    with open(log, encoding='utf-8') as f:
        for line in f:
            row = json.loads(line)
            text = (row.get('stdout') or '') + (row.get('stderr') or '')
            cases = sum(int(n) for n in re.findall(r'\[  PASSED  \] (\d+) test', text)) \
                or sum(int(n) for n in re.findall(r'^(\d+) passed, 0 failed', text, re.M))
            bad = len(set(re.findall(r'\[  FAILED  \] (\w+)$', text, re.M)))
            for seed in sorted(set(re.findall(r'^# \w+: SEED=\S+', text, re.M))):
                print('%-28s %s' % (row['name'].split(' / ')[-1], seed))
            if row['result'] == 'OK':
                passed += max(cases, 1)
            elif row['result'] == 'SKIP':
                print('skipped: %s: the test asked for it' % row['name'])
                skipped += 1
            else:
                print('FAILED: %s (%s)' % (row['name'], row['result']))
                passed += cases
                failed += max(bad, 1)
    return passed, failed, skipped


def pytest_command():
    return [sys.executable if have_pytest(sys.executable) else '/usr/bin/python3', '-m', 'pytest', '-q', '-rs',
            '-p', 'no:cacheprovider']


def run_integration(keyword, binary):
    """pytest below tests/integration, of another build's program if `binary` names one. Returns (passed, failed, skipped)."""
    report = os.path.join(TOP, 'build/integration.xml')
    command = pytest_command() + ['--junitxml', report, 'tests/integration']
    if keyword:
        command += ['-k', keyword]
    env = dict(os.environ, **SANITIZERS)
    if binary:
        env['KELPIE_BINARY'] = os.path.join(TOP, binary)
    subprocess.run(command, cwd=TOP, env=env)
    if not os.path.exists(report):
        return 0, 1, 0
    suite = xml.etree.ElementTree.parse(report).getroot().find('testsuite')
    total, skipped = int(suite.get('tests')), int(suite.get('skipped'))
    failed = int(suite.get('failures')) + int(suite.get('errors'))
    os.unlink(report)
    return total - skipped - failed, failed, skipped


def have_pytest(python):
    return subprocess.run([python, '-c', 'import pytest'], capture_output=True).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--build', default='build/asan', help='build folder of the unit tests')
    parser.add_argument('--unit-only', action='store_true')
    parser.add_argument('--integration-only', action='store_true')
    parser.add_argument('--binary', default='', help='program of the integration tests, as build/asan/kelpie')
    parser.add_argument('-k', default='', help='integration tests whose name matches')
    options = parser.parse_args()
    begun = time.monotonic()
    totals = [0, 0, 0]
    parts = []
    if not options.integration_only:
        parts.append(lambda: run_unit(options.build))
        parts.append(run_check)
    if not options.unit_only:
        parts.append(lambda: run_integration(options.k, options.binary))
    for part in parts:
        totals = [a + b for a, b in zip(totals, part())]
    print('took %.0f s' % (time.monotonic() - begun))
    print('%d passed, %d failed, %d skipped' % tuple(totals))
    return 1 if totals[1] or not totals[0] else 0


def run_check():
    """The guards of tools/check.py count as one test."""
    status = subprocess.run([sys.executable, 'tools/check.py'], cwd=TOP).returncode
    return (1, 0, 0) if status == 0 else (0, 1, 0)


if __name__ == '__main__':
    sys.exit(main())
