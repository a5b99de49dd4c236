"""The asyncio face: the same service, awaiting; on asyncio and on trio."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import threading
import time
import typing

import anyio
import numpy as np
import pytest
import torch
from anyio import from_thread, to_thread
from anyio.lowlevel import checkpoint
from harness import DEADLINE, Gate, GatedTarget, MemoryTarget, content

from lighter_async import (
    AsyncBackgroundWriter,
    BackgroundWriter,
    ClosedError,
    DuplicateNameError,
    Encoder,
    FlushTimeoutError,
    QueueFullError,
    WriteError,
    encoder,
)

LARGE = 5 << 20
"""Bytes of a sample that is copied in a thread."""


def on_every_loop(test):
    """Run an async test on asyncio and on trio, each within the deadline."""

    def run(event_loop, **fixtures):
        async def bounded():
            with anyio.fail_after(DEADLINE):
                await test(**fixtures)

        anyio.run(bounded, backend=event_loop)

    functools.update_wrapper(run, test)
    signature = inspect.signature(test)
    event_loop = inspect.Parameter("event_loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), event_loop])
    return pytest.mark.parametrize("event_loop", ["asyncio", "trio"])(run)


@pytest.fixture(autouse=True)
def _quick_threads(monkeypatch):
    # trio keeps the threads that it used for ten seconds, for the next one who needs one.
    monkeypatch.setattr("trio._core._thread_cache.IDLE_TIMEOUT", 0.001)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.release()


@pytest.fixture
def store():
    return {}


@pytest.fixture
def make_writer(gate, store):
    """Makes writers with one worker that store in `store` what has passed the gate."""

    def make(**options):
        target = GatedTarget(MemoryTarget(store), gate, "")
        return AsyncBackgroundWriter(
            Encoder(content, suffix="", name="content"), target=target, **{"max_workers": 1, **options}
        )

    return make


async def other_tasks_run() -> None:
    """Have two tasks wake each other many times, each parked on an event in between."""

    async def wait_and_wake(own: list[anyio.Event], others: list[anyio.Event]) -> None:
        for mine, other in zip(own, others, strict=True):
            await mine.wait()
            other.set()

    pings, pongs = ([anyio.Event() for _ in range(100)] for _ in range(2))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_and_wake, pings, pongs)
        tasks.start_soon(wait_and_wake, pongs[:-1], pings[1:])
        pings[0].set()
    assert pongs[-1].is_set()


async def entered(gate: Gate, count: int) -> None:
    await to_thread.run_sync(gate.wait_entered, count)


class SlowToCopy(np.ndarray):
    """An array whose copy tells that it has begun, and parks until it may go on."""

    def __new__(cls, nbytes: int = LARGE):
        self = np.ones(nbytes, np.uint8).view(cls)
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        return self

    def copy(self, order="C"):
        self.begun.set()
        assert self.may_go_on.wait(DEADLINE)
        return np.array(self, subok=False)


# What goes in is stored


@on_every_loop
async def test_what_is_submitted_is_stored(make_writer, store):
    """Every call hands over what its namesake of the other face does."""
    small, large = torch.arange(4), torch.arange(LARGE // 8)
    async with make_writer() as writer:
        await writer.submit("one", small)
        await writer.submit("large", large)
        await writer.submit_batch(["row0", "row1"], torch.ones(2, 3))
        await writer.submit_batch(["item0", "item1"], ["text", np.arange(3)])
        await writer.submit_batch([], [])
        writer.submit_nowait("now", small)
        writer.submit_batch_nowait(("now0", "now1"), torch.zeros(2, 3))
        assert writer.state == "running"
    assert writer.state == "closed"
    assert store == {
        "one": content(small),
        "large": content(large),
        "row0": content(torch.ones(3)),
        "row1": content(torch.ones(3)),
        "item0": b"text",
        "item1": content(np.arange(3)),
        "now": content(small),
        "now0": content(torch.zeros(3)),
        "now1": content(torch.zeros(3)),
    }
    stats = writer.stats()
    assert (stats.accepted, stats.written, stats.waits) == (9, 9, 0)


@on_every_loop
async def test_tensors_that_are_no_plain_block_of_memory_are_stored_too(tmp_path):
    """A sparse tensor, which does not tell its size, comes through."""
    sparse = torch.eye(3).to_sparse()
    async with AsyncBackgroundWriter("tensor", tmp_path) as writer:
        await writer.submit("sparse", sparse)
    assert torch.equal(torch.load(tmp_path / "sparse.pt").to_dense(), torch.eye(3))


@on_every_loop
async def test_what_the_caller_does_to_its_values_after_submit_changes_nothing(make_writer, store, gate):
    """The caller may overwrite its arrays as soon as submit has returned."""
    gate.shut()
    small, large = np.zeros(8, np.uint8), np.zeros(LARGE, np.uint8)
    async with make_writer() as writer:
        await writer.submit("small", small)
        await writer.submit("large", large)
        small[:] = large[:] = 1
        gate.release()
    assert store == {"small": bytes(8), "large": bytes(LARGE)}


def test_the_options_are_those_of_the_background_writer(make_writer):
    """Both faces are made with the same words, of the same types, and they reach the service."""
    with_hints = [typing.get_type_hints(kind.__init__) for kind in (AsyncBackgroundWriter, BackgroundWriter)]
    assert with_hints[0] == with_hints[1]
    parameters = [inspect.signature(kind).parameters for kind in (AsyncBackgroundWriter, BackgroundWriter)]
    assert [(one.name, one.kind, one.default) for one in parameters[0].values()] == [
        (one.name, one.kind, one.default) for one in parameters[1].values()
    ]
    stats = make_writer(max_workers=3, queue_size=5, queue_bytes=7).stats()
    assert (stats.max_workers, stats.queue_size, stats.queue_bytes) == (3, 5, 7)


def test_the_directory_and_its_rule_are_passed_on(tmp_path):
    """if_exists goes with a directory, as for the other face."""
    (tmp_path / "a.txt").write_text("old")

    async def main():
        async with AsyncBackgroundWriter("text", tmp_path, if_exists="skip") as writer:
            await writer.submit_batch(["a", "b"], ["new", "new"])

    anyio.run(main)
    assert ((tmp_path / "a.txt").read_text(), (tmp_path / "b.txt").read_text()) == ("old", "new")


@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
def test_a_writer_may_be_made_where_no_event_loop_runs(make_writer, store, event_loop):
    """It belongs to the loop that it is used from, such as a module's global in a server."""
    writer = make_writer(queue_size=1)

    async def submit(number):
        await writer.submit(f"{number}", "text")

    async def main():
        async with writer, anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(submit, number)

    anyio.run(main, backend=event_loop)
    assert len(store) == 10


