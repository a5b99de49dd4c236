"""Reading one of a million samples in shards by its name: `open_results(DIR)[name]`.

Small texts are stored by `TarShards`, with names and indices. A fresh process opens them, and looks up names chosen at
random, in turns with bare system calls: one `pread` on an open file at a place that is known already, and `open`,
`pread` and `close`, as is needed where nothing stays open. The first round of each warms the page cache and does not
count. A lookup is timed by itself; the median is that of all of them. Processor time stands beside it, since other
programs on the machine change it less. Memory is what the process has grown by.

    python benchmarks/by_name.py [--samples 1000000] [--lookups 5000] [--rounds 7] [--folder /dev/shm]
        [--journaled SIZE] [--json FILE]
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from alone import parser_for, place_of, show
from measure import Plan, Quiet, folder_in, place_for, smaps, spread

from lighter_async import BackgroundWriter, Origin, TarShards, open_results

__all__ = ["TITLE", "cases", "run"]

TITLE = "Looking samples up by name"

_BATCH = 1000


def cases(plan: Plan) -> list[str]:
    return ["memory"]


def run(case: str, plan: Plan) -> dict[str, Any]:
    samples = plan.pick(1_000_000, 200_000, 2_000)
    with place_for(case) as (place, where):
        return measured(place, where, samples=samples, lookups=plan.pick(5000, 5000, 100), rounds=plan.pick(7, 3, 1))


def measured(place: Path, where: str, *, samples: int, lookups: int, rounds: int) -> dict[str, Any]:
    """What storing took, and the looks of another process."""
    quiet = Quiet(0.0)  # it tells what others use; to store a million once more would take long
    with folder_in(place) as inside:
        built = quiet.run(partial(build, inside / "texts", samples))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = quiet.run(partial(pool.apply, read, (inside / "texts", samples, lookups, rounds)))
    title = f"{samples:,} texts in `TarShards`, {where}"
    return {"others": spread(quiet.shares), "title": title, "built": built, **found}


def build(folder: Path, samples: int) -> dict[str, float]:
    """Store the samples, and say what that took."""
    began, of_children = perf_counter(), _processor(resource.RUSAGE_CHILDREN)
    own = _processor(resource.RUSAGE_SELF)
    with BackgroundWriter("text", TarShards(folder), backend="process", max_workers=1) as writer:
        for start in range(0, samples, _BATCH):
            numbers = range(start, min(start + _BATCH, samples))
            names = [f"case.{number}" for number in numbers]
            writer.submit_batch(names, [f"text {number}" for number in numbers], origin=Origin(numbers))
    return {
        "seconds": perf_counter() - began,
        "loop_cpu_seconds": _processor(resource.RUSAGE_SELF) - own,
        "helper_cpu_seconds": _processor(resource.RUSAGE_CHILDREN) - of_children,
    }


def read(folder: Path, samples: int, lookups: int, rounds: int) -> dict[str, Any]:
    """Look names up, in this process."""
    before = smaps(os.getpid())["Rss"]
    began, processor = perf_counter(), process_time()
    results = open_results(folder)
    opening = perf_counter() - began, process_time() - processor
    opened = smaps(os.getpid())["Rss"]
    began = perf_counter()
    results[f"case.{samples // 2}"]
    first = perf_counter() - began
    used = smaps(os.getpid())["Rss"]
    unchecked = open_results(folder, check=False)
    chooser = random.Random(20)
    names = [f"case.{chooser.randrange(samples)}" for _ in range(lookups)]
    places: dict[str, tuple[str, int, int]] = {}
    for name in names:
        record = results.record(name)
        assert record.file is not None
        assert record.bytes is not None
        places[name] = os.path.join(folder, record.file), record.offset, record.bytes
        assert results[name] == f"text {name.removeprefix('case.')}"
    descriptors = {path: os.open(path, os.O_RDONLY) for path, _, _ in places.values()}

    def bare(name: str) -> bytes:
        path, offset, size = places[name]
        return os.pread(descriptors[path], size, offset)

    def opened_anew(name: str) -> bytes:
        path, offset, size = places[name]
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)

    ways: dict[str, Callable[[str], object]] = {
        "one pread": bare,
        "open, pread, close": opened_anew,
        "results[name]": results.__getitem__,
        "results[name], check=False": unchecked.__getitem__,
        "results.at(index)": lambda name: results.at(int(name.removeprefix("case."))),
    }
    single: dict[str, list[float]] = {way: [] for way in ways}
    mean: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, look_up in ways.items():
            taken = []
            processor = process_time()
            for name in names:
                began = perf_counter()
                look_up(name)
                taken.append(perf_counter() - began)
            if number:
                single[way] += taken
                mean[way].append((process_time() - processor) / lookups)
    return {
        "opened": {"seconds": opening[0], "cpu_seconds": opening[1], "grown_mb": (opened - before) / 1e6},
        "first_look": {"seconds": first, "grown_mb": (used - before) / 1e6},
        "ways": {
            way: {
                "us": spread(1e6 * one for one in single[way]),
                "p99_us": 1e6 * sorted(single[way])[int(0.99 * len(single[way]))],
                "cpu_us": spread(1e6 * one for one in mean[way]),
            }
            for way in ways
        },
    }


def _processor(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = parser_for(__doc__, rounds=7)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--lookups", type=int, default=5000, help="in a round")
    options = parser.parse_args()
    sizes = {"samples": options.samples, "lookups": options.lookups, "rounds": options.rounds}
    with place_of(options) as (place, where):
        found = measured(place, where, **sizes)
    show("by_name", {"alone": found}, options)


if __name__ == "__main__":
    main()
