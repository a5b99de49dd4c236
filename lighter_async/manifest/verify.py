"""Comparing a directory with its manifest."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from lighter_async.limits import usable_cores
from lighter_async.locks import held_by, is_held
from lighter_async.manifest.adopt import adoptable
from lighter_async.manifest.block import Block
from lighter_async.manifest.entry import Record, place_of
from lighter_async.manifest.log import ManifestLog
from lighter_async.manifest.reader import Manifest, is_superseded, manifest_files, read_manifest
from lighter_async.names import RESERVED_PREFIX
from lighter_async.store import (
    NOT_WRITTEN,
    TABLE_WRITER,
    UNSEALED,
    Identity,
    Readable,
    SealedTable,
    Store,
    sealed_table,
    source_of,
)
from lighter_async.store import Finding as Seen
from lighter_async.types import Run

__all__ = ["Finding", "Report", "Trouble", "drop", "is_in_use", "verify", "why_empty"]

Trouble: TypeAlias = Literal[
    "missing",
    "wrong size",
    "wrong checksum",
    "unreadable",
    "table",
    "extra",
    "not recorded",
    "being replaced",
]
"""What may be wrong with a file.

`being replaced`: a writer at work has stored the file anew, and has not recorded it yet.
`extra`: the manifest does not know the file, nor does one of a folder between that is a directory of results itself.
`table`: a table is not as it was written, or was not written yet; its rows are compared by themselves.
`not recorded`: the manifest does not know it either, but a run stored it whole and ended before it recorded it.
Resuming takes it over.
"""

_HARMLESS = frozenset({"extra", "not recorded", "being replaced"})
_LOOKS = 3  # how often files are compared that a writer may be replacing meanwhile
_TOGETHER = 64  # files that a thread compares before it asks for more


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


@dataclass(slots=True, repr=False)
class Report:
    """What was found in a directory.

    Attributes:
        directory: The directory.
        store: What reads the samples.
        manifest: What should be there.
        key: The array or table that was compared, where it was one of what lies there.
        files: Files that were compared.
        in_shards: Samples in tar shards that were.
        rows: Rows of arrays and tables that were.
        nbytes: The bytes of all of them.
        opaque: Records of functions ``(path, value)``, whose files are not known and so not compared.
        in_use: Whether a writer is at work in the directory, so that it may be otherwise by now.
        findings: What is not as it should be, by file.
    """

    directory: Path
    store: Store
    manifest: Manifest
    key: str | None = None
    files: int = 0
    in_shards: int = 0
    rows: int = 0
    nbytes: int = 0
    opaque: int = 0
    in_use: bool = False
    findings: list[Finding] = field(default_factory=list)

    def __repr__(self) -> str:
        counts = "".join(f", {count} {trouble}" for trouble, count in self.counts().items())
        return f"<Report of {os.fspath(self.directory)!r}: {self.checked} compared{counts}>"

    @property
    def checked(self) -> int:
        """How many stored values were compared."""
        return self.files + self.in_shards + self.rows

    @property
    def damaged(self) -> list[Finding]:
        """What has to be computed again."""
        return [one for one in self.findings if one.trouble not in _HARMLESS and one.trouble != "table"]

    @property
    def tables(self) -> list[Finding]:
        """Tables that have to be written of the rows that are stored."""
        return [one for one in self.findings if one.trouble == "table"]

    @property
    def dropped(self) -> list[Finding]:
        """What `drop` has computed again."""
        return [one for one in self.damaged if one.record is not None and one.record.file is not None]

    @property
    def is_sound(self) -> bool:
        """Whether everything that the manifest says is stored is there, whole and unchanged, with its table."""
        return not self.damaged and not self.tables

    def counts(self) -> dict[str, int]:
        """How often each trouble was found."""
        found: dict[str, int] = {}
        for one in self.findings:
            found[one.trouble] = found.get(one.trouble, 0) + 1
        return found


def verify(
    where: str | os.PathLike[str] | Readable,
    *,
    workers: int | None = None,
    begin: Callable[[int], Callable[[], None]] | None = None,
) -> Report:
    """Compare every stored file with the manifest.

    A writer may be at work there. A file that it replaces meanwhile is compared with its new record; a file that it has
    not recorded yet is reported as extra.

    Args:
        where: What the writer was given: the directory, the path of an array or a table, or the target.
        workers: Files that are read at once. By default two per core.
        begin: Called with the number of records before their values are read; what it returns is called after each.

    Raises:
        FileNotFoundError: There is no directory, or no manifest in it, or one that says nothing.
        LighterAsyncError: The manifest was written by a later version.
        TypeError: It is neither a path nor a target that stores below a directory.
        ValueError: It is a URL.
    """
    root, store, key = source_of(where)
    manifest = _read(root, key)
    if not manifest.runs and not manifest.records:
        if not root.is_dir():
            raise FileNotFoundError(
                f"there is no directory {os.fspath(root)!r}"
                + ("; there is a file of that name, which is no array and no table" if root.exists() else "")
            )
        raise FileNotFoundError(
            f"{os.fspath(root)!r} {why_empty(manifest)}, so there is nothing to compare it with; one is written, "
            f"as {RESERVED_PREFIX}/manifest-RANK.jsonl, unless manifest=False, into the directory that the writer was "
            "given"
        )
    if key is not None and not manifest.records and key not in {run.key for run in manifest.runs}:
        raise FileNotFoundError(f"nothing is recorded of an array or a table {key!r} in {os.fspath(root)!r}")
    report = Report(root, store, manifest, key, in_use=is_in_use(root))
    tick = begin(_known(manifest)) if begin is not None else _nothing
    damaged = []
    for finding in _compare_all(store, manifest, workers or 2 * usable_cores()):
        if finding is not None:
            damaged.append(finding)
        tick()
    extra = _not_recorded(manifest, store.objects()) if key is None else set()
    at_work: set[str] = set()
    for _ in range(_LOOKS if damaged or extra else 0):
        # Asked before the manifest is read, so that what a writer recorded before it ended is read.
        at_work = set(held_by(os.path.join(root, RESERVED_PREFIX)))
        before, report.manifest = report.manifest, _read(root, key)
        damaged, settled = _look_again(store, damaged, before, report.manifest)
        if settled:
            break
    since = min((run.since for run in report.manifest.runs if run.run in at_work), default=None)
    if since is not None:
        damaged = [_of_writer_at_work(store, one, since) for one in damaged]
    for block in _compared(report.manifest):
        report.nbytes += block.sizes_of_living()
        if block.head.is_row:
            report.rows += len(block)
        elif block.head.has_offsets:
            report.in_shards += len(block)
        else:
            report.files += len(block)
    report.opaque = sum(len(block) for block in report.manifest.records.blocks if not block.is_known)
    report.findings = damaged
    extra = _not_recorded(report.manifest, extra).difference(_tables(report.manifest))
    if extra:
        report.findings += _unknown(report, extra)
    report.findings += _compare_tables(report)
    report.findings.sort(key=lambda one: one.file)
    return report


def _tables(manifest: Manifest) -> set[str]:
    """The tables that rows are stored for."""
    return {run.key for run in manifest.runs if run.writer == TABLE_WRITER}


def _compare_tables(report: Report) -> Iterator[Finding]:
    """What is wrong with tables as they were written; their rows lie elsewhere, and are compared by themselves."""
    for (writer, table), records in report.manifest.counted().items():
        if writer != TABLE_WRITER or not records:
            continue
        found = _compare_table(report, table, records.blocks)
        if found is None or (found.trouble == NOT_WRITTEN and report.in_use):
            continue
        detail = f"{found.detail}; its rows are stored, and the next run that ends, or --repair, writes it"
        yield Finding(table, "table", detail)


def _compare_table(report: Report, table: str, blocks: Sequence[Block]) -> Seen | None:
    """What is wrong with a table, if anything."""
    sealed = sealed_table(report.directory, table)
    if isinstance(sealed, Seen) and report.in_use:
        sealed = sealed_table(report.directory, table)  # a writer may just have given it its name
    if not isinstance(sealed, SealedTable):
        return sealed
    count = sum(map(len, blocks))
    if (lacking := count - sealed.samples) > 0:
        return Seen(NOT_WRITTEN, f"it was written before {lacking} of {count} rows were stored")
    if not sealed.runs.issuperset(block.head.run for block in blocks):
        return Seen(NOT_WRITTEN, "it was written before the latest run")
    return None


def _read(root: Path, key: str | None) -> Manifest:
    """What is recorded, of one series or of all."""
    manifest = read_manifest(root)
    if key is not None:
        manifest.records = manifest.records.where(lambda block: block.head.key == key)
    return manifest


def drop(report: Report) -> list[OSError]:
    """Record that damaged samples are to be computed again, and remove their files; returns why that failed for some.

    A file that holds other samples as well stays as it is.

    Raises:
        OSError: The manifest cannot be written to. Nothing is removed.
    """
    store = report.store
    damaged = [one.record for one in report.dropped if one.record is not None]
    for rank in sorted({record.rank for record in damaged}):
        # Into its rank's manifest, behind the line that is taken back. The line comes before the file is removed, so
        # that no file that is gone counts as stored. It says which file it was, so that a later one is not meant.
        run = Run(rank=rank, world_size=rank + 1, id="repair")
        log = ManifestLog(report.directory, run, durability="fsync", store=store)
        log.open()
        try:
            log.drop([(record, _seen(store, record)) for record in damaged if record.rank == rank])
        finally:
            log.close()
    shared = {block.head.object for block in report.manifest.records.blocks if block.head.has_offsets}
    failed = []
    for record in damaged:
        place = place_of(record)
        if place is None or not shared.isdisjoint({place.object, place.object.removesuffix(UNSEALED)}):
            continue  # other samples lie in it
        try:
            store.remove(place.object)
        except OSError as error:
            failed.append(error)
    return failed


def _seen(store: Store, record: Record) -> Identity | None:
    """What tells a damaged file from a later one; None for a sample that lies in a file with others."""
    return None if record.offset or record.file is None else store.identity(record.file)


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
    """How many records are compared."""
    return sum(map(len, _compared(manifest)))


def _compared(manifest: Manifest) -> list[Block]:
    """The blocks of records that say where they lie.

    But not those of rows that a run has superseded by beginning anew: it writes over them, or removes those that it
    does not need, so they are not damaged if they are otherwise than recorded.
    """
    current = manifest.current_runs()
    return [
        block
        for block in manifest.records.blocks
        if block.is_known and not (block.head.is_row and is_superseded(block.series, block.head.run, current))
    ]


def _parts(rows: NDArray[np.int64]) -> Iterator[list[int]]:
    return (rows[start : start + _TOGETHER].tolist() for start in range(0, len(rows), _TOGETHER))


def _compare_all(store: Store, manifest: Manifest, workers: int) -> Iterator[Finding | None]:
    """What is found of each record, in no order."""
    rows = ((block, part) for block in _compared(manifest) for part in _parts(block.rows()))

    def compare(part: tuple[Block, Sequence[int]]) -> list[Finding | None]:
        block, rows = part
        return [_compare_row(store, block, row) for row in rows]

    with ThreadPoolExecutor(workers, thread_name_prefix="lighter-async-verify") as pool:
        # A few for each thread are made at a time: records of all files at once would fill the memory.
        under_way: deque[Future[list[Finding | None]]] = deque()
        for part in rows:
            under_way.append(pool.submit(compare, part))
            if len(under_way) > 4 * workers:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()


def _compare_row(store: Store, block: Block, row: int) -> Finding | None:
    """What is found of one sample; its record is made only if something is wrong with it."""
    place = block.place(row)
    assert place is not None
    found = store.compare(place)
    if found is None:
        return None
    return Finding(place.object, cast(Trouble, found.trouble), found.detail, block.record(row))


def _compare(store: Store, record: Record) -> Finding | None:
    place = place_of(record)
    assert place is not None
    found = store.compare(place)
    return None if found is None else Finding(place.object, cast(Trouble, found.trouble), found.detail, record)


def _of_writer_at_work(store: Store, finding: Finding, since: int) -> Finding:
    """A damaged file that is as new as a run at work is that run's, which records it in a moment."""
    identity = store.identity(finding.file)
    if identity is None and finding.record is not None and finding.record.is_in_array:
        identity = store.identity(finding.file + UNSEALED)
    if finding.trouble not in ("wrong size", "wrong checksum") or identity is None or identity.changed < since:
        return finding
    return Finding(finding.file, "being replaced", "a writer at work has stored it anew", finding.record)


