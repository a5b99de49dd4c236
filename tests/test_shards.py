"""Tar shards: the contract of targets, what a crash leaves, several ranks, and what is read back."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
import pytorch_lightning
import replayable
import torch
from killing import run_kills
from lightning_models import lightning_warnings, predict
from sent_to_helpers import encode_text_and_die_once

from lighter_async import (
    AsyncBackgroundWriter,
    BackgroundWriter,
    FileWriter,
    NameTakenError,
    Origin,
    Run,
    TarShards,
    WriteError,
    encoder,
    open_results,
    pending,
    read_manifest,
)
from lighter_async.cli import main
from lighter_async.manifest import ManifestLog
from lighter_async.manifest.verify import verify
from lighter_async.targets import Item, Part
from lighter_async.targets.shards.keys import NO_SUFFIX, member_name, name_of_key, split_member
from lighter_async.targets.shards.walk import samples_in
from lighter_async.testing import TargetContract


def members_of(folder):
    """The bytes of each member of all shards, sealed or not; of two that have one name the one written last."""
    found = {}
    paths = list(Path(folder).glob("shard-*.tar*")) if Path(folder).is_dir() else []
    for path in sorted(paths, key=lambda one: one.stat().st_mtime_ns):
        with open(path, "rb") as file:
            for sample in samples_in(file.fileno()):
                for member in sample.members:
                    found[member.name] = os.pread(file.fileno(), member.size, member.offset)
    return found


def file_of(member):
    """The sample's name with its suffix."""
    key, field = split_member(member)
    return name_of_key(key) if f".{field}" == NO_SUFFIX else f"{name_of_key(key)}.{field}"


class OnShards(TargetContract):
    refused_names = ("x" * 300, f"{'f' * 300}/x", "/".join(["deep"] * 2000), "." * 100)
    options = {}  # noqa: RUF012

    @pytest.fixture
    def make_target(self, tmp_path):
        return lambda **options: TarShards(tmp_path / "out", **{**self.options, **options})

    def read(self, target):
        return {file_of(member): data for member, data in members_of(target.location).items()}


class TestShards(OnShards):
    """Large ones."""


@pytest.mark.long
class TestShardsThatOutliveALossOfPower(OnShards):
    """Synced ones."""

    options = {"durability": "fsync"}  # noqa: RUF012


@pytest.mark.long
class TestSmallShards(OnShards):
    """Of three samples each."""

    options = {"shard_samples": 3}  # noqa: RUF012


@pytest.mark.long
class TestShardsOfFewBytes(OnShards):
    """Which most samples are larger than, and that keep what there is."""

    options = {"shard_bytes": 5000, "if_exists": "skip"}  # noqa: RUF012


# Storing


@encoder(suffix=".txt", decode=bytes.decode)
def encode_text(value):
    """The text itself."""
    return value.encode()


@encoder(suffix=".up", decode=bytes.decode)
def encode_upper(value):
    """The text in capitals."""
    return value.upper().encode()


mostly_threads = pytest.mark.parametrize(
    "backend", ["thread", pytest.param("process", marks=pytest.mark.long)], indirect=True
)


@pytest.fixture(params=["thread", "process"])
def backend(request):
    return request.param


def names_in(folder, ending):
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(ending))


def values_of(*numbers):
    return {f"case.{number}": f"value {number} " * 20 for number in numbers}


def store(folder, values, *, start=0, unit=4, **options):
    """Store samples in batches, the first of which has an index."""
    options = {"max_workers": 2, **options}
    target = options.pop("target", None) or TarShards(folder)
    with BackgroundWriter(options.pop("writer", encode_text), target=target, **options) as writer:
        names = list(values)
        for first in range(0, len(names), unit):
            batch = names[first : first + unit]
            origin = Origin(range(start + first, start + first + len(batch)))
            writer.submit_batch(batch, [values[name] for name in batch], origin=origin)
    return writer


