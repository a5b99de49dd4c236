"""Names of samples: which ones may become files, and which ones a run has used already.

A name is a relative path with ``/`` between folders. Together with a writer's suffix it becomes a file name.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Sequence
from typing import overload

import numpy as np

from lighter_async.errors import DuplicateNameError, InvalidNameError

__all__ = ["RESERVED_PREFIX", "Claims", "Numbers", "check_name", "claims_of", "with_suffix"]

RESERVED_PREFIX = ".lighter-async"
"""Files and folders beginning with this are the library's own."""

_WINDOWS = os.name == "nt"
_WINDOWS_REFUSED = re.compile(r'[<>:"\\|?*\x01-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)


class Numbers(Sequence[str]):
    """The numbers of a range as names. Costs the same for a million of them as for one."""

    __slots__ = ("range",)

    def __init__(self, numbers: range) -> None:
        if numbers and min(numbers[0], numbers[-1]) < 0:
            raise InvalidNameError(f"sample numbers start at 0, got {numbers}")
        self.range = numbers

    def __len__(self) -> int:
        return len(self.range)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Numbers: ...
    def __getitem__(self, index: int | slice) -> str | Numbers:
        return Numbers(self.range[index]) if isinstance(index, slice) else str(self.range[index])


def with_suffix(name: str, suffix: str) -> str:
    """The file name of a sample: the suffix is appended unless the name ends in it.

    So ``case.1`` and ``case.2`` stay two files, and ``photo.png`` does not become ``photo.png.png``.
    """
    return name if name.endswith(suffix) else name + suffix


def check_name(name: str) -> None:
    """Refuse a name that cannot be one file below a directory, whatever the file system.

    Raises:
        InvalidNameError: Empty, absolute, climbing out with ``..``, with an empty component or a NUL, not encodable,
            or reserved.
    """
    if not name:
        raise InvalidNameError("a sample has an empty name; give every sample a name of at least one character")
    if "\0" in name:
        raise InvalidNameError(f"name {name!r} holds a NUL character, which no file system stores; remove it")
    if name.startswith("/"):
        raise InvalidNameError(
            f"name {name!r} is an absolute path; names are relative to the writer's directory "
            "(os.path.relpath(path, root) makes one)"
        )
    if not name.isascii():
        try:
            os.fsencode(name)
        except UnicodeEncodeError as error:
            raise InvalidNameError(f"name {name!r} cannot be encoded as a file name: {error}") from error
    if not (_WINDOWS or "/" in name or name[0] == "."):
        return
    for component in name.split("/"):
        if component == "..":
            raise InvalidNameError(f"name {name!r} climbs out of the writer's directory; remove the '..'")
        if component in ("", "."):
            raise InvalidNameError(
                f"name {name!r} has a component {component!r}, so that two names could mean one file; "
                "os.path.normpath(name) removes it"
            )
        if component.startswith(RESERVED_PREFIX):
            raise InvalidNameError(f"name {name!r} is reserved: {RESERVED_PREFIX}* are files of lighter_async itself")
        if _WINDOWS and _WINDOWS_REFUSED.search(component):
            raise InvalidNameError(f"name {name!r} is not a file name on Windows: {component!r}")


class Claims:
    """The file names that a run has used, so that no sample overwrites another of the same run.

    Ten million names cost 16 bytes for each of 16.7 million cells, 268 MB: a 64-bit hash and the position of the
    sample that had it, in open-addressed tables. A full table stays as it is and one of twice its size is begun, so
    that no hand-over ever waits for a rehash. Two different names have one hash with a chance of 3 in a million at ten
    million names; the second would then be refused, never overwritten. A run of numbers costs nothing: it is kept as a
    range.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: list[_Table] = []
        self._ranges: dict[str, list[range]] = {}
        self._decimals = False
        self._count = 0

    def claim(self, names: Sequence[str], suffix: str) -> None:
        """Take the names' files for this run, all or none.

        Raises:
            DuplicateNameError: One of them is taken already, or stands twice among `names`.
        """
        with self._lock:
            if isinstance(names, Numbers):
                self._claim_range(names.range, suffix)
            else:
                self._claim_names(names, suffix)
            self._count += len(names)

    def _claim_names(self, names: Sequence[str], suffix: str) -> None:
        fresh: dict[int, int] = {}
        for position, name in enumerate(names, self._count):
            file = with_suffix(name, suffix)
            key = hash(file) or 1
            earlier = fresh.get(key)
            if earlier is None:
                earlier = self._find(key)
            if earlier is not None:
                raise _duplicate(name, file, f"sample {earlier} of this run", f"sample {position}")
            if self._in_ranges(file):
                raise _duplicate(name, file, "a numbered sample of this run", f"sample {position}")
            fresh[key] = position
            self._decimals = self._decimals or name[0].isdecimal()
        for key, position in fresh.items():
            if not self._tables or self._tables[-1].full:
                self._tables.append(_Table(2 * self._tables[-1].cells if self._tables else 1 << 16))
            self._tables[-1].add(key, position)

    def _claim_range(self, numbers: range, suffix: str) -> None:
        if not numbers:
            return
        ranges = self._ranges.setdefault(suffix, [])
        for taken in ranges:
            if (both := _common(taken, numbers)) is not None:
                raise _duplicate(str(both), f"{both}{suffix}", "an earlier numbered sample", "a later one")
        # Rare: a run that mixes numbers with names that look like numbers is looked up number by number.
        if self._decimals:
            for number in numbers:
                if (earlier := self._find(hash(f"{number}{suffix}") or 1)) is not None:
                    raise _duplicate(
                        str(number), f"{number}{suffix}", f"sample {earlier} of this run", "a numbered one"
                    )
        if ranges and ranges[-1].step == numbers.step and ranges[-1][-1] + numbers.step == numbers[0]:
            ranges[-1] = range(ranges[-1].start, numbers[-1] + 1, numbers.step)
        else:
            ranges.append(numbers)

    def _find(self, key: int) -> int | None:
        for table in self._tables:
            if (position := table.find(key)) is not None:
                return position
        return None

    def _in_ranges(self, file: str) -> bool:
        for suffix, ranges in self._ranges.items():
            stem = file[: len(file) - len(suffix)]
            if file.endswith(suffix) and stem.isdecimal() and stem.isascii() and str(int(stem)) == stem:
                return any(int(stem) in numbers for numbers in ranges)
        return False


class _Table:
    """An open-addressed hash table of a fixed size. Keys are 64-bit hashes, never 0."""

    __slots__ = ("_keys", "_mask", "_positions", "_room", "cells")

    def __init__(self, cells: int) -> None:
        self.cells = cells
        self._mask = cells - 1
        self._room = cells * 3 // 4
        self._keys = np.zeros(cells, np.int64).data
        self._positions = np.zeros(cells, np.int64).data

    @property
    def full(self) -> bool:
        return self._room == 0

    def find(self, key: int) -> int | None:
        keys, mask = self._keys, self._mask
        cell = key & mask
        while taken := keys[cell]:
            if taken == key:
                return int(self._positions[cell])
            cell = (cell + 1) & mask
        return None

    def add(self, key: int, position: int) -> None:
        keys, mask = self._keys, self._mask
        cell = key & mask
        while keys[cell]:
            cell = (cell + 1) & mask
        keys[cell] = key
        self._positions[cell] = position
        self._room -= 1


def _common(a: range, b: range) -> int | None:
    """The first number that stands in both, or None."""
    start, stop = max(a[0], b[0]), min(a[-1], b[-1])
    if start > stop:
        return None
    # Ranges of one run are short (a batch) or share their step, so walking the shorter one is cheap.
    short, long = (a, b) if len(a) <= len(b) else (b, a)
    if short.step == long.step:
        return start if short[0] % short.step == long[0] % long.step else None
    return next((number for number in short if number in long), None)


def _duplicate(name: str, file: str, earlier: str, later: str) -> DuplicateNameError:
    return DuplicateNameError(
        f"two samples of one run are named {name!r}: {earlier} and {later} would both become {file!r}. "
        "Give them different names, such as the source folder and the file name ('a/case', 'b/case'); "
        "nothing of the second one's batch was queued"
    )


_claims: weakref.WeakValueDictionary[str, Claims] = weakref.WeakValueDictionary()
_claims_lock = threading.Lock()


def claims_of(location: str) -> Claims:
    """The claims of all writers that are open on one location now, so that two of them cannot collide."""
    with _claims_lock:
        claims = _claims.get(location)
        if claims is None:
            claims = _claims[location] = Claims()
        return claims
