"""One shard that is being written: a part, which only its worker appends to, until it is sealed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from lighter_async.targets.open_part import AppendedPart
from lighter_async.targets.shards.header import BLOCK, END
from lighter_async.targets.shards.index import Index
from lighter_async.whole_files import write_at

__all__ = ["Shard", "round_up"]


@dataclass(slots=True, eq=False)
class Shard(AppendedPart):
    """An open part, which is locked for as long as it is.

    Attributes:
        samples: How many are written.
        index: Of the settled ones.
    """

    samples: int = 0
    index: Index = field(default_factory=Index)

    def put(self, pieces: Sequence[bytes | memoryview], samples: int) -> None:
        """Append some samples.

        Args:
            pieces: What to write.
            samples: How many samples they are.

        Raises:
            OSError: As `append`.
        """
        self.append(pieces)
        self.samples += samples

    def drop_unsettled(self) -> None:
        if self.end > self.settled:
            AppendedPart.drop_unsettled(self)
            self.index.cut(self.settled)
            self.samples = len(self.index)

    def cut(self, end: int) -> None:
        """Cut off what lies behind a place, though it was settled."""
        self.settled = min(self.settled, round_up(end))
        self.index.cut(self.settled)
        self.end, self.samples = self.settled, len(self.index)
        self.truncate(self.settled)

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
            self.truncate(self.settled)
            raise

    def remove(self) -> None:
        """Remove the part, which holds nothing, and let it go."""
        try:
            if self.is_there:
                os.unlink(self.path)
        finally:
            self.close()


def round_up(place: int) -> int:
    """The end of the block that ends at or behind a place."""
    return place + -place % BLOCK