def check_whole(folder, values):
    """Each sample is there once, in sealed shards, and is read back; the list and the indices are as the shards are."""
    results = open_results(folder, decode=encode_text)
    assert {name: results[name] for name in results} == values
    assert verify(folder).findings == []
    assert names_in(folder, ".part") == []
    members = [name for shard in names_in(folder, ".tar") for name in tar_names(folder / shard)]
    assert sorted(members) == sorted(member_name(name, ".txt") for name in values)
    listing = json.loads((folder / "shards.json").read_text())["shardlist"]
    assert [(one["url"], one["nsamples"]) for one in listing] == [
        (shard, len(tar_names(folder / shard))) for shard in names_in(folder, ".tar")
    ]
    assert names_in(folder, ".idx") == [shard.replace(".tar", ".idx") for shard in names_in(folder, ".tar")]


def tar_names(shard):
    done = subprocess.run(["tar", "-tf", shard], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_samples_lie_in_sealed_shards_at_the_end(tmp_path, backend):
    """And are read by name and by index, wherever they lie until then."""
    values = values_of(*range(30))
    with BackgroundWriter(encode_text, target=TarShards(tmp_path), backend=backend, max_workers=2) as writer:
        writer.submit_batch(list(values), list(values.values()), origin=Origin(range(30)))
        writer.flush()
        assert names_in(tmp_path, ".tar") == []
        results = open_results(tmp_path, decode=encode_text)
        assert [results.at(number) for number in range(30)] == list(values.values())
        assert verify(tmp_path).findings == []
    check_whole(tmp_path, values)
    results = open_results(TarShards(tmp_path), decode=encode_text)
    assert [results.at(number) for number in range(30)] == list(values.values())
    assert set(read_manifest(tmp_path).sealed) == set(names_in(tmp_path, ".tar"))


def test_flush_seals_where_it_is_told_to(tmp_path, backend):
    """What comes later goes into new shards."""
    values = values_of(*range(24))
    with BackgroundWriter(encode_text, target=TarShards(tmp_path), backend=backend, max_workers=2) as writer:
        for start in range(0, 24, 8):
            batch = list(values)[start : start + 8]
            writer.submit_batch(batch, [values[name] for name in batch])
            writer.flush(seal=True)
            check_whole(tmp_path, {name: values[name] for name in list(values)[: start + 8]})


@pytest.mark.parametrize(("options", "most"), [({"shard_samples": 7}, 7), ({"shard_bytes": 6000}, 5)])
def test_no_shard_is_larger_than_it_may_be(tmp_path, backend, options, most):
    """However many samples come at once; and none is sealed before it is full, but the last one of each worker."""
    values = values_of(*range(50))
    store(tmp_path, values, target=TarShards(tmp_path, **options), backend=backend, unit=20)
    check_whole(tmp_path, values)
    counts = [len(tar_names(tmp_path / shard)) for shard in names_in(tmp_path, ".tar")]
    assert max(counts) == most
    assert sum(count < most for count in counts) <= 2
    assert all(
        (tmp_path / one).stat().st_size <= options.get("shard_bytes", 1 << 30) + 1024 for one in tar_of(tmp_path)
    )


def tar_of(folder):
    return names_in(folder, ".tar")


@mostly_threads
def test_a_sample_that_is_larger_than_a_shard_has_one_of_its_own(tmp_path, backend):
    """And one of megabytes is stored as well as one of bytes is, in the middle of others."""
    values = {"a": "small", "b": "large " * 600_000, "c": "small", "d": "larger " * 700_000, "e": ""}
    store(tmp_path, values, target=TarShards(tmp_path, shard_bytes=1 << 20), backend=backend, max_workers=1)
    check_whole(tmp_path, values)
    assert [tar_names(tmp_path / one) for one in tar_of(tmp_path)] == [
        ["a.txt"],
        ["b.txt"],
        ["c.txt"],
        ["d.txt"],
        ["e.txt"],
    ]


def test_large_samples_lie_between_small_ones_in_one_shard(tmp_path):
    """In the order in which they came."""
    values = {"a": "small", "b": "large " * 600_000, "c": "small", "d": "larger " * 700_000, "e": ""}
    store(tmp_path, values, backend="thread", max_workers=1, unit=5)
    check_whole(tmp_path, values)
    assert tar_names(tmp_path / "shard-00000-000-000000.tar") == ["a.txt", "b.txt", "c.txt", "d.txt", "e.txt"]


def test_a_unit_is_one_write(tmp_path, monkeypatch):
    """Of all that its samples are."""
    writes = []

    def counting(real):
        def call(descriptor, *args):
            written = real(descriptor, *args)
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".part"):
                writes.append(written)
            return written

        return call

    for name in ("pwrite", "pwritev"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    with BackgroundWriter(encode_text, target=TarShards(tmp_path), backend="thread", max_workers=1) as writer:
        names = [f"{number}" for number in range(50)]
        writer.submit_batch(names, names)
        writer.flush()
        assert sum(writes) == 50 * 1024
        lines = (tmp_path / ".lighter-async" / "manifest-0.jsonl").read_text().splitlines()
        assert len(writes) == sum(line.startswith('{"samples"') for line in lines)
    check_whole(tmp_path, {name: name for name in names})


def test_what_fails_leaves_no_shard(tmp_path, backend):
    """Nor a part of one."""

    with pytest.raises(WriteError):
        with BackgroundWriter(encode_text, target=TarShards(tmp_path), backend=backend) as writer:
            writer.submit_batch(["a", "b"], [1, 2])
    assert names_in(tmp_path, ".tar") == names_in(tmp_path, ".part") == names_in(tmp_path, ".idx") == []


def test_two_outputs_that_readers_take_for_one_are_refused(tmp_path):
    """Since they make all letters of a suffix small."""
    parts = [Part(f"x{suffix}", suffix, [memoryview(b"one")]) for suffix in (".A.txt", ".a.txt")]
    with contextlib.closing(TarShards(tmp_path)) as target:
        target.open()
        lane = target.lane(0)
        with pytest.raises(ValueError, match="no capital letters from small ones"):
            lane.put(Item("x", parts), redelivered=False)
        assert lane.settle(lambda _: None) == []
        lane.close()
    assert tar_of(tmp_path) == []


def test_helpers_are_chosen_for_built_in_writers(tmp_path):
    """As for a directory."""
    with BackgroundWriter("text", target=TarShards(tmp_path)) as writer:
        writer.submit("a", "one")
        writer.flush()
        assert psutil.Process().children() != []
    check_whole(tmp_path, {"a": "one"})


def test_options_are_checked(tmp_path):
    """When they are given."""
    for options in ({"shard_bytes": 0}, {"shard_samples": 0}, {"shard_bytes": 1.5}, {"shard_samples": True}):
        with pytest.raises(ValueError, match="is a whole number from 1 on"):
            TarShards(tmp_path, **options)
    with pytest.raises(ValueError, match="if_exists"):
        TarShards(tmp_path, if_exists="perhaps")
    with pytest.raises(ValueError, match="is a URL"):
        TarShards("s3://bucket/preds")
    with pytest.raises(ValueError, match="no paths"):
        BackgroundWriter(lambda path, value: None, target=TarShards(tmp_path))


async def test_the_asyncio_face_stores_to_them(tmp_path):
    """As the other one does."""
    async with AsyncBackgroundWriter(encode_text, target=TarShards(tmp_path)) as writer:
        await writer.submit("a", "one")
        await writer.flush()
    check_whole(tmp_path, {"a": "one"})


@lightning_warnings
def test_the_callback_stores_to_them(tmp_path):
    """Two outputs of each sample, and the same job goes on with what is missing."""
    out = tmp_path / "out"
    outputs = [{"image": torch.rand(1, 3, 8, 8), "vector": torch.rand(1, 5)} for _ in range(4)]
    data = torch.utils.data.DataLoader(range(4))
    for _ in range(2):
        writer = FileWriter(TarShards(out), {"image": "image_2d", "vector": "tensor"}, resume=True)
        predict(pytorch_lightning, lambda _, index, __: outputs[index], writer, data=data)
        assert list(pending(range(4), out)) == []
    names = [name for shard in tar_of(out) for name in tar_names(out / shard)]
    assert sorted(names) == sorted(f"{number}.{end}" for number in range(4) for end in ("image.png", "vector.pt"))
    results = open_results(out, writer="tensor")
    assert torch.equal(results.at(3), outputs[3]["vector"][0])


# What is there already


def test_a_job_goes_on_with_other_workers_and_ranks(tmp_path):
    """Names of shards collide with none that there is."""
    values = values_of(*range(40))
    parts = [dict(list(values.items())[start : start + 10]) for start in range(0, 40, 10)]
    store(tmp_path, parts[0], max_workers=3)
    store(tmp_path, parts[1], max_workers=1, resume=True, start=10)
    for rank, some in enumerate(parts[2:]):
        run = Run(id="second", rank=rank, world_size=2)
        target = TarShards(tmp_path, shard_samples=3, run=run)
        store(tmp_path, some, target=target, resume=True, start=20 + 10 * rank, backend="thread")
    check_whole(tmp_path, values)
    assert {one[:11] for one in tar_of(tmp_path)} == {"shard-00000", "shard-00001"}
    assert list(pending(range(40), tmp_path, names=list(values))) == []


def test_ranks_store_at_once(tmp_path):
    """Each seals its own shards, and the list has all of them."""
    values = values_of(*range(60))
    writers = []
    for rank in range(3):
        target = TarShards(tmp_path, shard_samples=4, run=Run(id="one", rank=rank, world_size=3))
        writers.append(BackgroundWriter(encode_text, target=target, backend="thread", max_workers=2))
    with contextlib.ExitStack() as stack:
        for writer in writers:
            stack.enter_context(writer)
        for start in range(0, 60, 5):
            batch = list(values)[start : start + 5]
            writers[start // 5 % 3].submit_batch(
                batch, [values[name] for name in batch], origin=Origin(range(start, start + 5))
            )
    check_whole(tmp_path, values)


@pytest.mark.parametrize("is_same", [True, False])
def test_the_last_rank_tells_of_names_that_two_have_used(tmp_path, is_same):
    """For different samples; the same one, as of a sampler that pads, is read once."""
    first, second = (TarShards(tmp_path, run=Run(id="one", rank=rank, world_size=2)) for rank in range(2))
    store(tmp_path, {"a": "one", "b": "two"}, target=first)
    told = contextlib.nullcontext()
    if not is_same:
        told = pytest.raises(NameTakenError, match=r"'b', by rank 0 \(index 1 of loader 0\) and rank 1 \(index 3 of")
    with told:
        store(tmp_path, {"b": "two", "c": "three"}, target=second, start=1 if is_same else 3)
    results = open_results(tmp_path, decode=encode_text)
    assert {name: results[name] for name in results} == {"a": "one", "b": "two", "c": "three"}
    assert verify(tmp_path).is_sound


def test_a_later_run_leaves_earlier_shards_and_its_records_count(tmp_path):
    """Readers of the tar files see both."""
    store(tmp_path, values_of(1, 2))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.tar")}
    later = {"case.2": "newer", "case.3": "new"}
    store(tmp_path, later)
    results = open_results(tmp_path, decode=encode_text)
    assert {name: results[name] for name in results} == later
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert verify(tmp_path).is_sound


@mostly_threads
def test_what_earlier_runs_have_recorded_is_left_out(tmp_path, backend):
    """With if_exists="skip", as long as its shard is there."""
    store(tmp_path, values_of(1, 2), target=TarShards(tmp_path / "out", shard_samples=1), max_workers=1)
    out = tmp_path / "out"
    later = {"case.1": "newer", "case.3": "new", "case": "other"}
    writer = store(out, later, target=TarShards(out, if_exists="skip"), backend=backend)
    assert (writer.stats().skipped, writer.stats().written) == (1, 2)
    (shard,) = (one for one in tar_of(out) if "case%2E2.txt" in tar_names(out / one))
    (out / shard).unlink()
    writer = store(out, {"case.2": "newer"}, target=TarShards(out, if_exists="skip"), backend=backend)
    assert (writer.stats().skipped, writer.stats().written) == (0, 1)


@mostly_threads
def test_what_is_kept_is_among_the_results_and_what_is_superseded_is_stored_anew(tmp_path, backend):
    """With if_exists="skip"."""
    out = tmp_path / "out"
    store(out, {"a": "1", "b": "1"}, backend=backend)
    store(out, {"b": "2", "c": "2"}, backend=backend)
    writer = store(out, {"a": "3", "c": "3"}, target=TarShards(out, if_exists="skip"), backend=backend)
    assert (writer.stats().skipped, writer.stats().written) == (1, 1)
    results = open_results(out, decode=encode_text)
    assert {name: results[name] for name in results} == {"a": "3", "b": "2", "c": "2"}


@mostly_threads
def test_what_earlier_runs_have_recorded_is_an_error(tmp_path, backend):
    """With if_exists="error"; the others are stored."""
    store(tmp_path, values_of(1, 2))
    with pytest.raises(WriteError) as raised:
        store(tmp_path, {**values_of(2, 3)}, target=TarShards(tmp_path, if_exists="error"), backend=backend)
    (failure,) = raised.value.failures
    assert (failure.name, type(failure.cause)) == ("case.2", FileExistsError)
    assert set(open_results(tmp_path, decode=encode_text)) == {"case.3"}


def test_a_shard_of_somebody_elses_is_not_replaced(tmp_path):
    """Of a name that would be next."""
    theirs = tmp_path / "shard-00000-000-000000.tar"
    theirs.write_bytes(b"mine")
    (tmp_path / "shard-00000-000-000001.tar.part").symlink_to("elsewhere")
    store(tmp_path, values_of(1), backend="thread", max_workers=1)
    assert theirs.read_bytes() == b"mine"
    assert not (tmp_path / "elsewhere").exists()
    assert "shard-00000-000-000002.tar" in tar_of(tmp_path)


# What goes wrong


@pytest.mark.parametrize(
    ("job", "torn"),
    [
        pytest.param("storing", "torn", marks=pytest.mark.long),
        pytest.param("taking over", "whole", marks=pytest.mark.long),
        pytest.param("storing", "whole", marks=pytest.mark.long),
        pytest.param("taking over", "torn", marks=pytest.mark.long),
    ],
)
def test_a_job_that_is_killed_at_any_of_its_changes_goes_on(tmp_path, job, torn):
    """What was told as stored is there, and at the end each sample is there once; the same of one that takes over."""
    assert run_kills("shards_script.py", tmp_path, job, torn) >= 15


def test_a_helper_that_dies_leaves_no_sample_out_and_none_twice(tmp_path):
    """The one in its place seals what it had recorded, and does the rest again."""
    marker, out = tmp_path / "killed", tmp_path / "out"
    values = values_of(*range(60))
    with BackgroundWriter(encode_text_and_die_once, target=TarShards(out), backend="process", max_workers=2) as writer:
        for start in range(0, 60, 6):
            batch = list(values)[start : start + 6]
            fatal = f"|{marker}" if start == 30 else ""
            writer.submit_batch(batch, [values[name] + (fatal if name == "case.33" else "") for name in batch])
    assert marker.exists()
    check_whole(out, values)


KILLED = """
    import os, signal, sys
    from lighter_async import BackgroundWriter, Origin, TarShards
    from tests.test_shards import encode_text, values_of
    target = TarShards(sys.argv[1], shard_samples=6)
    writer = BackgroundWriter(encode_text, target=target, backend="process", max_workers=2)
    values = values_of(*range(200))
    for start in range(0, 200, 8):
        batch = list(values)[start : start + 8]
        writer.submit_batch(batch, [values[name] for name in batch], origin=Origin(range(start, start + len(batch))))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.long
def test_helpers_of_a_killed_job_store_what_it_has_handed_over(tmp_path):
    """And whoever opens the directory waits for them; each sample is in one shard."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), tmp_path],
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])},
    )
    assert done.returncode == -signal.SIGKILL
    with contextlib.closing(TarShards(tmp_path)) as target:
        target.open()
    check_whole(tmp_path, values_of(*range(200)))


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_tail_that_is_torn_at_any_byte_is_cut_off(tmp_path, is_recorded):
    """By the records where there are any, else by what is whole: of two outputs of a sample none is there alone."""
    left = tmp_path / "left"
    target = TarShards(left)
    writers = {"low": encode_text, "up": encode_upper}
    writer = BackgroundWriter(writers, target=target, backend="thread", max_workers=1, manifest=is_recorded)
    for name in "ab":
        writer.submit(name, {"low": name * 700, "up": name * 10})
        writer.flush()
    (part,) = left.glob("*.part")
    data = part.read_bytes()
    assert writer.close_by(60) == 0
    assert part.read_bytes() == data
    first = 512 + 1024 + 512 + 512
    assert len(data) == 2 * first
    for end in [*range(0, len(data), 37), first - 1, first, first + 1, len(data) - 1, len(data)]:
        out = tmp_path / f"{end}"
        shutil.copytree(left, out)
        os.truncate(out / part.name, end)
        with contextlib.closing(TarShards(out)) as again:
            again.open()
        expected = ["a.low.txt", "a.up.up", "b.low.txt", "b.up.up"][: end // first * 2]
        assert names_in(out, ".part") == []
        assert [name for shard in tar_of(out) for name in tar_names(out / shard)] == expected
        assert len(names_in(out, ".idx")) == len(tar_of(out)) == bool(expected)
        shutil.rmtree(out)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("durability", ["rename", pytest.param("fsync", marks=pytest.mark.long)])
@pytest.mark.parametrize("written", [0, 1, 700])
def test_a_write_that_fails_in_the_middle_of_a_unit_leaves_none_of_it(
    tmp_path, monkeypatch, written, durability, number
):
    """The part is cut back. What may pass is tried again, and a full disk fails the unit's samples, as with files."""
    real = os.pwrite
    faults = ["short", "full"] if written else ["full"]

    def pwrite(descriptor, data, place):
        if place and faults:
            if faults.pop(0) == "short":
                return real(descriptor, memoryview(data)[:written], place)
            raise OSError(number, os.strerror(number))
        return real(descriptor, data, place)

    monkeypatch.delattr(os, "pwritev")
    monkeypatch.setattr(os, "pwrite", pwrite)
    values = values_of(*range(12))
    target = TarShards(tmp_path, durability=durability)
    failed = set()
    try:
        store(tmp_path, values, target=target, backend="thread", max_workers=1, attempts=3)
    except WriteError as error:
        failed = {failure.name for failure in error.failures}
    assert faults == []
    assert failed == ({"case.4", "case.5", "case.6", "case.7"} if number == errno.ENOSPC else set())
    check_whole(tmp_path, {name: value for name, value in values.items() if name not in failed})
    assert len(tar_of(tmp_path)) == 1


def test_a_real_disk_that_is_full(small_disk):
    """What was stored before is in shards, or in parts that the next writer seals, and what was not is told."""
    values = {f"{number}": f"{number}" * 20_000 for number in range(60)}
    target = TarShards(small_disk, shard_samples=8)
    writer = BackgroundWriter(encode_text, target=target, max_workers=2, backend="thread")
    with contextlib.suppress(WriteError):
        writer.submit_batch(list(values), list(values.values()))
    with pytest.raises(WriteError, match="the disk is full") as raised:
        writer.close()
    failed = {failure.name for failure in raised.value.failures}
    stored = {name: value for name, value in values.items() if name not in failed}
    assert failed
    assert stored
    results = open_results(small_disk, decode=encode_text)
    assert {name: results[name] for name in results} == stored
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True, timeout=30)
    store(small_disk, {name: values[name] for name in failed}, resume=True)
    check_whole(small_disk, values)


