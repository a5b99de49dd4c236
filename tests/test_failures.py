"""Errors that pass and errors that last, a full disk, and writers that hang."""

import contextlib
import signal
import threading
import time
from pathlib import Path

import anyio
import faulty
import numpy as np
import psutil
import pytest
from faulty import ERRORS, PASSING, FaultyTarget, fault, told
from harness import in_thread, leftovers, run_script, script_running, until
from sent_to_helpers import hang

from lighter_async import BackgroundWriter, Encoder, QueueFullError, WriteError, WriteTimeoutError, read_manifest
from lighter_async.manifest import ManifestLog
from lighter_async.workers import patience as patience_module
from lighter_async.workers.patience import Patience, may_pass

both_backends = pytest.mark.parametrize("backend", ["thread", "process"])
mostly_threads = pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.long)])
LASTING = sorted(set(ERRORS) - set(PASSING))


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    for wait in ("_FIRST_WAIT", "_LONGEST_WAIT", "_JITTER", "_FIRST_LOOK", "_RAREST_LOOK"):
        monkeypatch.setattr(patience_module, wait, 0.001)


@pytest.fixture
def counts(tmp_path):
    folder = tmp_path / "counts"
    folder.mkdir()
    return folder


def stored(folder):
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".lighter-async" not in path.parts
    )


def recorded(folder):
    return sorted(record.name for record in read_manifest(folder).records)


def failures_of(writer):
    """What closing a writer raises, by the samples' names."""
    with pytest.raises(WriteError) as raised:
        writer.close()
    failures = {failure.name: failure for failure in raised.value.failures}
    assert len(failures) == len(raised.value.failures)
    return failures


# Trying again


@both_backends
def test_errors_that_pass_are_tried_again(tmp_path, counts, backend):
    """Each sample is stored by its third attempt, and the caller hears of nothing."""
    faults = {name: (name, 2) for name in PASSING}
    target = FaultyTarget(tmp_path / "out", counts, {f"{name}.txt": fault for name, fault in faults.items()})
    with BackgroundWriter("text", target=target, backend=backend, max_workers=2) as writer:
        writer.submit_batch([*PASSING, "fine"], ["words"] * (len(PASSING) + 1))
    assert stored(tmp_path / "out") == sorted(f"{name}.txt" for name in [*PASSING, "fine"])
    assert recorded(tmp_path / "out") == sorted([*PASSING, "fine"])
    assert {told(counts, f"{name}.txt") for name in PASSING} == {3}
    assert told(counts, "fine.txt") == 1
    stats = writer.stats()
    assert (stats.written, stats.failed) == (len(PASSING) + 1, 0)
    assert leftovers(tmp_path) == []


@mostly_threads
def test_errors_that_last_are_not_tried_again(tmp_path, counts, backend):
    """Each is told after one attempt, as it was raised."""
    target = FaultyTarget(tmp_path / "out", counts, {f"{name}.txt": (name, 1) for name in LASTING})
    writer = BackgroundWriter("text", target=target, backend=backend, max_workers=2)
    writer.submit_batch([*LASTING, "fine"], ["words"] * (len(LASTING) + 1))
    failures = failures_of(writer)
    assert sorted(failures) == LASTING
    for name, failure in failures.items():
        assert failure.attempts == 1
        assert "attempts" not in str(failure)
        assert told(counts, f"{name}.txt") == 1
        assert type(failure.cause) is type(ERRORS[name]())
        assert getattr(failure.cause, "errno", None) == getattr(ERRORS[name](), "errno", None)
    assert stored(tmp_path / "out") == ["fine.txt"]


@mostly_threads
@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_an_error_that_does_not_pass_is_told_after_the_last_attempt(tmp_path, counts, backend, attempts):
    """With how often it was tried; one attempt turns trying again off."""
    target = FaultyTarget(tmp_path / "out", counts, {"a.txt": ("EIO", 99)})
    writer = BackgroundWriter("text", target=target, backend=backend, max_workers=1, attempts=attempts)
    writer.submit_batch(["a", "b"], ["words", "words"])
    failure = failures_of(writer)["a"]
    assert failure.attempts == told(counts, "a.txt") == attempts
    assert (f"after {attempts} attempts" in str(failure)) == (attempts > 1)
    assert stored(tmp_path / "out") == ["b.txt"]


