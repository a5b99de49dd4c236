"""Templates of large tensors, made without an archive of the tensor's size in memory."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from lighter_async.writers.pt_template import IDENTIFIER, Template, places_of, record_of, start_of

__all__ = ["template_of_large"]


def template_of_large(save: Callable[[Any, NDArray[np.uint8]], None], nbytes: int) -> Template | None:
    """A template, made of two archives of which the elements are let go of as they are written.

    Args:
        save: Writes the archive of a tensor with these elements to a file.
        nbytes: Of the elements.

    Returns:
        None if they are not written in one piece, or the two archives differ in more than is known.
    """
    elements = np.zeros(nbytes, np.uint8)
    archives = []
    for first_byte in (0, 1):  # which is an element of any dtype
        elements[0] = first_byte
        archive = _WithoutElements(nbytes)
        save(archive, elements)
        if archive.gaps != 1:
            return None
        archives.append((archive, struct.pack("<I", isal_zlib.crc32(elements))))
    (one, checksum), (other, other_checksum) = archives
    places = tuple(places_of(bytes(one.behind), checksum))
    made = bytearray(one.behind)
    for place in places:
        made[place : place + 4] = other_checksum
    # The checksum stands after the elements, and in the directory.
    if len(places) != 2 or one.before != other.before:
        return None
    try:
        is_same = one.anonymous(made) == other.anonymous(other.behind)
    except Exception:  # a layout that is not known
        return None
    return Template(bytes(one.before), bytes(one.behind), places) if is_same else None


class _WithoutElements(io.RawIOBase):
    """An archive that is written, without its elements; these read as nothing that would be looked at.

    Args:
        nbytes: Of the elements. They are the one piece of that size.

    Attributes:
        before: The bytes before them.
        behind: The bytes behind them.
        gaps: How many pieces of that size there were.
    """

    def __init__(self, nbytes: int) -> None:
        self.before, self.behind = bytearray(), bytearray()
        self.gaps = 0
        self._nbytes = nbytes
        self._place = 0

    def anonymous(self, behind: bytearray) -> bytes:
        """The bytes behind the elements with zeros for the archive's identifier and its checksums."""
        record = record_of(self, IDENTIFIER)  # type: ignore[arg-type]
        shift = len(self.before) + self._nbytes
        if record is None or record.header_offset < shift:
            return bytes(behind)
        start = start_of(behind, record.header_offset - shift)
        stop = start + record.file_size
        made = bytearray(behind)
        made[start:stop] = bytes(record.file_size)
        for place in places_of(bytes(behind), struct.pack("<I", record.CRC), stop):
            made[place : place + 4] = bytes(4)
        return bytes(made)

    def write(self, data: Any) -> int:
        if len(data) == self._nbytes:
            self.gaps += 1
        elif self.gaps:
            self.behind += data
        else:
            self.before += data
        return len(data)

    # For whoever reads the directory

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        size = len(self.before) + self._nbytes + len(self.behind)
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read behind the elements, where the directory lies."""
        start = self._place - len(self.before) - self._nbytes
        if start < 0:
            raise OSError("the elements were not kept")
        some = self.behind[start : start + len(buffer)]
        buffer[: len(some)] = some
        self._place += len(some)
        return len(some)
