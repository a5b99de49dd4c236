"""The callbacks in real predictions: their interface, numbers, folders, what Lightning returns, and progress.

What is decided before a worker has a sample is tested with threads, which start sooner than helper processes.
"""

import copy
import importlib
import inspect
import pickle
import threading
import warnings
from unittest import mock

import numpy as np
import pytest
import torch
from harness import in_thread, until
from lightning_models import (
    Recorder,
    both_packages,
    fake_trainer,
    files_in,
    lightning_warnings,
    loader,
    make_datamodule,
    make_hooks,
    make_model,
    make_trainer,
    predict,
)

from lighter_async import ArrayWriter, BackgroundWriter, BaseWriter, DuplicateNameError, FileWriter, WriteError
from lighter_async.callback import base_writer as base_module
from lighter_async.callback import progress as progress_module
from lighter_async.limits import DEFAULT_QUEUE_SIZE

pytestmark = lightning_warnings

COLLECTS = "collects all predictions in memory"
OVERWRITTEN = "already exists, existing predictions will be overwritten"


def texts(batch, *_):
    """Outputs whose samples tell which they are."""
    return {
        "pred": [f"sample {number}" for number in batch.tolist()],
        "id": [f"n{number}" for number in batch.tolist()],
    }


def numbered(count, first=0):
    """The files that `texts` becomes when numbers are the data set's indices."""
    return {f"{number}.txt": f"sample {number}" for number in range(first, first + count)}


# The interface


@both_packages
def test_the_callbacks_are_lightning_callbacks_of_both_packages(package, tmp_path):
    """Either Trainer takes one as its own."""
    assert issubclass(BaseWriter, package.Callback)
    assert issubclass(FileWriter, BaseWriter)
    callback = FileWriter(tmp_path, "pred", "text")
    assert callback in make_trainer(package, callback).callbacks


def test_the_signature_of_the_synchronous_writer_is_kept():
    """The first four arguments by place or name, all others by name only and with defaults.

    `writer_fn` may be left out only where `value_key` says the writer of each output.
    """
    parameters = inspect.signature(FileWriter).parameters
    first = list(parameters.values())[:4]
    assert [parameter.name for parameter in first] == ["directory", "value_key", "writer_fn", "name_key"]
    assert [parameter.default for parameter in first[:2]] == [inspect.Parameter.empty] * 2
    assert [parameter.default for parameter in first[2:]] == [None] * 2
    for parameter in list(parameters.values())[4:]:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty
    assert list(inspect.signature(BaseWriter).parameters) == ["path"]
    write = inspect.signature(BaseWriter.write).parameters
    assert list(write) == ["self", "outputs", "batch", "batch_idx", "dataloader_idx"]


@pytest.mark.parametrize("option", ["max_workers", "queue_size", "queue_bytes"])
def test_options_out_of_range_are_refused_at_once(tmp_path, option):
    """Not only when the run begins, and without a trace in the file system."""
    with pytest.raises(ValueError, match=f"{option} is at least 1"):
        FileWriter(tmp_path / "out", "pred", "text", **{option: 0})
    with pytest.raises(ValueError, match="if_exists is one of"):
        FileWriter(tmp_path / "out", "pred", "text", if_exists="replace")
    assert list(tmp_path.glob("[!.]*")) == []


@both_packages
def test_options_reach_the_writer(package, tmp_path):
    """The stats of the run tell which bounds it ran under."""
    callback = FileWriter(tmp_path, "pred", "text", max_workers=3, queue_size=5, queue_bytes=1000)
    predict(package, texts, callback)
    stats = callback.stats()
    assert (stats.max_workers, stats.queue_size, stats.queue_bytes) == (3, 5, 1000)
    assert (stats.accepted, stats.written, stats.pending) == (8, 8, 0)


def test_stats_before_the_first_run_are_refused(tmp_path):
    """There are none to tell."""
    with pytest.raises(RuntimeError, match="no stats before"):
        FileWriter(tmp_path, "pred", "text").stats()


