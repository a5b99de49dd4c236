"""The tutorial does what it says: its files, code and commands run one after the other, in one folder."""

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from harness import DEADLINE
from lightning_models import lightning_warnings

from lighter_async.cli import main

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"(?:^`([\w.]+)`\n\n)?^```(python|text|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
KILLED = "Killed\n"  # what a shell says of a program that SIGKILL has ended


def is_shown(shown, said):
    """Whether a page shows what was said, but for the parts that it leaves open."""
    return re.fullmatch(".*?".join(map(re.escape, shown.split("…"))), said) is not None


class Reader:
    """Does what the page says, in the working folder.

    Args:
        types: Runs a command; returns what it prints, and its exit status.
    """

    def __init__(self, types):
        self.types = types
        self.names = {"__name__": "__main__"}
        self.said = ""

    def follow(self, page):
        blocks = BLOCK.findall(page)
        for name, kind, text in blocks:
            if name:
                Path(name).write_text(text)
            elif kind == "python":
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(compile(text, "tutorial", "exec"), self.names)
                self.said = out.getvalue()
            elif kind == "text":
                assert is_shown(text, self.said), f"the page shows\n{text}\nand what is said is\n{self.said}"
            else:
                self.follow_console(text)
        return len(blocks)

    def follow_console(self, text):
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            said, status = self.types(command)
            killed = shown.endswith(KILLED)
            assert is_shown(shown.removesuffix(KILLED), said), f"$ {command}\nshows\n{shown}\nand says\n{said}"
            assert status == (-9 if killed else 0), command


def in_a_shell(command):
    """As a reader's shell runs it, with this package and this Python."""
    program, *arguments = command.split(maxsplit=1)
    programs = {"python": f"{sys.executable} -W ignore", "lighter-async": f"{sys.executable} -m lighter_async.cli"}
    done = subprocess.run(
        " ".join([programs.get(program, program), *arguments]),
        shell=True,
        executable="/bin/bash",  # which becomes the program, so that its end is seen
        stdout=subprocess.PIPE,
        text=True,
        timeout=2 * DEADLINE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.stdout, done.returncode


def in_this_process(command):
    """Without starting an interpreter, but for what is killed; and without the files that a script has imported."""
    program, *arguments = command.split()
    if program not in ("python", "lighter-async") or command == "python predict.py 3":
        return in_a_shell(command)
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.MonkeyPatch.context() as patch:
        if program == "lighter-async":
            status = main(arguments)
        else:
            patch.setattr(sys, "argv", arguments)
            patch.syspath_prepend(os.getcwd())
            sys.modules.pop("photos", None)
            runpy.run_path(arguments[0], run_name="__main__")
            sys.modules.pop("photos", None)
            status = 0
    return out.getvalue(), status


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it shows what helper processes do")
@pytest.mark.parametrize(
    "types",
    [
        pytest.param(in_this_process, marks=pytest.mark.long),
        pytest.param(in_a_shell, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
@lightning_warnings
def test_the_tutorial_shows_what_is_printed(tmp_path, monkeypatch, types):
    """Also where it is followed twice in one folder."""
    monkeypatch.chdir(tmp_path)
    for _ in range(1 if types is in_this_process else 2):
        assert Reader(types).follow(PAGE.read_text()) > 10
