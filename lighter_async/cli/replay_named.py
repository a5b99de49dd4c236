"""Which writer a kept value is written by: the one that failed, with its options and under its name."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lighter_async.errors import LighterAsyncError
from lighter_async.workers import Kept
from lighter_async.writers import (
    Encoder,
    Outputs,
    Writer,
    is_built_in,
    recorded_options,
    resolve_writer,
    writer_registry,
)

__all__ = ["WritersOfValues", "is_registered", "writer_named"]


def writer_named(name: str, *, given: bool) -> Any:
    """A writer as `BackgroundWriter` takes it.

    Raises:
        Exception: There is none of the name, or its module cannot be imported.
    """
    if ":" in name and not given and name not in writer_registry:
        raise ValueError("it is named by a module, and what an error says is never imported")
    resolve_writer(name)
    return name


def is_registered(name: str) -> bool:
    """Whether a writer of that name is known here, without importing what an error says."""
    try:
        writer_named(name, given=False)
    except Exception:
        return False
    return True


class WritersOfValues:
    """Gives the writer of each value, as `BackgroundWriter` takes it.

    Args:
        writers: By the names of those that failed, which are to be taken.
        given: The one among them that the user has named; None if they are those that errors name.
        trust: Whether writers of the user's are handed the options that errors tell.
    """

    def __init__(self, writers: dict[str, str], *, given: str | None, trust: bool) -> None:
        self._writers = writers
        self._given = given
        self._trust = trust
        self._known: dict[tuple[str, str], Any] = {}

    def of(self, one: Kept) -> Any:
        """The writer of a value.

        Raises:
            LighterAsyncError: The one that failed had options that are not recorded, or not trusted.
            Exception: They are not valid.
        """
        options = json.dumps([one.about.get("options"), one.about.get("lost_options")])
        known = str(one.about["writer"]), options
        if known not in self._known:
            self._known[known] = self._made(one)
        return self._known[known]

    def _made(self, one: Kept) -> Any:
        name = str(one.about["writer"])
        writer, options = self._writers[name], one.options
        found = resolve_writer(writer)
        if options is None or found.name != name:  # of an earlier version, or another writer, which is taken as it is
            return _under(name, found)
        is_given = writer == self._given
        own, lost = recorded_options(found).given, recorded_options(found).lost
        wanted = _with_own(options.given, own, several=isinstance(found, Outputs)) if is_given else options.given
        if wanted != own:
            if not is_built_in(found) and not self._trust:
                raise LighterAsyncError(
                    f"writer {name!r} was given options, {json.dumps(options.given):.200}, as its error says; give "
                    f"--trust to hand them over, if you trust all who can write to {one.folder}"
                )
            found = resolve_writer(writer, wanted)
        missing = [one for one in options.lost if one not in lost]  # a registered one may have them
        if missing and not (is_given and ":" in writer):
            raise LighterAsyncError(
                f"writer {name!r} had the option {missing[0]!r}, which could not be recorded; --writer module:name "
                "tells one that has it"
            )
        return _under(name, found)


def _with_own(given: Mapping[str, Any], own: Mapping[str, Any], *, several: bool) -> dict[str, Any]:
    """The options of the run, and over them those that the writer has which the user has named; but for the suffix."""
    if several:
        return {key: _with_own(given.get(key, {}), own.get(key, {}), several=False) for key in {**given, **own}}
    return {**given, **{name: value for name, value in own.items() if name != "suffix" or name not in given}}


def _under(name: str, writer: Writer) -> Any:
    """A writer under the name of the one that failed, for its samples are to be of that one's series."""
    if isinstance(writer, Outputs):
        return {one.key: one.encoder for one in writer.outputs}
    if isinstance(writer, Encoder):
        encoder = copy.copy(writer)
        encoder.name = name
        return encoder
    function = writer.function

    def call(path: Path, value: Any) -> Any:
        return function(path, value)

    async def call_async(path: Path, value: Any) -> None:
        await function(path, value)

    renamed = call_async if writer.is_async else call
    renamed.__name__ = name
    return renamed
