"""The Lightning callbacks: the only part that knows Lightning."""

from lighter_async.callback.array_writer import ArrayWriter
from lighter_async.callback.base_writer import BaseWriter
from lighter_async.callback.file_writer import FileWriter
from lighter_async.callback.table_writer import CsvWriter, TableWriter

__all__ = ["ArrayWriter", "BaseWriter", "CsvWriter", "FileWriter", "TableWriter"]
