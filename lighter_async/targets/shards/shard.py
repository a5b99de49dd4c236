"""One shard that is being written: a part, which only its worker appends to, until it is sealed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from lighter_async.files import write_at
from lighter_async.targets.open_part import OpenPart
from lighter_async.targets.shards.header import BLOCK, END
from lighter_async.targets.shards.index import Index

__all__ = ["Shard", "round_up"]


@dataclass(slots=True, eq=False)
class Shard(OpenPart):
    """An open part, which is locked for as long as it is.

    Attributes:
        name: What it is called once it is sealed.
        settled: Where the last settled sample ends.
        end: Where what is written ends; from `settled` on it may be cut off.
        samples: How many are written.
        index: Of the settled ones.
    """

    name: str
    settled: int = 0
    end: int = 0
    samples: int = 0
    index: Index = field(default_factory=Index)

    def append(self, pieces: Sequence[bytes | memoryview], samples: int) -> None:
        """Write behind what is written, in one write as a rule; all of it or nothing.

        Args:
            pieces: What to write.
            samples: How many samples they are.

        Raises:
            OSError: They could not be written, or not all. The part ends where it did before.
        """
        try:
            self.end = write_at(self.descriptor, pieces, self.end)
        except BaseException:
            self._truncate(self.end)
            raise
        self.samples += samples

    def drop_unsettled(self) -> None:
        """Cut off what is not settled."""
        if self.end > self.settled:
            self._truncate(self.settled)
            self.index.cut(self.settled)
            self.end, self.samples = self.settled, len(self.index)

    def cut(self, end: int) -> None:
        """Cut off what lies behind a place, though it was settled."""
        self.settled = min(self.settled, round_up(end))
        self.index.cut(self.settled)
        self.end, self.samples = self.settled, len(self.index)
        self._truncate(self.settled)

    def finish(self) -> None:
        """Write what an archive ends with, and have all of it on the disk.

        Raises:
            OSError: It may not be there. More samples can be put.
        """
        try:
            os.ftruncate(self.descriptor, self.settled)
            write_at(self.descriptor, [END], self.settled)
            os.fsync(self.descriptor)
        except BaseException:
            self._truncate(self.settled)
            raise

    def remove(self) -> None:
        """Remove the part, which holds nothing, and let it go."""
        try:
            if self.is_there:
                os.unlink(self.path)
        finally:
            self.close()

    def _truncate(self, end: int) -> None:
        # What cannot be cut off is written over by the next sample, and is cut off before the shard is sealed.
        try:
            os.ftruncate(self.descriptor, end)
        except OSError:
            pass


def round_up(place: int) -> int:
    """The end of the block that ends at or behind a place."""
    return place + -place % BLOCK
