# SPDX-License-Identifier: Apache-2.0
"""How long `ugen --help` takes over bare Python, in turns, as processes of their own.

python benchmarks/bench_cli.py            # judged: at most 120 ms
python benchmarks/bench_cli.py --smoke    # shows that it works, judging nothing
"""

import argparse
import statistics
import subprocess
import sys
import time

BARE = [sys.executable, "-c", "pass"]
HELP = [sys.executable, "-c", "from ugen_provider.cli import main; main(['--help'], prog_name='ugen')"]
JOBS = [sys.executable, "-c", "from ugen_provider.cli import main; main(['jobs', '--help'], prog_name='ugen')"]
MOST_MS = 120.0


def milliseconds(command):
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begun) * 1000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true")
    smoke = parser.parse_args().smoke
    rounds = 3 if smoke else 30
    milliseconds(HELP)  # compiles
    taken = [(milliseconds(BARE), milliseconds(HELP), milliseconds(JOBS)) for _ in range(rounds)]
    columns = list(zip(*taken, strict=True))
    best = [min(column) for column in columns]
    medians = ", ".join(f"{statistics.median(column):.0f}" for column in columns)
    # The best of all rounds, as timeit does: a start does always the same; other processes cause the longer ones.
    bare, over_help, over_jobs = best[0], best[1] - best[0], best[2] - best[0]
    print(f"bare Python         {bare:7.1f} ms   (the best of {rounds} rounds; medians: {medians})")
    print(f"ugen --help        +{over_help:7.1f} ms   at most {MOST_MS:.0f}")
    print(f"ugen jobs --help   +{over_jobs:7.1f} ms   at most {MOST_MS:.0f}")
    if not smoke and max(over_help, over_jobs) > MOST_MS:
        sys.exit("too slow")


if __name__ == "__main__":
    main()
