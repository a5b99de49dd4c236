"""Names of a room that are imported when they are first used, and not with the room.

A helper process needs one format and one target at most, and is at work the sooner the less it imports.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["on_first_use"]


def on_first_use(room: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a room that imports a name when it is first used.

    Args:
        room: The room's full name.
        modules: The names, each with the module of the room that it is in.
    """

    def get(name: str) -> Any:
        module = modules.get(name)
        if module is None:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{room}.{module}"), name)
        setattr(sys.modules[room], name, value)
        return value

    return get
