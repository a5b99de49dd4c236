"""Tests that need a CUDA device (or ROCm's); without one all of them are skipped.

By themselves (`make gpu`, `python -m pytest tests/gpu`) they need pytest and the package alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # the other tests' modules, where these are run by themselves


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "leaves_things: do not look for what the test leaves behind")
    config.addinivalue_line("markers", "long: takes long")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    for item in ours:
        # CUDA opens descriptors and starts threads when it is first asked for something.
        item.add_marker(pytest.mark.leaves_things)
        # Some systems pin none, of which one test tells; values have to be right there, too.
        item.add_marker(pytest.mark.filterwarnings("ignore:the system pins no memory:UserWarning"))
        if not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture(params=["thread", "process"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Each of both, as far as the system has it."""
    from lighter_async import BackendUnavailableError, BackgroundWriter

    kind: str = request.param
    if kind == "process" and not hasattr(request.config, "no_helpers"):
        try:
            with BackgroundWriter("text", tmp_path_factory.mktemp("try"), backend="process", max_workers=1):
                request.config.no_helpers = ""
        except BackendUnavailableError as error:
            request.config.no_helpers = str(error)
    if kind == "process" and request.config.no_helpers:
        pytest.skip(f"helper processes cannot be had here: {request.config.no_helpers}")
    return kind


@pytest.fixture(autouse=True)
def _device_is_well() -> Iterator[None]:
    """What a test has left to do, or has broken, is no other test's affair."""
    yield
    torch.cuda.synchronize()
