"""What every test runs under: it leaves nothing behind."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest

pytest.register_assert_rewrite("harness", "service_contract")

from harness import leftovers  # noqa: E402

_DEADLINE = 10.0  # seconds; threads of an executor end a moment after it was told to
_FAILED = pytest.StashKey[bool]()

# Opened once by the interpreter, its libraries and the kernel's interfaces, whenever they are first needed.
_OTHERS_FOLDERS = tuple({"/dev/", "/proc/", "/sys/", "/usr/", f"{sys.prefix}/", f"{sys.base_prefix}/"})


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts this in the background has it ignore Ctrl-C, and so would the scripts that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers",
        "leaves_things: the test leaves threads, descriptors or files behind on purpose; do not look for them",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture(autouse=True)
def _leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves threads, processes, descriptors or temporary files of ours behind.

    Only what was not there before counts. A test that failed is not looked at: its traceback keeps things alive.
    """
    if request.node.get_closest_marker("leaves_things"):
        yield
        return
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    looks: dict[str, Callable[[], dict[object, str]]] = {
        "threads": _threads,
        "processes": _processes,
        "descriptors": _descriptors,
        "files": lambda: _temporary_files(folder),
    }
    before = {kind: set(look()) for kind, look in looks.items()}
    yield
    if request.node.stash.get(_FAILED, False):
        return

    def left() -> list[str]:
        return [
            f"{kind}: {what}" for kind, look in looks.items() for key, what in look().items() if key not in before[kind]
        ]

    deadline = monotonic() + _DEADLINE
    found = left()
    if found:
        gc.collect()  # only now, since it takes long beside torch
    while found and monotonic() < deadline:
        sleep(0.01)
        found = left()
    if found:
        pytest.fail("the test left behind\n  " + "\n  ".join(sorted(found)), pytrace=False)


def _threads() -> dict[object, str]:
    return {
        thread: repr(thread)
        for thread in threading.enumerate()
        # tqdm starts one for all bars, once, and pytest-timeout has one per test where there is no SIGALRM.
        if not type(thread).__module__.startswith("tqdm") and "pytest_timeout" not in thread.name
    }


def _processes() -> dict[object, str]:
    found: dict[object, str] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            command = " ".join(process.cmdline())
            # The first shared memory or semaphore of a process starts this one, for the rest of its life.
            if "resource_tracker" not in command:
                found[process] = f"{process.pid} {process.status()} {command}"
        except psutil.NoSuchProcess:
            continue
    return found


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
