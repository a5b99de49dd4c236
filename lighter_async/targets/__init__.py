"""Targets: where bytes live."""

from lighter_async.targets.local import LocalTarget

__all__ = ["LocalTarget"]