# Nothing blocks the event loop


@on_every_loop
async def test_a_slow_target_never_blocks_the_event_loop(make_writer, gate, store):
    """Other tasks run on while one waits for room, one for a flush, and one for the end."""
    gate.shut()
    writer = make_writer(queue_size=1)
    async with writer:
        await writer.submit("a", "text")
        for call in [functools.partial(writer.submit, "b", "text"), writer.flush, writer.close]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                await other_tasks_run()
                assert not store
                tasks.cancel_scope.cancel()
        gate.release()
    assert store == {"a": b"text"}


@on_every_loop
async def test_a_large_sample_is_copied_beside_the_event_loop(make_writer, store):
    """Other tasks run on while a sample is copied."""
    slow = SlowToCopy()
    async with make_writer() as writer, anyio.create_task_group() as tasks:
        tasks.start_soon(writer.submit, "a", slow)
        await to_thread.run_sync(slow.begun.wait)
        await other_tasks_run()
        slow.may_go_on.set()
    assert store == {"a": content(slow)}


@on_every_loop
async def test_many_small_tensors_are_copied_beside_the_event_loop_too(make_writer, store):
    """It is their number that takes long."""
    here = threading.get_ident()
    copied_in = set()

    class Watched(np.ndarray):
        def copy(self, order="C"):
            copied_in.add(threading.get_ident())
            return np.array(self, subok=False)

    async with make_writer(queue_size=1000) as writer:
        await writer.submit_batch([f"{i}" for i in range(1000)], [np.ones(1).view(Watched) for _ in range(1000)])
    assert len(store) == 1000
    assert copied_in
    assert here not in copied_in


