"""Messages of the commands: errors on stderr, and names as a terminal can show them."""

from __future__ import annotations

import sys

__all__ = ["counted", "in_bytes", "printable", "refuse", "say"]


def printable(text: str) -> str:
    """A text as a terminal can show it, in one line."""
    return text if text.isprintable() else ascii(text)[1:-1]


def say(text: str) -> None:
    """Print an error on stderr."""
    print(f"lighter-async: {printable(text)}", file=sys.stderr)


def refuse(text: str) -> int:
    """Print why a command cannot run; returns its exit status."""
    say(text)
    return 2


def counted(count: int, what: str) -> str:
    """A number of things, with the noun in singular or plural."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def in_bytes(count: int) -> str:
    """A number of bytes, in a unit that suits it."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return counted(count, "byte")
