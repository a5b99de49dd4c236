"""Machines that are not like this one: clocks that are wrong, two containers, a file system that knows no locks."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from samples import look, same, torn_of
from tally import GoOn, Tally, always

from lighter_async import pending, read_manifest
from lighter_async.manifest.verify import verify

__all__ = ["clocks", "containers", "without_locks"]

_JOB = Path(__file__).with_name("store_job.py")
_DEADLINE = 120.0
_LARGEST = 1 << 14
_DAY = 86_400.0
_IN_A_CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_PRELOADED = r"""
#include <errno.h>
#include <stdlib.h>
static int fails(const char *variable) {
    const char *number = getenv(variable);
    if (number) errno = atoi(number);
    return number != 0;
}
int flock(int descriptor, int operation) { return fails("NO_FLOCK") ? -1 : 0; }
int link(const char *from, const char *to) { return fails("NO_LINK") ? -1 : 0; }
int linkat(int a, const char *from, int b, const char *to, int flags) { return fails("NO_LINK") ? -1 : 0; }
"""


def clocks(seed: int, rounds: int, backend: str, folder: Path, *, samples: int = 60, go_on: GoOn = always) -> Tally:
    """Runs whose clocks differ by up to a day go on from each other, and one begins anew.

    Args:
        seed: Decides the clocks, and when a run ends early.
        rounds: Data sets.
        backend: The writer's.
        folder: Where to store.
        samples: Of each data set.
        go_on: Is told after each round.
    """
    choose = random.Random(seed)
    tally = Tally("clocks that differ, from run to run", backend)
    for number in range(rounds):
        directory = folder / f"clocks-{backend}-{number}"
        done = 0
        for run in range(5):
            limit, anew = choose.randint(1, samples // 3), run == 2
            clock = f"--clock={choose.uniform(-_DAY, _DAY):.1f}"
            _store(tally, directory, samples, backend, clock, f"--limit={limit}", *(["--anew"] if anew else []))
            tally.faults += 1
            done = limit if anew else done + limit
            left = len(pending(range(samples), directory))
            if left != max(0, samples - done):
                tally.troubles.append(f"after run {run}: {left} are pending, of {samples} and {done} that count")
        _store(tally, directory, samples, backend, f"--clock={choose.uniform(-_DAY, _DAY):.1f}")
        _settle(tally, directory, samples)
        if not go_on(tally) or not tally.is_clean:
            break
    return tally


def containers(seed: int, rounds: int, backend: str, folder: Path, *, samples: int = 60, go_on: GoOn = always) -> Tally:
    """Two containers, each with process numbers of its own, store halves of a data set in one directory at once.

    Arguments as of `clocks`.
    """
    tally = Tally("two containers on one directory", backend)
    if subprocess.run([*_IN_A_CONTAINER, "true"], capture_output=True).returncode:
        tally.skipped = "a process may have no container here"
        return tally
    for number in range(rounds):
        directory = folder / f"containers-{backend}-{number}"
        halves = [(0, samples // 2), (samples // 2, samples)]
        commands = [
            [
                *_IN_A_CONTAINER,
                *_command(directory, samples, backend, f"--first={first}", f"--stop={stop}", "--step=0.05"),
            ]
            for first, stop in halves
        ]
        processes = [subprocess.Popen(one, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for one in commands]
        for process in processes:
            tally.faults += 1
            try:
                _, errors = process.communicate(timeout=_DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                _, errors = process.communicate()
                tally.troubles.append("one waits for the other")
            if process.returncode:
                tally.troubles.append(f"status {process.returncode}: {errors[-500:]!r}")
        _settle(tally, directory, samples)
        if not go_on(tally) or not tally.is_clean:
            break
    return tally


def without_locks(
    seed: int, rounds: int, backend: str, folder: Path, *, samples: int = 60, go_on: GoOn = always
) -> Tally:
    """A file system that refuses locks, and one that refuses links, as some network file systems do.

    Arguments as of `clocks`.
    """
    choose = random.Random(seed)
    tally = Tally("a file system without locks or links", backend)
    library = folder / "refusing.so"
    if shutil.which("gcc") is None:
        tally.skipped = "there is no compiler"
        return tally
    if not library.exists():
        source = folder / "refusing.c"
        source.write_text(_PRELOADED)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    for number in range(rounds):
        directory = folder / f"refusing-{backend}-{number}"
        lacking = {"NO_FLOCK": choose.choice(_NO_LOCKS)} if choose.random() < 0.5 else {"NO_LINK": errno.EPERM}
        around = os.environ | {"LD_PRELOAD": str(library)} | {name: str(number) for name, number in lacking.items()}
        for limit in (samples // 3, samples // 3, samples):
            _store(tally, directory, samples, backend, f"--limit={limit}", around=around)
            tally.faults += 1
        _settle(tally, directory, samples)
        if not go_on(tally) or not tally.is_clean:
            break
    return tally


def _command(directory: Path, samples: int, backend: str, *options: str) -> list[str]:
    return [sys.executable, str(_JOB), str(directory), str(samples), backend, *options]


def _store(
    tally: Tally,
    directory: Path,
    samples: int,
    backend: str,
    *options: str,
    around: Mapping[str, str] | None = None,
) -> None:
    command: Sequence[str] = _command(directory, samples, backend, *options)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE, env=around)
    except subprocess.TimeoutExpired:
        tally.troubles.append(f"it hangs: {' '.join(options)}")
        return
    if done.returncode:
        tally.troubles.append(f"status {done.returncode}, {' '.join(options)}: {done.stderr[-500:]}")


def _settle(tally: Tally, directory: Path, samples: int) -> None:
    files, strange = look(directory)
    torn = torn_of(files, lambda path, index: same(path, index, _LARGEST))
    tally.settle(set(range(samples)), [index for _, index in files], [], torn)
    tally.rounds += 1
    if not read_manifest(directory).runs:
        tally.troubles.append(f"there is no manifest in {directory}")
        return
    if left := list(pending(range(samples), directory)):
        tally.troubles.append(f"pending at the end: {left[:10]}")
    recorded = [record.index for record in read_manifest(directory).records]
    tally.duplicated += len(recorded) - len(set(recorded))
    report = verify(directory, workers=1)
    if strange or report.findings:
        tally.troubles.append(f"strange files {strange[:5]}, verify finds {report.counts()} in {directory}")
    if tally.is_clean:
        shutil.rmtree(directory)
