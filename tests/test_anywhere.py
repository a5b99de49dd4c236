"""Where helper processes cannot be had, threads take over and say why; what is started is a twin of this process."""

import json
import os
import subprocess
import sys
import warnings

import pytest
import torch
from harness import run_script

from lighter_async import BackendUnavailableError, BackgroundWriter, Encoder, read_manifest
from lighter_async.workers.process import interpreter
from lighter_async.workers.process import launch as launch_module
from lighter_async.workers.process import transport as transport_module

# Limits and sandboxes, set in a process of its own before the writer is started. `LIMIT` is Python that sets them.

JOB = """
import ctypes, errno, os, resource, sys, warnings
{limit}
from lighter_async import BackendUnavailableError, BackgroundWriter
from lighter_async.service import lifecycle, setup
lifecycle.in_use_since, setup.usable_cores = lambda before: None, lambda: 2  # whatever else this machine does
folder, backend = sys.argv[1:]
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    try:
        with BackgroundWriter("text", folder, backend=backend, max_workers=2) as writer:
            for number in range(40):
                writer.submit(str(number), str(number) * 10)
    except BackendUnavailableError as error:
        print(error)
        sys.exit(3)
for number in range(40):
    with open(folder + "/" + str(number) + ".txt") as file:
        assert file.read() == str(number) * 10
assert writer.stats().written == 40
print(writer.backend, len(told), *[one.message for one in told])
left = []
for entry in os.listdir("/proc/self/fd"):
    try:
        left.append(os.readlink("/proc/self/fd/" + entry))
    except OSError:
        pass
assert not [one for one in left if "lighter" in one or "eventfd" in one or "eventpoll" in one], left
"""

# A filter of system calls (seccomp), in the kernel's own few words; numbers are those of x86-64.
FILTER = """
class Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]
class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("filters", ctypes.POINTER(Filter))]
lines = (0x20, 0, 0, 0), (0x15, 0, 1, {number}), (6, 0, 0, {action}), (6, 0, 0, 0x7fff0000)
lines = [Filter(*line) for line in lines]
program = Program(len(lines), (Filter * len(lines))(*lines))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
if libc.prctl(22, 2, ctypes.byref(program), 0, 0):
    print("not allowed here")
    sys.exit(77)
"""
ERRNO, KILL = 0x00050000, 0x80000000
CALLS = {"memfd_create": 319, "eventfd2": 290, "epoll_create1": 291, "pidfd_open": 434, "setpgid": 109}


def without(call, action):
    return FILTER.format(number=CALLS[call], action=action)


def run_job(folder, backend, limit):
    done = run_script(JOB.format(limit=limit), folder, backend)
    if done.returncode == 77:
        pytest.skip("system calls may not be filtered here")
    return done


on_x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the filter has this machine's numbers")


@on_x86
@pytest.mark.parametrize(
    ("call", "errno"),
    [
        *(("memfd_create", 38), ("pidfd_open", 1)),
        *(pytest.param(*other, marks=pytest.mark.long) for other in (("eventfd2", 1), ("epoll_create1", 38))),
    ],
)
def test_a_system_call_that_is_forbidden_means_threads_and_one_warning(tmp_path, call, errno):
    """Nothing that was opened for helpers stays open, and an explicit choice is refused."""
    limit = without(call, ERRNO | errno)
    done = run_job(tmp_path / "auto", "auto", limit)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("thread 1 no helper processes for "), done.stdout
    refused = run_job(tmp_path / "process", "process", limit)
    assert refused.returncode == 3, refused.stderr
    assert "choose backend='thread'" in refused.stdout


@on_x86
def test_helpers_do_without_a_group_of_their_own_where_that_is_forbidden(tmp_path):
    """They are started all the same."""
    for backend in ("auto", "process"):
        done = run_job(tmp_path / backend, backend, without("setpgid", ERRNO | 1))
        assert (done.returncode, done.stdout.split()[:2]) == (0, ["process", "0"]), done.stderr


@on_x86
def test_helpers_that_the_system_kills_at_their_start_leave_everything_to_threads(tmp_path):
    """A filter that kills whoever asks for a group, which only a helper does, before it is a Python at all."""
    done = run_job(tmp_path, "auto", without("setpgid", KILL))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("thread 1 no helper processes for "), done.stdout
    assert "SIGSYS" in done.stdout
    assert sorted(read_manifest(tmp_path).to_pandas()["name"], key=int) == [str(number) for number in range(40)]


