"""The reading side of a target: where stored samples lie, and what can be asked about them there."""

from lighter_async.store.base import Finding, Identity, Place, Store
from lighter_async.store.directory import SHARD_LISTING, UNSEALED, DirectoryStore

__all__ = ["SHARD_LISTING", "UNSEALED", "DirectoryStore", "Finding", "Identity", "Place", "Store"]
