"""Targets: where bytes live."""

from lighter_async.targets.file_store import FileStore
from lighter_async.targets.local import LocalTarget

__all__ = ["FileStore", "LocalTarget"]
