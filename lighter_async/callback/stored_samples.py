"""Which samples of a run are stored already, each with all of its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import and_
from typing import Any

from lighter_async.callback.stored_series import StoredSeries
from lighter_async.manifest import OutputName, read_manifest
from lighter_async.staging import is_tensor
from lighter_async.staging.layout import unbind
from lighter_async.store import Source
from lighter_async.types import Origin

__all__ = ["StoredSamples", "choose"]


class StoredSamples:
    """The samples that earlier runs have stored. A sample is stored if all of its outputs are.

    Args:
        where: Where they are stored, and what reads them.
        outputs: The outputs of each sample.
        named: Whether the user names the samples. If not, they are known by their loader and index.
    """

    def __init__(self, where: Source, outputs: Sequence[OutputName], *, named: bool) -> None:
        manifest = read_manifest(where.directory)
        self._named = named
        self._series = [
            StoredSeries(where, writer=one.writer, key=one.key, suffix=one.suffix, named=named, manifest=manifest)
            for one in outputs
        ]

    def __len__(self) -> int:
        if len(self._series) == 1:
            return len(self._series[0])
        if self._named:
            return len(set.intersection(*(one.names for one in self._series)))
        indices = [one.indices for one in self._series]
        loaders = set.intersection(*(set(one) for one in indices))
        return sum(len(reduce(and_, [one[loader] for one in indices])) for loader in loaders)

    @property
    def found_as_now(self) -> int:
        """At most how many are known by what samples are known by now: by names, or by numbers."""
        return min(one.found_as_now for one in self._series)

    def check(self, datasets: Sequence[Any]) -> None:
        """Refuse to resume numbered samples of other data sets.

        Raises:
            ResumeError: A data set has changed.
        """
        for one in self._series:
            one.check(datasets)

    def adopt(self) -> None:
        """Record the samples that were stored but not recorded."""
        for one in self._series:
            one.adopt()

    def missing(self, names: Sequence[str], origin: Origin, count: int) -> Sequence[int]:
        """Which of the first `count` samples of a batch are not stored. From now on they count as stored.

        Raises:
            DuplicateNameError: Two items have one name, under which a sample is stored already; or a sample would
                replace a file of another output.
        """
        # Every series is asked about every sample, since each notes the samples that this run has come by.
        missing = sorted({position for one in self._series for position in one.not_stored(names, origin, count)})
        for one in self._series:
            one.check_others(names, missing)
        return missing


def choose(keep: Sequence[int], names: Sequence[str], values: Any, origin: Origin) -> tuple[Sequence[str], Any, Origin]:
    """Some of a batch's samples. The values are a sequence, or a dict with one for each output."""
    chosen = {key: _some(keep, one) for key, one in values.items()} if type(values) is dict else _some(keep, values)
    indices = None if origin.indices is None else [origin.indices[position] for position in keep]
    return [names[position] for position in keep], chosen, Origin(indices, origin.loader, origin.batch)


def _some(keep: Sequence[int], values: Any) -> Any:
    if is_tensor(values) and type(values).__module__ != "torch":
        # MONAI's tensors would all have the metadata of the first one.
        values = unbind(values)
    return values[list(keep)] if hasattr(values, "ndim") else [values[position] for position in keep]
