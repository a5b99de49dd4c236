"""What is known of the file that a table has become, beside the rows that it was made of."""

from __future__ import annotations

import json
import os
from typing import Final, NamedTuple

import xxhash

from lighter_async.names import TABLES_FOLDER
from lighter_async.store.base import Finding
from lighter_async.without_links import open_below, read_below

__all__ = [
    "NOT_WRITTEN",
    "SEALED_TABLE",
    "TABLE_SUFFIXES",
    "TABLE_WRITER",
    "SealedTable",
    "sealed_table",
    "table_folder",
]

TABLE_SUFFIXES: Final = (".parquet", ".csv", ".jsonl")
"""What the names of tables end in."""

TABLE_WRITER: Final = "table_row"
"""The name of the writer of rows of tables."""

SEALED_TABLE: Final = "sealed.json"
"""A file beside a table's rows: the size and checksum of the table, and of what it was made."""

NOT_WRITTEN: Final = "not written"
"""What is wrong with a table whose rows are stored, and which no run has written since."""

_CHUNK = 1 << 20
_LARGEST = 1 << 28  # bytes of what is said of a table; it names runs and manifests


def table_folder(table: str) -> str:
    """Where the rows of a table lie, below its directory."""
    return TABLES_FOLDER + table


class SealedTable(NamedTuple):
    """What a table was made of that is as it was written.

    Attributes:
        samples: How many were recorded then.
        runs: The ids of the runs that had stored them.
    """

    samples: int
    runs: frozenset[str]


def sealed_table(directory: str | os.PathLike[str], table: str) -> SealedTable | Finding:
    """What a table was made of, of which there are rows; or what is wrong with it.

    Args:
        directory: Where it lies.
        table: Its file name.
    """
    try:
        about = json.loads(read_below(directory, f"{table_folder(table)}/{SEALED_TABLE}", _LARGEST))
        nbytes, xxh3 = int(about["bytes"]), str(about["xxh3"])
        sealed = SealedTable(int(about["samples"]), frozenset(map(str, about["runs"])))
    except FileNotFoundError:
        return Finding(NOT_WRITTEN, "it was not written yet")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return Finding("unreadable", f"what was written of it cannot be read ({type(error).__name__}: {error})")
    state = xxhash.xxh3_64()
    try:
        with open(open_below(directory, table), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != nbytes:
                return Finding("wrong size", f"it has {size} bytes instead of {nbytes}")
            while data := file.read(_CHUNK):
                state.update(data)
    except FileNotFoundError:
        return Finding("missing", "it is not there")
    except OSError as error:
        return Finding("unreadable", f"{type(error).__name__}: {error}")
    found = state.hexdigest()
    return sealed if found == xxh3 else Finding("wrong checksum", f"{found} instead of {xxh3}")
