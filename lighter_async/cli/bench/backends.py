"""The backends, and which of them a writer can have here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lighter_async.cli.bench.folders import insist
from lighter_async.errors import LighterAsyncError
from lighter_async.service import BackgroundWriter

__all__ = ["BACKENDS", "refusal", "running_writer"]

BACKENDS = ("thread", "process")
"""The backends, the cheaper one first."""


def refusal(backend: str, writer: str) -> str | None:
    """Why a writer cannot have a backend on this system; None if it can have it."""
    try:
        _make(writer, Path("nowhere"), backend=backend)
    except ValueError as error:
        return str(error)
    return None


@contextlib.contextmanager
def running_writer(writer: str, folder: Path, *, backend: str, **options: Any) -> Iterator[BackgroundWriter]:
    """A started writer, closed at the end. After an error or Ctrl-C its queue is dropped, since nobody needs the files.

    Raises:
        WriteError: Samples were not written.
    """
    background = _make(writer, folder, backend=backend, **options)
    try:
        background.start()
        yield background
    except BaseException:
        with contextlib.suppress(LighterAsyncError):  # the error that is being raised matters more
            insist(background.abort)
        raise
    background.close()


def _make(writer: str, folder: Path, *, backend: str, **options: Any) -> BackgroundWriter:
    return BackgroundWriter(writer, folder, **{"backend": backend, **options})
