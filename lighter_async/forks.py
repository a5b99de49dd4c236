"""What a fork must not find half done, and what a forked child has to let go of."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["Descriptors", "no_fork"]

no_fork = threading.RLock()
"""While a thread holds it, no other one forks. For a few lines that wait for nothing."""


class Descriptors:
    """File descriptors of ours, all of which a forked child closes, and no others.

    A number is in here exactly as long as the descriptor is open, for a fork waits while that changes: the child would
    close another one's descriptor of that number otherwise, or keep ours.
    """

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        with no_fork:
            _all.add(self)

    def open(self, make: Callable[..., int], *arguments: Any) -> int:
        """A descriptor that `make` opens."""
        with no_fork:
            number = make(*arguments)
            self._numbers.add(number)
            return number

    def close(self, *numbers: int) -> None:
        """Close some of them; those that are closed already are left alone, as are negative numbers."""
        with no_fork:
            for number in numbers:
                if number in self._numbers:
                    self._numbers.discard(number)
                    os.close(number)

    def close_all(self) -> None:
        """Close those that are still open."""
        with no_fork:
            self.close(*self._numbers.copy())


_all: weakref.WeakSet[Descriptors] = weakref.WeakSet()


def _forked() -> None:
    for descriptors in list(_all):
        descriptors.close_all()
    _release()


def _release() -> None:
    try:
        no_fork.release()
    except RuntimeError:
        pass  # a signal's handler has raised before the fork could take it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=no_fork.acquire, after_in_parent=_release, after_in_child=_forked)
