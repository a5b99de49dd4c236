"""Threads beside helper processes: by the size of a sample, the cores, and what other programs take of them.

A plain loop hands batches over, each after a step that is device-bound (it sleeps without the interpreter's lock) or
launch-bound (small torch calls that keep a core busy for about as long). Runs take turns. Loop: the time until the last
batch is handed over, beside a run without writing in the same round; job: until everything is stored. The first
half second, in which helpers start, counts, too.

    python benchmarks/choice.py [--cases embeddings png512] [--kinds device launch] [--cores 1] [--busy 2]
        [--seconds 2] [--rounds 5] [--folder /dev/shm] [--json FILE]

`--cores` allows the loop and its workers so many cores, and `--busy` starts so many programs beside them that compute
without pause.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from measure import MEMORY, Plan, environment, folder_in, spread, take_turns, today
from workloads import WORKLOADS, Workload, numbers

from lighter_async import BackgroundWriter
from lighter_async.cli.bench.loops import make_step
from lighter_async.cli.bench.record import machine_line

KINDS = ("device", "launch")
NOTHING = "nothing"
WAYS = (NOTHING, "thread", "process")

_CALIBRATIONS = 5


def _tensors(count: int, size: int, step: float) -> Workload:
    return Workload(
        title=f"{count} tensors of {size:,} bytes",
        format="tensor",
        make=partial(numbers, count, size // 4),
        step_seconds=step,
    )


CASES = {
    **{name: one for name, one in WORKLOADS.items() if name != "tensors"},
    "16k": _tensors(32, 16_384, 0.020),
    "64k": _tensors(32, 65_536, 0.020),
    "128k": _tensors(16, 131_072, 0.020),
    "256k": _tensors(16, 262_144, 0.030),
    "600k": WORKLOADS["tensors"],
    "2M": _tensors(4, 2 << 20, 0.030),
    "8M": _tensors(2, 8 << 20, 0.050),
}


@dataclass(frozen=True)
class Taken:
    """What a run took, in seconds; `processor` is of the loop's process alone."""

    loop: float
    job: float
    waited: float
    processor: float


def one_run(
    workload: Workload, batches: list[torch.Tensor], backend: Any, folder: Path, step: Callable[[], None], steps: int
) -> Taken:
    """Run the loop once."""
    count = len(batches[0])
    began, processor = perf_counter(), process_time()
    if backend == NOTHING:
        for _ in range(steps):
            step()
        seconds = perf_counter() - began
        return Taken(seconds, seconds, 0.0, process_time() - processor)
    with BackgroundWriter(workload.format, folder, backend=backend) as writer:
        for number in range(steps):
            step()
            writer.submit_batch([f"{number}-{row}" for row in range(count)], batches[number % len(batches)])
        loop = perf_counter() - began
    taken = Taken(loop, perf_counter() - began, writer.stats().waited_seconds, process_time() - processor)
    shutil.rmtree(folder)
    return taken


@contextmanager
def busy(programs: int, seconds: float = 36_000.0) -> Iterator[None]:
    """While it is open, so many programs compute."""
    # They end with this process, whatever ends it.
    code = (
        f"import os, time\nparent, end = os.getppid(), time.monotonic() + {seconds}\n"
        "while time.monotonic() < end and os.getppid() == parent:\n    pass"
    )
    running = [subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True) for _ in range(programs)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def measured(name: str, kind: Any, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one case."""
    workload = CASES[name]
    torch.set_num_threads(1)
    # The one of most calls: those made in a moment in which the machine was slow would be too short.
    step = max((make_step(kind, workload.step_seconds) for _ in range(_CALIBRATIONS)), key=lambda one: one.calls)
    batches, steps = workload.make(), max(2, round(options.seconds / workload.step_seconds))
    with folder_in(options.folder) as inside, busy(options.busy):
        names = itertools.count()
        ways = {
            way: lambda way=way: one_run(workload, batches, way, inside / f"{next(names)}", step.run, steps)
            for way in WAYS
        }
        turns, others = take_turns(ways, options.rounds, f"{kind} {name}", Plan("full"), patience=options.patience)
    bases = [turn[NOTHING][0].loop for turn in turns]
    figures = {
        way: {
            "loop": spread(turn[way][0].loop / base for turn, base in zip(turns, bases, strict=True)),
            "job": spread(turn[way][0].job / base for turn, base in zip(turns, bases, strict=True)),
            "waited": spread(turn[way][0].waited for turn in turns),
            "processor": spread(turn[way][0].processor / steps for turn in turns),
        }
        for way in WAYS
    }
    for way in WAYS[1:]:
        one = figures[way]
        print(
            f"| {kind}, {workload.title} | {way} | {_shown(one['loop'])} | {_shown(one['job'])} | "
            f"{_shown(one['waited'])} |",
            flush=True,
        )
    return {"others": others, "ways": figures, "runs": [{way: asdict(turn[way][0]) for way in WAYS} for turn in turns]}


def _shown(figure: dict[str, float]) -> str:
    return f"{figure['median']:.3f} ({figure['least']:.3f} to {figure['most']:.3f}, n {figure['n']})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--cores", type=int, help="that the loop and its workers may use")
    parser.add_argument("--busy", type=int, default=0, help="programs beside it")
    parser.add_argument("--seconds", type=float, default=2.0, help="of the loop without writing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--patience", type=float, default=20.0, help="seconds to wait for other programs, of each case")
    parser.add_argument("--folder", type=Path, default=MEMORY)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.cores is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    _, machine = environment()
    cores = len(os.sched_getaffinity(0))
    print(f"{machine_line()}; {cores} of the cores, {options.busy} busy programs, {today()}")
    print("| case | backend | loop | job | waited, s |\n| --- | --- | --- | --- | --- |")
    found = {f"{kind}/{name}": measured(name, kind, options) for kind in options.kinds for name in options.cases}
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine, "on": today(), "cases": found}, indent=1))


if __name__ == "__main__":
    main()
