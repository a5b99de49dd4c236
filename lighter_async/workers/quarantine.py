"""Values that could not be written, kept beside their errors, so that they need not be computed again."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import traceback
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any, get_args

from lighter_async.errors import WriteError, describe
from lighter_async.names import RESERVED_PREFIX, check_name
from lighter_async.types import Durability, Origin, Run
from lighter_async.whole_files import new_token, publish
from lighter_async.without_links import list_below, make_folders, open_below, read_below, remove_below
from lighter_async.workers.plain_values import NotPlainError, from_plain, to_plain
from lighter_async.writers import RecordedOptions

__all__ = ["Kept", "NeedsTrustError", "Quarantine", "kept_in"]

_FOLDER = f"{RESERVED_PREFIX}/quarantine"
_VALUE, _ERROR = "value.pt", "error.json"
_MOST_ABOUT = 1 << 20  # bytes of an error.json
_MOST_TEXT = 100_000  # characters of an error, and of a traceback: its end tells most
_LARGEST = 1 << 63
_counter = itertools.count()


class NeedsTrustError(ValueError):
    """A value that cannot be loaded without running, or taking on trust, what its file says."""


@dataclass(frozen=True)
class Quarantine:
    """Keeps values, each in a folder of its own below ``.lighter-async/quarantine``.

    Attributes:
        directory: Where the results are.
        run: Which run, and which of its ranks.
        durability: What its files outlive.
        options: The writer's.
    """

    directory: str
    run: Run
    durability: Durability = "rename"
    options: RecordedOptions = dataclasses.field(default_factory=RecordedOptions)

    def keep(self, value: Any, failure: WriteError, origin: Origin | None, index: int) -> str:
        """Keep a value; returns the folder.

        Args:
            value: As it was handed over.
            failure: Why it was not written.
            origin: Where its batch comes from.
            index: Which of the batch it is.

        Raises:
            Exception: It could not be kept.
        """
        import io

        import torch

        buffer = io.BytesIO()
        try:
            torch.save(to_plain(value), buffer)
            is_plain = True
        except (NotPlainError, RecursionError):
            buffer = io.BytesIO()
            torch.save(value, buffer, pickle_protocol=5)  # lower ones lose the byte order of numpy's arrays
            is_plain = False
        below = f"{_FOLDER}/{new_token()}-{next(_counter):06}"
        os.makedirs(self.directory, exist_ok=True)
        make_folders(self.directory, below)
        folder = os.path.join(self.directory, below)
        cause = failure.cause
        about = {
            "name": failure.name,
            "writer": failure.writer,
            "options": self.options.given,
            "lost_options": self.options.lost,
            "attempts": failure.attempts,
            "error": describe(failure)[:_MOST_TEXT],
            "traceback": "" if cause is None else "".join(traceback.format_exception(cause))[-_MOST_TEXT:],
            "plain": is_plain,
            "key": self.run.key,
            "rank": self.run.rank,
            "run": self.run.id,
            "durability": self.durability,
            "loader": 0 if origin is None else origin.loader,
            "batch": None if origin is None else origin.batch,
            "index": None if origin is None or origin.indices is None else int(origin.indices[index]),
            "time": round(time(), 3),
        }
        publish(os.path.join(folder, _VALUE), [buffer.getbuffer()])
        # Last, so that where there is an error there is its value.
        publish(os.path.join(folder, _ERROR), [memoryview(json.dumps(about, indent=1).encode())])
        return folder


@dataclass(frozen=True)
class Kept:
    """A value in quarantine.

    Attributes:
        folder: Where it is.
        about: Its name, writer, error and origin.
    """

    folder: Path
    about: dict[str, Any]

    @property
    def options(self) -> RecordedOptions | None:
        """The options of the writer that failed; None where an earlier version has kept the value."""
        if "options" not in self.about:
            return None
        return RecordedOptions(self.about["options"], tuple(self.about.get("lost_options", ())))

    @property
    def since(self) -> int:
        """When it was kept: nanoseconds, by the file system's clock."""
        return os.lstat(self.folder / _VALUE).st_mtime_ns

    def value(self, *, trust: bool = False) -> Any:
        """The value.

        Args:
            trust: Whether it may be unpickled, which runs whatever its file says, and takes what memory that says.

        Raises:
            NeedsTrustError: It has to be unpickled.
            Exception: It cannot be loaded.
        """
        import torch

        from lighter_async.workers.untrusted_files import read_untrusted  # here, since helpers only keep values

        is_plain = self.about.get("plain") is True
        with open(open_below(self._root, f"{self._below}/{_VALUE}"), "rb") as opened:
            if trust:
                found = torch.load(opened, weights_only=is_plain)
                return from_plain(found) if is_plain else found
            try:
                found = read_untrusted(opened)
                return from_plain(found, most=os.fstat(opened.fileno()).st_size) if is_plain else found
            except OSError:
                raise
            except Exception as error:
                if is_plain:
                    raise NeedsTrustError(f"its file is not as this package writes one ({describe(error)})") from error
                raise NeedsTrustError("it is stored as a pickle, which runs code as it is loaded") from error

    def release(self) -> None:
        """Remove it, once it is written."""
        for name in (_ERROR, _VALUE):
            try:
                remove_below(self._root, f"{self._below}/{name}", reserved=True)
            except FileNotFoundError:
                continue
        for folder in (self.folder, self.folder.parent):
            try:
                folder.rmdir()
            except OSError:
                return

    @property
    def _root(self) -> Path:
        return self.folder.parents[2]

    @property
    def _below(self) -> str:
        return f"{_FOLDER}/{self.folder.name}"


