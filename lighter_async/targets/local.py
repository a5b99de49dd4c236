"""A folder of this machine, or of a file system it has mounted."""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import describe
from lighter_async.forks import no_fork
from lighter_async.interrupts import run_handlers
from lighter_async.locks import LOCK_ENDING, Owner, RunLock, this_process, wait_for_orphaned_helpers
from lighter_async.names import RESERVED_PREFIX
from lighter_async.notices import notify
from lighter_async.runs import begin_run
from lighter_async.store import DirectoryStore, Store
from lighter_async.targets.base import Features
from lighter_async.targets.existing_files import Precedence
from lighter_async.targets.file_lanes import FileLane, SyncedLane
from lighter_async.targets.lane import Lane
from lighter_async.targets.leftovers import clear_leftovers
from lighter_async.targets.name_rules import NameRules
from lighter_async.targets.small_files import put_small_files
from lighter_async.types import Durability, IfExists, Run, launched_run
from lighter_async.whole_files import local_path, new_token, remove, sync_folder, was_unremoved, write_part
from lighter_async.without_links import make_folders

__all__ = ["LocalTarget", "wait_until_free"]

_SECONDS_FOR_ORPHANS = 600.0


class LocalTarget:
    """Stores each sample as a file below a directory: first under a temporary name in its folder, then renamed.

    Whatever ends the process, there are only whole files under final names. What a crash leaves are temporary
    files: while a writer is open it holds a lock in ``.lighter-async/`` that the kernel releases when its process and
    its helpers have ended, and the next writer on the directory clears the temporary files of those whose lock is free.
    A writer that could not remove one itself, as in a folder that was immutable, leaves the lock's file for that.

    Args:
        directory: Made if it does not exist. A relative one is below the working directory of the moment `open` is
            called.
        if_exists: What becomes of a file of an earlier run under a sample's name: ``"overwrite"`` replaces it,
            ``"skip"`` keeps it and leaves the sample out, ``"error"`` keeps it and fails the sample with
            `FileExistsError`.
        durability: ``"rename"``: a file outlives the end of any process, but a loss of power may cost the last ones
            or leave them empty. ``"fsync"``: what is reported as stored outlives that, too.
        run: Which of several ranks stores here. Of two that store a sample under one name the second one is refused.

    Raises:
        ValueError: `if_exists` or `durability` is none of its values.
    """

    features = Features(has_paths=True, has_directory=True)

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        if_exists: IfExists = "overwrite",
        durability: Durability = "rename",
        run: Run | None = None,
    ) -> None:
        if if_exists not in get_args(IfExists):
            raise ValueError(f"if_exists is one of {', '.join(map(repr, get_args(IfExists)))}, not {if_exists!r}")
        if durability not in get_args(Durability):
            raise ValueError(f"durability is one of {', '.join(map(repr, get_args(Durability)))}, not {durability!r}")
        self.directory = local_path(directory)
        self.if_exists = if_exists
        self.durability = durability
        self.run = run or launched_run() or Run()
        self.since = self.run.since
        self._owner: Owner | None = None  # of a copy in a helper: the process that it works for
        self._root = ""
        self._token = ""
        self._lock: RunLock | None = None
        self._rules = NameRules("")
        self._precedence = Precedence("", since=None, is_alone=True)
        self._linked: set[str] = set()  # folders whose names are synced

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy in another process opens for itself: with a lock and temporary names of its own.
        make = partial(type(self), if_exists=self.if_exists, durability=self.durability, run=self.run)
        state = {"since": self.since, "_owner": self._owner or this_process(self.run.id)}
        return make, (os.path.abspath(self.directory),), state

    def __repr__(self) -> str:
        where = os.fspath(self.directory)
        return f"{type(self).__name__}({where!r}, if_exists={self.if_exists!r}, durability={self.durability!r})"

    def of_run(self, run: Run, directory: str | os.PathLike[str] | None = None) -> LocalTarget:
        """The same target for one rank of a run, which is not open.

        Args:
            run: Which run, and which of its ranks.
            directory: Where that run stores. None: where this target does.
        """
        made = copy.copy(self)
        made.run, made.since = run, run.since
        if directory is not None:
            made.directory = local_path(directory)
        made._owner = None  # no copy in a helper, as those that are pickled
        return made

    def store(self) -> Store:
        """What reads the samples back, whether the target is open or not."""
        return DirectoryStore(self.directory)

    @property
    def location(self) -> str:
        """The directory's real path, so that two ways to one directory are one location."""
        return os.path.realpath(self.directory)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What helpers are to inherit, so that the lock is held until they have ended, too."""
        return () if self._lock is None else (self._lock.descriptor,)

    def open(self) -> None:
        """Make the directory, wait for helpers of a process that has died, clear what a crash has left, and lock.

        Raises:
            NotADirectoryError: There is a file where the directory, or a folder above it, should be.
            TimeoutError: Helpers of a process that has died have been at work here for ten minutes, or somebody has
                had the list of runs locked for one.
            OSError: The directory cannot be made or written to.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise NotADirectoryError(
                f"{os.fspath(self.directory)!r} cannot be a directory, because there is a file in its way; "
                "choose another directory"
            ) from error
        self._root = os.path.abspath(self.directory)
        self._rules = NameRules(self._root)
        folder = os.path.join(self._root, RESERVED_PREFIX)
        if os.path.islink(folder):
            raise NotADirectoryError(
                f"{folder!r} is a link, and nothing is stored through one; remove it, or choose another directory"
            )
        if self._owner is None:
            wait_for_orphaned_helpers(folder, timeout=_SECONDS_FOR_ORPHANS)
        with no_fork:
            self._lock = self._acquire_lock(folder)
            _open_here.add(self)
        try:
            if self.since is None:
                # By the file system's clock. Ranks that open later take over what the first one has entered.
                since = os.fstat(self._lock.descriptor).st_mtime_ns
                if not self._is_alone:
                    since = begin_run(self._root, self.run.id, since, waiting=run_handlers).since
                self.since = since
            self._precedence = Precedence(self._root, since=self.since, is_alone=self._is_alone)
            if self._owner is None:
                failure = clear_leftovers(self._root, but=self._token)
                if failure is not None:
                    notify(
                        f"temporary files that an earlier run has left in {self._root!r} cannot be removed "
                        f"({describe(failure)}); they are no samples, and the next run tries again"
                    )
                if self.durability == "fsync":
                    _sync_upwards(self._root)
        except BaseException:
            self.close()
            raise

    def check(self, names: Sequence[str]) -> None:
        """Refuse names that this directory cannot hold.

        Raises:
            InvalidNameError: One, one of its folders, or the whole path is too long for the file system, or there is a
                file where it needs a folder.
        """
        self._rules.check(names)

    def keeps(self, name: str) -> bool:
        """Whether `put` would keep a file of an earlier run and leave the sample out."""
        return self.if_exists == "skip" and self._precedence.is_kept(name)

    def keeps_redelivered(self, name: str) -> bool:
        """As `keeps`, where this run may have stored the sample, which is not kept then."""
        return self.if_exists == "skip" and self._precedence.is_of_earlier_run(name)

    def put(self, name: str, parts: Sequence[memoryview]) -> bool:
        """Write a file, whole or not at all, and make its folder if there is none.

        Returns:
            Whether it was written; False if one of an earlier run was kept instead.

        Raises:
            FileExistsError: There is one of an earlier run, and ``if_exists="error"``.
            NameTakenError: Another rank of this run has stored a sample under the name.
            OSError: It could not be written. Nothing is left behind.
        """
        return self._put(name, parts, replace_own=False)

    def put_redelivered(self, name: str, parts: Sequence[memoryview]) -> bool:
        """As `put`, in the place of a file that this run has stored."""
        return self._put(name, parts, replace_own=True)

    def put_small(
        self, files: Sequence[str], rows: NDArray[np.uint8], on_progress: Callable[[int], None]
    ) -> Sequence[bool | BaseException]:
        """`put` for each of several files of equal size; returns what that returned or raised.

        Args:
            files: Their names.
            rows: Their bytes: 2-d, a row for each.
            on_progress: Called with the number of each before it is stored. What it raises is raised.
        """
        if self.if_exists == "overwrite" and self._is_alone and not self._stores_its_own_way:
            return put_small_files(
                self._root,
                files,
                rows,
                token=self._token,
                check_links=self._rules.check_links,
                put=self.put,
                on_progress=on_progress,
            )
        outcomes: list[bool | BaseException] = []
        for number, file in enumerate(files):
            on_progress(number)
            try:
                outcomes.append(self.put(file, (rows[number].data,)))
            except Exception as error:
                outcomes.append(error)
        return outcomes

    @property
    def _stores_its_own_way(self) -> bool:
        """Whether a subclass stores single files in another way, which then holds for all of them."""
        kind = type(self)
        return not (
            kind.put is LocalTarget.put and kind.write is LocalTarget.write and kind.publish is LocalTarget.publish
        )

    def lane(self, number: int) -> Lane:
        """A worker's own way in: files are stored one by one, or synced together, as `durability` says."""
        if self.durability == "fsync":
            return SyncedLane(self, root=self._root, linked=self._linked)
        return FileLane(self)

    def path(self, name: str) -> Path:
        """The final path of a sample, with its folders made, for functions that write there themselves."""
        path = Path(self._root, name)
        folder, slash, _ = name.rpartition("/")
        if slash:
            self._rules.check_links(name)
            make_folders(self._root, folder)
        return path

    def close(self) -> None:
        """Mark the directory as no longer in use by this target. It may be called again."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        _open_here.discard(self)
        but = self._token
        if was_unremoved(but):
            lock.forget()  # its file stays, by which whoever clears up finds what is left
            but = ""
        else:
            lock.release()
        if self._owner is None:
            try:
                clear_leftovers(self._root, but=but)  # also of helpers that were killed
            except OSError:
                pass  # the next writer does
        try:
            os.rmdir(os.path.dirname(lock.path))
        except OSError:
            pass  # other writers are at work, or there is a manifest

    def forked(self) -> None:
        """In a forked child: let go of the lock, which the parent keeps."""
        if self._lock is not None:
            self._lock.forget()

    # The two steps of storing a file

    def write(self, name: str, parts: Sequence[memoryview]) -> tuple[str, int]:
        """Write the temporary file of a sample; returns its path, and its descriptor, still open.

        Raises:
            OSError: It could not be written. Nothing is left behind.
        """
        path = f"{self._root}/{name}"
        if "/" in name:
            self._rules.check_links(name)
        try:
            return write_part(path, parts, token=self._token)
        except FileNotFoundError:
            # The first sample of a folder makes it, and so does the next one if somebody removes it.
            os.makedirs(self._root, exist_ok=True)
            folder, slash, _ = name.rpartition("/")
            if slash:
                make_folders(self._root, folder)
            self._linked.clear()
            return write_part(path, parts, token=self._token)

    def publish(self, temporary: str, name: str, *, replace_own: bool, replace_earlier: bool = False) -> bool:
        """Give a temporary file its name, or remove it; returns and raises as `put`.

        Args:
            temporary: Its path.
            name: The name.
            replace_own: Whether it may replace a file that this run has stored.
            replace_earlier: Whether it may replace a file of an earlier run, whatever `if_exists` says.
        """
        return self._precedence.publish(
            temporary, name, replace_own=replace_own, if_exists="overwrite" if replace_earlier else self.if_exists
        )

    def _put(self, name: str, parts: Sequence[memoryview], *, replace_own: bool) -> bool:
        temporary, descriptor = self.write(name, parts)
        try:
            os.close(descriptor)
        except BaseException:  # a network file system may say only now that its disk is full
            remove(temporary)
            raise
        return self.publish(temporary, name, replace_own=replace_own)

    def set_aside(self, names: Sequence[str], *, replace_earlier: bool) -> list[tuple[str, str]]:
        """As `Precedence.set_aside`, where `publish` would replace files.

        Args:
            names: The files.
            replace_earlier: As of `publish`.
        """
        if self.if_exists != "overwrite" and not replace_earlier:
            return []
        return self._precedence.set_aside(names, token=self._token)

    def put_back(self, aside: Sequence[tuple[str, str]]) -> None:
        """As `Precedence.put_back`."""
        self._precedence.put_back(aside)

    def unpublish(self, name: str) -> None:
        """Remove a file that `publish` has named a moment ago."""
        remove(f"{self._root}/{name}")

    @property
    def _is_alone(self) -> bool:
        return self.run.world_size == 1

    def _acquire_lock(self, folder: str) -> RunLock:
        while True:
            self._token = new_token()
            lock = RunLock(os.path.join(folder, self._token + LOCK_ENDING))
            try:
                os.makedirs(folder, exist_ok=True)
                if lock.acquire(self._owner or this_process(self.run.id)):
                    return lock
            except (FileExistsError, FileNotFoundError):
                if os.path.isfile(folder) or os.path.islink(folder):
                    raise
            # Another writer has removed the empty folder, or took our file for a dead writer's.


def wait_until_free(directory: str | os.PathLike[str]) -> None:
    """Wait until helpers of processes that have died have stored what those handed over to a directory.

    Raises:
        TimeoutError: They have been at work for ten minutes.
    """
    wait_for_orphaned_helpers(os.path.join(local_path(directory), RESERVED_PREFIX), timeout=_SECONDS_FOR_ORPHANS)


def _sync_upwards(folder: str) -> None:
    """Sync a folder, and those above it on its file system, for some of them may have been made just now."""
    device = os.stat(folder).st_dev
    while os.stat(folder).st_dev == device:
        try:
            sync_folder(folder)
        except OSError:
            pass  # it is not ours, and was there before; what is wrong with ours, storing tells
        if folder == (folder := os.path.dirname(folder)):
            return


# Whose locks a forked child has to let go of: a data loader's worker would hold them beyond its parent's death.
_open_here: weakref.WeakSet[LocalTarget] = weakref.WeakSet()


def _forked() -> None:
    for target in list(_open_here):
        target.forked()
    _open_here.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
