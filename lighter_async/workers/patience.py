"""What is tried again: errors that pass by themselves, and a full disk that somebody may make room on."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Generic, TypeVar

from lighter_async.errors import WriteTimeoutError, is_disk_full
from lighter_async.tracebacks import forget_frames

__all__ = ["Patience", "may_pass"]

_T = TypeVar("_T")

_FIRST_WAIT, _LONGEST_WAIT, _JITTER = 0.1, 5.0, 0.5  # seconds
_FIRST_LOOK, _RAREST_LOOK = 0.1, 1.0  # for room on a full disk
_SLICE = 0.05  # of a wait, after which it is looked whether that is over

_PASSING = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.EAGAIN,
        errno.ETIMEDOUT,
        errno.EINTR,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.EPIPE,
        errno.EBUSY,
    }
)
_TOO_MANY_REQUESTS = 429
_LINKS = 10  # of a chain of causes that are looked at


def may_pass(error: BaseException) -> bool:
    """Whether the same may succeed a moment later: a device or network that failed, or a server that is overloaded.

    Errors of HTTP clients tell the server's status as an attribute of their own, or of their response; those of a
    connection that failed are caused by the system's.
    """
    if isinstance(error, WriteTimeoutError):
        return False  # such a sample may hold every worker up
    link: BaseException | None = error
    for _ in range(_LINKS):
        if link is None:
            return False
        if _passes(link):
            return True
        link = link.__cause__
    return False


def _passes(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    # Before Python 3.11 asyncio has a TimeoutError of its own.
    if isinstance(error, (ConnectionError, TimeoutError)) or type(error).__name__ == "TimeoutError":
        return True
    return any(
        isinstance(status, int) and (500 <= status < 600 or status == _TOO_MANY_REQUESTS)
        for teller in (error, _told(error, "response"))
        for status in (_told(teller, attribute) for attribute in ("status_code", "status", "code"))
    )


def _told(teller: Any, attribute: str) -> Any:
    try:
        return getattr(teller, attribute, None)
    except Exception:  # a property that has nothing to tell
        return None


class _Attempt(Generic[_T]):
    """A function that is tried again, until `let_go`.

    A tenacity object refers to itself through the state of its last round, so that only the garbage collector frees
    it. Let go of, it no longer keeps the sample that the function writes.
    """

    def __init__(self, function: Callable[[], _T], count: Callable[[int | None], None], first: BaseException) -> None:
        self._function: Callable[[], _T] | None = function
        self._count: Callable[[int | None], None] | None = count
        self._earlier = [first]  # what the attempt before this has raised

    def __call__(self) -> _T:
        if self._earlier:
            raise self._earlier.pop()
        assert self._function is not None
        return self._function()

    async def wait(self) -> Any:
        """The same, with an async function."""
        awaitable: Any = self()
        return await awaitable

    def before(self, state: Any) -> None:
        if self._count is not None:
            self._count(state.attempt_number)

    def before_sleep(self, state: Any) -> None:
        # Its frames refer to this attempt's sample, and some of them, in a circle, to the exception itself.
        forget_frames(state.outcome.exception())
        if self._count is not None:
            self._count(None)

    def let_go(self) -> None:
        self._function = self._count = None


class Patience:
    """Tries again what may succeed a moment later.

    Args:
        attempts: How often at most, where the error may pass.
        wait_for_space: Seconds to wait for room on a full disk, over all samples that wait at once: when one has
            waited in vain, those behind it need not wait as long again.
        write_timeout: Seconds that an attempt to write a sample may take; None if as long as it likes.
    """

    def __init__(self, attempts: int = 4, wait_for_space: float = 0.0, write_timeout: float | None = None) -> None:
        self.attempts = attempts
        self.wait_for_space = wait_for_space
        self.write_timeout = write_timeout
        self.is_over: Callable[[], bool] = _never
        # Since when the disk is full, as far as is known: monotonic seconds. Threads share it without a lock, since
        # all that a race costs is a wait that is longer.
        self._full_since: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"is_over": _never, "_full_since": None}  # which are this process's affair

    def call(
        self, function: Callable[[], _T], count: Callable[[int | None], None], first: BaseException | None = None
    ) -> _T:
        """Call a function, and again if that may help.

        Args:
            function: The function.
            count: Called with the number of each further attempt before it, and with None before waiting for it.
            first: What the first attempt has raised, if there was one already.

        Raises:
            BaseException: What the last attempt raised.
        """
        if first is None:
            # Nearly always all there is to do, and it runs for every sample.
            try:
                result = function()
            except Exception as error:
                if not self.is_worth_it(error):
                    raise
                first = error
            else:
                self._full_since = None
                return result
        attempt = _Attempt(function, count, first)
        import tenacity

        retrying = tenacity.Retrying(
            before=attempt.before, before_sleep=attempt.before_sleep, sleep=self._sleep, **self._rules()
        )
        try:
            result = retrying(attempt)
        finally:
            attempt.let_go()
        self._full_since = None
        return result

    async def call_async(self, function: Callable[[], Awaitable[_T]], count: Callable[[int | None], None]) -> _T:
        """As `call`, with an async function."""
        try:
            result = await function()
        except Exception as error:
            if not self.is_worth_it(error):
                raise
            attempt = _Attempt(function, count, error)
        else:
            self._full_since = None
            return result
        import tenacity

        retrying = tenacity.AsyncRetrying(
            before=attempt.before, before_sleep=attempt.before_sleep, sleep=self._sleep_async, **self._rules()
        )
        try:
            result = await retrying(attempt.wait)
        finally:
            attempt.let_go()
        self._full_since = None
        return result

    def note_space_available(self) -> None:
        """Note that something was stored, so that the disk is not full, or not any more."""
        self._full_since = None

    def is_worth_it(self, error: BaseException) -> bool:
        """Whether to try again after this error."""
        return (self.wait_for_space > 0 and is_disk_full(error)) or (self.attempts > 1 and may_pass(error))

    def _rules(self) -> dict[str, Any]:
        import tenacity

        passing = 0  # failures but for those of a full disk, which have a limit of their own
        began: float | None = None  # to wait for room

        def is_enough(state: Any) -> bool:
            nonlocal passing, began
            if not is_disk_full(state.outcome.exception()):
                passing += 1
                return passing >= self.attempts or self.is_over()
            now = monotonic()
            began = now if began is None else began
            self._full_since = began if self._full_since is None else self._full_since
            return now - min(began, self._full_since) >= self.wait_for_space or self.is_over()

        def seconds(state: Any) -> float:
            # Not tenacity's own, whose parameters have other names in each of its versions.
            growth: float = 2.0 ** min(state.attempt_number - 1, 20)
            if is_disk_full(state.outcome.exception()):
                return min(_FIRST_LOOK * growth, _RAREST_LOOK)
            return min(_FIRST_WAIT * growth + random.uniform(0, _JITTER), _LONGEST_WAIT)

        return {
            "retry": tenacity.retry_if_exception(self.is_worth_it),
            "stop": is_enough,
            "wait": seconds,
            "reraise": True,
        }

    def _sleep(self, seconds: float) -> None:
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0 and not self.is_over():
            time.sleep(min(left, _SLICE))

    async def _sleep_async(self, seconds: float) -> None:
        import asyncio

        end = monotonic() + seconds
        while (left := end - monotonic()) > 0 and not self.is_over():
            await asyncio.sleep(min(left, _SLICE))


def _never() -> bool:
    return False