def test_samples_that_cannot_be_synced_are_not_stored(tmp_path, monkeypatch):
    """They fail, and what is in the part of them is cut off."""
    real = os.fdatasync
    faults = [None, OSError(errno.EIO, "as if from a disk")]

    def fdatasync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.endswith(".part") and faults and (error := faults.pop(0)) is not None:
            raise error
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    values = values_of(*range(8))
    target = TarShards(tmp_path, durability="fsync")
    with pytest.raises(WriteError) as raised:
        store(tmp_path, values, target=target, backend="thread", max_workers=1, attempts=1)
    failed = {failure.name for failure in raised.value.failures}
    assert failed
    check_whole(tmp_path, {name: value for name, value in values.items() if name not in failed})


def test_samples_that_cannot_be_recorded_are_cut_off(tmp_path, monkeypatch):
    """They fail, and are in no shard."""
    with BackgroundWriter(encode_text, target=TarShards(tmp_path), backend="thread", max_workers=1) as writer:
        writer.submit_batch(["a", "b"], ["one", "two"])
        writer.flush()
        with monkeypatch.context() as patch:

            def append(*args):
                raise OSError(errno.EIO, "as if from a disk")

            patch.setattr(ManifestLog, "append", append)
            writer.submit_batch(["c", "d"], ["three", "four"])
            with pytest.raises(WriteError):
                writer.flush()
    check_whole(tmp_path, {"a": "one", "b": "two"})


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_shard_that_cannot_be_sealed_is_sealed_later(tmp_path, monkeypatch, capfd, step):
    """No sample fails; the part is read until then, and grows on."""
    real = getattr(os, step)

    def fails(what, *args):
        name = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else os.fspath(what)
        if name.endswith(".tar.part"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(what, *args)

    values = values_of(*range(8))
    with BackgroundWriter(encode_text, target=TarShards(tmp_path), backend="thread", max_workers=1) as writer:
        for start in range(0, 8, 4):
            batch = list(values)[start : start + 4]
            writer.submit_batch(batch, [values[name] for name in batch])
            with monkeypatch.context() as patch:
                patch.setattr(os, step, fails)
                writer.flush(seal=True)
            assert "cannot be sealed yet" in capfd.readouterr().err
            results = open_results(tmp_path, decode=encode_text)
            assert {name: results[name] for name in results} == dict(list(values.items())[: start + 4])
    check_whole(tmp_path, values)
    assert len(tar_of(tmp_path)) == 1


def test_full_shards_that_cannot_be_sealed_are_told_when_there_are_more(tmp_path, monkeypatch, capfd):
    """And not after each unit; all of them are sealed at the end."""
    real, values = os.rename, values_of(*range(12))
    with BackgroundWriter(encode_text, target=TarShards(tmp_path, shard_samples=4), backend="thread") as writer:
        with monkeypatch.context() as patch:

            def rename(*args):
                raise PermissionError(13, "no new names here")

            patch.setattr(os, "rename", rename)
            for name in list(values)[:6]:
                writer.submit(name, values[name])
                writer.flush()
            assert capfd.readouterr().err.count("cannot be sealed yet") == 1
        assert os.rename is real
        for name in list(values)[6:]:
            writer.submit(name, values[name])
            writer.flush()
    check_whole(tmp_path, values)


def test_what_cannot_be_taken_over_keeps_nobody_from_storing(tmp_path, monkeypatch, capfd):
    """It is said, and the next one does it."""
    writer = BackgroundWriter(encode_text, target=TarShards(tmp_path), backend="thread", max_workers=1)
    writer.submit("a", "one")
    assert writer.close_by(60) == 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lambda *args: (_ for _ in ()).throw(PermissionError(13, "as if from a server")))
        with contextlib.closing(TarShards(tmp_path)) as target:
            target.open()
    assert "cannot be sealed yet (PermissionError: [Errno 13] as if from a server)" in capfd.readouterr().err
    store(tmp_path, {"b": "two"}, resume=True)
    check_whole(tmp_path, {"a": "one", "b": "two"})


