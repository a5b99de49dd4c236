"""The event loop that async writers run on."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import sys
import threading
import warnings
import weakref

import pytest
from harness import DEADLINE, Gate, in_thread

from lighter_async import BackgroundWriter, WriteError


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.release()


def write_text(path, value):
    path.write_text(value)


def stored(folder):
    return {path.name: path.read_text() for path in folder.glob("[!.]*") if path.is_file()}


def names(count):
    return [f"{number}" for number in range(count)]


def test_max_workers_samples_are_awaited_at_once_and_not_more(tmp_path, gate):
    """The next one begins when one has ended, whichever that is."""

    async def write(path, value):
        await gate.passing_async(path.name)
        write_text(path, value)

    gate.shut()
    with BackgroundWriter(write, tmp_path, max_workers=3) as writer:
        writer.submit_batch(names(8), names(8))
        gate.wait_entered(3)
        assert gate.names == ["0", "1", "2"]
        gate.release("1")
        gate.wait_entered(4)
        assert gate.names == ["0", "1", "2", "3"]
        assert gate.inside == 3
        gate.release()
    assert gate.most_inside == 3
    assert stored(tmp_path) == {name: name for name in names(8)}


def test_one_loop_serves_from_the_first_sample_to_the_end(tmp_path):
    """What belongs to a loop, such as a lock or a session, may be kept from one sample to the next, and over pauses."""
    near, far = socket.socketpair()
    kept = {}
    loops, threads = set(), set()

    async def write(path, value):
        if not kept:
            kept["lock"] = asyncio.Lock()
        loops.add(asyncio.get_running_loop())
        threads.add(threading.get_ident())
        async with kept["lock"]:  # which binds itself to its loop when several want it
            if "session" not in kept:
                kept["session"] = await asyncio.open_connection(sock=near)
            reader, session = kept["session"]
            session.write(value.encode() + b"\n")
            assert await reader.readline() == value.encode() + b"\n"
        write_text(path, value)
        if path.name == "9":
            session.close()
            await session.wait_closed()

    def echo():
        with far, far.makefile("rwb") as lines:
            for line in lines:
                lines.write(line)
                lines.flush()

    echoing = in_thread(echo)
    with BackgroundWriter(write, tmp_path, max_workers=3) as writer:
        writer.submit_batch(names(4), names(4))
        for name in names(10)[4:]:
            writer.flush()  # the loop rests from here to the next sample
            writer.submit(name, name)
    echoing.result()
    assert (len(loops), len(threads)) == (1, 1)
    assert stored(tmp_path) == {name: name for name in names(10)}


def test_what_a_writer_leaves_on_the_loop_is_ended_at_close(tmp_path):
    """Tasks are cancelled, async generators closed and the loop's threads joined; then the loop is closed."""
    ended, left = [], {}

    async def background():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("task")

    async def numbers():
        try:
            yield 0
            yield 1
        finally:
            await asyncio.sleep(0)
            ended.append("generator")

    async def write(path, value):
        left["task"] = asyncio.create_task(background())
        left["numbers"] = numbers()
        await anext(left["numbers"])
        left["thread"] = await asyncio.to_thread(threading.current_thread)
        left["loop"] = asyncio.get_running_loop()

    writer = BackgroundWriter(write, tmp_path)
    writer.submit("a", "")
    writer.flush()
    assert ended == []
    writer.close()
    assert sorted(ended) == ["generator", "task"]
    assert left["task"].cancelled()
    assert not left["thread"].is_alive()
    assert left["loop"].is_closed()


def test_a_task_left_on_the_loop_that_fails_at_close_is_reported(tmp_path, logged):
    """As asyncio.run does it: through the loop's exception handler."""

    async def background():
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("the session cannot be closed")

    async def write(path, value):
        kept.append(asyncio.create_task(background()))
        await asyncio.sleep(0)

    kept = []
    with BackgroundWriter(write, tmp_path) as writer:
        writer.submit("a", "")
    (message,) = logged.messages
    assert "a task that a writer left running failed" in message
    assert "the session cannot be closed" in message


