"""Comparing a directory with its manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Literal, TypeAlias

from lighter_async.limits import usable_cores
from lighter_async.manifest.adopt import adoptable, checksum_of_file
from lighter_async.manifest.log import manifest_name
from lighter_async.manifest.reader import Manifest, Record, read_manifest
from lighter_async.names import RESERVED_PREFIX

__all__ = ["Finding", "Report", "Trouble", "drop", "verify"]

Trouble: TypeAlias = Literal["missing", "wrong size", "wrong checksum", "unreadable", "extra", "not recorded"]
"""What may be wrong with a file.

`extra` and `not recorded` are files that the manifest does not know; the latter is whole, and a run's own, whose end
came before it could record it: resuming takes it over.
"""

_HARMLESS = frozenset({"extra", "not recorded"})


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
        findings: What is not as it should be, by file.
    """

    directory: Path
    manifest: Manifest
    checked: int = 0
    nbytes: int = 0
    opaque: int = 0
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

    Args:
        directory: Where the results are.
        workers: Files that are read at once. By default two per core.
        begin: Called with the number of files before they are read; what it returns is called after each of them.

    Raises:
        FileNotFoundError: There is no manifest.
        LighterAsyncError: The manifest was written by a later version.
    """
    manifest = read_manifest(directory)
    root = Path(directory)
    if not manifest.runs and not manifest.records:
        raise FileNotFoundError(f"{os.fspath(directory)!r} has no manifest, so there is nothing to compare it with")
    report = Report(root, manifest)
    records = [record for record in manifest.records if record.file is not None]
    report.opaque = len(manifest.records) - len(records)
    tick = begin(len(records)) if begin is not None else _nothing
    with ThreadPoolExecutor(workers or 2 * usable_cores(), thread_name_prefix="lighter-async-verify") as pool:
        for record, finding in zip(records, pool.map(lambda record: _compare(root, record), records), strict=True):
            report.checked += 1
            report.nbytes += record.bytes or 0
            if finding is not None:
                report.findings.append(finding)
            tick()
    known = {record.file for record in records}
    unrecorded = {record.file for record, _ in adoptable(manifest)}
    opaque = report.opaque > 0
    for file in _files(root):
        if file in unrecorded:
            report.findings.append(Finding(file, "not recorded", "a run stored it, and ended before it recorded it"))
        elif file not in known and not opaque:
            report.findings.append(Finding(file, "extra", "the manifest does not know it"))
    report.findings.sort(key=lambda one: one.file)
    return report


def drop(report: Report) -> int:
    """Record that damaged files are to be computed again, and remove them; returns how many.

    Raises:
        OSError: The manifest cannot be written to, or a file not be removed.
    """
    damaged = [one.record for one in report.damaged if one.record is not None]
    lines = [
        json.dumps({"dropped": record.name, "file": record.file, "time": round(max(time(), record.time), 3)})
        for record in damaged
    ]
    if not lines:
        return 0
    path = report.directory / manifest_name(damaged[0].rank)
    with open(path, "ab") as file:
        # First the manifest, so that a file that is gone is never said to be stored.
        file.write(("\n" + "\n".join(lines) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
    for record in damaged:
        assert record.file is not None
        try:
            os.unlink(report.directory / record.file)
        except FileNotFoundError:
            pass
    return len(damaged)


def _compare(root: Path, record: Record) -> Finding | None:
    assert record.file is not None
    path = root / record.file
    try:
        size = os.stat(path).st_size
        if size != record.bytes:
            return Finding(record.file, "wrong size", f"{size} bytes instead of {record.bytes}", record)
        found = checksum_of_file(path)
    except FileNotFoundError:
        return Finding(record.file, "missing", "it is not there", record)
    except OSError as error:
        return Finding(record.file, "unreadable", f"{type(error).__name__}: {error}", record)
    if found != record.xxh3:
        return Finding(record.file, "wrong checksum", f"{found} instead of {record.xxh3}", record)
    return None


def _files(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(RESERVED_PREFIX)]
        for file in files:
            if not file.startswith(RESERVED_PREFIX):
                yield os.path.relpath(os.path.join(folder, file), root)


def _nothing() -> None:
    return
