"""Exceptions that end a prediction: Ctrl-C during the end, and what is attached to them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lighter_async.errors import LighterAsyncError

__all__ = ["attached_to", "interruptible"]


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise again, which Lightning has set to be ignored by now."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def attached_to(exception: BaseException) -> list[str]:
    """The messages that `lighter_async.errors.attach` has added to an exception."""
    if hasattr(exception, "add_note"):
        return list(getattr(exception, "__notes__", ()))
    found = []
    link = exception.__context__
    while link is not None:
        if isinstance(link, LighterAsyncError):
            found.append(str(link) if type(link) is LighterAsyncError else f"{type(link).__name__}: {link}")
        link = link.__context__
    return found
