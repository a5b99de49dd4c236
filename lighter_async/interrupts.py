"""Hold signals back while the main thread makes a change that must not be left half done.

Python runs a signal's handler in the main thread, between any two steps of what that thread does. A handler may raise
(Ctrl-C, a time limit, `sys.exit`) or call the very writer that it interrupts. So while the main thread changes our
state, *gates* replace all handlers. A closed gate notes its signal, which is delivered when the change is complete, or
at a known point of a wait, where we hold no lock.

A gate that an exception has left behind does no harm: it is open, restores the handler that it replaces, and calls it.
No handler can run before the one store that reopens the gates: handlers run where a function begins or a call returns.
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

# The functions themselves, without the wrappers that turn numbers into enumerations: the loop waits meanwhile.
_get: Callable[[int], Any] = _signal.getsignal
_set: Callable[[int, Any], Any] = _signal.signal
_NUMBERS = sorted(map(int, signal.valid_signals()))


class _Gate:
    """Replaces the handler of one signal."""

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
        if not _delivering and _get(number) is self:  # left behind by an exception
            _set(number, self.handler)
        self.handler(number, frame)


# Only the main thread uses these.
_main = threading.main_thread().ident
_closed = False
_depth = 0  # nested sections that are open since the gates were closed
_delivering = 0  # nested calls of `let_through`, in which handlers run
_held: deque[tuple[Any, int, FrameType | None]] = deque()
_wake: Callable[[], None] | None = None
# From the last section, since the next one mostly needs the same: the gates, and all signals' handlers with them.
_gates: list[_Gate] = []
_gated: list[Any] = []


class uninterrupted:
    """A context in which the main thread runs no signal's handler; they run when the outermost context ends."""

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
            # Compared once the gates are closed, since a handler that ran before may have installed another one.
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
    """Run the handlers of the signals that were held back.

    The caller holds no lock, and its state is consistent: a handler may raise, which this call then raises, and may
    call anything. Signals are delivered meanwhile.
    """
    if _held and _closed and get_ident() == _main:
        let_through(_run_held)


def is_interrupted() -> bool:
    """Whether signals are held back that the calling thread is to handle."""
    return bool(_held) and get_ident() == _main


def let_through(call: Callable[[], None]) -> None:
    """Call a user's function from a section that holds signals back, and deliver them meanwhile."""
    global _closed, _depth, _delivering
    if not _closed or get_ident() != _main:
        call()
        return
    # No calls between these, here and below, so that no handler runs in between.
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
    """A context in which holding a signal back makes a call, which ends the main thread's wait."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def __enter__(self) -> bool:
        """Returns whether a signal is held back already, so that the wait is over before it begins."""
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
    """Replace every handler by a gate."""
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
            # A handler that was not held back yet has changed this one.
            if callable(earlier):
                gate.handler = earlier
            else:
                _set(number, earlier)
    _gates = [handler for handler in now if type(handler) is _Gate]
    _gated = now


def _reopen() -> None:
    """Deliver signals again, and handle those that were held back."""
    global _closed, _depth
    try:
        if not _delivering:  # else the gates are needed again afterwards
            try:
                _restore()
            except BaseException:  # raised by a handler that is restored already
                _restore()
                raise
    finally:
        _depth = 0
        _closed = False
        if _held:
            _run_held()


def _restore() -> None:
    for gate in _gates:
        # Else a user's handler has replaced the gate.
        if _get(gate.number) is gate:
            _set(gate.number, gate.handler)


def _run_held() -> None:
    while _held:
        # Removed without a call, in which another handler might raise, and this one would be lost.
        handler, number, frame = _held[0]
        del _held[0]
        try:
            handler(number, frame)
        except BaseException as error:
            try:
                _run_held()
            except BaseException as other:
                if isinstance(other, Exception) and not isinstance(error, Exception):
                    raise error from other  # an exception that ends the program comes first
                raise
            raise


def _forked() -> None:
    """In a child that another thread has forked: that is the main thread now, and open sections are gone."""
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
