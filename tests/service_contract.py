"""What a `BackgroundWriter` promises, whatever its workers and wherever it stores.

A new way of working, or a target of one's own, joins by a subclass with a harness:

```python
class TestMyTarget(ServiceContract):
    @pytest.fixture
    def make_harness(self, tmp_path):
        store = MyStore()
        return lambda: TargetHarness(tmp_path, make_target=lambda: MyTarget(store), read=store.read_all)
```
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from harness import ServiceHarness, content, in_thread, until

from lighter_async import (
    BackgroundWriter,
    ClosedError,
    DuplicateNameError,
    FlushTimeoutError,
    InvalidNameError,
    QueueFullError,
    WriteError,
    WriterStats,
)

PAGE = 4096
"""A size that staging memory is handed out in, so that what counts against `queue_bytes` is exactly known."""


def sample(fill: int = 0, nbytes: int = 16) -> np.ndarray[Any, Any]:
    return np.full(nbytes, fill % 256, np.uint8)


def add_up(stats: WriterStats) -> bool:
    return stats.accepted == stats.written + stats.skipped + stats.failed + stats.dropped + stats.pending


class Thing:
    """A value of no kind that staging knows, so that it is handed over as it is, and a weak reference can watch it."""


class ServiceContract:
    """The suite. A subclass gives the fixture `make_harness`, a function without arguments."""

    @pytest.fixture
    def make_harness(self) -> Callable[[], ServiceHarness]:
        raise NotImplementedError("a subclass says how it works")

    @pytest.fixture
    def harness(self, make_harness: Callable[[], ServiceHarness]) -> Iterator[ServiceHarness]:
        harness = make_harness()
        yield harness
        harness.close()

    # Storing

    def test_what_is_submitted_is_stored(self, harness: ServiceHarness) -> None:
        """Single samples and batches, from arrays, lists and strings, end up whole under their names."""
        with harness.make_service(max_workers=3) as service:
            service.submit("one", sample(1))
            service.submit_batch(["a/x", "a/y"], np.stack([sample(2), sample(3)]))
            service.submit_batch(["long", "text"], [sample(4, 100_000), "words"])
        assert harness.stored() == {
            "one": content(sample(1)),
            "a/x": content(sample(2)),
            "a/y": content(sample(3)),
            "long": content(sample(4, 100_000)),
            "text": b"words",
        }
        assert harness.leftovers() == []
        stats = service.stats()
        assert (stats.accepted, stats.written, stats.pending) == (5, 5, 0)
        assert stats.bytes_written == (0 if harness.opaque else 3 * 16 + 100_000 + 5)

    def test_an_empty_batch_is_fine(self, harness: ServiceHarness) -> None:
        """Nothing comes of it."""
        with harness.make_service() as service:
            service.submit_batch([], [])
            service.submit_batch([], np.empty((0, 4)))
        assert harness.stored() == {}
        assert service.stats().accepted == 0

    def test_what_the_caller_does_to_its_values_after_submitting_changes_nothing(self, harness: ServiceHarness) -> None:
        """Each kind of value was copied before submit returned, while the worker was still busy with another sample."""
        import torch

        service = harness.make_service(queue_size=10)
        for kind in ("array", "tensor", "list of tensors", "dict"):
            busy, *names = (f"{kind}/{name}" for name in ("busy", "x", "y"))
            entered = len(harness.gate.names)
            harness.gate.shut()
            service.submit(busy, sample())
            harness.gate.wait_entered(entered + 1)
            value: Any = np.stack([sample(7), sample(8)]) if kind == "array" else torch.arange(32).reshape(2, 16)
            expected = content(value[0]), content(value[1])
            if kind == "dict":
                for name, row in zip(names, value, strict=True):
                    service.submit(name, {"key": row})
                expected = tuple(content({"key": row.clone()}) for row in value)
            elif kind == "list of tensors":
                service.submit_batch(names, list(value))
            else:
                service.submit_batch(names, value)
            value[:] = 0
            harness.gate.release()
            service.flush()
            stored = harness.stored()
            assert (stored[names[0]], stored[names[1]]) == expected, kind
        service.close()

    def test_one_worker_stores_in_the_order_of_submission(self, harness: ServiceHarness) -> None:
        """The queue is one."""
        names = [f"{i:02}" for i in range(30)]
        with harness.make_service() as service:
            service.submit_batch(names[:10], np.zeros((10, 4)))
            for name in names[10:]:
                service.submit(name, sample())
        assert harness.gate.names == names

    def test_max_workers_samples_are_written_at_once(self, harness: ServiceHarness) -> None:
        """Three workers are in three samples, and no more."""
        service = harness.make_service(max_workers=3)
        harness.gate.shut()
        service.submit_batch([str(i) for i in range(5)], np.zeros((5, 100_000), np.uint8))
        harness.gate.wait_entered(3)
        harness.gate.release()
        service.close()
        assert len(harness.stored()) == 5
        assert harness.gate.most_inside == 3

    def test_nothing_exists_before_the_first_sample(self, harness: ServiceHarness) -> None:
        """Making a service starts no thread and makes no directory, and closing it then does neither."""
        threads = threading.enumerate()
        service = harness.make_service()
        assert service.state == "new"
        assert threading.enumerate() == threads
        assert not harness.directory.exists()
        service.flush()
        service.close()
        assert threading.enumerate() == threads
        assert not harness.directory.exists()
        assert service.state == "closed"

    # Bounds

    def test_a_full_queue_refuses_samples_that_do_not_wait(self, harness: ServiceHarness) -> None:
        """With one sample being written and one queued, both places are taken, and submit_nowait refuses."""
        service = harness.make_service(queue_size=2)
        harness.gate.shut()
        service.submit_nowait("a", sample(1))
        harness.gate.wait_entered()
        service.submit_nowait("b", sample(2))
        with pytest.raises(QueueFullError, match="2 of 2"):
            service.submit_nowait("c", sample(3))
        with pytest.raises(QueueFullError, match="2 of 2"):
            service.submit_batch_nowait(["c"], [sample(3)])
        harness.gate.release()
        service.flush()
        service.submit_nowait("c", sample(3))
        service.close()
        assert harness.stored() == {name: content(sample(i)) for i, name in enumerate("abc", 1)}
        assert service.stats().peak_pending == 2

    def test_bytes_are_bounded_too(self, harness: ServiceHarness) -> None:
        """Three pages of host memory hold three samples of a page, however many the queue takes."""
        service = harness.make_service(queue_bytes=3 * PAGE)
        harness.gate.shut()
        for name in "abc":
            service.submit_nowait(name, sample(nbytes=PAGE))
        with pytest.raises(QueueFullError):
            service.submit_nowait("d", sample(nbytes=PAGE))
        assert service.stats().pending_bytes == 3 * PAGE
        harness.gate.release()
        service.close()
        assert sorted(harness.stored()) == ["a", "b", "c"]
        assert (service.stats().pending_bytes, service.stats().peak_pending_bytes) == (0, 3 * PAGE)

    @pytest.mark.parametrize("above", ["queue_size", "queue_bytes"])
    def test_what_is_above_a_bound_comes_in_alone(self, harness: ServiceHarness, above: str) -> None:
        """It waits until nothing else is in flight, and nothing else comes in beside it."""
        service = harness.make_service(queue_size=3, queue_bytes=4 * PAGE)
        rows, nbytes = (5, 16) if above == "queue_size" else (1, 5 * PAGE)
        names, values = [f"big{i}" for i in range(rows)], np.zeros((rows, nbytes), np.uint8)
        harness.gate.shut()
        service.submit("small", sample())
        harness.gate.wait_entered()
        with pytest.raises(QueueFullError):
            service.submit_batch_nowait(names, values)
        harness.gate.release("small")
        service.flush()
        service.submit_batch_nowait(names, values)
        with pytest.raises(QueueFullError):
            service.submit_nowait("beside", sample())
        harness.gate.release()
        service.submit("after", sample())
        service.close()
        assert sorted(harness.stored()) == sorted([*names, "small", "after"])

    def test_submit_waits_for_room_and_counts_that(self, harness: ServiceHarness) -> None:
        """It goes on when there is room, and the wait stands in the statistics."""
        service = harness.make_service(queue_size=1)
        harness.gate.shut()
        service.submit("a", sample())
        assert (service.stats().waits, service.stats().waited_seconds) == (0, 0)
        waiting = in_thread(service.submit, "b", sample())
        until(lambda: service.stats().waits == 1)
        assert waiting.running
        assert service.stats().accepted == 1
        harness.gate.release()
        waiting.result()
        service.close()
        assert sorted(harness.stored()) == ["a", "b"]
        assert service.stats().waits == 1
        assert service.stats().waited_seconds > 0

    def test_submit_gives_up_after_its_timeout(self, harness: ServiceHarness) -> None:
        """Nothing of what was not taken is stored, and its name is free again."""
        service = harness.make_service(queue_size=1)
        harness.gate.shut()
        service.submit("a", sample())
        with pytest.raises(QueueFullError, match=r"0\.01 s"):
            service.submit("b", sample(), timeout=0.01)
        with pytest.raises(QueueFullError):
            service.submit_batch(["b", "c"], [sample(), sample()], timeout=0.01)
        harness.gate.release()
        service.flush()
        assert sorted(harness.stored()) == ["a"]
        service.submit("b", sample(), timeout=30)
        service.close()
        assert sorted(harness.stored()) == ["a", "b"]
        assert service.stats().accepted == 2

    def test_those_who_wait_come_in_in_the_order_they_came(self, harness: ServiceHarness) -> None:
        """First come, first served, also past one that would fit earlier."""
        service = harness.make_service(queue_size=10, queue_bytes=2 * PAGE)
        harness.gate.shut()
        service.submit("a", sample(nbytes=PAGE))
        waiting = []
        for count, (name, nbytes) in enumerate([("b", 2 * PAGE), ("c", PAGE), ("d", 2 * PAGE), ("e", 16)], 1):
            waiting.append(in_thread(service.submit, name, sample(nbytes=nbytes)))
            until(lambda count=count: service.stats().waits == count)
        with pytest.raises(QueueFullError):
            service.submit_nowait("f", "")
        harness.gate.release()
        for one in waiting:
            one.result()
        service.close()
        assert harness.gate.names == list("abcde")

    @pytest.mark.parametrize(
        ("names", "values", "error"),
        [
            (["b", "c", "d"], np.zeros((3, 4)), QueueFullError),
            (["b", "../c"], np.zeros((2, 4)), InvalidNameError),
            (["b", "b"], np.zeros((2, 4)), DuplicateNameError),
            (["b", "a"], np.zeros((2, 4)), DuplicateNameError),
            (["b", None], np.zeros((2, 4)), TypeError),
            (["b"], np.zeros((2, 4)), ValueError),
        ],
    )
    def test_a_batch_is_taken_whole_or_not_at_all(
        self, harness: ServiceHarness, names: list[Any], values: Any, error: type[Exception]
    ) -> None:
        """Of a batch that is refused nothing is stored, and its good names can still be used."""
        service = harness.make_service(queue_size=3)
        harness.gate.shut()
        service.submit("a", sample())
        with pytest.raises(error):
            service.submit_batch_nowait(names, values)
        assert service.stats().accepted == 1
        harness.gate.release()
        service.submit("b", sample(1))
        service.close()
        assert harness.stored() == {"a": content(sample()), "b": content(sample(1))}

    def test_staging_memory_is_reused_within_its_budget(self, harness: ServiceHarness) -> None:
        """Many batches of many sizes never hold more host memory than `queue_bytes`."""
        with harness.make_service(max_workers=2, queue_bytes=16 * PAGE) as service:
            for step in range(100):
                rows = 1 + step % 5
                service.submit_batch(
                    [f"{step}-{row}" for row in range(rows)], np.full((rows, PAGE * 3 // 4), step, np.uint8)
                )
                assert harness.host_memory(service) <= 16 * PAGE
        stored = harness.stored()
        assert len(stored) == sum(1 + step % 5 for step in range(100))
        assert all(data == bytes([int(name.split("-")[0])]) * (PAGE * 3 // 4) for name, data in stored.items())
        assert service.stats().peak_pending_bytes <= 16 * PAGE

    # Flush

    def test_flush_waits_for_everything_accepted_before(self, harness: ServiceHarness) -> None:
        """It returns when the parked sample and the queued one are stored, and the service stays open."""
        service = harness.make_service()
        harness.gate.shut()
        service.submit("a", sample())
        service.submit("b", sample())
        flushing = in_thread(service.flush)
        harness.gate.wait_entered()
        harness.gate.release("a")
        harness.gate.wait_entered(2)
        assert flushing.running
        harness.gate.release()
        flushing.result()
        assert sorted(harness.stored()) == ["a", "b"]
        service.submit("c", sample())
        service.flush()
        assert sorted(harness.stored()) == ["a", "b", "c"]
        service.close()

    def test_flush_does_not_wait_for_what_comes_later(self, harness: ServiceHarness) -> None:
        """It returns although there was always a sample pending, because each is followed before it is stored."""
        service = harness.make_service()
        harness.gate.shut()
        service.submit("0", sample())
        flushing = in_thread(service.flush)
        count = 1
        while flushing.running:
            assert count < 100_000, "flush waits for later samples"
            harness.gate.wait_entered(count)
            service.submit(str(count), sample())
            harness.gate.release(str(count - 1))
            count += 1
        flushing.result()
        harness.gate.release()
        service.close()
        assert len(harness.stored()) == count

    def test_flush_that_times_out_leaves_everything_queued(self, harness: ServiceHarness) -> None:
        """It tells how many samples are pending, and a later flush finds them stored."""
        service = harness.make_service()
        harness.gate.shut()
        service.submit("a", sample())
        service.submit("b", sample())
        with pytest.raises(FlushTimeoutError, match="2 samples") as caught:
            service.flush(timeout=0.01)
        assert caught.value.pending == 2
        assert isinstance(caught.value, TimeoutError)
        harness.gate.release()
        service.flush(timeout=30)
        assert sorted(harness.stored()) == ["a", "b"]
        service.close()

    # Close and abort

    def test_close_may_be_called_again(self, harness: ServiceHarness) -> None:
        """Also before anything was submitted, and beside a with statement."""
        with harness.make_service() as service:
            service.submit("a", sample())
            service.close()
            service.close()
        service.close()
        assert service.abort() == 0
        assert service.state == "closed"
        assert list(harness.stored()) == ["a"]

    def test_close_from_two_threads_returns_in_both_when_all_is_stored(self, harness: ServiceHarness) -> None:
        """Neither returns before."""
        service = harness.make_service()
        harness.gate.shut()
        service.submit("a", sample())
        closing = [in_thread(service.close) for _ in range(2)]
        until(lambda: service.state == "draining")
        assert all(one.running for one in closing)
        harness.gate.release()
        for one in closing:
            one.result()
        assert list(harness.stored()) == ["a"]

    def test_close_that_times_out_goes_on_closing(self, harness: ServiceHarness) -> None:
        """Nothing is accepted any more, what was is still stored, and the next close waits for it."""
        service = harness.make_service()
        harness.gate.shut()
        service.submit("a", sample())
        service.submit("b", sample())
        with pytest.raises(FlushTimeoutError) as caught:
            service.close(timeout=0.01)
        assert caught.value.pending == 2
        with pytest.raises(ClosedError):
            service.submit("c", sample())
        harness.gate.release()
        service.close()
        assert sorted(harness.stored()) == ["a", "b"]

    def test_closing_turns_those_away_who_wait_for_room(self, harness: ServiceHarness) -> None:
        """They get a ClosedError at once, while what was accepted before is still being stored."""
        service = harness.make_service(queue_size=1)
        harness.gate.shut()
        service.submit("a", sample())
        waiting = [in_thread(service.submit, name, sample()) for name in "bc"]
        until(lambda: service.stats().waits == 2)
        closing = in_thread(service.close)
        for one in waiting:
            with pytest.raises(ClosedError):
                one.result()
        assert closing.running
        harness.gate.release()
        closing.result()
        assert list(harness.stored()) == ["a"]
        assert service.stats().accepted == 1

    def test_a_closed_service_takes_no_samples(self, harness: ServiceHarness) -> None:
        """Whatever the call, and whether it ever ran or not; flush and close still work."""
        used, unused = harness.make_service(), harness.make_service()
        used.submit("a", sample())
        for service in (used, unused):
            service.close()
            calls: list[Callable[[], object]] = [
                service.start,
                service.__enter__,
                lambda service=service: service.submit("b", sample()),
                lambda service=service: service.submit_nowait("b", sample()),
                lambda service=service: service.submit_batch(["b"], [sample()]),
                lambda service=service: service.submit_batch_nowait(["b"], [sample()]),
                lambda service=service: service.submit_batch([], []),
            ]
            for call in calls:
                with pytest.raises(ClosedError, match="closed"):
                    call()
            service.flush()
        assert list(harness.stored()) == ["a"]

    def test_abort_drops_what_no_worker_has_begun(self, harness: ServiceHarness) -> None:
        """It tells how many samples that were; the one that was begun is finished, and nothing half is left."""
        service = harness.make_service()
        harness.gate.shut()
        service.submit("a", sample(1, 100_000))
        harness.gate.wait_entered()
        service.submit("b", sample(2))
        service.submit("c", sample(3))
        aborting = in_thread(service.abort)
        until(lambda: service.stats().dropped == 2)
        assert aborting.running
        assert add_up(service.stats())
        harness.gate.release()
        assert aborting.result() == 2
        assert harness.stored() == {"a": content(sample(1, 100_000))}
        assert harness.leftovers() == []
        stats = service.stats()
        assert (stats.accepted, stats.written, stats.dropped, stats.pending, stats.pending_bytes) == (3, 1, 2, 0, 0)
        with pytest.raises(ClosedError):
            service.submit("d", sample())
        service.close()

    # Failures

    def test_a_failure_is_told_by_the_next_submit(self, harness: ServiceHarness) -> None:
        """It raises all failures together, once; from then on the service is closed to samples, but not lost."""
        service = harness.make_service()
        harness.gate.fail("a")
        harness.gate.fail("b", error=OSError(28, "disk full"))
        service.submit_batch(["a", "b", "c"], np.stack([sample(i) for i in range(3)]))
        until(lambda: service.stats().pending == 0)
        assert service.state == "failed"
        with pytest.raises(WriteError, match="2 samples were not written") as caught:
            service.submit("d", sample())
        assert [failure.name for failure in caught.value.failures] == ["a", "b"]
        assert [type(failure.cause) for failure in caught.value.failures] == [ValueError, OSError]
        assert "no way to write a" in str(caught.value)
        assert "disk full" in str(caught.value)
        with pytest.raises(ClosedError, match="no way to write a"):
            service.submit("d", sample())
        service.flush()
        service.close()
        assert harness.stored() == {"c": content(sample(2))}
        assert harness.leftovers() == []
        stats = service.stats()
        assert (stats.accepted, stats.written, stats.failed, stats.pending) == (3, 1, 2, 0)

    @pytest.mark.parametrize("call", ["flush", "close", "abort"])
    def test_failures_are_raised_together_and_once(self, harness: ServiceHarness, call: str) -> None:
        """Whichever call comes first has them all, and what was accepted before and after them is stored."""
        service = harness.make_service(max_workers=2)
        harness.gate.fail("1", "3", "4")
        harness.gate.shut()
        service.submit_batch([str(i) for i in range(6)], np.zeros((6, 4)))
        harness.gate.release()
        until(lambda: service.stats().pending == 0)
        with pytest.raises(WriteError, match="3 samples were not written") as caught:
            getattr(service, call)()
        assert sorted(failure.name for failure in caught.value.failures) == ["1", "3", "4"]
        service.flush()
        service.close()
        assert sorted(harness.stored()) == ["0", "2", "5"]

    def test_one_who_waits_for_room_is_told_of_a_failure(self, harness: ServiceHarness) -> None:
        """It does not wait on for room that it could not use."""
        service = harness.make_service(queue_size=1)
        harness.gate.fail("a")
        harness.gate.shut()
        service.submit("a", sample())
        waiting = in_thread(service.submit, "b", sample())
        until(lambda: service.stats().waits == 1)
        harness.gate.release()
        with pytest.raises(WriteError, match="no way to write a"):
            waiting.result()
        service.close()
        assert service.stats().accepted == 1

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
    def test_whatever_a_writer_raises_is_a_failure(self, harness: ServiceHarness, error: BaseException) -> None:
        """Also what is no Exception: it ends neither the worker nor the process, and the next sample is written."""
        service = harness.make_service()
        harness.gate.fail("a", error=error)
        service.submit_batch(["a", "b"], [sample(), sample()])
        with pytest.raises(WriteError, match=type(error).__name__) as caught:
            service.close()
        assert [type(failure.cause) for failure in caught.value.failures] == [type(error)]
        assert list(harness.stored()) == ["b"]

    def test_a_failed_sample_may_be_submitted_under_its_name_again(self, harness: ServiceHarness) -> None:
        """By the next service, once this one is closed."""
        service = harness.make_service()
        harness.gate.fail("a")
        service.submit("a", sample())
        with pytest.raises(WriteError):
            service.close()
        harness.gate = type(harness.gate)()
        with harness.make_service() as again:
            again.submit("a", sample(1))
        assert harness.stored() == {"a": content(sample(1))}

    def test_an_exception_in_the_body_stays_the_users_own(self, harness: ServiceHarness) -> None:
        """What was accepted before it is stored, and our failures are told beside it."""
        harness.gate.fail("b")
        error = LookupError("mine")
        service = harness.make_service()

        def fail_within() -> None:
            with service:
                service.submit_batch(["a", "b"], [sample(), sample()])
                raise error

        with pytest.raises(LookupError) as caught:
            fail_within()
        assert caught.value is error
        assert service.state == "closed"
        assert list(harness.stored()) == ["a"]
        if sys.version_info >= (3, 11):
            assert "no way to write b" in "".join(error.__notes__)
        else:
            assert "no way to write b" in str(error.__context__)

    def test_an_exception_in_the_body_without_failures_is_left_alone(self, harness: ServiceHarness) -> None:
        """Nothing is attached to it."""

        def fail_within() -> None:
            with harness.make_service() as service:
                service.submit("a", sample())
                raise KeyError("mine")

        with pytest.raises(KeyError) as caught:
            fail_within()
        assert not hasattr(caught.value, "__notes__")
        assert caught.value.__context__ is None
        assert list(harness.stored()) == ["a"]

    # Memory

    def test_an_idle_worker_keeps_no_sample_alive(self, harness: ServiceHarness) -> None:
        """Once it is stored, nothing of ours refers to it any more, without the garbage collector."""
        if not harness.same_process:
            pytest.skip("the writer has a copy of its own")
        service = harness.make_service()
        thing = Thing()
        seen = weakref.ref(thing)
        service.submit_batch(["a"], [thing])
        del thing
        service.flush()
        until(lambda: seen() is None)
        service.close()

    def test_a_failure_keeps_no_sample_alive(self, harness: ServiceHarness) -> None:
        """The failure has its traceback as text, so that no frame refers to the value."""
        if not harness.same_process:
            pytest.skip("the writer has a copy of its own")
        service = harness.make_service()
        harness.gate.fail("a")
        thing = Thing()
        seen = weakref.ref(thing)
        service.submit_batch(["a", "b"], [thing, sample()])
        del thing
        until(lambda: service.stats().pending == 0)
        until(lambda: seen() is None)
        with pytest.raises(WriteError) as caught:
            service.close()
        assert caught.value.failures[0].cause is not None
        assert "Traceback (most recent call last)" in "".join(traceback.format_exception(caught.value))

    def test_a_closed_service_holds_no_host_memory(self, harness: ServiceHarness) -> None:
        """What was kept for reuse is given back."""
        with harness.make_service() as service:
            service.submit("a", sample(nbytes=PAGE))
        assert harness.host_memory(service) == 0

    # Names

    def test_names_that_cannot_be_files_are_refused_at_once(self, harness: ServiceHarness) -> None:
        """Before anything is queued; the service goes on, and a good name beside a bad one stays free."""
        names = ["", "/a", "../a", "a/../b", "a//b", "a/./b", "a/", "a\0b", ".lighter-async/a"]
        good = [f"good {number}" for number in range(len(names))]
        with harness.make_service() as service:
            for number, name in enumerate(names):
                with pytest.raises(InvalidNameError):
                    service.submit(name, sample())
                with pytest.raises(ValueError, match="name"):
                    service.submit_batch([good[number], name], [sample(), sample()])
                assert service.stats().accepted == number, repr(name)
                service.submit(good[number], sample())
        assert sorted(harness.stored()) == good

    def test_names_of_a_wrong_kind_are_refused_at_once(self, harness: ServiceHarness) -> None:
        """A name is a text, a number or a path, and a batch has a sequence of as many as it has samples."""
        with harness.make_service() as service:
            for name in (None, ["a"], 1j, sample()):
                with pytest.raises(TypeError):
                    service.submit(name, sample())  # type: ignore[arg-type]
            for names in ("ab", iter("ab"), {"a", "b"}, 3):
                with pytest.raises(TypeError):
                    service.submit_batch(names, [sample(), sample()])  # type: ignore[arg-type]
            for values in (3, "ab", None, {"a": 1}):
                with pytest.raises(TypeError):
                    service.submit_batch(["a", "b"], values)
            for names in (["a"], ["a", "b", "c"], []):
                with pytest.raises(ValueError, match="Length mismatch"):
                    service.submit_batch(names, [sample(), sample()])
            with pytest.raises(ValueError, match="batch dimension"):
                service.submit_batch(["a"], np.array(3))
        assert harness.stored() == {}

    def test_a_list_of_names_may_be_filled_anew(self, harness: ServiceHarness) -> None:
        """It was copied, like the values."""
        service = harness.make_service()
        harness.gate.shut()
        names = ["a", "b"]
        service.submit_batch(names, [sample(1), sample(2)])
        names[:] = ["x", "y"]
        harness.gate.release()
        service.close()
        assert harness.stored() == {"a": content(sample(1)), "b": content(sample(2))}

    def test_two_samples_of_one_run_cannot_have_one_name(self, harness: ServiceHarness) -> None:
        """The second is refused, with the name in the message, also after the first was stored."""
        with harness.make_service() as service:
            service.submit("same", sample(1))
            service.flush()
            with pytest.raises(DuplicateNameError, match="'same'"):
                service.submit("same", sample(2))
            with pytest.raises(DuplicateNameError, match="'twin'"):
                service.submit_batch(["twin", "other", "twin"], [sample()] * 3)
            service.submit("twin", sample(3))
        assert harness.stored() == {"same": content(sample(1)), "twin": content(sample(3))}

    def test_services_that_are_open_on_one_place_share_their_names(self, harness: ServiceHarness) -> None:
        """A name is free again once all of them are closed, not before."""
        first, second = harness.make_service(), harness.make_service()
        first.submit("a", sample(1))
        second.submit("b", sample(2))
        with pytest.raises(DuplicateNameError):
            second.submit("a", sample(3))
        first.close()
        with pytest.raises(DuplicateNameError):
            second.submit("a", sample(3))
        third = harness.make_service()
        with pytest.raises(DuplicateNameError):
            third.submit("a", sample(3))
        second.close()
        third.close()
        assert harness.stored() == {"a": content(sample(1)), "b": content(sample(2))}
        with harness.make_service() as fourth:
            fourth.submit("a", sample(4))
        assert harness.stored() == {"a": content(sample(4)), "b": content(sample(2))}

    # Threads and processes

    def test_a_writer_must_not_wait_for_itself(self, harness: ServiceHarness) -> None:
        """From within a worker only what never waits is allowed."""
        if not harness.same_process:
            pytest.skip("the writer has no service where it runs")
        service = harness.make_service()
        refused = []

        def misuse() -> None:
            calls: list[Callable[[], object]] = [
                lambda: service.submit("b", sample()),
                lambda: service.submit("b", sample(), timeout=1),
                lambda: service.submit_batch(["b"], [sample()]),
                service.flush,
                lambda: service.flush(timeout=1),
                service.close,
                service.abort,
            ]
            for call in calls:
                with pytest.raises(RuntimeError, match="own workers"):
                    call()
                refused.append(call)
            service.submit_nowait("b", sample(1))
            service.submit_batch_nowait(["c"], [sample(2)])

        harness.gate.call("a", misuse)
        service.submit("a", sample())
        service.flush()
        service.close()
        assert len(refused) == 7
        assert harness.stored() == {"a": content(sample()), "b": content(sample(1)), "c": content(sample(2))}

    def test_many_threads_may_submit_at_once(self, harness: ServiceHarness) -> None:
        """Every sample is stored once, and the books add up at any time."""
        service = harness.make_service(max_workers=3, queue_size=8, queue_bytes=8 * PAGE)
        ended = threading.Event()

        def submit(thread: int) -> None:
            for i in range(0, 80, 2):
                if i % 10:
                    service.submit_batch([f"{thread}/{i}", f"{thread}/{i + 1}"], np.stack([sample(i), sample(i + 1)]))
                else:
                    service.submit(f"{thread}/{i}", sample(i))
                    service.submit(f"{thread}/{i + 1}", sample(i + 1))

        def watch() -> int:
            looks = 0
            while not ended.is_set() or not looks:
                stats = service.stats()
                assert add_up(stats), stats
                assert 0 <= stats.pending <= 8
                assert 0 <= stats.pending_bytes <= 8 * PAGE
                looks += 1
            return looks

        watching = in_thread(watch)
        submitting = [in_thread(submit, thread) for thread in range(4)]
        try:
            for one in submitting:
                one.result()
        finally:
            ended.set()
        assert watching.result() > 0
        service.close()
        assert harness.stored() == {f"{t}/{i}": content(sample(i)) for t in range(4) for i in range(80)}
        assert len(harness.gate.names) == 320
        stats = service.stats()
        assert (stats.accepted, stats.written, stats.pending) == (320, 320, 0)

    @pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals between threads")
    def test_an_interrupted_wait_for_room_leaves_the_books_right(self, harness: ServiceHarness) -> None:
        """Ctrl-C while submit waits: that sample was not taken, and everything else is stored."""
        service = harness.make_service(queue_size=1)
        harness.gate.shut()
        service.submit("a", sample())

        interrupted = threading.Event()

        def handle(number: int, frame: object) -> None:
            if not interrupted.is_set():
                interrupted.set()
                raise KeyboardInterrupt

        def interrupt() -> None:
            until(lambda: service.stats().waits == 1)
            # Again and again, since the interpreter overlooks a signal that comes just before its thread waits.
            while not interrupted.is_set():
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                interrupted.wait(0.1)

        before = signal.signal(signal.SIGINT, handle)
        try:
            interrupting = in_thread(interrupt)
            with pytest.raises(KeyboardInterrupt):
                service.submit("b", sample())
            interrupting.result()
        finally:
            signal.signal(signal.SIGINT, before)
        assert (service.stats().accepted, service.stats().pending) == (1, 1)
        harness.gate.release()
        service.submit("b", sample(1))
        service.submit("c", sample(2))
        service.close()
        assert harness.stored() == {name: content(sample(i)) for i, name in enumerate("abc")}
        stats = service.stats()
        assert (stats.accepted, stats.written, stats.pending, stats.pending_bytes) == (3, 3, 0, 0)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_is_refused(self, harness: ServiceHarness) -> None:
        """Its parent's workers do not run there, so each call says so at once, and the parent goes on."""
        service = harness.make_service()
        harness.gate.shut()
        service.submit("a", sample())
        harness.gate.wait_entered()
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which is the point here
            child = os.fork()
        if child == 0:
            try:
                told = b"".join(_refusal_in_child(service, call) for call in _CALLS_IN_CHILD)
                os.write(write, told)
            finally:
                os._exit(0)
        os.close(write)
        with open(read, "rb") as pipe:
            told = pipe.read()
        os.waitpid(child, 0)
        assert told == b"ClosedError " * len(_CALLS_IN_CHILD)
        harness.gate.release()
        service.submit("b", sample())
        service.close()
        assert sorted(harness.stored()) == ["a", "b"]

    @pytest.fixture
    def only_new_garbage(self) -> Iterator[None]:
        """Whoever collects again and again would look at all of torch each time."""
        gc.freeze()
        yield
        gc.unfreeze()

    @pytest.mark.usefixtures("only_new_garbage")
    def test_a_service_that_was_not_closed_says_so(self, harness: ServiceHarness) -> None:
        """When it is collected, after everything accepted was stored."""
        service = harness.make_service()
        harness.forget()
        harness.gate.shut()
        service.submit("a", sample())
        harness.gate.wait_entered()
        seen = weakref.ref(service)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            del service
            gc.collect()
            assert told == []
            harness.gate.release()
            until(lambda: gc.collect() >= 0 and seen() is None and told)
        assert "never closed" in str(told[0].message)
        assert told[0].category is ResourceWarning
        assert list(harness.stored()) == ["a"]
        assert harness.leftovers() == []


_CALLS_IN_CHILD: list[Callable[[BackgroundWriter], object]] = [
    lambda service: service.submit("b", "words"),
    lambda service: service.submit_nowait("b", "words"),
    lambda service: service.submit_batch(["b"], ["words"]),
    lambda service: service.flush(),
    lambda service: service.close(),
    lambda service: service.abort(),
]


def _refusal_in_child(service: BackgroundWriter, call: Callable[[BackgroundWriter], object]) -> bytes:
    try:
        call(service)
    except BaseException as error:
        return type(error).__name__.encode() + b" "
    return b"nothing "
