"""A helper process, from inside: takes units from the book and writes their samples, until there are no more.

It needs PyTorch only where the writer does, or a user's function is handed a tensor. It ends when it is told to, or
when its parent has died or become another program, in either case after the queue is empty.
"""

from __future__ import annotations

import faulthandler
import json
import os
import pickle
import select
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lighter_async.errors import WriteError
from lighter_async.forks import Descriptors
from lighter_async.staging import SharedView, Staged
from lighter_async.twin import loads
from lighter_async.types import Batch, Origin, Result, Unit
from lighter_async.workers.job import Job
from lighter_async.workers.process.bells import ring, silence
from lighter_async.workers.process.helper_book import HelperBook
from lighter_async.workers.process.letter import open_batch, seal_failure
from lighter_async.workers.process.words import Claim
from lighter_async.workers.writing import write_unit
from lighter_async.writers import is_built_in

if TYPE_CHECKING:
    from lighter_async.workers.process.launch import Process

__all__ = ["HELPER_OF", "Setting", "main"]

HELPER_OF = "LIGHTER_ASYNC_HELPER_OF"
"""An environment variable that only a helper finds, and only until it is at work: the process that it works for."""

_MILLISECONDS_TO_LOOK = 100  # whether another helper has died, once the parent has
_MILLISECONDS_TO_SEE = 20
_NICENESS = 10  # a tenth of a core that others want, too


