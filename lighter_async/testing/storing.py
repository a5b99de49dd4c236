"""What the contract stores. Run as a program, it does so in a process of its own, which may be killed at any moment."""

from __future__ import annotations

import json
import os
import signal
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from lighter_async.targets import Item, Outcome

__all__ = ["Plan", "Torn", "content_of", "item_of", "parts_of"]


def content_of(name: str, version: int = 0) -> bytes:
    """The bytes of a sample: some tens to some tens of thousands of them, that repeat its name."""
    return f"{name} {version}\n".encode(errors="surrogateescape") * (2 + zlib.crc32(name.encode()) % 2000)


def parts_of(data: bytes) -> list[memoryview]:
    """Bytes in three parts of uneven lengths."""
    cuts = 0, len(data) // 7, len(data) // 2, len(data)
    return [memoryview(data)[start:stop] for start, stop in pairwise(cuts)]


def item_of(name: str, data: Sequence[memoryview]) -> Item:
    """A sample of one part, which is stored under its name as it is."""
    from lighter_async.targets import Item, Part

    return Item(name, [Part(name, "", data)])


class Torn(Sequence[memoryview]):
    """Parts of which the later ones cannot be read: reading one of them calls a function instead.

    Args:
        parts: The parts.
        good: How many of them can be taken.
        happens: Called when a later one is taken; it may raise.
    """

    def __init__(self, parts: Sequence[memoryview], good: int, happens: Callable[[], None]) -> None:
        self._parts = parts
        self._good = good
        self._happens = happens

    def __len__(self) -> int:
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> list[memoryview]: ...
    def __getitem__(self, index: int | slice) -> memoryview | list[memoryview]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        part = self._parts[index]
        if index < 0 or index >= self._good:
            self._happens()
        return part


@dataclass(frozen=True, slots=True)
class Plan:
    """What a process is to store, and where it ends.

    Attributes:
        names: The samples.
        lane: The number of the lane that it puts them into.
        unit: How many it puts before it settles.
        redelivered: Whether an earlier process may have stored them.
        dies_at: The step that it is killed in the middle of: ``"put"``, when it puts the sample of number `number`;
            ``"settle"``, when it settles and comes to that number of the unit; ``"write"``, when it writes more than
            `number` bytes to a file.
        number: See there.
        largest: Bytes that a file of it may have; more is an error.
        version: Of the samples' content.
    """

    names: Sequence[str]
    lane: int = 0
    unit: int = 5
    redelivered: bool = False
    dies_at: str = ""
    number: int = -1
    largest: int | None = None
    version: int = 0


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _limit(plan: Plan) -> None:
    """Have the system refuse to make a file longer than it may be; at first it takes a part of what does not fit."""
    if plan.dies_at != "write" and plan.largest is None:
        return
    import resource

    largest = plan.number if plan.largest is None else plan.largest
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if plan.dies_at == "write" else signal.SIG_IGN)


def _tell(outcomes: Sequence[tuple[str, Any]]) -> None:
    """Tell what became of samples: True or False, or the name of an error; in one write, whole or not at all."""
    os.write(1, (json.dumps(outcomes) + "\n").encode())


def _shown(outcome: Outcome | BaseException) -> Any:
    return type(outcome).__name__ if isinstance(outcome, BaseException) else outcome is not False


def _store(target: Any, plan: Plan) -> None:
    from lighter_async.targets import lane_of

    lane = lane_of(target, plan.lane)
    waiting: list[str] = []

    def settle() -> None:
        last = plan.dies_at == "settle"
        outcomes = lane.settle(lambda position: _die() if last and position == plan.number else None)
        _tell([(name, _shown(outcome)) for name, outcome in zip(waiting, outcomes, strict=True)])
        waiting.clear()

    for number, name in enumerate(plan.names):
        parts: Sequence[memoryview] = parts_of(content_of(name, plan.version))
        if plan.dies_at == "put" and number == plan.number:
            parts = Torn(parts, 2, _die)
        try:
            stored = lane.put(item_of(name, parts), redelivered=plan.redelivered)
        except OSError as error:
            _tell([(name, _shown(error))])
            continue
        if stored is None:
            waiting.append(name)
        else:
            _tell([(name, stored)])
        if lane.is_full or len(waiting) == plan.unit:
            settle()
    if waiting:
        settle()


def main(job: str, path: str) -> None:
    """Store what the file `job` says, and end well; `path` is where modules are looked for, in JSON."""
    sys.path[:] = json.loads(path)
    from lighter_async.pickle_by_value import loads

    with open(job, "rb") as file:
        target, plan = loads(file.read())
    plan = Plan(**plan)
    target.open()
    _limit(plan)
    try:
        _store(target, plan)
    finally:
        target.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