def test_a_part_whose_worker_is_alive_is_left_alone(tmp_path):
    """By whoever opens the directory meanwhile."""
    with BackgroundWriter(encode_text, target=TarShards(tmp_path), backend="thread", max_workers=1) as writer:
        writer.submit("a", "one")
        writer.flush()
        store(tmp_path, {"b": "two"}, resume=True)
        assert len(names_in(tmp_path, ".part")) == 1
        writer.submit("c", "three")
    check_whole(tmp_path, {"a": "one", "b": "two", "c": "three"})


def test_a_part_that_somebody_removes_takes_no_later_sample_with_it(tmp_path):
    """They go into a new one."""
    with BackgroundWriter(encode_text, target=TarShards(tmp_path), backend="thread", max_workers=1) as writer:
        writer.submit("a", "one")
        writer.flush()
        for path in tmp_path.glob("*.part"):
            path.unlink()
        writer.submit("b", "two")
    assert [name for one in tar_of(tmp_path) for name in tar_names(tmp_path / one)] == ["b.txt"]
    assert {one.record.name for one in verify(tmp_path).damaged} == {"a"}


def test_a_directory_that_is_removed_is_made_again(tmp_path):
    """With what is stored later."""
    out = tmp_path / "out"
    with BackgroundWriter(encode_text, target=TarShards(out), backend="thread", max_workers=1) as writer:
        writer.submit("a", "one")
        writer.flush()
        shutil.rmtree(out)
        writer.submit("b", "two")
    assert [name for one in tar_of(out) for name in tar_names(out / one)] == ["b.txt"]


