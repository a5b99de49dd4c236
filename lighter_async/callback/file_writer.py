"""The callback that writes one file per predicted sample, in the background."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lighter_async.callback.base_writer import BaseWriter
from lighter_async.callback.collected_predictions import warn_if_collected
from lighter_async.callback.dataset_indices import length_of
from lighter_async.callback.interruption import attached_to, interruptible
from lighter_async.callback.last_line import LastLine
from lighter_async.callback.names_and_samples import OutputReader
from lighter_async.callback.progress import Progress, progress_of
from lighter_async.callback.resumed import Resumed
from lighter_async.callback.sigterm import Termination
from lighter_async.callback.target_of_ranks import agree_on, path_of, target_of_rank
from lighter_async.configs import PathLike, plain
from lighter_async.data_set_fingerprint import fingerprint_of
from lighter_async.limits import default_workers
from lighter_async.manifest.line import Loader
from lighter_async.notices import notify, warn
from lighter_async.options import CallbackOptions, Options, RowOptions, as_attributes, documented
from lighter_async.replacing import WAY_OUT
from lighter_async.service import BackgroundWriter
from lighter_async.store import UNSEALED, OneObject
from lighter_async.targets import Target, arrays_target, directory_of, tables_target
from lighter_async.types import Run, WriterStats
from lighter_async.writers import resolve_writer

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FileWriter"]


@as_attributes(CallbackOptions)
@documented(CallbackOptions)
class FileWriter(BaseWriter):
    """Writes one value per predicted sample to a file of its own, in the background.

    Each batch is copied once and queued, and `Trainer.predict` goes on while workers write; at the end it waits until
    everything is stored. A sample that could not be written makes `predict` raise `WriteError`.

    With several ranks, each writes its own samples, below one directory that all of them can see.

    At the end Lightning's log has a line of what was written, where, and how long the loop waited, and the trainer's
    loggers get the same as metrics (``lighter_async/written`` and others). ``Trainer.test`` and ``Trainer.validate``
    write nothing, which a warning says once.

    Args:
        directory: Where the files go. Made if it does not exist. A target of any kind may stand in its place, such as a
            `LocalTarget`; each call of `predict` opens and closes it. A target that does not store below a directory
            records nothing, and several ranks can share it only if it is a `lighter_async.targets.SharedTarget`.
        value_key: The entry of the outputs to write. A tensor or array with a batch dimension is one sample per row, a
            sequence one per item; a 0-d tensor, a text and any other object are one sample. A dict from entries to
            encoders, such as ``{"mask": "image_2d", "logits": "tensor"}``, stores several outputs of each sample, all
            of them or none, as ``NAME.mask.png`` and ``NAME.logits.pt``; then `writer_fn` is left out.
        writer_fn: The name of a format: ``"tensor"``, ``"image_2d"``, ``"image_3d"``, ``"text"``, ``"npy"``,
            ``"safetensors"``, ``"json"``, ``"jpeg"``, ``"webp"``, ``"tiff"``, ``"nifti"``, or one that you have
            registered; an `Encoder`, or a function ``(path, value)``, plain or ``async def``; or the place of one, as
            ``"module:attribute"``.
        name_key: The entry of the outputs that names the samples. None numbers them by their index in the data set,
            counted on over the loaders. If that is not known, rank r of n takes r, r + n, r + 2n and so on.
        sigterm_grace: Seconds, from a SIGTERM on, for storing what was handed over. The loop stops at its next batch,
            and the process ends with status 143. None leaves the signal alone.
        return_predictions: False keeps Lightning from collecting the predictions in memory, and True makes it collect
            them, whatever the call of `predict` says. None changes nothing, and warns once if they are collected.
        {options}

    Raises:
        ValueError: An option is out of range, or the writer's name is not registered.
        TypeError: `writer_fn` is neither a name nor callable, or an option is of a wrong type.
    """

    def __init__(
        self,
        directory: str | Target | PathLike,  # in this order, in which LightningCLI saves what it is
        value_key: str | Mapping[str, str | Callable[..., Any]],
        writer_fn: str | Callable[..., Any] | None = None,
        name_key: str | None = None,
        *,
        sigterm_grace: float | None = 25.0,
        return_predictions: bool | None = None,
        **options: Unpack[CallbackOptions],
    ) -> None:
        target = directory if isinstance(directory, Target) and not isinstance(directory, type) else None
        for option, value in (("directory", directory), ("value_key", value_key), ("name_key", name_key)):
            if callable(value) and value is not target:
                raise TypeError(
                    f"{option} is no {type(value).__name__}; the order is FileWriter(directory, value_key, writer_fn)"
                )
        value_key = plain(value_key)
        if isinstance(value_key, str):
            value_key = str.__str__(value_key)  # of an enum's member the value, which becomes the key of the records
        if isinstance(value_key, Mapping) and writer_fn is not None:
            raise TypeError(
                "a dict as value_key says the writer of each output, so leave writer_fn out, and give name_key by its "
                "name: FileWriter(directory, {'mask': 'image_2d'}, name_key='name')"
            )
        super().__init__(path_of(directory if target is None else target))
        self._target = target
        self.options = Options.of(type(self).__name__, options, self._takes, self._takes_also)
        self.value_key: Any = dict(value_key) if isinstance(value_key, Mapping) else value_key
        self.name_key = name_key
        self.writer_fn = writer_fn
        self.sigterm_grace = sigterm_grace
        self.return_predictions = return_predictions
        self._warned = False
        self._writer: BackgroundWriter | None = None
        self._progress: Progress | None = None
        self._stats: WriterStats | None = None
        self._last_line: LastLine | None = None
        self._outputs: OutputReader | None = None
        self._resumed: Resumed | None = None
        self._termination: Termination | None = None
        # Nothing exists before setup, so that the callback can be pickled; but wrong arguments are refused now.
        self._background_writer(local_ranks=1, run=Run())

    _takes: type[RowOptions] = CallbackOptions
    """The options that it takes."""

    _takes_also: tuple[str, ...] = ("name_key", "sigterm_grace", "return_predictions")
    """What else may be left out."""

    _way_out_of_replacing = WAY_OUT
    """As of `BaseWriter`."""

    _shares_single_values = False
    """Whether what is no tensor, array or sequence is the value of all samples of a batch."""

    @property
    def directory(self) -> Path:
        """The directory of the files."""
        return self.path

    @property
    def replaces(self) -> bool:
        below = directory_of(self._target)
        if_exists = self.options.if_exists
        if below is not None:
            # A target's "overwrite" may be its default.
            if_exists = None if below.if_exists == "overwrite" else below.if_exists
        return if_exists is None and not self.options.resume

    def replaced(self) -> Path | None:
        """What there is of predictions that may be replaced; None if there is nothing."""
        if isinstance(self._target, OneObject):
            there = self._place
            return there if there.exists() or there.with_name(there.name + UNSEALED).exists() else None
        return super().replaced()

    @property
    def _place(self) -> Path:
        """Where the predictions lie: the directory, or the array or table."""
        return self.path / self._target.object if isinstance(self._target, OneObject) else self.path

    @property
    def _is_named(self) -> bool:
        """Whether samples are known by names of the user's; those in an array are known by their indices."""
        return self.name_key is not None and arrays_target(self._target) is None

    def __repr__(self) -> str:
        keys = ", ".join(map(repr, self.value_key)) if isinstance(self.value_key, dict) else repr(self.value_key)
        where = os.fspath(self._place) if self._path is not None else getattr(self._target, "location", "")
        return f"<{type(self).__name__} of {keys} to {where!r}>"

    def stats(self) -> WriterStats:
        """Counts of the prediction run in progress, or of the last one.

        Raises:
            RuntimeError: There was no run yet in this process.
        """
        if self._writer is not None:
            return self._writer.stats()
        if self._stats is None:
            who = type(self).__name__
            raise RuntimeError(f"{who} has no stats before trainer.predict() has run in this process")
        return self._stats

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Prepare the directory and start the workers; those of a run that resumes start once there are batches.

        Raises:
            NotADirectoryError: There is a file where the directory should be.
            RuntimeError: This rank does not share storage with rank 0, or the target is for one rank only.
            WriteError: Samples of an earlier run were not written, and that was not raised yet.
        """
        # A writer is still open if another callback's on_exception has raised before ours was called.
        self.teardown(trainer, pl_module, stage)
        super().setup(trainer, pl_module, stage)
        if stage != "predict":
            return
        if self._target is not None and self._path is None:
            self._run_id = agree_on(self._target, trainer)
        if self.return_predictions is not None:
            trainer.predict_loop.return_predictions = self.return_predictions
        run = Run(
            id=self._run_id,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            # Each of several outputs has a key of its own.
            key="" if isinstance(self.value_key, dict) else str(self.value_key),
            since=self._since,
            numbered=self.options.resume and self.name_key is None,
        )
        self._writer = self._background_writer(local_ranks=trainer.num_devices, run=run)
        if self.options.resume:
            # A rank may have nothing left to do, which Lightning refuses unless the model allows it.
            pl_module.allow_zero_length_dataloader_with_multiple_devices = True
            self._resumed = Resumed(
                self._writer, place=self._place, named=self._is_named, is_first_rank=trainer.is_global_zero
            )
        self._outputs = OutputReader(
            trainer,
            self.value_key,
            self.name_key,
            rank=run.rank,
            world_size=run.world_size,
            by_index_only=self.options.resume,
            stored=None if self._resumed is None else self._resumed.samples,
            who=type(self).__name__,
            shares_single_values=self._shares_single_values,
        )
        self._last_line = LastLine(self._writer.target.location)
        if not self._starts_with_batches:
            self._writer._start_replacing()

    @property
    def _starts_with_batches(self) -> bool:
        """Whether workers start only when Lightning has batches, of which a run that resumes may have none left."""
        return self.options.resume

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the workers, and show the queues of all `FileWriter`s of the trainer beside its progress bar."""
        if self._starts_with_batches and self._writer is not None:
            self._writer._start_replacing()
        together = [callback for callback in trainer.callbacks if isinstance(callback, FileWriter)]
        first = bool(together) and together[0] is self
        graces = [one.sigterm_grace for one in together if one.sigterm_grace is not None]
        if first and graces:
            termination = Termination(min(graces))
            termination.install(len(together))
            for callback in together:
                callback._termination = termination
        writers = [callback._writer for callback in together if callback._writer is not None]
        self._progress = progress_of(trainer, writers if first else [])
        self._record_data_sets(trainer)
        # Not in setup, since another FileWriter's setup may still set it.
        if first and not self._warned and all(callback.return_predictions is None for callback in together):
            self._warned = warn_if_collected(trainer, type(self).__name__)

    def _record_data_sets(self, trainer: Any) -> None:
        """Record the data sets of this run, once Lightning knows them, and refuse to resume with other ones.

        Raises:
            ResumeError: The stored samples are of other data sets.
        """
        if self._outputs is None or self._writer is None:
            return
        datasets = self._outputs.datasets
        if self._resumed is not None:
            self._resumed.samples.check(datasets)
            self._tell_stored(self._resumed)
            if (silent := self._left_out_silently(self._resumed)) is not None:
                warn(silent)
        if self.options.manifest and trainer.is_global_zero and self._path is not None:
            self._writer._describe(
                [Loader(length_of(dataset), fingerprint_of(dataset)) for dataset in datasets],
                named=self._is_named,
            )

    def _tell_stored(self, resumed: Resumed) -> None:
        if self._outputs is not None and self._last_line is not None:
            self._last_line.stored_before = resumed.tell(self._outputs.datasets)

    def _left_out_silently(self, resumed: Resumed) -> str | None:
        return (
            None if self._outputs is None else resumed.left_out_silently(self._outputs.not_loaded, type(self).__name__)
        )

    def on_predict_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """After a SIGTERM: store what was handed over, and end.

        Raises:
            SystemExit: With status 143.
        """
        if self._termination is not None and self._termination.received:
            self._end_early(trainer, self._termination)

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Hand the batch over, and wait only while there is no space for it."""
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        if self._progress is not None:
            self._progress.update()

    def write(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """Hand the samples of one batch over.

        Raises:
            KeyError: The outputs lack a key.
            TypeError: The outputs are not a mapping, or a name is not a text, number or path.
            ValueError: There are not as many names as samples, or not as many samples of each output.
            LighterAsyncError: As `BackgroundWriter.submit_batch`.
        """
        if self._writer is None:
            raise RuntimeError("FileWriter.write was called outside of trainer.predict(); use BackgroundWriter there")
        assert self._outputs is not None
        names, values, origin = self._outputs.read(outputs, batch_idx, dataloader_idx)
        if len(names):
            self._writer.submit_batch(names, values, origin=origin)

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Wait until everything is stored.

        Raises:
            WriteError: Samples were not written.
        """
        if self._writer is not None and self._progress is not None:
            assert self._last_line is not None
            with self._last_line.waiting():
                self._progress.flush(self._writer, self._is_terminated)
        if self._termination is not None and self._termination.received:
            self._end_early(trainer, self._termination)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Close the writer."""
        super().teardown(trainer, pl_module, stage)
        if self._writer is not None and stage == "predict":
            silent = None
            if self._resumed is not None and not self._resumed.is_told:
                # Nothing was left to do, so on_predict_start was not called.
                self._tell_stored(self._resumed)
                silent = self._left_out_silently(self._resumed)
            assert self._last_line is not None
            failure: BaseException | None = None
            try:
                with self._last_line.waiting():
                    self._writer._start_replacing(has_work=False)  # what earlier runs have not finished may be left
                    self._writer.close()
            except BaseException as error:
                failure = error
                raise
            finally:
                try:
                    self._report_end(trainer, failure)
                finally:
                    self._forget(ends=True)
            if silent is not None:
                warn(silent)  # last, since the user may have made errors of warnings

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Store what was handed over. Failures are attached to the exception, which stays as it is.

        Ctrl-C meanwhile drops what is still queued.
        """
        if self._writer is None:
            return
        writer = self._writer
        before = len(attached_to(exception))  # such as another FileWriter's
        try:
            if self._is_terminated():
                assert self._termination is not None
                writer.close_by(self._termination.seconds_left)
            else:
                with interruptible():
                    writer.__exit__(type(exception), exception, None)
            super().teardown(trainer, pl_module, "predict")
        finally:
            try:
                self._report_end(trainer, exception)
            finally:
                self._forget(ends=False)
            if isinstance(exception, KeyboardInterrupt):
                # Lightning ends the process without showing this exception.
                for text in attached_to(exception)[before:]:
                    notify(text.removeprefix("lighter_async: "))

    def _report_end(self, trainer: Any, exception: BaseException | None) -> None:
        """Say what was written, in Lightning's log and to its loggers."""
        if self._writer is None or self._last_line is None:
            return
        stats = self._writer.stats()
        self._last_line.left_out = 0 if self._outputs is None else self._outputs.left_out
        self._last_line.say(trainer, stats)
        writers = [one for one in trainer.callbacks if isinstance(one, FileWriter)]
        self._last_line.log(trainer, stats, writers, self, exception)

    def _forget(self, *, ends: bool) -> None:
        self._forget_writer()
        self._progress = None
        self._resumed = self._outputs = None
        if self._termination is not None:
            termination, self._termination = self._termination, None
            termination.uninstall(ends=ends)

    def _is_terminated(self) -> bool:
        return self._termination is not None and self._termination.received

    def _end_early(self, trainer: Any, termination: Termination) -> None:
        """Store what all writers of the trainer have accepted, as long as there is time, and end the process."""
        termination.begin(trainer.strategy.launcher)
        for callback in trainer.callbacks:
            if isinstance(callback, FileWriter) and callback._writer is not None:
                callback._writer.close_by(termination.seconds_left)
                if callback._last_line is not None:
                    callback._last_line.say(trainer, callback._writer.stats())  # a logger may take longer than there is
                callback._forget_writer()
                BaseWriter.teardown(callback, trainer, None, "predict")
        termination.leave()

    def _forget_writer(self) -> None:
        if self._writer is not None:
            self._stats = self._writer.stats()
            self._writer = None

    @staticmethod
    def _given(options: Options, local_ranks: int) -> CallbackOptions:
        """The options of the writer below, which shares the cores with those of other ranks on this machine."""
        given = options.of_callback()
        given["max_workers"] = default_workers(local_ranks) if options.max_workers is None else options.max_workers
        return given

    def _background_writer(self, *, local_ranks: int, run: Run) -> BackgroundWriter:
        given = self._given(self.options, local_ranks)
        writer: Any = self.value_key if isinstance(self.value_key, dict) else self.writer_fn
        if writer is None and arrays_target(self._target) is None and tables_target(self._target) is None:
            writer = resolve_writer(self.writer_fn)  # type: ignore[arg-type] # which says what is missing
        if self._target is None:
            return BackgroundWriter(writer, self.path, run=run, **given)
        return BackgroundWriter(writer, target_of_rank(self._target, run, self._path), **given)
