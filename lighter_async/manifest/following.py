"""Manifests that grow: what they gain from one look to the next, without reading them again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from lighter_async.manifest.entry import Entry
from lighter_async.manifest.parsing import parse
from lighter_async.manifest.reader import LONGEST_LINE, manifest_files, opened

__all__ = ["Following", "Gained"]


class Gained(NamedTuple):
    """What a manifest has gained.

    Attributes:
        source: The manifest's name.
        entry: What a line of it says; None if it begins anew, since it was removed or cut off: what it has said before
            is said again, or does not count.
    """

    source: str
    entry: Entry | None


@dataclass(slots=True)
class _Place:
    """How far a manifest was read.

    Attributes:
        file: Which file it was: its device and number.
        size: Its size when it was looked at last.
        offset: Where the first line begins that was not read.
        in_long_line: Whether that is within a line that is too long to be ours.
    """

    file: tuple[int, int]
    size: int = -1
    offset: int = 0
    in_long_line: bool = False


class Following:
    """Reads the manifests of a directory as they grow, each line once and as soon as it is whole.

    Args:
        directory: Where they are. It need not be there yet.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = directory
        self._places: dict[str, _Place] = {}

    def read(self) -> Iterator[Gained]:
        """What the manifests say that they did not say before, rank by rank. Lines that are not valid are left out.

        Raises:
            LighterAsyncError: A later version of this package has written them, or there is a link in their place.
            OSError: They cannot be read.
        """
        for path in manifest_files(self._directory):
            try:
                status = os.stat(path, follow_symlinks=False)
                file = status.st_dev, status.st_ino
                place = self._places.get(path.name)
                if place is not None and (place.file, place.size) == (file, status.st_size):
                    continue
                yield from self._read(path)
            except FileNotFoundError:
                continue  # removed meanwhile; its writer makes a new one

    def _read(self, path: Path) -> Iterator[Gained]:
        with opened(path) as manifest:
            status = os.fstat(manifest.fileno())
            file = status.st_dev, status.st_ino
            place = self._places.get(path.name)
            if place is None or place.file != file or status.st_size < place.offset:
                if place is not None:
                    yield Gained(path.name, None)
                place = self._places[path.name] = _Place(file)
            place.size = status.st_size
            manifest.seek(place.offset)
            for line in _whole_lines(manifest, place):
                entry = parse(line)
                if entry is not None:
                    yield Gained(path.name, entry)


def _whole_lines(manifest: IO[bytes], place: _Place) -> Iterator[bytes]:
    for line in iter(partial(manifest.readline, LONGEST_LINE), b""):
        is_whole = line.endswith(b"\n")
        if not is_whole and len(line) < LONGEST_LINE and not place.in_long_line:
            return  # it is being written, and is read again when there is more
        place.offset += len(line)
        if is_whole and not place.in_long_line:
            yield line[:-1]
        place.in_long_line = not is_whole