@mostly_threads
def test_path_functions_are_called_again(tmp_path, counts, backend):
    """Where what they raise may pass."""
    out, faults = tmp_path / "out", {"passes": ("EIO", 2), "lasts": ("ValueError", 1), "stays": ("status", 99)}

    def write(path, value):
        faulty.hurry()
        fault(counts, faults, path.name)
        path.write_text(value)

    writer = BackgroundWriter(write, out, backend=backend, max_workers=1)
    writer.submit_batch(["passes", "lasts", "stays"], ["words"] * 3)
    failures = failures_of(writer)
    assert {name: failure.attempts for name, failure in failures.items()} == {"lasts": 1, "stays": 4}
    assert [told(counts, name) for name in ("passes", "lasts", "stays")] == [3, 1, 4]
    assert (stored(out), recorded(out)) == (["passes"], ["passes"])


def test_async_writers_are_awaited_again(tmp_path, counts):
    """Where what they raise may pass; others are written meanwhile."""
    out, faults = tmp_path / "out", {"passes": ("caused", 2), "lasts": ("ValueError", 1), "stays": ("status", 99)}

    async def write(path, value):
        fault(counts, faults, path.name)
        await anyio.Path(path).write_text(value)

    writer = BackgroundWriter(write, out, max_workers=2)
    writer.submit_batch(["passes", "lasts", "stays", "fine"], ["words"] * 4)
    failures = failures_of(writer)
    assert {name: failure.attempts for name, failure in failures.items()} == {"lasts": 1, "stays": 4}
    assert [told(counts, name) for name in ("passes", "lasts", "stays")] == [3, 1, 4]
    assert stored(out) == recorded(out) == ["fine", "passes"]


def test_encoders_are_not_called_again(tmp_path):
    """What they make of a value is the same at every attempt."""
    calls = []

    def encode(value):
        calls.append(value)
        raise OSError(5, "as if from a device")

    writer = BackgroundWriter(Encoder(encode, suffix=""), tmp_path)
    writer.submit("a", 1)
    assert failures_of(writer)["a"].attempts == len(calls) == 1


def test_waits_between_attempts_grow(monkeypatch):
    """Each is about twice the one before, up to a limit."""
    monkeypatch.undo()
    monkeypatch.setattr(patience_module, "_JITTER", 0.0)
    waits = []
    monkeypatch.setattr(Patience, "_sleep", lambda self, seconds: waits.append(seconds))

    def fail():
        raise ConnectionResetError

    told = []
    with pytest.raises(ConnectionResetError):
        Patience(attempts=9).call(fail, told.append)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert told == [1, None, 2, None, 3, None, 4, None, 5, None, 6, None, 7, None, 8, None, 9]


def test_an_error_that_cannot_be_asked_lasts():
    """A client's error may have properties that raise."""

    class Odd(Exception):
        @property
        def response(self):
            raise RuntimeError("there was none")

    assert not may_pass(Odd())
    loop = ValueError()
    loop.__cause__ = loop
    assert not may_pass(loop)


@mostly_threads
def test_a_retry_replaces_what_the_attempt_before_has_stored(tmp_path, counts, backend):
    """An attempt may have stored a file before it failed, which is no file of an earlier run."""
    target = FaultyTarget(tmp_path / "out", counts, manifest=("EIO", 1), if_exists="error")
    with patched_append(target):
        with BackgroundWriter("text", target=target, backend=backend, max_workers=1) as writer:
            writer.submit("a", "words")
    assert stored(tmp_path / "out") == ["a.txt"]
    assert recorded(tmp_path / "out") == ["a"]


@mostly_threads
def test_abort_does_not_wait_for_another_attempt(tmp_path, counts, backend, monkeypatch):
    """A worker that waits for one fails its sample at once."""
    for wait in ("_FIRST_WAIT", "_LONGEST_WAIT"):
        monkeypatch.setattr(patience_module, wait, 1000.0)
    target = FaultyTarget(tmp_path / "out", counts, {"a.txt": ("EIO", 99)}, waits=1000.0)
    writer = BackgroundWriter("text", target=target, backend=backend, max_workers=1)
    writer.submit("a", "words")
    writer.submit_batch(["b", "c"], ["words"] * 2)
    until(lambda: told(counts, "a.txt"))
    with pytest.raises(WriteError) as raised:
        in_thread(writer.abort).result()
    assert [failure.name for failure in raised.value.failures] == ["a"]
    stats = writer.stats()
    assert (stats.failed, stats.dropped, stats.pending) == (1, 2, 0)


