"""What writers have to say of the first values that are handed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lighter_async.notices import warn

__all__ = ["Remarks"]


class Remarks:
    """Warns once, in the thread that hands values over, of what a writer remarks on the first of them.

    Args:
        functions: By output, ``(values) -> str | None``. The key is None if a sample has only one output.

    Attributes:
        is_awaited: Whether a writer has still to look at the first values of an output.
    """

    def __init__(self, functions: Mapping[str | None, Callable[[Any], str | None]]) -> None:
        self._functions = dict(functions)
        self.is_awaited = bool(functions)

    def look_at(self, values: Any, key: str | None) -> None:
        """Look at the values of an output, one sample or several, unless some were looked at before.

        Raises:
            Warning: Where filters make errors of warnings. Nothing was handed over then.
        """
        if key not in self._functions or (type(values) in (list, tuple) and not values):
            return
        function = self._functions.pop(key, None)  # None if another thread is faster
        self.is_awaited = bool(self._functions)
        if function is None:
            return
        for value in values if type(values) in (list, tuple) else [values]:
            if text := function(value):
                warn(text if key is None else f"output {key!r}: {text}")
                return
