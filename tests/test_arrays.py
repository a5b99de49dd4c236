"""All samples of a run as rows of one array: exact, resumable, readable at every moment."""

import asyncio
import io
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from arrays_script import ROWS, WHOLE, check_whole, store
from harness import DEADLINE
from killing import run_kills
from lightning_models import both_packages, lightning_warnings, make_trainer
from sent_to_helpers import Dying
from torch.utils.data import DataLoader

from lighter_async import (
    ArrayTarget,
    ArrayWriter,
    AsyncBackgroundWriter,
    BackgroundWriter,
    DuplicateNameError,
    FileWriter,
    Origin,
    ReadError,
    ResumeError,
    Run,
    WriteError,
    open_results,
    pending,
    read_manifest,
)
from lighter_async.cli import main
from lighter_async.locks.flock import NoLocks
from lighter_async.manifest.verify import verify
from lighter_async.npy import header, parse
from lighter_async.targets import Features, features_of

pytestmark = [lightning_warnings, pytest.mark.usefixtures("one_core")]


def rows(count, width=8, first=0):
    return np.arange(first * width, (first + count) * width, dtype=np.float32).reshape(count, width)


def write(target, values, indices, names=None, **options):
    with BackgroundWriter(target=target, **{"backend": "thread", "max_workers": 1, **options}) as writer:
        writer.submit_batch(names, values, origin=Origin(indices))
    return writer


def cause_of(write_error):
    (failure,) = write_error.value.failures
    return failure.cause


# What is stored


@pytest.mark.parametrize(
    ("backend", "durability"),
    [
        *(("thread", "fsync"), ("process", "rename")),
        *(pytest.param(*other, marks=pytest.mark.long) for other in (("thread", "rename"), ("process", "fsync"))),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_rows_lie_at_their_indices(tmp_path, backend, durability, known):
    """Exactly as numpy would have stored them all, from several workers, however many batches there are."""
    values = torch.randn(1000, 3, 16, generator=torch.Generator().manual_seed(1))
    target = ArrayTarget(tmp_path / "a.npy", 1000 if known else None, durability=durability)
    with BackgroundWriter(target=target, backend=backend, max_workers=2) as writer:
        for start in range(0, 1000, 90):
            some = range(start, min(start + 90, 1000))
            writer.submit_batch(None, values[some.start : some.stop], origin=Origin(some))
    assert writer.stats().written == 1000
    assert writer.stats().bytes_written == 1000 * 3 * 16 * 4
    assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), values.numpy())
    buffer = io.BytesIO()
    np.save(buffer, values.numpy())
    assert (tmp_path / "a.npy").read_bytes() == buffer.getvalue()
    assert verify(tmp_path / "a.npy").checked == 1000
    assert verify(tmp_path).findings == []


@pytest.mark.parametrize("dtype", ["float16", "float64", "int64", "uint8", "bool", "complex64", "uint16"])
@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_every_dtype_that_numpy_has_is_stored(tmp_path, dtype, kind):
    """Rows of any shape, scalars too."""
    for shape in ((), (5,), (2, 3)):
        values = (np.random.default_rng(1).random((6, *shape)) * 5).astype(dtype)
        path = tmp_path / f"{len(shape)}.npy"
        write(ArrayTarget(path), torch.from_numpy(values.copy()) if kind == "tensor" else values, range(6))
        found = np.load(path)
        assert (found.dtype, found.shape) == (values.dtype, values.shape)
        assert np.array_equal(found, values)
        assert np.array_equal(open_results(path).at(4), values[4])


@pytest.mark.parametrize("dtype", [">f4", "<U5", "S3", "datetime64[s]", "longdouble"])
def test_dtypes_that_only_arrays_have_are_stored(tmp_path, dtype):
    """As they are, in their byte order."""
    values = np.arange(12).astype(dtype if dtype[0] not in "d" else "i8").astype(dtype).reshape(4, 3)
    write(ArrayTarget(tmp_path / "a.npy"), values, range(4))
    found = np.load(tmp_path / "a.npy")
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)
    results = open_results(tmp_path / "a.npy")
    assert np.array_equal(results["2"], values[2])
    assert np.array_equal(results.to_array(), values)


@pytest.mark.parametrize(
    ("values", "way_out"),
    [
        (torch.ones(2, 3, dtype=torch.bfloat16), r"'bfloat16'.*tensor\.float\(\).*tensor\.view\(torch\.int16\)"),
        (torch.ones(2, 3).to(torch.float8_e4m3fn), r"'float8_e4m3fn'.*torch\.uint8 of float8"),
        (np.ones(2, [("a", "f4")]), r"cannot hold \"\[\('a', '<f4'\)\]\""),
        ([1.0, 2.0], r"not float; numpy\.asarray"),
        ([torch.ones(3).to_sparse()] * 2, r"tensor\.to_dense"),
        (torch.ones(2, 0), "no elements"),
    ],
    ids=["bfloat16", "float8", "structured", "numbers", "sparse", "empty"],
)
def test_what_numpy_cannot_hold_is_refused_with_the_way_out(tmp_path, values, way_out):
    """Each sample by its name; nothing is left but what is recorded of the run."""
    with pytest.raises(WriteError) as raised:
        write(ArrayTarget(tmp_path / "a.npy"), values, range(2), ["x", "y"])
    for failure in raised.value.failures:
        assert isinstance(failure.cause, (TypeError, ValueError))
    with pytest.raises(Exception, match=way_out):
        raise raised.value.failures[0].cause
    assert [path.name for path in tmp_path.iterdir()] == [".lighter-async"]


@pytest.mark.parametrize("indices", [[3, 1, 0, 2, 5, 4], [5, 4, 3, 2, 1, 0], [0, 2, 4, 1, 3, 5]])
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_rows_come_in_any_order(tmp_path, indices, kind):
    """Also one by one, as lists, arrays or tensors of indices."""
    write(ArrayTarget(tmp_path / "a.npy", 6), rows(6)[indices], kind(indices))
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows(6))
    assert verify(tmp_path).findings == []


