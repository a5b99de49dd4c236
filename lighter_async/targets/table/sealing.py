"""The table of all rows that are stored: one file, written by whoever is the last of all ranks, and renamed.

Spools stay beside it, since rows are read from there by name and by index, and since a later run that goes on adds to
them. A spool of which no row counts any more is removed.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lighter_async.locks import alone_in, unlink_from_copies
from lighter_async.locks.flock import OPEN, NoLocks, own, try_lock, try_share
from lighter_async.manifest import read_manifest
from lighter_async.manifest.reader import manifest_files
from lighter_async.notices import notify
from lighter_async.store import SEALED_TABLE, TABLE_WRITER, DirectoryStore, Store
from lighter_async.tables import Content, content_of, write_table
from lighter_async.targets.table.beside import read_beside, write_beside
from lighter_async.targets.table.columns import Columns
from lighter_async.targets.table.spool import Spools
from lighter_async.whole_files import name_part, remove, sync_folder, write_part

__all__ = ["Sealing", "write_again"]

_OPEN_BY = "open.lock"
_SEALING = "sealing.lock"
_SECONDS_OF_A_LOOK = 0.001
_SECONDS_TO_SEAL = 3600.0  # that another rank may take for a large table
_SHOWN = 3


@dataclass(eq=False)
class Sealing:
    """Writes the table, of all rows that are recorded and count.

    Attributes:
        spools: Where the rows lie.
        columns: What they have.
        write_file: Writes a file in the directory, under a temporary name; returns its path and its descriptor.
        store: Reads the rows.
    """

    spools: Spools
    columns: Columns
    write_file: Callable[[str, Sequence[memoryview]], tuple[str, int]]
    store: Store
    _descriptor: int = -1

    @property
    def path(self) -> str:
        """Where the table lies."""
        return os.path.join(self.spools.root, self.spools.table)

    def begin(self) -> None:
        """Be one of those that are at work.

        Raises:
            OSError: The folder cannot be made.
        """
        self.spools.make_folder()
        path = os.path.join(self.spools.folder, _OPEN_BY)
        unlink_from_copies(path)
        self._descriptor = own.open(os.open, path, OPEN | os.O_CREAT, 0o666)
        while True:
            try:
                try_share(self._descriptor, path)
            except BlockingIOError:
                time.sleep(_SECONDS_OF_A_LOOK)  # of one that ends, and looks whether it is the last
                continue
            except NoLocks:
                pass
            return

    def end(self) -> bool:
        """Be at work no longer; returns whether nobody else is, as far as that is known."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return False
        try:
            # In place of the lock that is shared: of several that end at once, the last one gets it.
            try_lock(descriptor, os.path.join(self.spools.folder, _OPEN_BY))
        except BlockingIOError:
            return False
        except NoLocks:
            pass
        finally:
            own.close(descriptor)
        return True

    def seal(self, *, anew: bool = False) -> bool:
        """Write the table, if there are rows and it is not there as they are; returns whether it was written.

        Args:
            anew: Write it even if it seems to be there as they are.

        Raises:
            OSError: It cannot be written, or no row of it can be read. What was there stays.
            TypeError: Rows of several runs do not go together.
        """
        self.spools.make_folder()  # which somebody may have removed
        with alone_in(os.path.join(self.spools.folder, _SEALING), seconds=_SECONDS_TO_SEAL):
            state = self._state()
            if not anew and self._is_sealed(state):
                return False
            # Before the records are read: a rank that ends meanwhile has rows that these do not tell of.
            idle = self.spools.idle()
            manifest = read_manifest(self.spools.root)
            counted = manifest.counted(writer=TABLE_WRITER, key=self.spools.table)
            records = next(iter(counted.values()), None)
            if not records:
                return False
            types = self.columns.types()
            try:
                self._write(content_of(records, self.store, types), state)
            except (TypeError, ValueError):
                if types is None:
                    raise
                # The file that says them is of another time, as where somebody has put it back: the rows say it, too.
                self._write(content_of(records, self.store), state)
            current = set().union(*manifest.current_runs().values())
            used = {
                block.head.object
                for block in manifest.records.blocks
                if block.head.key == self.spools.table and block.head.run in current
            }
            self.spools.remove(spool for spool in idle if spool not in used)
        return True

    def _write(self, content: Content, state: object) -> None:
        table = self.spools.table
        temporary, descriptor = self.write_file(table, [])
        try:
            with os.fdopen(descriptor, "wb") as file:
                count = write_table(content, file, os.path.splitext(table)[1])
                file.flush()
                os.fsync(file.fileno())
            if not count:
                ((_, why), *_) = content.unread
                raise OSError(f"none of its {len(content.records)} rows can be read: {why}")
            xxh3 = self.store.checksum(os.path.basename(temporary))
            about = {
                "rows": count,
                "samples": len(content.records),
                "runs": sorted({block.head.run for block in content.records.blocks}),
                "bytes": os.stat(temporary).st_size,
                "xxh3": xxh3,
                "records": state,
            }
            # First, so that a table that was not finished is seen to be another one.
            write_beside(self.spools.folder, SEALED_TABLE, about)
            name_part(temporary, self.path, replace=True)
        except BaseException:
            remove(temporary)
            raise
        if self.spools.is_synced:
            sync_folder(self.spools.root)
        if content.unread:
            some = ", ".join(f"{name!r:.100} ({why})" for name, why in content.unread[:_SHOWN])
            notify(
                f"{self.path!r} lacks {len(content.unread)} of its rows, which cannot be read: {some}; lighter-async "
                "verify --repair has the next run with resume=True compute them again"
            )

    def _state(self) -> list[list[object]]:
        """Something that changes when anything is recorded."""
        return [[path.name, os.stat(path).st_size] for path in manifest_files(self.spools.root)]

    def _is_sealed(self, state: object) -> bool:
        """Whether the table was written from these records, and is there."""
        try:
            about = read_beside(self.spools.folder, SEALED_TABLE)
            status = os.lstat(self.path)
            return bool(about["records"] == state and stat.S_ISREG(status.st_mode) and status.st_size == about["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            return False


def write_again(directory: str | os.PathLike[str], table: str) -> None:
    """Write a table anew that is not as it was written, or was not written yet. No writer may be at work there.

    Args:
        directory: Where it lies.
        table: Its file name.

    Raises:
        OSError: It cannot be written. All rows are kept.
        TypeError: Rows of several runs do not go together.
    """
    root = os.path.abspath(directory)
    spools = Spools(root, table, 0, is_synced=True)
    spools.make_folder()
    columns = Columns(spools.folder, root, table, "")

    def write_file(name: str, parts: Sequence[memoryview]) -> tuple[str, int]:
        return write_part(os.path.join(root, name), parts)

    Sealing(spools, columns, write_file, DirectoryStore(root)).seal(anew=True)
