"""What becomes of a prediction that fails or is interrupted, with real trainers; and of missing packages."""

import signal
import threading

import pytest
from harness import in_thread, run_script, until
from lightning_models import (
    both_packages,
    files_in,
    lightning_warnings,
    loader,
    make_hooks,
    make_model,
    make_trainer,
    predict,
)

from lighter_async import ClosedError, FileWriter, LocalTarget, WriteError

pytestmark = lightning_warnings


class Mine(Exception):
    """The user's own."""


class Parked:
    """A writer function that waits until it is let go, and fails the samples it is told to fail."""

    def __init__(self, *failing):
        self.opened = threading.Event()
        self._failing = failing

    def __call__(self, path, value):
        assert self.opened.wait(20), "nobody opened"
        if value in self._failing:
            raise ValueError(f"no way to write {value}")
        path.write_text(str(value))


def numbers(batch, *_):
    return {"pred": batch.tolist()}


def numbers_until(last, error):
    """A step that raises `error` after so many batches."""

    def step(batch, index, loader_index):
        if index == last:
            raise error
        return numbers(batch)

    return step


def files(*samples):
    return {str(number): str(number) for number in samples}


def throw(error):
    raise error


def notes(exception):
    """What is attached to an exception: its notes, or before Python 3.11 the chain behind it."""
    told = list(getattr(exception, "__notes__", ()))
    if not hasattr(exception, "add_note"):
        while (exception := exception.__context__) is not None:
            told.append(str(exception))
    return "\n".join(told)


# The user's own exceptions


@both_packages
@pytest.mark.parametrize("error", [Mine("mine"), RuntimeError(), SystemExit(3), GeneratorExit()], ids=repr)
def test_an_exception_of_the_model_is_raised_unchanged_and_nothing_is_lost(package, tmp_path, error):
    """What was handed over before it is stored when predict raises."""
    writer = Parked()
    callback = FileWriter(tmp_path, "pred", writer, max_workers=1)
    # Everything is still queued when the exception comes.
    hooks = make_hooks(package, on_exception=writer.opened.set)
    with pytest.raises(type(error)) as raised:
        predict(package, numbers_until(2, error), hooks, callback, data=loader(20))
    assert raised.value is error
    assert not notes(error)
    assert files_in(tmp_path) == files(*range(8))
    assert (callback.stats().written, callback.stats().pending) == (8, 0)


@both_packages
def test_failures_are_attached_to_the_users_own_exception(package, tmp_path):
    """Both writers' failures are told beside it, and neither replaces it."""
    writers = [Parked(1, 3), Parked(2)]
    callbacks = [
        FileWriter(tmp_path / f"{place}", "pred", writer, max_workers=1) for place, writer in enumerate(writers)
    ]
    hooks = make_hooks(package, on_exception=lambda: [writer.opened.set() for writer in writers])
    error = Mine("mine")
    with pytest.raises(Mine) as raised:
        predict(package, numbers_until(1, error), hooks, *callbacks)
    assert raised.value is error
    assert str(error) == "mine"
    assert "2 samples were not written" in notes(error)
    assert "1 sample was not written" in notes(error)
    assert all(f"no way to write {number}" in notes(error) for number in (1, 2, 3))
    assert files_in(tmp_path / "0") == files(0, 2)
    assert files_in(tmp_path / "1") == files(0, 1, 3)


HOOKS = [
    "setup",
    "on_predict_start",
    "on_predict_epoch_start",
    "on_predict_batch_start",
    "on_predict_batch_end",
    "on_predict_epoch_end",
    "on_predict_end",
    "teardown",
]


