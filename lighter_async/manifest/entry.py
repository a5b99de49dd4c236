"""What a manifest's lines are read as. Others may write to the directory, so nothing in a line is taken on trust."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

import msgspec

from lighter_async.errors import InvalidNameError, LighterAsyncError
from lighter_async.manifest.line import FORMAT, MOST_DIMENSIONS, Config, Loader, Output, Samples
from lighter_async.names import check_name, with_suffix
from lighter_async.runs import MOST_RUNS
from lighter_async.store import Place
from lighter_async.types import Durability

__all__ = [
    "Dropped",
    "Entry",
    "Loaders",
    "Record",
    "RunRecord",
    "Sealed",
    "encoded_text",
    "parse",
    "parse_samples",
    "place_of",
    "samples_of",
]

_LARGEST = 1 << 63  # what fits the columns of a table
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.[a-z]{1,4}" if os.name == "posix" else "(?!)")


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
        offset: Where it begins in its file, in bytes.
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
    offset: int = 0

    @property
    def series(self) -> tuple[str, str]:
        """As `RunRecord.series`."""
        return self.writer, self.key


def place_of(record: Record) -> Place | None:
    """Where a sample lies; None of a function ``(path, value)``, of whose files nothing is recorded."""
    if record.file is None or record.bytes is None or record.xxh3 is None:
        return None
    return Place(record.file, record.offset, record.bytes, record.xxh3)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A sample that is to be computed again, because its file was found missing or damaged.

    Attributes:
        name: As of `Record`.
        file: Likewise.
        time: When that was recorded.
        run: The run that had stored it; empty where that is not known.
        seen: The size, time of change in nanoseconds and number of the file that was found damaged: as long as it lies
            there, it is nobody's.
        series: The writer and the key of a sample that lies in a file with others; None of one that is the whole file.
    """

    name: str
    file: str | None
    time: float
    run: str = ""
    seen: tuple[int, ...] | None = None
    series: tuple[str, str] | None = None


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
        sequence: The run's place in the order in which the directory's runs began; 0 of an older version's.
        beside: The runs that were open when it began.
        durability: What its files outlive.
        config: What it was made with, in the user's words.
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
    sequence: int = 0
    beside: tuple[str, ...] = ()
    durability: Durability = "rename"
    config: Config = None

    @property
    def series(self) -> tuple[str, str]:
        """The writer and the key: samples of one series are of one kind, one for each item of the data set."""
        return self.writer, self.key


@dataclass(frozen=True, slots=True)
class Loaders:
    """Over which data sets a writer's samples went, one for each data loader.

    Attributes:
        run: The run.
        writer: The writer's name.
        key: As of `RunRecord`.
        loaders: What is known of each.
        named: Whether the samples have names of the user's; else they are numbered.
    """

    run: str
    writer: str
    key: str
    loaders: tuple[Loader, ...]
    named: bool = False

    @property
    def series(self) -> tuple[str, str]:
        """As `RunRecord.series`."""
        return self.writer, self.key


@dataclass(frozen=True, slots=True)
class Sealed:
    """An object that holds several samples and has its final name.

    Attributes:
        object: The object.
        run: The run that has written it.
        time: When it was sealed, in seconds since the epoch.
    """

    object: str
    run: str
    time: float


Entry: TypeAlias = "Samples | Record | Dropped | RunRecord | Loaders | Sealed"

_SAMPLES = b'{"samples":'


def samples_of(records: Sequence[Record]) -> Samples:
    """A line of samples that are alike, but for their names, indices, sizes, checksums and offsets."""
    first = records[0]
    suffix = None if first.file is None else first.file.removeprefix(first.name)
    is_usual = suffix is not None and with_suffix(first.name, suffix) == first.file and not first.offset
    is_part = first.file is not None and not is_usual and (first.offset > 0 or len(records) > 1)
    output = Output(
        first.writer,
        first.key,
        suffix=suffix if is_usual else None,
        object=None if is_usual else first.file,
        offset=[one.offset for one in records] if is_part else None,
        bytes=None if first.file is None else [one.bytes or 0 for one in records],
        xxh3="".join([one.xxh3 or "" for one in records]),
        shape=None if first.shape is None else list(first.shape),
        dtype=first.dtype,
    )
    index = None if first.index is None else [one.index or 0 for one in records]
    names = [one.name for one in records]
    return Samples(len(records), names, [output], index, first.rank, first.loader, first.batch, first.time, first.run)


