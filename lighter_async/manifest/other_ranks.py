"""What other ranks of a run, and earlier runs, have recorded of a file, while they go on recording."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from time import monotonic, sleep

from lighter_async.manifest.entry import Record
from lighter_async.manifest.reader import manifest_files, records_of
from lighter_async.store import Store
from lighter_async.types import Run

__all__ = ["OtherRanks"]

_PAUSE = 0.05  # seconds between two looks


class OtherRanks:
    """Looks a file up in the manifests of all ranks, without making anything of the other lines.

    Args:
        directory: Where the manifests are.
        run: This run, and which of its ranks this is.
        suffixes: Those of this run's files, with which a sample's name may end or not.
        own: The path of this rank's manifest.
        store: Where the files are.
    """

    def __init__(
        self, directory: str | os.PathLike[str], run: Run, suffixes: Collection[str], *, own: str, store: Store
    ) -> None:
        self._directory = directory
        self._run = run
        self._suffixes = frozenset(suffixes)
        self._own = own
        self._store = store

    def find(self, file: str, *, seconds: float) -> Record | None:
        """What another rank of this run has recorded of a file; None if none has.

        Args:
            file: The file, below the directory.
            seconds: How long to wait for that, since a file is recorded a moment after it is stored.
        """
        deadline = monotonic() + seconds
        while True:
            for path in manifest_files(self._directory):
                if os.fspath(path) != self._own:
                    for record in self._records_of(path, file):
                        if record.run == self._run.id:
                            return record
            if monotonic() >= deadline:
                return None
            sleep(_PAUSE)

    def is_earlier(self, file: str) -> bool:
        """Whether a file is as an earlier run, or an earlier writer of this rank, has recorded it, and no other rank.

        Args:
            file: The file, below the directory.
        """
        earlier: set[tuple[int | None, str | None]] = set()
        for path in manifest_files(self._directory):
            for record in self._records_of(path, file):
                if record.run == self._run.id and os.fspath(path) != self._own:
                    return False
                earlier.add((record.bytes, record.xxh3))
        if not earlier:
            return False
        identity = self._store.identity(file)
        try:
            return identity is not None and (identity.bytes, self._store.checksum(file)) in earlier
        except OSError:
            return False

    def _records_of(self, path: Path, file: str) -> Iterator[Record]:
        for suffix in self._suffixes:
            yield from records_of(path, file, suffix)
