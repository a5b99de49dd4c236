"""Handlers of signals are held back while a change is made that must be whole, and run where nothing is half changed.

The interpreter runs a signal's handler in the main thread, between any two of its instructions. There it may raise, as
Ctrl-C does, or call the very writer that it interrupts. So while a *critical section* is open in the main thread, each
signal that has a handler has a *gate* in its place, which notes the signal down; at the section's end, and wherever it
waits, the handlers run.

A gate that a section is open for holds back; any other one, left over from a section whose beginning or end a handler
has interrupted, puts the handler back and calls it. So none of them can make a signal deaf.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Waiter", "is_interrupted", "run_handlers", "uninterrupted", "waking"]

# The functions themselves, without the wrappers that make enumerations of numbers: the loop waits meanwhile.
_get: Callable[[int], Any] = getattr(signal.getsignal, "__wrapped__", signal.getsignal)
_set: Callable[[int, Any], Any] = getattr(signal.signal, "__wrapped__", signal.signal)
_NUMBERS = sorted(signal.valid_signals())


class _State:
    """Of the main thread, and changed by it alone."""

    __slots__ = ("current", "depth", "found", "gated", "held", "inside", "wake")

    def __init__(self) -> None:
        self.depth = 0  # of critical sections; 0 while handlers run
        self.inside = 0  # how many handlers run out of critical sections
        self.current: uninterrupted | None = None  # the outermost section
        self.held: deque[tuple[_Gate, int, FrameType | None]] = deque()
        self.wake: Callable[[], None] | None = None  # ends what the section waits for
        self.found: list[Any] = []  # the handlers of all signals, when they were last looked at
        self.gated: list[int] = []  # the signals that had one


_state = _State()


class _Gate:
    """In the place of a signal's handler."""

    __slots__ = ("handler", "number")

    def __init__(self, number: int, handler: Any) -> None:
        self.number = number
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> Any:
        if _state.depth:
            _state.held.append((self, number, frame))
            if _state.wake is not None:
                _state.wake()
            return
        if not _state.inside:
            self.leave()
        self.handler(number, frame)

    def leave(self) -> None:
        # A handler of the user's may have put another one in our place.
        if _get(self.number) is self:
            _set(self.number, self.handler)


class uninterrupted:
    """A critical section: while it is open no handler of a signal runs, but where it waits. Sections may be nested.

    Raises:
        BaseException: At its beginning, before anything has begun, or at its end: what a handler raises.
    """

    __slots__ = ("_gates", "_outer")

    def __enter__(self) -> None:
        if threading.get_ident() != threading.main_thread().ident:
            self._gates: list[_Gate] | None = None
            return
        if _state.depth:
            _state.depth += 1
            self._gates = None
            return
        gates: list[_Gate] = []
        try:
            _install(gates)
        except BaseException:
            _remove(gates)
            raise
        # The last two change what handlers do, and are stores without a call between, so that none runs in between.
        self._gates, self._outer, _state.current = gates, _state.current, self
        _state.depth = 1

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        gates = self._gates
        if gates is None:
            if threading.get_ident() == threading.main_thread().ident:
                _state.depth -= 1
            return
        try:
            if _state.held:
                run_handlers()
        finally:
            _state.current = self._outer
            _state.depth = 0
            _remove(gates)


def _install(gates: list[_Gate]) -> None:
    """Put gates in the place of all handlers, and add them to a list."""
    found = list(map(_get, _NUMBERS))
    if found != _state.found:
        _state.gated = [number for number, handler in zip(_NUMBERS, found, strict=True) if callable(handler)]
        _state.found = found
    for number in _state.gated:
        handler = _get(number)
        if type(handler) is _Gate:
            if not _state.inside:
                gates.append(handler)  # left over, to be removed with the others
            continue
        if callable(handler):
            gate = _Gate(number, handler)
            gates.append(gate)
            _set(number, gate)


def _remove(gates: list[_Gate]) -> None:
    error: BaseException | None = None
    while gates:
        try:
            gates[-1].leave()
            gates.pop()
        except BaseException as raised:  # by a handler that runs again
            error = raised
    if error is not None:
        raise error


def is_interrupted() -> bool:
    """Whether signals came whose handlers are held back in this thread."""
    return bool(_state.held) and threading.get_ident() == threading.main_thread().ident


def run_handlers() -> None:
    """Run the handlers that were held back, inside of a critical section, where nothing is half changed.

    No lock of ours may be held: they may call any writer, and may raise.

    Raises:
        BaseException: What one of them raises, once all of them have run.
    """
    error: BaseException | None = None
    depth, wake = _state.depth, _state.wake
    _state.wake = None
    while _state.held:
        gate, number, frame = _state.held.popleft()
        try:
            _state.inside += 1
            _state.depth = 0
            gate.handler(number, frame)
        except BaseException as raised:
            _state.depth = depth
            error = raised
        finally:
            _state.depth = depth
            _state.inside -= 1
        del frame
    _state.wake = wake
    current = _state.current
    while current is not None and current._gates is not None:
        try:
            _install(current._gates)  # a handler may have put others in the place of our gates
            break
        except BaseException as raised:
            error = raised
    if error is not None:
        raise error


class waking:
    """While it is open, a signal whose handler is held back calls a function, to end what the section waits for."""

    __slots__ = ("_earlier", "_wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def __enter__(self) -> None:
        if threading.get_ident() == threading.main_thread().ident:
            self._earlier = _state.wake
            _state.wake = self._wake

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if threading.get_ident() == threading.main_thread().ident:
            _state.wake = self._earlier


class Waiter:
    """Waits until it is woken, once: by another thread, or by a signal whose handler is held back."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, timeout: float) -> None:
        """Return when it was woken, or after `timeout` seconds."""
        with waking(self.wake):
            if not is_interrupted():
                self._lock.acquire(timeout=timeout)

    def wake(self) -> None:
        """End the wait, now or as soon as it begins."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it was woken already


def _forked() -> None:
    """In a forked child no section is open: its one thread is another one than the parent's main thread, maybe."""
    _state.depth = _state.inside = 0
    _state.current = _state.wake = None
    _state.held.clear()
    for number in _NUMBERS:
        handler = _get(number)
        if type(handler) is _Gate:
            handler.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
