"""Take the samples of a batch, and their names, from a model's outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lighter_async.errors import shown
from lighter_async.names import name_of
from lighter_async.staging import is_tensor

__all__ = ["entry", "names_of", "outputs_in", "samples_of"]


def entry(outputs: Any, key: str, option: str) -> Any:
    """The outputs' entry under a key.

    Raises:
        TypeError: The outputs are not a mapping.
        KeyError: There is no such key; the message lists the keys.
    """
    if not isinstance(outputs, Mapping):
        raise TypeError(
            f"FileWriter expects predict_step to return a dict with the key {key!r} ({option}), got "
            f"{type(outputs).__name__}; return {{{key!r}: ...}}"
        )
    if key not in outputs:
        keys = ", ".join(map(shown, outputs)) or "none"
        raise KeyError(
            f"FileWriter expected key '{key}' ({option}) in outputs but it was missing; "
            f"the keys there are: {keys[:1000]}"
        )
    return outputs[key]


def samples_of(value: Any) -> Any:
    """The samples in a value, as a tensor, an array or a sequence.

    A tensor or array with a batch dimension is one sample per row, a sequence one per item. A 0-d tensor or array, a
    text, bytes and any other object are one sample.
    """
    if is_tensor(value) or isinstance(value, np.ndarray):
        return value if value.ndim else [value]
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return value
    return [value]


def outputs_in(outputs: Any, keys: Iterable[str]) -> tuple[dict[str, Any], int]:
    """The samples under each of several keys, as of `samples_of`, and their number.

    Raises:
        TypeError: The outputs are not a mapping.
        KeyError: A key is missing.
        ValueError: There are not as many samples under each key.
    """
    found = {key: samples_of(entry(outputs, key, "value_key")) for key in keys}
    counts = {key: len(samples) for key, samples in found.items()}
    if len(set(counts.values())) > 1:
        told = " and ".join(f"{count} under {key!r}" for key, count in counts.items())
        raise ValueError(f"Length mismatch: FileWriter stores a sample's outputs together, and there are {told}")
    return found, next(iter(counts.values()))


def names_of(value: Any, key: str) -> list[str]:
    """The names in a value, one per sample.

    Scalar tensors and numbers become the text of their value, and paths their text.

    Raises:
        TypeError: A name is neither text, number nor path; the message gives its position.
    """
    if hasattr(value, "tolist"):  # a tensor, an array, a column of a table
        value = value.tolist()  # at once, since each item of a device tensor would be a transfer of its own
        items = value if isinstance(value, list) else [value]
    else:
        items = samples_of(value)
    return [
        item if isinstance(item, str) else name_of(item, f"name {position} of the batch, under name_key {key!r},")
        for position, item in enumerate(items)
    ]
