"""The lanes of a directory: files that are stored one by one, or synced together."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

import numpy as np
from numpy.typing import NDArray

from lighter_async.names import with_suffixes
from lighter_async.targets.lane import Item, Lane, Outcome, Part, RowItems
from lighter_async.whole_files import remove, sync_folder

__all__ = ["FileLane", "Files", "SyncedLane"]


_SMALL = 1 << 15  # bytes of a file; making larger ones together costs a copy more than it saves


def _most_open() -> int:
    """Files of a lane that are open at once: a share of what the process may have, for each worker has a lane."""
    if resource is None:
        return 64
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 64 if limit == resource.RLIM_INFINITY else max(1, min(64, limit // 16))


class Files(Protocol):
    """What lanes need of the target whose files they store."""

    def put(self, file: str, data: Sequence[memoryview]) -> bool:
        """`write` and `publish` in one."""
        ...

    def put_redelivered(self, file: str, data: Sequence[memoryview]) -> bool:
        """The same, in the place of a file that this run has stored."""
        ...

    def put_small(
        self, files: Sequence[str], rows: NDArray[np.uint8], on_progress: Callable[[int], None]
    ) -> Sequence[bool | BaseException]:
        """As `LocalTarget.put_small`."""
        ...

    def keeps(self, file: str) -> bool:
        """As `Target.keeps`."""
        ...

    def keeps_redelivered(self, file: str) -> bool:
        """The same, where this run may have stored the file: then it is not kept."""
        ...

    def set_aside(self, names: Sequence[str], *, replace_earlier: bool) -> list[tuple[str, str]]:
        """Give the files that are about to be replaced temporary names; returns these, each with the name it had.

        Args:
            names: The files.
            replace_earlier: As of `publish`.
        """
        ...

    def put_back(self, aside: Sequence[tuple[str, str]]) -> None:
        """Give files that were set aside their names again, unless these are taken."""
        ...

    def write(self, file: str, data: Sequence[memoryview]) -> tuple[str, int]:
        """Write a temporary file; returns its path, and its descriptor, still open."""
        ...

    def publish(self, temporary: str, file: str, *, replace_own: bool, replace_earlier: bool = False) -> bool:
        """Give a temporary file its name, or remove it.

        Args:
            temporary: Its path.
            file: The name.
            replace_own: Whether it may replace a file of this run.
            replace_earlier: Whether it may replace one of an earlier run, whatever the target's options say.
        """
        ...

    def unpublish(self, file: str) -> None:
        """Remove a file that was published a moment ago."""
        ...


class FileLane(Lane):
    """Stores each file by itself.

    Args:
        files: The target.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._put = files.put

    takes_rows = True

    def put_rows(self, items: RowItems, on_progress: Callable[[int], None]) -> Sequence[Outcome | BaseException] | None:
        made = _Made.of(items, self._files)
        if made is None:
            return None
        if len(made.rows) == 1:
            return self._files.put_small(made.files[0], made.rows[0], on_progress)
        outcomes: list[Outcome | BaseException] = []
        for number in range(len(items.names)):
            on_progress(number)
            try:
                outcomes.append(self.put(made.item(number), redelivered=False))
            except Exception as error:
                outcomes.append(error)
        return outcomes

    def put(self, item: Item, *, redelivered: bool) -> Outcome:
        if len(item.parts) == 1:
            (part,) = item.parts
            put = self._files.put_redelivered if redelivered else self._put
            return put(part.file, part.data)
        temporaries: list[str] = []
        try:
            for part in item.parts:
                temporary, descriptor = self._files.write(part.file, part.data)
                temporaries.append(temporary)
                os.close(descriptor)
        except BaseException:  # a network file system may say only at the end that its disk is full
            for temporary in temporaries:
                _remove(temporary)
            raise
        return _publish_all(self._files, temporaries, item, replace_own=redelivered)


