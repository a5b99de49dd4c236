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
from lighter_async.names import check_name, check_names, with_suffix, with_suffixes

__all__ = ["Columns", "names_in", "record_lines", "records_in"]

_MOST_RANKS = 1_000_000_000  # whose manifests have names that are read


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
        numbered = NAMES if isinstance(names, list) else int(names == index)
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
        and (offsets is None or _is_whole(offsets, count))
        and (output.object is None or offsets is not None or count == 1)
        and (offsets is None or output.object is not None)
        and (offsets is None or _least(offsets, count) > 0)  # an object that holds several begins with a header
        and "/" not in (output.suffix or "")
    )
