"""The reading side of the manifest."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import and_
from pathlib import Path
from typing import IO, Any, TypeAlias

from lighter_async.errors import LighterAsyncError
from lighter_async.manifest.columns import Columns, records_in
from lighter_async.manifest.entry import (
    Dropped,
    Loaders,
    Record,
    RunRecord,
    Sealed,
    samples_of,
)
from lighter_async.manifest.indices import IndexSet
from lighter_async.manifest.latest import Drop, keep_latest
from lighter_async.manifest.line import Samples
from lighter_async.manifest.parsing import encoded_text, parse
from lighter_async.manifest.records import Records
from lighter_async.names import RESERVED_PREFIX
from lighter_async.optional_packages import optional
from lighter_async.store import Readable, source_of
from lighter_async.whole_files import local_path

__all__ = [
    "LONGEST_LINE",
    "Manifest",
    "Series",
    "current_runs",
    "is_superseded",
    "latest_sequence",
    "lines_in",
    "lines_of",
    "manifest_files",
    "opened",
    "read_manifest",
    "records_of",
    "runs_in",
    "runs_of",
]

_FILE = re.compile(r"manifest-(\d{1,9})\.jsonl", re.ASCII)
_SPAN = re.compile(rb'\{"samples":(\d{1,7}),"names":\{"start":(\d{1,19}),"step":(-?\d{1,19})\}')
LONGEST_LINE = 1 << 20
"""Bytes of a line; a longer one is none of ours."""


Series: TypeAlias = "tuple[str, str]"
"""A writer and a key: samples of one series are of one kind, one for each item of the data set."""


@dataclass(slots=True, repr=False)
class Manifest:
    """What was stored in a directory, over all ranks.

    Attributes:
        directory: The directory.
        records: The latest one of each file, in the data set's order: by loader, index, and time. A sequence that makes
            each record when it is looked at.
        runs: Who wrote, in the order in which they began.
        loaders: Over which data sets, in the same order.
        damaged: Files that were found damaged, with the size, time and number that they had.
        sealed: Objects that hold several samples and have their final names.
        torn: Lines that are not whole, as a crash may leave one at the end of a file.
    """

    directory: Path
    records: Records = field(default_factory=lambda: Records([]))
    runs: list[RunRecord] = field(default_factory=list)
    loaders: list[Loaders] = field(default_factory=list)
    damaged: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sealed: dict[str, Sealed] = field(default_factory=dict)
    torn: int = 0

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        counts = [_counted(len(self.records), "record"), _counted(len(self.runs), "run")]
        counts += [f"{len(self.damaged)} damaged"] if self.damaged else []
        counts += [_counted(self.torn, "torn line")] if self.torn else []
        return f"<Manifest of {os.fspath(self.directory)!r}: {', '.join(counts)}>"

    def done(self, *, loader: int = 0, writer: str | None = None, key: str | None = None) -> IndexSet:
        """The indices in the data set of the samples that need not be computed again.

        Of several series of samples in the directory (written by different writers, or of different outputs), a sample
        is done if it is in all of them. What earlier runs have stored counts until a run begins that does not resume.

        Args:
            loader: Of which data loader.
            writer: Look at one writer's samples alone.
            key: Look at one output's samples alone.
        """
        found = [IndexSet(one.indices(loader)) for one in self.counted(writer=writer, key=key).values()]
        return IndexSet(reduce(and_, found)) if found else IndexSet()

    def names(self, *, writer: str | None = None, key: str | None = None) -> set[str]:
        """The names of the samples that are done, over all loaders; arguments as in `done`."""
        found = [set(records.names()) for records in self.counted(writer=writer, key=key).values()]
        return set.intersection(*found) if found else set()

    def counted(self, *, writer: str | None = None, key: str | None = None) -> dict[Series, Records]:
        """The records that count, of each series; arguments as in `done`."""
        current = {
            series: runs
            for series, runs in self.current_runs().items()
            if (writer is None or series[0] == writer) and (key is None or series[1] == key)
        }
        return {
            series: self.records.where(lambda block: block.series == series and block.head.run in runs)  # noqa: B023
            for series, runs in current.items()
        }

    def current_runs(self) -> dict[Series, set[str]]:
        """For each series the runs whose samples count.

        That is the last one that did not resume, those that were open beside it, and those that went on with them.
        """
        return current_runs(self.runs)

    def to_pandas(self) -> Any:
        """The records as a pandas `DataFrame`, a row each.

        Raises:
            ImportError: pandas is not installed.
        """
        with optional("a DataFrame is one of pandas", "pandas"):
            import pandas

        return pandas.DataFrame(self.records.columns())

    def to_arrow(self) -> Any:
        """The records as a pyarrow `Table`, a row each.

        Raises:
            ImportError: pyarrow is not installed.
        """
        with optional("a Table is one of pyarrow", "pyarrow"):
            import pyarrow

        schema = pyarrow.schema(
            [
                ("name", pyarrow.string()),
                ("file", pyarrow.string()),
                ("bytes", pyarrow.int64()),
                ("xxh3", pyarrow.string()),
                ("index", pyarrow.int64()),
                ("shape", pyarrow.list_(pyarrow.int64())),
                ("dtype", pyarrow.string()),
                ("rank", pyarrow.int64()),
                ("loader", pyarrow.int64()),
                ("batch", pyarrow.int64()),
                ("time", pyarrow.float64()),
                ("run", pyarrow.string()),
                ("writer", pyarrow.string()),
                ("key", pyarrow.string()),
                ("offset", pyarrow.int64()),
            ]
        )
        return pyarrow.table(self.records.columns(), schema=schema)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def read_manifest(where: str | os.PathLike[str] | Readable) -> Manifest:
    """Read what was stored in a directory, or in an array or a table, over all ranks.

    Args:
        where: What the writer was given: the directory, the path of an array or a table, or the target. Without a
            manifest there the result is an empty one.

    Raises:
        LighterAsyncError: A later version of this package has written it.
        OSError: It cannot be read.
        TypeError: It is neither a path nor a target that stores below a directory.
        ValueError: It is a URL.
    """
    directory, _, key = source_of(where)
    manifest = _read(directory)
    if key is None:
        return manifest
    manifest.records = manifest.records.where(lambda block: block.head.key == key)
    manifest.runs = [run for run in manifest.runs if run.key == key]
    manifest.loaders = [loaders for loaders in manifest.loaders if loaders.series[1] == key]
    if isinstance(where, (str, os.PathLike)) and not manifest.runs and not manifest.records:
        return Manifest(local_path(where))  # a directory that is called like an array, and is not there yet
    return manifest


def _read(directory: Path) -> Manifest:
    manifest = Manifest(directory)
    columns = Columns()
    drops: list[Drop] = []
    for source, path in enumerate(manifest_files(directory)):
        for order, line in enumerate(lines_in(path)):
            if not line:
                continue
            entry = parse(line)
            if isinstance(entry, Record):
                entry = samples_of([entry])
            if isinstance(entry, Samples):
                columns.add(entry, source, order)
            elif isinstance(entry, Dropped):
                drops.append(Drop(entry, source, order))
            elif isinstance(entry, RunRecord):
                manifest.runs.append(entry)
            elif isinstance(entry, Loaders):
                manifest.loaders.append(entry)
            elif isinstance(entry, Sealed):
                manifest.sealed[entry.object] = entry
            else:
                manifest.torn += 1
    blocks = columns.blocks
    manifest.torn += columns.refused
    manifest.runs.sort(key=lambda run: (run.sequence, run.time))
    sequences = {run.run: run.sequence for run in manifest.runs}
    manifest.loaders.sort(key=lambda loaders: sequences.get(loaders.run, 0))
    damaged = keep_latest(blocks, drops, sequences)
    manifest.records = Records(blocks)
    manifest.damaged = {one.file: one.seen for one in damaged if one.file is not None and one.seen is not None}
    return manifest


def runs_of(directory: str | os.PathLike[str]) -> list[RunRecord]:
    """The runs of a directory, in the order in which they began, without looking at their samples."""
    return sorted(runs_in(directory), key=lambda run: (run.sequence, run.time))


def runs_in(directory: str | os.PathLike[str]) -> Iterator[RunRecord]:
    """As `runs_of`, one after the other, in no order."""
    for path in manifest_files(directory):
        for line in lines_in(path):
            if line.startswith(b'{"format"') and isinstance(entry := parse(line), RunRecord):
                yield entry


def latest_sequence(directory: str | os.PathLike[str]) -> int:
    """The largest sequence number of the runs that a directory's manifests know."""
    return max((run.sequence for run in runs_of(directory)), default=0)


