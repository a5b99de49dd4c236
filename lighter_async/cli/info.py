"""``lighter-async info``: what there is on this machine, and what ``backend="auto"`` would choose here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from time import sleep

import lighter_async
from lighter_async.cli.words import printable
from lighter_async.cpu_quota import own_cpu_quota
from lighter_async.errors import BackendUnavailableError, LighterAsyncError, describe
from lighter_async.limits import allowed_cores, default_queue_bytes, default_workers, usable_cores
from lighter_async.optional_packages import EXTRAS, how_to_install
from lighter_async.other_programs import CoresInUse, in_use, look
from lighter_async.service import BackgroundWriter
from lighter_async.workers import Choice, choose_backend, choose_by_cores
from lighter_async.writers import write_text

__all__ = ["Found", "find", "lines_of", "run_info"]

_SECONDS_TO_LOOK = 0.5


@dataclass(frozen=True, kw_only=True)
class Found:
    """What there is on this machine.

    Attributes:
        versions: The version of each package that is installed.
        cores: Of the machine.
        allowed: Cores that this process may run on.
        quota: How many cores' time a container's CPU limit leaves; None if there is no limit.
        usable: Whole cores that both leave.
        used: How many cores are in use; None if that is not known.
        workers: How many there are by default.
        queue_bytes: How many there are by default.
        refused: Why helper processes cannot be had; None if they can.
    """

    versions: Mapping[str, str]
    cores: int
    allowed: int
    quota: float | None
    usable: int
    used: CoresInUse | None
    workers: int
    queue_bytes: int
    refused: str | None

    @property
    def choice(self) -> Choice:
        """What a writer of this package's formats would get here."""
        choice = choose_backend("auto", write_text, is_local=True, cores=self.usable)
        if choice.backend == "process" and self.refused is not None:
            return Choice("thread", self.refused)
        return choose_by_cores(choice, self.used)


def find() -> Found:
    """Look at this machine, which takes half a second."""
    before = look()
    refused = _refused()
    sleep(_SECONDS_TO_LOOK)
    packages = ["torch", *(package for group in EXTRAS.values() for package in group)]
    return Found(
        versions={package: version for package in packages if (version := _version(package)) is not None},
        cores=os.cpu_count() or 1,
        allowed=allowed_cores(),
        quota=own_cpu_quota(),
        usable=usable_cores(),
        used=in_use(before, look()),
        workers=default_workers(),
        queue_bytes=default_queue_bytes(),
        refused=refused,
    )


def lines_of(found: Found) -> list[str]:
    """The same in words."""
    choice = found.choice
    return [
        f"lighter_async {lighter_async.__version__}",
        f"Python {platform.python_version()}, {printable(sys.executable)}",
        f"torch {found.versions.get('torch', 'is not installed')}",
        platform.platform(),
        "packages:",
        *(f"  {extra}: {_installed(extra, group, found.versions)}" for extra, group in EXTRAS.items()),
        f"cores: {_cores(found)}",
        f"max_workers by default: {found.workers}",
        f"queue_bytes by default: {found.queue_bytes:,}",
        "backend='auto':",
        f"  for the formats of this package: {_WORDS[choice.backend]} ({choice.reason})",
        "  for writers and targets of your own: threads",
    ]


def run_info() -> int:
    """Say what there is on this machine."""
    print("\n".join(lines_of(find())))
    return 0


_WORDS = {"thread": "threads", "process": "helper processes"}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _installed(extra: str, group: tuple[str, ...], versions: Mapping[str, str]) -> str:
    there = [f"{package} {versions[package]}" for package in group if package in versions]
    return ", ".join(there) or f"not installed: {how_to_install(extra)}"


def _cores(found: Found) -> str:
    told = f"{found.allowed} of the machine's {found.cores}"
    if found.quota is not None:
        told += f", with a CPU limit of {found.quota:g}"
    return told if found.used is None else f"{told}; other programs use {found.used.others:.1f} of them now"


def _refused() -> str | None:
    """Why helper processes cannot be had here; it starts one to see."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with BackgroundWriter("text", folder, backend="process", max_workers=1) as writer:
                writer.submit("a", "a text")
        except BackendUnavailableError as error:
            return f"no helper processes: {error.why}"
        except (ValueError, LighterAsyncError) as error:  # another kind of system, or helpers that end at once
            return f"no helper processes: {describe(error)}"
    return None
