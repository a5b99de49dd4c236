"""Values that could not be written, kept beside their errors, so that they need not be computed again."""

from __future__ import annotations

import itertools
import json
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

from lighter_async.errors import WriteError, describe
from lighter_async.files import new_token, publish
from lighter_async.names import RESERVED_PREFIX
from lighter_async.types import Durability, Origin, Run

__all__ = ["Kept", "Quarantine", "kept_in"]

_FOLDER = f"{RESERVED_PREFIX}/quarantine"
_VALUE, _ERROR = "value.pt", "error.json"
_counter = itertools.count()


@dataclass(frozen=True)
class Quarantine:
    """Keeps values, each in a folder of its own below ``.lighter-async/quarantine``.

    Attributes:
        directory: Where the results are.
        run: Which run, and which of its ranks.
        durability: What its files outlive.
    """

    directory: str
    run: Run
    durability: Durability = "rename"

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
        torch.save(value, buffer, pickle_protocol=5)  # lower ones lose the byte order of numpy's arrays
        folder = os.path.join(self.directory, _FOLDER, f"{new_token()}-{next(_counter)}")
        os.makedirs(folder)
        cause = failure.cause
        about = {
            "name": failure.name,
            "writer": failure.writer,
            "attempts": failure.attempts,
            "error": describe(failure),
            "traceback": "" if cause is None else "".join(traceback.format_exception(cause)),
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
    def since(self) -> int:
        """When it was kept: nanoseconds, by the file system's clock."""
        return os.lstat(self.folder / _VALUE).st_mtime_ns

    def value(self) -> Any:
        """The value. It is unpickled, so it may be of any type that can be imported here."""
        import torch

        return torch.load(self.folder / _VALUE, weights_only=False)

    def release(self) -> None:
        """Remove it, once it is written."""
        for name in (_ERROR, _VALUE):
            (self.folder / name).unlink(missing_ok=True)
        for folder in (self.folder, self.folder.parent):
            try:
                folder.rmdir()
            except OSError:
                return


def kept_in(directory: str | os.PathLike[str]) -> Iterator[Kept]:
    """The values in quarantine, in the order of their folders' names."""
    for path in sorted(Path(directory, _FOLDER).glob(f"*/{_ERROR}")):
        yield Kept(path.parent, json.loads(path.read_text()))
