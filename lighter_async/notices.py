"""What a person should know and no caller can be told by an exception."""

from __future__ import annotations

import sys
import warnings

__all__ = ["notify", "warn"]

# Whose lines tell a user nothing of where a warning comes from.
_NOT_THE_USERS = {"lighter_async", "lightning", "pytorch_lightning", "torch"}


def notify(text: str) -> None:
    """Print a notice on stderr, in a line of its own."""
    print(f"lighter_async: {text}", file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Warn of something, at the line of the user's that has led to it, also through Lightning."""
    depth, frame = 1, sys._getframe(1)
    while str(frame.f_globals.get("__name__")).partition(".")[0] in _NOT_THE_USERS:
        if frame.f_back is None:  # a thread of ours, or Lightning's own command
            depth = 1
            break
        depth, frame = depth + 1, frame.f_back
    warnings.warn(text, UserWarning, stacklevel=depth + 1)
