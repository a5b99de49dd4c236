"""Which directories of results lie below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lighter_async.errors import LighterAsyncError
from lighter_async.manifest.reader import manifest_files
from lighter_async.names import RESERVED_PREFIX
from lighter_async.store import source_of
from lighter_async.without_links import walk_below

__all__ = ["Chosen", "choose", "results_below"]


@dataclass(frozen=True)
class Chosen:
    """What is to be looked at.

    Attributes:
        places: Directories of results, arrays and tables, each once.
        found: Those that were found below a folder that has no results of its own, by that folder.
    """

    places: list[Path]
    found: dict[Path, list[Path]]


def choose(given: Iterable[Path]) -> Chosen:
    """What is meant: the places that are given, and for a folder without results those below it, if there are any.

    Args:
        given: Directories, arrays and tables.
    """
    places: dict[str, Path] = {}
    found: dict[Path, list[Path]] = {}
    for place in given:
        below = [] if source_of(place).key is not None or _has_results(place) else results_below(place)
        if below:
            found[place] = below
        for one in below or [place]:
            places.setdefault(os.path.realpath(one), one)
    return Chosen(list(places.values()), found)


def results_below(folder: Path) -> list[Path]:
    """The directories of results below a folder, in the order of their paths; links are not followed."""
    return sorted(
        folder / below for below, _ in walk_below(folder, but=RESERVED_PREFIX) if below and _has_results(folder / below)
    )


def _has_results(folder: Path) -> bool:
    try:
        return bool(manifest_files(folder))
    except LighterAsyncError:  # there is a link in the records' place, which whoever reads them says
        return True
    except OSError:  # it may not be listed, or no path reaches it
        return False
