"""Pipes that carry no data: they wake whoever sleeps at the other end."""

from __future__ import annotations

import os

__all__ = ["drain", "nudge"]


def nudge(descriptor: int) -> None:
    """Wake whoever waits at a pipe's other end."""
    try:
        os.write(descriptor, b"!")
    except (BlockingIOError, BrokenPipeError):
        pass  # so many are under way that no more fits, or nobody is left to read them


def drain(descriptor: int) -> None:
    """Have a pipe be quiet until the next nudge."""
    try:
        os.read(descriptor, 1 << 16)
    except BlockingIOError:
        pass  # another one was quicker
