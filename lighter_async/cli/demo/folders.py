"""The demo's folders, and what it may remove in them."""

from __future__ import annotations

import shutil
from pathlib import Path

from lighter_async.names import RESERVED_PREFIX
from lighter_async.without_links import walk_below

__all__ = ["files_below", "prepare_folder"]

# It begins like the writers' own files, which do not count as predictions.
_MARKER = f"{RESERVED_PREFIX}-demo"


def prepare_folder(folder: Path) -> None:
    """Make a folder for results. One that an earlier demo has made is emptied; any other is left as it is.

    Raises:
        OSError: It cannot be made.
    """
    marker = folder / _MARKER
    if marker.is_file() and not folder.is_symlink():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        marker.write_text("The demo of lighter-async made this folder, and removes it when it runs again.\n")


def files_below(folder: Path) -> set[str]:
    """The result files, relative to the folder, with ``/`` between folders."""
    return {
        f"{below}/{file}" if below else file
        for below, files in walk_below(folder, but=RESERVED_PREFIX)
        for file in files
        if file != _MARKER
    }
