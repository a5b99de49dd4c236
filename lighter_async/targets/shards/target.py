"""Tar shards in a directory, in the layout of WebDataset."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from threading import Lock
from typing import Any

from lighter_async.errors import InvalidNameError
from lighter_async.manifest import ManifestLog
from lighter_async.manifest.reader import manifest_files
from lighter_async.targets.base import Features
from lighter_async.targets.clashes import check_ranks
from lighter_async.targets.earlier import Earlier
from lighter_async.targets.in_folder import InFolder
from lighter_async.targets.lane import Item, Lane, Part
from lighter_async.targets.local import LocalTarget
from lighter_async.targets.shards.folder import ShardFolder
from lighter_async.targets.shards.keys import encoded_name
from lighter_async.targets.shards.lane import Limits, ShardLane
from lighter_async.targets.shards.removed import finish_removals, wait_until_compacted
from lighter_async.types import Durability, IfExists, Run

__all__ = ["TarShards"]

_LONGEST_COMPONENT = 255  # bytes, as file systems have it: shards are unpacked there
_LONGEST_NAME = 4000  # bytes
_SECONDS_FOR_COMPACTING = 600.0
_OF_NO_WORKER = 999  # the lane of `put`, beyond those of workers


class TarShards(InFolder):
    """Stores samples in tar files, many in each: shards in the layout of WebDataset.

    Each worker appends to a shard of its own, ``shard-RANK-WORKER-NUMBER.tar``, which is called so once it is full, at
    ``flush(seal=True)``, or when the writer is closed; until then ``.part`` follows. A sample is a member, or several
    neighbours where it has several outputs, under its name with the dots percent-encoded: ``case%2E1.mask.png``.
    Beside each shard lies its index, ``shard-….idx``, and beside all of them the list of shards, ``shards.json``.

    What is recorded as stored is in the part, whatever ends the process; what was not is cut off by whoever opens the
    directory next, and the part is sealed. See docs/shards.md.

    Args:
        directory: Made if it does not exist. A relative one is below the working directory of the moment `open` is
            called.
        shard_bytes: The largest size of a shard, without the 1,024 bytes that it ends with. A larger sample gets one of
            its own.
        shard_samples: The most samples of a shard; None for any number.
        if_exists: What becomes of a sample that an earlier run has recorded: ``"overwrite"`` stores it once more, and
            its later record counts; ``"skip"`` leaves it out, and ``"error"`` fails it with `FileExistsError`. No
            shard of an earlier run is changed or removed.
        durability: ``"rename"``: what is stored outlives the end of any process. ``"fsync"``: a loss of power, too.
        run: Which of several ranks stores here.

    Raises:
        ValueError: An option is none of its values.
    """

    features = Features(has_directory=True)

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        shard_bytes: int = 1 << 30,
        shard_samples: int | None = None,
        if_exists: IfExists = "overwrite",
        durability: Durability = "rename",
        run: Run | None = None,
    ) -> None:
        self.shard_bytes = _at_least_one("shard_bytes", shard_bytes)
        self.shard_samples = None if shard_samples is None else _at_least_one("shard_samples", shard_samples)
        super().__init__(LocalTarget(directory, if_exists=if_exists, durability=durability, run=run))

    def _kept(self) -> dict[str, Any]:
        return {"shard_bytes": self.shard_bytes, "shard_samples": self.shard_samples}

    def _reset(self) -> None:
        self._lock = Lock()
        self._lane: ShardLane | None = None  # of `put`
        self._shards: ShardFolder | None = None
        self._earlier: Earlier | None = None

    def of_run(self, run: Run, directory: str | os.PathLike[str] | None = None) -> TarShards:
        """The same target for one rank of a run, which is not open.

        Args:
            run: Which run, and which of its ranks.
            directory: Where that run stores. None: where this target does.
        """
        made = copy.copy(self)
        made._folder = self._folder.of_run(run, directory)
        made._is_copy = False  # none in a helper, as those that are pickled
        return made

    def open(self) -> None:
        """Make and lock the directory, and seal what workers of processes that died have left, as far as it is stored.

        Raises:
            NotADirectoryError: There is a file where the directory, or a folder above it, should be.
            TimeoutError: Helpers of a process that has died, or ``lighter-async compact``, have been at work here for
                ten minutes.
            OSError: The directory cannot be made or written to, or what was left cannot be read or changed.
        """
        self._folder.open()
        root = os.path.abspath(self.directory)
        if not self._is_copy:
            try:
                # Behind our own lock, which compacting looks for once it has its own.
                wait_until_compacted(root, timeout=_SECONDS_FOR_COMPACTING)
            except BaseException:
                self._folder.close()
                raise
        self._shards = ShardFolder(root, self.run.rank, self.durability == "fsync", self._folder)
        if self.if_exists != "overwrite":
            self._earlier = Earlier(root, self.run.id, self.if_exists, self.run.key)
        if self._is_copy:
            return  # the process that this one works for has done it
        try:
            self._shards.take_over(self._recorded_ends)
            finish_removals(root)
            self._shards.list_shards()
        except BaseException:
            self.close()
            raise

    def check(self, names: Sequence[str]) -> None:
        """Refuse names that are too long to be unpacked as files.

        Raises:
            InvalidNameError: One is, or one of its folders, as a member of a shard.
        """
        # Together first, since nearly all are short: a character is at most four bytes.
        if max(map(len, names)) * 4 <= _LONGEST_COMPONENT:
            return
        for name in names:
            member = encoded_name(name).encode("utf-8", "surrogateescape")
            longest = max(map(len, member.split(b"/")))
            if longest > _LONGEST_COMPONENT or len(member) > _LONGEST_NAME:
                raise InvalidNameError(
                    f"name {name[:40]!r}... has {len(member)} bytes in a shard, of which {longest} in one component; "
                    f"{_LONGEST_NAME} and {_LONGEST_COMPONENT} can be unpacked as a file, so shorten it"
                )

    def keeps(self, name: str) -> bool:
        """Whether a sample that an earlier run has recorded stays, and this one is left out."""
        return self.if_exists == "skip" and self._earlier is not None and self._earlier.has(name)

    def put(self, name: str, parts: Sequence[memoryview]) -> bool:
        """Store a sample by itself, in a shard of those that no worker stores; all of it or nothing.

        Returns:
            Whether it was stored; False if one of an earlier run was kept instead.

        Raises:
            FileExistsError: There is one of an earlier run, and ``if_exists="error"``.
            OSError: It could not be stored. Nothing is left behind.
        """
        with self._lock:
            if self._lane is None:
                self._lane = self._make_lane(_OF_NO_WORKER)
            if self._lane.put(Item(name, [Part(name, "", parts)]), redelivered=False) is False:
                return False
            (outcome,) = self._lane.settle(lambda _: None)
            if isinstance(outcome, BaseException):
                raise outcome
            if self._lane.wants_seal:
                self._lane.seal()
            return True

    def lane(self, number: int) -> Lane:
        """A worker's own way in.

        Args:
            number: Which of the workers, from 0.
        """
        return self._make_lane(number)

    def close(self) -> None:
        """Seal what `put` has stored, and mark the directory as no longer in use. It may be called again.

        Raises:
            NameTakenError: This is the last rank to close, and two have stored different samples under one name.
        """
        lane, self._lane = self._lane, None
        was_open, self._shards = self._shards is not None, None
        try:
            if lane is not None:
                try:
                    lane.seal()
                finally:
                    lane.close()
        finally:
            self._folder.close()
        if was_open and not self._is_copy:
            check_ranks(self.run, os.path.abspath(self.directory), "shards")

    def _make_lane(self, number: int) -> ShardLane:
        if self._shards is None:
            raise ValueError(f"the target on {os.fspath(self.directory)!r} is not open; call open() first")
        return ShardLane(self._shards, number, Limits(self.shard_bytes, self.shard_samples), self._earlier)

    def _recorded_ends(self, shards: Sequence[str]) -> dict[str, int] | None:
        root = os.path.abspath(self.directory)
        return ManifestLog(root, self.run).ends_of(shards) if manifest_files(root) else None


def _at_least_one(option: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{option} is a whole number from 1 on, not {value!r:.100}")
    return value
