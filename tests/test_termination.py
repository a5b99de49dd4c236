"""SIGTERM while a trainer predicts, in processes of one rank."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import DEADLINE, leftovers, until

from lighter_async import read_manifest

STATUS = 128 + signal.SIGTERM


class Prediction:
    """A process that predicts, and the files by which it is talked to."""

    def __init__(self, server, folder, options):
        self.folder = folder
        self._server = server
        self.process = int(server.ask({"folder": str(folder), "options": options}))

    def at(self):
        """Wait until it parks."""
        until((self.folder / "at").exists, "parking")

    def go(self):
        (self.folder / "go").touch()

    def open_gate(self):
        (self.folder / "gate").touch()

    def terminate(self):
        os.kill(self.process, signal.SIGTERM)

    def ended(self):
        """Its exit status."""
        return int(self._server.ask({"wait": self.process}))

    def stored(self, writer=0):
        return {int(path.name) for path in (self.folder / str(writer)).glob("[0-9]*")}

    def recorded(self, writer=0):
        return sorted(int(record.name) for record in read_manifest(self.folder / str(writer)).records)

    def remove_locks(self):
        """What a process that did not come to its end leaves for the next run; nobody holds them any more."""
        for lock in self.folder.rglob("*.lock"):
            until(lambda lock=lock: not _is_held(lock), "the end of all that write")
            lock.unlink(missing_ok=True)

    @property
    def told(self):
        return (self.folder / "stderr").read_text()

    @property
    def said(self):
        return (self.folder / "stdout").read_text()


class Server:
    def __init__(self):
        script = Path(__file__).parent / "termination_script.py"
        self._process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._answer() == "ready\n"

    def ask(self, what):
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        ready, _, _ = select.select([self._process.stdout], [], [], 2 * DEADLINE)
        assert ready, "no answer"
        return self._process.stdout.readline()

    def close(self):
        os.killpg(self._process.pid, signal.SIGKILL)
        with self._process:
            pass


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def start(server, tmp_path):
    return lambda **options: Prediction(server, tmp_path, options)


backends = pytest.mark.parametrize("backend", ["thread", "process"])


@backends
def test_it_stops_at_the_next_batch_and_stores_what_was_handed_over(start, backend):
    """With the status of a process that SIGTERM ended."""
    one = start(backend=backend, park_batch=5)
    one.at()
    one.terminate()
    one.open_gate()
    one.go()
    assert one.ended() == STATUS, one.told
    assert one.stored() == set(one.recorded()) == set(range(24))
    assert (one.folder / "batches").read_text() == "5"
    assert "predicted" not in one.said
    assert leftovers(one.folder) == []


def test_all_writers_of_the_trainer_store_theirs(start):
    """The first one ends the loop."""
    one = start(writers=3, park_batch=5)
    one.at()
    one.terminate()
    one.open_gate()
    one.go()
    assert one.ended() == STATUS, one.told
    assert [one.stored(writer) for writer in range(3)] == [set(range(24))] * 3
    assert leftovers(one.folder) == []


def test_the_scripts_own_handler_runs_when_everything_is_stored(start):
    """Outside of the signal's frame, where it may take locks."""
    one = start(handler="tell", park_batch=5)
    one.at()
    one.terminate()
    one.open_gate()
    one.go()
    assert one.ended() == STATUS, one.told
    assert one.said.count("own handler") == 1
    assert "'23'" in one.said
    assert "frame None" in one.said


def test_the_scripts_own_handler_may_end_the_process(start):
    """With a status of its own."""
    one = start(handler="exit", park_batch=0)
    one.at()
    one.terminate()
    one.open_gate()
    one.go()
    assert one.ended() == 7, one.told
    assert one.stored() == set(range(4))


def test_a_handler_that_fails_is_told(start):
    """And the process ends as it would have."""
    one = start(handler="raise", park_batch=0)
    one.at()
    one.terminate()
    one.open_gate()
    one.go()
    assert one.ended() == STATUS
    assert "RuntimeError: of the handler" in one.told


