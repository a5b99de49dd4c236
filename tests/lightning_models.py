"""Lightning under both of its names, and the models and trainers that the callbacks' tests predict with."""

from __future__ import annotations

import functools
import importlib
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from harness import results
from torch.utils.data import DataLoader


class _Package:
    """One of Lightning's packages, imported when it is used: that takes seconds, in each process of the tests."""

    def __init__(self, name: str, fabric: str) -> None:
        self._name = name
        self._fabric = fabric

    def __getattr__(self, attribute: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what others' code warns of while it is imported
            package = importlib.import_module(self._name)
            registry = importlib.import_module(f"{self._fabric}.utilities.registry")
        # Each Trainer looks for callbacks in what is said of all installed packages, which takes as long as a test.
        if not hasattr(registry.entry_points, "cache_info"):
            registry.entry_points = functools.cache(registry.entry_points)
        return getattr(package, attribute)


_PACKAGES = {
    name: _Package(name, fabric)
    for name, fabric in (("pytorch_lightning", "lightning_fabric"), ("lightning.pytorch", "lightning.fabric"))
}

__all__ = [
    "Recorder",
    "both_packages",
    "fake_trainer",
    "files_in",
    "lightning_warnings",
    "loader",
    "make_datamodule",
    "make_hooks",
    "make_model",
    "make_trainer",
    "predict",
    "predict_outputs",
]

both_packages = pytest.mark.parametrize(
    "package",
    [
        pytest.param(package, marks=[pytest.mark.long] * (number > 0))
        for number, package in enumerate(_PACKAGES.values())
    ],
    ids=list(_PACKAGES),
)
"""Runs a test with `pytorch_lightning`, and among the long ones with `lightning.pytorch`, as `package`."""

lightning_warnings = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",  # advice that depends on the machine
    "ignore:predict returned None",
    "ignore:Total length of .* across ranks is zero",
    "ignore:.*LeafSpec.* is deprecated",  # torch tells Lightning
)
"""Ignores what Lightning itself warns of in these runs."""


class Recorder:
    """A writer function that keeps what it is called with.

    Args:
        directory: What the paths are told relative to.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self.values: dict[str, Any] = {}

    def __call__(self, path: Path, value: Any) -> None:
        with self._lock:
            self.values[path.relative_to(self._directory).as_posix()] = value


def loader(samples: int = 8, batch_size: int = 4, first: int = 0) -> DataLoader[Any]:
    """A loader whose samples are whole numbers, from `first` on."""
    return DataLoader(torch.arange(first, first + samples), batch_size=batch_size)  # type: ignore[arg-type]


def make_model(package: Any, step: Callable[[Any, int, int], Any]) -> Any:
    """A model that predicts with `step(batch, batch_idx, dataloader_idx)`, and can be fitted, validated and tested."""

    class Model(package.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            return step(batch, batch_idx, dataloader_idx)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return (self.weight * batch).mean()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

        def test_step(self, batch: Any, batch_idx: int) -> None:
            pass

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Model()


def make_datamodule(package: Any, loaders: Any) -> Any:
    """A data module with these loaders to predict on."""

    class Data(package.LightningDataModule):  # type: ignore[misc, name-defined]
        def predict_dataloader(self) -> Any:
            return loaders

    return Data()


def make_hooks(package: Any, **hooks: Callable[..., None]) -> Any:
    """A callback with these hooks, each called without arguments."""

    def method(hook: Callable[..., None]) -> Callable[..., None]:
        return lambda self, *_, **__: hook()

    return type("Hooks", (package.Callback,), {name: method(hook) for name, hook in hooks.items()})()


def make_trainer(package: Any, *callbacks: Any, **options: Any) -> Any:
    """A trainer on one CPU that writes nothing of its own."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
    }
    return package.Trainer(callbacks=list(callbacks), **{**quiet, **options})


def predict(
    package: Any,
    step: Callable[[Any, int, int], Any],
    *callbacks: Any,
    data: Any = None,
    return_predictions: bool | None = False,
    **options: Any,
) -> Any:
    """Predict with `step` on `data`, two batches of four numbers by default; `options` are the trainer's."""
    trainer = make_trainer(package, *callbacks, **options)
    data = loader() if data is None else data
    return trainer.predict(make_model(package, step), data, return_predictions=return_predictions)


def predict_outputs(package: Any, outputs: Sequence[Any], *callbacks: Any) -> None:
    """Predict with a model that returns one of `outputs` for each batch."""
    predict(package, lambda _, index, __: outputs[index], *callbacks, data=loader(len(outputs), 1))


def files_in(directory: Path) -> dict[str, str]:
    """The texts of all files below a directory, the library's own included, by their relative paths."""
    return {path.relative_to(directory).as_posix(): path.read_text() for path in results(directory)}


def fake_trainer(said: list[Any], *, rank: int, ranks: int) -> Any:
    """As much of a trainer of one rank of several as setup asks for; `said` is what rank 0 has told the others."""

    def broadcast(own: Any, src: int) -> Any:
        if rank == src:
            said.append(own)
        return said[0]

    return SimpleNamespace(
        strategy=SimpleNamespace(broadcast=broadcast, reduce_boolean_decision=lambda all_agree: all_agree),
        is_global_zero=rank == 0,
        global_rank=rank,
        world_size=ranks,
        num_devices=ranks,
        predict_loop=SimpleNamespace(return_predictions=False),
        predict_dataloaders=None,
        num_predict_batches=[3],
        callbacks=[],
        loggers=[],
        progress_bar_callback=None,
    )
