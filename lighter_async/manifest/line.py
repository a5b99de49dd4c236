"""What lines of samples say, and how they are made.

Samples are recorded by the unit: a line says once what samples that were stored together share, and lists what each has
of its own. A line that is torn is lost by itself, since each one stands alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, repeat
from typing import Annotated, Any, TypeAlias, TypeVar, cast

import msgspec
import xxhash

from lighter_async.limits import MOST_OUTPUTS
from lighter_async.names import Numbers
from lighter_async.types import Origin, Run

__all__ = [
    "FORMAT",
    "LARGEST",
    "MOST_DIMENSIONS",
    "Config",
    "Kind",
    "Loader",
    "Output",
    "OutputName",
    "Samples",
    "Span",
    "Stored",
    "StoredPart",
    "StoredRows",
    "as_span",
    "checksum",
    "encode",
    "rows_lines",
    "sample_lines",
    "short_lines",
]

FORMAT = 2
"""Version of the lines; readers refuse later ones, and read version 1, which has a line for each sample."""

LARGEST = (1 << 63) - 1
"""The largest number that fits the columns of a table."""

Kind: TypeAlias = "tuple[str, tuple[int, ...]] | None"
"""A sample's dtype and shape, where it is a tensor or an array."""


Config: TypeAlias = Any
"""What a run was made with, in a user's words: anything that JSON has; None if nothing was said."""

_MOST_SAMPLES = 2048  # of a line
MOST_DIMENSIONS = 256  # of a shape that is recorded
_LONGEST = 1 << 19  # bytes of a line that we write, where it is of more than one sample; readers take twice as many

_Some = TypeVar("_Some", bound=Sequence[Any])

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
_Int: TypeAlias = Annotated[int, msgspec.Meta(ge=-LARGEST - 1, le=LARGEST)]
_Shape: TypeAlias = Annotated[list[_Count], msgspec.Meta(max_length=MOST_DIMENSIONS)]


class Span(msgspec.Struct, frozen=True, gc=False):
    """Whole numbers at equal distances, one for each sample of a line."""

    start: _Int
    step: _Int


class Output(msgspec.Struct, omit_defaults=True, gc=False):
    """One of the parts that the samples of a line have, such as a mask, and where it lies.

    Attributes:
        writer: The writer's name.
        key: What tells its series from others of the same writer.
        suffix: Each part is a file of its own: the sample's name with this suffix. None where `object` says where it
            lies, or of a function ``(path, value)``, of whose files nothing is known.
        object: The object that all parts of the line lie in, or the whole of which is the only one.
        offset: Where each begins in `object`, in bytes.
        bytes: The size of each, or that of all; None of a function.
        xxh3: The checksums, as `checksum` gives them, one behind the other; empty of a function.
        shape: Of the values, where they are tensors or arrays.
        dtype: Of their elements, without ``torch.``.
    """

    writer: str
    key: str
    suffix: str | None = None
    object: str | None = None
    offset: list[_Count] | Span | None = None
    bytes: _Count | list[_Count] | None = None
    xxh3: str = ""
    shape: _Shape | None = None
    dtype: str | None = None


class Samples(msgspec.Struct, gc=False):
    """A line of samples.

    Attributes:
        samples: How many.
        names: Their names, or the numbers that they are named after.
        outputs: Their parts, at least one.
        index: The index of each in the data set, where that is known.
        rank: The rank that has stored them.
        loader: The data loader that they are from.
        batch: The number of their batch in the loader, where that is known.
        time: When they were recorded, in seconds since the epoch.
        run: The run's id.
    """

    samples: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
    names: list[str] | Span
    outputs: Annotated[list[Output], msgspec.Meta(min_length=1, max_length=MOST_OUTPUTS)]
    index: list[_Int] | Span | None
    rank: _Count
    loader: _Count
    batch: _Int | None
    time: float
    run: str


@dataclass(frozen=True, slots=True)
class Loader:
    """The data set of one data loader.

    Attributes:
        length: Its length; None where it has none.
        fingerprint: A word that another data set hardly has, where one is known.
    """

    length: int | None
    fingerprint: str | None


@dataclass(frozen=True, slots=True)
class OutputName:
    """What a writer stores of each sample, or one of the outputs that it stores.

    Attributes:
        writer: The name of the writer, or of the output's.
        key: What tells it from others of the same writer.
        suffix: What follows a sample's name in the name of its file.
        options: The writer's other options, as JSON: an object. Empty without any.
        lost: The names of those that JSON does not have.
    """

    writer: str
    key: str = ""
    suffix: str = ""
    options: str = ""
    lost: tuple[str, ...] = ()


