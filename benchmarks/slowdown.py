"""What storing into shards and into an array does to Lightning's predict loop, beside files and beside no writing.

The loop hands over 64 rows of 384 float32 a step. A step is device-bound (it sleeps for 20 ms without the interpreter's
lock, as a loop does that waits for an accelerator) or launch-bound (small torch calls that keep one core busy for about
as long). The first steps, in which workers start, do not count. Runs take turns; the ratio is that of the times until
the last batch is handed over, to those of the two runs of the same round that write nothing, and what these two differ
by is the noise. Beside it stands the processor time that the loop's own thread takes more than without writing, which
other programs on the machine change less. What is stored is kept until the end.

    python benchmarks/slowdown.py [--steps 80] [--rounds 5] [--kinds device launch] [--folder /dev/shm] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_loop import quiet_trainer
from measure import MEMORY, Plan, folder_in, median, spread, take_turns
from torch.utils.data import DataLoader, Dataset
from workloads import WORKLOADS

from lighter_async import ArrayWriter, FileWriter, TarShards
from lighter_async.cli.bench.loops import make_step

NOTHING = "nothing"
ROWS = 64
STEP_SECONDS = 0.020
WARM_UPS = 25
"""Steps that do not count: half a second, in which a helper has started."""

_CALIBRATIONS = 5

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


def measured(kind: Any, ways: dict[str, Make | None], options: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    """The figures of one kind of step."""
    with torch.inference_mode():  # as Lightning predicts
        # The one of most calls: those made in a moment in which the machine was slow would be too short.
        step = max((make_step(kind, STEP_SECONDS) for _ in range(_CALIBRATIONS)), key=lambda one: one.calls)
    with folder_in(options.folder) as inside:
        numbers = itertools.count()
        calls = {
            way: partial(one_run, make, lambda: inside / f"{next(numbers)}", step.run, options.steps)
            for way, make in ways.items()
        }
        rounds, others = take_turns(calls, options.rounds, kind, plan, twice=[NOTHING])
    without = [median(one.clock for one in found[NOTHING]) for found in rounds]
    alone = [median(one.processor for one in found[NOTHING]) for found in rounds]
    noise = spread(
        max(one.clock for one in found[NOTHING]) / min(one.clock for one in found[NOTHING]) for found in rounds
    )
    return {
        "without_ms": spread(1e3 * one for one in without),
        "noise": noise,
        "others": others,
        "ways": {
            way: {
                "loop": spread(found[way][0].clock / base for found, base in zip(rounds, without, strict=True)),
                "added_cpu_us": spread(
                    1e6 * (found[way][0].processor - base) for found, base in zip(rounds, alone, strict=True)
                ),
            }
            for way in ways
            if way != NOTHING
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=80, help="that count, of each run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=("device", "launch"), default=["device", "launch"])
    parser.add_argument("--folder", type=Path, default=MEMORY, help="on which file system")
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways: dict[str, Make | None] = {NOTHING: None}
    for backend in ("process", "thread"):
        for title, make in (("files", files), ("TarShards", shards), ("array", array)):
            ways[f"{title}, {backend}"] = partial(make, backend=backend)
    kind_of = ["stat", "-f", "-c", "%T", str(options.folder)]
    system = subprocess.run(kind_of, capture_output=True, text=True).stdout.strip()
    print(
        f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores"
    )
    print(f"{WORKLOADS['embeddings'].title} or as rows, on {system}")
    print(f"default options; {options.steps} steps a run, {options.rounds} rounds")
    figures: dict[str, Any] = {"file_system": system, "steps": options.steps}
    plan = Plan("quick" if options.rounds > 1 else "smoke")
    for kind in options.kinds:
        found = figures[kind] = measured(kind, ways, options, plan)
        noise, others = found["noise"], found["others"]
        print(
            f"{kind}-bound, {found['without_ms']['median']:.2f} ms a step without writing; noise "
            f"{noise['median']:.3f} (to {noise['most']:.3f}); others used {others['median']:.0%} of a core"
        )
        for way, one in found["ways"].items():
            loop, added = one["loop"], one["added_cpu_us"]
            print(
                f"  {way:20} {loop['median']:.3f} times ({loop['least']:.3f} to {loop['most']:.3f});"
                f" {added['median']:5.0f} us of CPU a step ({added['least']:.0f} to {added['most']:.0f})"
            )
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
