"""Asynchronous background writer for inference: predictions reach the disk while the loop goes on.

The names below are imported when they are first used, so that ``import lighter_async`` needs neither torch nor
Lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lighter_async.lazily import on_first_use

__version__ = "0.2.0"

# The public names, by the module that each is in.
_ROOMS = {
    "aio": ["AsyncBackgroundWriter"],
    "callback": ["ArrayWriter", "BaseWriter", "CsvWriter", "FileWriter", "TableWriter"],
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
    "targets": ["ArrayTarget", "LocalTarget", "PathTarget", "TableTarget", "TarShards", "Target"],
    "types": ["Origin", "Run", "WriterStats"],
    "writers": [
        "Encoder",
        "WriterRegistry",
        "encoder",
        "write_image_2d",
        "write_image_3d",
        "write_jpeg",
        "write_json",
        "write_nifti",
        "write_npy",
        "write_safetensors",
        "write_tensor",
        "write_text",
        "write_tiff",
        "write_webp",
        "writer_registry",
    ],
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_ROOM_OF)

if TYPE_CHECKING:  # the same once more, as type checkers read it; a test compares the two
    from lighter_async.aio import AsyncBackgroundWriter as AsyncBackgroundWriter
    from lighter_async.callback import ArrayWriter as ArrayWriter
    from lighter_async.callback import BaseWriter as BaseWriter
    from lighter_async.callback import CsvWriter as CsvWriter
    from lighter_async.callback import FileWriter as FileWriter
    from lighter_async.callback import TableWriter as TableWriter
    from lighter_async.errors import BackendUnavailableError as BackendUnavailableError
    from lighter_async.errors import ClosedError as ClosedError
    from lighter_async.errors import DuplicateNameError as DuplicateNameError
    from lighter_async.errors import FlushTimeoutError as FlushTimeoutError
    from lighter_async.errors import InvalidNameError as InvalidNameError
    from lighter_async.errors import LighterAsyncError as LighterAsyncError
    from lighter_async.errors import NameTakenError as NameTakenError
    from lighter_async.errors import QueueFullError as QueueFullError
    from lighter_async.errors import ReadError as ReadError
    from lighter_async.errors import ResumeError as ResumeError
    from lighter_async.errors import WorkerDiedError as WorkerDiedError
    from lighter_async.errors import WriteError as WriteError
    from lighter_async.errors import WriteTimeoutError as WriteTimeoutError
    from lighter_async.manifest import Manifest as Manifest
    from lighter_async.manifest import Record as Record
    from lighter_async.manifest import RunRecord as RunRecord
    from lighter_async.manifest import read_manifest as read_manifest
    from lighter_async.results import Results as Results
    from lighter_async.results import open_results as open_results
    from lighter_async.resume import PendingSampler as PendingSampler
    from lighter_async.resume import pending as pending
    from lighter_async.service import BackgroundWriter as BackgroundWriter
    from lighter_async.targets import ArrayTarget as ArrayTarget
    from lighter_async.targets import LocalTarget as LocalTarget
    from lighter_async.targets import PathTarget as PathTarget
    from lighter_async.targets import TableTarget as TableTarget
    from lighter_async.targets import Target as Target
    from lighter_async.targets import TarShards as TarShards
    from lighter_async.types import Origin as Origin
    from lighter_async.types import Run as Run
    from lighter_async.types import WriterStats as WriterStats
    from lighter_async.writers import Encoder as Encoder
    from lighter_async.writers import WriterRegistry as WriterRegistry
    from lighter_async.writers import encoder as encoder
    from lighter_async.writers import write_image_2d as write_image_2d
    from lighter_async.writers import write_image_3d as write_image_3d
    from lighter_async.writers import write_jpeg as write_jpeg
    from lighter_async.writers import write_json as write_json
    from lighter_async.writers import write_nifti as write_nifti
    from lighter_async.writers import write_npy as write_npy
    from lighter_async.writers import write_safetensors as write_safetensors
    from lighter_async.writers import write_tensor as write_tensor
    from lighter_async.writers import write_text as write_text
    from lighter_async.writers import write_tiff as write_tiff
    from lighter_async.writers import write_webp as write_webp
    from lighter_async.writers import writer_registry as writer_registry


__getattr__ = on_first_use(__name__, _ROOM_OF)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
