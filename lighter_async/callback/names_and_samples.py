"""The samples of a batch, their names and their indices, as a model's outputs and the trainer's loaders give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lighter_async.callback.dataset_indices import Origins
from lighter_async.callback.numbers_as_names import Numbering
from lighter_async.callback.stored_samples import StoredSamples, choose
from lighter_async.errors import shown
from lighter_async.names import name_of
from lighter_async.notices import warn
from lighter_async.staging import is_tensor
from lighter_async.types import Origin

__all__ = ["OutputReader", "entry", "names_of", "outputs_in", "samples_of"]


class OutputReader:
    """Takes from each batch's outputs what is to be handed over.

    Args:
        trainer: A trainer that predicts.
        value_key: The key of the samples, or a mapping whose keys are those of each output.
        name_key: The key of the names. None numbers the samples.
        rank: This rank.
        world_size: The number of ranks.
        by_index_only: Whether samples without a name and a known index are refused.
        stored: What earlier runs have stored, and is left out; None if nothing is.
        who: The callback's name, for messages.
        shares_single_values: Of several keys, whether what is no tensor, array or sequence is that of all samples.

    Attributes:
        left_out: How many samples were left out for that.
    """

    def __init__(
        self,
        trainer: Any,
        value_key: str | Mapping[str, Any],
        name_key: str | None,
        *,
        rank: int,
        world_size: int,
        by_index_only: bool,
        stored: StoredSamples | None,
        who: str = "FileWriter",
        shares_single_values: bool = False,
    ) -> None:
        self._keys = value_key if isinstance(value_key, Mapping) else None
        self._key = "" if isinstance(value_key, Mapping) else value_key
        self._name_key = name_key
        self._stored = stored
        self._who = who
        self._shares_single_values = shares_single_values
        self.left_out = 0
        self._looked_at_dict = False
        self._origins = Origins(trainer)
        self._numbering = Numbering(self._origins, rank=rank, world_size=world_size, by_index_only=by_index_only)

    @property
    def datasets(self) -> list[Any]:
        """The loaders' data sets, in order."""
        return self._origins.datasets

    @property
    def not_loaded(self) -> int:
        """How many items of the data sets `pending` leaves out, so that no batch has them."""
        return self._origins.left_out

    def read(self, outputs: Any, batch_idx: int, dataloader_idx: int) -> tuple[Sequence[str], Any, Origin]:
        """The names, values and origin of a batch's samples, without those that are stored or only fill up a batch.

        Values are a tensor, an array or a sequence, or a dict with one for each output.

        Raises:
            KeyError: The outputs lack a key.
            TypeError: The outputs are not a mapping, or a name is not a text, number or path.
            ValueError: There are not as many names as samples, not as many samples of each output, or a number that
                has to be known is not.
            DuplicateNameError: As `StoredSamples.missing`.
        """
        values: Any
        if self._keys is not None:
            values, count = outputs_in(outputs, self._keys, self._who, shared=self._shares_single_values)
        else:
            value = entry(outputs, self._key, "value_key", self._who)
            if is_tensor(value) and not value.is_nested and (shape := value.shape):  # nearly always
                values, count = value, shape[0]
            else:
                if not self._looked_at_dict and isinstance(value, Mapping):
                    self._look_at_dict(value, self._origins.items_of(batch_idx, dataloader_idx))
                values = samples_of(value)
                count = _count(values)
        if not count:
            return (), values, Origin()
        origin = self._origins.origin(count, batch_idx, dataloader_idx)
        names: Sequence[str]
        if self._name_key is None:
            names, origin = self._numbering.number(origin, count)
        else:
            names = names_of(entry(outputs, self._name_key, "name_key", self._who), self._name_key)
            if len(names) != count:
                key = self._key if self._keys is None else next(iter(self._keys))
                raise ValueError(
                    f"Length mismatch between value key '{key}' ({count}) and name key '{self._name_key}' "
                    f"({len(names)}); every sample needs one name"
                )
        kept = self._origins.without_padding(count, batch_idx, dataloader_idx)
        if kept == count and self._stored is None:
            return names, values, origin
        keep = range(kept) if self._stored is None else self._stored.missing(names, origin, kept)
        self.left_out += kept - len(keep)
        return (names, values, origin) if len(keep) == count else choose(keep, names, values, origin)

    def _look_at_dict(self, value: Mapping[Any, Any], items: int | None) -> None:
        """Warn once of a dict of batches, which is one sample, where one for each item of the data set is meant."""
        self._looked_at_dict = True
        parts = [one for one in value.values() if is_tensor(one) or isinstance(one, np.ndarray)]
        if items is None or items < 2 or not parts or not all(one.ndim and len(one) == items for one in parts):
            return
        warn(
            f"{self._who} stores the dict under {self._key!r} as one sample, and each tensor in it has as many "
            f"rows as the batch has items, {items}; to have a sample for each item, return a list of dicts, "
            "[{key: rows[i] for key, rows in value.items()} for i in range(len(batch))]"
        )


