"""The copy of an object: its pickle, without the tensors and arrays in it, which are staged by themselves.

So an object that holds tensors (a dataclass, a dict of a class of its own, a DataFrame) is copied by its own pickling,
and its tensors are copied as any others are: on their device, into the slot, and once.

Classes, functions and modules are never pickled here, but referred to: a thread gets the very same class, and a helper
process gets it by cloudpickle, once per batch. Objects that cannot be pickled (a lock, an open file, a generator) are
referred to as well, and so are objects that a copy would break, such as an event that others wait for.
"""

from __future__ import annotations

import copyreg
import enum
import gc
import io
import pickle
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["dump", "holds_tensors", "load", "size_of", "tensors_in"]

# Referred to, never copied: their identity matters, or they cannot change.
_REFERRED = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    np.ufunc,
    np.dtype,
    enum.Enum,
)
# Modules with objects that threads or processes share.
_SHARED = frozenset(
    {"_asyncio", "_contextvars", "_queue", "_socket", "_thread", "_weakref", "asyncio", "concurrent", "contextvars"}
    | {"multiprocessing", "queue", "select", "selectors", "socket", "subprocess", "threading", "weakref"}
)
_MOST_LOOKED_AT = 1000


def dump(value: Any, take: Callable[[Any], int | None], refer: Callable[[Any], int]) -> memoryview:
    """The pickle of a value without its tensors and arrays.

    Args:
        value: Anything.
        take: Called with each object that is not a plain builtin. Returns the number by which `load` finds it, or None
            if it is to be pickled.
        refer: Returns such a number for an object that is referred to.

    Raises:
        Exception: It cannot be pickled, or what `take` raises.
    """
    file = io.BytesIO()
    _Pickler(file, take, refer).dump(value)
    return file.getbuffer()


def load(data: Any, find: Callable[[int], Any]) -> Any:
    """The value of a pickle.

    Args:
        data: What `dump` returned.
        find: Returns the object with a number.
    """
    return _Unpickler(io.BytesIO(data), find).load()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, take: Callable[[Any], int | None], refer: Callable[[Any], int]) -> None:
        super().__init__(file, 5)
        self._take = take
        self._refer = refer

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, _REFERRED):
            return NotImplemented if thing is _found else (_found, (self._refer(thing),))
        parameter = _parameter_type()
        if parameter is None or type(thing) is not parameter:
            number = self._take(thing)
            if number is not None:
                return _found, (number,)
        if _is_shared(thing):
            return _found, (self._refer(thing),)
        try:
            reduced = _reduced(thing)
        except Exception:
            return _found, (self._refer(thing),)
        # A text is the name of a global.
        if isinstance(reduced, str) or _has_lock(reduced):
            return _found, (self._refer(thing),)
        return reduced


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, find: Callable[[int], Any]) -> None:
        super().__init__(file)
        self._find = find

    def find_class(self, module: str, name: str) -> Any:
        return self._find  # the pickle names nothing but `_found`


def _found(number: int) -> Any:
    """Stands in a pickle for the object with a number."""
    raise AssertionError("load() finds another function in its place")


def _parameter_type() -> Any:
    # A parameter inside an object stays one, or a module would lose its parameters.
    nn = sys.modules.get("torch.nn")
    return getattr(nn, "Parameter", None)


def _reduced(thing: Any) -> Any:
    kind = type(thing)
    if kind is memoryview:
        return _as_memoryview, (thing.tobytes(), thing.format, thing.shape)
    if isinstance(thing, np.ndarray) and not thing.dtype.hasobject and not _pickles_itself(kind):
        # numpy's pickling would lose what a user's class has added.
        return _as_array, (thing.view(np.ndarray), kind, dict(thing.__dict__))
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    if kind is not _parameter_type() and tensor is not None and isinstance(thing, tensor):
        torch = sys.modules["torch"]
        with torch._C.DisableTorchFunctionSubclass():
            return _as_tensor, (thing.detach().as_subclass(torch.Tensor), kind, dict(thing.__dict__))
    reduce = copyreg.dispatch_table.get(kind)
    return thing.__reduce_ex__(5) if reduce is None else reduce(thing)


def _pickles_itself(kind: Any) -> bool:
    return kind.__reduce__ is not np.ndarray.__reduce__


def _as_memoryview(data: bytes, form: Any, shape: Any) -> memoryview[Any]:
    return memoryview(data) if form == "B" and len(shape) == 1 else memoryview(data).cast(form, shape)


def _as_array(array: Any, kind: type, state: dict[str, Any]) -> Any:
    array = array.view(kind)
    array.__dict__.update(state)
    return array


def _as_tensor(tensor: Any, kind: type, state: dict[str, Any]) -> Any:
    tensor = tensor.as_subclass(kind)
    tensor.__dict__.update(state)
    return tensor


def _is_shared(thing: Any) -> bool:
    return any(kind.__module__.partition(".")[0] in _SHARED for kind in type(thing).__mro__)


def _has_lock(reduced: Any) -> bool:
    """Whether an object has a lock, or the like, and no tensors: several threads share it."""
    state = reduced[2] if isinstance(reduced, tuple) and len(reduced) > 2 else None
    both = state if isinstance(state, tuple) else (state,)
    parts = [part for one in both if type(one) is dict for part in one.values()]
    return any(map(_is_shared, parts)) and not any(map(_is_data, parts))


def _is_data(thing: Any) -> bool:
    torch = sys.modules.get("torch")
    tensor = getattr(torch, "Tensor", np.ndarray)
    return isinstance(thing, (np.ndarray, tensor))


def holds_tensors(thing: Any) -> bool:
    """Whether an object holds tensors or arrays, as far as a limited search finds."""
    return any(map(_is_data, _parts(thing)))


def tensors_in(thing: Any) -> list[Any]:
    """The tensors that an object holds, as far as a limited search finds; a class has none."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    if tensor is None or isinstance(thing, (type, types.ModuleType)):
        return []
    return [part for part in _parts(thing) if isinstance(part, tensor)]


def size_of(thing: Any) -> int:
    """About how many bytes an object holds, as far as a limited search finds."""
    return sum(int(part.nbytes) if _is_data(part) else sys.getsizeof(part, 0) for part in _parts(thing))


def _parts(thing: Any) -> list[Any]:
    """An object and what it refers to, without classes and modules."""
    found: dict[int, Any] = {id(thing): thing}
    queue = [thing]
    for one in queue:
        if isinstance(one, types.FunctionType):
            inner: Sequence[Any] = one.__closure__ or ()
        elif isinstance(one, (type, types.ModuleType)) or _is_data(one):
            inner = ()
        else:
            inner = gc.get_referents(one)
        for part in inner[: _MOST_LOOKED_AT - len(found)]:
            if id(part) not in found and not isinstance(part, (type, types.ModuleType)):
                found[id(part)] = part
                queue.append(part)
    return list(found.values())