def _look_again(
    store: Store, damaged: Sequence[Finding], before: Manifest, now: Manifest
) -> tuple[list[Finding], bool]:
    """What is still damaged according to a newer manifest, and whether that says the same of each as the one before."""
    sought = {(one.file, one.record.offset) for one in damaged if one.record is not None}
    known = {(record.file, record.offset): record for record in now.records.at_places(sought)}
    latest = [known.get((one.record.file, one.record.offset)) for one in damaged if one.record is not None]
    settled = all(one.record == record for one, record in zip(damaged, latest, strict=True))
    current = now.current_runs()  # a run may have begun anew meanwhile
    again = [
        record
        for record in latest
        if record is not None and not (record.is_row and is_superseded(record.series, record.run, current))
    ]
    new = set(before.records.without(now.records.files(), str))
    again += now.records.of_files(new)
    return [one for record in again if (one := _compare(store, record)) is not None], settled


def _unknown(report: Report, files: Iterable[str]) -> Iterator[Finding]:
    """Findings on files that the manifest does not know.

    None where functions ``(path, value)`` may have made them, and none in folders that have a manifest of their own.
    """
    unrecorded = {record.file for record, _ in adoptable(report.manifest, report.store)}
    are_results: dict[str, bool] = {"": False}  # folders below the directory

    def is_of_others(folder: str) -> bool:
        above = []
        while folder not in are_results:
            above.append(folder)
            folder = os.path.dirname(folder)
        found = are_results[folder]
        for one in reversed(above):  # without recursion, since a tree may be of any depth
            found = found or os.path.isdir(os.path.join(report.directory, one, RESERVED_PREFIX))
            are_results[one] = found
        return found

    for file in files:
        if file in unrecorded:
            yield Finding(file, "not recorded", "a run stored it, and ended before it recorded it")
        elif not report.opaque and not is_of_others(os.path.dirname(file)):
            yet = ", yet: a writer is at work here" if report.in_use else ""
            yield Finding(file, "extra", f"the manifest does not know it{yet}")


def _not_recorded(manifest: Manifest, names: Iterable[str]) -> set[str]:
    """Those of some files of which there is no record, neither under their names nor under their sealed names."""
    unknown = set(manifest.records.without(names, str))
    stems = {name.removesuffix(UNSEALED): name for name in unknown if name.endswith(UNSEALED)}
    unknown.difference_update(stems.values())
    return unknown | {stems[stem] for stem in manifest.records.without(stems, str)}


def _nothing() -> None:
    return
