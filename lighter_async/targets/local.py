"""A folder of this machine, or of a file system it has mounted."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock, Timeout

from lighter_async.errors import InvalidNameError
from lighter_async.files import PART_ENDING, new_token, publish
from lighter_async.names import RESERVED_PREFIX
from lighter_async.types import IfExists

__all__ = ["LocalTarget"]

_log = logging.getLogger(__name__)

_LOCK_ENDING = ".lock"
_KNOWN_FOLDERS = 100_000
_TEMPORARY_LENGTH = 64  # at most, of a temporary file's name


class LocalTarget:
    """Stores each sample as a file below a directory: first under a temporary name in its folder, then renamed.

    Whatever ends the process, there are only whole files under final names. What a crash leaves are temporary
    files: while a writer is open it holds a lock in ``.lighter-async/`` that the kernel releases when its process
    ends, and the next writer on the directory clears the temporary files of those whose lock is free. Power loss is
    not covered: nothing is synced.

    Args:
        directory: Made if it does not exist. A relative one is below the working directory of the moment `open` is
            called.
        if_exists: What becomes of a file of an earlier run under a sample's name: ``"overwrite"`` replaces it,
            ``"skip"`` keeps it and leaves the sample out, ``"error"`` keeps it and fails the sample with
            `FileExistsError`.

    Raises:
        ValueError: `if_exists` is none of the three.
    """

    def __init__(self, directory: str | os.PathLike[str], *, if_exists: IfExists = "overwrite") -> None:
        if if_exists not in get_args(IfExists):
            raise ValueError(f"if_exists is one of {', '.join(map(repr, get_args(IfExists)))}, not {if_exists!r}")
        self.directory = Path(directory)
        self.if_exists = if_exists
        self._root = ""
        self._token = ""
        self._name_max = 255
        self._path_max = 4096
        self._lock: FileLock | None = None
        # Folders that names may lie in. Only the submitting threads use it, and a race costs one more look.
        self._folders: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy in another process opens for itself: with a lock and temporary names of its own.
        return partial(type(self), if_exists=self.if_exists), (os.path.abspath(self.directory),)

    @property
    def location(self) -> str:
        """The directory's real path, so that two ways to one directory are one location."""
        return os.path.realpath(self.directory)

    def open(self) -> None:
        """Make the directory, clear what a crash has left in it, and mark it as in use.

        Raises:
            NotADirectoryError: There is a file where the directory, or a folder above it, should be.
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
        if hasattr(os, "pathconf"):
            self._name_max = os.pathconf(self._root, "PC_NAME_MAX")
            self._path_max = os.pathconf(self._root, "PC_PATH_MAX")
        self._lock = self._acquire_lock()
        try:
            self._clear_leftovers()
        except BaseException:
            self.close()
            raise

    def check(self, names: Sequence[str]) -> None:
        """Refuse names that this directory cannot hold.

        Raises:
            InvalidNameError: One, one of its folders, or the whole path is too long for the file system, or there is a
                file where it needs a folder.
        """
        # Together first, since nearly all are short: a character is at most four bytes.
        most = max(map(len, names))
        if most * 4 > self._name_max or (len(self._root) + most + _TEMPORARY_LENGTH) * 4 > self._path_max:
            for name in names:
                self._check_length(name)
        if "/" in "".join(names):
            for name in names:
                folder, slash, _ = name.rpartition("/")
                if slash and folder not in self._folders:
                    self._check_folder(name, folder)

    def _check_length(self, name: str) -> None:
        folder, _, file = name.rpartition("/")
        if len(os.fsencode(file)) > self._name_max:
            raise InvalidNameError(
                f"file name {file[:40]!r}... has {len(os.fsencode(file))} bytes, and {self._root!r} takes "
                f"{self._name_max}; shorten it"
            )
        # The temporary name beside it has to fit as well.
        longest = f"{self._root}/{folder}/{file if len(file) > _TEMPORARY_LENGTH else ' ' * _TEMPORARY_LENGTH}"
        if len(os.fsencode(longest)) >= self._path_max:
            raise InvalidNameError(f"the path of name {name[:40]!r}... has over {self._path_max} bytes; shorten it")

    def keeps(self, name: str) -> bool:
        """Whether `put` would keep a file of an earlier run and leave the sample out."""
        return self.if_exists == "skip" and _is_sample(f"{self._root}/{name}")

    def put(self, name: str, parts: Sequence[memoryview]) -> bool:
        """Write a file, whole or not at all, and make its folder if there is none.

        Returns:
            Whether it was written; False if one of an earlier run was kept instead.

        Raises:
            FileExistsError: There is one of an earlier run, and ``if_exists="error"``.
            OSError: It could not be written. Nothing is left behind.
        """
        path = f"{self._root}/{name}"
        replace = self.if_exists == "overwrite"
        try:
            try:
                publish(path, parts, token=self._token, replace=replace)
            except FileNotFoundError:
                # The first sample of a folder makes it, and so does the next one if somebody removes it.
                os.makedirs(os.path.dirname(path), exist_ok=True)
                publish(path, parts, token=self._token, replace=replace)
        except FileExistsError as error:
            if self.if_exists == "skip" and _is_sample(path):
                return False
            if self.if_exists == "error" and os.path.lexists(path):
                raise FileExistsError(
                    f"{path!r} exists already; remove it, or choose if_exists='overwrite' or 'skip'"
                ) from error
            raise
        return True

    def path(self, name: str) -> Path:
        """The final path of a sample, with its folders made, for functions that write there themselves."""
        path = Path(self._root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def close(self) -> None:
        """Mark the directory as no longer in use by this target. It may be called again."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        _release(lock)

    def _check_folder(self, name: str, folder: str) -> None:
        """Refuse a name whose folder cannot be made, because it or a folder above it is a file."""
        components = folder.split("/")
        for component in components:
            if len(os.fsencode(component)) > self._name_max:
                raise InvalidNameError(
                    f"folder {component[:40]!r}... of name {name[:40]!r}... has over {self._name_max} bytes; shorten it"
                )
        path = self._root
        for component in components:
            path = f"{path}/{component}"
            if not os.path.lexists(path):
                break
            if not os.path.isdir(path):
                raise InvalidNameError(
                    f"name {name!r} needs a folder {path!r}, but there is a file of that name; rename one of them"
                )
        if len(self._folders) >= _KNOWN_FOLDERS:
            self._folders.clear()
        self._folders.add(folder)

    def _acquire_lock(self) -> FileLock:
        folder = os.path.join(self._root, RESERVED_PREFIX)
        while True:
            self._token = new_token()
            lock = _file_lock(folder, self._token)
            try:
                os.makedirs(folder, exist_ok=True)
                lock.acquire(timeout=0)
            except (FileExistsError, FileNotFoundError, Timeout):
                if os.path.isfile(folder) or os.path.islink(folder):
                    raise
                continue  # another writer has removed the empty folder, or took our file for a dead writer's
            if os.path.exists(lock.lock_file):
                return lock
            lock.release()  # the same, a moment later

    def _clear_leftovers(self) -> None:
        """Remove the temporary files of writers that ended without closing."""
        dead: dict[str, FileLock] = {}
        folder = os.path.join(self._root, RESERVED_PREFIX)
        for entry in os.listdir(folder):
            token = entry.removesuffix(_LOCK_ENDING)
            if token == entry or token == self._token:
                continue
            lock = _file_lock(folder, token)
            try:
                lock.acquire(timeout=0)
            except (Timeout, OSError):
                continue  # its writer lives, or another one is clearing up after it
            dead[token] = lock
        if not dead:
            return
        try:
            removed = sum(_remove(path) for path in self._temporary_files(dead))
        finally:
            for lock in dead.values():
                _release(lock)
        if removed:
            _log.info("removed %d temporary files that an earlier run left in %s when it ended", removed, self._root)

    def _temporary_files(self, tokens: dict[str, FileLock]) -> Iterator[str]:
        beginning = RESERVED_PREFIX + "-"
        for folder, _, files in os.walk(self._root):
            for file in files:
                ours = file.startswith(beginning) and file.endswith(PART_ENDING)
                if ours and file[len(beginning) :].split("-", 1)[0] in tokens:
                    yield os.path.join(folder, file)


def _file_lock(folder: str, token: str) -> FileLock:
    # Not the process's singleton, since several targets of one process each need a lock of their own, and not the
    # thread's, since one thread may open a target and another close it.
    return FileLock(os.path.join(folder, token + _LOCK_ENDING), is_singleton=False, thread_local=False)


def _is_sample(path: str) -> bool:
    """Whether there is a file, or a link that may lead to one somewhere; a folder is no sample that could be kept."""
    return os.path.lexists(path) and not os.path.isdir(path)


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _release(lock: FileLock) -> None:
    """Remove a lock's file, then let go of it, and remove the folder if it was the last one."""
    try:
        # In this order, so that nobody else can lock a file that is about to go.
        _remove(lock.lock_file)
    except OSError:
        pass  # Windows removes no open file; the next writer finds it free and removes it
    lock.release()
    try:
        os.rmdir(os.path.dirname(lock.lock_file))
    except OSError:
        pass  # other writers are at work
