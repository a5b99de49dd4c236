"""A batch in our own memory, and how a worker reads its samples."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lighter_async.plain_memory import Block, Rows
from lighter_async.staging.pickled_objects import load
from lighter_async.staging.places import Kept, Leaf, Loose, PickledObject, Text

if TYPE_CHECKING:
    from lighter_async.staging.accelerator import Ready
    from lighter_async.staging.slots import Slot

__all__ = ["Staged"]

_NOTHING = np.empty(0, np.uint8)


@dataclass(slots=True)
class Staged:
    """A batch in our own memory.

    Attributes:
        slot: The slot of its tensors and arrays; None if it has none.
        ready: A copy to wait for before the slot is read; None if it can be read at once.
        rows: As of `Plan`, and so are `values`, `kept` and `columns`.
        loose: The tensors and arrays that were cloned.
        plain: Whether its samples are tensors, arrays, texts and numbers, and no objects of a user's own.
        other_bytes: As of `Plan`: bytes that are in no slot.
    """

    slot: Slot | None
    ready: Ready | None
    rows: Leaf | None
    values: list[Any]
    loose: list[Any]
    kept: list[Any] = field(default_factory=list)
    plain: bool = False
    columns: Mapping[str, Leaf | list[Any]] = field(default_factory=dict)
    other_bytes: int = 0
    _kinds: dict[str | None, tuple[str, tuple[int, ...]]] = field(default_factory=dict, init=False)

    def value(self, index: int, key: str | None = None) -> Any:
        """Sample `index`, or one of its outputs.

        Tensors and arrays in it are views of the slot, valid until the batch is done. Arrays are read-only.
        """
        column = self._column(key)
        if column is not None:
            return column.row(self._memory(), index)
        return _restore(self._placed(index, key), self._find)

    def block(self, index: int, key: str | None = None) -> Block | None:
        """The same value as plain memory of the slot, valid as long as `value`; None if it is not one dense tensor."""
        if self.slot is None:
            return None
        column = self._column(key)
        if column is not None:
            return column.row_block(self.slot.memory, index)
        value = self._placed(index, key)
        return value.block(self.slot.memory) if isinstance(value, Leaf) else None

    def blocks(self, index: int, key: str | None = None) -> Any:
        """The same value with a `Block` in the place of each dense tensor, which may be without elements.

        Raises:
            LookupError: It holds tensors that are not dense, or objects of a user's own.
        """
        column = self._column(key)
        if column is not None:
            return self._find_block(column.place_of_row(index))
        return _restore(self._placed(index, key), self._find_block)

    def columns_between(self, start: int, stop: int) -> dict[str, Rows | list[Any]] | None:
        """As `rows_between`, of each column of dicts; of one that is no dense batch the texts and numbers.

        None if a column holds other values, or the samples are no columns.
        """
        found: dict[str, Rows | list[Any]] = {}
        for key, column in self.columns.items():
            if isinstance(column, Leaf):
                rows = None if self.slot is None else column.rows_between(self.slot.memory, start, stop)
                if rows is None:
                    return None
                found[key] = rows
                continue
            values = column[start:stop]
            if not _ATOMS.issuperset(map(type, values)):
                return None
            found[key] = values
        return found or None

    def rows_between(self, start: int, stop: int, key: str | None = None) -> Rows | None:
        """The values of some samples as plain memory of the slot; None if they are not the rows of one dense batch."""
        column = self._column(key)
        if self.slot is None or column is None:
            return None
        return column.rows_between(self.slot.memory, start, stop)

    def kind(
        self, index: int, key: str | None = None, of_dict: Callable[[Mapping[str, Any]], Any] | None = None
    ) -> tuple[str, tuple[int, ...]] | None:
        """The dtype and shape of the same value, if it is a tensor or an array in the slot.

        Args:
            index, key: As of `value`.
            of_dict: Says those of a dict, of which it gets the dtypes and shapes of tensors and arrays in their places.
        """
        found = self._kinds.get(key)
        if found is not None:
            return found
        column = self._column(key)
        if column is not None:
            found = self._kinds[key] = _dtype_text(column.dtype), column.shape[1:]
            return found
        value = self._placed(index, key)
        if of_dict is not None and type(value) is dict:
            return cast(
                "tuple[str, tuple[int, ...]] | None", of_dict({name: _kind(one) for name, one in value.items()})
            )
        return _kind(value) if isinstance(value, Leaf) else None

    def kinds(self, key: str | None = None) -> dict[tuple[str, tuple[int, ...]], int]:
        """The dtypes and shapes of the tensors that `block` gives, with the bytes of one of each."""
        rows = self._column(key)
        if rows is not None:
            kind = rows.dtype, rows.shape[1:]
            return {kind: rows.nbytes // rows.shape[0]} if rows.is_tensor and rows.nbytes else {}
        listed = None if key is None else self.columns.get(key)
        values = listed if isinstance(listed, list) else [self._placed(index, key) for index in range(len(self.values))]
        leaves = [value for value in values if isinstance(value, Leaf) and value.is_tensor and value.nbytes]
        return {(leaf.dtype, leaf.shape): leaf.nbytes for leaf in leaves}

    @property
    def is_rows(self) -> bool:
        """Whether all of it is one tensor or array with a sample per row, or one of each output."""
        return self.rows is not None or (bool(self.columns) and list not in map(type, self.columns.values()))

    def _column(self, key: str | None) -> Leaf | None:
        if key is None:
            return self.rows
        column = self.columns.get(key)
        return column if isinstance(column, Leaf) else None

    def _placed(self, index: int, key: str | None) -> Any:
        if not self.columns:
            value = self.values[index]
            return value if key is None else value[key]
        if key is not None:
            column = self.columns[key]
            return column.place_of_row(index) if isinstance(column, Leaf) else column[index]
        return {
            name: column.place_of_row(index) if isinstance(column, Leaf) else column[index]
            for name, column in self.columns.items()
        }

    def own_value(self, index: int) -> Any:
        """A copy of sample `index`, which the caller may keep and change."""
        if self.rows is not None:
            return _own(self.rows.row(self._memory(), index))
        return _restore(self._placed(index, None), self._find_own)

    def _find(self, place: Any) -> Any:
        if type(place) is Leaf:
            return place.view(self._memory())
        return self._found(place, self._find)

    def _find_own(self, place: Any) -> Any:
        if type(place) is Leaf:
            return _own(place.view(self._memory()))
        found = self._found(place, self._find_own)
        return _own(found) if type(place) is Loose else found

    def _find_block(self, place: Any) -> Any:
        if type(place) is Leaf and place.is_tensor:
            return Block(place.dtype, place.shape, place.bytes(self._memory()))
        if type(place) is Leaf:
            return place.view(self._memory())
        if type(place) is Text:
            return place.read(self._memory())
        raise LookupError("it is no dense tensor or array, nor a text or a number")

    def _found(self, place: Any, find: Callable[[Any], Any]) -> Any:
        if type(place) is Loose:
            return self.loose[place.index]
        if type(place) is Kept:
            return self.kept[place.index]
        if type(place) is Text:
            return place.read(self._memory())
        return load(place.data.bytes(self._memory()).data, lambda number: find(place.places[number]))

    def _memory(self) -> NDArray[np.uint8]:
        # Tensors and arrays without elements need no slot.
        return _NOTHING if self.slot is None else self.slot.memory


_ATOMS = frozenset({str, int, float, bool, type(None)})
_PLACES = frozenset({Leaf, Loose, Kept, Text, PickledObject})


def _restore(value: Any, find: Callable[[Any], Any]) -> Any:
    kind = type(value)
    if kind in _PLACES:
        return find(value)
    if kind is list or kind is tuple:
        return kind([_restore(item, find) for item in value])
    if kind is dict or kind is OrderedDict:
        return kind((key, _restore(item, find)) for key, item in value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return tuple.__new__(kind, [_restore(item, find) for item in value])
    return bytearray(value) if kind is bytearray else value


def _kind(place: Any) -> Any:
    return (_dtype_text(place.dtype), place.shape) if isinstance(place, Leaf) else place


def _dtype_text(dtype: Any) -> str:
    return dtype if isinstance(dtype, str) else str(dtype)


def _own(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value.clone()
