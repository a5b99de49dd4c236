"""The columns of a table and their types, as all workers and ranks have agreed on them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from lighter_async.locks import alone_in
from lighter_async.manifest import read_manifest
from lighter_async.manifest.reader import current_runs, runs_of
from lighter_async.manifest.records import Records
from lighter_async.store import TABLE_WRITER, DirectoryStore
from lighter_async.table_row import common_type, is_type
from lighter_async.tables import types_in
from lighter_async.targets.table.beside import read_beside, write_beside
from lighter_async.targets.table.spool import SPOOL_ENDING

__all__ = ["Columns"]

_FILE = "columns.json"
_LOCK = "columns.lock"
_SECONDS_TO_READ = 3600.0  # that another worker may take for the rows of a large table


@dataclass(eq=False)
class Columns:
    """The columns, in the order in which they were first stored.

    They stand in a file beside the spools, which is read and written by one worker of all at a time, and only when
    there is a new column: a worker knows the others.

    Attributes:
        folder: Where the spools lie.
        root: The directory that the table lies in.
        table: The table's file name, which is the key of its samples' series.
        run: The id of the run that stores.
    """

    folder: str
    root: str
    table: str
    run: str
    _known: dict[str, tuple[str, str]] = field(default_factory=dict)  # the type, and a sample that has it
    _seen: set[tuple[tuple[str, str], ...]] = field(default_factory=set)

    def check(self, types: Mapping[str, str], sample: str) -> None:
        """Take the columns of a sample, if their types go with what was stored before.

        Args:
            types: The type of each of its columns.
            sample: Its name.

        Raises:
            TypeError: A column is of another type than in samples that are stored; or, where the file is gone, these
                differ themselves.
            OSError: The file cannot be read or written.
        """
        row = tuple(types.items())
        if row in self._seen:
            return
        if self._together(types, sample) != self._known:
            with alone_in(os.path.join(self.folder, _LOCK), seconds=_SECONDS_TO_READ):
                runs, self._known = self._read()
                together = self._together(types, sample)
                if together != self._known or self.run not in runs:
                    self._write(runs, together)
                self._known = together
        if len(self._seen) < 1000:
            self._seen.add(row)

    def types(self) -> dict[str, str] | None:
        """The type of each column, as they are known now; None if that is not written anywhere."""
        try:
            known = _parsed(self.folder)[1]
        except (OSError, ValueError):
            return None
        return {key: kind for key, (kind, _) in known.items()}

    def _together(self, types: Mapping[str, str], sample: str) -> dict[str, tuple[str, str]]:
        known = self._known
        found = dict(known)
        for key, kind in types.items():
            if key not in known:
                found[key] = kind, sample
                continue
            there, first = known[key]
            both = common_type(there, kind)
            if both is None:
                raise TypeError(
                    f"column {key!r} of sample {sample!r:.200} is {kind}, and {there} in sample {first!r:.200}: a "
                    "column has one type; convert it before, as with float(value) or str(value)"
                )
            if both != there:
                found[key] = both, sample
        return found

    def _read(self) -> tuple[list[str], dict[str, tuple[str, str]]]:
        """The runs whose rows have these columns, and the columns; none if none of these runs counts any more."""
        try:
            runs, known = _parsed(self.folder)
        except (FileNotFoundError, ValueError):  # removed, or cut off by a loss of power
            return self._of_rows()
        if self.run in runs:
            return runs, known
        counted = {
            run for (_, key), some in current_runs(runs_of(self.root)).items() if key == self.table for run in some
        }
        kept = [run for run in runs if run in counted]
        return (kept, known) if kept else ([], {})

    def _of_rows(self) -> tuple[list[str], dict[str, tuple[str, str]]]:
        """As `_read`, of the rows that count."""
        if not any(name.endswith(SPOOL_ENDING) for name in os.listdir(self.folder)):
            return [], {}
        counted = read_manifest(self.root).counted(writer=TABLE_WRITER, key=self.table)
        records = next(iter(counted.values()), Records([]))
        runs = {block.head.run for block in records.blocks}
        return sorted(runs), types_in(records, DirectoryStore(self.root))

    def _write(self, runs: list[str], known: Mapping[str, tuple[str, str]]) -> None:
        about = {"runs": list(dict.fromkeys([*runs, self.run])), "columns": known}
        write_beside(self.folder, _FILE, about)


def _parsed(folder: str) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """What the file says.

    Raises:
        ValueError: It is not valid.
        OSError: It cannot be read.
    """
    try:
        about = read_beside(folder, _FILE)
        runs = [str(run) for run in about["runs"]]
        known = {str(key): (str(kind), str(sample)) for key, (kind, sample) in about["columns"].items()}
        if not all(is_type(kind) for kind, _ in known.values()):
            raise ValueError("no type of a column")
        return runs, known
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{_FILE!r} in {folder!r} is not valid") from error