@pytest.mark.parametrize(
    ("limit", "missing"),
    [
        ("resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))", "ulimit -f"),
        pytest.param("resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))", "", marks=pytest.mark.long),
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))", "ulimit -n"),
    ],
)
def test_limits_of_the_shell_mean_threads_and_one_warning(tmp_path, limit, missing):
    """Or an error that says which limit it is."""
    done = run_job(tmp_path / "auto", "auto", limit)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("thread 1 no helper processes for "), done.stdout
    assert missing in done.stdout
    refused = run_job(tmp_path / "process", "process", limit)
    assert refused.returncode == 3, refused.stderr
    assert missing in refused.stdout


@pytest.mark.long
def test_a_limit_on_addresses_leaves_threads_or_smaller_helpers(tmp_path):
    """Whatever fits: this process, or the helpers, or none of them, has room for the memory that they share."""
    for more in (32 << 20, 256 << 20, 1 << 30):
        limit = f"""
import numpy, lighter_async.service
pages = int(open("/proc/self/statm").read().split()[0])
size = pages * 4096 + {more}
resource.setrlimit(resource.RLIMIT_AS, (size, size))
"""
        done = run_job(tmp_path / str(more), "auto", limit)
        assert done.returncode == 0, (more, done.stderr)


@pytest.mark.long
def test_results_above_the_limit_on_files_are_reported_and_no_others(tmp_path):
    """As with threads that the user chose."""
    done = run_script(
        """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from lighter_async import BackgroundWriter, WriteError
writer = BackgroundWriter("text", sys.argv[1], on_error="continue", manifest=False)
for number in range(10):
    writer.submit(str(number), "x" * (30_000 if number == 7 else 10))
try:
    writer.close()
except WriteError as error:
    print(writer.backend, writer.stats().written, [(one.name, type(one.cause).__name__) for one in error.failures])
""",
        tmp_path,
    )
    assert done.stdout.strip() == "thread 9 [('7', 'OSError')]", done.stderr


# What moves over


def no_helper_begins(monkeypatch, *, from_start=0):
    """Have helpers end before they are at work."""
    starts = iter(range(1000))
    command = launch_module._COMMAND

    def launch(*args, **options):
        monkeypatch.setattr(launch_module, "_COMMAND", command if next(starts) < from_start else "raise SystemExit(5)")
        return launched(*args, **options)

    launched = launch_module.launch
    monkeypatch.setattr(transport_module, "launch", launch)


def test_what_was_handed_over_moves_to_threads_when_no_helper_gets_to_work(tmp_path, monkeypatch):
    """All of it, once, in few starts; memory and names are as before, and more may be handed over."""
    no_helper_begins(monkeypatch)
    writer = BackgroundWriter("tensor", tmp_path, max_workers=2, queue_size=64)
    assert writer.backend == "process"
    values = torch.arange(400.0).reshape(40, 10)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in range(5):
            writer.submit_batch([f"{step}-{row}" for row in range(40)], values + step)
        writer.flush()
        assert writer.backend == "thread"
        writer.submit_batch([f"5-{row}" for row in range(40)], values + 5)
        writer.close()
    (warning,) = told
    assert "end before they are at work (the last one with exit status 5)" in str(warning.message)
    stats = writer.stats()
    assert (stats.written, stats.failed, stats.pending) == (240, 0, 0)
    for step in range(6):
        for row in range(40):
            assert torch.equal(torch.load(tmp_path / f"{step}-{row}.pt"), values[row] + step)
    assert len(read_manifest(tmp_path).records) == 240


def test_helpers_that_work_finish_what_they_have_while_the_rest_moves(tmp_path, monkeypatch):
    """One helper begins, the other one never does: nothing is lost, and nothing is done twice."""
    no_helper_begins(monkeypatch, from_start=1)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        with BackgroundWriter("text", tmp_path, max_workers=2) as writer:
            for number in range(300):
                writer.submit(str(number), number)
    assert writer.stats().written == 300
    assert {path.stem: path.read_text() for path in tmp_path.glob("*.txt")} == {str(n): str(n) for n in range(300)}
    assert len(read_manifest(tmp_path).records) == 300


def test_what_moved_can_be_dropped(tmp_path, monkeypatch):
    """`abort` finds it in the threads' queue."""
    no_helper_begins(monkeypatch)
    writer = BackgroundWriter("text", tmp_path, max_workers=1)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        for number in range(200):
            writer.submit(str(number), number)
        dropped = writer.abort()
    stats = writer.stats()
    assert stats.dropped == dropped
    assert stats.written + stats.dropped == 200
    assert len(list(tmp_path.glob("*.txt"))) == stats.written


