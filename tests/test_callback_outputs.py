"""`FileWriter` with several outputs of each sample: which files they become, and when a sample is done."""

import pytest
import torch
from lightning_models import both_packages, lightning_warnings, loader, predict, predict_outputs
from PIL import Image
from test_callback_targets import Rows
from torch.utils.data import DataLoader

from lighter_async import DuplicateNameError, FileWriter, WriteError, encoder, open_results, pending, read_manifest
from lighter_async.cli import main

pytestmark = [lightning_warnings, pytest.mark.usefixtures("one_core")]

BOTH = {"mask": "image_2d", "logits": "tensor"}


def outputs(batch, *_):
    """A mask and logits that tell which sample they are of, and its name."""
    return {
        "mask": batch.to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2),
        "logits": batch.reshape(-1, 1) * 10.0,
        "label": [f"label {number}" for number in batch.tolist()],
        "id": [f"case/n{number}" for number in batch.tolist()],
        "other": batch,
    }


def names_in(directory):
    """The results below a directory."""
    return {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and ".lighter-async" not in path.parts
    }


def files_of(*samples):
    return {f"{sample}.{output}" for sample in samples for output in ("mask.png", "logits.pt")}


# What is written


@both_packages
def test_each_output_becomes_a_file_beside_the_others(package, tmp_path):
    """Its key stands before its suffix, samples are numbered, and what the dict does not have is not written."""
    callback = FileWriter(tmp_path, BOTH)
    predict(package, outputs, callback)
    assert names_in(tmp_path) == files_of(*range(8))
    for number in range(8):
        with Image.open(tmp_path / f"{number}.mask.png") as image:
            assert image.getpixel((0, 0)) == number
        assert torch.load(tmp_path / f"{number}.logits.pt").item() == number * 10
    assert callback.stats().written == 8


@both_packages
def test_samples_of_several_outputs_have_names_of_ones_own(package, tmp_path):
    """They are recorded once for each output, and read back by it."""
    predict(package, outputs, FileWriter(tmp_path, BOTH, name_key="id"))
    assert names_in(tmp_path) == files_of(*(f"case/n{number}" for number in range(8)))
    assert set(read_manifest(tmp_path).counted()) == {("image_2d", "mask"), ("tensor", "logits")}
    assert open_results(tmp_path, key="logits")["case/n3"].item() == 30


@both_packages
def test_a_lone_sample_is_a_batch_of_one(package, tmp_path):
    """A text, a 0-d tensor and any object are one sample of each output."""
    batch = {"label": "a cat", "score": torch.tensor(0.5), "id": "a"}
    predict_outputs(package, [batch], FileWriter(tmp_path, {"label": "text", "score": "tensor"}, name_key="id"))
    assert (tmp_path / "a.label.txt").read_text() == "a cat"
    assert torch.load(tmp_path / "a.score.pt").item() == 0.5


@both_packages
def test_a_target_that_stores_elsewhere_takes_several_outputs(package):
    """Under the names that files would have."""
    target = Rows()
    predict(package, outputs, FileWriter(target, {"label": "text", "id": "text"}), data=loader(2))
    assert target.samples == {
        "0.label.txt": "label 0",
        "1.label.txt": "label 1",
        "0.id.txt": "case/n0",
        "1.id.txt": "case/n1",
    }


@both_packages
def test_each_output_has_options_of_its_own(package, tmp_path):
    """A dict with a dict for each."""
    callback = FileWriter(tmp_path, BOTH, writer_options={"mask": {"compress_level": 0}})
    predict(package, outputs, callback)
    assert names_in(tmp_path) == files_of(*range(8))
    with pytest.raises(ValueError, match="there is no output 'score'"):
        FileWriter(tmp_path, BOTH, writer_options={"score": {}})


@encoder(suffix=".odd")
def odd_only(value):
    if value.item() % 2 == 0:
        raise ValueError("an even number")
    return b"odd"


@both_packages
def test_a_sample_one_of_whose_outputs_fails_is_not_stored(package, tmp_path):
    """Neither is its other output, and predict raises."""
    with pytest.raises(WriteError, match="an even number"):
        predict(package, outputs, FileWriter(tmp_path, {"label": "text", "other": odd_only}), data=loader(4))
    assert names_in(tmp_path) == {"1.label.txt", "1.other.odd", "3.label.txt", "3.other.odd"}


