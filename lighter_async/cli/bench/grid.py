"""The settings that are compared, and the order in which they run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lighter_async.cli.bench.backends import BACKENDS
from lighter_async.limits import DEFAULT_QUEUE_SIZE, usable_cores

__all__ = ["Setting", "default_queue_sizes", "default_workers", "rounds"]

_BETWEEN_BASELINES = 3


@dataclass(frozen=True)
class Setting:
    """Three options of a writer."""

    backend: str
    max_workers: int
    queue_size: int

    @property
    def size(self) -> tuple[int, int, int]:
        """What to sort by for the smallest to come first: workers, then queue, then threads before processes."""
        return self.max_workers, self.queue_size, BACKENDS.index(self.backend)

    def options(self) -> dict[str, Any]:
        """As keyword arguments."""
        return {"backend": self.backend, "max_workers": self.max_workers, "queue_size": self.queue_size}

    def __str__(self) -> str:
        return f'backend="{self.backend}", max_workers={self.max_workers}, queue_size={self.queue_size}'


def default_workers(*, quick: bool) -> list[int]:
    """Powers of two up to the cores that there are, and to four; where it has to be quick, the first and the last."""
    found = [count for count in (1, 2, 4) if count <= usable_cores()]
    return sorted({found[0], found[-1]}) if quick else found


def default_queue_sizes(*, quick: bool) -> list[int]:
    """The writer's own default, and a quarter of it where there is time."""
    return [DEFAULT_QUEUE_SIZE] if quick else [DEFAULT_QUEUE_SIZE // 4, DEFAULT_QUEUE_SIZE]


def rounds(settings: Sequence[Setting], repeats: int) -> list[list[Setting | None]]:
    """The runs in their order, a round for each repeat; None is a run without writing.

    Each round has every setting, in an order of its own, so that what the machine does meanwhile falls on all of them.
    Runs without writing stand at its ends and after every few others.
    """
    order = random.Random(20)
    return [[*_with_baselines(order.sample(settings, len(settings))), None] for _ in range(repeats)]


def _with_baselines(settings: Sequence[Setting]) -> Iterator[Setting | None]:
    for number, setting in enumerate(settings):
        if number % _BETWEEN_BASELINES == 0:
            yield None
        yield setting
