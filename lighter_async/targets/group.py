"""Files that are synced together."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from lighter_async.files import remove

__all__ = ["SyncedGroup"]

_MOST_OPEN = 64


class SyncedGroup:
    """Writes temporary files, and syncs and names them all together.

    A file is synced before it gets its name, so that no loss of power leaves a name with half a file; folders are
    synced last, once each. The disk is told to begin with all files before any of them is waited for.

    Args:
        write: Writes a temporary file: ``(name, parts) -> (path, descriptor)``.
        name: Names it: ``(path, name, again=...) -> bool``.
    """

    def __init__(
        self, write: Callable[[str, Sequence[memoryview]], tuple[str, int]], name: Callable[..., bool]
    ) -> None:
        self._write = write
        self._name = name
        self._open: list[tuple[str, int, str, bool]] = []
        self._outcomes: list[bool | BaseException] = []

    def put(self, name: str, parts: Sequence[memoryview], *, again: bool) -> None:
        temporary, descriptor = self._write(name, parts)
        self._open.append((temporary, descriptor, name, again))
        if len(self._open) >= _MOST_OPEN:
            self._settle()

    def settle(self) -> list[bool | BaseException]:
        self._settle()
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _settle(self) -> None:
        waiting, self._open = self._open, []
        for _, descriptor, _, _ in waiting:
            _begin(descriptor)
        folders: dict[str, list[int]] = {}
        for temporary, descriptor, name, again in waiting:
            try:
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                stored = self._name(temporary, name, again=again)
            except BaseException as error:
                remove(temporary)
                self._outcomes.append(error)
                continue
            if stored:
                folders.setdefault(os.path.dirname(temporary), []).append(len(self._outcomes))
            self._outcomes.append(stored)
        for folder, places in folders.items():
            try:
                _sync_folder(folder)
            except OSError as error:
                for place in places:
                    self._outcomes[place] = error


def _begin(descriptor: int) -> None:
    """Have the system begin to write a file to the disk."""
    advise: Any = getattr(os, "posix_fadvise", None)
    if advise is not None:
        try:
            advise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            pass


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
