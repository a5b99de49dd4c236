"""The samples of one unit on their way to be stored and recorded."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from lighter_async.errors import NameTakenError
from lighter_async.manifest import Record, Stored, checksum
from lighter_async.types import Group, Result, Unit

if TYPE_CHECKING:
    from lighter_async.staging import Staged
    from lighter_async.workers.job import Job

__all__ = ["GivenUp", "Work", "ready"]

_T = TypeVar("_T")


class GivenUp(BaseException):
    """Nobody waits for this unit any more; `at` raises it where a thread was given up, and it ends the work."""


class Work:
    """Stores encoded samples, by themselves or as a group, and at the end records all that are stored.

    Args:
        job: What is done.
        unit: The samples.
        attempts: How often the first one was tried.
        at: Called with the index of a sample when an attempt to write it begins, and with None before a wait.

    Raises:
        GivenUp: From every method, when `at` does.
    """

    def __init__(
        self, job: Job, unit: Unit, attempts: int = 1, at: Callable[[int | None], None] = lambda _: None
    ) -> None:
        self.job = job
        self._at = at
        self._index = unit.start
        self.unit = unit
        self.result = Result()
        self.stored: list[Stored] = []
        self._taken: list[tuple[Stored, NameTakenError]] = []  # by another rank
        self._attempts = attempts
        make_group: Callable[[], Group | None] | None = getattr(job.target, "group", None)
        self._group = None if make_group is None else make_group()
        self._waiting: list[Stored] = []  # of the group

    def begin(self, index: int) -> None:
        """A sample is begun."""
        self._attempts = 1
        self._index = index
        self._at(index)

    def attempt(self, function: Callable[[], _T], first: BaseException | None = None) -> _T:
        """Call a function, and again if that may help.

        It must be no closure: the traceback of a failure that is kept can let go of what is local in it, but not of
        the functions that it went through, and so not of what they close over.
        """
        return self.job.patience.call(function, self._count, first)

    async def attempt_async(self, function: Callable[[], Awaitable[_T]]) -> _T:
        """As `attempt`, of an async function."""
        return await self.job.patience.call_async(function, self._count)

    def _count(self, attempts: int | None) -> None:
        if attempts is None:
            self._at(None)
        else:
            self._attempts = attempts
            self._at(self._index)

    def put(self, index: int, name: str, parts: Sequence[memoryview]) -> None:
        """Store a sample, or get ready to store it with the others."""
        log = self.job.log
        nbytes = parts[0].nbytes if len(parts) == 1 else sum(part.nbytes for part in parts)
        one = Stored(index, name, nbytes, "" if log is None else checksum(parts))
        group = self._group
        if group is not None:
            again = self._is_again(one)
            self.attempt(partial(group.put, name, parts, again=again))
            self._waiting.append(one)
            if group.is_full:
                self._settle(group)
            return
        try:
            self._book(one, self._put_first(one, name, parts))
        except NameTakenError as error:
            self._taken.append((one, error))

    def _put_first(self, one: Stored, name: str, parts: Sequence[memoryview]) -> bool:
        patience = self.job.patience
        if self.unit.again:
            return self.attempt(partial(self._put, one, name, parts))
        # Nearly always all there is to do, and it runs for every sample.
        try:
            stored = self.job.target.put(name, parts)
        except Exception as error:
            if not patience.is_worth_it(error):
                raise
            return self.attempt(partial(self._put, one, name, parts), error)
        patience.has_room()
        return stored

    def _put(self, one: Stored, name: str, parts: Sequence[memoryview]) -> bool:
        target = self.job.target
        if self._attempts > 1 or self.unit.again:
            again = getattr(target, "put_again", None)
            if again is not None and self._is_again(one):
                return bool(again(name, parts))
        return target.put(name, parts)

    def _is_again(self, one: Stored) -> bool:
        """Whether a file of this run under the name can only be an earlier attempt's."""
        if not (self.unit.again or self._attempts > 1):
            return False
        log = self.job.log
        return log is None or one.file is None or log.find_of_other_rank(one.file, seconds=0) is None

    def settle(self) -> Result:
        """Store what waits, record what is stored, and say what became of all."""
        if self._group is not None:
            self._settle(self._group)
        self._record()
        # Only now: two ranks that store the same samples the other way round wait for each other's records.
        for one, taken in self._taken:
            self.begin(one.index)
            try:
                self._see_whose(one, taken)
                self.result.skipped += 1
            except BaseException as error:
                self.fail(one.index, error)
        return self.result

    def _record(self) -> None:
        stored, result, log = self.stored, self.result, self.job.log
        if stored and log is not None:
            batch = self.unit.batch
            kinds = [batch.staged.kind(one.index) for one in stored]
            self.begin(stored[-1].index)
            try:
                self.attempt(partial(log.append, stored, batch.names, kinds, batch.origin))
            except BaseException as error:
                for one in stored:
                    self.fail(one.index, error)
                return
        result.written += len(stored)
        result.bytes_written += sum(one.nbytes or 0 for one in stored)

    def _settle(self, group: Group) -> None:
        waiting, self._waiting = self._waiting, []
        # Each file of the group has as long as a sample of its own.
        outcomes = group.settle(lambda position: self._at(waiting[position].index))
        for one, outcome in zip(waiting, outcomes, strict=True):
            self.begin(one.index)
            try:
                if isinstance(outcome, BaseException):
                    outcome = self._once_more(group, one, outcome)
                self._book(one, outcome)
            except NameTakenError as error:
                self._taken.append((one, error))
            except BaseException as error:
                self.fail(one.index, error)

    def _once_more(self, group: Group, one: Stored, error: BaseException) -> bool:
        """Store one of the group by itself, whose first attempt has failed, if that may help."""
        if not self.job.patience.is_worth_it(error):
            raise error

        return self.attempt(partial(self._again, group, one), error)

    def _again(self, group: Group, one: Stored) -> bool:
        assert one.file is not None
        group.put(one.file, self.job.encode(self.unit, one.index), again=self._is_again(one))
        (outcome,) = group.settle(lambda _: None)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _book(self, one: Stored, stored: bool) -> None:
        if stored:
            self.stored.append(one)
        else:
            self.result.skipped += 1

    def _see_whose(self, one: Stored, error: NameTakenError) -> None:
        """Another rank was quicker, and with the same sample, so that there is nothing to do.

        Raises:
            NameTakenError: It was a different one, or nobody knows which.
        """
        self._at(None)  # who waits is not at work
        log, origin = self.job.log, self.unit.batch.origin
        other: Record | None = None
        if log is not None and one.file is not None:
            other = log.find_of_other_rank(one.file, seconds=10)
        index = None if origin is None or origin.indices is None else int(origin.indices[one.index])
        if other is not None and origin is not None and index is not None:
            if (other.loader, other.index) == (origin.loader, index):
                return
            raise NameTakenError(
                f"two samples of one run would become {one.file!r}: index {other.index} of loader {other.loader}, "
                f"which rank {other.rank} has stored, and index {index} of loader {origin.loader}; give them "
                "different names"
            )
        raise error

    def leave(self) -> None:
        """Let go of what is not stored."""
        if self._group is not None:
            self._group.leave()

    def fail(self, index: int, error: BaseException) -> None:
        """A sample is not stored."""
        self._at(None)  # a helper process may have to import torch to keep the value
        unit, job = self.unit, self.job
        failure = job.failure(unit.batch.names[index], error, self._attempts)
        if job.quarantine is not None:
            try:
                value = ready(unit).own_value(index)
                failure.kept = job.quarantine.keep(value, failure, unit.batch.origin, index)
            except Exception:
                pass  # so it is lost, which stops the run
        _forget_frames(error)
        self.result.failures.append(failure)


def _forget_frames(error: BaseException) -> None:
    # A failure is kept until the caller asks, and the frames of its traceback would keep the sample with it: views of
    # a slot that the next batch overwrites, or a value as large as the batch.
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        traceback.clear_frames(link.__traceback__)
        link = link.__context__ if link.__cause__ is None else link.__cause__


def ready(unit: Unit) -> Staged:
    """The unit's values, once an accelerator's copy of them has arrived."""
    staged = unit.batch.staged
    if staged.ready is not None:
        staged.ready.synchronize()
    return staged
