"""Predicts into shards, arrays and tables on ranks that talk over gloo; run by `test_ddp_targets`.

    python ddp_targets_script.py FOLDER RANKS SCENARIO...

The scenarios run one after the other in the same processes, each below `FOLDER/SCENARIO`.
"""

import dataclasses
import json
import os
import sys
import warnings
from pathlib import Path

import torch
from torch.utils.data import DataLoader, DistributedSampler

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_lightning import LightningModule, Trainer
    from pytorch_lightning.callbacks import ModelCheckpoint  # noqa: F401  (loaded here, and not between two scenarios)

from lighter_async import ArrayWriter, CsvWriter, FileWriter, TableWriter, TarShards, pending

SAMPLES = 21  # odd, so that a sampler that gives all ranks as many repeats the first one
ITEMS = torch.arange(SAMPLES)


class Model(LightningModule):
    """A row and a text for each number."""

    def predict_step(self, batch, batch_idx):
        numbers = batch.tolist()
        return {
            "row": torch.stack([batch.float(), batch.float() ** 2], 1),
            "text": [f"text of {number}" for number in numbers],
            "name": [f"case.{number}" for number in numbers],
        }


def writers(folder, **options):
    """One of each kind."""
    return [
        FileWriter(TarShards(folder / "shards", shard_samples=3), "text", "text", "name", **options),
        FileWriter(TarShards(folder / "outputs"), {"row": "npy", "text": "text"}, name_key="name", **options),
        ArrayWriter(folder / "a.npy", "row", name_key="name", **options),
        TableWriter(folder / "t.parquet", ["row", "text"], name_key="name", **options),
        CsvWriter(folder / "numbered.csv", ["text"], **options),
    ]


def places(folder):
    """Where they store."""
    return [folder / name for name in ("shards", "outputs", "a.npy", "t.parquet", "numbered.csv")]


def predict(folder, ranks, sampler, limit=None, use_distributed_sampler=True, **options):
    """Predict, and write down how many samples this rank's writers have stored and left out."""
    callbacks = writers(folder, **options)
    trainer = Trainer(
        accelerator="cpu",
        strategy="ddp" if ranks > 1 else "auto",
        devices=ranks,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        limit_predict_batches=limit,
        use_distributed_sampler=use_distributed_sampler,
    )
    loader = DataLoader(ITEMS, batch_size=2, sampler=sampler)
    trainer.predict(Model(), loader, return_predictions=False)
    told = [dataclasses.asdict(writer.stats()) for writer in callbacks]
    (folder / f"rank-{trainer.global_rank}.json").write_text(json.dumps(told))


def padded(folder, ranks):
    """A sampler that gives all ranks as many samples, so that one of them is given twice."""
    # Before the ranks are there to be asked.
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    predict(folder, ranks, DistributedSampler(ITEMS, ranks, rank, shuffle=False))


def everywhere(folder, ranks):
    """Every rank computes everything."""
    predict(folder, ranks, None, use_distributed_sampler=False)


def cut(folder, ranks):
    """A run that ends early."""
    predict(folder, ranks, None, limit=2, resume=True)


def resumed(folder, ranks):
    """Goes on with what is there."""
    predict(folder, ranks, pending(ITEMS, *places(folder)), resume=True)


if __name__ == "__main__":
    for name in sys.argv[3:]:
        scenario = Path(sys.argv[1]) / name
        scenario.mkdir(exist_ok=True)
        {"padded": padded, "everywhere": everywhere, "cut": cut, "resumed": resumed}[name](scenario, int(sys.argv[2]))