@dataclass(slots=True)
class Stored:
    """A sample that is stored: its index in its batch, and the file, bytes and checksum of its first output.

    The last three are None of a function ``(path, value)``, of whose files nothing is known.

    Attributes:
        others: The bytes and checksums of its other outputs.
        object: The object that all outputs lie in; None where each is a file of its own.
        offsets: Where each output begins in the object, in bytes.
    """

    index: int
    file: str | None
    nbytes: int | None
    xxh3: str | None
    others: Sequence[tuple[int, str]] = ()
    object: str | None = None
    offsets: Sequence[int] = ()


def checksum(parts: Sequence[memoryview]) -> str:
    """XXH3, of 64 bits, of the concatenated parts, in hexadecimal: https://xxhash.com."""
    if len(parts) == 1:
        return xxhash.xxh3_64_hexdigest(parts[0])
    state = xxhash.xxh3_64()
    for part in parts:
        state.update(part)
    return state.hexdigest()


def sample_lines(
    stored: Sequence[Stored],
    names: Sequence[str],
    kinds: Sequence[Kind],
    origin: Origin,
    *,
    run: Run,
    outputs: Sequence[OutputName],
    time: float,
    other_kinds: Sequence[Sequence[Kind]] = (),
) -> bytes:
    """The lines of samples of one batch, which are stored.

    Args:
        stored: The samples.
        names: Of the whole batch.
        kinds: For each of `stored`, that of its first output.
        origin: Of the batch.
        run: Which run, and which of its ranks.
        outputs: What is stored of each sample.
        time: Seconds since the epoch.
        other_kinds: For each of `stored`, those of its other outputs, where it has several.
    """
    about = origin, run, outputs, round(time, 3)
    if len(stored) == 1:  # of samples that are handed over one by one, this is a part of the time
        return _line(stored, names, (kinds[0], *(other_kinds[0] if other_kinds else ())), about)
    parts: list[bytes] = []
    for (kind, others, *_), group in groupby(zip(kinds, other_kinds or repeat(()), stored, strict=False), _likeness):
        some = [one for *_, one in group]
        parts += short_lines(some, partial(_line, names=names, kinds=(kind, *others), about=about))
    return b"".join(parts)


def _likeness(
    one: tuple[Kind, Sequence[Kind], Stored],
) -> tuple[Kind, Sequence[Kind], bool, str | None]:
    """What samples of one line have in common."""
    kind, others, stored = one
    return kind, others, stored.file is None, stored.object


_About: TypeAlias = "tuple[Origin, Run, Sequence[OutputName], float]"


def _line(some: Sequence[Stored], names: Sequence[str], kinds: Sequence[Kind], about: _About) -> bytes:
    """The line of samples that are alike."""
    origin, run, series, time = about
    first = some[0]
    indices = origin.indices
    positions = [one.index for one in some]
    index: list[int] | Span | None
    if len(some) == 1:
        (position,) = positions
        named: list[str] | Span = [names[position]]
        index = None if indices is None else [int(indices[position])]
    else:
        named = [names[position] for position in positions] if first.file is None else _names_of(names, positions)
        index = None if indices is None else _numbers_of(indices, positions)
    outputs = [_output(some, number, one, kinds[number]) for number, one in enumerate(series)]
    return encode(Samples(len(some), named, outputs, index, run.rank, origin.loader, origin.batch, time, run.id))


def _output(some: Sequence[Stored], number: int, series: OutputName, kind: Kind) -> Output:
    """What a line says of one of the outputs of its samples."""
    first = some[0]
    dtype, shape = _dtype_and_shape(kind)
    if first.file is None:
        return Output(series.writer, series.key, shape=shape, dtype=dtype)
    if number == 0:
        listed = [one.nbytes or 0 for one in some]
        xxh3 = "".join([one.xxh3 or "" for one in some])
    else:
        listed = [one.others[number - 1][0] for one in some]
        xxh3 = "".join([one.others[number - 1][1] for one in some])
    sizes = listed[0] if listed.count(listed[0]) == len(listed) else listed
    if first.object is None:
        return Output(series.writer, series.key, series.suffix, None, None, sizes, xxh3, shape, dtype)
    offset = as_span([one.offsets[number] for one in some])
    return Output(series.writer, series.key, None, first.object, offset, sizes, xxh3, shape, dtype)


