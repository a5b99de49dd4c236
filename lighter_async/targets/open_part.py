"""A part that is being written: an object that holds several samples, open, until it has its final name."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lighter_async.locks.flock import is_at, own

__all__ = ["OpenPart"]


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
        getattr(os, "fdatasync", os.fsync)(self.descriptor)

    def close(self) -> None:
        """Let go of it, as it is. It may be called again."""
        descriptor, self.descriptor = self.descriptor, -1
        own.close(descriptor)

    def __del__(self) -> None:
        # Of a lane that nobody has closed. One whose thread hangs is not collected: that may still write.
        self.close()
