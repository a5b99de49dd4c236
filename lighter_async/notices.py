"""What a person should know and no caller can be told by an exception."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

__all__ = ["at_callers_line", "notify", "users_line", "warn"]

# Whose lines tell a user nothing of where a warning comes from.
_NOT_THE_USERS = frozenset(
    {"lighter_async", "lightning", "pytorch_lightning", "torch"}
    | {"anyio", "asyncio", "concurrent", "contextlib", "threading", "trio"}
)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the user's, and what `warnings` wants to know of its module."""

    file: str
    number: int
    module: str
    registry: dict[Any, Any]


# The line that a call comes from which goes on in a thread of ours.
_of_caller: ContextVar[_Line | None] = ContextVar("lighter_async_caller", default=None)


def notify(text: str) -> None:
    """Print a notice on stderr, in a line of its own."""
    print(f"lighter_async: {text}", file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Warn of something, at the line of the user's that has led to it, also through Lightning or a thread of ours."""
    line = _users_line()
    if line is None:  # Lightning's own command
        warnings.warn(text, UserWarning, stacklevel=2)
    else:
        warnings.warn_explicit(text, UserWarning, line.file, line.number, line.module, line.registry)


def users_line() -> str:
    """The line of the user's that has led here, as ``FILE:NUMBER``; empty if there is none."""
    line = _users_line()
    return "" if line is None else f"{line.file}:{line.number}"


@contextmanager
def at_callers_line() -> Iterator[None]:
    """While it is open, threads and tasks that are begun warn at the line of the user's that has led here."""
    token = _of_caller.set(_users_line())
    try:
        yield
    finally:
        _of_caller.reset(token)


def _users_line() -> _Line | None:
    frame = sys._getframe(1)
    while str(frame.f_globals.get("__name__")).partition(".")[0] in _NOT_THE_USERS:
        if frame.f_back is None:
            return _of_caller.get()
        frame = frame.f_back
    known = frame.f_globals
    registry = known.setdefault("__warningregistry__", {})
    return _Line(frame.f_code.co_filename, frame.f_lineno, str(known.get("__name__")), registry)
