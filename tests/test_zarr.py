"""Arrays of zarr's: gathered as rows, sealed as whole chunks, and read back as rows of an array are."""

import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from arrays_script import WHOLE
from killing import run_kills
from lightning_models import lightning_warnings, make_trainer
from test_arrays import embeddings, model_of, rows, store_on_two_ranks, write
from torch.utils.data import DataLoader

from lighter_async import (
    ArrayTarget,
    ArrayWriter,
    BackgroundWriter,
    Origin,
    ReadError,
    WriteError,
    open_results,
    pending,
)
from lighter_async.cli import main
from lighter_async.manifest.verify import verify
from lighter_async.targets.array.part import Layout
from lighter_async.targets.array.zarr import Zarr

zarr = pytest.importorskip("zarr")
pytestmark = lightning_warnings


def array_at(path):
    """The array, as zarr reads it; each of its chunks is there."""
    array = zarr.open_array(path, mode="r")
    assert array.nchunks_initialized == array.nchunks
    return array


def whole(folder):
    """What lies in a folder besides the records."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lighter-async")


@pytest.mark.parametrize("durability", ["rename", pytest.param("fsync", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("backend", "known"),
    [
        *(("thread", False), ("process", True)),
        *(pytest.param(*other, marks=pytest.mark.long) for other in (("thread", True), ("process", False))),
    ],
)
def test_rows_become_chunks_when_all_are_there(tmp_path, backend, durability, known):
    """Exactly what was handed over, from several workers; until then they lie in a part, and are read there."""
    values = torch.randn(500, 3, 16, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "a.zarr"
    target = ArrayTarget(path, 500 if known else None, durability=durability, chunk_rows=64)
    with BackgroundWriter(target=target, backend=backend, max_workers=2) as writer:
        for start in range(0, 500, 90):
            some = range(start, min(start + 90, 500))
            writer.submit_batch(None, values[some.start : some.stop], origin=Origin(some))
        writer.flush()
        assert whole(tmp_path) == ["a.zarr.part"]
        assert np.array_equal(open_results(path).to_array(), values)
    assert whole(tmp_path) == ["a.zarr"]
    array = array_at(path)
    assert (array.shape, array.chunks, array.dtype) == ((500, 3, 16), (64, 3, 16), np.float32)
    assert np.array_equal(array[:], values)
    results = open_results(path)
    assert np.array_equal(results.to_array(), values)
    assert np.array_equal(results["77"], values[77])
    assert np.array_equal(results.at(499), values[499])
    assert results.mask.all()
    assert verify(path).findings == verify(tmp_path).findings == []
    assert list(pending(range(500), path)) == list(pending(range(500), target)) == []
    loader = DataLoader(results.dataset(), batch_size=100, num_workers=1)
    assert torch.equal(torch.cat([batch for _, batch in loader]), values)


@pytest.mark.parametrize(
    "dtype",
    [
        *("bool", "int8", "float16"),
        *(pytest.param(other, marks=pytest.mark.long) for other in ("uint16", "int64", "float64", "complex64")),
    ],
)
def test_any_number_is_a_row(tmp_path, dtype):
    """Each with one value."""
    values = np.arange(-3, 4).astype(dtype)
    write(ArrayTarget(tmp_path / "a.zarr"), values, range(7))
    found = array_at(tmp_path / "a.zarr")
    assert found.dtype == values.dtype
    assert np.array_equal(found[:], values)
    results = open_results(tmp_path / "a.zarr")
    assert [results.at(row) for row in range(7)] == list(values)


@pytest.mark.parametrize("dtype", ["U3", "S3", "M8[s]"])
def test_what_is_no_number_is_refused_at_the_first_sample(tmp_path, dtype):
    """With the way out."""
    with pytest.raises(WriteError, match=r"made of numbers or booleans, not of .*store it as \.npy"):
        write(ArrayTarget(tmp_path / "a.zarr", 1), np.zeros((1, 2), dtype), [0])
    assert whole(tmp_path) == []


def test_an_array_with_missing_rows_takes_them_later(tmp_path):
    """It is a part until then, with names and a mask, and a run that resumes completes it."""
    path = tmp_path / "a.zarr"
    write(ArrayTarget(path, 9, chunk_rows=4), rows(4), range(4), list("abcd"))
    assert whole(tmp_path) == ["a.zarr.part"]
    assert open_results(path).mask.tolist() == [True] * 4 + [False] * 5
    assert open_results(tmp_path / "a.zarr.part")["c"].tolist() == rows(4)[2].tolist()
    left = list(pending(range(9), path, names=list("abcdefghi")))
    assert left == [4, 5, 6, 7, 8]
    write(ArrayTarget(path, 9, chunk_rows=4), rows(5, first=4), left, list("efghi"), resume=True)
    assert np.array_equal(array_at(path)[:], rows(9))
    assert list(open_results(path)) == list("abcdefghi")


def test_rows_that_are_stored_again_replace_those_of_a_complete_array(tmp_path):
    """It is a part again meanwhile, with all that it had."""
    path = tmp_path / "a.zarr"
    write(ArrayTarget(path, 9, chunk_rows=4), rows(9), range(9))
    with BackgroundWriter(target=ArrayTarget(path, 9), backend="thread", max_workers=1, resume=True) as writer:
        writer.submit_batch(None, rows(2, first=50), origin=Origin([2, 8]))
        writer.flush()
        assert whole(tmp_path) == ["a.zarr.part"]
        assert np.array_equal(open_results(path).at(3), rows(9)[3])
    expected = rows(9)
    expected[[2, 8]] = rows(2, first=50)
    assert np.array_equal(array_at(path)[:], expected)
    assert np.array_equal(open_results(path).to_array(), expected)
    assert verify(path).findings == []


@pytest.mark.parametrize("damage", ["torn", "gone", "zeroed"])
def test_a_damaged_chunk_is_found_and_its_rows_computed_again(tmp_path, capsys, damage):
    """By verify; until it has taken them back, no run goes on as if they were there."""
    path = tmp_path / "a.zarr"
    write(ArrayTarget(path, 9, chunk_rows=4), rows(9), range(9))
    assert open_results(path).at(5).tolist() == rows(9)[5].tolist()
    chunk = path / "c/1/0"
    if damage == "torn":
        chunk.write_bytes(chunk.read_bytes()[:-3])
    elif damage == "gone":
        chunk.unlink()
    else:
        other = tmp_path / "other"
        zarr.create_array(other, data=np.zeros((9, 8), np.float32), chunks=(4, 8), config={"write_empty_chunks": True})
        shutil.copy(other / "c/1/0", chunk)
        shutil.rmtree(other)
    assert len(verify(path).findings) == 4
    if damage != "zeroed":
        with pytest.raises(ReadError, match="chunk .* is gone" if damage == "gone" else "cannot be decoded"):
            open_results(path).at(5)
        with pytest.raises(WriteError, match="verify DIR --repair"):
            write(ArrayTarget(path, 9), rows(1), [0], resume=True)
    assert main(["verify", str(path), "--repair"]) == 0
    capsys.readouterr()
    left = list(pending(range(9), path))
    assert left == [4, 5, 6, 7]
    write(ArrayTarget(path, 9, chunk_rows=4), rows(4, first=4), left, resume=True)
    assert np.array_equal(array_at(path)[:], rows(9))
    assert verify(path).findings == []


def test_what_is_none_of_ours_stays(tmp_path):
    """An array that somebody else has made, a folder and a file."""
    zarr.create_array(tmp_path / "a.zarr", data=rows(4))
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "c.zarr").touch()
    for name, error in (("a", IsADirectoryError), ("b", IsADirectoryError), ("c", FileExistsError)):
        with pytest.raises(error, match="is no zarr array that was stored here; choose another path"):
            write(ArrayTarget(tmp_path / f"{name}.zarr", 4), rows(4), range(4))
    assert np.array_equal(array_at(tmp_path / "a.zarr")[:], rows(4))
    assert whole(tmp_path) == ["a.zarr", "b.zarr", "c.zarr"]


def test_a_failed_seal_keeps_the_rows(tmp_path, monkeypatch, capfd):
    """They are in the part, which the next writer that opens it seals; what failed is told."""
    path = tmp_path / "a.zarr"

    def fail(*arguments, **options):
        raise RuntimeError("no way")

    monkeypatch.setattr(zarr, "create_array", fail)
    write(ArrayTarget(path, 4), rows(4), range(4))
    assert "RuntimeError: no way" in capfd.readouterr().err
    assert whole(tmp_path) == ["a.zarr.part"]
    assert np.array_equal(open_results(path).to_array(), rows(4))
    monkeypatch.undo()
    with BackgroundWriter(target=ArrayTarget(path, 4), backend="thread", max_workers=1, resume=True):
        pass
    assert np.array_equal(array_at(path)[:], rows(4))


def test_a_part_that_is_cut_short_while_sealing_is_told_and_ends_nothing(tmp_path, monkeypatch, capfd):
    """It is read and not mapped: a page of a mapped file that is not there any more would end the process."""
    path = tmp_path / "a.zarr"
    real = zarr.create_array

    def cut(*arguments, **options):
        os.truncate(f"{path}.part", 4096)
        return real(*arguments, **options)

    monkeypatch.setattr(zarr, "create_array", cut)
    values = np.random.default_rng(1).random((75, 1000))
    write(ArrayTarget(path, 75), values, range(75))
    told = capfd.readouterr().err
    assert f"'{path}.part' was cut short while its array was made, before row 75: lighter-async verify" in told
    assert "are kept" not in told
    assert whole(tmp_path) == ["a.zarr.part"]
    monkeypatch.undo()
    assert main(["verify", str(tmp_path), "--repair"]) == 0  # as the message says
    left = list(pending(range(75), path))
    write(ArrayTarget(path, 75), values[left], left, resume=True)
    assert np.array_equal(array_at(path)[:], values)


def test_a_disk_that_fills_up_while_sealing_keeps_the_rows(small_disk, capfd):
    """Both have to fit; what does not is told, and completed once there is room."""
    path = small_disk / "a.zarr"
    values = np.random.default_rng(1).random((75, 1000))
    write(ArrayTarget(path, 75), values, range(75))
    assert "No space left" in capfd.readouterr().err
    assert whole(small_disk) == ["a.zarr.part"]
    assert np.array_equal(open_results(path).to_array(), values)
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True, timeout=30)
    with BackgroundWriter(target=ArrayTarget(path, 75), backend="thread", max_workers=1, resume=True):
        pass
    assert np.array_equal(array_at(path)[:], values)
    assert not [name for name in os.listdir(small_disk / ".lighter-async") if name.startswith("zarr")]


def test_chunks_of_large_rows_are_parts_of_them():
    """No codec takes more than two gigabytes at once."""

    def chunk(*shape, rows=100, chunk_rows=None):
        return Zarr("", chunk_rows, None, None)._chunk(Layout(np.dtype(np.float32), shape, 128), rows)

    assert chunk(384) == (100, 384)
    assert chunk(384, rows=10_000) == (2730, 384)
    assert chunk() == (100,)
    assert chunk(1000, 1000) == (1, 1000, 1000)
    assert chunk(512, 512, 512) == (1, 256, 512, 512)
    assert chunk(rows=1 << 30, chunk_rows=1 << 30) == (1 << 26,)


def test_options_of_zarr(tmp_path):
    """Are checked at once, and travel with copies."""
    with pytest.raises(ValueError, match=r"chunk_rows is for \.zarr arrays; 'a\.npy' has no chunks"):
        ArrayTarget(tmp_path / "a.npy", chunk_rows=4)
    with pytest.raises(ValueError, match="chunk_rows is at least 1, not 0"):
        ArrayTarget(tmp_path / "a.zarr", chunk_rows=0)
    with pytest.raises(TypeError, match="chunk_rows is a whole number, not 'x'"):
        ArrayTarget(tmp_path / "a.zarr", chunk_rows="x")
    assert pickle.loads(pickle.dumps(ArrayTarget(tmp_path / "a.zarr", chunk_rows=3))).chunk_rows == 3


def test_without_zarr_it_is_refused_before_anything_is_computed(tmp_path, monkeypatch, capsys):
    """With the command that installs it; results that are there say the same, and are not taken for damaged."""
    write(ArrayTarget(tmp_path / "a.zarr", 4), rows(4), range(4))
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"pip install 'lighter-async\[zarr\]'"):
        BackgroundWriter(target=ArrayTarget(tmp_path / "b.zarr")).start()
    shutil.move(tmp_path / "a.zarr", tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", tmp_path / "a.zarr")
    for read in (lambda path: open_results(path).at(1), lambda path: open_results(path).to_array(), verify):
        with pytest.raises(ImportError, match=r"pip install 'lighter-async\[zarr\]'"):
            read(tmp_path / "a.zarr")
    assert main(["verify", str(tmp_path / "a.zarr"), "--repair"]) == 2
    assert "pip install 'lighter-async[zarr]'" in capsys.readouterr().err
    monkeypatch.undo()
    assert verify(tmp_path / "a.zarr").findings == []


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
@pytest.mark.parametrize(
    ("job", "torn"),
    [
        pytest.param("store", "torn", marks=pytest.mark.long),
        pytest.param("store_over", "torn", marks=pytest.mark.long),
        pytest.param("store_over", "whole", marks=pytest.mark.long),
        pytest.param("store_growing", "whole", marks=pytest.mark.long),
    ],
)
def test_a_job_that_is_killed_at_any_change_goes_on(tmp_path, job, torn):
    """Also in the middle of sealing, of making a part of a complete array, and between the two names."""
    assert run_kills("arrays_script.py", tmp_path, job, torn, "a.zarr") > 16


@pytest.mark.long
def test_ranks_share_chunks(tmp_path):
    """Every other row is of each, in processes with helpers of their own: the last one seals all of them."""
    store_on_two_ranks(tmp_path, "a.zarr")
    assert whole(tmp_path) == ["a.zarr"]
    assert np.array_equal(array_at(tmp_path / "a.zarr")[:], WHOLE)


def test_the_callback_writes_one(tmp_path):
    """Of as many rows as the data set has."""
    import pytorch_lightning

    writer = ArrayWriter(tmp_path / "e.zarr", "embedding", "name", chunk_rows=3, max_workers=1)
    data = DataLoader(torch.arange(11.0), batch_size=4)
    make_trainer(pytorch_lightning, writer).predict(model_of(pytorch_lightning), data, return_predictions=False)
    assert np.array_equal(array_at(tmp_path / "e.zarr")[:], embeddings(11))
    assert array_at(tmp_path / "e.zarr").chunks == (3, 4)
    assert np.array_equal(open_results(tmp_path / "e.zarr")["item-0-10"], embeddings(11)[10])
