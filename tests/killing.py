"""Jobs that are killed at each of their changes to the disk in turn, each in a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

CHANGES = (
    *("pwrite", "pwritev", "write", "writev", "ftruncate", "posix_fallocate"),
    *("rename", "replace", "link", "unlink", "fsync", "open"),
)


class Killer:
    """Kills this process at one of its changes to the disk, or in the middle of it."""

    def __init__(self, at, torn):
        self.at, self.torn, self.count = at, torn, 0
        self.write = os.write
        self._lock = threading.Lock()
        for name in CHANGES:
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name, real):
        def call(*arguments, **options):
            if name != "open" or arguments[1] & os.O_CREAT:
                with self._lock:
                    self.count += 1
                    if self.count == self.at:
                        if self.torn and "write" in name:
                            self._write_half(real, name, *arguments)
                        elif self.torn:
                            with suppress(OSError):  # as of a folder that is about to be made
                                real(*arguments, **options)
                        os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    def _write_half(self, real, name, descriptor, data, *place):
        data = b"".join(data) if name.endswith("v") else bytes(data)
        # An array's header is not torn, since the first bytes of a page are written at once.
        half = data if data.startswith(b"\x93NUMPY") else data[: len(data) // 2]
        real(descriptor, [half] if name.endswith("v") else half, *place)


def at_each_change(job, root, torn, check, *, left=None):
    """Run a job again and again, and kill it at its first change, its second one, until it ends by itself.

    Args:
        job: Called with a folder, and a function to tell what is stored.
        root: Where the folders are made.
        torn: Whether a change is half done, not just about to be.
        check: Called after each with which change it was, the folder, and what the job said was stored.
        left: What the folders are copies of; else they are empty.

    Returns:
        How many changes there were.
    """
    at, killed = 0, True
    while killed:
        at += 1
        folder = root / f"{at}"
        if left is None:
            folder.mkdir()
        else:
            shutil.copytree(left, folder)
        killed, told = _in_a_process(job, folder, at, torn)
        check(at, folder, told)
        shutil.rmtree(folder)
    return at


def _in_a_process(job, folder, at, torn):
    told = folder.with_suffix(".told")
    child = os.fork()
    if not child:
        status = 1
        try:
            with open(told, "ab", buffering=0) as file:
                killer = Killer(at, torn)
                job(folder, lambda names: killer.write(file.fileno(), f"{json.dumps(names)}\n".encode()))
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    lines = told.read_text().splitlines() if told.exists() else []
    return status != 0, {name for line in lines for name in json.loads(line)}


def run_kills(script, *arguments):
    """Run a script of the tests that kills a job at each of its changes; returns how many there were."""
    path = Path(__file__).with_name(script)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", path, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(path.parents[1]), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
