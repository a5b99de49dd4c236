"""The reading side of the manifest."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lighter_async.errors import LighterAsyncError
from lighter_async.manifest.line import FORMAT
from lighter_async.names import RESERVED_PREFIX

__all__ = ["Manifest", "Record", "RunRecord", "manifest_files", "read_manifest"]

_FILE = re.compile(r"manifest-(\d+)\.jsonl")


@dataclass(frozen=True, slots=True)
class Record:
    """A sample that was stored.

    Attributes:
        name: As it was handed over.
        file: Its file below the directory; None of a function ``(path, value)``, of whose files nothing is known.
        bytes: The file's size; None likewise.
        xxh3: The file's checksum, XXH3 of 64 bits in hexadecimal; None likewise.
        index: In the data set, where that is known.
        shape: Of the value, where it is a tensor or an array.
        dtype: Of its elements, without ``torch.``.
        rank: Which rank stored it.
        loader: From which data loader it is.
        batch: The number of its batch in the loader, where that is known.
        time: When it was recorded, in seconds since the epoch.
        run: The run that stored it.
        writer: The writer's name.
        key: The run's, which tells its series from others of the same writer.
    """

    name: str
    file: str | None
    bytes: int | None
    xxh3: str | None
    index: int | None
    shape: tuple[int, ...] | None
    dtype: str | None
    rank: int
    loader: int
    batch: int | None
    time: float
    run: str
    writer: str
    key: str

    @property
    def series(self) -> tuple[str, str]:
        """As `RunRecord.series`."""
        return self.writer, self.key


@dataclass(frozen=True, slots=True)
class Dropped:
    """A sample that is to be computed again, because its file was found missing or damaged."""

    name: str
    file: str | None
    time: float


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One writer of a run, on one rank.

    Attributes:
        run: The run's id.
        writer: The writer's name.
        key: What tells its series from others of the same writer.
        suffix: The writer's.
        rank: Which rank.
        world_size: Of how many.
        resume: Whether it went on with what earlier runs had stored.
        numbered: Whether samples are named by their index.
        since: Nanoseconds, by the file system's clock: a file that is at least as new was stored since.
        boot: On which start of which machine it ran.
        time: When it began, in seconds since the epoch.
    """

    run: str
    writer: str
    key: str
    suffix: str
    rank: int
    world_size: int
    resume: bool
    numbered: bool
    since: int
    boot: str
    time: float

    @property
    def series(self) -> tuple[str, str]:
        """The writer and the key: samples of one series are of one kind, one for each item of the data set."""
        return self.writer, self.key


