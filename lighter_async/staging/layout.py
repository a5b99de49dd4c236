"""Lay a batch out: find its tensors and arrays, without copying them yet.

Plain ones, also inside lists, tuples and dicts, get a place in the slot. Tensors that are not a plain block of memory
(sparse, quantised, subclasses) are cloned instead. Any other object is pickled into the slot, and the tensors and
arrays in it are staged by themselves (`pickled_objects.py`). An object that cannot be pickled is handed over as it is.
"""

from __future__ import annotations

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from lighter_async.staging.kinds import (
    has_attributes,
    is_bare,
    is_plain_array,
    is_plain_tensor,
    is_tensor,
    loose_bytes,
    text_bytes,
)
from lighter_async.staging.pickled_objects import dump, holds_tensors, load, size_of
from lighter_async.staging.places import Kept, Leaf, Loose, PickledObject
from lighter_async.staging.plan import LONG_TEXT, Foreign, NoData, Plan

__all__ = ["placed", "plan_batch", "plan_sample", "unbind"]

_WIDE = 1 << 64
_ATOMS = frozenset(
    {float, bool, complex, type(None), type(...), range, *(np.dtype(code).type for code in np.typecodes["All"])}
    - {np.void, np.object_, np.str_, np.bytes_}
)
_TEXTS = frozenset({str, bytes, bytearray, np.str_, np.bytes_})


def plan_sample(value: Any, *, shared: bool = False) -> Plan:
    """Plan for one sample.

    Args:
        value: The sample.
        shared: Whether other processes are to read it.

    Raises:
        ValueError: A tensor has no data.
    """
    plan = Plan(shared, count=1)
    plan.values.append(placed(value, plan))
    return plan


def plan_batch(values: Any, *, shared: bool = False) -> Plan:
    """Plan for a tensor or array with a batch dimension (one sample per row), or a sequence (one sample per item).

    Args:
        values: The samples.
        shared: Whether other processes are to read them.

    Raises:
        TypeError: It is neither.
        ValueError: A tensor has no data, or no batch dimension.
    """
    plan = Plan(shared)
    tensor = is_tensor(values)
    if tensor or isinstance(values, np.ndarray):
        if is_plain_tensor(values) if tensor else is_plain_array(values):
            rows = plan.place(values, is_tensor=tensor)
            if rows.shape and rows.shape[0] > 0:
                plan.count = rows.shape[0]
                plan.rows = rows
                return plan
            plan = Plan(shared)
        if values.ndim == 0:
            raise ValueError("a batch needs a batch dimension, got a 0-d tensor; use submit() for one sample")
        values = unbind(values)
    elif isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Sequence):
        raise TypeError(
            f"a batch is a tensor or array with a batch dimension, or a sequence of samples, not "
            f"{type(values).__name__}; use submit() for one sample, or list(...) for an iterable"
        )
    plan.values = [placed(value, plan) for value in values]
    plan.count = len(plan.values)
    return plan


def unbind(values: Any) -> list[Any]:
    """The rows of a batch that is not a plain block of memory."""
    try:
        return list(values.unbind()) if is_tensor(values) else list(values)
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"a batch of type {type(values).__name__}, dtype {values.dtype} and layout "
            f"{getattr(values, 'layout', None)} cannot be taken apart into samples; hand over a list of samples, or "
            "a dense tensor (values.to_dense(), values.dequantize())"
        ) from error


def placed(value: Any, plan: Plan) -> Any:
    """A sample with a place instead of each tensor, array and object, also inside containers."""
    if type(value) is str and len(value) < LONG_TEXT and value.isascii():  # most samples that are not tensors
        plan.other_bytes += len(value)
        return value
    place = _place_of(value, plan)
    if place is not None:
        return place
    mark = plan.begin()
    try:
        return _walk(value, plan, None)
    except (Foreign, RecursionError):
        plan.undo(mark)
    try:
        return _pickled_object(value, plan)
    except NoData:
        raise
    except Exception as error:
        plan.undo(mark)
        problem = error
    # Not as a whole, but maybe item by item.
    mark = plan.begin()
    try:
        return _walk(value, plan, problem)
    except (Foreign, RecursionError):
        plan.undo(mark)
        return _as_it_is(value, plan, problem)


def _place_of(value: Any, plan: Plan) -> Leaf | Loose | None:
    """The place of a tensor or an array; None if it has to be pickled, or is neither."""
    if is_tensor(value):
        if value.is_meta:
            raise NoData(
                f"a tensor of shape {tuple(value.shape)} is on the meta device and has no data to write; "
                "run the model on a real device"
            )
        if is_plain_tensor(value):
            return plan.place(value, is_tensor=True)
        return None if has_attributes(value) else plan.clone(value, loose_bytes(value))
    if isinstance(value, np.ndarray):
        if is_plain_array(value):
            return plan.place(value, is_tensor=False)
        # A class with a copy method of its own is copied by that method.
        copies_itself = isinstance(value, np.memmap) or type(value).copy is not np.ndarray.copy
        if value.dtype.hasobject or not (copies_itself or is_bare(value)):
            return None
        return plan.clone(value, int(value.nbytes))
    return None


