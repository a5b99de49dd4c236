"""Units of samples that are alike: encoded, stored and recorded at once, as if they were one by one."""

import os

import numpy as np
import pytest
import torch

from lighter_async import (
    BackgroundWriter,
    Encoder,
    InvalidNameError,
    LocalTarget,
    Origin,
    TarShards,
    WriteError,
    open_results,
    read_manifest,
)
from lighter_async.manifest import ManifestLog
from lighter_async.manifest.verify import verify
from lighter_async.plain_memory import EncodedRows
from lighter_async.targets.file_lanes import FileLane
from lighter_async.targets.shards.lane import ShardLane
from lighter_async.testing.base import opened
from lighter_async.writers import write_tensor

NAMES = [f"case.{number}/part" for number in range(9)]


@pytest.fixture(params=["thread", "process"])
def backend(request):
    return request.param


@pytest.fixture
def one_by_one(monkeypatch):
    """A function after which nothing is put as rows."""
    return lambda: monkeypatch.setattr(ShardLane, "takes_rows", False)


@pytest.fixture
def rows_put(monkeypatch):
    """The number of samples of each call of `put_rows` that has stored them."""
    counts, put_rows = [], ShardLane.put_rows

    def counting(lane, items, on_progress):
        placed = put_rows(lane, items, on_progress)
        if placed is not None:
            counts.append(len(items.names))
        return placed

    monkeypatch.setattr(ShardLane, "put_rows", counting)
    return counts


def batch_of(count, *shape, first=0):
    size = int(np.prod(shape, dtype=int))
    return torch.arange(first, first + count * size, dtype=torch.float32).reshape(count, *shape)


def store(target, batches, **options):
    with BackgroundWriter("tensor", target=target, max_workers=1, **options) as writer:
        start = 0
        for names, batch in batches:
            writer.submit_batch(names, batch, origin=Origin(range(start, start + len(names)), loader=1, batch=start))
            start += len(names)
    return writer.stats()


def shards_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith("shard")}


def records_in(folder):
    found = []
    for one in read_manifest(folder).records:
        found.append((one.name, one.file, one.offset, one.bytes, one.xxh3, one.index, one.loader, one.batch, one.shape))
    return found


@pytest.mark.parametrize("limits", [{}, {"shard_samples": 4}, {"shard_bytes": 20_000}], ids=str)
def test_shards_are_the_same_as_one_by_one(tmp_path, monkeypatch, rows_put, one_by_one, limits):
    """To the byte, with the same records and indices; only where a shard ends may differ, as units lie in one."""
    monkeypatch.setattr("lighter_async.targets.shards.lane.time.time", lambda: 1e9)
    batches = [(NAMES[:4], batch_of(4, 5)), (NAMES[4:], batch_of(5, 5, first=100))]
    store(TarShards(tmp_path / "rows", **limits), batches, backend="thread")
    assert rows_put == ([4, 5] if not limits else rows_put)
    assert rows_put
    one_by_one()
    store(TarShards(tmp_path / "single", **limits), batches, backend="thread")
    for folder in ("rows", "single"):
        results = open_results(tmp_path / folder)
        assert {name: results[name].tolist() for name in NAMES} == {
            name: row.tolist() for names, batch in batches for name, row in zip(names, batch, strict=True)
        }
        assert verify(tmp_path / folder).is_sound
    if not limits:
        shards = shards_in(tmp_path / "rows")
        assert shards == shards_in(tmp_path / "single")
        assert records_in(tmp_path / "rows") == records_in(tmp_path / "single")


def test_both_backends_store_rows(tmp_path, backend):
    """Of numbers as names, too, and in batches of any size."""
    batches = [([f"{first}-{number}" for number in range(count)], batch_of(count, 3, 2, first=first))
               for first, count in ((0, 1), (10, 2), (100, 64), (1000, 300))]  # fmt: skip
    stats = store(TarShards(tmp_path), batches, backend=backend)
    assert (stats.written, stats.failed) == (367, 0)
    nbytes = len(write_tensor.encode(batches[0][1][0])[0])
    assert stats.bytes_written == 367 * nbytes
    results = open_results(tmp_path)
    assert len(results) == 367
    for names, batch in batches:
        for name, row in zip(names, batch, strict=True):
            assert torch.equal(results[name], row)
    assert torch.equal(results.at(2, loader=1), batches[1][1][1])


