"""The interpreter of this process: which program it is, and how to start another one like it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence

from lighter_async.errors import BackendUnavailableError
from lighter_async.workers.process.helper_setting import HELPER_OF

__all__ = ["arguments", "check_is_no_helper", "folder_and_path", "program"]

_OWN_PROGRAM = "/proc/self/exe"
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*[a-z]{0,3}(?:[-.](?:dbg|debug|real|bin|c|intel64))?", re.ASCII)
_GONE = " (deleted)"


def program() -> tuple[str, str]:
    """The file to run for another interpreter like this one, and what it is to be called.

    ``sys.executable`` alone says too little: in a frozen program, an embedding server or a wrapper it is a program that
    would begin the user's work anew, and start helpers of its own. So it is run only if it is the very file that this
    process runs, and that file is a Python by its name; if it is another one, this process's own file is run.

    Raises:
        BackendUnavailableError: This process is not known to run a plain Python interpreter.
    """
    if getattr(sys, "frozen", False):
        raise _unknown("this is a frozen program, with no Python interpreter beside it")
    if not sys.executable:
        raise _unknown("sys.executable is empty, as in a program that embeds Python")
    try:
        own = os.readlink(_OWN_PROGRAM)
    except OSError as error:
        raise _unknown(f"which program this process runs is not known ({_OWN_PROGRAM}: {error.strerror})") from error
    if not _PYTHON.fullmatch(os.path.basename(own.removesuffix(_GONE))):
        raise _unknown(f"this process runs {own!r}, which is no Python interpreter by its name")
    if _is_own(sys.executable):
        return sys.executable, sys.executable
    if _is_own(own):
        return own, own
    # An upgrade has replaced it; the kernel still has it.
    return _OWN_PROGRAM, sys.executable


def _is_own(file: str) -> bool:
    try:
        return os.path.samefile(file, _OWN_PROGRAM)
    except OSError:
        return False


def _unknown(why: str) -> BackendUnavailableError:
    return BackendUnavailableError(f"helpers are Python interpreters, and {why}")


def check_is_no_helper() -> None:
    """Refuse to begin in a program that was started as a helper, and is none.

    It would do the whole program's work a second time, and start helpers in its turn.

    Raises:
        BackendUnavailableError: This process is such a program.
    """
    parent = os.environ.get(HELPER_OF)
    if parent is not None:
        raise BackendUnavailableError(
            f"this process was started as a helper of process {parent}, but runs a program of its own, so the file "
            f"{sys.executable!r} is no plain Python interpreter"
        )


def arguments() -> list[str]:
    """The options that make another interpreter behave as this one does."""
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    if sys.dont_write_bytecode and not sys.flags.dont_write_bytecode:
        options.append("-B")
    given = {options[place + 1].partition("=")[0] for place, option in enumerate(options) if option == "-X"}
    known: dict[str, object] = dict(sys._xoptions)
    known["utf8"] = str(sys.flags.utf8_mode)
    if sys.pycache_prefix is not None:
        known["pycache_prefix"] = sys.pycache_prefix
    for name, value in known.items():
        if name not in given:
            options += ["-X", name if value is True else f"{name}={value}"]
    return options


def folder_and_path(entries: Sequence[object]) -> tuple[str, list[str]]:
    """The working folder, ``/`` if there is none any more, and absolute entries of the module search path."""
    try:
        folder = os.getcwd()
    except OSError:
        return "/", [entry for entry in entries if isinstance(entry, str) and os.path.isabs(entry)]
    return folder, [os.path.join(folder, entry) for entry in entries if isinstance(entry, str)]
