"""Helper processes: what they are given, what they may be, and what becomes of samples when processes die."""

import contextlib
import ctypes
import functools
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from harness import DEADLINE, HelperHarness, content, leftovers, results, run_script, script_running, until
from PIL import Image
from sent_to_helpers import DeadlyToMake, OnlyHere, TwoArguments

from lighter_async import (
    BackendUnavailableError,
    BackgroundWriter,
    DuplicateNameError,
    Encoder,
    WorkerDiedError,
    WriteError,
    encoder,
    read_manifest,
)
from lighter_async.workers.process import launch as launch_module
from lighter_async.workers.process import schedule as schedule_module
from lighter_async.workers.process.giving_way import GivingWay


def helpers_of(writer):
    return [psutil.Process(helper.process.popen.pid) for helper in writer._lifecycle.backend._helpers.members]


def read(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in results(folder)}


def in_helper(look, folder, value="value"):
    """What `look(value)` returns in a helper, as text."""
    looking = Encoder(lambda value: str(look(value)).encode(), suffix="", name="look")
    with BackgroundWriter(looking, folder, backend="process", max_workers=1) as writer:
        writer.submit("seen", value)
    return (folder / "seen").read_text()


def niceness_of_threads(process):
    """How much lower the priority of each of a process's threads is than ours."""
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    return {os.getpriority(os.PRIO_PROCESS, int(task.name)) - ours for task in Path(f"/proc/{process}/task").iterdir()}


def test_helpers_let_the_loop_go_first(tmp_path):
    """They work in a thread of low priority, and what takes units from the queue is never held up by that."""
    with BackgroundWriter("text", tmp_path, backend="process", max_workers=1) as writer:
        (helper,) = (helper.pid for helper in helpers_of(writer))
        writer.submit("a", "b")
        until(lambda: writer.stats().pending == 0 or writer._lifecycle.backend.collect())
        assert niceness_of_threads(helper) == {0, 10}
        assert os.getpriority(os.PRIO_PROCESS, helper) == os.getpriority(os.PRIO_PROCESS, 0)


def test_helpers_that_are_waited_for_have_the_priority_of_the_loop(tmp_path):
    """Where other programs want all cores, a lower one would have the loop wait many times as long."""
    with BackgroundWriter("text", tmp_path, backend="process", max_workers=1) as writer:
        with writer._lifecycle.backend.watch():
            (helper,) = (helper.pid for helper in helpers_of(writer))
            writer.submit("a", "b")
            until(lambda: writer.stats().pending == 0 or writer._lifecycle.backend.collect())
        assert niceness_of_threads(helper) == {0}


def test_what_a_thread_of_low_priority_raises_reaches_the_helper():
    """A helper reports whatever becomes of a unit, in whichever of its threads."""
    giving_way = GivingWay(lambda: False)
    assert giving_way(threading.get_ident) != threading.get_ident()
    for _ in range(2):
        with pytest.raises(KeyError, match="lost"):
            giving_way(lambda: {}["lost"])
    assert giving_way(lambda: 3) == 3
    giving_way.close()
    assert GivingWay(lambda: True)(threading.get_ident) == threading.get_ident()


