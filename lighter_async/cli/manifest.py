"""``lighter-async manifest``: what was stored, over all ranks, in the data set's order."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO

from lighter_async.errors import LighterAsyncError
from lighter_async.manifest import Manifest, Record, read_manifest

__all__ = ["run_manifest"]


def run_manifest(directory: Path, output: Path | None) -> int:
    """Write the merged manifest.

    Args:
        directory: Where the results are.
        output: A file: CSV, Parquet (which needs pyarrow) or JSON lines by its suffix. None is JSON lines on stdout.

    Returns:
        0, or 2 if it cannot be read or written.
    """
    try:
        manifest = read_manifest(directory)
        if output is None:
            _write_lines(manifest, sys.stdout)
        elif output.suffix == ".parquet":
            import pyarrow.parquet

            pyarrow.parquet.write_table(manifest.to_arrow(), output)
        elif output.suffix == ".csv":
            with open(output, "w", newline="") as file:
                rows = csv.DictWriter(file, list(Record.__slots__))
                rows.writeheader()
                rows.writerows(asdict(record) for record in manifest.records)
        else:
            with open(output, "w") as file:
                _write_lines(manifest, file)
    except ImportError:
        print("lighter-async: Parquet needs pyarrow: pip install pyarrow", file=sys.stderr)
        return 2
    except (LighterAsyncError, OSError) as error:
        print(f"lighter-async: {error}", file=sys.stderr)
        return 2
    return 0


def _write_lines(manifest: Manifest, file: IO[str]) -> None:
    for record in manifest.records:
        file.write(json.dumps(asdict(record), separators=(",", ":")) + "\n")
