"""Failures that keep their traceback as text.

A failure waits until the caller asks for it. The frames of its traceback would keep the sample alive that long: views
of a slot that the next batch overwrites, or a value as large as the batch. Text holds nothing, and it also travels from
a helper process.
"""

from __future__ import annotations

import traceback

from lighter_async.errors import describe

__all__ = ["WriterTraceback", "add_cause", "forget_frames", "keep_as_text", "kept_traceback", "shorten", "traceback_of"]

_LONGEST_TEXT = 4_000  # characters at the beginning, and as many at the end


class WriterTraceback(Exception):
    """Where a writer or target raised a failure, as text.

    It is the last cause in the failure's chain, so that Python prints it with the failure.
    """

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def keep_as_text(error: BaseException) -> None:
    """Replace the tracebacks of an exception, and of its causes, by one `WriterTraceback`."""
    if all(link.__traceback__ is None for link in _reachable(error)):
        return  # kept as text already, or never raised
    *earlier, last = _chain(error)
    if isinstance(last, WriterTraceback) and earlier:
        # One exception object that is raised again: the text of the last time must not become a part of this one.
        last = earlier[-1]
        add_cause(last, None)
    text = traceback_of(error)
    forget_frames(error)
    add_cause(last, WriterTraceback(text))


def forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an exception, and of its causes."""
    for link in _reachable(error):
        # The methods of BaseException itself, here and below: a frozen dataclass refuses to have attributes set.
        BaseException.with_traceback(link, None)


def traceback_of(error: BaseException) -> str:
    """Where an exception was raised, as text of bounded length."""
    if kept := kept_traceback(error):
        return kept
    try:
        return shorten("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    except Exception:  # of an exception that refuses to be looked at
        return shorten(describe(error))


def kept_traceback(error: BaseException) -> str:
    """The text that an exception's tracebacks were replaced by; empty if they were not."""
    last = _chain(error)[-1]
    return str(last.args[0]) if isinstance(last, WriterTraceback) else ""


def add_cause(error: BaseException, cause: BaseException | None) -> None:
    """Set the cause of an exception, also of one that takes no attributes."""
    BaseException.__setattr__(error, "__cause__", cause)


def shorten(text: str) -> str:
    """The beginning and the end of a text, which may be as long as the value that could not be written."""
    if len(text) <= 2 * _LONGEST_TEXT:
        return text
    return f"{text[:_LONGEST_TEXT]} ... {text[-_LONGEST_TEXT:]}"


def _chain(error: BaseException) -> list[BaseException]:
    """An exception and what caused it, one after the other, as Python prints them."""
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and all(link is not other for other in links):
        links.append(link)
        context = None if link.__suppress_context__ else link.__context__
        link = context if link.__cause__ is None else link.__cause__
    return links


def _reachable(error: BaseException) -> list[BaseException]:
    """An exception, and all that it refers to as its cause, its context, or a member of its group."""
    found: dict[int, BaseException] = {}
    waiting: list[object] = [error]
    while waiting:
        link = waiting.pop()
        if isinstance(link, BaseException) and id(link) not in found:
            found[id(link)] = link
            members = getattr(link, "exceptions", ()) if type(link).__name__.endswith("Group") else ()
            waiting += [link.__cause__, link.__context__, *members]
    return list(found.values())
