"""The file of an array: begun, taken up by one worker after the other, and given its name when it is complete."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import xxhash

from lighter_async.locks import alone_in, unlink_from_copies
from lighter_async.locks.flock import OPEN, NoLocks, own, try_lock, try_share
from lighter_async.names import RESERVED_PREFIX
from lighter_async.npy import LONGEST_HEADER, header, numpy_dtype, parse
from lighter_async.positioned import read_from
from lighter_async.store import UNSEALED
from lighter_async.targets.array.form import Form
from lighter_async.targets.array.part import Kind, Layout, Part
from lighter_async.targets.array.recorded import Recorded
from lighter_async.targets.local import LocalTarget
from lighter_async.whole_files import remove, sync_folder, write_at

__all__ = ["ArrayFile"]

_NO_ALLOCATING = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.ENODEV})
_LOOKS = 3
_SECONDS_OF_A_LOOK = 0.001
_BLOCK = 512  # bytes, as `st_blocks` counts


@dataclass(eq=False)
class ArrayFile:
    """What workers do with the file as a whole. Only one of all processes does any of it at a time.

    Attributes:
        root: The directory that it lies in.
        name: Its name, once it is complete.
        rows: How many there are to be; None if that shows in the end.
        is_synced: Whether what is settled outlives a loss of power.
        recorded: Which rows are recorded.
        files: Writes files beside it.
        form: What a complete array is.
    """

    root: str
    name: str
    rows: int | None
    is_synced: bool
    recorded: Recorded
    files: LocalTarget
    form: Form
    _lacking: object = field(default=None, init=False)  # the records' state when rows were lacking

    @property
    def path(self) -> str:
        """Where it lies once it is complete."""
        return os.path.join(self.root, self.name)

    @property
    def part(self) -> str:
        """Where it lies until then."""
        return self.path + UNSEALED

    def take_up(self, kind: Kind, sample: str) -> Part:
        """Open the part, and begin it if there is none, or make a part of the complete array again.

        Args:
            kind: Of the rows that are to be written.
            sample: The name of one of them, for messages.

        Raises:
            ValueError: The array that is there has other rows, or more or fewer of them.
            OSError: It cannot be made, as on a full disk.
        """
        with self._alone():
            path = self._found(kind, sample)
            try:
                descriptor = own.open(os.open, path, OPEN)
                try:
                    layout = self._prepare(descriptor, path, kind, sample)
                    self.form.remove(self.path)
                    self._share(descriptor)
                except BaseException:
                    own.close(descriptor)
                    raise
            except BaseException:
                if path not in (self.part, self.path):
                    remove(path)
                raise
        return Part(self.part, descriptor, layout)

    def _found(self, kind: Kind, sample: str) -> str:
        """The part, or what can be made one; if there is none, it is begun."""
        for path in (self.part, self.path):
            unlink_from_copies(path)
            if os.path.lexists(path):
                return path if path == self.part else self.form.as_part(path)
        self._begin(kind, sample)
        return self.part

    def seal(self, *, only_known: bool = False) -> bool:
        """Give the array its name, if all of its rows are recorded and nobody writes to it; returns whether it was.

        Args:
            only_known: Leave it if it is not known how many rows there are to be.

        Raises:
            OSError: It stays a part, and may be sealed later.
            ReadError: Rows of it are gone, as the message says.
        """
        if not os.path.lexists(self.part) or self._is_being_sealed():
            return False
        with self._alone():
            try:
                descriptor = own.open(os.open, self.part, OPEN)
            except FileNotFoundError:
                return False
            try:
                layout = self._if_complete(descriptor, only_known)
                if layout is None:
                    return False
                rows = layout.rows_in(os.fstat(descriptor).st_size)
                self.form.seal(descriptor, layout, rows, part=self.part, path=self.path)
            finally:
                own.close(descriptor)
            if self.is_synced:
                sync_folder(self.root)
        return True

    def _is_being_sealed(self) -> bool:
        """Whether somebody is at it, which may take long: all rows are recorded then, so nothing is left to do."""
        try:
            descriptor = own.open(os.open, self.part, OPEN)
        except OSError:
            return False
        try:
            # Together with those that write. Whoever seals and is kept from it by this look is followed by us.
            self._share(descriptor)
        except BlockingIOError:
            return True
        finally:
            own.close(descriptor)
        return False

    def _if_complete(self, descriptor: int, only_known: bool) -> Layout | None:
        """The layout of a part of which all rows are recorded; None if some are not, or may be written just now."""
        try:
            # Who writes has it locked, together with others, so no row is cut off that is about to be recorded.
            try_lock(descriptor, self._lock_path)
        except BlockingIOError:
            return None
        except NoLocks:
            pass
        try:
            found = parse(read_from(descriptor, LONGEST_HEADER, 0))
        except ValueError:
            return None
        if not found.shape or (only_known and not found.shape[0]):
            return None
        layout = Layout(found.dtype, found.shape[1:], found.nbytes)
        size = os.fstat(descriptor).st_size
        if not layout.row_bytes or not layout.rows_in(size) or size < layout.offset(found.shape[0]):
            return None
        state = self.recorded.state()
        if state == self._lacking:
            return None
        count = layout.rows_in(size)
        rows = self.recorded.rows(layout)
        rows = rows[(rows >= 0) & (rows < count)]
        # Compared first: of a file that somebody has made, room is made for no more rows than are recorded.
        if len(rows) >= count:
            is_there = np.zeros(count, np.bool_)
            is_there[rows] = True
            if is_there.all():
                return layout
        self._lacking = state
        return None

    def _begin(self, kind: Kind, sample: str) -> None:
        """Make a part without rows."""
        dtype, shape = numpy_dtype(kind[0]), kind[1]
        self.form.check(dtype)
        if not dtype.itemsize or 0 in shape:
            raise ValueError(f"sample {sample!r:.200} has shape {shape} and no elements, so it cannot be a row")
        length = self.rows or 0
        start = header(dtype, (length, *shape))
        temporary, descriptor = self.files.write(self.name, [memoryview(start)])
        try:
            try:
                self._allocate(descriptor, Layout(dtype, shape, len(start)), length)
                if self.is_synced:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(temporary, self.part)
        except BaseException:
            remove(temporary)
            raise
        if self.is_synced:
            sync_folder(self.root)

    def _prepare(self, descriptor: int, path: str, kind: Kind, sample: str) -> Layout:
        """Make of the array that is there a part that rows of a kind can be written to."""
        status, shown = os.fstat(descriptor), self.part if path == self.part else self.path
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "something that is no file lies in the place of an array; remove it", path)
        dtype, shape, length = numpy_dtype(kind[0]), kind[1], self.rows or 0
        try:
            found = parse(read_from(descriptor, LONGEST_HEADER, 0))
        except ValueError as error:
            raise ValueError(f"{shown!r} is there, and {error}; remove it, or choose another path") from error
        layout = Layout(found.dtype, found.shape[1:], found.nbytes)
        if not found.shape or not layout.is_of(kind):
            raise self.of_other_kind(layout, kind, sample)
        there = found.shape[0]
        if self.rows is not None and there not in (0, self.rows):
            raise ValueError(
                f"{shown!r} is there, and has {there:,} rows, not {self.rows:,}; remove it, or choose another path"
            )
        if path != self.part:
            os.rename(path, self.part)  # before anything of it is changed
            if self.is_synced:
                sync_folder(self.root)
        if self.rows is None and there and not self.recorded.has_any() and self._is_mine_alone(descriptor):
            # Of a run that begins anew it is not known how many there will be.
            os.ftruncate(descriptor, layout.begin)
            there = 0
            write_at(descriptor, [header(dtype, (0, *shape), layout.begin)], 0)
        if length and status.st_size < layout.offset(length):
            self._allocate(descriptor, layout, length)
        if length != there and length:
            write_at(descriptor, [header(dtype, (length, *shape), layout.begin)], 0)
        return layout

    def of_other_kind(self, layout: Layout, kind: Kind, sample: str) -> ValueError:
        """The error of a sample that cannot be a row here."""
        return ValueError(
            f"sample {sample!r:.200} is {kind[0]} of shape {kind[1]}, and the rows of {self.path!r} are {layout}: all "
            "rows of an array are as the first one was. If what is there is of an earlier run and not needed, remove "
            f"it ({self.name} or {self.name}{UNSEALED}); else choose another path"
        )

    def _allocate(self, descriptor: int, layout: Layout, rows: int) -> None:
        """Have the disk keep room for all rows, so that one that is full shows now."""
        size = layout.offset(rows)
        if not rows:
            return
        # Asked first, since some file systems fill the disk before they say that there is too little room.
        if size - getattr(os.fstat(descriptor), "st_blocks", 0) * _BLOCK > _free_bytes(self.root):
            raise self._full(layout, rows, errno.ENOSPC)
        try:
            if hasattr(os, "posix_fallocate"):
                return os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in _NO_ALLOCATING:
                raise self._full(layout, rows, error.errno or errno.EIO) from error
        os.ftruncate(descriptor, size)

    def _full(self, layout: Layout, rows: int, number: int) -> OSError:
        free = _free_bytes(self.root)
        return OSError(
            number,
            f"{os.strerror(number)}: {rows:,} rows ({layout}) need {layout.offset(rows):,} bytes, and {free:,} are "
            "free; make room, or choose another path",
            self.part,
        )

    def _is_mine_alone(self, descriptor: int) -> bool:
        """Whether nobody else writes to a part; it is locked then."""
        for _ in range(_LOOKS):
            try:
                try_lock(descriptor, self._lock_path)
            except BlockingIOError:
                time.sleep(_SECONDS_OF_A_LOOK)  # who looks whether it is being sealed shares it for a moment
                continue
            except NoLocks:
                pass
            return True
        return False

    def _share(self, descriptor: int) -> None:
        """Lock a part together with all others that write to it, so that nobody seals it meanwhile."""
        try:
            try_share(descriptor, self._lock_path)
        except NoLocks:
            pass

    @contextmanager
    def _alone(self) -> Iterator[None]:
        os.makedirs(os.path.dirname(self._lock_path), exist_ok=True)
        with alone_in(self._lock_path):
            yield

    @property
    def _lock_path(self) -> str:
        return os.path.join(self.root, RESERVED_PREFIX, f"array-{xxhash.xxh3_64_hexdigest(os.fsencode(self.name))}")


def _free_bytes(folder: str) -> int:
    """What a file system has left for files of whoever asks."""
    if not hasattr(os, "statvfs"):
        import shutil  # here, since it imports compressors

        return shutil.disk_usage(folder).free
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
