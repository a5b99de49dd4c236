"""What a writer is to do: its writer, its target and its options, resolved, and checked against each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from lighter_async.limits import MOST_QUEUED, usable_cores
from lighter_async.options import Options, check_path_function, check_records, check_rows_writer, target_of
from lighter_async.staging import StagingPool
from lighter_async.targets import Target, arrays_target, directory_of, tables_target
from lighter_async.workers import Patience, choose_backend
from lighter_async.writers import PathFunction, outputs_of, resolve_writer

__all__ = ["Setup"]


class Setup:
    """What is known of a writer before anything is started; it does not change.

    Args:
        writer: A registered name, an `Encoder`, a path function, or where one is, as ``"module:attribute"``; or a dict
            of these, one for each output. None is ``"tensor"``, or of a target that stores rows ``"row"`` or
            ``"table_row"``.
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
        is_target_given: Whether the user has made the target.
        directory: The same, if it is a directory of files; else None.
        arrays: The same, if samples are rows of an array; else None.
        tables: The same, if they are rows of a table; else None.
        suffixes: What the names of the files of a sample end in, one for each of its outputs.
        max_workers: Samples that are written at once.
        queue_size: Samples that may be queued or being written.
        queue_bytes: Bytes of host memory that they may hold.
        choice: What the workers are to be, and why; what other programs use may change it.
        backend: The same, as memory is made for it.
        is_first_rank: Whether what concerns all ranks is said here.
        may_fall_back: Whether threads take over where helper processes cannot be had.
        one_by_one: Whether each sample is a unit of work.
        patience: Which errors are tried again, and for how long.
    """

    def __init__(
        self,
        writer: str | Callable[..., Any] | Mapping[str, Any] | None,
        directory: str | os.PathLike[str] | Target | None,
        target: Target | None,
        options: Options,
    ) -> None:
        self.options = options
        self.is_target_given = target is not None or isinstance(directory, Target)
        self.target = target_of(
            directory, target, if_exists=options.if_exists, durability=options.durability, run=options.run
        )
        self.arrays = arrays_target(self.target)
        self.tables = tables_target(self.target)
        if writer is None:
            writer = "row" if self.arrays is not None else "table_row" if self.tables is not None else "tensor"
        self.writer = resolve_writer(writer, options.writer_options)
        check_rows_writer(self.writer, self.target)
        check_records(
            self.target,
            manifest=options.manifest,
            resume=options.resume,
            run_config=options.run_config,
            on_error=options.on_error,
        )
        self.patience = Patience(options.attempts, options.wait_for_space, options.write_timeout)
        if isinstance(self.writer, PathFunction):
            check_path_function(self.writer, self.target)
        self.max_workers = options.workers
        self.queue_size = options.queue_size
        self.queue_bytes = options.bytes_of_queue
        self.directory = directory_of(self.target)
        self._outputs = outputs_of(self.writer)
        self.suffixes = tuple(output.suffix for output in self._outputs) or ("",)
        self.choice = choose_backend(
            options.backend, self.writer, is_local=self.directory is not None, cores=usable_cores()
        )
        self.backend = self.choice.backend
        if self.backend == "process":
            self.queue_size = min(self.queue_size, MOST_QUEUED)
        self.is_first_rank = self.directory is None or self.directory.run.rank == 0
        self.may_fall_back = options.backend == "auto"
        # What a dead helper had not done is done again as a unit: a function may not like that, unlike an encoder.
        self.one_by_one = isinstance(self.writer, PathFunction) and (self.writer.is_async or self.backend == "process")

    def make_pool(self) -> StagingPool:
        """The memory that samples are copied into."""
        return StagingPool(
            self.queue_bytes,
            accelerator=self.options.accelerator,
            shared=self.backend == "process",
            reduce={one.key: one.encoder.reduce for one in self._outputs if one.encoder.reduce is not None},
            prepare={one.key: one.encoder.prepare for one in self._outputs if one.encoder.prepare is not None},
            remark=self._remarks(),
            outputs=[one.key for one in self._outputs if one.key is not None],
            dicts=self.tables is not None,
        )

    def _remarks(self) -> dict[str | None, Callable[[Any], str | None]]:
        """What the writers remark on the first values; of several ranks the first one says it."""
        if not self.is_first_rank:
            return {}
        return {one.key: one.encoder.remark for one in self._outputs if one.encoder.remark is not None}
