"""How long a torch call of about 3 us takes on the main thread while workers write without pause.

The workers are given their work beforehand, and more of it than they get done, so that the main thread only computes.
What another process or thread adds is then either the interpreter's lock or a core: on a machine with as many cores as
there are workers, the main thread has to share those as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any

import numpy as np
import torch
from measure import MEMORY, Plan, folder_in, settle, spread, take_turns
from peers import save
from workloads import WORKLOADS, Workload

from lighter_async import BackgroundWriter

__all__ = ["TITLE", "cases", "run"]

TITLE = "Waits of the main thread"

_SECONDS = 0.2
_BATCHES = {"embeddings": 5, "png224": 10}  # large ones, usually more than two workers do meanwhile
_TIMES = {"embeddings": 16, "png224": 1}
_TASKS = {"embeddings": 2500, "png224": 200}  # of a pool of threads, which is slow to hand over to
_ROOM = 2 << 30


def cases(plan: Plan) -> list[str]:
    return plan.pick([*_BATCHES], [*_BATCHES], ["embeddings"])


def run(case: str, plan: Plan) -> dict[str, Any]:
    torch.set_num_threads(1)
    workload = WORKLOADS[case]
    # Large ones: handed over faster than they are written, however much the workers are in the way.
    batches = [torch.cat(_TIMES[case] * workload.make())]
    ways: dict[str, Callable[[], dict[str, float]]] = {"nothing": calls}
    for workers in (1, 2):
        for backend in ("process", "thread"):
            busy = partial(ours, workload, batches, backend, workers)
            ways[f"lighter_async, {backend}, {workers}"] = partial(calls_beside, busy)
        ways[f"thread pool, {workers}"] = partial(calls_beside, partial(pool, workload, batches, workers))
    rounds, others = take_turns(ways, plan.pick(5, 3, 1), f"waits {case}", plan)
    figures = {}
    for way in ways:
        alone = [one["nothing"][0] for one in rounds]
        found = [one[way][0] for one in rounds]
        figures[way] = {name: spread(one[name] for one in found) for name in found[0]}
        for name in ("median_us", "mean_us"):
            waits = [one[name] - without[name] for one, without in zip(found, alone, strict=True)]
            figures[way][f"added_to_{name}"] = spread(waits)
    return {"others": others, "title": workload.title, "ways": figures}


def calls() -> dict[str, float]:
    """What torch calls take, one by one, in microseconds."""
    value = torch.zeros(16)
    taken = []
    end = perf_counter() + _SECONDS
    began = perf_counter()
    while began < end:
        value.add_(1)
        now = perf_counter()
        taken.append(now - began)
        began = perf_counter()
    us = 1e6 * np.array(taken)
    return {
        "median_us": float(np.median(us)),
        "mean_us": float(us.mean()),
        "p999_us": float(np.percentile(us, 99.9)),
        "most_us": float(us.max()),
    }


def calls_beside(busy: Callable[[int], Any]) -> dict[str, float]:
    for more in (1, 2, 4):
        with busy(more) as still_busy:
            found = calls()
            if still_busy():
                return found
    raise RuntimeError("the workers had nothing left to do before the calls ended; give them more batches")


@contextmanager
def ours(
    workload: Workload, batches: list[torch.Tensor], backend: Any, workers: int, more: int
) -> Iterator[Callable[[], bool]]:
    count = more * _BATCHES["png224" if workload.is_image else "embeddings"]
    options = {"backend": backend, "max_workers": workers, "queue_size": 10**6, "queue_bytes": _ROOM}
    with folder_in(MEMORY) as folder:
        writer = BackgroundWriter(workload.format, folder / "files", **options)  # type: ignore[arg-type]
        with writer:
            for number in range(workers + 1):
                few = batches[0][:16]
                writer.submit_batch([f"warm-up-{number}-{row}" for row in range(len(few))], few)
            writer.flush()
            settle()
            for number in range(count):
                batch = batches[number % len(batches)]
                writer.submit_batch([f"{number}-{row}" for row in range(len(batch))], batch)
            yield lambda: writer.stats().pending > 0
            writer.abort()


@contextmanager
def pool(workload: Workload, batches: list[torch.Tensor], workers: int, more: int) -> Iterator[Callable[[], bool]]:
    ending = ".png" if workload.is_image else ".pt"
    with folder_in(MEMORY) as folder, ThreadPoolExecutor(workers) as executor:
        gate = Event()  # or they would be done with each task before the next one comes
        tasks = [executor.submit(gate.wait) for _ in range(workers)]
        for number in range(more * _TASKS["png224" if workload.is_image else "embeddings"]):
            row = batches[0][number % len(batches[0])]
            tasks.append(executor.submit(save, str(Path(folder) / f"{number}{ending}"), row.clone()))
        gate.set()
        yield lambda: not tasks[-1].done()
        executor.shutdown(cancel_futures=True)
