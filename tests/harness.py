"""Ways of working for the service's contract suite, and helpers of the tests that spawn processes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from time import monotonic, sleep
from typing import Any, ClassVar

import numpy as np

from lighter_async import BackgroundWriter, Encoder, LocalTarget, Target
from lighter_async.types import WriterStats

__all__ = [
    "AsyncHarness",
    "Gate",
    "GatedTarget",
    "HelperHarness",
    "HelperPathHarness",
    "Logged",
    "MemoryTarget",
    "PathHarness",
    "ServiceHarness",
    "TargetHarness",
    "content",
    "in_thread",
    "run_script",
    "script_running",
    "shared_memory",
    "until",
]

DEADLINE = 30.0
"""Seconds after which something that should have happened is taken not to happen."""


def until(condition: Callable[[], Any], what: str = "") -> None:
    """Wait until `condition` holds.

    For what tells nobody when it happens: a state of another thread or process.
    """
    deadline = monotonic() + DEADLINE
    while not condition():
        assert monotonic() < deadline, f"never happened: {what or condition}"
        sleep(0.001)


def shared_memory() -> int:
    """Bytes that this process holds of memory that it shares, or could share."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines["RssShmem"].split()[0])


class in_thread:
    """Run a call in a thread of its own; `result` waits for what it returned or raises what it raised."""

    def __init__(self, call: Callable[..., Any], *args: Any, **options: Any) -> None:
        self._call = lambda: call(*args, **options)
        self._returned: Any = None
        self._raised: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._returned = self._call()
        except BaseException as error:
            self._raised = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the call never returned"
        if self._raised is not None:
            raise self._raised
        return self._returned


class Logged(logging.Handler):
    """Keeps the messages that come to it, each with its traceback if it has one."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


class Gate:
    """What a sample passes while it is written: parks it there, fails it there, or calls something there.

    It stands open at first. Samples are told apart by their names.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # Guarded by _changed:
        self._shut = False
        self._let: set[str] = set()
        self._wakers: list[Callable[[], None]] = []
        self._failures: dict[str, BaseException] = {}
        self._calls: dict[str, Callable[[], None]] = {}
        self.names: list[str] = []  # of the samples that came here, in order
        self.inside = self.most_inside = 0  # samples that are here, and the most that ever were

    # For tests

    def shut(self) -> None:
        """Park the samples that come from now on."""
        with self._changed:
            self._shut = True

    def release(self, *names: str) -> None:
        """Let the samples of these names pass; without names, all, and open the gate."""
        with self._changed:
            self._let.update(names)
            self._shut = self._shut and bool(names)
            self._changed.notify_all()
            for wake in self._wakers:
                wake()

    def fail(self, *names: str, error: BaseException | None = None) -> None:
        """Have the samples of these names raise `error`, a ValueError by default, once they passed."""
        with self._changed:
            for name in names:
                self._failures[name] = error or ValueError(f"no way to write {name}")

    def call(self, name: str, function: Callable[[], None]) -> None:
        """Have the worker call a function when the sample of this name passes."""
        with self._changed:
            self._calls[name] = function

    def wait_entered(self, count: int = 1) -> None:
        """Wait until so many samples have come here in all."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.names) >= count, DEADLINE), f"only {self.names} came"

    # For writers

    def passing(self, name: str) -> None:
        """Called by a worker that writes a sample."""
        with self._changed:
            self._enter(name)
            assert self._changed.wait_for(lambda: self._is_free(name), DEADLINE), "nobody opened the gate"
            self.inside -= 1
        self._act(name)

    async def passing_async(self, name: str) -> None:
        """As `passing`, for a coroutine."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(woken.set)

        with self._changed:
            self._enter(name)
            self._wakers.append(wake)
        try:
            while not self._is_free(name):
                await asyncio.wait_for(woken.wait(), DEADLINE)
                woken.clear()
        finally:
            with self._changed:
                self._wakers.remove(wake)
                self.inside -= 1
        self._act(name)

    def _enter(self, name: str) -> None:
        self.names.append(name)
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self._changed.notify_all()

    def _is_free(self, name: str) -> bool:
        return not self._shut or name in self._let

    def _act(self, name: str) -> None:
        if name in self._calls:
            self._calls[name]()
        if name in self._failures:
            raise self._failures[name]


