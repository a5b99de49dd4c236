"""The contract of targets, on all that there are."""

import pytest
from harness import MemoryTarget

from lighter_async import LocalTarget
from lighter_async.testing import TargetContract


class OnFolder(TargetContract):
    takes_run = True
    refused_names = ("x" * 300, f"{'f' * 300}/x", "/".join(["deep"] * 2000))
    options = {}  # noqa: RUF012

    @pytest.fixture
    def make_target(self, tmp_path):
        return lambda **options: LocalTarget(tmp_path / "out", **self.options, **options)


class TestFiles(OnFolder):
    """A folder."""


class TestFilesThatOutliveALossOfPower(OnFolder):
    """A folder whose files are synced."""

    options = {"durability": "fsync"}  # noqa: RUF012


class TestTargetOfOnesOwn(TargetContract):
    """No more than a target needs, in memory."""

    across_processes = False

    @pytest.fixture
    def make_target(self):
        self.store = {}
        return lambda: MemoryTarget(self.store)

    def read(self, target):
        return dict(target.store)
