"""Writers that nobody closed: what becomes of them when they are collected, and when the interpreter exits."""

from __future__ import annotations

# Imported for its exit hook, which must stand before ours: they run last first.
import concurrent.futures.thread  # noqa: F401
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

from lighter_async.errors import WriteError, describe
from lighter_async.notices import notify
from lighter_async.types import WriterStats

__all__ = ["Closable", "Unclosed", "abort_after_interrupt", "tell"]

_CALLS_AT_EXIT = 10


class Closable(Protocol):
    """A writer, or its life, as far as its end needs to know."""

    def close(self) -> None: ...

    def abort(self) -> int: ...

    def stats(self) -> WriterStats: ...


class Running(Closable, Protocol):
    """One that can tell that it is closed."""

    @property
    def is_closed(self) -> bool: ...


class Place(Protocol):
    """Where a writer stores, as far as this module needs to know."""

    @property
    def location(self) -> str: ...

    def close(self) -> None: ...


class Unclosed:
    """Looks after a running writer until it is closed.

    At the interpreter's exit it is closed. If it is collected before, what is pending is stored, then its target is
    closed, and failures that nobody was told of are printed. Threads that write keep the writer alive until nothing is
    pending (worker, ledger, writer); helper processes do not, so their end is waited for in a thread.

    Args:
        writer: The running writer.
        place: Where it stores.
        unraised: The failures that were not raised yet, at any time, as text.
        finish: Waits until nothing is pending and lets the workers go; None if nothing can be pending any more. It
            must not refer to the writer.
    """

    def __init__(
        self, writer: Running, place: Place, unraised: Sequence[str], finish: Callable[[], None] | None = None
    ) -> None:
        self._process = os.getpid()
        self._writer = weakref.ref(writer)
        self._collected = weakref.finalize(writer, _on_collected, place, unraised, finish, self._process)
        _unclosed.add(self)

    def forget(self) -> None:
        """It is closed."""
        _unclosed.discard(self)
        self._collected.detach()

    def close(self) -> None:
        """Close it at the interpreter's exit."""
        writer = self._writer()
        if writer is None or self._process != os.getpid():
            return
        # Again where a signal's handler has raised, for nobody else will close it.
        for _ in range(_CALLS_AT_EXIT):
            try:
                writer.close()
            except Exception as error:
                tell(error)
            except (KeyboardInterrupt, SystemExit):
                tell(abort_after_interrupt(writer))
            if writer.is_closed:
                return


def abort_after_interrupt(writer: Closable) -> str:
    """Abort a writer whose `close` was interrupted; returns what that cost, as text."""
    try:
        dropped = writer.abort()
    except WriteError as error:
        return f"interrupted again while closing: {writer.stats().dropped} queued samples were dropped; {error}"
    return f"interrupted again while closing: {dropped} queued samples were dropped"


def tell(what: BaseException | str) -> None:
    """Say on stderr what there is nobody left to raise to."""
    notify(what if isinstance(what, str) else describe(what))


def _on_collected(place: Place, unraised: Sequence[str], finish: Callable[[], None] | None, process: int) -> None:
    if process != os.getpid():
        return
    if finish is None:
        _report(place, unraised, None)
        return
    # The collector may have come in the middle of anything, which must not wait for a disk.
    thread = threading.Thread(target=_report, args=(place, unraised, finish), name="lighter-async-leaving")
    try:
        thread.start()
    except RuntimeError:  # the interpreter is shutting down
        _report(place, unraised, finish)


def _report(place: Place, unraised: Sequence[str], finish: Callable[[], None] | None) -> None:
    if finish is not None:
        finish()
    for failure in unraised:
        tell(failure)
    place.close()
    warnings.warn(
        f"the writer for {place.location!r} was never closed; use it in a with statement, or call close()",
        ResourceWarning,
        stacklevel=2,
    )


_unclosed: weakref.WeakSet[Unclosed] = weakref.WeakSet()


def _close_all() -> None:
    for one in list(_unclosed):
        one.close()


# Before the interpreter's executors refuse new work, since an async writer may need one (aiofiles does). The hook is
# not public: where it is missing, the workers' executors still finish what was put, and _report tells what failed.
_register = getattr(threading, "_register_atexit", None)
if _register is not None:
    _register(_close_all)
