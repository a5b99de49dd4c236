"""What is known of the file that a table has become, beside the rows that it was made of."""

from __future__ import annotations

import json
import os
from typing import Final

import xxhash

from lighter_async.names import TABLES_FOLDER
from lighter_async.store.base import Finding

__all__ = ["NOT_WRITTEN", "SEALED_TABLE", "TABLE_SUFFIXES", "TABLE_WRITER", "sealed_table", "table_folder"]

TABLE_SUFFIXES: Final = (".parquet", ".csv", ".jsonl")
"""What the names of tables end in."""

TABLE_WRITER: Final = "table_row"
"""The name of the writer of rows of tables."""

SEALED_TABLE: Final = "sealed.json"
"""A file beside a table's rows: the size and checksum of the table, and of how many rows it was made."""

NOT_WRITTEN: Final = "not written"
"""What is wrong with a table whose rows are stored, and which no run has written since."""

_CHUNK = 1 << 20


def table_folder(table: str) -> str:
    """Where the rows of a table lie, below its directory."""
    return TABLES_FOLDER + table


def sealed_table(directory: str | os.PathLike[str], table: str) -> Finding | None:
    """What is wrong with a table of which there are rows; None if it is as it was written.

    Args:
        directory: Where it lies.
        table: Its file name.
    """
    try:
        with open(os.path.join(directory, table_folder(table), SEALED_TABLE), "rb") as file:
            about = json.load(file)
        nbytes, xxh3 = int(about["bytes"]), str(about["xxh3"])
    except FileNotFoundError:
        return Finding(NOT_WRITTEN, "it was not written yet")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Finding("unreadable", f"what was written of it cannot be read ({type(error).__name__}: {error})")
    state = xxhash.xxh3_64()
    try:
        with open(os.path.join(directory, table), "rb") as file:
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
    return None if found == xxh3 else Finding("wrong checksum", f"{found} instead of {xxh3}")
