"""The index of a shard, as NVIDIA DALI's reader of WebDataset shards takes it (``index_paths``, version 1.2).

A line says how many samples there are; each further one lists the members of one sample: field, offset, size and name.
See dali/operators/reader/loader/webdataset_loader.cc of github.com/NVIDIA/DALI, and its tools/wds2idx.py.
"""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from lighter_async.targets.shards.keys import split_member

__all__ = ["Index", "samples_listed"]

_FIRST_LINE = re.compile(rb"v1\.2 ([0-9]{1,18})\n")


class Index:
    """Grows with a shard, and is cut back with it."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._ends = array("Q")  # of each sample in the shard,
        self._cuts = array("Q")  # and of its line in the text

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, members: Iterable[tuple[str, int, int]], end: int) -> None:
        """Append a sample.

        Args:
            members: The name, offset and size of each.
            end: Where the sample ends in the shard.
        """
        line = " ".join([f"{split_member(name)[1]} {offset} {size} {name}" for name, offset, size in members])
        self._text += f"{line}\n".encode("utf-8", "surrogateescape")
        self._ends.append(end)
        self._cuts.append(len(self._text))

    def add_rows(self, columns: Sequence[tuple[Sequence[str], int, int]], begin: int, stride: int) -> None:
        """Append samples that lie at equal distances, each with as many members.

        Args:
            columns: For each member of a sample, what it is called in each of them, where the content of the first
                begins in the shard, and the bytes of the content of each.
            begin: Where the first sample begins in the shard.
            stride: The bytes from the beginning of one to the beginning of the next.
        """
        texts = []
        for number, (members, offset, size) in enumerate(columns, 1):
            field, end = split_member(members[0])[1], "\n" if number == len(columns) else ""
            places = range(offset, offset + stride * len(members), stride)
            texts.append([f"{field} {one} {size} {member}{end}" for one, member in zip(places, members, strict=True)])
        lines = texts[0] if len(texts) == 1 else map(" ".join, zip(*texts, strict=True))
        encoded = [line.encode("utf-8", "surrogateescape") for line in lines]
        cuts = accumulate(map(len, encoded), initial=len(self._text))
        next(cuts)
        self._cuts.extend(cuts)
        self._ends.extend(range(begin + stride, begin + stride * len(encoded) + 1, stride))
        self._text += b"".join(encoded)

    def cut(self, end: int) -> None:
        """Forget the samples that end behind a place in the shard."""
        kept = bisect_right(self._ends, end)
        del self._text[self._cuts[kept - 1] if kept else 0 :]
        del self._ends[kept:]
        del self._cuts[kept:]

    def content(self) -> bytes:
        """The index file."""
        return b"v1.2 %d\n" % len(self) + self._text


def samples_listed(path: str) -> int | None:
    """How many samples an index file lists; None if it is none, or cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        found = _FIRST_LINE.match(os.read(descriptor, 64))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return int(found[1]) if found else None