@on_every_loop
async def test_large_samples_come_in_when_the_programs_threads_all_wait_for_them(make_writer, store):
    """A copy takes none of the threads that a program may use at once."""
    async with make_writer() as writer:

        def endpoint(name):
            from_thread.run(writer.submit, name, np.zeros(LARGE, np.uint8))

        to_thread.current_default_thread_limiter().total_tokens = 2  # of this event loop only
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(to_thread.run_sync, endpoint, f"{number}")
    assert len(store) == 4


@on_every_loop
async def test_samples_come_in_in_the_order_of_their_calls(make_writer, gate):
    """Small ones do not overtake large ones, and nobody overtakes one who waits for room."""
    gate.shut()
    writer = make_writer(queue_size=1)
    values = {f"{i}": np.zeros(LARGE if i % 3 == 0 else 8, np.uint8) for i in range(12)}
    async with writer, anyio.create_task_group() as tasks:
        for name, value in values.items():
            tasks.start_soon(writer.submit, name, value)
            await anyio.wait_all_tasks_blocked()
        gate.release()
    assert gate.names == list(values)


@on_every_loop
async def test_a_batch_waits_for_room_for_all_of_it(make_writer, gate, store):
    """It comes in as a whole; a sample that comes after it does not slip in before."""
    gate.shut()
    async with make_writer(queue_size=3) as writer, anyio.create_task_group() as tasks:
        await writer.submit_batch(["a", "b"], ["", ""])
        tasks.start_soon(writer.submit_batch, ["c", "d"], ["", ""])
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(writer.submit, "e", "")
        await anyio.wait_all_tasks_blocked()
        assert writer.stats().accepted == 2
        gate.release()
    assert gate.names == ["a", "b", "c", "d", "e"]
    assert writer.stats().peak_pending <= 3


@on_every_loop
async def test_every_wait_for_room_is_counted(make_writer, gate):
    """Also of those who wait behind another one who waits; calls that find room, or do not wait, count nothing."""
    gate.shut()
    async with make_writer(queue_size=1) as writer, anyio.create_task_group() as tasks:
        await writer.submit("a", "")
        with pytest.raises(QueueFullError):
            writer.submit_nowait("b", "")
        with pytest.raises(QueueFullError):
            writer.submit_batch_nowait(["b"], [""])
        assert writer.stats().waits == 0
        for name in "bcd":
            tasks.start_soon(writer.submit, name, "")
            await anyio.wait_all_tasks_blocked()
        gate.release()
    stats = writer.stats()
    assert (stats.written, stats.waits) == (4, 3)
    assert stats.waited_seconds > 0


# Cancelling


@on_every_loop
async def test_a_call_cancelled_while_it_waits_for_room_has_handed_nothing_over(make_writer, gate, store):
    """Whether it is the first that waits or behind another one; its name stays free."""
    gate.shut()
    async with make_writer(queue_size=1) as writer, anyio.create_task_group() as tasks:
        await writer.submit("a", "first")
        async with anyio.create_task_group() as cancelled:
            for name in "bc":
                cancelled.start_soon(writer.submit, name, "cancelled")
                await anyio.wait_all_tasks_blocked()
            tasks.start_soon(writer.submit, "d", "behind them")
            await anyio.wait_all_tasks_blocked()
            cancelled.cancel_scope.cancel()
        assert writer.stats().accepted == 1
        tasks.start_soon(writer.submit, "b", "again")
        await anyio.wait_all_tasks_blocked()
        gate.release()
    assert store == {"a": b"first", "d": b"behind them", "b": b"again"}
    assert gate.names == ["a", "d", "b"]


