"""A file system that is full, and files that may not be larger than a limit."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from samples import index_of, look, same, torn_of, value
from tally import GoOn, Tally, always

from lighter_async import BackgroundWriter, Origin, Run, WriteError, pending
from lighter_async.manifest.verify import verify

__all__ = ["full", "full_for_a_while", "too_large"]

_LARGEST = 1 << 17
_LIMIT = 1 << 15
_ARCHIVE = 4096  # bytes that a file has at most beyond its sample
_SIZE = 3 << 20  # of the small file system
_DEADLINE = 120.0


def too_large(seed: int, rounds: int, backend: str, folder: Path, *, samples: int = 60, go_on: GoOn = always) -> Tally:
    """The system refuses to make files larger than a limit (RLIMIT_FSIZE): those samples are reported, and no other.

    Then the limit is lifted, and the next run with ``resume=True`` stores what is missing.

    Args:
        seed: Decides which samples there are.
        rounds: How often.
        backend: The writer's.
        folder: Where to store.
        samples: Of each round.
        go_on: Is told after each round.
    """
    tally = Tally("RLIMIT_FSIZE, then resumed", backend)
    for number in range(rounds):
        directory = folder / f"limit-{backend}-{number}"
        first = (seed + number) * 1000
        writer = _writer(directory, backend, samples)
        with writer, _limited(backend):
            accepted, reported = _store(writer, first, range(first, first + samples))
        _settle(tally, directory, accepted, reported)
        tally.faults += len(reported)
        for index in sorted(accepted):
            size = value(index, _LARGEST).numel()
            # A file is a little larger than its sample.
            if (size > _LIMIT and index not in reported) or (size + _ARCHIVE < _LIMIT and index in reported):
                tally.troubles.append(f"sample {index} of {size} bytes: {index in reported=}")
        _resume(tally, directory, backend, first, samples)
        tally.rounds += 1
        if tally.is_clean:
            shutil.rmtree(directory)
        if not go_on(tally) or not tally.is_clean:
            break
    return tally


def full(seed: int, rounds: int, backend: str, folder: Path, *, samples: int = 100, go_on: GoOn = always) -> Tally:
    """A file system without room: what does not fit is reported. With room again, the next run stores what is missing.

    Arguments as of `too_large`.
    """
    tally = Tally("full file system, then resumed", backend)
    for number in range(rounds):
        with _small_file_system(folder / f"full-{backend}-{number}", tally) as mounted:
            if not mounted:
                break
            directory, ballast = mounted
            first = (seed + number) * 1000
            _fill(ballast, random.Random(seed + number).randint(0, 300_000))
            with _writer(directory, backend, samples) as writer:
                accepted, reported = _store(writer, first, range(first, first + samples))
            _settle(tally, directory, accepted, reported)
            tally.faults += len(reported)
            ballast.unlink()
            _resume(tally, directory, backend, first, samples)
            tally.rounds += 1
        if not go_on(tally) or not tally.is_clean:
            break
    return tally


def full_for_a_while(
    seed: int, rounds: int, backend: str, folder: Path, *, samples: int = 100, go_on: GoOn = always
) -> Tally:
    """A file system without room until somebody makes some: with ``wait_for_space`` everything is stored.

    Arguments as of `too_large`.
    """
    tally = Tally("full file system, wait_for_space", backend)
    for number in range(rounds):
        with _small_file_system(folder / f"wait-{backend}-{number}", tally) as mounted:
            if not mounted:
                break
            directory, ballast = mounted
            first = (seed + number) * 1000
            _fill(ballast, random.Random(seed + number).randint(0, 300_000))
            writer = _writer(directory, backend, samples, wait_for_space=_DEADLINE)
            was_full = threading.Event()

            def make_room(
                writer: BackgroundWriter = writer, ballast: Path = ballast, was_full: threading.Event = was_full
            ) -> None:
                if _stands_still(writer):
                    was_full.set()
                ballast.unlink()

            with writer:
                maker = threading.Thread(target=make_room)
                maker.start()
                accepted, reported = _store(writer, first, range(first, first + samples))
                maker.join(_DEADLINE)
            _settle(tally, directory, accepted, reported)
            tally.faults += was_full.is_set()
            if reported or not was_full.is_set():
                tally.troubles.append(f"reported {reported}, stood still {was_full.is_set()}")
            _resume(tally, directory, backend, first, samples)
            tally.rounds += 1
        if not go_on(tally) or not tally.is_clean:
            break
    return tally


def _writer(directory: Path, backend: str, samples: int, **options: Any) -> BackgroundWriter:
    return BackgroundWriter(
        "tensor",
        directory,
        backend=backend,  # type: ignore[arg-type]
        max_workers=2,
        queue_size=samples,
        resume=True,
        run=Run(numbered=True),
        **options,
    )


def _store(writer: BackgroundWriter, first: int, indices: Any) -> tuple[set[int], list[int]]:
    """Hand samples over and wait; returns those that were taken, and those that were reported.

    Each is named by its number behind the first one, since a data set's indices begin at 0.
    """
    accepted: set[int] = set()
    reported: list[int] = []
    batch = list(indices)
    numbers = [index - first for index in batch]
    try:
        writer.submit_batch(
            [str(number) for number in numbers],
            [value(index, _LARGEST) for index in batch],
            origin=Origin(indices=numbers),
        )
        accepted.update(batch)
        writer.flush(timeout=2 * _DEADLINE)
    except WriteError as error:
        reported += [index_of(failure.name) + first for failure in error.failures]
        if any(getattr(failure.cause, "errno", None) not in (errno.EFBIG, errno.ENOSPC) for failure in error.failures):
            raise
    return accepted, reported


def _settle(tally: Tally, directory: Path, accepted: set[int], reported: list[int]) -> None:
    first = min(accepted) // 1000 * 1000
    files, strange = look(directory)
    stored = [index + first for _, index in files]
    # Their files were stored, and then the manifest found no room for their lines. They are whole, which is looked at.
    unrecorded = set(stored) & set(reported)
    tally.unrecorded += len(unrecorded)
    settled = [index for index in reported if index not in unrecorded]
    tally.settle(accepted, stored, settled, torn_of(files, lambda path, index: same(path, index + first, _LARGEST)))
    tally.reported += len(unrecorded)
    left = {index + first for index in pending(range(len(accepted)), directory)}
    if not set(settled) <= left <= set(reported):
        tally.troubles.append(f"pending {sorted(left)}, reported {sorted(reported)}, of which unrecorded {unrecorded}")
    if strange or list(directory.rglob("*.part")):
        tally.troubles.append(f"left behind {strange}, {list(directory.rglob('*.part'))}")


def _resume(tally: Tally, directory: Path, backend: str, first: int, samples: int) -> None:
    """The next run stores what is missing, and nothing else."""
    left = [index + first for index in pending(range(samples), directory)]
    if left:
        with _writer(directory, backend, samples) as writer:
            _, reported = _store(writer, first, left)
        if reported:
            tally.troubles.append(f"reported in the next run: {reported}")
    files, _ = look(directory)
    everything = set(range(samples))
    found = [index for _, index in files]
    tally.lost += len(everything - set(found))
    tally.duplicated += len(found) - len(set(found))
    tally.torn += len(torn_of(files, lambda path, index: same(path, index + first, _LARGEST)))
    report = verify(directory, workers=1)
    if not report.is_sound or report.counts().get("extra") or len(pending(range(samples), directory)):
        tally.troubles.append(f"at the end verify finds {report.counts()}")


@contextlib.contextmanager
def _limited(backend: str) -> Iterator[None]:
    """Whoever writes may make no larger files meanwhile: the helpers, or else this process."""
    if backend == "process":
        for child in psutil.Process().children():
            if "lighter_async" in " ".join(child.cmdline()):
                child.rlimit(psutil.RLIMIT_FSIZE, (_LIMIT, resource.RLIM_INFINITY))
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def _small_file_system(folder: Path, tally: Tally) -> Iterator[tuple[Path, Path] | None]:
    """A directory on a file system of its own, and a file there that takes room; None where mounting is forbidden."""
    folder.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    if done.returncode:
        tally.skipped = "mounting a tmpfs is not allowed"
        folder.rmdir()
        yield None
        return
    try:
        yield folder / "results", folder / "ballast"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)
        folder.rmdir()


def _fill(ballast: Path, free: int) -> None:
    """Take all room but this."""
    there = os.statvfs(ballast.parent)
    ballast.write_bytes(b"\0" * max(0, there.f_bavail * there.f_bsize - (200_000 + free)))


def _stands_still(writer: BackgroundWriter) -> bool:
    """Wait until samples are pending and none was stored for a while, or all are stored; returns whether some are."""
    deadline = time.monotonic() + _DEADLINE
    last, since = -1, time.monotonic()
    while time.monotonic() < deadline:
        stats = writer.stats()
        if stats.written != last or not stats.accepted:
            last, since = stats.written, time.monotonic()
        if stats.accepted and not stats.pending:
            return False
        if time.monotonic() - since > 0.5:
            return True
        time.sleep(0.01)
    return False
