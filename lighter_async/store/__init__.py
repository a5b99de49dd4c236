"""The reading side of a target: where stored samples lie, and what can be asked about them there."""

from lighter_async.store.base import Finding, Identity, OneObject, Place, Readable, Store
from lighter_async.store.directory import SHARD_LISTING, UNSEALED, DirectoryStore
from lighter_async.store.sealed_table import (
    NOT_WRITTEN,
    SEALED_TABLE,
    TABLE_SUFFIXES,
    TABLE_WRITER,
    SealedTable,
    sealed_table,
    table_folder,
)
from lighter_async.store.source import ARRAY_SUFFIXES, Source, source_of

__all__ = [
    "ARRAY_SUFFIXES",
    "NOT_WRITTEN",
    "SEALED_TABLE",
    "SHARD_LISTING",
    "TABLE_SUFFIXES",
    "TABLE_WRITER",
    "UNSEALED",
    "DirectoryStore",
    "Finding",
    "Identity",
    "OneObject",
    "Place",
    "Readable",
    "SealedTable",
    "Source",
    "Store",
    "sealed_table",
    "source_of",
    "table_folder",
]