def test_a_helper_works_in_its_own_thread_where_the_system_has_none_left(monkeypatch):
    """A limit of processes, which counts threads, may be reached while helpers are at work."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    giving_way = GivingWay(lambda: False)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        assert giving_way(threading.get_ident) == threading.get_ident()
        giving_way.close()
    assert giving_way(threading.get_ident) != threading.get_ident()  # as soon as there is one
    giving_way.close()


def test_helpers_run_a_users_code_in_one_thread_of_low_priority(tmp_path):
    """All but the first use only what cores nothing else wants; the first keeps a share of a busy machine.

    What takes units from the queue is another thread, of the loop's priority: it is never held up with the lock.
    """
    with BackgroundWriter(os.path.join, tmp_path, backend="process", max_workers=3) as writer:  # any function will do
        first, *others = (helper.pid for helper in helpers_of(writer))
        until(lambda: os.getpriority(os.PRIO_PROCESS, first) == os.getpriority(os.PRIO_PROCESS, 0) + 10)
        assert os.sched_getscheduler(first) == os.SCHED_OTHER
        assert niceness_of_threads(first) == {0, 10}
        until(lambda: [os.sched_getscheduler(other) for other in others] == [os.SCHED_IDLE, os.SCHED_IDLE])
        for other in others:
            policies = {os.sched_getscheduler(int(thread)) for thread in os.listdir(f"/proc/{other}/task")}
            assert policies == {os.SCHED_IDLE, os.SCHED_OTHER}


def test_a_users_code_is_called_in_the_helpers_main_thread(tmp_path):
    """Always: it may have made there what no other thread may use."""
    with BackgroundWriter(name_of_thread, tmp_path, backend="process", max_workers=1) as writer:
        for number in range(3):
            writer.submit(f"{number}", number)
    assert {(tmp_path / f"{number}").read_text() for number in range(3)} == {"MainThread"}


def name_of_thread(path, value):
    path.write_text(threading.current_thread().name)


# Which workers


@pytest.mark.parametrize(
    ("writer", "chosen"),
    [
        ("tensor", "process"),
        ("image_2d", "process"),
        ("image_3d", "process"),
        ("text", "process"),
        (lambda path, value: None, "thread"),
        (encoder(suffix=".x")(lambda value: b""), "thread"),
    ],
)
def test_auto_is_processes_for_our_own_writers(tmp_path, writer, chosen):
    """Options make no difference; a user's function may want to see the objects of this process."""
    assert BackgroundWriter(writer, tmp_path).backend == chosen
    if writer == "image_2d":
        from lighter_async import write_image_2d

        assert BackgroundWriter(functools.partial(write_image_2d, filter="sub"), tmp_path).backend == "process"


def test_auto_is_threads_on_a_target_of_ones_own_and_where_helpers_cannot_be(tmp_path, monkeypatch):
    """Such a target may be a dict of this process."""
    from harness import MemoryTarget

    assert BackgroundWriter("text", target=MemoryTarget({})).backend == "thread"
    monkeypatch.delattr(os, "pidfd_open")
    assert BackgroundWriter("text", tmp_path).backend == "thread"
    with pytest.raises(ValueError, match=r"Linux 5\.3 .* backend='thread'"):
        BackgroundWriter("text", tmp_path, backend="process")


def test_what_cannot_be_chosen_is_refused(tmp_path):
    """With the names that there are, or the reason."""

    async def write(path, value):
        pass

    with pytest.raises(ValueError, match="'auto', 'thread', 'process', not 'fork'"):
        BackgroundWriter("text", tmp_path, backend="fork")
    with pytest.raises(ValueError, match="'write' is an async function"):
        BackgroundWriter(write, tmp_path, backend="process")


# What they are


@pytest.mark.parametrize(
    "writer",
    [
        *("tensor", "image_2d", "text"),
        *(
            pytest.param(writer, marks=pytest.mark.long)
            for writer in ("image_3d", "npy", "json", "safetensors", "jpeg", "webp", "tiff", "nifti")
        ),
    ],
)
def test_our_own_writers_need_no_torch_in_a_helper(tmp_path, writer):
    """It would take seconds and hundreds of megabytes, in each of them."""
    shape = {"image_3d": (1, 4, 8, 9), "tensor": (5, 7), "text": None}.get(writer, (3, 8, 9))
    with BackgroundWriter(writer, tmp_path, backend="process", max_workers=2) as service:
        for step in range(3):
            values = ["one", "two"] if shape is None else torch.rand(2, *shape)
            service.submit_batch([f"{step}a", f"{step}b"], values)
            service.submit(f"{step}c", values[0])
        service.flush()
        for helper in helpers_of(service):
            assert not [one.path for one in helper.memory_maps() if "torch" in one.path]
    assert service.stats().written == 9
    assert len(read(tmp_path)) == 9


