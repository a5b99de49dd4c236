"""The order of the runs that store in a directory: each gets a number, under a lock, since clocks may be wrong."""

from __future__ import annotations

import errno
import json
import os
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lighter_async.locks import alone_in, held_by
from lighter_async.names import RESERVED_PREFIX

__all__ = ["MOST_RUNS", "Begun", "begin_run"]

_FILE = f"{RESERVED_PREFIX}/runs.jsonl"
MOST_RUNS = 1 << 40  # sequence numbers stay below it; a list that somebody else wrote may hold any
_LONGEST = 16 << 20  # bytes of a line


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that has begun, with what all of its ranks know of it.

    Attributes:
        sequence: Larger than that of every run that began before it; from 1 on.
        since: Nanoseconds, by the file system's clock: a file that is at least as new is this run's own.
        beside: The runs that were open when this one began, so they count as running at the same time.
    """

    sequence: int
    since: int
    beside: tuple[str, ...] = ()


def begin_run(
    directory: str,
    run: str,
    since: int,
    *,
    begun: Begun | None = None,
    latest: Callable[[], int] = lambda: 0,
    waiting: Callable[[], None] = lambda: None,
) -> Begun:
    """Enter a run into the directory's list. The first rank to call does, and the others read what it has entered.

    Args:
        directory: Where the results go.
        run: The run's id.
        since: What to enter if it is the first of its run: see `Begun`.
        begun: What the run had entered into a list that was removed since.
        latest: Returns the largest known sequence number. Called if there is no list.
        waiting: As in `alone_in`.

    Raises:
        OSError: The list cannot be read or written, or stays locked.
    """
    path = os.path.join(directory, _FILE)
    with alone_in(path, waiting=waiting) as descriptor:
        listed = _List()
        with os.fdopen(os.dup(descriptor), "rb") as file:
            while line := file.readline(_LONGEST):
                if (known := listed.read(line)) is not None and known[0] == run:
                    return known[1]
        beside = tuple(sorted(set(held_by(os.path.dirname(path))) - {run, ""}))
        before = listed.ids[-1][0] if listed.ids else latest()
        if begun is None and before >= MOST_RUNS:
            raise OSError(errno.EOVERFLOW, f"the list of runs says that there were {before} of them; remove it", path)
        mine = begun or Begun(before + 1, since, beside)
        places = {id_: sequence for sequence, id_ in listed.ids}
        open_ = _spans(places[one] for one in mine.beside if one in places)
        text = json.dumps({"run": run, "sequence": mine.sequence, "since": mine.since, "beside": open_})
        # On a new line, even if a crash has torn the line before.
        data = f"{text}\n".encode() if listed.ends_whole else f"\n{text}\n".encode()
        os.lseek(descriptor, 0, os.SEEK_END)
        while data:
            data = data[os.write(descriptor, data) :]
        return mine


class _List:
    """The runs of a list, read line by line.

    A line gives the runs that were open beside its own as ranges of numbers, since there may be thousands.
    """

    def __init__(self) -> None:
        self.ids: list[tuple[int, str]] = []  # in the order of their numbers
        self.ends_whole = True

    def read(self, line: bytes) -> tuple[str, Begun] | None:
        """The run of a line; None if it is not a line that this package writes."""
        self.ends_whole = line.endswith(b"\n")
        ids = self.ids
        try:
            fields = json.loads(line)
            run, sequence, since, beside = fields["run"], fields["sequence"], fields["since"], fields["beside"]
            is_whole = type(run) is str and type(sequence) is type(since) is int and type(beside) is list
            if not (is_whole and 1 <= sequence < MOST_RUNS and abs(since) < 1 << 63):
                return None
            names: list[str] = []
            for one in beside:
                if type(one) is str:  # as earlier versions wrote them
                    names.append(one)
                else:
                    first, last = map(int, one)
                    start, stop = bisect_left(ids, (first, "")), bisect_left(ids, (last + 1, ""))
                    names += [id_ for _, id_ in ids[start:stop]]
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            return None
        insort(ids, (sequence, run))
        return run, Begun(sequence, since, tuple(sorted(names)))


def _spans(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Numbers as ranges, each as its first and last number."""
    spans: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1] = spans[-1][0], number
        else:
            spans.append((number, number))
    return spans
