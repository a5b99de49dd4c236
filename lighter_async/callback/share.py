"""Which samples of the data set a batch has, and which of them are to be written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from operator import eq
from typing import Any

from lighter_async.manifest import ManifestLog, read_manifest
from lighter_async.manifest.adopt import adoptable
from lighter_async.names import Numbers
from lighter_async.same import check_same
from lighter_async.staging import is_tensor
from lighter_async.types import Origin, Run

__all__ = ["Known", "Share", "choose", "length_of"]


class Share:
    """What the trainer's loaders say of the samples of a batch.

    Args:
        trainer: A trainer that predicts.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        # Of each loader: its batch sampler, and whether that repeats items so that all ranks have as many.
        self._loaders: dict[int, tuple[Any, bool]] = {}
        self._before: dict[int, tuple[int, int]] = {}  # of each loader, its next batch and the items before that

    def origin(self, count: int, batch_idx: int, dataloader_idx: int) -> Origin:
        """Where the samples of a batch come from, with their indices in the data set where Lightning knows them.

        Args:
            count: Samples of the batch.
            batch_idx: Its number in its loader.
            dataloader_idx: The loader's number.
        """
        seen = self._indices(dataloader_idx)
        indices = seen[batch_idx] if batch_idx < len(seen) else None
        if indices is not None and len(indices) != count:
            indices = None  # a sample is not an item of the data set
        return Origin(None if indices is None else tuple(map(int, indices)), dataloader_idx, batch_idx)

    @property
    def datasets(self) -> list[Any]:
        """The loaders' data sets, in their order."""
        return [getattr(loader, "dataset", None) for loader in _flat(self._trainer.predict_dataloaders)]

    def names(self, origin: Origin, count: int, *, required: bool) -> Sequence[str] | None:
        """The names of samples after their indices, going on over the loaders; None if those are not known.

        Of a batch whose model gives fewer samples than it has items it is not known which are which: they get the
        numbers of the first ones, which no other batch uses.

        Args:
            origin: Of the batch.
            count: Its samples.
            required: Whether nothing but their indices will do.

        Raises:
            ValueError: They are required, and not known.
        """
        indices = origin.indices
        if indices is None and not required:
            seen = self._indices(origin.loader)
            if origin.batch is not None and origin.batch < len(seen) and count < len(seen[origin.batch]):
                indices = tuple(map(int, seen[origin.batch][:count]))
        before = self._items_before(origin.loader)
        if indices is not None and before is not None:
            return Numbers(numbers) if (numbers := _range(indices, before)) else [str(before + one) for one in indices]
        if required:
            raise ValueError(
                "resume=True names samples by their index in the data set, which is not known here: the loader has no "
                "batch sampler that Lightning can follow (an iterable data set has none), or predict_step does not "
                "return one sample per item; give name_key instead"
            )
        return None

    def _items_before(self, dataloader_idx: int) -> int | None:
        lengths = [length_of(dataset) for dataset in self.datasets[:dataloader_idx]]
        return None if None in lengths else sum(length or 0 for length in lengths)

    def without_padding(self, count: int, batch_idx: int, dataloader_idx: int) -> int:
        """How many of a batch's samples are not there a second time, to give all ranks the same number of items.

        Args:
            count: Samples of the batch, of which an item of the data set may give none, one or several.
            batch_idx: Its number in its loader.
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
        # Where samples and items are not one to one, it is not known which of them are the padding's; better one twice
        # than one not at all.
        return own if count == size else count

    def _indices(self, dataloader_idx: int) -> Sequence[Sequence[int]]:
        """The indices of the items of each batch so far, which Lightning notes down."""
        return getattr(self._loader(dataloader_idx)[0], "seen_batch_indices", ())

    def _loader(self, dataloader_idx: int) -> tuple[Any, bool]:
        found = self._loaders.get(dataloader_idx)
        if found is None:
            loader = _flat(self._trainer.predict_dataloaders)[dataloader_idx]
            # Not the loader's own sampler, which Lightning has made anew with a batch sampler alone.
            batch_sampler = getattr(loader, "batch_sampler", None)
            found = self._loaders[dataloader_idx] = batch_sampler, _pads(getattr(batch_sampler, "sampler", None))
        return found


def _pads(sampler: Any) -> bool:
    """Whether it repeats items; of a subclass with an order of its own it is not known which ones."""
    from torch.utils.data import DistributedSampler

    return getattr(type(sampler), "__iter__", None) is DistributedSampler.__iter__ and not sampler.drop_last


def _flat(loaders: Any) -> list[Any]:
    """The loaders of a collection of them, in Lightning's order."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        return [loader for one in loaders for loader in _flat(one)]
    return [loaders]


