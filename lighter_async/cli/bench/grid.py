"""The settings to compare, and the order of the runs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from lighter_async.cli.bench.backends import BACKENDS
from lighter_async.limits import DEFAULT_QUEUE_SIZE, usable_cores

__all__ = ["INLINE", "Setting", "Turn", "default_queue_sizes", "default_workers", "rounds"]

INLINE: Final = "inline"
"""The turn of a run in which the loop writes each batch itself, before the next one."""

_BETWEEN_BASELINES = 3
_SMALL_QUEUE = 256  # samples


@dataclass(frozen=True)
class Setting:
    """Three options of a writer."""

    backend: str
    max_workers: int
    queue_size: int

    @property
    def size(self) -> tuple[int, int, int]:
        """The sort key for the smallest setting first: workers, then queue, then threads before processes."""
        return self.max_workers, self.queue_size, BACKENDS.index(self.backend)

    def options(self) -> dict[str, Any]:
        """As keyword arguments."""
        return {"backend": self.backend, "max_workers": self.max_workers, "queue_size": self.queue_size}

    def __str__(self) -> str:
        return f'backend="{self.backend}", max_workers={self.max_workers}, queue_size={self.queue_size}'


Turn: TypeAlias = Setting | Literal["inline"] | None
"""How a run writes; None is a run without writing."""


def default_workers(*, quick: bool) -> list[int]:
    """1, 2 and 4, as far as there are cores; only the first and the last of them if it has to be quick."""
    found = [count for count in (1, 2, 4) if count <= usable_cores()]
    return sorted({found[0], found[-1]}) if quick else found


def default_queue_sizes(*, quick: bool) -> list[int]:
    """The writer's own default, and a small queue unless it has to be quick."""
    return [DEFAULT_QUEUE_SIZE] if quick else [_SMALL_QUEUE, DEFAULT_QUEUE_SIZE]


def rounds(settings: Sequence[Setting], repeats: int, *, inline: bool = True) -> list[list[Turn]]:
    """The runs in their order, a round for each repeat.

    Each round has every setting, in an order of its own, so that disturbances of the machine affect all of them alike.
    Runs without writing begin and end a round, and come after every few others.

    Args:
        settings: The settings.
        repeats: The number of rounds.
        inline: Whether each round has a run that writes inline, too.
    """
    order = random.Random(20)
    turns: list[Setting | Literal["inline"]] = list(settings)
    if inline:
        turns.append(INLINE)
    return [[*_with_baselines(order.sample(turns, len(turns))), None] for _ in range(repeats)]


def _with_baselines(turns: Sequence[Setting | Literal["inline"]]) -> Iterator[Turn]:
    for number, turn in enumerate(turns):
        if number % _BETWEEN_BASELINES == 0:
            yield None
        yield turn
