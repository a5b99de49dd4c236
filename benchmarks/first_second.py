"""Short runs as a user would time them: a plain Trainer, a fresh process for each run, and the start counted.

The model sleeps for the rest of a step, without the interpreter's lock, as one does that waits for an accelerator. What
a run takes from its first step until its last batch was handed over is divided by what a run of the same round takes
that writes nothing. Beside it stand the hand-overs: the first one, the next ten, in which workers start and memory is
met for the first time, and later ones.

    python benchmarks/first_second.py STEP_MS BATCH SAMPLE_BYTES BACKEND
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, NamedTuple

from measure import MEMORY, Plan, folder_in, median, spread, take_turns

__all__ = ["TITLE", "cases", "run"]

TITLE = "The first second, and short steps"

NOTHING = "nothing"
WAYS = (NOTHING, "process", "thread")
_STEPS = 60
_STARTING = 11  # hand-overs until workers are at work


class Case(NamedTuple):
    """A step's length, and what it hands over."""

    step_ms: int
    batch: int
    sample_bytes: int

    def __str__(self) -> str:
        size = f"{self.sample_bytes / 1000:g} kB"
        return f"{self.step_ms} ms, {self.batch} x {size}"


CASES = [
    *(Case(step, 64, 1536) for step in (2, 5, 10, 20)),
    *(Case(5, batch, 1536) for batch in (1, 8, 512)),
    *(Case(step, 8, 600_000) for step in (10, 20)),
]


def cases(plan: Plan) -> list[str]:
    chosen = plan.pick(CASES, [Case(20, 64, 1536), Case(20, 8, 600_000)], [Case(2, 64, 1536)])
    return [f"{case.step_ms}-{case.batch}-{case.sample_bytes}" for case in chosen]


def run(name: str, plan: Plan) -> dict[str, Any]:
    case = Case(*map(int, name.split("-")))
    ways = {way: partial(in_a_fresh_process, case, way) for way in WAYS}
    turns, others = take_turns(ways, plan.pick(3, 3, 1), f"first second, {case}", plan)
    without = [found[NOTHING][0]["loop"] for found in turns]
    return {
        "title": str(case),
        "others": others,
        "without_ms": spread(1e3 * one / _STEPS for one in without),
        "ways": {
            way: {
                "loop": spread(found[way][0]["loop"] / base for found, base in zip(turns, without, strict=True)),
                "first_ms": spread(found[way][0]["handed_over"][0] for found in turns),
                "next_ms": spread(median(found[way][0]["handed_over"][1:_STARTING]) for found in turns),
                "later_ms": spread(median(found[way][0]["handed_over"][_STARTING:]) for found in turns),
            }
            for way in WAYS
            if way != NOTHING
        },
    }


def in_a_fresh_process(case: Case, way: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *map(str, case), way]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    case, way = Case(*map(int, sys.argv[1:4])), sys.argv[4]
    with folder_in(MEMORY) as folder:
        print(json.dumps(one_run(case, way, folder)))


def one_run(case: Case, way: str, folder: Path) -> dict[str, Any]:
    """The seconds of the loop, and the milliseconds of each hand-over."""
    import pytorch_lightning as pl
    import torch
    from lightning_loop import quiet_trainer
    from torch.utils.data import DataLoader

    from lighter_async import FileWriter

    torch.set_num_threads(1)
    batches = [torch.rand(case.batch, case.sample_bytes // 4) for _ in range(4)]
    began = ended = 0.0
    handed_over: list[float] = []

    class Model(pl.LightningModule):
        def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
            nonlocal began
            now = perf_counter()
            began = began or now
            sleep(max(0.0, now + 1e-3 * case.step_ms - perf_counter()))
            return {"value": batches[batch_idx % len(batches)]}

    class Clock(pl.Callback):
        def on_predict_batch_end(self, *_: Any) -> None:
            nonlocal ended
            ended = perf_counter()

    callbacks: list[pl.Callback] = [Clock()]
    if way != NOTHING:
        backend: Any = way
        writer = FileWriter(folder / "files", "value", "tensor", backend=backend)
        inner = writer.on_predict_batch_end

        def timed(*arguments: Any, **keywords: Any) -> None:
            start = perf_counter()
            inner(*arguments, **keywords)
            handed_over.append(1e3 * (perf_counter() - start))

        writer.on_predict_batch_end = timed  # type: ignore[method-assign]
        callbacks.insert(0, writer)
    with quiet_trainer(callbacks) as trainer:
        loader = DataLoader(range(_STEPS * case.batch), batch_size=case.batch)
        trainer.predict(Model(), loader, return_predictions=False)
    return {"loop": ended - began, "handed_over": handed_over}


if __name__ == "__main__":
    main()
