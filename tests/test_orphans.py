"""Helpers whose process is gone: they store what it handed over, look after each other, and hold nobody up."""

import os
import select
import signal
import subprocess
import sys

import psutil
import pytest
import torch
from harness import DEADLINE, leftovers, script_running, until

from lighter_async import BackgroundWriter, pending, read_manifest
from lighter_async.workers.process.launch import supported
from lighter_async.workers.process.shared_queue_helper_side import HelperQueue
from lighter_async.workers.process.shared_queue_parent_side import ParentQueue

pytestmark = pytest.mark.skipif(not supported(), reason="helpers need Linux")

# Hands samples over whose writing waits until a file is there, and tells its helpers' numbers.
JOB = """
import os, pathlib, sys, time
from lighter_async import BackgroundWriter, Origin, encoder

folder, workers, samples = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
go = pathlib.Path(folder + ".go")

@encoder(suffix=".txt")
def encode(value):
    pathlib.Path(f"{folder}.begun-{os.getpid()}").touch()
    while not go.exists():
        time.sleep(0.005)
    return value.encode()

writer = BackgroundWriter(encode, folder, backend="process", max_workers=workers, resume=True)
writer.start()
for index in range(samples):
    writer.submit(str(index), f"sample {index}", origin=Origin(indices=(index,)))
print("handed over", flush=True)
time.sleep(600)
"""


def begun(folder):
    """The helpers that have taken a sample."""
    return [int(path.name.rpartition("-")[2]) for path in folder.parent.glob(f"{folder.name}.begun-*")]


def texts(folder):
    return {path.name: path.read_text() for path in folder.glob("*.txt")}


def children_of_nobody(folder):
    """The helpers at work in a folder, whoever their parent is."""
    found = []
    for process in psutil.process_iter():
        try:
            if any("lighter_async.workers.process.helper" in word for word in process.cmdline()) and any(
                file.path.startswith(str(folder)) for file in process.open_files()
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def clear(folder):
    """The next run removes what is left of those that were killed."""
    with BackgroundWriter("text", folder, backend="thread", resume=True):
        pass
    assert leftovers(folder) == []


def handed_over(process):
    assert process.stdout.readline() == "handed over\n", process.stderr.read()


def test_what_a_dead_helper_had_another_takes_over_when_the_process_is_gone_too(tmp_path):
    """A helper is killed in the middle of a sample, and the process before it can see that."""
    folder = tmp_path / "out"
    with script_running(JOB, folder, 2, 20) as process:
        handed_over(process)
        until(lambda: len(begun(folder)) == 2)
        process.send_signal(signal.SIGSTOP)  # so that it does not see it
        os.kill(begun(folder)[0], signal.SIGKILL)
        process.kill()
    (tmp_path / "out.go").touch()
    assert list(pending(range(20), folder)) == []
    assert texts(folder) == {f"{index}.txt": f"sample {index}" for index in range(20)}
    assert len(read_manifest(folder)) == 20
    clear(folder)


def test_the_last_helper_has_a_successor_once_the_process_is_gone(tmp_path):
    """So that it may be killed, too; and the next, and so on."""
    folder = tmp_path / "out"
    with script_running(JOB, folder, 1, 20) as process:
        handed_over(process)
        until(lambda: begun(folder))
        process.kill()
    for _ in range(2):
        first = begun(folder)[0]  # its successor may have begun with another one already
        until(lambda: len(children_of_nobody(folder)) >= 2, "a successor")
        os.kill(first, signal.SIGKILL)
        (tmp_path / f"out.begun-{first}").unlink()
        until(lambda: begun(folder), "the successor at work")
    (tmp_path / "out.go").touch()
    assert list(pending(range(20), folder)) == []
    assert texts(folder) == {f"{index}.txt": f"sample {index}" for index in range(20)}
    until(lambda: not children_of_nobody(folder))
    clear(folder)


def test_a_dead_helper_is_replaced_at_the_next_hand_over(tmp_path):
    """Though the queue is nearly empty, so that there is nothing else to look for."""
    others = set(psutil.Process().children())  # such as the tracker of resources that another test has needed
    with BackgroundWriter("text", tmp_path, backend="process", max_workers=1) as writer:
        writer.submit("a", "1")
        writer.flush()
        (helper,) = set(psutil.Process().children()) - others
        ended = os.pidfd_open(helper.pid)
        helper.kill()
        until(lambda: select.select([ended], [], [], 0)[0])
        os.close(ended)
        writer.submit("b", "2")
        assert any(
            one is not None and one.process.popen.pid != helper.pid
            for one in writer._lifecycle.backend._helpers.members
        )


PRINTS = """
import os, pathlib, sys, time
from lighter_async import BackgroundWriter, encoder

folder = sys.argv[1]

@encoder(suffix=".txt")
def encode(value):
    pathlib.Path(folder + ".begun").touch()
    while not pathlib.Path(folder + ".go").exists():
        time.sleep(0.005)
    return b"stored"

writer = BackgroundWriter(encode, folder, backend="process", max_workers=1)
writer.submit("a", 1)
while not pathlib.Path(folder + ".begun").exists():
    time.sleep(0.005)
os.kill(os.getpid(), 9)
"""


@pytest.mark.long
def test_who_reads_what_a_job_prints_does_not_wait_for_its_helpers(tmp_path):
    """Also while one is in the middle of a sample."""
    done = subprocess.run([sys.executable, "-c", PRINTS, tmp_path / "out"], capture_output=True, timeout=DEADLINE)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "a.txt").exists()
    (tmp_path / "out.go").touch()
    until(lambda: (tmp_path / "out" / "a.txt").exists())
    assert list(pending(["a"], tmp_path / "out", names=["a"])) == []
    clear(tmp_path / "out")


