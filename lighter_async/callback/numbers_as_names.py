"""Names for samples that the user does not name: their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from lighter_async.callback.dataset_indices import Origins
from lighter_async.names import Numbers
from lighter_async.types import Origin

__all__ = ["Numbering"]


class Numbering:
    """Numbers the samples of one rank: by their index in the data set, or by their position if that is not known.

    Args:
        origins: Where the samples come from.
        rank: This rank.
        world_size: The number of ranks.
        by_index_only: Whether samples without a known index are refused, since a run resumes by indices.
    """

    def __init__(self, origins: Origins, *, rank: int, world_size: int, by_index_only: bool) -> None:
        self._origins = origins
        self._position = rank
        self._step = world_size
        self._by_index_only = by_index_only
        self._by_index: bool | None = None  # what the last batch was numbered by; None before the first

    def number(self, origin: Origin, count: int) -> tuple[Sequence[str], Origin]:
        """The names of a batch's samples, and their origin.

        Raises:
            ValueError: Their indices have to be known, and are not.
        """
        if self._by_index is not False and (names := self._origins.numbers(origin)) is not None:
            self._by_index = True
            return names, origin
        if self._by_index_only:
            raise ValueError(
                "resume=True names samples by their index in the data set, which is not known here: the loader has no "
                "batch sampler that Lightning can follow (an iterable data set has none), or predict_step does not "
                "return one sample per item; give name_key instead"
            )
        if self._by_index is None:
            self._by_index = False
        # If other numbers are indices, maybe on other ranks, positions begin after all indices.
        first = self._position + (self._origins.items if self._by_index or self._step > 1 else 0)
        self._position += count * self._step
        # Without indices, even if they are known: they would not be the numbers.
        return Numbers(range(first, first + count * self._step, self._step)), Origin(None, origin.loader, origin.batch)
