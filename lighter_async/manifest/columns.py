"""Samples as columns: what a manifest says of ten million of them fits where a million objects would.

Lines whose samples are alike (of one run, rank, series, loader, shape and so on) go into one block, which says so once.
"""

from __future__ import annotations

import math
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from lighter_async.errors import InvalidNameError
from lighter_async.manifest.entry import Record, samples_of
from lighter_async.manifest.line import LARGEST, Output, Samples, Span, encode, short_lines
from lighter_async.names import check_name, check_names, with_suffix, with_suffixes

__all__ = ["Block", "Columns", "key_in_series", "key_of", "keys_of", "names_in", "record_lines", "records_in"]

_NAMES: Final = -1  # of `Head.numbered`: samples have names of their own
_SEED = int.from_bytes(os.urandom(8), "little")  # so that nobody can choose a name whose key is that of another one
_MOST_RANKS = 1_000_000_000  # whose manifests have names that are read
_NONE = -LARGEST - 1  # a batch that is not known
_DIGITS = frozenset("0123456789")
_LONGEST_NUMBER = 19  # digits of a number that a key is made of


class Head(NamedTuple):
    """What the samples of a block have in common.

    Attributes:
        source: The number of the manifest that tells of them, in the order in which they are read.
        numbered: -1 if they have names of their own; 0 if these are numbers, and 1 if those are their indices.
        has_index: Whether their indices in the data set are known.
        has_offsets: Whether they lie in `object`, each at its offset.
        is_even: Whether all samples of each line have one size.

    The others are those of `Samples` and `Output`.
    """

    source: int
    run: str
    writer: str
    key: str
    rank: int
    loader: int
    dtype: str | None
    shape: tuple[int, ...] | None
    suffix: str | None
    object: str | None
    numbered: int
    has_index: bool
    has_offsets: bool
    is_even: bool


