"""How often helpers may die: over one sample, in a row, and before they are at work."""

from __future__ import annotations

import signal

from lighter_async.errors import WorkerDiedError, WriteTimeoutError

__all__ = ["ATTEMPTS", "MOST_IN_A_ROW", "DeathLimits"]

ATTEMPTS = 3  # of a sample whose helpers die
MOST_IN_A_ROW = 60
_STARTS = 10  # in a row that come to nothing
_STARTS_BEFORE_THREADS = 3  # the same, where there is another way

Sample = tuple[int, int]  # a batch's serial number, and an index


class DeathLimits:
    """Counts the deaths of helpers. The backend's lock guards it."""

    def __init__(self) -> None:
        self._over: dict[Sample, int] = {}
        self._late: dict[Sample, WriteTimeoutError] = {}  # samples whose helper was ended for taking too long
        self._in_a_row = 0  # with nothing done in between
        self._failed_starts = 0  # likewise

    def note_progress(self) -> None:
        """Something was done."""
        self._in_a_row = self._failed_starts = 0

    def note_late(self, sample: Sample, error: WriteTimeoutError) -> None:
        """A sample's helper was ended because it took too long."""
        self._late[sample] = error

    def died_at_start(self, status: int, *, has_other_way: bool) -> WorkerDiedError | None:
        """A helper has ended before it looked at the queue; returns why no more are to be started, if so.

        Args:
            status: Its exit status.
            has_other_way: Whether threads can do the work instead.
        """
        self._failed_starts += 1
        if self._failed_starts < (_STARTS_BEFORE_THREADS if has_other_way else _STARTS):
            return None
        return WorkerDiedError(
            f"helper processes end before they are at work (the last one {_ending(status)}); what they print "
            "on stderr may say why, and backend='thread' does without them"
        )

    def died_at_work(self, status: int) -> WorkerDiedError | None:
        """A helper has ended with a unit in its hand; returns why everything is to fail, if so."""
        self._in_a_row += 1
        if self._in_a_row < MOST_IN_A_ROW:
            return None
        # Else each of a thousand such samples would have three helpers started for it.
        return WorkerDiedError(
            f"{MOST_IN_A_ROW} helper processes in a row ended at work without anything done in between, the last "
            f"one {_ending(status)}; the writer makes them crash, or the machine is out of memory"
        )

    def died_over(self, sample: Sample, status: int) -> WorkerDiedError | WriteTimeoutError | None:
        """A helper has ended over a sample; returns its failure, if it is not to be tried again."""
        deaths = self._over[sample] = self._over.get(sample, 0) + 1
        if deaths < ATTEMPTS:
            return None
        del self._over[sample]
        return self._late.pop(sample, None) or WorkerDiedError(
            f"each of the {ATTEMPTS} helper processes that were writing it ended, the last one {_ending(status)}; "
            "the sample or its writer makes them crash, or the machine is out of memory"
        )


def _ending(status: int) -> str:
    if status >= 0:
        return f"with exit status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"
