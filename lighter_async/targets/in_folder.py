"""What targets have in common whose objects lie in a directory that is locked and looked after like one of files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lighter_async.store import Store
from lighter_async.targets.local import LocalTarget
from lighter_async.types import Durability, IfExists, Run

__all__ = ["InFolder", "OneFileInFolder"]


class InFolder:
    """A target in a directory that a `LocalTarget` opens, locks and cleans up.

    A copy in another process opens for itself, and has the directory's absolute path then.

    Args:
        folder: That target.
    """

    def __init__(self, folder: LocalTarget) -> None:
        self._folder = folder
        self._is_copy = False
        self._reset()

    def _reset(self) -> None:
        """Forget all that only an open target has."""

    def _kept(self) -> dict[str, Any]:
        """The attributes that copies in other processes have as well."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self._kept(), "_folder": self._folder, "_is_copy": True}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __repr__(self) -> str:
        where = os.fspath(self._place)
        return f"{type(self).__name__}({where!r}, if_exists={self.if_exists!r}, durability={self.durability!r})"

    @property
    def _place(self) -> Path:
        """What the target was given."""
        return self.directory

    @property
    def directory(self) -> Path:
        """The directory, in which records lie as well."""
        return self._folder.directory

    @property
    def if_exists(self) -> IfExists:
        """What becomes of a sample that an earlier run has recorded."""
        return self._folder.if_exists

    @if_exists.setter
    def if_exists(self, if_exists: IfExists) -> None:
        self._folder.if_exists = if_exists

    @property
    def durability(self) -> Durability:
        """What is stored outlives the end of any process, or a loss of power, too."""
        return self._folder.durability

    @durability.setter
    def durability(self, durability: Durability) -> None:
        self._folder.durability = durability

    @property
    def run(self) -> Run:
        """Which rank of which run stores here."""
        return self._folder.run

    @property
    def since(self) -> int | None:
        """When the run began, in nanoseconds, by the file system's clock; None until it is open."""
        return self._folder.since

    @property
    def location(self) -> str:
        """The directory's real path, so that two ways to one directory are one location."""
        return self._folder.location

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What helpers are to inherit, so that the directory's lock is held until they have ended, too."""
        return self._folder.descriptors

    def store(self) -> Store:
        """What reads the samples back, whether the target is open or not."""
        return self._folder.store()


class OneFileInFolder(InFolder):
    """One whose samples all become one file of the directory, under the key of their series.

    Attributes:
        object: The file's name.
    """

    object: str

    @property
    def _place(self) -> Path:
        return self.path

    @property
    def path(self) -> Path:
        """Where the file lies once it is whole."""
        return self._folder.directory / self.object

    @property
    def location(self) -> str:
        """The file's path, without links, so that two ways to one file are one location."""
        return os.path.join(self._folder.location, self.object)
