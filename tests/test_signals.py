"""Signals whose handlers raise, or call the writer, at any moment."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from harness import DEADLINE, Gate, GatedTarget, HelperHarness, MemoryTarget, in_thread, until

from lighter_async import BackgroundWriter, ClosedError, Encoder, LocalTarget, QueueFullError, interrupts
from lighter_async.interrupts import is_interrupted, let_through, run_handlers, uninterrupted

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals between threads")


class Alarm(Exception):
    """What a time limit raises."""


@pytest.fixture
def handle():
    """Sets handlers, which are gone after the test."""
    before = {}

    def handle(number, handler):
        before.setdefault(number, signal.signal(number, handler))

    yield handle
    for number, handler in before.items():
        signal.signal(number, handler)


# Holding back


def test_a_signal_waits_until_the_section_ends(handle):
    """Whatever its number is; its handler is told what it would have been told, and stands again."""
    came = []

    def note(number, frame):
        came.append((number, frame is not None))

    numbers = [signal.SIGUSR1, signal.SIGALRM, signal.SIGTERM, signal.SIGINT]
    for number in numbers:
        handle(number, note)
    with uninterrupted():
        with uninterrupted():
            for number in numbers:
                signal.raise_signal(number)
        assert came == []
        assert is_interrupted()
    assert came == [(number, True) for number in numbers]
    assert [signal.getsignal(number) for number in numbers] == [note] * 4


def test_what_was_held_is_not_lost_behind_what_a_handler_raises(handle):
    """All handlers run, and of what they raise the one that ends the program wins."""
    came = []

    def end(number, frame):
        came.append(number)
        sys.exit(143)

    def fail(number, frame):
        came.append(number)
        raise Alarm

    handle(signal.SIGTERM, end)
    handle(signal.SIGALRM, fail)
    handle(signal.SIGUSR1, lambda number, frame: came.append(number))

    def hold_back():
        with uninterrupted():
            for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1):
                signal.raise_signal(number)

    with pytest.raises(SystemExit):
        hold_back()
    assert came == [signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1]
    assert signal.getsignal(signal.SIGTERM) is end
    assert signal.getsignal(signal.SIGALRM) is fail


def test_at_a_known_point_signals_come_through_and_are_held_back_again_after_it(handle):
    """Also those that have got a handler there, and one that has got another one."""
    came = []

    def first(number, frame):
        came.append("first")
        signal.signal(signal.SIGUSR1, second)
        handle(signal.SIGUSR2, lambda *_: came.append("new"))
        signal.raise_signal(signal.SIGUSR1)
        with uninterrupted():
            signal.raise_signal(signal.SIGUSR1)
            came.append("held")

    def second(number, frame):
        came.append("second")

    handle(signal.SIGUSR1, first)
    with uninterrupted():
        signal.raise_signal(signal.SIGUSR1)
        run_handlers()
        assert came == ["first", "second", "held", "second"]
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
        assert len(came) == 4
    assert came[4:] == ["second", "new"]
    assert signal.getsignal(signal.SIGUSR1) is second


def test_what_a_handler_raises_at_a_known_point_leaves_signals_held_back(handle):
    """Until the section ends, as before it."""

    def fail(number, frame):
        raise Alarm

    handle(signal.SIGUSR1, fail)
    for through in (run_handlers, lambda: let_through(lambda: signal.raise_signal(signal.SIGUSR1))):
        with uninterrupted():
            if through is run_handlers:
                signal.raise_signal(signal.SIGUSR1)
            with pytest.raises(Alarm):
                through()
            assert interrupts._closed
        assert signal.getsignal(signal.SIGUSR1) is fail


def test_a_gate_that_was_left_behind_harms_nobody(handle):
    """As where a handler has kept the one that it replaced, and puts it back later."""
    came = []
    kept = []

    def note(number, frame):
        came.append(number)

    def keep(number, frame):
        kept.append(signal.signal(signal.SIGUSR2, signal.SIG_IGN))

    handle(signal.SIGUSR2, note)
    handle(signal.SIGUSR1, keep)
    with uninterrupted():
        signal.raise_signal(signal.SIGUSR1)
        run_handlers()
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
    signal.signal(signal.SIGUSR2, kept[0])
    signal.raise_signal(signal.SIGUSR2)
    assert came == [signal.SIGUSR2]
    assert signal.getsignal(signal.SIGUSR2) is note
    signal.signal(signal.SIGUSR2, kept[0])
    with uninterrupted():
        signal.raise_signal(signal.SIGUSR2)
        assert len(came) == 1
    assert len(came) == 2
    assert signal.getsignal(signal.SIGUSR2) is note


def test_other_threads_hold_nothing_back(handle):
    """Handlers run in the main thread, whatever others do."""
    came = threading.Event()
    handle(signal.SIGUSR1, lambda *_: came.set())
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with uninterrupted():
            inside.set()
            leave.wait(DEADLINE)

    holding = in_thread(hold)
    inside.wait(DEADLINE)
    signal.raise_signal(signal.SIGUSR1)
    assert came.is_set()
    leave.set()
    holding.result()


# Handlers that call the writer, while it waits


class Parked:
    """A writer with one worker, which is parked with a sample, and no more room."""

    def __init__(self, folder, kind):
        self.harness = None
        if kind == "process":
            self.harness = HelperHarness(folder)
            self.gate = self.harness.gate
            self.writer = self.harness.make_service(max_workers=1, queue_size=1)
        else:
            self.gate = Gate()
            options = {"write_timeout": 60} if kind == "limited" else {}
            writer = Encoder(str.encode, suffix="")
            target = GatedTarget(MemoryTarget({}), self.gate, "")
            if kind == "async":
                gate = self.gate

                async def writer(path, value):
                    await gate.passing_async(path.name)

                target = LocalTarget(folder)
            self.writer = BackgroundWriter(writer, target=target, max_workers=1, queue_size=1, **options)
        self.gate.shut()
        self.writer.submit("parked", "words")
        self.gate.wait_entered()


KINDS = ["thread", "limited", "async", "process"]


@pytest.fixture(params=KINDS)
def parked(tmp_path, request):
    parked = Parked(tmp_path, request.param)
    yield parked
    parked.gate.release()
    parked.writer.close()
    if parked.harness is not None:
        parked.harness.close()


def interrupt_when(condition, came):
    """From another thread: a signal once something holds; again and again, should it come just before the wait."""

    def interrupt():
        until(condition)
        while not came.wait(0.05):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    return in_thread(interrupt)


WAITS = {
    "submit": lambda writer: writer.submit("late", "words"),
    "flush": lambda writer: writer.flush(),
    "close": lambda writer: writer.close(),
}


def waits_and_calls():
    """All of them with threads; of those with other workers each call in one wait, the next in the next."""
    for number, kind in enumerate(KINDS):
        for place, call in enumerate(["stats", "nowait", "flush", "close", "abort", "exit", "submit"]):
            for other, wait in enumerate(WAITS):
                is_long = kind != "thread" and other != (number + place) % len(WAITS)
                yield pytest.param(kind, wait, call, marks=[pytest.mark.long] * is_long)


@pytest.mark.parametrize(("parked", "wait", "call"), [*waits_and_calls()], indirect=["parked"])
def test_a_handler_may_call_the_writer_while_it_waits(parked, handle, wait, call):
    """Whatever is called there works, or says at once that it cannot, and the wait goes on after it."""
    writer, gate = parked.writer, parked.gate
    came = threading.Event()
    told = []

    def handler(number, frame):
        if came.is_set():
            return
        came.set()
        if call == "stats":
            told.append(writer.stats().pending)
        elif call == "nowait":
            try:
                writer.submit_nowait("another", "words")
            except (QueueFullError, ClosedError) as error:
                told.append(type(error))
        elif call == "exit":
            sys.exit(143)
        else:
            gate.release()
            try:
                writer.submit("another", "words") if call == "submit" else getattr(writer, call)()
            except ClosedError:
                assert (wait, call) == ("close", "submit")
        if call in ("stats", "nowait"):
            gate.release()

    handle(signal.SIGUSR1, handler)
    is_waiting = {
        "submit": lambda: writer._ledger._admission.waits,
        "flush": lambda: writer._ledger._changes.waiters,
        "close": lambda: writer._ledger._changes.waiters and writer._ledger._refusal,
    }
    interrupting = interrupt_when(is_waiting[wait], came)
    expected = (
        SystemExit if call == "exit" else ClosedError if wait == "submit" and call in ("close", "abort") else None
    )
    if expected is None:
        WAITS[wait](writer)
    else:
        with pytest.raises(expected):
            WAITS[wait](writer)
    interrupting.result()
    assert told in ([], [1], [QueueFullError], [ClosedError])
    assert not writer._ledger._admission.line
    assert not writer._ledger._changes.waiters
    gate.release()
    writer.close()
    stats = writer.stats()
    late = wait == "submit" and expected is None
    assert (stats.accepted, stats.pending, stats.pending_bytes) == (
        1 + late + (call == "submit" and wait != "close"),
        0,
        0,
    )
    assert stats.written + stats.dropped == stats.accepted


def test_who_is_interrupted_keeps_the_place_in_the_line_and_holds_nobody_up(handle):
    """While its handler runs, others come in; afterwards it is first again."""
    parked = Parked(None, "thread")
    writer, gate = parked.writer, parked.gate
    came, others = threading.Event(), []

    def handler(number, frame):
        if came.is_set():
            return
        came.set()
        others.append(in_thread(writer.submit, "passes", "words"))
        until(lambda: writer._ledger._admission.waits == 2)
        gate.release("parked")
        others[0].result()
        others.append(in_thread(writer.submit, "behind", "words"))
        until(lambda: writer._ledger._admission.waits == 3)

    handle(signal.SIGUSR1, handler)
    interrupting = interrupt_when(lambda: writer._ledger._admission.waits, came)
    admission = writer._ledger._admission
    opening = in_thread(
        lambda: (
            # Not before the handler has ended: until then the one behind may pass, too.
            until(lambda: admission.waits == 3 and not any(turn.is_passed_over for turn in list(admission.line))),
            gate.release(),
        )
    )
    writer.submit("first", "words")
    for one in (interrupting, opening, others[1]):
        one.result()
    writer.close()
    assert gate.names == ["parked", "passes", "first", "behind"]


# The beginning and the end


def test_a_handler_in_the_middle_of_the_start_is_told_what_cannot_work(tmp_path, handle):
    """Its own thread would wait for itself; and the start goes on after it."""
    told = []

    class Slow(MemoryTarget):
        def open(self):
            signal.raise_signal(signal.SIGUSR1)

    def handler(number, frame):
        for call in (lambda: writer.submit("a", "b"), writer.close, writer.abort, writer.start):
            with pytest.raises(RuntimeError, match="middle of the writer's start"):
                call()
            told.append(writer.stats().accepted)

    handle(signal.SIGUSR1, handler)
    store = {}
    writer = BackgroundWriter(Encoder(str.encode, suffix=""), target=Slow(store))
    with writer:
        writer.submit("a", "words")
    assert told == [0] * 4
    assert store == {"a": b"words"}


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_start_that_a_handler_ends_leaves_nothing_and_may_be_made_again(tmp_path, handle, monkeypatch, backend):
    """As when it waits for helpers of a process that has died, and the user has had enough."""
    asked = []
    monkeypatch.setattr("lighter_async.locks.orphans._held_by_the_dead", lambda folder: asked.append(1) or waiting)
    waiting = [type("Owner", (), {"process": 1})()]

    def fail(number, frame):
        waiting.clear()
        raise Alarm

    handle(signal.SIGUSR1, fail)
    came = threading.Event()
    interrupting = in_thread(
        lambda: (until(lambda: asked), signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1), came.set())
    )
    writer = BackgroundWriter("text", tmp_path, backend=backend)
    with pytest.raises(Alarm):
        writer.start()
    interrupting.result()
    assert not list(tmp_path.rglob("*.lock"))
    with writer:
        writer.submit("a", "words")
    assert (tmp_path / "a.txt").read_text() == "words"


@pytest.mark.parametrize("backend", ["thread", "process", "async"])
def test_a_close_that_is_interrupted_at_its_end_may_be_called_again(tmp_path, handle, monkeypatch, backend):
    """Everything is stored by then, and the workers are let go by the next call."""

    async def write(path, value):
        path.write_text(value)

    writer = BackgroundWriter(
        write if backend == "async" else "text", tmp_path, backend="thread" if backend == "async" else backend
    )
    writer.submit("a", "words")
    writer.flush()
    told = []

    def fail(number, frame):
        with pytest.raises(RuntimeError, match="of the end of its close"):
            writer.close()
        told.append(writer.stats().written)
        raise Alarm

    handle(signal.SIGUSR1, fail)
    stop = writer._lifecycle.backend.stop

    def interrupted(*, seal):
        monkeypatch.undo()
        signal.raise_signal(signal.SIGUSR1)
        run_handlers()
        stop(seal=seal)

    monkeypatch.setattr(writer._lifecycle.backend, "stop", interrupted)
    with pytest.raises(Alarm):
        writer.close()
    assert told == [1]
    writer.close()
    assert writer.state == "closed"
    assert not list(tmp_path.rglob("*.lock"))


# Any moment

STRESS = """
import gc, os, random, signal, sys, threading, time
from lighter_async import BackgroundWriter, ClosedError, FlushTimeoutError, QueueFullError

