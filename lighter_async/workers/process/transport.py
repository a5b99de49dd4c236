"""What a process shares with its helpers: files in memory, bells and descriptors; and how one helper is started."""

from __future__ import annotations

import os
import select
import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace

from lighter_async.forks import Descriptors, no_fork
from lighter_async.staging import SharedMemory
from lighter_async.workers.process.bells import make_bell, ring, silence
from lighter_async.workers.process.helper_setting import Setting
from lighter_async.workers.process.interpreter import folder_and_path
from lighter_async.workers.process.launch import Process, launch, needed, standard_descriptors
from lighter_async.workers.process.shared_queue_parent_side import ParentQueue

__all__ = ["Transport"]


class Transport:
    """The way to the helpers and back.

    The backend's lock guards it, but for `wake`, which any thread may call at any time.

    Args:
        cells: Helpers that the queue has a place for.
        records: Records that the queue has a place for.
        memory: What slots lie in.

    Attributes:
        queue: The queue, once `open` was called.
        events: Becomes readable when a helper has news, or ends.
        own: The descriptors of this process and of its helpers' files.

    Raises:
        BackendUnavailableError: The system has no epoll for this process.
    """

    def __init__(self, cells: int, records: int, memory: SharedMemory) -> None:
        self._cells, self._records = cells, records
        self._memory = memory
        self._folder, self._path = folder_and_path(sys.path)
        self.own = Descriptors()
        self._setting: Setting | None = None  # what all helpers are told; None while nothing is open
        self.queue: ParentQueue
        self._has_queue = False
        with needed("bells between processes (eventfd, epoll)"):
            self.events = _closed_epoll()

    @property
    def is_closed(self) -> bool:
        return self.events.closed

    def open(self, job: bytes, inherited: Sequence[int]) -> None:
        """Make everything that is shared.

        Args:
            job: The pickled job.
            inherited: Descriptors that helpers keep open: locks that are to be held until they end, too.

        Raises:
            BackendUnavailableError: The system refuses some of it. `close` lets go of the rest.
        """
        _open.add(self)
        with needed("memory that processes share"):
            self._memory.open()
            queue_file = self._file("queue", ParentQueue.size_of(self._cells, self._records))
            self.queue = ParentQueue(queue_file, self._cells, self._records)
            self._has_queue = True
            job_file = self._file("job", 0)
            left = memoryview(job)
            while left:
                left = left[os.write(job_file, left) :]
        with needed("bells between processes (eventfd, epoll)"):
            bells = tuple(self.own.open(make_bell) for _ in range(self._cells))
            news = self.own.open(make_bell)
            tie = self.own.open(self._make_tie)
            with no_fork:
                self.events = select.epoll()
            self.events.register(news, select.EPOLLIN)
        self._setting = Setting(
            helper=-1,
            helpers=self._cells,
            records=self._records,
            mapped=self._memory.mapped,
            parent=os.getpid(),
            queue=queue_file,
            slots=self._memory.descriptor,
            job=job_file,
            failures=-1,
            stack=-1,
            bells=bells,
            news=news,
            inherited=tuple(inherited),
            tie=tie,
        )

    def _file(self, what: str, size: int) -> int:
        descriptor = self.own.open(os.memfd_create, f"lighter-async-{what}", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, size)
        return descriptor

    def _make_tie(self) -> int:
        """The end of a pipe that helpers hold; the other end is this process's alone, and is closed when it ends.

        So they know when it does, also by becoming another program (`os.execv`), which keeps its number.
        """
        theirs, ours = os.pipe()
        self.own.open(lambda: ours)
        return theirs

    def launch(self, helper: int) -> Process:
        """Start a helper, and do not wait for it.

        Raises:
            BackendUnavailableError, OSError: As `launch.launch`.
        """
        assert self._setting is not None
        failures = stack = -1
        try:
            with standard_descriptors():
                failures = self._file("failures", 0)
                stack = self._file("stack", 0)
            setting = replace(self._setting, helper=helper, failures=failures, stack=stack)
            process = launch(setting, self.own, folder=self._folder, path=self._path)
        except BaseException:
            self.own.close(failures, stack)
            raise
        self.events.register(process.alive, select.EPOLLIN)
        return process

    # Bells

    def ring_sleepers(self, *, everyone: bool = False) -> None:
        """Wake those helpers that are needed for what is in the queue."""
        for sleeper in self.queue.sleepers(everyone=everyone):
            assert self._setting is not None
            ring(self._setting.bells[sleeper])

    def end(self, *, seal: bool = True) -> None:
        """Have the helpers end once the queue is empty.

        Args:
            seal: Whether they seal what they have stored before.
        """
        if self._has_queue:
            self.queue.end(seal=seal)
        self._ring_all()

    def ask_to_seal(self) -> int:
        """Have the helpers seal what they have stored; returns the number of the request."""
        request = self.queue.ask_to_seal()
        self._ring_all()
        return request

    def _ring_all(self) -> None:
        if self._setting is not None:
            for bell in self._setting.bells:
                ring(bell)

    def wake(self) -> None:
        """Have `events` be readable."""
        with no_fork:  # so that it is not closed in between
            if self._setting is not None:
                ring(self._setting.news)

    def take_news(self) -> set[int]:
        """The descriptors that are readable; the bell of the helpers' news is silenced."""
        ready = {descriptor for descriptor, _ in self.events.poll(0)}
        assert self._setting is not None
        if self._setting.news in ready:
            silence(self._setting.news)
        return ready

    # The end

    def close(self) -> None:
        """Let go of everything, also where not all of it could be had."""
        # Together, for a forked child closes what is still there.
        with no_fork:
            _open.discard(self)
            self._setting = None
            if self._has_queue:
                self.queue.close()
            self.events.close()
            self.own.close_all()
        self._memory.close()

    def forked(self) -> None:
        """In a forked child: let go of what the parent and its helpers share, but for the slots' addresses."""
        if self._has_queue:
            try:
                self.queue.close()
            except BufferError:
                pass  # another thread of the parent was reading in it; it goes with that one's frames, if ever
        self.events.close()


# Whose memory a forked child has to let go of: a data loader's worker may live as long as the job.
_open: weakref.WeakSet[Transport] = weakref.WeakSet()


def _forked() -> None:
    for transport in list(_open):
        transport.forked()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _closed_epoll() -> select.epoll:
    events = select.epoll()
    events.close()
    return events
