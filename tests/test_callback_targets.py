"""`FileWriter` on targets of any kind, also on those that store elsewhere than below a directory."""

import pickle
import threading
from types import SimpleNamespace

import pytest
from database_target import DatabaseTarget
from lightning_models import (
    both_packages,
    fake_trainer,
    files_in,
    lightning_warnings,
    loader,
    make_model,
    make_trainer,
    predict,
)

from lighter_async import DuplicateNameError, FileWriter, InvalidNameError, LocalTarget, WriteError
from lighter_async.targets import Features, Lane

pytestmark = lightning_warnings


class Rows:
    """A target with no more than the methods of `Target`: it keeps samples in a dict, and counts what it is asked."""

    def __init__(self, location="rows"):
        self.location = location
        self.samples = {}
        self.opened = self.closed = 0
        self._lock = threading.Lock()

    def open(self):
        self.opened += 1

    def check(self, names):
        for name in names:
            if "*" in name:
                raise InvalidNameError(f"{name!r} has a star, which rows have not; leave it out")

    def keeps(self, name):
        return False

    def put(self, name, parts):
        with self._lock:
            self.samples[name] = b"".join(parts).decode()
        return True

    def close(self):
        self.closed += 1


class Together(Rows):
    """A target whose lanes store samples together."""

    features = Features()

    def lane(self, number):
        return TogetherLane(self)


class TogetherLane(Lane):
    def __init__(self, target):
        self.target = target
        self.waiting = []

    @property
    def is_full(self):
        return len(self.waiting) >= 3

    def put(self, item, *, redelivered):
        self.waiting.append([(part.file, b"".join(part.data)) for part in item.parts])
        return None

    def settle(self, on_progress):
        waiting, self.waiting = self.waiting, []
        for number, parts in enumerate(waiting):
            on_progress(number)
            for file, data in parts:
                self.target.put(file, [data])
        return [True] * len(waiting)

    def leave(self):
        self.waiting.clear()


class Broken(Rows):
    """A target that fails at one sample."""

    def put(self, name, parts):
        if name == "2.txt":
            raise ValueError("the row is locked")
        return super().put(name, parts)


def texts(batch, *_):
    """Outputs whose samples tell which they are."""
    return {
        "pred": [f"sample {number}" for number in batch.tolist()],
        "id": [f"series/n{number}" for number in batch.tolist()],
    }


def numbered(count):
    """The samples that `texts` becomes when numbers are the data set's indices."""
    return {f"{number}.txt": f"sample {number}" for number in range(count)}


# Predictions


@both_packages
@pytest.mark.parametrize("kind", [Rows, Together])
def test_a_target_that_stores_elsewhere_stands_in_the_place_of_a_directory(package, tmp_path, monkeypatch, kind):
    """Everything is stored there when predict returns, and no file or folder is made anywhere."""
    monkeypatch.chdir(tmp_path)
    target = kind()
    callback = FileWriter(target, "pred", "text")
    predict(package, texts, callback)
    assert target.samples == numbered(8)
    assert (target.opened, target.closed) == (1, 1)
    assert (callback.stats().written, callback.stats().pending) == (8, 0)
    assert list(tmp_path.iterdir()) == []


@both_packages
def test_names_of_ones_own_are_handed_to_the_target(package):
    """With the writer's suffix, and folders as they are."""
    target = Rows()
    predict(package, texts, FileWriter(target, "pred", "text", "id"))
    assert target.samples == {f"series/n{number}.txt": f"sample {number}" for number in range(8)}


@both_packages
def test_each_prediction_opens_and_closes_the_target(package):
    """A trainer that predicts twice stores the second run's samples, too."""
    target = Rows()
    trainer = make_trainer(package, FileWriter(target, "pred", "text"))
    model = make_model(package, texts)
    for samples in (6, 8):
        trainer.predict(model, loader(samples), return_predictions=False)
        assert target.samples == numbered(samples)
    assert (target.opened, target.closed) == (2, 2)


@both_packages
def test_two_writers_share_a_place_as_long_as_names_differ(package):
    """Names of one place are claimed, whichever object stands for it."""
    first, second = Rows("one place"), Rows("one place")
    step = lambda batch, *_: {**texts(batch), "other": batch}  # noqa: E731
    with pytest.raises(DuplicateNameError, match=r"would both become '0\.txt'"):
        predict(package, step, FileWriter(first, "pred", "text"), FileWriter(second, "other", "text"))
    assert first.samples == numbered(4)
    assert second.samples == {}
    assert (second.opened, second.closed) == (1, 1)


@both_packages
def test_the_same_name_twice_is_refused(package):
    """What was handed over before is stored."""
    target = Rows()
    with pytest.raises(DuplicateNameError, match="'same'"):
        predict(package, lambda batch, *_: {"pred": ["x"], "id": ["same"]}, FileWriter(target, "pred", "text", "id"))
    assert target.samples == {"same.txt": "x"}


@both_packages
@pytest.mark.parametrize("name", ["a*b", "../out", "/absolute"])
def test_names_that_cannot_be_stored_are_refused(package, name):
    """By the target's own rule, and by the rule that no name leads out of it."""
    target = Rows()
    with pytest.raises(InvalidNameError):
        predict(package, lambda *_: {"pred": ["x"], "id": [name]}, FileWriter(target, "pred", "text", "id"))
    assert target.samples == {}


@both_packages
def test_a_sample_that_the_target_fails_makes_predict_raise(package):
    """The error names it, and all others are stored."""
    target = Broken()
    with pytest.raises(WriteError, match=r"'2'.*the row is locked"):
        predict(package, texts, FileWriter(target, "pred", "text"), data=loader(4))
    assert set(target.samples) == set(numbered(4)) - {"2.txt"}
    assert target.closed == 1


