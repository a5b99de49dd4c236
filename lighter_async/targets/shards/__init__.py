"""Tar shards in the layout of WebDataset: many samples in one file, which gets its final name when it is full."""

from lighter_async.targets.shards.listing import has_shards
from lighter_async.targets.shards.target import TarShards

__all__ = ["TarShards", "has_shards"]
