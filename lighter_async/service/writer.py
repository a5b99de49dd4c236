"""The background writer, as its callers see it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lighter_async.manifest import Loader
from lighter_async.names import Name
from lighter_async.options import Options, WriterOptions, documented
from lighter_async.service.early_close import close_after, close_by
from lighter_async.service.handover import HandOver
from lighter_async.service.lifecycle import Lifecycle, State
from lighter_async.service.names_and_indices import text_of, texts_of
from lighter_async.service.nonblocking_steps import Steps
from lighter_async.service.setup import Setup
from lighter_async.targets import Target
from lighter_async.types import Origin, WriterStats

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["BackgroundWriter"]

_Self = TypeVar("_Self", bound="BackgroundWriter")


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
        writer: The name of a format (``"tensor"``, ``"image_2d"``, ``"image_3d"``, ``"text"``, ``"npy"``,
            ``"safetensors"``, ``"json"``, ``"jpeg"``, ``"webp"``, ``"tiff"``, ``"nifti"``, or one that you have
            registered), an `Encoder`, or a function ``(path, value)``, plain or ``async def``; or where one is, as
            ``"module:attribute"``. Or a dict with a registered name or an encoder for each output of a sample, whose
            value is a dict then. None is ``"tensor"``; an `ArrayTarget` and a `TableTarget` have writers of their own.
        directory: Where the files go. Made if it does not exist. A target may stand in its place.
        target: Another way to say it: where the bytes go.
        {options}

    Raises:
        ValueError: An option is out of range, the writer's name is not registered, or the options do not go together.
        TypeError: The writer is neither a name nor callable.
    """

    def __init__(
        self,
        writer: str | Callable[..., Any] | Mapping[str, Any] | None = None,
        directory: str | os.PathLike[str] | Target | None = None,
        *,
        target: Target | None = None,
        **options: Unpack[WriterOptions],
    ) -> None:
        setup = Setup(writer, directory, target, Options.of("BackgroundWriter", options))
        self.options = setup.options
        self.writer = setup.writer
        self.target = setup.target
        self.max_workers = setup.max_workers
        self.queue_size = setup.queue_size
        self.queue_bytes = setup.queue_bytes
        self._pool = setup.make_pool()
        self._lifecycle = Lifecycle(setup, self._pool)
        self._ledger = self._lifecycle.ledger
        self._handover = HandOver(setup, self._pool, self._ledger, self._lifecycle)

    def start(self) -> None:
        """Start the workers and get the target ready, now instead of at the first sample.

        Raises:
            ClosedError: The writer was closed.
            BackendUnavailableError: With ``backend="process"``: helper processes cannot be had here.
            OSError: The target's directory cannot be made.
        """
        self._lifecycle.start()

    def submit(self, name: Name, value: Any, *, timeout: float | None = None, origin: Origin | None = None) -> None:
        """Hand one sample over. Waits while there is no room.

        Args:
            name: The file's name, relative to the directory, ``/`` between folders; the writer's suffix is appended
                unless it ends in it. A path (also in bytes), a number, and a scalar of numpy or torch become texts:
                ``7`` is ``"7"``. A bool is no name.
            value: What the writer writes. It is copied: tensors and arrays, whatever holds them, and any object by its
                pickle. Locks, open files and what else cannot be pickled are handed over as they are.
            timeout: Seconds to wait for room. None waits without limit.
            origin: Where it comes from, for the manifest: `Origin` of one index.

        Raises:
            InvalidNameError, DuplicateNameError: The name cannot be used; the message tells why.
            TypeError: The name is none, as when name and value are swapped.
            QueueFullError: There was no room for `timeout` seconds.
            WriteError: Earlier samples were not written; this one was not taken.
            ClosedError: The writer takes no more samples.
        """
        self._handover.submit([text_of(name, value)], self._pool.plan_sample(value), timeout, origin)

    def submit_batch(
        self, names: Sequence[Name] | None, values: Any, *, timeout: float | None = None, origin: Origin | None = None
    ) -> None:
        """Hand a batch over, which is copied as a whole. Waits while there is no room for all of it.

        Args:
            names: One per sample, as in `submit`; a list, or an array or a tensor of one dimension. For an
                `ArrayTarget`, which knows samples by their indices, they may be None.
            values: A tensor or array with a batch dimension, of shape ``(len(names), ...)`` and any dtype, or a
                sequence of samples, which may differ in shape. Of several outputs a dict with one of these for each.
            timeout: Seconds to wait for room. None waits without limit.
            origin: Where the samples come from, for the manifest.

        Raises:
            ValueError: There are not as many names, or indices, as samples.
            TypeError: The values are neither a tensor nor a sequence, or a name is none, as when both are swapped.
            InvalidNameError, DuplicateNameError, QueueFullError, WriteError, ClosedError: As `submit`; all or none
                of the batch is taken.
        """
        self._handover.submit(texts_of(names, values), self._pool.plan_batch(values), timeout, origin)

    def submit_nowait(self, name: Name, value: Any, *, origin: Origin | None = None) -> None:
        """As `submit`, but raises `QueueFullError` at once where that would wait."""
        self._handover.submit([text_of(name, value)], self._pool.plan_sample(value), 0, origin)

    def submit_batch_nowait(self, names: Sequence[Name] | None, values: Any, *, origin: Origin | None = None) -> None:
        """As `submit_batch`, but raises `QueueFullError` at once where that would wait."""
        self._handover.submit(texts_of(names, values), self._pool.plan_batch(values), 0, origin)

    def flush(self, *, timeout: float | None = None, seal: bool = False) -> None:
        """Wait until every sample accepted before this call is stored.

        Samples that other threads submit meanwhile are not waited for.

        Args:
            timeout: Seconds to wait for that. None waits without limit.
            seal: Whether objects that hold several samples get their final names, too, without waiting until they are
                large. Of a target that stores each sample as a file of its own there are none.

        Raises:
            FlushTimeoutError: Some samples are still pending; they stay queued.
            WriteError: Samples were not written, and this was not raised yet: all of them together.
            ClosedError: The writer belongs to the process that this one was forked from.
        """
        self._lifecycle.flush(timeout, seal=seal)

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
        self._lifecycle.close(timeout)

    def abort(self) -> int:
        """Accept no more samples, drop those that no worker has begun, and let the workers go.

        What is being written is finished first, so no file is left half.

        Returns:
            How many samples were dropped; `stats` tells it as well.

        Raises:
            WriteError: Samples were not written, apart from the dropped ones, and this was not raised yet.
            ClosedError: The writer belongs to the process that this one was forked from.
        """
        return self._lifecycle.abort()

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
        return close_by(self._lifecycle, seconds, self.target.location)

    def stats(self) -> WriterStats:
        """What was done so far.

        Raises:
            ClosedError: The writer belongs to the process that this one was forked from.
        """
        return self._lifecycle.stats()

    @property
    def backend(self) -> Literal["thread", "process"]:
        """What the workers are; with ``backend="auto"`` what they are to be, until they are started."""
        return self._lifecycle.kind

    @property
    def state(self) -> State:
        """Where the writer stands in its life."""
        return self._lifecycle.state

    @property
    def steps(self) -> Steps:
        """The single steps of the calls, for a face that waits in a way of its own, such as the asyncio one."""
        return Steps(self._pool, self._ledger, self._lifecycle, self._handover)

    def __enter__(self: _Self) -> _Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exception is None:
            self.close()
        else:
            close_after(exception, self)

    def __repr__(self) -> str:
        return f"<BackgroundWriter {self.writer.name!r} to {self.target.location!r}, {self.state}>"

    def _start_replacing(self, *, has_work: bool = True) -> None:
        """As `start`, without a warning of what is replaced, which a callback has given already.

        Args:
            has_work: As of `Lifecycle.start`.
        """
        self._lifecycle.start(warns=False, has_work=has_work)

    def _describe(self, loaders: Sequence[Loader], *, named: bool) -> None:
        """Record over which data sets the samples go, and whether the user names them."""
        self._lifecycle.describe(loaders, named=named)