def test_a_share_of_every_second_row_is_a_line_of_equal_distances(tmp_path):
    """As the ranks of a distributed sampler have them: names, indices and offsets take no room in the manifest."""
    write(ArrayTarget(tmp_path / "a.npy"), rows(100), range(0, 200, 2))
    line = json.loads((tmp_path / ".lighter-async/manifest-0.jsonl").read_text().splitlines()[-1])
    assert line["names"] == line["index"] == {"start": 0, "step": 2}
    assert line["outputs"][0]["offset"] == {"start": 128, "step": 64}
    assert line["outputs"][0]["bytes"] == 32
    assert [record.offset for record in read_manifest(tmp_path).records] == list(range(128, 128 + 6400, 64))


@pytest.mark.parametrize(("step", "writes"), [(1, 1), (2, 50), (-1, 50)])
def test_rows_that_follow_each_other_are_one_write(tmp_path, monkeypatch, step, writes):
    """Of the whole unit; those at a distance are one each."""
    sizes = []
    pwrite = os.pwrite

    def counting(descriptor, data, place):
        sizes.append(len(data))
        return pwrite(descriptor, data, place)

    with BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy", 100), backend="thread", max_workers=1) as writer:
        monkeypatch.setattr(os, "pwrite", counting)
        writer.submit_batch(None, rows(50), origin=Origin(range(100)[::step][:50]))
        writer.flush()
        monkeypatch.undo()
    assert sizes == [50 * 32 // writes] * writes


def test_single_samples_and_nowait_take_an_index_too(tmp_path):
    """And so does the asyncio face."""
    with BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy"), max_workers=1) as writer:
        writer.submit("one", rows(1)[0], origin=Origin([0]))
        writer.submit_nowait("two", rows(2)[1], origin=Origin([1]))
        writer.submit_batch_nowait(None, rows(2, first=2), origin=Origin([2, 3]))

    async def use():
        async with AsyncBackgroundWriter(target=ArrayTarget(tmp_path / "b.npy")) as writer:
            await writer.submit_batch(None, rows(4), origin=Origin(range(4)))

    asyncio.run(use())
    for name in ("a.npy", "b.npy"):
        assert np.array_equal(np.load(tmp_path / name), rows(4))
    assert list(open_results(tmp_path / "a.npy")) == ["one", "two", "2", "3"]


def test_arrays_and_files_share_a_folder(tmp_path):
    """Each array is a series of its own, under its name as the key."""
    for name, first in (("a.npy", 0), ("b.npy", 50)):
        write(ArrayTarget(tmp_path / name), rows(5, first=first), range(5))
    with BackgroundWriter("text", tmp_path) as writer:
        writer.submit_batch(["0", "1"], ["zero", "one"])
    assert np.array_equal(open_results(tmp_path / "a.npy").to_array(), rows(5))
    assert np.array_equal(open_results(tmp_path, key="b.npy").at(3), rows(5, first=50)[3])
    assert open_results(tmp_path, writer="text")["1"] == "one"
    assert verify(tmp_path).findings == []
    assert verify(tmp_path).checked == 12
    assert verify(tmp_path / "b.npy").checked == 5
    assert list(pending(range(6), tmp_path / "a.npy")) == [5]
    with pytest.raises(ValueError, match="several series"):
        open_results(tmp_path)


# What is refused


def test_a_sample_without_an_index_is_refused_at_once(tmp_path):
    """By name, with the way out; nothing of its batch is taken."""
    with BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy"), max_workers=1) as writer:
        with pytest.raises(ValueError, match=r"sample 'x' has no index .* origin=Origin\(indices\)"):
            writer.submit_batch(["x", "y"], rows(2))
        with pytest.raises(ValueError, match=r"sample 'x' has no index"):
            writer.submit("x", rows(1)[0], origin=Origin())
        with pytest.raises(ValueError, match="2 samples and 3 indices"):
            writer.submit_batch(None, rows(2), origin=Origin(range(3)))
        with pytest.raises(ValueError, match="sample 'y' has index -1"):
            writer.submit_batch(["x", "y"], rows(2), origin=Origin([0, -1]))
        with pytest.raises(ValueError, match="loader 1 is not the first"):
            writer.submit_batch(None, rows(2), origin=Origin([0, 1], loader=1))
        assert writer.stats().accepted == 0
    with BackgroundWriter("text", tmp_path / "files") as writer, pytest.raises(TypeError, match="a name per sample"):
        writer.submit_batch(None, ["a"])


def test_a_row_that_is_not_there_is_refused_at_once(tmp_path):
    """Where it is known how many there are."""
    with BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy", 3), max_workers=1) as writer:
        with pytest.raises(
            ValueError, match="sample 'd' has index 3, which is its row, and rows of this array are 0 to"
        ):
            writer.submit_batch(list("abcd"), rows(4), origin=Origin(range(4)))
        writer.submit_batch(None, rows(3), origin=Origin(range(3)))
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows(3))


def test_two_samples_of_one_row_or_of_one_name_are_refused(tmp_path):
    """Within a batch and over several."""
    with BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy"), max_workers=1) as writer:
        writer.submit_batch(["a", "b"], rows(2), origin=Origin([0, 1]))
        for names, indices in ((["c", "d"], [2, 1]), (["c", "a"], [2, 3]), (["c", "d"], [4, 4])):
            with pytest.raises(DuplicateNameError):
                writer.submit_batch(names, rows(2), origin=Origin(indices))
        with pytest.raises(DuplicateNameError, match="row"):
            writer.submit_batch(None, rows(2), origin=Origin([1, 2]))
        writer.submit_batch(None, rows(2, first=2), origin=Origin([2, 3]))
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows(4))


@pytest.mark.parametrize("other", [torch.ones(2, 8, dtype=torch.float64), torch.ones(2, 9)], ids=["dtype", "shape"])
def test_another_dtype_or_shape_is_an_error_that_names_both(tmp_path, other):
    """And the sample; the others are stored."""
    writer = BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy"), backend="thread", max_workers=1)
    writer.submit_batch(["a", "b"], rows(2), origin=Origin([0, 1]))
    writer.flush()
    writer.submit_batch(["c", "d"], other, origin=Origin([2, 3]))
    with pytest.raises(WriteError) as raised:
        writer.close()
    assert [failure.name for failure in raised.value.failures] == ["c", "d"]
    text = str(raised.value.failures[0].cause)
    assert f"sample 'c' is {str(other.dtype).removeprefix('torch.')} of shape ({other.shape[1]},)" in text
    assert "are float32 of shape (8,)" in text
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows(2))


