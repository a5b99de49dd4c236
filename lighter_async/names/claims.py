"""Which writer has used which names, over all writers that are open in this process."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence

from lighter_async.errors import DuplicateNameError
from lighter_async.names.used_names import UsedNames, duplicate_error

__all__ = ["Claims", "claims_of", "let_go_of_unreachable"]


class Claims:
    """The file names that the writers on one location have used, so that no sample overwrites another of the same run.

    Names that mean a file of a writer above or below it are refused, too.

    Args:
        location: Where the files go.
        used: What was used before; nothing by default.
    """

    def __init__(self, location: str = "", used: UsedNames | None = None) -> None:
        self._location = location
        self._heritage: list[Claims] = []  # of writers above and below that were closed while this one was open
        self._lock = threading.Lock()
        self._used = UsedNames() if used is None else used  # guarded by _lock
        self._writers: list[str] = []  # of those that have it and are open, where each was made; by _claims_lock
        # What it has claimed outlives it: that is stored, as long as a writer above or below is open.
        self._leave_behind: Callable[[], object] = lambda: None

    def let_go(self, made_at: str = "") -> None:
        """Give the names free, if no other writer has them: a writer is closed.

        Args:
            made_at: As of `claims_of`.

        Whoever keeps an exception keeps its frames, and these may refer to us. So that is not left to the collector.
        """
        with _claims_lock:
            if made_at in self._writers:
                self._writers.remove(made_at)
            if not self._writers and _claims.get(self._location) is self:
                del _claims[self._location]
                self._leave_behind()

    def claim(self, files: Sequence[str], names: Sequence[str]) -> None:
        """Take files for this run, all or none.

        Args:
            files: Of a batch.
            names: What the caller calls them, for the message.

        Raises:
            DuplicateNameError: One of them is taken already, or stands twice among `files`.
        """
        near = self._near()
        try:
            if near:
                with _nested:
                    self._check_near(near, files, names)
                    with self._lock:
                        self._used.take(files, names)
            else:
                with self._lock:
                    self._used.take(files, names)
        except DuplicateNameError as error:
            raise self._with_writers(error) from None

    def claim_numbers(self, numbers: range, suffix: str) -> None:
        """Take the files of numbered samples, all or none.

        Raises:
            DuplicateNameError: One of them is taken already.
        """
        if not numbers:
            return
        near = self._near()
        try:
            if near:
                with _nested:
                    files = [f"{number}{suffix}" for number in numbers]
                    self._check_near(near, files, list(map(str, numbers)))
                    with self._lock:
                        self._used.take_numbers(numbers, suffix)
            else:
                with self._lock:
                    self._used.take_numbers(numbers, suffix)
        except DuplicateNameError as error:
            raise self._with_writers(error) from None

    def _with_writers(self, error: DuplicateNameError) -> DuplicateNameError:
        """The error, with the writers that are open here, where a cell of a notebook may have been run again."""
        with _claims_lock:
            writers = list(self._writers)
        if len(writers) > 1:
            places = " and ".join(dict.fromkeys(place for place in writers if place))
            made = f" (made at {places})" if places else ""
            return DuplicateNameError(
                f"{error}. {len(writers)} writers are open on {self._location!r} now{made}, and count as one run: "
                "close the earlier one with close(), or use `with`. In a notebook, a cell that is run again leaves "
                "the writer of its last run open; one that has no name any more still stores its samples: run the cell "
                "once more when it has"
            )
        if hasattr(sys, "ps1"):  # where somebody types
            return DuplicateNameError(
                f"{error}. The writer on {self._location!r} is still that of the earlier sample, as when a cell is run "
                "again: to store the samples anew, close it with close() and make another one, or use `with`"
            )
        return error

    def _near(self) -> Sequence[tuple[Claims, str]]:
        """The claims of locations above and below, each with the path that lies between."""
        if self._writers and not self._heritage and len(_claims) < 2:
            return ()
        return _near(self._location)

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
                    is_taken = theirs in other._used
                if is_taken:
                    earlier = f"a sample of the writer that is open on {other._location!r}"
                    raise duplicate_error(name, file, earlier, f"one of the writer on {self._location!r}")


# A forked child has no writers of its parent's, and another thread of that may have had the lock.
_claims: weakref.WeakValueDictionary[str, Claims] = weakref.WeakValueDictionary()
_claims_lock = threading.RLock()  # which the collector may ask for in the middle of our own lines


def claims_of(location: str, made_at: str = "") -> Claims:
    """The claims of all writers that are open on one location now, so that two of them cannot collide.

    Args:
        location: Where the files go.
        made_at: Where the writer was made that asks, for messages.
    """
    with _claims_lock:
        claims = _claims.get(location)
        if claims is None:
            claims = _claims[location] = Claims(location)
            finalizer = weakref.finalize(claims, _leave_behind, location, claims._used)
            finalizer.atexit = False
            claims._leave_behind = finalizer
        claims._writers.append(made_at)
        return claims


def let_go_of_unreachable(location: str) -> None:
    """Where a writer is open on a location, have those collected that nobody can reach any more.

    A writer in threads is part of a circle with its books, which keep it while they have samples. So only the garbage
    collector lets go of it, which may take hours in a notebook where a cell is run again, and until then its names are
    taken.

    Args:
        location: Where the files go.
    """
    with _claims_lock:
        is_open = location in _claims
    if is_open:
        gc.collect()


def _leave_behind(location: str, used: UsedNames) -> None:
    with _claims_lock:
        near = [claims for claims, _ in _near(location)]
        if near:
            left = Claims(location, used)
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
