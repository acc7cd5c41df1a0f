#!/usr/bin/env python3
"""What the operator's guide calls and a test must not: this file under the names systemctl, scp, useradd, chown, install and htpasswd.

Environment: STAND_IN_ROOT, with node-N/etc, node-N/var, … in it; STAND_IN_NODE, the node whose root shell this is (none: the admin's);
STAND_IN_MAP, a list of [text, its replacement] of that node."""
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.environ.get('STAND_IN_ROOT', '')
NODE = os.path.join(ROOT, os.environ.get('STAND_IN_NODE', ''))
UNIT = os.path.join(NODE, 'etc/systemd/system/kelpie.service')


def mapped(text, pairs):
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def unit():
    """Settings of the unit file, with the node's paths and address: a list of values by name."""
    settings = {}
    with open(UNIT, encoding='utf-8') as f:
        for line in mapped(f.read(), json.loads(os.environ['STAND_IN_MAP'])).splitlines():
            if '=' in line and not line.startswith('#'):
                name, value = line.split('=', 1)
                settings.setdefault(name, []).append(value)
    return settings


def environment(settings):
    out = {'PATH': os.environ['PATH']}
    for path in settings.get('EnvironmentFile', []):
        try:
            with open(path.lstrip('-'), encoding='utf-8') as f:
                out.update(line.strip().split('=', 1) for line in f if '=' in line)
        except FileNotFoundError:
            if not path.startswith('-'):
                raise
    return dict(out, **{k: v for k, v in os.environ.items() if k.endswith('SAN_OPTIONS')})


def pid():
    try:
        with open(os.path.join(NODE, 'pid'), encoding='utf-8') as f:
            number = int(f.read())
        with open('/proc/%d/cmdline' % number, 'rb') as f:
            return number if NODE.encode() in f.read() else None
    except (OSError, ValueError):
        return None


def start():
    settings = unit()
    for name in settings['StateDirectory']:
        os.makedirs(os.path.join(NODE, 'var/lib', name), exist_ok=True)
    with open(os.path.join(NODE, 'journal'), 'ab') as out:
        process = subprocess.Popen(shlex.split(settings['ExecStart'][0]), env=environment(settings), stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=out, start_new_session=True)
    with open(os.path.join(NODE, 'pid'), 'w', encoding='utf-8') as f:
        f.write(str(process.pid))


def stop():
    end = time.monotonic() + float(unit()['TimeoutStopSec'][0])
    os.kill(pid(), signal.SIGTERM)
    while pid() is not None:
        if time.monotonic() > end:
            os.kill(pid(), signal.SIGKILL)
            raise SystemExit('did not stop in time')
        time.sleep(0.05)


def reload():
    subprocess.run(shlex.split(unit()['ExecReload'][0].replace('$MAINPID', str(pid()))), check=True)


def systemctl(*arguments):
    verb = arguments[0]
    if verb == 'daemon-reload':
        return
    assert arguments[-1] == 'kelpie', arguments
    if verb in ('stop', 'restart'):
        stop()
    if verb in ('start', 'restart') or (verb == 'enable' and '--now' in arguments and pid() is None):
        start()
    if verb == 'reload':
        reload()


def scp(*arguments):
    host, path = re.fullmatch(r'root@kelpie-(\d)\.example:(/\S+)', arguments[-1]).groups()
    for name in arguments[:-1]:
        shutil.copy(name, os.path.join(ROOT, 'node-' + host, path.lstrip('/')))


def install(*arguments):
    """The real one, but for owner and group, which are not here."""
    kept, words = [], iter(arguments)
    for word in words:
        if word in ('-o', '-g'):
            next(words)
        else:
            kept.append(word)
    subprocess.run(['/usr/bin/install'] + kept, check=True)


def htpasswd(options, user):
    import crypt
    assert options == '-niBC' or options == '-niBC10', options
    print('%s:%s' % (user, crypt.crypt(sys.stdin.readline().strip(), crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16))))


if __name__ == '__main__':
    CALLED = os.path.basename(sys.argv[0])
    if CALLED == 'htpasswd':
        assert sys.argv[2] == '10'
        htpasswd(sys.argv[1], sys.argv[3])
    elif CALLED not in ('useradd', 'chown'):   # there is no such user, and all is the test's
        {'systemctl': systemctl, 'scp': scp, 'install': install}[CALLED](*sys.argv[1:])
