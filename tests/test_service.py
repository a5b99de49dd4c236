"""The service beyond its contract: options, states, and Ctrl-C at every point of a hand-over."""

import gc
import os
import signal
import sys

import numpy as np
import pytest
from harness import AsyncHarness, MemoryTarget, PathHarness, TargetHarness, content, in_thread

from lighter_async import BackgroundWriter, ClosedError, Encoder, LocalTarget, WriteError


async def write_async(path, value):
    path.write_bytes(content(value))


def write(path, value):
    path.write_bytes(content(value))


@pytest.mark.parametrize("option", ["max_workers", "queue_size", "queue_bytes"])
def test_bounds_are_whole_numbers_from_one(tmp_path, option):
    """Anything else is refused when the writer is made, with the option's name."""
    for value in (0, -1):
        with pytest.raises(ValueError, match=option):
            BackgroundWriter("text", tmp_path, **{option: value})
    for value in (1.5, "4", True):
        with pytest.raises(TypeError, match=option):
            BackgroundWriter("text", tmp_path, **{option: value})


def test_a_writer_stores_in_one_place(tmp_path):
    """A directory or a target, and the rule for existing files goes with the directory."""
    with pytest.raises(ValueError, match="directory"):
        BackgroundWriter("text")
    with pytest.raises(ValueError, match="not both"):
        BackgroundWriter("text", tmp_path, target=LocalTarget(tmp_path))
    with pytest.raises(ValueError, match="if_exists"):
        BackgroundWriter("text", target=LocalTarget(tmp_path), if_exists="skip")
    with pytest.raises(ValueError, match="if_exists"):
        BackgroundWriter("text", tmp_path, if_exists="keep")


@pytest.mark.parametrize("function", [write, write_async])
def test_path_functions_need_paths_and_decide_about_existing_files(tmp_path, function):
    """What cannot be kept is refused when the writer is made."""
    with pytest.raises(ValueError, match="no paths"):
        BackgroundWriter(function, target=MemoryTarget({}))
    for if_exists in ("skip", "error"):
        with pytest.raises(ValueError, match="if_exists"):
            BackgroundWriter(function, tmp_path, if_exists=if_exists)
    BackgroundWriter(function, tmp_path, if_exists="overwrite").close()


def test_writers_are_known_by_name_or_callable(tmp_path):
    """An unknown name and what cannot be called are refused when the writer is made."""
    with pytest.raises(ValueError, match="no_such"):
        BackgroundWriter("no_such", tmp_path)
    with pytest.raises(TypeError):
        BackgroundWriter(3, tmp_path)


def test_state_and_repr_tell_where_a_writer_stands(tmp_path):
    """From new to closed, and failed in between."""
    harness = TargetHarness(tmp_path)
    writer = harness.make_service()
    assert "'content'" in repr(writer)
    assert "new" in repr(writer)
    harness.gate.fail("a")
    with writer:
        assert writer.state == "running"
        writer.submit("a", "words")
        with pytest.raises(WriteError):
            writer.flush()
        assert writer.state == "failed"
    assert writer.state == "closed"
    assert "closed" in repr(writer)


def test_a_directory_that_cannot_be_made_stops_the_start(tmp_path):
    """Nothing is left of the attempt, and it may be tried again once the way is free."""
    obstacle = tmp_path / "out"
    obstacle.write_text("in the way")
    writer = BackgroundWriter("text", obstacle)
    for call in (writer.start, lambda: writer.submit("a", "words")):
        with pytest.raises(NotADirectoryError):
            call()
    assert writer.state == "new"
    obstacle.unlink()
    with writer:
        writer.submit("a", "words")
    assert (obstacle / "a.txt").read_text() == "words"


def test_an_unused_writer_may_be_used_after_a_fork(tmp_path):
    """It belongs to the process that starts it."""
    writer = BackgroundWriter("text", tmp_path)
    writer._lifecycle.pid = os.getpid() + 1  # made by another process, as far as it knows
    with writer:
        writer.submit("a", "words")
    assert (tmp_path / "a.txt").read_text() == "words"


@pytest.mark.parametrize(("if_exists", "expected"), [("skip", "old"), ("error", "old"), ("overwrite", "new")])
def test_existing_files_are_kept_or_replaced_as_asked(tmp_path, if_exists, expected):
    """And counted as skipped, failed or written."""
    (tmp_path / "a.txt").write_text("old")
    writer = BackgroundWriter("text", tmp_path, if_exists=if_exists)
    writer.submit("a", "new")
    if if_exists == "error":
        with pytest.raises(WriteError, match="exists already"):
            writer.close()
    writer.close()
    stats = writer.stats()
    assert (stats.skipped, stats.failed, stats.written) == {
        "skip": (1, 0, 0),
        "error": (0, 1, 0),
        "overwrite": (0, 0, 1),
    }[if_exists]
    assert (tmp_path / "a.txt").read_text() == expected


