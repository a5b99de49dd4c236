"""What all parts of the suite share: how much is measured, taking turns, medians with their spread, and the machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar

__all__ = [
    "MEMORY",
    "Plan",
    "Quiet",
    "children",
    "environment",
    "file_system",
    "folder_in",
    "installed",
    "journaled",
    "median",
    "place_for",
    "place_in",
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

MOUNTS = Path("/proc/mounts")
_SEED = 20
_MKFS_OPTIONS = "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
_MOST_BY_OTHERS = 0.05  # of a core
_LOOK_SECONDS = 0.2
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
    "nibabel",
    "simplejpeg",
    "tifffile",
    "sentence-transformers",
    "zarr",
    "h5py",
    "pyarrow",
    "pylance",
    "array_record",
    "litdata",
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


class Quiet:
    """Sees to it that runs have the machine to themselves, as far as that can be had.

    What other programs compute is what all processors did, less what this process and those it has started did. A run
    beside which they used more than a little is repeated, after waiting for them.

    Args:
        patience: Seconds in all to wait and to repeat runs.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.shares: list[float] = []

    def run(self, way: Callable[[], T]) -> T:
        """What `way` gives, in the run that others disturbed least."""
        kept: list[tuple[float, T]] = []
        while not kept or (min(share for share, _ in kept) > _MOST_BY_OTHERS and self._patience > 0):
            if kept:
                self._wait()
            began, others = time.perf_counter(), _others_seconds()
            result = way()
            taken = time.perf_counter() - began
            # The kernel counts in hundredths of a second, in some places by sampling.
            kept.append((max(0.0, _others_seconds() - others - 0.02) / taken, result))
            if len(kept) > 1:
                self._patience -= taken
        share, result = min(kept, key=lambda one: one[0])
        self.shares.append(share)
        return result

    def _wait(self) -> None:
        share = 1.0
        while share > _MOST_BY_OTHERS and self._patience > 0:
            others = _others_seconds()
            time.sleep(_LOOK_SECONDS)
            share = (_others_seconds() - others) / _LOOK_SECONDS
            self._patience -= _LOOK_SECONDS


def take_turns(
    ways: Mapping[str, Callable[[], T]],
    rounds: int,
    title: str,
    plan: Plan,
    *,
    twice: Iterable[str] = (),
    patience: float = 60.0,
) -> tuple[list[dict[str, list[T]]], dict[str, float]]:
    """Run every way once a round, those in `twice` twice, in an order shuffled anew (the same in every process).

    A line on stderr tells of each run.

    Args:
        patience: Seconds in all to wait for other programs, and to repeat runs that they disturbed; of full runs.

    Returns:
        For each round, what each way gave; and what share of a core other programs used meanwhile.
    """
    shuffler = random.Random(_SEED)
    quiet = Quiet(plan.pick(patience, min(patience, 20.0), 0.0))
    found = []
    for number in range(rounds):
        order = [*ways, *twice]
        shuffler.shuffle(order)
        results: dict[str, list[T]] = {name: [] for name in ways}
        for name in order:
            began = time.perf_counter()
            results[name].append(quiet.run(ways[name]))
            taken, others = time.perf_counter() - began, quiet.shares[-1]
            tell(f"{title}, round {number + 1} of {rounds}: {name}, {taken:.2f} s; others used {others:.0%} of a core")
        found.append(results)
    return found, spread(quiet.shares)


def tell(text: str) -> None:
    """A line about how far we are."""
    print(f"  {text}", file=sys.stderr, flush=True)