def test_abort_ends_the_wait_of_an_async_writer(tmp_path, counts, monkeypatch):
    """As that of any other."""
    for wait in ("_FIRST_WAIT", "_LONGEST_WAIT"):
        monkeypatch.setattr(patience_module, wait, 1000.0)

    async def write(path, value):
        fault(counts, {"a": ("EIO", 99)}, path.name)

    writer = BackgroundWriter(write, tmp_path / "out", max_workers=1)
    writer.submit_batch(["a", "b"], ["words"] * 2)
    until(lambda: told(counts, "a"))
    with pytest.raises(WriteError):
        in_thread(writer.abort).result()
    assert (writer.stats().failed, writer.stats().dropped) == (1, 1)


# A manifest that cannot be written


@contextlib.contextmanager
def patched_append(target):
    before = ManifestLog.append
    ManifestLog.append = target.failing_append(before)
    try:
        yield
    finally:
        ManifestLog.append = before


@both_backends
@pytest.mark.parametrize("error", ["ENOSPC", "EACCES"])
def test_what_cannot_be_recorded_has_failed(tmp_path, counts, backend, error):
    """Its file is stored, but a resumed run would not know; the samples of other units are written."""
    out = tmp_path / "out"
    target = FaultyTarget(out, counts, manifest=(error, 1))
    with patched_append(target):
        writer = BackgroundWriter("text", target=target, backend=backend, max_workers=1)
        writer.submit_batch(["a", "b"], ["words"] * 2)
        with pytest.raises(WriteError) as raised:
            writer.flush()
        assert sorted(failure.name for failure in raised.value.failures) == ["a", "b"]
        assert ("resume=True" in str(raised.value)) == (error == "ENOSPC")
        writer.close()
    assert recorded(out) == []
    stats = writer.stats()
    assert (stats.written, stats.failed) == (0, 2)


@mostly_threads
def test_a_manifest_that_cannot_be_begun_is_told_at_the_start(tmp_path, backend):
    """Such as where a link lies in its place; nothing is left running."""
    (tmp_path / ".lighter-async").mkdir()
    (tmp_path / ".lighter-async" / "manifest-0.jsonl").symlink_to("/dev/full")
    writer = BackgroundWriter("text", tmp_path, backend=backend)
    for _ in range(2):
        with pytest.raises(OSError, match="symbolic links"):
            writer.submit("a", "words")
    assert leftovers(tmp_path) == []


# A full disk


def test_a_helper_that_begins_on_a_full_disk_waits_for_room(tmp_path, counts):
    """As it does for a sample: another one, which began before, may have filled it."""
    target = FaultyTarget(tmp_path / "out", counts, {"open": ("ENOSPC", 2)})
    with BackgroundWriter("text", target, backend="process", max_workers=1, wait_for_space=1000) as writer:
        writer.submit("a", "words")
    assert (stored(tmp_path / "out"), told(counts, "open")) == (["a.txt"], 3)


@both_backends
def test_a_full_disk_is_told_with_what_is_stored_and_the_way_out(tmp_path, counts, backend):
    """How many samples and bytes are stored, how to go on, and how to wait."""
    target = FaultyTarget(tmp_path / "out", counts, {"b.txt": ("ENOSPC", 99)})
    writer = BackgroundWriter("text", target=target, backend=backend, max_workers=1)
    writer.submit("a", "words")
    writer.flush()
    writer.submit("b", "words")
    with pytest.raises(WriteError, match=r"resume=True.*wait_for_space=SECONDS.*1 sample is stored"):
        writer.close()


@both_backends
def test_a_file_that_is_too_large_is_told_at_once(tmp_path, backend):
    """The system's own limit is no full disk, and nothing is left of the file."""
    target = FaultyTarget(tmp_path / "out", largest=4096)
    writer = BackgroundWriter("text", target=target, backend=backend, max_workers=1, wait_for_space=1000)
    writer.submit("large", "x" * 10_000)
    writer.submit("small", "x" * 10)
    failures = failures_of(writer)
    assert list(failures) == ["large"]
    assert failures["large"].cause.errno == 27
    assert failures["large"].attempts == 1
    assert stored(tmp_path / "out") == ["small.txt"]
    assert leftovers(tmp_path) == []


