"""The loops that writing is measured in: one that leaves a core free, and one that waits for a device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from time import perf_counter
from typing import Any

import torch

from lighter_async.cli.bench.loops import make_step
from lighter_async.cli.demo.lightning import lightning
from lighter_async.cli.demo.model import EdgesAndTextures, Prediction
from lighter_async.cli.demo.photographs import Patches
from lighter_async.cli.demo.runs import batches_of

__all__ = ["STEP_SECONDS", "Loop", "make_loops"]

STEP_SECONDS = 0.04
"""How long a step waits for a device."""

_SHARE = 2  # a loop has one of so many patches at most
_WAITING_BATCHES = 12
_COMPUTING_SECONDS = 0.7  # about as long as the one computes
_DIFFERENT = 4  # batches of predictions, which take turns


@dataclass(frozen=True)
class Loop:
    """A predict loop.

    Attributes:
        heading: What it does, for a table.
        sentence: What it does, as the beginning of a sentence.
        model: Its model.
        patches: Its input.
        one_thread: Whether PyTorch computes in one thread.
    """

    heading: str
    sentence: str
    model: Any
    patches: Patches
    one_thread: bool

    @contextmanager
    def threads(self) -> Iterator[None]:
        """As many threads of PyTorch as the loop has."""
        before = torch.get_num_threads()
        if self.one_thread:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class _Waits(lightning.LightningModule):  # type: ignore[misc]
    """Sleeps in each step, as a loop does that waits for an accelerator, and returns predictions that exist already."""

    def __init__(self, predictions: Sequence[Prediction]) -> None:
        super().__init__()
        self._predictions = predictions
        self._step = make_step("device", STEP_SECONDS)

    def predict_step(self, batch: Any, batch_idx: int) -> Prediction:
        self._step.run()
        found, names = self._predictions[batch_idx % len(self._predictions)], list(batch["name"])
        return {"edges": found["edges"][: len(names)], "textures": found["textures"][: len(names)], "name": names}


def make_loops(model: EdgesAndTextures, patches: Patches, batch_size: int, *, cores: int) -> list[Loop]:
    """Both loops.

    Args:
        model: What the one computes, and what the other returns.
        patches: The input, of which they take a part.
        batch_size: Patches in a batch.
        cores: Cores that the process may use.
    """
    most = max(1, len(patches) // _SHARE)
    waiting = patches.some(min(most, _WAITING_BATCHES * batch_size))
    name = "A loop that computes in one thread" + (", and leaves a core free," if cores > 1 else "")
    computing = Loop("computes in\none thread", name, model, patches.some(most), one_thread=True)
    predictions: list[Prediction] = []
    with torch.inference_mode(), computing.threads():
        for number, batch in zip(range(_DIFFERENT), batches_of(waiting, batch_size), strict=False):
            if number == 0 or len(batch["name"]) == batch_size:
                began = perf_counter()
                predictions.append(model.predict_step(batch, number))
                seconds = perf_counter() - began
    # The last one's time, since the first one's is longer.
    enough = min(most, ceil(_COMPUTING_SECONDS / seconds) * batch_size)
    return [
        replace(computing, patches=patches.some(enough)),
        Loop("waits for\na device", "A loop that waits for a device", _Waits(predictions), waiting, one_thread=False),
    ]
