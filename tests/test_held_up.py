"""A loop that its workers hold up is told so, once, with what limits them and the way out."""

import asyncio
import threading
from dataclasses import replace

import pytest
from harness import MemoryTarget, stats_of

from lighter_async import AsyncBackgroundWriter, BackgroundWriter, Run, advice
from lighter_async.other_programs import Look
from lighter_async.service import held_up
from lighter_async.service.held_up import HeldUp, Seen, why
from lighter_async.waits_for_cores import ProcessorTime, between, processor_times

OWN = {"backend": "thread", "backend_reason": advice.OWN_WRITER}
# A run of 40 seconds, in which callers waited for 20 and two helpers encoded all the time.
STATS = stats_of(
    accepted=1000,
    written=900,
    pending=100,
    peak_pending=100,
    peak_pending_bytes=10_000_000,
    bytes_written=5_000_000,
    waits=10,
    waited_seconds=20.0,
    encode_seconds=70.0,
    store_seconds=5.0,
    open_seconds=40.0,
    max_workers=2,
    queue_size=256,
    queue_bytes=100_000_000,
    backend="process",
)
AT_WORK = {1: ProcessorTime(0.0, 0.0), 2: ProcessorTime(0.0, 0.0)}


def seen(moment=0.0, *, all_=0.0, own=0.0, helpers=None, **stats):
    changed = replace(STATS, **stats)
    return Seen(moment, changed.waited_seconds, changed, helpers or {}, Look(1, moment, frozenset({0, 1}), all_, own))


FIRST = seen(written=500, pending=500, helpers=AT_WORK)


# Why


def test_helpers_that_get_no_core_are_told_apart_from_a_slow_encoder():
    """They are ready to run, and other programs have the cores: threads take their share there."""
    starved = {1: ProcessorTime(0.8, 9.0), 2: ProcessorTime(0.1, 9.8)}
    text = why("out", FIRST, seen(10.0, all_=20.0, own=1.0, helpers=starved), 2)
    assert text.startswith("helper processes that store to 'out' got 0.1 of 2 cores")
    assert "other programs used 1.9" in text
    assert "the loop has waited 20 of 40 s for room" in text
    assert "backend='thread'" in text


@pytest.mark.parametrize(
    "helpers",
    [
        {1: ProcessorTime(9.8, 0.1), 2: ProcessorTime(9.7, 0.2)},  # at work all the time
        {1: ProcessorTime(5.0, 5.0), 2: ProcessorTime(5.0, 5.0)},  # half of it
        {1: ProcessorTime(0.5, 0.1), 2: ProcessorTime(0.5, 0.1)},  # waiting for a disk
        {3: ProcessorTime(0.0, 9.0)},  # a new one, in the place of one that died
        {},  # the system does not tell
    ],
    ids=["busy", "half", "at a disk", "replaced", "not told"],
)
def test_helpers_that_run_or_wait_for_something_else_are_not_starved(helpers):
    """What they did is judged by what the writer counted."""
    text = why("out", FIRST, seen(10.0, all_=20.0, own=19.0, helpers=helpers), 2)
    assert text.startswith("Encoding held it back: the loop waited 20.0 of 40.0 s for room")
    assert "for 'out'" in text
    assert "a lower compression level" in text


def test_more_helpers_than_cores_wait_for_each_other_and_are_not_starved():
    """Of four on two cores two run at any time."""
    helpers = {number: ProcessorTime(5.0, 5.0) for number in range(4)}
    first = seen(written=500, helpers=dict.fromkeys(range(4), ProcessorTime(0.0, 0.0)))
    assert "got" not in why("out", first, seen(10.0, max_workers=4, helpers=helpers), 2)


@pytest.mark.parametrize(
    ("stats", "words"),
    [
        ({"encode_seconds": 5.0, "store_seconds": 70.0}, ("The disk held it back", "raise max_workers")),
        ({"max_workers": 1, "encode_seconds": 39.0}, ("Encoding held it back", "raise max_workers")),
        ({"encode_seconds": 0.0, "store_seconds": 75.0, **OWN}, ("The function", "backend='process'")),
        (OWN, ("Encoding held it back", "compression level", "backend='process'")),
        ({"encode_seconds": 5.0}, ("The queue of 'out' held it back", "raise queue_size")),
    ],
    ids=["store", "encode, with cores to spare", "function", "encode in own code", "queue"],
)
def test_each_limit_has_its_way_out(stats, words):
    """As `lighter-async bench` and the demo tell it."""
    text = why("out", FIRST, seen(10.0, all_=12.0, own=11.0, peak_pending=250, **stats), 2)
    assert all(word in text for word in words), text


