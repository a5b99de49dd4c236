"""A `.pt` archive of a dense tensor as a template for others of its dtype and shape.

They differ in the elements, in the elements' CRC-32, which follows them and is repeated in the zip's directory, and in
an identifier that is only logged: so a template is the bytes before the elements, and the bytes after them with the
checksum patched.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

if TYPE_CHECKING:
    import zipfile

__all__ = ["IDENTIFIER", "Template", "places_of", "record_of", "split", "start_of"]

IDENTIFIER = "/.data/serialization_id"
"""How the name of the record ends that identifies an archive in logs."""


@dataclass(frozen=True, slots=True)
class Template:
    """An archive without its elements.

    Attributes:
        head: The bytes before the elements.
        tail: The bytes after them.
        checksums: The offsets of their CRC-32 in the tail.
    """

    head: bytes
    tail: bytes
    checksums: tuple[int, ...]

    def fill(self, elements: memoryview) -> list[memoryview]:
        tail = bytearray(self.tail)
        checksum = struct.pack("<I", isal_zlib.crc32(elements))
        for place in self.checksums:
            tail[place : place + 4] = checksum
        return [memoryview(self.head), elements, memoryview(tail)]

    @property
    def nbytes(self) -> int:
        """The bytes of the archive without its elements."""
        return len(self.head) + len(self.tail)

    def fill_rows(self, elements: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Fill in the archives of several tensors, one in each row.

        Args:
            elements: The elements' bytes, a row for each tensor.
            out: Of as many rows, each as long as an archive.
        """
        start, stop = len(self.head), out.shape[1] - len(self.tail)
        out[:, :start] = np.frombuffer(self.head, np.uint8)
        out[:, start:stop] = elements
        out[:, stop:] = np.frombuffer(self.tail, np.uint8)
        checksums = np.array([isal_zlib.crc32(row) for row in elements], "<u4").view(np.uint8).reshape(-1, 4)
        for place in self.checksums:
            out[:, stop + place : stop + place + 4] = checksums

    def elements(self, archive: bytes | memoryview) -> memoryview | None:
        """The elements of an archive that is otherwise equal to this one; None if it is not.

        Their checksum is not compared, as `torch.load` does not.
        """
        archive = memoryview(archive)
        start, stop = len(self.head), len(archive) - len(self.tail)
        if stop < start or archive[:start] != self.head:
            return None
        tail = bytearray(archive[stop:])
        for place in self.checksums:
            tail[place : place + 4] = self.tail[place : place + 4]
        return archive[start:stop] if tail == self.tail else None


def split(archive: bytes | memoryview, nbytes: int) -> Template | None:
    """The template of a dense tensor's archive with so many bytes of elements; None if its layout is unknown."""
    record = record_of(archive, "/data/0")
    if record is None or record.file_size != nbytes:
        return None
    start = start_of(archive, record.header_offset)
    tail = bytes(archive[start + nbytes :])
    checksums = tuple(places_of(tail, struct.pack("<I", record.CRC)))
    # One after the elements, and one in the directory.
    return Template(bytes(archive[:start]), tail, checksums) if len(checksums) == 2 else None


def record_of(archive: bytes | memoryview | IO[bytes], ending: str) -> zipfile.ZipInfo | None:
    """What the directory of an archive says of the record whose name ends so; None if there is none."""
    import zipfile  # here, since helpers that are given templates need none of it

    with zipfile.ZipFile(io.BytesIO(archive) if isinstance(archive, (bytes, memoryview)) else archive) as file:
        return next((record for record in file.infolist() if record.filename.endswith(ending)), None)


def start_of(archive: bytes | bytearray | memoryview, header: int) -> int:
    """The offset of the content of a record whose header begins there: after 30 bytes, its name and its padding."""
    name, padding = struct.unpack_from("<HH", archive, header + 26)
    return int(header + 30 + name + padding)


def places_of(content: bytes, word: bytes, start: int = 0) -> list[int]:
    """Where a word stands in a text, from `start` on."""
    places = []
    place = content.find(word, start)
    while place >= 0:
        places.append(place)
        place = content.find(word, place + 1)
    return places