def _range(indices: Sequence[int], before: int) -> range | None:
    """The numbers of indices as a range, if they are one that goes up."""
    if not indices or indices[0] < 0:
        return None
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    numbers = range(before + indices[0], before + indices[-1] + 1, step) if step > 0 else range(0)
    return (
        numbers if len(numbers) == len(indices) and all(map(eq, numbers, (before + one for one in indices))) else None
    )


def length_of(dataset: Any) -> int | None:
    """A data set's length; None if it has none."""
    try:
        return len(dataset)
    except Exception:  # also of those that say that they have one, and cannot tell it
        return None


class Known:
    """What earlier runs have stored of one series of samples.

    Args:
        directory: Where.
        writer: The writer's name.
        key: The output that is written.
        named: Whether the samples have names of the user's; else they are known by their loader and index.
    """

    def __init__(self, directory: str | os.PathLike[str], *, writer: str, key: str, named: bool = False) -> None:
        self._manifest = manifest = read_manifest(directory)
        self._series = writer, key
        self._named = named
        self._unrecorded = [record for record, _ in adoptable(manifest, writer=writer, key=key)]
        counted = manifest.counted(writer=writer, key=key)
        records = [*counted.get(self._series, []), *self._unrecorded]
        places = {(record.loader, record.index): record.name for record in records if record.index is not None}
        self._name_of_place: dict[tuple[int, int], str] = places
        self._names = {record.name for record in records}
        self._taken: dict[str, tuple[int, int] | None] = {}  # the items that this run has named
        self._said = False

    def __len__(self) -> int:
        return len(self._names if self._named else self._name_of_place)

    def check(self, datasets: Sequence[Any]) -> None:
        """Refuse to go on from numbers of another data set.

        Raises:
            ResumeError: They are.
        """
        if not self._named:
            for loader, dataset in enumerate(datasets):
                if length_of(dataset) is not None:
                    check_same(self._manifest, self._series, loader, dataset)

    def adopt(self) -> None:
        """Record what was stored and not recorded."""
        if not self._unrecorded:
            return
        log = ManifestLog(self._manifest.directory, Run(), writer="")
        log.open()
        try:
            log.adopt(self._unrecorded)
        finally:
            log.close()

    def missing(self, names: Sequence[str], origin: Origin, count: int) -> list[int]:
        """Which of the first `count` samples of a batch are not stored; they count as stored from now on."""
        missing = []
        for position in range(count):
            place = None if origin.indices is None else (origin.loader, int(origin.indices[position]))
            if self._named:
                is_new = self._is_new(names[position], place)
            elif place is None:
                is_new = names[position] not in self._names
            else:
                is_new = place not in self._name_of_place
                self._name_of_place[place] = names[position]
            if is_new:
                missing.append(position)
        return missing

    def _is_new(self, name: str, place: tuple[int, int] | None) -> bool:
        earlier = None if place is None else self._name_of_place.get(place)
        if place is not None and earlier is not None and earlier != name and not self._said:
            self._said = True
            warnings.warn(
                f"the data set has changed: item {place[1]} of loader {place[0]} is {name!r} now, and what "
                f"is stored of it is named {earlier!r}; samples are known by names, and what is stored under theirs is "
                "left out",
                UserWarning,
                stacklevel=2,
            )
        if name in self._names:
            return False
        # The same item once more, as samplers give that pad; another item of that name is refused where it is stored.
        if place is not None and self._taken.get(name) == place:
            return False
        self._taken[name] = place
        return True


def choose(keep: Sequence[int], names: Sequence[str], values: Any, origin: Origin) -> tuple[Sequence[str], Any, Origin]:
    """Some of the samples of a batch."""
    chosen = values[list(keep)] if is_tensor(values) else [values[position] for position in keep]
    indices = None if origin.indices is None else [origin.indices[position] for position in keep]
    return [names[position] for position in keep], chosen, Origin(indices, origin.loader, origin.batch)
