"""Throughput with everything handed over as fast as it goes, beside the floor.

The floor is the same files' bytes, encoded beforehand, written by plain calls to the system from one or two processes.
All others count from the first hand-over until everything is stored, with their workers started before.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from measure import MEMORY, Plan, folder_in, place_for, settle, spread, take_turns
from peers import process_executor, save
from torch import Tensor
from workloads import WORKLOADS, Workload

from lighter_async import BackgroundWriter

__all__ = ["TITLE", "cases", "run"]

TITLE = "Saturated throughput"

_BATCHES = {  # of the full runs
    ("memory", "embeddings"): 160,
    ("memory", "tensors"): 50,
    ("memory", "png224"): 25,
    ("disk", "embeddings"): 40,
    ("disk", "tensors"): 25,
    ("disk", "png224"): 15,
}
_SLOW_SHARE = 4  # peers with another encoder do a part of that

Rate = float  # files a second


@dataclass(frozen=True, kw_only=True)
class Case:
    """What all ways of one case do."""

    workload: Workload
    batches: list[Tensor]
    place: Path
    count: int

    @property
    def ending(self) -> str:
        return ".png" if self.workload.is_image else ".pt"


def cases(plan: Plan) -> list[str]:
    return plan.pick(*2 * [[f"{place}/{name}" for place, name in _BATCHES]], ["memory/embeddings"])


def run(case: str, plan: Plan) -> dict[str, Any]:
    torch.set_num_threads(1)
    where, _, name = case.partition("/")
    count = max(4, round(_BATCHES[where, name] * plan.pick(1, 0.5, 0.02)))
    workload = WORKLOADS[name]
    with contextlib.ExitStack() as stack:
        place, told = stack.enter_context(place_for(where))
        what = Case(workload=workload, batches=workload.make(), place=place, count=count)
        encoded = stack.enter_context(encoded_files(what))
        ways: dict[str, Callable[[], Rate]] = {}
        for workers in (1, 2):
            writers = stack.enter_context(floor_processes(encoded, workers))
            ways[f"floor, {workers}"] = partial(floor, what, writers)
            for backend in ("process", "thread"):
                ways[f"lighter_async, {backend}, {workers}"] = partial(ours, what, backend, workers)
        ways["inline, 1"] = partial(inline, what)
        threads = stack.enter_context(ThreadPoolExecutor(2))
        ways["thread pool, 2"] = partial(pooled, what, threads, Tensor.clone)
        if plan.level != "smoke":
            processes = stack.enter_context(process_executor())
            ways["process pool, 2"] = partial(pooled, what, processes, lambda row: row.numpy().copy())
            ways["process pool, 2"]()  # starts its processes
        nbytes = sum(file.stat().st_size for file in encoded) / len(encoded)
        rounds, others = take_turns(ways, plan.pick(5, 3, 1), f"saturated {case}", plan)
    return {
        "others": others,
        "title": f"{workload.title}, {told}",
        "file_bytes": round(nbytes),
        "ways": {way: figures(way, rounds, nbytes) for way in ways},
    }


def figures(way: str, rounds: list[dict[str, list[Rate]]], nbytes: float) -> dict[str, Any]:
    floor_of = f"floor, {way[-1]}"
    rates = [one[way][0] for one in rounds]
    return {
        "files_per_s": spread(rates),
        "mb_per_s": spread(rate * nbytes / 1e6 for rate in rates),
        "to_floor": spread(one[way][0] / one[floor_of][0] for one in rounds),
    }


@contextlib.contextmanager
def encoded_files(what: Case) -> Iterator[list[Path]]:
    """Files as ours come out, some for each of the batches, in memory."""
    with folder_in(MEMORY) as folder:
        with BackgroundWriter(what.workload.format, folder / "encoded", backend="thread") as writer:
            for number, batch in enumerate(what.batches):
                writer.submit_batch(names(number, batch), batch)
        yield sorted((folder / "encoded").glob(f"*{what.ending}"))


@contextlib.contextmanager
def floor_processes(encoded: list[Path], count: int) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, str(Path(__file__).parent / "floor.py"), *map(str, encoded)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    processes = [subprocess.Popen(command, **pipes) for _ in range(count)]  # type: ignore[call-overload]
    settle()
    try:
        yield processes
    finally:
        for process in processes:
            process.stdin.close()
            process.wait()
            process.stdout.close()


def floor(what: Case, writers: list[subprocess.Popen[str]]) -> Rate:
    files = what.count * len(what.batches[0])
    share = files // len(writers)
    with folder_in(what.place) as folder:
        began = perf_counter()
        for number, writer in enumerate(writers):
            print(folder, number * share, share, file=writer.stdin)
        for writer in writers:
            writer.stdout.readline()
        return share * len(writers) / (perf_counter() - began)


def ours(what: Case, backend: Any, workers: int) -> Rate:
    with folder_in(what.place) as folder:
        with BackgroundWriter(what.workload.format, folder / "files", backend=backend, max_workers=workers) as writer:
            for number in range(workers + 1):
                writer.submit_batch(names(f"warm-up-{number}", what.batches[0]), what.batches[0])
            writer.flush()
            settle()
            began = perf_counter()
            for number in range(what.count):
                batch = what.batches[number % len(what.batches)]
                writer.submit_batch(names(number, batch), batch)
            writer.flush()
            return what.count * len(what.batches[0]) / (perf_counter() - began)


def inline(what: Case) -> Rate:
    count = max(1, what.count // _SLOW_SHARE)
    with folder_in(what.place) as folder:
        began = perf_counter()
        for number in range(count):
            batch = what.batches[number % len(what.batches)]
            for name, row in zip(names(number, batch), batch, strict=True):
                save(f"{folder}/{name}{what.ending}", row.clone())
        return count * len(what.batches[0]) / (perf_counter() - began)


def pooled(what: Case, executor: Executor, copied: Callable[[Tensor], Any]) -> Rate:
    count = max(1, what.count // _SLOW_SHARE)
    with folder_in(what.place) as folder:
        began = perf_counter()
        tasks = []
        for number in range(count):
            batch = what.batches[number % len(what.batches)]
            for name, row in zip(names(number, batch), batch, strict=True):
                tasks.append(executor.submit(save, f"{folder}/{name}{what.ending}", copied(row)))
        for task in tasks:
            task.result()
        return count * len(what.batches[0]) / (perf_counter() - began)


def names(batch: object, rows: Tensor) -> list[str]:
    return [f"{batch}-{row}" for row in range(len(rows))]
