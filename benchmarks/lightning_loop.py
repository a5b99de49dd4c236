"""One real run of Lightning's predict loop over a step of known length, and what it took."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
from measure import settle
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

__all__ = ["Clock", "Times", "WarmUp", "predict", "quiet_trainer"]

Outputs = Callable[[dict[str, Any]], dict[str, Any]]

_LEAST_STEPS = 3
_WARM_UPS = 2  # batches

logging.disable(logging.INFO)  # each trainer would tell which accelerators there are


@dataclass(frozen=True)
class Times:
    """What a run took, in seconds from the first step's begin on.

    Attributes:
        steps: How many there were.
        loop: Until the last batch was handed over.
        stored: Until the writers said that everything is written.
        whole: Until `predict` returned.
    """

    steps: int
    loop: float
    stored: float
    whole: float


class Model(pl.LightningModule):
    """Makes a step, and returns batches that exist already, in turn."""

    def __init__(self, step: Callable[[], None], batches: Sequence[Tensor], outputs: Outputs | None = None) -> None:
        super().__init__()
        self._step = step
        self._batches = batches
        self._outputs = outputs

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        self._step()
        return self.outputs(batch_idx)

    def outputs(self, batch_idx: int) -> dict[str, Any]:
        found = {"value": self._batches[batch_idx % len(self._batches)]}
        return found if self._outputs is None else self._outputs(found)


class Steps(IterableDataset[int]):
    """The numbers of steps, until there were enough or they have taken long enough."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds

    def __iter__(self) -> Iterator[int]:
        end = perf_counter() + self._seconds
        for number in range(self._most):
            if number >= _LEAST_STEPS and perf_counter() > end:
                return
            yield number


class WarmUp(pl.Callback):
    """Before the clock starts: has a few batches written, and waits until the workers have nothing left to do."""

    def __init__(self, writer: pl.Callback | None, wait: Callable[[], None]) -> None:
        self._writer = writer
        self._wait = wait

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._writer is None:
            return
        for number in range(_WARM_UPS):
            self._writer.on_predict_batch_end(trainer, pl_module, pl_module.outputs(number), number, number)
            self._wait()
        settle()


class Clock(pl.Callback):
    """Placed last, so that it counts what all the others do."""

    def __init__(self) -> None:
        self.steps = 0
        self.began = self.loop = self.stored = 0.0

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = perf_counter()

    def on_predict_batch_end(self, *_: Any) -> None:
        self.steps += 1
        self.loop = perf_counter() - self.began

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stored = perf_counter() - self.began


def predict(
    step: Callable[[], None],
    batches: Sequence[Tensor],
    writer: pl.Callback | None,
    wait: Callable[[], None] = lambda: None,
    *,
    steps: int,
    seconds: float,
    outputs: Outputs | None = None,
) -> Times:
    """Run the loop once.

    Args:
        step: What the model does.
        batches: What it returns, in turn.
        writer: Who writes it; None writes nothing.
        wait: Returns when what the writer was handed is written.
        steps: At most.
        seconds: After which no further step begins, but for the first few.
        outputs: Adds to the outputs of a step, which are the batch as ``"value"``.
    """
    clock = Clock()
    callbacks = [*([] if writer is None else [writer]), WarmUp(writer, wait), clock]
    with quiet_trainer(callbacks) as trainer:
        loader = DataLoader(Steps(steps, seconds), batch_size=None)
        trainer.predict(Model(step, batches, outputs), loader, return_predictions=False)
    return Times(clock.steps, clock.loop, clock.stored, perf_counter() - clock.began)


@contextmanager
def quiet_trainer(callbacks: list[pl.Callback]) -> Iterator[pl.Trainer]:
    """A trainer on one CPU that writes and tells nothing of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice, and the old writer's on a folder that exists
        yield pl.Trainer(
            accelerator="cpu",
            devices=1,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
