"""A helper that dies is replaced by another one, and what it had in its hand is put into the queue again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from lighter_async.types import Unit
from lighter_async.workers.process.death_limits import ATTEMPTS, DeathLimits
from lighter_async.workers.process.helper_processes import HelperProcess, HelperProcesses
from lighter_async.workers.process.schedule import Finished, Schedule
from lighter_async.workers.process.shared_queue_words import BROKEN, STARTING, Outcome
from lighter_async.workers.process.transport import Transport

__all__ = ["HelperReplacement"]


class HelperReplacement:
    """Replaces dead helpers, as long as they do not die too often. The backend's lock guards it.

    Args:
        transport: The way to the helpers.
        schedule: What is to be done.
        helpers: The processes.
        may_move: Whether threads can do what helpers never get to; without them it fails.
        before_launch: Called before another helper is started.

    Attributes:
        limits: How often helpers have died, and may.
        broken: Why everything fails; None while it does not.
        given_up: Why no helper is started any more, and what they have not done moves to threads; None while they are.
        moving: What is still to be moved, in units of one batch each.
    """

    def __init__(
        self,
        transport: Transport,
        schedule: Schedule,
        helpers: HelperProcesses,
        *,
        may_move: bool,
        before_launch: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._schedule = schedule
        self._helpers = helpers
        self._may_move = may_move
        self._before_launch = before_launch
        self.limits = DeathLimits()
        self.broken: BaseException | None = None
        self.given_up: BaseException | None = None
        self.moving: deque[list[Unit]] = deque()

    @property
    def goes_on(self) -> bool:
        """Whether helpers do what is to be done."""
        return self.given_up is None and self.broken is None

    def replace(self, helper: int, member: HelperProcess, finished: Finished) -> None:
        """Take over what a dead helper had in its hand, and start another one in its place.

        Args:
            helper: Which one.
            member: Its process, of which all results were read.
            finished: Gets what is to be told of batches.
        """
        queue = self._transport.queue
        state, failures = queue.state(helper), queue.failures(helper)
        hand = queue.in_hand(helper)
        cause: BaseException | None = None
        if member.killed is not None and hand is not None:
            self.limits.note_late((self._schedule.batch_of(hand[0]).serial, hand[2]), member.killed)
        if state == BROKEN:
            cause = self._helpers.read_failures(helper, failures)[0].cause
        elif hand is not None and hand[0].ticket != member.ticket:
            self._take_over(*hand, member.process.popen.wait(), finished)
        # Only now, when it is in the queue again: were this process killed before, other helpers would take it over.
        status = self._helpers.remove(helper)
        if state == STARTING:
            has_other_way = self._may_move and not self._schedule.results
            cause = self.limits.died_at_start(status, has_other_way=has_other_way) or cause
        if cause is None and self.given_up is None:
            try:
                self._before_launch()
                self._helpers.launch(helper)
            except OSError as error:
                if any(self._helpers.members):
                    return
                cause = error
        if cause is None or not self._may_move:
            self.broken = self.broken or cause
        elif self.given_up is None:
            self.given_up = cause
            self.moving.append([])  # so that it is told even if there is nothing to move

    def _take_over(self, hand: Outcome, is_done: bool, at: int, status: int, finished: Finished) -> None:
        """Count what a dead helper has done, or send it again, the sample that it was at by itself."""
        if is_done:
            self._schedule.take_done_hand(hand, self._helpers.failures_of(hand), finished)
            return
        self.broken = self.limits.died_at_work(status) or self.broken
        sent = self._schedule.take_hand(hand)
        error = self.limits.died_over((sent.serial, at), status)
        self._schedule.requeue(sent, hand.start, at)
        if error is None:
            self._schedule.requeue(sent, at, at + 1)
        self._schedule.requeue(sent, at + 1, hand.stop)
        if self.given_up is None:
            self._schedule.send_requeued()
        if error is not None:
            self._schedule.fail(sent, at, at + 1, error, finished, attempts=ATTEMPTS)

    def take_back(self, threads: int) -> None:
        """Have what no helper has in its hand moved to threads, if no helper is started any more.

        Args:
            threads: How many they are.
        """
        if self.given_up is None or self.broken is not None:
            return
        for unit in self._schedule.take_back(hurry=False):
            per = -(-len(unit) // threads)
            ends = range(unit.start, unit.stop, per)
            self.moving.append(
                [Unit(unit.batch, first, min(first + per, unit.stop), unit.redelivered) for first in ends]
            )
