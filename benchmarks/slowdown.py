"""What storing into shards and into an array does to Lightning's predict loop, beside files and beside no writing.

The loop hands over 64 rows of 384 float32 a step. A step is device-bound (it sleeps for 20 ms without the interpreter's
lock, as a loop does that waits for an accelerator) or launch-bound (small torch calls that keep one core busy for about
as long). The first steps, in which workers start, do not count. Runs take turns; the ratio is that of the times until
the last batch is handed over, to those of the two runs of the same round that write nothing, and what these two differ
by is the noise. Beside it stands the processor time that the loop's own thread takes more than without writing, which
other programs on the machine change less. What is stored is kept until the end.

    python benchmarks/slowdown.py [--steps 80] [--rounds 5] [--kinds device launch] [--folder /dev/shm]
        [--journaled SIZE] [--json FILE]
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import pytorch_lightning as pl
import torch
from alone import parser_for, place_of, show
from lightning_loop import quiet_trainer
from measure import Plan, folder_in, median, place_for, spread, take_turns
from torch.utils.data import DataLoader, Dataset
from workloads import WORKLOADS

from lighter_async import ArrayWriter, FileWriter, TarShards
from lighter_async.cli.bench.loops import make_step

__all__ = ["TITLE", "cases", "run"]

TITLE = "The loop's slow-down, by target"

NOTHING = "nothing"
KINDS = ("device", "launch")
ROWS = 64
STEP_SECONDS = 0.020
WARM_UPS = 25
"""Steps that do not count: half a second, in which a helper has started."""

_CALIBRATIONS = 5
_STEPS = 80  # that count, of each run

Make = Callable[[Path], pl.Callback]


@dataclass(frozen=True)
class Taken:
    """What a step of a run took on average, in seconds: by the clock, and of the processor by the loop's thread."""

    clock: float
    processor: float


class Indices(Dataset[list[int]]):
    """A data set of a given length, whose items are their own indices."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return index

    def __getitems__(self, indices: list[int]) -> list[int]:
        return indices


class Model(pl.LightningModule):
    """Makes a step, and returns batches that exist already, in turn."""

    def __init__(self, step: Callable[[], None], batches: list[torch.Tensor]) -> None:
        super().__init__()
        self._step = step
        self._batches = batches

    def predict_step(self, batch: list[int], batch_idx: int) -> dict[str, Any]:
        self._step()
        return {"value": self._batches[batch_idx % len(self._batches)]}


class Clock(pl.Callback):
    """Placed last, so that it counts what all the others do."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0, 0.0

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, number: int, *_: Any
    ) -> None:
        self.ended = perf_counter(), thread_time()
        if number == WARM_UPS - 1:
            self.began = self.ended


def one_run(make: Make | None, folders: Callable[[], Path], step: Callable[[], None], steps: int) -> Taken:
    """Run the loop once."""
    clock = Clock()
    callbacks: list[pl.Callback] = [*([] if make is None else [make(folders())]), clock]
    with quiet_trainer(callbacks) as trainer:
        loader = DataLoader(Indices((WARM_UPS + steps) * ROWS), batch_size=ROWS, collate_fn=list)
        trainer.predict(Model(step, WORKLOADS["embeddings"].make()), loader, return_predictions=False)
    seconds, processor = (ended - began for began, ended in zip(clock.began, clock.ended, strict=True))
    return Taken(seconds / steps, processor / steps)


def files(folder: Path, backend: Any) -> pl.Callback:
    return FileWriter(folder, "value", "tensor", backend=backend)


def shards(folder: Path, backend: Any) -> pl.Callback:
    return FileWriter(TarShards(folder), "value", "tensor", backend=backend)


def array(folder: Path, backend: Any) -> pl.Callback:
    folder.mkdir()
    return ArrayWriter(folder / "rows.npy", "value", backend=backend)


def cases(plan: Plan) -> list[str]:
    return plan.pick([*KINDS], ["device"], ["device"])


def run(case: str, plan: Plan) -> dict[str, Any]:
    with place_for("memory") as (place, where):
        return measured(place, where, case, steps=plan.pick(_STEPS, 40, 5), rounds=plan.pick(5, 3, 1), plan=plan)


def measured(place: Path, where: str, kind: Any, *, steps: int, rounds: int, plan: Plan) -> dict[str, Any]:
    """The figures of one kind of step."""
    torch.set_num_threads(1)
    ways: dict[str, Make | None] = {NOTHING: None}
    for backend in ("process", "thread"):
        for title, make in (("files", files), ("TarShards", shards), ("array", array)):
            ways[f"{title}, {backend}"] = partial(make, backend=backend)
    with torch.inference_mode():  # as Lightning predicts
        # The one of most calls: those made in a moment in which the machine was slow would be too short.
        step = max((make_step(kind, STEP_SECONDS) for _ in range(_CALIBRATIONS)), key=lambda one: one.calls)
    with folder_in(place) as inside:
        numbers = itertools.count()
        calls = {
            way: partial(one_run, make, lambda: inside / f"{next(numbers)}", step.run, steps)
            for way, make in ways.items()
        }
        turns, others = take_turns(calls, rounds, f"slowdown {kind}", plan, twice=[NOTHING])
    without = [median(one.clock for one in found[NOTHING]) for found in turns]
    alone = [median(one.processor for one in found[NOTHING]) for found in turns]
    noise = spread(
        max(one.clock for one in found[NOTHING]) / min(one.clock for one in found[NOTHING]) - 1 for found in turns
    )
    return {
        "title": f"{ROWS} embeddings of 384 float32, a step of {STEP_SECONDS * 1e3:g} ms, {kind}-bound, {where}",
        "without_ms": spread(1e3 * one for one in without),
        "noise": noise,
        "others": others,
        "ways": {
            way: {
                "loop": spread(found[way][0].clock / base for found, base in zip(turns, without, strict=True)),
                "added_cpu_us": spread(
                    1e6 * (found[way][0].processor - base) for found, base in zip(turns, alone, strict=True)
                ),
            }
            for way in ways
            if way != NOTHING
        },
    }


def main() -> None:
    parser = parser_for(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=_STEPS, help="that count, of each run")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    plan = Plan("full" if options.rounds > 1 else "smoke")
    sizes = {"steps": options.steps, "rounds": options.rounds}
    with place_of(options) as (place, where):
        found = {kind: measured(place, where, kind, **sizes, plan=plan) for kind in options.kinds}
    show("slowdown", found, options)


if __name__ == "__main__":
    main()
