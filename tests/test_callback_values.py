"""What a model's outputs may be, and which files become of them, in real predictions.

What is decided before a worker has a sample is tested with threads, which start sooner than helper processes.
"""

import asyncio
import functools
import warnings
from collections import UserDict, UserList
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_models import Recorder, both_packages, files_in, lightning_warnings, loader, predict, predict_outputs
from PIL import Image

from lighter_async import DuplicateNameError, Encoder, FileWriter, InvalidNameError, writer_registry
from lighter_async.callback.names_and_samples import names_of, samples_of

pytestmark = lightning_warnings

THING = SimpleNamespace(number=7)


def same(left, right):
    """Whether two values are equal and of one type, tensors and arrays by what they hold."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return isinstance(right, np.ndarray) and left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


@both_packages
@pytest.mark.parametrize(
    ("value", "samples"),
    [
        pytest.param(torch.arange(6).view(3, 2), [torch.tensor([i, i + 1]) for i in (0, 2, 4)], id="batch"),
        pytest.param(torch.tensor([1.5, 2.5]), [torch.tensor(1.5), torch.tensor(2.5)], id="batch of scalars"),
        pytest.param(torch.ones(1, 3), [torch.ones(3)], id="batch of one"),
        pytest.param(torch.tensor(7), [torch.tensor(7)], id="0-d tensor"),
        pytest.param(torch.empty(0, 3), [], id="empty batch"),
        pytest.param("a text", ["a text"], id="text"),
        pytest.param("", [""], id="empty text"),
        pytest.param(b"bytes", [b"bytes"], id="bytes"),
        pytest.param(bytearray(b"bytes"), [bytearray(b"bytes")], id="bytearray"),
        pytest.param(THING, [THING], id="object"),
        pytest.param(None, [None], id="None"),
        pytest.param(3, [3], id="number"),
        pytest.param({"a": 1}, [{"a": 1}], id="mapping"),
        pytest.param({3}, [{3}], id="set"),
        pytest.param(np.arange(6).reshape(3, 2), [np.array([i, i + 1]) for i in (0, 2, 4)], id="array"),
        pytest.param(np.array([1.5, 2.5]), [np.array(1.5), np.array(2.5)], id="array of numbers"),
        pytest.param(np.array(7), [np.array(7)], id="0-d array"),
        pytest.param(np.empty((0, 3)), [], id="empty array"),
        pytest.param([torch.ones(2), torch.ones(3, 4)], [torch.ones(2), torch.ones(3, 4)], id="list of tensors"),
        pytest.param([[1], "two", None], [[1], "two", None], id="list"),
        pytest.param((torch.zeros(1), "x"), [torch.zeros(1), "x"], id="tuple"),
        pytest.param([torch.ones(2, 2)], [torch.ones(2, 2)], id="list of one batch"),
        pytest.param([np.ones(2), (np.ones(3), torch.ones(1))], [np.ones(2), (np.ones(3), torch.ones(1))], id="nested"),
        pytest.param(UserList(["a", "b"]), ["a", "b"], id="other sequence"),
        pytest.param(range(3), [0, 1, 2], id="range"),
        pytest.param([], [], id="empty list"),
    ],
)
def test_which_samples_a_value_holds(package, tmp_path, value, samples):
    """A batch is one sample per row, a sequence one per item, everything else one sample, numbered from 0."""
    recorder = Recorder(tmp_path)
    predict_outputs(package, [{"pred": value}], FileWriter(tmp_path, "pred", recorder))
    assert sorted(recorder.values) == [str(number) for number in range(len(samples))]
    for number, sample in enumerate(samples):
        assert same(recorder.values[str(number)], sample)


def test_only_batches_and_sequences_are_split():
    """A value is split only where it is a tensor or array with a batch dimension, or a sequence that is no text."""
    assert len(samples_of(torch.zeros(4, 2))) == len(samples_of(np.zeros((4, 2)))) == 4
    for lone in (torch.zeros(()), "text", b"bytes", np.zeros(()), {"a": 1}, None, iter([1, 2])):
        assert len(samples_of(lone)) == 1


@both_packages
@pytest.mark.parametrize("nothing", [None, {}, [], (), ""], ids=repr)
def test_nothing_is_written_for_a_batch_without_outputs(package, tmp_path, nothing):
    """None and empty outputs are no error, and the numbers of their items stay free."""
    outputs = [{"pred": ["a"]}, nothing, {"pred": ["b"]}]
    callback = FileWriter(tmp_path, "pred", "text", backend="thread")
    predict_outputs(package, outputs, callback)
    assert files_in(tmp_path) == {"0.txt": "a", "2.txt": "b"}
    assert callback.stats().accepted == 2


@both_packages
@pytest.mark.parametrize("outputs", [UserDict(pred=["a", "b"]), {"pred": ["a", "b"], 1: None}], ids=["mapping", "dict"])
def test_outputs_are_any_mapping(package, tmp_path, outputs):
    """What predict_step returns needs to have the key only."""
    predict_outputs(package, [outputs], FileWriter(tmp_path, "pred", "text", backend="thread"))
    assert files_in(tmp_path) == {"0.txt": "a", "1.txt": "b"}


@both_packages
@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        pytest.param({"logits": 1, "id": 2}, KeyError, r"'pred' \(value_key\).*'logits', 'id'", id="no value key"),
        pytest.param({"pred": 1, 5: 2}, KeyError, r"'id' \(name_key\).*'pred', 5", id="no name key"),
        pytest.param(torch.zeros(2), TypeError, "'pred'.*got Tensor", id="tensor"),
        pytest.param([torch.zeros(2)], TypeError, "'pred'.*got list", id="list"),
        pytest.param(3, TypeError, "'pred'.*got int", id="number"),
        pytest.param({"pred": [1, 2], "id": ["c"]}, ValueError, r"Length mismatch.*'pred' \(2\).*'id' \(1\)", id="few"),
        pytest.param({"pred": torch.zeros(1), "id": ["c", "d"]}, ValueError, "Length mismatch.*1.*2", id="many"),
        pytest.param({"pred": [1, 2], "id": "cd"}, ValueError, r"Length mismatch.*\(2\).*\(1\)", id="one text"),
        pytest.param({"pred": [1, 2], "id": []}, ValueError, r"Length mismatch.*\(2\).*\(0\)", id="no names"),
        pytest.param({"pred": [1, 2], "id": ["c", None]}, TypeError, "name 1 .*'id'.*None", id="None"),
        pytest.param({"pred": [1], "id": None}, TypeError, "name 0 .*'id'.*None", id="names None"),
        pytest.param({"pred": [1], "id": [["c"]]}, TypeError, "name 0 .*list", id="list as a name"),
        pytest.param({"pred": [1, 2], "id": torch.zeros(2, 1)}, TypeError, r"name 0 .*\(2, 1\).*list", id="2-d names"),
        pytest.param({"pred": [1], "id": [torch.zeros(1)]}, TypeError, "name 0 .*Tensor", id="1-d tensor as a name"),
        pytest.param(
            {"pred": [1], "id": np.array(["c", "d"])}, ValueError, r"Length mismatch.*\(1\).*\(2\)", id="array"
        ),
        pytest.param({"pred": [1], "id": np.array([["c"]])}, TypeError, "name 0 .*list", id="2-d array of names"),
        pytest.param({"pred": [1, 2], "id": ["c", "../d"]}, InvalidNameError, r"'\.\./d' climbs", id="climbing"),
        pytest.param({"pred": [1, 2], "id": ["c", "/d"]}, InvalidNameError, "'/d' is an absolute", id="absolute"),
        pytest.param({"pred": [1, 2], "id": ["c", ""]}, InvalidNameError, "empty name", id="empty"),
        pytest.param({"pred": [1, 2], "id": ["c", "c"]}, DuplicateNameError, "named 'c'", id="twice in a batch"),
        pytest.param({"pred": [1, 2], "id": ["c", "a"]}, DuplicateNameError, "named 'a'", id="twice in a run"),
    ],
)
def test_wrong_outputs_stop_the_run_and_lose_nothing(package, tmp_path, bad, kind, message):
    """The error is raised by predict; what was handed over before is stored, and of the wrong batch nothing."""
    callback = FileWriter(tmp_path, "pred", "text", "id", backend="thread")
    with pytest.raises(kind, match=message):
        predict_outputs(package, [{"pred": ["A", "B"], "id": ["a", "b"]}, bad, {"pred": "C", "id": "c"}], callback)
    assert files_in(tmp_path) == {"a.txt": "A", "b.txt": "B"}
    assert (callback.stats().accepted, callback.stats().written) == (2, 2)


@both_packages
@pytest.mark.parametrize(
    ("names", "files"),
    [
        pytest.param(["a", "b"], ["a", "b"], id="texts"),
        pytest.param(("x/a", "x/y/b"), ["x/a", "x/y/b"], id="folders"),
        pytest.param(torch.tensor([30, 4]), ["30", "4"], id="tensor"),
        pytest.param([torch.tensor(30), torch.tensor(4)], ["30", "4"], id="scalar tensors"),
        pytest.param(torch.tensor([0.5, 2.0]), ["0.5", "2.0"], id="float tensor"),
        pytest.param([30, 4], ["30", "4"], id="ints"),
        pytest.param([np.int64(30), np.array(4)], ["30", "4"], id="numpy scalars"),
        pytest.param(np.array(["x/a", "b"]), ["x/a", "b"], id="array of texts"),
        pytest.param(np.array([30, 4]), ["30", "4"], id="array of ints"),
        pytest.param(np.array(["x/a", 4], object), ["x/a", "4"], id="array of objects"),
        pytest.param(np.array([b"a", b"b"]), ["a", "b"], id="array of bytes"),
        pytest.param([Path("x/a"), Path("b")], ["x/a", "b"], id="paths"),
        pytest.param([b"a", "b"], ["a", "b"], id="bytes"),
        pytest.param(UserList(["a", 5]), ["a", "5"], id="mixed, other sequence"),
        pytest.param(["case.1", "case.2"], ["case.1", "case.2"], id="dots"),
        pytest.param(["ü", "日本"], ["ü", "日本"], id="not ASCII"),
    ],
)
def test_names_become_files(package, tmp_path, names, files):
    """Names may hold folders and dots, and scalars count as their value."""
    predict_outputs(
        package, [{"pred": ["A", "B"], "id": names}], FileWriter(tmp_path, "pred", "text", "id", backend="thread")
    )
    assert files_in(tmp_path) == {f"{files[0]}.txt": "A", f"{files[1]}.txt": "B"}


@both_packages
def test_a_name_that_ends_in_the_suffix_keeps_it(package, tmp_path):
    """The suffix is not appended twice."""
    predict_outputs(package, [{"pred": "A", "id": "a.txt"}], FileWriter(tmp_path, "pred", "text", "id"))
    assert files_in(tmp_path) == {"a.txt": "A"}


@pytest.mark.parametrize(("lone", "name"), [("a/b", "a/b"), (torch.tensor(5), "5"), (Path("a"), "a"), (5, "5")])
def test_a_lone_name_is_one_name(lone, name):
    """It goes with a lone value."""
    assert names_of(lone, "id") == [name]


@both_packages
def test_each_builtin_writer_stores_what_was_predicted(package, tmp_path):
    """Four FileWriters on one trainer: tensors, both kinds of images, and texts; a tensor file holds its row only."""
    torch.manual_seed(0)
    batch = torch.rand(4, 3, 5, 8, 200)
    kinds = {"tensor": "volume", "image_3d": "volume", "image_2d": "slice", "text": "slice"}
    predict_outputs(
        package,
        [{"volume": batch[index : index + 2], "slice": batch[index : index + 2, :, 0]} for index in range(2)],
        *(FileWriter(tmp_path / kind, key, kind) for kind, key in kinds.items()),
    )
    for number, row in enumerate([0, 1, 1, 2]):
        volume = batch[row]
        file = tmp_path / "tensor" / f"{number}.pt"
        assert same(torch.load(file), volume)
        assert file.stat().st_size < volume.nbytes + 4096
        pixels = (volume.clamp(0, 1) * 255).to(torch.uint8)
        with Image.open(tmp_path / "image_3d" / f"{number}.png") as image:
            assert np.array_equal(np.asarray(image), pixels.reshape(3, 40, 200).permute(1, 2, 0).numpy())
        with Image.open(tmp_path / "image_2d" / f"{number}.png") as image:
            assert np.array_equal(np.asarray(image), pixels[:, 0].permute(1, 2, 0).numpy())
        assert (tmp_path / "text" / f"{number}.txt").read_text() == str(volume[:, 0])


@both_packages
def test_a_model_may_reuse_its_output_buffer(package, tmp_path):
    """What is handed over is copied before the next step overwrites it, for every kind of writer."""
    buffer = torch.empty(4, 1000)
    recorder = Recorder(tmp_path / "function")

    def step(batch, index, loader_index):
        buffer.copy_(batch[:, None].expand(4, 1000))
        return {"pred": buffer}

    tensors = FileWriter(tmp_path / "tensor", "pred", "tensor", max_workers=1)
    predict(package, step, tensors, FileWriter(tmp_path / "function", "pred", recorder), data=loader(40, 4))
    for number in range(40):
        assert same(torch.load(tmp_path / "tensor" / f"{number}.pt"), torch.full((1000,), float(number)))
        assert same(recorder.values[str(number)], torch.full((1000,), float(number)))


@both_packages
def test_tensors_that_require_gradients_are_detached(package, tmp_path):
    """A model that predicts with gradients enabled is written all the same."""

    def step(batch, index, loader_index):
        with torch.enable_grad(), torch.inference_mode(False):
            return {"pred": torch.nn.Parameter(torch.ones(2, 3)) * 2}

    recorder = Recorder(tmp_path)
    predict(package, step, FileWriter(tmp_path, "pred", recorder), data=loader(1, 1))
    assert [value.requires_grad for value in recorder.values.values()] == [False, False]


# Writers of one's own


def encode_doubled(value, *, times=2):
    return str(value.item() * times).encode()


async def write_async(path, value):
    await asyncio.sleep(0)
    path.with_name(path.name + ".doubled").write_text(str(value.item() * 2))


def write_plain(path, value, *, times=2):
    path.with_name(path.name + ".doubled").write_text(str(value.item() * times))


class Writes:
    def __call__(self, path, value):
        write_plain(path, value)

    async def call(self, path, value):
        await write_async(path, value)


@both_packages
@pytest.mark.parametrize(
    ("writer", "times"),
    [
        pytest.param(Encoder(encode_doubled, suffix=".doubled"), 2, id="encoder"),
        pytest.param(functools.partial(Encoder(encode_doubled, suffix=".doubled"), times=3), 3, id="encoder's partial"),
        pytest.param(write_plain, 2, id="function"),
        pytest.param(functools.partial(write_plain, times=3), 3, id="partial"),
        pytest.param(write_async, 2, id="async function"),
        pytest.param(functools.partial(write_async), 2, id="async partial"),
        pytest.param(Writes(), 2, id="callable object"),
        pytest.param(Writes().call, 2, id="async method"),
        pytest.param(lambda path, value: write_plain(path, value), 2, id="lambda"),
    ],
)
@pytest.mark.parametrize("by_name", [False, True], ids=["passed", "registered"])
def test_every_kind_of_writer(package, tmp_path, monkeypatch, writer, times, by_name):
    """Encoders and functions, plain and async, passed or registered by name."""
    monkeypatch.setattr(writer_registry, "_registry", dict(writer_registry._registry))
    if by_name:
        writer_registry.register("mine")(writer)
    callback = FileWriter(tmp_path, "pred", "mine" if by_name else writer)
    predict(package, lambda batch, *_: {"pred": batch}, callback)
    assert files_in(tmp_path) == {f"{number}.doubled": str(number * times) for number in range(8)}


@both_packages
def test_a_builtin_with_options(package, tmp_path):
    """`functools.partial` of a built-in writer sets its options."""
    writer = functools.partial(writer_registry.get("text"), suffix=".log", encoding="utf-16")
    predict_outputs(package, [{"pred": ["ü"]}], FileWriter(tmp_path, "pred", writer))
    assert (tmp_path / "0.log").read_text(encoding="utf-16") == "ü"


@both_packages
def test_a_function_gets_the_final_path_and_a_tensor_of_its_own(package, tmp_path):
    """The path has no suffix and its folder exists; the tensor may be kept, changed and saved: it is the row alone."""
    seen = {}

    def write(path, value):
        assert path.parent.is_dir()
        seen[path] = (value, value.untyped_storage().nbytes())
        torch.save(value, path)
        value.zero_()

    batch = torch.ones(4, 1000)
    outputs = [{"pred": batch, "id": [f"{index}/{row}.x" for row in range(4)]} for index in range(3)]
    predict_outputs(package, outputs, FileWriter(tmp_path, "pred", write, "id"))
    assert set(seen) == {tmp_path / f"{index}" / f"{row}.x" for index in range(3) for row in range(4)}
    for path, (value, storage) in seen.items():
        assert storage == 4000
        assert path.stat().st_size < 4000 + 4096
        assert same(torch.load(path), torch.ones(1000))
        assert same(value, torch.zeros(1000))
    assert same(batch, torch.ones(4, 1000))


@pytest.mark.parametrize("wrong", [None, 3, ["tensor"], object()], ids=["None", "number", "list", "object"])
def test_a_writer_that_is_neither_a_name_nor_callable_is_refused(tmp_path, wrong):
    """At once, not in the run."""
    with pytest.raises(TypeError, match="registered name or a callable"):
        FileWriter(tmp_path, "pred", wrong)


def test_an_unknown_name_is_refused_with_those_there_are(tmp_path):
    """At once, not in the run."""
    with pytest.raises(ValueError, match=r"'pgn' is not registered.*image_2d.*tensor"):
        FileWriter(tmp_path, "pred", "pgn")


@both_packages
@pytest.mark.parametrize(
    ("value", "is_told", "count"),
    [
        (lambda rows: {"boxes": rows.repeat(1, 4), "scores": rows.numpy()[:, 0]}, True, 3),
        (lambda rows: [{"boxes": row.repeat(4)} for row in rows], False, 6),
        (lambda rows: {"boxes": rows.repeat(2, 4)}, False, 3),  # of all items together
        (lambda rows: {"boxes": rows.repeat(1, 4), "mean": rows.float().mean()}, False, 3),
        (lambda rows: {"label": "x"}, False, 3),
    ],
    ids=["a batch each", "a list of dicts", "other rows", "a number", "no tensors"],
)
def test_a_dict_of_batches_is_told_to_be_one_sample(package, tmp_path, value, is_told, count):
    """Once: a sample for each item was meant, whose numbers would be the names."""
    writer = FileWriter(tmp_path, "found", "tensor", backend="thread")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predict(package, lambda batch, *_: {"found": value(batch[:, None])}, writer, data=loader(6, batch_size=2))
    told = [str(one.message) for one in caught if "as one sample" in str(one.message)]
    assert len(told) == is_told
    assert not told or "the dict under 'found' as one sample, and each tensor in it has as many rows as" in told[0]
    assert len(list(tmp_path.glob("*.pt"))) == count
