"""What a helper is told at its start."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

__all__ = ["HELPER_OF", "Setting"]

HELPER_OF = "LIGHTER_ASYNC_HELPER_OF"
"""An environment variable that only a helper finds, and only until it is at work: the process that it works for."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a helper is told at its start. Descriptors are inherited under their numbers.

    Attributes:
        helper: Which of the helpers it is, from 0 on.
        helpers: How many there are.
        records: The queue's size.
        mapped: Bytes of the slots' memory that are mapped at once.
        parent: The process that it works for.
        queue, slots, job, failures, stack: Descriptors of files in memory: the queue, the samples, the pickled job, and
            where this helper's failures are told, and where it is.
        bells: Descriptors that wake a helper that sleeps, one for each.
        news: Descriptor that tells the parent that something was done, if it waits for that.
        inherited: Descriptors that it keeps open, and does nothing with: locks that are held until it ends.
        tie: End of a pipe whose other end is the parent's alone: it is closed when that one ends, or becomes another
            program (`os.execv`).
    """

    helper: int
    helpers: int
    records: int
    mapped: int
    parent: int
    queue: int
    slots: int
    job: int
    failures: int
    stack: int
    bells: tuple[int, ...]
    news: int
    inherited: tuple[int, ...] = ()
    tie: int = -1

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that it inherits."""
        memory = self.queue, self.slots, self.job, self.failures, self.stack
        tie = () if self.tie < 0 else (self.tie,)
        return (*memory, *self.bells, self.news, *tie, *self.inherited)

    def to_json(self) -> str:
        return json.dumps(asdict(self))
