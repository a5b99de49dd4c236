"""Threads or helper processes: the rule of ``backend="auto"``, and its reasons.

Where each of the two is faster was measured with `benchmarks/choice.py`; docs/tuning.md has the figures. Helpers leave
the loop its interpreter lock, and go on when the process is killed. They let everything else have the cores first, and
have to be started. So:

1. Threads, where helpers cannot do the work: the writer or the target is the user's own, and may need objects of this
   process, or the system has no helpers.
2. Threads, where there is one core: helpers would take turns with the loop there.
3. Threads, where other programs leave no more than that, or keep all cores busy: helpers would get next to nothing.
4. Helpers otherwise: encoding that computes, and many small samples, hold up a loop of small operations in threads.
   Large tensors that are stored as they are take as long in both, and helpers store them when the process is killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from lighter_async.advice import OWN_WRITER
from lighter_async.types import BackendName
from lighter_async.writers import PathFunction, Writer, is_built_in

if TYPE_CHECKING:
    from lighter_async.other_programs import CoresInUse  # which looks when it is imported, and helpers need not

__all__ = ["Choice", "choose_backend", "choose_by_cores"]


_LEFT = 1.5  # cores that others leave; less is as one core
_BY_OTHERS = 0.5  # of the cores: from there on other programs are why none is idle
_IDLE = 0.25  # of a core; less is none


@dataclass(frozen=True, slots=True)
class Choice:
    """What the workers are to be.

    Attributes:
        backend: Threads of this process, or helper processes.
        reason: Why, in a few words.
        is_open: Whether what other programs use may change it, since there could be threads in the place of helpers.
    """

    backend: Literal["thread", "process"]
    reason: str
    is_open: bool = False


def choose_backend(name: BackendName, writer: Writer, *, is_local: bool, cores: int) -> Choice:
    """What the workers are to be, as far as it is known when a writer is made.

    Args:
        name: What the user chose.
        writer: What they run.
        is_local: Whether they store in a local directory, in a target of this package.
        cores: That this process may use.

    Raises:
        ValueError: It is none of the names, or cannot be had for this writer or on this system.
    """
    if name not in get_args(BackendName):
        raise ValueError(f"backend is one of {', '.join(map(repr, get_args(BackendName)))}, not {name!r}")
    from lighter_async.workers.process.launch import supported  # where helpers may be, since a helper needs none

    is_async = isinstance(writer, PathFunction) and writer.is_async
    if name == "process":
        if is_async:
            raise ValueError(
                f"writer {writer.name!r} is an async function, which runs on an event loop of this process; leave "
                "backend at 'auto', or make it a plain function"
            )
        if not supported():
            raise ValueError("backend='process' needs Linux 5.3 or later; choose backend='thread' here")
    if name != "auto":
        return Choice(name, f"backend={name!r}")
    if is_async:
        return Choice("thread", "an async function runs on an event loop of this process")
    if not is_built_in(writer):
        return Choice("thread", OWN_WRITER)
    if not is_local:
        return Choice("thread", "the target is yours, and may need objects of this process")
    if not supported():
        return Choice("thread", "helper processes need Linux 5.3 or later")
    if cores == 1:
        return Choice("thread", "helper processes would take turns with the loop on the one core")
    return Choice("process", "helper processes leave the loop its interpreter lock", is_open=True)


def choose_by_cores(choice: Choice, in_use: CoresInUse | None) -> Choice:
    """The same, once the workers are to be started.

    Args:
        choice: What was chosen before.
        in_use: How many cores were in use lately; None if that is not known.
    """
    if choice.is_open and in_use is not None and _are_busy(in_use):
        used = f"other programs use {in_use.others:.1f} of {in_use.cores} cores"
        return Choice("thread", f"{used}, and helper processes would give way to them")
    return Choice(choice.backend, choice.reason)


def _are_busy(in_use: CoresInUse) -> bool:
    """Whether other programs leave too little for helpers, also where the loop gives up what it has of the cores."""
    if in_use.cores - in_use.others < _LEFT:
        return True
    return in_use.others >= _BY_OTHERS * in_use.cores and in_use.idle < _IDLE