# What is refused


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ([BOTH, "tensor"], TypeError, "leave writer_fn out"),
        ([BOTH, None, "id", "more"], TypeError, "positional arguments"),
        ([{}], ValueError, "at least one"),
        ([{"a/b": "tensor"}], ValueError, "cannot be a part of a file name"),
        ([{"mask": lambda path, value: None}], TypeError, "several outputs need encoders"),
        ([{"mask": "unheard-of"}], ValueError, "unheard-of"),
        (["mask"], TypeError, "writer_fn must be a registered name"),
    ],
)
def test_a_dict_that_says_no_outputs_is_refused_at_once(tmp_path, arguments, kind, message):
    """With the way out, and nothing is made."""
    with pytest.raises(kind, match=message):
        FileWriter(tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


BATCH = {"label": ["x", "y"], "score": [1, 2], "id": ["a", "b"]}


@both_packages
@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        ({"score": None}, KeyError, r"expected key 'score' \(value_key\)"),
        ({"score": [1, 2, 3]}, ValueError, "there are 2 under 'label' and 3 under 'score'"),
        ({"id": ["a"]}, ValueError, r"value key 'label' \(2\) and name key 'id' \(1\)"),
        ({"id": ["c", "c"]}, DuplicateNameError, "'c'"),
    ],
    ids=["no key", "counts", "names", "twice"],
)
def test_outputs_that_do_not_go_together_stop_the_run(package, tmp_path, bad, kind, message):
    """The error names the output, and what was handed over before is stored."""
    broken = {key: value for key, value in {**BATCH, "id": ["c", "d"], **bad}.items() if value is not None}
    callback = FileWriter(tmp_path, {"label": "text", "score": "text"}, name_key="id")
    with pytest.raises(kind, match=message):
        predict_outputs(package, [BATCH, broken], callback)
    assert names_in(tmp_path) == {f"{name}.{output}.txt" for name in "ab" for output in ("label", "score")}


# Going on


@both_packages
@pytest.mark.parametrize("name_key", [None, "id"])
def test_a_run_goes_on_with_samples_of_several_outputs(package, tmp_path, capsys, name_key):
    """What an earlier run has stored is left out before it is computed, or where it comes by."""
    data = torch.arange(10)
    names = None if name_key is None else [f"case/n{number}" for number in range(10)]
    callback = FileWriter(tmp_path, BOTH, name_key=name_key, resume=True)
    predict(package, outputs, callback, data=DataLoader(data, batch_size=3), limit_predict_batches=2)
    assert list(pending(data, tmp_path, names=names)) == [6, 7, 8, 9]
    predict(package, outputs, callback, data=DataLoader(data, batch_size=3))
    assert "resuming: 6 of 10 are stored" in capsys.readouterr().err
    assert callback.stats().written == 4
    assert names_in(tmp_path) == files_of(*(names or range(10)))
    assert list(pending(data, tmp_path, names=names)) == []
    predict(package, outputs, callback, data=DataLoader(data, batch_size=3))
    assert callback.stats().accepted == 0


@both_packages
@pytest.mark.parametrize("name_key", [None, "id"])
def test_a_sample_is_done_when_all_its_outputs_are(package, tmp_path, capsys, name_key):
    """One that lacks an output is written again as a whole."""
    data = torch.arange(6)
    names = None if name_key is None else [f"case/n{number}" for number in range(6)]
    callback = FileWriter(tmp_path, BOTH, name_key=name_key, resume=True)
    predict(package, outputs, callback, data=DataLoader(data, batch_size=3))
    lost = tmp_path / ("4.logits.pt" if names is None else "case/n4.logits.pt")
    lost.unlink()
    assert main(["verify", str(tmp_path), "--repair"]) == 0
    assert list(pending(data, tmp_path, names=names)) == [4]
    capsys.readouterr()
    predict(package, outputs, callback, data=DataLoader(data, batch_size=3))
    assert "resuming: 5 of 6 are stored" in capsys.readouterr().err
    assert callback.stats().written == 1
    assert torch.load(lost).item() == 40
    assert main(["verify", str(tmp_path)]) == 0
    assert list(pending(data, tmp_path, names=names)) == []


@both_packages
def test_what_was_stored_and_not_recorded_is_taken_over_where_no_output_is_missing(package, tmp_path):
    """As if the process had been killed between the two."""
    data = torch.arange(6)
    callback = FileWriter(tmp_path, BOTH, resume=True)
    predict(package, outputs, callback, data=loader(6))
    manifest = tmp_path / ".lighter-async" / "manifest-0.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if not line.startswith('{"samples"')))
    (tmp_path / "3.logits.pt").unlink()
    assert list(pending(data, tmp_path)) == [3]
    predict(package, outputs, callback, data=loader(6))
    assert callback.stats().written == 1
    assert names_in(tmp_path) == files_of(*range(6))
    assert list(pending(data, tmp_path)) == []
    assert main(["verify", str(tmp_path)]) == 0


