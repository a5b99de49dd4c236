"""Run the predictions: in Lightning's predict loop, with whatever callbacks write them, and in a plain loop."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from lighter_async.cli.demo.lightning import lightning
from lighter_async.cli.demo.model import EdgesAndTextures
from lighter_async.cli.demo.photographs import Patches
from lighter_async.writers import Encoder, write_image_2d, write_tensor

__all__ = ["WRITERS", "Clock", "Output", "batches_of", "make_folders", "run_inline", "run_lightning"]


@dataclass(frozen=True)
class Output:
    """One of the two outputs of a patch."""

    key: str
    writer: Encoder


WRITERS: Sequence[Output] = (Output("edges", write_image_2d), Output("textures", write_tensor))


@dataclass
class Clock:
    """Seconds of a run.

    Attributes:
        loop: From the first batch to the end of the last one.
        total: Until everything was stored.
    """

    loop: float = 0.0
    total: float = 0.0


class _Before(lightning.Callback):  # type: ignore[misc]
    """Stands before the writers, which wait at the loop's end until all is stored."""

    def __init__(self) -> None:
        self.loop_ended = 0.0

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self.loop_ended = perf_counter()


class _After(lightning.Callback):  # type: ignore[misc]
    """Stands after the writers, whose workers it gives time to start before the first batch."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self.began = self.stored = 0.0

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        sleep(self._pause)
        self.began = perf_counter()

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self.stored = perf_counter()


def batches_of(patches: Patches, batch_size: int, sampler: Sampler[int] | None = None) -> Iterable[Any]:
    """The batches of all patches, or of those that the sampler gives."""
    return DataLoader(patches, batch_size=batch_size, sampler=sampler)


def run_lightning(
    model: Any, batches: Iterable[Any], callbacks: Sequence[Any] = (), *, show_progress: bool = False, pause: float = 0
) -> Clock:
    """Predict with a Lightning Trainer on the CPU.

    Args:
        model: A LightningModule.
        batches: The input.
        callbacks: Those that write.
        show_progress: Whether to show Lightning's progress bar.
        pause: Seconds between the start of the workers and the first batch.

    Raises:
        WriteError: Samples were not written.
        KeyboardInterrupt: Ctrl-C. What was handed over is stored.
    """
    before, after = _Before(), _After(pause)
    together: list[Any] = [before, *callbacks, after]
    if show_progress:
        together.append(lightning.callbacks.RichProgressBar(refresh_rate=10))
    with _calm(), _interrupts_raise():
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=show_progress,
            callbacks=together,
        )
        trainer.predict(model, batches, return_predictions=False)
    return Clock(before.loop_ended - after.began, after.stored - after.began)


def run_inline(
    model: EdgesAndTextures, patches: Patches, batch_size: int, folders: Mapping[str, Path], tick: Callable[[], None]
) -> None:
    """Predict in a plain loop and write each batch before the next: no Lightning, no queue, no threads.

    Args:
        model: On the CPU.
        patches: The input.
        batch_size: Patches in a batch.
        folders: Where each output goes.
        tick: Called after each batch.
    """
    for folder in folders.values():
        make_folders(folder, patches.names())
    with torch.inference_mode():
        for number, batch in enumerate(batches_of(patches, batch_size)):
            prediction: Any = model.predict_step(batch, number)
            for output in WRITERS:
                for name, value in zip(prediction["name"], prediction[output.key], strict=True):
                    output.writer(folders[output.key] / name, value)
            tick()


def make_folders(folder: Path, names: Iterable[str]) -> None:
    """Make the folders that samples of these names lie in."""
    for below in {name.rpartition("/")[0] for name in names}:
        (folder / below).mkdir(parents=True, exist_ok=True)


@contextmanager
def _calm() -> Iterator[None]:
    """Silence Lightning's messages about accelerators, tips and loader workers."""
    names = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # Its code causes these with newer versions of Python and PyTorch.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _interrupts_raise() -> Iterator[None]:
    """Raise after Ctrl-C, as usual, although Lightning exits and leaves the signal ignored.

    Raises:
        KeyboardInterrupt: Lightning was interrupted.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
