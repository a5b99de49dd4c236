"""How much may be queued or being written at once, and whose turn it is."""

from __future__ import annotations

from lighter_async.errors import QueueFullError

__all__ = ["Admission", "Reservation", "Turn"]

_MUCH = 8 << 20
_MANY = 128
"""Bytes and samples in flight above which finished slots are reclaimed before fresh memory is touched, which is in no
cache."""


class Reservation:
    """Space for `count` samples of `nbytes` in all; `taken` once it is reserved. Guarded by the ledger's lock."""

    __slots__ = ("count", "nbytes", "taken")

    def __init__(self, count: int, nbytes: int) -> None:
        self.count = count
        self.nbytes = nbytes
        self.taken = False


class Turn:
    """A place in the line for a reservation. It is passed over while its thread runs a signal's handler."""

    __slots__ = ("is_passed_over",)

    def __init__(self) -> None:
        self.is_passed_over = False


class Admission:
    """What is reserved of `queue_size` and `queue_bytes`, and the line of those who wait.

    A batch is admitted when its samples and bytes fit beside what is queued or being written. A batch larger than
    `queue_size` or `queue_bytes` is admitted by itself. Callers that wait are admitted in the order in which they came.

    The ledger's lock guards it: every method but `is_crowded` is called with the lock held.
    """

    def __init__(self, queue_size: int, queue_bytes: int) -> None:
        self.queue_size = queue_size
        self.queue_bytes = queue_bytes
        self.samples = self.nbytes = 0  # admitted and not done
        self.peak_samples = self.peak_bytes = 0
        self.line: list[Turn] = []
        self.waits = 0
        self.waited_seconds = 0.0

    def is_crowded(self, reservation: Reservation) -> bool:
        """Whether so much is in flight that finished batches should be collected first. May be called without the lock.

        Without the lock it may be wrong by what another thread changes at that moment, and costs a look for nothing.
        """
        samples, nbytes = self.samples + reservation.count, self.nbytes + reservation.nbytes
        return samples > min(_MANY, self.queue_size // 2) or nbytes > min(_MUCH, self.queue_bytes) or bool(self.line)

    def try_reserve(self, reservation: Reservation, turn: Turn | None = None) -> bool:
        """Reserve if there is space, and nobody is before this turn in the line; without one, nobody at all."""
        if (self._first_in_line() if self.line else None) is not turn:
            return False
        count, nbytes = reservation.count, reservation.nbytes
        samples, total = self.samples + count, self.nbytes + nbytes
        if (self.samples or self.nbytes) and (samples > self.queue_size or total > self.queue_bytes):
            return False
        self.samples, self.nbytes = samples, total
        if samples > self.peak_samples:
            self.peak_samples = samples
        if total > self.peak_bytes:
            self.peak_bytes = total
        reservation.taken = True
        return True

    def withdraw(self, reservation: Reservation) -> bool:
        """Give a reservation back; returns whether it was taken."""
        if not reservation.taken:
            return False
        reservation.taken = False
        self.give_back(reservation.count, reservation.nbytes)
        return True

    def give_back(self, count: int, nbytes: int) -> None:
        self.samples -= count
        self.nbytes -= nbytes

    def full(self, reservation: Reservation, timeout: float | None) -> QueueFullError:
        """The error of a caller for whom there was no space for `timeout` seconds."""
        waited = f" for {timeout:g} s" if timeout else ""
        return QueueFullError(
            f"no room{waited} for {reservation.count} more samples of {reservation.nbytes / 1e6:.1f} MB: "
            f"{self.samples} of {self.queue_size} samples and {self.nbytes / 1e6:.1f} of "
            f"{self.queue_bytes / 1e6:.1f} MB are queued or being written; wait with submit(), or raise queue_size or "
            "queue_bytes"
        )

    def _first_in_line(self) -> Turn | None:
        for turn in self.line:
            if not turn.is_passed_over:
                return turn
        return None