def test_helpers_are_no_way_out_for_a_format_of_this_package():
    """It holds the interpreter's lock for next to nothing."""
    text = why("out", FIRST, seen(10.0, all_=12.0, own=11.0, backend="thread", backend_reason="one core"), 2)
    assert "backend=" not in text


def test_cores_that_other_programs_use_are_not_to_spare():
    """More workers would not get any."""
    slow = {"max_workers": 1, "encode_seconds": 39.0}
    assert "raise max_workers" in why("out", FIRST, seen(10.0, all_=10.0, own=10.0, **slow), 2)
    text = why("out", FIRST, seen(10.0, all_=20.0, own=10.0, **slow), 2)
    assert "raise max_workers" not in text
    assert "all cores have a worker already" in text


def test_a_target_that_stores_nothing_is_told_apart_from_a_slow_one():
    """What hangs has counted no second yet."""
    text = why("out", FIRST, seen(10.0, written=500, pending=500, encode_seconds=0.0), 2)
    assert text.startswith("no sample was stored to 'out' for 10 s")
    assert "write_timeout=SECONDS" in text


# When


class Backend:
    """Workers, as far as they are looked at."""

    kind = "process"
    helpers = (1, 2)
    instead = None


@pytest.fixture
def told():
    return []


@pytest.fixture
def watched(told):
    """Looks see the same run, a second later each time."""
    moments = iter(range(1000))

    def look(waited, stats, helpers):
        assert stats.waited_seconds == waited
        assert list(helpers) == [1, 2]
        return Seen(float(next(moments)), waited, stats, AT_WORK, None)

    return HeldUp("out", lambda: STATS, Backend(), "a reason", say=told.append, see=look)


@pytest.mark.parametrize(
    "waits",
    [
        [(0.5, 0.6), (5.0, 5.1), (9.9, 10.0)],  # short runs, whatever they wait
        [(9.9, 10.0), (10.0, 60.0), (24.0, 100.0), (240.0, 1000.0)],  # less than a quarter
        [(10.0, 40.0), (14.9, 50.0), (14.9, 5000.0)],  # one that recovers
    ],
)
def test_short_runs_and_runs_that_wait_little_are_told_of_nothing(watched, told, waits):
    """Nor those that waited for a while, and do not any more."""
    for waited, opened in waits:
        watched.note(waited, opened)
    assert told == []


def test_a_run_that_goes_on_waiting_is_told_of_once(watched, told):
    """After five more seconds of waiting."""
    for waited in (10.0, 12.0, 14.9):
        watched.note(waited, 20.0)
    assert told == []
    for waited in (15.0, 16.0, 30.0, 1000.0):
        watched.note(waited, waited + 5)
    (text,) = told
    assert "for 1 s" in text
    assert "the loop has waited 15 of 40 s for room" in text


@pytest.mark.parametrize("error", [BrokenPipeError("gone"), ValueError("I/O operation on closed file")])
def test_a_notice_that_nobody_can_read_ends_no_run(error):
    """As where stderr was closed; it is not tried once more."""
    tried = []

    def say(text):
        tried.append(text)
        raise error

    watched = HeldUp("out", lambda: STATS, Backend(), "a reason", say=say)
    for waited in (10.0, 20.0, 30.0):
        watched.note(waited, waited)
    assert len(tried) == 1


def test_of_threads_that_wait_at_once_one_looks_and_none_is_held_up(told):
    """The others go on waiting for room."""
    inside, go_on = threading.Event(), threading.Event()

    def look(waited, stats, helpers):
        inside.set()
        assert go_on.wait(60)
        return Seen(1.0, waited, stats, AT_WORK, None)

    watched = HeldUp("out", lambda: STATS, Backend(), "a reason", say=told.append, see=look)
    first = threading.Thread(target=watched.note, args=(10.0, 20.0))
    first.start()
    assert inside.wait(60)
    watched.note(50.0, 60.0)  # returns
    go_on.set()
    first.join()
    assert told == []
    watched.note(50.0, 60.0)
    assert len(told) == 1


