"""Predictions on several ranks: two real processes that talk over gloo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from database_target import DatabaseTarget
from ddp_script import SAMPLES
from harness import leftovers

from lighter_async.limits import default_workers

SCRIPT = Path(__file__).with_name("ddp_script.py")

# A machine that does other work as well takes its time to start four interpreters with torch in them.
pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def _one_worker_by_default():
    """Not here, where the machine's own number is looked at."""


def run_script(strategy, folder):
    """Run the script: its folder, and what each rank reported."""
    done = subprocess.run([sys.executable, SCRIPT, folder, strategy], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    """One run whose ranks are started as scripts."""
    return run_script("ddp", tmp_path_factory.mktemp("ddp"))


@pytest.fixture(scope="module")
def spawned(tmp_path_factory):
    """One run whose ranks are spawned, with the callbacks pickled on their way."""
    return run_script("ddp_spawn", tmp_path_factory.mktemp("spawned"))


@pytest.fixture(params=["ddp", "spawned"])
def run(request):
    return request.getfixturevalue(request.param)


def texts(directory):
    return {path.relative_to(directory).as_posix(): path.read_text() for path in directory.rglob("*.txt")}


def test_the_ranks_were_two_processes(run):
    """Each with writers of its own, below the directory that rank 0 named."""
    folder, reports = run
    assert len({report["one"]["process"] for report in reports}) == 2
    for report in reports:
        assert report["one"]["world_size"] == 2
        names = ["numbers", "numbers", "names"]
        assert report["one"]["directories"] == [str(folder / "by-0" / name) for name in names]
    assert not (folder / "by-1").exists()
    assert leftovers(folder) == []


def test_every_sample_is_written_once_and_numbers_are_indices(run):
    """Of an odd number of samples one rank has one more; none is repeated to make the ranks even."""
    folder, reports = run
    written = texts(folder / "by-0" / "numbers")
    assert set(written) == {f"{number}.txt" for number in range(SAMPLES)}
    for name, text in written.items():
        number = int(name.removesuffix(".txt"))
        assert text == f"{number} of loader 0 by rank {number % 2}"
        assert torch.load(folder / "by-0" / "numbers" / f"{number}.pt").item() == number
    counts = [[stats["written"] for stats in report["one"]["stats"]] for report in reports]
    assert counts == [[11, 11, 11, 11], [10, 10, 10, 10]]


def test_names_of_ones_own_are_written_once(run):
    """The ranks' names are different ones, so their files lie side by side."""
    folder, _ = run
    written = texts(folder / "by-0" / "names")
    assert written == {
        f"loader-0/case.{number}.txt": f"{number} of loader 0 by rank {number % 2}" for number in range(SAMPLES)
    }


def test_ranks_share_a_target_that_stores_elsewhere(run):
    """The target of each rank is told which run and which rank it is, and all store in one place."""
    folder, _ = run
    database = DatabaseTarget(folder / "samples.sqlite")
    assert database.texts() == {
        f"loader-0/case.{number}.txt": f"{number} of loader 0 by rank {number % 2}" for number in range(SAMPLES)
    }
    assert database.column("world_size") == {2}
    assert database.column("rank") == {0, 1}
    assert len(database.column("run")) == 1


def test_numbers_go_on_over_several_loaders(ddp):
    """The second one's begin behind the length of the first one's data set."""
    folder, _ = ddp
    first = {f"{number}.txt": f"{number} of loader 0 by rank {number % 2}" for number in range(SAMPLES)}
    second = {
        f"{SAMPLES + number}.txt": f"{number + 100} of loader 1 by rank {number % 2}" for number in range(SAMPLES)
    }
    assert texts(folder / "by-0" / "two") == first | second


def test_the_ranks_share_the_cores(run):
    """By default their workers together are no more than one rank's would be, but at least one each."""
    for report in run[1]:
        assert {stats["max_workers"] for stats in report["one"]["stats"]} == {default_workers(2)}
