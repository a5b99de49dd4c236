"""Which samples of the data set a batch has, and which of them are to be written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from lighter_async.manifest import ManifestLog, read_manifest
from lighter_async.manifest.adopt import adoptable, number_name
from lighter_async.staging import is_tensor
from lighter_async.types import Origin, Run

__all__ = ["Known", "Share", "choose"]


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

    def numbers(self, origin: Origin) -> list[str]:
        """The names of samples after their indices.

        Raises:
            ValueError: The indices are not known.
        """
        if origin.indices is None:
            raise ValueError(
                "resume=True names samples by their index in the data set, which is not known here: the loader has no "
                "batch sampler that Lightning can follow (an iterable data set has none), or predict_step does not "
                "return one sample per item; give name_key instead"
            )
        loaders = len(self._trainer.num_predict_batches)
        return [number_name(index, origin.loader, loaders) for index in origin.indices]

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


class Known:
    """What earlier runs have stored of one series of samples.

    Args:
        directory: Where.
        writer: The writer's name.
        key: The output that is written.
    """

    def __init__(self, directory: str | os.PathLike[str], *, writer: str, key: str) -> None:
        manifest = read_manifest(directory)
        self._directory = directory
        runs = manifest.current_runs().get((writer, key), set())
        records = [record for record in manifest.records if record.run in runs]
        self._unrecorded = [record for record, _ in adoptable(manifest, writer=writer, key=key)]
        records += self._unrecorded
        self._places = {(record.loader, record.index) for record in records if record.index is not None}
        self._names = {record.name for record in records if record.index is None}

    def adopt(self) -> None:
        """Record what was stored and not recorded."""
        if not self._unrecorded:
            return
        log = ManifestLog(self._directory, Run(), writer="")
        log.open()
        try:
            log.adopt(self._unrecorded)
        finally:
            log.close()

    def missing(self, names: Sequence[str], origin: Origin, count: int) -> list[int]:
        """Which of the first `count` samples of a batch are not stored; they count as stored from now on."""
        missing = []
        for position in range(count):
            if origin.indices is None:
                if names[position] not in self._names:
                    missing.append(position)
                continue
            place = origin.loader, int(origin.indices[position])
            if place not in self._places:
                self._places.add(place)
                missing.append(position)
        return missing


def choose(keep: Sequence[int], names: Sequence[str], values: Any, origin: Origin) -> tuple[Sequence[str], Any, Origin]:
    """Some of the samples of a batch."""
    chosen = values[list(keep)] if is_tensor(values) else [values[position] for position in keep]
    indices = None if origin.indices is None else [origin.indices[position] for position in keep]
    return [names[position] for position in keep], chosen, Origin(indices, origin.loader, origin.batch)