def manifest_files(directory: str | os.PathLike[str]) -> list[Path]:
    """The manifests of a directory, one per rank, in the ranks' order."""
    found = []
    folder = local_path(directory) / RESERVED_PREFIX
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    if folder.is_symlink():
        raise LighterAsyncError(
            f"{os.fspath(folder)!r} is a link, and records are not read from elsewhere; put the folder there itself"
        )
    for name in names:
        if match := _FILE.fullmatch(name):
            found.append((int(match[1]), folder / name))
    return [path for _, path in sorted(found)]


def records_of(path: Path, file: str, suffix: str) -> Iterator[Record]:
    """The records of one file in one manifest, without making anything of the others.

    Args:
        path: The manifest.
        file: The file.
        suffix: That of the writer that may have stored it: it may be in its name, or not.
    """
    stem = file.removesuffix(suffix)
    texts = tuple({text for name in (file, stem) for text in (json.dumps(name).encode(), encoded_text(name))})
    number = int(stem) if stem.isascii() and stem.isdecimal() else -1
    for line in lines_in(path):
        if span := _SPAN.match(line):
            count, start, step = map(int, span.groups())
            if number < 0 or number not in (range(start, start + count * step, step) if step else (start,)):
                continue
        elif not any(text in line for text in texts):
            continue
        entry = parse(line)
        if isinstance(entry, (Record, Samples)):
            yield from (record for record in records_in(entry) if record.file == file)


