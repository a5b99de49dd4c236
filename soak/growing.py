"""Data sets that grow, shrink and change their order between the runs that go on from each other."""

from __future__ import annotations

import logging
import random
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tally import GoOn, Tally, always
from torch.utils.data import DataLoader, Dataset

from lighter_async import FileWriter, pending
from lighter_async.manifest.verify import verify

__all__ = ["growing"]

_FOLDERS = 3
_RUNS = 6


class _Cases(Dataset[Any]):
    """A folder's cases, each with a name, as they are listed when a run begins."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"name": self.names[index], "value": float(_number(self.names[index]))}


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def growing(seed: int, rounds: int, backend: str, folder: Path, *, samples: int = 40, go_on: GoOn = always) -> Tally:
    """Several folders of cases are predicted in turn into one directory, as the tasks of a job array do.

    Between the runs cases come, go and change places, and runs end early. After each run every case that was predicted
    is there, and at the end every case of every folder, each with its own value.

    Args:
        seed: Decides what changes.
        rounds: Directories.
        backend: The writer's.
        folder: Where to store.
        samples: Cases of all folders together, at the beginning.
        go_on: Is told after each round.
    """
    import pytorch_lightning

    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)

    class Model(pytorch_lightning.LightningModule):  # type: ignore[misc]
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return {"name": batch["name"], "value": batch["value"].reshape(-1, 1)}

    def run(names: Sequence[str], directory: Path, how: str, limit: float | int) -> None:
        cases = _Cases(names)
        sampler = {
            "by name": lambda: pending(cases, directory, names=names),
            "by data set": lambda: pending(cases, directory),
            "by the writer": lambda: None,
        }[how]()
        writer = FileWriter(
            directory,
            "value",
            "tensor",
            "name",
            backend=backend,  # type: ignore[arg-type]
            max_workers=2,
            resume=True,
        )
        pytorch_lightning.Trainer(
            accelerator="cpu",
            callbacks=[writer],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_predict_batches=limit,
        ).predict(Model(), DataLoader(cases, batch_size=3, sampler=sampler), return_predictions=False)

    choose = random.Random(seed)
    tally = Tally("data sets that change, tasks that share a directory", backend)
    for number in range(rounds):
        directory = folder / f"growing-{backend}-{number}"
        folders = [
            [f"{place}/case-{1000 * place + k}" for k in range(samples // _FOLDERS)] for place in range(_FOLDERS)
        ]
        come = [samples] * _FOLDERS
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(_RUNS):
                place = choose.randrange(_FOLDERS)
                names = folders[place]
                for _ in range(choose.randint(0, 3)):
                    names.insert(choose.randint(0, len(names)), f"{place}/case-{1000 * place + come[place]}")
                    come[place] += 1
                if choose.random() < 0.3:
                    choose.shuffle(names)
                if choose.random() < 0.3:
                    names.pop(choose.randrange(len(names)))
                tally.faults += 1
                run(names, directory, _any_way(choose), choose.choice([1, 2, 1.0]))
            for names in folders:
                run(names, directory, _any_way(choose), 1.0)
        wanted = {name for names in folders for name in names}
        stored = {path.relative_to(directory).with_suffix("").as_posix(): path for path in directory.rglob("*.pt")}
        gone = set(stored) - wanted  # cases that went again after they were predicted
        torn = [_number(name) for name, path in stored.items() if float(torch.load(path)) != _number(name)]
        everything = wanted | gone
        tally.settle({_number(name) for name in everything}, [_number(name) for name in stored], [], torn)
        tally.rounds += 1
        report = verify(directory, workers=1)
        if report.findings:
            tally.troubles.append(f"verify finds {report.counts()} in {directory}")
        if tally.is_clean:
            shutil.rmtree(directory)
        if not go_on(tally) or not tally.is_clean:
            break
    return tally


def _any_way(choose: random.Random) -> str:
    return choose.choice(["by name", "by data set", "by the writer"])
