"""What workers can be, and which of it a writer can have here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lighter_async.service import BackgroundWriter

__all__ = ["BACKENDS", "open_writer", "refusal"]

BACKENDS = ("thread", "process")
"""What workers can be, the cheaper first."""

_CHOICE = "backend" in inspect.signature(BackgroundWriter).parameters


def open_writer(writer: Callable[..., Any], folder: Path, *, backend: str, **options: Any) -> BackgroundWriter:
    """A writer that is not started yet.

    Raises:
        ValueError: This writer cannot have this backend on this system.
    """
    if not _CHOICE:
        if backend != "thread":
            raise ValueError("this version has worker threads only")
        return BackgroundWriter(writer, folder, **options)
    return BackgroundWriter(writer, folder, **{"backend": backend, **options})


def refusal(backend: str, writer: Callable[..., Any]) -> str | None:
    """Why a writer cannot have a backend on this system; None if it can."""
    try:
        open_writer(writer, Path("nowhere"), backend=backend)
    except ValueError as error:
        return str(error)
    return None
