"""How a batch lies in a slot, and how a worker finds one sample of it.

`plan_batch` and `plan_sample` look at values without copying a tensor or an array. Plain ones, also inside lists,
tuples and dicts, get a place in the slot. Tensors that are no plain block of memory (sparse, quantised, subclasses) are
cloned instead. Any other object is pickled into the slot, with the tensors and arrays in it staged by themselves
(`snapshot.py`); what cannot be pickled is handed over as it is.
"""

from __future__ import annotations

import functools
import math
import sys
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lighter_async.block import Block
from lighter_async.staging.places import Kept, Leaf, Loose, Snapshot, Text
from lighter_async.staging.snapshot import dump, holds_tensors, load, size_of

if TYPE_CHECKING:
    import torch

    from lighter_async.staging.accelerator import Ready
    from lighter_async.staging.memory import Slot

__all__ = ["Leaf", "Plan", "Staged", "is_tensor", "plan_batch", "plan_sample"]

_ALIGNMENT = 64  # of every leaf; a cache line, and more than any dtype's itemsize
_NOTHING = np.empty(0, np.uint8)
_QUANTISED = frozenset({"qint8", "quint8", "qint32", "quint4x2", "quint2x4"})
_MOST_WALKED = 1000  # items of a value; what has more is pickled, which takes less time and memory
_LONG_TEXT = 4096  # bytes from which on a text that helpers are given lies in the slot
_WIDE = 1 << 64
_ATOMS = frozenset(
    {float, bool, complex, type(None), type(...), range, *(np.dtype(code).type for code in np.typecodes["All"])}
    - {np.void, np.object_, np.str_, np.bytes_}
)
_TEXTS = frozenset({str, bytes, bytearray, np.str_, np.bytes_})


@dataclass(slots=True)
class Plan:
    """What staging a batch will take.

    Attributes:
        shared: Whether other processes are to read it: then long texts lie in the slot, too.
        count: Samples in the batch.
        nbytes: Bytes of slot that it takes.
        other_bytes: Bytes that it keeps outside the slot, such as texts.
        rows: Set where the whole batch is one tensor or array, with a sample per row.
        values: Set otherwise: a sample each, with a place for every tensor and array, or for the whole.
        sources: What is to be copied where.
        loose: What is to be cloned instead.
        kept: What is referred to or handed over as it is, such as the classes of objects.
        has_classes: Whether a value is of a named tuple's class.
    """

    shared: bool = False
    count: int = 0
    nbytes: int = 0
    other_bytes: int = 0
    rows: Leaf | None = None
    values: list[Any] = field(default_factory=list)
    sources: list[tuple[Leaf, Any]] = field(default_factory=list)
    loose: list[Any] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    has_classes: bool = False
    _kept_at: dict[int, int] = field(default_factory=dict)
    _walked: int = 0

    def place(self, array: Any, *, is_tensor: bool) -> Leaf:
        shape = tuple(array.shape)
        if is_tensor:
            dtype, itemsize = _dtype_of(array.dtype)
            nbytes = math.prod(shape) * itemsize
        else:
            dtype, nbytes = array.dtype, array.nbytes
        leaf = Leaf(dtype, shape, self.nbytes, nbytes, is_tensor)
        self.sources.append((leaf, array))
        self.nbytes += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        return leaf

    def place_bytes(self, data: Any) -> Leaf:
        return self.place(np.frombuffer(data, np.uint8), is_tensor=False)

    def clone(self, value: Any, nbytes: int) -> Loose:
        self.loose.append(value)
        self.other_bytes += nbytes * (2 if self.shared else 1)  # once more in what helpers are given
        return Loose(len(self.loose) - 1)

    def keep(self, thing: Any, nbytes: int = 0) -> Kept:
        number = self._kept_at.setdefault(id(thing), len(self.kept))
        if number == len(self.kept):
            self.kept.append(thing)
            self.other_bytes += nbytes * (2 if self.shared else 1)
        return Kept(number)

    def text(self, value: Any) -> Any:
        """A text or bytes, by value or by its place."""
        kind = type(value)
        nbytes = _text_bytes(value)
        if self.shared and nbytes >= _LONG_TEXT and kind in (str, bytes, bytearray):
            return Text(self.place_bytes(value.encode("utf-8", "surrogatepass") if kind is str else value), kind)
        self.other_bytes += nbytes
        return bytearray(value) if kind is bytearray else value

    def walks(self, items: int) -> None:
        """Count items of the value that is under way.

        Raises:
            _Foreign: There are too many to be walked through.
        """
        self._walked += items
        if self._walked > _MOST_WALKED:
            raise _Foreign

    def begin(self) -> tuple[int, int, int, int]:
        """Begin with a value; returns what `undo` needs."""
        self._walked = 0
        return self.nbytes, self.other_bytes, len(self.sources), len(self.loose)

    def undo(self, mark: tuple[int, int, int, int]) -> None:
        """Forget what was placed since. What is kept stays, for it may have been kept before."""
        self.nbytes, self.other_bytes, sources, loose = mark
        del self.sources[sources:], self.loose[loose:]


