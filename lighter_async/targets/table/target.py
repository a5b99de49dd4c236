"""All samples as rows of one table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lighter_async.manifest.reader import runs_of
from lighter_async.names import RESERVED_PREFIX, check_name
from lighter_async.store import TABLE_SUFFIXES
from lighter_async.tables import check_installed
from lighter_async.targets.base import Features
from lighter_async.targets.clashes import check_ranks
from lighter_async.targets.earlier import Earlier
from lighter_async.targets.in_folder import OneFileInFolder
from lighter_async.targets.lane import Lane
from lighter_async.targets.local import LocalTarget
from lighter_async.targets.table.columns import Columns
from lighter_async.targets.table.lane import TableLane
from lighter_async.targets.table.sealing import Sealing
from lighter_async.targets.table.spool import Spools
from lighter_async.types import Durability, IfExists, Run, launched_run
from lighter_async.whole_files import local_path

__all__ = ["TableTarget"]


class TableTarget(OneFileInFolder):
    """Stores all samples of a run as the rows of one table: a Parquet, CSV or JSON-lines file.

    A sample is a dict from columns to numbers, texts, and lists or small arrays of them; tensors keep their dtype. The
    table has a column ``index`` where indices in the data set are known, ``loader`` where there are several, and
    ``name`` where samples have names; its rows stand in the order of the data set. A column has one type; a sample of
    another one fails. A sample that lacks a column, or has one that others lack, has nothing there.

    Rows are appended to files below ``.lighter-async``, and are stored, whatever ends the process, once they are
    recorded. The table is written of all of them when the writer is closed, by the last of all ranks, and at
    ``flush(seal=True)``, and replaces the one that was there in one step. See docs/tables.md.

    Args:
        path: Where, ending in ``.parquet``, ``.csv`` or ``.jsonl``. The folder is made if it does not exist. A relative
            path is below the working directory of the moment `open` is called.
        if_exists: What becomes of a row that an earlier run has recorded: ``"overwrite"`` stores it once more,
            ``"skip"`` leaves the sample out, and with ``"error"`` a table of another run is refused when it is opened.
        durability: ``"rename"``: what is stored outlives the end of any process. ``"fsync"``: a loss of power, too.
        run: Which of several ranks stores here. Its `key` is replaced by the table's name.

    Raises:
        ValueError: The path is a URL or ends otherwise, or an option is none of its values.
        ImportError: A ``.parquet`` table needs pyarrow, which is not installed.
    """

    features = Features(has_directory=True, takes_dicts=True)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        if_exists: IfExists = "overwrite",
        durability: Durability = "rename",
        run: Run | None = None,
    ) -> None:
        place = local_path(path)
        self.object = _checked_name(place)
        run = replace(run or launched_run() or Run(), key=self.object)
        super().__init__(LocalTarget(place.parent, if_exists=if_exists, durability=durability, run=run))

    def _kept(self) -> dict[str, Any]:
        return {"object": self.object}

    def _reset(self) -> None:
        self._sealing: Sealing | None = None
        self._earlier: Earlier | None = None

    def of_run(self, run: Run, directory: str | os.PathLike[str] | None = None) -> TableTarget:
        """The same target for one rank of a run, which is not open.

        Args:
            run: Which run, and which of its ranks.
            directory: The folder that the table lies in for that run. None: as for this target.
        """
        made = type(self)(self.path)
        made._folder = self._folder.of_run(replace(run, key=self.object), directory)
        return made

    def open(self) -> None:
        """Make and lock the folder.

        Raises:
            NotADirectoryError: There is a file where the folder, or one above it, should be.
            IsADirectoryError: There is a folder where the table should be.
            FileExistsError: There is a table, or rows of one, of another run, and ``if_exists="error"``.
            TimeoutError: Helpers of a process that has died have been at work here for ten minutes.
            OSError: The folder cannot be made or written to.
        """
        self._folder.open()
        try:
            root = os.path.abspath(self.directory)
            spools = Spools(root, self.object, self.run.rank, self.durability == "fsync")
            columns = Columns(spools.folder, root, self.object, self.run.id)
            self._sealing = Sealing(spools, columns, self._folder.write, self.store())
            if self.if_exists == "skip":
                self._earlier = Earlier(root, self.run.id, "skip", self.object)
            if not self._is_copy:
                self._check_what_is_there(root)
                self._sealing.begin()
        except BaseException:
            self.close()
            raise

    def _check_what_is_there(self, root: str) -> None:
        path = os.path.join(root, self.object)
        if os.path.isdir(path):
            raise IsADirectoryError(f"{path!r} is a folder, so no table can lie there; choose another path")
        if self.if_exists != "error":
            return
        runs = {run.run for run in runs_of(root) if run.key == self.object}
        if runs - {self.run.id} or (os.path.lexists(path) and self.run.id not in runs):
            raise FileExistsError(f"{path!r} is there; choose another path, or if_exists='overwrite' or 'skip'")

    def check(self, names: Sequence[str]) -> None:
        """Names are recorded only, so any that is a name will do."""

    def keeps(self, name: str) -> bool:
        """Whether a row that an earlier run has recorded stays, and this sample is left out."""
        return self._earlier is not None and self._earlier.has(name)

    def put(self, name: str, parts: Sequence[memoryview]) -> bool:
        """
        Raises:
            TypeError: What is put here is recorded nowhere, so it would be in no table.
        """
        raise TypeError(
            f"sample {name!r:.200} cannot be a row of {self.location!r} without a record of it; "
            "BackgroundWriter(target=...) stores and records rows"
        )

    def lane(self, number: int) -> Lane:
        """A worker's own way in.

        Args:
            number: Which of the workers, from 0.
        """
        if self._sealing is None:
            raise ValueError(f"the target on {os.fspath(self.path)!r} is not open; call open() first")
        return TableLane(self._sealing.spools, self._sealing.columns, number, self._earlier)

    def seal(self, *, ends: bool) -> None:
        """Write the table of all rows that are recorded.

        Args:
            ends: Nothing more is stored by this rank; then another one that is still at work will do it.

        Raises:
            OSError: It cannot be written. All rows are kept, and the table that was there.
        """
        if self._sealing is not None and (not ends or self._sealing.end()):
            self._sealing.seal()

    def close(self) -> None:
        """Mark the folder as no longer in use. It may be called again.

        Raises:
            NameTakenError: This is the last rank to close, and two have stored different samples under one name.
        """
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            sealing.end()
        self._folder.close()
        if sealing is not None and not self._is_copy:
            check_ranks(self.run, os.path.abspath(self.directory), "rows")


def _checked_name(path: Path) -> str:
    name = path.name
    if path.suffix not in TABLE_SUFFIXES or name.startswith(RESERVED_PREFIX):
        raise ValueError(
            f"a table is stored as {', '.join(TABLE_SUFFIXES)}, and {os.fspath(path)!r:.500} ends otherwise; choose a "
            "path such as 'scores.csv'"
        )
    check_name(name)
    check_installed(path.suffix)
    return name
