#!/usr/bin/env python3
"""The guards of the tree: prints every breach as file:line: text and exits 1 when there is one.

floors     every #include obeys src/FLOORS (own room or lower floor, doors, homes of outside headers)
alone      every header compiles by itself
banned     malloc family, clocks, randomness, threads and file calls outside their rooms
lengths    lines <= 115 columns, files <= 800 lines (limits with the exceptions listed below); longest functions listed
essays     every .c opens with a comment
format     clang-format (.clang-format; ./dev fmt mends it)
words      markers of unfinished work
stats      every statistic of base/stat_list.h is used
links      relative links of the documents lead somewhere
globals    no mutable globals outside base/stat.c and base/diag.c, but the secret of base/hash.c, set once
tools      every command and module that scripts use comes from tools/packages or the base system (tools/tool_origin.py)
"""
import collections
import concurrent.futures
import os
import re
import subprocess
import sys

import tool_origin

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LINE_COLUMNS_MAX = 115
FILE_LINES_MAX = 800
FUNCTION_LINES_SHOWN = 70
breaches = []


def say(path, line, text):
    breaches.append('%s:%d: %s' % (path, line, text))


def tracked(*patterns):
    out = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', *patterns], cwd=TOP,
                         capture_output=True, text=True, check=True).stdout
    return sorted(p for p in out.split('\n') if p and os.path.exists(os.path.join(TOP, p)))


def read(path):
    with open(os.path.join(TOP, path), encoding='utf-8') as f:
        return f.read()


def load_floors():
    floors, homes = {}, collections.defaultdict(list)
    for line in read('src/FLOORS').split('\n'):
        words = line.split('#')[0].split()
        if not words:
            continue
        if words[0] == '@':
            homes[words[1]] += words[2:]
        else:
            for room in words[1:]:
                floors[room] = int(words[0])
    return floors, homes


def fits(text, pattern):
    return text.startswith(pattern[:-1]) if pattern.endswith('*') else text == pattern


def check_floors(paths):
    floors, homes = load_floors()
    for path in paths:
        inside = path[len('src/'):]
        room = inside.split('/')[0]
        if room not in floors:
            say(path, 1, "room '%s' is not in src/FLOORS" % room)
            continue
        is_test = inside.endswith('test.c')
        for number, line in enumerate(read(path).split('\n'), 1):
            m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if not m:
                continue
            target = m.group(2)
            if m.group(1) == '<':
                allowed = [f for pattern, files in homes.items() if fits(target, pattern) for f in files]
                if allowed and not is_test and not any(fits(inside, f) for f in allowed):
                    say(path, number, '<%s> lives only in %s' % (target, ' '.join(allowed)))
                continue
            parts = target.split('/')
            if is_test and parts[0] == 'sim':
                continue   # simulated tests may see tests/sim
            if len(parts) != 2 or parts[0] not in floors:
                say(path, number, 'write "room/file.h", not "%s"' % target)
            elif parts[0] != room:
                if floors[parts[0]] >= floors[room]:
                    say(path, number, '%s (floor %d) may not include %s (floor %d)'
                        % (room, floors[room], parts[0], floors[parts[0]]))
                elif floors[parts[0]] >= 3 and parts[1] != parts[0] + '.h':
                    say(path, number, '%s is private; the door is %s/%s.h' % (target, parts[0], parts[0]))


BANNED = [   # pattern, where it is allowed, why
    (r'\b(malloc|calloc|realloc|free|strdup)\s*\(', ('src/base/pool.c',), 'memory comes from pools'),
    (r'\b(time|gettimeofday|clock_gettime|rand|random|getrandom|usleep|nanosleep)\s*\(', ('src/io/',),
     'clocks and chance come from io/'),
    (r'\bpthread_\w+\s*\(', ('src/io/',), 'threads come from io/thread.h'),
    (r'\b(open|openat|pread|pwrite|fsync|fdatasync|rename|unlink|mkdir|opendir|fopen)\s*\(', ('src/io/',),
     'files come from io/'),
    (r'\b(strcpy|strcat|sprintf|gets|strtok|atoi|atof|alloca|setlocale)\s*\(', (), 'unbounded or locale-bound'),
]