def _dtype_and_shape(kind: Kind) -> tuple[str | None, list[int] | None]:
    """What a line says of a kind."""
    return (None, None) if kind is None or len(kind[1]) > MOST_DIMENSIONS else (kind[0], list(kind[1]))


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Samples that follow each other in a batch, of equal size.

    Attributes:
        start: The index of the first in its batch.
        object: The object in which they lie at equal distances; None where each part is a file of its own.
        stride: The bytes from one to the next in the object.
        parts: What of it differs between their outputs, one for each.
    """

    start: int
    object: str | None
    stride: int
    parts: Sequence[StoredPart]

    @property
    def sample_bytes(self) -> int:
        """The size of each sample, with all of its outputs."""
        return sum([part.nbytes for part in self.parts])

    def end(self, count: int) -> int:
        """Where so many samples end in the object."""
        last = self.stride * (count - 1)
        return max([max(part.offset, part.offset + last) + part.nbytes for part in self.parts])


@dataclass(frozen=True, slots=True)
class StoredPart:
    """One output of samples of equal size.

    Attributes:
        nbytes: The size of each.
        xxh3: The checksums, one behind the other.
        offset: Where that of the first sample begins in the object, if they lie in one, in bytes.
        kind: Of each.
    """

    nbytes: int
    xxh3: str
    offset: int
    kind: Kind


def rows_lines(
    stored: StoredRows, names: Sequence[str], origin: Origin, *, run: Run, outputs: Sequence[OutputName], time: float
) -> bytes:
    """The lines of samples of equal size.

    Args:
        stored: Where they lie.
        names: Theirs.
        origin: Of their batch.
        run: Which run, and which of its ranks.
        outputs: What is stored of each.
        time: Seconds since the epoch.
    """
    rounded = round(time, 3)

    def output(some: range, about: OutputName, part: StoredPart) -> Output:
        dtype, shape = _dtype_and_shape(part.kind)
        xxh3 = part.xxh3[_HEX * some.start : _HEX * some.stop]
        if stored.object is None:
            return Output(about.writer, about.key, about.suffix, None, None, part.nbytes, xxh3, shape, dtype)
        first = part.offset + stored.stride * some.start
        offsets = Span(first, stored.stride) if len(some) > 1 else [first]
        return Output(about.writer, about.key, None, stored.object, offsets, part.nbytes, xxh3, shape, dtype)

    def line(some: range) -> bytes:
        about = [output(some, one, part) for one, part in zip(outputs, stored.parts, strict=True)]
        few = names[some.start : some.stop]
        named = Span(few.range[0], few.range.step) if isinstance(few, Numbers) and len(few) > 1 else list(few)
        index: list[int] | Span | None = None
        if origin.indices is not None:
            indices = origin.indices[stored.start + some.start : stored.start + some.stop]
            if isinstance(indices, range) and len(indices) > 2:
                index = Span(indices[0], indices.step)
            else:
                index = as_span([int(one) for one in indices])
        return encode(Samples(len(some), named, about, index, run.rank, origin.loader, origin.batch, rounded, run.id))

    return b"".join(short_lines(range(len(names)), line))


_HEX = 16  # digits of a checksum


def short_lines(some: _Some, line: Callable[[_Some], bytes]) -> Iterator[bytes]:
    """The lines of some samples, as many as it takes for each to be short enough to be read.

    Args:
        some: The samples.
        line: Gives the line of some of them.
    """
    if len(some) <= _MOST_SAMPLES:
        text = line(some)
        if len(text) < _LONGEST or len(some) == 1:
            yield text
            return
    half = len(some) // 2
    yield from short_lines(cast(_Some, some[:half]), line)
    yield from short_lines(cast(_Some, some[half:]), line)


def _names_of(names: Sequence[str], positions: list[int]) -> list[str] | Span:
    if isinstance(names, Numbers):
        numbers = names.range
        step = positions[1] - positions[0] if len(positions) > 1 else 1
        if positions == list(range(positions[0], positions[0] + step * len(positions), step or 1)):
            return Span(numbers[positions[0]], numbers.step * step)
    return [names[position] for position in positions]


def _numbers_of(indices: Sequence[int], positions: list[int]) -> list[int] | Span:
    if type(indices) is range and positions and positions[-1] - positions[0] == len(positions) - 1 > 1:
        return Span(indices[positions[0]], indices.step)
    return as_span([int(indices[position]) for position in positions])


def as_span(numbers: list[int]) -> list[int] | Span:
    """Numbers as a span, if they lie at equal distances."""
    if len(numbers) > 2:
        start, step = numbers[0], numbers[1] - numbers[0]
        if step and numbers == list(range(start, start + step * len(numbers), step)):
            return Span(start, step)
    return numbers


def encode(about: Samples) -> bytes:
    """The text of a line of samples, with its end."""
    try:
        return _encode(about) + b"\n"
    except UnicodeEncodeError:  # names that are not of UTF-8, as Python has them
        return json.dumps(msgspec.to_builtins(about), separators=(",", ":")).encode() + b"\n"


_encode: Callable[[Samples], bytes] = msgspec.json.Encoder().encode