def installed(*modules: str) -> bool:
    """Whether all of these modules can be imported, without doing so."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


@contextmanager
def _cleared_at_sigterm() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end this process by an exception meanwhile, so that what was made is cleared away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN if os.getpid() == process else signal.SIG_DFL)
        if os.getpid() == process:
            sys.exit(128 + number)
        os.kill(os.getpid(), number)  # a forked child has made nothing

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def folder_in(directory: Path) -> Iterator[Path]:
    """A new folder, gone at the end with all that is in it, also where SIGTERM ends this process."""
    with _cleared_at_sigterm():
        folder = Path(tempfile.mkdtemp(dir=directory, prefix=".benchmark-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def file_system(folder: Path) -> str:
    """The kind of file system that a folder is on, and whether an ext4 has a journal, as far as the system tells."""
    folder = folder.resolve()
    mounts = [line.split() for line in MOUNTS.read_text().splitlines()] if MOUNTS.exists() else []
    inside = [one for one in mounts if folder.is_relative_to(one[1].replace("\\040", " "))]
    if not inside:
        return "an unknown file system"
    device, _, kind = max(inside, key=lambda one: len(one[1]))[:3]
    if kind != "ext4":
        return kind
    name = os.path.basename(os.path.realpath(device))
    journal = Path("/proc/fs/jbd2").glob(f"{name}-*")
    return "ext4 with a journal" if any(journal) else "ext4 without a journal"


@contextmanager
def journaled(size: str, directory: Path) -> Iterator[Path]:
    """A folder on an ext4 with a journal, in a file that is mounted as one; that takes root.

    It is unmounted at the end, also where SIGTERM ends this process. The file is written once before, so that the file
    system below is not asked for new blocks meanwhile.

    Args:
        size: Of the file system, as of ``dd``, such as ``"8G"``.
        directory: Where the file goes.

    Raises:
        subprocess.CalledProcessError: It cannot be made or mounted.
    """
    with _cleared_at_sigterm(), tempfile.TemporaryDirectory(dir=directory) as below:
        image, mounted = Path(below, "image"), Path(below, "mounted")
        mounted.mkdir()
        subprocess.run(
            [
                "dd",
                "if=/dev/zero",
                f"of={image}",
                "bs=1M",
                f"count={size}",
                "iflag=count_bytes",
                "conv=fsync",
                "status=none",
            ],
            check=True,
        )
        subprocess.run(["mkfs.ext4", "-q", "-F", "-i", "4096", "-E", _MKFS_OPTIONS, image], check=True)
        try:
            subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
            yield mounted
        finally:
            if mounted.is_mount() and subprocess.run(["umount", mounted], check=False).returncode:
                # Somebody has a file open there still, as where this ends in the middle of a run.
                subprocess.run(["umount", "--lazy", mounted], check=True)


@contextmanager
def place_in(directory: Path, size: str | None = None) -> Iterator[tuple[Path, str]]:
    """A folder to store in, and what it is.

    Args:
        directory: Where.
        size: Of an ext4 with a journal in a file there, as `journaled` takes it. None stores in the directory itself.
    """
    medium = "in memory" if file_system(directory) in ("tmpfs", "ramfs") else "on disk"
    if size is None:
        yield directory, f"{medium} ({file_system(directory)})"
        return
    with journaled(size, directory) as place:
        yield place, f"{medium} ({file_system(place)}, in a file)"


@contextmanager
def place_for(where: str, size: str = "3G") -> Iterator[tuple[Path, str]]:
    """A folder to store in, and what it is.

    Args:
        where: ``"memory"``; ``"disk"``: an ext4 with a journal on the disk that this checkout lies on; or
            ``"journaled"``: the same in memory. Where none can be mounted, the disk or the memory itself.
        size: Of the ext4.
    """
    directory = Path(__file__).parent.parent if where == "disk" else MEMORY
    with ExitStack() as stack:
        try:
            found = stack.enter_context(place_in(directory, None if where == "memory" else size))
        except (OSError, subprocess.CalledProcessError):
            found = stack.enter_context(place_in(directory))
        yield found


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
    return {child: sum(ticks[:2]) for child in children() if (ticks := _ticks(child))}


def _ticks(process: int) -> list[int]:
    """User and system time, of the process itself and of its children that have ended; nothing if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [int(field) for field in fields[11:15]]


def _others_seconds() -> float:
    """Processor time of all but this process and those it has started, since the machine's start."""
    user, nice, system, _, _, interrupts, soft, stolen = map(int, Path("/proc/stat").read_text().split()[1:9])
    ours = sum(sum(_ticks(process)) for process in (os.getpid(), *children()))
    return (user + nice + system + interrupts + soft + stolen - ours) / os.sysconf("SC_CLK_TCK")


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