STARTS_A_PROGRAM = """
import subprocess, sys, os
from lighter_async import BackgroundWriter, encoder

@encoder(suffix=".txt")
def encode(value):
    if value == "program":
        silent = subprocess.DEVNULL
        child = subprocess.Popen(["sleep", "600"], close_fds=False, stdout=silent, stderr=silent)
        return str(child.pid).encode()
    pid = os.fork()
    if not pid:
        import time
        os.close(1); os.close(2)
        time.sleep(600)
        os._exit(0)
    return str(pid).encode()

with BackgroundWriter(encode, sys.argv[1], backend=sys.argv[2]) as writer:
    writer.submit("a", sys.argv[3])
"""


@pytest.mark.parametrize(
    ("backend", "way"),
    [
        *(("process", "program"), ("process", "fork")),
        *(pytest.param(*other, marks=pytest.mark.long) for other in (("thread", "program"), ("thread", "fork"))),
    ],
)
def test_a_process_that_an_encoder_leaves_running_holds_nothing_of_ours(tmp_path, backend, way):
    """No lock that the next run waits for, and no memory."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STARTS_A_PROGRAM, tmp_path, backend, way],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    child = psutil.Process(int((tmp_path / "a.txt").read_text()))
    try:
        held = [os.readlink(f"/proc/{child.pid}/fd/{number}") for number in os.listdir(f"/proc/{child.pid}/fd")]
        ours = ["eventfd", "eventpoll", "pidfd", str(tmp_path)]
        if way == "program":
            ours.append("memfd")  # a fork has what the helper has mapped, until it ends
        assert [path for path in held if any(word in path for word in ours)] == []
        assert list(pending(range(1), tmp_path, names=["a"])) == []  # which waits for nobody
    finally:
        child.kill()


class Late:
    """A device whose copies arrive when they are told to."""

    def __init__(self):
        import threading

        self.arrive = threading.Event()

    def owns(self, tensor):
        return True

    def pin(self, memory):
        return None

    def copy(self, pairs):
        return _Copy(self.arrive, [(host, source.clone()) for host, source in pairs])


class _Copy:
    def __init__(self, arrive, pairs):
        self._arrive, self._pairs = arrive, pairs

    def synchronize(self):
        self._arrive.wait()
        for host, source in self._pairs:
            host.copy_(source)

    def query(self):
        return self._arrive.is_set()


def test_a_batch_from_a_device_is_stored_though_nobody_calls_the_writer(tmp_path):
    """As soon as its copy has arrived; and those behind it in their order."""
    device = Late()
    writer = BackgroundWriter("tensor", tmp_path, backend="process", max_workers=1, accelerator=device)
    with writer:
        writer.submit_batch(["a", "b"], torch.ones(2, 3))
        writer.submit("c", "a text")
        assert not list(tmp_path.glob("*.pt"))
        device.arrive.set()
        until(lambda: {path.name for path in tmp_path.glob("*.pt")} == {"a.pt", "b.pt", "c.pt"})
    assert torch.equal(torch.load(tmp_path / "b.pt"), torch.ones(3))


@pytest.mark.long
def test_the_file_that_failures_travel_through_begins_anew_when_they_are_read(tmp_path):
    """A run of many failures takes no more memory than one of few."""
    from lighter_async import WriteError, encoder

    @encoder(suffix=".x")
    def fails(value):
        raise ValueError("x" * 20_000)

    writer = BackgroundWriter(fails, tmp_path, backend="process", max_workers=1, on_error="continue")
    sizes = []
    with writer:
        for index in range(12):
            writer.submit(str(index), 1)
            with pytest.raises(WriteError, match="xxx"):
                writer.flush()
            (process,) = (one.process for one in writer._lifecycle.backend._helpers.members if one is not None)
            sizes.append(os.fstat(process.failures).st_size)
    assert max(sizes) <= 2 * min(sizes)


def test_a_hand_over_does_not_wait_for_a_helper_that_stands_still_with_the_lock(tmp_path):
    """Only helpers take from the queue under a lock; whoever appends needs none."""
    descriptor = os.memfd_create("queue")
    os.ftruncate(descriptor, ParentQueue.size_of(2, 4))
    parent, queue = ParentQueue(descriptor, 2, 4), HelperQueue(descriptor, 2, 4)
    script = "import fcntl, sys; fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX, 1); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(descriptor)],
        pass_fds=[descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        holder.stdout.readline()
        assert parent.lock.holder == holder.pid
        parent.append(0, 0, 5, per=5, serial=1, slot=(0, 0), message=(0, 8))
        assert parent.outcomes(0) == []
        parent.watch(1)
        holder.communicate(b"\n", timeout=DEADLINE)
    claim, _, _ = queue.turn(0)
    assert (claim.start, claim.stop) == (0, 5)
    for one in (parent, queue):
        one.close()
    os.close(descriptor)


def test_a_helper_that_is_stopped_while_it_holds_the_lock_is_ended(tmp_path, monkeypatch):
    """Or nobody would store anything any more; what it had in its hand is done again."""
    descriptor = os.memfd_create("queue")
    os.ftruncate(descriptor, ParentQueue.size_of(2, 4))
    parent, queue = ParentQueue(descriptor, 2, 4), HelperQueue(descriptor, 2, 4)
    parent.append(0, 0, 5, per=5, serial=1, slot=(0, 0), message=(0, 8))
    script = """
