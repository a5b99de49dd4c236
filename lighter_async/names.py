"""Names of samples: which ones may become files, and which ones a run has used already.

A name is a relative path with ``/`` between folders. Together with a writer's suffix it becomes a file name.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Sequence
from itertools import repeat
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import DuplicateNameError, InvalidNameError, shown

__all__ = [
    "RESERVED_PREFIX",
    "Claims",
    "Numbers",
    "check_names",
    "claims_of",
    "name_of",
    "with_suffix",
    "with_suffixes",
]

RESERVED_PREFIX = ".lighter-async"
"""Files and folders beginning with this are the library's own."""

_MOST_LATEST = 1 << 16
_MOST_RANGES = 16
# Folders that have to be looked at one by one.
_HARD_FOLDER = re.compile(r"//|/\.|/\0|\0/")
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


def name_of(item: Any, what: str) -> str:
    """A name as a text: of a text, a number, a path, or a scalar of torch or numpy.

    Args:
        item: What a user gave.
        what: What it is, for the message.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(item, str):
        return item
    if isinstance(item, (bytes, os.PathLike)):
        return os.fsdecode(item)
    value = item.item() if hasattr(item, "item") and getattr(item, "ndim", 0) == 0 else item
    if isinstance(value, (str, int, float)):
        return str(value)
    raise TypeError(
        f"{what} is {type(value).__name__}: {shown(value)}; a name is a text, a number, a path or a scalar tensor"
    )


def with_suffix(name: str, suffix: str) -> str:
    """The file name of a sample: the suffix is appended unless the name ends in it.

    So ``case.1`` and ``case.2`` stay two files, and ``photo.png`` does not become ``photo.png.png``.
    """
    return name if name.endswith(suffix) else name + suffix


def with_suffixes(names: Sequence[str], suffix: str) -> list[str]:
    """The file names of a batch."""
    if not suffix:
        return list(names)
    if any(map(str.endswith, names, repeat(suffix))):
        return [with_suffix(name, suffix) for name in names]
    return [name + suffix for name in names]


def check_names(names: Sequence[str]) -> None:
    """Refuse names that cannot be one file each below a directory, whatever the file system.

    Raises:
        InvalidNameError: Empty, absolute, climbing out with ``..``, with an empty component or a NUL, not encodable,
            or reserved.
    """
    # Nearly all names are of letters and digits, so they are looked at together first: the loop waits meanwhile.
    text = "\0".join(("", *names, ""))
    if (
        text.isascii()
        and text.count("\0") == len(names) + 1
        and "\0\0" not in text
        and "\0." not in text
        and ("/" not in text or not _HARD_FOLDER.search(text))
        and not _WINDOWS
    ):
        return
    for name in names:
        check_name(name)


def check_name(name: str) -> None:
    """Refuse a name that cannot be one file below a directory, whatever the file system.

    Raises:
        InvalidNameError: Empty, absolute, climbing out with ``..``, with an empty component or a NUL, not encodable,
            or reserved.
    """
    if not name:
        raise InvalidNameError("a sample has an empty name; give every sample a name of at least one character")
    if "\0" in name:
        raise InvalidNameError(f"name {shown(name)} holds a NUL character, which no file system stores; remove it")
    if name.startswith("/"):
        raise InvalidNameError(
            f"name {shown(name)} is an absolute path; names are relative to the writer's directory "
            "(os.path.relpath(path, root) makes one)"
        )
    if not name.isascii():
        try:
            encoded = os.fsencode(name)
        except UnicodeEncodeError as error:
            raise InvalidNameError(f"name {shown(name)} cannot be encoded as a file name: {error}") from error
        if os.fsdecode(encoded) != name:
            raise InvalidNameError(
                f"name {shown(name)} and {shown(os.fsdecode(encoded))} are one file name; "
                "os.fsdecode(os.fsencode(name)) makes the usual one of both"
            )
    if not (_WINDOWS or "/" in name or name[0] == "."):
        return
    for component in name.split("/"):
        if component == "..":
            raise InvalidNameError(f"name {shown(name)} climbs out of the writer's directory; remove the '..'")
        if component in ("", "."):
            raise InvalidNameError(
                f"name {shown(name)} has a component {shown(component)}, so that two names could mean one file; "
                "os.path.normpath(name) removes it"
            )
        if component.startswith(RESERVED_PREFIX):
            raise InvalidNameError(
                f"name {shown(name)} is reserved: {RESERVED_PREFIX}* are files of lighter_async itself"
            )
        if _WINDOWS and _WINDOWS_REFUSED.search(component):
            raise InvalidNameError(f"name {shown(name)} is not a file name on Windows: {shown(component)}")


class Claims:
    """The file names that a run has used, so that no sample overwrites another of the same run.

    The latest ones are kept in a dict, with the sample that has each. When there are many, their 64-bit hashes are put
    away in sorted arrays, each at least four times as long as the next: 8 bytes a name, so ten million names cost 80 MB
    beside the latest ones, and a moment of the loop now and then. Two different names have one hash with a chance of 3
    in a million at ten million names; the second would then be refused, never overwritten. A run of numbers costs
    nothing: it is kept as a range.
    """

    def __init__(self, location: str = "") -> None:
        self._location = location
        self._heritage: list[Claims] = []  # of writers above and below that were closed while this one was open
        self._lock = threading.Lock()
        self._latest: dict[str, int] = {}
        self._hashes: list[NDArray[np.int64]] = []
        self._ranges: dict[str, list[range]] = {}
        self._count = 0

    def claim(self, files: Sequence[str], names: Sequence[str]) -> None:
        """Take files for this run, all or none.

        Args:
            files: Of a batch.
            names: What the caller calls them, for the message.

        Raises:
            DuplicateNameError: One of them is taken already, or stands twice among `files`.
        """
        if near := _near(self._location):
            with _nested:
                self._check_near(near, files, names)
                self._claim(files, names)
        else:
            self._claim(files, names)

    def _claim(self, files: Sequence[str], names: Sequence[str]) -> None:
        with self._lock:
            count = self._count
            fresh = dict(zip(files, range(count, count + len(files)), strict=True))
            if len(fresh) < len(files) or not self._latest.keys().isdisjoint(fresh) or self._hashes or self._ranges:
                self._check(files, names)
            self._latest.update(fresh)
            self._count += len(files)
            if len(self._latest) >= _MOST_LATEST:
                self._put_away()

    def claim_numbers(self, numbers: range, suffix: str) -> None:
        """Take the files of numbered samples, all or none.

        Raises:
            DuplicateNameError: One of them is taken already.
        """
        if not numbers:
            return
        if near := _near(self._location):
            with _nested:
                files = [f"{number}{suffix}" for number in numbers]
                self._check_near(near, files, list(map(str, numbers)))
                self._claim_numbers(numbers, suffix)
        else:
            self._claim_numbers(numbers, suffix)

    def _claim_numbers(self, numbers: range, suffix: str) -> None:
        with self._lock:
            ranges = self._ranges.setdefault(suffix, [])
            for taken in ranges:
                if (both := _common(taken, numbers)) is not None:
                    raise _duplicate(str(both), f"{both}{suffix}", "an earlier numbered sample", "a later one")
            # Rare: a run that has names too is looked up number by number.
            if self._latest or self._hashes:
                for number in numbers:
                    if (earlier := self._find(f"{number}{suffix}")) is not None:
                        raise _duplicate(str(number), f"{number}{suffix}", earlier, "a numbered one")
            if ranges and (longer := _joined(ranges[-1], numbers)) is not None:
                ranges[-1] = longer
            elif len(ranges) < _MOST_RANGES:
                ranges.append(numbers)
            else:
                # In no order, as a sampler of the user's may give them: too many ranges to look through.
                for position, number in enumerate(numbers, self._count):
                    self._latest[f"{number}{suffix}"] = position
            self._count += len(numbers)
            if len(self._latest) >= _MOST_LATEST:
                self._put_away()

    def _check_near(self, near: Sequence[tuple[Claims, str]], files: Sequence[str], names: Sequence[str]) -> None:
        """Refuse files that a writer has claimed whose directory lies above ours, or below it."""
        for other, between in near:
            is_above = len(other._location) < len(self._location)
            for file, name in zip(files, names, strict=True):
                if is_above:
                    theirs = f"{between}/{file}"
                elif file.startswith(f"{between}/"):
                    theirs = file[len(between) + 1 :]
                else:
                    continue
                with other._lock:
                    taken = other._find(theirs) is not None or other._in_ranges(theirs)
                if taken:
                    earlier = f"a sample of the writer that is open on {other._location!r}"
                    raise _duplicate(name, file, earlier, f"one of the writer on {self._location!r}")

    # With _lock held

    def _check(self, files: Sequence[str], names: Sequence[str]) -> None:
        """Say which file is taken, if one is."""
        fresh: dict[str, int] = {}
        suspects = self._suspects(files)
        for position, file in enumerate(files, self._count):
            earlier = f"sample {fresh[file]} of this run" if file in fresh else self._latest_of(file)
            if earlier is None and file in suspects:
                earlier = "an earlier sample of this run"
            if earlier is None and self._in_ranges(file):
                earlier = "a numbered sample of this run"
            if earlier is not None:
                raise _duplicate(names[position - self._count], file, earlier, f"sample {position}")
            fresh[file] = position

    def _find(self, file: str) -> str | None:
        return self._latest_of(file) or ("an earlier sample of this run" if self._suspects([file]) else None)

    def _latest_of(self, file: str) -> str | None:
        position = self._latest.get(file)
        return None if position is None else f"sample {position} of this run"

    def _suspects(self, files: Sequence[str]) -> set[str]:
        """The files whose names were put away."""
        found: set[str] = set()
        if self._hashes:
            sought = _hashes_of(files)
            for hashes in self._hashes:
                places = np.searchsorted(hashes, sought)
                hits = hashes.take(places, mode="clip") == sought
                if hits.any():
                    found.update(file for file, hit in zip(files, hits.tolist(), strict=True) if hit)
        return found

    def _in_ranges(self, file: str) -> bool:
        for suffix, ranges in self._ranges.items():
            stem = file[: len(file) - len(suffix)]
            is_number = file.endswith(suffix) and stem.isdecimal() and stem.isascii() and str(int(stem)) == stem
            if is_number and any(int(stem) in numbers for numbers in ranges):
                return True
        return False

    def _put_away(self) -> None:
        hashes = np.sort(_hashes_of(list(self._latest)))
        while self._hashes and len(self._hashes[-1]) < 4 * len(hashes):
            # Two sorted runs, which this kind of sort only merges.
            hashes = np.sort(np.concatenate([self._hashes.pop(), hashes]), kind="stable")
        self._hashes.append(hashes)
        self._latest.clear()


def _hashes_of(files: Sequence[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, files), np.int64, len(files))


def _joined(first: range, more: range) -> range | None:
    """Both as one range, if the one goes on where the other ends. A range of one number has any step."""
    step = first.step if len(first) > 1 else more.step if len(more) > 1 else more[0] - first[0]
    if step < 1 or more[0] - first[-1] != step or (len(more) > 1 and more.step != step):
        return None
    return range(first[0], more[-1] + 1, step)


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
        f"two samples of one run are named {shown(name)}: {earlier} and {later} would both become {shown(file)}. "
        "Give them different names, such as the source folder and the file name ('a/case', 'b/case'), and each of "
        "several writers that are open on one directory a directory of its own; "
        "nothing of the second one's batch was queued"
    )


# A forked child has no writers of its parent's, and another thread of that may have had the lock.
_claims: weakref.WeakValueDictionary[str, Claims] = weakref.WeakValueDictionary()
_claims_lock = threading.RLock()  # which the collector may ask for in the middle of our own lines


def claims_of(location: str) -> Claims:
    """The claims of all writers that are open on one location now, so that two of them cannot collide."""
    with _claims_lock:
        claims = _claims.get(location)
        if claims is None:
            claims = _claims[location] = Claims(location)
            # Its fields, which outlive it: what it has claimed is stored, as long as a writer above or below is open.
            weakref.finalize(claims, _leave_behind, location, vars(claims)).atexit = False
        return claims


def _leave_behind(location: str, fields: dict[str, Any]) -> None:
    with _claims_lock:
        near = [claims for claims, _ in _near(location)]
        if near:
            left = Claims(location)
            vars(left).update(fields, _heritage=[])
            for claims in near:
                claims._heritage.append(left)


# Held while a batch is looked up in the claims of directories above and below its own, and claimed.
_nested = threading.Lock()


def _near(location: str) -> list[tuple[Claims, str]]:
    """The claims of locations above and below one, each with the path that lies between."""
    mine = _claims.get(location)
    heritage = [] if mine is None else mine._heritage
    if len(_claims) < 2 and not heritage and mine is not None:
        return []
    with _claims_lock:
        found = []
        for other, claims in [*_claims.items(), *((left._location, left) for left in heritage)]:
            if location.startswith(f"{other}/"):
                found.append((claims, location[len(other) + 1 :]))
            elif other.startswith(f"{location}/"):
                found.append((claims, other[len(location) + 1 :]))
        return found


def _forked() -> None:
    global _claims, _claims_lock, _nested
    _nested = threading.Lock()
    _claims = weakref.WeakValueDictionary()
    _claims_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
