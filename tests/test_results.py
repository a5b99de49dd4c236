"""Reading back what was stored: values, what counts, what is refused, and what a data loader makes of it."""

import io
import json
import os
import pickle
import re
import subprocess
import sys
import textwrap
import zlib
from multiprocessing import resource_tracker

import numpy as np
import pytest
import test_values
import torch
from test_values import CASES, SHAPES, check_same, formula

from lighter_async import (
    ArrayTarget,
    BackgroundWriter,
    LocalTarget,
    Origin,
    ReadError,
    Run,
    WriteError,
    encoder,
    open_results,
    pending,
    write_image_2d,
    write_image_3d,
    write_text,
    writer_registry,
)
from lighter_async.manifest import keys
from lighter_async.manifest.block import Block
from lighter_async.store import DirectoryStore, Place

pytestmark = [*test_values.pytestmark, pytest.mark.usefixtures("one_core")]


def store(folder, values, writer="tensor", *, indices=None, loader=0, **options):
    """Store some values by name."""
    with BackgroundWriter(writer, folder, backend="thread", max_workers=1, **options) as background:
        origin = None if indices is None else Origin(indices, loader=loader)
        background.submit_batch(list(values), list(values.values()), origin=origin)


@pytest.fixture(scope="module")
def tracker():
    """The process that spawned processes share, which stays for this one's life."""
    resource_tracker.ensure_running()


@pytest.fixture
def registered():
    """The registry, as it was afterwards."""
    before = dict(writer_registry._registry)
    yield writer_registry
    writer_registry._registry.clear()
    writer_registry._registry.update(before)


# Values


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.tensor is None])
def test_a_tensor_file_is_read_as_the_value_that_was_written(tmp_path, name):
    """The same bits, dtype, shape and kind, three times over; what has to be unpickled only with trust."""
    case = CASES[name]
    value = case.make(SHAPES["tensor"])
    store(tmp_path, {"a": value, "b": value, "c": value})
    results = open_results(tmp_path)
    if not case.weights_only:
        with pytest.raises(ReadError, match=r"sample 'a' \('a.pt' in .* runs code .* trust=True") as caught:
            results["a"]
        assert (caught.value.name, caught.value.file, caught.value.trouble) == ("a", "a.pt", "not decoded")
        results = open_results(tmp_path, trust=True)
    for one in results:
        check_same(results[one], value)


@pytest.mark.parametrize("writer", ["image_2d", "image_3d"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.image is None])
def test_an_image_file_is_read_as_its_pixels(tmp_path, writer, name):
    """A writable array in the layout of the value; written again, it gives the same pixels."""
    value = CASES[name].make(SHAPES[writer])
    store(tmp_path / "one", {"a": value}, writer)
    pixels = open_results(tmp_path / "one")["a"]
    assert type(pixels) is np.ndarray
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, formula(value).numpy(), strict=True)
    store(tmp_path / "two", {"a": pixels}, writer)
    np.testing.assert_array_equal(open_results(tmp_path / "two")["a"], pixels)


@pytest.mark.parametrize("writer", ["image_3d", "nifti", "npy", "tiff", "webp", "row"])
def test_an_array_of_a_class_of_its_own_is_read_as_any_array(tmp_path, writer):
    """As a memory map is: its shape is recorded, and its rows may be those of an array."""
    shape = (3, 1, 4, 5) if writer == "webp" else (3, 1, 4, 5, 6)
    mapped = np.lib.format.open_memmap(tmp_path / "map.npy", "w+", np.uint8, shape)
    mapped[:] = np.random.default_rng(0).integers(0, 255, shape)
    target = ArrayTarget(tmp_path / "a.npy", rows=3) if writer == "row" else LocalTarget(tmp_path / "out")
    options = {"lossless": True} if writer == "webp" else {}
    with BackgroundWriter(writer, target, writer_options=options) as background:
        background.submit_batch(["0", "1"], mapped[:2], origin=Origin([0, 1]))
        background.submit("2", mapped[2], origin=Origin([2]))
    results = open_results(target)
    for number in range(3):
        found = results[str(number)]
        found = found["image"] if writer == "nifti" else found
        np.testing.assert_array_equal(found, np.asarray(mapped[number]), strict=True)
        assert results.record(str(number)).shape == shape[1:]


