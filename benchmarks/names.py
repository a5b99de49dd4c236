"""What the register of used names costs.

Names are claimed a thousand at a time, as a run's batches are. Memory is what the process grew by, and what the tables
of the register take.

    python benchmarks/names.py [--names 10000000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time

from lighter_async.names import Claims

PER_BATCH = 1000


def resident() -> int:
    """The process's resident memory in bytes, where Linux tells it."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
    except FileNotFoundError:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=10_000_000)
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    claims = Claims()
    before = resident()
    seconds = []
    for start in range(0, options.names, PER_BATCH):
        names = [f"case/{number:08d}.pt" for number in range(start, start + PER_BATCH)]
        began = time.perf_counter()
        claims.claim(names, names)
        seconds.append(time.perf_counter() - began)
    figures = {
        "names": options.names,
        "grown_megabytes": (resident() - before) / 1e6,
        "microseconds_per_name_median": statistics.median(seconds) / PER_BATCH * 1e6,
        "milliseconds_per_batch_most": max(seconds) * 1e3,
        "seconds": sum(seconds),
    }
    print(f"{platform.platform()}, Python {platform.python_version()}; batches of {PER_BATCH} names")
    for name, figure in figures.items():
        print(f"  {name:30} {figure:14,.2f}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
