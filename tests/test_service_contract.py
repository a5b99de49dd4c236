"""The contract of the service, on every way of working that there is."""

import pytest
from harness import AsyncHarness, HelperHarness, HelperPathHarness, MemoryTarget, PathHarness, TargetHarness
from service_contract import ServiceContract


@pytest.fixture(autouse=True)
def _one_worker_by_default():
    """The machine's own number, as users have it."""


class TestThreadsOnFolder(ServiceContract):
    """An encoder in threads, storing in a local folder."""

    @pytest.fixture
    def make_harness(self, tmp_path):
        return lambda: TargetHarness(tmp_path)


class TestThreadsOnTargetOfOnesOwn(ServiceContract):
    """An encoder in threads, storing with a target that is not the library's."""

    @pytest.fixture
    def make_harness(self, tmp_path):
        store = {}
        return lambda: TargetHarness(tmp_path, make_target=lambda: MemoryTarget(store), read=lambda: dict(store))


class TestPathFunction(ServiceContract):
    """A function (path, value) in threads."""

    @pytest.fixture
    def make_harness(self, tmp_path):
        return lambda: PathHarness(tmp_path)


class TestEventLoop(ServiceContract):
    """An async function (path, value) on the workers' event loop."""

    @pytest.fixture
    def make_harness(self, tmp_path):
        return lambda: AsyncHarness(tmp_path)


class TestHelpersOnFolder(ServiceContract):
    """An encoder in helper processes, storing in a local folder."""

    @pytest.fixture
    def make_harness(self, tmp_path):
        return lambda: HelperHarness(tmp_path)


@pytest.mark.long
class TestPathFunctionInHelpers(ServiceContract):
    """A function (path, value) in helper processes."""

    @pytest.fixture
    def make_harness(self, tmp_path):
        return lambda: HelperPathHarness(tmp_path)
