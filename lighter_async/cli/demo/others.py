"""What other programs use of the cores while something is measured, and whether that is too much."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep

from lighter_async.other_programs import CoresInUse, Look, in_use, look

__all__ = ["Others", "is_much"]

_SHARE = 0.1  # of the cores
_SECONDS_BEFORE = 0.5


def is_much(used: CoresInUse) -> bool:
    """Whether other programs have used so much that what was measured beside them tells little."""
    return used.others > _SHARE * used.cores


class Others:
    """Looks at what other programs use: once before, and in each round.

    Args:
        look: How it looks.
    """

    def __init__(self, *, look: Callable[[], Look | None] = look) -> None:
        self._look = look
        self._last: Look | None = None
        self._before: CoresInUse | None = None
        self._rounds: list[CoresInUse] = []

    def begin(self, seconds: float = _SECONDS_BEFORE) -> None:
        """Look at what they use while this program does nothing."""
        first = self._look()
        sleep(seconds)
        self._last = self._look()
        self._before = in_use(first, self._last)

    def note_round(self) -> None:
        """Look at what they have used since the last look."""
        now = self._look()
        used = in_use(self._last, now)
        self._last = now
        if used is not None:
            self._rounds.append(used)

    @property
    def used(self) -> CoresInUse | None:
        """What they used before, or in the round of the middle, whichever is more; None if the system does not tell.

        Figures are medians over the rounds, so one round that was disturbed changes none of them.
        """
        by_others = sorted(self._rounds, key=_others)
        looks = [self._before, *by_others[len(by_others) // 2 :][:1]]
        return max((one for one in looks if one is not None), key=_others, default=None)


def _others(used: CoresInUse) -> float:
    return used.others