def opened(path: Path) -> IO[bytes]:
    """Open a manifest, unless others have put a link or a pipe in its place.

    Raises:
        LighterAsyncError: It is no file of its own.
    """
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if path.is_symlink():
            raise LighterAsyncError(_no_file(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LighterAsyncError(_no_file(path))
    return open(descriptor, "rb")


def _no_file(path: Path) -> str:
    return (
        f"{os.fspath(path)!r} is no file, but a link, a folder or a pipe in the place of a manifest. No writer of this "
        "package makes one there; find out who did, and remove it"
    )


def lines_in(path: Path) -> Iterator[bytes]:
    """As `lines_of`, of a manifest that is not open."""
    with opened(path) as file:
        yield from lines_of(file)


def lines_of(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a manifest. One that is not whole, or too long to be ours, is given as ``?``, which says nothing."""
    for line in iter(partial(file.readline, LONGEST_LINE), b""):
        if line.endswith(b"\n"):
            yield line[:-1]
            continue
        # A line without an end is just being written, or was torn; in both cases it does not count.
        yield b"?"
        while len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE)


def current_runs(runs: Sequence[RunRecord]) -> dict[Series, set[str]]:
    """As `Manifest.current_runs`."""
    series: dict[Series, list[RunRecord]] = {}
    for run in runs:
        series.setdefault(run.series, []).append(run)
    return {key: _current(of_series) for key, of_series in series.items()}


def is_superseded(series: Series, run: str, current: Mapping[Series, Collection[str]]) -> bool:
    """Whether a later run of a series has begun anew, so that what this one has stored does not count.

    Args:
        series: The series.
        run: The run.
        current: As `current_runs` gives it.
    """
    return series in current and run not in current[series]


def _current(runs: list[RunRecord]) -> set[str]:
    fresh = [run for run in runs if not run.resume]
    if not fresh:
        return {run.run for run in runs}
    # A run that was open when another one began adds to the same results, and so does one that was open beside that.
    own = {run.run for run in runs}  # runs of other series add nothing to this one
    neighbours: dict[str, list[str]] = {}
    for run in fresh:
        for one in own.intersection(run.beside):
            neighbours.setdefault(run.run, []).append(one)
            neighbours.setdefault(one, []).append(run.run)
    together: set[str] = set()
    more = [fresh[-1].run]
    while more:
        if (found := more.pop()) not in together:
            together.add(found)
            more += neighbours.get(found, ())
    first = next(place for place, run in enumerate(runs) if run.run in together)
    return together | {run.run for run in runs[first:] if run.resume}
