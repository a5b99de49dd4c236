"""Where rows lie until they are a table, and as long as it is read by names: spools, of which each worker has its own.

A spool is a line that says what it is, and rows one behind the other. The records tell where each begins and ends. What
is not recorded, as a worker that died leaves it, is nobody's, so there is nothing to repair.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from lighter_async.locks.flock import HAS_LOCKS, OPEN, NoLocks, own, try_lock, try_share
from lighter_async.names import RESERVED_PREFIX
from lighter_async.store import table_folder
from lighter_async.targets.open_part import AppendedPart
from lighter_async.whole_files import remove, sync_folder
from lighter_async.without_links import make_folders

__all__ = ["SPOOL_ENDING", "Spools"]

_BEGINNING = b"rows of a table of lighter_async, version 1\n"
SPOOL_ENDING = ".rows"
"""What the names of spools end in."""


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

        It has its first line only when it is locked: so one that has it and is not locked gets no more rows.

        Args:
            lane: The number of the lane that writes it.

        Raises:
            OSError: It cannot be made.
        """
        while True:
            name = f"{self.rank}-{lane}-{os.urandom(4).hex()}{SPOOL_ENDING}"
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
                if not _is_locked(spool):
                    spool.close()  # whoever looks whether it is in use was quicker, and removes it
                    continue
                spool.append([_BEGINNING])
                spool.settled = spool.end
                if self.is_synced:
                    sync_folder(self.folder)
            except BaseException:
                spool.close()
                remove(path)
                raise
            return spool

    def idle(self) -> list[str]:
        """The spools that nobody writes to any more, as they are recorded.

        What is in them is recorded by now, or never.
        """
        found: list[str] = []
        if not HAS_LOCKS:
            return found
        for name in sorted(os.listdir(self.folder)):
            path = os.path.join(self.folder, name)
            if not name.endswith(SPOOL_ENDING):
                continue
            try:
                descriptor = own.open(os.open, path, OPEN)
            except OSError:
                continue
            try:
                try_lock(descriptor, path)
                if os.fstat(descriptor).st_size < len(_BEGINNING):
                    remove(path)  # whoever has made it has died, or begins another one
                else:
                    found.append(f"{table_folder(self.table)}/{name}")
            except (OSError, NoLocks):
                pass  # it is in use, or that is not known
            finally:
                own.close(descriptor)
        return found

    def remove(self, spools: Iterable[str]) -> None:
        """Remove spools of which no row is needed any more.

        Args:
            spools: As they are recorded. Nobody writes to them.
        """
        for spool in spools:
            try:
                remove(os.path.join(self.root, spool))
            except OSError:
                pass  # it takes room, and does no harm


def _is_locked(spool: AppendedPart) -> bool:
    """Lock a spool that was just made; returns whether it is there still."""
    try:
        try_share(spool.descriptor, spool.path)
    except BlockingIOError:
        return False
    except NoLocks:
        pass
    return spool.is_there