UNUSED = """
    import sys, numpy, msgspec, xxhash, deflate, isal
    before = set(sys.modules)  # what others import is theirs
    import lighter_async.workers.process.helper
    unused = "asyncio difflib hashlib logging lzma PIL secrets shutil ssl tempfile torch zipfile"
    ours = "staging.copying staging.layout tables targets.array targets.shards targets.table workers.choice"
    ours += " writers.image writers.nifti writers.registry writers.tensor writers.tiff"
    unused = [*unused.split(), *(f"lighter_async.{one}" for one in ours.split())]
    print(sorted(set(unused) & (set(sys.modules) - before)))
"""


def test_a_helper_imports_nothing_that_takes_long_and_that_it_may_never_use():
    """Each helper would pay for compressors, hashes, logging, archives and all formats before its first sample."""
    done = run_script(textwrap.dedent(UNUSED))
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.long
def test_files_are_those_of_threads(tmp_path):
    """In what they hold: ISA-L's compressed bytes may differ from one call to the next, and archives are told apart."""
    values = {
        "tensor": [torch.rand(3, 4), torch.arange(5), torch.tensor([True]), torch.rand(2).to(torch.bfloat16)],
        "image_2d": [torch.rand(3, 20, 30), torch.rand(1, 5, 5) > 0.5],
        "image_3d": [torch.rand(4, 2, 6, 7)],
        "text": ["words", 3, torch.arange(3), {"a": [1, None]}],
    }
    for writer, samples in values.items():
        for backend in ("thread", "process"):
            with BackgroundWriter(writer, tmp_path / backend / writer, backend=backend, max_workers=2) as service:
                for _ in range(2):  # from a template the second time
                    service.submit_batch([f"{len(samples)}-{i}-{_}" for i in range(len(samples))], samples)
    assert len(read(tmp_path / "thread")) == 2 * 11
    loaded = {
        backend: {name: CONTENTS[Path(name).suffix](tmp_path / backend / name) for name in read(tmp_path / backend)}
        for backend in ("thread", "process")
    }
    assert loaded["thread"].keys() == loaded["process"].keys()
    different = [name for name in loaded["thread"] if not _equal(loaded["thread"][name], loaded["process"][name])]
    assert different == []


CONTENTS = {
    ".pt": torch.load,
    ".png": lambda path: np.asarray(Image.open(path)).tolist(),
    ".txt": Path.read_text,
}