def strip_comments(text):
    def blank(m):
        return re.sub(r'[^\n]', ' ', m.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


def check_text(paths):
    exempt = load_exemptions()
    for path in paths:
        text = read(path)
        is_test = path.endswith('test.c') or path.startswith(('tests/', 'bench/')) or path.endswith('_bench.c')
        lines = text.split('\n')
        if len(lines) > FILE_LINES_MAX + 1 and not use_exemption(exempt, 'file-length', path):
            say(path, len(lines), '%d lines, at most %d' % (len(lines) - 1, FILE_LINES_MAX))
        for number, line in enumerate(lines, 1):
            if len(line) > LINE_COLUMNS_MAX:
                say(path, number, '%d columns, at most %d' % (len(line), LINE_COLUMNS_MAX))
            if re.search(r'\b(TO' r'DO|FIX' r'ME|XX' r'X|HACK)\b', line):
                say(path, number, 'marker of unfinished work')
            if line.endswith((' ', '\t')):
                say(path, number, 'white space at the end')
        if path.endswith(('.c', '.cc')) and not text.startswith(('/*', '//')):
            say(path, 1, 'a source opens with what it is')
        if is_test or path.endswith('.cc'):
            continue
        code = strip_comments(text).split('\n')
        for pattern, allowed, why in BANNED:
            for number, line in enumerate(code, 1):
                if re.search(pattern, line) and not path.startswith(allowed or ('-',)) \
                        and not use_exemption(exempt, 'banned', path):
                    say(path, number, '%s: %s' % (re.search(pattern, line).group(0).strip('( '), why))
    for (kind, path), count in exempt.items():
        if count == 0:
            say('tools/exemptions', 1, 'unused exemption: %s %s' % (kind, path))


def load_exemptions():
    exempt = {}
    path = os.path.join(TOP, 'tools/exemptions')
    if os.path.exists(path):
        for line in read('tools/exemptions').split('\n'):
            words = line.split('#')[0].split()
            if len(words) == 2:
                exempt[tuple(words)] = 0
    return exempt


def use_exemption(exempt, kind, path):
    if (kind, path) in exempt:
        exempt[(kind, path)] += 1
        return True
    return False


def long_functions(paths):
    found = []
    for path in paths:
        start = None
        for number, line in enumerate(read(path).split('\n'), 1):
            if line == '{':
                start = number
            elif line == '}' and start is not None:
                if number - start - 1 > FUNCTION_LINES_SHOWN:
                    found.append((number - start - 1, path, start))
                start = None
    return sorted(found, reverse=True)


def check_alone(headers):
    client = subprocess.run([os.path.join(TOP, 'tools/librdkafka'), 'path'], capture_output=True, text=True).stdout.strip()

    def compile_one(path):
        include = path[4:] if path.startswith('src/') else path[6:]
        run = subprocess.run(['gcc', '-std=gnu17', '-D_GNU_SOURCE', '-fsyntax-only', '-Wall', '-Wextra',
                              '-Wno-unused-parameter', '-Isrc', '-Itests', '-isystem' + client + '/include', '-x', 'c', '-'],
                             input='#include "%s"\n' % include, cwd=TOP, capture_output=True, text=True)
        return path, run.returncode, run.stderr
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for path, status, text in pool.map(compile_one, headers):
            if status != 0:
                say(path, 1, 'does not compile alone: %s' % text.split('\n')[0])


def check_stats(sources):
    used = collections.Counter()
    for path in sources:
        if path != 'src/base/stat_list.h':
            used.update(re.findall(r'\bSTAT_[A-Z0-9_]+\b', read(path)))
    for number, line in enumerate(read('src/base/stat_list.h').split('\n'), 1):
        m = re.match(r'\s*X\((STAT_\w+)', line)
        if m and used[m.group(1)] == 0:
            say('src/base/stat_list.h', number, '%s is never used' % m.group(1))


def check_format(sources):
    run = subprocess.run(['clang-format-14', '--dry-run', '-ferror-limit=1'] + sources, cwd=TOP, capture_output=True, text=True)
    for path, line in sorted(set(re.findall(r'^(\S+?):(\d+):\d+: warning', run.stderr, re.M))):
        say(os.path.relpath(os.path.join(TOP, path), TOP), int(line), 'not formatted (./dev fmt)')


def check_links():
    for path in tracked('*.md'):
        base = os.path.dirname(path)
        for number, line in enumerate(read(path).split('\n'), 1):
            for target in re.findall(r'\]\(([^)#\s]+)(?:#[^)]*)?\)', line):
                if '://' not in target and not os.path.exists(os.path.join(TOP, base, target)):
                    say(path, number, 'link to %s leads nowhere' % target)


def check_globals():
    """Writable data symbols in the archives of the release build, if there is one."""
    folder = os.path.join(TOP, 'build/release')
    allowed = ('stat_values', 'the_sink', 'the_context', 'the_min_level', 'process_secret')
    if not os.path.isdir(folder):
        return
    for name in sorted(os.listdir(folder)):
        if not re.match(r'libkelpie_\w+\.a$', name) or name in ('libkelpie_shim.a', 'libkelpie_io_sim.a'):
            continue
        out = subprocess.run(['objdump', '-t', os.path.join(folder, name)], capture_output=True, text=True).stdout
        member = ''
        for line in out.split('\n'):
            m = re.match(r'(\S+\.o):', line)
            member = m.group(1) if m else member
            # .data.rel.ro holds constant tables of pointers; thread-local state is nobody else's.
            m = re.search(r' O (\.data|\.bss)(?:\.(?!rel\.ro)\S+)?\s+[0-9a-f]+\s+(?:\.hidden )?(\S+)$', line)
            if m and not m.group(2).startswith(allowed):
                say('%s(%s)' % (name, member), 0, 'mutable global %s' % m.group(2))


def main():
    sources = tracked('src/*.c', 'src/*.h', 'src/*.cc')
    around = tracked('tests/*.c', 'tests/*.h', 'bench/*.c', 'bench/*.h')
    check_floors(sources)
    check_text(sources + around)
    check_alone([p for p in sources + around if p.endswith('.h') and not p.startswith('bench/')
                 and p != 'src/base/stat_list.h'])
    check_stats(sources)
    check_format(sources + around)
    check_links()
    check_globals()
    tool_origin.check(read, ['dev', '.ci/run', 'tools/run-node'], tracked('*.py'), tracked('*meson.build'), say)
    for length, path, line in long_functions(sources)[:10]:
        print('note: %s:%d: a function of %d lines' % (path, line, length))
    for line in breaches:
        print(line)
    print('check: %d files, %d breaches' % (len(sources) + len(around), len(breaches)))
    return 1 if breaches else 0


if __name__ == '__main__':
    sys.exit(main())
