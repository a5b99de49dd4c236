"""Peak memory of a run whose target is slower than its loop.

A loop hands over batches as fast as it can, to a target that takes bytes at a fixed rate and throws them away. What the
process needs beyond its own start must stay within::

    queue_bytes + one batch + max_workers * what an encoder allocates for a sample + a fixed overhead

Each run is a process of its own, since a process's peak never goes down; the runs of the ways compared take turns.

    python benchmarks/memory.py [--total 2e9] [--queue-bytes 134217728] [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import select
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import Any

from measure import Plan, smaps, spread, take_turns

__all__ = ["TITLE", "cases", "run"]

TITLE = "Memory beside a slow target"

_LOOK_SECONDS = 0.05
_MOST_POINTS = 120

OVERHEAD = 48 << 20
"""Bytes allowed beside the formula: threads, the allocator's slack, modules imported on the way."""


def peak() -> int:
    """The process's peak resident memory in bytes."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except FileNotFoundError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


class SlowTarget:
    """Takes `rate` bytes a second in all, and keeps none of them."""

    location = "nowhere"

    def __init__(self, rate: float) -> None:
        import threading

        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.taken = 0

    def open(self) -> None: ...

    def close(self) -> None: ...

    def check(self, names: list[str]) -> None: ...

    def keeps(self, name: str) -> bool:
        return False

    def put(self, name: str, parts: list[memoryview]) -> bool:
        nbytes = sum(part.nbytes for part in parts)
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + nbytes / self._rate
            self.taken += nbytes
            wait = self._free_at - now
        time.sleep(wait)
        return True


def one_run(way: str, options: argparse.Namespace) -> dict[str, float]:
    """One run, in this process."""
    import torch

    rows = max(1, options.batch_bytes // (4 * options.sample))
    batch = torch.zeros(rows, options.sample)
    batches = int(options.total // batch.nbytes)
    target = SlowTarget(options.rate)
    if options.announce:
        import lighter_async.service  # noqa: F401

        print("ready", flush=True)
    started = peak()
    began = time.perf_counter()
    stats: dict[str, float] = {}
    if way == "lighter_async":
        from lighter_async import BackgroundWriter

        with BackgroundWriter(
            "tensor", target=target, max_workers=2, queue_size=10**6, queue_bytes=options.queue_bytes
        ) as writer:
            for number in range(batches):
                batch.fill_(number)
                writer.submit_batch([f"{number}/{row}" for row in range(rows)], batch)
        stats = {"peak_pending_bytes": writer.stats().peak_pending_bytes, "waits": writer.stats().waits}
    elif way == "executor":
        import io
        from concurrent.futures import ThreadPoolExecutor

        def save(name: str, value: torch.Tensor) -> None:
            buffer = io.BytesIO()
            torch.save(value, buffer)
            target.put(name, [buffer.getbuffer()])

        with ThreadPoolExecutor(2) as executor:
            for number in range(batches):
                batch.fill_(number)
                for row, value in enumerate(batch):
                    executor.submit(save, f"{number}/{row}", value.clone())
    else:
        for number in range(batches):
            batch.fill_(number)
    return {
        "peak_beyond_start": peak() - started,
        "seconds": time.perf_counter() - began,
        "batch_bytes": batch.nbytes,
        "sample_bytes": 4 * options.sample,
        "handed_over": batches * batch.nbytes,
        **stats,
    }


def cases(plan: Plan) -> list[str]:
    return ["slow-target"]


def run(case: str, plan: Plan) -> dict[str, Any]:
    total = plan.pick(1e9, 0.5e9, 1e8)
    ways = {way: partial(watched, way, total) for way in ("lighter_async", "executor")}
    rounds, others = take_turns(ways, plan.pick(3, 2, 1), "memory", plan)
    found = {}
    for way in ways:
        runs = [one[way][0] for one in rounds]
        series = sorted(runs, key=lambda one: one["peak_mb"])[len(runs) // 2]["series"]
        found[way] = {"peak_mb": spread(one["peak_mb"] for one in runs), "series": series}
    return {
        "others": others,
        "title": f"{total / 1e9:g} GB in batches of 16 MiB, to a target of 200 MB/s; queue_bytes 128 MiB",
        "ways": found,
    }


def watched(way: str, total: float) -> dict[str, Any]:
    """A run in a process of its own whose resident memory is looked at every 50 ms, in MB beyond its start."""
    command = [sys.executable, __file__, "--way", way, "--total", str(total), "--announce"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # it has loaded everything
    began = time.perf_counter()
    first = smaps(process.pid)["Rss"]
    series = []
    while not select.select([process.stdout], [], [], _LOOK_SECONDS)[0]:  # until it tells its result
        series.append((round(time.perf_counter() - began, 2), round((smaps(process.pid)["Rss"] - first) / 1e6, 1)))
    process.stdout.read()
    process.stdout.close()
    if process.wait():
        raise RuntimeError(f"the run of {way} has failed")
    every = -(-len(series) // _MOST_POINTS)
    return {"peak_mb": max(megabytes for _, megabytes in series), "series": series[::every]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--total", type=float, default=2e9, help="bytes to hand over (default 2e9)")
    parser.add_argument("--queue-bytes", type=int, default=128 << 20, help="the bound (default 128 MiB)")
    parser.add_argument("--batch-bytes", type=int, default=16 << 20, help="bytes of a batch (default 16 MiB)")
    parser.add_argument("--sample", type=int, default=150_000, help="float32 elements of a sample (default 150000)")
    parser.add_argument("--rate", type=float, default=200e6, help="bytes a second that the target takes (default 2e8)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="where to write all runs")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--announce", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(one_run(options.way, options)))
        return 0

    import torch

    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}")
    print(
        f"{options.total / 1e9:g} GB in batches of {options.batch_bytes / 2**20:g} MiB, samples of "
        f"{4 * options.sample / 1e3:g} kB, to a target of {options.rate / 1e6:g} MB/s; queue_bytes "
        f"{options.queue_bytes / 2**20:g} MiB; {options.repeats} runs each, taking turns; MiB beyond the start"
    )
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--json")]
    runs: dict[str, list[dict[str, float]]] = {"nothing written": [], "lighter_async": [], "executor": []}
    for _ in range(options.repeats):
        for way, results in runs.items():
            done = subprocess.run(
                [sys.executable, __file__, *arguments, "--way", way], stdout=subprocess.PIPE, check=True, text=True
            )
            results.append(json.loads(done.stdout))
    for way, results in runs.items():
        peaks = [one["peak_beyond_start"] / 2**20 for one in results]
        seconds = statistics.median(one["seconds"] for one in results)
        print(
            f"  {way:16} median {statistics.median(peaks):7.1f}  from {min(peaks):7.1f} to {max(peaks):7.1f}"
            f"  in {seconds:5.1f} s"
        )
    ours = runs["lighter_async"]
    # torch.save writes into a growing buffer: up to twice the sample while it grows, and the sample's own copy.
    encoders = 2 * 3 * ours[0]["sample_bytes"]
    bound = options.queue_bytes + ours[0]["batch_bytes"] + encoders + OVERHEAD
    worst = max(one["peak_beyond_start"] for one in ours)
    print(
        f"bound: {bound / 2**20:.1f} MiB = queue_bytes + one batch + {encoders / 2**20:.1f} for two encoders + "
        f"{OVERHEAD / 2**20:.0f} fixed; {'kept' if worst <= bound else 'BROKEN'}"
    )
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"options": vars(options), "runs": runs, "bound": bound}, file, indent=1)
    return 0 if worst <= bound else 1


if __name__ == "__main__":
    sys.exit(main())
