"""A manifest that was removed while a writer has it open is written anew, from the open file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from time import time
from typing import BinaryIO

from lighter_async.locks import alone_in
from lighter_async.manifest.columns import record_lines, records_in
from lighter_async.manifest.entry import Record, place_of
from lighter_async.manifest.line import Samples
from lighter_async.manifest.parsing import parse, parse_samples
from lighter_async.manifest.reader import lines_of
from lighter_async.manifest.run_lines import dropped_lines
from lighter_async.store import Store
from lighter_async.whole_files import name_part, remove, write_part

__all__ = ["count_lost", "lines_that_take_back", "restore"]


def restore(descriptor: int, path: str, *, lock: str, store: Store) -> None:
    """Put what a removed manifest said of samples that are there into a new one, unless another writer has.

    Of a new one that another writer has begun meanwhile, the lines follow: they are the later ones.

    Nothing is done for one that was moved away, together with the files that it tells of, nor where the directory is
    gone, too.

    Args:
        descriptor: The removed manifest, still open.
        path: Where it was, below the directory's own folder.
        lock: The file that writers lock while they are alone in the manifest.
        store: Where the samples are.

    Raises:
        OSError: It cannot be written.
    """
    if os.fstat(descriptor).st_nlink > 0:
        return
    first = next((line for line, is_record in _still_true(descriptor, store) if is_record), None)
    folder = os.path.dirname(path)
    if first is None or not os.path.isdir(os.path.dirname(folder)):
        return
    os.makedirs(folder, exist_ok=True)
    with alone_in(lock):
        begun = os.path.lexists(path)
        if begun and _has_line(path, first):
            return
        temporary, fresh = write_part(path, [])
        try:
            with open(fresh, "wb") as file:
                file.writelines(line for line, _ in _still_true(descriptor, store))
                if begun:
                    with _reading(path) as there:
                        while data := there.read(1 << 20):
                            file.write(data)
            # Who has the one that was begun open finds it gone after each line, and writes the line again.
            name_part(temporary, path, replace=begun)
        except BaseException:
            remove(temporary)
            raise


def count_lost(descriptor: int, run: str, store: Store) -> int:
    """How many samples a run has stored, by a manifest that was removed, and are gone with it.

    None of those that were moved away together with their manifest.

    Args:
        descriptor: The manifest, still open.
        run: The run's id.
        store: Where the samples are.
    """
    if os.fstat(descriptor).st_nlink > 0:
        return 0
    lost: set[int] = set()  # the names' hashes, since there may be millions
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        for line in lines_of(file):
            entry = parse(line)
            if isinstance(entry, (Record, Samples)) and entry.run == run:
                lost.update(hash(one.name) for one in records_in(entry) if not _is_there(one, store))
    return len(lost)


def lines_that_take_back(lines: bytes) -> bytes:
    """The lines that take back what others say of samples in objects with others."""
    said = [entry for line in lines.splitlines() if (entry := parse_samples(line)) is not None]
    return dropped_lines([(one, None) for entry in said for one in records_in(entry) if one.offset], time()).encode()


def _is_there(record: Record, store: Store) -> bool:
    """Whether a sample is where it was recorded; that is not known of a function ``(path, value)``."""
    if record.file is None:
        return True
    if not store.has(record.file):
        return False
    # The array may be another one, begun after the first was removed, in which the row is empty.
    place = place_of(record) if record.is_in_array else None
    return place is None or store.compare(place) is None


def _has_line(path: str, line: bytes) -> bool:
    with _reading(path) as file:
        return line in file


def _reading(path: str) -> BinaryIO:
    """Open a file to read it, and no link or pipe in its place."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.fdopen(os.open(path, flags), "rb")


def _still_true(descriptor: int, store: Store) -> Iterator[tuple[bytes, bool]]:
    """The lines of an open manifest, without those of samples that are gone; and whether each is a record."""
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        for line in lines_of(file):
            entry = parse(line)
            if isinstance(entry, (Record, Samples)):
                there = [one for one in records_in(entry) if _is_there(one, store)]
                yield from ((text, True) for text in record_lines(there))
            elif entry is not None:
                yield line + b"\n", False