@both_backends
def test_waiting_for_space_holds_the_loop_back_until_there_is_room(tmp_path, counts, backend):
    """What is queued stays queued, no more comes in, and all is stored once there is room."""
    (counts / "full").touch()
    target = FaultyTarget(tmp_path / "out", counts)
    options = {"backend": backend, "max_workers": 1, "queue_size": 2, "wait_for_space": 1000, "write_timeout": 0.5}
    writer = BackgroundWriter("text", target=target, attempts=1, **options)
    writer.submit("a", "words")
    writer.submit("b", "words")
    until(lambda: told(counts, "refusals") > 5)
    with pytest.raises(QueueFullError):
        writer.submit_nowait("c", "words")
    submitting = in_thread(writer.submit, "c", "words")
    until(lambda: writer.stats().waits == 1)
    more = told(counts, "refusals") + 50
    until(lambda: told(counts, "refusals") > more)
    assert submitting.running
    (counts / "full").unlink()
    submitting.result()
    writer.close()
    assert stored(tmp_path / "out") == ["a.txt", "b.txt", "c.txt"]


@both_backends
def test_waiting_for_space_ends(tmp_path, counts, backend):
    """After so many seconds, for those that wait behind as well."""
    (counts / "full").touch()
    names = [f"{number}" for number in range(20)]
    target = FaultyTarget(tmp_path / "out", counts)
    writer = BackgroundWriter("text", target=target, backend=backend, max_workers=1, wait_for_space=0.5)
    writer.submit_batch(names, ["words"] * 20)
    failures = failures_of(writer)
    assert len(failures) == 20
    # The first one has waited for all.
    assert failures["0"].attempts > 3
    assert max(failure.attempts for name, failure in failures.items() if name != "0") <= 2


def test_after_room_was_made_the_next_full_disk_is_waited_for_anew():
    """How long the disk was full before is forgotten."""
    patience = Patience(wait_for_space=1000)
    patience._full_since = time.monotonic() - 5000
    outcomes = [ERRORS["ENOSPC"](), "stored", ERRORS["ENOSPC"](), ERRORS["ENOSPC"](), "stored"]

    def put():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with pytest.raises(OSError, match="No space left"):
        patience.call(put, lambda _: None)
    assert patience.call(put, lambda _: None) == "stored"
    assert patience.call(put, lambda _: None) == "stored"


def test_waiting_for_space_takes_no_attempts_away():
    """An error that passes is tried as often after a wait for room."""
    patience = Patience(attempts=3, wait_for_space=1000)
    outcomes = [*(ERRORS["ENOSPC"]() for _ in range(10)), ERRORS["EIO"](), ERRORS["EIO"](), "stored"]

    def put():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert patience.call(put, lambda _: None) == "stored"


@mostly_threads
def test_abort_ends_a_wait_for_space(tmp_path, counts, backend):
    """The sample in a worker's hand has failed, the others are dropped."""
    (counts / "full").touch()
    target = FaultyTarget(tmp_path / "out", counts, waits=1000.0)
    writer = BackgroundWriter("text", target=target, backend=backend, max_workers=1, wait_for_space=5000)
    for name in "abc":
        writer.submit(name, "words")
    until(lambda: told(counts, "refusals"))
    with pytest.raises(WriteError, match="No space left"):
        in_thread(writer.abort).result()
    assert (writer.stats().failed, writer.stats().dropped) == (1, 2)


# The disk is full for ever; the loop is in the wait for room in the queue.
_FULL = """
import sys
from pathlib import Path
from faulty import FaultyTarget
from lighter_async import BackgroundWriter
folder = Path(sys.argv[1])
target = FaultyTarget(folder / "out", folder / "counts")
with BackgroundWriter(
    "text", target=target, backend=sys.argv[2], max_workers=1, queue_size=2, wait_for_space=5000
) as writer:
    for number in range(9):
        if number == 2:
            print("full", flush=True)
        writer.submit(str(number), "words")
"""