@dataclass(slots=True)
class Manifest:
    """What was stored in a directory, over all ranks.

    Attributes:
        directory: The directory.
        records: The latest one of each file, in the data set's order: by loader, index, and time.
        runs: Who wrote, in the order in which they began.
        torn: Lines that are not whole, as a crash may leave one at the end of a file.
    """

    directory: Path
    records: list[Record] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)
    torn: int = 0

    def __len__(self) -> int:
        return len(self.records)

    def done(self, *, loader: int = 0, writer: str | None = None, key: str | None = None) -> set[int]:
        """The indices in the data set of the samples that need not be computed again.

        Of several series of samples in the directory (written by different writers, or of different outputs), a sample
        is done if it is in all of them. What earlier runs have stored counts until a run begins that does not resume.

        Args:
            loader: Of which data loader.
            writer: Look at one writer's samples alone.
            key: Look at one output's samples alone.
        """
        current = self.current_runs()
        found: dict[tuple[str, str], set[int]] = {
            series: set()
            for series in current
            if (writer is None or series[0] == writer) and (key is None or series[1] == key)
        }
        for record in self.records:
            series = record.series
            if record.index is None or record.loader != loader or series not in found:
                continue
            if record.run in current[series]:
                found[series].add(record.index)
        return set.intersection(*found.values()) if found else set()

    def names(self, *, writer: str | None = None, key: str | None = None) -> set[str]:
        """The names of the samples that are done, over all loaders; arguments as in `done`."""
        current = self.current_runs()
        return {
            record.name
            for record in self.records
            if (writer is None or record.writer == writer)
            and (key is None or record.key == key)
            and record.run in current.get(record.series, ())
        }

    def current_runs(self) -> dict[tuple[str, str], set[str]]:
        """For each series the runs whose samples count: the last one that did not resume, and those after it."""
        series: dict[tuple[str, str], list[RunRecord]] = {}
        for run in self.runs:
            series.setdefault(run.series, []).append(run)
        current = {}
        for key, runs in series.items():
            fresh = [run for run in runs if not run.resume]
            since = min(run.time for run in runs if run.run == fresh[-1].run) if fresh else 0.0
            last = fresh[-1].run if fresh else ""
            current[key] = {run.run for run in runs if run.run == last or (run.resume and run.time >= since)}
        return current

    def to_pandas(self) -> Any:
        """The records as a pandas `DataFrame`, a row each.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas

        return pandas.DataFrame([asdict(record) for record in self.records], columns=list(Record.__slots__))

    def to_arrow(self) -> Any:
        """The records as a pyarrow `Table`, a row each.

        Raises:
            ImportError: pyarrow is not installed.
        """
        import pyarrow

        rows = [asdict(record) for record in self.records]
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
            ]
        )
        return pyarrow.Table.from_pylist(rows, schema=schema)


def read_manifest(directory: str | os.PathLike[str]) -> Manifest:
    """Read what was stored in a directory, over all ranks. A directory without a manifest gives an empty one.

    Raises:
        LighterAsyncError: A later version of this package has written it.
        OSError: It cannot be read.
    """
    manifest = Manifest(Path(directory))
    latest: dict[Any, Record | Dropped] = {}
    for path in manifest_files(directory):
        # In one file the later line is the later one, whatever has become of the clock meanwhile.
        of_rank: dict[Any, Record | Dropped] = {}
        for line in _lines(path):
            if not line:
                continue
            entry = _entry(line)
            if isinstance(entry, (Record, Dropped)):
                of_rank[_place(entry)] = entry
            elif isinstance(entry, RunRecord):
                manifest.runs.append(entry)
            else:
                manifest.torn += 1
        for place, entry in of_rank.items():
            if (known := latest.get(place)) is None or known.time <= entry.time:
                latest[place] = entry
    manifest.records = sorted((one for one in latest.values() if isinstance(one, Record)), key=_order)
    manifest.runs.sort(key=lambda run: run.time)
    return manifest


def manifest_files(directory: str | os.PathLike[str]) -> list[Path]:
    """The manifests of a directory, one per rank, in the ranks' order."""
    found = []
    try:
        names = os.listdir(Path(directory, RESERVED_PREFIX))
    except (FileNotFoundError, NotADirectoryError):
        return []
    for name in names:
        if match := _FILE.fullmatch(name):
            found.append((int(match[1]), Path(directory, RESERVED_PREFIX, name)))
    return [path for _, path in sorted(found)]


def records_of(path: Path, file: str) -> Iterator[Record]:
    """The records of one file in one manifest, without making anything of the others."""
    sought = f'"file":{json.dumps(file)},'.encode()
    text = path.read_bytes()
    place = text.find(sought)
    while place >= 0:
        start, end = text.rfind(b"\n", 0, place) + 1, text.find(b"\n", place)
        if end < 0:
            return
        if isinstance(entry := _entry(text[start:end]), Record):
            yield entry
        place = text.find(sought, end)


def _lines(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        for line in file:
            # One without an end may be being written at this moment, or was torn; in both cases it does not count.
            yield line.rstrip(b"\n") if line.endswith(b"\n") else b"?"


def _entry(line: bytes) -> Record | Dropped | RunRecord | None:
    try:
        fields = json.loads(line)
        if "dropped" in fields:
            return Dropped(fields["dropped"], fields["file"], fields["time"])
        version = fields.pop("format", None)
        if version is None:
            shape = fields["shape"]
            fields["shape"] = None if shape is None else tuple(shape)
            return Record(**fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if version > FORMAT:
        raise LighterAsyncError(
            f"the manifest is of format {version}, and this version of lighter_async knows {FORMAT}; upgrade it"
        )
    try:
        return RunRecord(**fields)
    except TypeError:
        return None


def _place(entry: Record | Dropped) -> Any:
    """What at most one record is of: a file, or a name of a function that writes where it likes."""
    if entry.file is None and isinstance(entry, Record):
        return entry.name, entry.series
    return entry.file


def _order(record: Record) -> tuple[int, bool, int, float]:
    return record.loader, record.index is None, record.index or 0, record.time
