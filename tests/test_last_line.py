"""The end of a prediction: a line of Lightning's log, and metrics of the trainer's loggers."""

import csv
import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from harness import Gate
from lightning_models import both_packages, lightning_warnings, loader, make_hooks, make_model, make_trainer, predict
from test_callback_targets import Rows

from lighter_async import ArrayWriter, BackgroundWriter, FileWriter, WriteError, WriterStats, encoder, pending
from lighter_async.callback.last_line import LastLine

pytestmark = [lightning_warnings, pytest.mark.usefixtures("one_core")]

NAMES = {
    *("written", "skipped", "left_out", "failed", "dropped", "bytes_written", "seconds"),
    *("loop_waited_seconds", "end_waited_seconds"),
}


def outputs(batch, *_):
    return {"pred": [f"n{number}" for number in batch.tolist()], "tensor": batch[:, None]}


@pytest.fixture
def last_lines(logged, monkeypatch):
    """The lines that were logged since it was asked for them last, whichever package's log they are in."""
    for name in ("lightning_fabric", "lightning.fabric", "lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)

    def lines():
        found = [message for message in logged.messages if message.startswith("lighter_async: ")]
        logged.messages.clear()
        return found

    return lines


def csv_logger(package, folder):
    return package.loggers.CSVLogger(folder, name="logs", version=0)


def metrics_in(folder):
    """The metrics that a CSVLogger has stored, all in one dict."""
    with (folder / "logs" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["step"] for row in rows} == {"0"}
    return {key: float(value) for row in rows for key, value in row.items() if value and key != "step"}


@both_packages
def test_a_line_says_what_was_written_and_how_long_the_loop_waited(package, tmp_path, last_lines):
    """Without a logger, too."""
    predict(package, outputs, FileWriter(tmp_path / "out", "pred", "text"))
    (line,) = last_lines()
    assert re.fullmatch(
        rf"lighter_async: wrote 8 samples \(16 bytes\) to '{tmp_path / 'out'}' in \d+\.\d s; the loop waited \d+\.\d s "
        r"for room and \d+\.\d s at the end",
        line,
    )


@pytest.mark.parametrize(
    ("stats", "end_seconds", "said"),
    [
        ({"waited_seconds": 9.0, "open_seconds": 10.0}, 0.9, ""),  # a short run
        ({"waited_seconds": 20.0, "open_seconds": 100.0}, 4.9, ""),  # less than a quarter
        (
            {"waited_seconds": 20.0, "open_seconds": 40.0, "encode_seconds": 70.0},
            1.0,
            ", held up by encoding (in helper processes: built in)",
        ),
        (
            {"open_seconds": 40.0, "store_seconds": 70.0, "encode_seconds": 1.0, "backend": "thread"},
            20.0,
            ", held up by storing (in threads: built in)",
        ),
    ],
    ids=["short", "little", "for room", "at the end"],
)
def test_a_run_that_waited_for_long_is_told_what_held_it_up(last_lines, stats, end_seconds, said):
    """And what wrote; of a run that waited for a moment it would be no news."""
    known = dict.fromkeys(WriterStats.__dataclass_fields__, 0)
    known.update(written=8, accepted=8, max_workers=2, queue_size=8, queue_bytes=100, peak_pending=8)
    known.update(backend="process", backend_reason="built in")
    line = LastLine("out", end_seconds=end_seconds)
    line.say(SimpleNamespace(is_global_zero=True, world_size=1), WriterStats(**{**known, **stats}))
    (logged,) = last_lines()
    assert logged.endswith(f" s for room and {end_seconds} s at the end{said}")


@both_packages
def test_a_logger_gets_the_same_as_metrics(package, tmp_path, last_lines):
    """A real CSVLogger has them in its file when predict returns."""
    callback = FileWriter(tmp_path / "out", "pred", "text")
    predict(package, outputs, callback, logger=csv_logger(package, tmp_path))
    metrics = metrics_in(tmp_path)
    assert metrics.keys() == {f"lighter_async/{name}" for name in NAMES}
    stats = callback.stats()
    assert metrics["lighter_async/written"] == stats.written == 8
    assert metrics["lighter_async/bytes_written"] == stats.bytes_written == 16
    assert metrics["lighter_async/loop_waited_seconds"] == stats.waited_seconds
    assert metrics["lighter_async/seconds"] > 0
    assert metrics["lighter_async/end_waited_seconds"] >= 0
    assert metrics["lighter_async/failed"] == metrics["lighter_async/left_out"] == 0


@both_packages
def test_each_of_several_writers_has_its_own(package, tmp_path, last_lines):
    """In the order of the trainer's callbacks, and to each logger."""
    first, second = (tmp_path / "first", tmp_path / "second")
    loggers = [csv_logger(package, first), csv_logger(package, second)]
    callbacks = [
        FileWriter(tmp_path / "texts", "pred", "text"),
        ArrayWriter(tmp_path / "a.npy", "tensor"),
        FileWriter(Rows(), "pred", "text"),
    ]
    predict(package, outputs, *callbacks, data=loader(4), logger=loggers)
    metrics = metrics_in(first)
    assert metrics == metrics_in(second)
    for prefix in ("lighter_async", "lighter_async_2", "lighter_async_3"):
        assert metrics[f"{prefix}/written"] == 4
    lines = last_lines()
    assert [re.search(r"wrote 4 samples .*to '(.*)' in", line)[1] for line in lines] == [
        str(tmp_path / "texts"),
        str(tmp_path / "a.npy"),
        callbacks[2]._target.location,
    ]
    assert np.load(tmp_path / "a.npy").tolist() == [[0], [1], [2], [3]]


@both_packages
def test_what_was_stored_before_is_counted_by_itself(package, tmp_path, last_lines):
    """What a resuming run leaves out, and files that are kept."""
    resuming = FileWriter(tmp_path / "out", "pred", "text", resume=True)
    predict(package, outputs, resuming, limit_predict_batches=1)
    assert "; 4 " not in last_lines()[0]
    predict(package, outputs, resuming, logger=csv_logger(package, tmp_path / "one"))
    assert last_lines()[0].endswith(" s at the end; 4 had been stored before")
    metrics = metrics_in(tmp_path / "one")
    assert (metrics["lighter_async/written"], metrics["lighter_async/left_out"]) == (4, 4)
    predict(package, outputs, resuming)
    (line,) = last_lines()
    assert line.startswith("lighter_async: wrote 0 samples to ")
    assert line.endswith("; 8 had been stored before")
    skipping = FileWriter(tmp_path / "out", "pred", "text", if_exists="skip")
    predict(package, outputs, skipping, logger=csv_logger(package, tmp_path / "two"))
    assert last_lines()[0].endswith("; 8 kept their earlier files")
    assert metrics_in(tmp_path / "two")["lighter_async/skipped"] == 8


@both_packages
def test_what_pending_leaves_out_had_been_stored_before_too(package, tmp_path, last_lines):
    """The loop does not come by it, and in a finished job by nothing at all."""
    numbers = torch.arange(8)
    resuming = FileWriter(tmp_path / "out", "pred", "text", name_key="pred", resume=True)
    for limit, line in (
        (1, "wrote 4 samples .* at the end"),
        (1.0, "wrote 4 samples .* at the end; 4 had been stored before"),
        (1.0, "wrote 0 samples to .* at the end; 8 had been stored before"),
    ):
        missing = pending(numbers, tmp_path / "out", names=[f"n{number}" for number in range(8)])
        data = torch.utils.data.DataLoader(numbers, batch_size=4, sampler=missing)
        predict(package, outputs, resuming, data=data, limit_predict_batches=limit)
        assert re.fullmatch(f"lighter_async: {line}", last_lines()[0])


@encoder(suffix=".odd")
def odd_only(value):
    if int(value[1:]) % 2 == 0:
        raise ValueError("an even number")
    return value.encode()


@both_packages
def test_a_run_that_fails_has_its_line_and_its_metrics(package, tmp_path, last_lines):
    """What was written all the same, and how many samples were not; the error stays what it is."""
    callback = FileWriter(tmp_path / "out", "pred", odd_only, on_error="continue")
    with pytest.raises(WriteError, match="an even number"):
        predict(package, outputs, callback, logger=csv_logger(package, tmp_path))
    (line,) = last_lines()
    assert line.startswith("lighter_async: wrote 4 samples (8 bytes) to ")
    assert line.endswith("; 4 failed")
    metrics = metrics_in(tmp_path)
    assert (metrics["lighter_async/written"], metrics["lighter_async/failed"]) == (4, 4)


@both_packages
def test_a_model_that_fails_has_them_too(package, tmp_path, last_lines):
    """Of what it had handed over before."""

    def step(batch, index, _):
        if index:
            raise ZeroDivisionError("the model's own")
        return outputs(batch)

    with pytest.raises(ZeroDivisionError, match="the model's own"):
        predict(package, step, FileWriter(tmp_path / "out", "pred", "text"), logger=csv_logger(package, tmp_path))
    assert last_lines()[0].startswith("lighter_async: wrote 4 samples ")
    assert metrics_in(tmp_path)["lighter_async/written"] == 4


@both_packages
def test_the_wait_at_the_end_is_counted(package, tmp_path, last_lines):
    """All samples are still being written when the loop is through, and the end waits for them."""
    gate = Gate()
    gate.shut()
    callback = FileWriter(tmp_path / "out", "pred", lambda path, value: gate.passing(value))
    hooks = make_hooks(package, on_predict_epoch_end=gate.release)
    predict(package, outputs, callback, hooks, logger=csv_logger(package, tmp_path))
    assert metrics_in(tmp_path)["lighter_async/end_waited_seconds"] > 0
    assert last_lines()[0].startswith("lighter_async: wrote 8 samples to ")


class Refusing(Exception):
    """What a logger raises."""


@both_packages
def test_a_logger_that_fails_is_told_of(package, tmp_path, last_lines):
    """By its own error, or beside the run's, which stays what it is; everything is stored by then."""

    class Broken(package.loggers.CSVLogger):
        def log_metrics(self, metrics, step=None):
            raise Refusing("no room for metrics")

    def trainer(folder, *writer):
        return make_trainer(package, FileWriter(tmp_path / folder, "pred", *writer), logger=Broken(tmp_path))

    model = make_model(package, outputs)
    with pytest.raises(Refusing, match="no room for metrics"):
        trainer("one", "text").predict(model, loader(4), return_predictions=False)
    assert (tmp_path / "one" / "3.txt").read_text() == "n3"
    with pytest.raises(WriteError) as caught:
        trainer("two", odd_only).predict(model, loader(4, 1), return_predictions=False)
    told = [str(caught.value), *getattr(caught.value, "__notes__", ()), str(caught.value.__context__)]
    assert any("Broken did not take what was written: Refusing: no room for metrics" in text for text in told)


def test_a_plain_writer_says_nothing(tmp_path, capfd, last_lines):
    """Its stats have it all."""
    with BackgroundWriter("tensor", tmp_path) as writer:
        writer.submit("a", torch.zeros(2))
    assert last_lines() == []
    assert capfd.readouterr() == ("", "")
    assert writer.stats().written == 1
