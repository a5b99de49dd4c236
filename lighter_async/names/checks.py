"""Which names may become files.

A name is a relative path with ``/`` between folders. Together with a writer's suffix it becomes a file name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, SupportsIndex, TypeAlias

from lighter_async.errors import InvalidNameError, shown

__all__ = [
    "RESERVED_PREFIX",
    "TABLES_FOLDER",
    "Name",
    "check_name",
    "check_names",
    "check_object",
    "name_of",
    "with_suffix",
    "with_suffixes",
]

RESERVED_PREFIX = ".lighter-async"
"""Files and folders beginning with this are the library's own."""

TABLES_FOLDER = f"{RESERVED_PREFIX}/tables/"
"""What the paths of the files begin with in which the rows of tables lie; a folder for each table."""

Name: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes] | SupportsIndex"
"""What a sample may be called: a text, a path (also in bytes, as `os` takes it), or a whole number, also as a scalar of
numpy or torch; no bool."""

# Folders that have to be looked at one by one.
_HARD_FOLDER = re.compile(r"//|/\.|/\0|\0/")
# Texts of names that begin or end so are looked at one by one, too: an empty name, a dot, an absolute path, a folder.
_HARD_BEGINS = frozenset({"", "\0", ".", "/"})
_HARD_ENDS = frozenset({"", "\0", "/"})
_WINDOWS = os.name == "nt"
_WINDOWS_REFUSED = re.compile(r'[<>:"\\|?*\x01-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)


def name_of(item: Any, what: str) -> str:
    """A name as a text: of a text, a number, a path (with ``/`` between folders, also in bytes), or a scalar.

    Args:
        item: What a user gave.
        what: What it is, for the message.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(item, str):
        return str.__str__(item)  # of a subclass, such as numpy's or an enum's, the text itself
    if isinstance(item, PurePath):
        return item.as_posix()
    value = item.item() if hasattr(item, "item") and getattr(item, "ndim", 0) == 0 else item
    if isinstance(value, (bytes, os.PathLike)):
        return os.fsdecode(value).replace(os.sep, "/")
    if isinstance(value, bool):  # a number to Python, but a flag to whoever has it
        raise TypeError(f"{what} is {value}, which is no name; write str(name) where that is meant")
    if isinstance(value, (str, int, float)):
        return str(value)
    raise TypeError(
        f"{what} is {type(value).__name__}: {shown(value)}; a name is a text, a number, a path or a scalar tensor"
    )


def with_suffix(name: str, suffix: str) -> str:
    """The file name of a sample: the suffix is appended unless the name ends in it.

    So ``case.1`` and ``case.2`` stay two files, and ``photo.png`` does not become ``photo.png.png``.
    """
    return name if name.endswith(suffix) else name + suffix


def with_suffixes(names: Sequence[str], suffix: str) -> list[str]:
    """The file names of a batch."""
    if not suffix:
        return list(names)
    files = [name + suffix for name in names]
    if suffix * 2 in "\0".join(files):  # one may end in it
        return [with_suffix(name, suffix) for name in names]
    return files


def check_names(names: Sequence[str]) -> None:
    """Refuse names that cannot be one file each below a directory, whatever the file system.

    Raises:
        InvalidNameError: Empty, absolute, climbing out with ``..``, with an empty component or a NUL, not encodable,
            or reserved.
    """
    # Nearly all names are of letters and digits, so they are looked at together first: the loop waits meanwhile.
    text = "\0".join(names)
    if (
        text.isascii()
        and text.count("\0") == len(names) - 1
        and "\0\0" not in text
        and "\0." not in text
        and text[:1] not in _HARD_BEGINS
        and text[-1:] not in _HARD_ENDS
        and ("/" not in text or not _HARD_FOLDER.search(text))
        and not _WINDOWS
    ):
        return
    for name in names:
        check_name(name)


def check_name(name: str) -> None:
    """Refuse a name that cannot be one file below a directory, whatever the file system.

    Raises:
        InvalidNameError: Empty, absolute, climbing out with ``..``, with an empty component or a NUL, not encodable,
            or reserved.
    """
    if not name:
        raise InvalidNameError("a sample has an empty name; give every sample a name of at least one character")
    if "\0" in name:
        raise InvalidNameError(f"name {shown(name)} holds a NUL character, which no file system stores; remove it")
    if name.startswith("/"):
        raise InvalidNameError(
            f"name {shown(name)} is an absolute path; names are relative to the writer's directory "
            "(os.path.relpath(path, root) makes one)"
        )
    if not name.isascii():
        try:
            encoded = os.fsencode(name)
        except UnicodeEncodeError as error:
            raise InvalidNameError(f"name {shown(name)} cannot be encoded as a file name: {error}") from error
        if os.fsdecode(encoded) != name:
            raise InvalidNameError(
                f"name {shown(name)} and {shown(os.fsdecode(encoded))} are one file name; "
                "os.fsdecode(os.fsencode(name)) makes the usual one of both"
            )
    if not (_WINDOWS or "/" in name or name[0] == "."):
        return
    for component in name.split("/"):
        if component == "..":
            raise InvalidNameError(f"name {shown(name)} climbs out of the writer's directory; remove the '..'")
        if component in ("", "."):
            raise InvalidNameError(
                f"name {shown(name)} has a component {shown(component)}, so that two names could mean one file; "
                "os.path.normpath(name) removes it"
            )
        if component.startswith(RESERVED_PREFIX):
            raise InvalidNameError(
                f"name {shown(name)} is reserved: {RESERVED_PREFIX}* are files of lighter_async itself"
            )
        if _WINDOWS and _WINDOWS_REFUSED.search(component):
            raise InvalidNameError(f"name {shown(name)} is not a file name on Windows: {shown(component)}")


def check_object(name: str) -> None:
    """Check where samples are said to lie: below a directory, and in the library's own folder only rows of tables.

    Raises:
        InvalidNameError: It cannot be there.
    """
    check_name(name.removeprefix(TABLES_FOLDER))
