"""Samples that are alike, as columns: what they have in common is said once, and the rest takes a few bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lighter_async.manifest.entry import Record
from lighter_async.manifest.keys import key_of, keys_in_series, keys_of, keys_of_numbers, keys_of_places
from lighter_async.manifest.line import LARGEST, Output, Samples, Span
from lighter_async.names import TABLES_FOLDER, with_suffix
from lighter_async.store import Place

__all__ = ["NAMES", "Block", "Head"]

NAMES: Final = -1
"""`Head.numbered` of samples that have names of their own."""

_NONE = -LARGEST - 1  # a batch that is not known


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

    @property
    def is_array(self) -> bool:
        """Whether `object` holds the whole series, whose key is its name: each sample is known by its place."""
        return self.has_offsets and self.object == self.key

    @property
    def is_row(self) -> bool:
        """As `Record.is_row`."""
        return self.is_array or (self.object is not None and self.object.startswith(TABLES_FOLDER))


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
        """Which samples count still, since no later line has replaced or dropped them; None: all."""
        # One entry for each sample; empty where nothing is known
        self.names: list[str] = []
        self.numbers = Ints()
        self.indices = Ints()
        self.sizes: array[int] = array("q")
        self.offsets = Ints()
        self.xxh3 = bytearray()  # of eight bytes each
        # One entry for each line
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
        if head.numbered == NAMES:
            self.names += line.names  # type: ignore[arg-type]
        elif not head.numbered:
            self.numbers.extend(line.names, line.samples)  # type: ignore[arg-type]
        if head.has_index:
            assert line.index is not None
            self.indices.extend(line.index, line.samples)
        if isinstance(output.bytes, list):
            self.sizes.extend(output.bytes)
        if output.offset is not None:
            self.offsets.extend(output.offset, line.samples)
        self.xxh3 += bytes.fromhex(output.xxh3)
        self.starts.append(self.count)
        self.batches.append(_NONE if line.batch is None else line.batch)
        self.times.append(line.time)
        self.orders.append(order)
        self.line_sizes.append(output.bytes if isinstance(output.bytes, int) else 0)
        self.count += line.samples

    def add_singles(self, lines: Sequence[Samples], orders: Sequence[int]) -> None:
        """As `add`, of lines of one sample each, which have a name of its own and are one file."""
        outputs = [line.outputs[0] for line in lines]
        self.names += [line.names[0] for line in lines]  # type: ignore[index]
        if self.head.has_index:
            self.indices.extend([line.index[0] for line in lines], len(lines))  # type: ignore[index]
        self.xxh3 += bytes.fromhex("".join([output.xxh3 for output in outputs]))
        self.starts.extend(range(self.count, self.count + len(lines)))
        self.batches.extend([_NONE if line.batch is None else line.batch for line in lines])
        self.times.extend([line.time for line in lines])
        self.orders.extend(orders)
        self.line_sizes.extend([output.bytes for output in outputs])  # type: ignore[misc]
        self.count += len(lines)

    @property
    def is_known(self) -> bool:
        """Whether it is known where the samples lie, as of functions ``(path, value)`` it is not."""
        return self.head.suffix is not None or self.head.object is not None

    def name(self, row: int) -> str:
        """The name of a sample."""
        numbered = self.head.numbered
        if numbered == NAMES:
            return self.names[row]
        return str((self.indices if numbered else self.numbers).values[row])

    def names_at(self, rows: NDArray[np.int64]) -> list[str]:
        """The names of some samples."""
        numbers = self.number_column()
        if numbers is None:
            return [self.names[row] for row in rows.tolist()]
        return list(map(str, numbers[rows].tolist()))

    def file(self, row: int) -> str | None:
        """The object that a sample lies in."""
        head = self.head
        if head.suffix is None:
            return head.object
        return with_suffix(self.name(row), head.suffix)

    def _line(self, row: int) -> int:
        return bisect_right(self.starts, row) - 1

    def place(self, row: int) -> Place | None:
        """Where a sample lies; None of a function ``(path, value)``, of whose files nothing is recorded."""
        file = self.file(row)
        if file is None:
            return None
        head = self.head
        size = self.line_sizes[self._line(row)] if head.is_even else self.sizes[row]
        return Place(
            file, self.offsets.values[row] if head.has_offsets else 0, size, self.xxh3[8 * row : 8 * row + 8].hex()
        )

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
            self.offsets.values[row] if head.has_offsets else 0,
        )

    def rows(self) -> NDArray[np.int64]:
        """The samples that count, as row numbers."""
        return np.arange(self.count) if self.alive is None else np.flatnonzero(self.alive)

    def __len__(self) -> int:
        """The samples that count."""
        return self.count if self.alive is None else int(np.count_nonzero(self.alive))

    def column(self, of_lines: array[Any]) -> NDArray[Any]:
        """A column of lines as one of samples: each sample has its line's value."""
        values = np.frombuffer(of_lines, of_lines.typecode)
        return np.repeat(values, np.diff(np.append(np.frombuffer(self.starts, np.int64), self.count)))

    def index_column(self) -> NDArray[Any]:
        """The indices of the samples that count; empty where none is known."""
        if not self.head.has_index:
            return np.empty(0, np.int64)
        view = self.indices.view()
        return view if self.alive is None else view[self.alive]

    def offset_column(self) -> NDArray[Any]:
        """Where the samples that count begin in their object; empty where each is a file of its own."""
        view = self.offsets.view()
        return view if self.alive is None or not self.head.has_offsets else view[self.alive]

    def number_column(self) -> NDArray[Any] | None:
        """The numbers that all samples are named after; None if they have names of their own."""
        numbered = self.head.numbered
        return None if numbered == NAMES else (self.indices if numbered else self.numbers).view()

    def living_names(self) -> Iterable[str]:
        """The names of the samples that count."""
        if self.head.numbered == NAMES:
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

    def size_column(self) -> NDArray[Any]:
        """The sizes of all samples, also of those that no longer count."""
        return self.column(self.line_sizes) if self.head.is_even else np.frombuffer(self.sizes, np.int64)

    def sizes_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sizes of some samples."""
        if not self.head.is_even:
            return np.frombuffer(self.sizes, np.int64)[rows]
        lines = np.searchsorted(np.frombuffer(self.starts, np.int64), rows, side="right") - 1
        return np.frombuffer(self.line_sizes, np.int64)[lines]

    def sizes_of_living(self) -> int:
        """The bytes of the samples that count, together."""
        if not self.is_known:
            return 0
        sizes = self.size_column()
        return int(sizes.sum() if self.alive is None else sizes[self.alive].sum())

    def keys(self) -> NDArray[np.uint64]:
        """A number for each sample, also of those that no longer count. Of two with equal keys the later one counts."""
        head = self.head
        if head.object is not None and not head.has_offsets:
            return np.full(self.count, key_of(head.object), np.uint64)
        if head.is_array and head.object is not None:
            return keys_of_places(head.object, self.offsets.view())
        numbers = self.number_column()
        if head.suffix is None:  # an object with others, or no known file: samples are told apart by name and series
            return keys_in_series(self.names if numbers is None else numbers, self.series)
        if numbers is None:
            return keys_of(self.names, head.suffix)
        if head.suffix.startswith("."):
            return keys_of_numbers(numbers, head.suffix)
        return keys_of([with_suffix(str(number), head.suffix) for number in numbers.tolist()])

    def name_keys(self) -> NDArray[np.uint64]:
        """`key_of` the name of each sample, also of those that no longer count."""
        numbers = self.number_column()
        return keys_of(self.names) if numbers is None else keys_of_numbers(numbers, "")

    def file_keys(self) -> NDArray[np.uint64]:
        """The key of the file of each sample, also of those that no longer count."""
        if self.head.object is not None:
            return np.full(self.count, key_of(self.head.object), np.uint64)
        return self.keys() if self.is_known else np.empty(0, np.uint64)