class Ints:
    """A column of whole numbers, of four bytes each while that is enough."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: array[int] = array("i")

    def extend(self, numbers: list[int] | Span, count: int) -> None:
        """Append numbers, `count` of them."""
        if isinstance(numbers, Span):
            last = numbers.start + numbers.step * (count - 1)
            self._fit(numbers.start, last)
            made = np.arange(count, dtype=np.int64) * numbers.step + numbers.start
            self.values.frombytes(made.astype(self.values.typecode, copy=False).tobytes())
        else:
            self._fit(min(numbers), max(numbers))
            self.values.extend(numbers)

    def _fit(self, *numbers: int) -> None:
        if self.values.typecode == "i" and not all(-(1 << 31) <= number < 1 << 31 for number in numbers):
            self.values = array("q", self.values)

    def view(self) -> NDArray[Any]:
        """The numbers, as they lie in memory."""
        return np.frombuffer(self.values, f"i{self.values.itemsize}")


class Block:
    """Samples that are alike, in the order in which they were recorded."""

    __slots__ = (
        "alive",
        "batches",
        "count",
        "head",
        "indices",
        "line_sizes",
        "names",
        "numbers",
        "offsets",
        "orders",
        "sizes",
        "starts",
        "times",
        "xxh3",
    )

    def __init__(self, head: Head) -> None:
        self.head = head
        self.count = 0
        self.alive: NDArray[np.bool_] | None = None
        """Which are still so, as later lines tell; None: all."""
        # One for each sample, where there are any
        self.names: list[str] = []
        self.numbers = Ints()
        self.indices = Ints()
        self.sizes: array[int] = array("q")
        self.offsets: array[int] = array("q")
        self.xxh3 = bytearray()  # of eight bytes each
        # One for each line
        self.starts: array[int] = array("q")
        self.batches: array[int] = array("q")
        self.times: array[float] = array("d")
        self.orders: array[int] = array("q")
        self.line_sizes: array[int] = array("q")

    @property
    def series(self) -> tuple[str, str]:
        """The writer and the key."""
        return self.head.writer, self.head.key

    def add(self, line: Samples, output: Output, order: int) -> None:
        """Append the samples of a line.

        Args:
            line: The line.
            output: Which of their parts.
            order: The line's number in its manifest.
        """
        head = self.head
        if head.numbered == _NAMES:
            self.names += line.names  # type: ignore[arg-type]
        elif not head.numbered:
            self.numbers.extend(line.names, line.samples)  # type: ignore[arg-type]
        if head.has_index:
            assert line.index is not None
            self.indices.extend(line.index, line.samples)
        if isinstance(output.bytes, list):
            self.sizes.extend(output.bytes)
        if output.offset is not None:
            self.offsets.extend(output.offset)
        self.xxh3 += bytes.fromhex(output.xxh3)
        self.starts.append(self.count)
        self.batches.append(_NONE if line.batch is None else line.batch)
        self.times.append(line.time)
        self.orders.append(order)
        self.line_sizes.append(output.bytes if isinstance(output.bytes, int) else 0)
        self.count += line.samples

    @property
    def is_known(self) -> bool:
        """Whether it is known where the samples lie, as of functions ``(path, value)`` it is not."""
        return self.head.suffix is not None or self.head.object is not None

    def name(self, row: int) -> str:
        """The name of a sample."""
        numbered = self.head.numbered
        if numbered == _NAMES:
            return self.names[row]
        return str((self.indices if numbered else self.numbers).values[row])

    def file(self, row: int) -> str | None:
        """The object that a sample lies in."""
        head = self.head
        if head.suffix is None:
            return head.object
        return with_suffix(self.name(row), head.suffix)

    def _line(self, row: int) -> int:
        return bisect_right(self.starts, row) - 1

    def record(self, row: int) -> Record:
        """All that is known of a sample."""
        head, line = self.head, self._line(row)
        file = self.file(row)
        batch = self.batches[line]
        return Record(
            self.name(row),
            file,
            None if file is None else self.line_sizes[line] if head.is_even else self.sizes[row],
            None if file is None else self.xxh3[8 * row : 8 * row + 8].hex(),
            self.indices.values[row] if head.has_index else None,
            head.shape,
            head.dtype,
            head.rank,
            head.loader,
            None if batch == _NONE else batch,
            self.times[line],
            head.run,
            head.writer,
            head.key,
            self.offsets[row] if head.has_offsets else 0,
        )

    def rows(self) -> NDArray[np.int64]:
        """The samples that count, as row numbers."""
        return np.arange(self.count) if self.alive is None else np.flatnonzero(self.alive)

    def __len__(self) -> int:
        """The samples that count."""
        return self.count if self.alive is None else int(np.count_nonzero(self.alive))

    def column(self, of_lines: array[Any]) -> NDArray[Any]:
        """What lines say, for each sample."""
        values = np.frombuffer(of_lines, of_lines.typecode)
        return np.repeat(values, np.diff(np.append(np.frombuffer(self.starts, np.int64), self.count)))

    def index_column(self) -> NDArray[Any]:
        """The indices of the samples that count; empty where none is known."""
        if not self.head.has_index:
            return np.empty(0, np.int64)
        view = self.indices.view()
        return view if self.alive is None else view[self.alive]

    def number_column(self) -> NDArray[Any] | None:
        """The numbers that all samples are named after; None if they have names of their own."""
        numbered = self.head.numbered
        return None if numbered == _NAMES else (self.indices if numbered else self.numbers).view()

    def living_names(self) -> Iterable[str]:
        """The names of the samples that count."""
        if self.head.numbered == _NAMES:
            return self.names if self.alive is None else (self.names[row] for row in self.rows().tolist())
        numbers = self.number_column()
        assert numbers is not None
        return map(str, (numbers if self.alive is None else numbers[self.alive]).tolist())

    def files(self) -> Iterator[str]:
        """The files of the samples that count."""
        suffix = self.head.suffix
        if suffix is not None:
            return (with_suffix(name, suffix) for name in self.living_names())
        return iter(() if self.head.object is None else [self.head.object])

    def sizes_of_living(self) -> int:
        """The bytes of the samples that count, together."""
        if not self.is_known:
            return 0
        sizes = self.column(self.line_sizes) if self.head.is_even else np.frombuffer(self.sizes, np.int64)
        return int(sizes.sum() if self.alive is None else sizes[self.alive].sum())

    def keys(self) -> NDArray[np.uint64]:
        """A number for each sample, dead or not; of two that have the same, the later takes the other's place."""
        head = self.head
        if head.object is not None and not head.has_offsets:
            return np.full(self.count, key_of(head.object), np.uint64)
        if head.suffix is None:  # in an object that holds others, or in none that is known: it goes by its series
            return np.fromiter(
                (key_in_series(self.name(row), self.series) for row in range(self.count)), np.uint64, self.count
            )
        numbers = self.number_column()
        if numbers is None:
            return np.fromiter(
                map(key_of, (with_suffix(name, head.suffix) for name in self.names)), np.uint64, self.count
            )
        if head.suffix.startswith("."):
            return _mixed(numbers, head.suffix)
        return keys_of([with_suffix(str(number), head.suffix) for number in numbers.tolist()])

    def name_keys(self) -> NDArray[np.uint64]:
        """`key_of` the name of each sample, dead or not."""
        numbers = self.number_column()
        return keys_of(self.names) if numbers is None else _mixed(numbers, "")

    def file_keys(self) -> NDArray[np.uint64]:
        """The key of the file of each sample, dead or not."""
        if self.head.object is not None:
            return np.full(self.count, key_of(self.head.object), np.uint64)
        return self.keys() if self.is_known else np.empty(0, np.uint64)


