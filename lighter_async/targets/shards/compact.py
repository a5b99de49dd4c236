"""Rewriting shards without the members that nobody needs any more.

What is needed is copied to a part, as a worker writes one: it is synced, recorded and sealed, and only then are the
shards removed that it takes the place of. So a process that is killed leaves each sample where its record says, and
whoever opens the directory next does what is left to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import xxhash

from lighter_async.errors import LighterAsyncError
from lighter_async.locks import is_held
from lighter_async.locks.run_lock import lock_files
from lighter_async.manifest import Manifest, ManifestLog, Record, read_manifest
from lighter_async.manifest.so_far import ends_of
from lighter_async.manifest.verify import is_in_use, why_empty
from lighter_async.names import RESERVED_PREFIX
from lighter_async.positioned import read_from
from lighter_async.targets.local import LocalTarget
from lighter_async.targets.shards.folder import ShardFolder
from lighter_async.targets.shards.header import BLOCK, Headers
from lighter_async.targets.shards.keys import member_name
from lighter_async.targets.shards.listing import has_shards, no_directory, numbers_of
from lighter_async.targets.shards.removed import COMPACTING, finish_removals, remove_shards
from lighter_async.targets.shards.shard import Shard
from lighter_async.targets.shards.survey import Contents, survey
from lighter_async.targets.shards.walk import samples_in
from lighter_async.types import Run
from lighter_async.without_links import open_below

__all__ = ["Compaction", "compact"]

_LANE = 998  # of shards that are made of others, beyond those of workers
_CHUNK = 8 << 20  # bytes of a sample that are copied at a time


@dataclass
class Compaction:
    """What became of a directory's shards, or what would.

    Attributes:
        checked: How many sealed shards there were.
        rewritten: Those that gave way to smaller ones, without the members that nobody needs.
        removed: Those of which nothing counts.
        made: The new ones; none at a dry run.
        dropped: Members that are no longer there.
        past: Of these, those of runs that count no longer, which were the latest of their samples.
        freed: The bytes that this has freed; at a dry run those that it would.
        damaged: Shards that stay as they are, since a sample in them is damaged; and what is wrong.
        unknown: Shards that stay, since they hold samples that no manifest has ever told of.
    """

    checked: int = 0
    rewritten: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    dropped: int = 0
    past: int = 0
    freed: int = 0
    damaged: list[tuple[str, str]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def compact(
    directory: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    begin: Callable[[int], Callable[[], None]] | None = None,
) -> Compaction:
    """Rewrite the sealed shards of a directory that hold members which no record that counts tells of.

    What counts is what `open_results` and `pending` count: of each sample the latest record, of a run since the last
    one that did not resume. Results that are open go by the records that they have read: open them anew afterwards.

    Args:
        directory: The directory.
        dry_run: Change nothing, and tell what would be done. Whether samples are damaged is not looked at.
        begin: Called with the number of shards to rewrite; what it returns is called after each of them.

    Raises:
        FileNotFoundError: There is no directory, no shard in it, or no manifest.
        LighterAsyncError: A writer is at work there, or a later version has written the manifest.
        OSError: Something cannot be read or written. No sample is lost; what is done stays done.
    """
    root = os.path.abspath(directory)
    if not os.path.isdir(root):
        raise FileNotFoundError(no_directory(root))
    if not has_shards(root):
        raise FileNotFoundError(f"{root!r} holds no tar shards, so there is nothing to compact")
    if is_in_use(root):
        raise _in_use(root)
    if dry_run:
        return _Work(root, None, read_manifest(root)).tell()
    files = LocalTarget(root, durability="fsync", run=Run(id=COMPACTING + os.urandom(6).hex()))
    files.open()
    try:
        # Looked at behind our own lock, which writers look for behind theirs.
        if sum(map(is_held, lock_files(os.path.join(root, RESERVED_PREFIX)))) > 1:
            raise _in_use(root)
        manifest = _manifest_of(root)
        folder = ShardFolder(root, 0, True, files)
        folder.take_over(lambda shards: ends_of(root, shards))
        finish_removals(root)
        work = _Work(root, files, manifest)
        try:
            return work.run(begin)
        finally:
            work.close()
            folder.list_shards()
    finally:
        files.close()


def _in_use(root: str) -> LighterAsyncError:
    return LighterAsyncError(f"a writer is at work in {root!r}, and its shards cannot be rewritten; wait for its end")


def _manifest_of(root: str) -> Manifest:
    manifest = read_manifest(root)
    if not manifest.runs:
        raise FileNotFoundError(f"{root!r} {why_empty(manifest)}, so what is needed of its shards is not known")
    return manifest


_Listed: TypeAlias = "tuple[list[tuple[str, int, int]], int]"
"""The name, offset and size of each member of a sample, and where the sample ends."""


class _Damaged(Exception):
    """A sample that is not as it is recorded."""


class _Work:
    """Rewrites shards of one rank and of the same series into one part, for as long as they fit.

    Args:
        root: The directory.
        files: Writes files that are replaced in one step; None if nothing is to be changed.
        manifest: What is recorded.
    """

    def __init__(self, root: str, files: LocalTarget | None, manifest: Manifest) -> None:
        self._root = root
        self._files = files
        self._manifest = manifest
        self._suffixes = {(run.run, run.series): run.suffix for run in manifest.runs}
        self._done = Compaction()
        self._folders: dict[int, ShardFolder] = {}
        self._headers: dict[int, Headers] = {}
        self._shard: Shard | None = None
        self._group: tuple[object, ...] = ()
        self._replaced: list[Contents] = []  # by the part that is open
        self._limits = 0, 0  # bytes and samples of a new shard

    def tell(self) -> Compaction:
        """What `run` would do."""
        if not self._manifest.runs:
            raise FileNotFoundError(f"{self._root!r} {why_empty(self._manifest)}, so what is needed is not known")
        for one in self._to_rewrite():
            self._note(one)
            self._done.freed += one.freed
        return self._done

    def run(self, begin: Callable[[int], Callable[[], None]] | None) -> Compaction:
        """Rewrite what is to be rewritten."""
        shards = self._to_rewrite()
        tick = begin(len(shards)) if begin is not None else None
        # No new shard is larger than the largest one that is rewritten: what a writer was told is not known.
        self._limits = max((one.nbytes for one in shards), default=0), max((one.samples for one in shards), default=0)
        for one in shards:
            try:
                self._rewrite(one)
            except _Damaged as error:
                self._done.damaged.append((one.shard, str(error)))
            if tick is not None:
                tick()
        self._finish_part()
        return self._done

    def close(self) -> None:
        """Let go of a part that was not finished, which the next one to open the directory does."""
        shard, self._shard = self._shard, None
        if shard is None:
            return
        shard.drop_unsettled()
        if shard.settled:
            shard.close()
        else:
            shard.remove()

    def _to_rewrite(self) -> list[Contents]:
        found = []
        for one in survey(self._root, self._manifest):
            self._done.checked += 1
            if isinstance(one, str):
                self._done.unknown.append(one)
            elif one.trouble:
                self._done.damaged.append((one.shard, one.trouble))
            elif one.is_foreign:
                self._done.unknown.append(one.shard)
            elif one.unneeded or not one.needed:
                found.append(one)
        return sorted(found, key=lambda one: (_rank_of(one.shard), sorted(one.series), one.shard))

    def _note(self, one: Contents) -> None:
        (self._done.rewritten if one.needed else self._done.removed).append(one.shard)
        self._done.dropped += one.unneeded
        self._done.past += len(one.past_records())

    def _rewrite(self, one: Contents) -> None:
        """Copy what is needed of a shard and record it; the shard is removed once that is sealed."""
        shard = self._part_for(one) if one.needed else None
        moved: list[list[Record]] = []
        if shard is not None:
            try:
                moved, listed = self._copy(one, shard)
                shard.sync()
            except BaseException:
                shard.drop_unsettled()
                raise
            for members, end in listed:
                shard.index.add(members, end)
                shard.settled = end
        past = one.past_records()
        for rank in sorted({record.rank for record in (*(sample[0] for sample in moved), *past)}):
            log = self._log(rank)
            try:
                log.adopt_samples([sample for sample in moved if sample[0].rank == rank])
                log.drop([(record, None) for record in past if record.rank == rank])
            finally:
                log.close()
        self._replaced.append(one)
        self._note(one)

    def _part_for(self, one: Contents) -> Shard:
        rank, group = _rank_of(one.shard), (_rank_of(one.shard), one.series)
        shard, (nbytes, samples) = self._shard, self._limits
        if shard is not None and (
            group != self._group
            or shard.end + one.needed_bytes + 2 * BLOCK > nbytes
            or shard.samples + one.kept > samples
        ):
            self._finish_part()
        if self._shard is None:
            assert self._files is not None
            folder = self._folders.setdefault(rank, ShardFolder(self._root, rank, True, self._files))
            self._shard, self._group = folder.begin(_LANE), group
        return self._shard

    def _finish_part(self) -> None:
        """Seal the part, and remove the shards that it takes the place of."""
        shard = self._shard
        if shard is not None:
            if shard.settled:
                rank = _rank_of(shard.name)
                self._folders[rank].seal(shard)
                self._done.made.append(shard.name)
                self._done.freed -= os.stat(os.path.join(self._root, shard.name)).st_size
                log = self._log(rank)
                try:
                    log.seal([shard.name])
                finally:
                    log.close()
            else:
                shard.remove()
            self._shard = None
        remove_shards(self._root, [one.shard for one in self._replaced])
        self._done.freed += sum(one.nbytes for one in self._replaced)
        self._replaced = []

    def _copy(self, one: Contents, shard: Shard) -> tuple[list[list[Record]], list[_Listed]]:
        """Copy the members that are needed; returns their new records, and what the index says of each sample.

        Raises:
            _Damaged: One is not as it is recorded.
            OSError: They cannot be written.
        """
        moved: list[list[Record]] = []
        listed: list[_Listed] = []
        descriptor = open_below(self._root, one.shard)
        try:
            names = {member.offset: member.name for sample in samples_in(descriptor) for member in sample.members}
            for records in one.records():
                sample, members = [], []
                for following, record in zip(range(len(records) - 1, -1, -1), records, strict=True):
                    name = names.get(record.offset) or self._name_of(record)
                    headers = self._headers_of(record)
                    offset = _copy_member(descriptor, record, shard, headers.make(name, record.bytes or 0, following))
                    members.append((name, offset, record.bytes or 0))
                    sample.append(replace(record, file=shard.name, offset=offset))
                shard.put([], 1)
                moved.append(sample)
                listed.append((members, shard.end))
        finally:
            os.close(descriptor)
        return moved, listed

    def _name_of(self, record: Record) -> str:
        """What a member is called whose header is damaged."""
        suffix = self._suffixes.get((record.run, record.series))
        if suffix is None:
            raise _Damaged(f"the header of {record.name!r:.100} is damaged, and how it was called is not known")
        return member_name(record.name, suffix)

    def _headers_of(self, record: Record) -> Headers:
        """Headers with the time of a sample's unit."""
        time = min(max(int(record.time), 0), 8**11 - 1)
        if time not in self._headers:
            self._headers = {time: Headers(time, is_recorded=True)}
        return self._headers[time]

    def _log(self, rank: int) -> ManifestLog:
        log = ManifestLog(
            self._root, Run(id=COMPACTING.rstrip("-"), rank=rank, world_size=rank + 1), durability="fsync"
        )
        log.open()
        return log


