"""How a batch lies in a slot, and how a worker finds one sample of it.

`plan_batch` and `plan_sample` look at values. Plain tensors and numpy arrays, whatever holds them, get a place in the
slot. Tensors that are no plain block of memory (sparse, quantised, subclasses) are cloned instead. Strings and numbers
cannot change any more; lists, tuples and dicts are made anew, and of any other object a `Snapshot` is taken. What
cannot be pickled is handed over as it is, and must be left alone by the caller.
"""

from __future__ import annotations

import functools
import math
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lighter_async.block import Block
from lighter_async.staging.snapshot import Snapshot, size_of, take_snapshot, warn_of_shared

if TYPE_CHECKING:
    import torch

    from lighter_async.staging.accelerator import Ready
    from lighter_async.staging.memory import Slot

__all__ = ["Leaf", "Plan", "Staged", "is_tensor", "plan_batch", "plan_sample"]

_ALIGNMENT = 64  # of every leaf; a cache line, and more than any dtype's itemsize
_NOTHING = np.empty(0, np.uint8)
_QUANTISED = frozenset({"qint8", "quint8", "qint32", "quint4x2", "quint2x4"})


@dataclass(frozen=True, slots=True)
class Leaf:
    """Where one tensor or array lies in a slot, in bytes, C-contiguous.

    Of a tensor, `dtype` is torch's name without ``torch.``, so that who does not look at it needs no torch.
    """

    dtype: Any
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    is_tensor: bool

    def view(self, memory: NDArray[np.uint8]) -> Any:
        """The tensor or array on the slot's memory. Its storage is its own bytes, so saving it saves just those."""
        return _view(memory[self.offset : self.offset + self.nbytes], self.dtype, self.shape, self.is_tensor)

    def row(self, memory: NDArray[np.uint8], index: int) -> Any:
        """Row `index` of the tensor or array, likewise."""
        return _view(self._row(memory, index), self.dtype, self.shape[1:], self.is_tensor)

    def block(self, memory: NDArray[np.uint8]) -> Block | None:
        """The tensor as plain memory; None if it has no elements, or is an array."""
        return self._block(memory[self.offset : self.offset + self.nbytes], self.shape)

    def row_block(self, memory: NDArray[np.uint8], index: int) -> Block | None:
        """Row `index` of the tensor, likewise."""
        return self._block(self._row(memory, index), self.shape[1:])

    def _row(self, memory: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        size = self.nbytes // self.shape[0]
        start = self.offset + index * size
        return memory[start : start + size]

    def _block(self, memory: NDArray[np.uint8], shape: tuple[int, ...]) -> Block | None:
        if not self.is_tensor or not memory.size:
            return None
        return Block(self.dtype, shape, memory)


@dataclass(frozen=True, slots=True)
class Loose:
    """A tensor that lies outside the slot, by its place in `Plan.loose`."""

    index: int


@dataclass(slots=True)
class Plan:
    """What staging a batch will take.

    Attributes:
        count: Samples in the batch.
        nbytes: Bytes of slot that it takes.
        other_bytes: Bytes that it keeps outside the slot, such as texts.
        rows: Set where the whole batch is one tensor or array, with a sample per row.
        values: Set otherwise: a sample each, with a `Leaf` or `Loose` for every tensor and array.
        sources: What is to be copied where.
        loose: What is to be cloned instead.
        by_value: Whether it is for a process that has not got the classes of the user's script.
    """

    count: int = 0
    nbytes: int = 0
    other_bytes: int = 0
    rows: Leaf | None = None
    values: list[Any] = field(default_factory=list)
    sources: list[tuple[Leaf, Any]] = field(default_factory=list)
    loose: list[Any] = field(default_factory=list)
    by_value: bool = False

    def add(self, value: Any) -> Leaf | Loose | None:
        """A place for a tensor or an array; None for anything else."""
        if is_tensor(value):
            if value.is_meta:
                raise ValueError(
                    f"a tensor of shape {tuple(value.shape)} is on the meta device and has no data to write; "
                    "run the model on a real device"
                )
            if _is_plain_tensor(value):
                return self.place(value, is_tensor=True)
            self.other_bytes += _loose_bytes(value)
        elif not isinstance(value, np.ndarray) or value.dtype.hasobject:
            return None
        elif _is_plain_array(value):
            return self.place(value, is_tensor=False)
        else:
            self.other_bytes += int(value.nbytes)
        self.loose.append(value)
        return Loose(len(self.loose) - 1)

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


@dataclass(frozen=True, slots=True)
class Staged:
    """A batch in memory of our own.

    Attributes:
        slot: Where its tensors and arrays lie; None where it has none.
        ready: What to wait for before the slot is read; None if it can be read at once.
    """

    slot: Slot | None
    ready: Ready | None
    rows: Leaf | None
    values: list[Any]
    loose: list[Any]
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

    @property
    def plain(self) -> bool:
        """Whether its samples are tensors, arrays, texts and numbers, and nothing of a user's own."""
        return not self.loose and all(type(value) in _PLAIN for value in self.values)

    def own_value(self, index: int) -> Any:
        """Sample `index` with tensors and arrays of its own, which may be kept and changed."""
        if self.rows is not None:
            return _own(self.rows.row(self._memory(), index))
        return _restore(self.values[index], lambda place: _own(self._find(place)))

    def _find(self, place: Leaf | Loose) -> Any:
        if isinstance(place, Loose):
            return self.loose[place.index]
        return place.view(self._memory())

    def _memory(self) -> NDArray[np.uint8]:
        # Tensors and arrays without elements need no slot.
        return _NOTHING if self.slot is None else self.slot.memory


_ATOMS = frozenset({int, float, bool, complex, type(None)})
_PLAIN = frozenset({Leaf, Snapshot, str, bytes, *_ATOMS})
_AS_IT_IS = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
_BYTES_PER_NUMBER = 32


def plan_sample(value: Any, *, by_value: bool = False) -> Plan:
    """Plan for one sample; `by_value` as in `Plan`."""
    plan = Plan(count=1, by_value=by_value)
    plan.values.append(_walk(value, plan))
    return plan


def plan_batch(values: Any, *, by_value: bool = False) -> Plan:
    """Plan for a tensor or array with a batch dimension (one sample per row), or a sequence (one sample per item).

    Raises:
        TypeError: It is neither.
        ValueError: A tensor has no data, or no batch dimension.
    """
    plan = Plan(by_value=by_value)
    tensor = is_tensor(values)
    if tensor or isinstance(values, np.ndarray):
        if _is_plain_tensor(values) if tensor else _is_plain_array(values):
            rows = plan.place(values, is_tensor=tensor)
            if rows.shape and rows.shape[0] > 0:
                plan.count = rows.shape[0]
                plan.rows = rows
                return plan
            plan = Plan(by_value=by_value)
        if values.ndim == 0:
            raise ValueError("a batch needs a batch dimension, got a 0-d tensor; use submit() for one sample")
        values = _unbind(values)
    elif isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Sequence):
        raise TypeError(
            f"a batch is a tensor or array with a batch dimension, or a sequence of samples, not "
            f"{type(values).__name__}; use submit() for one sample, or list(...) for an iterable"
        )
    plan.values = [_walk(value, plan) for value in values]
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


