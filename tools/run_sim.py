#!/usr/bin/env python3
"""Run the crash simulations outside the test run: run_sim.py [--full] [SEED].

Reduced: the simulations as `./dev test` runs them. --full: KELPIE_SIM=full, every crash state, failing call and
allocation, then kill -9 and power cuts of the real process (tests/integration/test_kill.py). A seed is printed by
every test and given back here repeats it."""
import os
import subprocess
import sys
import time

import run_tests

TOP = run_tests.TOP


def timed(name, command, env):
    """Run it; prints how long it took. Returns whether it passed."""
    begun = time.monotonic()
    status = subprocess.run(command, cwd=TOP, env=env).returncode
    print('%s: %s after %.0f s' % (name, 'passed' if status == 0 else 'FAILED', time.monotonic() - begun), flush=True)
    return status == 0


def main():
    env = dict(os.environ)
    full = '--full' in sys.argv[1:]
    if full:
        env['KELPIE_SIM'] = 'full'
    for argument in sys.argv[1:]:
        if argument != '--full':
            env['SEED'] = argument
    passed = timed('simulations', ['meson', 'test', '-C', 'build/release', '--suite', 'sim', '--verbose',
                                   '--num-processes', '2', '--timeout-multiplier', '20'], env)
    if full:
        passed = timed('kill -9 and power cuts', run_tests.pytest_command() + ['tests/integration/test_kill.py'],
                       env) and passed
    return 0 if passed else 1


if __name__ == '__main__':
    sys.exit(main())