def test_an_array_of_other_rows_is_not_touched(tmp_path):
    """Another dtype, another length, or no array at all: the error says the way out."""
    write(ArrayTarget(tmp_path / "a.npy", 4), rows(4), range(4))
    before = (tmp_path / "a.npy").read_bytes()
    with pytest.raises(WriteError, match=r"float64 of shape .* remove it .* choose another path"):
        write(ArrayTarget(tmp_path / "a.npy", 4), rows(1).astype(np.float64), [0])
    with pytest.raises(WriteError, match="is there, and has 4 rows, not 5; remove it, or choose another path"):
        write(ArrayTarget(tmp_path / "a.npy", 5), rows(1), [0])
    assert (tmp_path / "a.npy").read_bytes() == before
    (tmp_path / "b.npy").write_bytes(b"something else")
    with pytest.raises(WriteError, match="no numpy file"):
        write(ArrayTarget(tmp_path / "b.npy"), rows(1), [0])
    (tmp_path / "c.npy").mkdir()
    with pytest.raises(IsADirectoryError, match="choose another path"):
        write(ArrayTarget(tmp_path / "c.npy"), rows(1), [0])
    (tmp_path / "d.npy").symlink_to(tmp_path / "a.npy")
    with pytest.raises(WriteError):
        write(ArrayTarget(tmp_path / "d.npy"), rows(1), [0])
    assert (tmp_path / "a.npy").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (["tensor"], {}, ValueError, "its writer is 'row', not 'tensor'; leave the writer out"),
        (["npy"], {}, ValueError, "its writer is 'row', not 'npy'"),
        ([{"a": "row"}], {}, ValueError, "its writer is 'row', not 'a=row'"),
        ([lambda path, value: None], {}, ValueError, "its writer is 'row'"),
        ([], {"manifest": False}, ValueError, "leave manifest at True"),
        ([], {"if_exists": "skip"}, ValueError, "if_exists goes with a directory"),
    ],
)
def test_what_does_not_go_with_an_array_is_refused(tmp_path, arguments, options, error, text):
    """When the writer is made."""
    with pytest.raises(error, match=text):
        BackgroundWriter(*arguments, target=ArrayTarget(tmp_path / "a.npy"), **options)


@pytest.mark.parametrize(
    ("path", "rows", "error", "text"),
    [
        ("a.hdf5", None, ValueError, "stored as .npy or .zarr, and .* ends otherwise; choose a path such as"),
        ("a.txt", None, ValueError, "'a.txt' ends otherwise"),
        ("s3://bucket/a.npy", None, ValueError, "is a URL"),
        ("a.npy", 0, ValueError, "rows is at least 1"),
        ("a.npy", [3, -1], ValueError, "rows is at least 1"),
        ("a.npy", 2.5, TypeError, "rows is a whole number, or a list"),
        ("a.npy", "12", TypeError, "rows is a whole number, or a list"),
        ("a.npy", True, TypeError, "rows is a whole number, or a list"),
    ],
)
def test_a_target_that_cannot_be_is_refused(path, rows, error, text):
    """When it is made."""
    with pytest.raises(error, match=text):
        ArrayTarget(path, rows)


def test_a_full_disk_shows_at_the_first_sample(tmp_path):
    """As an error that says how much is needed; nothing is left of the array."""
    with pytest.raises(
        WriteError, match=r"1,000,000,000,000 rows .* need 32,000,000,000,128 bytes, and [\d,]+ are free"
    ):
        write(ArrayTarget(tmp_path / "a.npy", 10**12), rows(1), [0])
    assert [path.name for path in tmp_path.iterdir()] == [".lighter-async"]


def test_room_is_kept_for_all_rows(tmp_path):
    """From the first one on."""
    with BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy", 10_000), max_workers=1) as writer:
        writer.submit_batch(None, rows(2), origin=Origin([5, 6]))
        writer.flush()
        status = os.stat(tmp_path / "a.npy.part")
        assert status.st_size == 128 + 10_000 * 32
        assert status.st_blocks * 512 >= 10_000 * 32
    assert not (tmp_path / "a.npy").exists()


# Complete or not


def test_an_array_gets_its_name_when_it_is_complete(tmp_path):
    """At the end, or at flush(seal=True); until then it is a part, which can be read, too."""
    with BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy", 6), backend="thread", max_workers=2) as writer:
        writer.submit_batch(None, rows(4), origin=Origin(range(4)))
        writer.flush(seal=True)
        assert (tmp_path / "a.npy.part").exists()
        results = open_results(tmp_path / "a.npy")
        assert results.mask.tolist() == [True] * 4 + [False] * 2
        assert np.array_equal(results.to_array(), rows(4))
        writer.submit_batch(None, rows(2, first=4), origin=Origin([4, 5]))
        writer.flush(seal=True)
        assert np.array_equal(np.load(tmp_path / "a.npy"), rows(6))
    assert list(read_manifest(tmp_path).sealed) == ["a.npy"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", ".lighter-async"}


def test_a_row_that_is_missing_keeps_it_a_part(tmp_path):
    """Whether it is known how many there are to be, or not."""
    for name, count in (("a.npy", 4), ("b.npy", None)):
        write(ArrayTarget(tmp_path / name, count), rows(4)[[0, 1, 3]], [0, 1, 3])
        assert not (tmp_path / name).exists()
        results = open_results(tmp_path / name)
        assert results.mask.tolist() == [True, True, False, True]
        assert np.array_equal(results.to_array(), rows(4)[[0, 1, 3]])
        with pytest.raises(KeyError):
            results.at(2)
        write(ArrayTarget(tmp_path / name, count), rows(4)[[2]], [2], resume=True)
        assert np.array_equal(np.load(tmp_path / name), rows(4))


def test_a_row_is_stored_anew_in_a_complete_array(tmp_path):
    """It is a part meanwhile, and complete at the end; one that grows gets longer."""
    write(ArrayTarget(tmp_path / "a.npy"), rows(4), range(4))
    with BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy"), resume=True, max_workers=1) as writer:
        writer.submit_batch(None, rows(2, first=10), origin=Origin([3, 4]))
        writer.flush()
        assert not (tmp_path / "a.npy").exists()
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.concatenate([rows(3), rows(2, first=10)]))
    assert verify(tmp_path).findings == []