class _Foreign(Exception):
    """A value is no tensor, array, text or number, nor a plain container of them."""


class _NoData(ValueError):
    """A tensor has no data to write."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A batch in memory of our own.

    Attributes:
        slot: Where its tensors and arrays lie; None where it has none.
        ready: What to wait for before the slot is read; None if it can be read at once.
        plain: Whether its samples are tensors, arrays, texts and numbers, and nothing of a user's own.
    """

    slot: Slot | None
    ready: Ready | None
    rows: Leaf | None
    values: list[Any]
    loose: list[Any]
    kept: list[Any] = field(default_factory=list)
    plain: bool = False
    _row_kind: tuple[str, tuple[int, ...]] | None = field(default=None, init=False)

    def value(self, index: int) -> Any:
        """Sample `index`. Its tensors and arrays are views of the slot, valid until the batch is done.

        Arrays are read-only.
        """
        if self.rows is not None:
            return self.rows.row(self._memory(), index)
        return _restore(self.values[index], self._find)

    def block(self, index: int) -> Block | None:
        """Sample `index` as plain memory of the slot, valid as `value`; None if it is not one dense tensor."""
        if self.slot is None:
            return None
        if self.rows is not None:
            return self.rows.row_block(self.slot.memory, index)
        value = self.values[index]
        return value.block(self.slot.memory) if isinstance(value, Leaf) else None

    def kind(self, index: int) -> tuple[str, tuple[int, ...]] | None:
        """The dtype and shape of sample `index`, if it is a tensor or an array in the slot."""
        if self.rows is not None:
            if self._row_kind is None:
                object.__setattr__(self, "_row_kind", (_dtype_text(self.rows.dtype), self.rows.shape[1:]))
            return self._row_kind
        value = self.values[index]
        return (_dtype_text(value.dtype), value.shape) if isinstance(value, Leaf) else None

    def kinds(self) -> dict[tuple[str, tuple[int, ...]], int]:
        """The dtypes and shapes for which `block` gives something, and the bytes of one of each."""
        if self.rows is not None:
            rows = self.rows
            kind = rows.dtype, rows.shape[1:]
            return {kind: rows.nbytes // rows.shape[0]} if rows.is_tensor and rows.nbytes else {}
        leaves = [value for value in self.values if isinstance(value, Leaf) and value.is_tensor and value.nbytes]
        return {(leaf.dtype, leaf.shape): leaf.nbytes for leaf in leaves}

    def own_value(self, index: int) -> Any:
        """Sample `index` with tensors and arrays of its own, which may be kept and changed."""
        if self.rows is not None:
            return _own(self.rows.row(self._memory(), index))
        return _restore(self.values[index], self._find_own)

    def _find(self, place: Any) -> Any:
        if type(place) is Leaf:
            return place.view(self._memory())
        return self._found(place, self._find)

    def _find_own(self, place: Any) -> Any:
        if type(place) is Leaf:
            return _own(place.view(self._memory()))
        found = self._found(place, self._find_own)
        return _own(found) if type(place) is Loose else found

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


_PLACES = frozenset({Leaf, Loose, Kept, Text, Snapshot})


def plan_sample(value: Any, *, shared: bool = False) -> Plan:
    """Plan for one sample.

    Args:
        value: The sample.
        shared: Whether other processes are to read it.

    Raises:
        ValueError: A tensor has no data.
    """
    plan = Plan(shared, count=1)
    plan.values.append(_placed(value, plan))
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
        if _is_plain_tensor(values) if tensor else _is_plain_array(values):
            rows = plan.place(values, is_tensor=tensor)
            if rows.shape and rows.shape[0] > 0:
                plan.count = rows.shape[0]
                plan.rows = rows
                return plan
            plan = Plan(shared)
        if values.ndim == 0:
            raise ValueError("a batch needs a batch dimension, got a 0-d tensor; use submit() for one sample")
        values = _unbind(values)
    elif isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Sequence):
        raise TypeError(
            f"a batch is a tensor or array with a batch dimension, or a sequence of samples, not "
            f"{type(values).__name__}; use submit() for one sample, or list(...) for an iterable"
        )
    plan.values = [_placed(value, plan) for value in values]
    plan.count = len(plan.values)
    return plan


