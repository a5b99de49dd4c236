"""All samples as rows of one array, by their index in the data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lighter_async.configs import plain
from lighter_async.errors import ReadError
from lighter_async.names import RESERVED_PREFIX, check_name
from lighter_async.notices import notify
from lighter_async.store.zarr_rows import ZARR
from lighter_async.targets.array.file import ArrayFile
from lighter_async.targets.array.form import Form, Npy
from lighter_async.targets.array.lane import ArrayLane
from lighter_async.targets.array.recorded import EarlierRows, Recorded
from lighter_async.targets.array.zarr import Zarr, check_installed, scratch_of
from lighter_async.targets.base import Features
from lighter_async.targets.in_folder import OneFileInFolder
from lighter_async.targets.lane import Lane
from lighter_async.targets.local import LocalTarget
from lighter_async.types import Durability, IfExists, Run, launched_run
from lighter_async.whole_files import local_path

__all__ = ["ArrayTarget"]


class ArrayTarget(OneFileInFolder):
    """Stores all samples of a run in one array, of numpy's or zarr's: row i is the sample with index i in the data set.

    Samples are tensors or arrays of one dtype and shape, those of the first one that is stored. Until all rows are
    there they lie in ``NAME.npy.part``, which becomes the ``.npy`` file where it lies, so that nothing is copied at the
    end. For ``.zarr`` they lie in a file of the same kind, ``NAME.zarr.part``, from which whole chunks are written in
    the end (zarr's third format, compressed as zarr does by default): that takes room for both. What is recorded stands
    in ``.lighter-async`` beside it, under its name as the key, so several arrays, and files, may share a folder.
    `open_results` gives rows, names and the mask of rows that are there. See docs/arrays.md.

    Args:
        path: Where, ending in ``.npy`` or ``.zarr``. The folder is made if it does not exist. A relative path is below
            the working directory of the moment `open` is called.
        rows: How many there will be: then the disk keeps room for them from the first sample on, and the array is
            complete when all are stored. Of several data loaders a list with the length of each data set; their rows go
            on one after the other. None: the array grows, and is complete when no row before the last one is missing.
        if_exists: What becomes of a row that an earlier run has recorded: ``"overwrite"`` stores it once more,
            ``"skip"`` leaves the sample out, and with ``"error"`` an array of another run is refused when it is opened.
        durability: ``"rename"``: what is stored outlives the end of any process. ``"fsync"``: a loss of power, too.
        run: Which of several ranks stores here. Its `key` is replaced by the array's name.
        chunk_rows: How many rows a chunk of a ``.zarr`` array has. None: as many as make 4 MiB.

    Raises:
        ValueError: The path is a URL or ends in neither ``.npy`` nor ``.zarr``, or an option is none of its values.
        TypeError: `rows` is no whole number, nor a list of them.
    """

    features = Features(has_directory=True, takes_arrays=True)

    def __init__(
        self,
        path: str | os.PathLike[str],
        rows: int | Sequence[int] | None = None,
        *,
        if_exists: IfExists = "overwrite",
        durability: Durability = "rename",
        run: Run | None = None,
        chunk_rows: int | None = None,
    ) -> None:
        place = local_path(path)
        self.object = _checked_name(place)
        self.chunk_rows = _checked_chunk_rows(chunk_rows, self.object)
        self.rows = _checked_rows(rows)
        run = replace(run or launched_run() or Run(), key=self.object, numbered=True)
        super().__init__(LocalTarget(place.parent, if_exists=if_exists, durability=durability, run=run))

    def _kept(self) -> dict[str, Any]:
        return {"object": self.object, "rows": self.rows, "chunk_rows": self.chunk_rows}

    def _reset(self) -> None:
        self._file: ArrayFile | None = None
        self._earlier: EarlierRows | None = None

    def of_run(self, run: Run, directory: str | os.PathLike[str] | None = None) -> ArrayTarget:
        """The same target for one rank of a run, which is not open.

        Args:
            run: Which run, and which of its ranks.
            directory: The folder that the array lies in for that run. None: as for this target.
        """
        made = type(self)(self.path, self.rows, chunk_rows=self.chunk_rows)
        made._folder = self._folder.of_run(replace(run, key=self.object, numbered=True), directory)
        return made

    def open(self) -> None:
        """Make and lock the folder, and give an array its name of which a run has stored all rows and died then.

        Raises:
            NotADirectoryError: There is a file where the folder, or one above it, should be.
            IsADirectoryError: There is a folder where the array should be, which is none of ours.
            FileExistsError: There is an array of another run, and ``if_exists="error"``; or a file where a ``.zarr``
                array should be.
            ImportError: zarr is needed, and not installed.
            TimeoutError: Helpers of a process that has died have been at work here for ten minutes.
            OSError: The folder cannot be made or written to.
        """
        self._folder.open()
        try:
            root = os.path.abspath(self.directory)
            recorded = Recorded(root, self.object)
            is_synced = self.durability == "fsync"
            form: Form = Npy()
            if self.object.endswith(ZARR):
                if not self._is_copy:
                    check_installed()
                form = Zarr(scratch_of(root, self.object), self.chunk_rows, recorded, self._folder)
            self._file = ArrayFile(root, self.object, self._count, is_synced, recorded, self._folder, form)
            if self.if_exists == "skip":
                self._earlier = EarlierRows(root, self.object, self.run.id)
            if not self._is_copy:
                self._check_what_is_there(self._file)
        except BaseException:
            self.close()
            raise

    def _check_what_is_there(self, file: ArrayFile) -> None:
        if why := file.form.is_other(file.path):
            kind = IsADirectoryError if os.path.isdir(file.path) else FileExistsError
            raise kind(f"{file.path!r} {why}; choose another path")
        is_there = os.path.lexists(file.path), os.path.lexists(file.part)
        if not any(is_there):
            return
        if self.if_exists == "error":
            others = file.recorded.other_runs(self.run.id)
            is_own = bool(file.recorded.other_runs("") - others)
            if others or (is_there[0] and not is_own):
                raise FileExistsError(
                    f"{file.path if is_there[0] else file.part!r} is there; choose another path, or "
                    "if_exists='overwrite' or 'skip'"
                )
        try:
            file.seal(only_known=True)
        except ReadError as error:
            notify(str(error))
        except OSError as error:
            notify(
                f"{file.part!r} has all of its rows, and cannot be given its name yet ({type(error).__name__}: "
                f"{error}); it is kept, and the next writer that opens it does it"
            )

    def rows_of(self, indices: Sequence[int], loader: int, names: Sequence[str] | None = None) -> Sequence[int]:
        """The rows of some samples; a range if their indices are one.

        Args:
            indices: In the data set.
            loader: Of which data loader.
            names: The samples', for messages.

        Raises:
            ValueError: There are no such rows.
        """
        if not len(indices):
            return indices
        lengths = self.rows if isinstance(self.rows, tuple) else None
        first, count = 0, self._count
        if lengths is not None:
            if loader >= len(lengths):
                raise ValueError(f"there is no loader {loader} of an array of {len(lengths)} loaders' rows")
            first, count = sum(lengths[:loader]), lengths[loader]
        elif loader:
            raise ValueError(
                f"rows of several loaders go on one after the other, which takes the lengths of their data sets, and "
                f"loader {loader} is not the first: ArrayTarget(path, rows=[LENGTH, LENGTH, ...])"
            )
        if isinstance(indices, range):
            least, most = min(indices[0], indices[-1]), max(indices[0], indices[-1])
        else:
            least, most = min(indices), max(indices)
        if least < 0 or (count is not None and most >= count):
            place = next(place for place, one in enumerate(indices) if one < 0 or (count is not None and one >= count))
            sample = f"sample {names[place]!r:.200}" if names is not None else f"the sample at {place} of the batch"
            has = "count from 0" if count is None else f"of this array are 0 to {count - 1}"
            raise ValueError(f"{sample} has index {indices[place]}, which is its row, and rows {has}")
        if isinstance(indices, range):
            return range(first + indices.start, first + indices.stop, indices.step)
        return indices if not first else [first + one for one in indices]

    @property
    def _count(self) -> int | None:
        return sum(self.rows) if isinstance(self.rows, tuple) else self.rows

    def check(self, names: Sequence[str]) -> None:
        """Names are recorded only, so any that is a name will do."""

    def keeps(self, name: str) -> bool:
        """Rows are known by their indices, so a name tells nothing."""
        return False

    def put(self, name: str, parts: Sequence[memoryview]) -> bool:
        """
        Raises:
            TypeError: A name and bytes are no row.
        """
        raise TypeError(
            f"sample {name!r:.200} cannot be a row of {self.location!r} by its name alone; "
            "BackgroundWriter(target=...) hands over indices, dtypes and shapes"
        )

    def lane(self, number: int) -> Lane:
        """A worker's own way in.

        Args:
            number: Which of the workers, from 0.
        """
        if self._file is None:
            raise ValueError(f"the target on {os.fspath(self.path)!r} is not open; call open() first")
        return ArrayLane(self._file, self.rows_of, self._earlier)

    def close(self) -> None:
        """Mark the folder as no longer in use. It may be called again."""
        self._folder.close()


def _checked_name(path: Path) -> str:
    name = path.name
    if path.suffix not in (".npy", ZARR) or name.startswith(RESERVED_PREFIX):
        raise ValueError(
            f"an array is stored as .npy or .zarr, and {os.fspath(path)!r:.500} ends otherwise; choose a path such as "
            "'embeddings.npy'"
        )
    check_name(name)
    return name


def _checked_rows(rows: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
    if rows is None:
        return None
    rows = plain(rows)
    some = [rows] if isinstance(rows, int) else rows
    if isinstance(some, (str, bytes)) or not isinstance(some, (list, tuple)):
        raise TypeError(f"rows is a whole number, or a list with one for each data loader, not {rows!r:.100}")
    for one in some:
        if isinstance(one, bool) or not isinstance(one, int):
            raise TypeError(f"rows is a whole number, or a list with one for each data loader, not {rows!r:.100}")
        if one < 0:
            raise ValueError(f"rows is at least 1, not {rows!r:.100}")
    if not sum(some):
        raise ValueError(f"rows is at least 1, not {rows!r:.100}")
    return rows if isinstance(rows, int) else tuple(some)


def _checked_chunk_rows(count: int | None, name: str) -> int | None:
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"chunk_rows is a whole number, not {count!r:.100}")
    if count < 1:
        raise ValueError(f"chunk_rows is at least 1, not {count}")
    if not name.endswith(ZARR):
        raise ValueError(f"chunk_rows is for .zarr arrays; {name!r:.200} has no chunks")
    return count
