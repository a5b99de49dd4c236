"""The base of all callbacks that write predictions."""

from __future__ import annotations

import itertools
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lighter_async.callback.lightning_packages import LightningCallback
from lighter_async.names import RESERVED_PREFIX
from lighter_async.notices import warn
from lighter_async.replacing import holds_files, warn_of_replaced

__all__ = ["BaseWriter"]

_instances = itertools.count()

_SECONDS_OF_A_MARKER = 86400.0  # after which the marker of a crashed run is removed
_LONGEST_TICK = 2.5  # seconds: some clocks tick every second, that of FAT every two
# A network file system's client may remember for half a minute that a folder does not exist, as when `pending` has
# looked for it.
_SECONDS_TO_SEE = 35.0


class BaseWriter(ABC, LightningCallback):  # type: ignore[misc]
    """A Lightning callback that writes predictions.

    It prepares the directory, and hands each batch's outputs to `write`.

    Args:
        path: Where the predictions go: a directory, or a file if it has a suffix. None if they are stored elsewhere, so
            that there is no directory to prepare.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        super().__init__()
        self._path = None if path is None else Path(path)
        self._instance = next(_instances)
        self._run_id = ""
        self._since: int | None = None
        self._has_warned_of_stage = False

    _way_out_of_replacing = ""
    """What can be done about predictions that are replaced, for the warning of them."""

    @abstractmethod
    def write(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """Write the outputs of one prediction batch.

        Args:
            outputs: What `predict_step` returned; not None, and not empty.
            batch: The batch that it got.
            batch_idx: The batch's number in its loader.
            dataloader_idx: The loader's number.
        """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>" if self._path is None else f"<{type(self).__name__} to {str(self._path)!r}>"

    @property
    def path(self) -> Path:
        """Where the predictions go. From `setup` on it is rank 0's path.

        Raises:
            AttributeError: They are not stored below a directory.
        """
        if self._path is None:
            raise AttributeError(f"this {type(self).__name__} does not store below a directory, so it has no path")
        return self._path

    @path.setter
    def path(self, path: Path) -> None:
        if self._path is None:
            raise AttributeError(
                f"this {type(self).__name__} does not store below a directory, and cannot be given one"
            )
        self._path = path

    @property
    def directory(self) -> Path:
        """The directory that is made before the first batch."""
        return self.path.parent if self.path.suffix else self.path

    @property
    def replaces(self) -> bool:
        """Whether predictions of an earlier run may be replaced, which causes a warning."""
        return True

    def replaced(self) -> Path | None:
        """What there is of predictions that may be replaced; None if there is nothing."""
        return self.path if _holds_files(self.path) else None

    @property
    def state_key(self) -> str:
        """Lightning's key for this callback's state, unique so that a trainer takes several callbacks."""
        return f"{type(self).__qualname__}-{self._instance}"

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Take over the path of rank 0, make the directory, and check that every rank sees it.

        An error on one rank is raised on all of them, so that no rank waits for one that has given up.

        Raises:
            NotADirectoryError: There is a file in the directory's place.
            OSError: Rank 0 cannot make the directory, or cannot write to it.
            RuntimeError: A rank does not share storage with rank 0.
        """
        if stage in ("test", "validate"):
            self._warn_of_stage(trainer, stage)
        if stage != "predict" or self._path is None:
            return
        failure: OSError | None = None
        replaced: Path | None = None
        if trainer.is_global_zero:
            self._run_id = secrets.token_hex(6)
            replaced = self.replaced() if self.replaces else None
            failure = self._prepare()
        # Rank 0's, since a path with a date or a random part may differ between ranks.
        self.path, self._run_id, self._since, failure = trainer.strategy.broadcast(
            (self.path, self._run_id, self._since, failure), src=0
        )
        if failure is not None:
            raise failure
        is_seen = self._is_marker_seen()
        if trainer.is_global_zero and trainer.world_size == 1:
            self._unmark()
        if not trainer.strategy.reduce_boolean_decision(is_seen):
            if trainer.is_global_zero:
                self._unmark()
            who = "another rank" if is_seen else f"rank {trainer.global_rank}"
            raise RuntimeError(
                f"{who} does not see what rank 0 put into {os.fspath(self.directory)!r}: the nodes do not share "
                "storage, or the path is a relative one and their working directories differ; choose an absolute path "
                "on a file system that all nodes mount"
            )
        if replaced is not None:
            warn_of_replaced(replaced, self._way_out_of_replacing)

    def _warn_of_stage(self, trainer: Any, stage: str) -> None:
        """Say once that tests and validations write nothing; whoever trains does not expect it."""
        if self._has_warned_of_stage or not trainer.is_global_zero:
            return
        self._has_warned_of_stage = True
        call, step = ("test", "test_step") if stage == "test" else ("validate", "validation_step")
        warn(
            f"{type(self).__name__} writes what predict_step returns, and nothing in trainer.{call}(); call "
            f"trainer.predict(), or hand the outputs of {step} over to a lighter_async.BackgroundWriter"
        )

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Remove the marker that the ranks have looked for."""
        if stage == "predict" and trainer.is_global_zero:
            self._unmark()

    @property
    def _marker(self) -> Path:
        """A file by which ranks check that they share the directory. Its time is the beginning of the run."""
        return self.directory / RESERVED_PREFIX / f"run-{self._run_id}"

    def _prepare(self) -> OSError | None:
        """Make the directory and its marker; returns the error if that fails."""
        try:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                return NotADirectoryError(
                    f"{type(self).__name__} writes to the directory {os.fspath(self.directory)!r}, but there is a file "
                    "in its way; choose another directory"
                )
            self._mark()
        except OSError as error:
            return error
        return None

    def _mark(self) -> None:
        folder = self._marker.parent
        if folder.is_symlink():
            raise NotADirectoryError(f"{os.fspath(folder)!r} is a link, and nothing is stored through one; remove it")
        folder.mkdir(exist_ok=True)
        for old in folder.glob("run-*"):
            try:
                if time.time() - old.lstat().st_mtime > _SECONDS_OF_A_MARKER:
                    old.unlink()
            except OSError:
                continue  # another process has removed it, or it is not ours to remove
        self._marker.touch()
        first = self._since = self._marker.stat().st_mtime_ns
        # Later than everything that an earlier run has stored, even if the file system's clock ticks rarely: a file of
        # the same tick would be taken for this run's.
        deadline = time.monotonic() + _LONGEST_TICK
        while self._since == first and time.monotonic() < deadline:
            time.sleep(0.001)
            self._marker.touch()
            self._since = self._marker.stat().st_mtime_ns

    def _is_marker_seen(self) -> bool:
        deadline = time.monotonic() + _SECONDS_TO_SEE
        while not self._marker.exists():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
        return True

    def _unmark(self) -> None:
        if self._run_id and self._path is not None:
            self._marker.unlink(missing_ok=True)
            try:
                self._marker.parent.rmdir()
            except OSError:
                pass  # it is in use

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Hand the outputs to `write`, unless there are none."""
        is_container = type(outputs) is dict or isinstance(outputs, (Mapping, Sequence))
        if outputs is None or (is_container and not outputs):
            return
        self.write(outputs, batch, batch_idx, dataloader_idx)


def _holds_files(path: Path) -> bool:
    return holds_files(path) if path.is_dir() else path.exists()
