"""Which rows of an array are recorded, over all ranks and workers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from lighter_async.manifest import Manifest, read_manifest
from lighter_async.manifest.block import Block
from lighter_async.manifest.reader import manifest_files
from lighter_async.targets.array.part import Layout

__all__ = ["EarlierRows", "Recorded"]


@dataclass(eq=False)
class Recorded:
    """Reads the records of one array.

    Attributes:
        root: The directory that the array lies in.
        name: The array's file name, which is the key of its series.
    """

    root: str
    name: str

    def state(self) -> tuple[tuple[str, int], ...]:
        """Something that changes when anything is recorded."""
        return tuple((os.fspath(path), os.stat(path).st_size) for path in manifest_files(self.root))

    def rows(self, layout: Layout) -> NDArray[np.int64]:
        """The rows that are recorded and count, in no order."""
        return _rows(_counted(self.name, read_manifest(self.root)), layout)

    def has_any(self) -> bool:
        """Whether a row is recorded that counts."""
        return bool(_counted(self.name, read_manifest(self.root)))

    def other_runs(self, run: str) -> set[str]:
        """The ids of the runs that have recorded rows, but for one."""
        blocks = _of_array(self.name, read_manifest(self.root).records.blocks)
        return {block.head.run for block in blocks} - {run}


@dataclass(eq=False)
class EarlierRows:
    """The rows that earlier runs have recorded and that count, which are read when they are first asked for.

    Attributes:
        root: The directory that the array lies in.
        name: The array's file name.
        run: The id of the run that stores now.
    """

    root: str
    name: str
    run: str

    def __post_init__(self) -> None:
        self._lock = Lock()

    def has(self, row: int, layout: Layout) -> bool:
        """Whether an earlier run has stored a row."""
        with self._lock:
            places = self._places
        offset = layout.offset(row)
        place = int(np.searchsorted(places, offset))
        return place < len(places) and int(places[place]) == offset

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        blocks = _counted(self.name, read_manifest(self.root))
        found = [block.offset_column() for block in blocks if block.head.run != self.run]
        return np.sort(np.concatenate([*found, np.empty(0, np.int64)]).astype(np.int64))


def _counted(name: str, manifest: Manifest) -> list[Block]:
    counted = manifest.counted(key=name).values()
    return _of_array(name, [block for records in counted for block in records.blocks])


def _of_array(name: str, blocks: list[Block]) -> list[Block]:
    return [block for block in blocks if block.head.is_array and block.head.object == name]


def _rows(blocks: list[Block], layout: Layout) -> NDArray[np.int64]:
    offsets = np.concatenate([*(block.offset_column() for block in blocks), np.empty(0, np.int64)]).astype(np.int64)
    rows = (offsets - layout.begin) // layout.row_bytes
    found: NDArray[np.int64] = rows[rows * layout.row_bytes == offsets - layout.begin]
    return found
