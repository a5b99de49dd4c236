"""Where rows lie until they are a table, and as long as it is read by names: spools, of which each worker has its own.

A spool is a line that says what it is, and rows one behind the other. The records tell where each begins and ends. What
is not recorded, as a worker that died leaves it, is nobody's, so there is nothing to repair.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from lighter_async.below import make_folders
from lighter_async.files import remove, sync_folder
from lighter_async.locks.flock import OPEN, NoLocks, own, try_lock, try_share
from lighter_async.names import RESERVED_PREFIX
from lighter_async.store import table_folder
from lighter_async.targets.open_part import AppendedPart

__all__ = ["Spools"]

_BEGINNING = b"rows of a table of lighter_async, version 1\n"
_ENDING = ".rows"


@dataclass
class Spools:
    """The spools of one table.

    Attributes:
        root: The directory that the table lies in.
        table: The table's file name.
        rank: Of this process.
        is_synced: Whether what is settled outlives a loss of power.
    """

    root: str
    table: str
    rank: int
    is_synced: bool

    @property
    def folder(self) -> str:
        """Where they lie."""
        return os.path.join(self.root, table_folder(self.table))

    def make_folder(self) -> None:
        """Make the folder.

        Raises:
            OSError: It cannot be made.
        """
        os.makedirs(self.root, exist_ok=True)
        make_folders(self.root, table_folder(self.table))
        if self.is_synced:
            for folder in (self.folder, os.path.dirname(self.folder), os.path.join(self.root, RESERVED_PREFIX)):
                sync_folder(folder)

    def begin(self, lane: int) -> AppendedPart:
        """Begin a spool under a name that nobody has had, and have it locked for as long as it is open.

        Args:
            lane: The number of the lane that writes it.

        Raises:
            OSError: It cannot be made.
        """
        while True:
            name = f"{self.rank}-{lane}-{os.urandom(4).hex()}{_ENDING}"
            path = os.path.join(self.folder, name)
            try:
                descriptor = own.open(os.open, path, OPEN | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                continue
            except FileNotFoundError:
                self.make_folder()  # somebody has removed it
                continue
            spool = AppendedPart(path, descriptor, f"{table_folder(self.table)}/{name}")
            try:
                try:
                    try_share(descriptor, path)
                except (NoLocks, BlockingIOError):
                    pass  # whoever looks whether it is in use has it for a moment, and sees that it is new
                spool.append([_BEGINNING])
                spool.settled = spool.end
                if self.is_synced:
                    sync_folder(self.folder)
            except BaseException:
                spool.close()
                remove(path)
                raise
            return spool

    def remove_unused(self, used: set[str]) -> None:
        """Remove spools of which no row is needed any more, and to which nobody writes.

        Args:
            used: The spools, as they are recorded, that rows are still needed of.
        """
        for name, descriptor in self._idle():
            try:
                if f"{table_folder(self.table)}/{name}" not in used:
                    remove(os.path.join(self.folder, name))
            except OSError:
                pass  # it takes room, and does no harm
            finally:
                own.close(descriptor)

    def _idle(self) -> Iterator[tuple[str, int]]:
        for name in sorted(os.listdir(self.folder)):
            if not name.endswith(_ENDING):
                continue
            try:
                descriptor = own.open(os.open, os.path.join(self.folder, name), OPEN)
            except OSError:
                continue
            try:
                try_lock(descriptor, os.path.join(self.folder, name))
            except (BlockingIOError, NoLocks):
                own.close(descriptor)
                continue
            yield name, descriptor