def _equal(one, other):
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.long
def test_a_helper_sees_the_path_the_folder_and_no_accelerator(tmp_path, monkeypatch):
    """As its parent does; it computes with one thread."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "only_here.py").write_text("value = 'found'")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.chdir(tmp_path)

    def look(value):
        import only_here
        import torch

        return [only_here.value, os.getcwd(), os.environ["CUDA_VISIBLE_DEVICES"], torch.get_num_threads(), value.sum()]

    seen = in_helper(look, tmp_path / "out", torch.ones(3))
    assert seen == str(["found", str(tmp_path), "", 1, torch.tensor(3.0)])


def test_signals_that_end_the_job_do_not_end_a_helper(tmp_path):
    """Ctrl-C and SIGTERM are for its parent; what was handed over is still stored."""
    with BackgroundWriter("text", tmp_path, backend="process", max_workers=2) as writer:
        before = helpers_of(writer)
        for helper in before:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                helper.send_signal(number)
        writer.submit_batch(["a", "b"], ["one", "two"])
        writer.flush()
        assert helpers_of(writer) == before
    assert read(tmp_path) == {"a.txt": b"one", "b.txt": b"two"}


def test_what_a_helper_prints_reaches_the_user(tmp_path):
    """On both streams."""
    done = run_script(
        """
        import sys
        from lighter_async import BackgroundWriter

        def write(path, value):
            print("to stdout")
            print("to stderr", file=sys.stderr)
            path.write_text(value)

        with BackgroundWriter(write, sys.argv[1], backend="process", max_workers=1) as writer:
            writer.submit("a", "words")
        """.replace("\n        ", "\n"),
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "to stdout\n", "to stderr\n")
    assert (tmp_path / "a").read_text() == "words"


# What travels


def test_functions_and_classes_of_a_script_work(tmp_path):
    """Lambdas, closures, and what the script itself defines, which no other process can import."""
    done = run_script(
        """
        import pathlib, sys
        from lighter_async import BackendUnavailableError, BackgroundWriter, Encoder, WriteError

        class Box:
            def __init__(self, text):
                self.text = text

        class Refused(Exception):
            pass

        ending = "!"

        def helper_of_mine(value):
            if value.text == "bad":
                raise Refused("no " + value.text)
            return (value.text + ending).encode()

        def write(path, value):
            path.write_bytes(helper_of_mine(value))

        folder = pathlib.Path(sys.argv[1])
        for name, writer in {
            "function": write,
            "lambda": lambda path, value: path.write_bytes(helper_of_mine(value)),
            "encoder": Encoder(lambda value: helper_of_mine(value), suffix="", name="mine"),
        }.items():
            try:
                with BackgroundWriter(writer, folder / name, backend="process", max_workers=1) as service:
                    service.submit_batch(["a", "b"], [Box("one"), Box("bad")])
            except WriteError as error:
                assert type(error.cause) is Refused, type(error.cause)
                assert "helper_of_mine" in str(error.cause.__cause__)
            else:
                raise AssertionError("nothing was raised")
            assert (folder / name / "a").read_text() == "one!"
        """.replace("\n        ", "\n"),
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_writer_that_cannot_travel_is_refused_before_anything_exists(tmp_path):
    """With what it is and the way out."""
    lock = threading.Lock()

    def write(path, value):
        with lock:
            path.write_text(value)

    with pytest.raises(TypeError, match=r"'write'.* cannot be sent to a helper process .* backend='thread'"):
        BackgroundWriter(write, tmp_path / "out", backend="process").start()
    assert not (tmp_path / "out").exists()


def test_a_value_that_cannot_travel_is_refused_and_its_name_stays_free(tmp_path):
    """Nothing of its batch is taken."""
    with BackgroundWriter("text", tmp_path, backend="process") as writer:
        with pytest.raises(TypeError, match=r"batch of 'a' cannot be sent"):
            writer.submit_batch(["a", "b"], ["words", threading.Lock()])
        assert writer.stats().accepted == 0
        writer.submit_batch(["a", "b"], ["words", "more"])
    assert read(tmp_path) == {"a.txt": b"words", "b.txt": b"more"}


def test_a_value_that_cannot_be_made_again_fails_alone(tmp_path):
    """By name, with what was raised; the others of its batch are stored."""
    writer = BackgroundWriter("text", tmp_path, backend="process", max_workers=1)
    writer.submit("before", "words")
    writer.submit_batch(["a", "b"], [OnlyHere(), "words"])
    with pytest.raises(WriteError, match="only at home") as caught:
        writer.close()
    assert [(one.name, type(one.cause)) for one in caught.value.failures] == [("a", LookupError)]
    assert read(tmp_path) == {"before.txt": b"words", "b.txt": b"words"}


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (lambda: ValueError("mine"), ValueError, "mine"),
        (lambda: TwoArguments("one", "two"), Exception, "one and two"),
        (lambda: ValueError(threading.Lock()), Exception, "lock"),
        (lambda: ValueError("x" * 3_000_000), ValueError, "xxx"),
    ],
    ids=["plain", "cannot be made again", "cannot be pickled", "too large"],
)
def test_what_a_writer_raises_comes_back_or_is_told(tmp_path, error, kind, text):
    """With the place in the helper where it was raised."""

    def write(path, value):
        raise error()

    writer = BackgroundWriter(write, tmp_path, backend="process", max_workers=1)
    writer.submit("a", 1)
    with pytest.raises(WriteError) as caught:
        writer.close()
    assert isinstance(caught.value.cause, kind)
    assert text in str(caught.value.cause)
    assert len(str(caught.value)) < 100_000
    assert "in write" in str(caught.value.cause.__cause__)


def test_sizes_from_nothing_to_more_than_the_budget(tmp_path):
    """Batches above the bound have memory of their own, which helpers map for them."""
    suffix = Encoder(content, suffix="", name="content")
    sizes = [0, 1, 4095, 4096, 4097, 100_000, 3_000_000, 50_000_000, 10]
    with BackgroundWriter(suffix, tmp_path, backend="process", queue_bytes=1 << 20, max_workers=2) as writer:
        for number, size in enumerate(sizes * 2):
            writer.submit(str(number), np.full(size, number, np.uint8))
    for number, size in enumerate(sizes * 2):
        assert (tmp_path / str(number)).read_bytes() == bytes([number]) * size


@pytest.mark.long
def test_as_many_units_as_the_queue_takes_are_in_the_shared_queue(harness):
    """All that was handed over stands there, though each sample is a unit and nothing is taken out meanwhile."""
    harness.gate.shut()
    service = harness.make_service(max_workers=1, queue_size=3000)
    for number in range(3000):
        service.submit(str(number), str(number))
    assert not service._lifecycle.backend._schedule.held
    harness.gate.release()
    service.close()
    assert harness.stored() == {str(number): str(number).encode() for number in range(3000)}


def test_a_batch_of_more_samples_than_the_queue_takes_is_in_the_shared_queue_at_once(tmp_path, monkeypatch):
    """In larger units."""
    monkeypatch.setattr(schedule_module, "_LEAST_UNITS", 4)
    with BackgroundWriter("text", tmp_path, backend="process", max_workers=1, queue_size=2) as writer:
        writer.submit_batch([f"b{i}" for i in range(3000)], [str(i) for i in range(3000)])
        assert not writer._lifecycle.backend._schedule.held
    assert len(read(tmp_path)) == 3000


def test_the_queue_has_a_bound_with_helpers(tmp_path):
    """Its places are in shared memory."""
    assert BackgroundWriter("text", tmp_path, backend="process", queue_size=1 << 30).queue_size == 1 << 20
    assert BackgroundWriter("text", tmp_path, backend="thread", queue_size=1 << 30).queue_size == 1 << 30


# Deaths


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: process.status() == psutil.STATUS_ZOMBIE)


@pytest.fixture
def harness(tmp_path):
    harness = HelperHarness(tmp_path)
    yield harness
    harness.close()


def test_a_helper_killed_at_work_is_replaced_and_its_samples_are_stored(harness):
    """All of them, the one that it was writing too, and nobody is told."""
    harness.gate.shut()
    service = harness.make_service(max_workers=2)
    names = [f"{i:02}" for i in range(20)]
    service.submit_batch(names, np.arange(20 * 50_000, dtype=np.int32).reshape(20, 50_000))
    harness.gate.wait_entered(2)
    first = helpers_of(service)
    for helper in first:
        kill(helper)
    harness.gate.release()
    service.close()
    stored = harness.stored()
    assert sorted(stored) == names
    assert all(len(data) == 200_000 for data in stored.values())
    assert service.stats().written == 20
    assert harness.leftovers() == []


def test_a_helper_killed_while_idle_is_replaced(harness):
    """The next sample does not wait for one that is no more."""
    service = harness.make_service(max_workers=1)
    for name in "abc":
        service.submit(name, name)
        service.flush()
        kill(helpers_of(service)[0])
    service.submit("d", "d")
    service.close()
    assert harness.stored() == {name: name.encode() for name in "abcd"}
    assert harness.leftovers() == []


@pytest.mark.parametrize(
    "end", ["SIGKILL", *(pytest.param(other, marks=pytest.mark.long) for other in ("segfault", "os._exit"))]
)
def test_a_sample_that_kills_helpers_three_times_fails_and_the_others_are_stored(tmp_path, end):
    """It is named, with how they ended; what shared a unit with it may be encoded again, and is stored once."""
    log = tmp_path / "log"

    def encode(value):
        with log.open("a") as file:
            file.write(f"{value}\n")
        if value == "deadly":
            if end == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            elif end == "segfault":
                ctypes.string_at(0)
            os._exit(7)
        return value.encode()

    writer = BackgroundWriter(
        Encoder(encode, suffix="", name="mine"), tmp_path / "out", backend="process", max_workers=2
    )
    values = ["one", "two", "deadly", "three", "four", "five"]
    writer.submit_batch([f"n{value}" for value in values], values)
    with pytest.raises(WriteError, match=r"1 sample was not written: .*'ndeadly' after 3 attempts") as caught:
        writer.close()
    (failure,) = caught.value.failures
    assert (failure.name, failure.attempts) == ("ndeadly", 3)
    assert isinstance(failure.cause, WorkerDiedError)
    how = {"SIGKILL": "by SIGKILL", "segfault": "by SIGSEGV", "os._exit": "with exit status 7"}[end]
    assert how in str(failure.cause)
    assert read(tmp_path / "out") == {f"n{value}": value.encode() for value in values if value != "deadly"}
    encoded = log.read_text().split()
    assert encoded.count("deadly") == 3
    assert set(encoded) == set(values)
    assert len(read_manifest(tmp_path / "out")) == len(values) - 1


@pytest.mark.parametrize("how", [pytest.param("exit", marks=pytest.mark.long), "raise"])
def test_helpers_that_cannot_begin_fail_their_samples(tmp_path, how):
    """Ten in a row that end at once are enough; nothing waits for ever, and later samples are told too."""
    writer = BackgroundWriter(DeadlyToMake(how), tmp_path, backend="process", max_workers=2)
    writer.submit_batch(["a", "b"], [1, 2])
    with pytest.raises(WriteError) as caught:
        writer.close()
    assert sorted(failure.name for failure in caught.value.failures) == ["a", "b"]
    for failure in caught.value.failures:
        if how == "exit":
            assert isinstance(failure.cause, WorkerDiedError)
            assert "with exit status 9" in str(failure.cause)
        else:
            assert isinstance(failure.cause, LookupError)
    assert read(tmp_path) == {}


def test_a_system_that_starts_no_process_is_told_at_the_start(tmp_path, monkeypatch):
    """And nothing is left."""

    def fail(*args, **options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(launch_module.subprocess, "Popen", fail)
    writer = BackgroundWriter("text", tmp_path / "out", backend="process")
    with pytest.raises(BackendUnavailableError, match=r"unavailable.* backend='thread'") as caught:
        writer.start()
    assert isinstance(caught.value.__cause__, BlockingIOError)
    writer.close()
    assert read(tmp_path / "out") == {}


ORPHANS = """
import os, sys, time
import numpy as np
from lighter_async import BackgroundWriter, Encoder

