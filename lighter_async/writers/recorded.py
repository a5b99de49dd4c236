"""The options of writers as records have them: JSON, by which the same writer is made again.

So a value that was kept is written as its run would have written it, and what a decoder has to know of a file is known.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lighter_async.errors import shown
from lighter_async.writers.base import Encoder, PathFunction
from lighter_async.writers.dense import array_of, is_tensor
from lighter_async.writers.outputs import Outputs, Writer

__all__ = ["RecordedOptions", "as_stored", "recorded_options"]

_MOST_ITEMS = 4096  # of an option
_LONGEST = 1 << 16  # characters of all options


@dataclass(frozen=True, slots=True)
class RecordedOptions:
    """The options of a writer, as far as JSON has them.

    Attributes:
        given: By name, as `resolve_writer` takes them: of several outputs a dict for each.
        lost: The names of those that JSON does not have, such as functions.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


class _Lost(Exception):
    """JSON does not have a value as it is."""


def recorded_options(writer: Writer) -> RecordedOptions:
    """The options that a writer was given, its suffix among them."""
    if isinstance(writer, Outputs):
        of_each = {str(one.key): recorded_options(one.encoder) for one in writer.outputs}
        lost = [f"{key}.{name}" for key, options in of_each.items() for name in options.lost]
        return RecordedOptions({key: options.given for key, options in of_each.items() if options.given}, tuple(lost))
    if isinstance(writer, Encoder):
        return _recorded(writer.given_options(), lenient=writer.is_built_in)
    options = _options_of_function(writer)
    return RecordedOptions(lost=("its positional arguments",)) if options is None else _recorded(options, lenient=False)


def as_stored(encoder: Encoder, options: Mapping[str, Any], lost: Collection[str], *, trust: bool) -> Encoder:
    """An encoder that decodes what was stored with some options.

    Args:
        encoder: Without them.
        options: As they are recorded, which may be anybody's.
        lost: Those that could not be recorded.
        trust: Whether a decoder of the user's is to get them.

    Raises:
        TypeError: The decoder needs an option that is not recorded, or not trusted.
        Exception: As `Encoder.with_options`.
    """
    own = encoder.given_options()  # a registered one may have them
    if missing := [name for name in encoder.decoder_options(lost) if name not in own]:
        raise TypeError(
            f"it was stored with the option {missing[0]!r}, which could not be recorded; open_results(..., "
            f"decode=ENCODER) tells it, where ENCODER is the one with {missing[0]}=..."
        )
    wanted = {name: options[name] for name in encoder.decoder_options(options)}
    if wanted and not encoder.is_built_in and not trust:
        raise TypeError(
            f"it was stored with {', '.join(f'{name}={one!r:.60}' for name, one in wanted.items())}, as the directory "
            "says; open_results(..., trust=True) hands that to your decoder, if nobody but those whom you trust can "
            "write to the directory, and decode=ENCODER.with_options(...) says it here"
        )
    return encoder.with_options(**wanted) if wanted else encoder


def _options_of_function(writer: PathFunction) -> dict[str, Any] | None:
    """The options of a function ``(path, value)``; None if it was given more than these."""
    function = writer.function
    if not isinstance(function, functools.partial):
        return {}
    return None if function.args else function.keywords


def _recorded(options: Mapping[str, Any], *, lenient: bool) -> RecordedOptions:
    given: dict[str, Any] = {}
    lost: list[str] = []
    for name, value in options.items():
        try:
            given[name] = _plain(value, [None] * _MOST_ITEMS, lenient=lenient)
        except (_Lost, RecursionError):
            lost.append(name)
    if given and len(json.dumps(given)) > _LONGEST:
        return RecordedOptions(lost=tuple(options))
    return RecordedOptions(given, tuple(lost))


def _plain(value: Any, room: list[None], *, lenient: bool) -> Any:
    """A value of what JSON has.

    Args:
        value: An option.
        room: As many items as it may have; they are used up.
        lenient: Whether tuples and arrays may become lists, which our own writers take for them.

    Raises:
        _Lost: It is none, or has more items.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    is_list = kind is list or (lenient and kind is tuple)
    if is_list or kind is dict or (lenient and isinstance(value, Mapping)):
        if len(value) > len(room):
            raise _Lost
        del room[: len(value)]
        if is_list:
            return [_plain(one, room, lenient=lenient) for one in value]
        if not all(type(key) is str for key in value):
            raise _Lost
        return {key: _plain(one, room, lenient=lenient) for key, one in value.items()}
    if lenient and (isinstance(value, (np.ndarray, np.generic)) or is_tensor(value)):
        try:
            array = array_of(value, "an option")
        except TypeError as error:
            raise _Lost from error
        if array.dtype.kind in "biuf" and array.itemsize <= 8 and array.size <= len(room):
            return _plain(array.tolist(), room, lenient=True)
    raise _Lost(shown(value))
