"""What hardly anybody does, and what must not cost a sample all the same."""

import os
import pickle
import resource
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass

import pytest
from harness import results

from lighter_async import BackgroundWriter, ClosedError, Encoder, InvalidNameError, WorkerDiedError, WriteError

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="helpers need Linux")
both = pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=linux)])


@dataclass(frozen=True)
class Frozen(Exception):
    """Takes no attributes, not even a traceback."""

    code: int = 1


class Mute(Exception):
    """Ends the program when it is asked for its message."""

    def __str__(self):
        sys.exit(3)


class NoBool(Exception):
    """Refuses to be true or false."""

    def __bool__(self):
        raise TypeError("neither")


class Dict(Exception):
    """Comes back from another process as a dict."""

    def __reduce__(self):
        return dict, ()


class Exits(Exception):
    """Ends the process in which it is made again."""

    def __reduce__(self):
        return sys.exit, (7,)


@both
@pytest.mark.parametrize("kind", [Frozen, Mute, NoBool, Dict, Exits])
def test_an_odd_exception_fails_its_sample_alone(tmp_path, backend, kind):
    """Whatever its attributes, its message and its pickle do."""

    def encode(value):
        if value == "bad":
            raise kind
        return value.encode()

    writer = BackgroundWriter(Encoder(encode, suffix=".x", name="odd"), tmp_path, backend=backend, max_workers=1)
    writer.submit_batch(["a", "b", "c"], ["good", "bad", "fine"])
    with pytest.raises(WriteError, match=r"1 sample was not written: writer 'odd' failed on 'b'"):
        writer.close()
    assert {path.name for path in results(tmp_path)} == {"a.x", "c.x"}


@pytest.mark.long
@linux
def test_a_writer_that_ends_every_helper_is_told_before_each_sample_has_had_its_three(tmp_path):
    """Else a thousand samples would take a thousand times as long as one, with three helpers each."""
    writer = BackgroundWriter(Encoder(lambda _: os._exit(9), suffix="", name="deadly"), tmp_path, backend="process")
    writer.submit_batch([str(index) for index in range(200)], ["x"] * 200)
    with pytest.raises(WriteError, match="200 samples were not written") as caught:
        writer.close()
    assert all(isinstance(failure.cause, WorkerDiedError) for failure in caught.value.failures)
    assert results(tmp_path) == []


@pytest.mark.long
@linux
def test_more_dead_units_than_the_book_has_room_for_wait_for_it(tmp_path):
    """The second half of the samples ends its helper twice in three; nothing is lost, doubled or left hanging."""
    mark = tmp_path / "seen"
    mark.mkdir()

    def encode(value):
        if value % 40 == 7:
            try:
                (mark / str(value)).touch(exist_ok=False)
            except FileExistsError:
                return b"second"
            os._exit(9)
        return b"first"

    out = tmp_path / "out"
    with BackgroundWriter(
        Encoder(encode, suffix=".x"), out, backend="process", max_workers=2, queue_size=400
    ) as writer:
        writer.submit_batch([str(index) for index in range(400)], list(range(400)))
    assert {path.stem: path.read_bytes() for path in results(out)} == {
        str(index): b"second" if index % 40 == 7 else b"first" for index in range(400)
    }


CLOSED = """
    import os, sys
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    from lighter_async import BackgroundWriter, encoder

    @encoder(suffix=".x")
    def encode(value):
        print("printed", flush=True)
        os.write(1, b"printed by force") if os.path.exists("/proc/self/fd/1") else None
        return value

    with BackgroundWriter(encode, sys.argv[1], backend="process", max_workers=1) as writer:
        writer.submit_batch([str(i) for i in range(20)], [bytes([i]) * 5000 for i in range(20)])
"""


@linux
def test_what_a_daemons_helpers_print_goes_nowhere(tmp_path):
    """With standard input and output closed, their numbers must not be those of the samples' memory."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(CLOSED), tmp_path], timeout=60)
    assert done.returncode == 0
    assert {path.name: path.read_bytes() for path in results(tmp_path)} == {
        f"{i}.x": bytes([i]) * 5000 for i in range(20)
    }


@pytest.mark.long
@linux
def test_a_start_that_fails_leaves_no_descriptor(tmp_path):
    """Whichever one cannot be had; the next start succeeds."""
    before = set(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    failed = 0
    for spare in range(1, 14):
        writer = BackgroundWriter("text", tmp_path / str(spare), backend="process", max_workers=2)
        taken = {int(number) for number in os.listdir("/proc/self/fd")}
        free = [number for number in range(2000) if number not in taken]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[spare], hard))
        try:
            writer.start()
        except OSError:
            failed += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with writer:
            writer.submit("a", "b")
        assert [path.name for path in results(tmp_path / str(spare))] == ["a.txt"]
    assert failed
    assert set(os.listdir("/proc/self/fd")) <= before | {max(before, key=int)}


def test_two_spellings_of_one_file_name_are_not_two_names(tmp_path):
    """A name with surrogates for bytes that are text is refused; one for bytes that are none is as good as any."""
    with BackgroundWriter("text", tmp_path) as writer:
        writer.submit("\udcff", "not text")
        writer.submit("é", "text")
        with pytest.raises(InvalidNameError, match="one file name"):
            writer.submit("\udcc3\udca9", "the same")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_stats_in_a_forked_child_refuse_before_they_take_a_lock(tmp_path):
    """Another thread may have held it when the process was forked."""
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit("a", "b")
        held, release = threading.Event(), threading.Event()

        def hold():
            with writer._ledger._lock:
                held.set()
                release.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(30)
        child = os.fork()
        if not child:
            try:
                writer.stats()
            except ClosedError:
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        release.set()
        thread.join()
    assert os.waitstatus_to_exitcode(status) == 0


def test_errors_travel_between_processes_whole():
    """With what they carry."""
    error = WriteError.of_sample(ValueError("no"), writer="w", name="n", attempts=2)
    error.kept = "/somewhere"
    again = pickle.loads(pickle.dumps(error))
    assert (again.writer, again.name, again.attempts, again.kept, str(again)) == ("w", "n", 2, "/somewhere", str(error))
