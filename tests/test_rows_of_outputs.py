"""Units of samples with several outputs that are alike: stored at once, as if they were one by one."""

import os
import subprocess
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from killing import run_kills
from sent_to_helpers import DyingFiles, DyingShards, Refusing

from lighter_async import (
    BackgroundWriter,
    Encoder,
    LocalTarget,
    Origin,
    TarShards,
    WriteError,
    open_results,
    pending,
    read_manifest,
)
from lighter_async.manifest import ManifestLog
from lighter_async.manifest.verify import verify
from lighter_async.names import Numbers
from lighter_async.plain_memory import EncodedRows
from lighter_async.targets import RowItems, RowPart
from lighter_async.targets.file_lanes import FileLane, SyncedLane
from lighter_async.targets.shards.lane import ShardLane
from lighter_async.targets.shards.shard import Shard
from lighter_async.testing.base import opened
from lighter_async.workers.patience import Patience

LANES = [FileLane, SyncedLane, ShardLane]
THREE = {"a": "tensor", "b": "npy", "c": "tensor"}
NAMES = [f"case.{number}/part" for number in range(9)]


@pytest.fixture(params=["thread", "process"])
def backend(request):
    return request.param


@pytest.fixture(params=["shards", "files", "shards, fsync", "files, fsync"])
def make_target(request):
    """Makes a target of each kind that takes rows."""
    kind, _, durability = request.param.partition(", ")
    make = {"shards": TarShards, "files": LocalTarget}[kind]
    return lambda folder, **options: make(folder, durability=durability or "rename", **options)


@pytest.fixture
def one_by_one(monkeypatch):
    """A function after which nothing is put as rows."""

    def patch():
        for lane in LANES:
            monkeypatch.setattr(lane, "takes_rows", False)

    return patch


@pytest.fixture
def rows_put(monkeypatch):
    """The number of samples and of parts of each call of `put_rows` that has stored them."""
    counts = []

    def counting(put_rows):
        def put(lane, items, on_progress):
            placed = put_rows(lane, items, on_progress)
            if placed is not None:
                counts.append((len(items.names), len(items.parts)))
            return placed

        return put

    for lane in LANES:
        monkeypatch.setattr(lane, "put_rows", counting(lane.put_rows))
    return counts


def batch_of(count, first=0):
    a = torch.arange(first, first + count * 5, dtype=torch.float32).reshape(count, 5)
    return {"a": a, "b": a.numpy()[:, :3].reshape(count, 3, 1).astype(np.int16), "c": (a > 2)[:, :1].clone()}


def store(target, batches, writer=None, **options):
    with BackgroundWriter(writer or THREE, target=target, **{"max_workers": 1, "backend": "thread", **options}) as made:
        start = 0
        for names, batch in batches:
            made.submit_batch(names, batch, origin=Origin(range(start, start + len(names)), loader=1, batch=start))
            start += len(names)
    return made.stats()


def records_in(folder):
    """The records, but for when they were made and by which run."""
    return [replace(one, time=0, run="") for one in read_manifest(folder).records]


