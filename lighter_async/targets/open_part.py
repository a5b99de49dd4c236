"""A part that is being written: an object that holds several samples, open, until it has its final name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from lighter_async.locks.flock import is_at, own
from lighter_async.positioned import sync_data
from lighter_async.whole_files import write_at

__all__ = ["AppendedPart", "OpenPart"]


@dataclass(slots=True, eq=False)
class OpenPart:
    """An open part.

    Attributes:
        path: Where it lies.
        descriptor: Of the open file.
    """

    path: str
    descriptor: int

    @property
    def is_there(self) -> bool:
        """Whether it is still where it was made: else somebody has removed it, or the directory."""
        try:
            return is_at(self.descriptor, self.path)
        except OSError:
            return False

    def sync(self) -> None:
        """Have what is written on the disk.

        Raises:
            OSError: It may not be there.
        """
        sync_data(self.descriptor)

    def close(self) -> None:
        """Let go of it, as it is. It may be called again."""
        descriptor, self.descriptor = self.descriptor, -1
        own.close(descriptor)

    def __del__(self) -> None:
        # Of a lane that nobody has closed. One whose thread hangs is not collected: that may still write.
        self.close()


@dataclass(slots=True, eq=False)
class AppendedPart(OpenPart):
    """A part that one worker alone appends to.

    Attributes:
        name: What it is recorded as.
        settled: Where the last settled sample ends.
        end: Where what is written ends; from `settled` on it may be cut off.
    """

    name: str
    settled: int = 0
    end: int = 0

    def append(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Write behind what is written, in one write as a rule, all of it or nothing; returns where it begins.

        Args:
            pieces: What to write.

        Raises:
            OSError: They could not be written, or not all. The part ends where it did before.
        """
        begin = self.end
        try:
            self.end = write_at(self.descriptor, pieces, begin)
        except BaseException:
            self.truncate(begin)
            raise
        return begin

    def drop_unsettled(self) -> None:
        """Cut off what is not settled."""
        if self.end > self.settled:
            self.truncate(self.settled)
            self.end = self.settled

    def truncate(self, end: int) -> None:
        """Cut off what lies behind a place, as far as that can be done."""
        # What cannot be cut off is written over by the next sample, and is cut off before the object is sealed.
        try:
            os.ftruncate(self.descriptor, end)
        except OSError:
            pass
