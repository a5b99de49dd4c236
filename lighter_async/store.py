"""The reading side of a target: where a stored sample lies, and what gives its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Place", "Store"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stored sample lies.

    Attributes:
        object: The object that holds it: a file's path below the directory.
        offset: Where in the object it begins. A sample that is a file of its own is the whole object, from 0 on.
        bytes: Its size.
        checksum: XXH3 of 64 bits of its bytes, in hexadecimal.
    """

    object: str
    offset: int
    bytes: int
    checksum: str


class Store(Protocol):
    """Gives the bytes of what a target has stored. Picklable, and without anything open between two calls.

    It may be read from several threads at once.
    """

    @property
    def location(self) -> str:
        """Where it reads from, for messages."""
        ...

    def read(self, place: Place) -> bytes | memoryview:
        """The bytes of a sample, all of them; their checksum is left to the caller. The memory is the caller's own.

        Raises:
            ReadError: The object is gone, of another size than recorded, or is none that may be read.
        """
        ...

    def stat(self, place: Place) -> int:
        """The size of the object that holds a sample, without reading it.

        Raises:
            ReadError: The object is gone, or is none that may be read.
        """
        ...
