"""The job that the demo kills. Run again, it predicts what is not stored yet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lighter_async import FileWriter, pending, read_manifest
from lighter_async.cli.demo.lightning import lightning
from lighter_async.cli.demo.model import EdgesAndTextures
from lighter_async.cli.demo.photographs import Patches, load_photographs
from lighter_async.cli.demo.runs import batches_of, run_lightning
from lighter_async.limits import DEFAULT_QUEUE_SIZE

__all__ = ["BATCH_SIZE", "main"]

BATCH_SIZE = 32
"""Patches in a batch, unless the command line says otherwise."""

_QUEUED = 8  # one of so many patches


class _Predicted(lightning.Callback):  # type: ignore[misc]
    """Notes which patches were predicted."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.names += outputs["name"]


def main(arguments: Sequence[str]) -> int:
    """Predict in one thread, store in the background, and say what was done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patches", type=int)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--max-workers", type=int)
    parser.add_argument("--queue-size", type=int, default=DEFAULT_QUEUE_SIZE)
    options = parser.parse_args(arguments)

    torch.set_num_threads(1)
    patches = Patches(load_photographs(), options.patches)
    left = pending(patches, options.folder, names=patches.name)
    stored = read_manifest(options.folder).names()
    predicted = _Predicted()
    writer = FileWriter(
        options.folder,
        {"edges": "image_2d", "textures": "tensor"},
        name_key="name",
        resume=True,
        max_workers=options.max_workers,
        # Short, so that the loop is not far ahead of what is stored, however slow that is.
        queue_size=min(options.queue_size, max(1, len(patches) // _QUEUED)),
    )
    run_lightning(EdgesAndTextures().eval(), batches_of(patches, options.batch_size, left), [predicted, writer])
    again = len(stored.intersection(predicted.names))
    print(
        f"{len(stored):,} of {len(patches):,} patches were stored before; predicted {len(predicted.names):,}, "
        f"{again or 'none'} of them a second time"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
