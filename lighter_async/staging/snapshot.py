"""Copies of objects of any class: a pickle of what they are made of, with their tensors and arrays in the slot.

Whatever holds a tensor or an array (a dataclass, a dict of a class of its own, a `TensorDict`, a data frame), pickling
it comes by each of them, and leaves a place there that `persistent_id` gives it. So the pickle is the copy of all else.
"""

from __future__ import annotations

import functools
import gc
import io
import pickle
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lighter_async.twin import TwinUnpickler

__all__ = ["Snapshot", "size_of", "take_snapshot", "warn_of_shared"]

_MOST_LOOKED_AT = 10_000  # objects that a value refers to
_NOT_ITS_OWN = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, types.FrameType)
_warned: set[type] = set()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of an object.

    Attributes:
        data: The pickle.
        places: What its persistent ids, which are numbers, stand for.
    """

    data: bytes
    places: tuple[Any, ...]

    def restore(self, find: Callable[[Any], Any]) -> Any:
        """The object, with what `find` gives for each of its places."""
        unpickler = TwinUnpickler(io.BytesIO(self.data))
        places = self.places
        unpickler.persistent_load = lambda number: find(places[number])  # type: ignore[method-assign]
        value = unpickler.load()
        unpickler.finish()
        return value


def take_snapshot(value: Any, place: Callable[[Any], Any], *, by_value: bool) -> Snapshot | None:
    """Copy an object; None if it cannot be pickled, as what holds a lock, an open file or a generator cannot.

    Args:
        value: The object.
        place: Called with each object that it is made of: gives the place of a tensor or an array, and None for others.
        by_value: Whether the copy is for a process that has not got the classes of the user's script.
    """
    if not by_value:
        found = _dump(_Pickler, value, place)
        if found is not None:
            return found
    return _dump(_pickler_by_value(), value, place)


def _dump(kind: Any, value: Any, place: Callable[[Any], Any]) -> Snapshot | None:
    buffer = io.BytesIO()
    pickler = kind(buffer, 5)
    pickler.places = places = _Places(place)
    try:
        pickler.dump(value)
    except Exception:  # whatever an object's own pickling raises
        return None
    return Snapshot(buffer.getvalue(), tuple(places.found))


class _Places:
    """The places of a value's tensors and arrays, by their numbers."""

    __slots__ = ("_kept", "_numbers", "_place", "found")

    def __init__(self, place: Callable[[Any], Any]) -> None:
        self.found: list[Any] = []
        self._place = place
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no number of an object is used again

    def number(self, value: Any) -> int | None:
        number = self._numbers.get(id(value))
        if number is not None:
            return number
        where = self._place(value)
        if where is None:
            return None
        self._numbers[id(value)] = number = len(self.found)
        self._kept.append(value)
        self.found.append(where)
        return number


class _Pickler(pickle.Pickler):
    places: _Places

    def persistent_id(self, value: Any) -> int | None:
        return self.places.number(value)


@functools.cache
def _pickler_by_value() -> Any:
    import cloudpickle

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]
        places: _Places

        def persistent_id(self, value: Any) -> int | None:
            return self.places.number(value)

    return ByValue


def warn_of_shared(value: Any, is_data: Callable[[Any], bool]) -> None:
    """Warn once of a class whose objects cannot be copied, if tensors or arrays are found in one."""
    if type(value) in _warned:
        return
    if any(map(is_data, _parts(value))):
        _warned.add(type(value))
        warnings.warn(
            f"a value of type {type(value).__qualname__} holds tensors or arrays and cannot be copied, since it cannot "
            "be pickled; it is handed over as it is, and must not be changed any more",
            RuntimeWarning,
            stacklevel=2,
        )


def size_of(value: Any) -> int:
    """Bytes of memory that an object holds, about."""
    return sum(sys.getsizeof(part, 0) for part in _parts(value))


def _parts(value: Any) -> list[Any]:
    """The objects that one is made of, up to a bound."""
    found, seen = [value], {id(value)}
    for part in found:
        if len(found) > _MOST_LOOKED_AT:
            break
        for inner in gc.get_referents(part):
            if id(inner) not in seen and not isinstance(inner, _NOT_ITS_OWN):
                seen.add(id(inner))
                found.append(inner)
    return found