def test_an_explicit_choice_still_fails_what_no_helper_begins(tmp_path, monkeypatch):
    """Who wants helpers is told, and gets no threads instead."""
    from lighter_async import WorkerDiedError, WriteError

    no_helper_begins(monkeypatch)
    writer = BackgroundWriter("text", tmp_path, backend="process", max_workers=1)
    writer.submit("a", "x")
    with pytest.raises(WriteError) as caught:
        writer.close()
    assert isinstance(caught.value.cause, WorkerDiedError)


def test_memory_that_a_helper_cannot_map_is_no_reason_to_lose_anything(tmp_path, monkeypatch):
    """It says so, and nothing is printed."""
    original = transport_module.Setting
    monkeypatch.setattr(transport_module, "Setting", lambda **known: original(**known | {"mapped": 1 << 60}))
    with pytest.warns(RuntimeWarning, match="no helper processes"):
        with BackgroundWriter("text", tmp_path, max_workers=2) as writer:
            writer.submit_batch(["a", "b", "c"], ["1", "2", "3"])
    assert writer.backend == "thread"
    assert writer.stats().written == 3


# Which program is run


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("sys.frozen = True", "frozen"),
        ("sys.executable = ''", "sys.executable is empty"),
        pytest.param("sys.executable = None", "sys.executable is empty", marks=pytest.mark.long),
    ],
)
def test_what_is_not_known_to_be_python_is_never_run(tmp_path, setting, why):
    """Threads write instead; an explicit choice is refused."""
    done = run_job(tmp_path / "auto", "auto", setting)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("thread 1 no helper processes for ")
    assert why in done.stdout
    assert run_job(tmp_path / "process", "process", setting).returncode == 3


@pytest.mark.parametrize("name", ["app", "python3", pytest.param("python", marks=pytest.mark.long)])
def test_a_program_in_the_place_of_the_interpreter_is_not_run(tmp_path, name):
    """Whatever it is called: this process's own interpreter is."""
    app = tmp_path / name
    app.write_text(f"#!/bin/sh\necho started >> {tmp_path}/starts\nexit 0\n")
    app.chmod(0o755)
    done = run_job(tmp_path / "out", "auto", f"sys.executable = {str(app)!r}")
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["process", "0"]), done.stderr
    assert not (tmp_path / "starts").exists()


def test_an_interpreter_under_another_name_is_not_known_to_be_one(monkeypatch):
    """Such as a program that embeds it, or a loader."""
    monkeypatch.setattr(interpreter.os, "readlink", lambda path: "/opt/blender/blender")
    with pytest.raises(BackendUnavailableError, match="/opt/blender/blender"):
        interpreter.program()
    for name in ("ld-linux-x86-64.so.2", "qemu-x86_64", "uwsgi", "apache2", "pythonista", "python-app", "mypython"):
        assert not interpreter._PYTHON.fullmatch(name), name
    for name in (
        "python",
        "python3",
        "python3.11",
        "python3.13t",
        "python3.11d",
        "python3.11-dbg",
        "pypy3.10",
        "pypy3",
    ):
        assert interpreter._PYTHON.fullmatch(name), name


def test_an_interpreter_that_was_replaced_is_run_as_it_was(monkeypatch):
    """An upgrade took its file away; the kernel still has it."""
    monkeypatch.setattr(interpreter.os, "readlink", lambda path: "/usr/bin/python3.11 (deleted)")
    monkeypatch.setattr(interpreter, "_is_own", lambda file: False)
    assert interpreter.program() == ("/proc/self/exe", sys.executable)


def test_a_program_that_was_started_as_a_helper_and_is_none_begins_nothing(tmp_path, monkeypatch):
    """It would do the user's work a second time, and start helpers in its turn."""
    monkeypatch.setenv("LIGHTER_ASYNC_HELPER_OF", "12345")
    for backend in ("auto", "process"):
        with pytest.raises(BackendUnavailableError, match="helper of process 12345"):
            BackgroundWriter("text", tmp_path, backend=backend).start()
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit("a", "x")
    assert writer.stats().written == 1


def test_what_a_writer_starts_in_a_helper_may_have_helpers_of_its_own(tmp_path):
    """A helper's children are nobody's helpers."""
    inner = f"""
import sys
sys.path[:0] = {[entry for entry in sys.path if entry]!r}
from lighter_async import BackgroundWriter
with BackgroundWriter("text", {str(tmp_path / "inner")!r}, backend="process", max_workers=1) as writer:
    writer.submit("a", "x")
print(writer.stats().written)
"""

    def encode(value):
        import subprocess
        import sys

        return subprocess.run([sys.executable, "-c", value], capture_output=True, check=True).stdout

    with BackgroundWriter(Encoder(encode, suffix="", name="run"), tmp_path / "outer", backend="process") as writer:
        writer.submit("seen", inner)
    assert (tmp_path / "outer" / "seen").read_text() == "1\n"


