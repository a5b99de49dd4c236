"""Signals whose handlers raise, or call the writer, at random moments of every call."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from samples import look, torn_of
from tally import GoOn, Tally, always

from lighter_async import BackgroundWriter, ClosedError, DuplicateNameError, Origin, QueueFullError, Run, pending
from lighter_async.manifest.verify import verify

__all__ = ["signals"]

_DEADLINE = 60.0
_RAISES = signal.SIGALRM, signal.ITIMER_REAL
_CALLS = signal.SIGVTALRM, signal.ITIMER_VIRTUAL


class _Interrupted(Exception):
    """What a handler of the user's raises."""


def signals(seed: int, rounds: int, backend: str, folder: Path, *, samples: int = 2000, go_on: GoOn = always) -> Tally:
    """One signal's handler raises, another one's calls the writer, again and again while samples are handed over.

    A hand-over that was interrupted is made once more: if it had been accepted all the same, its name is taken.

    Args:
        seed: Decides when the signals come, and what their handlers do.
        rounds: Writers, each with `samples` samples.
        backend: The writer's.
        folder: Where to store.
        samples: Of each writer.
        go_on: Is told after each round.
    """
    choose = random.Random(seed)
    tally = Tally("handlers of signals that raise, or call the writer", backend)
    for number in range(rounds):
        directory = folder / f"signals-{backend}-{number}"
        before = signal.getsignal(signal.SIGINT)
        writer = BackgroundWriter(
            "text",
            directory,
            backend=backend,  # type: ignore[arg-type]
            max_workers=2,
            queue_size=64,
            run=Run(numbered=True),
        )
        writer.start()
        with _under_fire(writer, choose, tally):
            for index in range(samples):
                _until_done(partial(_hand_over, writer, index))
                if choose.random() < 0.01:
                    _until_done(partial(writer.flush, timeout=_DEADLINE))
        writer.close(timeout=_DEADLINE)
        files, strange = look(directory)
        tally.settle(set(range(samples)), [index for _, index in files], [], torn_of(files, _is_right))
        tally.rounds += 1
        stats = writer.stats()
        if (stats.accepted, stats.written, stats.pending) != (samples, samples, 0):
            tally.troubles.append(f"of {samples} samples: {stats}")
        if signal.getsignal(signal.SIGINT) is not before:
            tally.troubles.append(f"SIGINT has another handler now: {signal.getsignal(signal.SIGINT)}")
        report = verify(directory, workers=1)
        if strange or report.findings or len(pending(range(samples), directory)):
            tally.troubles.append(f"strange files {strange[:5]}, verify finds {report.counts()}")
        if tally.is_clean:
            shutil.rmtree(directory)
        if not go_on(tally) or not tally.is_clean:
            break
    return tally


@contextlib.contextmanager
def _under_fire(writer: BackgroundWriter, choose: random.Random, tally: Tally) -> Iterator[None]:
    def again(timer: int) -> None:
        signal.setitimer(timer, choose.uniform(0.0002, 0.01))

    def raises(*_: Any) -> None:
        tally.faults += 1
        again(_RAISES[1])
        if _armed:
            _armed.clear()
            raise _Interrupted

    def calls(*_: Any) -> None:
        tally.faults += 1
        again(_CALLS[1])
        call = choose.choice([writer.stats, lambda: writer.flush(timeout=_DEADLINE), lambda: _full(writer)])
        with contextlib.suppress(_Interrupted):
            call()

    earlier = [
        (number, signal.signal(number, handler)) for number, handler in ((_RAISES[0], raises), (_CALLS[0], calls))
    ]
    again(_RAISES[1])
    again(_CALLS[1])
    try:
        yield
    finally:
        for timer in (_RAISES[1], _CALLS[1]):
            _until_done(partial(signal.setitimer, timer, 0))
        for number, handler in earlier:
            _until_done(partial(signal.signal, number, handler))


def _full(writer: BackgroundWriter) -> None:
    """A call that may be refused: of a sample that was handed over already."""
    with contextlib.suppress(DuplicateNameError, QueueFullError, ClosedError):
        writer.submit_nowait("0", "0", origin=Origin(indices=(0,)))


# Whether the handler may raise: only in a call, and not in what this run does beside it.
_armed: list[bool] = []


def _until_done(call: Callable[[], Any]) -> None:
    while True:
        try:
            _armed[:] = [True]
            call()
            _armed.clear()
            return
        except _Interrupted:
            continue


def _hand_over(writer: BackgroundWriter, index: int) -> None:
    with contextlib.suppress(DuplicateNameError):  # it was accepted before the handler raised
        writer.submit(str(index), str(index), origin=Origin(indices=(index,)))


def _is_right(path: Path, index: int) -> bool:
    return path.read_text() == str(index)