class Columns:
    """Takes lines in, each into its block.

    Attributes:
        blocks: What there is.
    """

    def __init__(self) -> None:
        self._blocks: dict[Head, Block] = {}

    @property
    def blocks(self) -> list[Block]:
        """The blocks, in the order in which they began."""
        return list(self._blocks.values())

    def add(self, line: Samples, source: int, order: int) -> bool:
        """Take a line in, unless it says what no writer says.

        Args:
            line: The line.
            source: The number of its manifest.
            order: Its number there.

        Returns:
            Whether it was taken.
        """
        names, index, count = line.names, line.index, line.samples
        if not (_is_whole(names, count) and (index is None or _is_whole(index, count)) and math.isfinite(line.time)):
            return False
        if line.rank >= _MOST_RANKS:
            return False
        if isinstance(names, Span) and min(names.start, names.start + names.step * (count - 1)) < 0:
            return False
        # A line says no more than it is long: where there are no checksums, names are listed.
        if isinstance(names, Span) and any(not output.xxh3 for output in line.outputs):
            return False
        if not all(_is_sound(output, names, count) for output in line.outputs):
            return False
        numbered = _NAMES if isinstance(names, list) else int(names == index)
        for output in line.outputs:
            head = Head(
                source,
                line.run,
                output.writer,
                output.key,
                line.rank,
                line.loader,
                output.dtype,
                None if output.shape is None else tuple(output.shape),
                output.suffix,
                output.object,
                numbered,
                index is not None,
                output.offset is not None,
                not isinstance(output.bytes, list),
            )
            block = self._blocks.get(head)
            if block is None:
                block = self._blocks[head] = Block(head)
            block.add(line, output, order)
        return True


def names_in(line: Samples) -> Iterable[str]:
    """The names of the samples of one line."""
    if not isinstance(line.names, Span):
        return line.names
    if not _is_whole(line.names, line.samples) or any(len(one.xxh3) != 16 * line.samples for one in line.outputs):
        return ()  # it says what no writer says
    step = line.names.step
    return map(str, (line.names.start + step * place for place in range(line.samples)))


