"""Targets: where bytes live."""

from lighter_async.targets.base import (
    DirectoryTarget,
    Features,
    Lane,
    LaneTarget,
    PathTarget,
    Target,
    descriptors_of,
    directory_of,
    features_of,
    lane_of,
)
from lighter_async.targets.file_store import FileStore
from lighter_async.targets.local import LocalTarget

__all__ = [
    "DirectoryTarget",
    "Features",
    "FileStore",
    "Lane",
    "LaneTarget",
    "LocalTarget",
    "PathTarget",
    "Target",
    "descriptors_of",
    "directory_of",
    "features_of",
    "lane_of",
]
