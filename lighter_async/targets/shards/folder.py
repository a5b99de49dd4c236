"""The directory that shards lie in: parts are begun, sealed, and taken over from workers that died."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from lighter_async.locks.flock import OPEN, NoLocks, is_at, own, try_lock
from lighter_async.names import RESERVED_PREFIX
from lighter_async.notices import notify
from lighter_async.store import UNSEALED
from lighter_async.targets.local import LocalTarget
from lighter_async.targets.shards.listing import (
    index_name,
    is_shard,
    list_shards,
    numbers_of,
    shard_name,
    shards_recorded,
)
from lighter_async.targets.shards.removed import removed_shards
from lighter_async.targets.shards.shard import Shard, round_up
from lighter_async.targets.shards.walk import samples_in
from lighter_async.whole_files import name_part, remove, sync_folder

__all__ = ["Ends", "ShardFolder"]

_PARTS_AT_A_TIME = 64

Ends = Callable[[Sequence[str]], "dict[str, int] | None"]
"""Where the last recorded sample of each of some shards ends; None if nothing at all is recorded."""


@dataclass
class ShardFolder:
    """What lanes do in the directory.

    Attributes:
        root: The directory.
        rank: Of this process.
        is_synced: Whether what is settled outlives a loss of power.
        files: Writes files that are replaced in one step.
    """

    root: str
    rank: int
    is_synced: bool
    files: LocalTarget
    _numbers: dict[int, int] = field(default_factory=dict)

    def begin(self, lane: int) -> Shard:
        """Begin a part, under a name that nobody has had, and lock it.

        Args:
            lane: The number of the lane that writes it.

        Raises:
            OSError: It cannot be made.
        """
        while True:
            number = self._next_number(lane)
            name = shard_name(self.rank, lane, number)
            path = os.path.join(self.root, name + UNSEALED)
            try:
                descriptor = own.open(os.open, path, OPEN | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                continue
            except FileNotFoundError:
                os.makedirs(self.root, exist_ok=True)  # somebody has removed the directory
                continue
            try:
                # One that takes parts over may have found it before it was locked, and removes it then.
                if self._lock(descriptor, name) is not False and is_at(descriptor, path):
                    # A part that is sealed gives up its name for the shard's: so either of them is seen here.
                    if not os.path.lexists(os.path.join(self.root, name)):
                        if self.is_synced:
                            sync_folder(self.root)
                        return Shard(path, descriptor, name)
                    os.unlink(path)
            except BaseException:
                own.close(descriptor)
                remove(path)
                raise
            own.close(descriptor)

    def seal(self, shard: Shard) -> None:
        """Finish a shard, write its index, and give it its name.

        Raises:
            OSError: It stays a part, and may be sealed later.
        """
        shard.finish()
        self._replace(index_name(shard.name), shard.index.content())
        os.rename(shard.path, os.path.join(self.root, shard.name))
        shard.close()
        if self.is_synced:
            sync_folder(self.root)

    def list_shards(self) -> None:
        """Bring the list of shards up to date.

        Raises:
            OSError: It cannot be written.
        """
        list_shards(self.root, self._replace)

    def take_over(self, ends: Ends) -> list[str]:
        """Seal the parts of workers that died, without what they had not settled; returns the shards' names.

        One that cannot be read or changed stays as it is, which is said on stderr.

        Args:
            ends: Asked for parts that nobody else can write to any more.

        Raises:
            OSError: The directory, or what is recorded, cannot be read.
        """
        sealed: list[str] = []
        parts = self._parts_of_the_dead()
        # Many at a time, since all records are read to find where they end; but each of them is open.
        while some := list(islice(parts, _PARTS_AT_A_TIME)):
            try:
                recorded = ends([shard.name for shard in some])
                sealed += [shard.name for shard in some if self._take_over(shard, recorded)]
            finally:
                for shard in some:
                    shard.close()
        return sealed

    def _take_over(self, shard: Shard, recorded: dict[str, int] | None) -> bool:
        """Seal one part, or remove it if nothing in it was settled; returns whether it is sealed."""
        try:
            if self._restore(shard, recorded):
                self.seal(shard)
                return True
            remove(os.path.join(self.root, index_name(shard.name)))
            shard.remove()
        except OSError as error:
            notify(
                f"{shard.path!r}, which a worker that died has left, cannot be sealed yet "
                f"({type(error).__name__}: {error}); what is recorded in it is kept, and the next writer that opens "
                "the directory seals it"
            )
        return False

    def _parts_of_the_dead(self) -> Iterator[Shard]:
        for file in sorted(os.listdir(self.root)):
            name = file.removesuffix(UNSEALED)
            if name == file or not is_shard(name):
                continue
            path = os.path.join(self.root, file)
            try:
                descriptor = own.open(os.open, path, OPEN)
            except FileNotFoundError:
                continue  # it is sealed meanwhile
            except OSError as error:
                if not os.path.islink(path):
                    notify(
                        f"{path!r}, which a worker that died may have left, cannot be opened ({type(error).__name__}: "
                        f"{error}); it stays as it is, and what is recorded in it is read there"
                    )
                continue
            # Only where a lock tells that its worker is gone; and it may have sealed it before it went.
            if self._lock(descriptor, name) and is_at(descriptor, path):
                yield Shard(path, descriptor, name)
            else:
                own.close(descriptor)

    @staticmethod
    def _restore(shard: Shard, ends: dict[str, int] | None) -> bool:
        """Find out what a part holds, and cut off the rest; returns whether it holds anything."""
        size = os.fstat(shard.descriptor).st_size
        recorded = None if ends is None else ends.get(shard.name)
        stop = size if recorded is None else round_up(recorded)
        is_recorded = False
        for sample in samples_in(shard.descriptor, stop=stop):
            is_recorded = sample.members[0].is_recorded
            shard.index.add([(one.name, one.offset, one.size) for one in sample.members], sample.end)
            shard.settled = sample.end
        if recorded is not None and size >= stop:
            shard.settled = stop  # also where a header in the middle is damaged
        elif recorded is None and is_recorded and ends is not None:
            shard.settled = 0
        shard.cut(shard.settled)
        return shard.settled > 0

    def _lock(self, descriptor: int, name: str) -> bool | None:
        """Lock a part; returns None where there are no locks, and False if another one has it."""
        try:
            try_lock(descriptor, os.path.join(self.root, RESERVED_PREFIX, name))
        except BlockingIOError:
            return False
        except NoLocks:
            return None
        return True

    def _next_number(self, lane: int) -> int:
        if lane not in self._numbers:
            names = [one.removesuffix(UNSEALED) for one in os.listdir(self.root)]
            # Also those of removed shards: records, and readers that are open, tell of these names.
            names += [*removed_shards(self.root), *shards_recorded(self.root, self.rank, lane)]
            taken = [numbers_of(one) for one in names]
            self._numbers[lane] = max((one[2] for one in taken if one and one[:2] == (self.rank, lane)), default=-1)
        self._numbers[lane] += 1
        return self._numbers[lane]

    def _replace(self, name: str, content: bytes) -> None:
        temporary, descriptor = self.files.write(name, [memoryview(content)])
        try:
            try:
                if self.is_synced:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            name_part(temporary, os.path.join(self.root, name), replace=True)
        except BaseException:
            remove(temporary)
            raise
