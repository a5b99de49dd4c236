"""Samples as columns: what a manifest says of ten million of them fits where a million objects would.

Lines whose samples are alike (of one run, rank, series, loader, shape and so on) go into one block, which says so once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from lighter_async.errors import InvalidNameError
from lighter_async.manifest.block import NAMES, Block, Head
from lighter_async.manifest.entry import Record, samples_of
from lighter_async.manifest.line import LARGEST, Output, Samples, Span, encode, short_lines
from lighter_async.names import check_name, check_names, check_object, with_suffix, with_suffixes

__all__ = ["Columns", "names_in", "record_lines", "records_in", "whole_sample_lines"]

_TOGETHER = 1024  # lines of one sample each
_MOST_RANKS = 1_000_000_000  # whose manifests have names that are read


class Columns:
    """Takes lines in, each into its block. Lines of one sample each wait for others that are alike.

    Attributes:
        refused: Lines that said what no writer says, and were not taken.
    """

    def __init__(self) -> None:
        self.refused = 0
        self._blocks: dict[Head, Block] = {}
        self._singles: dict[tuple[object, ...], tuple[list[Samples], list[int]]] = {}
        self._waiting = 0

    @property
    def blocks(self) -> list[Block]:
        """The blocks, in the order in which they began."""
        self._take_singles()
        return list(self._blocks.values())

    def add(self, line: Samples, source: int, order: int) -> None:
        """Take a line in, unless it says what no writer says.

        Args:
            line: The line.
            source: The number of its manifest.
            order: Its number there.
        """
        if line.samples > 1 or not _is_usual_single(line):
            self._take_singles()
            self.refused += not self._take(line, source, order)
            return
        output = line.outputs[0]
        likeness = (
            source,
            line.run,
            output.writer,
            output.key,
            line.rank,
            line.loader,
            output.dtype,
            None if output.shape is None else tuple(output.shape),
            output.suffix,
            line.index is None,
        )
        alike = self._singles.get(likeness)
        if alike is None:
            alike = self._singles[likeness] = [], []
        alike[0].append(line)
        alike[1].append(order)
        self._waiting += 1
        if self._waiting >= _TOGETHER:
            self._take_singles()

    def _take_singles(self) -> None:
        """Take lines in that wait. Alike ones go together, unless one of them is unsound: then each by itself."""
        singles, self._singles, self._waiting = self._singles, {}, 0
        for (source, *_), (lines, orders) in singles.items():
            assert isinstance(source, int)
            if len(lines) > 1 and _are_sound_singles(lines):
                self._block(lines[0], lines[0].outputs[0], source).add_singles(lines, orders)
                continue
            for line, order in zip(lines, orders, strict=True):
                self.refused += not self._take(line, source, order)

    def _take(self, line: Samples, source: int, order: int) -> bool:
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
        for output in line.outputs:
            self._block(line, output, source).add(line, output, order)
        return True

    def _block(self, line: Samples, output: Output, source: int) -> Block:
        """The block of the samples of a line."""
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
            NAMES if isinstance(line.names, list) else int(line.names == line.index),
            line.index is not None,
            output.offset is not None,
            not isinstance(output.bytes, list),
        )
        block = self._blocks.get(head)
        if block is None:
            block = self._blocks[head] = Block(head)
        return block


def _is_usual_single(line: Samples) -> bool:
    """Whether a line is of one sample that is one file, and says of it what it takes, though perhaps not soundly."""
    outputs, names, index = line.outputs, line.names, line.index
    if len(outputs) > 1 or type(names) is not list or len(names) != 1:
        return False
    output = outputs[0]
    return (
        (index is None or (type(index) is list and len(index) == 1))
        and output.suffix is not None
        and output.object is None
        and output.offset is None
        and type(output.bytes) is int
    )


def _are_sound_singles(lines: Sequence[Samples]) -> bool:
    """Whether `Columns._take` would take each of some usual lines, which are alike."""
    first = lines[0].outputs[0]
    checksums = [line.outputs[0].xxh3 for line in lines]
    # Each has its length, so that no checksum is taken for a part of the next one.
    if lines[0].rank >= _MOST_RANKS or set(map(len, checksums)) != {16}:
        return False
    names: list[str] = [line.names[0] for line in lines]  # type: ignore[index]
    together = Output(first.writer, first.key, suffix=first.suffix, bytes=0, xxh3="".join(checksums))
    return all(math.isfinite(line.time) for line in lines) and _is_sound(together, names, len(lines))


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


def whole_sample_lines(samples: Sequence[Sequence[Record]]) -> Iterator[bytes]:
    """As `record_lines`, with all outputs of a sample in one line, so that a torn line says nothing of any of them.

    Args:
        samples: The records of each one's outputs, which have index, loader, batch, time, rank and run in common.
    """
    for _, alike in groupby(samples, lambda sample: [_likeness(one) for one in sample]):
        yield from short_lines(list(alike), lambda some: encode(samples_of(*zip(*some, strict=True))))


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


def _least(numbers: list[int] | Span, count: int) -> int:
    if isinstance(numbers, Span):
        return min(numbers.start, numbers.start + numbers.step * (count - 1))
    return min(numbers, default=0)


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
            check_object(output.object)
        elif isinstance(names, Span):
            check_name(f"0{output.suffix}")
        else:
            check_names(with_suffixes(names, output.suffix or ""))
    except (ValueError, InvalidNameError):
        return False
    return (
        sizes is not None
        and (isinstance(sizes, int) or len(sizes) == count)
        and (offsets is None or _is_whole(offsets, count))
        and (output.object is None or offsets is not None or count == 1)
        and (offsets is None or output.object is not None)
        and (offsets is None or _least(offsets, count) > 0)  # an object that holds several begins with a header
        and "/" not in (output.suffix or "")
    )