def test_a_handler_that_hangs_does_not_keep_the_process(start):
    """It is ended some seconds after the grace."""
    one = start(handler="hang", park_batch=0, grace=0.0, end=1.0)
    one.open_gate()
    one.at()
    one.terminate()
    one.go()
    assert one.ended() == STATUS
    assert "took too long" in one.told


def test_a_batch_that_hangs_does_not_keep_the_process(start):
    """Nor does a loop that never comes to its next batch."""
    one = start(park_batch=3, grace=0.0, end=1.0)
    one.open_gate()
    one.at()
    one.terminate()
    assert one.ended() == STATUS
    assert "took too long" in one.told
    assert one.stored() == set(range(12))
    one.remove_locks()


def test_what_threads_have_no_time_for_is_told(start):
    """With the count; what is in a thread's hand is finished."""
    one = start(park_batch=5, grace=0.0)
    one.at()
    one.terminate()
    one.go()
    until(lambda: "dropped" in one.told or "took too long" in one.told, "the drop")
    one.open_gate()
    assert one.ended() == STATUS
    assert "20 samples were dropped, for which there was no time" in one.told
    assert one.stored() == set(one.recorded()) == set(range(4))  # they travel together
    assert leftovers(one.folder) == []


@pytest.mark.long
def test_what_helpers_have_no_time_for_they_store_later(start):
    """After the process has ended."""
    one = start(backend="process", park_batch=5, grace=0.0)
    one.at()
    one.terminate()
    one.go()
    assert one.ended() == STATUS
    assert "samples are left to helper processes, which go on storing" in one.told
    assert one.stored() <= {0}
    one.open_gate()
    until(lambda: one.recorded() == list(range(24)), "storing")
    assert one.stored() == set(range(24))
    # They end, and what they leave is a lock that nobody holds and that the next run clears.
    one.remove_locks()


def _is_held(lock):
    import fcntl

    if not lock.exists():
        return False
    with open(lock, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def test_none_leaves_the_signal_alone(start):
    """Lightning's own handler takes note of it, and prediction goes on."""
    one = start(grace=None, park_batch=5)
    one.open_gate()
    one.at()
    one.terminate()
    one.go()
    assert one.ended() == 0, one.told
    assert "predicted" in one.said
    assert one.stored() == set(range(80))


@backends
def test_it_may_come_in_the_final_flush(start, backend):
    """Everything is stored, within the grace."""
    one = start(backend=backend, park_hook="on_predict_epoch_end")
    one.at()
    one.go()
    until(lambda: (one.folder / "batches").read_text() == "19", "the last batch")
    one.terminate()
    one.open_gate()
    assert one.ended() == STATUS, one.told
    assert one.stored() == set(one.recorded()) == set(range(80))
    assert leftovers(one.folder) == []


@pytest.mark.parametrize("hook", ["on_predict_end", "teardown"])
def test_one_that_comes_after_it_ends_the_process_too(start, hook):
    """While other callbacks have their end: nobody loses the signal."""
    one = start(park_hook=hook)
    one.open_gate()
    one.at()
    one.terminate()
    one.go()
    status = one.ended()
    assert one.stored() == set(range(80))
    # By the last hook Lightning has given the signal back, to the system here.
    assert status == (STATUS if hook == "on_predict_end" else -signal.SIGTERM), one.told
    one.remove_locks()


def test_an_error_of_the_models_after_it_is_raised(start):
    """The error is what ends the loop, and what was handed over is stored."""
    one = start(park_batch=5, raises=True, writers=2)
    one.at()
    one.terminate()
    one.open_gate()
    one.go()
    assert one.ended() == 1
    assert "LookupError: mine" in one.told
    assert [one.stored(writer) for writer in range(2)] == [set(range(20))] * 2


@pytest.mark.long
def test_a_second_one_changes_nothing(start):
    """The grace counts from the first."""
    one = start(park_batch=5)
    one.at()
    one.terminate()
    one.go()
    one.terminate()
    one.open_gate()
    assert one.ended() in (STATUS, -signal.SIGTERM)
    assert one.stored() == set(range(24))
