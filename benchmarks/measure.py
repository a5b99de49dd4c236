"""What all parts of the suite share: how much is measured, taking turns, medians with their spread, and the machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar

__all__ = [
    "MEMORY",
    "Plan",
    "children",
    "environment",
    "folder_in",
    "installed",
    "median",
    "processes_memory",
    "settle",
    "smaps",
    "spread",
    "take_turns",
    "tell",
    "today",
]

Level = Literal["full", "quick", "smoke"]
T = TypeVar("T")

MEMORY = Path("/dev/shm") if os.path.isdir("/dev/shm") else Path(tempfile.gettempdir())
"""A file system in memory, where there is one."""

_SEED = 20
_VERSIONS_OF = (
    "torch",
    "numpy",
    "pytorch-lightning",
    "isal",
    "pillow",
    "lighter",
    "torchvision",
    "monai",
    "webdataset",
    "opencv-python-headless",
    "imagecodecs",
    "fpng-py",
    "safetensors",
    "sentence-transformers",
)


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        level: ``"full"``, ``"quick"``, or ``"smoke"``, which only shows that everything runs.
    """

    level: Level = "full"

    def pick(self, full: T, quick: T, smoke: T) -> T:
        """The one of three that this level has."""
        return {"full": full, "quick": quick, "smoke": smoke}[self.level]


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, least, most and number of values, with five significant digits."""
    found = sorted(values)
    figures = {"median": statistics.median(found), "least": found[0], "most": found[-1]}
    return {**{name: float(f"{value:.5g}") for name, value in figures.items()}, "n": len(found)}


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def take_turns(
    ways: dict[str, Callable[[], T]], rounds: int, title: str, *, twice: Iterable[str] = ()
) -> list[dict[str, list[T]]]:
    """Run every way once a round, those in `twice` twice, in an order shuffled anew (the same in every process).

    A line on stderr tells of each run.

    Returns:
        For each round, what each way gave.
    """
    shuffler = random.Random(_SEED)
    found = []
    for number in range(rounds):
        order = [*ways, *twice]
        shuffler.shuffle(order)
        results: dict[str, list[T]] = {name: [] for name in ways}
        for name in order:
            began = time.perf_counter()
            results[name].append(ways[name]())
            tell(f"{title}, round {number + 1} of {rounds}: {name}, {time.perf_counter() - began:.2f} s")
        found.append(results)
    return found


def tell(text: str) -> None:
    """A line about how far we are."""
    print(f"  {text}", file=sys.stderr, flush=True)


def installed(*modules: str) -> bool:
    """Whether all of these modules can be imported, without doing so."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


@contextmanager
def folder_in(directory: Path) -> Iterator[Path]:
    """A new folder, gone at the end with all that is in it."""
    folder = Path(tempfile.mkdtemp(dir=directory, prefix=".benchmark-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def settle(*, quiet: float = 0.06, timeout: float = 3.0) -> None:
    """Wait until no child process has computed for `quiet` seconds: all of them have started."""
    deadline = time.perf_counter() + timeout
    last, since = _children_ticks(), time.perf_counter()
    while time.perf_counter() < min(deadline, since + quiet):
        time.sleep(0.01)
        if (ticks := _children_ticks()) != last:
            last, since = ticks, time.perf_counter()


def children(process: int | None = None) -> list[int]:
    """The processes that this one, or another, has started, and theirs."""
    found: list[int] = []
    waiting = [process or os.getpid()]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            try:
                started = [int(child) for child in task.read_text().split()]
            except OSError:
                continue  # it has ended
            found += started
            waiting += started
    return found


def smaps(process: int) -> dict[str, int]:
    """The bytes of a process's memory, by the kernel's kinds: ``"Rss"``, ``"Pss"``, ``"Private_Dirty"`` and so on."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    return {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def processes_memory(kind: str) -> int:
    """The memory of this process and those that it has started, in bytes."""
    return sum(smaps(process)[kind] for process in (os.getpid(), *children()))


def _children_ticks() -> dict[int, int]:
    """Processor time of the child processes and theirs, in the kernel's ticks."""
    found: dict[int, int] = {}
    for child in children():
        try:
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        found[child] = int(fields[11]) + int(fields[12])
    return found


def environment() -> tuple[str, dict[str, Any]]:
    """The machine and the versions, and a short key that differs where they do."""
    from lighter_async.cli.bench.record import machine

    versions = {"python": sys.version.split()[0]}
    for package in _VERSIONS_OF:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found = {**machine(), "versions": versions}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:8], found


def today() -> str:
    return date.today().isoformat()