@both_packages
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("hook", HOOKS)
def test_an_exception_of_another_callback_leaves_nothing_open(package, tmp_path, hook, place):
    """Wherever it is raised, it is raised unchanged; what was handed over is stored, and the trainer works again."""
    error = Mine(hook)
    broken = [True]

    def fail():
        if broken:
            broken.clear()
            raise error

    callback = FileWriter(tmp_path, "pred", Parked(), max_workers=1)
    callback.writer_fn.opened.set()
    hooks = make_hooks(package, **{hook: fail})
    trainer = make_trainer(package, *([hooks, callback] if place == "before" else [callback, hooks]))
    model = make_model(package, numbers)
    with pytest.raises(Mine) as raised:
        trainer.predict(model, loader(), return_predictions=False)
    assert raised.value is error
    assert not notes(error)
    handed_over = {"on_predict_batch_end": 4 if place == "after" else 0}.get(hook, 8 if HOOKS.index(hook) > 4 else 0)
    assert files_in(tmp_path) == files(*range(handed_over))
    if handed_over:
        with pytest.warns(UserWarning, match="will be overwritten"):
            trainer.predict(model, loader(), return_predictions=False)
    else:
        trainer.predict(model, loader(), return_predictions=False)
    assert files_in(tmp_path) == files(*range(8))


@both_packages
def test_a_writer_that_was_not_told_of_the_end_is_closed_by_the_next_run(package, tmp_path):
    """Lightning calls no other callback once one's on_exception has raised."""
    broken = [Mine("on_exception")]
    hooks = make_hooks(package, on_exception=lambda: throw(broken.pop()))
    callback = FileWriter(tmp_path, "pred", "text", if_exists="skip")
    trainer = make_trainer(package, hooks, callback)
    with pytest.raises(Mine):
        trainer.predict(make_model(package, numbers_until(1, KeyError())), loader(), return_predictions=False)
    trainer.predict(make_model(package, numbers), loader(), return_predictions=False)
    assert files_in(tmp_path) == {f"{number}.txt": str(number) for number in range(8)}
    assert (callback.stats().skipped, callback.stats().written) == (4, 4)


@both_packages
def test_a_second_writer_that_cannot_be_set_up_closes_the_first(package, tmp_path):
    """The first one's workers had started."""
    (tmp_path / "taken").write_text("")
    first, second = (FileWriter(tmp_path / name, "pred", "text") for name in ("first", "taken"))
    with pytest.raises(NotADirectoryError):
        predict(package, numbers, first, second)
    assert first.stats().accepted == 0
    assert files_in(tmp_path / "first") == {}


# Writers that fail


@both_packages
def test_a_failing_writer_stops_the_run_with_all_failures(package, tmp_path):
    """The next hand-over raises what failed so far, together; everything else that was accepted is stored."""
    writer = Parked(0, 1, 3)
    writer.opened.set()
    callback = FileWriter(tmp_path, "pred", writer)

    def step(batch, index, loader_index):
        if index == 1:
            until(lambda: callback.stats().pending == 0)
        assert index < 2, "the run goes on"
        return numbers(batch)

    with pytest.raises(WriteError, match=r"3 samples were not written.*1 sample is stored") as raised:
        predict(package, step, callback, data=loader(40))
    error = raised.value
    assert sorted(failure.name for failure in error.failures) == ["0", "1", "3"]
    assert {str(failure.cause) for failure in error.failures} == {f"no way to write {i}" for i in (0, 1, 3)}
    assert error.cause.__class__ is ValueError
    assert not notes(error)
    assert files_in(tmp_path) == files(2)
    assert (callback.stats().accepted, callback.stats().failed) == (4, 3)


@both_packages
def test_failures_after_the_first_one_was_raised_are_attached_to_it(package, tmp_path):
    """What was accepted before the run stopped, and fails later, is told as well."""
    first, others = threading.Event(), threading.Event()

    def write(path, value):
        (others if value else first).wait()
        if value != 2:
            raise ValueError(f"no way to write {value}")
        path.write_text(str(value))

    callback = FileWriter(tmp_path, "pred", write, max_workers=4)

    def step(batch, index, loader_index):
        if index == 1:
            first.set()
            until(lambda: callback.stats().failed == 1)
        return numbers(batch)

    with pytest.raises(WriteError, match=r"no way to write 0") as raised:
        predict(package, step, make_hooks(package, on_exception=others.set), callback)
    assert [failure.name for failure in raised.value.failures] == ["0"]
    assert "2 samples were not written" in notes(raised.value)
    assert "no way to write 1" in notes(raised.value)
    assert "no way to write 3" in notes(raised.value)
    assert files_in(tmp_path) == files(2)


