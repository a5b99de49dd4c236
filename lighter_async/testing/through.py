"""What every target must do as that of a `BackgroundWriter`."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lighter_async.errors import InvalidNameError, WriteError
from lighter_async.service import BackgroundWriter
from lighter_async.targets import Target
from lighter_async.testing.base import MakeTarget, TargetSuite, check_stored
from lighter_async.testing.faulty import Fault, FaultyTarget
from lighter_async.testing.storing import content_of
from lighter_async.types import BackendName
from lighter_async.workers.process.launch import supported
from lighter_async.writers import Encoder

__all__ = ["WriterSuite"]

_DEADLINE = 60.0  # seconds, for a writer that should be closed by now


class Refused(ValueError):
    """What does not pass by itself."""


def encode_plainly(value: bytes) -> bytes:
    """The value itself."""
    return value


def _refused() -> Refused:
    return Refused("as told")


def _passing() -> OSError:
    return OSError(errno.EIO, os.strerror(errno.EIO))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class WriterSuite(TargetSuite):
    """Of a target that a `BackgroundWriter` stores to, with threads and with helper processes."""

    @pytest.fixture(params=["thread", "process"])
    def backend(self, request: pytest.FixtureRequest) -> BackendName:
        """What the workers are."""
        backend: BackendName = request.param
        if backend == "process":
            if not self.across_processes:
                pytest.skip("a copy of it in another process stores somewhere else (across_processes = False)")
            if not supported():
                pytest.skip("there are no helper processes on this system")
        return backend

    def test_a_writer_stores_everything(self, make_target: MakeTarget, backend: BackendName) -> None:
        """One by one and in batches, from two threads, in folders."""
        singles, batches = ([f"{kind}/{one % 3}/{one}" for one in range(40)] for kind in ("single", "batch"))

        def submit() -> None:
            for name in singles:
                writer.submit(name, content_of(name))

        with _writer(make_target(), backend, max_workers=2) as writer:
            writer.start()
            thread = threading.Thread(target=submit)
            thread.start()
            for start in range(0, 40, 8):
                names = batches[start : start + 8]
                writer.submit_batch(names, [content_of(name) for name in names])
            thread.join()
            writer.flush(timeout=_DEADLINE)
            for name in self.refused_names:
                with pytest.raises(InvalidNameError):
                    writer.submit(name, b"refused")
        stats = writer.stats()
        assert (stats.written, stats.failed, stats.pending) == (80, 0, 0)
        check_stored(self.read(make_target()), {f"{name}.bin": content_of(name) for name in [*singles, *batches]})

    def test_a_writer_stores_or_reports_each_sample(
        self, make_target: MakeTarget, backend: BackendName, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """What fails for good is told by its name, what passes is stored, also if its helper dies; the others are."""
        faults = {
            "2.bin": Fault(error=_refused, times=99),
            "d/3.bin": Fault(error=_refused, times=99, when="during"),
            "4.bin": Fault(error=_passing, when="during"),
            "d/5.bin": Fault(error=_passing, when="after"),
        }
        if backend == "process":
            faults["6.bin"] = Fault(error=_die, when="during")
        names = [f"d/{number}" if number % 2 else f"{number}" for number in range(20)]
        target = FaultyTarget(make_target(), faults, counts=tmp_path_factory.mktemp("counts"))
        with pytest.raises(WriteError) as raised:
            with _writer(target, backend, max_workers=2) as writer:
                writer.submit_batch(names, [content_of(name) for name in names])
        assert {failure.name for failure in raised.value.failures} == {"2", "d/3"}
        assert all(isinstance(failure.cause, Refused) for failure in raised.value.failures)
        stats = writer.stats()
        assert (stats.written, stats.failed, stats.pending) == (18, 2, 0)
        stored = [name for name in names if name not in ("2", "d/3")]
        check_stored(self.read(make_target()), {f"{name}.bin": content_of(name) for name in stored})


@contextmanager
def _writer(target: Target, backend: BackendName, **options: Any) -> Iterator[BackgroundWriter]:
    writer = BackgroundWriter(Encoder(encode_plainly, suffix=".bin"), target=target, backend=backend, **options)
    with writer:
        yield writer