import fcntl, os, signal, sys
from lighter_async.workers.process.shared_queue_helper_side import HelperQueue
queue = HelperQueue(int(sys.argv[1]), 2, 4)
queue.live(0)
queue.turn(0)
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX, 1)
os.kill(os.getpid(), signal.SIGSTOP)
"""
    with subprocess.Popen([sys.executable, "-c", script, str(descriptor)], pass_fds=[descriptor]) as stopped:
        until(lambda: psutil.Process(stopped.pid).status() == psutil.STATUS_STOPPED)
        claim, _, _ = queue.turn(1)  # waits for the lock, and ends whoever holds it
        assert claim is None
        assert stopped.wait() == -signal.SIGKILL
    inherited = [queue.inherit(1) for _ in range(6)]
    assert [(one.start, one.stop, one.redelivered) for one in inherited[:5]] == [(n, n + 1, True) for n in range(5)]
    assert inherited[5] is None
    for one in (parent, queue):
        one.close()
    os.close(descriptor)


def test_a_sample_over_which_three_helpers_have_died_is_left_out(tmp_path):
    """Else it would take one orphan after the other with it; two such samples of a unit, too."""
    descriptor = os.memfd_create("queue")
    os.ftruncate(descriptor, ParentQueue.size_of(6, 4))
    parent, queue = ParentQueue(descriptor, 6, 4), HelperQueue(descriptor, 6, 4)
    parent.append(0, 0, 5, per=5, serial=1, slot=(0, 0), message=(0, 8))
    stored, deaths, warned = [], [], []

    def work(helper, take):
        """As a helper that dies over the samples 1 and 3; returns whether it was alive at the end."""
        while (claim := take()) is not None:
            if queue.has_killed(helper):
                warned.append(claim.start)
            for index in range(claim.start, claim.stop):
                queue.on_progress(helper, index)
                if index in (1, 3):
                    deaths.append(index)
                    return False
                stored.append(index)
            queue.count(helper, written=1, skipped=0, failed=0, nbytes=1, encode_ns=0, store_ns=0)
        return True

    helper = 0
    if not work(helper, lambda: queue.turn(0)[0]):
        while True:
            helper = queue.free_cell(helper)  # none of them is alive
            assert helper is not None
            if work(helper, lambda helper=helper: queue.inherit(helper)):
                break
    assert deaths == [1, 1, 1, 3, 3, 3]
    assert warned == [1, 1, 3, 3]  # before each but the first
    assert set(stored) == {0, 2, 4}
    assert not queue.has_work
    for one in (parent, queue):
        one.close()
    os.close(descriptor)


CRASHES = """
import os, sys, time
from lighter_async import BackgroundWriter, Origin, encoder

