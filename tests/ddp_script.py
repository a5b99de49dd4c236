"""Predicts on two processes that talk over gloo; run by `test_callback_ddp`.

    python ddp_script.py FOLDER STRATEGY

Each rank writes `FOLDER/rank-R.json` with what became of its samples in each prediction.
"""

import dataclasses
import json
import os
import sys
import warnings
from pathlib import Path

import torch
from torch.utils.data import DataLoader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_lightning import Callback, LightningModule, Trainer

from database_target import DatabaseTarget

from lighter_async import FileWriter

SAMPLES = 21  # odd, so that the ranks have different numbers of them


class Model(LightningModule):
    """Predicts which sample it was given, and by whom."""

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        numbers = batch.tolist()
        return {
            "sample": [f"{number} of loader {dataloader_idx} by rank {self.global_rank}" for number in numbers],
            "tensor": batch,
            "name": [f"loader-{dataloader_idx}/case.{number}" for number in numbers],
        }


class Report(Callback):
    """Writes down what became of this rank's samples, in whichever process it runs."""

    def __init__(self, folder, names):
        self.folder = folder
        self.names = names

    def teardown(self, trainer, pl_module, stage):
        writers = [callback for callback in trainer.callbacks if isinstance(callback, FileWriter)]
        file = self.folder / f"rank-{trainer.global_rank}.json"
        report = json.loads(file.read_text()) if file.exists() else {}
        report[self.names.pop(0)] = {
            "process": os.getpid(),
            "world_size": trainer.world_size,
            "directories": [str(writer.path) for writer in writers if hasattr(writer, "path")],
            "stats": [dataclasses.asdict(writer.stats()) for writer in writers],
        }
        file.write_text(json.dumps(report))


def loader(first=0):
    return DataLoader(torch.arange(first, first + SAMPLES), batch_size=4)


def main(folder, strategy):
    # Each rank's own idea of the directory differs, as one with a date does; rank 0's counts.
    directory = folder / f"by-{os.environ.get('LOCAL_RANK', '0')}"
    options = {
        "accelerator": "cpu",
        "devices": 2,
        "strategy": strategy,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
    }
    numbered = [
        FileWriter(directory / "numbers", "sample", "text"),
        FileWriter(directory / "numbers", "tensor", "tensor"),
    ]
    named = [FileWriter(directory / "names", "sample", "text", "name")]
    elsewhere = FileWriter(DatabaseTarget(folder / "samples.sqlite"), "sample", "text", "name")
    # With a spawning strategy Lightning collects nothing, and refuses to be asked for it.
    Trainer(callbacks=[*numbered, *named, elsewhere, Report(folder, ["one"])], **options).predict(
        Model(), loader(), return_predictions=False
    )
    if strategy == "ddp":
        two = FileWriter(directory / "two", "sample", "text")
        Trainer(callbacks=[two, Report(folder, ["two"])], **options).predict(
            Model(), [loader(), loader(100)], return_predictions=False
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
