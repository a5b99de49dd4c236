"""What a person should know and no caller can be told by an exception."""

from __future__ import annotations

import sys

__all__ = ["notify"]


def notify(text: str) -> None:
    """Print a notice on stderr, in a line of its own."""
    print(f"lighter_async: {text}", file=sys.stderr, flush=True)
