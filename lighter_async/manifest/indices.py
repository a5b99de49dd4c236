"""A set of indices in a data set that costs a byte for each item of the data set, not a hundred."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["IndexSet"]

_SPARSE = 64  # times as many bytes as indices are given to flags; sparser ones are kept as a set
_SMALL = 1 << 20


class IndexSet(Set[int]):
    """Whole numbers as an immutable set, compact where they are those of a data set.

    It equals any set of the same numbers, and has the operators and the named methods of `frozenset`.

    Args:
        numbers: The numbers, in any order, also twice.
    """

    __slots__ = ("_count", "_flags", "_others")

    def __init__(self, numbers: Iterable[int] | NDArray[np.int64] = ()) -> None:
        self._flags = bytearray()
        self._others: frozenset[int] = frozenset()
        self._count = 0
        if isinstance(numbers, IndexSet):
            self._flags, self._others, self._count = numbers._flags, numbers._others, numbers._count
            return
        array = numbers if isinstance(numbers, np.ndarray) else np.fromiter(numbers, np.int64)
        if array.size == 0:
            return
        most = int(array.max())
        if int(array.min()) >= 0 and most < _SMALL + _SPARSE * array.size:
            self._flags = bytearray(most + 1)
            view = np.frombuffer(self._flags, np.uint8)
            for start in range(0, array.size, _SMALL):  # in parts, since numpy makes larger numbers of them
                view[array[start : start + _SMALL]] = 1
            self._count = int(np.count_nonzero(view))
        else:
            self._others = frozenset(array.tolist())
            self._count = len(self._others)

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> Any:
        return frozenset(it)

    def __contains__(self, number: object) -> bool:
        try:
            place = index(number)  # type: ignore[arg-type]
        except TypeError:
            return False
        return bool(self._flags[place]) if 0 <= place < len(self._flags) else place in self._others

    def __iter__(self) -> Iterator[int]:
        yield from self._others
        view = np.frombuffer(self._flags, np.uint8)
        for start in range(0, len(view), _SMALL):
            yield from (np.flatnonzero(view[start : start + _SMALL]) + start).tolist()

    def __len__(self) -> int:
        return self._count

    def __and__(self, other: Any) -> Any:
        if isinstance(other, IndexSet) and not self._others and not other._others:
            found = IndexSet()
            least = min(len(self._flags), len(other._flags))
            found._flags = bytearray(
                np.frombuffer(self._flags, np.uint8)[:least] & np.frombuffer(other._flags, np.uint8)[:least]
            )
            found._count = int(np.count_nonzero(np.frombuffer(found._flags, np.uint8)))
            return found
        return super().__and__(other)

    __rand__ = __and__

    def __hash__(self) -> int:
        return int(self._hash())

    def __repr__(self) -> str:
        return f"IndexSet({sorted(self) if len(self) <= 20 else f'{len(self)} indices'})"

    def flags(self, count: int) -> NDArray[np.bool_]:
        """Which of the indices 0 to `count` - 1 are in the set; shape (count,), bool."""
        flags = np.zeros(count, np.bool_)
        known = np.frombuffer(self._flags, np.bool_)[:count]
        flags[: len(known)] = known
        for number in self._others:
            if 0 <= number < count:
                flags[number] = True
        return flags

    # As `frozenset` calls them

    def union(self, *others: Iterable[int]) -> frozenset[int]:
        """The numbers of this set and of the others."""
        return frozenset(self).union(*others)

    def intersection(self, *others: Iterable[int]) -> frozenset[int]:
        """The numbers that all have."""
        return frozenset(self).intersection(*others)

    def difference(self, *others: Iterable[int]) -> frozenset[int]:
        """The numbers that none of the others has."""
        return frozenset(self).difference(*others)

    def symmetric_difference(self, other: Iterable[int]) -> frozenset[int]:
        """The numbers that one of both has."""
        return frozenset(self).symmetric_difference(other)

    def issubset(self, other: Iterable[int]) -> bool:
        """Whether the other has all of these."""
        return frozenset(self).issubset(other)

    def issuperset(self, other: Iterable[int]) -> bool:
        """Whether these are all of the other's."""
        return all(number in self for number in other)