def test_a_run_that_begins_anew_has_as_many_rows_as_it_stores(tmp_path):
    """Fewer than the one before, where it is not known."""
    write(ArrayTarget(tmp_path / "a.npy"), rows(9), range(9))
    write(ArrayTarget(tmp_path / "a.npy"), rows(4, first=20), range(4))
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows(4, first=20))
    assert open_results(tmp_path / "a.npy").mask.tolist() == [True] * 4


@pytest.mark.parametrize("if_exists", ["skip", "error", "overwrite"])
def test_rows_of_an_earlier_run_are_kept_refused_or_replaced(tmp_path, if_exists):
    """As `if_exists` says."""
    write(ArrayTarget(tmp_path / "a.npy", 4), rows(2), range(2))
    target = ArrayTarget(tmp_path / "a.npy", 4, if_exists=if_exists)
    if if_exists == "error":
        with pytest.raises(FileExistsError, match=r"a\.npy\.part.* is there; choose another path"):
            write(target, rows(4, first=10), range(4))
        return
    stats = write(target, rows(4, first=10), range(4)).stats()
    assert (stats.written, stats.skipped) == ((2, 2) if if_exists == "skip" else (4, 0))
    expected = rows(4, first=10)
    if if_exists == "skip":
        expected[:2] = rows(2)
    assert np.array_equal(np.load(tmp_path / "a.npy"), expected)


def test_rows_that_are_superseded_are_not_kept(tmp_path):
    """With if_exists="skip": a run that began anew has said that they are old, so the array lacks them."""
    write(ArrayTarget(tmp_path / "a.npy", 4), rows(4), range(4))
    write(ArrayTarget(tmp_path / "a.npy", 4), rows(1, first=10), range(1))
    stats = write(ArrayTarget(tmp_path / "a.npy", 4, if_exists="skip"), rows(2, first=20), range(2)).stats()
    assert (stats.written, stats.skipped) == (1, 1)
    assert not (tmp_path / "a.npy").exists()
    assert open_results(tmp_path / "a.npy").mask.tolist() == [True, True, False, False]
    write(ArrayTarget(tmp_path / "a.npy", 4, if_exists="skip"), rows(4, first=30), range(4))
    expected = np.concatenate([rows(1, first=10), rows(1, first=21), rows(2, first=32)])
    assert np.array_equal(np.load(tmp_path / "a.npy"), expected)
    assert open_results(tmp_path / "a.npy").mask.all()


def test_a_copy_that_shares_the_file_stays_as_it_was(tmp_path):
    """As ``cp -al`` makes one."""
    write(ArrayTarget(tmp_path / "a.npy"), rows(3), range(3))
    os.link(tmp_path / "a.npy", tmp_path / "copy")
    write(ArrayTarget(tmp_path / "a.npy"), rows(3, first=9), range(3))
    assert np.array_equal(np.load(tmp_path / "copy"), rows(3))
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows(3, first=9))


# Reading back


def test_names_are_recorded_beside_the_rows(tmp_path):
    """A row is found by its name and by its index."""
    names = [f"case.{number}" for number in range(5)]
    write(ArrayTarget(tmp_path / "a.npy"), rows(5), range(5), names)
    for results in (open_results(tmp_path / "a.npy"), pickle.loads(pickle.dumps(open_results(tmp_path / "a.npy")))):
        assert list(results) == names
        assert np.array_equal(results["case.3"], rows(5)[3])
        assert np.array_equal(results.at(3), rows(5)[3])
        assert results.record("case.3").index == 3
        assert results.read_bytes("case.3") == rows(5)[3].tobytes()
        assert [name for name, _ in (results.dataset()[number] for number in range(5))] == names
        assert results.to_pandas()["index"].tolist() == list(range(5))


def test_a_complete_array_is_mapped(tmp_path):
    """`to_array` reads nothing before it is looked at, and nobody can change the file through it."""
    write(ArrayTarget(tmp_path / "a.npy"), rows(5), range(5))
    array = open_results(ArrayTarget(tmp_path / "a.npy")).to_array()
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable
    assert np.array_equal(array, rows(5))
    with BackgroundWriter("text", tmp_path / "texts") as writer:
        writer.submit("a", "text")
    with pytest.raises(TypeError, match="no mask"):
        _ = open_results(tmp_path / "texts").mask


@pytest.mark.parametrize("damage", ["gone", "shorter", "header", "other kind"])
def test_an_array_that_is_not_as_recorded_is_an_error(tmp_path, damage):
    """Instead of rows that are none."""
    path = tmp_path / "a.npy"
    write(ArrayTarget(path), rows(5), range(5))
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "shorter":
        path.write_bytes(data[:-40])
    elif damage == "header":
        path.write_bytes(b"x" + data[1:])
    else:
        path.write_bytes(header(np.dtype("f8"), (5, 4)) + data[128:])
    results = open_results(path)
    with pytest.raises(ReadError, match=r"a\.npy"):
        results.to_array()
    if damage in ("gone", "shorter"):
        with pytest.raises(ReadError):
            results.at(4)
    assert verify(path).is_sound == (damage in ("header", "other kind"))


def test_a_path_without_records_is_an_error_that_says_so(tmp_path):
    """Whether there is an array or not."""
    with pytest.raises(FileNotFoundError):
        open_results(tmp_path / "a.npy")
    write(ArrayTarget(tmp_path / "a.npy"), rows(5), range(5))
    with pytest.raises(FileNotFoundError, match=r"nothing is recorded of an array or a table 'b\.npy'"):
        verify(tmp_path / "b.npy")
    with pytest.raises(ValueError, match="nothing of"):
        open_results(tmp_path / "b.npy")
    assert list(pending(range(2), tmp_path / "b.npy")) == [0, 1]


