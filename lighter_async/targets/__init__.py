"""Targets: where bytes live."""

from lighter_async.targets.base import Features, Lane, LaneTarget, PathTarget, Target, features_of, lane_of
from lighter_async.targets.local import LocalTarget

__all__ = ["Features", "Lane", "LaneTarget", "LocalTarget", "PathTarget", "Target", "features_of", "lane_of"]
