"""Signals held back for a moment, in which a change is made that must be whole.

Python runs a signal's handler in the main thread, between any two steps of whatever that does, and a handler may raise
(Ctrl-C, a time limit, `sys.exit`) or call the very writer that it interrupts. So while the main thread changes our
state, *gates* stand in the place of all handlers: a gate that is closed notes its signal, which is delivered when the
change is whole, or at a known point of a wait, where no lock of ours is held.

A gate that an exception has left behind harms nobody: it is open, puts the handler back that it stands for, and calls
it. Reopening is one store, which a handler cannot come before: they run where a function begins or a call returns.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from threading import get_ident
from types import FrameType, TracebackType
from typing import Any

__all__ = ["is_interrupted", "let_through", "run_handlers", "uninterrupted", "waking"]

# The functions themselves, without the wrappers that make enumerations of numbers: the loop waits meanwhile.
_get: Callable[[int], Any] = _signal.getsignal
_set: Callable[[int, Any], Any] = _signal.signal
_NUMBERS = sorted(map(int, signal.valid_signals()))


class _Gate:
    """Stands in the place of the handler of one signal."""

    __slots__ = ("handler", "number")

    def __init__(self, number: int, handler: Any) -> None:
        self.number = number
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if _closed:
            _held.append((self.handler, number, frame))
            if _wake is not None:
                _wake()
            return
        if not _delivering and _get(number) is self:  # an exception has left it behind
            _set(number, self.handler)
        self.handler(number, frame)


# All of these are the main thread's own.
_main = threading.main_thread().ident
_closed = False
_depth = 0  # sections that are open, one in the other, since the gates were closed
_delivering = 0  # known points at which handlers run, one in the other
_held: deque[tuple[Any, int, FrameType | None]] = deque()
_wake: Callable[[], None] | None = None
# Of the last time, which is mostly like this time: the gates, and what all signals' handlers are while they stand.
_gates: list[_Gate] = []
_gated: list[Any] = []


class uninterrupted:
    """While it is open, in the main thread, no signal's handler runs; those that came run when the outermost ends."""

    __slots__ = ()

    def __enter__(self) -> None:
        global _closed, _depth
        if get_ident() != _main:
            return
        if _closed:
            _depth += 1
            return
        try:
            for gate in _gates:
                if _get(gate.number) is gate.handler:
                    _set(gate.number, gate)
            _closed = True
            _depth = 1
            # Looked at once they are closed, since a handler that came before may have put another one in its place.
            if list(map(_get, _NUMBERS)) != _gated:
                _stand_in()
        except BaseException:
            _reopen()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        global _depth
        if get_ident() != _main:
            return
        if _depth > 1:
            _depth -= 1
        else:
            _reopen()


def run_handlers() -> None:
    """Run the handlers of the signals that were held back, at a point where that harms nothing.

    The caller holds no lock, and its state is whole: a handler may raise, which comes out of this call, and may call
    whatever it likes. Signals come through meanwhile.
    """
    if _held and _closed and get_ident() == _main:
        let_through(_run_held)


def is_interrupted() -> bool:
    """Whether the calling thread has signals to run_handlers."""
    return bool(_held) and get_ident() == _main


def let_through(call: Callable[[], None]) -> None:
    """Make a call of a user's within a section that holds signals back: they come through meanwhile."""
    global _closed, _depth, _delivering
    if not _closed or get_ident() != _main:
        call()
        return
    # No calls between these, here and below, so that no handler comes in between.
    depth = _depth
    _delivering += 1
    _depth = 0
    _closed = False
    try:
        call()
    finally:
        _depth = depth
        _delivering -= 1
        _closed = True
        # A handler may have given signals handlers that had none.
        _stand_in()


class waking:
    """While it is open, a call is made when a signal is held back: it ends the wait that the main thread is in."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def __enter__(self) -> bool:
        """Whether a signal is held back already, so that there is nothing to wait for."""
        global _wake
        if get_ident() != _main:
            return False
        _wake = self._call
        return bool(_held)

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        global _wake
        if get_ident() == _main:
            _wake = None


def _stand_in() -> None:
    """Have a closed gate in the place of every handler."""
    global _gates, _gated
    while True:
        now = list(map(_get, _NUMBERS))
        missing = [
            (number, handler)
            for number, handler in zip(_NUMBERS, now, strict=True)
            if callable(handler) and type(handler) is not _Gate
        ]
        if not missing:
            break
        for number, handler in missing:
            gate = _Gate(number, handler)
            earlier = _set(number, gate)
            if earlier is handler:
                continue
            # A handler that was not held back yet has changed it.
            if callable(earlier):
                gate.handler = earlier
            else:
                _set(number, earlier)
    _gates = [handler for handler in now if type(handler) is _Gate]
    _gated = now


def _reopen() -> None:
    """Let signals come through again, and run_handlers those that came."""
    global _closed, _depth
    try:
        if not _delivering:  # else the gates are needed once more, when that ends
            try:
                _restore()
            except BaseException:  # of a handler that is back already
                _restore()
                raise
    finally:
        _depth = 0
        _closed = False
        if _held:
            _run_held()


def _restore() -> None:
    for gate in _gates:
        # Else the user's handler has put another one in its place.
        if _get(gate.number) is gate:
            _set(gate.number, gate.handler)


def _run_held() -> None:
    while _held:
        # Taken off the list without a call, at which another handler might raise and it would be lost.
        handler, number, frame = _held[0]
        del _held[0]
        try:
            handler(number, frame)
        except BaseException as error:
            try:
                _run_held()
            except BaseException as other:
                if isinstance(other, Exception) and not isinstance(error, Exception):
                    raise error from other  # what ends the program does not get lost behind what may be caught
                raise
            raise


def _forked() -> None:
    """In a forked child: another thread than the main one is it now, and what that was in the middle of is gone."""
    global _main, _closed, _depth, _delivering, _wake
    if get_ident() == _main:
        return
    _main = get_ident()
    _depth = _delivering = 0
    _closed = False
    _wake = None
    _held.clear()
    for number in _NUMBERS:
        if type(gate := _get(number)) is _Gate:
            _set(number, gate.handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
