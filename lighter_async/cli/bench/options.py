"""The options of the command line, and their checks."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lighter_async.limits import memory_bytes
from lighter_async.writers import resolve_writer

if TYPE_CHECKING:
    from lighter_async.cli.bench.grid import Setting

__all__ = ["BadOption", "BenchOptions", "check_files", "check_memory", "settings_of", "shape_of", "writer_of"]

_SHAPE = (3, 224, 224)
_SHAPES = {"text": (200,), "image_3d": (1, 32, 128, 128)}
_ITEM_BYTES = {"bool": 1, "uint8": 1, "int8": 1, "int16": 2, "float16": 2, "bfloat16": 2, "float64": 8, "int64": 8}


class BadOption(Exception):
    """An option cannot be used here; the message names it and the way out."""


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """The options of the command line; None takes the default.

    Attributes:
        kind: What a step of the loop is.
        step_seconds: How long a step takes.
        format: A registered writer's name, or ``module:name``.
        shape: The shape of a sample.
        dtype: The dtype of a sample.
        batch_size: Samples of a step.
        directory: Where files are written, in a folder that is removed afterwards.
        steps: Steps of a run.
        seconds: About how long a run takes, instead of `steps`.
        backends: The backends to compare.
        max_workers: The numbers of workers to compare.
        queue_sizes: The queue sizes to compare.
        repeats: How often every setting is run.
        quick: Whether to end within a minute.
        json: A file for all figures.
        plot: A file for the plot.
    """

    kind: Literal["device", "launch"]
    step_seconds: float
    format: str
    shape: tuple[int, ...] | None
    dtype: str | None
    batch_size: int
    directory: Path
    steps: int | None
    seconds: float | None
    backends: Sequence[str] | None
    max_workers: Sequence[int] | None
    queue_sizes: Sequence[int] | None
    repeats: int
    quick: bool
    json: Path | None
    plot: Path | None


def writer_of(name: str) -> str:
    """The writer that a format names, as `BackgroundWriter` takes it.

    Raises:
        BadOption: There is none, or it is no writer.
    """
    # As `python -m` does, for a module of the user's own. Helper processes get the same path.
    if ":" in name and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        resolve_writer(name)
    except (TypeError, ValueError) as error:
        raise BadOption(
            f"--format: {name!r} is no writer here ({error}); one of yours is given as module:name, from a module that "
            "can be imported here"
        ) from error
    return name


def shape_of(options: BenchOptions) -> tuple[int, ...]:
    """The shape of a sample, by default one that suits the format."""
    return options.shape or _SHAPES.get(options.format, _SHAPE)


def check_memory(options: BenchOptions) -> None:
    """Refuse batches that would fill the memory, before they are made.

    Raises:
        BadOption: A batch is too large, or an option does not go with the format.
    """
    if options.format == "text" and options.dtype is not None:
        raise BadOption("--dtype: a text has none; leave the option out")
    item = 1 if options.format == "text" else _ITEM_BYTES.get(options.dtype or "", 4)
    needed, allowed = options.batch_size * math.prod(shape_of(options)) * item, memory_bytes() // 8
    if needed > allowed:
        raise BadOption(
            f"--shape, --batch-size: a batch of {needed / 1e9:.1f} GB is more than an eighth of the memory "
            f"({allowed / 1e9:.1f} GB); choose fewer or smaller samples"
        )


def settings_of(options: BenchOptions, writer: str) -> list[Setting]:
    """The grid.

    Raises:
        BadOption: The writer cannot have one of the given backends.
    """
    from lighter_async.cli.bench.backends import BACKENDS, refusal
    from lighter_async.cli.bench.grid import Setting, default_queue_sizes, default_workers

    refusals = {backend: refusal(backend, writer) for backend in options.backends or BACKENDS}
    for backend, reason in refusals.items():
        if reason is not None and options.backends is not None:
            raise BadOption(f"--backends: {backend!r} cannot be had here: {reason}")
    return [
        Setting(backend, workers, size)
        for backend, reason in refusals.items()
        if reason is None
        for workers in options.max_workers or default_workers(quick=options.quick)
        for size in options.queue_sizes or default_queue_sizes(quick=options.quick)
    ]


def check_files(options: BenchOptions) -> None:
    """Check now, and not after minutes, that the results can be written.

    Raises:
        BadOption: A folder does not exist, or cannot be written to.
    """
    _check_folder("--directory", options.directory, "it should lie on the disk that the job will write to")
    for option, file in (("--json", options.json), ("--plot", options.plot)):
        if file is None:
            continue
        if file.is_dir():
            raise BadOption(f"{option}: {str(file)!r} is a folder; name a file")
        _check_folder(option, file.parent, f"it is to hold {file.name}")


def _check_folder(option: str, folder: Path, why: str) -> None:
    if not folder.is_dir():
        raise BadOption(f"{option}: there is no folder {str(folder)!r}; make it, or name another one ({why})")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadOption(f"{option}: {str(folder)!r} cannot be written to; name another folder ({why})")
