"""A failure that is kept has its traceback as text, and holds nothing of what it was raised over."""

import traceback
import weakref
from dataclasses import dataclass
from functools import partial

import pytest

from lighter_async import BackgroundWriter, WriteError
from lighter_async.tracebacks import WriterTraceback, keep_as_text, traceback_of
from lighter_async.workers.patience import Patience


class Sample:
    """Something of which one sees whether it is still there."""


@dataclass(frozen=True)
class Frozen(Exception):
    """Takes no attributes."""

    code: int = 1


def caught_from(function, *args):
    """What it raises."""
    try:
        function(*args)
    except BaseException as error:
        return error


def broken_writer(sample):
    """Raises while it holds a sample, with a cause of its own."""
    held = sample
    try:
        raise ConnectionError("no route")
    except ConnectionError as error:
        raise ValueError(f"cannot write a {type(held).__name__}") from error


def test_what_is_kept_refers_to_no_sample_and_still_prints_the_frames():
    """The causes stay, and their frames are there as text alone."""
    sample = Sample()
    seen = weakref.ref(sample)
    error = caught_from(broken_writer, sample)
    keep_as_text(error)
    del sample
    assert seen() is None
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, ConnectionError)
    printed = "".join(traceback.format_exception(error))
    assert printed.count("in broken_writer") == 2
    assert "raise ConnectionError" in printed


def test_a_context_that_is_not_printed_holds_nothing_either():
    """``raise ... from None`` hides a context, which has a traceback all the same."""

    def hide(sample):
        try:
            broken_writer(sample)
        except ValueError:
            raise KeyError("short") from None

    sample = Sample()
    seen = weakref.ref(sample)
    error = caught_from(hide, sample)
    keep_as_text(error)
    del sample
    assert seen() is None
    assert "in hide" in traceback_of(error)
    assert "broken_writer" not in traceback_of(error)


def test_one_exception_object_that_is_raised_again_keeps_its_last_traceback():
    """The text neither grows nor goes stale."""
    shared = OSError("the one")

    def first():
        raise shared

    def second():
        raise shared

    keep_as_text(caught_from(first))
    keep_as_text(shared)
    assert "in first" in traceback_of(shared)
    keep_as_text(caught_from(second))
    assert "in second" in traceback_of(shared)
    assert "in first" not in traceback_of(shared)
    assert isinstance(shared.__cause__, WriterTraceback)
    assert shared.__cause__.__cause__ is None


def test_an_exception_that_takes_no_attributes_is_kept_too():
    """A frozen dataclass refuses assignments, but not these."""

    def fail(held):
        raise Frozen

    sample = Sample()
    seen = weakref.ref(sample)
    error = caught_from(fail, sample)
    keep_as_text(error)
    del sample
    assert seen() is None
    assert "in fail" in traceback_of(error)


def test_exceptions_of_a_group_and_in_a_circle_are_reached_once():
    """Whatever refers to whatever: it ends, and no traceback is left."""
    inner, outer = caught_from(broken_writer, 1), caught_from(broken_writer, 2)
    inner.__cause__, outer.__cause__ = outer, inner
    keep_as_text(outer)
    assert inner.__traceback__ is outer.__traceback__ is None
    assert "in broken_writer" in traceback_of(outer)


def test_what_was_tried_in_vain_is_freed_without_the_garbage_collector():
    """Also where the library for further attempts refers to itself."""

    def fail(sample):
        raise ConnectionError("never there")

    sample = Sample()
    seen = weakref.ref(sample)
    error = caught_from(Patience(attempts=2).call, partial(fail, sample), lambda _: None)
    keep_as_text(error)
    del sample
    assert seen() is None
    assert "in fail" in traceback_of(error)


def test_a_raised_failure_prints_the_frames_of_the_writer(tmp_path):
    """What a user sees of a background failure says where it happened, although no frame is left."""

    def write(path, value):
        raise ConnectionError("never there")

    writer = BackgroundWriter(write, tmp_path, max_workers=1, attempts=2)
    writer.submit("a", 1)
    with pytest.raises(WriteError, match="after 2 attempts") as caught:
        writer.close()
    assert isinstance(caught.value.cause, ConnectionError)
    assert 'raise ConnectionError("never there")' in "".join(traceback.format_exception(caught.value))