def files_in(folder):
    """What is stored."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".lighter-async" not in path.parts
    }


def check_stored(folder, names, batch):
    for key in batch:
        results = open_results(folder, key=key)
        assert sorted(results) == sorted(names)
        for name, row in zip(names, batch[key], strict=True):
            assert np.array_equal(np.asarray(results[name]), np.asarray(row))
    assert verify(folder).is_sound


def test_everything_is_the_same_as_one_by_one(tmp_path, monkeypatch, make_target, rows_put, one_by_one):
    """To the byte, with the same records, and as many lines of them."""
    monkeypatch.setattr("lighter_async.targets.shards.lane.time.time", lambda: 1e9)
    batches = [(NAMES[:4], batch_of(4)), (NAMES[4:], batch_of(5, first=100))]
    rows = store(make_target(tmp_path / "rows"), batches)
    assert rows_put == [(4, 3), (5, 3)]
    one_by_one()
    single = store(make_target(tmp_path / "single"), batches)
    assert rows_put == [(4, 3), (5, 3)]
    assert (rows.written, rows.bytes_written) == (single.written, single.bytes_written) == (9, rows.bytes_written)
    assert files_in(tmp_path / "rows") == files_in(tmp_path / "single")
    assert len(files_in(tmp_path / "rows")) in (3, 27)
    assert records_in(tmp_path / "rows") == records_in(tmp_path / "single")
    lines = [(tmp_path / one / ".lighter-async" / "manifest-0.jsonl").read_bytes() for one in ("rows", "single")]
    assert lines[0].count(b"\n") == lines[1].count(b"\n")
    check_stored(tmp_path / "rows", NAMES, {key: [*batches[0][1][key], *batches[1][1][key]] for key in THREE})


def test_both_backends_store_rows_of_several_outputs(tmp_path, make_target, backend):
    """In batches of any size, and of numbers as names."""
    sizes, start, stored = (1, 2, 64, 300), 0, []
    with BackgroundWriter(THREE, target=make_target(tmp_path), backend=backend, max_workers=2) as writer:
        for size in sizes:
            numbers = range(start, start + size)
            stored.append(batch_of(size, first=start))
            writer.submit_batch(Numbers(numbers), stored[-1], origin=Origin(numbers))
            start += size
    assert writer.stats().written == start
    names = [str(number) for number in range(start)]
    check_stored(tmp_path, names, {key: [row for batch in stored for row in batch[key]] for key in THREE})
    assert len(pending(range(start), tmp_path)) == 0


@pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.long)], indirect=True)
@pytest.mark.parametrize("values", ["samples", "one of them a list", "another kind"])
def test_outputs_that_are_no_rows_are_stored_as_well(tmp_path, make_target, rows_put, values, backend):
    """If one output is none, or has an encoder without rows, all of them are encoded one by one."""
    batch = batch_of(3)
    writer, given = THREE, batch
    if values == "samples":
        given = [{key: batch[key][number] for key in THREE} for number in range(3)]
    elif values == "one of them a list":
        given = {**batch, "c": [*batch["c"]]}
    else:
        writer = {**THREE, "c": Encoder(lambda value: value.numpy().tobytes(), suffix=".raw", name="raw")}
    if values == "another kind" and backend == "process":
        pytest.skip("it is no encoder that helpers import")
    stats = store(make_target(tmp_path), [(["x", "y", "z"], given)], writer, backend=backend)
    assert (stats.written, rows_put) == (3, [])
    if writer is THREE:
        check_stored(tmp_path, ["x", "y", "z"], batch)
    else:
        assert bytes(open_results(tmp_path, key="c").read_bytes("y")) == batch["c"][1].numpy().tobytes()


def test_a_sample_whose_second_file_cannot_be_stored_leaves_no_first(tmp_path, rows_put):
    """Though it was made together with the others, which are stored and recorded."""
    for durability in ("rename", "fsync"):
        folder = tmp_path / durability
        batch = {"mask": batch_of(3)["a"], "logits": batch_of(3)["c"]}
        with pytest.raises(WriteError, match="as told") as raised:
            store(Refusing(folder, durability=durability), [(["a", "b", "c"], batch)], dict.fromkeys(batch, "tensor"))
        assert [failure.name for failure in raised.value.failures] == ["b"]
        assert sorted(files_in(folder)) == ["a.logits.pt", "a.mask.pt", "c.logits.pt", "c.mask.pt"]
        assert {record.name for record in read_manifest(folder).records} == {"a", "c"}
        assert verify(folder).is_sound
    assert rows_put == [(3, 2)] * 2


@pytest.mark.parametrize("if_exists", ["overwrite", "skip"])
def test_earlier_samples_are_replaced_or_kept(tmp_path, make_target, if_exists):
    """Each as a whole: one of which a file is missing is replaced where others are kept."""
    old, new = batch_of(2), batch_of(4, first=50)
    store(make_target(tmp_path), [(["w", "x"], old)])
    kept = ["w", "x"] if if_exists == "skip" else []
    if kept and (tmp_path / "x.c.pt").exists():
        (tmp_path / "x.c.pt").unlink()
        kept = ["w"]
    stats = store(make_target(tmp_path, if_exists=if_exists), [(["w", "x", "y", "z"], new)])
    assert (stats.written, stats.skipped) == (4 - len(kept), len(kept))
    count = len(kept)
    check_stored(tmp_path, ["w", "x", "y", "z"], {key: [*old[key][:count], *new[key][count:]] for key in THREE})


def test_earlier_samples_are_an_error_where_that_is_asked_for(tmp_path, make_target):
    """They stay, and the others of the unit are stored."""
    old, new = batch_of(2), batch_of(4, first=50)
    store(make_target(tmp_path), [(["w", "x"], old)])
    before = files_in(tmp_path)
    with pytest.raises(WriteError, match=r"exists already|an earlier run has stored") as raised:
        store(make_target(tmp_path, if_exists="error"), [(["w", "x", "y", "z"], new)])
    assert [failure.name for failure in raised.value.failures] == ["w", "x"]
    after = files_in(tmp_path)
    assert {name for name, data in before.items() if after[name] != data} <= {"shards.json"}
    assert {record.name for record in read_manifest(tmp_path).records} == {"w", "x", "y", "z"}
    for key in THREE:
        results = open_results(tmp_path, key=key)
        for number, name in ((2, "y"), (3, "z")):
            assert np.array_equal(np.asarray(results[name]), np.asarray(new[key][number]))


def test_rows_that_cannot_be_recorded_have_failed(tmp_path, monkeypatch):
    """All outputs are cut off the shard, and the next run stores them."""

    def refuse(log, stored, names, origin):
        raise PermissionError(13, "no more lines here")

    with monkeypatch.context() as patch:
        patch.setattr(ManifestLog, "append_rows", refuse)
        with pytest.raises(WriteError, match="no more lines here") as raised:
            store(TarShards(tmp_path), [(NAMES, batch_of(9))])
    assert [failure.name for failure in raised.value.failures] == NAMES
    assert files_in(tmp_path) == {}
    store(TarShards(tmp_path), [(NAMES, batch_of(9))])
    check_stored(tmp_path, NAMES, batch_of(9))


def test_an_output_whose_rows_cannot_be_encoded_is_encoded_one_by_one(tmp_path, make_target, rows_put):
    """And only the sample that fails then is reported, without its other output."""

    def fail(rows):
        def fill(out):
            raise RuntimeError("no rows today")

        return EncodedRows(20, fill)

    def encode(value):
        if value[0] == 5:
            raise ValueError("not this one")
        return value.numpy().tobytes()

    writer = {"a": Encoder(encode, suffix=".raw", name="picky", encode_rows=fail), "c": "tensor"}
    with pytest.raises(WriteError, match="failed on 'y': ValueError: not this one"):
        store(make_target(tmp_path), [(["x", "y", "z"], batch_of(3))], writer)
    assert rows_put == []
    assert {(record.name, record.key) for record in read_manifest(tmp_path).records} == {
        (name, key) for name in "xz" for key in "ac"
    }
    assert verify(tmp_path).is_sound


def test_two_outputs_of_one_name_in_a_shard_are_not_put_as_rows(tmp_path):
    """Each of the samples fails with its name, as one by one."""
    parts = [RowPart(suffix, EncodedRows(4, lambda out: out.fill(1))) for suffix in (".A", ".a")]
    with opened(TarShards(tmp_path)) as target:
        lane = target.lane(0)
        assert lane.put_rows(RowItems(["x", "y"], parts), lambda _: None) is None
        assert lane.seal() == []
        lane.close()


@pytest.mark.parametrize("place", range(5))
def test_what_on_progress_raises_ends_the_storing_of_synced_files(tmp_path, place):
    """No temporary file is left, and no sample has one of its files alone."""

    class TakenBack(BaseException):
        pass

    def on_progress(number):
        seen.append(number)
        if len(seen) > place:
            raise TakenBack

    seen = []
    parts = [RowPart(suffix, EncodedRows(4, lambda out: out.fill(1))) for suffix in (".x", ".y")]
    with opened(LocalTarget(tmp_path, durability="fsync")) as target:
        lane = target.lane(0)
        with pytest.raises(TakenBack):
            lane.put_rows(RowItems(["a", "b", "c"], parts), on_progress)
        lane.leave()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".lighter-async-")]
        stored = {path.name for path in tmp_path.iterdir() if path.is_file()}
        assert stored == {f"{name[0]}{end}" for name in stored for end in (".x", ".y")}
        assert lane.settle(lambda _: None) == []
    assert seen == [0, 1, 2, 0, 1][: place + 1]


def test_synced_files_of_a_unit_are_on_the_disk_before_they_are_recorded(tmp_path, monkeypatch):
    """Also where a unit has more of them than may be open at once, and its folder was made for it."""
    calls, real_fsync, append = [], os.fsync, ManifestLog.append_rows

    def fsync(descriptor):
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real_fsync(descriptor)

    def recording(log, stored, names, origin):
        calls.append(("record", len(names)))
        append(log, stored, names, origin)

    monkeypatch.setattr("lighter_async.targets.file_lanes._most_open", lambda: 4)
    target = LocalTarget(tmp_path, durability="fsync")
    names = [f"d/{number}" for number in range(7)]
    with BackgroundWriter(THREE, target=target, backend="thread", max_workers=1) as writer:
        writer.start()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            patch.setattr(ManifestLog, "append_rows", recording)
            writer.submit_batch(names, batch_of(7))
            writer.flush()
    synced = [path for what, path in calls if what == "fsync"]
    assert calls[-1] == ("record", 7)
    assert len([path for path in synced if path.endswith(".part")]) == 21
    assert synced[-1] == str(tmp_path / "d")
    assert str(tmp_path) in synced
    # Two samples, of six files, are as many as it takes for more than four to be open.
    assert [len(list(group)) for group in _between_folders(synced)] == [6, 6, 6, 3]
    check_stored(tmp_path, names, batch_of(7))


def _between_folders(synced):
    group = []
    for path in synced:
        if path.endswith(".part"):
            group.append(path)
        elif group:
            yield group
            group = []


def test_a_synced_file_of_a_unit_that_fails_once_is_stored_by_its_next_attempt(tmp_path, monkeypatch, rows_put):
    """The others of the unit are stored already."""
    real, faults = os.fsync, [OSError(5, "as if from a device")]

    def fsync(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".part") and faults:
            raise faults.pop()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr("lighter_async.workers.patience._FIRST_WAIT", 0.001)
    stats = store(LocalTarget(tmp_path, durability="fsync"), [(NAMES, batch_of(9))])
    assert (stats.written, rows_put, faults) == (9, [(9, 3)], [])
    check_stored(tmp_path, NAMES, batch_of(9))


@pytest.mark.parametrize("values", ["rows", "texts"])
def test_units_on_a_full_disk_wait_for_room_together(tmp_path, monkeypatch, make_target, values):
    """When the first one has waited in vain, those behind it do not wait as long again."""

    def full(*_, **__):
        assert handed_over.wait(60)
        raise OSError(28, "No space left on device")

    clock, handed_over = [0.0], threading.Event()

    def sleep(patience, seconds):
        clock[0] += seconds

    monkeypatch.setattr("lighter_async.workers.patience.monotonic", lambda: clock[0])
    monkeypatch.setattr(Patience, "_sleep", sleep)
    monkeypatch.setattr(LocalTarget, "write", full)
    monkeypatch.setattr(Shard, "append", full)
    units, kind = 6, "tensor" if values == "rows" else "text"
    options = {"wait_for_space": 1000.0, "queue_size": 100, "on_error": "stop"}
    writer = BackgroundWriter({"a": kind, "b": kind}, target=make_target(tmp_path), backend="thread", **options)
    for unit in range(units):
        names = [f"{unit}-{number}" for number in range(3)]
        batch = torch.ones(3, 4) if values == "rows" else ["one", "two", "three"]
        writer.submit_batch(names, {"a": batch, "b": batch})
    handed_over.set()
    with pytest.raises(WriteError, match="No space left"):
        writer.close()
    assert writer.stats().failed == 3 * units
    assert 1000 <= clock[0] < 2000


@pytest.mark.parametrize("make", [DyingShards, DyingFiles])
def test_helpers_that_die_with_rows_that_are_not_recorded_yet(tmp_path, make):
    """Each sample is stored once, with all of its outputs."""
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    for number in range(2):
        (deaths / f"{number}").touch()
    target = make(tmp_path / "out")
    target.deaths = str(deaths)
    names = [f"{number}" for number in range(60)]
    with BackgroundWriter(THREE, target=target, backend="process", max_workers=2) as writer:
        for start in range(0, 60, 20):
            batch = {key: values[start : start + 20] for key, values in batch_of(60).items()}
            writer.submit_batch(names[start : start + 20], batch, origin=Origin(range(start, start + 20)))
    assert list(deaths.iterdir()) == []
    assert writer.stats().written == 60
    check_stored(tmp_path / "out", names, batch_of(60))
    records = read_manifest(tmp_path / "out").records
    assert len(records) == len({(record.name, record.key) for record in records}) == 180
    if make is DyingShards:
        members = []
        for path in sorted((tmp_path / "out").glob("*.tar")):
            done = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
            members += done.stdout.split()
        assert sorted(members) == sorted(f"{name}{end}" for name in names for end in (".a.pt", ".b.npy", ".c.pt"))


@pytest.mark.parametrize("make", [TarShards, LocalTarget])
@pytest.mark.parametrize("durability", ["rename", "fsync"])
def test_a_real_disk_that_fills_up_in_the_middle_of_a_unit(small_disk, rows_put, monkeypatch, make, durability):
    """Each sample has all of its outputs, or is reported and has none; with more room a later run stores the rest."""
    monkeypatch.setattr("lighter_async.service.handover._UNIT_BYTES", 1 << 18)  # some are stored before it is full
    large = {key: torch.arange(200 * 2000, dtype=torch.float32).reshape(200, 2000) for key in "ab"}
    names = [f"{number}" for number in range(200)]
    writer = BackgroundWriter(dict.fromkeys(large, "tensor"), make(small_disk, durability=durability), backend="thread")
    with pytest.raises(WriteError, match="the disk is full") as raised:
        with writer:
            writer.submit_batch(names, large, origin=Origin(range(200)))
    failed = {failure.name for failure in raised.value.failures}
    stored = [name for name in names if name not in failed]
    assert rows_put
    assert stored
    check_stored(small_disk, stored, {key: [large[key][int(name)] for name in stored] for key in large})
    assert not [path for path in small_disk.iterdir() if path.name.startswith(".lighter-async-")]
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True, timeout=30)
    left = list(pending(range(200), small_disk, names=names))
    assert {names[index] for index in left} == failed
    rest = {key: values[left] for key, values in large.items()}
    again = BackgroundWriter(dict.fromkeys(large, "tensor"), make(small_disk), backend="thread", resume=True)
    with again:
        again.submit_batch([names[index] for index in left], rest, origin=Origin(left))
    check_stored(small_disk, names, large)


@pytest.mark.parametrize(
    ("kind", "torn"),
    [
        pytest.param("shards", "torn", marks=pytest.mark.long),
        pytest.param("files", "whole", marks=pytest.mark.long),
        pytest.param("synced files", "torn", marks=pytest.mark.long),
        pytest.param("shards", "whole", marks=pytest.mark.long),
        pytest.param("files", "torn", marks=pytest.mark.long),
        pytest.param("synced files", "whole", marks=pytest.mark.long),
        pytest.param("synced shards", "torn", marks=pytest.mark.long),
        pytest.param("replaced files", "whole", marks=pytest.mark.long),
        pytest.param("replaced files", "torn", marks=pytest.mark.long),
    ],
)
def test_a_job_that_is_killed_at_any_of_its_changes_goes_on(tmp_path, kind, torn):
    """In the middle of a unit, too: no sample counts as stored without all of its outputs, and the next run does it."""
    assert run_kills("rows_script.py", tmp_path, kind, torn) >= 25
