"""A target that several ranks can share, and that stores elsewhere than below a directory: in a table of a database."""

from __future__ import annotations

import copy
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lighter_async import InvalidNameError, NameTakenError, Run

__all__ = ["DatabaseTarget"]


class DatabaseTarget:
    """Stores each sample as a row.

    Args:
        file: The database.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = os.path.realpath(file)
        self.run = Run()

    @property
    def location(self) -> str:
        return f"database:{self.file}"

    def of_run(self, run: Run) -> DatabaseTarget:
        made = copy.copy(self)
        made.run = run
        return made

    def open(self) -> None:
        with self._connected() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS samples "
                "(name TEXT PRIMARY KEY, data BLOB, run TEXT, rank INTEGER, world_size INTEGER)"
            )

    def check(self, names: Sequence[str]) -> None:
        for name in names:
            if "*" in name:
                raise InvalidNameError(f"{name!r} has a star, which this table refuses; leave it out")

    def keeps(self, name: str) -> bool:
        return False

    def put(self, name: str, parts: Sequence[memoryview]) -> bool:
        row = name, b"".join(parts), self.run.id, self.run.rank, self.run.world_size
        with self._connected() as database:
            # A sample of an earlier run is replaced, one of this run is not.
            database.execute("DELETE FROM samples WHERE name = ? AND run != ?", (name, self.run.id))
            try:
                database.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise NameTakenError(f"another rank has stored a sample as {name!r}") from None
        return True

    def close(self) -> None:
        pass

    def texts(self) -> dict[str, str]:
        """What is stored, by name."""
        with self._connected() as database:
            return {name: data.decode() for name, data in database.execute("SELECT name, data FROM samples")}

    def column(self, name: str) -> set[Any]:
        """The values that a column has."""
        with self._connected() as database:
            return {value for (value,) in database.execute(f"SELECT {name} FROM samples")}

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self.file, timeout=60, isolation_level="IMMEDIATE")
        try:
            with database:
                yield database
        finally:
            database.close()