def test_parts_without_any_record_left_keep_what_is_whole(tmp_path):
    """Where somebody has removed the records of a run that was killed."""
    writer = BackgroundWriter(encode_text, target=TarShards(tmp_path), backend="thread", max_workers=1)
    writer.submit_batch(["a", "b"], ["one", "two"])
    assert writer.close_by(60) == 0
    shutil.rmtree(tmp_path / ".lighter-async")
    with contextlib.closing(TarShards(tmp_path)) as target:
        target.open()
    assert [name for one in tar_of(tmp_path) for name in tar_names(tmp_path / one)] == ["a.txt", "b.txt"]


def test_a_job_that_is_about_to_be_killed_does_not_wait_for_sealing(tmp_path, backend):
    """Everything is stored, and the next writer seals it, also if it has nothing to store."""
    writer = BackgroundWriter(encode_text, target=TarShards(tmp_path), backend=backend, max_workers=1)
    writer.submit_batch(["a", "b"], ["one", "two"])
    assert writer.close_by(60) == 0
    assert tar_of(tmp_path) == []
    with BackgroundWriter(encode_text, target=TarShards(tmp_path), resume=True) as writer:
        writer.start()
    check_whole(tmp_path, {"a": "one", "b": "two"})


def test_repair_drops_one_sample_and_leaves_the_shard(tmp_path, capsys):
    """By the command line, which is not told that the directory holds shards; then it is computed again."""
    values = values_of(*range(5))
    store(tmp_path, values, max_workers=1, unit=5)
    (shard,) = tar_of(tmp_path)
    record = open_results(tmp_path, decode=encode_text).record("case.3")
    data = bytearray((tmp_path / shard).read_bytes())
    data[record.offset] ^= 1
    (tmp_path / shard).write_bytes(data)
    assert main(["verify", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "samples in tar shards, " in told.splitlines()[0]
    assert "DAMAGED: 1 wrong checksum\n" in told
    main(["verify", "--repair", str(tmp_path)])
    assert (tmp_path / shard).read_bytes() == data
    assert list(pending(range(5), tmp_path, names=list(values))) == [3]
    store(tmp_path, {"case.3": values["case.3"]}, resume=True, start=3)
    results = open_results(tmp_path, decode=encode_text)
    assert {name: results[name] for name in results} == values
    assert main(["verify", str(tmp_path)]) == 0


@pytest.mark.parametrize("stored", [[], ["a", "b"]])
def test_kept_values_are_replayed_into_shards(tmp_path, monkeypatch, stored):
    """As their run has stored the others, or was to."""
    monkeypatch.setenv(replayable.BROKEN, "1")
    target = TarShards(tmp_path)
    names = [*stored, "bad.1", "bad.2"]
    with pytest.raises(WriteError, match="2 values are kept"):
        with BackgroundWriter("replayable:picky", target=target, backend="thread", on_error="continue") as writer:
            writer.submit_batch(names, names)
    monkeypatch.delenv(replayable.BROKEN)
    assert main(["replay", str(tmp_path), "--writer", "replayable:picky", "--trust"]) == 0
    members = [name for one in tar_of(tmp_path) for name in tar_names(tmp_path / one)]
    assert sorted(members) == [*(f"{name}.picky" for name in stored), "bad%2E1.picky", "bad%2E2.picky"]
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(("shard", ".lighter"))} == set()
    assert len(read_manifest(tmp_path)) == len(names)


def test_the_list_is_made_anew_from_the_shards(tmp_path):
    """Whatever stands in it, and without the indices."""
    store(tmp_path, values_of(*range(9)), target=TarShards(tmp_path, shard_samples=3))
    listing = (tmp_path / "shards.json").read_bytes()
    for wrong in (b"", b"[]", b"{", b'{"shardlist": [{"url": 1}]}', None):
        (tmp_path / "shards.json").unlink()
        if wrong is not None:
            (tmp_path / "shards.json").write_bytes(wrong)
        for index in tmp_path.glob("*.idx"):
            index.unlink()
        with contextlib.closing(TarShards(tmp_path)) as target:
            target.open()
        assert (tmp_path / "shards.json").read_bytes() == listing