@both_packages
@pytest.mark.parametrize("bar", [False, True], ids=["no bar", "bar"])
def test_failures_at_the_very_end_are_raised_too(package, tmp_path, capsys, bar):
    """Every failure that comes after the last batch, together."""
    writer = Parked(1, 7)
    hooks = make_hooks(package, on_predict_epoch_end=writer.opened.set)
    with pytest.raises(WriteError, match="2 samples were not written") as raised:
        predict(package, numbers, FileWriter(tmp_path, "pred", writer), hooks, enable_progress_bar=bar)
    assert sorted(failure.name for failure in raised.value.failures) == ["1", "7"]
    assert files_in(tmp_path) == files(0, 2, 3, 4, 5, 6)


@both_packages
def test_two_failing_writers_are_both_told(package, tmp_path):
    """The second one's failures are attached to the first one's."""
    writers = [Parked(1), Parked(2)]
    callbacks = [FileWriter(tmp_path / f"{place}", "pred", writer) for place, writer in enumerate(writers)]
    hooks = make_hooks(package, on_predict_epoch_end=lambda: [writer.opened.set() for writer in writers])
    with pytest.raises(WriteError, match="no way to write 1") as raised:
        predict(package, numbers, *callbacks, hooks)
    assert "no way to write 2" in notes(raised.value)
    assert files_in(tmp_path / "0") == files(0, *range(2, 8))
    assert files_in(tmp_path / "1") == files(0, 1, *range(3, 8))


@both_packages
def test_a_failure_can_be_caught_and_the_trainer_used_again(package, tmp_path):
    """The next run begins anew."""
    writer = Parked(1)
    writer.opened.set()
    callback = FileWriter(tmp_path, "pred", writer)
    trainer = make_trainer(package, callback)
    model = make_model(package, numbers)
    with pytest.raises(WriteError):
        trainer.predict(model, loader(4), return_predictions=False)
    assert (callback.stats().written, callback.stats().failed) == (3, 1)
    with pytest.warns(UserWarning, match="will be overwritten"):
        trainer.predict(model, loader(4, first=10), return_predictions=False)
    assert files_in(tmp_path) == {str(number): str(number + 10) for number in range(4)}
    assert (callback.stats().written, callback.stats().failed) == (4, 0)


@both_packages
@pytest.mark.parametrize("failing", [(), (2,)], ids=["alone", "beside a failed sample"])
def test_on_exception_never_raises(package, tmp_path, monkeypatch, failing):
    """A target that cannot even be closed is told beside the user's own exception."""
    closed = LocalTarget.close

    def close(self):
        closed(self)
        raise OSError("the disk is gone")

    monkeypatch.setattr(LocalTarget, "close", close)
    writer = Parked(*failing)
    error = Mine("mine")
    hooks = make_hooks(package, on_exception=writer.opened.set)
    with pytest.raises(Mine) as raised:
        predict(package, numbers_until(1, error), hooks, FileWriter(tmp_path, "pred", writer))
    assert raised.value is error
    assert "OSError: the disk is gone" in notes(error)
    for number in failing:
        assert f"no way to write {number}" in notes(error)
    assert files_in(tmp_path) == files(*({0, 1, 2, 3} - set(failing)))


