"""The list of a directory's shards, ``shards.json``, in the format of ``wids`` (of github.com/webdataset/webdataset).

It is made anew from the shards that there are, by one process at a time, and replaced in one step.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any

from lighter_async.locks import alone_in
from lighter_async.locks.flock import OPEN
from lighter_async.manifest.reader import lines_in, manifest_files
from lighter_async.names import RESERVED_PREFIX
from lighter_async.store import SHARD_LISTING
from lighter_async.targets.shards.index import samples_listed
from lighter_async.targets.shards.walk import samples_in
from lighter_async.without_links import read_below

__all__ = [
    "has_shards",
    "index_name",
    "is_shard",
    "list_shards",
    "no_directory",
    "numbers_of",
    "shard_name",
    "shards_recorded",
]

_SHARD = re.compile(r"shard-([0-9]{5,9})-([0-9]{3,9})-([0-9]{6,18})\.tar")
_LARGEST = 256 << 20
_SHARD_IN_LINE = re.compile(rb"shard-[0-9]{5,}-[0-9]{3,}-[0-9]{6,}\.tar")
_MARK = f"{RESERVED_PREFIX}/shards"


def no_directory(root: str) -> str:
    """What is said of a path that is no directory, in which there might be shards."""
    if os.path.lexists(root):
        return f"{root!r} is no directory; give the one that the shards lie in, as an array or a table has none"
    return f"there is no directory {root!r}"


def has_shards(directory: str | os.PathLike[str]) -> bool:
    """Whether samples are, or were to be, stored in shards in a directory."""
    return os.path.lexists(os.path.join(directory, _MARK))


def shard_name(rank: int, lane: int, number: int) -> str:
    """What a shard is called: by the rank and the worker that write it, and a number that no other one of them has."""
    return f"shard-{rank:05d}-{lane:03d}-{number:06d}.tar"


def is_shard(name: str) -> bool:
    """Whether a file is called as a shard is."""
    return _SHARD.fullmatch(name) is not None


def numbers_of(name: str) -> tuple[int, int, int] | None:
    """The rank, lane and number of a shard; None of another file."""
    found = _SHARD.fullmatch(name)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def shards_recorded(root: str, rank: int, lane: int) -> set[str]:
    """The shards of one lane that the records tell of, whether they are there or not."""
    beginning = f"shard-{rank:05d}-{lane:03d}-".encode()
    found: set[str] = set()
    for path in manifest_files(root):
        for line in lines_in(path):
            if beginning in line:
                found.update(name.decode() for name in _SHARD_IN_LINE.findall(line) if name.startswith(beginning))
    return found


def index_name(shard: str) -> str:
    """What the index of a shard is called."""
    return f"{shard.removesuffix('.tar')}.idx"


def list_shards(root: str, replace: Callable[[str, bytes], None]) -> None:
    """Make the list anew, if it is not as the shards are.

    Args:
        root: The directory.
        replace: Puts a file in the place of one of its name, in one step.

    Raises:
        OSError: It cannot be written.
    """
    os.makedirs(os.path.join(root, RESERVED_PREFIX), exist_ok=True)  # somebody may have removed it
    with alone_in(os.path.join(root, _MARK)):
        known = _listed(root)
        if not known:
            _check_is_listing(root)
        shards = sorted(name for name in os.listdir(root) if is_shard(name))
        if list(known) == shards:
            return
        entries = [known[name] if name in known else _entry(root, name) for name in shards]
        listing = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": [one for one in entries if one]}
        replace(SHARD_LISTING, json.dumps(listing, indent=1).encode())


def _check_is_listing(root: str) -> None:
    """See that what lies in the place of the list is an earlier list, or nothing.

    Raises:
        FileExistsError: It is something else.
    """
    try:
        listing = json.loads(read_below(root, SHARD_LISTING, _LARGEST))
    except (OSError, ValueError, RecursionError):
        return  # there is none, or it is damaged
    if isinstance(listing, dict) and "shardlist" not in listing:
        raise FileExistsError(
            f"{os.path.join(root, SHARD_LISTING)!r} is no list of shards, and lies where that has to; move it away, or "
            "choose another directory"
        )


def _listed(root: str) -> dict[str, dict[str, Any]]:
    """What the list says now of each shard; nothing if it is none of ours."""
    try:
        listing = json.loads(read_below(root, SHARD_LISTING, _LARGEST))
        known = {one["url"]: one for one in listing["shardlist"]}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}
    wanted = {"url": str, "nsamples": int, "filesize": int}
    is_ours = all({key: type(value) for key, value in one.items()} == wanted for one in known.values())
    return known if is_ours else {}


def _entry(root: str, name: str) -> dict[str, Any] | None:
    path = os.path.join(root, name)
    try:
        descriptor = os.open(path, (OPEN & ~os.O_RDWR) | os.O_RDONLY)
    except OSError:
        return None  # it is gone by now, or is a link
    try:
        samples = samples_listed(os.path.join(root, index_name(name)))
        if samples is None:
            samples = sum(1 for _ in samples_in(descriptor))
        return {"url": name, "nsamples": samples, "filesize": os.fstat(descriptor).st_size}
    finally:
        os.close(descriptor)