def test_rows_of_a_class_that_has_rows_of_its_own_are_those(tmp_path):
    """A row of `numpy.matrix` has two dimensions."""
    with BackgroundWriter({"npy": "npy", "tensor": "tensor"}, tmp_path) as background:
        matrix = np.arange(6.0).reshape(2, 3).view(np.matrix)
        background.submit_batch(["a", "b"], {"npy": matrix, "tensor": matrix})
    assert open_results(tmp_path, key="npy")["b"].tolist() == [[3, 4, 5]]
    assert open_results(tmp_path, key="tensor", trust=True)["b"].tolist() == [[3, 4, 5]]


def test_rows_of_which_nothing_is_masked_are_stored_beside_those_that_fail(tmp_path):
    """And are read as the volumes that they are."""
    batch = np.ma.array(np.random.default_rng(0).integers(0, 255, (3, 1, 2, 4, 5), np.uint8), mask=False)
    batch[1, 0, 0, 0, 0] = np.ma.masked
    with pytest.raises(WriteError, match="'b': TypeError: a masked array") as caught:
        with BackgroundWriter("image_3d", tmp_path, backend="thread", on_error="continue") as background:
            background.submit_batch(["a", "b", "c"], batch)
    assert [one.name for one in caught.value.failures] == ["b"]
    results = open_results(tmp_path)
    for number, name in ((0, "a"), (2, "c")):
        np.testing.assert_array_equal(results[name], batch[number].data, strict=True)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.handed_over])
def test_a_text_file_is_read_as_its_text(tmp_path, name):
    """It is what str makes of the value."""
    value = CASES[name].make(SHAPES["text"])
    store(tmp_path, {"a": value}, "text")
    assert open_results(tmp_path)["a"] == str(value.detach() if isinstance(value, torch.Tensor) else value)


@pytest.mark.parametrize("codec", ["isal", "pillow"])
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("I;16", 1)])
def test_images_of_every_mode_are_read_back(tmp_path, mode, channels, codec):
    """In eight bits or sixteen, whoever has encoded them, of the writer with its options and without."""
    dtype, most = (np.uint16, 65536) if mode == "I;16" else (np.uint8, 256)
    value = np.random.default_rng(0).integers(0, most, (channels, 2, 5, 7)).astype(dtype)
    store(tmp_path / "3d", {"a": value}, write_image_3d.with_options(mode=mode, codec=codec))
    store(tmp_path / "2d", {"a": value[:, 0]}, write_image_2d.with_options(mode=mode, codec=codec))
    np.testing.assert_array_equal(open_results(tmp_path / "3d")["a"], value, strict=True)
    np.testing.assert_array_equal(open_results(tmp_path / "2d")["a"], value[:, 0], strict=True)


def test_a_volume_of_an_unknown_shape_is_not_guessed():
    """The file alone does not say where a slice ends."""
    data = b"".join(write_image_3d.encode(np.zeros((1, 2, 3, 4), np.uint8)))
    assert write_image_3d.decode(data, shape=(1, 2, 3, 4)).shape == (1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"how many slices the volume's 6 rows .* is not recorded"):
        write_image_3d.decode(data)
    with pytest.raises(ValueError, match="no volume of shape"):
        write_image_3d.decode(data, shape=(1, 4, 3, 4))


def test_a_png_that_claims_more_pixels_than_it_can_hold_is_refused():
    """Before memory is taken for them."""
    data = bytearray(b"".join(write_image_2d.encode(np.zeros((1, 3, 4), np.uint8))))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(ValueError, match="does not hold 60000 x 60000 pixels"):
        write_image_2d.decode(bytes(data))