@mostly_threads
def test_ctrl_c_ends_a_wait_for_space(tmp_path, counts, backend, monkeypatch):
    """The first one leaves the loop and waits on, the second one drops what is queued."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    (counts / "full").touch()
    with script_running(_FULL, tmp_path, backend) as process:
        assert process.stdout.readline() == "full\n"
        until(lambda: told(counts, "refusals"))
        said = []
        reading = in_thread(lambda: said.extend(process.stderr))
        for expected in ("Ctrl-C again drops them", "were dropped"):
            # Once more where nothing comes of it: the interpreter overlooks a signal just before its thread waits.
            until(lambda e=expected: _interrupt(process, said, e))
        process.wait(30)
        reading.result()
    assert stored(tmp_path / "out") == []


def _interrupt(process, said, expected):
    process.send_signal(signal.SIGINT)
    end = time.monotonic() + 3
    while time.monotonic() < end and not any(expected in line for line in said):
        time.sleep(0.005)
    return any(expected in line for line in said)


@both_backends
def test_a_real_disk_that_is_full(small_disk, backend):
    """What was stored before is whole, what was not is told, and no half file is left."""
    samples = np.zeros((40, 64 << 10), np.uint8)
    names = [f"{number}" for number in range(40)]
    writer = BackgroundWriter(Encoder(bytes, suffix=""), small_disk, backend=backend, max_workers=2)
    with contextlib.suppress(WriteError):
        writer.submit_batch(names, samples)
    with pytest.raises(WriteError, match=r"the disk is full.*samples are stored") as raised:
        writer.close()
    failed = {failure.name for failure in raised.value.failures}
    assert {failure.cause.errno for failure in raised.value.failures} == {28}
    assert failed
    assert set(recorded(small_disk)) == set(names) - failed
    assert {path.stat().st_size for path in small_disk.iterdir() if path.is_file()} == {64 << 10}
    assert leftovers(small_disk) == []


@mostly_threads
def test_a_real_disk_that_somebody_makes_room_on(small_disk, backend):
    """All samples are stored."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(700 << 10))
    samples = np.zeros((8, 64 << 10), np.uint8)
    with BackgroundWriter(
        Encoder(bytes, suffix=""), small_disk, backend=backend, max_workers=2, wait_for_space=1000
    ) as writer:
        writer.submit_batch([f"{number}" for number in range(8)], samples)
        until(lambda: writer.stats().written or len(stored(small_disk)) >= 4)
        assert writer.stats().pending
        ballast.unlink()
    assert len(stored(small_disk)) == 8


# Writers that hang

SECONDS = 1.0
"""A time limit that a writer that does not hang keeps on a busy machine."""


HANGING = ["sleep", "loop", "lock"]


@pytest.mark.long
def test_helpers_that_hang_are_ended(tmp_path):
    """After three attempts the sample is told with where it hung; all others are stored, of its batch, too."""
    encode = Encoder(hang, suffix="", name="hang")
    writer = BackgroundWriter(encode, tmp_path, backend="process", max_workers=3, write_timeout=SECONDS)
    names = [f"{kind}-{place}" for kind in HANGING for place in range(5)]
    writer.submit_batch(names, [name[:-2] if name.endswith("2") else name for name in names])
    writer.submit_batch(["x", "y"], ["x", "y"])
    failures = failures_of(writer)
    assert sorted(failures) == sorted(f"{kind}-2" for kind in HANGING)
    for failure in failures.values():
        assert isinstance(failure.cause, WriteTimeoutError)
        assert failure.attempts == 3
        assert "in hang" in failure.cause.stack
        assert "sent_to_helpers.py" in failure.cause.stack
        assert "write_timeout=1 s" in str(failure)
    expected = sorted([*names, "x", "y"])
    for kind in HANGING:
        expected.remove(f"{kind}-2")
    assert stored(tmp_path) == expected
    assert sorted(set(recorded(tmp_path))) == expected
    stats = writer.stats()
    assert (stats.accepted, stats.written, stats.failed, stats.pending) == (17, 14, 3, 0)
    assert not [one for one in psutil.Process().children() if "lighter_async" in " ".join(one.cmdline())]


def test_a_helper_that_hangs_once_stores_its_sample_at_the_next_attempt(tmp_path, counts):
    """Nothing is told."""

    def encode(value):
        if value == "once" and faulty.count(counts, "once") == 1:
            time.sleep(10_000)
        return value.encode()

    with BackgroundWriter(
        Encoder(encode, suffix=""), tmp_path / "out", backend="process", max_workers=1, write_timeout=SECONDS
    ) as writer:
        writer.submit_batch(["a", "b", "c"], ["a", "once", "c"])
    assert stored(tmp_path / "out") == ["a", "b", "c"]