def test_a_plain_function_that_returns_an_awaitable_fails_its_sample(tmp_path):
    """Nobody would await it, so that nothing would be written; the message says what to do."""
    with pytest.raises(WriteError, match="async def"), BackgroundWriter(lambda p, v: write_async(p, v), tmp_path) as w:
        w.submit("a", "words")


def test_an_encoder_that_returns_no_bytes_fails_its_sample(tmp_path):
    """And the next one is written."""
    writer = BackgroundWriter(Encoder(lambda value: value, suffix=".bin"), tmp_path)
    writer.submit_batch(["a", "b"], [3, b"bytes"])
    with pytest.raises(WriteError, match="must return bytes"):
        writer.close()
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["b.bin"]


@pytest.mark.parametrize("make_harness", [TargetHarness, PathHarness, AsyncHarness])
def test_ctrl_c_at_any_point_of_a_hand_over_leaves_the_books_right(tmp_path, make_harness):
    """The batch is accepted and stored whole, or not at all, and the writer goes on.

    The interpreter looks for signals where a function begins and where a built-in one returns. A profiler is called
    there too, so one that raises at the first such point, then at the second, and so on, is Ctrl-C at each of them.
    """
    harness = make_harness(tmp_path)
    writer = harness.make_service(queue_size=100_000)
    harness.gate.shut()
    writer.submit("parked", "words")
    harness.gate.wait_entered()
    values = [np.zeros(8), "words"]
    batches = taken = 0
    interrupted = True
    while interrupted:
        batches += 1
        names = [f"{batches}/a", f"{batches}/b"]
        accepted = writer.stats().accepted
        interrupted = _interrupt_at(batches, lambda names=names: writer.submit_batch(names, values))
        # From another thread, which would wait for a lock that was left locked.
        now = in_thread(lambda: writer.stats().accepted).result()
        assert now - accepted in (0, 2)
        assert in_thread(lambda: writer._ledger._admission.samples).result() == writer.stats().pending
        taken += now > accepted
    assert batches > 20
    assert taken < batches
    harness.gate.release()
    in_thread(writer.close).result()
    stats = writer.stats()
    assert (stats.accepted, stats.written, stats.pending, stats.pending_bytes) == (1 + 2 * taken, 1 + 2 * taken, 0, 0)
    assert len(harness.stored()) == 1 + 2 * taken
    with pytest.raises(ClosedError):
        writer.submit("late", "words")


def _interrupt_at(point, call):
    """Call with a KeyboardInterrupt at one point; whether the call came that far."""
    left = point
    handler = signal.getsignal(signal.SIGINT)

    def profile(frame, event, argument):
        nonlocal left
        if event in ("call", "c_return"):
            left -= 1
            if left <= 0 and signal.getsignal(signal.SIGINT) is handler:  # else it is held back for a moment
                sys.setprofile(None)
                raise KeyboardInterrupt

    gc.disable()  # its callbacks are none of the hand-over's points
    sys.setprofile(profile)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
        gc.enable()
    return False


def test_failures_are_told_even_if_the_target_cannot_be_closed(tmp_path, monkeypatch):
    """Both errors reach the caller, the target's beside the samples'."""

    def fail(path, value):
        raise ValueError("no")

    def close(target):
        real(target)
        raise OSError("the disk is gone")

    real = LocalTarget.close
    monkeypatch.setattr(LocalTarget, "close", close)
    writer = BackgroundWriter(fail, tmp_path)
    writer.submit("a", 1)
    with pytest.raises(WriteError, match="ValueError: no") as raised:
        writer.close()
    assert isinstance(raised.value.failures[0].cause, ValueError)
    assert "the disk is gone" in "".join(getattr(raised.value, "__notes__", [repr(raised.value.__context__)]))
    writer.close()


class Unprintable(Exception):
    """An exception whose message cannot be had."""

    def __str__(self):
        raise RuntimeError("no message")


@pytest.mark.parametrize("make_harness", [TargetHarness, PathHarness, AsyncHarness])
def test_an_exception_without_a_message_fails_its_sample_alone(tmp_path, make_harness):
    """The worker lives on, and the next sample is stored."""
    harness = make_harness(tmp_path)
    harness.gate.fail("bad", error=Unprintable())
    writer = harness.make_service()
    writer.submit_batch(["bad", "good"], ["words", "words"])
    with pytest.raises(WriteError, match=r"'bad': Unprintable .its message cannot be had") as raised:
        writer.close(timeout=30)
    assert isinstance(raised.value.cause, Unprintable)
    assert (writer.stats().written, writer.stats().failed) == (1, 1)


def test_names_are_taken_over_with_the_batch(tmp_path):
    """Filling the list anew changes nothing, and a subclass of str counts as its text."""
    names = ["a", np.str_("b")]
    with BackgroundWriter("text", tmp_path) as writer:
        writer.submit_batch(names, ["1", "2"])
        names[:] = ["c", "d"]
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["a.txt", "b.txt"]
