"""What every test runs under: it leaves nothing behind."""

from __future__ import annotations

import compileall
import contextlib
import gc
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest

pytest.register_assert_rewrite("harness", "service_contract")

from harness import Logged, leftovers  # noqa: E402

import lighter_async  # noqa: E402
from lighter_async import limits  # noqa: E402
from lighter_async.service import lifecycle, setup  # noqa: E402

_DEADLINE = 10.0  # seconds; threads of an executor end a moment after it was told to
_MARK = "STARTED_BY_TEST"  # a variable of the environment of all that a test starts
_FAILED = pytest.StashKey[bool]()

# The tests' bytecode is kept, also where the environment wants none (PYTHONDONTWRITEBYTECODE): each process of each run
# would compile what pytest makes of their asserts, for eight seconds. Programs that tests start write none.
sys.dont_write_bytecode = False

# Opened once by the interpreter, its libraries and the kernel's interfaces, whenever they are first needed.
_OTHERS_FOLDERS = (
    *("/dev/", "/proc/", "/sys/", "/usr/"),
    *(f"{os.path.realpath(prefix)}/" for prefix in (sys.prefix, sys.base_prefix)),
)


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts this in the background has it ignore Ctrl-C, and so would the scripts that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Hundreds of interpreters are started, each of which would compile the package for itself where no bytecode may be
    # written (PYTHONDONTWRITEBYTECODE). Once is enough; the processes of pytest-xdist find it done.
    if not hasattr(config, "workerinput"):
        for folder in (Path(lighter_async.__file__).parent, Path(__file__).parent):
            compileall.compile_dir(folder, quiet=2)
    config.addinivalue_line(
        "markers",
        "leaves_things: the test leaves threads, descriptors or files behind on purpose; do not look for them",
    )


def pytest_collection_finish() -> None:
    # What was imported and collected stays until the end. To look through it for garbage again and again takes longer
    # than many a test.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    gc.unfreeze()  # what hypothesis holds references to, it looks for among what is not frozen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture(autouse=True)
def _one_worker_by_default() -> Iterator[None]:
    """A writer that is not told how many workers it has starts one, on machines of any number of cores.

    Tests that are about several workers say how many. A module that looks at the machine's own number replaces this.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "_MOST_WORKERS", 1)
        yield


@pytest.fixture(autouse=True)
def _cores_to_spare() -> Iterator[None]:
    """A writer that chooses between threads and helper processes sees two cores at least, which nobody else uses.

    Tests run side by side, so what other programs use changes all the time. Tests of the choice say what there is.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "usable_cores", lambda: max(2, limits.usable_cores()))
        patch.setattr(lifecycle, "in_use_since", lambda before: None)
        yield


@pytest.fixture
def one_core(_cores_to_spare: None) -> Iterator[None]:
    """A writer that chooses between threads and helper processes takes threads, as it does on one core.

    For tests of values, formats, names and records, to which it makes no difference, and which say so where it does: a
    helper takes longer to start than they take.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "usable_cores", lambda: 1)
        yield


@pytest.fixture(autouse=True)
def _leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves threads, processes, descriptors or temporary files of ours behind.

    Only what was not there before counts. A test that failed is not looked at: its traceback keeps things alive.
    """
    if request.node.get_closest_marker("leaves_things"):
        yield
        return
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    mark, older = f"{os.getpid()}-{monotonic()}", set(_pids())
    os.environ[_MARK] = mark

    def orphans() -> dict[object, str]:
        return _orphans(mark, older)

    looks: dict[str, Callable[[], dict[object, str]]] = {
        "threads": _threads,
        "processes": lambda: {**_children(older), **orphans()},
        "descriptors": _descriptors,
        "files": lambda: _temporary_files(folder),
    }
    before = {kind: set(look()) for kind, look in looks.items()}
    yield
    _end_threads_of_zarr()
    if request.node.stash.get(_FAILED, False):
        _end(orphans())
        return

    def left() -> list[str]:
        return [
            f"{kind}: {what}" for kind, look in looks.items() for key, what in look().items() if key not in before[kind]
        ]

    deadline, found, rounds = monotonic() + _DEADLINE, left(), 0
    while found and monotonic() < deadline:
        if rounds % 50 == 0:
            gc.collect()  # only where there is something, since it takes long beside torch
        rounds += 1
        sleep(0.01)
        found = left()
    if found:
        _end(orphans())
        pytest.fail("the test left behind\n  " + "\n  ".join(sorted(found)), pytrace=False)


