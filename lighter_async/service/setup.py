"""What a writer is to do: its writer, its target and its options, resolved, and checked against each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from lighter_async.interrupts import let_through
from lighter_async.limits import MOST_QUEUED
from lighter_async.manifest import ManifestLog
from lighter_async.options import Options, check_path_function, check_records, target_of
from lighter_async.same import check_config, check_suffix
from lighter_async.staging import StagingPool
from lighter_async.targets import Target, directory_of
from lighter_async.types import Backend, Batch, Result
from lighter_async.workers import Job, Patience, Quarantine, choose_backend, make_backend
from lighter_async.writers import Encoder, PathFunction, resolve_writer

__all__ = ["Setup"]


class Setup:
    """What is known of a writer before anything is started; it does not change.

    Args:
        writer: A registered name, an `Encoder`, a path function, or where one is, as ``"module:attribute"``.
        directory: Where the files go, or a target.
        target: Another way to say it.
        options: The writer's options.

    Raises:
        ValueError: The writer's name is not registered, or the options do not go together.
        TypeError: The writer is neither a name nor callable.

    Attributes:
        options: The writer's options.
        writer: Makes bytes, or a file, of a value.
        target: Where the bytes go.
        suffix: What the files' names end in.
        max_workers: Samples that are written at once.
        queue_size: Samples that may be queued or being written.
        queue_bytes: Bytes of host memory that they may hold.
        backend: What the workers are to be.
        one_by_one: Whether each sample is a unit of work.
    """

    def __init__(
        self,
        writer: str | Callable[..., Any],
        directory: str | os.PathLike[str] | Target | None,
        target: Target | None,
        options: Options,
    ) -> None:
        self.options = options
        self.writer = resolve_writer(writer, options.writer_options)
        self.target = target_of(
            directory, target, if_exists=options.if_exists, durability=options.durability, run=options.run
        )
        check_records(self.target, manifest=options.manifest, resume=options.resume, on_error=options.on_error)
        self._patience = Patience(options.attempts, options.wait_for_space, options.write_timeout)
        if isinstance(self.writer, PathFunction):
            check_path_function(self.writer, self.target)
        self.max_workers = options.workers
        self.queue_size = options.queue_size
        self.queue_bytes = options.bytes_of_queue
        self._directory = directory_of(self.target)
        self.suffix = self.writer.suffix if isinstance(self.writer, Encoder) else ""
        self.backend = choose_backend(options.backend, self.writer, is_local=self._directory is not None)
        if self.backend == "process":
            self.queue_size = min(self.queue_size, MOST_QUEUED)
        self._may_fall_back = options.backend == "auto"
        # What a dead helper had not done is done again as a unit: a function may not like that, unlike an encoder.
        self.one_by_one = isinstance(self.writer, PathFunction) and (self.writer.is_async or self.backend == "process")

    def make_pool(self) -> StagingPool:
        """The memory that samples are copied into."""
        return StagingPool(
            self.queue_bytes,
            accelerator=self.options.accelerator,
            shared=self.backend == "process",
            reduce=self.writer.reduce if isinstance(self.writer, Encoder) else None,
        )

    def make_job(self) -> Job:
        """What the workers do."""
        target, options = self._directory, self.options
        if target is None:
            return Job(self.writer, self.target, patience=self._patience)
        directory = os.path.abspath(target.directory)  # now, as the target takes it
        log = ManifestLog(
            directory,
            target.run,
            writer=self.writer.name,
            suffix=self.suffix,
            resume=options.resume,
            durability=target.durability,
            config=options.run_config,
        )
        quarantine = Quarantine(directory, target.run, target.durability) if options.on_error == "continue" else None
        return Job(self.writer, target, log if options.manifest else None, self._patience, quarantine)

    def make_backend(self, job: Job, done: Callable[[Batch, Result], None], pool: StagingPool) -> Backend:
        """The workers.

        Args:
            job: What they do.
            done: Told what became of samples.
            pool: Where the samples are copied to.
        """
        return make_backend(
            job,
            done,
            self.max_workers,
            memory=pool.shared,
            queue_size=self.queue_size,
            without_helpers=pool.unshare if self._may_fall_back else None,
        )

    def open_target(self) -> None:
        """Get the target ready. One of the user's own may wait for whatever it likes, so signals come through."""
        if self._directory is not None:
            self.target.open()
        else:
            let_through(self.target.open)

    def begin_record(self, job: Job) -> None:
        """Begin the manifest of this run, once the target is open.

        Raises:
            ResumeError: What is stored was made with something else.
        """
        if job.log is None:
            return
        target = self._directory
        assert target is not None
        series = (self.writer.name, target.run.key)
        check_suffix(target.directory, series, self.suffix)
        if self.options.resume and not self.options.mix_configs:
            check_config(target.directory, series, self.options.run_config)
        job.log.begin(target.since or 0)

    def close(self, job: Job) -> None:
        """Close the record and the target; as for its start, signals come through to one of the user's own."""
        if self._directory is not None:
            job.close()
        else:
            let_through(job.close)
