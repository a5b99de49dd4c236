"""Which file keeps a name: this run's, an earlier run's, or another rank's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from lighter_async.errors import NameTakenError, describe
from lighter_async.locks import alone_in
from lighter_async.names import RESERVED_PREFIX
from lighter_async.notices import notify
from lighter_async.types import IfExists
from lighter_async.whole_files import name_part, remove, set_aside

__all__ = ["Precedence"]


class Precedence:
    """Gives temporary files their names below a directory, where there may be files of those names.

    A file that is older than the run is an earlier run's; a newer one is this run's own, or another rank's.

    Args:
        root: The directory.
        since: Nanoseconds, by the file system's clock, from which on files are this run's.
        is_alone: Whether the run has one rank, so that nobody else names files.
    """

    def __init__(self, root: str, *, since: int | None, is_alone: bool) -> None:
        self._root = root
        self._since = since
        self._is_alone = is_alone

    def is_kept(self, name: str) -> bool:
        """Whether there is a file that stays where those of earlier runs do."""
        path = f"{self._root}/{name}"
        return _is_sample(path) if self._is_alone else self._is_of_earlier_run(path)

    def is_of_earlier_run(self, name: str) -> bool:
        """Whether there is a file of an earlier run."""
        return self._is_of_earlier_run(f"{self._root}/{name}")

    def publish(self, temporary: str, name: str, *, replace_own: bool, if_exists: IfExists) -> bool:
        """Give a temporary file its name, or remove it.

        Args:
            temporary: Its path.
            name: The name.
            replace_own: Whether it may replace a file that this run has stored.
            if_exists: What becomes of a file of an earlier run.

        Returns:
            Whether it has the name now; False if a file of an earlier run was kept.

        Raises:
            FileExistsError: There is one of an earlier run, and ``if_exists="error"``.
            NameTakenError: Another rank of this run has stored a sample under the name.
            OSError: It could not be named.
        """
        path = f"{self._root}/{name}"
        try:
            if if_exists == "overwrite" and self._is_alone:
                name_part(temporary, path, replace=True)
                return True
            try:
                name_part(temporary, path, replace=False, alone=self._alone_in_replacing)
                return True
            except FileExistsError as error:
                stored = self._publish_beside(temporary, path, error, replace_own=replace_own, if_exists=if_exists)
                if not stored:
                    remove(temporary)
                return stored
        except BaseException as error:
            # A link may have been made although the system says that it failed, as over a network.
            is_stored = isinstance(error, OSError) and _is_same(temporary, path)
            remove(temporary)
            if is_stored:
                return True
            raise

    def set_aside(self, names: Sequence[str], *, token: str) -> list[tuple[str, str]]:
        """Give the files of earlier runs that are about to be replaced temporary names.

        Args:
            names: The files. There may be none of a name.
            token: Of the temporary names.

        Returns:
            The temporary path of each, and the name it had.

        Raises:
            OSError: One cannot be renamed. Then none of them is.
        """
        aside: list[tuple[str, str]] = []
        try:
            for name in names:
                if not self.is_kept(name):
                    continue
                with nullcontext() if self._is_alone else self._alone_in_replacing():
                    # Looked at once more, since another rank may have put its own file there.
                    if self.is_kept(name):
                        aside.append((set_aside(f"{self._root}/{name}", token=token), name))
        except BaseException:
            self.put_back(aside)
            raise
        return aside

    def put_back(self, aside: Sequence[tuple[str, str]]) -> None:
        """Give files that were set aside their names again, but for those whose names another rank has taken.

        A file that does not get its name back is kept, and told on stderr.
        """
        for temporary, name in aside:
            path = f"{self._root}/{name}"
            try:
                name_part(temporary, path, replace=False)
            except FileExistsError:
                remove(temporary)
            except OSError as error:
                notify(
                    f"{path!r} of an earlier run could not be given its name back ({describe(error)}); it lies in "
                    f"{temporary!r}, and the next writer clears that: move it before"
                )

    def _publish_beside(
        self, temporary: str, path: str, error: FileExistsError, *, replace_own: bool, if_exists: IfExists
    ) -> bool:
        """Where there is a file: replace it, keep it, or say whose it is."""
        if not _is_sample(path):
            raise error
        if not self._is_of_earlier_run(path):
            if replace_own:
                name_part(temporary, path, replace=True)
                return True
            if not self._is_alone:
                raise NameTakenError(f"another rank of this run has stored a sample as {path!r}") from None
        if if_exists == "skip":
            return False
        if if_exists == "error":
            raise FileExistsError(
                f"{path!r} exists already; remove it, or choose if_exists='overwrite' or 'skip'"
            ) from error
        with self._alone_in_replacing():
            # Looked at once more, since another rank may have been quicker.
            if not self._is_alone and os.path.lexists(path) and not self._is_of_earlier_run(path):
                raise NameTakenError(f"another rank of this run has stored a sample as {path!r}") from None
            name_part(temporary, path, replace=True)
        return True

    @contextmanager
    def _alone_in_replacing(self) -> Iterator[None]:
        """While it is open, no other rank replaces a file; the kernel ends it with the process.

        No rename can replace a file on condition, and one that moves it away first leaves a moment without it.
        """
        with alone_in(os.path.join(self._root, RESERVED_PREFIX, "replacing")):
            yield

    def _is_of_earlier_run(self, path: str) -> bool:
        """Whether there is a file that is older than this run."""
        try:
            status = os.lstat(path)
        except OSError:
            return False
        return not os.path.isdir(path) and (self._since is None or status.st_mtime_ns < self._since)


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.lstat(other))
    except OSError:
        return False


def _is_sample(path: str) -> bool:
    """Whether there is a file, or a link that may lead to one somewhere; a folder is no sample that could be kept."""
    return os.path.lexists(path) and not os.path.isdir(path)
