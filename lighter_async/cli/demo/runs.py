"""Run the same predictions three times: written in the background, not written, and written inline."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch.utils.data import DataLoader

from lighter_async.callback import FileWriter
from lighter_async.cli.demo.lightning import lightning
from lighter_async.cli.demo.model import EdgesAndTextures
from lighter_async.cli.demo.photographs import Patches
from lighter_async.types import WriterStats
from lighter_async.writers import Encoder, write_image_2d, write_tensor

__all__ = ["WRITERS", "Clock", "Output", "run_inline", "run_lightning", "warm_up"]


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


class _LoopClock(lightning.Callback):  # type: ignore[misc]
    """Takes the time when the loop begins and ends. Put it before the writers, which wait until all is stored."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        self.began = perf_counter()

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self.ended = perf_counter()


def warm_up(model: EdgesAndTextures, patches: Patches, batch_size: int) -> None:
    """Run one batch, since the first one costs more than those that are compared."""
    batch = next(iter(_loader(patches, batch_size)))
    with torch.inference_mode():
        model.predict_step(batch, 0)


def run_lightning(
    model: EdgesAndTextures,
    patches: Patches,
    batch_size: int,
    *,
    writers: Sequence[FileWriter] = (),
    show_progress: bool,
) -> tuple[Clock, dict[str, WriterStats]]:
    """Predict with a Lightning Trainer.

    Args:
        model: On the CPU.
        patches: The input.
        batch_size: Patches in a batch.
        writers: The callbacks that write.
        show_progress: Whether to show Lightning's progress bar.

    Returns:
        The seconds, and what each writer counted, by its `value_key`.

    Raises:
        WriteError: Samples were not written.
        KeyboardInterrupt: Ctrl-C. What was handed over is stored.
    """
    clock = _LoopClock()
    callbacks: list[Any] = [clock, *writers]
    if show_progress:
        callbacks.append(lightning.callbacks.RichProgressBar(refresh_rate=10))
    with _calm(), _interrupts_raise():
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=show_progress,
            callbacks=callbacks,
        )
        trainer.predict(model, _loader(patches, batch_size), return_predictions=False)
    ended = perf_counter()
    stats = {writer.value_key: writer.stats() for writer in writers}
    return Clock(clock.ended - clock.began, ended - clock.began), stats


def run_inline(
    model: EdgesAndTextures, patches: Patches, batch_size: int, folders: Mapping[str, Path], tick: Callable[[], None]
) -> Clock:
    """Predict in a plain loop and write each batch before the next: no Lightning, no queue, no threads.

    Args:
        model: On the CPU.
        patches: The input.
        batch_size: Patches in a batch.
        folders: Where each output goes.
        tick: Called after each batch.
    """
    for name in {name.rpartition("/")[0] for name in patches.names()}:
        for folder in folders.values():
            Path(folder, name).mkdir(parents=True, exist_ok=True)
    began = perf_counter()
    with torch.inference_mode():
        for number, batch in enumerate(_loader(patches, batch_size)):
            prediction: Any = model.predict_step(batch, number)
            for output in WRITERS:
                for name, value in zip(prediction["name"], prediction[output.key], strict=True):
                    output.writer(folders[output.key] / name, value)
            tick()
    seconds = perf_counter() - began
    return Clock(seconds, seconds)


def _loader(patches: Patches, batch_size: int) -> Iterable[Any]:
    return DataLoader(patches, batch_size=batch_size)


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
