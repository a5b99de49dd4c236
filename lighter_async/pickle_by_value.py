"""Classes and functions that a helper process cannot import, and how it comes to have them all the same.

What a script or a notebook defines, or a module that lies on no path, travels by value (cloudpickle). In the helper it
is put where it is in the parent: `Detection` of a script becomes the helper's ``__main__.Detection``. So a pickle that
the helper makes, such as `torch.save`'s, refers to it by its name, as the parent's own would.
"""

from __future__ import annotations

import functools
import io
import os
import pickle
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

__all__ = ["dumps", "loads", "loads_own"]

_MAKES = frozenset({"_make_skeleton_class", "_make_skeleton_enum", "_make_function"})
_stand_ins: dict[str, types.ModuleType] = {}
_lock = threading.Lock()  # cloudpickle's list of modules that go by value is one for the process


def _forked() -> None:
    """In a forked child: another thread may have held the lock, and cloudpickle's own."""
    global _lock
    _lock = threading.Lock()
    cloudpickle = sys.modules.get("cloudpickle.cloudpickle")
    if hasattr(cloudpickle, "_DYNAMIC_CLASS_TRACKER_LOCK"):
        cloudpickle._DYNAMIC_CLASS_TRACKER_LOCK = threading.Lock()  # type: ignore[union-attr]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def dumps(thing: Any) -> bytes:
    """A pickle of a thing, with what cannot be imported elsewhere by value.

    Raises:
        Exception: It cannot be pickled.
    """
    import cloudpickle

    file = io.BytesIO()
    pickler = _pickler_type()(file)
    pickler.by_value = by_value = list[types.ModuleType]()
    with _lock:
        try:
            pickler.dump(thing)
        finally:
            for module in by_value:
                cloudpickle.unregister_pickle_by_value(module)
    return file.getvalue()


@functools.cache
def _pickler_type() -> Any:
    import cloudpickle  # not before it is needed, which most programs do without

    make_class = cloudpickle.cloudpickle._make_skeleton_class

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        by_value: list[types.ModuleType]

        def reducer_override(self, one: Any) -> Any:
            if isinstance(one, (type, types.FunctionType)):
                module = sys.modules.get(one.__module__ or "")
                if module is not None and not _is_found(module.__name__) and module not in self.by_value:
                    cloudpickle.register_pickle_by_value(module)
                    self.by_value.append(module)
            if _is_on_device(one):
                return one.detach().cpu().__reduce_ex__(5)
            reduced = super().reducer_override(one)
            if isinstance(one, type) and reduced is not NotImplemented and reduced[0] is make_class:
                reduced[2][0]["__qualname__"] = one.__qualname__  # by which an inner class is found
            return reduced

    return Pickler


def _is_on_device(one: Any) -> bool:
    """Whether it is a tensor of an accelerator, which helpers do not see. Of a parameter its data is one."""
    torch = sys.modules.get("torch")
    kind = getattr(torch, "Tensor", None)
    if kind is None or not isinstance(one, kind) or type(one) is torch.nn.Parameter:  # type: ignore[union-attr]
        return False
    return one.device.type not in ("cpu", "meta")


def loads(data: Any) -> Any:
    """The thing, in a helper: with what came by value in the modules that it is of in the parent."""
    made: list[Any] = []

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def make(*arguments: Any) -> Any:
            made.append(function(*arguments))
            return made[-1]

        return make

    thing = _Unpickler(data, wrap).load()
    for one in made:
        _settle(one)
    return thing


def loads_own(data: Any) -> Any:
    """The thing, in the process whose classes it is made of: they stay as they are.

    By itself cloudpickle finds them, and sets their methods to copies that see copies of the script's variables.
    """
    from cloudpickle import cloudpickle

    known = set(map(id, cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS))

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        if function is not cloudpickle._class_setstate:
            return function
        return lambda kind, state: kind if id(kind) in known else function(kind, state)

    return _Unpickler(data, wrap).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        super().__init__(io.BytesIO(data))
        self._wrap = wrap

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module == "cloudpickle.cloudpickle" and (name in _MAKES or name == "_class_setstate"):
            return self._wrap(found)
        return found


def _settle(one: Any) -> None:
    """Put a class or a function where its name says."""
    if not isinstance(one, (type, types.FunctionType)):
        return
    *outer, name = str(one.__qualname__).split(".")
    if "<locals>" in outer or name == "<lambda>" or not one.__module__:
        return
    place: Any = sys.modules.get(one.__module__)
    if place is None and not _is_found(one.__module__):
        place = sys.modules[one.__module__] = _stand_ins[one.__module__] = types.ModuleType(one.__module__)
    if one.__module__ != "__main__" and _stand_ins.get(one.__module__) is not place:
        return  # a module of this process's own has what it has
    for depth, part in enumerate(outer, 1):
        if not hasattr(place, part):
            # Its outer class has not come. What stands in for it is a class too, which a pickle refers to by its name.
            named = {"__module__": one.__module__, "__qualname__": ".".join(outer[:depth])}
            setattr(place, part, type(part, (), named))
        place = getattr(place, part)
    try:
        setattr(place, name, one)
    except (AttributeError, TypeError):
        pass


@functools.cache
def _is_found(module: str) -> bool:
    """Whether another process finds a module, as far as this one's finders tell."""
    root = module.partition(".")[0]
    if root == "__main__" or root in sys.builtin_module_names:
        return True  # which cloudpickle knows about
    for finder in sys.meta_path:
        try:
            find = getattr(finder, "find_spec", None)
            if find is not None and find(root, None) is not None:
                return True
        except Exception:
            continue
    return False
