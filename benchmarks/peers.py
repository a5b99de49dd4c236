"""Who writes: Lightning callbacks, ours and what people use instead.

Each is as its documentation shows it, or as one would write it in an hour: a sample a file, numbered.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from measure import installed
from PIL import Image
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor
from workloads import Workload

from lighter_async import FileWriter

__all__ = ["OURS", "PEERS", "Peer", "Written", "peers_for", "process_executor", "save"]

_WORKERS = 2


@dataclass(frozen=True)
class Written:
    """A callback that writes, and how to wait for it."""

    callback: pl.Callback
    wait: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Peer:
    """One way to write.

    Attributes:
        make: Makes its callback for a folder.
        needs: Modules that have to be installed.
        formats: Workloads' formats that it can write.
    """

    make: Callable[[Path, Workload], Written]
    needs: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("tensor", "image_2d")


def save(path: str, value: Any) -> None:
    """What people write inline: `torch.save` for vectors and volumes, Pillow for images (CHW floats)."""
    value = torch.as_tensor(value)
    if path.endswith(".png"):
        pixels = (value.float().clamp(0, 1) * 255).to(torch.uint8).movedim(0, -1).contiguous().numpy()
        Image.fromarray(pixels).save(path)
    else:
        torch.save(value, path)


class Inline(BasePredictionWriter):
    """Lightning's own place to write from, with `torch.save` or Pillow in it. Rows are cloned, or each file would hold
    the whole batch."""

    def __init__(self, folder: Path, workload: Workload) -> None:
        super().__init__("batch")
        self._folder = folder
        self._ending = ".png" if workload.is_image else ".pt"
        self._numbers = itertools.count()

    def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: Any, *_: Any) -> None:
        for row in prediction["value"]:
            self.write(os.path.join(self._folder, f"{next(self._numbers)}{self._ending}"), row)

    def write(self, path: str, row: Tensor) -> None:
        save(path, row.clone())


class Pooled(Inline):
    """The same in an executor, a task per sample."""

    def __init__(self, folder: Path, workload: Workload, executor: Executor, copied: Callable[[Tensor], Any]) -> None:
        super().__init__(folder, workload)
        self._executor = executor
        self._copied = copied
        self._tasks: list[Any] = []

    def write(self, path: str, row: Tensor) -> None:
        self._tasks.append(self._executor.submit(save, path, self._copied(row)))

    def wait(self) -> None:
        for task in wait(self._tasks).done:
            task.result()

    def on_predict_end(self, *_: Any) -> None:
        self.wait()

    def teardown(self, *_: Any, **__: Any) -> None:
        self._executor.shutdown()


class Monai(Inline):
    """MONAI's SaveImage: Pillow's PNGs, and NIfTI without compression for volumes."""

    def __init__(self, folder: Path, workload: Workload) -> None:
        super().__init__(folder, workload)
        from monai.transforms import SaveImage

        image = workload.is_image
        self._save = SaveImage(
            output_dir=folder,
            output_postfix="",
            output_ext=".png" if image else ".nii",
            output_dtype=np.uint8 if image else np.float32,
            scale=255 if image else None,
            resample=False,
            separate_folder=False,
            print_log=False,
        )

    def write(self, path: str, row: Tensor) -> None:
        self._save(row, meta_data={"filename_or_obj": os.path.basename(path)})


class Tar(Inline):
    """webdataset's TarWriter: one tar file, written inline."""

    def __init__(self, folder: Path, workload: Workload) -> None:
        super().__init__(folder, workload)
        import webdataset

        self._tar = webdataset.TarWriter(os.path.join(folder, "predictions.tar"))

    def write(self, path: str, row: Tensor) -> None:
        key, ending = os.path.splitext(os.path.basename(path))
        value = row.clone()
        if ending == ".png":
            value = (value.clamp(0, 1) * 255).to(torch.uint8).movedim(0, -1).numpy()
        self._tar.write({"__key__": key, "png" if ending == ".png" else "pth": value})

    def on_predict_end(self, *_: Any) -> None:
        self._tar.close()


class Copied(pl.Callback):
    """Copies each batch into memory that is used again, and writes nothing: the least that any hand-over takes."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        if self._memory is None:
            self._memory = torch.empty_like(outputs["value"])
        self._memory.copy_(outputs["value"])


def ours(backend: str, **options: Any) -> Callable[[Path, Workload], Written]:
    """`FileWriter` with its default options but for these."""

    def make(folder: Path, workload: Workload) -> Written:
        writer = FileWriter(folder, "value", workload.format, backend=backend, **options)

        def wait() -> None:
            while writer.stats().pending:
                sleep(0.001)

        return Written(writer, wait)

    return make


def lighter(folder: Path, workload: Workload) -> Written:
    """The synchronous writer that ours stands in for."""
    from lighter.callbacks import FileWriter
    from loguru import logger

    logger.disable("lighter")
    return Written(FileWriter(folder, "value", workload.format))


def thread_pool(folder: Path, workload: Workload) -> Written:
    pooled = Pooled(folder, workload, ThreadPoolExecutor(_WORKERS), Tensor.clone)
    return Written(pooled, pooled.wait)


def process_executor() -> ProcessPoolExecutor:
    """From a server that has loaded torch: forking this process with its threads is no way to start workers."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "PIL.PngImagePlugin", "pytorch_lightning"])
    return ProcessPoolExecutor(_WORKERS, context, initializer=torch.set_num_threads, initargs=(1,))


def process_pool(folder: Path, workload: Workload) -> Written:
    """Samples travel as numpy arrays through the pool's pipe. Torch's own way takes a file descriptor a tensor."""
    pooled = Pooled(folder, workload, process_executor(), lambda row: row.numpy().copy())
    return Written(pooled, pooled.wait)


OURS = ("lighter_async, process", "lighter_async, thread")

PEERS = {
    OURS[0]: Peer(ours("process")),
    OURS[1]: Peer(ours("thread")),
    "one copy, not written": Peer(lambda folder, workload: Written(Copied())),
    "lighter 0.1.0": Peer(lighter, ("lighter", "torchvision", "loguru", "pandas", "sparkwheel")),
    "inline": Peer(lambda folder, workload: Written(Inline(folder, workload))),
    "thread pool": Peer(thread_pool),
    "process pool": Peer(process_pool),
    "MONAI SaveImage": Peer(lambda folder, workload: Written(Monai(folder, workload)), ("monai", "nibabel")),
    "webdataset": Peer(lambda folder, workload: Written(Tar(folder, workload)), ("webdataset",)),
}
"""By the names that the tables have."""


def peers_for(workload: Workload) -> tuple[dict[str, Peer], list[str]]:
    """Those that can write this workload here, and those that are not installed."""
    volume_or_image = workload.is_image or "volume" in workload.title
    able = {name: peer for name, peer in PEERS.items() if name != "MONAI SaveImage" or volume_or_image}
    missing = [name for name, peer in able.items() if not installed(*peer.needs)]
    return {name: peer for name, peer in able.items() if name not in missing}, missing