class MemoryTarget:
    """A target that keeps samples in a dict: the least that a target of one's own needs.

    Args:
        store: Where the samples go; targets on one dict share one name space.
    """

    def __init__(self, store: dict[str, bytes]) -> None:
        self.store = store

    @property
    def location(self) -> str:
        return f"memory:{id(self.store)}"

    def open(self) -> None:
        pass

    def check(self, names: Sequence[str]) -> None:
        pass

    def keeps(self, name: str) -> bool:
        return False

    def put(self, name: str, parts: Sequence[memoryview]) -> bool:
        self.store[name] = b"".join(parts)
        return True

    def close(self) -> None:
        pass


class GatedTarget:
    """Another target behind a gate."""

    def __init__(self, target: Target, gate: Gate | FarGate, suffix: str) -> None:
        self._target = target
        self._gate = gate
        self._suffix = suffix

    @property
    def location(self) -> str:
        return self._target.location

    def open(self) -> None:
        self._target.open()

    def check(self, names: Sequence[str]) -> None:
        self._target.check(names)

    def keeps(self, name: str) -> bool:
        return self._target.keeps(name)

    def put(self, name: str, parts: Sequence[memoryview]) -> bool:
        self._gate.passing(name.removesuffix(self._suffix))
        return self._target.put(name, parts)

    def close(self) -> None:
        self._target.close()


class ServiceHarness(ABC):
    """One way of working that the contract suite is run on.

    A harness makes services that all write to one place, through one gate, and reads what is stored there. The bytes
    stored for a value are those of `content`.

    Attributes:
        gate: What the samples of all its services pass while they are written.
        directory: Where the files go, for those that write files. Nobody has made it yet.
        same_process: Whether the writers run in this process, so that what they do to its objects is seen here.
        opaque: Whether a writer stores by itself what it likes, so that whole-or-nothing is its own affair.
    """

    same_process: ClassVar[bool] = True
    opaque: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        self.gate = Gate()
        self.directory = folder / "out"
        self._services: list[BackgroundWriter] = []

    def make_service(self, **options: Any) -> BackgroundWriter:
        """A service with one worker, unless `options`, which are the service's, say otherwise."""
        service = self._make({"max_workers": 1, **options})
        self._services.append(service)
        return service

    def forget(self) -> None:
        """Keep no reference to the services that were made."""
        self._services.clear()

    def close(self) -> None:
        """Open the gate, and close what a test left open."""
        self.gate.release()
        for service in self._services:
            with contextlib.suppress(Exception):
                service.close(timeout=DEADLINE)

    def host_memory(self, service: BackgroundWriter) -> int:
        """Bytes of staging memory that a service holds."""
        return service._pool.total_bytes

    @abstractmethod
    def stored(self) -> dict[str, bytes]:
        """What is stored: each sample's bytes under its name."""

    def leftovers(self) -> list[str]:
        """Temporary files, and whatever else is there that is no sample, while no service is open."""
        return leftovers(self.directory)

    @abstractmethod
    def _make(self, options: dict[str, Any]) -> BackgroundWriter: ...


class TargetHarness(ServiceHarness):
    """An encoder on a target, in threads.

    Args:
        folder: A folder for the test.
        make_target: Makes a target of the kind that is to be tested. All that it makes store in one place.
        read: Everything that is stored there, under the names that `put` was given.
    """

    suffix = ".bin"

    def __init__(
        self,
        folder: Path,
        *,
        make_target: Callable[[], Target] | None = None,
        read: Callable[[], dict[str, bytes]] | None = None,
    ) -> None:
        super().__init__(folder)
        self._make_target = make_target or (lambda: LocalTarget(self.directory))
        self._read = read or (lambda: _files(self.directory))

    def stored(self) -> dict[str, bytes]:
        stored = self._read()
        assert all(name.endswith(self.suffix) for name in stored)
        return {name.removesuffix(self.suffix): data for name, data in stored.items()}

    def _make(self, options: dict[str, Any]) -> BackgroundWriter:
        return BackgroundWriter(
            Encoder(content, suffix=self.suffix, name="content"),
            target=GatedTarget(self._make_target(), self.gate, self.suffix),
            **options,
        )