def test_tensors_of_one_kind_read_after_each_other_are_independent(tmp_path):
    """Each has its own elements and memory, small and large ones, and those of other kinds between them."""
    values = {f"{size}-{number}": torch.rand(size, 3) for size in (0, 2, 50_000, 200_000) for number in range(4)}
    values["0-d"], values["ints"] = torch.tensor(3.5), torch.arange(6).view(2, 3)
    store(tmp_path, values)
    results = open_results(tmp_path)
    read = {name: results[name] for name in (*values, *values)}
    for name, value in values.items():
        check_same(read[name], value)
        read[name].zero_()
        check_same(results[name], value)


# Who is who


def test_results_are_a_mapping_in_the_order_of_the_data_set(tmp_path):
    """By name and by index; records, bytes, and what is not there."""
    store(tmp_path, {"case.2": "two", "case.1": "one", "x/y": "three"}, "text", indices=[2, 1, 7])
    results = open_results(str(tmp_path))
    assert (len(results), list(results), list(results.values())) == (
        3,
        ["case.1", "case.2", "x/y"],
        ["one", "two", "three"],
    )
    assert (results["case.1"], results.at(7), results.at(np.int64(2))) == ("one", "three", "two")
    assert results.read_bytes("x/y") == b"three"
    assert (results.record("x/y").index, results.record("x/y").file) == (7, "x/y.txt")
    assert "case.1" in results
    assert "case.1.txt" not in results
    assert 7 not in results
    assert results.get("missing") is None
    assert repr(results) == f"<3 results of writer 'text' in {str(tmp_path)!r}>"
    assert results == results
    assert results != open_results(LocalTarget(tmp_path))
    with pytest.raises(KeyError, match=r"'case.1.txt' is a file; its sample is called 'case.1'"):
        results["case.1.txt"]
    with pytest.raises(KeyError, match=r"'no' is not stored by writer 'text' in .*; 3 are, such as 'case.1', 'case.2'"):
        results["no"]
    with pytest.raises(KeyError, match=r"'7' is not stored by writer 'text' in .*; results.at\(INDEX\) looks up"):
        results[7]
    with pytest.raises(KeyError, match="the name of a sample is NoneType: None; a name is a text, a number, a path"):
        results[None]
    with pytest.raises(KeyError, match="the name of a sample is True, which is no name"):
        results[True]
    with pytest.raises(KeyError, match="index 3 of loader 0 is not stored; 3 indices from 1 to 7 are"):
        results.at(3)
    with pytest.raises(KeyError, match="no sample of loader 1 is stored, but of 0"):
        results.at(1, loader=1)


def test_a_number_is_a_name_and_at_takes_an_index(tmp_path):
    """They differ where samples have names of their own, in files and in the rows of an array."""
    store(tmp_path / "files", {"1": "of index 0", "0": "of index 1"}, "text", indices=[0, 1])
    results = open_results(tmp_path / "files")
    assert (results[1], results.at(1)) == ("of index 0", "of index 1")
    array = tmp_path / "a.npy"
    with BackgroundWriter(target=ArrayTarget(array), backend="thread") as writer:
        writer.submit_batch([20, 30], np.float32([2, 3]), origin=Origin([0, 1]))
        writer.submit_batch(None, np.float32([4]), origin=Origin([2]))
    results = open_results(array)
    assert (float(results[30]), float(results.at(1)), float(results[2])) == (3, 3, 4)
    assert 1 not in results


def test_without_indices_there_are_names_alone(tmp_path):
    """And the error says how indices come in."""
    store(tmp_path, {"a": "one"}, "text")
    with pytest.raises(KeyError, match=r"no sample of these was stored with its index.*Origin\(indices\)"):
        open_results(tmp_path).at(0)


