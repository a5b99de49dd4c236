"""One shard that is being written: a part, which only its worker appends to, until it is sealed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from lighter_async.locks.flock import is_at, own
from lighter_async.targets.shards.header import BLOCK, END
from lighter_async.targets.shards.index import Index

__all__ = ["Shard", "round_up"]

_PIECES_PER_WRITE = 1024  # IOV_MAX on Linux and macOS


@dataclass(slots=True)
class Shard:
    """An open part, which is locked for as long as it is.

    Attributes:
        name: What it is called once it is sealed.
        path: Where the part lies.
        descriptor: Of the open file.
        settled: Where the last settled sample ends.
        end: Where what is written ends; from `settled` on it may be cut off.
        samples: How many are written.
        index: Of the settled ones.
    """

    name: str
    path: str
    descriptor: int
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
        if len(pieces) > _PIECES_PER_WRITE or not hasattr(os, "pwritev"):
            pieces = [b"".join(pieces)]
        try:
            self.end = _write_all(self.descriptor, pieces, self.end)
        except BaseException:
            self._truncate(self.end)
            raise
        self.samples += samples

    def sync(self) -> None:
        """Have what is written on the disk.

        Raises:
            OSError: It may not be there.
        """
        getattr(os, "fdatasync", os.fsync)(self.descriptor)

    def drop_unsettled(self) -> None:
        """Cut off what is not settled."""
        if self.end > self.settled:
            self._truncate(self.settled)
            self.end, self.samples = self.settled, len(self.index)

    def cut(self, end: int) -> None:
        """Cut off what lies behind a place, though it was settled."""
        self.settled = min(self.settled, round_up(end))
        self.index.cut(self.settled)
        self.end, self.samples = self.settled, len(self.index)
        self._truncate(self.settled)

    @property
    def is_there(self) -> bool:
        """Whether the part is still where it was made: else somebody has removed it, or the directory."""
        try:
            return is_at(self.descriptor, self.path)
        except OSError:
            return False

    def finish(self) -> None:
        """Write what an archive ends with, and have all of it on the disk.

        Raises:
            OSError: It may not be there. More samples can be put.
        """
        try:
            os.ftruncate(self.descriptor, self.settled)
            _write_all(self.descriptor, [END], self.settled)
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

    def close(self) -> None:
        """Let go of it, as it is. It may be called again."""
        descriptor, self.descriptor = self.descriptor, -1
        own.close(descriptor)

    def __del__(self) -> None:
        # Of a lane that nobody has closed. One whose thread hangs is not collected: that may still write.
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


def _write_all(descriptor: int, pieces: Sequence[bytes | memoryview], place: int) -> int:
    """Write pieces one behind the other; returns where the last one ends."""
    while pieces:
        written = os.pwritev(descriptor, pieces, place) if len(pieces) > 1 else os.pwrite(descriptor, pieces[0], place)
        place += written
        # A write may be short (2 GiB, a disk that has just filled up): the next one goes on, or tells why not.
        rest = list(pieces)
        while rest and written >= (length := memoryview(rest[0]).nbytes):
            written -= length
            del rest[0]
        if rest and written:
            rest[0] = memoryview(rest[0]).cast("B")[written:]
        pieces = rest
    return place