def test_the_loop_is_closed_with_the_writer(tmp_path):
    """No ResourceWarning tells of a loop or a socket that was forgotten, whether samples came or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        async def write(path, value):
            write_text(path, value)

        with BackgroundWriter(write, tmp_path / "some") as writer:
            writer.submit("a", "text")
        with BackgroundWriter(write, tmp_path / "none"):
            pass
        del writer
        gc.collect()
    assert (tmp_path / "some" / "a").read_text() == "text"


# Failures


class NoException(BaseException):
    """Not even an Exception."""


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), asyncio.CancelledError("no"), SystemExit("no"), KeyboardInterrupt("no"), NoException("no")],
)
@pytest.mark.parametrize("when", ["at once", "later"])
def test_whatever_a_writer_raises_is_its_samples_failure(tmp_path, error, when):
    """Before its first await or after it; the other samples are stored."""

    async def write(path, value):
        if path.name == "1":
            if when == "later":
                await asyncio.sleep(0)
            raise error
        await asyncio.sleep(0)
        write_text(path, value)

    writer = BackgroundWriter(write, tmp_path, max_workers=2)
    writer.submit_batch(names(5), names(5))
    with pytest.raises(WriteError) as failure:
        writer.close()
    assert [(one.name, one.cause) for one in failure.value.failures] == [("1", error)]
    assert set(stored(tmp_path)) == set(names(5)) - {"1"}


@pytest.mark.parametrize("error", [SystemExit("sub"), KeyboardInterrupt("sub")])
def test_an_exit_raised_in_a_task_of_a_writer_stops_nothing_else(tmp_path, error):
    """asyncio lets it through its loop; the writer that awaits the task is told, and the loop goes on."""

    async def leave():
        raise error

    async def write(path, value):
        if path.name == "1":
            await asyncio.gather(asyncio.create_task(leave()))
        await asyncio.sleep(0)
        write_text(path, value)

    writer = BackgroundWriter(write, tmp_path, max_workers=2)
    writer.submit_batch(names(5), names(5))
    with pytest.raises(WriteError) as failure:
        writer.close(timeout=DEADLINE)
    assert [one.name for one in failure.value.failures] == ["1"]
    assert type(failure.value.cause) is type(error)
    assert set(stored(tmp_path)) == set(names(5)) - {"1"}


def test_a_writer_that_stops_the_loop_stops_nothing(tmp_path):
    """It is the workers' loop, and there is more to do."""

    async def write(path, value):
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        write_text(path, value)

    with BackgroundWriter(write, tmp_path, max_workers=2) as writer:
        writer.submit_batch(names(5), names(5))
        writer.flush(timeout=DEADLINE)
        writer.submit("5", "5")
        writer.flush(timeout=DEADLINE)
    assert set(stored(tmp_path)) == set(names(6))


def test_a_writer_that_cancels_every_task_on_the_loop_fails_those_that_had_begun(tmp_path):
    """The others are written, and the loop serves on."""
    begun = []

    async def write(path, value):
        begun.append(path.name)
        if path.name == "2":
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()
        else:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        write_text(path, value)

    writer = BackgroundWriter(write, tmp_path, max_workers=4)
    writer.submit_batch(names(8), names(8))
    with pytest.raises(WriteError) as failure:
        writer.close(timeout=DEADLINE)
    failed = {one.name for one in failure.value.failures}
    assert failed == {"0", "1"}
    assert all(isinstance(one.cause, asyncio.CancelledError) for one in failure.value.failures)
    assert set(stored(tmp_path)) == set(names(8)) - failed
    assert sorted(begun) == names(8)


# What there is around it


def test_a_writer_sees_nothing_of_the_callers_context(tmp_path):
    """A context variable of the submitting thread, such as a request's, is not kept by the workers."""
    request = contextvars.ContextVar("request", default="none")
    seen = []

    async def write(path, value):
        seen.append(request.get())

    def submit():
        request.set("one")
        writer.submit_batch(names(4), names(4))

    with BackgroundWriter(write, tmp_path) as writer:
        contextvars.copy_context().run(submit)
    assert seen == ["none"] * 4


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has eager tasks since Python 3.12")
def test_a_writer_may_make_the_loops_tasks_eager(tmp_path):
    """Its next calls then begin without the loop, and may hand over samples themselves."""

    async def write(path, value):
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        if len(path.name) < 3:
            writer.submit_nowait(path.name + "+", value)
        write_text(path, value)

    with BackgroundWriter(write, tmp_path) as writer:
        writer.submit("a", "")
        writer.flush()
        writer.submit("b", "")
        while writer.stats().pending:
            writer.flush(timeout=DEADLINE)
    assert set(stored(tmp_path)) == {"a", "a+", "a++", "b", "b+", "b++"}


def test_a_resting_loop_keeps_no_sample_alive(tmp_path):
    """Neither the last value nor what held it."""

    class Thing:
        pass

    async def write(path, value):
        await asyncio.sleep(0)

    thing = Thing()
    alive = weakref.ref(thing)
    with BackgroundWriter(write, tmp_path) as writer:
        writer.submit("a", thing)
        writer.flush()
        del thing
        gc.collect()
        assert alive() is None


def test_no_wake_up_is_lost(tmp_path):
    """Four threads submit through a small queue while the loop comes to rest and is woken all the time."""
    count, threads = 125, 4

    async def write(path, value):
        for _ in range(len(path.name) % 3):
            await asyncio.sleep(0)
        written.append((path.name, value))

    written = []

    def produce(thread):
        for number in range(count):
            writer.submit(f"{thread}-{number}", f"{thread}-{number}")
            if number % 5 == thread:
                writer.flush(timeout=DEADLINE)

    with BackgroundWriter(write, tmp_path, queue_size=8, max_workers=3) as writer:
        producers = [in_thread(produce, thread) for thread in range(threads)]
        for producer in producers:
            producer.result()
    assert len(written) == count * threads
    assert {name for name, _ in written} == {
        f"{thread}-{number}" for thread in range(threads) for number in range(count)
    }
    assert all(name == value for name, value in written)
    assert writer.stats().peak_pending <= 8
