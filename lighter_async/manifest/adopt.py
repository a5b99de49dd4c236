"""Files that were stored but not recorded, because a crash came between the two."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import xxhash

from lighter_async.below import open_below
from lighter_async.locks import boot_id
from lighter_async.manifest.columns import Columns
from lighter_async.manifest.entry import Record, RunRecord, samples_of
from lighter_async.manifest.line import LARGEST
from lighter_async.manifest.reader import Manifest, Series
from lighter_async.manifest.records import Records
from lighter_async.names import RESERVED_PREFIX, with_suffix

__all__ = ["adoptable", "checksum_of", "identity_of_file", "lengths_of", "number_name", "stored", "with_unrecorded"]

_CHUNK = 1 << 20
_MOST_DIGITS = 19


def number_name(index: int, loader: int, lengths: Sequence[int | None]) -> str | None:
    """How a sample is called after its index, going on over the loaders; None if that is not known.

    Args:
        index: In the data set of its loader.
        loader: Which loader.
        lengths: Of the loaders' data sets.
    """
    before = 0
    for length in lengths[:loader]:
        if length is None:
            return None
        before += length
    return str(before + index) if loader == 0 or loader < len(lengths) else None


def lengths_of(manifest: Manifest, series: Series) -> list[int | None]:
    """The lengths of the loaders' data sets, each as the latest run of a series that had the loader has recorded it."""
    lengths: list[int | None] = []
    for loaders in reversed(manifest.loaders):
        if loaders.series == series:
            lengths += [one.length for one in loaders.loaders[len(lengths) :]]
    return lengths


def stored(manifest: Manifest, *, writer: str | None = None, key: str | None = None) -> dict[Series, Records]:
    """What is done of each series: the records that count, and those that `adoptable` gives; arguments as there."""
    unrecorded = [record for record, _ in adoptable(manifest, writer=writer, key=key)]
    return with_unrecorded(manifest.counted(writer=writer, key=key), unrecorded)


def with_unrecorded(counted: dict[Series, Records], unrecorded: Sequence[Record]) -> dict[Series, Records]:
    """The records that count, and others beside them."""
    columns = Columns()
    for record in unrecorded:
        columns.add(samples_of([record]), 0, 0)
    return {
        series: Records([*records.blocks, *(block for block in columns.blocks if block.series == series)])
        for series, records in counted.items()
    }


def adoptable(manifest: Manifest, *, writer: str | None = None, key: str | None = None) -> Iterator[tuple[Record, str]]:
    """The files that can only be a run's own, though it did not come to record them, as records with their series.

    A file says which sample it is if samples are named by their index. It is this run's own if it is as new as the run,
    and whole, since it got its name only when it was; after a loss of power that is not known, so none counts that was
    stored before this machine was started, or by another one. One that was found damaged is nobody's.

    Args:
        manifest: The manifest.
        writer: Look at one writer's files alone.
        key: Look at one output's files alone.
    """
    of_series: dict[Series, list[RunRecord]] = {}
    for run in manifest.runs:
        of_series.setdefault(run.series, []).append(run)
    for series, ids in manifest.current_runs().items():
        if (writer is not None and series[0] != writer) or (key is not None and series[1] != key):
            continue
        runs = [run for run in of_series[series] if run.run in ids]
        if not runs or not all(run.numbered and run.suffix and run.boot == boot_id() != "" for run in runs):
            continue
        since = min(run.since for run in runs)
        numbered = _numbered(manifest.directory, runs[-1], lengths_of(manifest, series))
        for loader, index, file in manifest.records.without(numbered, lambda one: one[2]):
            identity = identity_of_file(manifest.directory / file)
            if identity is None or identity[1] < since or _is_same(identity, manifest.damaged.get(file)):
                continue
            try:
                record = _record(manifest.directory, file, loader, index, runs[-1])
            except OSError:
                continue  # it is gone by now, or cannot be read, and so counts as not stored
            yield record, series[1]


def _is_same(identity: tuple[int, int, int], damaged: Sequence[int] | None) -> bool:
    """Whether a file may be the one that was found damaged: a later one has another number, and is newer."""
    return damaged is not None and (identity[2] == damaged[2] or identity[1] <= damaged[1])


def identity_of_file(path: Path) -> tuple[int, int, int] | None:
    """The size, time of change in nanoseconds, and number of what lies under a name; None if nothing does."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def _numbered(directory: Path, run: RunRecord, lengths: Sequence[int | None]) -> Iterator[tuple[int, int, str]]:
    """The loader and index of each file that is named by its number."""
    for entry in _entries(directory):
        if (
            entry.is_dir(follow_symlinks=False)
            and entry.name.isdecimal()
            and entry.name.isascii()
            and len(entry.name) < _MOST_DIGITS
        ):
            # As earlier versions named samples of several loaders.
            for inner in _entries(Path(entry.path)):
                if (index := _index(inner, run.suffix)) is not None and str(int(entry.name)) == entry.name:
                    yield int(entry.name), index, f"{entry.name}/{inner.name}"
        elif (number := _index(entry, run.suffix)) is not None:
            for loader, length in enumerate(lengths or [None]):
                if length is None or number < length:
                    yield loader, number, entry.name
                    break
                number -= length


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(RESERVED_PREFIX)]
    except OSError:
        return []


def _index(entry: os.DirEntry[str], suffix: str) -> int | None:
    stem = entry.name.removesuffix(suffix)
    if (
        stem == entry.name
        or not (stem.isascii() and stem.isdecimal() and len(stem) <= _MOST_DIGITS)
        or with_suffix(str(int(stem)), suffix) != entry.name
    ):
        return None
    return int(stem) if int(stem) <= LARGEST and entry.is_file(follow_symlinks=False) else None


def _record(directory: Path, file: str, loader: int, index: int, run: RunRecord) -> Record:
    status = os.lstat(directory / file)
    return Record(
        name=file.removesuffix(run.suffix),
        file=file,
        bytes=status.st_size,
        xxh3=checksum_of_file(directory, file),
        index=index,
        shape=None,
        dtype=None,
        rank=run.rank,
        loader=loader,
        batch=None,
        time=status.st_mtime,
        run=run.run,
        writer=run.writer,
        key=run.key,
    )


def checksum_of_file(directory: Path, file: str) -> str:
    """As `checksum`, of a file below a directory; no link is followed.

    Raises:
        OSError: It cannot be read.
    """
    return checksum_of(open_below(directory, file))


def checksum_of(descriptor: int) -> str:
    """As `checksum`, of an open file, which is closed.

    Raises:
        OSError: It cannot be read.
    """
    state = xxhash.xxh3_64()
    with open(descriptor, "rb", buffering=0) as file:
        while data := file.read(_CHUNK):
            state.update(data)
    return state.hexdigest()