class Alarm(Exception): ...
class Other(Exception): ...

def raiser(error):
    def handler(number, frame):
        if is_ready:
            raise error()
    return handler

folder, backend, rounds, chance = sys.argv[1], sys.argv[2], int(sys.argv[3]), random.Random(sys.argv[4])
raised = (Alarm, Other, SystemExit, KeyboardInterrupt)
handlers = {
    signal.SIGALRM: raiser(Alarm), signal.SIGUSR1: raiser(Other), signal.SIGTERM: raiser(SystemExit),
    signal.SIGINT: raiser(KeyboardInterrupt),
}
for number, handler in handlers.items():
    signal.signal(number, handler)
came = 0
is_ready = False

def step(writer, name, sure):
    call = chance.choice(["submit"] * 20 + ["stats", "flush", "nowait", "start"])
    if call == "submit":
        writer.submit(name, "words")
        sure.add(name)
    elif call == "nowait":
        try:
            writer.submit_nowait(name, "words")
        except QueueFullError:
            return
        sure.add(name)
    elif call == "flush":
        try:
            writer.flush(timeout=chance.choice([None, 0.01]))
        except FlushTimeoutError:
            pass
    elif call == "start":
        writer.start()
    else:
        stats = writer.stats()
        assert stats.accepted == stats.written + stats.pending, stats