# Twins

SEEN = """
import json, os, sys
{before}
from lighter_async import BackgroundWriter, Encoder

def look(value):
    import json, os, sys
    return json.dumps({{
        "flags": [sys.flags.isolated, sys.flags.ignore_environment, sys.flags.utf8_mode, sys.flags.optimize,
                  sys.flags.bytes_warning, sys.flags.no_user_site, sys.flags.dev_mode, sys.flags.dont_write_bytecode],
        "warnoptions": sys.warnoptions, "xoptions": {{k: v for k, v in sys._xoptions.items() if k != "utf8"}},
        "prefix": sys.pycache_prefix, "bytecode": sys.dont_write_bytecode, "folder": os.getcwd(), "path": sys.path,
        "executable": sys.executable, "variables": sorted(name for name in os.environ if "LIGHTER" in name),
    }}).encode()

with BackgroundWriter(Encoder(look, suffix="", name="look"), sys.argv[1], backend="process", max_workers=1) as writer:
    {within}
    writer.submit("seen", "x")
with open(sys.argv[1] + "/seen") as file:
    print(json.dumps([json.loads(look(None)), json.load(file)]))
"""


def twins(folder, *options, before="", within="pass", **settings):
    before = f"sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n{before}"
    command = [sys.executable, *options, "-c", SEEN.format(before=before, within=within), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, **settings)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "options",
    [
        (),
        pytest.param(("-X", "utf8"), marks=pytest.mark.long),
        ("-X", "utf8=0"),
        pytest.param(("-W", "ignore::DeprecationWarning"), marks=pytest.mark.long),
        ("-I",),
        pytest.param(("-E", "-s"), marks=pytest.mark.long),
        ("-O",),
        pytest.param(("-OO", "-b"), marks=pytest.mark.long),
        pytest.param(("-X", "dev"), marks=pytest.mark.long),
        pytest.param(("-X", "no_debug_ranges", "-X", "int_max_str_digits=5000"), marks=pytest.mark.long),
        pytest.param(("-B",), marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_a_helper_has_the_interpreters_options(tmp_path, options):
    """All that change what code does, however they were given."""
    mine, its = twins(tmp_path, *options)
    for what in ("flags", "warnoptions", "xoptions", "bytecode", "executable"):
        assert its[what] == mine[what], what
    assert its["variables"] == []


@pytest.mark.long
def test_a_helper_has_what_was_set_in_the_code(tmp_path):
    """Where modules are found, from the folder at the start, and where their bytecode goes."""
    before = f"""
sys.pycache_prefix = {str(tmp_path / "cache")!r}
sys.dont_write_bytecode = True
sys.path += ["", "beside", "some.zip"]
os.chdir({str(tmp_path)!r})
"""
    mine, its = twins(tmp_path / "out", before=before)
    assert its["prefix"] == mine["prefix"] == str(tmp_path / "cache")
    assert its["bytecode"] is True
    assert its["path"][-3:] == [f"{tmp_path}/", f"{tmp_path}/beside", f"{tmp_path}/some.zip"]
    assert its["folder"] == str(tmp_path)


@pytest.mark.parametrize("backend", ["auto", "process"])
def test_a_working_folder_that_is_gone_keeps_nobody_from_working(tmp_path, backend):
    """Helpers work in the root folder then."""
    folder = tmp_path / "gone"
    done = run_job(
        tmp_path / "out", backend, f"os.mkdir({str(folder)!r}); os.chdir({str(folder)!r}); os.rmdir({str(folder)!r})"
    )
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["process", "0"]), done.stderr


@pytest.mark.long
def test_a_working_folder_that_cannot_be_entered_keeps_nobody_from_working(tmp_path):
    """As in an image whose folder belongs to another user."""
    if os.getuid():
        pytest.skip("only root can give its rights up")
    (tmp_path / "closed").mkdir(mode=0o700)
    os.chown(tmp_path / "closed", 12345, 12345)
    limit = f"""
if not os.environ.get("INSIDE"):
    os.environ["INSIDE"] = "1"
    os.chdir({str(tmp_path / "closed")!r})
    for capability in (1, 2):  # the rights to enter every folder, which are gone with the next program
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
"""
    for backend in ("auto", "process"):
        done = run_job(tmp_path / backend, backend, limit)
        assert (done.returncode, done.stdout.split()[:2]) == (0, ["process", "0"]), done.stderr
