"""A run that resumes and has nothing left to do: no workers are started, and what earlier runs have left is done."""

import os

import pytest
import torch
from harness import DEADLINE, leftovers
from lightning_models import both_packages, lightning_warnings, make_model, make_trainer

from lighter_async import (
    ArrayWriter,
    BackgroundWriter,
    CsvWriter,
    FileWriter,
    Origin,
    ResumeError,
    TableTarget,
    pending,
    read_manifest,
)
from lighter_async.workers.process.backend import ProcessBackend

pytestmark = lightning_warnings

ITEMS = torch.arange(8)


def step(batch, *_):
    return {"pred": batch[:, None], "row": batch, "name": [f"n{one}" for one in batch.tolist()]}


@pytest.fixture
def started(monkeypatch):
    """The helper backends that were started."""
    found = []
    real = ProcessBackend.start

    def start(self):
        found.append(self)
        real(self)

    monkeypatch.setattr(ProcessBackend, "start", start)
    return found


def predict(package, callback, where, *, limit=1.0, asked=None):
    """Predict what is pending; `asked` is called when Lightning asks for the data."""
    model = make_model(package, step)

    def predict_dataloader():
        if asked is not None:
            asked()
        return torch.utils.data.DataLoader(ITEMS, batch_size=2, sampler=pending(ITEMS, where))

    model.predict_dataloader = predict_dataloader
    trainer = make_trainer(package, callback, limit_predict_batches=limit)
    trainer.predict(model, return_predictions=False)


@both_packages
def test_helpers_are_started_only_where_there_is_something_to_write(package, tmp_path, started):
    """A run that resumes starts them once Lightning has batches; one that does not, before it asks for them."""
    callback = FileWriter(tmp_path, "pred", "tensor", resume=True, backend="process", max_workers=1)
    numbers = []
    for limit in (2, 1.0, 1.0):
        predict(package, callback, tmp_path, limit=limit, asked=lambda: numbers.append(len(started)))
        numbers.append(len(started))
    assert numbers == [0, 1, 1, 2, 2, 2]
    stats = callback.stats()
    assert (stats.written, stats.backend, stats.backend_reason) == (0, "thread", "there was nothing to write")
    assert len(read_manifest(tmp_path).records) == 8
    early = FileWriter(tmp_path, "pred", "tensor", if_exists="overwrite", backend="process", max_workers=1)
    predict(package, early, tmp_path, asked=lambda: numbers.append(len(started)))
    assert numbers[-1] == 3


@both_packages
@pytest.mark.parametrize("kind", ["array", "table"])
def test_rows_need_no_helpers_either(package, tmp_path, started, kind):
    """Where all of them are there."""
    path = tmp_path / ("a.npy" if kind == "array" else "a.csv")
    options = {"resume": True, "backend": "process", "max_workers": 1}
    callback = ArrayWriter(path, "pred", **options) if kind == "array" else CsvWriter(path, ["row"], **options)
    for _ in range(2):
        predict(package, callback, path)
    assert len(started) == 1
    assert len(read_manifest(tmp_path).runs) == 2


@both_packages
def test_what_earlier_runs_have_left_is_done_all_the_same(package, tmp_path, started):
    """A table is written of its rows, and what a crash has left is cleared."""
    path = tmp_path / "a.csv"
    writer = BackgroundWriter(target=TableTarget(path), backend="thread")
    writer.submit_batch(None, [{"row": number} for number in range(8)], origin=Origin(range(8)))
    assert writer.close_by(DEADLINE) == 0
    assert not path.exists()
    (tmp_path / ".lighter-async/0123456789ab.lock").touch()
    (tmp_path / ".lighter-async-0123456789ab-7-0.part").touch()
    predict(package, CsvWriter(path, ["row"], resume=True, backend="process"), path)
    assert path.read_text().splitlines() == ["index,row", *(f"{number},{number}" for number in range(8))]
    assert leftovers(tmp_path) == []
    assert started == []


@both_packages
def test_results_of_another_config_are_refused_also_where_they_are_complete(package, tmp_path, started):
    """Whoever starts it takes them for those of this one."""
    for config in ("a.ckpt", "b.ckpt"):
        callback = FileWriter(tmp_path, "pred", "tensor", resume=True, run_config=config, backend="thread")
        if config == "b.ckpt":
            with pytest.raises(ResumeError, match=r"a\.ckpt.*b\.ckpt"):
                predict(package, callback, tmp_path)
        else:
            predict(package, callback, tmp_path)
    assert len(read_manifest(tmp_path).runs) == 1


def test_a_writer_that_is_opened_for_nothing_takes_samples_all_the_same(tmp_path):
    """In threads."""
    writer = BackgroundWriter("tensor", tmp_path, backend="process", resume=True)
    writer._start_replacing(has_work=False)
    writer.submit("a", torch.ones(3))
    writer.close()
    assert (writer.stats().written, writer.stats().backend) == (1, "thread")
    assert os.path.exists(tmp_path / "a.pt")