def encode(value):
    import time
    time.sleep(0.005)
    return bytes(value)

if sys.argv[2] == "built-in":
    writer = BackgroundWriter("text", sys.argv[1], backend="process", max_workers=2, queue_size=10_000)
else:
    writer = BackgroundWriter(Encoder(encode, suffix=".txt", name="slow"), sys.argv[1], backend="process",
                              max_workers=2, queue_size=10_000)
writer.start()
if sys.argv[2] == "forked":
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
else:
    child = 0
values = ["x" * 1000] * 10 if sys.argv[2] == "built-in" else np.full((10, 1000), ord("x"), np.uint8)
for step in range(30):
    writer.submit_batch([f"{step}/{i}" for i in range(10)], values)
print(child, *[helper.process.popen.pid for helper in writer._lifecycle.backend._helpers.members], flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["built-in", pytest.param("slow", marks=pytest.mark.long), "forked"])
def test_what_was_handed_over_is_stored_after_the_parent_was_killed(tmp_path, kind):
    """By SIGKILL, and though a forked child of the parent lives on; then the helpers end."""
    with script_running(ORPHANS, tmp_path, kind) as process:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        child, *pids = map(int, line.split())
        helpers = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        process.kill()
        process.wait()
        try:
            psutil.wait_procs(helpers, timeout=30)
            assert not [helper for helper in helpers if helper.is_running() and helper.status() != "zombie"]
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
    stored = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.txt")}
    assert stored == {f"{step}/{i}.txt": b"x" * 1000 for step in range(30) for i in range(10)}
    # The killed process's own mark is all that is left, and the next writer removes it.
    with BackgroundWriter("text", tmp_path) as writer:
        writer.submit("next", "run")
    assert leftovers(tmp_path) == []