def _unbind(values: Any) -> list[Any]:
    """The rows of a batch that is no plain block of memory."""
    try:
        return list(values.unbind()) if is_tensor(values) else list(values)
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"a batch of type {type(values).__name__}, dtype {values.dtype} and layout "
            f"{getattr(values, 'layout', None)} cannot be taken apart into samples; hand over a list of samples, or "
            "a dense tensor (values.to_dense(), values.dequantize())"
        ) from error


def _placed(value: Any, plan: Plan) -> Any:
    """A sample, or its place, or its containers with a place instead of each tensor, array and object."""
    if type(value) is str and len(value) < _LONG_TEXT and value.isascii():  # as most samples that are no tensors are
        plan.other_bytes += len(value)
        return value
    place = _place_of(value, plan)
    if place is not None:
        return place
    mark = plan.begin()
    try:
        return _walk(value, plan, None)
    except (_Foreign, RecursionError):
        plan.undo(mark)
    try:
        return _snapshot(value, plan)
    except _NoData:
        raise
    except Exception as error:
        plan.undo(mark)
        problem = error
    # Not as a whole; but what it holds may be copied one by one.
    mark = plan.begin()
    try:
        return _walk(value, plan, problem)
    except (_Foreign, RecursionError):
        plan.undo(mark)
        return _as_it_is(value, plan, problem)


def _place_of(value: Any, plan: Plan) -> Leaf | Loose | None:
    """The place of a tensor or an array, unless it has to be taken apart."""
    if is_tensor(value):
        if value.is_meta:
            raise _NoData(
                f"a tensor of shape {tuple(value.shape)} is on the meta device and has no data to write; "
                "run the model on a real device"
            )
        if _is_plain_tensor(value):
            return plan.place(value, is_tensor=True)
        return None if _has_attributes(value) else plan.clone(value, _loose_bytes(value))
    if isinstance(value, np.ndarray):
        if _is_plain_array(value):
            return plan.place(value, is_tensor=False)
        # A class that says itself how its arrays are copied is taken at its word.
        copies_itself = isinstance(value, np.memmap) or type(value).copy is not np.ndarray.copy
        if value.dtype.hasobject or not (copies_itself or _is_bare(value)):
            return None
        return plan.clone(value, int(value.nbytes))
    return None


def _walk(value: Any, plan: Plan, problem: Exception | None) -> Any:
    """`value` with a place instead of each tensor and array.

    Args:
        value: What is walked through.
        plan: Where it is placed.
        problem: Why the whole could not be pickled: then what is foreign is pickled by itself, or handed over as it is.

    Raises:
        _Foreign: It holds anything else, or a great many things.
    """
    place = _place_of(value, plan)
    if place is not None:
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
                plan.other_bytes += _text_bytes(key) if len(key) > 64 else 0
            elif type(key) is not int and type(key) not in _ATOMS:
                _walk(key, plan, problem)
        return kind((key, _walk(item, plan, problem)) for key, item in value.items())
    if isinstance(value, tuple) and _is_named(kind) and not getattr(value, "__dict__", None):
        plan.walks(len(value))
        plan.has_classes = True
        return tuple.__new__(kind, [_walk(item, plan, problem) for item in value])
    if problem is None:
        raise _Foreign
    mark = plan.begin()
    try:
        return _snapshot(value, plan)
    except _NoData:
        raise
    except Exception as error:
        plan.undo(mark)
        return _as_it_is(value, plan, error)


def _is_named(kind: type) -> bool:
    """Whether it is a named tuple's class, which may be made of anything: none with a `__new__` of a user's own."""
    return hasattr(kind, "_fields") and "_fields" in vars(
        next(base for base in kind.__mro__ if "__new__" in vars(base))
    )