def test_write_outside_of_a_run_is_refused(tmp_path):
    """Nothing is dropped silently, and the remedy is told."""
    with pytest.raises(RuntimeError, match="use BackgroundWriter there"):
        FileWriter(tmp_path, "pred", "text").write({"pred": ["a"]}, None, 0, 0)


# Before and beside prediction


def test_nothing_exists_before_prediction_is_set_up(tmp_path):
    """The callback travels to other processes: no thread, lock or folder, and it can be pickled and copied."""
    threads = set(threading.enumerate())
    callback = FileWriter(tmp_path / "out", "pred", "tensor", "id", max_workers=3, if_exists="skip")
    for other in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback), copy.copy(callback)):
        assert vars(other) == vars(callback)
    assert set(threading.enumerate()) == threads
    assert list(tmp_path.glob("[!.]*")) == []


@both_packages
def test_a_copy_works_as_the_original_does(package, tmp_path):
    """A pickled one, and a copy of one that has run already."""
    original = FileWriter(tmp_path / "a", "pred", "text")
    pickled = pickle.loads(pickle.dumps(original))
    pickled.path = tmp_path / "b"
    predict(package, texts, original)
    predict(package, texts, pickled)
    copied = copy.deepcopy(original)
    copied.path = tmp_path / "c"
    predict(package, texts, copied)
    assert files_in(tmp_path / "a") == files_in(tmp_path / "b") == files_in(tmp_path / "c") == numbered(8)


