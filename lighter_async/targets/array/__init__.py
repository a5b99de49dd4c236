"""All samples of a run as the rows of one array."""

from lighter_async.targets.array.target import ArrayTarget

__all__ = ["ArrayTarget"]
