"""Writers that nobody closes, and Ctrl-C, in whole processes."""

import select
import signal
import subprocess
import sys

import pytest
from harness import DEADLINE, leftovers, run_script, script_running

# Five writers of every way of working, with everything still queued when the script ends: their gate is opened by the
# interpreter's exit. The last argument is how it ends.
FORGETS = """
import asyncio, concurrent.futures.thread, sys, threading
from pathlib import Path

folder, ending = Path(sys.argv[1]), sys.argv[2]
at_exit = threading._register_atexit
if ending == "no hook":
    del threading._register_atexit
from lighter_async import BackgroundWriter, Encoder

opened = threading.Event()
text = "x" * 50_000

def encode(value):
    opened.wait()
    if value.startswith("fail"):
        raise ValueError(f"no way to write {value}")
    return value.encode()

def write(path, value):
    path.write_bytes(encode(value))

async def write_async(path, value):
    if ending == "no hook":  # and so no threads for the files of aiofiles any more
        while not opened.is_set():
            await asyncio.sleep(0.001)
        path.write_bytes(encode(value))
        return
    import aiofiles
    await asyncio.to_thread(opened.wait)
    async with aiofiles.open(path, "wb") as file:
        await file.write(encode(value))

def drop():
    BackgroundWriter(Encoder(encode, suffix=""), folder / "dropped").submit_batch(names, [text + n for n in names])

names = [str(i) for i in range(100)]
writers = {
    "encoder": BackgroundWriter(Encoder(encode, suffix=""), folder / "encoder"),
    "path": BackgroundWriter(write, folder / "path", max_workers=2),
    "async": BackgroundWriter(write_async, folder / "async", max_workers=5),
    "failing": BackgroundWriter(Encoder(encode, suffix=""), folder / "failing", max_workers=1),
}
for kind, writer in writers.items():
    for name in names[:50]:
        writer.submit(name, f"fail {name}" if kind == "failing" and name in ("7", "8") else text + name)
    if kind != "failing":
        writer.submit_batch(names[50:], [text + name for name in names[50:]])
drop()
del writer
assert sum(writer.stats().pending for writer in writers.values()) == 350
assert "torch" not in sys.modules
# Last in, first called.
at_exit(opened.set)
if ending == "raise":
    raise LookupError("mine")
if ending == "exit":
    sys.exit(3)
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        *(("end", 0), ("raise", 1), ("no hook", 0)),
        pytest.param("exit", 3, marks=pytest.mark.long),
    ],
)
def test_what_was_handed_over_is_stored_although_nobody_closed(tmp_path, ending, code):
    """However the script ends: every file is there and whole, failures are told, and the exit code is the script's."""
    done = run_script(FORGETS, tmp_path, ending)
    assert done.returncode == code, done.stderr
    for kind, count in {"encoder": 100, "path": 100, "async": 100, "dropped": 100, "failing": 50}.items():
        expected = {str(i) for i in range(count)} - ({"7", "8"} if kind == "failing" else set())
        files = {path.name: path.read_text() for path in (tmp_path / kind).iterdir() if path.is_file()}
        assert files == {name: "x" * 50_000 + name for name in expected}, kind
    assert leftovers(tmp_path) == []
    told = [line for line in done.stderr.splitlines() if line.startswith("lighter_async: ")]
    assert "no way to write fail 7" in "".join(told)
    assert "no way to write fail 8" in "".join(told)
    if ending == "raise":
        assert "LookupError: mine" in done.stderr
    if ending in ("end", "exit"):
        assert done.stderr.splitlines() == told, "something else was said on stderr"


