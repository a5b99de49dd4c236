"""Everything that this package raises of its own.

```
LighterAsyncError
├── WriteError           a sample that was handed over is not stored
├── DuplicateNameError   two samples of one run under one name (also a ValueError)
├── InvalidNameError     a name that cannot become a file (also a ValueError)
├── QueueFullError       submit_nowait found no room
├── ClosedError          the writer takes no more samples
├── ReadError            a stored sample cannot be read back
├── ResumeError          what was stored is of another data set, or was made with something else (also a ValueError)
├── FlushTimeoutError    some samples were still pending when the time was up (also a TimeoutError)
├── BackendUnavailableError  helper processes cannot be had here (also an OSError)
└── WorkerDiedError      a helper process ended; the cause of a WriteError
```

Errors carry what they tell as attributes too, so that a program need not parse their text.
"""

from __future__ import annotations

import errno
import pickle
from collections.abc import Iterable, Sequence

__all__ = [
    "BackendUnavailableError",
    "ClosedError",
    "DuplicateNameError",
    "FlushTimeoutError",
    "InvalidNameError",
    "LighterAsyncError",
    "NameTakenError",
    "QueueFullError",
    "ReadError",
    "ResumeError",
    "WorkerDiedError",
    "WriteError",
    "WriteTimeoutError",
]

_LISTED_FAILURES = 5
_LONGEST_SHOWN = 200
_DISK_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


class LighterAsyncError(Exception):
    """Base of the errors that this package raises of its own."""


class WriteError(LighterAsyncError):
    """One or more samples that were handed over are not stored.

    Attributes:
        writer: Name of the writer, such as ``"image_2d"``.
        name: The sample's name, of the first failure where there are several.
        attempts: How often storing it was tried.
        cause: The exception that the writer or the target raised.
        kept: The folder in which the value is kept beside its error (``on_error="continue"``), or None.
        failures: One `WriteError` per sample that is not stored, this one included where it is alone.
    """

    def __init__(
        self,
        message: str,
        *,
        writer: str,
        name: str,
        attempts: int = 1,
        cause: BaseException | None = None,
        failures: Sequence[WriteError] = (),
    ) -> None:
        super().__init__(message)
        self.writer = writer
        self.name = name
        self.attempts = attempts
        self.cause = cause
        self.__cause__ = cause
        self.kept: str | None = None
        self._failures = tuple(failures)

    @property
    def failures(self) -> tuple[WriteError, ...]:
        return self._failures or (self,)

    @classmethod
    def of_sample(cls, cause: BaseException, *, writer: str, name: str, attempts: int = 1) -> WriteError:
        """The failure of one sample."""
        times = "" if attempts == 1 else f" after {attempts} attempts"
        return cls(
            f"writer {writer!r} failed on {shown(name)}{times}: {describe(cause)}",
            writer=writer,
            name=name,
            attempts=attempts,
            cause=cause,
        )

    @classmethod
    def of_run(
        cls, failures: Sequence[WriteError], *, written: int, nbytes: int, pending: int, more: int = 0
    ) -> WriteError:
        """All failures of a run that were not raised yet, with what became of the other samples.

        Args:
            failures: They.
            written: Samples that are stored.
            nbytes: Their bytes.
            pending: Samples that are still being written.
            more: Failures of which only the number is known.
        """
        first = failures[0]
        causes: dict[str, list[WriteError]] = {}
        for failure in failures:
            causes.setdefault(describe(failure if failure.cause is None else failure.cause), []).append(failure)
        listed = "; ".join(_of_cause(alike) for alike in list(causes.values())[:_LISTED_FAILURES])
        others = sum(len(alike) for alike in list(causes.values())[_LISTED_FAILURES:])
        rest = f"; and {others} more (see .failures)" if others > 0 else ""
        rest += f"; and {more} more, which are too many to be kept" if more else ""
        still = f", {pending} {'is' if pending == 1 else 'are'} still being written" if pending else ""
        count = len(failures) + more
        samples = "sample was" if count == 1 else "samples were"
        size = f" ({nbytes / 1e6:.1f} MB)" if nbytes else ""
        kept = sum(failure.kept is not None for failure in failures)
        kept_words = "1 value is kept, and lighter-async replay DIR writes it"
        if kept != 1:
            kept_words = f"{kept} values are kept, and lighter-async replay DIR writes them"
        where = f"; {kept_words}" if kept else ""
        full = any(one.cause is not None and is_disk_full(one.cause) for one in failures)
        way_out = (
            "; the disk is full: make room and run again with resume=True, which computes only what is missing, or "
            "give wait_for_space=SECONDS, or more of them"
            if full
            else ""
        )
        return cls(
            f"{count} {samples} not written: {listed}{rest}{where}{way_out} "
            f"[{written} {'sample is' if written == 1 else 'samples are'} stored{size}{still}]",
            writer=first.writer,
            name=first.name,
            attempts=first.attempts,
            cause=first.cause,
            failures=failures,
        )

    def __reduce__(self) -> tuple[object, ...]:
        # The keyword-only attributes must survive the way from a spawned rank back to its launcher, and a cause
        # that cannot be pickled must not cost us the error itself.
        try:
            pickle.dumps(self.cause)
            cause = self.cause
        except Exception:
            cause = None
        known = self.args[0], self.writer, self.name, self.attempts, cause, self._failures, self.kept
        return _rebuild_write_error, known


def _of_cause(failures: Sequence[WriteError]) -> str:
    """The first of some failures with the same cause, and how many more there are."""
    others = len(failures) - 1
    if not others:
        return str(failures[0])
    names = ", ".join(shown(failure.name) for failure in failures[1:_LISTED_FAILURES])
    return f"{failures[0]}; and likewise {names}{f' and {others - 4} more' if others > 4 else ''}"


