"""The seam between the service and the places that it stores to."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from lighter_async.store import Readable
from lighter_async.targets.lane import Item, Lane
from lighter_async.types import Durability, IfExists, Run

__all__ = [
    "ArraysTarget",
    "DirectoryTarget",
    "EachByItself",
    "Features",
    "InheritedTarget",
    "LaneTarget",
    "PathTarget",
    "SharedTarget",
    "TablesTarget",
    "Target",
    "arrays_target",
    "descriptors_of",
    "directory_of",
    "features_of",
    "is_each_by_itself",
    "lane_of",
    "tables_target",
]


@runtime_checkable
class Target(Protocol):
    """Where bytes live. Knows names and bytes, and nothing of tensors.

    `put` may be called from several threads at once, each with a name of its own. With helper processes each of them
    has a pickled copy of the target, made once it is open, and opens and closes that besides.
    """

    @property
    def location(self) -> str:
        """Where this target stores, for messages. Two targets with equal locations share one name space."""
        ...

    def open(self) -> None:
        """Get ready to store. Called once, before the first `put`."""
        ...

    def check(self, names: Sequence[str]) -> None:
        """Refuse names that can never be stored here. Called by the submitting thread, so it must be quick.

        Args:
            names: Of a batch; at least one.

        Raises:
            InvalidNameError: One of them cannot be stored, with the reason and the way out.
        """
        ...

    def keeps(self, name: str) -> bool:
        """Whether a sample of an earlier run lies under `name` and is to stay, so that encoding can be saved."""
        ...

    def put(self, name: str, parts: Sequence[memoryview]) -> bool:
        """Store the concatenated `parts` under `name`, all or nothing.

        Returns:
            True once it is stored whole; False if a sample of an earlier run was kept instead.
        """
        ...

    def close(self) -> None:
        """Let go of everything. Called once, after the last `put`."""
        ...


@runtime_checkable
class PathTarget(Target, Protocol):
    """A target whose samples are files of this machine, so that a path function can write them itself."""

    def path(self, name: str) -> Path:
        """The final path of `name`, with its folders made."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What can be done with a target.

    Attributes:
        has_paths: It has a `path` for each sample, which a function ``(path, value)`` can write to.
        has_directory: It stores below a directory of this machine, and is a `DirectoryTarget`: what is stored is
            recorded there, so that a run can be resumed and verified, and helper processes pay.
        takes_arrays: It stores tensors and arrays of one dtype and shape as rows, by the samples' indices in the data
            set, and is an `ArraysTarget`. Its writer is ``"row"``.
        takes_dicts: It stores dicts from columns to values as rows of a table, and is a `TablesTarget`. Its writer is
            ``"table_row"``.
    """

    has_paths: bool = False
    has_directory: bool = False
    takes_arrays: bool = False
    takes_dicts: bool = False


@runtime_checkable
class LaneTarget(Target, Protocol):
    """A target that says what it can do, and gives each worker a lane of its own."""

    @property
    def features(self) -> Features:
        """What can be done with it."""
        ...

    def lane(self, number: int) -> Lane:
        """The lane of one worker, in the process that has opened the target.

        Args:
            number: Which of the workers, from 0.
        """
        ...


@runtime_checkable
class InheritedTarget(Target, Protocol):
    """A target that holds something open which its helpers are to hold as well."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Descriptors that helpers are to inherit, such as a lock's, once it is open."""
        ...


@runtime_checkable
class SharedTarget(Target, Protocol):
    """A target that several ranks of one run may store to at the same time.

    Of two ranks that store a sample under one name it refuses the second one, with `NameTakenError`.
    """

    def of_run(self, run: Run) -> Target:
        """The same target for one rank of a run, which is not open.

        Args:
            run: Which run, and which of its ranks.
        """
        ...


