"""Shards that compacting removes: their names are never used again, and whoever comes next finishes the removal.

Compacting and writing keep out of each other's way, too: each takes its lock first and looks for the other's then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from lighter_async.interrupts import run_handlers
from lighter_async.locks import held_by, unlink_from_copies
from lighter_async.locks.flock import OPEN
from lighter_async.manifest.reader import read_manifest
from lighter_async.names import RESERVED_PREFIX
from lighter_async.notices import notify
from lighter_async.targets.shards.listing import index_name, is_shard
from lighter_async.whole_files import remove

__all__ = ["COMPACTING", "finish_removals", "remove_shards", "removed_shards", "wait_until_compacted"]

COMPACTING = "compacting-"
"""What the ids of those begin with that hold a directory's lock while they compact it."""

_FILE = f"{RESERVED_PREFIX}/removed-shards"
_LARGEST = 64 << 20  # bytes of it that are read
_SECONDS_UNTOLD = 2.0


def wait_until_compacted(root: str, *, timeout: float) -> None:
    """Wait while somebody compacts a directory, as far as this machine knows.

    Args:
        root: The directory.
        timeout: Seconds to wait in all.

    Raises:
        TimeoutError: It is still being compacted.
    """
    folder = os.path.join(root, RESERVED_PREFIX)
    begun, told = time.monotonic(), False
    while any(run.startswith(COMPACTING) for run in held_by(folder)):
        waited = time.monotonic() - begun
        if waited > timeout:
            raise TimeoutError(
                f"lighter-async compact has been at work in {root!r} for {timeout:g} s; wait until it has ended, or "
                "end it, which loses nothing"
            )
        if waited > _SECONDS_UNTOLD and not told:
            told = True
            notify(f"waiting for lighter-async compact, which is at work in {root!r}")
        time.sleep(0.02)
        run_handlers()


def removed_shards(root: str) -> list[str]:
    """The shards that were removed, or were about to be."""
    try:
        descriptor = os.open(os.path.join(root, _FILE), (OPEN & ~os.O_RDWR) | os.O_RDONLY)
    except OSError:
        return []
    with open(descriptor, "rb") as file:
        lines = file.read(_LARGEST).decode("ascii", "replace").split("\n")
    return [line for line in lines if is_shard(line)]


def remove_shards(root: str, shards: Sequence[str]) -> None:
    """Remove shards in which nothing counts, each with its index. Their names are noted first.

    Args:
        root: The directory.
        shards: Their names.

    Raises:
        OSError: They cannot be noted, and nothing is removed; or one cannot be removed.
    """
    if not shards:
        return
    path = os.path.join(root, _FILE)
    unlink_from_copies(path)
    descriptor = os.open(path, OPEN | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        # Between line ends, so that a line that a crash has torn spoils no other one.
        data = "".join(f"\n{one}\n" for one in shards).encode()
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _remove(root, shards)


def finish_removals(root: str) -> None:
    """Remove the shards that somebody was about to remove who was killed then.

    Raises:
        OSError: One cannot be removed, or the records cannot be read.
    """
    left = [one for one in removed_shards(root) if os.path.lexists(os.path.join(root, one))]
    if left:
        # Somebody may have put an earlier state of the directory back.
        counting = set(read_manifest(root).records.files())
        _remove(root, [one for one in left if one not in counting])


def _remove(root: str, shards: Sequence[str]) -> None:
    for one in shards:
        # The index first: without its shard it would be a file that nobody knows.
        remove(os.path.join(root, index_name(one)))
        remove(os.path.join(root, one))
