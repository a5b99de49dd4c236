"""Forks of a process whose writer is at work, by hand and by a data loader."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from samples import look, same, torn_of, value
from tally import GoOn, Tally, always
from torch.utils.data import DataLoader, Dataset

from lighter_async import BackgroundWriter, ClosedError, Origin, Run, pending
from lighter_async.manifest.verify import verify

__all__ = ["forks"]

_LARGEST = 1 << 16
_DEADLINE = 60.0
_LOADER_WORKERS = 2


class _Values(Dataset[Any]):
    def __init__(self, samples: int) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        return index, value(index, _LARGEST)


def forks(seed: int, rounds: int, backend: str, folder: Path, *, samples: int = 120, go_on: GoOn = always) -> Tally:
    """A data loader starts its workers, and the process forks again and again, while a writer writes.

    In a child every call of the writer is refused; one child outlives the writer, and holds nobody up.

    Args:
        seed: Decides when it forks.
        rounds: Writers.
        backend: The writer's.
        folder: Where to store.
        samples: Of each writer.
        go_on: Is told after each round.
    """
    choose = random.Random(seed)
    tally = Tally("os.fork and DataLoader workers while writing", backend)
    for number in range(rounds):
        directory = folder / f"forks-{backend}-{number}"
        children: list[int] = []
        ended, end = os.pipe()
        try:
            with BackgroundWriter(
                "tensor",
                directory,
                backend=backend,  # type: ignore[arg-type]
                max_workers=2,
                queue_size=16,
                run=Run(numbered=True),
            ) as writer:
                loader = DataLoader(
                    _Values(samples),
                    batch_size=4,
                    num_workers=_LOADER_WORKERS,
                    multiprocessing_context="fork",
                    collate_fn=list,
                )
                tally.faults += _LOADER_WORKERS
                for step, batch in enumerate(loader):
                    indices = [index for index, _ in batch]
                    writer.submit_batch(
                        [str(index) for index in indices], [one for _, one in batch], origin=Origin(indices=indices)
                    )
                    if step == 0 or choose.random() < 0.3:
                        children.append(_fork(writer, ended, end, stays=step == 0))
                        tally.faults += 1
            # One of the children lives on.
            left = list(pending(range(samples), directory))
            with BackgroundWriter("tensor", directory, backend=backend, resume=True) as other:  # type: ignore[arg-type]
                other.flush(timeout=_DEADLINE)
            if left:
                tally.troubles.append(f"pending beside a child that lives on: {left[:10]}")
        finally:
            os.close(end)
            os.close(ended)
            for child in children:
                if (status := _wait(child)) != 0:
                    tally.troubles.append(f"a child ended with status {status}")
        files, strange = look(directory)
        torn = torn_of(files, lambda path, index: same(path, index, _LARGEST))
        tally.settle(set(range(samples)), [index for _, index in files], [], torn)
        report = verify(directory, workers=1)
        if strange or report.findings or list(directory.rglob(".lighter-async-*")):
            tally.troubles.append(f"strange files {strange}, verify finds {report.counts()}")
        tally.rounds += 1
        if tally.is_clean:
            shutil.rmtree(directory)
        if not go_on(tally) or not tally.is_clean:
            break
    return tally


def _fork(writer: BackgroundWriter, ended: int, end: int, *, stays: bool) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which this is about
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.close(end)
        refused = 0
        for call in (lambda: writer.submit("child", torch.zeros(1)), writer.flush, writer.close):
            try:
                call()
            except ClosedError:
                refused += 1
        if stays:
            select.select([ended], [], [], _DEADLINE)  # until the parent closes its end
        status = 0 if refused == 3 else 2
    finally:
        os._exit(status)


def _wait(child: int) -> int:
    deadline = time.monotonic() + _DEADLINE
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1