@both_packages
def test_an_output_that_is_added_makes_all_samples_pending(package, tmp_path):
    """Since none has it, though the other one is stored."""
    data = torch.arange(4)
    predict(package, outputs, FileWriter(tmp_path, {"mask": "image_2d"}), data=loader(4))
    assert list(pending(data, tmp_path)) == []
    callback = FileWriter(tmp_path, BOTH, resume=True)
    predict(package, outputs, callback, data=loader(4))
    assert callback.stats().written == 4
    assert names_in(tmp_path) == files_of(*range(4))
    assert list(pending(data, tmp_path)) == []


@both_packages
@pytest.mark.parametrize(
    "later",
    [("mask", "npy"), ("other", "image_2d"), (BOTH,), ({"mask": "npy"},)],
    ids=["format", "value", "another output", "format of an output"],
)
def test_samples_that_are_stored_only_as_something_else_are_not_left_out_without_a_word(package, tmp_path, later):
    """`pending` knows no writer, and a script may have another format or one more output than the run before it."""
    data = torch.arange(4)
    predict(package, outputs, FileWriter(tmp_path, "mask", "image_2d"), data=loader(4))
    callback = FileWriter(tmp_path, *later, resume=True)
    missing = DataLoader(data, batch_size=2, sampler=pending(data, tmp_path))
    with pytest.warns(UserWarning, match=r"pending\(\) leaves out 4 items .* only 0 as this FileWriter stores them"):
        predict(package, outputs, callback, data=missing)
    assert callback.stats().accepted == 0


@both_packages
def test_samples_that_are_stored_under_numbers_are_not_left_out_without_a_word_where_they_have_names(package, tmp_path):
    """The files that the later run is to store are not there."""
    data = torch.arange(4)
    predict(package, outputs, FileWriter(tmp_path, "other", "tensor"), data=loader(4))
    callback = FileWriter(tmp_path, "other", "tensor", name_key="id", resume=True)
    missing = DataLoader(data, batch_size=2, sampler=pending(data, tmp_path))
    with pytest.warns(UserWarning, match=r"pending\(\) leaves out 4 items .* only 0 as .* under a number in place of"):
        predict(package, outputs, callback, data=missing)


@both_packages
def test_another_format_is_computed_where_pending_is_asked_for_it(package, tmp_path):
    """As the warning says; and nothing is warned of then, nor when it goes on."""
    data = torch.arange(4)
    predict(package, outputs, FileWriter(tmp_path, "other", "tensor"), data=loader(4))
    callback = FileWriter(tmp_path, "other", "npy", resume=True)
    for stop, written in ((1, 2), (2, 2)):
        missing = DataLoader(data, batch_size=2, sampler=pending(data, tmp_path, writer="npy"))
        predict(package, outputs, callback, data=missing, limit_predict_batches=stop)
        assert callback.stats().written == written
    assert names_in(tmp_path) == {f"{number}{suffix}" for number in range(4) for suffix in (".pt", ".npy")}


@both_packages
@pytest.mark.parametrize("first", ["one", "several"])
def test_a_file_of_another_writer_is_not_replaced(package, tmp_path, first):
    """The sample `a.label` in text, and the output `label` of the sample `a`, would be one file."""
    cases = {
        "one": ({"other": "of a.label", "id": "a.label"}, {"value_key": "other", "writer_fn": "text"}),
        "several": ({"label": "of a", "id": "a"}, {"value_key": {"label": "text"}}),
    }
    (second,) = cases.keys() - {first}
    (earlier, writes), (later, writes_later) = cases[first], cases[second]
    predict_outputs(package, [earlier], FileWriter(tmp_path, name_key="id", **writes))
    before = (tmp_path / "a.label.txt").read_text()
    callback = FileWriter(tmp_path, name_key="id", resume=True, **writes_later)
    with pytest.raises(DuplicateNameError, match=r"'a\.label\.txt' is a sample of writer 'text'"):
        predict_outputs(package, [later], callback)
    assert (tmp_path / "a.label.txt").read_text() == before


@both_packages
def test_two_items_of_one_name_are_refused_when_a_run_goes_on(package, tmp_path):
    """Which of them is stored cannot be told, whatever the output."""
    same = lambda batch, *_: {**outputs(batch), "id": ["same"] * len(batch)}  # noqa: E731
    predict(package, same, FileWriter(tmp_path, BOTH, name_key="id"), data=loader(1))
    with pytest.raises(DuplicateNameError, match="'same'"):
        predict(package, same, FileWriter(tmp_path, BOTH, name_key="id", resume=True), data=loader(2, 1))