def _walk(value: Any, plan: Plan, problem: Exception | None) -> Any:
    """`value` with a place instead of each tensor and array.

    Args:
        value: The value to walk through.
        plan: The plan that takes the places.
        problem: Why the whole value could not be pickled. If given, each foreign object is pickled by itself, or
            handed over as it is.

    Raises:
        Foreign: It holds a foreign object, or too many items.
    """
    place = _place_of(value, plan)
    if place is not None:
        plan.place_inside()
        return place
    kind = type(value)
    if kind in _TEXTS:
        return plan.text(value)
    if kind in _ATOMS or (kind is int and -_WIDE < value < _WIDE):
        return value
    if kind is list or kind is tuple:
        plan.walks(len(value))
        return kind([_walk(item, plan, problem) for item in value])
    if (kind is dict or kind is OrderedDict) and not getattr(value, "__dict__", None):
        plan.walks(2 * len(value))
        for key in value:
            if type(key) is str:
                plan.other_bytes += text_bytes(key) if len(key) > 64 else 0
            elif type(key) is not int and type(key) not in _ATOMS:
                _walk(key, plan, problem)
        return kind((key, _walk(item, plan, problem)) for key, item in value.items())
    if isinstance(value, tuple) and _is_named_tuple(kind) and not getattr(value, "__dict__", None):
        plan.walks(len(value))
        plan.has_classes = True
        return tuple.__new__(kind, [_walk(item, plan, problem) for item in value])
    if problem is None:
        raise Foreign
    mark = plan.begin()
    try:
        return _pickled_object(value, plan)
    except NoData:
        raise
    except Exception as error:
        plan.undo(mark)
        return _as_it_is(value, plan, error)


def _is_named_tuple(kind: type) -> bool:
    """Whether it is a named tuple's class without a `__new__` of a user's own, so that it takes any values."""
    return hasattr(kind, "_fields") and "_fields" in vars(
        next(base for base in kind.__mro__ if "__new__" in vars(base))
    )


def _pickled_object(value: Any, plan: Plan) -> PickledObject | Kept:
    """The pickle of a value, with places for its tensors and arrays.

    Raises:
        Exception: It cannot be pickled, or its pickle cannot be loaded.
    """
    places: list[Leaf | Loose | Kept] = []
    things: list[Any] = []

    def add(place: Leaf | Loose | Kept, thing: Any) -> int:
        places.append(place)
        things.append(thing)
        return len(places) - 1

    def take(thing: Any) -> int | None:
        place = _place_of(thing, plan)
        if place is None:
            return None
        plan.place_inside()
        return add(place, thing)

    classes = []

    def refer(thing: Any) -> int:
        if isinstance(thing, type):
            if thing not in _loadable:
                classes.append(thing)
            return add(plan.keep(thing), thing)
        if callable(thing) and not getattr(thing, "__closure__", None):
            return add(plan.keep(thing), thing)
        if holds_tensors(thing):
            _warn_of_kept(thing, None)
        return add(plan.keep(thing, size_of(thing)), thing)

    data = dump(value, take, refer)
    if len(places) == 1 and type(places[0]) is Kept and things[0] is value:
        return places[0]  # the whole value is referred to
    if classes:
        # Some pickles cannot be loaded, which would show only when the sample is written. So each class is tried once.
        load(data, things.__getitem__)
        _loadable.update(classes)
    return PickledObject(plan.place_bytes(data), tuple(places))


_loadable: weakref.WeakSet[type] = weakref.WeakSet()  # classes whose pickles are known to load
_warned: weakref.WeakSet[type] = weakref.WeakSet()


def _as_it_is(value: Any, plan: Plan, problem: Exception) -> Kept | Loose:
    # The elements of an array can be copied even if its attributes cannot.
    if is_tensor(value):
        return plan.clone(value, loose_bytes(value))
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return plan.clone(value, int(value.nbytes))
    _warn_of_kept(value, problem)
    return plan.keep(value, size_of(value))


def _warn_of_kept(value: Any, problem: Exception | None) -> None:
    kind = type(value)
    if kind not in _warned:
        _warned.add(kind)
        why = "" if problem is None else f" ({type(problem).__name__}: {str(problem)[:200]})"
        warnings.warn(
            f"a {kind.__module__}.{kind.__qualname__} cannot be copied by pickling it{why}, so it is handed over as "
            "it is: what it holds must not change until it is written; hand over its tensors in a dict, or give the "
            "class a __reduce__",
            UserWarning,
            stacklevel=2,
        )
