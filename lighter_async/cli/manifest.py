"""``lighter-async manifest``: what was stored, over all ranks, in the data set's order."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO

from lighter_async.cli.outlets import has_reader
from lighter_async.cli.words import refuse
from lighter_async.errors import LighterAsyncError
from lighter_async.manifest import Manifest, Record, read_manifest
from lighter_async.manifest.verify import why_empty
from lighter_async.optional_packages import optional

__all__ = ["run_manifest"]

_SUFFIXES = (".csv", ".parquet", ".jsonl")


def run_manifest(directory: Path, output: Path | None) -> int:
    """Write the merged manifest.

    Args:
        directory: Where the results are, or an array or a table.
        output: A file: CSV, Parquet (which needs pyarrow) or JSON lines by its suffix. None is JSON lines on stdout.

    Returns:
        0, or 2 if there is no manifest, or it cannot be read, or the output cannot be written.
    """
    if output is not None and output.suffix not in _SUFFIXES:
        return refuse(f"{str(output)!r} is none of the formats that can be written: {', '.join(_SUFFIXES)}")
    try:
        manifest = read_manifest(directory)
        if not manifest.runs and not manifest.records:
            what = why_empty(manifest) if directory.is_dir() else "is no directory"
            return refuse(
                f"{str(directory)!r} {what}; give the directory that the results were written to, or the array or table"
            )
        if output is None:
            _write_lines(manifest, sys.stdout)
        elif output.suffix == ".parquet":
            with optional("a .parquet file is written by pyarrow", "pyarrow"):
                import pyarrow.parquet

            pyarrow.parquet.write_table(manifest.to_arrow(), output)
        elif output.suffix == ".csv":
            # Names that are not UTF-8 are written as the bytes that they have on the disk.
            with open(output, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                rows = csv.DictWriter(file, list(Record.__slots__))
                rows.writeheader()
                rows.writerows(_row(record) for record in manifest.records)
        else:
            with open(output, "w") as file:
                _write_lines(manifest, file)
    except UnicodeEncodeError as error:
        return refuse(f"a name that is not UTF-8 cannot be written to {str(output)!r} ({error}); choose .jsonl")
    except (LighterAsyncError, OSError, ImportError) as error:
        return refuse(str(error))
    return 0


def _row(record: Record) -> dict[str, object]:
    row = asdict(record)
    return row | {"shape": None if record.shape is None else json.dumps(record.shape)}


def _write_lines(manifest: Manifest, file: IO[str]) -> None:
    for record in manifest.records:
        file.write(json.dumps(asdict(record), separators=(",", ":")) + "\n")
        if not has_reader(file):
            return  # it has seen enough, as `head` does
