"""Walking through the members of a shard, as far as they are whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from lighter_async.positioned import read_from
from lighter_async.targets.shards.header import BLOCK, parse_header, parse_pax

__all__ = ["Member", "Sample", "samples_in"]

_LARGEST_PAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard.

    Attributes:
        name: Its name.
        begin: Where its headers begin.
        offset: Where its content begins.
        size: Of its content, in bytes.
        following: How many more members the sample has.
        is_recorded: Whether the shard's samples are recorded elsewhere.
    """

    name: str
    begin: int
    offset: int
    size: int
    following: int
    is_recorded: bool

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + self.size + -self.size % BLOCK


@dataclass(frozen=True, slots=True)
class Sample:
    """The members of one sample, all of which are whole."""

    members: tuple[Member, ...]

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.members[-1].end


def samples_in(descriptor: int, *, stop: int | None = None) -> Iterator[Sample]:
    """The samples of a shard, up to the first one that is not whole.

    Args:
        descriptor: Of the shard, open for reading.
        stop: Where it ends; None for the end of the file.

    Raises:
        OSError: It cannot be read.
    """
    size = os.fstat(descriptor).st_size
    stop = size if stop is None else min(stop, size)
    begin = 0
    members: list[Member] = []
    while (member := _member(descriptor, begin, stop)) is not None:
        if members and members[-1].following != member.following + 1:
            return
        members.append(member)
        if not member.following:
            yield Sample(tuple(members))
            members = []
        begin = member.end


def _member(descriptor: int, begin: int, stop: int) -> Member | None:
    """The member that begins at a place; None if it is not whole."""
    offset, pax = begin, dict[str, str]()
    while True:
        header = parse_header(read_from(descriptor, BLOCK, offset))
        if header is None:
            return None
        offset += BLOCK
        if header.kind == "0":
            break
        if pax or header.size > _LARGEST_PAX:
            return None
        records = parse_pax(read_from(descriptor, header.size, offset))
        if not records:
            return None
        pax = records
        offset += header.size + -header.size % BLOCK
    size = pax.get("size", str(header.size))
    if not (size.isascii() and size.isdecimal() and len(size) < 20):
        return None
    member = Member(pax.get("path", header.name), begin, offset, int(size), header.following, header.is_recorded)
    return member if member.end <= stop else None