@encoder(suffix=".txt")
def encode(value):
    while os.getppid() == int(value.split()[0]):
        time.sleep(0.001)
    if value.endswith(("3", "6")):
        os._exit(7)
    return value.encode()

writer = BackgroundWriter(encode, sys.argv[1], backend="process", max_workers=1, resume=True)
values = [f"{os.getpid()} {index}" for index in range(10)]
writer.submit_batch([str(index) for index in range(10)], values, origin=Origin(indices=range(10)))
print("handed over", flush=True)
time.sleep(600)
"""


@pytest.mark.long
def test_a_writer_that_crashes_when_the_process_is_gone_costs_the_samples_that_it_crashes_over(tmp_path):
    """Two of one unit: the others are stored, and it comes to an end."""
    folder = tmp_path / "out"
    with script_running(CRASHES, folder) as process:
        handed_over(process)
        process.kill()
    assert list(pending(range(10), folder)) == [3, 6]
    assert sorted(texts(folder)) == sorted(f"{index}.txt" for index in range(10) if index not in (3, 6))
    until(lambda: not children_of_nobody(folder))
    clear(folder)


@pytest.mark.long
def test_more_samples_than_sixty_five_thousand_wait_in_the_queue_and_not_in_the_process(tmp_path):
    """So that helpers store them all, whatever becomes of it."""
    script = """
import os, sys
from lighter_async import BackgroundWriter, Origin
writer = BackgroundWriter("text", sys.argv[1], backend="process", max_workers=1, queue_size=80_000, resume=True)
writer.start()
for index in range(0, 70_000, 1000):
    batch = range(index, index + 1000)
    writer.submit_batch([str(one) for one in batch], ["x"] * 1000, origin=Origin(indices=batch))
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "out"], timeout=DEADLINE)
    assert list(pending(range(70_000), tmp_path / "out")) == []
    clear(tmp_path / "out")