# Repair and resuming


def test_a_flipped_byte_is_found_and_computed_again(tmp_path, capsys):
    """The row alone is dropped, the array stays, and the next run puts it right."""
    path = tmp_path / "a.npy"
    write(ArrayTarget(path, 6), rows(6), range(6), list("abcdef"))
    with open(path, "r+b") as file:
        file.seek(128 + 2 * 32 + 5)
        file.write(b"\xff")
    with pytest.raises(ReadError, match="checksum"):
        open_results(path).at(2)
    for place in (path, tmp_path):
        (finding,) = verify(place).findings
        assert (finding.file, finding.trouble, finding.record.index) == ("a.npy", "wrong checksum", 2)
    assert main(["verify", str(path)]) == 1
    assert main(["verify", str(path), "--repair"]) == 0
    assert path.exists()
    assert "dropped 1" in capsys.readouterr().out
    assert verify(path).is_sound
    assert list(pending(range(6), path)) == [2]
    results = open_results(path)
    assert results.mask.tolist() == [True, True, False, True, True, True]
    assert "c" not in results
    write(ArrayTarget(path, 6), rows(6)[[2]], [2], ["c"], resume=True)
    assert np.array_equal(np.load(path), rows(6))
    assert verify(path).findings == []
    assert list(pending(range(6), path)) == []


def test_a_row_that_is_being_replaced_is_not_damaged(tmp_path):
    """While the run that writes it is open, and has not recorded it."""
    path = tmp_path / "a.npy"
    write(ArrayTarget(path, 6), rows(6), range(6))
    with BackgroundWriter(target=ArrayTarget(path, 6), backend="thread", max_workers=1, resume=True) as writer:
        writer.submit_batch(None, rows(1, first=9), origin=Origin([1]))
        writer.flush()
        with open(tmp_path / "a.npy.part", "r+b") as file:
            file.seek(128 + 3 * 32)
            file.write(b"\xff")
        (finding,) = verify(path).findings
        assert (finding.trouble, finding.record.index) == ("being replaced", 3)
    (finding,) = verify(path).findings
    assert finding.trouble == "wrong checksum"


@pytest.mark.parametrize("known", [5, None])
def test_rows_that_do_not_count_any_more_are_not_damaged(tmp_path, capsys, known):
    """A run that begins anew writes over those of the one before, and cuts off the others if it needs fewer."""
    path = tmp_path / "a.npy"
    write(ArrayTarget(path, known), rows(5), range(5))
    write(ArrayTarget(path, known), rows(2, first=20), [0, 3])
    with open(tmp_path / "a.npy.part", "r+b") as file:
        file.seek(128 + 1 * 32)
        file.write(b"\xff")  # as if it had been written, and its writer killed before it was recorded
    for place in (path, tmp_path):
        report = verify(place)
        assert report.findings == []
        assert (report.checked, report.nbytes, report.opaque) == (2, 64, 0)
    assert main(["verify", str(path)]) == 0
    assert "2" in capsys.readouterr().out
    assert list(pending(range(5), path)) == [1, 2, 4]
    with open(tmp_path / "a.npy.part", "r+b") as file:
        file.seek(128 + 3 * 32)
        file.write(b"\xff")
    (finding,) = verify(path).findings
    assert (finding.trouble, finding.record.index) == ("wrong checksum", 3)


def test_replay_writes_what_was_kept_to_its_row(tmp_path, capsys):
    """Once there is room; a key that leads elsewhere is refused."""
    path = tmp_path / "a.npy"
    with open(path.with_name("a.npy.part"), "wb") as file:
        file.write(b"in the way")
    with pytest.raises(WriteError):
        write(ArrayTarget(path, 3), rows(3), range(3), ["x", "y", "z"], on_error="continue")
    path.with_name("a.npy.part").unlink()
    assert main(["replay", str(path)]) == 0
    assert "3 of 3 values are written" in capsys.readouterr().out
    assert np.array_equal(np.load(path), rows(3))
    assert np.array_equal(open_results(path)["y"], rows(3)[1])
    assert list(pending(range(3), path)) == []

    with pytest.raises(WriteError):
        write(ArrayTarget(path, 4), rows(1), [0], on_error="continue", resume=True)
    (error,) = (tmp_path / ".lighter-async/quarantine").glob("*/error.json")
    error.write_text(error.read_text().replace('"a.npy"', '"../b.npy"'))
    capsys.readouterr()
    assert main(["replay", str(tmp_path)]) == 1
    assert "'../b.npy'" in capsys.readouterr().err
    assert not (tmp_path.parent / "b.npy").exists()


def test_an_index_under_another_name_is_pending(tmp_path):
    """And said, once, with both names; rows are known by their indices."""
    write(ArrayTarget(tmp_path / "a.npy", 4), rows(4), range(4), list("abcd"))
    assert list(pending(range(4), tmp_path / "a.npy", names=list("abcd"))) == []
    with pytest.warns(UserWarning, match="item 1 is 'x' now, and its row is that of 'b'"):
        assert list(pending(range(4), tmp_path / "a.npy", names=list("axcd"))) == [1]
    write(ArrayTarget(tmp_path / "a.npy", 4), rows(1, first=7), [1], ["x"], resume=True)
    results = open_results(tmp_path / "a.npy")
    assert list(results) == list("axcd")
    assert np.array_equal(results.at(1), rows(1, first=7)[0])
    assert "b" not in results
    assert verify(tmp_path).findings == []


