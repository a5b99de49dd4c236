"""Asynchronous background writer for inference: predictions reach the disk while the loop goes on.

The names below are imported when they are first used, so that ``import lighter_async`` needs neither torch nor
Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lighter_async.aio import AsyncBackgroundWriter
    from lighter_async.callback import BaseWriter, FileWriter
    from lighter_async.errors import (
        BackendUnavailableError,
        ClosedError,
        DuplicateNameError,
        FlushTimeoutError,
        InvalidNameError,
        LighterAsyncError,
        NameTakenError,
        QueueFullError,
        ReadError,
        ResumeError,
        WorkerDiedError,
        WriteError,
        WriteTimeoutError,
    )
    from lighter_async.manifest import Manifest, Record, RunRecord, read_manifest
    from lighter_async.results import Results, open_results
    from lighter_async.resume import PendingSampler, pending
    from lighter_async.service import BackgroundWriter
    from lighter_async.targets import LocalTarget, PathTarget, Target
    from lighter_async.types import Origin, Run, WriterStats
    from lighter_async.writers import (
        Encoder,
        WriterRegistry,
        encoder,
        write_image_2d,
        write_image_3d,
        write_tensor,
        write_text,
        writer_registry,
    )

__version__ = "0.1.0"

_ROOMS = {
    "aio": ["AsyncBackgroundWriter"],
    "callback": ["BaseWriter", "FileWriter"],
    "errors": [
        "BackendUnavailableError",
        "ClosedError",
        "DuplicateNameError",
        "FlushTimeoutError",
        "InvalidNameError",
        "LighterAsyncError",
        "NameTakenError",
        "QueueFullError",
        "ReadError",
        "ResumeError",
        "WorkerDiedError",
        "WriteError",
        "WriteTimeoutError",
    ],
    "manifest": ["Manifest", "Record", "RunRecord", "read_manifest"],
    "results": ["Results", "open_results"],
    "resume": ["PendingSampler", "pending"],
    "service": ["BackgroundWriter"],
    "targets": ["LocalTarget", "PathTarget", "Target"],
    "types": ["Origin", "Run", "WriterStats"],
    "writers": [
        "Encoder",
        "WriterRegistry",
        "encoder",
        "write_image_2d",
        "write_image_3d",
        "write_tensor",
        "write_text",
        "writer_registry",
    ],
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "AsyncBackgroundWriter",
    "BackendUnavailableError",
    "BackgroundWriter",
    "BaseWriter",
    "ClosedError",
    "DuplicateNameError",
    "Encoder",
    "FileWriter",
    "FlushTimeoutError",
    "InvalidNameError",
    "LighterAsyncError",
    "LocalTarget",
    "Manifest",
    "NameTakenError",
    "Origin",
    "PathTarget",
    "PendingSampler",
    "QueueFullError",
    "ReadError",
    "Record",
    "Results",
    "ResumeError",
    "Run",
    "RunRecord",
    "Target",
    "WorkerDiedError",
    "WriteError",
    "WriteTimeoutError",
    "WriterRegistry",
    "WriterStats",
    "encoder",
    "open_results",
    "pending",
    "read_manifest",
    "write_image_2d",
    "write_image_3d",
    "write_tensor",
    "write_text",
    "writer_registry",
]


def __getattr__(name: str) -> Any:
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