async def test_asyncios_own_cancelling_of_a_wait_hands_nothing_over(make_writer, gate, store):
    """A task that is cancelled, as `asyncio.wait_for` does it, has handed nothing over."""
    gate.shut()
    async with make_writer(queue_size=1) as writer:
        await writer.submit("a", "first")
        waiting = [asyncio.create_task(writer.submit(name, "")) for name in "bcd"]
        await anyio.wait_all_tasks_blocked()
        for task in waiting[:2]:
            task.cancel()
        ends = await asyncio.gather(*waiting[:2], return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        gate.release()
        await waiting[2]
    assert gate.names == ["a", "d"]


@on_every_loop
async def test_a_sample_whose_copy_has_begun_is_accepted_though_its_call_is_cancelled(make_writer, store):
    """submit returns as if nothing had happened, and the next checkpoint tells of the cancellation."""
    slow = SlowToCopy()
    returned = []

    async def submit(writer):
        await writer.submit("a", slow)
        returned.append("from submit")
        await checkpoint()
        returned.append("from the checkpoint")

    async with make_writer() as writer, anyio.create_task_group() as tasks:
        tasks.start_soon(submit, writer)
        await to_thread.run_sync(slow.begun.wait)
        tasks.cancel_scope.cancel()
        slow.may_go_on.set()
    assert returned == ["from submit"]
    assert store == {"a": content(slow)}


async def test_asyncios_own_cancelling_of_a_copy_waits_until_it_is_whole(make_writer, store, gate):
    """The caller's memory is not read any more once its call has ended, and nobody comes in before it."""
    slow = SlowToCopy()
    async with make_writer() as writer:
        copying = asyncio.create_task(writer.submit("a", slow))
        await to_thread.run_sync(slow.begun.wait)
        behind = asyncio.create_task(writer.submit("b", "behind it"))
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):  # several times, as impatient callers do
            copying.cancel()
            await anyio.wait_all_tasks_blocked()
        assert not copying.done()
        assert not behind.done()
        slow.may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await copying
        await behind
    assert gate.names == ["a", "b"]
    assert store["a"] == content(slow)


async def test_a_failure_that_meets_asyncios_own_cancelling_is_told_beside_it(make_writer):
    """What submit raises in a thread while its task is cancelled is not lost."""
    slow = SlowToCopy()
    writer = make_writer()
    fill = writer._writer._pool.stage

    def stage(plan):
        fill(plan)
        raise WriteError("a failure that is raised once", writer="content", name="a")

    writer._writer._pool.stage = stage
    async with writer:
        copying = asyncio.create_task(writer.submit("a", slow))
        await to_thread.run_sync(slow.begun.wait)
        copying.cancel()
        slow.may_go_on.set()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await copying
    told, link = [], cancelled.value
    while link is not None:
        told += [str(link), *getattr(link, "__notes__", ())]
        link = link.__context__
    assert any("a failure that is raised once" in text for text in told)


@on_every_loop
async def test_leaving_waits_until_everything_is_stored_though_it_is_cancelled(make_writer, gate, store):
    """A cancelled body stores what it has handed over."""
    gate.shut()
    done = []

    async def job():
        async with make_writer() as writer:
            await writer.submit_batch(["a", "b"], ["", ""])
            started.set()
            await anyio.sleep_forever()
        done.append("not reached")

    started = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(job)
        await started.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.wait_all_tasks_blocked()
            gate.release()
    assert set(store) == {"a", "b"}
    assert done == []


async def test_leaving_waits_though_asyncio_cancels_it_again_and_again(make_writer, gate, store):
    """asyncio's own cancelling does not heed a shield; the end waits all the same, and is cancelled then."""
    gate.shut()
    writer = make_writer()

    async def job():
        async with writer:
            await writer.submit_batch(["a", "b"], ["", ""])

    task = asyncio.create_task(job())
    for _ in range(3):
        await entered(gate, 1)
        await anyio.wait_all_tasks_blocked()
        task.cancel()
    await anyio.wait_all_tasks_blocked()
    assert not task.done()
    gate.release()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(store) == {"a", "b"}
    assert writer.state == "closed"


