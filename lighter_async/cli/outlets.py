"""Output whose reader may leave before the command ends, as ``head`` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

__all__ = ["has_reader", "outlets"]


class _Outlet:
    """A stream that may lose its reader: what is printed from then on goes nowhere, and the command goes on to its end.

    So ``verify --repair DIR | head -1`` repairs all, and the exit status is still that of what was found.

    Attributes:
        has_reader: Whether somebody still reads, as far as is known.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.has_reader = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._lose_reader()
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._lose_reader()

    def _lose_reader(self) -> None:
        self.has_reader = False
        # The stream keeps what it could not write, and the interpreter flushes it once more at its exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self._stream.fileno())
        finally:
            os.close(nowhere)


@contextmanager
def outlets() -> Iterator[None]:
    """While it is open, standard output and standard error may lose their readers."""
    before = sys.stdout, sys.stderr
    # A program without a console has none.
    sys.stdout, sys.stderr = (cast(TextIO, None if one is None else _Outlet(one)) for one in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before


def has_reader(stream: Any = None) -> bool:
    """Whether somebody still reads a stream, by default standard output; a command that only prints may end then."""
    return bool(getattr(sys.stdout if stream is None else stream, "has_reader", True))
