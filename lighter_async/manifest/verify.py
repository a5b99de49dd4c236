"""Comparing a directory with its manifest."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lighter_async.below import open_below, remove_below, walk_below
from lighter_async.files import local_path
from lighter_async.limits import usable_cores
from lighter_async.locks import held_by, is_held
from lighter_async.manifest.adopt import adoptable, checksum_of, identity_of_file
from lighter_async.manifest.columns import Block
from lighter_async.manifest.entry import Record
from lighter_async.manifest.log import ManifestLog
from lighter_async.manifest.reader import Manifest, manifest_files, read_manifest
from lighter_async.names import RESERVED_PREFIX
from lighter_async.types import Run

__all__ = ["Finding", "Report", "Trouble", "drop", "is_in_use", "verify", "why_empty"]

Trouble: TypeAlias = Literal[
    "missing", "wrong size", "wrong checksum", "unreadable", "extra", "not recorded", "being replaced"
]
"""What may be wrong with a file.

`being replaced` is one that a writer at work has stored anew, and not recorded yet.
`extra` and `not recorded` are files that the manifest does not know;
the latter is whole, and a run's own, whose end came before it could record it: resuming takes it over.
"""

_HARMLESS = frozenset({"extra", "not recorded", "being replaced"})
_NO_FILE = frozenset({errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EMLINK})
_LOOKS = 3  # at what a writer may be replacing while we look
_TOGETHER = 64  # files that a thread is given at a time


@dataclass(frozen=True, slots=True)
class Finding:
    """One file that is not as it should be.

    Attributes:
        file: Below the directory.
        trouble: What is wrong.
        detail: How it differs, or what the system said.
        record: What the manifest says of it, if anything.
    """

    file: str
    trouble: Trouble
    detail: str
    record: Record | None = None


@dataclass(slots=True)
class Report:
    """What was found in a directory.

    Attributes:
        directory: The directory.
        manifest: What should be there.
        checked: Files that were compared.
        nbytes: Their bytes.
        opaque: Records of functions ``(path, value)``, whose files are not known and so not compared.
        in_use: Whether a writer is at work in the directory, so that it may be otherwise by now.
        findings: What is not as it should be, by file.
    """

    directory: Path
    manifest: Manifest
    checked: int = 0
    nbytes: int = 0
    opaque: int = 0
    in_use: bool = False
    findings: list[Finding] = field(default_factory=list)

    @property
    def damaged(self) -> list[Finding]:
        """Files that have to be computed again."""
        return [one for one in self.findings if one.trouble not in _HARMLESS]

    @property
    def is_sound(self) -> bool:
        """Whether everything that the manifest says is stored is there, whole and unchanged."""
        return not self.damaged

    def counts(self) -> dict[str, int]:
        """How often each trouble was found."""
        found: dict[str, int] = {}
        for one in self.findings:
            found[one.trouble] = found.get(one.trouble, 0) + 1
        return found


def verify(
    directory: str | os.PathLike[str],
    *,
    workers: int | None = None,
    begin: Callable[[int], Callable[[], None]] | None = None,
) -> Report:
    """Compare every file of a directory with the manifest.

    A writer may be at work there: a file that is replaced meanwhile is compared with its new record, and one that is
    not recorded yet is told as extra.

    Args:
        directory: Where the results are.
        workers: Files that are read at once. By default two per core.
        begin: Called with the number of files before they are read; what it returns is called after each of them.

    Raises:
        FileNotFoundError: There is no directory, or no manifest in it, or one that says nothing.
        LighterAsyncError: The manifest was written by a later version.
    """
    root = local_path(directory)
    manifest = read_manifest(root)
    if not manifest.runs and not manifest.records:
        if not root.is_dir():
            raise FileNotFoundError(f"there is no directory {os.fspath(root)!r}")
        raise FileNotFoundError(
            f"{os.fspath(root)!r} {why_empty(manifest)}, so there is nothing to compare it with; one is written, "
            f"as {RESERVED_PREFIX}/manifest-RANK.jsonl, unless manifest=False, into the directory that the writer was "
            "given"
        )
    report = Report(root, manifest, in_use=is_in_use(root))
    tick = begin(_known(manifest)) if begin is not None else _nothing
    damaged = []
    for finding in _compare_all(root, manifest, workers or 2 * usable_cores()):
        if finding is not None:
            damaged.append(finding)
        tick()
    extra = set(manifest.records.without(_files(root), str))
    at_work: set[str] = set()
    for _ in range(_LOOKS if damaged or extra else 0):
        # Asked before the manifest is read: what a writer has recorded before it ended is in there.
        at_work = set(held_by(os.path.join(root, RESERVED_PREFIX)))
        before, report.manifest = report.manifest, read_manifest(root)
        damaged, settled = _look_again(root, damaged, before, report.manifest)
        if settled:
            break
    since = min((run.since for run in report.manifest.runs if run.run in at_work), default=None)
    if since is not None:
        damaged = [_of_writer_at_work(root, one, since) for one in damaged]
    report.checked = _known(report.manifest)
    report.nbytes = sum(block.sizes_of_living() for block in report.manifest.records.blocks)
    report.opaque = len(report.manifest.records) - report.checked
    report.findings = damaged
    extra = set(report.manifest.records.without(extra, str))
    if extra:
        report.findings += _unknown(report, extra)
    report.findings.sort(key=lambda one: one.file)
    return report


def drop(report: Report) -> list[OSError]:
    """Record that damaged files are to be computed again, and remove them; returns why some could not be removed.

    Raises:
        OSError: The manifest cannot be written to. Nothing is removed.
    """
    damaged = [one.record for one in report.damaged if one.record is not None and one.record.file is not None]
    for rank in sorted({record.rank for record in damaged}):
        # Each in its rank's manifest, behind the line that it takes back. First there and then the file, so that a
        # file that is gone is never said to be stored; with what it is, so that it is never taken for another one.
        log = ManifestLog(report.directory, Run(rank=rank, world_size=rank + 1, id="repair"), durability="fsync")
        log.open()
        try:
            log.drop(
                [
                    (record, identity_of_file(report.directory / (record.file or "")))
                    for record in damaged
                    if record.rank == rank
                ]
            )
        finally:
            log.close()
    failed = []
    for record in damaged:
        assert record.file is not None
        try:
            remove_below(report.directory, record.file)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            failed.append(error)
    return failed


def is_in_use(directory: str | os.PathLike[str]) -> bool:
    """Whether a writer, or a helper of one, is at work in a directory, as far as this machine knows."""
    folder = os.path.join(directory, RESERVED_PREFIX)
    try:
        return any(is_held(os.path.join(folder, file)) for file in os.listdir(folder) if file.endswith(".lock"))
    except OSError:
        return False


def why_empty(manifest: Manifest) -> str:
    """What is wrong with a directory of which no run and no sample is known."""
    if manifest.torn:
        lines = "whose one line is" if manifest.torn == 1 else f"none of whose {manifest.torn} lines is"
        wrong = "not valid" if manifest.torn == 1 else "valid"
        return f"has a manifest {lines} {wrong}"
    if manifest_files(manifest.directory):
        return "has a manifest that tells of no run and no sample"
    return "has no manifest"


def _known(manifest: Manifest) -> int:
    """How many records say where they lie."""
    return sum(len(block) for block in manifest.records.blocks if block.is_known)


def _parts(rows: NDArray[np.int64]) -> Iterator[list[int]]:
    return (rows[start : start + _TOGETHER].tolist() for start in range(0, len(rows), _TOGETHER))


def _compare_all(root: Path, manifest: Manifest, workers: int) -> Iterator[Finding | None]:
    """What is found of each record, in no order."""
    rows = ((block, part) for block in manifest.records.blocks if block.is_known for part in _parts(block.rows()))

    def compare(part: tuple[Block, Sequence[int]]) -> list[Finding | None]:
        return [_compare(root, part[0].record(row)) for row in part[1]]

    with ThreadPoolExecutor(workers, thread_name_prefix="lighter-async-verify") as pool:
        # A few for each thread are made at a time: records of all files at once would fill the memory.
        under_way: deque[Future[list[Finding | None]]] = deque()
        for part in rows:
            under_way.append(pool.submit(compare, part))
            if len(under_way) > 4 * workers:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()


def _compare(root: Path, record: Record) -> Finding | None:
    assert record.file is not None
    path = root / record.file
    try:
        descriptor = open_below(root, record.file)
    except (FileNotFoundError, NotADirectoryError):
        return Finding(record.file, "missing", "it is not there", record)
    except OSError as error:
        return Finding(record.file, "unreadable", _why_unreadable(path, error), record)
    size = os.fstat(descriptor).st_size
    if size != record.bytes:
        os.close(descriptor)
        return Finding(record.file, "wrong size", f"{size} bytes instead of {record.bytes}", record)
    try:
        found = checksum_of(descriptor)
    except OSError as error:
        return Finding(record.file, "unreadable", _why_unreadable(path, error), record)
    if found != record.xxh3:
        return Finding(record.file, "wrong checksum", f"{found} instead of {record.xxh3}", record)
    return None


def _why_unreadable(path: Path, error: OSError) -> str:
    if path.is_symlink():
        return f"a link to {os.readlink(path)!r} in its place, which is not followed"
    if path.is_dir():
        return "there is a folder in its place"
    return (
        "it is no file, or is reached through a link" if error.errno in _NO_FILE else f"{type(error).__name__}: {error}"
    )


def _of_writer_at_work(root: Path, finding: Finding, since: int) -> Finding:
    """A file that is as new as a run that is at work is that run's, which records it in a moment."""
    identity = identity_of_file(root / finding.file)
    if finding.trouble not in ("wrong size", "wrong checksum") or identity is None or identity[1] < since:
        return finding
    return Finding(finding.file, "being replaced", "a writer at work has stored it anew", finding.record)