class GateServer:
    """Lets samples that other processes write pass a gate of this one, through a socket.

    Args:
        gate: Gives the gate.
        folder: Where the socket lies.
    """

    def __init__(self, gate: Callable[[], Gate], folder: Path) -> None:
        self._gate = gate
        self._listener = Listener(str(folder / "gate"))
        self.address = self._listener.address
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with Client(self.address) as connection:
            connection.send(None)  # which ends the accepting
        for thread in self._threads:
            thread.join(DEADLINE)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            connection = self._listener.accept()
            name = connection.recv()
            if name is None:
                connection.close()
                return
            self._threads.append(threading.Thread(target=self._pass, args=(connection, name)))
            self._threads[-1].start()

    def _pass(self, connection: Connection, name: str) -> None:
        raised = None
        with connection:
            try:
                self._gate().passing(name)
            except BaseException as error:
                raised = error
            with contextlib.suppress(OSError):  # whoever was to pass was killed meanwhile
                connection.send(raised)


class FarGate:
    """The gate behind a `GateServer`, from another process."""

    def __init__(self, address: Any) -> None:
        self._address = address

    def passing(self, name: str) -> None:
        with Client(self._address) as connection:
            connection.send(name)
            error = connection.recv()
        if error is not None:
            raise error


class HelperHarness(ServiceHarness):
    """An encoder in helper processes, storing in a local folder."""

    same_process = False
    suffix = ".bin"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._server = GateServer(lambda: self.gate, folder)

    def stored(self) -> dict[str, bytes]:
        return {name.removesuffix(self.suffix): data for name, data in _files(self.directory).items()}

    def close(self) -> None:
        super().close()
        self._server.close()

    def _make(self, options: dict[str, Any]) -> BackgroundWriter:
        return BackgroundWriter(
            Encoder(content, suffix=self.suffix, name="content"),
            target=GatedTarget(LocalTarget(self.directory), FarGate(self._server.address), self.suffix),
            backend="process",
            **options,
        )


class HelperPathHarness(HelperHarness):
    """A plain function ``(path, value)`` in helper processes."""

    opaque = True
    suffix = ""

    def _make(self, options: dict[str, Any]) -> BackgroundWriter:
        directory, gate = self.directory, FarGate(self._server.address)

        def write_content(path: Path, value: Any) -> None:
            gate.passing(path.relative_to(directory).as_posix())
            path.write_bytes(content(value))

        return BackgroundWriter(write_content, directory, backend="process", **options)


class PathHarness(ServiceHarness):
    """A plain function ``(path, value)``, in threads."""

    opaque = True

    def stored(self) -> dict[str, bytes]:
        return _files(self.directory)

    def _make(self, options: dict[str, Any]) -> BackgroundWriter:
        def write_content(path: Path, value: Any) -> None:
            self.gate.passing(path.relative_to(self.directory).as_posix())
            path.write_bytes(content(value))

        return BackgroundWriter(write_content, self.directory, **options)


class AsyncHarness(ServiceHarness):
    """An async function ``(path, value)``, on the workers' event loop."""

    opaque = True

    def stored(self) -> dict[str, bytes]:
        return _files(self.directory)

    def _make(self, options: dict[str, Any]) -> BackgroundWriter:
        async def write_content(path: Path, value: Any) -> None:
            await self.gate.passing_async(path.relative_to(self.directory).as_posix())
            path.write_bytes(content(value))

        return BackgroundWriter(write_content, self.directory, **options)


def content(value: Any) -> bytes:
    """The bytes that a sample of the contract suite becomes: a string's, a tensor's or an array's, or the repr's."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, np.ndarray) or hasattr(value, "numpy"):
        return np.asarray(value).tobytes()
    return repr(value).encode()


def results(folder: Path) -> list[Path]:
    """The files below a folder that are no manifest, nor anything else of ours."""
    return [
        path
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink())
        and not any(part.startswith(".lighter-async") for part in path.relative_to(folder).parts)
    ]


def leftovers(folder: Path) -> list[str]:
    """Our temporary files, locks and markers. Manifests stay, as does the demo's mark of the folders that it made."""
    parts = [path for path in folder.rglob(".lighter-async*") if path.is_file() and path.name != ".lighter-async-demo"]
    own = [path for ending in ("*.lock", "run-*") for path in folder.rglob(f".lighter-async/{ending}")]
    return [str(path) for path in (*parts, *own)]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in results(folder)}


# Processes


def run_script(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a Python script in an interpreter of its own to its end."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=2 * DEADLINE
    )


@contextlib.contextmanager
def script_running(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python script in an interpreter of its own, to talk to; it is killed if it does not end by itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def stats_of(**counted: Any) -> WriterStats:
    """What a writer has counted, with zeros for what is not given."""
    zeros = {one.name: 0 for one in fields(WriterStats) if one.default is MISSING}
    return WriterStats(**{**zeros, **counted})