def test_what_counts_is_what_was_stored_since_the_last_run_that_did_not_resume(tmp_path):
    """Resumed runs add up, overwritten names are the later ones, a run begun anew leaves what was behind."""
    store(tmp_path, {"a": "old", "z": "old"}, "text", indices=[0, 9])
    store(tmp_path, {"a": "one", "b": "two"}, "text", indices=[0, 1])
    store(tmp_path, {"c": "three"}, "text", indices=[2], resume=True)
    store(tmp_path, {"b": "later"}, "text", indices=[1], resume=True)
    assert dict(open_results(tmp_path)) == {"a": "one", "b": "later", "c": "three"}


def test_a_name_stored_under_another_suffix_by_a_later_run_is_the_later_one(tmp_path):
    """Both files are there; the name means one of them."""
    store(tmp_path, {"a": "one", "b": "two"}, write_text.with_options(suffix=".z"))
    store(tmp_path, {"a": "later"}, write_text.with_options(suffix=".b"), resume=True)
    assert dict(open_results(tmp_path)) == {"b": "two", "a": "later"}


def test_indices_of_a_data_set_that_has_changed_are_not_trusted(tmp_path):
    """One index under two names means nothing any more; names do."""
    store(tmp_path, {"a": "one", "b": "two"}, "text", indices=[0, 1])
    store(tmp_path, {"new": "three"}, "text", indices=[0], resume=True)
    results = open_results(tmp_path)
    for index in (0, 1):
        with pytest.raises(KeyError, match="index 0 of loader 0 is both 'a' and 'new': the data set has changed"):
            results.at(index)
    assert results["b"] == "two"


def test_results_of_all_ranks_and_loaders_are_one(tmp_path):
    """Names are one space; an index belongs to its loader."""
    for rank in range(2):
        run = Run(id="of-two", rank=rank, world_size=2)
        with BackgroundWriter("text", tmp_path, backend="thread", run=run) as writer:
            writer.submit_batch([f"r{rank}"], [f"of {rank}"], origin=Origin([rank]))
            writer.submit_batch([f"second-{rank}"], [f"second of {rank}"], origin=Origin([rank], loader=1))
    results = open_results(tmp_path)
    assert list(results) == ["r0", "r1", "second-0", "second-1"]
    assert (results.at(1), results.at(1, loader=1)) == ("of 1", "second of 1")


def test_one_of_several_series_has_to_be_chosen(tmp_path):
    """The error lists them; one in which nothing is stored is passed over."""
    for key in ("mask", "logits"):
        store(tmp_path / "both", {f"{key}-a": key}, "text", run=Run(key=key))
    store(tmp_path / "both", {"t": torch.ones(2)})
    with pytest.raises(
        ValueError, match=r"several series .* writer='text', key='mask' \(1\); .*writer='tensor', key=''"
    ):
        open_results(tmp_path / "both")
    with pytest.raises(ValueError, match=r"nothing of writer='png', key=None is recorded .*key='logits'"):
        open_results(tmp_path / "both", writer="png")
    assert dict(open_results(tmp_path / "both", key="mask")) == {"mask-a": "mask"}
    assert list(open_results(tmp_path / "both", writer="tensor")) == ["t"]
    store(tmp_path / "one", {"t": "text"}, "text")
    BackgroundWriter("tensor", tmp_path / "one", backend="thread").__enter__().close()
    assert list(open_results(tmp_path / "one")) == ["t"]


def test_nothing_to_read_is_said(tmp_path):
    """A folder that is not there, one without a record, a URL, and what is no path."""
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        open_results(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="has no manifest"):
        open_results(tmp_path)
    with pytest.raises(ValueError, match="is a URL"):
        open_results("s3://bucket/preds")
    with pytest.raises(TypeError, match="a path or a LocalTarget, not 5"):
        open_results(5)
    with pytest.raises(TypeError, match="decode is a function"):
        open_results(tmp_path, decode="npy")


def test_a_whole_file_that_a_crash_left_unrecorded_counts_as_it_does_for_pending(tmp_path):
    """Where names are numbers, the file says which sample it is."""
    with BackgroundWriter("text", tmp_path, backend="thread", run=Run(numbered=True)) as writer:
        writer.submit_batch(["0", "1"], ["zero", "one"], origin=Origin([0, 1]))
    manifest = tmp_path / ".lighter-async/manifest-0.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:-1]))
    assert list(pending([0, 1, 2], tmp_path)) == [2]
    assert (dict(open_results(tmp_path)), open_results(tmp_path).at(1)) == ({"0": "zero", "1": "one"}, "one")