@both_packages
def test_an_exception_of_the_model_loses_nothing(package):
    """What was handed over is stored, the target is closed, and the exception stays as it is."""

    def step(batch, index, *_):
        if index:
            raise ZeroDivisionError("of the model")
        return texts(batch)

    target = Rows()
    with pytest.raises(ZeroDivisionError, match="of the model"):
        predict(package, step, FileWriter(target, "pred", "text"))
    assert target.samples == numbered(4)
    assert target.closed == 1


@both_packages
def test_a_pickled_callback_stores_to_the_same_place(package, tmp_path):
    """As a spawned rank has it."""
    target = DatabaseTarget(tmp_path / "samples.sqlite")
    predict(package, texts, pickle.loads(pickle.dumps(FileWriter(target, "pred", "text"))))
    assert target.texts() == numbered(8)


# What goes with a directory only


@pytest.mark.parametrize(
    "options",
    [
        {"resume": True},
        {"run_config": "model-3.ckpt"},
        {"on_error": "continue"},
        {"if_exists": "skip"},
        {"durability": "fsync"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_a_directory_are_refused_at_once(options):
    """The error names the option."""
    (option,) = options
    with pytest.raises(ValueError, match=rf"^{option}.* directory"):
        FileWriter(Rows(), "pred", "text", **options)


@both_packages
def test_an_option_of_a_directory_that_is_set_later_is_refused_too(package):
    """Before the target is opened."""
    target = Rows()
    callback = FileWriter(target, "pred", "text")
    callback.resume = True
    with pytest.raises(ValueError, match="resume=True needs a manifest, which goes with a directory, not Rows"):
        predict(package, texts, callback)
    assert target.opened == 0


def test_a_function_needs_paths():
    """Which this target does not have."""
    with pytest.raises(ValueError, match="Rows has no paths"):
        FileWriter(Rows(), "pred", lambda path, value: None)


def test_a_writer_to_elsewhere_has_no_path(tmp_path):
    """Asking for it, and setting it, is told; nothing would be stored there."""
    callback = FileWriter(Rows(), "pred", "text")
    for ask in (lambda: callback.path, lambda: callback.directory, lambda: setattr(callback, "path", tmp_path)):
        with pytest.raises(AttributeError, match="does not store below a directory"):
            ask()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (3, "directory is a path or a target, not int"),
        (SimpleNamespace(put=None), "a target has the methods of lighter_async.Target"),
        (Rows, "directory is no type"),
        (print, "directory is no builtin_function_or_method"),
    ],
)
def test_what_is_neither_a_path_nor_a_target_is_refused(wrong, message):
    """The error tells the order of the arguments."""
    with pytest.raises(TypeError, match=message) as raised:
        FileWriter(wrong, "pred", "text")
    assert "FileWriter(directory, value_key, writer_fn)" in str(raised.value)


# Targets on a directory


@both_packages
def test_a_target_on_a_directory_records_what_is_stored(package, tmp_path):
    """With its own rule for files that there are, and a second run resumes from it."""
    (tmp_path / "1.txt").write_text("kept")
    predict(package, texts, FileWriter(LocalTarget(tmp_path, if_exists="skip"), "pred", "text"))
    assert files_in(tmp_path) == numbered(8) | {"1.txt": "kept"}
    callback = FileWriter(LocalTarget(tmp_path), "pred", "text", resume=True)
    predict(package, texts, callback)
    assert callback.path == tmp_path
    assert callback.stats().written == 1  # the one that was kept


# Several ranks


def ranks_of(*targets):
    """The trainer and the callback of each rank, which have not begun."""
    said = []
    return [
        (fake_trainer(said, rank=rank, ranks=len(targets)), FileWriter(target, "pred", "text", "id"))
        for rank, target in enumerate(targets)
    ]


def test_a_target_for_one_rank_is_refused_on_several():
    """Before it is opened, on every rank, with the way out."""
    target = Rows()
    for trainer, callback in ranks_of(target, target):
        with pytest.raises(RuntimeError, match=r"2 ranks cannot store to one Rows, .*of_run.*give a directory"):
            callback.setup(trainer, None, "predict")
        callback.teardown(trainer, None, "predict")
    assert target.opened == 0


def test_ranks_whose_targets_differ_are_refused(tmp_path):
    """The error names both places."""
    (zero, first), (one, second) = ranks_of(DatabaseTarget(tmp_path / "zero"), DatabaseTarget(tmp_path / "one"))
    first.setup(zero, None, "predict")
    with pytest.raises(RuntimeError, match=r"rank 0 to 'database:.*zero' and rank 1, to 'database:.*one'"):
        second.setup(one, None, "predict")
    first.teardown(zero, None, "predict")


def test_a_shared_target_refuses_the_second_of_two_ranks_with_one_name(tmp_path):
    """The first one's sample stays, and all others are stored."""
    target = DatabaseTarget(tmp_path / "samples.sqlite")
    (zero, first), (one, second) = ranks_of(target, target)
    first.setup(zero, None, "predict")
    first.on_predict_batch_end(zero, None, {"pred": ["a0", "b0"], "id": ["a", "b"]}, None, 0)
    first.teardown(zero, None, "predict")
    # Only now, since names are claimed in a process as long as a writer is open.
    second.setup(one, None, "predict")
    second.on_predict_batch_end(one, None, {"pred": ["b1", "c1"], "id": ["b", "c"]}, None, 0)
    with pytest.raises(WriteError, match=r"another rank has stored a sample as 'b\.txt'"):
        second.teardown(one, None, "predict")
    assert target.texts() == {"a.txt": "a0", "b.txt": "b0", "c.txt": "c1"}
    assert target.column("rank") == {0, 1}
    assert len(target.column("run")) == 1
