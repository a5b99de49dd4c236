"""Workers that are processes of their own, seen from the process that they work for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from time import monotonic
from typing import Literal

from lighter_async.interrupts import run_handlers, uninterrupted
from lighter_async.staging import SharedMemory
from lighter_async.targets import descriptors_of
from lighter_async.types import Batch, Result, Unit, Waiter
from lighter_async.workers.process.arrivals import Arrivals
from lighter_async.workers.process.death_limits import MOST_IN_A_ROW
from lighter_async.workers.process.helper_processes import HelperProcesses
from lighter_async.workers.process.interpreter import check_is_no_helper, program
from lighter_async.workers.process.launch import needed, standard_descriptors
from lighter_async.workers.process.outbox import Outbox
from lighter_async.workers.process.replacing_dead_helpers import HelperReplacement
from lighter_async.workers.process.schedule import Finished, Schedule
from lighter_async.workers.process.transport import Transport
from lighter_async.workers.process.waiting_for_news import HelperNews
from lighter_async.workers.worker_job import Job
from lighter_async.workers.writing import fail_unit

__all__ = ["ProcessBackend"]

_SECONDS_TO_LOOK = 0.1  # after which it is looked again whether helpers live, by who hands samples over
_SECONDS_TO_SEAL = 0.02  # after which helpers that were replaced are looked at again


class ProcessBackend:
    """Runs a job in `max_workers` helper processes, which read the samples from memory that they share.

    Everything that was put stands in the queue at once, so that helpers finish it whatever becomes of this process.
    There is no thread that reads what they have done: the next call does, or a thread that waits. A helper that dies is
    replaced, and what it had in its hand is put into the queue again.

    Batches whose copy from an accelerator is still under way are held back until it has arrived, since a helper cannot
    wait for that: a thread does, and puts them into the queue then, whatever the caller is at.

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
        self._news = HelperNews(self._transport, self._lock)
        # All below: guarded by _lock.
        self._schedule = Schedule(job, self._transport, self._outbox, capacity, records)
        self._helpers = HelperProcesses(self._transport, max_workers, job.patience.write_timeout)
        self._replacement = HelperReplacement(
            self._transport,
            self._schedule,
            self._helpers,
            may_move=move is not None,
            before_launch=job.session.restore_record,
        )
        self._arrivals: Arrivals | None = None
        self._stopping = False
        self._look_at = 0.0  # threads share it without a lock, since all that a race costs is one look more

    # Life

    @property
    def kind(self) -> Literal["thread", "process"]:
        """What the workers are."""
        return "process"

    @property
    def instead(self) -> str | None:
        return None

    @property
    def helpers(self) -> Sequence[int]:
        return [member.process.popen.pid for member in tuple(self._helpers.members) if member is not None]

    def start(self) -> None:
        """Start the helpers, and do not wait for them.

        Raises:
            BackendUnavailableError: The system cannot start them, or this process is no Python interpreter.
        """
        check_is_no_helper()
        program()
        # Pickled once more, for the target knows more of its run since it was opened. Its descriptors are inherited, so
        # that whoever waits for a dead process's locks waits for its helpers, too.
        job, inherited = self._outbox.pickled_job(), descriptors_of(self._job.session.target)
        with self._lock:
            try:
                with needed("descriptors"), standard_descriptors():
                    self._transport.open(job, inherited)
                self._helpers.start()
            except BaseException:
                self._close()
                raise

    def seal(self) -> None:
        with uninterrupted(), self._lock:
            if self._transport.is_closed:
                return
            request = self._transport.ask_to_seal()
        while self._has_to_seal(request):
            try:
                self._transport.events.poll(_SECONDS_TO_SEAL)
            except ValueError:  # stopped meanwhile
                return
            run_handlers()
            self.collect()

    def _has_to_seal(self, request: int) -> bool:
        """Whether a helper is still to meet a request to seal."""
        with self._lock:
            if self._transport.is_closed or not self._replacement.goes_on:
                return False
            helpers = [helper for helper, member in enumerate(self._helpers.members) if member is not None]
            return not all(self._transport.queue.has_sealed(helper, request) for helper in helpers)

    def stop(self, *, seal: bool = True) -> None:
        """Let the helpers go. It may be called again, as after a signal's handler has raised in between."""
        with uninterrupted():
            if self._arrivals is not None:
                self._arrivals.stop()
                self._arrivals = None
            with self._lock:
                self._stopping = True
                if not self._transport.is_closed:
                    self._transport.end(seal=seal)
            self._helpers.wait_until_ended()
            with self._lock:
                self._close()

    def _close(self) -> None:
        """Let go of everything, also where not all of it could be had."""
        self._stopping = True
        if not self._transport.is_closed:
            self._transport.end()
        self._helpers.close()
        self._outbox.close()
        self._transport.close()

    # In

    def prepare(self, batch: Batch) -> None:
        self._outbox.prepare(batch)

    def put(self, units: Sequence[Unit]) -> None:
        first, stop = units[0], units[-1].stop
        batch, start, per = first.batch, first.start, first.stop - first.start
        with uninterrupted():
            with self._lock:
                finished: Finished = []
                if (broken := self._replacement.broken) is None:
                    self._schedule.add(batch, start, stop, per)
                    batch.begun = True
                    self._send(finished)
                    if self._replacement.given_up is not None:
                        self._replacement.take_back(self._max_workers)
                    if self._schedule.held:
                        self._wait_for_arrivals()
                else:
                    batch.begun = True
                    batch.message = b""
                    finished.append((batch, fail_unit(self._job, Unit(batch, start, stop), broken, 1)))
            if finished or self._replacement.moving:
                self._tell(finished)

    def took(self, batch: Batch) -> bool:
        return batch.begun

    def is_worker(self) -> bool:
        return False

    def drop(self) -> list[Unit]:
        with uninterrupted(), self._lock:
            return [] if self._transport.is_closed else self._schedule.take_back()

    def _wait_for_arrivals(self) -> None:
        """Have a thread put into the queue what is on its way from a device, as soon as it has arrived."""
        ready = self._schedule.held[-1][0].batch.staged.ready
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
        return self._news.watch()

    def collect(self, *, quickly: bool = False) -> None:
        try:
            if not self._has_results() and not self._schedule.held:
                if quickly:
                    return
                if not self._transport.events.poll(0) and not self._helpers.late():
                    self._helpers.look_for_stuck()
                    return
        except ValueError:  # stopped meanwhile
            return
        with uninterrupted():
            with self._lock:
                finished: Finished = []
                if not self._stopping:
                    # First, so that the bell is rung again for what is not read here.
                    ready = () if quickly else self._transport.take_news()
                    self._read_results(finished)
                    if not quickly:
                        self._look_after_helpers(ready, finished)
                    self._send(finished)
                    self._replacement.take_back(self._max_workers)
            if finished or self._replacement.moving:
                self._tell(finished)

    @property
    def needs_collect(self) -> bool:
        try:
            if self._replacement.broken is not None or self._transport.queue.has_failures:
                return True
            # Whether a helper has died, or hangs: less often, since asking the system takes as long as a copy.
            if (now := monotonic()) < self._look_at:
                return False
            self._look_at = now + _SECONDS_TO_LOOK
            return bool(self._transport.events.poll(0) or self._helpers.late())
        except ValueError:  # stopped meanwhile
            return False

    def wait(self, waiter: Waiter, timeout: float) -> None:
        if self._news.wait(waiter, timeout, self._has_results):
            try:
                self._helpers.look_for_stuck()
            except ValueError:
                pass  # stopped meanwhile
            self.collect()

    def wake(self) -> None:
        self._news.wake()

    def _has_results(self) -> bool:
        return self._transport.queue.results != self._schedule.results

    def _tell(self, finished: Finished) -> None:
        for batch, result in finished:
            self._done(batch, result)
        moving = self._replacement.moving
        while moving:
            given_up = self._replacement.given_up
            assert self._move is not None
            assert given_up is not None
            self._move(given_up, moving.popleft())

    # With _lock held

    def _send(self, finished: Finished) -> None:
        if self._replacement.goes_on:
            for sent, start, stop, error in self._schedule.send():
                self._schedule.fail(sent, start, stop, error, finished)

    def _look_after_helpers(self, ready: Collection[int], finished: Finished) -> None:
        """End helpers that hang, and replace those that have died, whose descriptors are ready."""
        for helper in self._helpers.late():
            self._helpers.kill(helper)
        for helper, member in enumerate(self._helpers.members):
            if member is not None and member.process.alive in ready:
                self._transport.events.unregister(member.process.alive)
                self._read_results(finished)  # it may have entered one since we looked
                self._replacement.replace(helper, member, finished)
        if (broken := self._replacement.broken) is not None:
            for unit in self._schedule.take_back():
                finished.append((unit.batch, fail_unit(self._job, unit, broken, 1)))

    def _read_results(self, finished: Finished) -> None:
        for outcome in self._schedule.new_results():
            self._replacement.limits.note_progress()
            member = self._helpers.members[outcome.helper]
            assert member is not None
            member.ticket = outcome.ticket
            self._schedule.count(outcome, self._helpers.failures_of(outcome), finished)