def parse_samples(line: bytes) -> Samples | None:
    """What a line of samples says; None if it is none, or says what no writer says."""
    if not line.startswith(_SAMPLES):
        return None
    try:
        return _decode_samples(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:  # names that are not of UTF-8 are JSON for Python alone
        return msgspec.convert(_decode(line.decode()), Samples)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return None


_decode_samples = msgspec.json.Decoder(Samples).decode


def parse(line: bytes) -> Entry | None:
    """What a line says; None if it is not whole, or says what no writer says.

    Raises:
        LighterAsyncError: A later version of this package has written it.
    """
    if line.startswith(_SAMPLES):
        return parse_samples(line)
    try:
        fields = _decode(line.decode())
        if type(fields) is not dict:
            return None
        if "dropped" in fields:
            return _dropped(fields)
        if "loaders" in fields:
            return _loaders(fields)
        if "sealed" in fields:
            return _sealed(fields)
        if "format" in fields:
            return _run(fields)
        return _record(fields)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


_decode = json.JSONDecoder().decode

_FIELDS = tuple(Record.__dataclass_fields__)[:-1]  # version 1 has a file for each sample
# Of nearly all lines: a file that is known, and of what and where it comes from all or nothing.
_USUAL = frozenset(
    (str, str, int, str, index, shape, dtype, int, int, batch, float, str, str, str)
    for index in (int, type(None))
    for shape, dtype in ((list, str), (type(None), type(None)))
    for batch in (int, type(None))
)


def _record(fields: dict[str, Any]) -> Record | None:
    # One look at all types at once, since there may be millions of lines.
    if tuple(fields) == _FIELDS and tuple(map(type, fields.values())) in _USUAL:
        name, file, size, xxh3, index, shape, dtype, rank, loader, batch, time, run, writer, key = fields.values()
        if (
            0 <= size < _LARGEST
            and 0 <= rank < _LARGEST
            and 0 <= loader < _LARGEST
            and (index is None or -_LARGEST <= index < _LARGEST)
            and (batch is None or -_LARGEST <= batch < _LARGEST)
            and (shape is None or (len(shape) <= MOST_DIMENSIONS and all(map(_is_count, shape))))
            and -_LARGEST < time < _LARGEST
            and _is_file(file)
        ):
            if shape is not None:
                shape = tuple(shape)
            return Record(name, file, size, xxh3, index, shape, dtype, rank, loader, batch, time, run, writer, key)
        return None
    return _unusual_record(fields)


def _unusual_record(fields: dict[str, Any]) -> Record | None:
    shape = fields["shape"]
    if shape is not None:
        if len(shape) > MOST_DIMENSIONS or not all(_is_count(size) for size in shape):
            return None
        fields["shape"] = tuple(shape)
    record = Record(**fields)
    file, index, batch = record.file, record.index, record.batch
    is_whole = (
        type(record.name) is str
        and (file is None or _is_file(file))
        and (record.bytes is None) == (file is None) == (record.xxh3 is None)
        and (file is None or (_is_count(record.bytes) and type(record.xxh3) is str))
        and (index is None or (type(index) is int and -_LARGEST <= index < _LARGEST))
        and (batch is None or (type(batch) is int and -_LARGEST <= batch < _LARGEST))
        and (record.dtype is None or type(record.dtype) is str)
        and _is_count(record.rank)
        and _is_count(record.loader)
        and _is_time(record.time)
        and type(record.run) is type(record.writer) is type(record.key) is str
    )
    return record if is_whole else None


def _dropped(fields: dict[str, Any]) -> Dropped | None:
    name, file, run, time = fields["dropped"], fields["file"], fields.get("run", ""), fields["time"]
    # Earlier versions did not say which file they had found: none that was there then.
    seen = fields["seen"] if "seen" in fields else [0, int(time * 1e9), 0]
    if seen is not None and not (type(seen) is list and len(seen) == 3 and all(_is_count(one) for one in seen)):
        return None
    if not (type(name) is type(run) is str and _is_time(time) and (file is None or _is_file(file))):
        return None
    series: tuple[str, str] | None = None
    if "series" in fields:
        writer, key = fields["series"]
        if not type(writer) is type(key) is str:
            return None
        series = writer, key
    return Dropped(name, file, time, run, None if seen is None else tuple(seen), series)


def _loaders(fields: dict[str, Any]) -> Loaders | None:
    loaders = tuple(Loader(**one) for one in fields["loaders"])
    named = fields.get("named", False)
    words = fields["run"], fields["writer"], fields["key"]
    is_whole = (
        all(type(word) is str for word in words)
        and type(named) is bool
        and all(
            (one.length is None or _is_count(one.length)) and (one.fingerprint is None or type(one.fingerprint) is str)
            for one in loaders
        )
    )
    return Loaders(*words, loaders, named) if is_whole else None


def _sealed(fields: dict[str, Any]) -> Sealed | None:
    name, run, time = fields["sealed"], fields["run"], fields["time"]
    return Sealed(name, run, time) if _is_file(name) and type(run) is str and _is_time(time) else None


def encoded_text(text: str) -> bytes:
    """A text as lines of samples have it."""
    try:
        return msgspec.json.encode(text)
    except UnicodeEncodeError:
        return json.dumps(text).encode()


def _run(fields: dict[str, Any]) -> RunRecord | None:
    version = fields.pop("format")
    if type(version) is int and version > FORMAT:
        raise LighterAsyncError(
            f"the manifest is of format {version}, and this version of lighter_async knows {FORMAT}; upgrade it"
        )
    beside = fields.pop("beside", [])
    run = RunRecord(**fields, beside=tuple(beside))
    words = run.run, run.writer, run.key, run.suffix, run.boot, *run.beside
    is_whole = (
        type(beside) is list
        and all(type(word) is str for word in words)
        and "/" not in run.suffix
        and type(run.resume) is type(run.numbered) is bool
        and all(_is_count(number) for number in (run.rank, run.world_size, run.sequence))
        and run.sequence <= MOST_RUNS
        and type(run.since) is int
        and _is_time(run.time)
        and run.durability in get_args(Durability)
    )
    return run if is_whole else None


def _is_file(file: object) -> bool:
    if type(file) is not str:
        return False
    if _PLAIN.fullmatch(file):
        return True  # as nearly all are
    try:
        check_name(file)
    except InvalidNameError:
        return False
    return True


def _is_count(number: object) -> bool:
    return type(number) is int and 0 <= number < _LARGEST


def _is_time(number: object) -> bool:
    return type(number) in (int, float) and abs(number) < _LARGEST  # type: ignore[arg-type]
