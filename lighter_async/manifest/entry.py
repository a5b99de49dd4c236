"""What a manifest's lines are read as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lighter_async.manifest.line import Config, Loader, Output, Samples, as_span
from lighter_async.names import TABLES_FOLDER, with_suffix
from lighter_async.store import Place
from lighter_async.types import Durability

__all__ = ["Dropped", "Entry", "Loaders", "Record", "RunRecord", "Sealed", "place_of", "samples_of"]


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

    @property
    def is_in_array(self) -> bool:
        """Whether its file holds all samples of its series, so that it is known by its place there."""
        return self.offset > 0 and self.file == self.key

    @property
    def is_row(self) -> bool:
        """Whether it is a row of an array or a table, which a run that begins anew writes over, or removes."""
        return self.is_in_array or (self.file or "").startswith(TABLES_FOLDER)


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
        offset: Where it lies in the file, if it is known by its place; else 0.
    """

    name: str
    file: str | None
    time: float
    run: str = ""
    seen: tuple[int, ...] | None = None
    series: tuple[str, str] | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True, repr=False)
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
        options: Those of the writer, as far as JSON has them; but for the suffix.
        lost_options: The names of the others.
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
    options: Mapping[str, Any] | None = None
    lost_options: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = ("run", "writer", "key", "rank", "world_size", "resume", "sequence")
        return f"RunRecord({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

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


def samples_of(records: Sequence[Record], *others: Sequence[Record]) -> Samples:
    """A line of samples that are alike, but for their names, indices, sizes, checksums and offsets.

    Args:
        records: Those of their first outputs.
        others: Those of each other output, as many and in the same order.
    """
    first = records[0]
    outputs = [_output_of(records), *map(_output_of, others)]
    index = None if first.index is None else [one.index or 0 for one in records]
    names = [one.name for one in records]
    return Samples(len(records), names, outputs, index, first.rank, first.loader, first.batch, first.time, first.run)


def _output_of(records: Sequence[Record]) -> Output:
    first = records[0]
    suffix = None if first.file is None else first.file.removeprefix(first.name)
    is_usual = suffix is not None and with_suffix(first.name, suffix) == first.file and not first.offset
    is_part = first.file is not None and not is_usual and (first.offset > 0 or len(records) > 1)
    return Output(
        first.writer,
        first.key,
        suffix=suffix if is_usual else None,
        object=None if is_usual else first.file,
        offset=as_span([one.offset for one in records]) if is_part else None,
        bytes=None if first.file is None else [one.bytes or 0 for one in records],
        xxh3="".join([one.xxh3 or "" for one in records]),
        shape=None if first.shape is None else list(first.shape),
        dtype=first.dtype,
    )
