#!/usr/bin/env python3
"""Run libFuzzer harnesses: run_fuzz.py [NAME …] [SECONDS]. Without a name, all, one after the other.

Each runs for SECONDS (60) from its corpus in tests/fuzz/corpus/NAME; new inputs stay below build/fuzz/corpus/NAME.
SECONDS 0 only measures. A finding ends the run with status 1 and names the file that repeats it. Closes with the
line coverage, by all inputs known, of the decoders that each harness is for (build/cover), and says which are below
LINES_MIN; what their tests reach besides is not counted."""
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(TOP, 'build/fuzz')
COVER = os.path.join(TOP, 'build/cover')
LINES_MIN = 90
INPUT_BYTES_MAX = 16384

# Harness → the files it is for. Behind ':' which functions of the file decode: encoders and openers are not its task.
DECODERS = {
    'batch': ['src/model/batch.c'],
    'chain': ['src/shard/chain.c:^get_|decode|fold|invalid|insert|find'],
    'config': ['src/model/yaml.c', 'src/ingest/scrape_config.c', 'src/ingest/relabel.c'],
    'float': ['src/codec/float.c:decode|convert|integers|read', 'src/codec/int_decode.c'],
    'form': ['src/net/form.c', 'src/api/params.c'],
    'group': ['src/metric/group.c:read|header|directory|open|alloc|begin|next|walk|dictionary|exemplars|metadata|verify',
              'src/metric/group_block.c:decode|next'],
    'histogram': ['src/model/histogram.c'],
    'identity': ['src/node/identity.c:^identity_(en|de)code$'],
    'index_part': ['src/metric/index_part.c', 'src/metric/index_select.c'],
    'log': ['src/log/log_frame.c:decode|whole|scan|item|find|next'],
    'promql': ['src/promql/lex.c', 'src/promql/parse.c', 'src/promql/parse_selector.c',
               'src/promql/parse_duration.c'],
    'remote_write_1': ['src/ingest/remote_write_1.c'],
    'remote_write_2': ['src/ingest/remote_write_2.c', 'src/ingest/remote_histogram.c'],
    'segment': ['src/segment/segment.c', 'src/metric/compact_read.c', 'src/metric/compact_values.c',
                'src/metric/compact_cursor.c', 'src/metric/compact_verify.c'],
    'snappy': ['src/codec/snappy.c:decode'],
    'state': ['src/shard/state.c:^get_|decode|check|control', 'src/shard/dedupe.c'],
    'stream': ['src/shard/stream.c:read|parse|path|check'],
    'text': ['src/ingest/text.c'],
    'web_config': ['src/node/web_file.c', 'src/net/web_config.c'],
}


def harnesses():
    return sorted(n[len('fuzz_'):] for n in os.listdir(os.path.join(BUILD, 'tests')) if n.startswith('fuzz_')
                  and os.access(os.path.join(BUILD, 'tests', n), os.X_OK)
                  and os.path.isfile(os.path.join(BUILD, 'tests', n)))


def corpora(name):
    """The folder that grows first, then what is kept in the tree."""
    grown, kept = os.path.join(BUILD, 'corpus', name), os.path.join(TOP, 'tests/fuzz/corpus', name)
    os.makedirs(grown, exist_ok=True)
    return [grown] + ([kept] if os.path.isdir(kept) else [])


def run_one(name, seconds):
    command = [os.path.join(BUILD, 'tests', 'fuzz_' + name)] + corpora(name)
    command += ['-max_total_time=%d' % seconds, '-timeout=10', '-rss_limit_mb=2048', '-print_final_stats=1',
                '-max_len=%d' % INPUT_BYTES_MAX, '-verbosity=0', '-artifact_prefix=%s/%s-' % (BUILD, name)]
    print('fuzz %s: %d s' % (name, seconds), flush=True)
    return subprocess.run(command, cwd=BUILD, timeout=seconds + 120).returncode


def line_counts(report, path, pattern):
    """(covered, all) lines of a file, or of its functions whose names match; a line counts once."""
    section = next((part for part in report.split('end_of_record')
                    if re.search(r'^SF:.*/?%s$' % re.escape(path), part, re.M)), '')
    starts = sorted((int(line), name) for line, name in re.findall(r'^FN:(\d+),(.+)$', section, re.M))
    lines = {int(n): int(count) > 0 for n, count in re.findall(r'^DA:(\d+),(\d+)', section, re.M)}
    if pattern:
        def owner(n):
            return next((name.split(':')[-1] for start, name in reversed(starts) if start <= n), '')
        lines = {n: hit for n, hit in lines.items() if re.search(pattern, owner(n))}
    return sum(lines.values()), len(lines)


def measure(name):
    """Line coverage of the decoders of a harness by every input known; the names of those below the least."""
    binary, low = os.path.join(COVER, 'tests', 'fuzz_' + name), []
    raw, profile = os.path.join(COVER, name + '.profraw'), os.path.join(COVER, name + '.profdata')
    subprocess.run([binary, '-runs=0', '-max_len=1048576'] + corpora(name), cwd=COVER, env=dict(os.environ, LLVM_PROFILE_FILE=raw), check=True,
                   capture_output=True, timeout=600)
    subprocess.run(['llvm-profdata-14', 'merge', '-sparse', raw, '-o', profile], check=True)
    os.remove(raw)
    report = subprocess.run(['llvm-cov-14', 'export', binary, '-instr-profile=' + profile, '-format=lcov'],
                            capture_output=True, text=True, check=True).stdout
    for decoder in DECODERS.get(name, []):
        path, _, pattern = decoder.partition(':')
        covered, count = line_counts(report, path, pattern)
        share = 100.0 * covered / count if count else 0.0
        if share < LINES_MIN:
            low.append(path)
        print('%-16s %-34s %5.1f %% of %4d lines%s' % (name, path, share, count,
                                                        '' if share >= LINES_MIN else '  (low)'), flush=True)
    return low


def main():
    args = sys.argv[1:]
    seconds = int(args.pop()) if args and args[-1].isdigit() else 60
    names = args or harnesses()
    bad = [n for n in names if seconds > 0 and run_one(n, seconds) != 0]
    low = [path for n in names if n not in bad for path in measure(n)]
    for name in bad:
        print('FINDING in %s: see %s/%s-*' % (name, BUILD, name))
    if low:
        print('below %d %% of lines: %s' % (LINES_MIN, ' '.join(low)))
    print('%d passed, %d failed, 0 skipped' % (len(names) - len(bad), len(bad)))
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
