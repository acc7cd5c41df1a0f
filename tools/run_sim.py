#!/usr/bin/env python3
"""Run the crash simulations outside the test run: run_sim.py [--full] [SEED].

Reduced: what `./dev test` runs. --full: KELPIE_SIM=full, all crash states. A seed is printed by every
simulation and given back here repeats it."""
import os
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    env = dict(os.environ)
    for argument in sys.argv[1:]:
        if argument == '--full':
            env['KELPIE_SIM'] = 'full'
        else:
            env['SEED'] = argument
    command = ['meson', 'test', '-C', 'build/release', '--suite', 'sim', '--verbose', '--num-processes', '2',
               '--timeout-multiplier', '20']
    return subprocess.run(command, cwd=TOP, env=env).returncode


if __name__ == '__main__':
    sys.exit(main())
