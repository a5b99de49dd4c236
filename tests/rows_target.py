"""A target that records below a directory, and keeps its samples elsewhere: as rows of a database beside it."""

import os
import sqlite3
import time
from contextlib import closing, contextmanager

import xxhash

from lighter_async import LocalTarget, ReadError
from lighter_async.store import Finding, Identity
from lighter_async.targets import Features, Lane


class RowsTarget(LocalTarget):
    """Each sample is a row. No file of a sample is ever there."""

    features = Features(has_directory=True)

    def lane(self, number):
        return RowsLane(self.store())

    def store(self):
        return RowsStore(os.path.abspath(self.directory) + ".rows")


class RowsLane(Lane):
    """Stores each sample by itself, all of its parts in one transaction."""

    def __init__(self, store):
        self._store = store

    def put(self, item, *, redelivered):
        self._store.write({part.file: b"".join(part.data) for part in item.parts})
        return True


class RowsStore:
    """Reads the rows."""

    def __init__(self, path):
        self.path = path

    @property
    def location(self):
        return f"rows:{self.path}"

    def write(self, rows):
        with self._connected() as database:
            for name, data in rows.items():
                database.execute("DELETE FROM samples WHERE name = ?", (name,))
                row = name, data, time.time_ns()
                database.execute("INSERT INTO samples (name, data, changed) VALUES (?, ?, ?)", row)

    def read(self, place):
        data = self._data(place.object)
        if data is None:
            raise ReadError("no row", file=place.object, trouble="missing", detail="there is no such row")
        if len(data) != place.bytes:
            detail = f"{len(data)} bytes instead of {place.bytes}"
            raise ReadError(detail, file=place.object, trouble="wrong size", detail=detail)
        return data

    def stat(self, place):
        return len(self.read(place))

    def compare(self, place):
        try:
            found = xxhash.xxh3_64_hexdigest(self.read(place))
        except ReadError as error:
            return Finding(error.trouble, error.detail)
        return None if found == place.checksum else Finding("wrong checksum", f"{found} instead of {place.checksum}")

    def objects(self, *, into=None):
        with self._connected() as database:
            names = [name for (name,) in database.execute("SELECT name FROM samples")]
        for name in names:
            folders = [name[:end] for end, letter in enumerate(name) if letter == "/"]
            if into is None or all(map(into, folders)):
                yield name

    def has(self, name):
        return self._data(name) is not None

    def identity(self, name):
        with self._connected() as database:
            sought = "SELECT length(data), changed, number FROM samples WHERE name = ?"
            row = database.execute(sought, (name,)).fetchone()
        return None if row is None else Identity(*row)

    def checksum(self, name):
        data = self._data(name)
        if data is None:
            raise FileNotFoundError(name)
        return xxhash.xxh3_64_hexdigest(data)

    def remove(self, name):
        with self._connected() as database:
            database.execute("DELETE FROM samples WHERE name = ?", (name,))

    def texts(self):
        """What is stored, by name."""
        return {name: self._data(name).decode() for name in self.objects()}

    def _data(self, name):
        with self._connected() as database:
            row = database.execute("SELECT data FROM samples WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def _connected(self):
        with closing(sqlite3.connect(self.path, timeout=60)) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS samples (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, "
                "data BLOB, changed INTEGER)"
            )
            yield database
