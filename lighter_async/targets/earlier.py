"""What earlier runs have stored, by the records: for runs that keep that, or refuse to store it again."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np

from lighter_async.manifest import Manifest, Record, read_manifest
from lighter_async.manifest.keys import key_of
from lighter_async.manifest.reader import Series
from lighter_async.manifest.records import Records
from lighter_async.store import DirectoryStore
from lighter_async.types import IfExists

__all__ = ["Earlier"]


@dataclass(eq=False)
class Earlier:
    """Looks samples up in the records of all runs but one, which are read when they are first asked for.

    Attributes:
        root: The directory.
        run: The id of the run that stores now.
        if_exists: What becomes of a sample that an earlier run has stored.
        key: The run's, for samples of another key are of another series.
    """

    root: str
    run: str
    if_exists: IfExists
    key: str = ""

    def __post_init__(self) -> None:
        self._lock = Lock()

    def has(self, file: str) -> bool:
        """Whether an earlier run has stored an output of a sample, and it is still there.

        Args:
            file: The sample's name, with the output's suffix.
        """
        with self._lock:
            manifest, suffixes = self._manifest, self._suffixes
        names = [file, *(file[: -len(one)] for one in suffixes if one and file.endswith(one) and len(one) < len(file))]
        return any(self._is_of(record, file) for name in names for record in _named(manifest.records, name))

    def keeps(self, files: Sequence[str]) -> bool:
        """Whether a sample of an earlier run stays, and is not stored again.

        Args:
            files: One for each of its outputs.

        Raises:
            FileExistsError: An earlier run has stored it, and ``if_exists="error"``.
        """
        if self.if_exists == "skip":
            return all(map(self.has, files))
        if self.if_exists == "error":
            for file in files:
                if self.has(file):
                    raise FileExistsError(
                        f"an earlier run has stored {file!r} in {self.root!r}; choose another directory, or "
                        "if_exists='overwrite' or 'skip'"
                    )
        return False

    @cached_property
    def _manifest(self) -> Manifest:
        return read_manifest(self.root)

    @cached_property
    def _counted(self) -> Mapping[Series, Collection[str]]:
        return self._manifest.current_runs()

    @cached_property
    def _suffixes(self) -> list[str]:
        return sorted({run.suffix for run in self._manifest.runs})

    def _is_of(self, record: Record, file: str) -> bool:
        if record.run == self.run or record.file is None or not self._is_of_series(record, file):
            return False
        if self.if_exists == "skip" and record.run not in self._counted.get(record.series, ()):
            return False  # a run that has begun anew since has superseded it
        suffixes = {run.suffix for run in self._manifest.runs if run.run == record.run and run.series == record.series}
        if file not in {record.name + suffix for suffix in suffixes} and not (
            record.name == file and any(map(file.endswith, suffixes))
        ):
            return False
        return DirectoryStore(os.path.abspath(self.root)).has(record.file)

    def _is_of_series(self, record: Record, file: str) -> bool:
        """Whether a record has the run's key, or that of the output that a file is of."""
        if record.key == self.key:
            return True
        beginning = f"{self.key}." if self.key else ""
        return record.key.startswith(beginning) and f".{record.key.removeprefix(beginning)}." in file


def _named(records: Records, name: str) -> Iterator[Record]:
    """The records of the samples of a name, by bisection."""
    keys, numbers = records.by_name
    key = np.uint64(key_of(name))
    for number in numbers[np.searchsorted(keys, key) : np.searchsorted(keys, key, side="right")].tolist():
        record = records[int(number)]
        if record.name == name:
            yield record
