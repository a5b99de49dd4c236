"""The page about several ranks does what it says: its commands, with its files, as real processes."""

import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import DEADLINE

from lighter_async import open_results
from lighter_async.manifest.verify import verify

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "ranks.md").read_text()
FILES = re.findall(r"^`([\w.]+)`\n\n```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
CONSOLES = re.findall(r"^```console\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def started_by(command):
    """What a command starts: for each process its arguments, and the variables that a launcher sets for it."""
    program, *arguments = shlex.split(command)
    if program == "python":
        return [(arguments, {})]
    if program == "torchrun":
        return [(["-m", "torch.distributed.run", *arguments], {})]
    if program == "srun":
        count = int(re.fullmatch(r"--ntasks=(\d+)", arguments[0])[1])
        job = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(count)}
        return [(arguments[2:], {**job, "SLURM_PROCID": str(rank)}) for rank in range(count)]
    assert program == "sbatch"
    last = int(re.fullmatch(r"--array=0-(\d+)", arguments[0])[1])
    script = shlex.split(arguments[1].removeprefix("--wrap="))[1:]
    job = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_COUNT": str(last + 1)}
    return [(script, {**job, "SLURM_ARRAY_TASK_ID": str(task)}) for task in range(last + 1)]


def run(command, folder):
    """Run all processes of a command at once; returns the lines that they print, in order."""
    around = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "TORCHELASTIC"))}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-W", "ignore", *arguments],
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=folder,
                    env={**around, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
                )
            )
            for arguments, variables in started_by(command)
        ]
        said = [process.communicate(timeout=4 * DEADLINE)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), command
    return sorted("".join(said).splitlines())


def test_the_page_of_ranks_does_as_it_says(tmp_path):
    """All results are there at the end, each once, whoever has stored them."""
    for name, text in FILES:
        (tmp_path / name).write_text(text)
    for console in CONSOLES:
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", console, re.MULTILINE):
            assert run(command, tmp_path) == sorted(shown.splitlines()), command
    for directory in ("lightning", "squares", "tasks"):
        results = open_results(tmp_path / directory)
        assert [results.at(index).item() for index in range(100)] == [float(index**2) for index in range(100)]
        assert verify(tmp_path / directory).is_sound