@both_packages
def test_a_batch_handed_over_after_a_failure_is_refused(package, tmp_path):
    """A model's own hook that hands batches over itself is told so."""
    writer = Parked(0)
    writer.opened.set()
    callback = FileWriter(tmp_path, "pred", writer)
    raised = []

    def hand_over():
        until(lambda: callback.stats().pending == 0)
        for kind in (WriteError, ClosedError):
            with pytest.raises(kind) as one:
                callback.write({"pred": [9]}, None, 0, 0)
            raised.append(one.value)

    predict(package, numbers, callback, make_hooks(package, on_predict_epoch_end=hand_over), data=loader(4))
    assert "no way to write 0" in str(raised[0])
    assert "takes no more samples" in str(raised[1])
    assert files_in(tmp_path) == files(1, 2, 3)


# Ctrl-C


@pytest.fixture
def sigint():
    """Whatever Lightning does to Ctrl-C, it is as before after the test."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    signal.signal(signal.SIGINT, handler)


def interrupted(batch, index, loader_index):
    if index == 2:
        signal.raise_signal(signal.SIGINT)
    return numbers(batch)


def state_of(callback):
    return None if callback._writer is None else callback._writer.state


@both_packages
def test_ctrl_c_stores_what_was_handed_over(package, tmp_path, capsys, sigint):
    """It is told how much that is; Lightning ends with exit code 1, and finds Ctrl-C ignored again as it wants it."""
    writer = Parked()
    callback = FileWriter(tmp_path, "pred", writer, max_workers=1)

    def open_when_closing():
        until(lambda: state_of(callback) == "draining")
        writer.opened.set()

    handlers = []
    hooks = make_hooks(package, on_exception=lambda: handlers.append(signal.getsignal(signal.SIGINT)))
    opening = in_thread(open_when_closing)
    with pytest.raises(SystemExit) as raised:
        predict(package, interrupted, hooks, callback, hooks, data=loader(20))
    opening.result()
    assert raised.value.code == 1
    assert handlers == [signal.SIG_IGN] * 2
    assert files_in(tmp_path) == files(*range(8))
    assert "lighter_async: storing the 8 samples that were handed over; Ctrl-C again drops them\n" in (
        capsys.readouterr().err
    )


@both_packages
def test_ctrl_c_with_nothing_left_to_write_says_nothing(package, tmp_path, capsys, sigint):
    """There is nothing to wait for."""
    writer = Parked()
    writer.opened.set()
    callback = FileWriter(tmp_path, "pred", writer)

    def step(batch, index, loader_index):
        until(lambda: callback.stats().pending == 0)
        return interrupted(batch, index, loader_index)

    with pytest.raises(SystemExit):
        predict(package, step, callback, data=loader(20))
    assert files_in(tmp_path) == files(*range(8))
    assert "lighter_async" not in capsys.readouterr().err


@both_packages
def test_failures_are_told_after_ctrl_c(package, tmp_path, capsys, sigint):
    """Each writer's once, since Lightning does not show the exception that they are attached to."""
    writers = [Parked(1), Parked(2)]
    callbacks = [FileWriter(tmp_path / f"{place}", "pred", writer) for place, writer in enumerate(writers)]
    hooks = make_hooks(package, on_exception=lambda: [writer.opened.set() for writer in writers])
    with pytest.raises(SystemExit):
        predict(package, interrupted, hooks, *callbacks, data=loader(20))
    err = capsys.readouterr().err
    assert [err.count(f"no way to write {number}") for number in (1, 2)] == [1, 1]
    assert err.count("lighter_async: WriteError: 1 sample was not written") == 2


@both_packages
def test_a_second_ctrl_c_drops_the_queue(package, tmp_path, capsys, sigint):
    """What is being written is finished, what is queued is dropped, and the count of it is told."""
    writer = Parked()
    callback = FileWriter(tmp_path, "pred", writer, max_workers=1)

    def interrupt_the_closing():
        until(lambda: state_of(callback) == "draining")
        sigint()
        until(lambda: callback.stats().dropped)
        writer.opened.set()

    handlers = []
    hooks = make_hooks(package, on_exception=lambda: handlers.append(signal.getsignal(signal.SIGINT)))
    interrupting = in_thread(interrupt_the_closing)
    with pytest.raises(SystemExit) as raised:
        predict(package, interrupted, callback, hooks, data=loader(20))
    interrupting.result()
    assert raised.value.code == 1
    stats = callback.stats()
    assert stats.written + stats.dropped == stats.accepted == 8
    assert stats.dropped >= 4
    assert files_in(tmp_path) == files(*range(stats.written))
    err = capsys.readouterr().err
    assert f"lighter_async: interrupted again while closing: {stats.dropped} queued samples were dropped\n" in err
    assert handlers == [signal.SIG_IGN]


