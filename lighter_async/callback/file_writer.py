"""The callback that writes one file per predicted sample, in the background."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lighter_async.callback.base import BaseWriter
from lighter_async.callback.elsewhere import agree_on
from lighter_async.callback.known import KnownOutputs
from lighter_async.callback.progress import Progress, progress_of
from lighter_async.callback.samples import entry, names_of, outputs_in, samples_of
from lighter_async.callback.share import Share, choose, length_of
from lighter_async.callback.termination import Termination
from lighter_async.errors import LighterAsyncError
from lighter_async.limits import default_workers
from lighter_async.manifest.line import Loader
from lighter_async.names import Numbers
from lighter_async.notices import notify
from lighter_async.options import CallbackOptions, Options, as_attributes, documented
from lighter_async.same import fingerprint_of
from lighter_async.service import BackgroundWriter
from lighter_async.session import stored_as
from lighter_async.targets import SharedTarget, Target, directory_of
from lighter_async.targets.local import wait_until_free
from lighter_async.types import Origin, Run, WriterStats

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FileWriter"]


@as_attributes(CallbackOptions)
@documented(CallbackOptions)
class FileWriter(BaseWriter):
    """Writes one value per predicted sample to a file of its own, in the background.

    Each batch is copied once and queued, and `Trainer.predict` goes on while workers write; at the end it waits until
    everything is stored. A sample that could not be written makes `predict` raise `WriteError`.

    With several ranks each writes its own samples, below one directory that all of them can see.

    Args:
        directory: Where the files go. Made if it does not exist. A target of any kind may stand in its place, such as a
            `LocalTarget`. Each call of `predict` opens and closes it. Where it stores elsewhere than below a directory
            nothing is recorded, and several ranks can share it only if it is a `lighter_async.targets.SharedTarget`.
        value_key: The entry of the outputs to write. A tensor or array with a batch dimension is one sample per row, a
            sequence one per item; a 0-d tensor, a text and any other object are one sample. A dict from entries to
            encoders, such as ``{"mask": "image_2d", "logits": "tensor"}``, stores several outputs of each sample, all
            of them or none, as ``NAME.mask.png`` and ``NAME.logits.pt``; then `writer_fn` is left out.
        writer_fn: ``"tensor"``, ``"image_2d"``, ``"image_3d"``, ``"text"``, another registered name, an `Encoder`, or a
            function ``(path, value)``, plain or ``async def``; or where one is, as ``"module:attribute"``.
        name_key: The entry of the outputs that names the samples. None numbers them by their index in the data set,
            going on over the loaders; where that is not known, rank r of n takes r, r + n, r + 2n and so on.
        sigterm_grace: Seconds, from a SIGTERM on, for storing what was handed over. The loop stops at its next batch,
            and the process ends with status 143. None leaves the signal alone.
        return_predictions: False keeps Lightning from collecting the predictions in memory, True makes it, whatever the
            call of `predict` says. None leaves it as it is, and warns once if they are collected.
        {options}

    Raises:
        ValueError: An option is out of range, or the writer's name is not registered.
        TypeError: `writer_fn` is neither a name nor callable, or an option is of a wrong type.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | Target,
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
        if isinstance(value_key, Mapping) and writer_fn is not None:
            raise TypeError(
                "a dict as value_key says the writer of each output, so leave writer_fn out, and give name_key by its "
                "name: FileWriter(directory, {'mask': 'image_2d'}, name_key='name')"
            )
        super().__init__(_path_of(directory if target is None else target))
        self._target = target
        self.options = Options.of("FileWriter", options)
        self.value_key: Any = dict(value_key) if isinstance(value_key, Mapping) else value_key
        self.name_key = name_key
        self.writer_fn = writer_fn
        self.sigterm_grace = sigterm_grace
        self.return_predictions = return_predictions
        self._warned = False
        self._counter = 0
        self._step = 1
        self._by_index: bool | None = None  # whether samples are numbered by their index; None before the first
        self._writer: BackgroundWriter | None = None
        self._progress: Progress | None = None
        self._stats: WriterStats | None = None
        self._share: Share | None = None
        self._known: KnownOutputs | None = None
        self._has_told = False
        self._termination: Termination | None = None
        # Nothing exists before setup, so that the callback can be pickled; but what is wrong is told now.
        self._background_writer(local_ranks=1, run=Run())

    @property
    def directory(self) -> Path:
        """The directory that the files go to."""
        return self.path

    @property
    def replaces(self) -> bool:
        below = directory_of(self._target)
        if_exists = self.options.if_exists if below is None else below.if_exists
        return if_exists in (None, "overwrite") and not self.options.resume

    def stats(self) -> WriterStats:
        """What was done in the prediction run that is under way, or in the last one.

        Raises:
            RuntimeError: There was none yet in this process.
        """
        if self._writer is not None:
            return self._writer.stats()
        if self._stats is None:
            raise RuntimeError("FileWriter has no stats before trainer.predict() has run in this process")
        return self._stats

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Prepare the directory and start the workers.

        Raises:
            NotADirectoryError: There is a file where the directory should be.
            RuntimeError: This rank does not share storage with rank 0, or the target is for one rank only.
            WriteError: Samples of an earlier run were not written, and its end could not tell.
        """
        # A writer is still open if another callback's on_exception raised, so that ours was not called.
        self.teardown(trainer, pl_module, stage)
        super().setup(trainer, pl_module, stage)
        if stage != "predict":
            return
        if self._target is not None and self._path is None:
            self._run_id = agree_on(self._target, trainer)
        self._counter = trainer.global_rank
        self._step = trainer.world_size
        self._by_index = None
        if self.return_predictions is not None:
            trainer.predict_loop.return_predictions = self.return_predictions
        run = Run(
            id=self._run_id,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            # Several outputs are told apart by keys of their own.
            key="" if isinstance(self.value_key, dict) else str(self.value_key),
            since=self._since,
            numbered=self.options.resume and self.name_key is None,
        )
        self._writer = self._background_writer(local_ranks=trainer.num_devices, run=run)
        if self.options.resume:
            # A rank may have nothing left to do, which Lightning refuses unless the model says that it may be.
            pl_module.allow_zero_length_dataloader_with_multiple_devices = True
            # Before the workers begin, whose lines are none of an earlier run's.
            wait_until_free(self.path)
            outputs = stored_as(self._writer.writer, run.key)
            known = KnownOutputs(self.path, outputs, named=self.name_key is not None)
            if trainer.is_global_zero:
                known.adopt()
            self._known = known
            self._has_told = False
        self._share = Share(trainer)
        self._writer.start()

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Show the queues of all the trainer's `FileWriter`s together, beside its progress bar."""
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
        self._note_data(trainer)
        # Not in setup, since another one's may come later and settle it.
        if first and all(callback.return_predictions is None for callback in together):
            self._warn_of_collected_predictions(trainer)

    def _note_data(self, trainer: Any) -> None:
        """Record over which data sets this run goes, once Lightning knows; and refuse other ones than before.

        Raises:
            ResumeError: What is stored is of others.
        """
        if self._share is None or self._writer is None:
            return
        datasets = self._share.datasets
        if self._known is not None:
            self._known.check(datasets)
            self._tell_what_is_stored(trainer, self._known, datasets)
        if self.options.manifest and trainer.is_global_zero and self._path is not None:
            self._writer._describe(
                [Loader(length_of(dataset), fingerprint_of(dataset)) for dataset in datasets],
                named=self.name_key is not None,
            )

    def _tell_what_is_stored(self, trainer: Any, known: KnownOutputs, datasets: Sequence[Any]) -> None:
        self._has_told = True
        if trainer.is_global_zero:
            lengths = [length_of(dataset) for dataset in datasets]
            total = "" if None in lengths else f" of {sum(length or 0 for length in lengths):,}"
            notify(f"resuming: {len(known):,}{total} are stored in {os.fspath(self.path)!r}")

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
        """Hand the batch over, and wait only while there is no room for it."""
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        if self._progress is not None:
            self._progress.update()

    def write(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """Hand the samples of one batch over.

        Raises:
            KeyError: The outputs lack a key.
            TypeError: The outputs are no mapping, or a name is no name.
            ValueError: There are not as many names as samples, or not as many of each output.
            LighterAsyncError: As `BackgroundWriter.submit_batch`.
        """
        if self._writer is None:
            raise RuntimeError("FileWriter.write was called outside of trainer.predict(); use BackgroundWriter there")
        assert self._share is not None
        values: Any
        if isinstance(self.value_key, dict):
            values, count = outputs_in(outputs, self.value_key)
        else:
            values = samples_of(entry(outputs, self.value_key, "value_key"))
            count = len(values)
        if not count:
            return
        origin = self._share.origin(count, batch_idx, dataloader_idx)
        names: Sequence[str]
        if self.name_key is None:
            names, origin = self._numbered(self._share, origin, count)
        else:
            names = names_of(entry(outputs, self.name_key, "name_key"), self.name_key)
            if len(names) != count:
                key = next(iter(self.value_key)) if isinstance(self.value_key, dict) else self.value_key
                raise ValueError(
                    f"Length mismatch between value key '{key}' ({count}) and name key '{self.name_key}' "
                    f"({len(names)}); every sample needs one name"
                )
        kept = self._share.without_padding(count, batch_idx, dataloader_idx)
        keep = range(kept) if self._known is None else self._known.missing(names, origin, kept)
        if len(keep) < count:
            names, values, origin = choose(keep, names, values, origin)
        if len(keep):
            self._writer.submit_batch(names, values, origin=origin)

    def _numbered(self, share: Share, origin: Origin, count: int) -> tuple[Sequence[str], Origin]:
        """The numbers of samples without names of their own, and what is known of where they come from.

        Raises:
            ValueError: The run resumes, and their indices are not known.
        """
        if self._by_index is not False and (names := share.numbers(origin)) is not None:
            self._by_index = True
            return names, origin
        if self.options.resume:
            raise ValueError(
                "resume=True names samples by their index in the data set, which is not known here: the loader has no "
                "batch sampler that Lightning can follow (an iterable data set has none), or predict_step does not "
                "return one sample per item; give name_key instead"
            )
        if self._by_index is None:
            self._by_index = False
        # Beside numbers that are indices, also of other ranks, these begin behind all indices.
        first = self._counter + (share.items if self._by_index or self._step > 1 else 0)
        self._counter += count * self._step
        # Their indices, if they were known, would not be their numbers.
        return Numbers(range(first, first + count * self._step, self._step)), Origin(None, origin.loader, origin.batch)

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        """Wait until everything is stored.

        Raises:
            WriteError: Samples were not written.
        """
        if self._writer is not None and self._progress is not None:
            self._progress.flush(self._writer, self._wants_to_end)
        if self._termination is not None and self._termination.received:
            self._end_early(trainer, self._termination)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let the workers go."""
        super().teardown(trainer, pl_module, stage)
        if self._writer is not None and stage == "predict":
            if self._known is not None and self._share is not None and not self._has_told:
                # Nothing was left to do, so that nothing has begun.
                self._tell_what_is_stored(trainer, self._known, self._share.datasets)
            try:
                self._writer.close()
            finally:
                self._forget(ends=True)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Store what was handed over, and leave the exception as it is, with what failed here attached to it.

        A Ctrl-C meanwhile drops what is still queued.
        """
        if self._writer is None:
            return
        writer = self._writer
        known = len(_attached(exception))  # such as another FileWriter's
        try:
            if self._wants_to_end():
                assert self._termination is not None
                writer.close_by(self._termination.seconds_left)
            else:
                with _interruptible():
                    writer.__exit__(type(exception), exception, None)
            super().teardown(trainer, pl_module, "predict")
        finally:
            self._forget(ends=False)
            if isinstance(exception, KeyboardInterrupt):
                # Lightning ends the process without showing this exception.
                for text in _attached(exception)[known:]:
                    notify(text.removeprefix("lighter_async: "))

    def _forget(self, *, ends: bool) -> None:
        self._forget_writer()
        self._progress = None
        self._known = self._share = None
        if self._termination is not None:
            termination, self._termination = self._termination, None
            termination.uninstall(ends=ends)

    def _wants_to_end(self) -> bool:
        return self._termination is not None and self._termination.received

    def _end_early(self, trainer: Any, termination: Termination) -> None:
        """Store what all writers of the trainer were handed, as long as there is time, and end."""
        termination.begin(trainer.strategy.launcher)
        for callback in trainer.callbacks:
            if isinstance(callback, FileWriter) and callback._writer is not None:
                callback._writer.close_by(termination.seconds_left)
                callback._forget_writer()
                BaseWriter.teardown(callback, trainer, None, "predict")
        termination.leave()

    def _forget_writer(self) -> None:
        if self._writer is not None:
            self._stats = self._writer.stats()
            self._writer = None

    def _background_writer(self, *, local_ranks: int, run: Run) -> BackgroundWriter:
        given = self.options.of_callback()
        given["max_workers"] = (
            default_workers(local_ranks) if self.options.max_workers is None else self.options.max_workers
        )
        writer: Any = self.value_key if isinstance(self.value_key, dict) else self.writer_fn
        if self._target is None:
            return BackgroundWriter(writer, self.path, run=run, **given)
        target = self._target
        if (below := directory_of(target)) is not None:
            target = below.of_run(run, self.path)
        elif isinstance(target, SharedTarget):
            target = target.of_run(run)
        return BackgroundWriter(writer, target, **given)

    def _warn_of_collected_predictions(self, trainer: Any) -> None:
        if self._warned or not trainer.predict_loop.return_predictions or not trainer.is_global_zero:
            return
        self._warned = True
        warnings.warn(
            "Lightning also collects all predictions in memory, because return_predictions is not False; "
            "trainer.predict(..., return_predictions=False) or FileWriter(return_predictions=False) stops that, "
            "and FileWriter(return_predictions=True) says that it is meant",
            UserWarning,
            stacklevel=2,
        )


def _path_of(directory: str | os.PathLike[str] | Target) -> str | os.PathLike[str] | None:
    """The directory that is stored to, also where a target says it; None if a target stores elsewhere.

    Raises:
        TypeError: It is neither a path nor a target.
    """
    if isinstance(directory, Target):
        below = directory_of(directory)
        return None if below is None else below.directory
    if isinstance(directory, (str, os.PathLike)):
        return directory
    raise TypeError(
        f"directory is a path or a target, not {type(directory).__name__}; the order is "
        "FileWriter(directory, value_key, writer_fn), and a target has the methods of lighter_async.Target"
    )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C raise again, which Lightning has set to be ignored by now."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _attached(exception: BaseException) -> list[str]:
    """What `attach` has told beside an exception."""
    if hasattr(exception, "add_note"):
        return list(getattr(exception, "__notes__", ()))
    found = []
    link = exception.__context__
    while link is not None:
        if isinstance(link, LighterAsyncError):
            found.append(str(link) if type(link) is LighterAsyncError else f"{type(link).__name__}: {link}")
        link = link.__context__
    return found
