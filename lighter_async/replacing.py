"""Whether a run that begins anew replaces what an earlier one has stored, which it warns of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lighter_async.errors import LighterAsyncError
from lighter_async.locks import held_by
from lighter_async.manifest.line import OutputName
from lighter_async.manifest.reader import runs_in
from lighter_async.names import RESERVED_PREFIX
from lighter_async.notices import warn
from lighter_async.store import UNSEALED
from lighter_async.types import Run

__all__ = ["WAY_OUT", "holds_files", "warn_of_existing", "warn_of_replaced"]


WAY_OUT = (
    "resume=True goes on with them, if_exists='skip' keeps them, and if_exists='overwrite' says that this is meant"
)
"""What to say where these are options."""


def warn_of_existing(
    directory: Path, object: str | None, run: Run, outputs: Sequence[OutputName], *, way_out: str
) -> None:
    """Warn of results of earlier runs that a run is about to replace, which has not begun yet.

    Runs that are at work beside it add to the same results, and other writers' results are not replaced.

    Args:
        directory: Where the results go.
        object: The file of the directory that all samples become, if it is one.
        run: The run.
        outputs: What it stores of each sample.
        way_out: What can be done about it.
    """
    place = directory if object is None else directory / object
    try:
        if _is_there(place, object) and _is_replaced(directory, object, run, outputs):
            warn_of_replaced(place, way_out)
    except (LighterAsyncError, OSError):
        pass  # opening it tells what is wrong


def warn_of_replaced(place: Path, way_out: str) -> None:
    """Warn that there are predictions at a place, which will be replaced."""
    warn(f"{place} already exists, existing predictions will be overwritten{way_out and f'; {way_out}'}")


def holds_files(folder: Path) -> bool:
    """Whether there is anything in a folder that is none of this package's own."""
    with os.scandir(folder) as entries:
        return any(not entry.name.startswith(RESERVED_PREFIX) for entry in entries)


def _is_there(place: Path, object: str | None) -> bool:
    if object is None:
        return place.is_dir() and holds_files(place)
    return place.exists() or place.with_name(object + UNSEALED).exists()


def _is_replaced(directory: Path, object: str | None, run: Run, outputs: Sequence[OutputName]) -> bool:
    series = {(one.writer, one.key) for one in outputs}
    at_work = {run.id, *held_by(os.path.join(directory, RESERVED_PREFIX))}
    is_recorded = False
    for one in runs_in(directory):
        is_recorded = True
        if one.series in series and one.run not in at_work:
            return True
    if is_recorded or run.world_size > 1:  # another rank may have begun already
        return False
    if object is not None:
        return True
    suffixes = tuple(one.suffix for one in outputs if one.suffix)
    with os.scandir(directory) as entries:
        return any(entry.name.endswith(suffixes) for entry in entries)
