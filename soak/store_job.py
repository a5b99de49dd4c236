"""A job that stores what is pending of its samples, and ends early where it is told to.

    python soak/store_job.py DIRECTORY SAMPLES BACKEND [--first N] [--stop N] [--limit N] [--clock SECONDS] [--anew]

It prints how many it has stored.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from samples import value

_time = time.time


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("samples", type=int)
    parser.add_argument("backend")
    parser.add_argument("--first", type=int, default=0, help="look after the samples from this one on")
    parser.add_argument("--stop", type=int, help="and before this one")
    parser.add_argument("--limit", type=int, help="end after so many")
    parser.add_argument("--clock", type=float, default=0.0, help="seconds that this machine's clock is wrong by")
    parser.add_argument("--step", type=float, default=0.0, help="seconds that a batch takes to compute")
    parser.add_argument("--anew", action="store_true", help="without going on from what earlier ones have stored")
    options = parser.parse_args()
    if options.clock:
        time.time = lambda: _time() + options.clock  # before anybody has taken it from there

    from lighter_async import BackgroundWriter, Origin, Run, pending

    mine = range(options.first, options.samples if options.stop is None else options.stop)
    left = set(mine) if options.anew else set(pending(range(options.samples), options.directory)).intersection(mine)
    todo = sorted(left)[: options.limit]
    with BackgroundWriter(
        "tensor",
        options.directory,
        backend=options.backend,
        max_workers=2,
        queue_size=16,
        resume=not options.anew,
        run=Run(numbered=True),
    ) as writer:
        for start in range(0, len(todo), 4):
            batch = todo[start : start + 4]
            writer.submit_batch(
                [str(index) for index in batch],
                [value(index, 1 << 14) for index in batch],
                origin=Origin(indices=batch),
            )
            time.sleep(options.step)
    print(writer.stats().written)


if __name__ == "__main__":
    main()
