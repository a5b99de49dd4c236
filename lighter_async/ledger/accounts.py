"""What was accepted, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from lighter_async.errors import WriteError
from lighter_async.ledger.failures import Failures
from lighter_async.types import Batch, OnError, Result

__all__ = ["Accounts"]


class Accounts:
    """Counts of samples, and failures that were not raised yet.

    ``accepted = written + skipped + failed + dropped + pending`` at any time.

    The ledger's lock guards it: every method is called with the lock held.

    Args:
        on_error: Whether a sample that failed stops the run, even if its value is kept.

    Attributes:
        totals: What became of all samples so far, but for its failures, which are in `unraised`.
        first_failure: The first failure that stops the run.
        unraised: The failures that were not raised yet.
    """

    def __init__(self, on_error: OnError) -> None:
        self._on_error = on_error
        self._batches: dict[Batch, int] = {}  # accepted and not done, in order, with their numbers
        self._number = 0
        self.accepted = self.failed = self.dropped = 0
        self.totals = Result()
        self.unraised = Failures()
        self.first_failure: WriteError | None = None
        self._opened: float | None = None
        self._closed: float | None = None

    # Time

    def open(self) -> None:
        self._opened = perf_counter()

    def close(self) -> None:
        self._closed = perf_counter()

    @property
    def open_seconds(self) -> float:
        """Time since `open`, until `close`."""
        return 0.0 if self._opened is None else (self._closed or perf_counter()) - self._opened

    # Samples

    def accept(self, batch: Batch) -> None:
        self._number += 1
        self._batches[batch] = self._number
        self.accepted += batch.left

    def reject(self, batch: Batch) -> None:
        """Undo `accept` of a batch that no worker has seen."""
        if self._batches.pop(batch, None) is not None:
            self.accepted -= batch.left

    def count(self, result: Result) -> None:
        """Count what became of some samples."""
        totals = self.totals
        totals.written += result.written
        totals.skipped += result.skipped
        totals.bytes_written += result.bytes_written
        totals.encode_seconds += result.encode_seconds
        totals.store_seconds += result.store_seconds
        if result.failures:
            self._add_failures(result.failures)

    def forget(self, batch: Batch) -> None:
        """A batch is done as a whole."""
        del self._batches[batch]

    @property
    def mark(self) -> int:
        """The number of the batch that was accepted last."""
        return self._number

    def is_pending(self, mark: int | None) -> bool:
        """Whether a batch up to a mark is not done; None: any batch."""
        return bool(self._batches) and (mark is None or next(iter(self._batches.values())) <= mark)

    def pending(self, mark: int | None = None) -> int:
        """Samples of batches up to a mark that are not done; None: of all batches."""
        if mark is None:
            return self.accepted - self.totals.written - self.totals.skipped - self.failed - self.dropped
        return sum(batch.left for batch, number in self._batches.items() if number <= mark)

    # Failures

    def raise_failures(self) -> None:
        """
        Raises:
            WriteError: All failures that were not raised yet, together.
        """
        if self.unraised:
            failures, more = self.unraised.take()
            written, nbytes = self.totals.written, self.totals.bytes_written
            raise WriteError.of_run(failures, written=written, nbytes=nbytes, pending=self.pending(), more=more)

    def _add_failures(self, failures: Sequence[WriteError]) -> None:
        self.failed += len(failures)
        if self.first_failure is None:
            stopping = (one for one in failures if self._on_error == "stop" or one.kept is None)
            self.first_failure = next(stopping, None)
        self.unraised.add(failures)