@on_every_loop
async def test_a_cancelled_close_is_finished_by_the_next_one(make_writer, gate, store):
    """No sample is taken any more, and failures are left to the call that is not cancelled."""
    gate.shut()
    gate.fail("b")
    writer = make_writer()
    await writer.submit_batch(["a", "b"], ["", ""])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.close)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert writer.state == "draining"
    with pytest.raises(ClosedError):
        await writer.submit("c", "")
    gate.release()
    with pytest.raises(WriteError, match="no way to write b"):
        await writer.close()
    assert set(store) == {"a"}
    await writer.close()


@on_every_loop
async def test_cancelled_calls_and_stored_samples_are_never_the_same(make_writer, store):
    """Many tasks with cancellations among them: what was cancelled is not stored, everything else is, whole."""
    returned, cancelled = set(), set()

    async def produce(writer, producer):
        for number in range(60):
            name = f"{producer}-{number}"
            with anyio.CancelScope() as scope:
                if number % 3 == producer % 3:
                    scope.cancel()
                await writer.submit(name, name)
                returned.add(name)
            if scope.cancelled_caught:
                cancelled.add(name)

    async with make_writer(queue_size=4, max_workers=2) as writer, anyio.create_task_group() as tasks:
        for producer in range(5):
            tasks.start_soon(produce, writer, producer)
    assert set(store) == returned
    assert len(returned) + len(cancelled) == 300
    assert not returned & cancelled
    assert all(store[name] == name.encode() for name in store)


# Waiting for what is out


@on_every_loop
async def test_flush_waits_for_what_was_accepted_before_it_and_no_more(make_writer, gate):
    """Two tasks may flush at once, each for what was there when it called."""
    gate.shut()
    flushed = []

    async def flush(what):
        await writer.flush()
        flushed.append(what)

    async with make_writer() as writer, anyio.create_task_group() as tasks:
        await writer.submit("a", "")
        tasks.start_soon(flush, "a")
        await anyio.wait_all_tasks_blocked()
        await writer.submit("b", "")
        tasks.start_soon(flush, "b")
        await anyio.wait_all_tasks_blocked()
        assert flushed == []
        gate.release("a")
        while not flushed:
            await checkpoint()
        await entered(gate, 2)
        await anyio.wait_all_tasks_blocked()
        assert flushed == ["a"]
        gate.release()
    assert flushed == ["a", "b"]


@on_every_loop
async def test_samples_come_in_while_another_task_flushes(make_writer, gate, store):
    """A flush holds nobody back."""
    gate.shut()
    async with make_writer() as writer, anyio.create_task_group() as tasks:
        await writer.submit("a", "")
        tasks.start_soon(writer.flush)
        await anyio.wait_all_tasks_blocked()
        await writer.submit("b", "")
        assert writer.stats().pending == 2
        gate.release()
    assert set(store) == {"a", "b"}


@on_every_loop
@pytest.mark.parametrize("call", ["flush", "close"])
async def test_time_that_is_up_leaves_the_samples_queued(make_writer, gate, store, call):
    """The error tells how many are pending, and the same call may wait for them again."""
    gate.shut()
    async with make_writer() as writer:
        await writer.submit_batch(["a", "b"], ["", ""])
        with pytest.raises(FlushTimeoutError, match=r"2 samples were .* to 'memory:.* after 0.01 s") as up:
            await getattr(writer, call)(timeout=0.01)
        assert up.value.pending == 2
        gate.release()
        await getattr(writer, call)(timeout=DEADLINE)
        assert set(store) == {"a", "b"}


