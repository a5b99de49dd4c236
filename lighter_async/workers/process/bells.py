"""Bells (Linux's `eventfd`) carry no data: each wakes the process that sleeps on it."""

from __future__ import annotations

import os

__all__ = ["make_bell", "ring", "silence"]


def make_bell() -> int:
    """A descriptor that becomes readable when it is rung."""
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


def ring(bell: int) -> None:
    """Wake the process that waits for it, now or later."""
    os.eventfd_write(bell, 1)


def silence(bell: int) -> None:
    """Have it be quiet until it is rung again."""
    try:
        os.eventfd_read(bell)
    except BlockingIOError:
        pass  # another one was quicker
