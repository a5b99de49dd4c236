"""The callbacks under a trainer that predicts on the device."""

from __future__ import annotations

import pytest
import torch
from on_gpu import stored
from torch.utils.data import DataLoader

from lighter_async import ArrayWriter, FileWriter, TarShards, open_results, pending

pl = pytest.importorskip("pytorch_lightning", reason="Lightning is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own advice

DATA = torch.arange(70.0).reshape(35, 2)


class Model(pl.LightningModule):
    """Writes each batch into the same memory, as a captured model does."""

    def __init__(self, many):
        super().__init__()
        self.many = many
        self.linear = torch.nn.Linear(2, 3)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [1, 1]]))
            self.linear.bias.zero_()
        self.register_buffer("output", torch.zeros(8, 3 * many))

    def predict_step(self, batch, batch_idx):
        assert batch.is_cuda
        output = self.output[: len(batch)]
        output.copy_(self.linear(batch).repeat(1, self.many))
        return {"value": output, "id": batch[:, 0].long()}


def predict(callback, many=1):
    trainer = pl.Trainer(
        accelerator="gpu",
        devices=1,
        callbacks=[callback],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.predict(Model(many), DataLoader(DATA, batch_size=8), return_predictions=False)


def expected(index):
    one, two = DATA[index].tolist()
    return [one, two, one + two]


@pytest.mark.parametrize("many", [1, 50_000], ids=["small", "large"])
def test_predictions_are_stored_as_they_were(tmp_path, backend, many):
    """Each one by its number, though the model overwrites the last batch with the next."""
    predict(FileWriter(tmp_path, "value", "tensor", backend=backend), many)
    found = stored(tmp_path)
    assert len(found) == 35
    for name, tensor in found.items():
        assert torch.equal(tensor, torch.tensor(expected(int(name))).repeat(many))
    assert list(pending(range(35), tmp_path)) == []


def test_names_may_be_on_the_device(tmp_path, backend):
    """They come to the host at once, for all of a batch."""
    predict(FileWriter(TarShards(tmp_path), "value", "tensor", name_key="id", backend=backend))
    results = open_results(tmp_path)
    assert {name: results[name].tolist() for name in results} == {
        str(2 * index): expected(index) for index in range(35)
    }


def test_predictions_become_rows_of_an_array(tmp_path, backend):
    """In the order of the data set."""
    predict(ArrayWriter(tmp_path / "rows.npy", "value", backend=backend))
    rows = open_results(tmp_path / "rows.npy").to_array()
    assert rows.tolist() == [expected(index) for index in range(35)]
