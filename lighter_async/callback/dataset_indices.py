"""Where the samples of a batch come from, as the trainer's loaders show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

from lighter_async.names import Numbers
from lighter_async.types import Origin

__all__ = ["Origins", "length_of"]


class Origins:
    """Finds the items of the data sets that a batch's samples come from.

    Args:
        trainer: A trainer that predicts.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        # By loader: its batch sampler, and whether that repeats items to give all ranks the same number.
        self._loaders: dict[int, tuple[Any, bool]] = {}
        self._before: dict[int, tuple[int, int]] = {}  # by loader: its next batch, and the items before that
        self._uneven: set[int] = set()  # loaders of which a model has given no sample, or several, for an item
        self._lengths: list[int | None] | None = None

    def origin(self, count: int, batch_idx: int, dataloader_idx: int) -> Origin:
        """The origin of a batch's samples, with their indices in the data set if Lightning knows them.

        Args:
            count: The number of samples in the batch.
            batch_idx: The batch's number in its loader.
            dataloader_idx: The loader's number.
        """
        seen = self._indices(dataloader_idx)
        items = seen[batch_idx] if batch_idx < len(seen) else None
        if items is not None and len(items) != count:
            # A sample is not an item of the data set, so from here on equal numbers of both may be chance.
            self._uneven.add(dataloader_idx)
        indices = None if items is None or dataloader_idx in self._uneven else _whole(items)
        return Origin(indices, dataloader_idx, batch_idx)

    def items_of(self, batch_idx: int, dataloader_idx: int) -> int | None:
        """How many items of the data set are in a batch; None if Lightning does not know."""
        seen = self._indices(dataloader_idx)
        return len(seen[batch_idx]) if batch_idx < len(seen) else None

    @property
    def datasets(self) -> list[Any]:
        """The loaders' data sets, in order."""
        return [getattr(loader, "dataset", None) for loader in _flat(self._trainer.predict_dataloaders)]

    @property
    def left_out(self) -> int:
        """How many items of the data sets samplers of `pending` leave out, on all ranks together."""
        samplers = [self._loader(number)[0] for number in range(len(self.datasets))]
        return sum(getattr(getattr(one, "sampler", None), "left_out", 0) for one in samplers)

    @property
    def items(self) -> int:
        """The number of items in all data sets with a known length."""
        return sum(length for length in self._known_lengths() if length is not None)

    def numbers(self, origin: Origin) -> Sequence[str] | None:
        """Names for samples: their indices, counted on over the loaders; None if the indices are not known."""
        before = self._known_lengths()[: origin.loader]
        if origin.indices is None or None in before:
            return None
        first = sum(length or 0 for length in before)
        if (numbers := _range(origin.indices, first)) is not None:
            return Numbers(numbers)
        return [str(first + index) for index in origin.indices]

    def _known_lengths(self) -> list[int | None]:
        if self._lengths is None:
            self._lengths = [length_of(dataset) for dataset in self.datasets]
        return self._lengths

    def without_padding(self, count: int, batch_idx: int, dataloader_idx: int) -> int:
        """How many of a batch's samples do not just repeat others to give all ranks the same number of items.

        Args:
            count: The number of samples in the batch. An item of the data set may give none, one or several.
            batch_idx: The batch's number in its loader.
            dataloader_idx: The loader's number.
        """
        batch_sampler, pads = self._loader(dataloader_idx)
        if not pads:
            return count
        sampler = batch_sampler.sampler
        seen = self._indices(dataloader_idx)
        if batch_idx >= len(seen):
            return count
        batch, items = self._before.get(dataloader_idx, (0, 0))
        items += sum(map(len, seen[batch:batch_idx]))
        self._before[dataloader_idx] = batch_idx, items
        own = len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas)) - items
        size = len(seen[batch_idx])
        if own >= size:
            return count
        if own <= 0:
            return 0
        # If samples and items are not one to one, nobody knows which samples are padding. Storing one twice is better
        # than not at all.
        return own if count == size else count

    def _indices(self, dataloader_idx: int) -> Sequence[Sequence[int]]:
        """The indices of the items of each batch so far, as Lightning has noted them."""
        return getattr(self._loader(dataloader_idx)[0], "seen_batch_indices", ())

    def _loader(self, dataloader_idx: int) -> tuple[Any, bool]:
        found = self._loaders.get(dataloader_idx)
        if found is None:
            loader = _flat(self._trainer.predict_dataloaders)[dataloader_idx]
            # Not the loader's own sampler: Lightning has made the loader anew with only a batch sampler.
            batch_sampler = getattr(loader, "batch_sampler", None)
            found = self._loaders[dataloader_idx] = batch_sampler, _pads(getattr(batch_sampler, "sampler", None))
        return found


def length_of(dataset: Any) -> int | None:
    """A data set's length; None if it has none."""
    try:
        return len(dataset)
    except Exception:  # some have a __len__ that raises
        return None


def _pads(sampler: Any) -> bool:
    """Whether a sampler repeats items at its end. For a subclass with an order of its own nobody knows which ones."""
    from torch.utils.data import DistributedSampler

    return getattr(type(sampler), "__iter__", None) is DistributedSampler.__iter__ and not sampler.drop_last


def _flat(loaders: Any) -> list[Any]:
    """The loaders of a nested collection, in Lightning's order."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        return [loader for one in loaders for loader in _flat(one)]
    return [loaders]


def _whole(items: Sequence[Any]) -> tuple[int, ...] | None:
    """A sampler's keys as indices; None if they are keys of another kind."""
    if set(map(type, items)) == {int}:
        return tuple(items) if min(items) >= 0 else None
    if any(isinstance(item, bool) for item in items):
        return None
    try:
        indices = tuple(map(index, items))
    except (TypeError, ValueError, RuntimeError):
        return None
    return indices if min(indices, default=0) >= 0 else None


def _range(indices: Sequence[int], before: int) -> range | None:
    """The numbers of indices, each plus `before`, as a range; None if they are not an ascending one."""
    if not indices:
        return None
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    numbers = range(indices[0], indices[-1] + 1, step) if step > 0 else range(0)
    if len(numbers) != len(indices) or tuple(numbers) != tuple(indices):
        return None
    return range(before + numbers.start, before + numbers.stop, step)
