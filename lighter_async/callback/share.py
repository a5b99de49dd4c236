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
        self._seen: dict[int, int] = {}

    def origin(self, count: int, batch_idx: int, dataloader_idx: int) -> Origin:
        """Where the samples of a batch come from, with their indices in the data set where Lightning knows them.

        Args:
            count: Samples of the batch.
            batch_idx: Its number in its loader.
            dataloader_idx: The loader's number.
        """
        seen = getattr(getattr(self._loader(dataloader_idx), "batch_sampler", None), "seen_batch_indices", ())
        indices = seen[batch_idx] if batch_idx < len(seen) else None
        if indices is not None and len(indices) != count:
            indices = None  # a sample is not an item of the data set
        return Origin(None if indices is None else [int(index) for index in indices], dataloader_idx, batch_idx)

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

    def first_of_padding(self, count: int, dataloader_idx: int) -> int:
        """How many of a batch's samples are not there a second time, to give all ranks the same number of samples."""
        from torch.utils.data import DistributedSampler

        sampler = getattr(self._loader(dataloader_idx), "sampler", None)
        seen = self._seen.get(dataloader_idx, 0)
        self._seen[dataloader_idx] = seen + count
        if not isinstance(sampler, DistributedSampler) or sampler.drop_last:
            return count
        size, total = len(sampler.dataset), getattr(sampler, "total_size", 0)  # type: ignore[arg-type]
        if total <= size:
            return count
        own = len(range(sampler.rank, size, sampler.num_replicas))
        return max(0, min(count, own - seen))

    def _loader(self, dataloader_idx: int) -> Any:
        loaders = self._trainer.predict_dataloaders
        if isinstance(loaders, Mapping):
            loaders = list(loaders.values())
        return loaders[dataloader_idx] if isinstance(loaders, Sequence) else loaders


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
