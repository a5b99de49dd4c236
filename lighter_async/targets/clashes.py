"""Different samples that several ranks of one run have stored under one name, by the records of all of them.

A file's name shows that another rank has taken it; a member of another rank's shard, or a row, does not. So the rank
that closes last looks, once, instead of every rank reading what all the others record.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import NameTakenError
from lighter_async.locks import held_by
from lighter_async.manifest import Record
from lighter_async.manifest.block import Block
from lighter_async.manifest.columns import Columns
from lighter_async.manifest.line import Samples
from lighter_async.manifest.parsing import encoded_text, parse
from lighter_async.manifest.reader import lines_in, manifest_files
from lighter_async.names import RESERVED_PREFIX
from lighter_async.types import Run

__all__ = ["check_ranks", "clashes_of", "is_last_of"]

_SHOWN = 5  # samples that an error names


def check_ranks(run: Run, root: str, where: str) -> None:
    """Look, if this is the last rank of a run to close, whether two have stored different samples under one name.

    Args:
        run: The run.
        root: The directory.
        where: What the samples lie in, for the message.

    Raises:
        NameTakenError: They have.
    """
    if run.world_size == 1 or not is_last_of(run, root):
        return
    clashes = list(islice(clashes_of(run, root), _SHOWN))
    if clashes:
        told = "; ".join(f"{one.name!r:.100}, by {_who(one)} and {_who(other)}" for one, other in clashes)
        raise NameTakenError(
            f"ranks of this run have stored different samples under one name in {root!r}: {told}; all of them are "
            f"in their {where}, and the one recorded last counts. Give them different names"
        )


def _who(record: Record) -> str:
    index = "unknown" if record.index is None else f"{record.index} of loader {record.loader}"
    return f"rank {record.rank} (index {index})"


def is_last_of(run: Run, root: str) -> bool:
    """Whether no rank of a run is at work in a directory any more, as far as this machine knows."""
    return run.id not in held_by(os.path.join(root, RESERVED_PREFIX))


def clashes_of(run: Run, root: str) -> Iterator[tuple[Record, Record]]:
    """The records of two samples that have one name, from different ranks, and are not the same sample.

    Args:
        run: The run.
        root: The directory.
    """
    columns, text = Columns(), encoded_text(run.id)
    for source, path in enumerate(manifest_files(root)):
        for order, line in enumerate(lines_in(path)):
            entry = parse(line) if text in line else None
            if isinstance(entry, Samples) and entry.run == run.id:
                columns.add(entry, source, order)
    of_series: dict[tuple[str, str], list[Block]] = {}
    for block in columns.blocks:
        of_series.setdefault((block.head.writer, block.head.key), []).append(block)
    for blocks in of_series.values():
        yield from _clashes_in(blocks)


def _clashes_in(blocks: list[Block]) -> Iterator[tuple[Record, Record]]:
    keys = np.concatenate([block.name_keys() for block in blocks])
    order = np.argsort(keys, kind="stable")
    ranks = _column(blocks, [block.head.rank for block in blocks])[order]
    loaders = _column(blocks, [block.head.loader for block in blocks])[order]
    known = _column(blocks, [int(block.head.has_index) for block in blocks])[order]
    indices = np.concatenate(
        [block.indices.view() if block.head.has_index else np.zeros(block.count, np.int64) for block in blocks]
    )[order]
    keys = keys[order]
    is_same = (loaders[1:] == loaders[:-1]) & (indices[1:] == indices[:-1]) & (known[1:] & known[:-1]).astype(np.bool_)
    places = np.flatnonzero((keys[1:] == keys[:-1]) & (ranks[1:] != ranks[:-1]) & ~is_same)
    starts = np.cumsum([0, *(block.count for block in blocks)])
    for place in places.tolist():
        first, second = (_record(blocks, starts, int(order[one])) for one in (place, place + 1))
        if first.name == second.name:
            yield first, second


def _column(blocks: list[Block], values: list[int]) -> NDArray[np.int64]:
    return np.repeat(np.array(values, np.int64), [block.count for block in blocks])


def _record(blocks: list[Block], starts: NDArray[np.int64], row: int) -> Record:
    number = int(np.searchsorted(starts, row, side="right")) - 1
    return blocks[number].record(row - int(starts[number]))