def test_random_kills_of_helpers_lose_and_double_nothing(tmp_path):
    """At any moment: while they start, read, write, or tell."""
    rng = np.random.default_rng(0)
    with BackgroundWriter("tensor", tmp_path, backend="process", max_workers=2, queue_size=64) as writer:
        for step in range(60):
            writer.submit_batch([f"{step}/{i}" for i in range(8)], torch.full((8, 3000), float(step)))
            if step % 3 == 0:
                victim = writer._lifecycle.backend._helpers.members[rng.integers(2)]
                if victim is not None and victim.process.popen.poll() is None:
                    os.kill(victim.process.popen.pid, signal.SIGKILL)
    stats = writer.stats()
    assert (stats.accepted, stats.written, stats.pending) == (480, 480, 0)
    for step in range(60):
        for i in range(8):
            assert torch.equal(torch.load(tmp_path / f"{step}/{i}.pt"), torch.full((3000,), float(step)))
    assert leftovers(tmp_path) == []


def test_a_forked_child_holds_nothing_of_the_helpers(tmp_path):
    """Neither their queue nor their pipes, however long it lives; the slots' memory is given back though it maps it."""
    others = set(os.listdir("/proc/self/fd"))  # of packages that have an event loop of their own
    with BackgroundWriter("text", tmp_path, backend="process") as writer:
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            os.close(read_end)
            descriptors = [f"/proc/self/fd/{descriptor}" for descriptor in {*os.listdir("/proc/self/fd")} - others]
            mine = [os.readlink(descriptor) for descriptor in descriptors if os.path.lexists(descriptor)]
            left = [link for link in mine if "lighter-async-" in link or "pidfd" in link or "eventpoll" in link]
            os.write(write_end, repr(left).encode() or b"[]")
            os._exit(0)
        os.close(write_end)
        seen = os.read(read_end, 10_000).decode()
        os.close(read_end)
        os.waitpid(child, 0)
        writer.submit("a", "words")
    assert seen == "[]"
    assert read(tmp_path) == {"a.txt": b"words"}