def test_threads_that_hang_are_given_up(tmp_path):
    """The sample is told with where it hangs, all others are stored, and close does not wait."""
    let_go = threading.Event()
    seen = []

    def encode(value):
        if value[0] == 2:
            let_go.wait()
            seen.append(value.copy())
        return value.tobytes()

    writer = BackgroundWriter(
        Encoder(encode, suffix=""), tmp_path, backend="thread", max_workers=1, queue_bytes=8192, write_timeout=SECONDS
    )
    writer.submit_batch(["0", "1", "2", "3", "4"], np.stack([np.full(100, number, np.uint8) for number in range(5)]))
    with pytest.raises(WriteError) as raised:
        in_thread(writer.flush).result()
    (failure,) = raised.value.failures
    assert failure.name == "2"
    assert isinstance(failure.cause, WriteTimeoutError)
    assert "let_go.wait()" in failure.cause.stack
    assert "cannot be ended" in str(failure)
    in_thread(writer.close).result()
    assert stored(tmp_path) == recorded(tmp_path) == ["0", "1", "3", "4"]
    stats = writer.stats()
    assert (stats.accepted, stats.written, stats.failed, stats.pending, stats.pending_bytes) == (5, 4, 1, 0, 0)
    let_go.set()
    until(lambda: seen)
    # Its memory was not used again, and it stores nothing any more.
    assert set(seen[0]) == {2}
    until(lambda: not [one for one in threading.enumerate() if one.name == "lighter-async"])
    assert recorded(tmp_path) == ["0", "1", "3", "4"]


def test_what_waits_behind_a_thread_that_hangs_is_told_where_the_system_has_no_other_thread(tmp_path, monkeypatch):
    """A limit of processes counts threads; closing would wait for ever for samples that nobody takes."""
    entered, let_go = threading.Event(), threading.Event()

    def encode(value):
        entered.set()
        let_go.wait()
        return value.encode()

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    writer = BackgroundWriter(
        Encoder(encode, suffix=""), tmp_path, backend="thread", max_workers=1, write_timeout=SECONDS
    )
    writer.submit("hangs", "a")
    writer.submit_batch(["b", "c"], ["b", "c"])
    assert entered.wait(60)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        failures = failures_of(writer)
    assert {name: type(failure.cause) for name, failure in failures.items()} == {
        "hangs": WriteTimeoutError,
        "b": RuntimeError,
        "c": RuntimeError,
    }
    assert writer.stats().pending == 0
    let_go.set()
    until(lambda: not [one for one in threading.enumerate() if one.name == "lighter-async"])
    assert recorded(tmp_path) == []


def test_memory_that_a_thread_may_still_read_is_not_used_again(tmp_path):
    """The batches after it come into other memory."""
    let_go = threading.Event()
    seen = []

    def encode(value):
        if value[0] == 7:
            let_go.wait()
            seen.append(set(value))
        return b"x"

    writer = BackgroundWriter(
        Encoder(encode, suffix=""),
        tmp_path,
        backend="thread",
        max_workers=1,
        queue_bytes=4096,
        write_timeout=SECONDS,
        on_error="continue",
    )
    writer.submit("hangs", np.full(1000, 7, np.uint8))
    with pytest.raises(WriteError) as raised:
        writer.flush()
    assert raised.value.failures[0].kept
    for number in range(6):
        writer.submit(str(number), np.full(1000, 100 + number, np.uint8))
    writer.close()
    let_go.set()
    until(lambda: seen)
    assert seen == [{7}]
    until(lambda: not [one for one in threading.enumerate() if one.name == "lighter-async"])
    assert recorded(tmp_path) == [f"{number}" for number in range(6)]
    # It has failed once, so its value is kept once.
    assert len(list((tmp_path / ".lighter-async" / "quarantine").iterdir())) == 1


_HANGS_AT_EXIT = """
import sys, threading
from lighter_async import BackgroundWriter, Encoder, WriteError

def encode(value):
    if value == "hang":
        threading.Event().wait()
    return value.encode()

writer = BackgroundWriter(Encoder(encode, suffix=""), sys.argv[1], backend="thread", max_workers=2, write_timeout=0.3)
writer.submit("a", "hang")
writer.submit_batch(["b", "c"], ["b", "c"])
if sys.argv[2] == "close":
    try:
        writer.close()
    except WriteError as error:
        print(error)
"""


