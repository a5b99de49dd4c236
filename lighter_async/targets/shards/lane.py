"""A worker's way into shards: whole units go to the end of a part, which becomes a shard when it is full."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lighter_async.targets.earlier import Earlier
from lighter_async.targets.lane import Item, Lane, Outcome, Placed, PlacedRows, RowItems
from lighter_async.targets.shards.folder import ShardFolder
from lighter_async.targets.shards.header import BLOCK, Headers
from lighter_async.targets.shards.keys import member_name, member_names
from lighter_async.targets.shards.shard import Shard

__all__ = ["Limits", "ShardLane"]

_LARGE = 1 << 20  # bytes from which on a sample is written at once, instead of being copied to wait for its unit
_MOST_WAITING = 8 << 20  # bytes that wait, or are written as a table


@dataclass(frozen=True, slots=True)
class Limits:
    """When a shard is full.

    Attributes:
        nbytes: Its size. A single sample may be larger.
        samples: Its samples; None for any number.
    """

    nbytes: int
    samples: int | None

    def is_full(self, shard: Shard) -> bool:
        """Whether nothing more goes into it."""
        return shard.end >= self.nbytes or (self.samples is not None and shard.samples >= self.samples)

    def has_room(self, shard: Shard, nbytes: int) -> bool:
        """Whether a sample of some bytes goes into it."""
        return not shard.end or (shard.end + nbytes <= self.nbytes and not self.is_full(shard))


@dataclass(slots=True, eq=False)
class _Waiting:
    """A sample that was put and is not settled.

    Attributes:
        members: The name, the bytes before the content, and the size of each member, in the order in which they lie.
        pieces: What is written; nothing once it is.
        nbytes: Of the pieces.
        shard: Where it is written to.
        begin: Where in the shard.
        error: Why it could not be.
    """

    members: list[tuple[str, int, int]]
    pieces: list[bytes | memoryview]
    nbytes: int
    shard: Shard | None = None
    begin: int = 0
    error: BaseException | None = None

    def places(self) -> list[tuple[str, int, int]]:
        """The name, offset and size of each member in the shard."""
        place, found = self.begin, []
        for name, before, size in self.members:
            found.append((name, place + before, size))
            place += before + size + -size % BLOCK
        return found

    @property
    def end(self) -> int:
        return self.begin + self.nbytes


@dataclass(eq=False)
class ShardLane(Lane):
    """Appends to a part of its own, and begins the next one when that is full.

    Attributes:
        folder: Where.
        number: Which of the workers it is for.
        limits: When a shard is full.
        earlier: What earlier runs have stored, where that is not stored again.
    """

    folder: ShardFolder
    number: int
    limits: Limits
    earlier: Earlier | None = None
    _is_recorded: bool = False
    _shard: Shard | None = None
    _full: list[Shard] = field(default_factory=list)  # to be sealed
    _waiting: list[_Waiting] = field(default_factory=list)
    _unwritten: int = 0  # bytes of those that wait to be written
    _sealed: list[str] = field(default_factory=list)  # that was not told yet
    _is_listed: bool = True
    _headers: Headers | None = None
    _unsealable: int = 0  # full shards, when they could not be sealed

    @property
    def is_full(self) -> bool:  # type: ignore[override]
        """Whether what waits takes as much memory as it may."""
        return self._unwritten >= _MOST_WAITING

    @property
    def wants_seal(self) -> bool:  # type: ignore[override]
        """Whether more shards are full than there were when they could not be sealed."""
        return self._count_full() > self._unsealable

    def recover(self, ends: Callable[[Sequence[str]], dict[str, int]]) -> None:
        self._is_recorded, self._headers = True, None
        own = self._own()
        if own:
            found = ends([shard.name for shard in own])
            for shard in own:
                shard.cut(found.get(shard.name, 0))
        self._note_sealed(self.folder.take_over(ends))

    def put(self, item: Item, *, redelivered: bool) -> Outcome | None:
        if self.earlier is not None and self.earlier.keeps([part.file for part in item.parts]):
            return False
        if self._headers is None:
            self._headers = Headers(int(time.time()), is_recorded=self._is_recorded)
        names = [member_name(item.name, part.suffix) for part in item.parts]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two outputs of sample {item.name!r:.100} would have one name in a shard, {names[0]!r:.100}, since "
                "readers tell no capital letters from small ones; give the outputs names that differ otherwise"
            )
        waiting = _Waiting([], [], 0)
        following = len(names)
        for name, part in zip(names, item.parts, strict=True):
            following -= 1
            data = list(part.data)
            size = sum([piece.nbytes for piece in data])
            header = self._headers.make(name, size, following)
            waiting.members.append((name, len(header), size))
            waiting.pieces += [header, *data, bytes(-size % BLOCK)]
            waiting.nbytes += len(header) + size + -size % BLOCK
        if waiting.nbytes < _LARGE:
            waiting.pieces = [b"".join(waiting.pieces)]
            self._waiting.append(waiting)
            self._unwritten += waiting.nbytes
            return None
        self._write()
        self._write_group([waiting])
        if waiting.error is not None:
            raise waiting.error
        self._waiting.append(waiting)
        return None

    takes_rows = True

    def put_rows(self, items: RowItems, on_progress: Callable[[int], None]) -> PlacedRows | None:
        samples, parts = len(items.names), items.parts
        stride = sum([BLOCK + part.encoded.nbytes + -part.encoded.nbytes % BLOCK for part in parts])
        if self.earlier is not None or stride * samples > _MOST_WAITING or not self._takes(samples, stride):
            return None
        names = [member_names(items.names, part.suffix) for part in parts]
        if len({some[0] for some in names}) < len(names):
            return None
        if self._headers is None:
            self._headers = Headers(int(time.time()), is_recorded=self._is_recorded)
        headers, self._headers = self._headers, None
        table = np.empty((samples, stride), np.uint8)
        contents: list[int] = []  # where each part's begins in a row of the table
        place = 0
        for number, (part, some) in enumerate(zip(parts, names, strict=True), 1):
            encoded = [name.encode("utf-8", "surrogateescape") for name in some]
            size, content = part.encoded.nbytes, place + BLOCK
            if not headers.fill(table[:, place:content], encoded, size, len(parts) - number):
                return None
            part.encoded.fill(table[:, content : content + size])
            place = content + size + -size % BLOCK
            table[:, content + size : place] = 0
            contents.append(content)
        shard = self._shard_with_room(table.nbytes)
        begin = shard.end
        shard.put([table.data.cast("B")], samples)
        offsets = tuple([begin + content for content in contents])
        sizes = [part.encoded.nbytes for part in parts]
        try:
            if self.folder.is_synced:
                shard.sync()
            shard.index.add_rows(list(zip(names, offsets, sizes, strict=True)), begin, stride)
        except BaseException:
            shard.drop_unsettled()
            raise
        shard.settled = shard.end
        return PlacedRows(shard.name, offsets, stride)

    def _takes(self, samples: int, stride: int) -> bool:
        """Whether so many samples may lie in one shard, and do not reach beyond the one that is begun."""
        limits, shard = self.limits, self._shard
        if stride * samples > limits.nbytes:
            return False
        there = 0 if shard is None or limits.is_full(shard) else shard.samples
        return limits.samples is None or there + samples <= limits.samples

    def settle(self, on_progress: Callable[[int], None]) -> list[Outcome | BaseException]:
        try:
            for position in range(len(self._waiting)):
                on_progress(position)
            self._write()
            self._sync()
        except BaseException:
            self.leave()
            raise
        outcomes: list[Outcome | BaseException] = []
        for one in self._waiting:
            if one.error is not None or one.shard is None or one.shard.descriptor < 0:
                gone = FileNotFoundError(errno.ENOENT, "somebody has removed the shard that it was written to")
                outcomes.append(one.error or gone)
                continue
            places = one.places()
            one.shard.index.add(places, one.end)
            one.shard.settled = one.end
            outcomes.append(Placed(one.shard.name, tuple([offset for _, offset, _ in places])))
        self._waiting = []
        self._headers = None
        return outcomes

    def seal(self) -> Sequence[str]:
        return self._seal_all(list(self._own()))

    def seal_full(self) -> Sequence[str]:
        return self._seal_all(list(self._own() if self._count_full() > len(self._full) else self._full))

    def _seal_all(self, shards: Sequence[Shard]) -> Sequence[str]:
        failed: OSError | None = None
        for shard in shards:
            try:
                self._seal(shard)
            except OSError as error:
                failed = failed or error
        if not self._is_listed:
            try:
                self.folder.list_shards()
                self._is_listed = True
            except OSError as error:
                failed = failed or error
        self._unsealable = self._count_full()
        if failed is not None:
            raise failed
        sealed, self._sealed = self._sealed, []
        return sealed

    def leave(self) -> None:
        self._waiting, self._unwritten, self._headers = [], 0, None
        for shard in self._own():
            shard.drop_unsettled()

    def close(self) -> None:
        for shard in self._own():
            if shard.settled:
                shard.close()
                continue
            try:
                shard.remove()
            except OSError:
                pass  # the next writer that opens the directory does
        self._full, self._shard = [], None

    def _write(self) -> None:
        """Write what waits: all of it at once, as far as it goes into one shard."""
        group: list[_Waiting] = []
        samples = end = 0  # of the shard, with the group
        for one in self._waiting:
            if not one.pieces:
                continue
            if group and (end + one.nbytes > self.limits.nbytes or samples == self.limits.samples):
                self._write_group(group)
                group = []
            if not group:
                shard = self._shard
                has_room = shard is not None and self.limits.has_room(shard, one.nbytes)
                samples, end = (shard.samples, shard.end) if shard is not None and has_room else (0, 0)
            group.append(one)
            samples += 1
            end += one.nbytes
        if group:
            self._write_group(group)
        self._unwritten = 0

    def _write_group(self, group: Sequence[_Waiting]) -> None:
        """Write some samples one behind the other, all of them or none; then each has its place, or its error."""
        try:
            shard = self._shard_with_room(group[0].nbytes)
            begin = shard.end
            shard.put([piece for one in group for piece in one.pieces], len(group))
        except OSError as error:
            for one in group:
                one.error = error
                one.pieces = []
            return
        for one in group:
            one.shard, one.begin, one.pieces = shard, begin, []
            begin += one.nbytes

    def _shard_with_room(self, nbytes: int) -> Shard:
        shard = self._shard
        if shard is not None and not shard.is_there:
            shard.close()  # somebody has removed it, with all that was in it
            shard = self._shard = None
        if shard is not None and not self.limits.has_room(shard, nbytes):
            self._full.append(shard)
            shard = self._shard = None
        if shard is None:
            shard = self._shard = self.folder.begin(self.number)
        return shard

    def _sync(self) -> None:
        if not self.folder.is_synced:
            return
        for shard in self._own():
            written = [one for one in self._waiting if one.shard is shard]
            if not written:
                continue
            try:
                shard.sync()
            except OSError as error:
                shard.drop_unsettled()
                for one in written:
                    one.error = error

    def _count_full(self) -> int:
        is_full = self._shard is not None and self.limits.is_full(self._shard)
        return len(self._full) + is_full

    def _own(self) -> list[Shard]:
        return self._full if self._shard is None else [*self._full, self._shard]

    def _seal(self, shard: Shard) -> None:
        if not shard.settled or not shard.is_there:
            shard.remove()
        else:
            self.folder.seal(shard)
            self._note_sealed([shard.name])
        if shard is self._shard:
            self._shard = None
        else:
            self._full.remove(shard)

    def _note_sealed(self, names: Sequence[str]) -> None:
        if names:
            self._sealed += names
            self._is_listed = False
