"""Forks at any moment, and processes that become another program."""

import os
import subprocess
import sys
import threading

import pytest
from harness import in_thread

from lighter_async import BackgroundWriter
from lighter_async.forks import Descriptors, no_fork
from lighter_async.locks import RunLock, alone_in, is_held
from lighter_async.names import claims_of

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def in_child(call):
    """Whether a call in a forked child returns something true, within a moment."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if call() else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_child_closes_ours_and_no_others():
    """Not what has the number of one that is closed already."""
    ours = Descriptors()
    kept, closed = (ours.open(os.open, os.devnull, os.O_RDONLY) for _ in range(2))
    ours.close(closed)
    others = os.open(os.devnull, os.O_RDONLY)
    assert others == closed
    assert in_child(lambda: is_open(others) and not is_open(kept))
    ours.close(closed, -1)
    assert is_open(others)
    os.close(others)
    ours.close_all()
    assert not is_open(kept)


def test_a_fork_waits_while_a_descriptor_is_neither_here_nor_there():
    """What another thread is about to enter, the child knows of."""
    ours = Descriptors()
    opened, enter, forking = threading.Event(), threading.Event(), threading.Event()

    def make():
        descriptor = os.open(os.devnull, os.O_RDONLY)
        opened.set()
        enter.wait(30)
        return descriptor

    opening = in_thread(ours.open, make)
    opened.wait(30)

    def let_on():
        forking.wait(30)
        enter.set()

    letting = in_thread(let_on)
    forking.set()
    assert in_child(lambda: not ours._numbers)
    descriptor = opening.result()
    letting.result()
    assert is_open(descriptor)
    ours.close_all()


@pytest.mark.parametrize("kind", ["lock", "look", "alone"])
def test_a_child_holds_no_lock_that_another_thread_had(tmp_path, kind):
    """Neither a writer's, nor one that was only looked at, nor that of a list: others would wait for the child."""
    path = str(tmp_path / "some.lock")
    lock = RunLock(path)
    if kind != "alone":
        assert lock.acquire()
    read, write = os.pipe()
    ready, say_ready = os.pipe()
    gate = alone_in(path) if kind == "alone" else None
    if gate is not None:
        gate.__enter__()
    if kind == "look":
        assert is_held(path)
    child = os.fork()
    if not child:
        os.close(write)
        os.write(say_ready, b"r")
        os.read(read, 1)
        os._exit(0)
    os.read(ready, 1)  # it lets go at its beginning
    if gate is not None:
        gate.__exit__(None, None, None)
    else:
        lock.forget()
    assert not is_held(path)
    for descriptor in (read, write, ready, say_ready):
        os.close(descriptor)
    os.waitpid(child, 0)


def test_a_lock_that_was_held_at_the_fork_holds_nobody_up_in_the_child(tmp_path):
    """A new writer works there, whatever other threads of the parent were in the middle of."""
    held, release = threading.Event(), threading.Event()

    def hold():
        from lighter_async.names import claims

        with claims._claims_lock:
            held.set()
            release.wait(30)

    holding = in_thread(hold)
    held.wait(30)

    def store():
        threading.Timer(20, os._exit, [3]).start()
        claims_of("somewhere")
        with BackgroundWriter("text", tmp_path, backend="thread") as writer:
            writer.submit("a", "words")
        os._exit(0)

    assert in_child(store)
    release.set()
    holding.result()
    assert (tmp_path / "a.txt").read_text() == "words"


UNDER_LOAD = """
import os, subprocess, sys, threading, time
from lighter_async import BackgroundWriter

folder, backend, children = sys.argv[1], sys.argv[2], int(sys.argv[3])
over = threading.Event()

def load(which):
    number = 0
    while not over.is_set():
        with BackgroundWriter("text", f"{folder}/parent-{which}", backend=backend, max_workers=2) as writer:
            for _ in range(20):
                writer.submit(f"{number}", "words")
                number += 1
    numbers.append(number)

numbers = []
threads = [threading.Thread(target=load, args=(which,)) for which in range(2)]
with BackgroundWriter("text", f"{folder}/warm", backend=backend) as writer:
    writer.submit("a", "words")
for thread in threads:
    thread.start()
bad = []
for number in range(children):
    pipes = [os.pipe() for _ in range(3)]
    child = os.fork()
    if child == 0:
        threading.Timer(60, os._exit, [3]).start()
        try:
            for pipe in pipes:
                for descriptor in pipe:
                    os.fstat(descriptor)
            with BackgroundWriter("text", f"{folder}/child-{number}", backend=backend, max_workers=1) as writer:
                for name in range(5):
                    writer.submit(f"{name}", "words")
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    for pipe in pipes:
        for descriptor in pipe:
            os.close(descriptor)
    _, status = os.waitpid(child, 0)
    if status:
        bad.append(status)
    subprocess.run(["true"], preexec_fn=lambda: None)
over.set()
for thread in threads:
    thread.join()
assert not bad, bad
for number in range(children):
    assert len([name for name in os.listdir(f"{folder}/child-{number}") if name.endswith(".txt")]) == 5
stored = [len([name for name in os.listdir(f"{folder}/parent-{which}") if name.endswith(".txt")]) for which in range(2)]
assert sorted(stored) == sorted(numbers), (stored, numbers)
print("fine")
"""


@pytest.mark.long
@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("children", [5, pytest.param(40, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_children_store_by_writers_of_their_own_while_the_parent_opens_and_closes_its(tmp_path, backend, children):
    """Each child keeps its own descriptors, and none waits for a lock that it cannot get."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", UNDER_LOAD, str(tmp_path), backend, str(children)],
        capture_output=True,
        text=True,
        timeout=100 + 4 * children,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


BECOMES_ANOTHER = """
import os, signal, sys
from lighter_async import BackgroundWriter

folder, again = sys.argv[1], len(sys.argv) > 2
if again:
    with BackgroundWriter("text", folder, backend="process", resume=True) as writer:
        writer.submit("after", "words")
    print(len([name for name in os.listdir(folder) if name.endswith(".txt")]), flush=True)
    sys.exit()
writer = BackgroundWriter("text", folder, backend="process", max_workers=2, queue_size=1000)
writer.start()
writer.submit_batch([f"{number}" for number in range(500)], ["words"] * 500)
sys.stdout.flush()
os.execv(sys.executable, [sys.executable, __file__, folder, "again"])
"""


def test_what_was_handed_over_is_stored_when_the_process_becomes_another_program(tmp_path):
    """Its helpers store it and end; the new program, which has the old one's number, waits for them."""
    script, folder = tmp_path / "script.py", tmp_path / "out"
    script.write_text(BECOMES_ANOTHER)
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "501\n"), done.stderr
    assert not list((folder / ".lighter-async").glob("*.lock"))


def test_a_thread_may_fork_where_it_keeps_others_from_forking():
    """As user code may do in a finalizer: it does not wait for itself, and the child may fork in its turn."""
    with no_fork:
        assert in_child(lambda: in_child(lambda: True))
    assert in_thread(in_child, lambda: True).result()