@both_packages
def test_ctrl_c_while_the_last_files_are_written(package, tmp_path, capsys, sigint):
    """The loop is over, and predict waits: it is as at any other time."""
    writer = Parked()
    callback = FileWriter(tmp_path, "pred", writer, max_workers=1)

    def open_when_closing():
        until(lambda: state_of(callback) == "draining")
        writer.opened.set()

    ended = threading.Event()
    interrupting = in_thread(lambda: (ended.wait(30), sigint(), open_when_closing()))
    with pytest.raises(SystemExit):
        predict(package, numbers, callback, make_hooks(package, on_predict_epoch_end=ended.set))
    interrupting.result()
    assert files_in(tmp_path) == files(*range(8))
    assert "storing the 8 samples" in capsys.readouterr().err


@both_packages
def test_ctrl_c_after_the_users_own_exception_drops_the_queue(package, tmp_path, sigint):
    """The exception stays the user's, and the count is attached to it."""
    writer = Parked()
    callback = FileWriter(tmp_path, "pred", writer, max_workers=1)

    def interrupt_the_closing():
        until(lambda: state_of(callback) == "draining")
        sigint()
        until(lambda: callback.stats().dropped)
        writer.opened.set()

    interrupting = in_thread(interrupt_the_closing)
    error = Mine("mine")
    with pytest.raises(Mine) as raised:
        predict(package, numbers_until(2, error), callback, data=loader(20))
    interrupting.result()
    assert raised.value is error
    assert f"{callback.stats().dropped} queued samples were dropped" in notes(error)
    assert files_in(tmp_path) == files(*range(callback.stats().written))


# Missing packages


MISSING = """
import sys, warnings
from pathlib import Path

folder, missing, present = Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3]

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import lighter_async

with lighter_async.BackgroundWriter("text", folder / "plain") as writer:
    writer.submit("a", "A")
if not present:
    for name in ("FileWriter", "BaseWriter"):
        try:
            getattr(lighter_async, name)
        except ImportError as error:
            print(error)
    sys.exit()

import importlib, torch
from lighter_async import FileWriter
from torch.utils.data import DataLoader

package = importlib.import_module(present)
assert not set(missing) & set(sys.modules)

class Model(package.LightningModule):
    def predict_step(self, batch, batch_idx):
        return {"pred": batch.tolist()}

trainer = package.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                          enable_model_summary=False, callbacks=[FileWriter(folder / "out", "pred", "text")])
trainer.predict(Model(), DataLoader(torch.arange(6), batch_size=4), return_predictions=False)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("missing", "present"), [("lightning", "pytorch_lightning"), ("pytorch_lightning", "lightning.pytorch")]
)
def test_one_of_the_two_packages_is_enough(tmp_path, missing, present):
    """The other one is not imported, and not missed."""
    done = run_script(MISSING, tmp_path, missing, present)
    assert done.returncode == 0, done.stderr
    assert files_in(tmp_path / "out") == {f"{number}.txt": str(number) for number in range(6)}


def test_without_lightning_everything_else_works(tmp_path):
    """Only the callbacks are missing, and their error tells the remedy."""
    done = run_script(MISSING, tmp_path, "lightning pytorch_lightning", "")
    assert done.returncode == 0, done.stderr
    assert files_in(tmp_path) == {"plain/a.txt": "A"}
    assert done.stdout.count("pip install 'lighter-async[lightning]'") == 2
    assert done.stdout.count("without Lightning use BackgroundWriter") == 2
