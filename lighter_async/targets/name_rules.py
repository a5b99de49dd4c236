"""Which names a directory can hold, as its file system has it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from lighter_async.errors import InvalidNameError

__all__ = ["NameRules"]

_KIND, _LINK = 0o170000, stat.S_IFLNK
_KNOWN_FOLDERS = 100_000
_TEMPORARY_LENGTH = 64  # at most, of a temporary file's name


class NameRules:
    """Refuses names that are too long for a directory, or whose folders cannot be made, or are links.

    Args:
        root: The directory, which exists; empty for the usual limits.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._name_max = 255
        self._path_max = 4096
        if root and hasattr(os, "pathconf"):
            self._name_max = _limit(root, "PC_NAME_MAX", self._name_max)
            self._path_max = _limit(root, "PC_PATH_MAX", self._path_max)
        # Folders that names may lie in. Only the submitting threads use it, and a race costs one more look.
        self._folders: set[str] = set()

    def check(self, names: Sequence[str]) -> None:
        """
        Raises:
            InvalidNameError: One, one of its folders, or the whole path is too long for the file system, or there is a
                file where it needs a folder.
        """
        # Together first, since nearly all are short: a character is at most four bytes.
        most = max(map(len, names))
        if most * 4 > self._name_max or (len(self._root) + most + _TEMPORARY_LENGTH) * 4 > self._path_max:
            for name in names:
                self._check_length(name)
        if "/" in "".join(names):
            for name in names:
                folder, slash, _ = name.rpartition("/")
                if slash and folder not in self._folders:
                    self._check_folder(name, folder)

    def _check_length(self, name: str) -> None:
        folder, _, file = name.rpartition("/")
        if len(os.fsencode(file)) > self._name_max:
            raise InvalidNameError(
                f"file name {file[:40]!r}... has {len(os.fsencode(file))} bytes, and {self._root!r} takes "
                f"{self._name_max}; shorten it"
            )
        # The temporary name beside it has to fit as well.
        longest = f"{self._root}/{folder}/{file if len(file) > _TEMPORARY_LENGTH else ' ' * _TEMPORARY_LENGTH}"
        if len(os.fsencode(longest)) >= self._path_max:
            raise InvalidNameError(f"the path of name {name[:40]!r}... has over {self._path_max} bytes; shorten it")

    def _check_folder(self, name: str, folder: str) -> None:
        """Refuse a name whose folder cannot be made, because it or a folder above it is a file."""
        components = folder.split("/")
        for component in components:
            if len(os.fsencode(component)) > self._name_max:
                raise InvalidNameError(
                    f"folder {component[:40]!r}... of name {name[:40]!r}... has over {self._name_max} bytes; shorten it"
                )
        path = self._root
        for component in components:
            path = f"{path}/{component}"
            if not os.path.lexists(path):
                break
            if os.path.islink(path):
                raise InvalidNameError(
                    f"name {name!r} needs a folder {path!r}, which is a link, and nothing is stored through one; "
                    "remove it, choose another name, or give the directory that it leads to"
                )
            if not os.path.isdir(path):
                raise InvalidNameError(
                    f"name {name!r} needs a folder {path!r}, but there is a file of that name; rename one of them"
                )
        if len(self._folders) >= _KNOWN_FOLDERS:
            self._folders.clear()
        self._folders.add(folder)

    def check_links(self, name: str) -> None:
        """Refuse a name of which a folder has become a link: what is stored through it would lie elsewhere."""
        end = name.find("/")
        while end >= 0:
            path = f"{self._root}/{name[:end]}"
            try:
                is_link = os.lstat(path).st_mode & _KIND == _LINK
            except OSError:
                return  # it is not there, and is made
            if is_link:
                raise InvalidNameError(f"the folder {path!r} of name {name!r} has become a link; remove it")
            end = name.find("/", end + 1)


def _limit(folder: str, name: str, usual: int) -> int:
    """A limit of a folder's file system; the usual one where it tells none."""
    try:
        told = os.pathconf(folder, name)
    except (OSError, ValueError, AttributeError):  # the last where the system has no such call
        return usual
    return told if told > 0 else usual
