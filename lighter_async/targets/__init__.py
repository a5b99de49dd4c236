"""Targets: where bytes live.

Those whose objects hold many samples are imported when they are first used.
"""

from typing import TYPE_CHECKING

from lighter_async.lazily import on_first_use
from lighter_async.targets.base import (
    ArraysTarget,
    DirectoryTarget,
    Features,
    LaneTarget,
    PathTarget,
    SharedTarget,
    TablesTarget,
    Target,
    arrays_target,
    descriptors_of,
    directory_of,
    features_of,
    is_each_by_itself,
    lane_of,
    tables_target,
)
from lighter_async.targets.lane import Item, Lane, Outcome, Part, Placed, PlacedRows, RowItems, RowPart
from lighter_async.targets.local import LocalTarget

if TYPE_CHECKING:
    from lighter_async.targets.array import ArrayTarget
    from lighter_async.targets.shards import TarShards, has_shards
    from lighter_async.targets.table import TableTarget

__all__ = [
    "ArrayTarget",
    "ArraysTarget",
    "DirectoryTarget",
    "Features",
    "Item",
    "Lane",
    "LaneTarget",
    "LocalTarget",
    "Outcome",
    "Part",
    "PathTarget",
    "Placed",
    "PlacedRows",
    "RowItems",
    "RowPart",
    "SharedTarget",
    "TableTarget",
    "TablesTarget",
    "TarShards",
    "Target",
    "arrays_target",
    "descriptors_of",
    "directory_of",
    "features_of",
    "has_shards",
    "is_each_by_itself",
    "lane_of",
    "tables_target",
]

__getattr__ = on_first_use(
    __name__, {"ArrayTarget": "array", "TableTarget": "table", "TarShards": "shards", "has_shards": "shards"}
)