def _snapshot(value: Any, plan: Plan) -> Snapshot | Kept:
    """The pickle of a value, with its tensors and arrays in places.

    Raises:
        Exception: It cannot be pickled, or not be made again.
    """
    places: list[Leaf | Loose | Kept] = []
    things: list[Any] = []

    def add(place: Leaf | Loose | Kept, thing: Any) -> int:
        places.append(place)
        things.append(thing)
        return len(places) - 1

    def take(thing: Any) -> int | None:
        place = _place_of(thing, plan)
        return None if place is None else add(place, thing)

    classes = []

    def refer(thing: Any) -> int:
        if isinstance(thing, type):
            if thing not in _proven:
                classes.append(thing)
            return add(plan.keep(thing), thing)
        if callable(thing) and not getattr(thing, "__closure__", None):
            return add(plan.keep(thing), thing)
        if holds_tensors(thing):
            _say_kept(thing, None)
        return add(plan.keep(thing, size_of(thing)), thing)

    data = dump(value, take, refer)
    if len(places) == 1 and type(places[0]) is Kept and things[0] is value:
        return places[0]  # it was referred to as a whole
    if classes:
        # Some pickles cannot be loaded, which shows only where a sample is written; so once for each class it is tried.
        load(data, things.__getitem__)
        _proven.update(classes)
    return Snapshot(plan.place_bytes(data), tuple(places))


_proven: weakref.WeakSet[type] = weakref.WeakSet()
_said: weakref.WeakSet[type] = weakref.WeakSet()


def _as_it_is(value: Any, plan: Plan, problem: Exception) -> Kept | Loose:
    # Of an array with attributes that cannot be copied its elements can be.
    if is_tensor(value):
        return plan.clone(value, _loose_bytes(value))
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return plan.clone(value, int(value.nbytes))
    _say_kept(value, problem)
    return plan.keep(value, size_of(value))


def _say_kept(value: Any, problem: Exception | None) -> None:
    kind = type(value)
    if kind not in _said:
        _said.add(kind)
        why = "" if problem is None else f" ({type(problem).__name__}: {str(problem)[:200]})"
        warnings.warn(
            f"a {kind.__module__}.{kind.__qualname__} cannot be copied by pickling it{why}, so it is handed over as "
            "it is: what it holds must not change until it is written; hand over its tensors in a dict, or give the "
            "class a __reduce__",
            UserWarning,
            stacklevel=2,
        )


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


def _dtype_text(dtype: Any) -> str:
    return dtype if isinstance(dtype, str) else str(dtype)


def _text_bytes(value: Any) -> int:
    if isinstance(value, str) and not value.isascii():
        return sys.getsizeof(value) - sys.getsizeof("")
    return len(value)


def _own(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value.clone()


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor of PyTorch's."""
    # Who has a tensor has imported torch; who writes only texts need not. While another thread imports it, it is there
    # without what is in it, and so there is no tensor yet.
    kind = getattr(sys.modules.get("torch"), "Tensor", None)
    return kind is not None and isinstance(value, kind)


def _is_plain_tensor(tensor: torch.Tensor) -> bool:
    torch = sys.modules["torch"]
    return (
        (type(tensor) is torch.Tensor or type(tensor) is torch.nn.Parameter)
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and _dtype_of(tensor.dtype)[0] not in _QUANTISED
        and tensor.device.type != "meta"
    )


@functools.cache
def _dtype_of(dtype: torch.dtype) -> tuple[str, int]:
    """torch's name for it, and the bytes of an element."""
    return str(dtype).removeprefix("torch."), dtype.itemsize


def _is_plain_array(array: NDArray[Any]) -> bool:
    return type(array) is np.ndarray and not array.dtype.hasobject


def _is_bare(array: NDArray[Any]) -> bool:
    """Whether a copy of it is all of it: its class adds no attributes and no pickling of its own."""
    kind: Any = type(array)
    return not getattr(array, "__dict__", None) and kind.__reduce__ is np.ndarray.__reduce__


def _has_attributes(tensor: torch.Tensor) -> bool:
    """Whether it is a dense tensor of a class of a user's own with attributes, which a clone would lose."""
    torch = sys.modules["torch"]
    kind = type(tensor)
    return (
        kind is not torch.Tensor
        and kind is not torch.nn.Parameter
        and kind.__torch_dispatch__ is torch.Tensor.__torch_dispatch__
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and bool(tensor.__dict__)
    )


def _loose_bytes(tensor: torch.Tensor) -> int:
    import torch

    if tensor.layout is torch.sparse_coo:
        return int(tensor._values().nbytes + tensor._indices().nbytes)
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return int(tensor.values().nbytes + tensor.crow_indices().nbytes + tensor.col_indices().nbytes)
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return int(tensor.values().nbytes + tensor.ccol_indices().nbytes + tensor.row_indices().nbytes)
    if tensor.is_nested:
        return int(tensor.values().nbytes)
    return int(tensor.numel() * tensor.element_size())
