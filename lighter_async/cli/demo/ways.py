"""The ways to write that are compared, as callbacks of one and the same loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lighter_async.callback import FileWriter
from lighter_async.cli.demo.lightning import lightning
from lighter_async.cli.demo.runs import WRITERS

__all__ = ["BACKGROUND", "BY_HAND", "INLINE", "NOTHING", "Way", "WriterOptions", "ways"]

NOTHING = "nothing written"
BACKGROUND = "in the background: FileWriter"
INLINE = "inline: the same writers"
BY_HAND = "inline: Image.save, torch.save"

Way = Callable[[Path], Any]
"""Makes the callback that writes into a folder."""

Write = Callable[[Path, Mapping[str, Tensor]], None]
"""Writes the outputs of a sample; the path has no suffix."""


@dataclass(frozen=True)
class WriterOptions:
    """What the command line says of each writer."""

    max_workers: int | None
    queue_size: int


class _Inline(lightning.Callback):  # type: ignore[misc]
    """Writes each batch before the next one begins, sample by sample.

    Args:
        folder: Where the files go; the folders in it are there.
        write: Writes a sample.
    """

    def __init__(self, folder: Path, write: Write) -> None:
        self._folder = folder
        self._write = write

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        for row, name in enumerate(outputs["name"]):
            self._write(self._folder / name, {output.key: outputs[output.key][row] for output in WRITERS})


def ways(options: WriterOptions) -> dict[str, Way | None]:
    """All of them, by their titles; the first one writes nothing."""

    def background(folder: Path) -> FileWriter:
        return FileWriter(
            folder,
            {output.key: output.writer for output in WRITERS},
            name_key="name",
            max_workers=options.max_workers,
            queue_size=options.queue_size,
        )

    return {
        NOTHING: None,
        BACKGROUND: background,
        INLINE: lambda folder: _Inline(folder, _write),
        BY_HAND: lambda folder: _Inline(folder, _write_by_hand),
    }


def _write(path: Path, sample: Mapping[str, Tensor]) -> None:
    for output in WRITERS:
        output.writer(path, sample[output.key])


def _write_by_hand(path: Path, sample: Mapping[str, Tensor]) -> None:
    """As it is written first, but for the copy: without it, each file would hold its whole batch."""
    pixels = (sample["edges"] * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(f"{path}.png")
    torch.save(sample["textures"].clone(), f"{path}.pt")
