"""The contract of targets, on all that there are."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import MemoryTarget

from lighter_async import LocalTarget
from lighter_async.testing import TargetContract


@pytest.fixture(autouse=True)
def _one_worker_by_default():
    """The machine's own number, as users have it."""


class OnFolder(TargetContract):
    takes_run = True
    refused_names = ("x" * 300, f"{'f' * 300}/x", "/".join(["deep"] * 2000))
    options = {}  # noqa: RUF012

    @pytest.fixture
    def make_target(self, tmp_path):
        return lambda **options: LocalTarget(tmp_path / "out", **{**self.options, **options})


class TestFiles(OnFolder):
    """A folder."""


class TestFilesThatOutliveALossOfPower(OnFolder):
    """A folder whose files are synced."""

    options = {"durability": "fsync"}  # noqa: RUF012


@pytest.mark.long
class TestFilesThatAreKept(OnFolder):
    """A folder whose earlier files stay."""

    options = {"if_exists": "skip"}  # noqa: RUF012


@pytest.mark.long
class TestFilesThatAreNotReplaced(OnFolder):
    """A folder whose earlier files are an error, and whose files are synced."""

    options = {"if_exists": "error", "durability": "fsync"}  # noqa: RUF012


class TestTargetOfOnesOwn(TargetContract):
    """No more than a target needs, in memory."""

    across_processes = False

    @pytest.fixture
    def make_target(self):
        self.store = {}
        return lambda: MemoryTarget(self.store)

    def read(self, target):
        return dict(target.store)


def examples():
    """What the examples of the page on targets define."""
    page = Path(__file__).parents[1] / "docs" / "targets.md"
    found = {"__name__": "examples"}
    code = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)[0]
    exec(compile(code, page, "exec"), found)
    return found


class TestTheExampleOfTheDocuments(examples()["TestInMemoryTarget"]):
    """All samples in one object, with offsets and lanes."""


FOUND = [
    "TestHalves::test_a_sample_that_fails_leaves_nothing[OSError-in the middle]",
    "TestHalves::test_what_is_told_as_stored_outlives_the_process[put-4]",
    "TestHalves::test_what_is_told_as_stored_outlives_the_process[write-6000]",
    "TestForgets::test_what_is_told_as_stored_outlives_the_process[put-4]",
    "TestKeepsParts::test_parts_may_change_once_they_were_put",
    "TestTwice::test_a_sample_that_comes_again_replaces_the_first_one[the same lane]",
]


def test_the_contract_finds_what_is_wrong_with_a_target(tmp_path):
    """Halves, samples that are lost with the process, memory that is not its own, and samples that are there twice."""
    (tmp_path / "test_broken.py").write_text(BROKEN)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}"),
            *(f"test_broken.py::{one}" for one in FOUND),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert f"{len(FOUND)} failed" in done.stdout, done.stdout + done.stderr
    assert "passed" not in done.stdout


BROKEN = """
import pathlib, pytest
from lighter_async.targets import Features
from lighter_async.testing import TargetContract


class Halves:
    def __init__(self, folder):
        self.folder = folder

    @property
    def location(self):
        return str(self.folder)

    def open(self):
        self.folder.mkdir(exist_ok=True)
        self.waiting = []

    def check(self, names):
        pass

    def keeps(self, name):
        return False

    def put(self, name, parts):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb", buffering=0) as file:
            for part in parts:
                file.write(part)
        return True

    def close(self):
        pass


class Forgets(Halves):
    def put(self, name, parts):
        self.waiting.append((name, [bytes(part) for part in parts]))
        return True

    def close(self):
        for name, parts in self.waiting:
            super().put(name, parts)


class KeepsParts(Halves):
    features = Features()

    def lane(self, number):
        return Lane(self)


class Lane:
    is_full = False

    def __init__(self, target):
        self.target, self.waiting = target, []

    def put(self, name, parts, *, redelivered):
        self.waiting.append((name, parts))

    def settle(self, on_progress):
        for number in range(len(self.waiting)):
            on_progress(number)
        waiting, self.waiting = self.waiting, []
        return [self.target.put(*one) for one in waiting]

    def leave(self):
        self.waiting.clear()


class Twice(Halves):
    def put(self, name, parts):
        data = b"".join(parts)
        with open(self.folder / "all", "ab") as file:
            file.write(repr((name, data)).encode() + b"\\n")
        return True


class Suite(TargetContract):
    @pytest.fixture
    def make_target(self, tmp_path):
        return lambda: self.kind(tmp_path / "out")


class TestHalves(Suite):
    kind = Halves


class TestForgets(Suite):
    kind = Forgets


class TestKeepsParts(Suite):
    kind = KeepsParts


class TestTwice(Suite):
    kind = Twice

    def read(self, target):
        found = {}
        path = target.folder / "all"
        for line in path.read_bytes().splitlines() if path.exists() else []:
            name, data = eval(line)
            found[name if name not in found else name + " once more"] = data
        return found


del Suite
"""
