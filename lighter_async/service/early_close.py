"""Ends of a writer that its caller did not ask for: after an exception, and before the process is killed."""

from __future__ import annotations

from lighter_async.errors import FlushTimeoutError, attach
from lighter_async.interrupts import uninterrupted
from lighter_async.service.lifecycle import Lifecycle
from lighter_async.service.unclosed_at_exit import Closable, abort_after_interrupt, tell

__all__ = ["close_after", "close_by"]


def close_after(exception: BaseException, writer: Closable) -> None:
    """Close a writer whose ``with`` block was left by an exception, which stays what it is: failures are attached.

    After Ctrl-C it is said how much is left to store, and another Ctrl-C drops it.
    """
    if isinstance(exception, KeyboardInterrupt) and (pending := writer.stats().pending):
        tell(f"storing the {pending} samples that were handed over; Ctrl-C again drops them")
    try:
        writer.close()
    except Exception as error:
        attach(error, exception)
    except KeyboardInterrupt:
        attach(abort_after_interrupt(writer), exception)


def close_by(life: Lifecycle, seconds: float, location: str) -> int:
    """Close a writer before its process is killed, as `BackgroundWriter.close_by`; returns how many are not stored."""
    life.check_caller("close_by")
    try:
        life.close(seconds, seal=False)  # the next writer does that
        return 0
    except FlushTimeoutError as error:
        pending = error.pending
    except Exception as error:
        tell(error)
        return life.stats().failed
    if life.kind == "process":
        tell(f"{pending} samples are left to helper processes, which go on storing to {location!r}")
        life.leave_to_helpers()
        return pending
    with uninterrupted():
        dropped = life.drop()
    # Before waiting for what is in the threads' hands, which may take longer than this process has left.
    tell(f"{dropped} samples were dropped, for which there was no time: {location!r}")
    try:
        life.abort()
    except Exception as error:
        tell(error)
    return dropped