class DirectoryTarget(LaneTarget, SharedTarget, Readable, Protocol):
    """A target that stores below a directory of this machine, and says with `store` what reads its samples back.

    Attributes:
        if_exists: What becomes of a sample of an earlier run.
        durability: What is stored outlives the end of any process, or a loss of power, too.
    """

    if_exists: IfExists
    durability: Durability

    @property
    def directory(self) -> Path:
        """The directory, in which records are kept as well."""
        ...

    @property
    def run(self) -> Run:
        """Which rank of which run stores here."""
        ...

    @property
    def since(self) -> int | None:
        """Nanoseconds, by the file system's clock, from which on files are this run's own; None until it is open."""
        ...

    def of_run(self, run: Run, directory: str | os.PathLike[str] | None = None) -> DirectoryTarget:
        """The same target for one rank of a run, which is not open.

        Args:
            run: Which run, and which of its ranks.
            directory: Where that run stores. None: where this target does.
        """
        ...


@runtime_checkable
class ArraysTarget(LaneTarget, Protocol):
    """A target that stores samples as the rows of an array."""

    def rows_of(self, indices: Sequence[int], loader: int, names: Sequence[str] | None = None) -> Sequence[int]:
        """The rows of some samples; a range if their indices are one.

        Args:
            indices: In the data set.
            loader: Of which data loader.
            names: The samples', for messages.

        Raises:
            ValueError: There are no such rows.
        """
        ...


@runtime_checkable
class TablesTarget(LaneTarget, Protocol):
    """A target that stores samples as the rows of a table."""

    def seal(self, *, ends: bool) -> None:
        """Write the table, in the process that has opened the target, while no lane of its own is at work.

        Args:
            ends: Nothing more is stored by this rank; then another one that is still at work may do it.

        Raises:
            OSError: It cannot be written. All rows are kept.
        """
        ...


class EachByItself(Lane):
    """The lane of a target that stores each part of a sample by itself.

    Args:
        put: Stores one: `Target.put`.
    """

    def __init__(self, put: Callable[[str, Sequence[memoryview]], bool]) -> None:
        self._put = put

    def put(self, item: Item, *, redelivered: bool) -> bool:
        stored = [self._put(part.file, part.data) for part in item.parts]
        return any(stored)


def is_each_by_itself(lane: Lane) -> bool:
    """Whether a lane is one of a target without lanes, which stores the parts of a sample one after the other.

    Such a target may have stored some of them when another one fails; the sample has failed then, and is not recorded.
    """
    return isinstance(lane, EachByItself)


def features_of(target: Target) -> Features:
    """What can be done with a target, also with one that has no more than `Target` asks for."""
    return target.features if isinstance(target, LaneTarget) else Features(has_paths=isinstance(target, PathTarget))


def directory_of(target: object) -> DirectoryTarget | None:
    """A target as one that stores below a directory; None if it stores elsewhere, or is no target.

    Raises:
        TypeError: It says that it does, but not what reads its samples.
    """
    if not isinstance(target, Target) or not features_of(target).has_directory:
        return None
    if not isinstance(target, Readable):
        raise TypeError(
            f"{type(target).__name__} says with features.has_directory that it stores below a directory, so it needs a "
            "method store() that gives what reads its samples; where they are files: "
            "lighter_async.store.DirectoryStore(self.directory)"
        )
    return cast(DirectoryTarget, target)


def arrays_target(target: object) -> ArraysTarget | None:
    """A target as one that stores rows of an array; None if it does not."""
    return target if isinstance(target, ArraysTarget) and target.features.takes_arrays else None


def tables_target(target: object) -> TablesTarget | None:
    """A target as one that stores rows of a table; None if it does not."""
    return target if isinstance(target, TablesTarget) and target.features.takes_dicts else None


def descriptors_of(target: Target) -> tuple[int, ...]:
    """What helpers inherit of a target, also of one that has no more than `Target` asks for."""
    return target.descriptors if isinstance(target, InheritedTarget) else ()


def lane_of(target: Target, number: int) -> Lane:
    """A lane of a target, also of one that has no more than `Target` asks for; arguments as of `LaneTarget.lane`."""
    return target.lane(number) if isinstance(target, LaneTarget) else EachByItself(target.put)
