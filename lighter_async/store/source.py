"""Where results are read from, by what the writer was given: the one place that chooses the store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from lighter_async.errors import shown
from lighter_async.store.base import OneObject, Readable, Store
from lighter_async.store.directory import UNSEALED, DirectoryStore
from lighter_async.store.sealed_table import TABLE_SUFFIXES
from lighter_async.store.zarr_rows import ZARR, row_begin
from lighter_async.whole_files import local_path

__all__ = ["ARRAY_SUFFIXES", "Source", "source_of"]

ARRAY_SUFFIXES: Final = (".npy", ZARR)
"""What the names of arrays end in."""


class Source(NamedTuple):
    """Where results are read from.

    Attributes:
        directory: Where what is stored is recorded.
        store: What reads the samples.
        key: The key of the one series that is meant, where all of its samples lie in one object; None means all.
    """

    directory: Path
    store: Store
    key: str | None = None


def source_of(where: str | os.PathLike[str] | Readable) -> Source:
    """Where the results of a writer are read from.

    Args:
        where: What the writer was given: a path, whose samples are files below it, or a target, which says itself what
            reads them. A path that ends as an array's does, or as a table's (``.npy``, ``.zarr``, ``.parquet``,
            ``.csv``, ``.jsonl``), and is no folder of samples, is that of one, whose records lie beside it.

    Raises:
        TypeError: It is neither, or a target without records, of which nothing can be found again.
        ValueError: The path is a URL, holds a NUL, or names a user without a home folder.
    """
    if isinstance(where, (str, os.PathLike)):
        directory = local_path(where)
        name = directory.name.removesuffix(UNSEALED)
        if name.endswith((*ARRAY_SUFFIXES, *TABLE_SUFFIXES)) and (
            not directory.is_dir() or row_begin(directory) is not None
        ):
            return Source(directory.parent, DirectoryStore(directory.parent), name)
        return Source(directory, DirectoryStore(directory))
    if isinstance(where, OneObject):
        return Source(where.directory, where.store(), where.object)
    if isinstance(where, Readable):
        return Source(where.directory, where.store())
    raise TypeError(
        f"results are read from a path or a LocalTarget, not {shown(where)}; only a target that stores below a "
        "directory has records of what is stored (lighter_async.targets.DirectoryTarget), so read what another one has "
        "stored as its place is read"
    )
