"""Kill a job in the middle, run the same command again, and verify what is there."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep

from rich.console import Console

from lighter_async import read_manifest
from lighter_async.cli.demo.resumable import BATCH_SIZE
from lighter_async.cli.demo.ways import WriterOptions
from lighter_async.cli.verify import print_report
from lighter_async.cli.words import say
from lighter_async.limits import DEFAULT_QUEUE_SIZE
from lighter_async.manifest.verify import verify
from lighter_async.targets.local import wait_until_free

__all__ = ["kill_and_resume"]

_JOB = "lighter_async.cli.demo.resumable"
_SHARE = 3  # a third of the patches is stored when the job is killed
_SECONDS_BETWEEN = 0.02  # two looks at what is stored


def kill_and_resume(console: Console, folder: Path, *, patches: int, batch_size: int, writer: WriterOptions) -> bool:
    """Do so, and tell it as a shell would show it.

    Args:
        console: Where it is told.
        folder: Where the job stores.
        patches: How many the job predicts.
        batch_size: Patches in a batch.
        writer: The writer's options.

    Returns:
        Whether the job ended well and every patch is stored, whole and unchanged.

    Raises:
        KeyboardInterrupt: Ctrl-C. Nothing that was started goes on.
    """
    job = ["-m", _JOB, str(folder), f"--patches={patches}"]
    for option, value, usual in (
        ("batch-size", batch_size, BATCH_SIZE),
        ("max-workers", writer.max_workers, None),
        ("queue-size", writer.queue_size, DEFAULT_QUEUE_SIZE),
    ):
        if value != usual:
            job.append(f"--{option}={value}")
    shown = f"$ {shlex.join(['python', *job])}"
    try:
        console.print(shown)
        if not _kill_in_the_middle(console, job, folder, patches):
            return False
        console.print(shown)
        if not _run_to_the_end(console, job):
            return False
    except BaseException:
        wait_until_free(folder)  # of helpers, which still store what a killed job has handed over
        raise
    console.print(f"$ lighter-async verify {shlex.quote(str(folder))}")
    report = verify(folder)
    print_report(report)
    return report.is_sound and len(report.manifest.names()) == patches


def _kill_in_the_middle(console: Console, job: Sequence[str], folder: Path, patches: int) -> bool:
    """Start the job, and kill it as soon as enough is stored; returns whether it has not failed by itself."""
    enough = -(-patches // _SHARE)
    with _running(job) as (process, complaints):
        while process.poll() is None and len(read_manifest(folder).names()) < enough:
            sleep(_SECONDS_BETWEEN)
        process.kill()
        status = process.wait()
        if status == -signal.SIGKILL:
            console.print(f"killed with SIGKILL as soon as {enough:,} of {patches:,} patches were seen to be stored")
        elif status == 0:
            console.print("it ended before it could be killed, for there were too few patches")
        else:
            return _failed(status, complaints.read_text())
    return True


def _run_to_the_end(console: Console, job: Sequence[str]) -> bool:
    """Run the job and show what it says; returns whether it has not failed."""
    with _running(job) as (process, complaints):
        told, _ = process.communicate()
        console.print(told.rstrip())
        return process.returncode == 0 or _failed(process.returncode, complaints.read_text())


def _failed(status: int, complaints: str) -> bool:
    last = complaints.strip().splitlines()[-1:] or ["without a word"]
    say(f"the job that was to be killed ended by itself with status {status}: {last[0]}")
    return False


@contextmanager
def _running(job: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process of the job, killed at the end, and the file of what it complains of.

    It is in a session of its own, so that Ctrl-C interrupts only this program, which ends it.
    """
    with tempfile.TemporaryDirectory() as folder:
        complaints = Path(folder, "stderr")
        with complaints.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, *job], stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
            )
        with process:
            try:
                yield process, complaints
            finally:
                process.kill()