def records_in(line: Samples | Record) -> list[Record]:
    """The records of one line; none if it says what no writer says."""
    if isinstance(line, Record):
        return [line]
    columns = Columns()
    columns.add(line, 0, 0)
    return [block.record(row) for block in columns.blocks for row in range(block.count)]


def record_lines(records: Sequence[Record]) -> Iterator[bytes]:
    """Records as lines: of those that are alike and stand together as one."""
    for _, alike in groupby(records, _likeness):
        yield from short_lines(list(alike), lambda some: encode(samples_of(some)))


def _likeness(record: Record) -> tuple[object, ...]:
    suffix = None if record.file is None else record.file.removeprefix(record.name)
    is_usual = suffix is not None and with_suffix(record.name, suffix) == record.file
    return (
        suffix if is_usual else record.file,
        is_usual,
        record.index is None,
        record.shape,
        record.dtype,
        record.rank,
        record.loader,
        record.batch,
        record.time,
        record.run,
        record.series,
    )


def _is_whole(numbers: list[Any] | Span, count: int) -> bool:
    if isinstance(numbers, Span):
        return abs(numbers.start + numbers.step * (count - 1)) <= LARGEST
    return len(numbers) == count


def _is_sound(output: Output, names: list[str] | Span, count: int) -> bool:
    """Whether a part lies below the directory, and is said of each sample, or of none."""
    sizes, offsets = output.bytes, output.offset
    if output.suffix is None and output.object is None:
        return sizes is None and output.xxh3 == "" and offsets is None
    if output.suffix is not None and output.object is not None:
        return False
    try:
        if len(output.xxh3) != 16 * count or len(bytes.fromhex(output.xxh3)) != 8 * count:
            return False
        if output.object is not None:
            check_name(output.object)
        elif isinstance(names, Span):
            check_name(f"0{output.suffix}")
        else:
            check_names(with_suffixes(names, output.suffix or ""))
    except (ValueError, InvalidNameError):
        return False
    return (
        sizes is not None
        and (isinstance(sizes, int) or len(sizes) == count)
        and (offsets is None or len(offsets) == count)
        and (output.object is None or offsets is not None or count == 1)
        and (offsets is None or output.object is not None)
        and (offsets is None or min(offsets, default=0) > 0)  # an object that holds several begins with a header
        and "/" not in (output.suffix or "")
    )


def key_of(file: str) -> int:
    """The key of a file, which another file has with odds of 3 in a million among ten million.

    The older of such two would count as not stored, and be computed again.
    """
    if file[:1] in _DIGITS:
        head, dot, tail = file.partition(".")
        is_number = head.isdecimal() and head.isascii() and len(head) <= _LONGEST_NUMBER
        if is_number and (head[0] != "0" or head == "0") and int(head) <= LARGEST:
            return int(_mixed(np.array([int(head)], np.int64), dot + tail)[0])
    return _hash(file)


def key_in_series(name: str, series: tuple[str, str]) -> int:
    """The key of a sample that lies in an object with others, or nobody knows where."""
    return _hash("\0".join((name, *series)))


def keys_of(files: Sequence[str]) -> NDArray[np.uint64]:
    """As `key_of`, of many."""
    return np.fromiter(map(key_of, files), np.uint64, len(files))


def _mixed(numbers: NDArray[Any], rest: str) -> NDArray[np.uint64]:
    """Keys of numbers with the same rest of the name: different ones for different numbers.

    The steps are those of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    """
    keys = numbers.astype(np.uint64)
    keys += np.uint64(_hash(rest))
    keys ^= keys >> np.uint64(30)
    keys *= np.uint64(0xBF58476D1CE4E5B9)
    keys ^= keys >> np.uint64(27)
    keys *= np.uint64(0x94D049BB133111EB)
    keys ^= keys >> np.uint64(31)
    return keys


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), _SEED)
