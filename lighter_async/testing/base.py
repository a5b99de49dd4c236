"""What the parts of the targets' contract share: how a target is made, and how what it has stored is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import pytest

from lighter_async.names import RESERVED_PREFIX
from lighter_async.targets import Lane, Outcome, Placed, Target
from lighter_async.testing.storing import content_of, item_of, parts_of

__all__ = ["MakeTarget", "TargetSuite", "check_stored", "opened", "put_all", "put_one", "settle_all"]

MakeTarget: TypeAlias = "Callable[..., Target]"
"""``(**options) -> Target``, not open. All that it makes during a test store in the same place."""


class TargetSuite:
    """What a subclass says of its target; see `TargetContract`."""

    takes_run: ClassVar[bool] = False
    across_processes: ClassVar[bool] = True
    refused_names: ClassVar[Sequence[str]] = ()

    @pytest.fixture
    def make_target(self) -> MakeTarget:
        """Makes targets; each test gets a place of its own."""
        raise NotImplementedError("a contract's subclass has a fixture make_target: a function (**options) -> Target")

    def read(self, target: Target) -> dict[str, bytes]:
        """Everything that is stored, by name: here the files below the directory that is the target's location.

        Args:
            target: One that `make_target` made. It is not open, and neither is any other.
        """
        root = Path(target.location)
        files = [path for path in root.rglob("*") if path.is_file()]
        names = {path.relative_to(root).as_posix(): path for path in files}
        return {name: path.read_bytes() for name, path in names.items() if not name.startswith(f"{RESERVED_PREFIX}/")}


@contextmanager
def opened(target: Target) -> Iterator[Target]:
    """While it is open."""
    target.open()
    try:
        yield target
    finally:
        target.close()


def check_stored(stored: Mapping[str, bytes], expected: Mapping[str, bytes]) -> None:
    """Fail unless exactly these samples are stored; what differs is told briefly, for samples may be long."""
    missing, strange = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    wrong = sorted(
        f"{name!r}: {len(stored[name])} bytes {stored[name][:40]!r} instead of {len(expected[name])} bytes "
        f"{expected[name][:40]!r}"
        for name in stored.keys() & expected.keys()
        if stored[name] != expected[name]
    )
    told = {"not stored": missing, "stored besides": strange, "stored wrongly": wrong}
    differs = [f"{what}: {', '.join(names[:5])} ({len(names)} in all)" for what, names in told.items() if names]
    if differs:
        pytest.fail("\n".join(differs))


def put_one(lane: Lane, name: str, version: int = 0, *, redelivered: bool = False) -> bool:
    """Store a sample through a lane by itself.

    Raises:
        BaseException: What the lane raises, or gives as the outcome.
    """
    outcome: Any = lane.put(item_of(name, parts_of(content_of(name, version))), redelivered=redelivered)
    if outcome is None:
        (outcome,) = lane.settle(lambda _: None)
    if isinstance(outcome, BaseException):
        raise outcome
    assert isinstance(outcome, (bool, Placed))
    return outcome is not False


def _told(outcome: Outcome | BaseException) -> bool | BaseException:
    """Whether a sample is stored, wherever it lies; or why it is not."""
    return True if isinstance(outcome, Placed) else outcome


def settle_all(lane: Lane) -> list[bool | BaseException]:
    """Settle a lane; returns for each sample whether it is stored, wherever it lies, or why it is not."""
    return [_told(outcome) for outcome in lane.settle(lambda _: None)]


def put_all(lane: Lane, contents: Mapping[str, bytes], *, redelivered: bool = False) -> dict[str, Any]:
    """Store samples through a lane, and settle it when it is full and at the end, as a worker does.

    Returns:
        For each of them what `Lane.put` or `Lane.settle` has returned or raised.
    """
    outcomes: dict[str, Any] = {}
    waiting: list[str] = []

    def settle() -> None:
        begun: list[int] = []
        settled = lane.settle(begun.append)
        assert len(settled) == len(waiting), "settle returns one outcome for each sample that put returned None for"
        assert set(begun) == set(range(len(waiting))), "on_progress is called with the number of each sample"
        assert all(isinstance(outcome, (bool, Placed, BaseException)) for outcome in settled)
        outcomes.update(zip(waiting, map(_told, settled), strict=True))
        waiting.clear()
        assert not lane.is_full, "a lane that is settled has room"

    for name, data in contents.items():
        try:
            stored = lane.put(item_of(name, parts_of(data)), redelivered=redelivered)
        except Exception as error:
            outcomes[name] = error
            continue
        if stored is None:
            waiting.append(name)
        else:
            outcomes[name] = _told(stored)
        if lane.is_full:
            settle()
    settle()
    return {name: outcomes[name] for name in contents}
