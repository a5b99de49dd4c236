"""What is said of a table in files beside its rows, each of which is written by one process at a time."""

from __future__ import annotations

import json
import os
from typing import Any

from lighter_async.whole_files import publish, remove, temporary_token
from lighter_async.without_links import list_below, read_below

__all__ = ["read_beside", "write_beside"]

_LARGEST = 1 << 28  # bytes


def read_beside(folder: str, file: str) -> Any:
    """What a file says, as JSON.

    Raises:
        OSError: It is not there, or is no file.
        ValueError: It is not valid.
    """
    try:
        return json.loads(read_below(folder, file, _LARGEST))
    except RecursionError as error:
        raise ValueError(f"{file!r} in {folder!r} is nested too deeply") from error


def write_beside(folder: str, file: str, about: Any) -> None:
    """Write a file anew, and remove what others have left that were killed while they did. The caller is alone in it.

    Raises:
        OSError: It cannot be written. What was there stays.
    """
    token = file.partition(".")[0]
    for one in list_below(os.path.dirname(folder), os.path.basename(folder)):
        if temporary_token(one) == token:
            remove(os.path.join(folder, one))
    publish(os.path.join(folder, file), [memoryview(json.dumps(about).encode())], token=token)