@pytest.mark.parametrize("ending", ["close", "forget"])
def test_a_thread_that_hangs_does_not_keep_the_interpreter_from_ending(tmp_path, ending):
    """Whether the writer was closed or forgotten; what failed is told."""
    done = run_script(_HANGS_AT_EXIT, tmp_path, ending)
    assert done.returncode == 0
    assert "WriteTimeoutError" in (done.stdout if ending == "close" else done.stderr)
    assert stored(tmp_path) == recorded(tmp_path) == ["b", "c"]


def test_async_writers_that_hang_are_cancelled(tmp_path):
    """Their sample has failed, the others are written."""
    cancelled = []

    async def write(path, value):
        if value == "hang":
            try:
                await anyio.sleep(10_000)
            finally:
                cancelled.append(path.name)
        path.write_text(value)

    writer = BackgroundWriter(write, tmp_path, max_workers=2, write_timeout=0.2)
    writer.submit_batch(["a", "b", "c"], ["a", "hang", "c"])
    failures = failures_of(writer)
    assert list(failures) == cancelled == ["b"]
    assert isinstance(failures["b"].cause, WriteTimeoutError)
    assert failures["b"].attempts == 1
    assert stored(tmp_path) == recorded(tmp_path) == ["a", "c"]


def test_a_timeout_of_an_async_writers_own_is_tried_again(tmp_path, counts):
    """It is no hang, and may pass."""

    async def write(path, value):
        fault(counts, {"a": ("timeout", 1)}, path.name)
        path.write_text(value)

    with BackgroundWriter(write, tmp_path / "out", write_timeout=100) as writer:
        writer.submit("a", "words")
    assert told(counts, "a") == 2


@both_backends
def test_waiting_for_another_attempt_is_no_hang(tmp_path, counts, backend, monkeypatch):
    """The time limit is an attempt's."""
    for wait in ("_FIRST_WAIT", "_LONGEST_WAIT"):
        monkeypatch.setattr(patience_module, wait, 3 * SECONDS)
    target = FaultyTarget(tmp_path / "out", counts, {"a.txt": ("EIO", 1)}, waits=3 * SECONDS)
    with BackgroundWriter("text", target=target, backend=backend, max_workers=1, write_timeout=SECONDS) as writer:
        writer.submit("a", "words")
    assert told(counts, "a.txt") == 2


@both_backends
def test_many_samples_that_take_long_together_are_no_hang(tmp_path, backend):
    """The time limit is a sample's, not a unit's."""

    def encode(value):
        time.sleep(0.25)
        return value.encode()

    with BackgroundWriter(
        Encoder(encode, suffix=""), tmp_path, backend=backend, max_workers=1, write_timeout=SECONDS
    ) as writer:
        writer.submit_batch([f"{number}" for number in range(8)], ["words"] * 8)
    assert len(stored(tmp_path)) == 8


@pytest.mark.long
def test_importing_torch_is_no_hang(tmp_path):
    """A helper that has to import it for its first sample takes as long as that takes."""
    import torch

    def write(path, value):
        path.write_text(f"{type(value).__name__} {value.tolist()}")

    with BackgroundWriter(write, tmp_path, backend="process", max_workers=1, write_timeout=0.4) as writer:
        writer.submit_batch(["a", "b"], torch.arange(2))
    assert (tmp_path / "a").read_text() == "Tensor 0"


@mostly_threads
def test_keeping_a_value_that_failed_is_no_hang(tmp_path, backend):
    """A helper has to import torch for that."""

    def encode(value):
        raise ValueError("no way to write it")

    writer = BackgroundWriter(
        Encoder(encode, suffix=""), tmp_path, backend=backend, max_workers=1, write_timeout=0.4, on_error="continue"
    )
    writer.submit_batch(["a", "b"], ["words"] * 2)
    failures = failures_of(writer)
    assert [type(failure.cause) for failure in failures.values()] == [ValueError] * 2
    assert all(failure.kept for failure in failures.values())
    assert len(list((tmp_path / ".lighter-async" / "quarantine").iterdir())) == 2