class SyncedLane(Lane):
    """Writes temporary files, and syncs and names them all together.

    A file is synced before it gets its name, so that no loss of power leaves a name with half a file; folders are
    synced last, once each. The disk is told to begin with all files before any of them is waited for.

    Args:
        files: The target.
        root: The directory that all files lie below.
        linked: Folders whose own names, up to the directory, are known to be on the disk. It grows.
    """

    def __init__(self, files: Files, *, root: str, linked: set[str]) -> None:
        self._files = files
        self._root = root
        self._linked = linked
        self._most_open = _most_open()
        self._waiting: list[_Written] = []
        self._open = 0
        # What has its name, though it is not known to outlive a loss of power: to be stored again in its own place.
        self._unsynced: set[str] = set()

    @property
    def is_full(self) -> bool:  # type: ignore[override]
        """Whether it is time to settle, since each file is open until then."""
        return self._open >= self._most_open

    def put(self, item: Item, *, redelivered: bool) -> None:
        # What is kept until `settle` is without the bytes, which are the caller's again.
        parts = [Part(part.file, part.suffix, ()) for part in item.parts]
        written = _Written(Item(item.name, parts), redelivered or item.parts[0].file in self._unsynced)
        try:
            for part in item.parts:
                temporary, descriptor = self._files.write(part.file, part.data)
                written.temporaries.append(temporary)
                written.descriptors.append(descriptor)
        except BaseException:
            written.discard()
            raise
        self._waiting.append(written)
        self._open += len(written.descriptors)

    takes_rows = True

    def put_rows(self, items: RowItems, on_progress: Callable[[int], None]) -> Sequence[Outcome | BaseException] | None:
        made = _Made.of(items, self._files)
        if made is None:
            return None
        outcomes: dict[int, Outcome | BaseException] = {}
        waiting: list[int] = []

        def settle() -> None:
            settled: Sequence[Outcome | BaseException]
            try:
                settled = self.settle(lambda position: on_progress(waiting[position]))
            except Exception as error:  # as when there is no memory; what is expected is returned
                self.leave()
                settled = [error] * len(waiting)
            outcomes.update(zip(waiting, settled, strict=True))
            waiting.clear()

        for number in range(len(items.names)):
            on_progress(number)
            try:
                self.put(made.item(number), redelivered=False)
            except Exception as error:
                outcomes[number] = error
                continue
            waiting.append(number)
            if self.is_full:
                settle()
        settle()
        return [outcomes[number] for number in range(len(items.names))]

    def settle(self, on_progress: Callable[[int], None]) -> list[Outcome | BaseException]:
        for written in self._waiting:
            for descriptor in written.descriptors:
                _begin(descriptor)
        outcomes: list[Outcome | BaseException] = []
        folders: dict[str, list[int]] = {}
        files = [written.item.parts[0].file for written in self._waiting]
        self._waiting.reverse()
        try:
            while self._waiting:
                on_progress(len(outcomes))
                written = self._waiting.pop()
                try:
                    written.sync()
                    stored = _publish_all(
                        self._files, written.temporaries, written.item, replace_own=written.redelivered
                    )
                except BaseException as error:
                    written.discard()
                    outcomes.append(error)
                    continue
                if stored:
                    for temporary in written.temporaries:
                        folders.setdefault(os.path.dirname(temporary), []).append(len(outcomes))
                outcomes.append(stored)
        except BaseException:
            self.leave()
            raise
        self._open = 0
        for folder, places in folders.items():
            on_progress(places[-1])
            try:
                sync_folder(folder)
                self._link(folder)
            except OSError as error:
                for place in places:
                    outcomes[place] = error
                    self._unsynced.add(files[place])
            else:
                self._unsynced.difference_update(files[place] for place in places)
        return outcomes

    def leave(self) -> None:
        while self._waiting:
            self._waiting.pop().discard()
        self._open = 0

    def _link(self, folder: str) -> None:
        """Sync the folders above one, which may have been made for it."""
        missing = []
        while folder not in self._linked and len(folder) > len(self._root):
            missing.append(folder)
            folder = os.path.dirname(folder)
            sync_folder(folder)
        self._linked.update(missing)


@dataclass(frozen=True, slots=True)
class _Made:
    """Samples whose bytes were made together.

    Attributes:
        items: The samples.
        files: What each is stored as, for each part.
        rows: The bytes of each, for each part.
    """

    items: RowItems
    files: list[list[str]]
    rows: list[NDArray[np.uint8]]

    @classmethod
    def of(cls, items: RowItems, files: Files) -> _Made | None:
        """Make their bytes; None if they are to be made one by one: they are large, or some are kept as they are."""
        if any(part.encoded.nbytes > _SMALL for part in items.parts):
            return None
        names = [with_suffixes(items.names, part.suffix) for part in items.parts]
        if any(any(map(files.keeps, some)) for some in names):
            return None
        rows = []
        for part in items.parts:
            made = np.empty((len(items.names), part.encoded.nbytes), np.uint8)
            part.encoded.fill(made)
            rows.append(made)
        return cls(items, names, rows)

    def item(self, number: int) -> Item:
        """One of them."""
        columns = zip(self.files, self.items.parts, self.rows, strict=True)
        parts = [Part(files[number], part.suffix, (rows[number].data,)) for files, part, rows in columns]
        return Item(self.items.names[number], parts)


@dataclass(slots=True)
class _Written:
    """A sample whose temporary files are written, and still open."""

    item: Item
    redelivered: bool
    temporaries: list[str] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def sync(self) -> None:
        while self.descriptors:
            descriptor = self.descriptors.pop()
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def discard(self) -> None:
        while self.descriptors:
            os.close(self.descriptors.pop())
        while self.temporaries:
            _remove(self.temporaries.pop())


def _publish_all(files: Files, temporaries: Sequence[str], item: Item, *, replace_own: bool) -> bool:
    """Give the temporary files of a sample their names, all or none; as `Files.publish`.

    A sample of an earlier run is kept only if all of its files are there: with some of them it would be half of each.
    What is replaced is set aside first, so that a process that is killed here leaves no file of the earlier sample
    beside one of the new one; and it is put back if the new one cannot be named.
    """
    names = [part.file for part in item.parts]
    if len(names) == 1:
        return files.publish(temporaries[0], names[0], replace_own=replace_own)
    keeps = files.keeps_redelivered if replace_own else files.keeps
    kept = [keeps(name) for name in names]
    if all(kept):
        for temporary in temporaries:
            _remove(temporary)
        return False
    named: list[str] = []
    aside: list[tuple[str, str]] = []
    try:
        aside = files.set_aside(names, replace_earlier=any(kept))
        for temporary, name in zip(temporaries, names, strict=True):
            if files.publish(temporary, name, replace_own=replace_own, replace_earlier=any(kept)):
                named.append(name)
    except BaseException:
        for name in named:
            files.unpublish(name)
        files.put_back(aside)
        for temporary in temporaries:
            _remove(temporary)
        raise
    for temporary, _ in aside:
        _remove(temporary)
    return True


def _begin(descriptor: int) -> None:
    """Have the system begin to write a file to the disk."""
    advise: Any = getattr(os, "posix_fadvise", None)
    if advise is not None:
        try:
            advise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            pass


def _remove(temporary: str) -> None:
    try:
        remove(temporary)
    except OSError:
        pass  # the next run clears it; what has failed before it is what is to be told
