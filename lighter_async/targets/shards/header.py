"""Headers of tar members, in the ustar and pax formats of POSIX.1-2017 (pax, "ustar Interchange Format").

They are filled into a template: `tarfile` takes longer for one than writing a small sample does. Two fields that mean
something only of devices say what a shard needs to be taken over without any record: ``devmajor`` is 1 where samples
are recorded elsewhere, and ``devminor`` is how many more members the sample has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "END", "Header", "Headers", "parse_header", "parse_pax", "to_blocks"]

BLOCK = 512
"""Bytes of a header, and what members are filled up to."""

END = bytes(2 * BLOCK)
"""What a tar archive ends with."""

_LONGEST_NAME = 100  # bytes
_LARGEST = 8**11 - 1  # bytes of a member whose size fits its header
_SUM = slice(148, 156)  # where the checksum stands, in which it counts as blanks
_OCTAL = np.arange(15, -1, -3)
_PAX = b"././@PaxHeader"
_LARGEST_PAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says.

    Attributes:
        name: Of the member.
        size: Of its content, in bytes.
        kind: ``"0"`` is a file, ``"x"`` the pax records of the member behind it.
        is_recorded: Whether samples of the shard are recorded elsewhere.
        following: How many more members the sample has.
    """

    name: str
    size: int
    kind: str
    is_recorded: bool
    following: int


class Headers:
    """Makes the headers of members that are written at one time.

    Args:
        mtime: Seconds since the epoch.
        is_recorded: Whether samples are recorded elsewhere.
    """

    def __init__(self, mtime: int, *, is_recorded: bool) -> None:
        self._time = b"%011o\0" % mtime
        self._is_recorded = is_recorded
        # By what members of one time may have in common: nearly always all of them have, or all that are one output.
        self._templates: dict[tuple[int, int, bytes], tuple[bytes, bytes, int]] = {}

    def make(self, name: str, size: int, following: int = 0) -> bytes:
        """The header of a member, with pax records before it where its name or its size needs them.

        Args:
            name: Of the member.
            size: Of its content, in bytes.
            following: How many more members the sample has.
        """
        encoded = name.encode("utf-8", "surrogateescape")
        if len(encoded) <= _LONGEST_NAME and size <= _LARGEST:
            return self._make(encoded, size, following, b"0")
        records = b""
        if len(encoded) > _LONGEST_NAME:
            records += _record(b"path", encoded)
        if size > _LARGEST:
            records += _record(b"size", b"%d" % size)
        pax = self._make(_PAX, len(records), following, b"x") + to_blocks(records)
        return pax + self._make(encoded[:_LONGEST_NAME], size if size <= _LARGEST else 0, following, b"0")

    def fill(self, out: NDArray[np.uint8], names: Sequence[bytes], size: int, following: int = 0) -> bool:
        """Fill in the headers of several members that need no pax records; returns False if they do, and are not.

        Args:
            out: Of shape ``(members, 512)``.
            names: Of the members.
            size: Of the content of each, in bytes.
            following: How many more members the sample of each has.
        """
        if size > _LARGEST or max(map(len, names)) > _LONGEST_NAME:
            return False
        named = np.array(names, f"S{_LONGEST_NAME}").view(np.uint8).reshape(len(names), _LONGEST_NAME)
        blank = np.frombuffer(self._make(b"", size, following, b"0"), np.uint8)
        out[:] = blank
        out[:, :_LONGEST_NAME] = named
        total = int(blank.sum(dtype=np.int64)) - int(blank[_SUM].sum(dtype=np.int64)) + 8 * ord(" ")
        sums = named.sum(axis=1, dtype=np.int64) + total
        out[:, _SUM.start : _SUM.start + 6] = (sums[:, None] >> _OCTAL & 7) + ord("0")
        return True

    def _make(self, name: bytes, size: int, following: int, kind: bytes) -> bytes:
        template = self._templates.get((size, following, kind))
        if template is None:
            template = self._templates[size, following, kind] = self._template(size, following, kind)
        before, behind, total = template
        return b"%b%b%06o\0 %b" % (name.ljust(100, b"\0"), before, total + sum(name), behind)

    def _template(self, size: int, following: int, kind: bytes) -> tuple[bytes, bytes, int]:
        """What stands between name and checksum, what stands behind that, and the sum of all but the name."""
        before = b"0000644\0" + b"0000000\0" + b"0000000\0" + b"%011o\0" % size + self._time
        behind = b"".join(
            (
                kind,
                bytes(100),  # no link
                b"ustar\0" + b"00",
                bytes(64),  # nobody's, and no group's
                b"%07o\0" % self._is_recorded,
                b"%07o\0" % following,
                bytes(155 + 12),
            )
        )
        return before, behind, sum(before) + sum(behind) + 8 * ord(" ")


def to_blocks(data: bytes) -> bytes:
    """Filled up with zeros to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def parse_header(block: bytes) -> Header | None:
    """What a header says; None if it is none, is torn, or is of a kind that `Headers` does not make."""
    if len(block) != BLOCK or block[257:263] != b"ustar\0":
        return None
    try:
        written = int(block[148:154], 8)
        if written != sum(block) - sum(block[148:156]) + 8 * ord(" "):
            return None
        kind = block[156:157].decode("ascii")
        name = block[:100].rstrip(b"\0").decode("utf-8", "surrogateescape")
        size, major, minor = int(block[124:135], 8), int(block[329:336], 8), int(block[337:344], 8)
    except ValueError:
        return None
    return Header(name, size, kind, major == 1, minor) if kind in ("0", "x") else None


def parse_pax(data: bytes) -> dict[str, str] | None:
    """Pax records; None if they are torn."""
    records: dict[str, str] = {}
    while data:
        digits, blank, rest = data.partition(b" ")
        if not blank or not digits.isdigit() or len(digits) > 7 or not len(digits) + 1 < int(digits) <= _LARGEST_PAX:
            return None
        length = int(digits) - len(digits) - 1
        key, equals, value = rest[: length - 1].partition(b"=")
        if rest[length - 1 : length] != b"\n" or not equals:
            return None
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = rest[length:]
    return records


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record, which begins with its own length."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while length != len(rest) + len(b"%d" % length):
        length = len(rest) + len(b"%d" % length)
    return b"%d" % length + rest
