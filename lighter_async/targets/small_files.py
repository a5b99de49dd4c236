"""Small files of equal size, stored one after the other with next to nothing between the calls to the system."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from lighter_async.whole_files import NEW, note_unremoved, temporary_name

__all__ = ["put_small_files"]


def put_small_files(
    root: str,
    files: Sequence[str],
    rows: NDArray[np.uint8],
    *,
    token: str,
    check_links: Callable[[str], None],
    put: Callable[[str, Sequence[memoryview]], bool],
    on_progress: Callable[[int], None],
) -> list[bool | BaseException]:
    """Write each file whole under a temporary name, then rename it, in the place of one that may be there.

    Whatever goes wrong with a file on this way, it is handed to `put`, which finds out what it is.

    Args:
        root: The directory.
        files: Their names, relative to it.
        rows: Their bytes: 2-d, a row for each.
        token: Of their temporary names.
        check_links: Refuses a name of which a folder has become a link.
        put: Stores a file by itself.
        on_progress: Called with the number of each file before it is stored. What it raises is raised.

    Returns:
        For each file what `put` returned or raised, or True.
    """
    size = rows.shape[1]
    content = memoryview(rows.data).cast("B")
    # One name for all, since each file has left it when the next one is written; in the file's own folder, which may
    # be on another file system, or have rules of its own about whose its files are.
    name = temporary = temporary_name(token)
    folder = ""
    outcomes: list[bool | BaseException] = []
    with _opened(root) as directory:
        for number, file in enumerate(files):
            on_progress(number)
            data = content[number * size : number * size + size]
            if directory is not None:
                try:
                    if "/" in file or folder:
                        check_links(file)
                        folder = file[: file.rfind("/") + 1]
                        temporary = folder + name
                    descriptor = os.open(temporary, NEW, 0o666, dir_fd=directory)
                    try:
                        written = os.write(descriptor, data)
                    finally:
                        os.close(descriptor)
                    if written == size:
                        os.replace(temporary, file, src_dir_fd=directory, dst_dir_fd=directory)
                        outcomes.append(True)
                        continue
                except Exception:
                    pass
                try:
                    os.unlink(temporary, dir_fd=directory)
                except FileNotFoundError:
                    pass
                except OSError:
                    note_unremoved(temporary)
            try:
                outcomes.append(put(file, (data,)))
            except Exception as error:
                outcomes.append(error)
    return outcomes


_HAS_RELATIVE = {os.open, os.rename, os.unlink} <= os.supports_dir_fd
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def _opened(root: str) -> Iterator[int | None]:
    """A descriptor of a directory, from which names are found sooner than along its path; None where there is none."""
    try:
        directory = os.open(root, _FOLDER) if _HAS_RELATIVE else None
    except OSError:  # it was removed, and `put` makes it anew
        directory = None
    try:
        yield directory
    finally:
        if directory is not None:
            os.close(directory)
