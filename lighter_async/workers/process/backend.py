"""Workers that are processes of their own, seen from the process that they work for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Literal

from lighter_async.errors import WriteError
from lighter_async.interrupts import run_handlers, uninterrupted
from lighter_async.staging import SharedMemory
from lighter_async.targets import descriptors_of
from lighter_async.types import Batch, Result, Unit, Waiter
from lighter_async.workers.job import Job
from lighter_async.workers.process.arrivals import Arrivals
from lighter_async.workers.process.crew import Crew, Member
from lighter_async.workers.process.deaths import ATTEMPTS, MOST_IN_A_ROW, Deaths
from lighter_async.workers.process.interpreter import check_is_no_helper, program
from lighter_async.workers.process.launch import needed, standard_descriptors
from lighter_async.workers.process.lookout import Lookout
from lighter_async.workers.process.outbox import Outbox
from lighter_async.workers.process.schedule import Finished, Schedule, Sent
from lighter_async.workers.process.transport import Transport
from lighter_async.workers.process.words import BROKEN, STARTING, Outcome
from lighter_async.workers.writing import fail_unit

__all__ = ["ProcessBackend"]

_SECONDS_TO_SEAL = 0.02  # after which helpers that were replaced are looked at again


class ProcessBackend:
    """Runs a job in `max_workers` helper processes, which read the samples from memory that they share.

    Everything that was put stands in the book at once, so that helpers finish it whatever becomes of this process.
    There is no thread that reads what they have done: the next call does, or a thread that waits. A helper that dies is
    replaced, and what it had in its hand is put into the book again.

    Batches whose copy from an accelerator is still under way are held back until it has arrived, since a helper cannot
    wait for that: a thread does, and puts them into the book then, whatever the caller is at.

    Args:
        job: What is done with a unit.
        done: Called with each batch that something became of, and what, with no lock of ours held.
        max_workers: Helpers.
        memory: What slots lie in.
        queue_size: Samples that may be in flight at once.
        move: Takes over what is not done if helpers never get to work: called with the reason and some units of one
            batch, or none, and no lock of ours held. Without it these samples fail.

    Raises:
        TypeError: The job cannot be pickled.
        BackendUnavailableError: The system has no epoll for this process.
    """

    def __init__(
        self,
        job: Job,
        done: Callable[[Batch, Result], None],
        max_workers: int,
        *,
        memory: SharedMemory,
        queue_size: int,
        move: Callable[[BaseException, Sequence[Unit]], None] | None = None,
    ) -> None:
        self._job = job
        self._done = done
        self._move = move
        self._max_workers = max_workers
        # Where this process is gone, each helper may leave a unit behind when it dies, and its heir one sample of that,
        # while a third is at work.
        cells = 3 * max(2, max_workers)
        capacity = Schedule.capacity_for(queue_size)
        # Each helper that dies makes three records of one, which is there until then; so many may in a row.
        records = capacity + 4 * max_workers + 2 * MOST_IN_A_ROW
        self._outbox = Outbox(job, memory)
        self._transport = Transport(cells, records, memory)
        self._lock = threading.Lock()
        self._lookout = Lookout(self._transport, self._lock)
        # All below: guarded by _lock.
        self._schedule = Schedule(self._transport, self._outbox, capacity, records)
        self._crew = Crew(self._transport, max_workers, job.patience.write_timeout)
        self._deaths = Deaths()
        self._arrivals: Arrivals | None = None
        self._broken: BaseException | None = None  # why everything fails
        self._given_up: BaseException | None = None  # why no helper is started any more; what they had not done moves
        self._moving: deque[list[Unit]] = deque()  # which is still to be told to `move`
        self._stopping = False

    # Life

    @property
    def kind(self) -> Literal["thread", "process"]:
        """What the workers are."""
        return "process"

    def start(self) -> None:
        """Start the helpers, and do not wait for them.

        Raises:
            BackendUnavailableError: The system cannot start them, or this process is no Python interpreter.
        """
        check_is_no_helper()
        program()
        # Sealed once more, for the target knows more of its run since it was opened. Its descriptors are inherited, so
        # that whoever waits for a dead process's locks waits for its helpers, too.
        job, inherited = self._outbox.seal_job(), descriptors_of(self._job.session.target)
        with self._lock:
            try:
                with needed("descriptors"), standard_descriptors():
                    self._transport.open(job, inherited)
                self._crew.start()
            except BaseException:
                self._close()
                raise

    def seal(self) -> None:
        with uninterrupted(), self._lock:
            if self._transport.is_closed:
                return
            request = self._transport.ask_to_seal()
        while self._has_to_seal(request):
            self._transport.events.poll(_SECONDS_TO_SEAL)
            run_handlers()
            self.collect()

    def _has_to_seal(self, request: int) -> bool:
        """Whether a helper is still to meet a request to seal."""
        with self._lock:
            if self._transport.is_closed or self._broken is not None or self._given_up is not None:
                return False
            helpers = [helper for helper, member in enumerate(self._crew.members) if member is not None]
            return not all(self._transport.book.has_sealed(helper, request) for helper in helpers)

    def stop(self, *, seal: bool = True) -> None:
        """Let the helpers go. A signal's handler may raise in between; then it may be called again."""
        with uninterrupted():
            if self._arrivals is not None:
                self._arrivals.stop()
                self._arrivals = None
            with self._lock:
                self._stopping = True
                self._transport.end(seal=seal)
            self._crew.wait_until_ended()
            with self._lock:
                self._close()

    def _close(self) -> None:
        """Let go of everything, also where not all of it could be had."""
        self._stopping = True
        if not self._transport.is_closed:
            self._transport.end()
        self._crew.close()
        self._outbox.close()
        self._transport.close()

    # In

    def prepare(self, batch: Batch) -> None:
        self._outbox.prepare(batch)

    def put(self, units: Sequence[Unit]) -> None:
        batch, start, stop, per = units[0].batch, units[0].start, units[-1].stop, len(units[0])
        with uninterrupted():
            with self._lock:
                finished: Finished = []
                if self._broken is None:
                    self._schedule.add(batch, start, stop, per)
                    batch.begun = True
                    self._send(finished)
                    self._give_away()
                    self._wait_for_arrivals()
                else:
                    batch.begun = True
                    batch.letter = b""
                    finished.append((batch, fail_unit(self._job, Unit(batch, start, stop), self._broken, 1)))
            self._tell(finished)

    def took(self, batch: Batch) -> bool:
        return batch.begun

    def is_worker(self) -> bool:
        return False

    def drop(self) -> list[Unit]:
        with uninterrupted(), self._lock:
            return [] if self._transport.is_closed else self._schedule.take_back()

    def _wait_for_arrivals(self) -> None:
        """Have a thread put into the book what is on its way from a device, as soon as it has arrived."""
        held = self._schedule.held
        ready = held[-1][0].batch.staged.ready if held else None
        if ready is not None:
            if self._arrivals is None:
                self._arrivals = Arrivals(self._on_arrival)
            self._arrivals.wait_for(ready)

    def _on_arrival(self) -> None:
        with self._lock:
            finished: Finished = []
            if not self._transport.is_closed:
                self._send(finished)
        self._tell(finished)

    # Out

    @property
    def is_idle(self) -> bool:
        """Whether helpers have nothing in their hands, nor in their queue."""
        return self._schedule.is_empty

    def watch(self) -> AbstractContextManager[int | None]:
        return self._lookout.watch()

    def collect(self) -> None:
        try:
            nothing_new = not self._has_results() and not self._schedule.held and not self._transport.events.poll(0)
            if nothing_new and not self._crew.late():
                self._crew.look_for_stuck()
                return
        except ValueError:  # stopped meanwhile
            return
        with uninterrupted():
            with self._lock:
                finished = [] if self._stopping else self._collect()
            self._tell(finished)

    @property
    def needs_collect(self) -> bool:
        try:
            return bool(
                self._broken is not None
                or self._transport.book.has_failures
                or self._transport.events.poll(0)
                or self._crew.late()
            )
        except ValueError:  # stopped meanwhile
            return False

    def wait(self, waiter: Waiter, timeout: float) -> None:
        if self._lookout.wait(waiter, timeout, self._has_results):
            try:
                self._crew.look_for_stuck()
            except ValueError:
                pass  # stopped meanwhile
            self.collect()

    def wake(self) -> None:
        self._lookout.wake()

    def _has_results(self) -> bool:
        return self._transport.book.results != self._schedule.results

    def _tell(self, finished: Finished) -> None:
        for batch, result in finished:
            self._done(batch, result)
        while self._moving:
            assert self._move is not None
            assert self._given_up is not None
            self._move(self._given_up, self._moving.popleft())

    # With _lock held

    def _send(self, finished: Finished) -> None:
        if self._given_up is None and self._broken is None:
            for sent, start, stop, error in self._schedule.send():
                self._fail(sent, start, stop, error, finished)

    def _collect(self) -> Finished:
        finished: Finished = []
        ready = self._transport.take_news()
        self._read_results(finished)
        for helper in self._crew.late():
            self._crew.kill(helper)
        for helper, member in enumerate(self._crew.members):
            if member is not None and member.process.alive in ready:
                self._replace(helper, member, finished)
        if self._broken is not None:
            for unit in self._schedule.take_back():
                finished.append((unit.batch, fail_unit(self._job, unit, self._broken, 1)))
        self._send(finished)
        self._give_away()
        return finished

    def _read_results(self, finished: Finished) -> None:
        for outcome in self._schedule.new_results():
            self._deaths.note_progress()
            member = self._crew.members[outcome.helper]
            assert member is not None
            member.ticket = outcome.ticket
            self._schedule.count(outcome, self._failures_of(outcome), finished)

    def _failures_of(self, outcome: Outcome) -> Sequence[WriteError]:
        return self._crew.read_failures(outcome.helper, outcome.failures) if outcome.failed else ()

    def _fail(
        self, sent: Sent, start: int, stop: int, error: BaseException, finished: Finished, attempts: int = 1
    ) -> None:
        finished.append((sent.batch, fail_unit(self._job, Unit(sent.batch, start, stop), error, attempts)))
        self._schedule.forget(sent, stop - start)

    # Replacing the dead, with _lock held

    def _replace(self, helper: int, member: Member, finished: Finished) -> None:
        """Take over what a dead helper had in its hand, and start another one in its place."""
        self._transport.events.unregister(member.process.alive)
        self._read_results(finished)  # it may have entered one since we looked
        book = self._transport.book
        state, failures = book.state(helper), book.failures(helper)
        hand = book.in_hand(helper)
        cause: BaseException | None = None
        if member.killed is not None and hand is not None:
            self._deaths.note_late((self._schedule.batch_of(hand[0]).serial, hand[2]), member.killed)
        if state == BROKEN:
            cause = self._crew.read_failures(helper, failures)[0].cause
        elif hand is not None and hand[0].ticket != member.ticket:
            self._take_over(*hand, member.process.popen.wait(), finished)
        # Only now, when it is in the queue again: were this process killed before, other helpers would take it over.
        status = self._crew.bury(helper)
        if state == STARTING:
            has_other_way = self._move is not None and not self._schedule.results
            cause = self._deaths.at_start(status, has_other_way=has_other_way) or cause
        if cause is None and self._given_up is None:
            try:
                self._crew.launch(helper)
            except OSError as error:
                if any(self._crew.members):
                    return
                cause = error
        if cause is None or self._move is None:
            self._broken = self._broken or cause
        elif self._given_up is None:
            self._given_up = cause
            self._moving.append([])  # so that it is told even if there is nothing to move

    def _take_over(self, hand: Outcome, is_done: bool, at: int, status: int, finished: Finished) -> None:
        """Count what a dead helper has done, or send it again, the sample that it was at by itself."""
        if is_done:
            self._schedule.take_done_hand(hand, self._failures_of(hand), finished)
            return
        self._broken = self._deaths.at_work(status) or self._broken
        sent = self._schedule.take_hand(hand)
        error = self._deaths.over((sent.serial, at), status)
        self._schedule.requeue(sent, hand.start, at)
        if error is None:
            self._schedule.requeue(sent, at, at + 1)
        self._schedule.requeue(sent, at + 1, hand.stop)
        if self._given_up is None:
            self._schedule.send_requeued()
        if error is not None:
            self._fail(sent, at, at + 1, error, finished, attempts=ATTEMPTS)

    def _give_away(self) -> None:
        """Have what no helper has in its hand moved, once they have given up."""
        if self._given_up is None or self._broken is not None:
            return
        for unit in self._schedule.take_back(hurry=False):
            per = -(-len(unit) // self._max_workers)
            ends = range(unit.start, unit.stop, per)
            self._moving.append(
                [Unit(unit.batch, first, min(first + per, unit.stop), unit.redelivered) for first in ends]
            )