def entry(outputs: Any, key: str, option: str, who: str = "FileWriter") -> Any:
    """The outputs' entry under a key.

    Raises:
        TypeError: The outputs are not a mapping.
        KeyError: There is no such key; the message lists the keys.
    """
    if type(outputs) is not dict and not isinstance(outputs, Mapping):
        raise TypeError(
            f"{who} expects predict_step to return a dict with the key {key!r} ({option}), got "
            f"{type(outputs).__name__}; return {{{key!r}: ...}}"
        )
    if key not in outputs:
        keys = ", ".join(map(shown, outputs)) or "none"
        raise KeyError(
            f"{who} expected key '{key}' ({option}) in outputs but it was missing; the keys there are: {keys[:1000]}"
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


def outputs_in(
    outputs: Any, keys: Iterable[str], who: str = "FileWriter", *, shared: bool = False
) -> tuple[dict[str, Any], int]:
    """The samples under each of several keys, as of `samples_of`, and their number.

    Args:
        outputs: What `predict_step` returned.
        keys: The keys.
        who: The callback's name, for messages.
        shared: Whether what is no tensor, array or sequence is the value of all samples.

    Raises:
        TypeError: The outputs are not a mapping.
        KeyError: A key is missing.
        ValueError: There are not as many samples under each key.
    """
    found = {key: samples_of(entry(outputs, key, "keys" if shared else "value_key", who)) for key in keys}
    if shared and (single := [key for key in found if _is_single(outputs[key])]) and len(single) < len(found):
        count = next(len(samples) for key, samples in found.items() if key not in single)
        found.update((key, found[key] * count) for key in single)
    counts = {key: _count(samples) for key, samples in found.items()}
    if len(set(counts.values())) > 1:
        told = " and ".join(f"{count} under {key!r}" for key, count in counts.items())
        raise ValueError(f"Length mismatch: {who} stores a sample's outputs together, and there are {told}")
    return found, next(iter(counts.values()))


def _count(samples: Any) -> int:
    """How many samples there are."""
    # A tensor's own `__len__` takes a look at what may trace it, which is most of the time of a small batch.
    return samples.shape[0] if is_tensor(samples) and not samples.is_nested else len(samples)


def _is_single(value: Any) -> bool:
    """Whether a value is neither a tensor, an array nor a sequence."""
    return not (
        is_tensor(value)
        or isinstance(value, np.ndarray)
        or (isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)))
    )


def names_of(value: Any, key: str) -> list[str]:
    """The names in a value, one per sample.

    Scalar tensors and numbers become the text of their value, and paths their text.

    Raises:
        TypeError: A name is neither text, number nor path; the message gives its position.
    """
    if type(value) is list and set(map(type, value)) == {str}:
        return value
    hint = ""
    if hasattr(value, "tolist"):  # a tensor, an array, a column of a table
        if getattr(value, "ndim", 0) > 1:
            hint = f" in an array of shape {tuple(value.shape)}, not one of names alone,"
        value = value.tolist()  # at once, since each item of a device tensor would be a transfer of its own
        items = value if isinstance(value, list) else [value]
    else:
        items = samples_of(value)
    return [
        item if isinstance(item, str) else name_of(item, f"name {position} of the batch, under name_key {key!r},{hint}")
        for position, item in enumerate(items)
    ]