def test_a_run_that_ends_without_close_stores_everything(tmp_path):
    """The interpreter's exit waits for the helpers."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from lighter_async import BackgroundWriter\n"
            "w = BackgroundWriter('text', sys.argv[1], backend='process')\n"
            "for i in range(100): w.submit(str(i), 'words')",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(Path(tmp_path).glob("*.txt"))) == 100


def test_the_names_of_a_collected_writer_are_taken_until_its_helpers_have_stored_its_samples(tmp_path):
    """As where the cell of a notebook is run again: its earlier samples must not replace the later ones."""
    first = BackgroundWriter("text", tmp_path, backend="process", max_workers=1)
    first.start()
    (helper,) = (one.pid for one in helpers_of(first))
    os.kill(helper, signal.SIGSTOP)
    first.submit("a", "earlier")
    second = BackgroundWriter("text", tmp_path, backend="thread")
    del first
    gc.collect()
    try:
        with pytest.raises(DuplicateNameError, match="writers are open on"):
            second.submit("a", "later")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # that nobody has closed the first one
            os.kill(helper, signal.SIGCONT)
            for thread in threading.enumerate():
                if thread.name == "lighter-async-leaving":
                    thread.join(DEADLINE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(helper, signal.SIGCONT)
    second.close()
    with BackgroundWriter("text", tmp_path, backend="thread") as third:
        third.submit("a", "later")
    assert (tmp_path / "a.txt").read_text() == "later"
