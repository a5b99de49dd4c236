"""Files that were stored but not recorded, because a crash came between the two."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import xxhash

from lighter_async.locks import boot_id
from lighter_async.manifest.reader import Manifest, Record, RunRecord
from lighter_async.names import RESERVED_PREFIX, with_suffix

__all__ = ["adoptable", "number_name"]

_CHUNK = 1 << 20


def number_name(index: int, loader: int, loaders: int) -> str:
    """How a sample is called after its index in the data set, below a folder per loader where there are several."""
    return str(index) if loaders == 1 else f"{loader}/{index}"


def adoptable(manifest: Manifest, *, writer: str | None = None, key: str | None = None) -> Iterator[tuple[Record, str]]:
    """The files that can only be a run's own, though it did not come to record them, as records with their series.

    A file says which sample it is if samples are named by their index. It is this run's own if it is as new as the run,
    and whole, since it got its name only when it was; after a loss of power that is not known, so none counts that was
    stored before this machine was started, or by another one.

    Args:
        manifest: The manifest.
        writer: Look at one writer's files alone.
        key: Look at one output's files alone.
    """
    known = {record.file for record in manifest.records}
    current = manifest.current_runs()
    for series, ids in current.items():
        if (writer is not None and series[0] != writer) or (key is not None and series[1] != key):
            continue
        runs = [run for run in manifest.runs if run.run in ids and run.series == series]
        if not runs or not all(run.numbered and run.suffix and run.boot == boot_id() != "" for run in runs):
            continue
        since = min(run.since for run in runs)
        for loader, index, file in _numbered(manifest.directory, runs[-1]):
            if file not in known and os.lstat(manifest.directory / file).st_mtime_ns >= since:
                yield _record(manifest.directory, file, loader, index, runs[-1]), series[1]


def _numbered(directory: Path, run: RunRecord) -> Iterator[tuple[int, int, str]]:
    for entry in _entries(directory):
        if entry.is_dir(follow_symlinks=False) and entry.name.isdecimal():
            for inner in _entries(Path(entry.path)):
                if (index := _index(inner, run.suffix)) is not None:
                    yield int(entry.name), index, f"{entry.name}/{inner.name}"
        elif (index := _index(entry, run.suffix)) is not None:
            yield 0, index, entry.name


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
        or not (stem.isascii() and stem.isdecimal())
        or with_suffix(str(int(stem)), suffix) != entry.name
    ):
        return None
    return int(stem) if entry.is_file(follow_symlinks=False) else None


def _record(directory: Path, file: str, loader: int, index: int, run: RunRecord) -> Record:
    status = os.stat(directory / file)
    return Record(
        name=file.removesuffix(run.suffix),
        file=file,
        bytes=status.st_size,
        xxh3=checksum_of_file(directory / file),
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


def checksum_of_file(path: Path) -> str:
    """As `checksum`, of a file.

    Raises:
        OSError: It cannot be read.
    """
    state = xxhash.xxh3_64()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_CHUNK):
            state.update(data)
    return state.hexdigest()