def under_fire(call):
    # Handlers raise only in here, so that the script itself need not be ready for it.
    global came, is_ready
    try:
        try:
            is_ready = True
            call()
        finally:
            is_ready = False
    except raised:
        came += 1
        return False
    return True

def pester(over):
    while not over.is_set():
        time.sleep(random.uniform(0.0002, 0.002))
        signal.pthread_kill(threading.main_thread().ident, random.choice([*handlers]))

def submit_beside(writer, over, beside, which):
    number = 0
    while not over.is_set():
        name = f"beside-{which}-{number}"
        number += 1
        try:
            writer.submit(name, "words")
        except ClosedError:
            return
        beside.add(name)
        time.sleep(0.001)

for round in range(rounds):
    below = f"{folder}/{round}"
    writer = BackgroundWriter("text", below, backend=backend, max_workers=2, queue_size=chance.choice([1, 4, 64]))
    over, sure, beside = threading.Event(), set(), set()
    threads = [threading.Thread(target=pester, args=(over,))]
    threads += [threading.Thread(target=submit_beside, args=(writer, over, beside, which)) for which in range(2)]
    for thread in threads:
        thread.start()
    for number in range(300):
        under_fire(lambda: step(writer, f"{number}", sure))
    end = chance.choice(["close", "abort", "calm"])
    while end != "calm" and not under_fire(getattr(writer, end)):
        pass
    over.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    del threads, thread
    for number, handler in handlers.items():
        assert signal.getsignal(number) is handler, signal.getsignal(number)
    if end == "calm":
        writer.flush(timeout=30)
    writer.close()
    stats = writer.stats()
    assert stats.accepted == stats.written + stats.dropped, stats
    assert (stats.pending, stats.pending_bytes) == (0, 0), stats
    files = {entry.name.removesuffix(".txt") for entry in os.scandir(below) if entry.name.endswith(".txt")}
    assert len(files) == stats.written, (len(files), stats)
    assert stats.dropped or sure | beside <= files, (sure | beside) - files
    del writer
    gc.collect()
    held = [os.readlink(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd") if one.isdecimal() and
            os.path.lexists(f"/proc/self/fd/{one}")]
    assert not any("lighter" in what for what in held), held
assert came > rounds, came
print("fine")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_handlers_that_raise_at_any_moment_lose_nothing(tmp_path, backend, rounds):
    """Four signals at random, under every call: the books add up, what was accepted is stored, nothing hangs."""
    done = subprocess.run(
        [sys.executable, "-c", STRESS, str(tmp_path), backend, str(rounds), str(time.time())],
        capture_output=True,
        text=True,
        timeout=60 + 8 * rounds,
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_a_signal_at_exit_does_not_keep_the_writer_from_being_closed(tmp_path):
    """A handler raises in the middle of the closing that nobody asked for: it is closed all the same."""
    script = (
        "import os, signal, sys, threading, time\n"
        "from lighter_async import BackgroundWriter, encoder\n"
        "class Alarm(Exception): ...\n"
        "def fail(number, frame):\n"
        "    opened.set()\n"
        "    raise Alarm('once')\n"
        "opened = threading.Event()\n"
        "@encoder(suffix='')\n"
        "def encode(value):\n"
        "    opened.wait(30)\n"
        "    return value.encode()\n"
        "signal.signal(signal.SIGUSR1, fail)\n"
        "writer = BackgroundWriter(encode, sys.argv[1])\n"
        "writer.submit('a', 'words')\n"
        "main = threading.main_thread().ident\n"
        "def interrupt():\n"
        "    while writer._lifecycle._state != 'draining':\n"
        "        time.sleep(0.001)\n"
        "    while not opened.is_set():\n"
        "        signal.pthread_kill(main, signal.SIGUSR1)\n"
        "        time.sleep(0.05)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Alarm: once" in done.stderr
    assert (tmp_path / "a").read_text() == "words"
    assert not list((tmp_path / ".lighter-async").glob("*.lock"))
