"""Which samples are stored already, of which a sample may have several outputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import reduce
from operator import and_
from typing import Any

from lighter_async.callback.share import Known
from lighter_async.manifest import OutputName, read_manifest
from lighter_async.types import Origin

__all__ = ["KnownOutputs"]


class KnownOutputs:
    """What earlier runs have stored of the samples of a writer. A sample is stored if all its outputs are.

    Args:
        directory: Where.
        outputs: What the writer stores of each sample.
        named: Whether the samples have names of the user's; else they are known by their loader and index.
    """

    def __init__(self, directory: str | os.PathLike[str], outputs: Sequence[OutputName], *, named: bool) -> None:
        manifest = read_manifest(directory)
        self._named = named
        self._outputs = [
            Known(directory, writer=one.writer, key=one.key, suffix=one.suffix, named=named, manifest=manifest)
            for one in outputs
        ]

    def __len__(self) -> int:
        if len(self._outputs) == 1:
            return len(self._outputs[0])
        if self._named:
            return len(set.intersection(*(one.names for one in self._outputs)))
        indices = [one.indices for one in self._outputs]
        loaders = set.intersection(*(set(one) for one in indices))
        return sum(len(reduce(and_, [one[loader] for one in indices])) for loader in loaders)

    def check(self, datasets: Sequence[Any]) -> None:
        """Refuse to go on from numbers of another data set.

        Raises:
            ResumeError: They are.
        """
        for one in self._outputs:
            one.check(datasets)

    def adopt(self) -> None:
        """Record what was stored and not recorded."""
        for one in self._outputs:
            one.adopt()

    def missing(self, names: Sequence[str], origin: Origin, count: int) -> Sequence[int]:
        """Which of the first `count` samples of a batch are not stored; they count as stored from now on.

        Raises:
            DuplicateNameError: Two items have one name, under which one sample is stored already; or a file of another
                output is in the way of one.
        """
        # Every output is asked about every sample, since each keeps its own account of those that came by.
        missing = sorted({position for one in self._outputs for position in one.not_stored(names, origin, count)})
        for one in self._outputs:
            one.check_others(names, missing)
        return missing
