"""The heart: takes samples over, bounded, and has them written in the background."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lighter_async.errors import ClosedError, FlushTimeoutError, WriteError, attach, shown
from lighter_async.interrupts import let_through, uninterrupted
from lighter_async.leaving import Unclosed, tell
from lighter_async.ledger import Ledger, Reservation
from lighter_async.life import Life
from lighter_async.limits import MOST_QUEUED
from lighter_async.manifest import Loader, ManifestLog
from lighter_async.names import Claims, Numbers, check_names, claims_of, with_suffixes
from lighter_async.options import (
    Options,
    WriterOptions,
    check_path_function,
    check_records,
    documented,
    target_of,
    whole_number,
)
from lighter_async.same import check_config
from lighter_async.staging import Plan, StagingPool
from lighter_async.targets import Target, directory_of
from lighter_async.types import (
    Backend,
    Batch,
    Origin,
    Unit,
    WriterStats,
)
from lighter_async.workers import Job, Patience, Quarantine, choose_backend, make_backend
from lighter_async.writers import Encoder, PathFunction, resolve_writer

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["BackgroundWriter", "State"]

State = Literal["new", "running", "failed", "draining", "closed"]
"""Where a writer stands in its life: ``new → running → draining → closed``, with ``failed`` after a write failed."""

_Self = TypeVar("_Self", bound="BackgroundWriter")

# Samples up to this many bytes together are one unit of work, so that tiny ones do not each pay a hand-over.
_UNIT_BYTES = 256 * 1024
_CALLS_AT_EXIT = 10


@documented(WriterOptions)
class BackgroundWriter:
    """Writes samples in the background, each to a file of its own, while the caller goes on.

    What was handed over is copied at once, so that the caller may overwrite it, and is stored whole under its name or
    reported as an error. Memory stays bounded: what is queued or being written is at most `queue_size` samples and
    `queue_bytes` bytes, or one batch where a batch is larger than that. Use it as a context manager, or call `close`.

    All methods may be called from any thread, and from a signal's handler: signals that come in the middle of a call
    are held back until nothing is half done, at the latest when the call returns, and during its waits they come
    through at once. What their handlers raise comes out of the call, and loses nothing. Only in the middle of the
    writer's start, and of the end of its `close`, a handler's calls that need just these raise `RuntimeError`.

    Nothing is started, and no file or thread exists, before the first sample or ``with``.

    Args:
        writer: A registered name (``"tensor"``, ``"image_2d"``, ``"image_3d"``, ``"text"``), an `Encoder`, or a
            function ``(path, value)``, plain or ``async def``; or where one is, as ``"module:attribute"``.
        directory: Where the files go. Made if it does not exist. A target may stand in its place.
        target: Another way to say it: where the bytes go.
        {options}

    Raises:
        ValueError: An option is out of range, the writer's name is not registered, or the options do not go together.
        TypeError: The writer is neither a name nor callable.
    """

    def __init__(
        self,
        writer: str | Callable[..., Any] = "tensor",
        directory: str | os.PathLike[str] | Target | None = None,
        *,
        target: Target | None = None,
        **options: Unpack[WriterOptions],
    ) -> None:
        self.options = own = Options.of("BackgroundWriter", options)
        self.writer = resolve_writer(writer, own.writer_options)
        self.target = target_of(directory, target, if_exists=own.if_exists, durability=own.durability, run=own.run)
        check_records(self.target, manifest=own.manifest, resume=own.resume, on_error=own.on_error)
        self._patience = Patience(own.attempts, own.wait_for_space, own.write_timeout)
        if isinstance(self.writer, PathFunction):
            check_path_function(self.writer, self.target)
        self.max_workers = own.workers
        self.queue_size = own.queue_size
        self.queue_bytes = own.bytes_of_queue
        self._in_directory = directory_of(self.target)
        self._suffix = self.writer.suffix if isinstance(self.writer, Encoder) else ""
        self._chosen = choose_backend(own.backend, self.writer, is_local=self._in_directory is not None)
        if self._chosen == "process":
            self.queue_size = min(self.queue_size, MOST_QUEUED)
        self._may_fall_back = own.backend == "auto"
        # What a dead helper had not done is done again as a unit: a function may not like that, unlike an encoder.
        self._one_by_one = isinstance(self.writer, PathFunction) and (self.writer.is_async or self._chosen == "process")
        self._pool = StagingPool(
            self.queue_bytes,
            accelerator=own.accelerator,
            shared=self._chosen == "process",
            reduce=self.writer.reduce if isinstance(self.writer, Encoder) else None,
        )
        self._ledger = Ledger(
            queue_size=self.queue_size,
            queue_bytes=self.queue_bytes,
            max_workers=self.max_workers,
            location=self.target.location,
            release=self._release if self._chosen == "thread" else partial(_release, self._pool),
            on_error=own.on_error,
        )
        # Starting and finishing; never held while waiting for a sample.
        self._life = Life()
        # Guarded by _life:
        self._backend: Backend | None = None
        self._claims: Claims | None = None
        self._pid = os.getpid()
        self._state: Literal["new", "running", "draining", "closed"] = "new"

    # What callers do

    def start(self) -> None:
        """Start the workers and get the target ready, now instead of at the first sample.

        Raises:
            ClosedError: The writer was closed.
            BackendUnavailableError: With ``backend="process"``: helper processes cannot be had here.
            OSError: The target's directory cannot be made.
        """
        with uninterrupted():
            self._started()
            if self._state in ("draining", "closed"):
                self._ledger.check_open()

    def submit(self, name: str, value: Any, *, timeout: float | None = None, origin: Origin | None = None) -> None:
        """Hand one sample over. Waits while there is no room.

        Args:
            name: The file's name, relative to the directory, ``/`` between folders; the writer's suffix is appended
                unless it ends in it.
            value: What the writer writes. It is copied: tensors and arrays, whatever holds them, and any object by its
                pickle. Locks, open files and what else cannot be pickled are handed over as they are.
            timeout: Seconds to wait for room. None waits without limit.
            origin: Where it comes from, for the manifest: `Origin` of one index.

        Raises:
            InvalidNameError, DuplicateNameError: The name cannot be used; the message tells why.
            QueueFullError: There was no room for `timeout` seconds.
            WriteError: Earlier samples were not written; this one was not taken.
            ClosedError: The writer takes no more samples.
        """
        self._hand_over([name], self._pool.plan_sample(value), timeout, origin)

    def submit_batch(
        self, names: Sequence[str], values: Any, *, timeout: float | None = None, origin: Origin | None = None
    ) -> None:
        """Hand a batch over, which is copied as a whole. Waits while there is no room for all of it.

        Args:
            names: One per sample, as in `submit`; a list, or an array of texts.
            values: A tensor or array with a batch dimension, of shape ``(len(names), ...)`` and any dtype, or a
                sequence of samples, which may differ in shape.
            timeout: Seconds to wait for room. None waits without limit.
            origin: Where the samples come from, for the manifest.

        Raises:
            ValueError: There are not as many names, or indices, as samples.
            TypeError: The values are neither a tensor nor a sequence.
            InvalidNameError, DuplicateNameError, QueueFullError, WriteError, ClosedError: As `submit`; all or none
                of the batch is taken.
        """
        self._hand_over(names, self._pool.plan_batch(values), timeout, origin)

    def submit_nowait(self, name: str, value: Any, *, origin: Origin | None = None) -> None:
        """As `submit`, but raises `QueueFullError` at once where that would wait."""
        self._hand_over([name], self._pool.plan_sample(value), 0, origin)

    def submit_batch_nowait(self, names: Sequence[str], values: Any, *, origin: Origin | None = None) -> None:
        """As `submit_batch`, but raises `QueueFullError` at once where that would wait."""
        self._hand_over(names, self._pool.plan_batch(values), 0, origin)

    def flush(self, *, timeout: float | None = None) -> None:
        """Wait until every sample accepted before this call is stored.

        Samples that other threads submit meanwhile are not waited for.

        Args:
            timeout: Seconds to wait in all. None waits without limit.

        Raises:
            FlushTimeoutError: Some samples are still pending; they stay queued.
            WriteError: Samples were not written, and this was not raised yet: all of them together.
            ClosedError: The writer belongs to the process that this one was forked from.
        """
        self._check_caller("flush")
        with uninterrupted():
            self._wait_done(self._ledger.mark(), timeout)
            self._ledger.raise_failures()

    def close(self, *, timeout: float | None = None) -> None:
        """Accept no more samples, wait until every accepted one is stored, and let the workers go.

        It may be called again, and from several threads: each call returns when everything is stored.

        Args:
            timeout: Seconds to wait in all. None waits without limit.

        Raises:
            FlushTimeoutError: Some samples are still pending. They are still being stored; call again to wait for them.
            WriteError: Samples were not written, and this was not raised yet: all of them together.
            ClosedError: The writer belongs to the process that this one was forked from.
        """
        self._check_caller("close")
        with uninterrupted():
            self._drain()
            self._wait_done(None, timeout)
            self._end()

    def abort(self) -> int:
        """Accept no more samples, drop those that no worker has begun, and let the workers go.

        What is being written is finished first, so no file is left half.

        Returns:
            How many samples were dropped; `stats` tells it as well.

        Raises:
            WriteError: Samples were not written, apart from the dropped ones, and this was not raised yet.
            ClosedError: The writer belongs to the process that this one was forked from.
        """
        self._check_caller("abort")
        with uninterrupted():
            self._drain()
            dropped = self._drop()
            self._wait_done(None, None)
            self._end()
            return dropped

    def close_by(self, seconds: float) -> int:
        """Close before the process is killed: accept no more samples, and wait for the accepted ones for a time.

        What is not stored by then goes on being stored by helper processes, which this process does not wait for;
        threads store what is in their hands, and the rest is dropped. What becomes of the samples is told on stderr,
        failures too, for there is nobody left to raise to.

        Args:
            seconds: How long to wait.

        Returns:
            How many samples are not stored.
        """
        self._check_caller("close_by")
        try:
            self.close(timeout=seconds)
            return 0
        except FlushTimeoutError as error:
            pending = error.pending
        except Exception as error:
            tell(error)
            return self.stats().failed
        if self.backend == "process":
            tell(f"{pending} samples are left to helper processes, which go on storing to {self.target.location!r}")
            self._unclosed.forget()
            return pending
        with uninterrupted():
            dropped = self._drop()
        # Before waiting for what is in the threads' hands, which may take longer than this process has left.
        tell(f"{dropped} samples were dropped, for which there was no time: {self.target.location!r}")
        try:
            self.abort()
        except Exception as error:
            tell(error)
        return dropped

    def stats(self) -> WriterStats:
        """What was done so far.

        Raises:
            ClosedError: The writer belongs to the process that this one was forked from.
        """
        self._check_process()
        with uninterrupted():
            self._collect()
            return self._ledger.stats()

    @property
    def backend(self) -> Literal["thread", "process"]:
        """What the workers are; with ``backend="auto"`` threads once helper processes could not be had."""
        backend = self._backend
        return self._chosen if backend is None else backend.kind

    @property
    def state(self) -> State:
        """Where the writer stands in its life."""
        with uninterrupted():
            self._collect()
        return "failed" if self._state == "running" and self._ledger.failed else self._state

    def __enter__(self: _Self) -> _Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exception is None:
            self.close()
            return
        if isinstance(exception, KeyboardInterrupt):
            self._tell_what_is_stored()
        try:
            self.close()
        except Exception as error:
            attach(error, exception)
        except KeyboardInterrupt:
            attach(self._abort_after_interrupt(), exception)

    def __repr__(self) -> str:
        return f"<BackgroundWriter {self.writer.name!r} to {self.target.location!r}, {self.state}>"

    # The way of a sample, on the caller's side

    def _hand_over(self, names: Sequence[str], plan: Plan, timeout: float | None, origin: Origin | None) -> None:
        backend = self._backend
        if backend is None or self._pid != os.getpid():
            with uninterrupted():
                backend = self._started()
        if timeout != 0 and backend.is_worker():
            raise RuntimeError(
                "submit() was called from one of the writer's own workers, which would wait for itself; "
                "use submit_nowait() there"
            )
        names, files = self._checked(names, plan.count)
        if origin is not None and origin.indices is not None and len(origin.indices) != plan.count:
            raise ValueError(
                f"Length mismatch: {plan.count} samples and {len(origin.indices)} indices; every sample has one"
            )
        if plan.count == 0:
            with uninterrupted():
                self._ledger.check_open()
            return
        origin = _own(origin)
        nbytes = self._pool.bytes_of(plan)
        reservation = Reservation(plan.count, nbytes)
        # In one piece, for signals, but for the waiting in it.
        with uninterrupted():
            if self._ledger.is_crowded(reservation) or backend.needs_collect:
                backend.collect()
            if not self._ledger.try_reserve(reservation):
                self._ledger.reserve(reservation, timeout)
            try:
                self._enqueue(backend, names, files, plan, nbytes, origin)
            except _Taken as taken:
                raise taken.interruption from None
            except BaseException:
                self._ledger.withdraw(reservation)
                raise

    def _enqueue(
        self,
        backend: Backend,
        names: Sequence[str],
        files: Sequence[str],
        plan: Plan,
        nbytes: int,
        origin: Origin | None,
    ) -> None:
        try:
            staged = self._pool.stage(plan)
        except Exception:
            self._ledger.check_open()  # closed meanwhile, there is no memory to copy to
            raise
        batch = Batch(names, staged, nbytes, plan.count, origin=origin)
        try:
            backend.prepare(batch)
            # Last, so that a batch whose copy fails can be handed over again under the same names.
            if (claims := self._claims) is not None:  # else closed meanwhile, as accept will say
                if isinstance(names, Numbers):
                    claims.claim_numbers(names.range, self._suffix)
                else:
                    claims.claim(files, names)
            self._ledger.accept(batch)
            backend.put(self._units(batch))
        except BaseException as error:
            if backend.took(batch):
                raise _Taken(error) from None
            self._ledger.reject(batch)
            self._pool.release(staged)
            if isinstance(error, RuntimeError):
                raise ClosedError(f"no worker can be started for {self.target.location!r}: {error}") from error
            raise

    def _units(self, batch: Batch) -> list[Unit]:
        count = batch.left
        per = 1
        if not self._one_by_one:
            share = -(-count // self.max_workers)
            per = max(1, min(share, _UNIT_BYTES * count // max(1, batch.nbytes)))
        return [Unit(batch, start, min(start + per, count)) for start in range(0, count, per)]

    def _checked(self, names: Sequence[str], count: int) -> tuple[Sequence[str], Sequence[str]]:
        """The names, as a sequence of our own, and their files: the caller may fill its list anew at once.

        Of numbers the last one's file is enough, since it is the longest.
        """
        if type(names) is not list and (isinstance(names, str) or not isinstance(names, Sequence)):
            array: Any = names
            if getattr(getattr(array, "dtype", None), "kind", "") not in ("U", "O", "T") or array.ndim != 1:
                raise TypeError(
                    f"names are a sequence with a name per sample, not {type(names).__name__}: {shown(names)}; "
                    "the order is submit_batch(names, values)"
                )
            names = array.tolist()
        own = names if isinstance(names, Numbers) else tuple(names)
        if len(own) != count:
            raise ValueError(f"Length mismatch: {count} samples and {len(own)} names; every sample needs one name")
        if not count:
            return own, own
        if isinstance(own, Numbers):
            files = with_suffixes(own[-1:], self._suffix)
        else:
            if set(map(type, own)) != {str}:
                for name in own:
                    if not isinstance(name, str):
                        raise TypeError(
                            f"a name is a str, not {type(name).__name__}: {shown(name)}; use str(name) of a number, "
                            "and the order is submit(name, value), or submit_batch(names, values)"
                        )
                own = tuple(map(str.__str__, own))  # of subclasses, such as numpy's
            check_names(own)
            files = with_suffixes(own, self._suffix)
        self.target.check(files)
        return own, files

    # Life

    def _started(self) -> Backend:
        """The backend, started at the first call."""
        self._check_process()
        backend = self._backend
        if backend is not None:
            return backend
        with uninterrupted(), self._life:
            if self._backend is None:
                if self._state != "new":
                    self._ledger.check_open()
                job = self._make_job()
                backend = make_backend(
                    job,
                    self._ledger.done,
                    self.max_workers,
                    memory=self._pool.shared,
                    queue_size=self.queue_size,
                    without_helpers=self._pool.unshare if self._may_fall_back else None,
                )
                # Before the helpers get their copies of it. A target of the user's own may wait for whatever it likes.
                if self._in_directory is not None:
                    self.target.open()
                else:
                    let_through(self.target.open)
                try:
                    if job.log is not None:
                        assert self._in_directory is not None
                        if self.options.resume and not self.options.mix_configs:
                            series = self.writer.name, self._in_directory.run.key
                            check_config(self._in_directory.directory, series, self.options.run_config)
                        job.log.begin(self._in_directory.since or 0)
                    backend.start()
                except BaseException:
                    job.close()
                    raise
                self._claims = claims_of(self.target.location)
                self._ledger.open(backend.wait, backend.wake)
                self._backend = backend
                self._state = "running"
                finish = partial(_finish, self._ledger, backend) if self._chosen == "process" else None
                self._job = job
                self._unclosed = Unclosed(self, self._close_at_exit, job, self._ledger.unraised, finish)
            return self._backend

    def _make_job(self) -> Job:
        target, writer = self._in_directory, self.writer
        if target is None:
            return Job(writer, self.target, patience=self._patience)
        directory = os.path.abspath(target.directory)  # now, as the target takes it
        log = ManifestLog(
            directory,
            target.run,
            writer=writer.name,
            suffix=self._suffix,
            resume=self.options.resume,
            durability=target.durability,
            config=self.options.run_config,
        )
        quarantine = (
            Quarantine(directory, target.run, target.durability) if self.options.on_error == "continue" else None
        )
        return Job(writer, target, log if self.options.manifest else None, self._patience, quarantine)

    def _describe(self, loaders: Sequence[Loader], *, named: bool) -> None:
        """Record over which data sets the samples go, and whether the user names them."""
        with uninterrupted():
            if self._job.log is not None:
                self._job.log.describe(loaders, named=named)

    def _collect(self) -> None:
        backend = self._backend
        if backend is not None and self._state in ("running", "draining") and self._pid == os.getpid():
            backend.collect()

    def _release(self, batch: Batch) -> None:
        # A method, since threads at work hold the ledger, and thereby keep the writer as long as anything is pending.
        _release(self._pool, batch)

    def _drain(self) -> None:
        with uninterrupted(), self._life:
            if self._state in ("new", "running"):
                self._state = "draining" if self._state == "running" else "closed"
                self._ledger.refuse(f"the writer for {self.target.location!r} is closed; open another one")

    def _finish(self) -> Exception | None:
        """Let the workers go, and then the target; returns what that one has raised, which must not hide failures."""
        with uninterrupted(), self._life:
            if self._state != "draining":
                return None
            assert self._backend is not None
            self._ledger.close()
            # Other writers on this location may use the names again once all of today's are closed.
            self._claims = None
            self._pool.close()
            self._backend.stop()  # a signal's handler may raise here; then the next call goes on
            self._state = "closed"
            self._unclosed.forget()
            try:
                if self._in_directory is not None:
                    self._job.close()
                else:
                    let_through(self._job.close)
            except Exception as error:
                return error
            return None

    def _drop(self) -> int:
        backend = self._backend
        return 0 if backend is None else self._ledger.drop(backend.drop())

    def _end(self) -> None:
        self._raise_failures(self._finish())

    def _raise_failures(self, error: Exception | None) -> None:
        """Raise the failures that were not raised yet with the error attached, or the error alone."""
        try:
            self._ledger.raise_failures()
        except WriteError as failures:
            if error is not None:
                attach(error, failures)
            raise
        if error is not None:
            raise error

    def _wait_done(self, mark: int | None, timeout: float | None) -> None:
        self._collect()
        pending = self._ledger.wait_done(mark, timeout)
        if pending:
            raise FlushTimeoutError(
                f"{pending} samples were still being written to {self.target.location!r} after {timeout:g} s; "
                "they stay queued, and flush() waits for them again",
                pending=pending,
            )

    def _check_process(self) -> None:
        # Before any lock, which another thread of the parent may have held when it forked.
        if self._pid != os.getpid():
            if self._state == "new" and not self._life.is_held:
                self._pid = os.getpid()
                self._ledger.forked()
                return
            raise ClosedError(
                f"this writer for {self.target.location!r} belongs to process {self._pid}, and this is process "
                f"{os.getpid()}, forked from it, where its workers do not run; make a writer in each process"
            )

    def _check_caller(self, call: str) -> None:
        self._check_process()
        if self._backend is not None and self._backend.is_worker():
            raise RuntimeError(
                f"{call}() was called from one of the writer's own workers, which would wait for itself; "
                "call it from the thread that submits"
            )

    # Ends that nobody asked for

    def _tell_what_is_stored(self) -> None:
        if pending := self.stats().pending:
            tell(f"storing the {pending} samples that were handed over; Ctrl-C again drops them")

    def _abort_after_interrupt(self) -> str:
        """Abort, and say what that cost."""
        try:
            dropped = self.abort()
        except WriteError as error:
            return f"interrupted again while closing: {self.stats().dropped} queued samples were dropped; {error}"
        return f"interrupted again while closing: {dropped} queued samples were dropped"

    def _close_at_exit(self) -> None:
        if self._pid != os.getpid():
            return
        # Again where a signal's handler has raised, for nobody else will close it.
        for _ in range(_CALLS_AT_EXIT):
            try:
                self.close()
            except Exception as error:
                tell(error)
            except (KeyboardInterrupt, SystemExit):
                tell(self._abort_after_interrupt())
            if self._state == "closed":
                return


def _own(origin: Origin | None) -> Origin | None:
    """The origin with indices of our own: the caller may fill its list, or tensor, anew at once.

    Raises:
        TypeError: An index, or the number of the loader or the batch, is no whole number.
    """
    if origin is None:
        return None
    indices: Any = origin.indices
    loader = whole_number(origin.loader, "the number of a loader")
    batch = None if origin.batch is None else whole_number(origin.batch, "the number of a batch")
    if loader < 0:
        raise ValueError(f"loaders count from 0, got {loader}")
    if indices is None:
        return Origin(None, loader, batch)
    own = indices.tolist() if hasattr(indices, "tolist") else indices
    is_usual = type(own) is range or (type(own) in (tuple, list) and set(map(type, own)) == {int})
    if not is_usual or max(own, default=0) >= 1 << 63 or min(own, default=0) < -(1 << 63):
        own = [whole_number(one, f"the index of sample {position}") for position, one in enumerate(own)]
    return Origin(own if type(own) is range else tuple(own), loader, batch)


def _release(pool: StagingPool, batch: Batch) -> None:
    if batch.is_kept:
        pool.forget(batch.staged)
    else:
        pool.release(batch.staged)


def _finish(ledger: Ledger, backend: Backend) -> None:
    with uninterrupted():
        ledger.wait_done(None, None)
        backend.stop()


class _Taken(Exception):
    """A hand-over was interrupted after a worker could see it, so that it counts."""

    def __init__(self, interruption: BaseException) -> None:
        self.interruption = interruption