# The worker is parked until it is told to go on. The submit of the last sample waits for room when Ctrl-C comes. The
# interpreter overlooks a signal that comes just before its thread begins to wait for a lock, until the thread wakes up;
# so signals are repeated, and all but one of them ignored.
INTERRUPTED = """
import os, signal, sys, threading, time
from lighter_async import BackgroundWriter, Encoder

opened = threading.Event()
interrupts = [1]

def handle(number, frame):
    if interrupts:
        interrupts.pop()
        raise KeyboardInterrupt

def encode(value):
    opened.wait()
    return value.encode()

def until(condition):
    while not condition():
        time.sleep(0.001)

def listen():
    while (told := os.read(0, 1)) == b"i":
        interrupts.append(1)
    opened.set()

def watch():
    until(lambda: writer.stats().waits)
    print("waiting", flush=True)
    until(lambda: writer.state == "draining")
    print("closing", flush=True)
    until(lambda: writer.stats().dropped)
    print("dropping", flush=True)

signal.signal(signal.SIGINT, handle)
writer = BackgroundWriter(Encoder(encode, suffix=""), sys.argv[1], max_workers=1, queue_size=10)
for call in (listen, watch):
    threading.Thread(target=call, daemon=True).start()
with writer:
    for i in range(11):
        writer.submit(str(i), f"text {i}")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no signals between processes")
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_stores_what_was_accepted_and_a_second_one_drops_it(tmp_path, times):
    """The interrupt is raised as ever; the second one's note tells how many samples it cost."""

    def interrupt_until(told):
        while True:
            process.send_signal(signal.SIGINT)
            if select.select([process.stdout], [], [], 0.2)[0]:
                assert process.stdout.readline() == told
                return

    with script_running(INTERRUPTED, tmp_path) as process:
        assert process.stdout.readline() == "waiting\n"
        interrupt_until("closing\n")
        if times == 2:
            process.stdin.write("i")
            process.stdin.flush()
            interrupt_until("dropping\n")
        _, errors = process.communicate("o", timeout=DEADLINE)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    files = {path.name: path.read_text() for path in tmp_path.glob("[!.]*")}
    if times == 1:
        assert files == {str(i): f"text {i}" for i in range(10)}
        assert "dropped" not in errors
    else:
        assert files == {"0": "text 0"}
        if sys.version_info >= (3, 11):
            assert "lighter_async: interrupted again while closing: 9 queued samples were dropped" in errors


# The child ends as a script does, so that everything of the writer's that it inherited is torn down there.
FORKS = """
import os, sys, threading, warnings
from pathlib import Path
from lighter_async import BackgroundWriter, Encoder

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
opened = threading.Event()

def encode(value):
    opened.wait()
    return value.encode()

async def write_async(path, value):
    path.write_bytes(value.encode())

folder = Path(sys.argv[1])
writers = [BackgroundWriter(Encoder(encode, suffix=""), folder), BackgroundWriter(write_async, folder)]
writers[0].submit("a", "text a")
writers[1].submit("b", "text b")
writers[1].flush()
locks = sorted((folder / ".lighter-async").iterdir())
child = os.fork()
if child == 0:
    sys.exit(5)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 5, status
assert sorted((folder / ".lighter-async").iterdir()) == locks
with BackgroundWriter("text", folder) as another:  # which takes away what belongs to no living writer
    another.submit("c", "text c")
assert sorted((folder / ".lighter-async").iterdir()) == locks, "another writer took a living one for dead"
writers[1].submit("d", "text d")
opened.set()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_child_that_ends_takes_nothing_from_its_parent(tmp_path):
    """It neither hangs on workers that it does not have, nor frees what the parent's writers hold."""
    done = run_script(FORKS, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name: path.read_text() for path in tmp_path.glob("[!.]*")} == {
        "a": "text a",
        "b": "text b",
        "c.txt": "text c",
        "d": "text d",
    }


FAILS_AND_IS_COLLECTED = """
import gc, sys, time
from lighter_async import BackgroundWriter, Encoder

def encode(value):
    raise ValueError(f"no way to write {value}")

writer = BackgroundWriter(Encoder(encode, suffix=""), sys.argv[1])
writer.submit("a", "words")
while writer.stats().pending:
    time.sleep(0.001)
del writer
gc.collect()
print("collected", file=sys.stderr)
"""


def test_failures_of_a_collected_writer_are_told(tmp_path):
    """On stderr at the moment it is collected, beside the warning that it was not closed."""
    done = run_script("import warnings; warnings.simplefilter('always')\n" + FAILS_AND_IS_COLLECTED, tmp_path)
    assert done.returncode == 0
    told, collected, after = done.stderr.partition("collected\n")
    assert (collected, after) == ("collected\n", "")
    assert "lighter_async: WriteError" in told
    assert "no way to write words" in told
    assert "ResourceWarning" in told
    assert "never closed" in told
    assert list(tmp_path.glob("[!.]*")) == []


def test_our_exit_hook_runs_before_the_executors_own(tmp_path):
    """Also in a program that imports nothing else, an async writer that uses a thread finishes what was accepted."""
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio\n"
        "from lighter_async import BackgroundWriter\n"
        "async def write(path, value):\n"
        "    await asyncio.sleep(0.01)\n"
        "    await asyncio.to_thread(path.write_text, value)\n"
        f"writer = BackgroundWriter(write, {str(tmp_path / 'out')!r}, max_workers=1)\n"
        "for number in range(20):\n"
        "    writer.submit(str(number), 'words')\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len([path for path in (tmp_path / "out").glob("[!.]*") if path.read_text() == "words"]) == 20