# In a writer


@pytest.fixture
def impatient(monkeypatch):
    """Any wait matters."""
    monkeypatch.setattr(advice, "_LONG", 0.0)
    monkeypatch.setattr(advice, "_MUCH", 0.0)
    monkeypatch.setattr(held_up, "_SECONDS_OF_LOOKING", 0.0)


class Slow(MemoryTarget):
    """Stores as many samples as it is told to: a caller behind a full queue waits meanwhile."""

    def __init__(self):
        super().__init__({})
        self.allowed = threading.Semaphore(0)

    def put(self, name, parts):
        assert self.allowed.acquire(timeout=60)
        return super().put(name, parts)


def notices(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("lighter_async: ")]


def test_a_caller_that_waits_is_told_on_stderr_once(impatient, capsys):
    """By the submit that waits; nothing is raised, and nothing is lost."""
    target = Slow()
    with BackgroundWriter("text", target=target, max_workers=1, queue_size=1) as writer:
        writer.submit("a", "x")
        with pytest.raises(Exception, match=r"no room for 0\.5 s"):
            writer.submit("b", "x", timeout=0.5)  # waits in several slices
        target.allowed.release(6)
        for name in "bcdef":
            writer.submit(name, "x")
    (text,) = notices(capsys)
    assert target.location in text
    assert writer.stats().written == 6


def test_tasks_that_wait_are_told_of_as_well(impatient, capsys):
    """Of the asyncio face, when a wait is over."""

    async def run():
        target = Slow()
        async with AsyncBackgroundWriter("text", target=target, max_workers=1, queue_size=1) as writer:
            await writer.submit("a", "x")
            for name in "bcd":
                waiting = asyncio.create_task(writer.submit(name, "x"))
                while not writer._waiting:
                    await asyncio.sleep(0)
                target.allowed.release()
                await waiting
            target.allowed.release()

    asyncio.run(run())
    assert len(notices(capsys)) == 1


def test_only_the_first_rank_tells(impatient, tmp_path, capsys):
    """All of them would have the same to say."""
    run = Run(id="r", rank=1, world_size=2)
    gate = threading.Event()

    def write(path, value):
        assert gate.wait(60)

    with BackgroundWriter(write, tmp_path, max_workers=1, queue_size=1, run=run, attempts=1) as writer:
        writer.submit("a", "x")
        with pytest.raises(Exception, match="no room"):
            writer.submit("b", "x", timeout=0.3)
        gate.set()
    assert notices(capsys) == []


def test_an_ordinary_run_that_waits_for_a_moment_is_told_of_nothing(capsys):
    """With the times that hold for users."""
    target = Slow()
    with BackgroundWriter("text", target=target, max_workers=1, queue_size=1) as writer:
        writer.submit("a", "x")
        with pytest.raises(Exception, match="no room"):
            writer.submit("b", "x", timeout=0.2)
        target.allowed.release()
    assert writer.stats().waits == 1
    assert notices(capsys) == []


# What processes had of the cores


def test_processor_times_are_read_from_the_kernels_words(tmp_path):
    """All threads count; those that have ended, and whatever else is written there, are left out."""
    told = {
        "1/7": "1000000000 250000000 17\n",
        "1/8": "500000000 0 1\n",
        "2/2": "0 0 0",
        "3/3": "what is this",
        "4/4": "",
    }
    for thread, text in told.items():
        process, _, number = thread.partition("/")
        (tmp_path / process / "task" / number).mkdir(parents=True)
        (tmp_path / process / "task" / number / "schedstat").write_text(text)
    found = processor_times([1, 2, 3, 4, 5], tmp_path)
    assert found == {1: ProcessorTime(1.5, 0.25), 2: ProcessorTime(0.0, 0.0)}


def test_only_processes_that_were_there_both_times_count():
    """A new one's time before is not known."""
    before = {1: ProcessorTime(1.0, 2.0), 2: ProcessorTime(5.0, 5.0)}
    after = {1: ProcessorTime(1.5, 4.0), 3: ProcessorTime(9.0, 9.0)}
    assert between(before, after) == ProcessorTime(0.5, 2.0)
    assert between({}, after) == ProcessorTime(0, 0)
