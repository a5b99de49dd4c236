"""Classes of the user's script or notebook, in a process that does not run it.

They travel by value (cloudpickle). There they have to be found where they are from, in `__main__`: `torch.save` stores
of an object only where its class is found, and its readers look there.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["TwinUnpickler", "be_twin", "loads"]

_is_twin = False


def be_twin() -> None:
    """Say that this process runs for another one, whose `__main__` it has not got."""
    global _is_twin
    _is_twin = True


class TwinUnpickler(pickle.Unpickler):
    """Unpickles, and puts the classes that came by value from another process's `__main__` into this one's."""

    def find_class(self, module: str, name: str, /) -> Any:
        found = super().find_class(module, name)
        if _is_twin and module.startswith("cloudpickle") and name.startswith("_make_skeleton"):
            return self._noting(found)
        return found

    def _noting(self, make: Callable[..., Any]) -> Callable[..., Any]:
        classes = self.__dict__.setdefault("classes", [])

        def made(*args: Any) -> Any:
            kind = make(*args)
            classes.append(kind)
            return kind

        return made

    def finish(self) -> None:
        """Put them there, once they are whole."""
        main = sys.modules["__main__"]
        for kind in self.__dict__.get("classes", ()):
            *outer, name = kind.__qualname__.split(".")
            if kind.__module__ != "__main__" or "<locals>" in outer:
                continue
            place: Any = main
            for word in outer:
                if not hasattr(place, word):
                    setattr(place, word, type(word, (), {"__module__": "__main__"}))
                place = getattr(place, word)
            setattr(place, name, kind)


def loads(data: Any) -> Any:
    """As `pickle.loads`, with `TwinUnpickler`."""
    import io

    unpickler = TwinUnpickler(io.BytesIO(data))
    value = unpickler.load()
    unpickler.finish()
    return value
