"""What is stored of the samples: how many of each output, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from lighter_async.manifest.block import Block
from lighter_async.names import TABLES_FOLDER

__all__ = ["Lies", "OutputFacts", "lies_in", "outputs_in"]

Lies: TypeAlias = Literal["files", "shards", "array", "table", "objects", "unknown"]
"""Where the samples of an output lie: each in a file of its own, several in a file, or nobody knows where."""


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """One output, in one place.

    Attributes:
        writer: The writer's name.
        key: What tells it from others of the same writer.
        suffix: What the names of its files end in, or those of its members of a shard; empty where they have no names.
        lies: Where it lies.
        count: How many of it are stored.
        objects: How many files hold them.
        bytes: Of all.
        least: The size of the smallest, in bytes.
        middle: The median.
        most: The size of the largest.
        sizes: How many have a size of at least 2 ** n bytes, and less than twice that: n and the count, in order. Empty
            ones are counted at -1.
        kinds: Their dtypes and shapes, the most frequent first, as text; and how many are left out.
    """

    writer: str
    key: str
    suffix: str
    lies: Lies
    count: int
    objects: int
    bytes: int
    least: int
    middle: int
    most: int
    sizes: list[tuple[int, int]]
    kinds: tuple[list[str], int]


_MOST_KINDS = 5
_LONGEST_KIND = 100  # characters


def lies_in(block: Block) -> Lies:
    """Where the samples of a block lie."""
    head = block.head
    if not block.is_known:
        return "unknown"
    if head.object is None:
        return "files"
    if head.is_array:
        return "array"
    if head.object.startswith(TABLES_FOLDER):
        return "table"
    if head.has_offsets and head.object.endswith(".tar"):
        return "shards"
    return "objects"


def outputs_in(blocks: Sequence[Block], suffixes: dict[tuple[str, tuple[str, str]], str]) -> list[OutputFacts]:
    """The outputs, the largest first.

    Args:
        blocks: The samples.
        suffixes: Those that each series of each run has announced, for samples whose place does not tell theirs.
    """
    groups: dict[tuple[str, str, str, Lies], list[Block]] = {}
    for block in blocks:
        head, lies = block.head, lies_in(block)
        suffix = head.suffix
        if suffix is None:
            suffix = suffixes.get((head.run, block.series), "") if lies in ("shards", "objects") else ""
        groups.setdefault((head.writer, head.key, suffix, lies), []).append(block)
    found = [_output(*about, some) for about, some in groups.items()]
    return sorted(found, key=lambda one: (-one.bytes, -one.count, one.writer, one.key))


def _output(writer: str, key: str, suffix: str, lies: Lies, blocks: Sequence[Block]) -> OutputFacts:
    count = sum(map(len, blocks))
    kinds: dict[str, int] = {}
    for block in blocks:
        head = block.head
        shape = " x ".join(map(str, head.shape or ())) or "scalar"
        kind = "" if head.dtype is None else f"{head.dtype} {shape}"[:_LONGEST_KIND]
        kinds[kind] = kinds.get(kind, 0) + len(block)
    kinds.pop("", None)
    frequent = sorted(kinds, key=lambda kind: -kinds[kind])
    shown = (frequent[:_MOST_KINDS], max(0, len(frequent) - _MOST_KINDS))
    if lies == "unknown":
        return OutputFacts(writer, key, suffix, lies, count, 0, 0, 0, 0, 0, [], shown)
    sizes = np.concatenate([block.size_column()[block.rows()] for block in blocks])
    # The exponent of a float is exact here: frexp gives 0.5 <= fraction < 1.
    exponents, counts = np.unique(np.frexp(sizes.astype(np.float64))[1] - 1, return_counts=True)
    return OutputFacts(
        writer,
        key,
        suffix,
        lies,
        count,
        count if lies == "files" else len({block.head.object for block in blocks}),
        int(sizes.sum()),
        int(sizes.min()),
        int(np.median(sizes)),
        int(sizes.max()),
        list(zip(exponents.tolist(), counts.tolist(), strict=True)),
        shown,
    )