def _rebuild_write_error(
    message: str,
    writer: str,
    name: str,
    attempts: int,
    cause: BaseException | None,
    failures: tuple[WriteError, ...],
    kept: str | None,
) -> WriteError:
    error = WriteError(message, writer=writer, name=name, attempts=attempts, cause=cause, failures=failures)
    error.kept = kept
    return error


class InvalidNameError(LighterAsyncError, ValueError):
    """A name cannot become a file below the target's directory. Nothing of its batch was queued."""


class DuplicateNameError(LighterAsyncError, ValueError):
    """Two samples of one run have one name. Nothing of the second one's batch was queued."""


class QueueFullError(LighterAsyncError):
    """There is no room now, and the caller asked not to wait. Nothing of the batch was queued."""


class ClosedError(LighterAsyncError):
    """The writer takes no more samples: it was closed, aborted, stopped by a failure, or belongs to another process."""


class ReadError(LighterAsyncError):
    """A sample that was stored cannot be read back.

    Attributes:
        name: The sample's name.
        file: Its file below the directory; None where none is recorded, as of a function ``(path, value)``.
        trouble: What is wrong, as `lighter-async verify` says it: ``"missing"``, ``"wrong size"``, ``"wrong checksum"``
            or ``"unreadable"``; or ``"not decoded"``, of a whole file that no value could be made of.
        detail: The same in more words.
    """

    def __init__(
        self,
        message: str,
        *,
        name: str = "",
        file: str | None = None,
        trouble: str = "unreadable",
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.name = name
        self.file = file
        self.trouble = trouble
        self.detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_read_error, (self.args[0], self.name, self.file, self.trouble, self.detail)


def _rebuild_read_error(message: str, name: str, file: str | None, trouble: str, detail: str) -> ReadError:
    return ReadError(message, name=name, file=file, trouble=trouble, detail=detail)


class ResumeError(LighterAsyncError, ValueError):
    """A run cannot go on from what is stored: it is of another data set, or was made with something else."""


class FlushTimeoutError(LighterAsyncError, TimeoutError):
    """Time was up before everything accepted was stored. The samples stay queued and are still being written.

    Attributes:
        pending: How many samples were still waited for.
    """

    def __init__(self, message: str, *, pending: int) -> None:
        super().__init__(message)
        self.pending = pending

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_flush_timeout, (self.args[0], self.pending)


class WorkerDiedError(LighterAsyncError):
    """Helper processes ended again and again, so that a sample could not be written: the cause of its `WriteError`."""


class BackendUnavailableError(LighterAsyncError, OSError):
    """Helper processes cannot be had on this system, or within its limits; the cause is what the system said.

    Attributes:
        why: What is missing.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; choose backend='thread', or leave it at 'auto', which takes threads by itself then")
        self.why = why

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.why,)


class NameTakenError(LighterAsyncError, FileExistsError):
    """Another rank of this run has stored a different sample under the name: the cause of a `WriteError`."""


class WriteTimeoutError(LighterAsyncError, TimeoutError):
    """Writing a sample took longer than ``write_timeout``: the cause of its `WriteError`.

    Attributes:
        stack: Where the writer was at that time, as text.
    """

    def __init__(self, message: str, *, stack: str = "") -> None:
        super().__init__(message)
        self.stack = stack

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_write_timeout, (self.args[0], self.stack)


def _rebuild_write_timeout(message: str, stack: str) -> WriteTimeoutError:
    return WriteTimeoutError(message, stack=stack)


def _rebuild_flush_timeout(message: str, pending: int) -> FlushTimeoutError:
    return FlushTimeoutError(message, pending=pending)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no room left on the disk, or in a quota."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL


def shown(value: object) -> str:
    """A user's value for a message: never long, and never what a tensor or an array holds."""
    kind = type(value)
    if isinstance(value, (str, bytes)):
        short = value if len(value) <= _LONGEST_SHOWN else value[: _LONGEST_SHOWN // 2]
        return repr(short) if short is value else f"{short!r}... of length {len(value)}"
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 1 << 64):
        return repr(value)
    shape = getattr(value, "shape", None)
    of = f" of shape {tuple(shape)}" if isinstance(shape, tuple) else ""
    article = "an" if kind.__qualname__[:1] in "AEIOUaeiou" else "a"
    return f"{article} {kind.__qualname__}{of}"


def meant(given: Iterable[str], known: Sequence[str]) -> str:
    """What to say of the first given name that is not known: which of those that are known is like it, if one is."""
    import difflib

    strange = next((name for name in given if name not in known), None)
    near = difflib.get_close_matches(strange, known, 1) if strange is not None else []
    return f"; did you mean {near[0]!r}?" if near else ""


def describe(error: BaseException) -> str:
    """An exception's type and message, also of one whose message cannot be had."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException as unable:
        return f"{type(error).__name__} (its message cannot be had: __str__ raised {type(unable).__name__})"


def attach(error: Exception | str, exception: BaseException) -> None:
    """Tell `error` beside the user's own `exception`, which stays the one that is raised.

    From Python 3.11 on it becomes a note of the exception; before, the last link of its chain.
    """
    text = error if isinstance(error, str) else describe(error)
    if hasattr(exception, "add_note"):
        exception.add_note("\n".join([f"lighter_async: {text}", *getattr(error, "__notes__", ())]))
        return
    link = error if isinstance(error, LighterAsyncError) else LighterAsyncError(text)
    # It was raised while the other was under way, and a chain must not lead back to where it began.
    link.__context__ = None
    last = exception
    while last.__context__ is not None:
        last = last.__context__
    if last is not link:
        last.__context__ = link