def _walk(value: Any, plan: Plan) -> Any:
    """`value` with a place instead of each tensor and array, and a copy of all else that may change."""
    kind = type(value)
    if kind in _ATOMS:
        plan.other_bytes += _BYTES_PER_NUMBER
        return value
    if kind is str or kind is bytes:
        # In helpers' letters, too.
        plan.other_bytes += sys.getsizeof(value) * (2 if plan.by_value else 1)
        return value
    if (place := plan.add(value)) is not None:
        return place
    if kind is list or kind is tuple or kind is dict or kind is OrderedDict or _is_named(value):
        plan.other_bytes += sys.getsizeof(value)
        return _map(value, lambda item: _walk(item, plan))
    if isinstance(value, _AS_IT_IS):
        return value
    before = plan.nbytes, plan.other_bytes, len(plan.sources), len(plan.loose)
    snapshot = take_snapshot(value, plan.add, by_value=plan.by_value)
    if snapshot is not None:
        plan.other_bytes += len(snapshot.data) * (2 if plan.by_value else 1)
        return snapshot
    plan.nbytes, plan.other_bytes = before[:2]
    del plan.sources[before[2] :], plan.loose[before[3] :]
    warn_of_shared(value, lambda part: is_tensor(part) or isinstance(part, np.ndarray))
    plan.other_bytes += size_of(value)
    return value


def _is_named(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields") and type(value).__bases__ == (tuple,)


def _restore(value: Any, find: Callable[[Leaf | Loose], Any]) -> Any:
    if isinstance(value, (Leaf, Loose)):
        return find(value)
    if isinstance(value, Snapshot):
        return value.restore(find)
    return _map(value, lambda item: _restore(item, find))


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a list, tuple or dict with its items changed; anything else as it is."""
    kind = type(value)
    if kind is list or kind is tuple:
        return kind([change(item) for item in value])
    if kind is dict or kind is OrderedDict:
        return kind((key, change(item)) for key, item in value.items())
    if _is_named(value):
        return kind(*(change(item) for item in value))
    return value


def _view(memory: NDArray[np.uint8], dtype: Any, shape: tuple[int, ...], is_tensor: bool) -> Any:
    if not is_tensor:
        array = memory.view(dtype).reshape(shape) if memory.size else np.empty(shape, dtype)
        array.flags.writeable = False
        return array
    import torch

    if not memory.size:
        return torch.empty(shape, dtype=getattr(torch, dtype), device="cpu")
    return torch.from_numpy(memory).view(getattr(torch, dtype)).view(shape)


def _dtype_text(dtype: Any) -> str:
    return dtype if isinstance(dtype, str) else str(dtype)


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
