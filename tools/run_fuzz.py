#!/usr/bin/env python3
"""Run libFuzzer harnesses: run_fuzz.py [keep] [NAME …] [SECONDS]. Without a name, all, one after the other.

Each runs for SECONDS (60) from its corpus in tests/fuzz/corpus/NAME; new inputs stay below build/fuzz/corpus/NAME,
until `keep` takes those into the tree that reach lines of a decoder that no seed there does. SECONDS 0 only
measures. Closes with the line coverage, by the seeds in the tree alone, of the decoders that each harness is for
(build/cover). A finding ends with status 1 and names the file that repeats it; so does a decoder below LINES_MIN."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(TOP, 'build/fuzz')
COVER = os.path.join(TOP, 'build/cover')
LINES_MIN = 90
INPUT_BYTES_MAX = 16384
SEED_BYTES_MAX = 1 << 20

# Harness → the files it is for. Behind ':' which functions of the file decode: the others are not its task.
DECODERS = {
    'batch': ['src/model/batch.c'],
    'chain': ['src/shard/chain.c:^get_|decode', 'src/shard/chain_fold.c:fold|invalid|insert|find'],
    'client': ['src/net/client.c:on_|fill|stop|client_do'],
    'compression': ['src/codec/gzip.c:decompress|reader|guess', 'src/codec/zstd.c:decompress',
                    'src/codec/lz4.c:decode'],
    'config': ['src/model/yaml.c', 'src/ingest/scrape_config.c', 'src/ingest/relabel.c'],
    'control': ['src/cluster/control.c', 'src/cluster/members.c:fold|apply|join|slot|life|row|all_assigned',
                'src/cluster/members_state.c:decode|^read_'],
    'fanout_wire': ['src/fanout/wire.c:decode|^read_|makes_sense', 'src/fanout/wire_read.c'],
    'float': ['src/codec/float.c:decode|convert|integers|read', 'src/codec/int_decode.c'],
    'form': ['src/net/form.c', 'src/api/params.c'],
    'group': ['src/metric/group.c:read|header|directory|open|alloc|begin|next|walk|dictionary|exemplars|metadata|verify',
              'src/metric/group_block.c:decode|next'],
    'histogram': ['src/model/histogram.c'],
    'http': ['src/net/exchange.c:begin|body|length|framing|accepts|too_long|form', 'src/net/router.c:match|find',
             'src/api/call.c:call_(begin|param|time|duration|limit|fail_param|fail_expression)',
             'src/api/prom_query.c', 'src/api/prom_series.c', 'src/api/prom_write.c:tenant|import'],
    'identity': ['src/node/identity.c:^identity_(en|de)code$'],
    'import': ['src/ingest/import.c:import|metadata|labels'],
    'index_part': ['src/metric/index_part.c', 'src/metric/index_select.c'],
    'labels': ['src/model/labels.c', 'src/model/labels_order.c'],
    'log': ['src/log/log_frame.c:decode|whole|scan|item|find|next'],
    'log_files': ['src/log/log_recover.c'],
    'matcher': ['src/model/matcher.c:^literal|peel|alternative|join|matche[rs]_|pattern'],
    'node_config': ['src/node/config.c', 'src/node/config_cluster.c'],
    'promql': ['src/promql/lex.c', 'src/promql/parse.c', 'src/promql/parse_selector.c',
               'src/promql/parse_duration.c'],
    'remote_write': ['src/ingest/remote_write.c'],
    'remote_write_1': ['src/ingest/remote_write_1.c'],
    'remote_write_2': ['src/ingest/remote_write_2.c', 'src/ingest/remote_histogram.c'],
    'rpc': ['src/net/rpc.c:parse_|get_head|is_same|_check$', 'src/agent/probe.c:decode'],
    'rpc_stream': ['src/net/rpc.c:stream|frame|fill_to'],
    's3_answer': ['src/blob/s3_answer.c', 'src/blob/s3_credentials.c:^s3_credentials_from|^take$|^take_line|whole|field|trim'],
    'scrape': ['src/ingest/scrape_run.c:parse|line|row|sample|metadata|labels|float|family|exemplar|limits|stale',
               'src/ingest/scrape_cache.c'],
    'segment': ['src/segment/segment.c', 'src/metric/compact_read.c', 'src/metric/compact_values.c',
                'src/metric/compact_cursor.c', 'src/metric/compact_verify.c'],
    'snappy': ['src/codec/snappy.c:decode'],
    'state': ['src/shard/state.c:^get_|decode|check|control', 'src/shard/dedupe.c'],
    'stream': ['src/shard/stream.c:read|parse|path|check'],
    'sync': ['src/sync/wire.c'],
    'text': ['src/ingest/text.c'],
    'token': ['src/model/token.c', 'src/base/base64.c'],
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
    return [grown, kept]


def run_one(name, seconds):
    command = [os.path.join(BUILD, 'tests', 'fuzz_' + name)] + corpora(name)
    command += ['-max_total_time=%d' % seconds, '-timeout=10', '-rss_limit_mb=2048', '-print_final_stats=1',
                '-max_len=%d' % INPUT_BYTES_MAX, '-verbosity=0', '-artifact_prefix=%s/%s-' % (BUILD, name)]
    print('fuzz %s: %d s' % (name, seconds), flush=True)
    return subprocess.run(command, cwd=BUILD, timeout=seconds + 120).returncode


def decoder_lines(name, inputs):
    """{decoder: {line: reached}} of the files that a harness is for, after it was fed inputs (files, folders)."""
    binary, raw = os.path.join(COVER, 'tests', 'fuzz_' + name), os.path.join(COVER, name + '.profraw')
    profile, found = os.path.join(COVER, name + '.profdata'), {}
    subprocess.run([binary, '-runs=0', '-max_len=%d' % SEED_BYTES_MAX] + inputs, cwd=COVER, check=True,
                   env=dict(os.environ, LLVM_PROFILE_FILE=raw), capture_output=True, timeout=600)
    subprocess.run(['llvm-profdata-14', 'merge', '-sparse', raw, '-o', profile], check=True)
    os.remove(raw)
    decoders = DECODERS.get(name, [])
    report = subprocess.run(['llvm-cov-14', 'export', binary, '-instr-profile=' + profile, '-format=lcov']
                            + [os.path.join(TOP, d.partition(':')[0]) for d in decoders],
                            capture_output=True, text=True, check=True).stdout
    for decoder in decoders:
        path, _, pattern = decoder.partition(':')
        section = next((part for part in report.split('end_of_record')
                        if re.search(r'^SF:.*/?%s$' % re.escape(path), part, re.M)), '')
        starts = sorted((int(line), name) for line, name in re.findall(r'^FN:(\d+),(.+)$', section, re.M))
        lines = {int(n): int(count) > 0 for n, count in re.findall(r'^DA:(\d+),(\d+)', section, re.M)}

        def owner(n):
            return next((name.split(':')[-1] for start, name in reversed(starts) if start <= n), '')
        found[path] = {n: hit for n, hit in lines.items() if not pattern or re.search(pattern, owner(n))}
    return found


def measure(name):
    """Line coverage of the decoders of a harness by the seeds in the tree; the names of those below the least."""
    low = []
    for path, lines in decoder_lines(name, [corpora(name)[1]]).items():
        share = 100.0 * sum(lines.values()) / max(len(lines), 1)
        if share < LINES_MIN:
            low.append(path)
        print('%-16s %-34s %5.1f %% of %4d lines%s' % (name, path, share, len(lines),
                                                        '' if share >= LINES_MIN else '  (low)'), flush=True)
    return low


def keep(name):
    """Into the tree, of what fuzzing found: the few inputs that reach lines of the decoders that no seed does."""
    def reached(inputs):
        return {(path, n) for path, lines in decoder_lines(name, inputs).items() for n in lines if lines[n]}
    grown, kept = corpora(name)
    with tempfile.TemporaryDirectory() as few:   # a set that covers all edges, from which lines are chosen
        subprocess.run([os.path.join(BUILD, 'tests', 'fuzz_' + name), '-set_cover_merge=1', '-use_counters=0',
                        '-max_len=%d' % SEED_BYTES_MAX, few, grown], check=True, capture_output=True, timeout=1800)
        lines, missing = {}, reached([few]) - reached([kept])
        for file in sorted(os.listdir(few)) if missing else []:
            lines[file] = reached([os.path.join(few, file)]) & missing
        while missing and lines:
            best = max(sorted(lines), key=lambda f: len(lines[f] & missing) / (
                256 + os.path.getsize(os.path.join(few, f))))
            gain = lines.pop(best) & missing
            if gain:
                missing -= gain
                shutil.copy(os.path.join(few, best), os.path.join(kept, 'found-' + best[:8]))
                print('%s: found-%s reaches %d more lines' % (name, best[:8], len(gain)), flush=True)


def main():
    args = sys.argv[1:]
    seconds = int(args.pop()) if args and args[-1].isdigit() else 60
    keeps = args[:1] == ['keep']
    names = args[keeps:] or harnesses()
    unknown = [n for n in names if n not in harnesses()]
    if unknown:
        print('no fuzzer %s; there are: %s' % (' '.join(unknown), ' '.join(harnesses())), file=sys.stderr)
        return 2
    if keeps:
        for name in names:
            keep(name)
        seconds = 0
    bad = [n for n in names if seconds > 0 and run_one(n, seconds) != 0]
    low = [path for n in names if n not in bad for path in measure(n)]
    for name in bad:
        print('FINDING in %s: see %s/%s-*' % (name, BUILD, name))
    if low:
        print('below %d %% of lines: %s' % (LINES_MIN, ' '.join(low)))
    print('%d passed, %d failed, 0 skipped' % (len(names) - len(bad), len(bad) + len(low)))
    return 1 if bad or low else 0


if __name__ == '__main__':
    sys.exit(main())
