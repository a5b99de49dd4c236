"""The samples of one unit on their way to be stored and recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from lighter_async.errors import NameTakenError
from lighter_async.manifest import Record, Stored, StoredRows, checksum
from lighter_async.targets import Item, Lane, Outcome, Part, Placed, directory_of
from lighter_async.tracebacks import keep_as_text
from lighter_async.types import Result, Unit
from lighter_async.workers.encoding import encode_sample, files_of, ready
from lighter_async.workers.worker_job import Job

__all__ = ["Abandoned", "Work"]

_T = TypeVar("_T")


class Abandoned(BaseException):
    """Raised by `on_progress` in a thread that was abandoned after a timeout; it ends the work on the unit."""


class Work:
    """Puts encoded samples into a lane, and at the end settles the lane and records all that are stored.

    Args:
        job: The writer, the target, and what goes with them.
        unit: The samples.
        lane: Where they are put; None of a writer that stores them itself.
        attempts: How often the first one was tried.
        on_progress: Called with the index of a sample when an attempt to write it begins, and with None before a wait.

    Raises:
        Abandoned: From every method, when `on_progress` does.
    """

    def __init__(
        self,
        job: Job,
        unit: Unit,
        lane: Lane | None = None,
        *,
        attempts: int = 1,
        on_progress: Callable[[int | None], None] = lambda _: None,
    ) -> None:
        self.job = job
        self._on_progress = on_progress
        self._index = unit.start
        self.unit = unit
        self.result = Result()
        self.stored: list[Stored] = []
        self._taken: list[tuple[Stored, NameTakenError]] = []  # by another rank
        self._attempts = attempts
        self._lane = lane
        self._waiting: list[Stored] = []  # that the lane has not settled
        # What a worker that died has recorded, and its bytes: that is not stored once more. None until it is asked for.
        self._recorded: dict[str, int] | None = None if unit.redelivered else {}

    def is_recorded(self, index: int) -> bool:
        """Whether a worker that died has stored and recorded a sample; then it counts as written.

        Raises:
            OSError: The manifest cannot be read.
        """
        if self._recorded is None:
            self._on_progress(None)  # reading a long manifest is no time spent on writing
            self._recorded = self.job.session.recorded(self.unit.batch.names[self.unit.start : self.unit.stop])
            self._on_progress(index)
        if not self._recorded:
            return False
        nbytes = self._recorded.get(self.unit.batch.names[index])
        if nbytes is None:
            return False
        self.result.written += 1
        self.result.bytes_written += nbytes
        return True

    def begin(self, index: int) -> None:
        """Begin with a sample."""
        self._attempts = 1
        self._index = index
        self._on_progress(index)

    def note_progress(self, number: int) -> None:
        """As `begin`, with the number of a sample in its unit, where none was tried before."""
        self._index = index = self.unit.start + number
        self._on_progress(index)

    def attempt(self, function: Callable[[], _T], first: BaseException | None = None) -> _T:
        """Call a function, and try again after an error that may pass by itself."""
        return self.job.patience.call(function, self._count, first)

    async def attempt_async(self, function: Callable[[], Awaitable[_T]]) -> _T:
        """As `attempt`, with an async function."""
        return await self.job.patience.call_async(function, self._count)

    def _count(self, attempts: int | None) -> None:
        if attempts is None:
            self._on_progress(None)
        else:
            self._attempts = attempts
            self._on_progress(self._index)

    def put(self, index: int, item: Item) -> None:
        """Put a sample into the lane."""
        lane, log = self._lane, self.job.session.log
        assert lane is not None
        first, *others = item.parts
        one = Stored(index, first.file, *_measure(first, log is not None))
        if others:
            one.others = [_measure(part, log is not None) for part in others]
        try:
            outcome = self._put_first(lane, one, item)
        except NameTakenError as error:
            self._taken.append((one, error))
            return
        if outcome is None:
            self._waiting.append(one)
            if lane.is_full:
                self._settle(lane)
        else:
            self._count_stored(one, outcome)

    def _put_first(self, lane: Lane, one: Stored, item: Item) -> Outcome | None:
        patience = self.job.patience
        if self.unit.redelivered:
            return self.attempt(partial(self._put, lane, one, item))
        # Nearly always all there is to do, and it runs for every sample.
        try:
            outcome = lane.put(item, redelivered=False)
        except Exception as error:
            if not patience.is_worth_it(error):
                raise
            return self.attempt(partial(self._put, lane, one, item), error)
        if outcome is not None:
            patience.note_space_available()
        return outcome

    def _put(self, lane: Lane, one: Stored, item: Item) -> Outcome | None:
        return lane.put(item, redelivered=self._is_redelivered(one))

    def _is_redelivered(self, one: Stored) -> bool:
        """Whether what this run has stored under the name can only be from an earlier attempt."""
        if not (self.unit.redelivered or self._attempts > 1):
            return False
        log = self.job.session.log
        if log is None or one.file is None or log.run.world_size == 1:
            return True
        # A lane knows itself what an attempt of its own has left; only of a dead worker's is nothing known.
        return self.unit.redelivered and log.other_ranks.find(one.file, seconds=0) is None

    def settle(self) -> Result:
        """Store what waits, record what is stored, and return what became of every sample."""
        if self._waiting and self._lane is not None:
            self._settle(self._lane)
        self._replace_earlier()
        self._record()
        # Only now: two ranks that store the same samples the other way round wait for each other's records.
        for one, taken in self._taken:
            self.begin(one.index)
            try:
                self._resolve_name_conflict(one, taken)
                self.result.skipped += 1
            except BaseException as error:
                self.fail(one.index, error)
        return self.result

    def _replace_earlier(self) -> None:
        """Store what was taken for another rank's, where it is an earlier run's whose file is newer than the clock says
        now, or an earlier writer's of this rank."""
        taken, self._taken = self._taken, []
        for one, error in taken:
            log, lane = self.job.session.log, self._lane
            below = directory_of(self.job.session.target)
            is_earlier = (
                log is not None
                and lane is not None
                and below is not None
                and below.if_exists != "error"
                and one.file is not None
                and log.other_ranks.is_earlier(one.file)
            )
            if not is_earlier or lane is None or below is None:
                self._taken.append((one, error))
                continue
            if below.if_exists == "skip":
                self.result.skipped += 1
                continue
            self.begin(one.index)
            try:
                self._count_stored(one, self.attempt(partial(self._put_alone, lane, one, redelivered=True)))
            except BaseException as failed:
                self.fail(one.index, failed)

    def _record(self) -> None:
        stored, result, log = self.stored, self.result, self.job.session.log
        if stored and log is not None:
            batch = self.unit.batch
            first, *others = [(output.key, output.encoder.kind_of_dict) for output in self.job.outputs] or [
                (None, None)
            ]
            kind = batch.staged.kind
            kinds = [kind(one.index, *first) for one in stored]
            other_kinds = [[kind(one.index, *other) for other in others] for one in stored] if others else ()
            append = partial(log.append, stored, batch.names, kinds, batch.origin, other_kinds=other_kinds)
            if not self._append(append, [one.index for one in stored]):
                return
        result.written += len(stored)
        result.bytes_written += sum([one.nbytes or 0 for one in stored])
        result.bytes_written += sum([nbytes for one in stored for nbytes, _ in one.others])

    def record_rows(self, stored: StoredRows, names: Sequence[str]) -> Result:
        """Record that all samples of the unit are stored, at once; returns what became of them.

        Args:
            stored: Where they lie.
            names: Theirs.
        """
        log, unit, result = self.job.session.log, self.unit, self.result
        if log is not None:
            append = partial(log.append_rows, stored, names, unit.batch.origin)
            if not self._append(append, range(unit.start, unit.stop)):
                return result
        result.written += len(unit)
        result.bytes_written += len(unit) * stored.sample_bytes
        return result

    def _append(self, append: Callable[[], None], indices: Sequence[int]) -> bool:
        """Write lines to the manifest; if that fails, cut off and fail the samples. Returns whether it did not."""
        self.begin(indices[-1])
        try:
            self.attempt(append)
        except BaseException as error:
            if self._lane is not None:
                self.job.session.recover(self._lane)
            for index in indices:
                self.fail(index, error)
            return False
        return True

    def _settle(self, lane: Lane) -> None:
        waiting, self._waiting = self._waiting, []
        # Each has as long as a sample that is stored by itself.
        try:
            outcomes = lane.settle(lambda position: self._on_progress(waiting[position].index))
        except Abandoned:
            raise
        except BaseException as error:  # as when there is no memory; what lanes expect, they return
            lane.leave()
            for one in waiting:
                self.fail(one.index, error)
            return
        self.take_outcomes(lane, waiting, outcomes)

    def take_outcomes(self, lane: Lane, tried: Sequence[Stored], outcomes: Sequence[Outcome | BaseException]) -> None:
        """Count what became of some samples; those that failed and may be stored after all are tried once more.

        Args:
            lane: Where they were put.
            tried: The samples.
            outcomes: What became of each.
        """
        if any(not isinstance(outcome, BaseException) for outcome in outcomes):
            # Not where none is stored: else each unit would wait for room on a full disk as long as the first one.
            self.job.patience.note_space_available()
        for one, outcome in zip(tried, outcomes, strict=True):
            if outcome is True:
                self.stored.append(one)
                continue
            self.begin(one.index)
            try:
                if isinstance(outcome, BaseException):
                    outcome = self._once_more(lane, one, outcome)
                self._count_stored(one, outcome)
            except NameTakenError as error:
                self._taken.append((one, error))
            except BaseException as error:
                self.fail(one.index, error)

    def _once_more(self, lane: Lane, one: Stored, error: BaseException) -> Outcome:
        """Store a sample by itself whose first attempt has failed, if that may help."""
        if not self.job.patience.is_worth_it(error):
            raise error

        return self.attempt(partial(self._put_alone, lane, one), error)

    def _put_alone(self, lane: Lane, one: Stored, *, redelivered: bool = False) -> Outcome:
        outputs, name = self.job.outputs, self.unit.batch.names[one.index]
        files, takes_arrays = files_of(outputs, name), self.job.takes_arrays
        item = encode_sample(outputs, files, self.unit, one.index, takes_arrays=takes_arrays)
        outcome = lane.put(item, redelivered=redelivered or self._is_redelivered(one))
        if outcome is not None:
            return outcome
        (settled,) = lane.settle(lambda _: None)
        if isinstance(settled, BaseException):
            raise settled
        return settled

    def _count_stored(self, one: Stored, outcome: Outcome) -> None:
        if outcome is False:
            self.result.skipped += 1
            return
        if isinstance(outcome, Placed):
            one.object, one.offsets = outcome.object, outcome.offsets
        self.stored.append(one)

    def _resolve_name_conflict(self, one: Stored, error: NameTakenError) -> None:
        """Return if the other rank that has taken a sample's name has stored the same sample there.

        Raises:
            NameTakenError: It has stored a different one, or it is not known which.
        """
        self._on_progress(None)  # a wait for the other rank's record is no time spent on writing
        log, origin, file = self.job.session.log, self.unit.batch.origin, one.file
        other: Record | None = None
        if log is not None and file is not None:
            other = log.other_ranks.find(file, seconds=10)
        index = None if origin is None or origin.indices is None else int(origin.indices[one.index])
        if other is not None and origin is not None and index is not None:
            if (other.loader, other.index) == (origin.loader, index):
                return
            raise NameTakenError(
                f"two samples of one run would become {file!r}: index {other.index} of loader {other.loader}, "
                f"which rank {other.rank} has stored, and index {index} of loader {origin.loader}; give them "
                "different names"
            )
        raise error

    def leave(self) -> None:
        """Discard what is not stored yet."""
        if self._lane is not None:
            self._lane.leave()

    def fail(self, index: int, error: BaseException) -> None:
        """Count a sample as failed, and keep its value if values are kept."""
        self._on_progress(None)  # a helper process may have to import torch to keep the value
        unit, job = self.unit, self.job
        failure = job.failure(unit.batch.names[index], error, self._attempts)
        if job.quarantine is not None:
            try:
                value = ready(unit).own_value(index)
                failure.kept = job.quarantine.keep(value, failure, unit.batch.origin, index)
            except Exception:
                pass  # the value is lost, which stops the run
        keep_as_text(error)
        self.result.failures.append(failure)


def _measure(part: Part, with_checksum: bool) -> tuple[int, str]:
    """The bytes of a part, and its checksum where that is recorded."""
    data = part.data
    nbytes = data[0].nbytes if len(data) == 1 else sum([piece.nbytes for piece in data])
    return nbytes, checksum(data) if with_checksum else ""
