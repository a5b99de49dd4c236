"""Which record a name, or an index in the data set, means: records stay columns, and are found by bisection."""

from __future__ import annotations

from collections.abc import Iterator
from operator import index as as_int
from typing import Any

import numpy as np

from lighter_async.manifest import Manifest, Record
from lighter_async.manifest.block import NAMES, Block
from lighter_async.manifest.records import Records

__all__ = ["Index"]


class Index:
    """The records of one series, each name once, in the data set's order.

    A `Record` is made when it is asked for. Where names and indices stand is worked out at the first look, and is left
    out when this is pickled.

    Args:
        manifest: The manifest.
        records: Those of its records that count, of one series.
    """

    def __init__(self, manifest: Manifest, records: Records) -> None:
        if not _are_names_distinct(records):
            records = records.leave_out(_replaced(records, {run.run: n for n, run in enumerate(manifest.runs)}))
        self._records = records
        self._count = len(records)
        self._shifted = _shifted_loaders(manifest, records)
        self._checked: set[int] = set()  # loaders of which it is known whether one index has two names

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Record:
        return self._records[as_int(number)]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    @property
    def blocks(self) -> list[Block]:
        """The records, as columns."""
        return self._records.blocks

    def names(self) -> Iterator[str]:
        """The names, in the order."""
        return self._records.ordered_names()

    def columns(self) -> dict[str, list[Any]]:
        """The fields of `Record`, each as a list in the order."""
        return self._records.columns()

    def number(self, name: str) -> int | None:
        """The place of a name in the order; None if it is not there."""
        return self._records.number(name)

    def number_at(self, index: int, loader: int) -> int:
        """The place of an index in the data set of a loader.

        Raises:
            KeyError: It is not there, or what it means is not certain.
        """
        is_known = loader in self._loaders()
        if is_known and loader not in self._checked:
            clash = self._records.first_clash(loader)
            if clash is not None:
                first, one = clash
                self._shifted.setdefault(
                    loader, f"index {one.index} of loader {one.loader} is both {first.name!r} and {one.name!r}"
                )
            self._checked.add(loader)
        if loader in self._shifted:
            raise KeyError(
                f"{self._shifted[loader]}: the data set has changed between runs, and with it what an index means; "
                "look samples up by their names"
            )
        found = self._records.numbers_at(index, loader) if is_known else ()
        if not found:
            raise KeyError(self._why_no(index, loader))
        return found[0]

    def _loaders(self) -> set[int]:
        """The loaders of which indices are known."""
        return {block.head.loader for block in self._records.blocks if block.head.has_index}

    def _why_no(self, index: int, loader: int) -> str:
        loaders = sorted(self._loaders())
        if not loaders:
            return (
                "no sample of these was stored with its index in the data set; origin=Origin(indices) tells it when "
                "they are handed over, and their names find them now"
            )
        if loader not in loaders:
            return (
                f"no sample of loader {loader} is stored, but of {', '.join(map(str, loaders))}; loader=NUMBER chooses"
            )
        there = self._records.indices(loader)
        return (
            f"index {index} of loader {loader} is not stored; {len(there)} indices from {there.min()} to {there.max()} "
            "are, and pending(dataset, DIR) tells which are missing"
        )


def _are_names_distinct(records: Records) -> bool:
    """Whether each name is there once for certain, since the record of a file replaces earlier ones of that file."""
    heads = [block.head for block in records.blocks]
    if any(head.is_array for head in heads):  # where places are distinct
        return all(head.numbered != NAMES for head in heads) or len({head.run for head in heads}) == 1
    if all(head.suffix is None for head in heads):
        return all(head.object is None or head.has_offsets for head in heads)
    return len({head.suffix for head in heads}) == 1


def _replaced(records: Records, order: dict[str, int]) -> list[int]:
    """The places of records whose samples later runs have stored under another suffix, as another file.

    Args:
        records: The records.
        order: The runs' places in their order.
    """
    keys, numbers = records.by_name
    is_same = keys[1:] == keys[:-1]
    is_doubled = np.append(is_same, False) | np.append(False, is_same)
    replaced: list[int] = []
    latest: dict[str, tuple[tuple[int, float], int]] = {}
    key = None
    for place in np.flatnonzero(is_doubled):
        if keys[place] != key:
            key, latest = keys[place], {}
        number = int(numbers[place])
        record = records[number]
        age = order.get(record.run, -1), record.time
        known = latest.get(record.name)
        if known is None or known[0] <= age:
            latest[record.name] = age, number
        if known is not None:
            replaced.append(number if known[0] > age else known[1])
    return replaced


def _shifted_loaders(manifest: Manifest, records: Records) -> dict[int, str]:
    """The loaders whose data set changed between runs that count, so that an index may mean two items; and how."""
    if not records.blocks:
        return {}
    series, runs = records.blocks[0].series, {block.head.run for block in records.blocks}
    told: dict[int, tuple[int | None, str | None]] = {}
    found: dict[int, str] = {}
    for line in manifest.loaders:
        if line.series != series or line.run not in runs:
            continue
        for number, loader in enumerate(line.loaders):
            length, fingerprint = told.get(number, (None, None))
            if None not in (length, loader.length) and length != loader.length:
                found[number] = f"loader {number} went over {length} samples in one run and {loader.length} in another"
            elif None not in (fingerprint, loader.fingerprint) and fingerprint != loader.fingerprint:
                found[number] = f"loader {number} went over two different data sets"
            told[number] = loader.length or length, loader.fingerprint or fingerprint
    return found