@pytest.fixture
def logged() -> Iterator[Logged]:
    """What is logged from INFO on, as pytest's own `caplog` would have it."""
    root, handler = logging.getLogger(), Logged()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.getuid():
        pytest.skip("mounting is not allowed")
    command = [mount, "-t", "tmpfs", "-o", "size=1m", "none", folder]
    if subprocess.run(command, capture_output=True, timeout=30).returncode:
        pytest.skip("mounting is not allowed")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True, timeout=30)


def _end_threads_of_zarr() -> None:
    """It keeps those that it has started, for the next array."""
    if "zarr" in sys.modules:
        from zarr.core.sync import cleanup_resources

        cleanup_resources()


def _threads() -> dict[object, str]:
    return {
        thread: repr(thread)
        for thread in threading.enumerate()
        # tqdm starts one for all bars, once, and pytest-timeout has one per test where there is no SIGALRM.
        if not type(thread).__module__.startswith("tqdm") and "pytest_timeout" not in thread.name
    }


def _children(older: set[str]) -> dict[object, str]:
    """This process's children, and theirs, apart from the older ones."""
    if not sys.platform.startswith("linux"):
        return _told(psutil.Process().children(recursive=True))
    # Of the new processes alone, since psutil looks at all that there are, which takes longer than most tests.
    found = []
    for pid in set(_pids()) - older:
        with contextlib.suppress(psutil.Error):  # it has ended
            process = psutil.Process(int(pid))
            if os.getpid() in [parent.pid for parent in process.parents()]:
                found.append(process)
    return _told(found)


def _orphans(mark: str, older: set[str]) -> dict[object, str]:
    """What programs of the test have started and not ended: nobody's children by now, and maybe in other sessions.

    All of them have the mark in their environment.
    """
    found = []
    for pid in set(_pids()) - older:
        with contextlib.suppress(OSError, psutil.Error):  # it has ended, or is another user's
            if f"{_MARK}={mark}".encode() in Path("/proc", pid, "environ").read_bytes().split(b"\0"):
                found.append(psutil.Process(int(pid)))
    return {process: what for process, what in _told(found).items() if process not in _children(older)}


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdecimal()] if sys.platform.startswith("linux") else []


def _told(processes: Iterable[psutil.Process]) -> dict[object, str]:
    found: dict[object, str] = {}
    for process in processes:
        try:
            command = " ".join(process.cmdline())
            # The first shared memory or semaphore of a process starts this one, for the rest of its life.
            if "resource_tracker" not in command:
                found[process] = f"{process.pid} {process.status()} {command}"
        except psutil.NoSuchProcess:
            continue
    return found


def _end(processes: Iterable[object]) -> None:
    """Or they would hold the pipes, the locks and the memory of a test that is over."""
    for process in processes:
        assert isinstance(process, psutil.Process)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _descriptors() -> dict[object, str]:
    """Open descriptors; on other systems than Linux only files and sockets of the network."""
    if not sys.platform.startswith("linux"):
        process = psutil.Process()
        return {
            key: str(key)
            for key in [*process.open_files(), *process.net_connections()]
            if not str(getattr(key, "path", "")).startswith(_OTHERS_FOLDERS)
        }
    found: dict[object, str] = {}
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            what = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue  # the one that lists them
        if not what.startswith(_OTHERS_FOLDERS):
            found[descriptor, what] = f"{descriptor} -> {what}"
    return found


def _temporary_files(folder: Path | None) -> dict[object, str]:
    if folder is None:
        return {}
    return {path: path for path in leftovers(folder)}