@both_packages
def test_other_stages_start_nothing(package, tmp_path):
    """fit, validate and test neither make the folder nor start a worker, and of the latter two one warning says so."""
    callback = FileWriter(tmp_path / "out", "pred", "text")
    trainer = make_trainer(package, callback, max_epochs=1, default_root_dir=tmp_path)
    threads = set(threading.enumerate())
    hooks = make_hooks(package, teardown=lambda: checks.append(set(threading.enumerate()) <= threads))
    checks = []
    trainer.callbacks.append(hooks)
    model = make_model(package, texts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of training batches")
        trainer.fit(model, loader(4, 2), loader(4, 2))
    with pytest.warns(UserWarning, match=r"nothing in trainer.validate\(\); call trainer.predict\(\)") as caught:
        trainer.validate(model, loader(4, 2), verbose=False)
    assert [warning.filename for warning in caught if "predict_step" in str(warning.message)] == [__file__]
    trainer.test(model, loader(4, 2), verbose=False)
    assert checks == [True, True, True]
    assert list(tmp_path.glob("[!.]*")) == []
    with pytest.raises(RuntimeError, match="no stats"):
        callback.stats()
    trainer.predict(model, loader(), return_predictions=False)
    assert files_in(tmp_path / "out") == numbered(8)


@both_packages
@pytest.mark.parametrize(("make", "who"), [(FileWriter, "FileWriter"), (ArrayWriter, "ArrayWriter")])
def test_a_test_says_once_that_nothing_is_written(package, tmp_path, make, who):
    """With what to do instead, and what test_step returns is not looked at; a validation within a fit says nothing."""
    callback = make(tmp_path / "out.npy", "pred", *(["text"] if make is FileWriter else []))
    trainer = make_trainer(package, callback, default_root_dir=tmp_path)
    model = make_model(package, texts)
    with pytest.warns(UserWarning, match=rf"{who} writes what predict_step returns, and nothing in trainer.test\(\).*"):
        trainer.test(model, loader(4, 2), verbose=False)
    trainer.test(model, loader(4, 2), verbose=False)
    trainer.validate(model, loader(4, 2), verbose=False)
    assert list(tmp_path.glob("[!.]*")) == []


@both_packages
@pytest.mark.parametrize("empty", ["loader", "limit"])
def test_a_run_without_batches_leaves_nothing_open(package, tmp_path, empty):
    """Lightning then calls neither the hook at the start nor the one at the end."""
    callback = FileWriter(tmp_path / "out", "pred", "text")
    options = {"limit_predict_batches": 0} if empty == "limit" else {"data": loader(0)}
    predict(package, texts, callback, **options)
    assert files_in(tmp_path / "out") == {}
    assert callback.stats().accepted == 0


# Numbers


@both_packages
@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_numbers_are_the_indices_in_the_data_set(package, tmp_path, batch_size):
    """Whatever the batch size, the last and smaller batch included."""
    predict(package, texts, FileWriter(tmp_path, "pred", "text", backend="thread"), data=loader(17, batch_size))
    assert files_in(tmp_path) == numbered(17)


@both_packages
def test_numbering_goes_on_over_several_loaders(package, tmp_path):
    """Nothing of the second loader overwrites the first one's."""
    data = [loader(5, 2), loader(3, 2, first=5), loader(1, 2, first=8)]
    predict(package, texts, FileWriter(tmp_path, "pred", "text", backend="thread"), data=data)
    assert files_in(tmp_path) == numbered(9)


@both_packages
def test_limited_batches_are_numbered_likewise(package, tmp_path):
    """limit_predict_batches limits each loader, and numbers are indices all the same."""
    data = [loader(100, 2), loader(100, 2, first=4)]
    predict(package, texts, FileWriter(tmp_path, "pred", "text", backend="thread"), data=data, limit_predict_batches=2)
    assert files_in(tmp_path) == {
        f"{number + (96 if number > 3 else 0)}.txt": f"sample {number}" for number in range(8)
    }


@both_packages
def test_a_datamodule_is_predicted_on(package, tmp_path):
    """Its loaders are as good as any."""
    trainer = make_trainer(package, FileWriter(tmp_path, "pred", "text"))
    datamodule = make_datamodule(package, [loader(5), loader(5, first=5)])
    trainer.predict(make_model(package, texts), datamodule=datamodule, return_predictions=False)
    assert files_in(tmp_path) == numbered(10)


@both_packages
def test_a_trainer_predicts_twice(package, tmp_path):
    """The second run begins anew: its numbers start at 0, and it may use the first one's names."""
    callback = FileWriter(tmp_path, "pred", "text")
    trainer = make_trainer(package, callback)
    model = make_model(package, texts)
    trainer.predict(model, loader(6), return_predictions=False)
    with pytest.warns(UserWarning, match=OVERWRITTEN):
        trainer.predict(model, loader(4, first=100), return_predictions=False)
    assert files_in(tmp_path) == {**numbered(6), **{f"{i}.txt": f"sample {i + 100}" for i in range(4)}}
    assert callback.stats().written == 4


def test_every_rank_takes_its_own_numbers(tmp_path):
    """Rank r of n takes r, r + n, r + 2n and so on, over all batches, below the directory that rank 0 says."""
    said = []
    trainers = [fake_trainer(said, rank=rank, ranks=3) for rank in range(3)]
    callbacks = [FileWriter(tmp_path / f"{rank}", "pred", "text") for rank in range(3)]
    for trainer, callback in zip(trainers, callbacks, strict=True):
        callback.setup(trainer, None, "predict")
    for rank, (trainer, callback) in enumerate(zip(trainers, callbacks, strict=True)):
        for index, count in enumerate([2, 1, 3]):
            callback.on_predict_batch_end(trainer, None, {"pred": [f"rank {rank}"] * count}, None, index)
        callback.teardown(trainer, None, "predict")
    assert files_in(tmp_path) == {f"0/{number}.txt": f"rank {number % 3}" for number in range(18)}


def test_a_rank_that_does_not_see_the_directory_says_so(tmp_path, monkeypatch):
    """Only rank 0 makes it."""
    monkeypatch.setattr(base_module, "_SECONDS_TO_SEE", 0.0)
    said = [(tmp_path / "zero", "the-run", 0, None)]
    with pytest.raises(RuntimeError, match=r"rank 1 does not see .*share storage"):
        FileWriter(tmp_path, "pred", "text").setup(fake_trainer(said, rank=1, ranks=2), None, "predict")
    assert list(tmp_path.glob("[!.]*")) == []


# Several FileWriters


@both_packages
def test_two_writers_on_one_trainer(package, tmp_path):
    """Each writes its own key to its own directory."""
    recorder = Recorder(tmp_path / "b")
    predict(
        package,
        lambda batch, *_: {"a": texts(batch)["pred"], "b": batch * 10},
        FileWriter(tmp_path / "a", "a", "text"),
        FileWriter(tmp_path / "b", "b", recorder),
    )
    assert files_in(tmp_path / "a") == numbered(8)
    assert {name: value.item() for name, value in recorder.values.items()} == {f"{i}": i * 10 for i in range(8)}


@both_packages
def test_two_writers_share_a_directory_if_their_files_differ(package, tmp_path):
    """By suffix; the second one's start is no overwriting."""
    predict(
        package,
        lambda batch, *_: {"text": texts(batch)["pred"], "tensor": batch},
        FileWriter(tmp_path, "text", "text"),
        FileWriter(tmp_path, "tensor", "tensor"),
    )
    assert {path.name: path.read_text() for path in tmp_path.glob("*.txt")} == numbered(8)
    assert {path.name: torch.load(path).item() for path in tmp_path.glob("*.pt")} == {f"{i}.pt": i for i in range(8)}


@both_packages
@pytest.mark.parametrize("name_key", [None, "id"])
def test_two_writers_with_equal_files_are_refused(package, tmp_path, name_key):
    """The error names the sample; the first writer's files stay as they are."""
    first, second = (FileWriter(tmp_path, key, "text", name_key, backend="thread") for key in ("pred", "other"))
    step = lambda batch, *_: {**texts(batch), "other": ["other"] * len(batch)}  # noqa: E731
    with pytest.raises(DuplicateNameError, match=r"named 'n?0': .* and .* would both become 'n?0\.txt'"):
        predict(package, step, first, second)
    expected = {f"{'n' if name_key else ''}{i}.txt": f"sample {i}" for i in range(4)}
    assert files_in(tmp_path) == expected
    assert (first.stats().written, second.stats().accepted) == (4, 0)


# What Lightning returns


@both_packages
def test_what_lightning_returns_is_left_alone_with_one_warning(package, tmp_path):
    """Untouched, two predictions return what they return without a FileWriter, and warn once."""
    step = lambda batch, *_: {"pred": batch * 2.5, "id": [f"n{i}" for i in batch.tolist()]}  # noqa: E731
    alone = predict(package, step, return_predictions=None)
    callback = FileWriter(tmp_path, "pred", "tensor", "id")
    trainer = make_trainer(package, callback)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        beside = trainer.predict(make_model(package, step), loader())
        again = trainer.predict(make_model(package, step), loader(), return_predictions=True)
    assert [warning.category for warning in caught if COLLECTS in str(warning.message)] == [UserWarning]
    for predictions in (beside, again):
        assert len(predictions) == len(alone) == 2
        for one, other in zip(predictions, alone, strict=True):
            assert list(one) == list(other) == ["pred", "id"]
            assert torch.equal(one["pred"], other["pred"])
            assert one["id"] == other["id"]


@both_packages
def test_false_switches_collecting_off(package, tmp_path):
    """Whatever the call says, silently."""
    callback = FileWriter(tmp_path, "pred", "text", "id", return_predictions=False, backend="thread")
    assert predict(package, texts, callback, return_predictions=True) is None
    assert len(files_in(tmp_path)) == 8


@both_packages
def test_true_switches_collecting_on(package, tmp_path):
    """Whatever the call says, silently."""
    callback = FileWriter(tmp_path, "pred", "text", return_predictions=True, backend="thread")
    predictions = predict(package, texts, callback, return_predictions=False)
    assert [batch["id"][0] for batch in predictions] == ["n0", "n4"]


@both_packages
def test_a_call_that_asks_for_no_predictions_is_silent(package, tmp_path):
    """Nothing piles up then; warnings are errors here."""
    assert (
        predict(package, texts, FileWriter(tmp_path, "pred", "text", backend="thread"), return_predictions=False)
        is None
    )


@both_packages
@pytest.mark.parametrize("options", [(None, None), (None, True), (True, None)])
def test_two_writers_warn_together_at_most_once(package, tmp_path, options):
    """And not at all if one of them says that it is meant."""
    callbacks = [
        FileWriter(tmp_path / f"{place}", "pred", "text", return_predictions=option, backend="thread")
        for place, option in enumerate(options)
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(predict(package, texts, *callbacks, return_predictions=None)) == 2
    assert sum(COLLECTS in str(warning.message) for warning in caught) == (options == (None, None))


@both_packages
@pytest.mark.parametrize("options", [(None, False), (False, None)])
def test_one_writer_switches_collecting_off_for_both(package, tmp_path, options):
    """In any order, and then there is nothing to warn of."""
    callbacks = [
        FileWriter(tmp_path / f"{place}", "pred", "text", return_predictions=option, backend="thread")
        for place, option in enumerate(options)
    ]
    assert predict(package, texts, *callbacks, return_predictions=None) is None


# The directory


@both_packages
def test_the_directory_is_made_and_may_have_a_dot(package, tmp_path):
    """With all folders above it; a dot makes it no file."""
    directory = tmp_path / "runs" / "run.v1.2"
    predict(package, texts, FileWriter(str(directory), "pred", "text"))
    assert files_in(directory) == numbered(8)


@both_packages
def test_only_a_directory_that_holds_files_is_warned_of(package, tmp_path):
    """An empty one, and what the library itself keeps in it, is silent; a file is warned of and overwritten."""
    (tmp_path / ".lighter-async").mkdir()
    predict(package, texts, FileWriter(tmp_path, "pred", "text"), data=loader(1))
    (tmp_path / "0.txt").write_text("an earlier run's")
    with pytest.warns(UserWarning, match=OVERWRITTEN) as caught:
        predict(package, texts, FileWriter(tmp_path, "pred", "text"), data=loader(2))
    assert sum(OVERWRITTEN in str(warning.message) for warning in caught) == 1
    assert files_in(tmp_path) == numbered(2)


@both_packages
def test_files_of_an_earlier_run_can_be_kept(package, tmp_path):
    """if_exists="skip" leaves them alone, silently, and writes the others."""
    (tmp_path / "1.txt").write_text("an earlier run's")
    callback = FileWriter(tmp_path, "pred", "text", if_exists="skip")
    predict(package, texts, callback)
    assert files_in(tmp_path) == {**numbered(8), "1.txt": "an earlier run's"}
    assert (callback.stats().written, callback.stats().skipped) == (7, 1)


@both_packages
def test_files_of_an_earlier_run_can_be_an_error(package, tmp_path):
    """if_exists="error" fails the sample, keeps the file, and stores the others."""
    (tmp_path / "1.txt").write_text("an earlier run's")
    with pytest.raises(WriteError, match=r"1 sample was not written.*1\.txt.*exists already") as raised:
        predict(package, texts, FileWriter(tmp_path, "pred", "text", if_exists="error"), data=loader(4))
    assert isinstance(raised.value.cause, FileExistsError)
    assert files_in(tmp_path) == {**numbered(4), "1.txt": "an earlier run's"}


def test_what_a_function_overwrites_cannot_be_chosen(tmp_path):
    """It writes where it likes, so if_exists is refused with it, at once."""
    with pytest.raises(ValueError, match="register an encoder"):
        FileWriter(tmp_path, "pred", lambda path, value: None, if_exists="skip")


@both_packages
@pytest.mark.parametrize("folder", ["taken", "taken/below"])
def test_a_file_in_the_way_of_the_directory_is_told(package, tmp_path, folder):
    """Before the first batch, and the file stays as it is; nothing is said of overwriting it."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(NotADirectoryError, match="a file in its way"):
        predict(package, texts, FileWriter(tmp_path / folder, "pred", "text"))
    assert files_in(tmp_path) == {"taken": "a file"}


# Writers of one's own


class Lines(BaseWriter):
    """Appends what it is handed to one file."""

    def write(self, outputs, batch, batch_idx, dataloader_idx):
        with self.path.open("a") as file:
            file.write(f"{dataloader_idx} {batch_idx} {batch.tolist()} {outputs['id']}\n")


def test_a_writer_without_write_is_abstract(tmp_path):
    """BaseWriter prepares, and leaves the writing to its subclasses."""
    with pytest.raises(TypeError, match="abstract"):
        BaseWriter(tmp_path)


@both_packages
def test_a_writer_of_ones_own_may_write_one_file(package, tmp_path):
    """Its folder is made; write gets outputs, batch and both indices, and no empty outputs."""
    first, second = Lines(tmp_path / "a" / "lines.txt"), Lines(str(tmp_path / "b" / "lines.txt"))
    step = lambda batch, index, number: texts(batch) if index else None  # noqa: E731
    predict(package, step, first, second, data=[loader(4, 2), loader(4, 2, first=10)])
    expected = "0 1 [2, 3] ['n2', 'n3']\n1 1 [12, 13] ['n12', 'n13']\n"
    assert files_in(tmp_path) == {"a/lines.txt": expected, "b/lines.txt": expected}


@both_packages
def test_a_file_of_an_earlier_run_is_warned_of(package, tmp_path):
    """For a path with a suffix the file counts, not the folder."""
    (tmp_path / "other.txt").write_text("")
    predict(package, texts, Lines(tmp_path / "lines.txt"))
    with pytest.warns(UserWarning, match=OVERWRITTEN):
        predict(package, texts, Lines(tmp_path / "lines.txt"))


@both_packages
def test_a_writer_of_ones_own_may_have_a_folder(package, tmp_path):
    """For a path without a suffix the folder itself is made."""

    class Batches(BaseWriter):
        def write(self, outputs, batch, batch_idx, dataloader_idx):
            (self.path / str(batch_idx)).write_text(" ".join(outputs["id"]))

    predict(package, texts, Batches(tmp_path / "x" / "batches"))
    assert files_in(tmp_path / "x" / "batches") == {"0": "n0 n1 n2 n3", "1": "n4 n5 n6 n7"}


# Progress


BARS = {
    "tqdm": ("TQDMProgressBar", lambda bar: bar.predict_progress_bar.postfix),
    "rich": ("RichProgressBar", lambda bar: bar.progress.tasks[bar.predict_progress_bar_id].description),
}


def make_bar(package, name, **options):
    return getattr(importlib.import_module(f"{package.__name__}.callbacks"), name)(**options)


@both_packages
@pytest.mark.parametrize("kind", BARS)
@pytest.mark.parametrize("bar_first", [True, False], ids=["bar first", "writer first"])
def test_the_queues_stand_beside_lightnings_bar(package, tmp_path, monkeypatch, capsys, kind, bar_first):
    """One line for all the trainer's FileWriters together, after each batch, and no longer once the loop has ended."""
    monkeypatch.setattr(progress_module, "_SECONDS_BETWEEN", 0)
    name, shown_by = BARS[kind]
    bar = make_bar(package, name)
    opened = threading.Event()
    shown = []

    def write(path, value):
        opened.wait()

    writers = [
        FileWriter(tmp_path / "a", "pred", write, queue_size=100),
        FileWriter(tmp_path / "b", "pred", "text", queue_size=20, backend="thread"),
    ]
    callbacks = [bar, *writers] if bar_first else [*writers, bar]
    looking = make_hooks(
        package, on_predict_batch_end=lambda: shown.append(shown_by(bar)), on_predict_epoch_end=opened.set
    )
    after = make_hooks(package, on_predict_end=lambda: shown.append(shown_by(bar)))
    predict(package, texts, *callbacks, looking, after, enable_progress_bar=True)
    capsys.readouterr()
    *during, end = shown
    assert len(during) == 2
    for text, least in zip(during, (4, 8), strict=True):
        # The other writer's samples may still be pending or not.
        fill = int(text.split("queue ")[1].split("/")[0])
        assert least <= fill <= 2 * least
        assert "/120, writing " in text
        assert text.rstrip(")").endswith("/s in threads")
    assert "queue" not in (end or "")


@pytest.mark.parametrize(
    ("value", "options", "shown"),
    [
        ("text", {}, f"queue 2/{DEFAULT_QUEUE_SIZE}, writing 0/s in threads"),
        (np.zeros(1_000_000, np.uint8), {"queue_bytes": 64_000_000}, "queue 2, 2/64 MB, writing 0/s in threads"),
        (
            np.zeros(1_000_000, np.uint8),
            {"queue_bytes": 64_000_000, "queue_size": 3},
            "queue 2/3, writing 0/s in threads",
        ),
    ],
    ids=["tiny", "large", "few"],
)
def test_the_bar_shows_the_bound_that_is_nearer(tmp_path, monkeypatch, value, options, shown):
    """Samples, or the bytes that they hold."""
    monkeypatch.setattr(progress_module, "_SECONDS_BETWEEN", 0)
    opened = threading.Event()

    def write(path, value):
        opened.wait()

    bar = mock.Mock()
    with BackgroundWriter(write, tmp_path, max_workers=1, **options) as writer:
        for name in "ab":
            writer.submit(name, value)
        progress_module.Progress(bar, [writer]).update()
        opened.set()
    bar._predict_progress_bar.set_postfix_str.assert_called_once_with(shown, refresh=False)


def test_the_bar_says_whether_threads_or_helpers_write(tmp_path, monkeypatch):
    """Of several writers each kind once."""
    monkeypatch.setattr(progress_module, "_SECONDS_BETWEEN", 0)
    backends = ("thread", "process", "thread")
    writers = [
        BackgroundWriter("text", tmp_path / str(number), backend=backend) for number, backend in enumerate(backends)
    ]
    bar = mock.Mock()
    for some in (writers[:1], writers[1:2], writers):
        progress_module.Progress(bar, some).update()
    shown = [call.args[0].partition("/s ")[2] for call in bar._predict_progress_bar.set_postfix_str.call_args_list]
    assert shown == ["in threads", "in helpers", "in threads and helpers"]


@both_packages
@pytest.mark.parametrize("kind", BARS)
def test_what_is_left_at_the_end_gets_a_bar_of_its_own(package, tmp_path, monkeypatch, capsys, kind):
    """It counts what is still to be written, and goes when that is done."""
    monkeypatch.setattr(progress_module, "_SECONDS_BETWEEN", 0.001)
    bar = make_bar(package, BARS[kind][0])
    opened = threading.Event()

    def write(path, value):
        opened.wait()
        path.write_text(value)

    def closing_bars():
        if kind == "rich":
            tasks = bar.progress.tasks if bar.progress is not None else []
            return [task.total for task in tasks if task.description == "Writing"]
        from tqdm.auto import tqdm

        with tqdm.get_lock():  # which whoever makes or closes a bar holds
            return [one.total for one in list(tqdm._instances) if one.desc and one.desc.startswith("Writing")]

    def look():
        try:
            until(closing_bars, "a bar of what is left")
            return closing_bars()
        finally:
            opened.set()

    with_bar = in_thread(look)
    predict(package, texts, bar, FileWriter(tmp_path, "pred", write), enable_progress_bar=True)
    assert with_bar.result() == [8]
    assert closing_bars() == []
    capsys.readouterr()
    assert files_in(tmp_path) == {str(i): f"sample {i}" for i in range(8)}


@both_packages
@pytest.mark.parametrize("kind", [*BARS, "none"])
def test_a_bar_that_is_switched_off_is_left_alone(package, tmp_path, monkeypatch, capsys, kind):
    """Nothing is shown beside it nor after it, and everything is written."""
    monkeypatch.setattr(progress_module, "_SECONDS_BETWEEN", 0)
    bars = [] if kind == "none" else [make_bar(package, BARS[kind][0], refresh_rate=0)]
    predict(
        package, texts, *bars, FileWriter(tmp_path, "pred", "text", backend="thread"), enable_progress_bar=bool(bars)
    )
    captured = capsys.readouterr()
    assert "queue" not in captured.out + captured.err
    assert "Writing" not in captured.out + captured.err
    assert files_in(tmp_path) == numbered(8)


@both_packages
def test_a_bar_of_ones_own_is_left_alone(package, tmp_path, monkeypatch):
    """It need have nothing of Lightning's own two; what is left still gets a bar."""
    monkeypatch.setattr(progress_module, "_SECONDS_BETWEEN", 0)
    bar = make_bar(package, "ProgressBar")
    predict(package, texts, bar, FileWriter(tmp_path, "pred", "text", backend="thread"), enable_progress_bar=True)
    assert files_in(tmp_path) == numbered(8)