# How records are kept


@pytest.fixture
def made(monkeypatch):
    """The names of the samples of which a `Record` was made."""
    made = []
    record = Block.record

    def noted(self, row):
        made.append(self.name(row))
        return record(self, row)

    monkeypatch.setattr(Block, "record", noted)
    return made


def test_records_are_made_of_what_is_asked_for_alone(tmp_path, made):
    """Opening, listing and looking make none; a value takes one."""
    store(tmp_path, {f"n{number}": str(number) for number in range(50)}, "text", indices=range(50))
    results = open_results(tmp_path)
    assert (len(results), list(results)[:2], "n7" in results, "n50" in results) == (50, ["n0", "n1"], True, False)
    assert "" not in results
    assert made == []
    assert (results["n7"], results.at(8), results.dataset()[9]) == ("7", "8", ("n9", "9"))
    assert made == ["n7", "n8", "n9"]
    made.clear()
    again = pickle.loads(pickle.dumps(results))
    assert (list(again), made) == (list(results), [])


@pytest.mark.parametrize("collide", [False, True])
def test_every_name_is_found_by_itself(tmp_path, monkeypatch, collide):
    """Numbers, what looks like one, and others; also where all have the same key."""
    names = ["7", "07", "7.x", "a", "sub/7", "\u00fc", "\u0667", "9" * 25]
    store(tmp_path, {name: f"named {name}" for name in names}, "text")
    results = open_results(tmp_path)
    if collide:
        monkeypatch.setattr(keys, "_hash", lambda name: 5)
    assert {name: results[name] for name in names} == {name: f"named {name}" for name in names}
    assert not any(name in results for name in ("8", "007", "7.", "b", "sub", "\udcff"))


def test_numbered_samples_are_found_by_name_and_by_index(tmp_path):
    """Names are texts of numbers, and indices begin anew in each loader."""
    with BackgroundWriter("text", tmp_path, backend="thread", run=Run(numbered=True)) as writer:
        writer.submit_batch(["2", "0", "1"], ["c", "a", "b"], origin=Origin([2, 0, 1]))
        writer.submit_batch(["3", "4"], ["d", "e"], origin=Origin([0, 1], loader=1))
    results = open_results(tmp_path)
    assert (list(results), "".join(results.values())) == (["0", "1", "2", "3", "4"], "abcde")
    assert (results["4"], results.at(2), results.at(0, loader=1)) == ("e", "c", "d")
    for index in (-1, 3, 1 << 63, 1 << 70, -(1 << 70)):
        with pytest.raises(KeyError, match=f"index {index} of loader 0 is not stored; 3 indices from 0 to 2 are"):
            results.at(index)


def test_pickled_results_are_found_in_another_process_too(tmp_path, monkeypatch):
    """Tables are left out, for keys have another seed there."""
    store(tmp_path, {"a": "one", "b": "two"}, "text", indices=[3, 1])
    results = open_results(tmp_path)
    assert (results["a"], results.at(1)) == ("one", "two")
    pickled = pickle.dumps(results)
    monkeypatch.setattr(keys, "_SEED", keys._SEED ^ 1)
    again = pickle.loads(pickled)
    assert (list(again), again["a"], again.at(1), "c" in again) == (["b", "a"], "one", "two", False)


