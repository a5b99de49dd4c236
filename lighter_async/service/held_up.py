"""A loop that its workers hold up is told so, once: what limits them, and the way out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic

from lighter_async.advice import is_held_up, judge
from lighter_async.limits import usable_cores
from lighter_async.notices import notify
from lighter_async.other_programs import CoresInUse, Look, in_use, look
from lighter_async.types import Backend, WriterStats
from lighter_async.waits_for_cores import ProcessorTime, between, processor_times

__all__ = ["HeldUp", "Seen", "see"]

_SECONDS_OF_LOOKING = 5.0  # of waiting, between two looks
_STARVED = 1 / 3  # of the cores that helpers could use at most, while they are ready for more


@dataclass(frozen=True)
class Seen:
    """What was seen of a run at a moment.

    Attributes:
        moment: When, in seconds.
        waited: How long callers had waited for room.
        stats: What the writer had done.
        helpers: What its helper processes had of the cores.
        look: What all programs had of them.
    """

    moment: float
    waited: float
    stats: WriterStats
    helpers: Mapping[int, ProcessorTime]
    look: Look | None


def see(waited: float, stats: WriterStats, helpers: Sequence[int]) -> Seen:
    """See how a run stands."""
    return Seen(monotonic(), waited, stats, processor_times(helpers), look())


class HeldUp:
    """Says once that workers hold the loop up, when callers have waited for room for long.

    It looks twice, with some seconds of waiting between, so that a run that recovers is not told of. Runs in which less
    than ten seconds were waited are never told of.

    Args:
        location: Where the samples go.
        stats: Tells what was done so far.
        backend: The workers.
        reason: Why they are what they are.
        say: Tells a person.
        see: How it looks.
    """

    def __init__(
        self,
        location: str,
        stats: Callable[[], WriterStats],
        backend: Backend,
        reason: str,
        *,
        say: Callable[[str], None] = notify,
        see: Callable[[float, WriterStats, Sequence[int]], Seen] = see,
    ) -> None:
        self._location = location
        self._stats = stats
        self._backend = backend
        self._reason = reason
        self._say = say
        self._look = see
        # Not waited for: whoever comes while another thread looks has nothing to add.
        self._lock = threading.Lock()
        # Guarded by _lock:
        self._first: Seen | None = None
        self._is_told = False

    def note(self, waited: float, open_seconds: float) -> None:
        """Note how long callers have waited for room by now; called now and then by a caller that waits.

        Args:
            waited: Seconds, those of waits under way included.
            open_seconds: How long the writer has been open.
        """
        if self._is_told or not is_held_up(waited, open_seconds) or not self._lock.acquire(blocking=False):
            return
        try:
            first = self._first
            if first is None:
                self._first = self._see(waited)
            elif waited >= first.waited + _SECONDS_OF_LOOKING and not self._is_told:
                self._is_told = True
                with suppress(OSError, ValueError):  # nobody reads stderr any more, which is no reason to end a run
                    self._say(why(self._location, first, self._see(waited), usable_cores()))
        finally:
            self._lock.release()

    def _see(self, waited: float) -> Seen:
        kind, reason = self._backend.kind, self._backend.instead or self._reason
        stats = replace(self._stats(), backend=kind, backend_reason=reason, waited_seconds=waited)
        return self._look(waited, stats, self._backend.helpers)


def why(location: str, first: Seen, last: Seen, cores: int) -> str:
    """Why workers have held the loop up between two looks, and the way out.

    Args:
        location: Where the samples go.
        first: What was seen first.
        last: What was seen last.
        cores: That the process may use.
    """
    stats = last.stats
    waited = f"the loop has waited {last.waited:.0f} of {stats.open_seconds:.0f} s for room"
    seconds = max(last.moment - first.moment, 1e-9)
    helpers, used = between(first.helpers, last.helpers), in_use(first.look, last.look)
    could = min(len(last.helpers), cores) * seconds
    if could and helpers.ran < _STARVED * could < helpers.waited:
        return (
            f"helper processes that store to {location!r} got {helpers.ran / seconds:.1f} of {cores} cores"
            f"{_others(used)}: {waited}; with backend='thread' the workers take their "
            "share, or run less beside the job"
        )
    if _done(stats) == _done(first.stats):
        return (
            f"no sample was stored to {location!r} for {seconds:.0f} s: {waited}; if storing hangs, "
            "write_timeout=SECONDS ends such attempts"
        )
    free = cores if used is None else max(1, min(cores, round(used.cores - used.others)))
    return judge({repr(location): stats}, cores=free).sentence


def _others(used: CoresInUse | None) -> str:
    return "" if used is None else f", and other programs used {used.others:.1f}"


def _done(stats: WriterStats) -> int:
    return stats.accepted - stats.pending