def _copy_member(source: int, record: Record, shard: Shard, header: bytes) -> int:
    """Copy one member, and compare its checksum; returns where its content begins.

    Raises:
        _Damaged: It is not as it is recorded.
        OSError: It cannot be written.
    """
    state, place, left = xxhash.xxh3_64(), record.offset, record.bytes or 0
    offset = shard.end + len(header)
    pieces: list[bytes] = [header]
    while True:
        try:
            chunk = read_from(source, min(left, _CHUNK), place)
        except OSError as error:
            raise _Damaged(f"{record.name!r:.100} cannot be read ({error})") from error
        if left and not chunk:
            raise _Damaged(f"{record.name!r:.100} is cut off, and {left} of its {record.bytes} bytes are not there")
        state.update(chunk)
        place += len(chunk)
        left -= len(chunk)
        if not left:
            break
        shard.put([*pieces, chunk], 0)
        pieces = []
    if state.hexdigest() != record.xxh3:
        raise _Damaged(f"{record.name!r:.100} has the checksum {state.hexdigest()} instead of {record.xxh3}")
    shard.put([*pieces, chunk, bytes(-(record.bytes or 0) % BLOCK)], 0)
    return offset


def _rank_of(shard: str) -> int:
    numbers = numbers_of(shard)
    assert numbers is not None
    return numbers[0]
