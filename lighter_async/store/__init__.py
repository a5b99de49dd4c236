"""The reading side of a target: where stored samples lie, and what can be asked about them there."""

from lighter_async.store.base import Finding, Identity, OneObject, Place, Readable, Store
from lighter_async.store.directory import SHARD_LISTING, UNSEALED, DirectoryStore
from lighter_async.store.source import Source, source_of

__all__ = [
    "SHARD_LISTING",
    "UNSEALED",
    "DirectoryStore",
    "Finding",
    "Identity",
    "OneObject",
    "Place",
    "Readable",
    "Source",
    "Store",
    "source_of",
]