def test_of_a_name_that_is_there_several_times_the_latest_run_is_meant(tmp_path):
    """By name, by index, in the order, and pickled."""
    store(tmp_path, {"a": "1", "b": "1", "c": "1"}, write_text.with_options(suffix=".z"), indices=[0, 1, 2])
    store(tmp_path, {"a": "2", "b": "2"}, write_text.with_options(suffix=".b"), indices=[0, 1], resume=True)
    store(tmp_path, {"a": "3"}, write_text.with_options(suffix=".y"), indices=[0], resume=True)
    results = open_results(tmp_path)
    for one in (results, pickle.loads(pickle.dumps(results))):
        assert (len(one), dict(one), [one.at(index) for index in range(3)]) == (
            3,
            {"a": "3", "b": "2", "c": "1"},
            ["3", "2", "1"],
        )
        assert one.record("a").file == "a.y"


def test_an_index_with_two_names_concerns_its_loader_alone(tmp_path):
    """The first such index is told, with its names in the order in which they were stored."""
    store(tmp_path, {"a": "one", "b": "two", "c": "three"}, "text", indices=[0, 1, 2])
    store(tmp_path, {"d": "four", "e": "five", "f": "six"}, "text", indices=[0, 2, 5], loader=1, resume=True)
    store(tmp_path, {"g": "seven", "h": "eight"}, "text", indices=[5, 2], loader=1, resume=True)
    results = open_results(tmp_path)
    for index in (0, 9, 2):
        with pytest.raises(KeyError, match="index 2 of loader 1 is both 'e' and 'h': the data set has changed"):
            results.at(index, loader=1)
    assert (results.at(2), results["h"]) == ("three", "eight")
    with pytest.raises(KeyError, match="no sample of loader 2 is stored, but of 0, 1; loader=NUMBER"):
        results.at(0, loader=2)


# Formats of the user's own


def test_an_encoder_of_the_users_is_read_with_its_decoder(tmp_path, registered):
    """Found by its name wherever it is registered; with the options that its decoder takes."""

    def decode(data, *, factor=1):
        assert type(data) is bytes
        return np.load(io.BytesIO(data)) / factor

    @registered.register("mine")
    @encoder(suffix=".npy", decode=decode)
    def encode_npy(value, factor=1, unused=0):
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(value) * factor)
        return buffer.getbuffer()

    value = np.arange(4.0)
    store(tmp_path / "one", {"a": value, "large": np.zeros(1 << 18)}, "mine")
    assert open_results(tmp_path / "one")["a"].tolist() == value.tolist()
    assert open_results(tmp_path / "one")["large"].shape == (1 << 18,)
    doubled = encode_npy.with_options(factor=2, unused=1)
    store(tmp_path / "two", {"a": value}, doubled)
    assert open_results(tmp_path / "two", decode=doubled)["a"].tolist() == value.tolist()


def test_a_format_without_a_decoder_gives_its_bytes(tmp_path, registered):
    """And the error tells the ways out; a function of the user's decodes, too."""
    plain = encoder(suffix=".raw", name="raw")(lambda value: value)
    store(tmp_path, {"a": b"12"}, plain)
    results = open_results(tmp_path)
    assert results.read_bytes("a") == b"12"
    with pytest.raises(ReadError, match=r"writer 'raw' is registered under no name; give open_results\(..., decode="):
        results["a"]
    registered.register("raw")(plain)
    with pytest.raises(ReadError, match=r"writer 'raw' has no decoder"):
        results["a"]
    with pytest.raises(TypeError, match="encoder 'raw' has no decoder"):
        plain.decode(b"12")
    assert open_results(tmp_path, decode=int)["a"] == 12
    with pytest.raises(ReadError, match="ZeroDivisionError") as caught:
        open_results(tmp_path, decode=lambda data: 1 / 0)["a"]
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_texts_of_another_encoding_are_read_with_their_encoder(tmp_path):
    """Options are recorded; an encoder that is given is taken as it is."""
    latin = write_text.with_options(encoding="latin-1")
    store(tmp_path, {"a": "é"}, latin)
    assert open_results(tmp_path)["a"] == open_results(tmp_path, decode=latin)["a"] == "é"
    with pytest.raises(ReadError, match="UnicodeDecodeError"):
        open_results(tmp_path, decode=write_text)["a"]


