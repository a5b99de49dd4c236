"""The lanes of a directory: files that are stored one by one, or synced together."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

from lighter_async.files import remove, sync_folder

__all__ = ["FileLane", "SyncedLane"]


def _most_open() -> int:
    """Files of a lane that are open at once: a share of what the process may have, for each worker has a lane."""
    if resource is None:
        return 64
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 64 if limit == resource.RLIM_INFINITY else max(1, min(64, limit // 16))


class FileLane:
    """Stores each file by itself.

    Args:
        put: Stores one: ``(name, parts) -> bool``.
        replace: The same, in the place of one that this run has stored.
    """

    is_full = False

    def __init__(
        self,
        put: Callable[[str, Sequence[memoryview]], bool],
        replace: Callable[[str, Sequence[memoryview]], bool],
    ) -> None:
        self._put = put
        self._replace = replace

    def put(self, name: str, parts: Sequence[memoryview], *, redelivered: bool) -> bool | None:
        return self._replace(name, parts) if redelivered else self._put(name, parts)

    def settle(self, on_progress: Callable[[int], None]) -> list[bool | BaseException]:
        return []

    def leave(self) -> None:
        return


class SyncedLane:
    """Writes temporary files, and syncs and names them all together.

    A file is synced before it gets its name, so that no loss of power leaves a name with half a file; folders are
    synced last, once each. The disk is told to begin with all files before any of them is waited for.

    Args:
        write: Writes a temporary file: ``(name, parts) -> (path, descriptor)``.
        publish: Gives it its name: ``(path, name, replace_own=...) -> bool``.
        root: The directory that all files lie below.
        linked: Folders whose own names, up to the directory, are known to be on the disk. It grows.
    """

    def __init__(
        self,
        write: Callable[[str, Sequence[memoryview]], tuple[str, int]],
        publish: Callable[..., bool],
        *,
        root: str,
        linked: set[str],
    ) -> None:
        self._write = write
        self._publish = publish
        self._root = root
        self._linked = linked
        self._most_open = _most_open()
        self._open: list[tuple[str, int, str, bool]] = []
        # What has its name, though it is not known to outlive a loss of power: to be stored again in its own place.
        self._unsynced: set[str] = set()

    @property
    def is_full(self) -> bool:
        """Whether it is time to settle, since each file is open until then."""
        return len(self._open) >= self._most_open

    def put(self, name: str, parts: Sequence[memoryview], *, redelivered: bool) -> bool | None:
        temporary, descriptor = self._write(name, parts)
        self._open.append((temporary, descriptor, name, redelivered or name in self._unsynced))
        return None

    def settle(self, on_progress: Callable[[int], None]) -> list[bool | BaseException]:
        for _, descriptor, _, _ in self._open:
            _begin(descriptor)
        outcomes: list[bool | BaseException] = []
        folders: dict[str, list[int]] = {}
        names = [name for _, _, name, _ in self._open]
        self._open.reverse()
        try:
            while self._open:
                on_progress(len(outcomes))
                temporary, descriptor, name, redelivered = self._open.pop()
                try:
                    try:
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
                    stored = self._publish(temporary, name, replace_own=redelivered)
                except BaseException as error:
                    _remove(temporary)
                    outcomes.append(error)
                    continue
                if stored:
                    folders.setdefault(os.path.dirname(temporary), []).append(len(outcomes))
                outcomes.append(stored)
        except BaseException:
            self.leave()
            raise
        for folder, places in folders.items():
            on_progress(places[-1])
            try:
                sync_folder(folder)
                self._link(folder)
            except OSError as error:
                for place in places:
                    outcomes[place] = error
                    self._unsynced.add(names[place])
            else:
                self._unsynced.difference_update(names[place] for place in places)
        return outcomes

    def leave(self) -> None:
        while self._open:
            temporary, descriptor, _, _ = self._open.pop()
            os.close(descriptor)
            _remove(temporary)

    def _link(self, folder: str) -> None:
        """Sync the folders above one, which may have been made for it."""
        missing = []
        while folder not in self._linked and len(folder) > len(self._root):
            missing.append(folder)
            folder = os.path.dirname(folder)
            sync_folder(folder)
        self._linked.update(missing)


def _begin(descriptor: int) -> None:
    """Have the system begin to write a file to the disk."""
    advise: Any = getattr(os, "posix_fadvise", None)
    if advise is not None:
        try:
            advise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            pass


def _remove(temporary: str) -> None:
    try:
        remove(temporary)
    except OSError:
        pass  # the next run clears it; what has failed before it is what is to be told
