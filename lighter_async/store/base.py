"""What the reading side of a target promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Finding", "Identity", "OneObject", "Place", "Readable", "Store"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stored sample lies.

    Attributes:
        object: The object that holds it: a file's path below the directory.
        offset: Where in the object it begins. A sample that is a file of its own is the whole object, from 0 on; an
            object that holds several begins with a header, so that none of them has 0.
        bytes: Its size.
        checksum: XXH3 of 64 bits of its bytes, in hexadecimal.
    """

    object: str
    offset: int
    bytes: int
    checksum: str

    @property
    def is_whole_object(self) -> bool:
        """Whether the object holds this sample alone."""
        return self.offset == 0


class Finding(NamedTuple):
    """What is wrong with a sample, where it lies.

    Attributes:
        trouble: In the words of `verify`: ``"missing"``, ``"wrong size"``, ``"wrong checksum"`` or ``"unreadable"``.
        detail: How it differs, or what the system said.
    """

    trouble: str
    detail: str


class Identity(NamedTuple):
    """What tells an object from another one of its name.

    Attributes:
        bytes: Its size.
        changed: When it was last changed, in nanoseconds, by the store's own clock.
        number: A number that no other object has at the same time.
    """

    bytes: int
    changed: int
    number: int


class Store(Protocol):
    """What a target has stored, to be read and looked at. Picklable, and without anything open between two calls.

    It may be used from several threads at once. Verifying, repairing, taking over, replaying and reading back know no
    more of a target than this.
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

    def compare(self, place: Place) -> Finding | None:
        """Read a sample and compare its size and checksum; None if it is as recorded."""
        ...

    def objects(self, *, into: Callable[[str], bool] | None = None) -> Iterator[str]:
        """The objects that there are, in no order; one that is not sealed under the name that it has until then.

        Args:
            into: Which folders to list, by their paths: one for which it returns False is left out, with all that is
                below it. None lists all. Objects without a ``/`` in their names lie in no folder.
        """
        ...

    def has(self, name: str) -> bool:
        """Whether there is an object, sealed or not."""
        ...

    def identity(self, name: str) -> Identity | None:
        """What tells an object from another one of its name; None if there is none."""
        ...

    def checksum(self, name: str) -> str:
        """The checksum of a whole object, as a record has it.

        Raises:
            OSError: It cannot be read.
        """
        ...

    def beginning(self, name: str) -> tuple[bytes, int]:
        """As much of an object, sealed or not, as tells which array it holds, in numpy's format; and its size.

        Raises:
            OSError: It is gone, or none that may be read.
        """
        ...

    def mapped(self, name: str) -> NDArray[np.uint8]:
        """All bytes of an object, sealed or not, as read-only memory; of a file it is read when it is looked at.

        Raises:
            OSError: It is gone, or none that may be read.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove an object that holds one sample alone; it may be gone already.

        Raises:
            OSError: It cannot be removed.
        """
        ...


@runtime_checkable
class Readable(Protocol):
    """What says where its records and its samples are read: a target that stores below a directory."""

    @property
    def directory(self) -> Path:
        """Where what is stored is recorded."""
        ...

    def store(self) -> Store:
        """What reads the samples; it need not be open."""
        ...


@runtime_checkable
class OneObject(Readable, Protocol):
    """What stores all of its samples in one object of the directory, as an array does.

    Attributes:
        object: The object's name, which is also the key of its samples' series.
    """

    object: str