def test_of_functions_nothing_is_read_but_they_are_listed(tmp_path):
    """What they wrote is their own affair."""

    def write(path, value):
        path.with_suffix(".out").write_text(value)

    store(tmp_path, {"a": "one"}, write)
    results = open_results(tmp_path)
    assert (list(results), results.record("a").file) == (["a"], None)
    for read in (results.read_bytes, results.__getitem__):
        with pytest.raises(ReadError, match=r"writer 'write' is a function \(path, value\).* path 'a' below"):
            read("a")


# Damage


def damage(kind, path, elsewhere):
    if kind == "missing":
        path.unlink()
    elif kind == "short":
        path.write_bytes(path.read_bytes()[:-1])
    elif kind == "changed":
        path.write_bytes(path.read_bytes().replace(b"one", b"two"))
    elif kind == "link":
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    elif kind == "linked folder":
        path.parent.rename(elsewhere)
        path.parent.symlink_to(elsewhere)
    elif kind == "pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "trouble", "text"),
    [
        ("missing", "missing", "it is not there; .*verify DIR --repair"),
        ("short", "wrong size", "it has 2 bytes instead of 3; .*verify DIR --repair"),
        ("changed", "wrong checksum", "its checksum is .* instead of .*verify DIR --repair"),
        ("link", "unreadable", "is a link, which is not followed"),
        ("linked folder", "unreadable", "is a link, which is not followed"),
        ("pipe", "unreadable", "something else that is no file"),
        ("folder", "unreadable", "there is a folder, or something else"),
    ],
)
def test_a_file_that_is_not_what_was_stored_is_an_error_that_names_it(tmp_path, kind, trouble, text):
    """Nothing is made up, no link is followed, and nothing hangs; the others are read."""
    store(tmp_path / "preds", {"x/a": "one", "b": "two"}, "text")
    damage(kind, tmp_path / "preds/x/a.txt", tmp_path / "elsewhere")
    results = open_results(tmp_path / "preds")
    with pytest.raises(ReadError, match=rf"sample 'x/a' \('x/a.txt' in .*\) cannot be read: .*{text}") as caught:
        results["x/a"]
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.name, error.file, error.trouble) == ("x/a", "x/a.txt", trouble)
    assert str(error) == str(caught.value)
    assert results["b"] == "two"
    if kind == "changed":
        assert open_results(tmp_path / "preds", check=False)["x/a"] == "two"


def test_a_manifest_of_somebody_elses_leads_nowhere(tmp_path):
    """Records of files outside of the directory are none."""
    store(tmp_path / "preds", {"a": "one"}, "text")
    (tmp_path / "secret.txt").write_text("two")
    manifest = tmp_path / "preds/.lighter-async/manifest-0.jsonl"
    line = json.loads(manifest.read_text().splitlines()[-1])
    with manifest.open("a") as file:
        for path in ("../secret.txt", str(tmp_path / "secret.txt")):
            file.write(json.dumps({**line, "name": "evil", "file": path}) + "\n")
    assert list(open_results(tmp_path / "preds")) == ["a"]


def test_a_store_tells_sizes_and_reads_whole_files(tmp_path):
    """Small and large ones, and empty ones."""
    files = DirectoryStore(tmp_path)
    for size in (0, 5, 3 << 20):
        (tmp_path / "file").write_bytes(b"x" * size)
        place = Place("file", 0, size, "")
        assert files.stat(place) == size
        assert bytes(files.read(place)) == b"x" * size
    with pytest.raises(ReadError, match="'gone': it is not there"):
        files.stat(Place("gone", 0, 1, ""))


# All of them