def _look_again(root: Path, damaged: Sequence[Finding], before: Manifest, now: Manifest) -> tuple[list[Finding], bool]:
    """What is still damaged by a newer manifest, and whether that says of each the same as the one before."""
    sought = {one.file for one in damaged}
    known = {record.file: record for record in now.records.of_files(sought)}
    settled = all(one.record == known.get(one.file) for one in damaged)
    again = [record for one in damaged if (record := known.get(one.file)) is not None]
    new = set(before.records.without(now.records.files(), str))
    again += now.records.of_files(new)
    return [one for record in again if (one := _compare(root, record)) is not None], settled


def _unknown(report: Report, files: Iterable[str]) -> Iterator[Finding]:
    """Files that the manifest does not know. Where functions have written what they like, nothing is said of them."""
    unrecorded = {record.file for record, _ in adoptable(report.manifest)}
    for file in files:
        if file in unrecorded:
            yield Finding(file, "not recorded", "a run stored it, and ended before it recorded it")
        elif not report.opaque:
            yet = ", yet: a writer is at work here" if report.in_use else ""
            yield Finding(file, "extra", f"the manifest does not know it{yet}")


def _files(root: Path) -> Iterator[str]:
    for folder, files in walk_below(root, but=RESERVED_PREFIX):
        for file in files:
            if not file.startswith(RESERVED_PREFIX):
                yield f"{folder}/{file}" if folder else file


def _nothing() -> None:
    return
