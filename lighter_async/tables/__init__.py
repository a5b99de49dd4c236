"""Tables of what was stored: rows that lie in spools become columns, and these a Parquet, CSV or JSON-lines file."""

from lighter_async.tables.columns import Chunk, Column
from lighter_async.tables.content import Content, content_of, types_in
from lighter_async.tables.formats import check_installed, write_table

__all__ = ["Chunk", "Column", "Content", "check_installed", "content_of", "types_in", "write_table"]