@pytest.mark.parametrize(
    "names", [["x" * 120, "y"], ["\u00e9" * 60, "y"], ["__a__", "b c"], ["a%b", "a\tb"]], ids=ascii
)
def test_names_that_need_more_than_a_header_are_stored_as_well(tmp_path, names):
    """As long ones, which a header of one block cannot hold."""
    store(TarShards(tmp_path), [(names, batch_of(2, 7))], backend="thread")
    results = open_results(tmp_path)
    assert torch.equal(results[names[0]], batch_of(2, 7)[0])
    assert torch.equal(results[names[1]], batch_of(2, 7)[1])
    assert verify(tmp_path).is_sound


def test_what_cannot_be_stored_at_once_is_tried_one_by_one(tmp_path, monkeypatch, rows_put):
    """And each sample that fails then is reported by itself."""
    real = os.pwritev

    def full(descriptor, pieces, place):
        if sum(memoryview(piece).nbytes for piece in pieces) > 4096:
            raise OSError(28, "No space left on device")
        return real(descriptor, pieces, place)

    monkeypatch.setattr(os, "pwritev", full)
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, place: full(descriptor, [data], place))
    stats = store(TarShards(tmp_path), [(["a"], batch_of(1, 5))], backend="thread")
    assert (stats.written, rows_put) == (1, [1])
    with pytest.raises(WriteError, match="No space left") as raised:
        store(TarShards(tmp_path), [(["b", "c", "d"], batch_of(3, 5))], backend="thread")
    assert [failure.name for failure in raised.value.failures] == ["b", "c", "d"]
    assert [record.name for record in read_manifest(tmp_path).records] == ["a"]
    assert verify(tmp_path).is_sound


def test_rows_that_cannot_be_recorded_have_failed_and_are_cut_off(tmp_path, monkeypatch):
    """No shard holds them."""

    def refuse(log, stored, names, origin):
        raise PermissionError(13, "no more lines here")

    with monkeypatch.context() as patch:
        patch.setattr(ManifestLog, "append_rows", refuse)
        with pytest.raises(WriteError, match="no more lines here") as raised:
            store(TarShards(tmp_path), [(NAMES, batch_of(9, 5))], backend="thread")
    assert [failure.name for failure in raised.value.failures] == NAMES
    assert not [path for path in tmp_path.iterdir() if ".tar" in path.name]
    store(TarShards(tmp_path), [(NAMES, batch_of(9, 5))], backend="thread")
    assert len(open_results(tmp_path)) == 9


def doubled(rows):
    if rows.shape != (4,):
        return None

    def fill(out):
        out[:, : rows.memory.shape[1]] = rows.memory
        out[:, rows.memory.shape[1] :] = rows.memory

    return EncodedRows(2 * rows.memory.shape[1], fill)


def test_an_encoder_of_ones_own_can_encode_rows(tmp_path, rows_put):
    """For the kinds that it wants; the others are encoded one by one."""
    twice = Encoder(lambda value: 2 * value.numpy().tobytes(), suffix=".twice", name="twice", encode_rows=doubled)
    with BackgroundWriter(twice, TarShards(tmp_path), backend="thread", max_workers=1) as writer:
        writer.submit_batch(["a", "b"], batch_of(2, 4))
        writer.submit_batch(["c", "d"], batch_of(2, 3))
    assert rows_put == [2]
    results = open_results(tmp_path)
    assert bytes(results.read_bytes("b")) == 2 * batch_of(2, 4)[1].numpy().tobytes()
    assert bytes(results.read_bytes("d")) == 2 * batch_of(2, 3)[1].numpy().tobytes()


def test_an_encoder_that_fails_on_rows_is_asked_for_each_sample(tmp_path):
    """So that the failure names it."""

    def fail(rows):
        raise RuntimeError("no rows today")

    def encode(value):
        if value[0] == 4:
            raise ValueError("not this one")
        return value.numpy().tobytes()

    picky = Encoder(encode, suffix=".raw", name="picky", encode_rows=fail)
    with pytest.raises(WriteError, match="failed on 'b': ValueError: not this one"):
        with BackgroundWriter(picky, TarShards(tmp_path), backend="thread", max_workers=1) as writer:
            writer.submit_batch(["a", "b", "c"], batch_of(3, 4))
    assert sorted(record.name for record in read_manifest(tmp_path).records) == ["a", "c"]