@on_every_loop
async def test_close_may_be_called_by_several_tasks_and_again(make_writer, gate, store):
    """Each call returns when everything is stored."""
    gate.shut()
    seen = []

    async def close():
        await writer.close()
        seen.append(set(store))

    async with make_writer() as writer:
        await writer.submit("a", "")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close)
            tasks.start_soon(close)
            await anyio.wait_all_tasks_blocked()
            gate.release()
        await close()
    assert seen == [{"a"}] * 3
    with pytest.raises(ClosedError):
        await writer.submit("b", "")
    with pytest.raises(ClosedError):
        async with writer:
            pass


@on_every_loop
async def test_calls_of_a_writer_whose_helpers_were_let_go_have_nothing_to_wait_for(tmp_path):
    """Such as `close` in an ``async with``, whose end closes the writer again."""
    async with AsyncBackgroundWriter("text", tmp_path, backend="process", max_workers=1) as writer:
        await writer.submit("a", "b")
        await writer.close()
        await writer.close()
        await writer.flush()
        assert await writer.abort() == 0
        assert await anyio.to_thread.run_sync((tmp_path / "a.txt").read_text) == "b"
    assert writer.stats().written == 1


@on_every_loop
async def test_a_writer_that_was_never_used_closes(make_writer):
    """Nothing was started, and there is nothing to wait for."""
    writer = make_writer()
    await writer.flush()
    await writer.close()
    assert writer.state == "closed"


