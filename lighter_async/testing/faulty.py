"""A target that fails as told, around any other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import quote

from msgspec.structs import replace

from lighter_async.targets import (
    Features,
    Item,
    Lane,
    Outcome,
    Part,
    PathTarget,
    Target,
    descriptors_of,
    features_of,
    lane_of,
)
from lighter_async.testing.storing import Torn

__all__ = ["Attempts", "Fault", "FaultyTarget", "Faults", "Moment"]

_LONGEST = 200  # bytes of a file's name

Moment = Literal["before", "during", "after"]
"""When something goes wrong with a sample, seen from the moment when it is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with a sample.

    Attributes:
        error: Makes the exception that is raised, such as ``lambda: OSError(errno.EIO, "as if from a device")`` or a
            class. It may also do something instead, and return None: wait, or end the process.
        times: At how many attempts, from the first on.
        when: ``"before"`` anything of the sample is stored; ``"during"``: when its bytes are taken, half of them at
            least; ``"after"`` it is stored, as when a server's answer is lost.
    """

    error: Callable[[], BaseException | None]
    times: int = 1
    when: Moment = "before"

    def strike(self) -> None:
        """
        Raises:
            BaseException: What `error` makes.
        """
        error = self.error()
        if error is not None:
            raise error


Faults: TypeAlias = "Mapping[str, Fault] | Callable[[str, int], Fault | None]"
"""The fault of each sample that has one; or a function of the sample's name and the number of the attempt, from 1."""


class Attempts:
    """Counts, over all processes, how often something was tried.

    Args:
        folder: Where; it is made.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def count(self, name: str) -> int:
        """Count an attempt; returns how many there were, this one included."""
        descriptor = os.open(self._file(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, b"!")
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def of(self, name: str) -> int:
        """How many there were."""
        try:
            return self._file(name).stat().st_size
        except FileNotFoundError:
            return 0

    def _file(self, name: str) -> Path:
        file = quote(name, safe="")
        return self.folder / (file if len(file) <= _LONGEST else hashlib.sha256(file.encode()).hexdigest())


class FaultyTarget:
    """Another target that fails as told, in whatever process.

    ```python
    full = Fault(error=lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    target = FaultyTarget(MyTarget("store"), {"b.pt": full}, counts=tmp_path / "counts")
    ```

    Args:
        target: The other one.
        faults: For names of samples, as the target is given them, what goes wrong; or a function that tells it.
        counts: A folder where attempts are counted, apart from what is stored.
    """

    def __init__(self, target: Target, faults: Faults, *, counts: str | os.PathLike[str]) -> None:
        self.target = target
        self.faults = faults
        self.attempts = Attempts(counts)

    @property
    def features(self) -> Features:
        """Of the other target, but for records: they belong to a directory that is one itself."""
        return Features(has_paths=features_of(self.target).has_paths)

    @property
    def location(self) -> str:
        """The other target's."""
        return self.target.location

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What helpers are to inherit for the other target."""
        return descriptors_of(self.target)

    def open(self) -> None:
        """Open the other target."""
        self.target.open()

    def check(self, names: Sequence[str]) -> None:
        """Have the other target check names."""
        self.target.check(names)

    def keeps(self, name: str) -> bool:
        """Whether the other target keeps a sample of an earlier run."""
        return self.target.keeps(name)

    def path(self, name: str) -> Path:
        """The other target's path of a sample, if it has paths."""
        if not isinstance(self.target, PathTarget):
            raise TypeError(f"{type(self.target).__name__} has no paths")
        return self.target.path(name)

    def put(self, name: str, parts: Sequence[memoryview]) -> bool:
        """Have the other target store a sample, or fail."""
        fault = self.next_fault(name)
        stored = self.target.put(name, _prepared(fault, parts))
        if fault is not None and fault.when == "after":
            fault.strike()
        return stored

    def lane(self, number: int) -> Lane:
        """A lane of the other target that fails, too."""
        return _FaultyLane(self, lane_of(self.target, number))

    def close(self) -> None:
        """Close the other target."""
        self.target.close()

    def next_fault(self, name: str) -> Fault | None:
        """Count an attempt to store a sample, and tell what goes wrong with it."""
        attempt = self.attempts.count(name)
        if callable(self.faults):
            return self.faults(name, attempt)
        fault = self.faults.get(name)
        return fault if fault is not None and attempt <= fault.times else None


class _FaultyLane(Lane):
    """A lane of the other target. The fault of a sample is told by the file of its first part."""

    def __init__(self, target: FaultyTarget, lane: Lane) -> None:
        self._target = target
        self._lane = lane
        self._waiting: list[Fault | None] = []  # of those that the lane has not settled, what happens once it has

    @property
    def is_full(self) -> bool:  # type: ignore[override]
        return self._lane.is_full

    @property
    def wants_seal(self) -> bool:  # type: ignore[override]
        return self._lane.wants_seal

    def recover(self, ends: Callable[[Sequence[str]], dict[str, int]]) -> None:
        self._lane.recover(ends)

    def put(self, item: Item, *, redelivered: bool) -> Outcome | None:
        first, *others = item.parts
        fault = self._target.next_fault(first.file)
        parts = [Part(first.file, first.suffix, _prepared(fault, first.data)), *others]
        stored = self._lane.put(replace(item, parts=parts), redelivered=redelivered)
        after = fault if fault is not None and fault.when == "after" else None
        if stored is None:
            self._waiting.append(after)
        elif after is not None:
            after.strike()
        return stored

    def settle(self, on_progress: Callable[[int], None]) -> list[Outcome | BaseException]:
        waiting, self._waiting = self._waiting, []
        outcomes = self._lane.settle(on_progress)
        for position, fault in enumerate(waiting):
            error = fault.error() if fault is not None else None
            if error is not None:
                outcomes[position] = error
        return outcomes

    def seal(self) -> Sequence[str]:
        return self._lane.seal()

    def seal_full(self) -> Sequence[str]:
        return self._lane.seal_full()

    def leave(self) -> None:
        self._waiting.clear()
        self._lane.leave()

    def close(self) -> None:
        self._lane.close()


def _prepared(fault: Fault | None, parts: Sequence[memoryview]) -> Sequence[memoryview]:
    """The parts as the other target gets them: a fault comes now, or when it takes them."""
    if fault is None or fault.when == "after":
        return parts
    if fault.when == "before":
        fault.strike()
        return parts
    data = b"".join(parts)
    middle = len(data) // 2
    return Torn([memoryview(data[:middle]), memoryview(data[middle:])], 1, fault.strike)
