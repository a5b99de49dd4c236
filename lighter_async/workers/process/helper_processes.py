"""The helper processes: starting them, seeing which are late, stuck or dead, and reading their failures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import monotonic, monotonic_ns

from lighter_async.errors import WriteError, WriteTimeoutError
from lighter_async.interrupts import run_handlers
from lighter_async.workers.process.launch import Process, check_descriptors, needed
from lighter_async.workers.process.pickled_messages import unpickled_failure
from lighter_async.workers.process.shared_queue_words import Outcome
from lighter_async.workers.process.transport import Transport

__all__ = ["HelperProcesses", "HelperProcess"]

_SECONDS_TO_NOTICE = 0.05
_SECONDS_TO_END = 30.0  # for helpers that have nothing left to do; what a user's writer left running may hold them
_SECONDS_IN_LOCK = 5.0  # of a helper, after which it is looked at whether it stands still


class HelperProcess:
    """One helper.

    Attributes:
        process: The process.
        ticket: The last one that it has entered a result for.
        killed: Set when it was ended because it took too long.
    """

    __slots__ = ("_failures_read", "killed", "process", "ticket")

    def __init__(self, process: Process) -> None:
        self.process = process
        self.ticket = 0
        self.killed: WriteTimeoutError | None = None
        self._failures_read = 0  # bytes

    def read_failures(self, base: int, end: int) -> list[WriteError]:
        """The failures up to byte `end` of all that it ever told, where its file begins behind byte `base`."""
        found = []
        while self._failures_read < end:
            begin = self._failures_read + 8
            place = begin - base
            length = int.from_bytes(os.pread(self.process.failures, 8, place - 8), "little")
            found.append(unpickled_failure(os.pread(self.process.failures, length, place)))
            self._failures_read = begin + length
        return found


class HelperProcesses:
    """The helpers. The backend's lock guards it, but for `late` and `look_for_stuck`, which only look.

    Args:
        transport: The way to them.
        size: How many.
        write_timeout: Seconds that they may take for a sample.

    Attributes:
        members: The helpers; None where one could not be started again.
    """

    def __init__(self, transport: Transport, size: int, write_timeout: float | None) -> None:
        self._transport = transport
        self._write_timeout = write_timeout
        self.members: list[HelperProcess | None] = [None] * size
        self._stuck = 0, 0.0  # the helper that holds the queue's lock, and since when

    # Their life

    def start(self) -> None:
        """
        Raises:
            BackendUnavailableError: The system cannot start them.
        """
        for helper in range(len(self.members)):
            with needed("processes of their own"):
                self.launch(helper)
        with needed("descriptors"):
            check_descriptors(max(member.process.alive for member in self.members if member is not None))

    def launch(self, helper: int) -> None:
        """Start one, in the place of one that has ended if there was one.

        Raises:
            OSError: The system cannot.
        """
        self.members[helper] = HelperProcess(self._transport.launch(helper))

    def remove(self, helper: int) -> int:
        """Free the place of one that has ended; returns its exit status."""
        member = self.members[helper]
        assert member is not None
        self._transport.queue.clear(helper)
        self.members[helper] = None
        return member.process.wait()

    def wait_until_ended(self) -> None:
        """Wait for the end of all, who have been told; signals' handlers run meanwhile, and may raise."""
        deadline = monotonic() + _SECONDS_TO_END
        for member in self.members:
            while member is not None and not member.process.has_ended(_SECONDS_TO_NOTICE):
                run_handlers()
                if monotonic() > deadline:
                    member.process.popen.kill()

    def close(self) -> None:
        """Wait for the end of all, and let go of them."""
        for member in self.members:
            if member is not None:
                member.process.wait()
        self.members = [None] * len(self.members)

    # Their failures

    def read_failures(self, helper: int, end: int) -> list[WriteError]:
        """What a helper told of failures up to byte `end` and was not read yet."""
        member, queue = self.members[helper], self._transport.queue
        assert member is not None
        found = member.read_failures(queue.base(helper), end)
        queue.read(helper, end)
        return found

    def failures_of(self, outcome: Outcome) -> Sequence[WriteError]:
        """The failures of a unit."""
        return self.read_failures(outcome.helper, outcome.failures) if outcome.failed else ()

    # Those that hang

    def late(self) -> list[int]:
        """Those that have been at one sample for longer than `write_timeout`."""
        if self._write_timeout is None:
            return []
        queue, before = self._transport.queue, monotonic_ns() - int(self._write_timeout * 1e9)
        return [
            helper
            for helper, member in enumerate(self.members)
            if member is not None and member.killed is None and 0 < queue.since(helper) < before
        ]

    def kill(self, helper: int) -> None:
        """End a helper that takes too long, once it has told where it is."""
        member = self.members[helper]
        assert member is not None
        stack = member.process.stack()
        member.process.popen.kill()
        member.killed = WriteTimeoutError(
            f"writing took longer than write_timeout={self._write_timeout:g} s, and the helper process was ended in\n"
            f"{stack}",
            stack=stack,
        )

    def look_for_stuck(self) -> None:
        """End a helper that stands still while it holds the queue's lock, for which all others wait."""
        try:
            holder, now = self._transport.queue.lock.holder, monotonic()
        except OSError:
            return  # stopped meanwhile
        if not holder or holder != self._stuck[0]:
            self._stuck = holder, now
            return
        seconds = now - self._stuck[1]
        if seconds > min(_SECONDS_IN_LOCK, self._write_timeout or _SECONDS_IN_LOCK):
            self._transport.queue.lock.end_if_stuck(seconds)
