"""What the callback takes of the loop: its time for a batch, beside one plain copy of that batch into reused memory.

The loop leaves the workers all the time they need, so nothing is waited for. Copies and hand-overs take turns over the
same batches, each after a moment of computing, since a core that has slept is slow.
"""

from __future__ import annotations

import itertools
from functools import partial
from time import perf_counter, sleep
from typing import Any

import torch
from lightning_loop import predict
from measure import MEMORY, Plan, Quiet, folder_in, median, spread, tell
from torch import Tensor
from workloads import WORKLOADS, Workload

from lighter_async import FileWriter

__all__ = ["TITLE", "cases", "run"]

TITLE = "Hand-over"

_AWAKE_SECONDS = 0.0005
_SLACK = 1.5  # steps as long as the loops' times this
_COPY_FACTOR = 1.2


def cases(plan: Plan) -> list[str]:
    return plan.pick([*WORKLOADS], [*WORKLOADS], ["embeddings"])


def run(case: str, plan: Plan) -> dict[str, Any]:
    torch.set_num_threads(1)
    workload = WORKLOADS[case]
    batches = workload.make()
    steps = max(8, round(plan.pick(2.0, 0.8, 0.1) / (_SLACK * workload.step_seconds)))
    found = {}
    quiet = Quiet(plan.pick(30.0, 10.0, 0.0))
    for backend, named in itertools.product(("process", "thread"), (True, False)):
        how = f"{backend}, {'names' if named else 'numbers'}"
        callback, copy = quiet.run(partial(seconds_of, backend, named, workload, batches, steps))
        excess = median(callback) - _COPY_FACTOR * median(copy)
        found[how] = {
            "callback_us": spread(1e6 * one for one in callback),
            "copy_us": spread(1e6 * one for one in copy),
            "excess_us": round(1e6 * excess, 2),
        }
        tell(f"hand-over {case}, {how}: {1e6 * median(callback):.0f} us, a copy {1e6 * median(copy):.0f} us")
    return {"others": spread(quiet.shares), "title": workload.title, "ways": found}


def seconds_of(
    backend: str, named: bool, workload: Workload, batches: list[Tensor], steps: int
) -> tuple[list[float], list[float]]:
    """The seconds of each hand-over and of each copy."""
    callbacks: list[float] = []
    copies: list[float] = []
    reused = torch.empty_like(batches[0])
    numbers = itertools.count()
    small = torch.zeros(16)

    def step() -> None:
        sleep(_SLACK * workload.step_seconds)
        end = perf_counter() + _AWAKE_SECONDS
        while perf_counter() < end:
            small.add_(1)
        other = batches[(next(numbers) + len(batches) // 2) % len(batches)]
        began = perf_counter()
        reused.copy_(other)
        copies.append(perf_counter() - began)

    with folder_in(MEMORY) as folder:
        writer = FileWriter(folder / "files", "value", workload.format, "name" if named else None, backend=backend)
        inner = writer.on_predict_batch_end

        def timed(*arguments: Any, **keywords: Any) -> None:
            began = perf_counter()
            inner(*arguments, **keywords)
            callbacks.append(perf_counter() - began)

        writer.on_predict_batch_end = timed  # type: ignore[method-assign]
        add_names = Names(len(batches[0])) if named else None
        times = predict(step, batches, writer, pending(writer), steps=steps, seconds=3600, outputs=add_names)
        if writer.stats().waits:
            tell(f"{writer.stats().waits} of the hand-overs had to wait for room")
    return callbacks[-times.steps :], copies


def pending(writer: FileWriter) -> Any:
    def wait() -> None:
        while writer.stats().pending:
            sleep(0.001)

    return wait


class Names:
    """Adds a name per sample to the outputs."""

    def __init__(self, count: int) -> None:
        self._batches = itertools.count()
        self._count = count

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Any]:
        batch = next(self._batches)
        return {**outputs, "name": [f"case-{batch:06}-{row:03}" for row in range(self._count)]}
