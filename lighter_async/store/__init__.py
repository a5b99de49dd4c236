"""The reading side of a target: where stored samples lie, and what can be asked about them there."""

from lighter_async.store.base import Finding, Identity, Place, Store
from lighter_async.store.directory import UNSEALED, DirectoryStore

__all__ = ["UNSEALED", "DirectoryStore", "Finding", "Identity", "Place", "Store"]