def in_a_process(*arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = Path(__file__).parent / "arrays_script.py"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
@pytest.mark.parametrize(
    ("job", "torn"),
    [
        ("store", "torn"),
        pytest.param("store", "whole", marks=pytest.mark.long),
        *(
            pytest.param(job, torn, marks=pytest.mark.long)
            for job in ("store_growing", "store_over")
            for torn in ("whole", "torn")
        ),
    ],
)
def test_a_job_that_is_killed_at_any_change_goes_on(tmp_path, job, torn):
    """Before each write, rename and so on, or in the middle of it: what was told is there, the rest is computed."""
    assert run_kills("arrays_script.py", tmp_path, job, torn) > 12


@pytest.mark.parametrize("durability", ["rename", "fsync"])
def test_a_helper_that_is_killed_costs_no_row(tmp_path, durability):
    """The next one stores its unit again, at the same places."""
    (tmp_path / "deaths").mkdir()
    (tmp_path / "deaths/one").touch()
    target = Dying(tmp_path / "a.npy", 400, durability=durability)
    target.deaths = str(tmp_path / "deaths")
    with BackgroundWriter(target=target, backend="process", max_workers=2) as writer:
        for start in range(0, 400, 40):
            writer.submit_batch(None, rows(40, first=start), origin=Origin(range(start, start + 40)))
    assert not os.listdir(tmp_path / "deaths")
    assert writer.stats().written == 400
    assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), rows(400))
    assert len(read_manifest(tmp_path).records) == 400


def test_an_array_that_lacks_only_its_name_gets_it_when_it_is_opened(tmp_path):
    """As one of a job that was killed after its last row."""
    store(tmp_path)
    (tmp_path / "a.npy").rename(tmp_path / "a.npy.part")
    assert list(pending(range(ROWS), tmp_path / "a.npy")) == []
    with BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy", ROWS), resume=True):
        pass
    check_whole(tmp_path)


@pytest.mark.parametrize("known", [True, False])
def test_without_locks_the_records_decide(tmp_path, monkeypatch, known):
    """On a file system that has none: the array gets its name when all of its rows are recorded."""

    def missing(descriptor, path):
        raise NoLocks

    for name in ("try_lock", "try_share"):
        monkeypatch.setattr(f"lighter_async.targets.array.file.{name}", missing)
    with BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy", 6 if known else None), backend="thread") as writer:
        writer.submit_batch(None, rows(3, first=3), origin=Origin([3, 4, 5]))
        writer.flush(seal=True)
        assert (tmp_path / "a.npy.part").exists()
        writer.submit_batch(None, rows(3), origin=Origin([0, 1, 2]))
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows(6))
    write(ArrayTarget(tmp_path / "a.npy", 6 if known else None), rows(6, first=9), range(6))
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows(6, first=9))


def test_close_by_leaves_a_part(tmp_path):
    """Which the next run completes."""
    writer = BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy", 4), backend="thread", max_workers=1)
    writer.submit_batch(None, rows(4), origin=Origin(range(4)))
    assert writer.close_by(DEADLINE) == 0
    assert (tmp_path / "a.npy.part").exists()
    with BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy", 4), resume=True):
        pass
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows(4))


# Several ranks


@pytest.mark.parametrize("known", [True, False])
def test_ranks_of_one_process_store_their_shares(tmp_path, known):
    """The last one gives the array its name, whichever that is, and the others nothing."""
    count = 200 if known else None
    both = threading.Barrier(2)
    errors = []

    def share(rank):
        try:
            run = Run(id="one", rank=rank, world_size=2)
            with BackgroundWriter(
                target=ArrayTarget(tmp_path / "a.npy", count, run=run), backend="thread", max_workers=2
            ) as writer:
                both.wait(DEADLINE)
                mine = range(rank, 200, 2)
                for start in range(0, 100, 7):
                    some = mine[start : start + 7]
                    writer.submit_batch(None, rows(200)[some.start : some.stop : 2], origin=Origin(some))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=share, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows(200))
    assert verify(tmp_path).findings == []
    assert {record.rank for record in read_manifest(tmp_path).records} == {0, 1}


@pytest.mark.parametrize("first", [0, 1])
def test_a_rank_that_ends_early_does_not_cut_off_the_others_rows(tmp_path, first):
    """Where it is not known how many there will be, what is there looks complete before the other one has begun."""
    writers = [
        BackgroundWriter(
            target=ArrayTarget(tmp_path / "a.npy", run=Run(id="one", rank=rank, world_size=2)),
            backend="thread",
            max_workers=1,
        )
        for rank in range(2)
    ]
    for rank, writer in enumerate(writers):
        writer.submit_batch(None, rows(3, first=3 * rank), origin=Origin(range(3 * rank, 3 * rank + 3)))
        writer.flush()
    writers[first].close()
    assert (tmp_path / "a.npy.part").exists()
    writers[1 - first].submit_batch(None, rows(2, first=6), origin=Origin([6, 7]))
    writers[1 - first].close()
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows(8))


