"""Which record a name, or an index in the data set, means: made once from a manifest, and looked at in O(1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

from lighter_async.manifest import Manifest, Record

__all__ = ["Index"]

_Column = tuple[object, ...]


class Index:
    """The records of one series, each name once, in the data set's order.

    What a program does not ask by costs nothing: the tables are made at the first look. Pickled, they are left out.

    Args:
        manifest: The manifest.
        records: Those of its records that count, of one series, in the data set's order.
    """

    def __init__(self, manifest: Manifest, records: Sequence[Record]) -> None:
        order = {run.run: number for number, run in enumerate(manifest.runs)}
        latest: dict[str, int] = {}
        for number, record in enumerate(records):
            # One name twice in a series has two files, since its suffix was changed: the later run's is meant.
            known = latest.get(record.name)
            if known is None or _age(records[known], order) <= _age(record, order):
                latest[record.name] = number
        is_plain = len(latest) == len(records)
        self._records = records if is_plain else [records[number] for number in sorted(latest.values())]
        self._shifted = _shifted_loaders(manifest, self._records)
        self._names: dict[str, int] | None = latest if is_plain else None
        self._indices: dict[tuple[int, int], int] | None = None

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> Record:
        return self._records[number]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __getstate__(self) -> tuple[_Column, dict[int, str]]:
        # By columns, in which equal texts and shapes are pickled once.
        known: dict[object, object] = {}
        columns = (
            tuple(
                known.setdefault(one, one) if isinstance(one, (str, tuple)) else one
                for one in map(attrgetter(name), self._records)
            )
            for name in Record.__slots__
        )
        return tuple(columns), self._shifted

    def __setstate__(self, state: tuple[_Column, dict[int, str]]) -> None:
        columns, self._shifted = state
        self._records = [Record(*fields) for fields in zip(*columns, strict=True)]
        self._names = self._indices = None

    def number(self, name: object) -> int | None:
        """The place of a name in the order; None if it is not there."""
        names = self._names
        if names is None:
            names = self._names = {record.name: number for number, record in enumerate(self._records)}
        return names.get(name)  # type: ignore[call-overload, no-any-return]

    def number_at(self, index: int, loader: int) -> int:
        """The place of an index in the data set of a loader.

        Raises:
            KeyError: It is not there, or what it means is not certain.
        """
        indices = self._indices
        if indices is None:
            indices = {}
            for number, one in enumerate(self._records):
                if one.index is not None and indices.setdefault((one.loader, one.index), number) != number:
                    first = self._records[indices[one.loader, one.index]].name
                    self._shifted.setdefault(
                        one.loader, f"index {one.index} of loader {one.loader} is both {first!r} and {one.name!r}"
                    )
            self._indices = indices
        if loader in self._shifted:
            raise KeyError(
                f"{self._shifted[loader]}: the data set has changed between runs, and with it what an index means; "
                "look samples up by their names"
            )
        found = indices.get((loader, index))
        if found is None:
            raise KeyError(self._why_no(index, loader))
        return found

    def _why_no(self, index: int, loader: int) -> str:
        assert self._indices is not None
        loaders = sorted({one for one, _ in self._indices})
        if not loaders:
            return (
                "no sample of these was stored with its index in the data set; origin=Origin(indices) tells it when "
                "they are handed over, and their names find them now"
            )
        if loader not in loaders:
            return (
                f"no sample of loader {loader} is stored, but of {', '.join(map(str, loaders))}; loader=NUMBER chooses"
            )
        there = [one for of, one in self._indices if of == loader]
        return (
            f"index {index} of loader {loader} is not stored; {len(there)} indices from {min(there)} to {max(there)} "
            "are, and pending(dataset, DIR) tells which are missing"
        )


def _age(record: Record, order: dict[str, int]) -> tuple[int, float]:
    return order.get(record.run, -1), record.time


def _shifted_loaders(manifest: Manifest, records: Sequence[Record]) -> dict[int, str]:
    """The loaders whose data set was another one in another run that counts, and so the meaning of its indices."""
    if not records:
        return {}
    series, runs = records[0].series, {record.run for record in records}
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