def kept_in(
    directory: str | os.PathLike[str],
    *,
    skipped: Callable[[str], object] = lambda text: None,
    known: Container[str] = (),
) -> Iterator[Kept]:
    """The values in quarantine, in the order of their folders' names.

    Args:
        directory: Where the results are.
        skipped: Told of each that is left out, for its error is none that this package has written.
        known: The names of folders that are left out.
    """
    for name in sorted(list_below(directory, _FOLDER)):
        if name in known:
            continue
        folder = Path(directory, _FOLDER, name)
        try:
            content = read_below(directory, f"{_FOLDER}/{name}/{_ERROR}", _MOST_ABOUT)
            about = json.loads(content)
            _check(about)
        except FileNotFoundError:
            continue  # its error comes last
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            skipped(f"{folder} is left out, for its {_ERROR} is not valid: {describe(error)}")
            continue
        yield Kept(folder, about)


def _check(about: Any) -> None:
    """Whether an error is as `Quarantine.keep` writes it.

    Raises:
        ValueError, TypeError, KeyError: It is not.
    """
    if type(about) is not dict:
        raise TypeError("it is no object")
    for field in ("name", "writer", "error", "key", "run"):
        if type(about[field]) is not str:
            raise TypeError(f"{field!r} is no text")
    check_name(about["name"])
    for field in ("rank", "loader"):
        if type(about[field]) is not int or not 0 <= about[field] < _LARGEST:
            raise ValueError(f"{field!r} is no number from 0 on")
    for field in ("batch", "index"):
        number = about[field]
        if number is not None and (type(number) is not int or not -_LARGEST <= number < _LARGEST):
            raise ValueError(f"{field!r} is no number")
    if type(about["time"]) not in (int, float) or not abs(about["time"]) < _LARGEST:
        raise ValueError("'time' is no time")
    lost = about.get("lost_options", [])
    if (
        type(about.get("options", {})) is not dict
        or type(lost) is not list
        or not all(type(one) is str for one in lost)
    ):
        raise TypeError("'options' are none")
    if about.get("durability", "rename") not in get_args(Durability):
        raise ValueError("'durability' is none that there is")
