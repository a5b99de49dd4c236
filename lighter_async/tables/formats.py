"""The files that tables become: Parquet, CSV (RFC 4180) and JSON lines (https://jsonlines.org), all of UTF-8."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Final

import msgspec

from lighter_async.optional_packages import optional
from lighter_async.tables.content import Content
from lighter_async.tables.text import csv_cells, json_texts, quoted

__all__ = ["check_installed", "write_table"]


def check_installed(suffix: str) -> None:
    """
    Raises:
        ImportError: What writes such files is not installed.
    """
    if suffix != ".parquet":
        return
    with optional("a .parquet table (.csv and .jsonl need nothing more) is written by pyarrow", "pyarrow"):
        import pyarrow.parquet  # noqa: F401


def write_table(content: Content, file: IO[bytes], suffix: str) -> int:
    """Write all rows of a table to a file; returns how many.

    Args:
        content: The rows.
        file: Open for writing.
        suffix: Which format: ``".parquet"``, ``".csv"`` or ``".jsonl"``.

    Raises:
        OSError: It cannot be written.
        TypeError: As `Content.chunks`.
    """
    return _FORMATS[suffix](content, file)


def _write_parquet(content: Content, file: IO[bytes]) -> int:
    import pyarrow.parquet

    from lighter_async.tables.arrow import arrow_table, schema_of

    schema, count = schema_of(content.types), 0
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for chunk in content.chunks():
            writer.write_table(arrow_table(chunk, schema))
            count += chunk.count
    return count


def _write_csv(content: Content, file: IO[bytes]) -> int:
    file.write((",".join(map(quoted, content.types)) + "\n").encode())
    count = 0
    for chunk in content.chunks():
        columns = [csv_cells(chunk.columns[key]) for key in content.types]
        rows = list(map(",".join, zip(*columns, strict=True)))
        if len(columns) == 1:
            rows = [row or '""' for row in rows]  # an empty line is no row to some readers
        file.write(("\n".join(rows) + "\n").encode())
        count += chunk.count
    return count


def _write_jsonl(content: Content, file: IO[bytes]) -> int:
    keys = [str(msgspec.json.encode(key), "utf-8").replace("%", "%%") for key in content.types]
    row = "{" + ",".join(f"{key}:%s" for key in keys) + "}\n"
    count = 0
    for chunk in content.chunks():
        columns = [json_texts(chunk.columns[name]) for name in content.types]
        file.write("".join(map(row.__mod__, zip(*columns, strict=True))).encode())
        count += chunk.count
    return count


_FORMATS: Final[dict[str, Callable[[Content, IO[bytes]], int]]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
}