@on_every_loop
async def test_abort_drops_what_no_worker_has_begun(make_writer, gate, store):
    """What is being written is finished first; one who waits for room is turned away."""
    gate.shut()
    refused = []

    async def submit():
        try:
            await writer.submit("d", "")
        except ClosedError as error:
            refused.append(error)

    writer = make_writer(queue_size=3)
    for name in "abc":
        await writer.submit(name, np.zeros(1 << 20, np.uint8))
    await entered(gate, 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(submit)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(writer.abort)
        await other_tasks_run()
        # Dropped before the gate opens, or the worker would go on with them.
        while not refused or not writer.stats().dropped:
            await checkpoint()
        gate.release()
    assert writer.stats().dropped == 2
    assert set(store) == {"a"}
    assert writer.state == "closed"
    assert await writer.abort() == 0


# Failures


@on_every_loop
@pytest.mark.parametrize("call", ["submit", "submit_large", "flush", "close", "abort"])
async def test_a_failure_is_raised_by_the_next_call(make_writer, gate, call):
    """All failures together, once."""
    gate.fail("b", "c")
    writer = make_writer()
    calls = {
        "submit": lambda: writer.submit("z", ""),
        "submit_large": lambda: writer.submit("z", np.zeros(LARGE, np.uint8)),
        "flush": writer.flush,
        "close": writer.close,
        "abort": writer.abort,
    }
    await writer.submit_batch(["a", "b", "c"], ["", "", ""])
    while writer.stats().pending:
        await checkpoint()
    with pytest.raises(WriteError, match=r"no way to write b.*no way to write c") as failure:
        await calls[call]()
    assert [one.name for one in failure.value.failures] == ["b", "c"]
    with pytest.raises(ClosedError):
        await writer.submit("z", "")
    await writer.close()


@on_every_loop
async def test_one_who_waits_for_room_is_told_of_a_failure(make_writer, gate):
    """The wait ends, and the sample is not taken."""
    gate.shut()
    gate.fail("a")
    told = []

    async def submit():
        with pytest.raises(WriteError) as failure:
            await writer.submit("b", "")
        told.append(failure.value.name)

    async with make_writer(queue_size=1) as writer:
        await writer.submit("a", "")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(submit)
            await anyio.wait_all_tasks_blocked()
            gate.release()
    assert told == ["a"]
    assert writer.stats().accepted == 1


@on_every_loop
async def test_a_failure_is_raised_when_the_context_is_left(make_writer, gate):
    """Nobody has to call flush to be told."""
    gate.fail("a")
    with pytest.raises(WriteError, match="no way to write a"):
        async with make_writer() as writer:
            writer.submit_nowait("a", "")
    assert writer.state == "closed"


@on_every_loop
async def test_an_exception_in_the_body_stays_the_users_own(make_writer, gate, store):
    """Ours is attached to it, and what was handed over is stored."""
    gate.fail("a")
    writer = make_writer()

    async def job():
        async with writer:
            writer.submit_batch_nowait(["a", "b"], ["", ""])
            raise LookupError("the user's own")

    with pytest.raises(LookupError, match="the user's own") as raised:
        await job()
    told = [*getattr(raised.value, "__notes__", ()), str(raised.value.__context__)]
    assert any("no way to write a" in text for text in told)
    assert set(store) == {"b"}
    await writer.close()  # which has nothing left to raise


@on_every_loop
async def test_what_cannot_be_taken_is_refused_as_by_the_other_face(make_writer):
    """Names and values are checked before anything waits."""
    async with make_writer() as writer:
        await writer.submit("a", "")
        with pytest.raises(DuplicateNameError):
            await writer.submit("a", "")
        with pytest.raises(DuplicateNameError):
            await writer.submit("a", np.zeros(LARGE, np.uint8))
        with pytest.raises(ValueError, match="Length mismatch"):
            await writer.submit_batch(["b"], torch.zeros(2, 2))
        with pytest.raises(TypeError, match="a batch is"):
            await writer.submit_batch(["b"], 3)
        with pytest.raises(TypeError, match="names are"):
            await writer.submit_batch("bc", ["", ""])
        await writer.submit("b", "")
    assert writer.stats().accepted == 2


@on_every_loop
async def test_async_writers_run_together_and_not_on_the_callers_loop(tmp_path, gate):
    """Up to max_workers of them, in a thread of the workers' own."""
    threads = set()

    async def write(path, value):
        threads.add(threading.get_ident())
        await gate.passing_async(path.name)
        path.write_text(value)

    gate.shut()
    async with AsyncBackgroundWriter(write, tmp_path, max_workers=3) as writer:
        await writer.submit_batch([f"{i}" for i in range(9)], [f"{i}" for i in range(9)])
        await entered(gate, 3)
        assert gate.inside == 3
        gate.release()
    assert gate.most_inside == 3
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == [f"{i}" for i in range(9)]


async def test_a_writer_must_not_wait_for_itself(tmp_path):
    """flush and close from within a writer are refused, and reported as its failure."""
    refused = []

    async def write(path, value):
        for call in (writer.flush, writer.close):
            with pytest.raises(RuntimeError, match="own workers") as error:
                await call()
            refused.append(error)

    async with AsyncBackgroundWriter(write, tmp_path) as writer:
        await writer.submit("a", "")
    assert len(refused) == 2


# Descriptors


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into /proc")
@pytest.mark.parametrize("backend", ["thread", "process"])
@on_every_loop
async def test_many_who_wait_share_a_few_descriptors(tmp_path, backend):
    """One bell, and one descriptor for news of helpers, however many wait; also when some of them, or all, give up."""

    @encoder(suffix="")
    def encode(value):
        while not os.path.exists(value):
            time.sleep(0.01)
        return value.encode()

    value = str(tmp_path / "opened")
    async with AsyncBackgroundWriter(encode, tmp_path / "out", backend=backend, max_workers=1) as writer:
        await writer.submit("a", value)
        before = descriptors()
        ended = []

        async def flush():
            await writer.flush()
            ended.append(1)

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as impatient:
                async with anyio.create_task_group() as cancelled:
                    for _ in range(300):
                        cancelled.start_soon(writer.flush)
                    await checkpoint()
                    for _ in range(300):
                        tasks.start_soon(flush)
                    await other_tasks_run()
                    assert descriptors() - before <= 5
                    impatient.cancel()
            await other_tasks_run()
            assert not ended
            assert descriptors() - before <= 5
            (tmp_path / "opened").touch()
        assert len(ended) == 300
        assert descriptors() <= before
        assert not writer._watches
