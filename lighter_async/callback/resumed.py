"""What a run goes on with that resumes: the samples of earlier runs, which are read once and told once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from lighter_async.callback.dataset_indices import length_of
from lighter_async.callback.stored_samples import StoredSamples
from lighter_async.notices import notify
from lighter_async.service import BackgroundWriter
from lighter_async.store import source_of
from lighter_async.target_and_record import stored_as
from lighter_async.targets import directory_of
from lighter_async.targets.local import wait_until_free

__all__ = ["Resumed"]


class Resumed:
    """The samples that earlier runs have stored where a writer is about to store.

    Args:
        writer: The writer, which is not started yet, for its own lines do not belong to an earlier run.
        place: Where the predictions lie: the directory, or the array or table.
        named: Whether the user names the samples. If not, they are known by their loader and index.
        is_first_rank: Whether this rank does what one of them does for all.

    Attributes:
        samples: Which ones are stored.

    Raises:
        TimeoutError: Helpers of a run that has died have been at work for ten minutes.
    """

    def __init__(
        self, writer: BackgroundWriter, *, place: str | os.PathLike[str], named: bool, is_first_rank: bool
    ) -> None:
        target = directory_of(writer.target)
        assert target is not None  # else there were no records to resume from
        wait_until_free(target.directory)
        self.samples = StoredSamples(source_of(target), stored_as(writer.writer, target.run.key), named=named)
        if is_first_rank:
            self.samples.adopt()
        self._place = os.fspath(place)
        self._is_first_rank = is_first_rank
        self._count: int | None = None

    @property
    def is_told(self) -> bool:
        """Whether `tell` was called."""
        return self._count is not None

    def tell(self, datasets: Sequence[Any]) -> int:
        """Say how many samples are stored of how many, on the first rank and once; returns how many, there alone."""
        if self._count is None:
            self._count = 0
            if self._is_first_rank:
                self._count = len(self.samples)
                lengths = [length_of(dataset) for dataset in datasets]
                total = "" if None in lengths else f" of {sum(length or 0 for length in lengths):,}"
                notify(f"resuming: {self._count:,}{total} are stored in {self._place!r}")
        return self._count

    def left_out_silently(self, not_loaded: int, who: str) -> str | None:
        """What to warn of where `pending` leaves out what is stored by another writer alone; None if it does not.

        Args:
            not_loaded: Items of the data sets that the loaders do not give.
            who: The callback's name.
        """
        stored = self.samples.found_as_now
        if not self._is_first_rank or not_loaded <= stored:
            return None
        return (
            f"pending() leaves out {not_loaded:,} items of the data set, which are stored, but only {stored:,} as "
            f"this {who} stores them in {self._place!r}: the others are there in "
            "another format, as another output, under a number in place of a name, or in another directory, and are "
            "not computed now. Give the loader no pending() (resume=True leaves out what is stored once it is "
            "computed), give pending() this directory, or the one format that is wanted, as pending(..., writer='npy')"
        )