def store_on_two_ranks(folder, *name):
    """Have two processes store their shares of the rows at once."""
    processes = [in_a_process(folder, "rank", rank, *name) for rank in range(2)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            _, err = process.communicate("go\n", timeout=DEADLINE)
            assert process.returncode == 0, err
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.long
def test_ranks_in_processes_of_their_own_store_their_shares(tmp_path):
    """With helpers, and nothing said between them."""
    store_on_two_ranks(tmp_path)
    check_whole(tmp_path)
    assert np.array_equal(np.load(tmp_path / "a.npy"), WHOLE)


# Lightning


def model_of(package, width=4):
    class Model(package.LightningModule):
        def predict_step(self, batch, batch_idx, dataloader_idx=0):
            return {
                "embedding": batch[:, None] + torch.arange(width) / 8 + 100 * dataloader_idx,
                "name": [f"item-{dataloader_idx}-{int(one)}" for one in batch],
            }

    return Model()


def embeddings(count, loader=0, width=4):
    return (torch.arange(count, dtype=torch.float32)[:, None] + torch.arange(width) / 8 + 100 * loader).numpy()


@both_packages
@pytest.mark.parametrize("name_key", [None, "name"])
def test_the_callback_writes_the_rows_of_a_data_set(package, tmp_path, name_key):
    """As many as it has, with names where the outputs have them."""
    writer = ArrayWriter(tmp_path / "e.npy", "embedding", name_key, max_workers=1)
    data = DataLoader(torch.arange(11.0), batch_size=4)
    make_trainer(package, writer).predict(model_of(package), data, return_predictions=False)
    assert np.array_equal(np.load(tmp_path / "e.npy"), embeddings(11))
    assert writer.stats().written == 11
    results = open_results(tmp_path / "e.npy")
    assert list(results)[10] == ("item-0-10" if name_key else "10")
    assert np.array_equal(results.at(10), embeddings(11)[10])
    assert verify(tmp_path).findings == []


@both_packages
def test_the_callbacks_rows_of_several_loaders_go_on(package, tmp_path):
    """One data set after the other, as numbers do."""
    writer = ArrayWriter(tmp_path / "e.npy", "embedding", max_workers=1)
    loaders = [DataLoader(torch.arange(float(count)), batch_size=4) for count in (5, 7)]
    make_trainer(package, writer).predict(model_of(package), loaders, return_predictions=False)
    assert np.array_equal(np.load(tmp_path / "e.npy"), np.concatenate([embeddings(5), embeddings(7, 1)]))
    results = open_results(tmp_path / "e.npy")
    assert np.array_equal(results.at(2, loader=1), embeddings(7, 1)[2])
    assert np.array_equal(results["7"], embeddings(7, 1)[2])


@both_packages
@pytest.mark.parametrize("name_key", [None, "name"])
def test_a_callback_that_was_interrupted_goes_on(package, tmp_path, name_key, capsys):
    """With `pending` and resume=True it computes what is missing; an array that lacks its name alone gets it."""
    data = torch.arange(11.0)

    class Stop(package.Callback):
        def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
            if batch_idx == 2:
                raise ZeroDivisionError

    def predict(*callbacks):
        names = [f"item-0-{number}" for number in range(11)] if name_key else None
        sampler = pending(data, tmp_path / "e.npy", names=names)
        writer = ArrayWriter(tmp_path / "e.npy", "embedding", name_key, resume=True, max_workers=1)
        loader = DataLoader(data, batch_size=4, sampler=sampler)
        make_trainer(package, writer, *callbacks).predict(model_of(package), loader, return_predictions=False)
        return writer

    with pytest.raises(ZeroDivisionError):
        predict(Stop())
    assert (tmp_path / "e.npy.part").exists()
    assert predict().stats().written == 3
    assert "8 of 11 are stored" in capsys.readouterr().err
    assert np.array_equal(np.load(tmp_path / "e.npy"), embeddings(11))
    (tmp_path / "e.npy").rename(tmp_path / "e.npy.part")
    assert predict().stats().written == 0
    assert np.array_equal(np.load(tmp_path / "e.npy"), embeddings(11))


@both_packages
def test_a_callback_refuses_to_go_on_over_another_data_set(package, tmp_path):
    """Rows are numbers, named or not, so which of them are stored could not be told."""
    for count in (6, 7):
        writer = ArrayWriter(tmp_path / "e.npy", "embedding", "name", resume=True, max_workers=1)
        trainer = make_trainer(package, writer)
        if count == 7:
            with pytest.raises(ResumeError, match="had 6 items, and has 7 now"):
                trainer.predict(model_of(package), DataLoader(torch.arange(7.0), 4), return_predictions=False)
        else:
            trainer.predict(model_of(package), DataLoader(torch.arange(6.0), 4), return_predictions=False)
    assert np.array_equal(np.load(tmp_path / "e.npy"), embeddings(6))


@both_packages
def test_a_callback_says_that_an_array_is_overwritten(package, tmp_path):
    """And not that there are other files in its folder; `if_exists` and `durability` are options of it."""
    (tmp_path / "other").write_text("file")
    data = DataLoader(torch.arange(6.0), 4)
    first = ArrayWriter(tmp_path / "e.npy", "embedding", durability="fsync", max_workers=1)
    make_trainer(package, first).predict(model_of(package), data, return_predictions=False)
    again = make_trainer(package, ArrayWriter(tmp_path / "e.npy", "embedding", max_workers=1))
    with pytest.warns(UserWarning, match=r"e\.npy already exists"):
        again.predict(model_of(package), data, return_predictions=False)
    refuses = ArrayWriter(tmp_path / "e.npy", "embedding", if_exists="error", max_workers=1)
    with pytest.raises(FileExistsError, match=r"e\.npy.* is there"):
        make_trainer(package, refuses).predict(model_of(package), data, return_predictions=False)
    skips = ArrayWriter(tmp_path / "e.npy", "embedding", if_exists="skip", max_workers=1)
    make_trainer(package, skips).predict(model_of(package), data, return_predictions=False)
    assert skips.stats().skipped == 6
    assert np.array_equal(np.load(tmp_path / "e.npy"), embeddings(6))


@both_packages
def test_file_writer_takes_the_target_too(package, tmp_path):
    """Without a writer; and it still needs one for files."""
    writer = FileWriter(ArrayTarget(tmp_path / "e.npy"), "embedding", max_workers=1)
    data = DataLoader(torch.arange(6.0), 4)
    make_trainer(package, writer).predict(model_of(package), data, return_predictions=False)
    assert np.array_equal(np.load(tmp_path / "e.npy"), embeddings(6))
    with pytest.raises(TypeError, match="must be a registered name"):
        FileWriter(tmp_path / "files", "embedding")
    with pytest.raises(TypeError, match="value_key is the one entry"):
        ArrayWriter(tmp_path / "e.npy", {"a": "row"})
    assert pickle.loads(pickle.dumps(ArrayWriter(tmp_path / "e.npy", "embedding"))).value_key == "embedding"


# The pieces


def test_an_array_says_what_it_is(tmp_path):
    """Before it is open; two ways to one array are one place."""
    target = ArrayTarget(tmp_path / "a.npy", [2, 3])
    (tmp_path / "link").symlink_to(tmp_path)
    assert target.location == ArrayTarget(tmp_path / "link/a.npy").location
    assert features_of(target) == Features(has_directory=True, takes_arrays=True)
    assert target.rows_of([0, 2], 1) == [2, 4]
    assert target.rows_of(range(2), 0) == range(2)
    with pytest.raises(ValueError, match="not open"):
        target.lane(0)
    with pytest.raises(TypeError, match="by its name alone"):
        target.put("a", [memoryview(b"x")])
    with pytest.raises(ValueError, match="no loader 2"):
        target.rows_of([0], 2)


@pytest.mark.parametrize("shape", [(0, 3), (5, 3), (10**18, 3), (7,), (10**9, 2, 3)])
def test_headers_are_numpys_and_have_one_length(shape):
    """Whatever the number of rows, so that the array can grow in place."""
    data = header(np.dtype("f4"), shape)
    assert len(data) == len(header(np.dtype("f4"), (1, *shape[1:]))) == 128
    assert parse(data) == (np.dtype("f4"), shape, 128)
    assert np.lib.format.read_array_header_1_0(io.BytesIO(data[8:])) == (shape, False, np.dtype("f4"))
    longer = header(np.dtype("f4"), shape, 192)
    assert (len(longer), parse(longer)) == (192, (np.dtype("f4"), shape, 192))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x01\x00\xff\xff{}",
        b"\x93NUMPY\x02\x00" + bytes(100),
        b"\x93NUMPY\x01\x00\x36\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (2,)}",
        b"\x93NUMPY\x01\x00\x36\x00" + b"{'descr': '<f4', 'fortran_order': True, 'shape': (2,)}",
        b"\x93NUMPY\x01\x00\x10\x00" + b"[" * 16,
    ],
)
def test_headers_of_anybodys_are_not_trusted(data):
    """What is no header, or one of objects, is a ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 - in the words of whoever finds it
        parse(data)


# Lines that others may have written


def line_of(**changes):
    """A line of three rows, with some fields changed."""
    output = {
        "writer": "row",
        "key": "a.npy",
        "object": "a.npy",
        "offset": {"start": 128, "step": 32},
        "bytes": 32,
        "xxh3": "0" * 48,
        "shape": [8],
        "dtype": "float32",
    }
    about = {"samples": 3, "names": {"start": 0, "step": 1}, "outputs": [output], "index": {"start": 0, "step": 1}}
    output.update({name: value for name, value in changes.items() if name in output})
    about.update({name: value for name, value in changes.items() if name in about})
    return json.dumps({**about, "rank": 0, "loader": 0, "batch": None, "time": 1.0, "run": "r"}, separators=(",", ":"))


def manifest_of(folder, *lines):
    (folder / ".lighter-async").mkdir()
    (folder / ".lighter-async/manifest-0.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return read_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "offsets"),
    [
        ({}, [128, 160, 192]),
        ({"offset": [128, 160, 192]}, [128, 160, 192]),
        ({"offset": {"start": 192, "step": -32}}, [192, 160, 128]),
        ({"offset": {"start": 2**62, "step": 32}}, [2**62, 2**62 + 32, 2**62 + 64]),
        ({"offset": {"start": 0, "step": 32}}, None),
        ({"offset": {"start": -64, "step": 32}}, None),
        ({"offset": {"start": 64, "step": -32}}, None),
        ({"offset": {"start": 2**63 - 1, "step": 1}}, None),
        ({"offset": {"start": 2**62, "step": 2**62}}, None),
        ({"offset": {"start": 2**64, "step": 1}}, None),
        ({"offset": {"start": 128.5, "step": 1}}, None),
        ({"offset": {"start": 128}}, None),
        ({"samples": 2**20, "xxh3": ""}, None),
        ({"samples": 2**20}, None),
        ({"object": "../a.npy"}, None),
        ({"object": None}, None),
    ],
)
def test_offsets_that_no_writer_gives_are_not_read(tmp_path, changes, offsets):
    """Spans are whole numbers from 1 on that fit, and as many as there are checksums."""
    manifest = manifest_of(tmp_path, line_of(**changes))
    assert [record.offset for record in manifest.records] == (offsets or [])
    assert manifest.torn == (offsets is None)


@pytest.mark.parametrize("offset", [160, 0, -1, 2**63, "160", None, True])
def test_a_row_is_taken_back_by_its_place(tmp_path, offset):
    """Whatever its name was; another place, or none that can be, takes back nothing."""
    dropped = {"dropped": "7", "file": "a.npy", "run": "r", "time": 2.0, "seen": None, "series": ["row", "a.npy"]}
    manifest = manifest_of(tmp_path, line_of(), json.dumps({**dropped, "offset": offset}))
    assert [record.index for record in manifest.records] == ([0, 2] if offset == 160 else [0, 1, 2])
    assert manifest.torn == (offset not in (160, 0) or offset is True)


def test_a_later_record_of_a_row_takes_the_place_of_an_earlier_one(tmp_path):
    """Though the sample has another name."""
    later = line_of(samples=1, names=["x"], index=[1], offset=[160], xxh3="1" * 16)
    manifest = manifest_of(tmp_path, line_of(), later)
    assert [(record.name, record.index) for record in manifest.records] == [("0", 0), ("x", 1), ("2", 2)]


@pytest.mark.parametrize("first", [0, 2**50])
def test_an_array_that_a_line_makes_up_is_not_read_beyond_its_file(tmp_path, first):
    """Nor is room made for as many rows as a line says."""
    (tmp_path / "a.npy").write_bytes(header(np.dtype("f4"), (10**15, 8)) + bytes(96))
    begin = '{"format":2,"run":"r","writer":"row","key":"a.npy","suffix":"","rank":0,"world_size":1,"resume":false,'
    begin += '"numbered":true,"since":1,"boot":"","time":1.0,"sequence":1}'
    manifest_of(tmp_path, begin, line_of(offset={"start": 128 + first * 32, "step": 32}))
    results = open_results(tmp_path / "a.npy")
    for read in (results.to_array, lambda: results.mask):
        with pytest.raises(ReadError, match="it has 224 bytes, and"):
            read()
    with pytest.raises(ReadError):
        results.at(1)
    (tmp_path / "a.npy").rename(tmp_path / "a.npy.part")
    with BackgroundWriter(target=ArrayTarget(tmp_path / "a.npy"), resume=True, backend="thread"):
        pass
    assert (tmp_path / "a.npy.part").exists()
