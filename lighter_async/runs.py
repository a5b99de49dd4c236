"""The order of the runs that store in a directory, which no clock gives: a number for each, under a lock."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass

from lighter_async.locks import alone_in, held_by
from lighter_async.names import RESERVED_PREFIX

__all__ = ["MOST_RUNS", "Begun", "begin_run"]

_FILE = f"{RESERVED_PREFIX}/runs.jsonl"
MOST_RUNS = 1 << 40  # sequence numbers up to this one are ours; the list of others' making may have any
_LARGEST = 64 << 20  # bytes of the file that are read: some 500,000 runs


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that has begun, as all of its ranks know it.

    Attributes:
        sequence: Larger than that of every run that began before it; from 1 on.
        since: Nanoseconds, by the file system's clock: a file that is at least as new is this run's own.
        beside: The runs that were open when this one began, so that it does not begin after them.
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
    """Enter a run into the directory's list; of several ranks the first one does, and the others learn what it has.

    Args:
        directory: Where the results go.
        run: The run's id.
        since: What to enter if it is the first of its run: see `Begun`.
        begun: What the run had in a list that is gone.
        latest: The largest sequence number that is known of, asked where there is no list.
        waiting: As of `alone_in`.

    Raises:
        OSError: The list cannot be read or written, or somebody has it locked.
    """
    path = os.path.join(directory, _FILE)
    with alone_in(path, waiting=waiting) as descriptor:
        text = os.pread(descriptor, min(os.fstat(descriptor).st_size, _LARGEST), 0)
        listed = [one for line in text.splitlines() if (one := _known(line)) is not None]
        for id_, known in listed:
            if id_ == run:
                return known
        beside = tuple(sorted(set(held_by(os.path.dirname(path))) - {run, ""}))
        before = max((known.sequence for _, known in listed), default=0) if listed else latest()
        if begun is None and before >= MOST_RUNS:
            raise OSError(errno.EOVERFLOW, f"the list of runs says that there were {before} of them; remove it", path)
        mine = begun or Begun(before + 1, since, beside)
        line = json.dumps({"run": run, "sequence": mine.sequence, "since": mine.since, "beside": mine.beside})
        # On a line of its own, whatever a crash has left of the one before.
        data = f"{line}\n".encode() if not text or text.endswith(b"\n") else f"\n{line}\n".encode()
        os.lseek(descriptor, 0, os.SEEK_END)
        while data:
            data = data[os.write(descriptor, data) :]
        return mine


def _known(line: bytes) -> tuple[str, Begun] | None:
    try:
        fields = json.loads(line)
        run, sequence, since, beside = fields["run"], fields["sequence"], fields["since"], fields["beside"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    is_whole = type(run) is str and type(sequence) is type(since) is int and type(beside) is list
    is_whole = is_whole and 1 <= sequence < MOST_RUNS and abs(since) < 1 << 63
    return (run, Begun(sequence, since, tuple(map(str, beside)))) if is_whole else None
