"""Ways to write what a plain loop predicts on a GPU: ours, and what people use instead; each without Lightning."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Protocol

import torch
from measure import installed
from torch import Tensor

from lighter_async import BackendUnavailableError, BackgroundWriter, TarShards

__all__ = ["NOTHING", "Way", "Writing", "ways_for"]

NOTHING = "nothing"
_POOL = 4
_LIGHTER = ("lighter", "pytorch_lightning", "torchvision", "loguru", "pandas", "sparkwheel")


class Writing(Protocol):
    """Writes batches, which are on the device."""

    def hand_over(self, names: Sequence[str], batch: Tensor) -> None: ...

    def wait(self) -> None:
        """Until all of it is stored."""
        ...

    def close(self) -> None: ...


Way = Callable[[Path], Writing]


class Nothing:
    def __init__(self, folder: Path) -> None:
        pass

    def hand_over(self, names: Sequence[str], batch: Tensor) -> None:
        pass

    def wait(self) -> None:
        pass

    def close(self) -> None:
        pass


def save(path: str, row: Tensor) -> None:
    torch.save(row, path)


class Inline(Nothing):
    """`torch.save` in the loop, after one copy of the batch. Rows are cloned, or each file would hold the batch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hand_over(self, names: Sequence[str], batch: Tensor) -> None:
        for name, row in zip(names, batch.cpu(), strict=True):
            self.write(os.path.join(self._folder, f"{name}.pt"), row.clone())

    def write(self, path: str, row: Tensor) -> None:
        save(path, row)


class Pooled(Inline):
    """The same in a pool of threads, a task a sample, after one copy of the batch in the loop."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._executor = ThreadPoolExecutor(_POOL)
        self._tasks: list[Future[None]] = []

    def write(self, path: str, row: Tensor) -> None:
        self._tasks.append(self._executor.submit(save, path, row))

    def wait(self) -> None:
        for task in self._tasks:
            task.result()
        self._tasks.clear()

    def close(self) -> None:
        self._executor.shutdown()


class Ours:
    """`BackgroundWriter` with its default options."""

    def __init__(self, target: Any, backend: Literal["thread", "process"]) -> None:
        self._writer = BackgroundWriter("tensor", target, backend=backend)
        self._writer.start()

    def hand_over(self, names: Sequence[str], batch: Tensor) -> None:
        self._writer.submit_batch(names, batch)

    def wait(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Lighter(Nothing):
    """lighter 0.1.0's `FileWriter`, with as much of a trainer as it asks for."""

    def __init__(self, folder: Path) -> None:
        from lighter.callbacks import FileWriter
        from loguru import logger

        logger.disable("lighter")
        strategy = SimpleNamespace(broadcast=lambda value, src: value, barrier=lambda: None)
        loop = SimpleNamespace(num_dataloaders=1)
        self._trainer: Any = SimpleNamespace(
            strategy=strategy, is_global_zero=True, global_rank=0, world_size=1, predict_loop=loop
        )
        self._writer = FileWriter(folder / "files", "value", "tensor")
        self._writer.setup(self._trainer, None, "predict")

    def hand_over(self, names: Sequence[str], batch: Tensor) -> None:
        self._writer.on_predict_batch_end(self._trainer, None, {"value": batch}, None, 0)


def ways_for(*, small: bool, folder: Path) -> tuple[dict[str, Way], dict[str, str]]:
    """The ways that there are here, and why others are left out.

    Args:
        small: Whether samples are worth storing in shards.
        folder: Where helpers are tried.
    """
    found: dict[str, Way] = {NOTHING: Nothing}
    left_out: dict[str, str] = {}
    helpers = ""
    try:
        Ours(folder / "try", "process").close()
    except BackendUnavailableError as error:
        helpers = str(error)
    for backend in ("process", "thread"):
        if backend == "process" and helpers:
            left_out["lighter_async, process"] = helpers
            continue
        found[f"lighter_async, {backend}"] = _ours(backend, None)
        if small:
            found[f"lighter_async, {backend}, shards"] = _ours(backend, TarShards)
    found["inline"] = Inline
    found[f"thread pool of {_POOL}"] = Pooled
    if installed(*_LIGHTER):
        found["lighter 0.1.0"] = Lighter
    else:
        left_out["lighter 0.1.0"] = "it is not installed"
    return found, left_out


def _ours(backend: Any, target: Callable[[Path], Any] | None) -> Way:
    return lambda folder: Ours(folder / "files" if target is None else target(folder / "files"), backend)