def test_to_array_stacks_the_values_in_order(tmp_path):
    """Tensors, pixels and numbers; what cannot be stacked is named."""
    values = {"c": torch.ones(2, 3), "a": torch.zeros(2, 3), "b": torch.full((2, 3), 2.0)}
    store(tmp_path / "equal", values, indices=[5, 1, 3])
    array = open_results(tmp_path / "equal").to_array()
    assert (array.shape, array.dtype) == ((3, 2, 3), np.float32)
    assert array[:, 0, 0].tolist() == [0, 2, 1]
    store(tmp_path / "numbers", {"a": 1.5, "b": 2.5})
    assert open_results(tmp_path / "numbers").to_array().tolist() == [1.5, 2.5]
    store(tmp_path / "unequal", {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(3)}, indices=range(3))
    with pytest.raises(
        ValueError, match=re.escape("'c' has shape (3,) and dtype float32, but 'a', the first one, (2,)")
    ):
        open_results(tmp_path / "unequal").to_array()
    store(tmp_path / "texts", {"a": "one"}, "text")
    with pytest.raises(TypeError, match="'a' is 'one', and to_array stacks tensors, arrays and numbers alone"):
        open_results(tmp_path / "texts").to_array()
    store(tmp_path / "half", {"a": torch.ones(2, dtype=torch.bfloat16)})
    with pytest.raises(TypeError, match="no numpy array can be made of 'a': TypeError: Got unsupported ScalarType"):
        open_results(tmp_path / "half").to_array()
    BackgroundWriter("text", tmp_path / "none", backend="thread").__enter__().close()
    with pytest.raises(ValueError, match="nothing is stored in"):
        open_results(tmp_path / "none").to_array()


def test_to_pandas_has_a_row_for_each_sample(tmp_path):
    """In the same order, with what is recorded."""
    store(tmp_path, {"b": torch.ones(2), "a": torch.ones(2)}, indices=[1, 0])
    table = open_results(tmp_path).to_pandas()
    assert table[["name", "file", "index"]].values.tolist() == [["a", "a.pt", 0], ["b", "b.pt", 1]]


def test_results_and_their_data_set_can_be_pickled(tmp_path):
    """With the records, and read in another place alike."""
    store(tmp_path, {"a": torch.ones(2), "b": torch.zeros(2)}, indices=[0, 1])
    results = open_results(tmp_path)
    assert results.at(0).tolist() == [1, 1]
    again = pickle.loads(pickle.dumps(results))
    assert [again.record(name) for name in again] == [results.record(name) for name in results]
    assert (again.at(1).tolist(), again["a"].tolist()) == ([0, 0], [1, 1])
    dataset = pickle.loads(pickle.dumps(results.dataset()))
    assert (len(dataset), dataset[1][0], dataset[-1][0], dataset[np.int64(0)][0]) == (2, "b", "b", "a")
    with pytest.raises(IndexError):
        dataset[2]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_a_data_loader_with_workers_makes_batches(tracker, tmp_path, method):
    """Of names and stacked values; a damaged file is told as what it is."""
    store(tmp_path, {f"n{number}": torch.full((3,), float(number)) for number in range(6)}, indices=range(6))
    loader = torch.utils.data.DataLoader(
        open_results(tmp_path).dataset(), batch_size=2, num_workers=2, multiprocessing_context=method
    )
    batches = list(loader)
    assert [name for names, _ in batches for name in names] == [f"n{number}" for number in range(6)]
    assert torch.equal(torch.cat([values for _, values in batches])[:, 0], torch.arange(6.0))
    (tmp_path / "n3.pt").unlink()
    damaged = iter(loader)
    with pytest.raises(ReadError, match=r"sample 'n3' .* it is not there"):
        list(damaged)
    damaged._shutdown_workers()


LIGHT = """
    import sys
    from lighter_async import open_results

    assert open_results(sys.argv[1])["a"] == "one"
    assert open_results(sys.argv[2])["a"].sum() == 12 * 7
    assert open_results(sys.argv[2]).to_array().shape == (1, 1, 3, 4)
    assert "torch" not in sys.modules
"""


def test_reading_texts_and_images_needs_no_torch(tmp_path):
    """Nor does anything warn."""
    store(tmp_path / "texts", {"a": "one"}, "text")
    store(tmp_path / "images", {"a": np.full((1, 3, 4), 7, np.uint8)}, "image_2d")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(LIGHT), tmp_path / "texts", tmp_path / "images"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
