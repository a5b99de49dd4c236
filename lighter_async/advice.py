"""What limited a run, and which option to change, judged by what the writers counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lighter_async.types import WriterStats

__all__ = ["OWN_WRITER", "Verdict", "is_held_up", "judge"]

OWN_WRITER = "the writer is yours, and may need objects of this process"
"""The reason for threads that there may be a way out of: plain Python holds the interpreter's lock there."""

_LONG = 10.0  # seconds of waiting, from which on they matter to a person
_MUCH = 0.25  # of the run
_WAITED = 0.02  # of the run; less does not call for a change
_LEFT = 0.1  # of the run, spent after the loop had ended
_LEFT_SECONDS = 0.5  # at least, since every run ends with a last batch to write
_SLOWED = 1.25  # times as long as without writing
_IDLE = 0.5  # of the workers' time
_LIMITS = {
    "model": "the model",
    "backlog": "the writing",
    "cores": "too few cores",
    "workers": "encoding",
    "format": "encoding",
    "disk": "storing",
    "function": "the writer's function",
    "queue": "too small a queue",
}


@dataclass(frozen=True)
class Verdict:
    """What limited a run.

    Attributes:
        bound: ``"model"``: the writers kept up. ``"backlog"``: the queue absorbed what the workers could not write
            during the loop. ``"cores"``: the loop did not wait, but shared its cores with the workers. ``"workers"``:
            encoding, with cores to spare. ``"format"``: encoding, without. ``"disk"``: the target. ``"function"``: a
            path function. ``"queue"``: the queue, which is too small for the batches.
        sentence: The same in words, with the figures and the option to change.
        limit: The same in a word or two.
    """

    bound: Literal["model", "backlog", "cores", "workers", "format", "disk", "function", "queue"]
    sentence: str

    @property
    def limit(self) -> str:
        return _LIMITS[self.bound]


def is_held_up(waited: float, open_seconds: float) -> bool:
    """Whether a loop has waited so long for its writer that a person should know why.

    Args:
        waited: Seconds that it has waited.
        open_seconds: How long the writer has been open.
    """
    return waited >= max(_LONG, _MUCH * open_seconds)


def judge(
    writers: Mapping[str, WriterStats], *, cores: int, left_seconds: float = 0.0, slowdown: float | None = None
) -> Verdict:
    """Judge what limited a run, and which option to change.

    Args:
        writers: What each of the run's writers counted, by its name in the sentence.
        cores: Cores that the process may use.
        left_seconds: How long writing the rest took after the loop's end.
        slowdown: The loop's time as a multiple of its time without writing, if that was measured.

    Raises:
        ValueError: There is no writer.
    """
    if not writers:
        raise ValueError("judge() needs the stats of at least one writer")
    seconds = max(stats.open_seconds for stats in writers.values())
    # One loop waits for one writer at a time, so the waits add up.
    waited = sum(stats.waited_seconds for stats in writers.values())
    workers = sum(stats.max_workers for stats in writers.values())
    if waited > _WAITED * seconds:
        name, slowest = max(writers.items(), key=lambda item: item[1].waited_seconds)
        waits = f"the loop waited {waited:.1f} of {seconds:.1f} s for room"
        return _held_back(name, slowest, waits, spare=workers < cores)
    if left_seconds > max(_LEFT * seconds, _LEFT_SECONDS):
        name, slowest = max(writers.items(), key=lambda item: _busy_seconds(item[1]) / item[1].max_workers)
        waits = f"the loop did not wait, but {left_seconds:.1f} of {seconds:.1f} s were spent after it on what was left"
        verdict = _held_back(name, slowest, waits, spare=workers < cores)
        return verdict if verdict.bound != "queue" else Verdict("backlog", _backlog(name, waits))
    if slowdown is not None and slowdown > _SLOWED:
        return Verdict(
            "cores",
            f"The cores held it back: the loop waited {waited:.1f} s for room, yet ran {slowdown:.1f} times as long as "
            f"without writing, for it shares {cores} cores with {workers} worker{'s' if workers > 1 else ''}; give the "
            f"job more cores, or choose a cheaper format{' or a lower max_workers' if workers > len(writers) else ''}.",
        )
    return Verdict(
        "model",
        f"The model set the pace: of {seconds:.1f} s the loop waited {waited:.1f} s for room, so the workers kept up "
        "and no option needs a change.",
    )


def _held_back(name: str, stats: WriterStats, waits: str, *, spare: bool) -> Verdict:
    busy = _busy_seconds(stats)
    share = busy / max(stats.open_seconds * stats.max_workers, 1e-9)
    if share < _IDLE:
        option, held = _tighter_bound(stats)
        return Verdict(
            "queue",
            f"The queue of {name} held it back: {waits} while its workers were busy only {share:.0%} of the time, "
            f"since a batch comes in as a whole and {held}; raise {option} to several batches.",
        )
    if not stats.encode_seconds:
        return Verdict(
            "function",
            f"The function that writes {name} held it back: {waits}, with its {stats.max_workers} workers in it "
            f"{share:.0%} of the time; raise max_workers if it waits for a disk or a network, and make it cheaper if "
            f"it computes{_lock(stats)}.",
        )
    if stats.store_seconds > stats.encode_seconds:
        return Verdict(
            "disk",
            f"The disk held it back: {waits}, and storing was {stats.store_seconds / busy:.0%} of the workers' work "
            f"for {name}; raise max_workers while that helps, or write fewer or smaller files, or to a faster disk.",
        )
    encoding = f"{waits}, and encoding was {stats.encode_seconds / busy:.0%} of the workers' work for {name}"
    if spare:
        more = f"raise max_workers, there are cores to spare{_lock(stats)}"
        return Verdict("workers", f"Encoding held it back: {encoding}; {more}.")
    return Verdict(
        "format",
        f"Encoding held it back: {encoding}; all cores have a worker already, so choose a cheaper format or a lower "
        f"compression level, or give the job more cores{_lock(stats)}.",
    )


def _lock(stats: WriterStats) -> str:
    """The way out of the interpreter's lock, where a user's writer shares it with the loop."""
    return ", or try backend='process' if it is plain Python" if stats.backend_reason == OWN_WRITER else ""


def _backlog(name: str, waits: str) -> str:
    return (
        f"The writing fell behind: {waits}; the queue of {name} hid that in a run as short as this one, and a longer "
        "one tells which option to change."
    )


def _tighter_bound(stats: WriterStats) -> tuple[str, str]:
    """The limit that came closest to being reached, as an option and in words."""
    if stats.peak_pending_bytes / stats.queue_bytes > stats.peak_pending / stats.queue_size:
        peak, bound = stats.peak_pending_bytes / 1e6, stats.queue_bytes / 1e6
        return "queue_bytes", f"up to {peak:.0f} MB were held where queue_bytes is {bound:.0f} MB"
    return "queue_size", f"up to {stats.peak_pending} samples were held where queue_size is {stats.queue_size}"


def _busy_seconds(stats: WriterStats) -> float:
    return stats.encode_seconds + stats.store_seconds