class RefusingOne(LocalTarget):
    """Does not name one of its files."""

    def publish(self, temporary, name, **options):
        if name == "b/2.pt":
            os.unlink(temporary)
            raise OSError(22, "not this one")
        return super().publish(temporary, name, **options)


def test_files_are_made_at_once_and_stored_by_themselves(tmp_path, monkeypatch):
    """One that cannot be stored fails alone; the others, their records and their bytes are as one by one."""
    names = [f"b/{number}" for number in range(6)]
    with pytest.raises(WriteError, match=r"failed on 'b/2'.*not this one") as raised:
        store(RefusingOne(tmp_path / "rows"), [(names, batch_of(6, 5))], backend="thread")
    assert [failure.name for failure in raised.value.failures] == ["b/2"]
    monkeypatch.setattr(FileLane, "takes_rows", False)
    store(LocalTarget(tmp_path / "single"), [(names, batch_of(6, 5))], backend="thread")
    left = [name for name in names if name != "b/2"]
    assert sorted(open_results(tmp_path / "rows")) == left
    for name in left:
        assert (tmp_path / f"rows/{name}.pt").read_bytes() == (tmp_path / f"single/{name}.pt").read_bytes()
    assert not (tmp_path / "rows/b/2.pt").exists()
    assert records_in(tmp_path / "rows") == [one for one in records_in(tmp_path / "single") if one[0] != "b/2"]
    assert verify(tmp_path / "rows").is_sound


@pytest.mark.parametrize("call", ["open", "write", "close", "replace"])
def test_what_goes_wrong_between_small_files_costs_none_of_them(tmp_path, monkeypatch, call):
    """Also where a write is short: the file is stored once more, on the way of single ones."""
    real, calls = getattr(os, call), []

    def fail_at_times(*arguments, **options):
        """The second and the fourth time that it is called between small files."""
        calls.append(arguments)
        if len(calls) not in (2, 4):
            return real(*arguments, **options)
        if call == "write":
            return real(arguments[0], arguments[1][:5])
        if call == "close":
            real(*arguments)
        raise OSError(5, "for once")

    names = ["a", "x/b", "x/c", "y/z/d", "e"]
    with opened(LocalTarget(tmp_path)) as target:
        for folder in ("x", "y/z"):
            (tmp_path / folder).mkdir(parents=True)
        rows = np.arange(5 * 40, dtype=np.uint8).reshape(5, 40)
        seen = []
        with monkeypatch.context() as patch:
            patch.setattr("lighter_async.targets.small_files.os", _Os(**{call: fail_at_times}))
            assert target.put_small(names, rows, seen.append) == [True] * 5
    assert len(calls) >= 4
    assert seen == [0, 1, 2, 3, 4]
    for name, row in zip(names, rows, strict=True):
        assert (tmp_path / name).read_bytes() == row.tobytes()
    assert not list(tmp_path.rglob("*.part"))


class _Os:
    """The module `os`, but for some of its functions."""

    def __init__(self, **functions):
        self.__dict__.update(functions)

    def __getattr__(self, name):
        return getattr(os, name)


def test_small_files_are_stored_where_a_folder_was_removed_or_has_become_a_link(tmp_path):
    """A folder is made anew; through a link nothing is stored."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with opened(LocalTarget(tmp_path / "out")) as target:
        (tmp_path / "out/link").symlink_to(elsewhere)
        rows = np.ones((3, 8), np.uint8)
        gone, through, last = target.put_small(["gone/a", "link/b", "c"], rows, lambda _: None)
    assert (gone, last) == (True, True)
    assert isinstance(through, InvalidNameError)
    assert (tmp_path / "out/gone/a").read_bytes() == (tmp_path / "out/c").read_bytes() == rows[0].tobytes()
    assert not list(elsewhere.iterdir())


def test_earlier_files_are_kept_where_that_is_asked_for(tmp_path):
    """In a unit with some that are there and some that are not."""
    store(LocalTarget(tmp_path), [(["a", "c"], batch_of(2, 5))], backend="thread")
    target = LocalTarget(tmp_path, if_exists="skip")
    stats = store(target, [(["a", "b", "c", "d"], batch_of(4, 5, first=100))], backend="thread")
    assert (stats.written, stats.skipped) == (2, 2)
    assert torch.equal(torch.load(tmp_path / "a.pt"), batch_of(2, 5)[0])
    assert torch.equal(torch.load(tmp_path / "b.pt"), batch_of(4, 5, first=100)[1])