@dataclass(frozen=True, slots=True)
class Setting:
    """What a helper is told at its start. Descriptors are inherited under their numbers.

    Attributes:
        helper: Which of the helpers it is, from 0 on.
        helpers: How many there are.
        records: The book's size.
        mapped: Bytes of the slots' memory that are mapped at once.
        parent: The process that it works for.
        book, slots, job, failures, stack: Descriptors of files in memory: the queue, the samples, the pickled job, and
            where this helper's failures are told, and where it is.
        bells: Descriptors that wake a helper that sleeps, one for each.
        news: Descriptor that tells the parent that something was done, if it waits for that.
        inherited: Descriptors that it keeps open, and does nothing with: locks that are held until it ends.
        tie: End of a pipe whose other end is the parent's alone: it is closed when that one ends, or becomes another
            program (`os.execv`).
    """

    helper: int
    helpers: int
    records: int
    mapped: int
    parent: int
    book: int
    slots: int
    job: int
    failures: int
    stack: int
    bells: tuple[int, ...]
    news: int
    inherited: tuple[int, ...] = ()
    tie: int = -1

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that it inherits."""
        memory = self.book, self.slots, self.job, self.failures, self.stack
        tie = () if self.tie < 0 else (self.tie,)
        return (*memory, *self.bells, self.news, *tie, *self.inherited)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


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
    takes_blocks = bool(job.outputs) and all(output.encoder.takes_blocks for output in job.outputs)
    return not takes_blocks or staged.rows is None


def _give_way(helper: int) -> None:
    """Let the loop go first.

    All helpers but the first run only on cores that nothing else wants, and leave one at once when a program wants it.
    The first has a low priority instead, so that a machine that other programs keep wholly busy stores samples, too.
    """
    try:
        if helper:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        else:
            os.nice(_NICENESS)
    except OSError:
        pass  # a sandbox may forbid it


class Helper:
    """One helper."""

    def __init__(self, setting: Setting) -> None:
        self._me = setting.helper
        self._setting = setting
        for descriptor in setting.descriptors:
            os.set_inheritable(descriptor, False)  # a program that an encoder starts may outlive us
        self._book = HelperBook(setting.book, setting.helpers, setting.records)
        self._is_needed = self._book.live(setting.helper)
        os.register_at_fork(after_in_child=self._forked)
        self._slots: SharedView
        self._slots_file, self._mapped = setting.slots, setting.mapped
        self._job_file = setting.job
        self._failures_file = setting.failures
        self._failures_bytes = 0
        self._bells = setting.bells
        self._news = setting.news
        self._tie = setting.tie
        try:
            self._parent = os.pidfd_open(setting.parent)
        except ProcessLookupError:
            self._parent = -1
        # Looked at after the descriptor was opened, which may be another process's of that number otherwise.
        self._orphan = os.getppid() != setting.parent
        self._successor: Process | None = None  # the latest one
        self._successor_lock = threading.Lock()
        if self._is_needed:
            threading.Thread(target=self._watch_parent, daemon=True).start()
        self._batch: tuple[int, Batch] | None = None  # the last one and its serial number
        self.is_plain = False  # whether it runs code of this package alone

    def _forked(self) -> None:
        """In a child that an encoder has forked, which may outlive us: keep no bell, lock or pipe."""
        for descriptor in (*self._setting.descriptors, self._parent):
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
            self._book.say_broken(self._me)
            ring(self._news)
            return 1
        _give_way(self._me)  # only now, since the parent may be waiting for the first sample
        try:
            self._work(job)
            if not self._book.ends_unsealed:
                job.session.seal(self._lane)
        finally:
            self._lane.close()
            job.session.close()
        return 0

    def _open_job(self) -> Job:
        self._slots = SharedView(self._slots_file, self._mapped)
        job = loads(os.pread(self._job_file, os.fstat(self._job_file).st_size, 0))
        assert isinstance(job, Job)
        job.patience.is_over = lambda: self._book.hurried
        # The disk may be full just now, since another helper is at work already.
        job.patience.call(job.session.open, lambda _: None)
        self._lane = job.session.lane(self._me)
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
            if self._orphan:
                self._start_successor()
                # First, so that there is a free cell for another one.
                claim = self._book.inherit(self._me)
                if claim is not None:
                    self._write(job, claim)
                    continue
            claim, sleeper, news = self._book.turn(self._me)
            if news:
                ring(self._news)
            if sleeper is not None:
                ring(self._bells[sleeper])
            if claim is not None:
                self._write(job, claim)
            elif self._orphan:
                self._batch = None
                if not self._book.has_work:
                    if not self._book.others(self._me):
                        self._slots.discard()
                    return
                # Another one is at work, and may die over it.
                waiting.poll(_MILLISECONDS_TO_LOOK)
                silence(mine)
            elif self._book.ending:
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
            batch = self._batch_of(job, claim)
        except BaseException as error:
            self._fail_all(job, claim, error)
            return
        if job.patience.write_timeout is not None and _may_need_torch(job, batch.staged):
            import torch  # noqa: F401  # which takes seconds, that are no sample's
        unit = Unit(batch, claim.start, claim.stop, claim.redelivered)
        self._count(write_unit(job, unit, self._lane, partial(self._book.on_progress, self._me)))
        # Only now: no sample's memory waits for it.
        if self._lane.wants_seal:
            job.session.seal(self._lane, only_full=True)

    def _seal_if_asked(self, job: Job) -> None:
        if request := self._book.request_to_seal(self._me):
            job.session.seal(self._lane)
            self._book.say_sealed(self._me, request)
            ring(self._news)

    def _count(self, result: Result) -> None:
        for failure in result.failures:
            self._tell_failure(failure)
        self._book.count(
            self._me,
            written=result.written,
            skipped=result.skipped,
            failed=len(result.failures),
            nbytes=result.bytes_written,
            encode_ns=int(result.encode_seconds * 1e9),
            store_ns=int(result.store_seconds * 1e9),
        )

    def _batch_of(self, job: Job, claim: Claim) -> Batch:
        if self._batch is None or self._batch[0] != claim.serial:
            self._batch = None  # let go of the last one's memory first
            (names, origin), letter = self._letter(claim)
            rows, values, loose, kept = open_batch(letter, job)
            slot = self._slots.slot(*claim.slot) if claim.slot[1] else None
            staged = Staged(slot, None, rows, values, loose, kept)
            self._batch = claim.serial, Batch(names, staged, 0, len(names), origin=origin)
        return self._batch[1]

    def _letter(self, claim: Claim) -> tuple[tuple[Sequence[str], Origin | None], Any]:
        offset, size = claim.letter
        letter = self._slots.slot(offset, size).memory.data
        length = int.from_bytes(letter[:8], "little")
        return pickle.loads(letter[8 : 8 + length]), letter[8 + length :]

    def _fail_all(self, job: Job, claim: Claim, error: BaseException) -> None:
        """A batch that cannot be made out here, for a user's class cannot be imported: each sample has failed."""
        (names, _), _ = self._letter(claim)
        failures = [job.failure(names[index], error, 1) for index in range(claim.start, claim.stop)]
        self._count(Result(failures=failures))

    def _watch_parent(self) -> None:
        """Once the parent has died, or become another program: close what others wait for, and start successors."""
        if self._parent >= 0 and not self._orphan:
            ended = select.poll()
            ended.register(self._parent, select.POLLIN)
            if self._tie >= 0:
                ended.register(self._tie, select.POLLIN)
            ended.poll()
        self._orphan = True
        # A program that reads the job's output would wait for us otherwise.
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.close(nothing)
        ring(self._bells[self._me])
        # What the rest of the thread does while a sample takes long.
        while True:
            self._start_successor()
            time.sleep(_MILLISECONDS_TO_LOOK / 1000)

    def _start_successor(self) -> None:
        """Where no other helper is alive, start one, which goes on should this one be killed."""
        with self._successor_lock:
            if self._successor is not None and self._successor.popen.poll() is None:
                return  # it may not be at work yet
            if not self._book.has_work or self._book.others(self._me):
                return
            cell = self._book.free_cell(self._me)
            if cell is None or not self._book.may_have_successor():
                return
            from lighter_async.workers.process.interpreter import folder_and_path
            from lighter_async.workers.process.launch import launch

            try:
                folder, path = folder_and_path(sys.path)
                self._successor = launch(replace(self._setting, helper=cell), Descriptors(), folder=folder, path=path)
            except OSError:
                pass  # then this one is the last

    def _tell_failure(self, failure: WriteError) -> None:
        if self._orphan:
            return  # nobody reads it
        if self._failures_bytes and self._book.is_all_read(self._me):
            self._book.begin_failures_anew(self._me)
            os.ftruncate(self._failures_file, 0)
            os.lseek(self._failures_file, 0, os.SEEK_SET)
        sealed = seal_failure(failure)
        sealed = len(sealed).to_bytes(8, "little") + sealed
        view = memoryview(sealed)
        while view:
            view = view[os.write(self._failures_file, view) :]
        self._failures_bytes += len(sealed)
        self._book.say_failures(self._me, self._failures_bytes)
