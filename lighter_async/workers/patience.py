"""What is tried again: errors that pass by themselves, and a full disk that somebody may make room on."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from lighter_async.errors import WriteTimeoutError

__all__ = ["Patience", "is_full", "may_pass"]

_T = TypeVar("_T")

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0  # seconds
_FIRST_LOOK, _RAREST_LOOK = 0.1, 1.0  # for room on a full disk

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
_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_TOO_MANY_REQUESTS = 429


def is_full(error: BaseException) -> bool:
    """Whether it says that there is no room left on the disk, or in a quota."""
    return isinstance(error, OSError) and error.errno in _FULL


def may_pass(error: BaseException) -> bool:
    """Whether the same may succeed a moment later: a device or network that failed, or a server that is overloaded.

    Errors of HTTP clients tell the server's status as an attribute of their own, or of their response.
    """
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    if isinstance(error, WriteTimeoutError):
        return False  # such a sample may hold every worker up
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    for teller in (error, getattr(error, "response", None)):
        for attribute in ("status_code", "status", "code"):
            status = getattr(teller, attribute, None)
            if isinstance(status, int) and (500 <= status < 600 or status == _TOO_MANY_REQUESTS):
                return True
    return False


class Patience:
    """Tries again what may succeed a moment later.

    Args:
        attempts: How often at most, where the error may pass.
        wait_for_space: Seconds to wait for room on a full disk.
        write_timeout: Seconds that an attempt to write a sample may take; None if as long as it likes.
    """

    def __init__(self, attempts: int = 4, wait_for_space: float = 0.0, write_timeout: float | None = None) -> None:
        self.attempts = attempts
        self.wait_for_space = wait_for_space
        self.write_timeout = write_timeout
        self.is_over: Callable[[], bool] = _never

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"is_over": _never}  # which is this process's affair

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
                return function()
            except Exception as error:
                if not self.is_worth_it(error):
                    raise
                first = error
        earlier = [first]
        del first

        def attempt() -> _T:
            if earlier:
                raise earlier.pop()
            return function()

        import tenacity

        def before(state: Any) -> None:
            count(state.attempt_number)

        def before_sleep(_: Any) -> None:
            count(None)

        retrying = tenacity.Retrying(before=before, before_sleep=before_sleep, **self._rules())
        return retrying(attempt)

    async def call_async(self, function: Callable[[], Awaitable[_T]], count: Callable[[int | None], None]) -> _T:
        """As `call`, of an async function."""
        try:
            return await function()
        except Exception as error:
            if not self.is_worth_it(error):
                raise
            earlier = [error]

        async def attempt() -> _T:
            if earlier:
                raise earlier.pop()
            return await function()

        import tenacity

        async def before(state: Any) -> None:
            count(state.attempt_number)

        retrying = tenacity.AsyncRetrying(before=before, **self._rules())
        return await retrying(attempt)

    def is_worth_it(self, error: BaseException) -> bool:
        """Whether to try again after this error."""
        return (self.wait_for_space > 0 and is_full(error)) or (self.attempts > 1 and may_pass(error))

    def _rules(self) -> dict[str, Any]:
        import tenacity

        calmly = tenacity.wait_exponential_jitter(initial=_FIRST_WAIT, max=_LONGEST_WAIT)
        watchfully = tenacity.wait_exponential(multiplier=_FIRST_LOOK, max=_RAREST_LOOK)

        def error_of(state: Any) -> BaseException:
            error: BaseException = state.outcome.exception()
            return error

        return {
            "retry": tenacity.retry_if_exception(self.is_worth_it),
            "stop": lambda state: (
                self.is_over()
                or (
                    state.seconds_since_start >= self.wait_for_space
                    if is_full(error_of(state))
                    else state.attempt_number >= self.attempts
                )
            ),
            "wait": lambda state: watchfully(state) if is_full(error_of(state)) else calmly(state),
            "reraise": True,
        }


def _never() -> bool:
    return False
