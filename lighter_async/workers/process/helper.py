"""A helper process, from inside: takes units from the queue and writes their samples, until there are no more.

It needs PyTorch only where the writer does, or a user's function is handed a tensor. It ends when it is told to, or
when its parent has died or become another program, in either case after the queue is empty.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from lighter_async.errors import WriteError
from lighter_async.pickle_by_value import loads
from lighter_async.staging import SharedView, Staged
from lighter_async.types import Batch, Origin, Result, Unit
from lighter_async.workers.process.after_parent_ends import ParentWatch
from lighter_async.workers.process.bells import ring, silence
from lighter_async.workers.process.giving_way import GivingWay, OtherThread, give_way
from lighter_async.workers.process.helper_setting import HELPER_OF, Setting
from lighter_async.workers.process.pickled_messages import BatchReader, pickled_failure, unpickled_names
from lighter_async.workers.process.shared_queue_helper_side import HelperQueue
from lighter_async.workers.process.shared_queue_words import Claim
from lighter_async.workers.worker_job import Job
from lighter_async.workers.writing import write_unit
from lighter_async.writers import is_built_in

__all__ = ["main"]

_T = TypeVar("_T")

_MILLISECONDS_TO_LOOK = 100  # whether another helper has died, once the parent has
_MILLISECONDS_TO_SEE = 20


def main(setting: str) -> None:
    """Work as the helper that `setting` says, in JSON."""
    os.environ.pop(HELPER_OF, None)  # what a writer starts is no helper, and may have helpers of its own
    # Whoever interrupts or ends the job ends the parent; what it handed over is still to be stored. They came blocked
    # into this process, so that none was missed.
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    for number in signals:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    known = Setting(**json.loads(setting))
    faulthandler.register(signal.SIGUSR1, file=known.stack)
    helper = Helper(known)
    status = helper.run()
    if helper.is_plain:
        # There is nothing that the interpreter's own end would have to tidy up, and it takes longer than all the rest
        # of closing a writer.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _may_need_torch(job: Job, staged: Staged) -> bool:
    if "torch" in sys.modules or (staged.slot is None and not staged.loose):
        return False
    encoders = [output.encoder for output in job.outputs]
    if not encoders:
        return True
    if staged.is_rows:
        return not all(encoder.takes_blocks or encoder.takes_blocks_in_containers for encoder in encoders)
    return not all(encoder.takes_blocks_in_containers for encoder in encoders)


class Helper:
    """One helper."""

    def __init__(self, setting: Setting) -> None:
        self._me = setting.helper
        self._setting = setting
        for descriptor in setting.descriptors:
            os.set_inheritable(descriptor, False)  # a program that an encoder starts may outlive us
        self._queue = HelperQueue(setting.queue, setting.helpers, setting.records)
        self._is_needed = self._queue.live(setting.helper)
        self._on_progress = self._queue.progress_of(setting.helper)
        os.register_at_fork(after_in_child=self._forked)
        self._slots: SharedView
        self._slots_file, self._mapped = setting.slots, setting.mapped
        self._job_file = setting.job
        self._failures_file = setting.failures
        self._failures_bytes = 0
        self._bells = setting.bells
        self._news = setting.news
        self._parent = ParentWatch(setting, self._queue)
        if self._is_needed:
            self._parent.start()
        self._batch: tuple[int, Batch] | None = None  # the last one and its serial number
        self.is_plain = False  # whether it runs code of this package alone
        self._giving_way = GivingWay(lambda: self._queue.is_waited_for)
        self._taking: OtherThread | None = None

    def _forked(self) -> None:
        """In a child that an encoder has forked, which may outlive us: keep no bell, lock or pipe."""
        for descriptor in (*self._setting.descriptors, self._parent.descriptor):
            try:
                os.close(descriptor)
            except OSError:
                pass

    def run(self) -> int:
        """Work until there is nothing more to do; returns the exit status."""
        if not self._is_needed:
            return 0
        try:
            job = self._open_job()
        except BaseException as error:
            self._tell_failure(WriteError.of_sample(error, writer="", name=""))
            self._queue.say_broken(self._me)
            ring(self._news)
            return 1
        if not self.is_plain:
            # Before this thread gives way, whose priority it has.
            with suppress(RuntimeError):  # no thread is left, and this one takes units itself
                self._taking = OtherThread()
        if self._taking is not None:
            # Only now, since the parent may be waiting for the first sample. A user's code may have to stay in one
            # thread. All but the first leave a core at once; the first stores samples on a machine that is busy, too.
            give_way(wholly=self._me > 0)
        try:
            self._work(job)
            if not self._queue.ends_unsealed:
                job.session.seal(self._lane)
        finally:
            self._giving_way.close()
            if self._taking is not None:
                self._taking.close()
            self._lane.close()
            job.session.close()
        return 0

    def _open_job(self) -> Job:
        self._slots = SharedView(self._slots_file, self._mapped)
        job = loads(os.pread(self._job_file, os.fstat(self._job_file).st_size, 0))
        assert isinstance(job, Job)
        job.patience.is_over = lambda: self._queue.hurried
        # The disk may be full just now, since another helper is at work already.
        job.patience.call(job.session.open, lambda _: None)
        self._lane = job.session.lane(self._me)
        self._reader = BatchReader(job)
        own_target = type(job.session.target).__module__.startswith("lighter_async.targets.")
        self.is_plain = own_target and is_built_in(job.writer)
        return job

    def _work(self, job: Job) -> None:
        waiting = select.poll()
        mine = self._bells[self._me]
        waiting.register(mine, select.POLLIN)
        is_first = True
        while True:
            self._seal_if_asked(job)
            if self._parent.has_ended:
                self._parent.start_successor()
                # First, so that there is a free cell for another one.
                claim = self._take(partial(self._queue.inherit, self._me))
                if claim is not None:
                    if self._queue.has_killed(self._me):
                        self._parent.start_successor(surely=True)
                    self._write(job, claim)
                    continue
            claim, sleeper, news = self._take(partial(self._queue.turn, self._me))
            if news:
                ring(self._news)
            if sleeper is not None:
                ring(self._bells[sleeper])
            if claim is not None:
                self._write(job, claim)
            elif self._parent.has_ended:
                self._batch = None
                if not self._queue.has_work:
                    if not self._queue.others(self._me):
                        self._slots.discard()
                    return
                # Another one is at work, and may die over it.
                waiting.poll(_MILLISECONDS_TO_LOOK)
                silence(mine)
            elif self._queue.ending:
                return
            else:
                self._batch = None
                # Looked at once more after a moment: what was appended just before we said that we sleep may be seen
                # late, and its bell is not rung.
                if waiting.poll(_MILLISECONDS_TO_SEE if is_first else None):
                    silence(mine)
                    is_first = True
                else:
                    is_first = False
                continue
            is_first = True

    def _write(self, job: Job, claim: Claim) -> None:
        try:
            batch = self._batch_of(claim)
        except BaseException as error:
            self._fail_all(job, claim, error)
            return
        if job.patience.write_timeout is not None and _may_need_torch(job, batch.staged):
            import torch  # noqa: F401  # which takes seconds, that are no sample's
        unit = Unit(batch, claim.start, claim.stop, claim.redelivered)
        self._count(self._do(partial(write_unit, job, unit, self._lane, self._on_progress)))
        # Only now: no sample's memory waits for it.
        if self._lane.wants_seal:
            self._do(partial(job.session.seal, self._lane, only_full=True))

    def _take(self, call: Callable[[], _T]) -> _T:
        """Call what holds the queue's lock, in a thread that does not give way."""
        return call() if self._taking is None else self._taking(call)

    def _do(self, call: Callable[[], Any]) -> Any:
        return self._giving_way(call) if self.is_plain else call()

    def _seal_if_asked(self, job: Job) -> None:
        if request := self._queue.request_to_seal(self._me):
            job.session.seal(self._lane)
            self._queue.say_sealed(self._me, request)
            ring(self._news)

    def _count(self, result: Result) -> None:
        for failure in result.failures:
            self._tell_failure(failure)
        self._queue.count(
            self._me,
            written=result.written,
            skipped=result.skipped,
            failed=len(result.failures),
            nbytes=result.bytes_written,
            encode_ns=int(result.encode_seconds * 1e9),
            store_ns=int(result.store_seconds * 1e9),
        )

    def _batch_of(self, claim: Claim) -> Batch:
        if self._batch is None or self._batch[0] != claim.serial:
            self._batch = None  # let go of the last one's memory first
            (names, origin), message = self._message(claim)
            slot = self._slots.slot(*claim.slot) if claim.slot[1] else None
            staged = self._reader.read(message, slot)
            self._batch = claim.serial, Batch(names, staged, 0, len(names), origin=origin)
        return self._batch[1]

    def _message(self, claim: Claim) -> tuple[tuple[Sequence[str], Origin | None], Any]:
        offset, size = claim.message
        message = self._slots.slot(offset, size).memory.data
        length = int.from_bytes(message[:8], "little")
        return unpickled_names(message[8 : 8 + length]), message[8 + length :]

    def _fail_all(self, job: Job, claim: Claim, error: BaseException) -> None:
        """A batch that cannot be made out here, for a user's class cannot be imported: each sample has failed."""
        (names, _), _ = self._message(claim)
        failures = [job.failure(names[index], error, 1) for index in range(claim.start, claim.stop)]
        self._count(Result(failures=failures))

    def _tell_failure(self, failure: WriteError) -> None:
        if self._parent.has_ended:
            return  # nobody reads it
        if self._failures_bytes and self._queue.is_all_read(self._me):
            self._queue.begin_failures_anew(self._me)
            os.ftruncate(self._failures_file, 0)
            os.lseek(self._failures_file, 0, os.SEEK_SET)
        pickled = pickled_failure(failure)
        told = len(pickled).to_bytes(8, "little") + pickled
        view = memoryview(told)
        while view:
            view = view[os.write(self._failures_file, view) :]
        self._failures_bytes += len(told)
        self._queue.say_failures(self._me, self._failures_bytes)
