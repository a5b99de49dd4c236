"""Targets and writers that fail as told, in this process or in helper processes, which import them from here."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lighter_async import LocalTarget
from lighter_async.manifest import ManifestLog
from lighter_async.workers import patience

__all__ = ["ERRORS", "PASSING", "FaultyTarget", "LastingError", "count", "fault", "hurry", "told"]


class RemoteError(Exception):
    """What a client of some server raises."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(f"the server said {attributes}")
        self.__dict__.update(attributes)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteError, (), self.__dict__


class Response:
    def __init__(self, status: int) -> None:
        self.status_code = status


class LastingError(ValueError):
    """A writer's own, that is the same at every attempt."""


def _caused() -> Exception:
    error = RemoteError()
    error.__cause__ = ConnectionResetError("by peer")
    return error


def _of_system(number: int) -> Callable[[], Exception]:
    return lambda: OSError(number, os.strerror(number))


_PASSING_NUMBERS = ("EIO", "ESTALE", "EAGAIN", "ETIMEDOUT", "EINTR", "ECONNRESET", "EBUSY")
_LASTING_NUMBERS = ("ENOSPC", "EDQUOT", "EACCES", "EFBIG", "EROFS", "ENAMETOOLONG")

PASSING: dict[str, Callable[[], Exception]] = {
    **{name: _of_system(getattr(errno, name)) for name in _PASSING_NUMBERS},
    "status_code": lambda: RemoteError(status_code=503),
    "status": lambda: RemoteError(status=500),
    "code": lambda: RemoteError(code=599),
    "response": lambda: RemoteError(response=Response(502)),
    "too many": lambda: RemoteError(status_code=429),
    "timeout": lambda: TimeoutError("no answer"),
    "refused": lambda: ConnectionRefusedError("not listening"),
    "caused": _caused,
}
"""Errors that may pass by themselves."""

ERRORS: dict[str, Callable[[], Exception]] = {
    **PASSING,
    **{name: _of_system(getattr(errno, name)) for name in _LASTING_NUMBERS},
    "ValueError": lambda: LastingError("no way to write it"),
    "not found": lambda: RemoteError(status_code=404),
    "bad request": lambda: RemoteError(response=Response(400)),
}
"""All errors that can be told to come, and how they are made."""


def hurry() -> None:
    """Have this process wait next to nothing before it tries again."""
    patience._FIRST_WAIT = patience._LONGEST_WAIT = patience._JITTER = 0.001
    patience._FIRST_LOOK = patience._RAREST_LOOK = 0.001


def count(folder: Path, name: str) -> int:
    """Count an event, of whatever process; returns how often it was counted.

    By itself, since `lighter_async.testing.Attempts` brings pytest into each helper.
    """
    with open(folder / quote(name, safe=""), "ab") as file:
        file.write(b"!")
        file.flush()
        return file.tell()


def told(folder: Path, name: str) -> int:
    """How often an event was counted."""
    try:
        return (folder / quote(name, safe="")).stat().st_size
    except FileNotFoundError:
        return 0


def fault(counts: Path, faults: Mapping[str, tuple[str, int]], name: str) -> None:
    """Raise what is to come at this attempt of a sample.

    Args:
        counts: Where attempts are counted.
        faults: For samples, an error and how often it comes.
        name: The sample.
    """
    kind, times = faults.get(name, ("", 0))
    if count(counts, name) <= times:
        raise ERRORS[kind]()


class FaultyTarget(LocalTarget):
    """A directory that fails as told, and has records: around others there is `lighter_async.testing.FaultyTarget`.

    Args:
        directory: Where.
        counts: Where attempts are counted.
        faults: For samples, an error and how often it comes.
        manifest: An error that writing to the manifest ends in, and how often.
        largest: Bytes that a file may have, by the system's own limit.
        waits: Seconds between two attempts; next to none by default.
        options: Of `LocalTarget`.
    """

    def __init__(
        self,
        directory: Path | str,
        counts: Path | None = None,
        faults: Mapping[str, tuple[str, int]] | None = None,
        *,
        manifest: tuple[str, int] | None = None,
        largest: int | None = None,
        waits: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(directory, **options)
        self.counts = counts
        self.faults = dict(faults or {})
        self.manifest = manifest
        self.largest = largest
        self.waits = waits

    def __reduce__(self) -> tuple[Any, ...]:
        make, arguments, state = super().__reduce__()
        own = {key: getattr(self, key) for key in ("counts", "faults", "manifest", "largest", "waits")}
        return make, arguments, {**state, **own}

    def open(self) -> None:
        if self._owner is not None:  # in a helper; in its own process a test patches what is to be patched
            hurry()
            if self.waits is not None:
                patience._FIRST_WAIT = patience._LONGEST_WAIT = patience._FIRST_LOOK = patience._RAREST_LOOK = (
                    self.waits
                )
            if self.manifest is not None:
                ManifestLog.append = self.failing_append(ManifestLog.append)  # type: ignore[method-assign]
            if self.counts is not None and "open" in self.faults:
                fault(self.counts, self.faults, "open")
        super().open()

    def failing_append(self, append: Callable[..., None]) -> Callable[..., None]:
        assert self.manifest is not None
        kind, times = self.manifest

        def failing(*arguments: Any, **options: Any) -> None:
            assert self.counts is not None
            if count(self.counts, "manifest") <= times:
                raise ERRORS[kind]()
            append(*arguments, **options)

        return failing

    def write(self, name: str, parts: Sequence[memoryview]) -> tuple[str, int]:
        if self.counts is not None:
            if (self.counts / "full").exists():
                count(self.counts, "refusals")
                raise ERRORS["ENOSPC"]()
            fault(self.counts, self.faults, name)
        if self.largest is None:
            return super().write(name, parts)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest, limits[1]))
        try:
            return super().write(name, parts)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
