"""The file names that a run has used, in little memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import DuplicateNameError, shown
from lighter_async.names.number_ranges import first_common, joined

__all__ = ["UsedNames", "duplicate_error"]

_MOST_LATEST = 1 << 16
_MOST_RANGES = 16


class UsedNames:
    """The file names that a run has used. Whoever has it guards it with a lock.

    The latest ones are kept in a dict, with the sample that has each. When there are many, their 64-bit hashes are put
    away in sorted arrays, each at least four times as long as the next: 8 bytes a name, so ten million names cost 80 MB
    beside the latest ones, and a moment of the loop now and then. Two different names have one hash with a chance of 3
    in a million at ten million names; the second would then be refused, never overwritten. A run of numbers costs
    nothing: it is kept as a range.
    """

    def __init__(self) -> None:
        self._latest: dict[str, int] = {}
        self._hashes: list[NDArray[np.int64]] = []
        self._ranges: dict[str, list[range]] = {}
        self._count = 0

    def take(self, files: Sequence[str], names: Sequence[str]) -> None:
        """Take files, all or none.

        Args:
            files: Of a batch.
            names: What the caller calls them, for the message.

        Raises:
            DuplicateNameError: One of them is taken already, or stands twice among `files`.
        """
        latest, count = self._latest, self._count
        if self._hashes or self._ranges or not latest.keys().isdisjoint(files):
            self._check(files, names)
        before = len(latest)
        latest.update(zip(files, range(count, count + len(files)), strict=True))
        if len(latest) < before + len(files):  # one stands twice among them
            for file in set(files):
                del latest[file]
            self._check(files, names)
        self._count += len(files)
        if len(latest) >= _MOST_LATEST:
            self._put_away()

    def take_numbers(self, numbers: range, suffix: str) -> None:
        """Take the files of numbered samples, all or none.

        Raises:
            DuplicateNameError: One of them is taken already.
        """
        ranges = self._ranges.setdefault(suffix, [])
        for taken in ranges:
            if (both := first_common(taken, numbers)) is not None:
                raise duplicate_error(str(both), f"{both}{suffix}", "an earlier numbered sample", "a later one")
        # Rare: a run that has names too is looked up number by number.
        if self._latest or self._hashes:
            for number in numbers:
                if (earlier := self._find(f"{number}{suffix}")) is not None:
                    raise duplicate_error(str(number), f"{number}{suffix}", earlier, "a numbered one")
        if ranges and (longer := joined(ranges[-1], numbers)) is not None:
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

    def __contains__(self, file: str) -> bool:
        return self._find(file) is not None or self._in_ranges(file)

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
                raise duplicate_error(names[position - self._count], file, earlier, f"sample {position}")
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


def duplicate_error(name: str, file: str, earlier: str, later: str) -> DuplicateNameError:
    """The error of a sample whose file is taken: `earlier` and `later` say by which samples."""
    return DuplicateNameError(
        f"two samples of one run are named {shown(name)}: {earlier} and {later} would both become {shown(file)}. "
        "Give them different names, such as the source folder and the file name ('a/case', 'b/case'), and each of "
        "several writers that are open on one directory a directory of its own; "
        "nothing of the second one's batch was queued"
    )
