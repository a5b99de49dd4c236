"""Failures that were not raised yet, in bounded memory: with ``on_error="continue"`` there may be millions."""

from __future__ import annotations

from collections.abc import Sequence

from lighter_async.errors import LighterAsyncError, WriteError, describe
from lighter_async.tracebacks import kept_traceback

__all__ = ["Failures"]

_WHOLE_BYTES = 16 << 20  # of messages and tracebacks, up to which failures are kept as they were raised
_MOST, _MOST_LINES = 10_000, 1_000
_SHORT = 500  # characters


class Failures:
    """The first failures as they are, more of them with their texts cut, and the number of those beyond.

    Attributes:
        lines: The same as text, for when the writer is collected: the errors' tracebacks refer to it, so whoever holds
            them until then keeps it from being collected.
    """

    def __init__(self) -> None:
        self._kept: list[WriteError] = []
        self._more = 0
        self._bytes = 0
        self.lines: list[str] = []

    def __len__(self) -> int:
        return len(self._kept) + self._more

    def add(self, failures: Sequence[WriteError]) -> None:
        for failure in failures:
            text = describe(failure)
            if len(self._kept) < _MOST:
                self._bytes += len(text) + (0 if failure.cause is None else len(kept_traceback(failure.cause)))
                self._kept.append(failure if self._bytes <= _WHOLE_BYTES else _cut(failure))
            else:
                self._more += 1
            if len(self.lines) <= _MOST_LINES:
                self.lines.append(text if self._bytes <= _WHOLE_BYTES else text[:_SHORT])
            if len(self.lines) > _MOST_LINES:
                self.lines[-1] = f"and {len(self) - _MOST_LINES} more"

    def take(self) -> tuple[list[WriteError], int]:
        """All that is kept, and how many more there were; from now on there are none."""
        taken = self._kept, self._more
        self._kept, self._more, self._bytes = [], 0, 0
        self.lines.clear()
        return taken


def _cut(failure: WriteError) -> WriteError:
    """A failure that refers to nothing of what was raised."""
    cause = LighterAsyncError("unknown" if failure.cause is None else describe(failure.cause)[:_SHORT])
    short = WriteError(
        str(failure)[:_SHORT], writer=failure.writer, name=failure.name, attempts=failure.attempts, cause=cause
    )
    short.kept = failure.kept
    return short
