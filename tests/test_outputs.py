"""Samples of several outputs: stored together, recorded as one."""

import enum
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from sent_to_helpers import Refusing

from lighter_async import (
    AsyncBackgroundWriter,
    BackgroundWriter,
    FileWriter,
    LocalTarget,
    Origin,
    Run,
    WriteError,
    encoder,
    open_results,
    pending,
    read_manifest,
    writer_registry,
)
from lighter_async.cli import main
from lighter_async.manifest.verify import drop, verify
from lighter_async.targets import Item, Part
from lighter_async.testing.base import opened

pytestmark = pytest.mark.usefixtures("one_core")

BOTH = {"mask": "image_2d", "logits": "tensor"}


mostly_threads = pytest.mark.parametrize(
    "backend", ["thread", pytest.param("process", marks=pytest.mark.long)], indirect=True
)


@pytest.fixture(params=["thread", "process"])
def backend(request):
    return request.param


def batch_of(count):
    masks = torch.arange(count * 3 * 4 * 5, dtype=torch.int64).remainder(256).to(torch.uint8).reshape(count, 3, 4, 5)
    return {"mask": masks, "logits": torch.arange(count * 6, dtype=torch.float32).reshape(count, 6)}


def files_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def check_stored(folder, names, batch):
    masks, logits = open_results(folder, key="mask"), open_results(folder, key="logits")
    assert set(masks) == set(logits) == set(names)
    for number, name in enumerate(names):
        assert np.array_equal(masks[name], batch["mask"][number].numpy())
        assert torch.equal(logits[name], batch["logits"][number])
    assert verify(folder).is_sound


@pytest.mark.parametrize("form", ["batch", "samples", "singles"])
def test_each_output_is_a_file_with_its_key(tmp_path, backend, form):
    """However they are handed over; they count as one sample, and stand in one line."""
    batch, names = batch_of(6), [f"case.{number}" for number in range(6)]
    samples = [{key: values[number] for key, values in batch.items()} for number in range(6)]
    with BackgroundWriter(BOTH, tmp_path, backend=backend, max_workers=2) as writer:
        if form == "batch":
            writer.submit_batch(names, {**batch, "something else": 1}, origin=Origin(range(6)))
        elif form == "samples":
            writer.submit_batch(names, samples, origin=Origin(range(6)))
        else:
            for number, (name, sample) in enumerate(zip(names, samples, strict=True)):
                writer.submit(name, sample, origin=Origin([number]))
    assert files_in(tmp_path) == sorted(f"{name}.{end}" for name in names for end in ("mask.png", "logits.pt"))
    stats = writer.stats()
    assert (stats.accepted, stats.written) == (6, 6)
    assert stats.bytes_written == sum(path.stat().st_size for path in tmp_path.iterdir() if path.is_file())
    lines = (tmp_path / ".lighter-async" / "manifest-0.jsonl").read_text().splitlines()
    for line in lines:
        about = json.loads(line)
        if "samples" in about:
            assert [(one["key"], one["writer"]) for one in about["outputs"]] == [
                ("mask", "image_2d"),
                ("logits", "tensor"),
            ]
    check_stored(tmp_path, names, batch)


@mostly_threads
def test_outputs_may_be_anything_that_their_writers_take(tmp_path, backend):
    """Each is copied by itself, whatever the others are."""
    with BackgroundWriter({"text": "text", "all": "tensor"}, tmp_path, backend=backend) as writer:
        value = {"text": "first", "all": {"x": torch.ones(3), "y": [torch.zeros(2), 5]}}
        writer.submit("a", value)
        value["all"]["x"].zero_()
        writer.submit_batch(["b", "c"], {"text": ["second", "third"], "all": np.ones((2, 3))})
    assert (tmp_path / "b.text.txt").read_text() == "second"
    stored = torch.load(tmp_path / "a.all.pt")
    assert torch.equal(stored["x"], torch.ones(3))
    assert stored["y"][1] == 5


def test_numbers_and_asyncio_go_the_same_way(tmp_path):
    """As samples of one output do."""
    import asyncio

    async def store():
        async with AsyncBackgroundWriter(BOTH, tmp_path, writer_options={"mask": {"compress_level": 1}}) as writer:
            await writer.submit_batch(["0", "1"], batch_of(2), origin=Origin([0, 1]))
            await writer.flush(seal=True)

    asyncio.run(store())
    check_stored(tmp_path, ["0", "1"], batch_of(2))


def test_the_same_is_said_in_one_word(tmp_path):
    """As the command line does."""
    with BackgroundWriter("mask=image_2d, logits=tensor", tmp_path) as writer:
        writer.submit_batch(["a"], batch_of(1))
    check_stored(tmp_path, ["a"], batch_of(1))


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ({"mask": torch.zeros(2, 3, 4, 5)}, ValueError, "output 'logits' is missing in a batch"),
        ({"mask": torch.zeros(2, 1, 4, 4), "logits": torch.zeros(3, 6)}, ValueError, "as many samples of each output"),
        ({"mask": torch.zeros(2, 1, 4, 4), "logits": torch.tensor(1.0)}, ValueError, "output 'logits' needs a batch"),
        ({"mask": torch.zeros(2, 1, 4, 4), "logits": "ab"}, TypeError, "output 'logits' of a batch is a tensor"),
        (torch.zeros(2, 6), TypeError, "a batch of several outputs is a dict with the keys 'mask', 'logits'"),
        ([torch.zeros(6)] * 2, TypeError, "a sample of several outputs is a dict"),
    ],
)
def test_values_that_lack_an_output_are_refused(tmp_path, values, error, says):
    """At once, and nothing of the batch is taken."""
    with BackgroundWriter(BOTH, tmp_path) as writer:
        with pytest.raises(error, match=says):
            writer.submit_batch(["a", "b"], values)
        assert writer.stats().accepted == 0
        writer.submit_batch(["a", "b"], batch_of(2))
    check_stored(tmp_path, ["a", "b"], batch_of(2))


@pytest.mark.parametrize(
    ("writer", "error", "says"),
    [
        ({}, ValueError, "at least one"),
        ({f"k{number}": "text" for number in range(65)}, ValueError, "at most 64 outputs, not 65"),
        ({"a/b": "tensor"}, ValueError, "output 'a/b' cannot be a part of a file name"),
        ({"A": "tensor", "a": "text"}, ValueError, "differ in case alone"),
        ({"a": lambda path, value: None}, TypeError, "output 'a': writer '<lambda>' is no encoder"),
        ({"a": "no such"}, ValueError, "'no such' is not registered"),
        ("a=tensor,b=text,a=npy", ValueError, "output 'a' has two writers in 'a=tensor,b=text,a=npy'"),
    ],
)
def test_outputs_that_cannot_be_stored_are_refused(tmp_path, writer, error, says):
    """When the writer is made."""
    with pytest.raises(error, match=says):
        BackgroundWriter(writer, tmp_path)


@pytest.mark.parametrize("kind", ["text", "tensor"])
def test_as_many_outputs_as_there_may_be_are_found_again(tmp_path, kind):
    """Readers take no line of the manifest with more of them."""
    keys = [f"k{number}" for number in range(64)]
    values = {key: ["1", "2"] if kind == "text" else torch.ones(2, 3) for key in keys}
    with BackgroundWriter(dict.fromkeys(keys, kind), tmp_path) as writer:
        writer.submit_batch(["a", "b"], values)
    assert len(read_manifest(tmp_path).records) == 128
    assert verify(tmp_path).is_sound


class Kind(str, enum.Enum):
    MASK = "mask"
    LOGITS = "logits"


def test_outputs_may_be_members_of_an_enum(tmp_path):
    """Their values are the keys, which files and records have, whatever members print."""
    with BackgroundWriter({Kind.MASK: "image_2d", Kind.LOGITS: "tensor"}, tmp_path) as writer:
        writer.submit_batch(["a"], batch_of(1))
        writer.submit_batch(["b"], {Kind(key): value for key, value in batch_of(1).items()})
    assert str(FileWriter(tmp_path, Kind.MASK, "image_2d").value_key) == "mask"  # which is the key of its records
    check_stored(tmp_path, ["a", "b"], {key: value.repeat_interleave(2, 0) for key, value in batch_of(1).items()})


def test_options_go_to_their_output(tmp_path):
    """And one for an output that there is not is refused."""
    with pytest.raises(ValueError, match="no output 'masks' among 'mask', 'logits'"):
        BackgroundWriter(BOTH, tmp_path, writer_options={"masks": {}})
    with pytest.raises(TypeError, match="compress_lvl"):
        BackgroundWriter(BOTH, tmp_path, writer_options={"mask": {"compress_lvl": 1}})


@mostly_threads
def test_a_sample_with_an_output_that_cannot_be_encoded_is_not_stored(tmp_path, backend):
    """Not the other output either; the samples beside it are."""
    batch = batch_of(3)
    masks = [*batch["mask"]]
    masks[1] = torch.zeros(7, 7, 7, 7)
    with pytest.raises(WriteError, match="'b'"):
        with BackgroundWriter(BOTH, tmp_path, backend=backend) as writer:
            writer.submit_batch(["a", "b", "c"], {"mask": masks, "logits": batch["logits"]})
    assert files_in(tmp_path) == ["a.logits.pt", "a.mask.png", "c.logits.pt", "c.mask.png"]
    assert (writer.stats().written, writer.stats().failed) == (2, 1)


@pytest.mark.parametrize("durability", ["rename", "fsync"])
def test_a_sample_whose_second_file_cannot_be_stored_leaves_no_first(tmp_path, durability):
    """Neither under its name, nor under a temporary one."""
    with pytest.raises(WriteError, match="as told"):
        with BackgroundWriter(BOTH, target=Refusing(tmp_path, durability=durability), max_workers=1) as writer:
            writer.submit_batch(["a", "b", "c"], batch_of(3))
    assert files_in(tmp_path) == ["a.logits.pt", "a.mask.png", "c.logits.pt", "c.mask.png"]
    assert {record.name for record in read_manifest(tmp_path).records} == {"a", "c"}


@pytest.mark.parametrize("durability", ["rename", "fsync"])
def test_a_sample_of_an_earlier_run_is_kept_only_if_it_is_whole(tmp_path, durability):
    """Of one that lacks an output the other one is replaced: it would be half of each."""
    old = {key: values.flip(0) for key, values in batch_of(2).items()}
    with BackgroundWriter(BOTH, tmp_path) as writer:
        writer.submit_batch(["a", "b"], old)
    (tmp_path / "b.logits.pt").unlink()
    with BackgroundWriter(BOTH, tmp_path, if_exists="skip", durability=durability) as writer:
        writer.submit_batch(["a", "b"], batch_of(2))
    assert (writer.stats().written, writer.stats().skipped) == (1, 1)
    assert torch.equal(torch.load(tmp_path / "a.logits.pt"), old["logits"][0])
    assert torch.equal(torch.load(tmp_path / "b.logits.pt"), batch_of(2)["logits"][1])
    assert np.array_equal(open_results(tmp_path, key="mask")["b"], batch_of(2)["mask"][1].numpy())
    assert verify(tmp_path).is_sound


@pytest.mark.parametrize("if_exists", ["overwrite", "skip"])
@pytest.mark.parametrize("durability", ["rename", "fsync"])
def test_a_sample_that_cannot_replace_an_earlier_one_leaves_that_as_it_was(tmp_path, durability, if_exists):
    """All of it, or as much of it as there was."""
    with BackgroundWriter(BOTH, tmp_path) as writer:
        writer.submit_batch(["b"], batch_of(1))
    if if_exists == "skip":
        (tmp_path / "b.logits.pt").unlink()
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}
    target = Refusing(tmp_path, durability=durability, if_exists=if_exists)
    with pytest.raises(WriteError, match="as told"):
        with BackgroundWriter(BOTH, target=target, max_workers=1) as writer:
            writer.submit_batch(["b"], {key: values + 1 for key, values in batch_of(1).items()})
    assert {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)} == before


@pytest.mark.parametrize("durability", ["rename", "fsync"])
def test_a_redelivered_sample_is_stored_where_earlier_ones_are_kept(tmp_path, durability):
    """What this run's dead worker has stored is no earlier run's."""
    with opened(LocalTarget(tmp_path, if_exists="skip", durability=durability)) as target:
        lane = target.lane(0)
        item = Item("a", [Part(f"a{end}", end, [memoryview(b"1")]) for end in (".x", ".y")])
        for redelivered in (False, True):
            outcome = lane.put(item, redelivered=redelivered)
            assert (outcome if outcome is not None else lane.settle(lambda _: None)[0]) is True


KILLED = """
    import os, signal, sys
    from lighter_async import BackgroundWriter, LocalTarget, Origin
    from test_outputs import BOTH, batch_of
    folder, fatal, added, *names = sys.argv[1:]
    class Killing(LocalTarget):
        def publish(self, temporary, name, **options):
            if name == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().publish(temporary, name, **options)
    writer = BackgroundWriter(BOTH, target=Killing(folder), backend="thread", max_workers=1)
    for number, name in enumerate(names):
        values = {key: one[number] + int(added) for key, one in batch_of(4).items()}
        writer.submit(name, values, origin=Origin([number]))
    writer.close()
"""


def be_killed_at(folder, file, names, *, added=0):
    """A job stores samples, and is killed when it is about to give a file its name."""
    script = [sys.executable, "-c", textwrap.dedent(KILLED)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # of this module's imports
    done = subprocess.run([*script, str(folder), file, str(added), *names], timeout=120, env=environment)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.long
def test_a_job_killed_while_it_replaces_a_sample_leaves_no_mixture(tmp_path):
    """A later run that keeps earlier samples keeps none that is half of each."""
    with BackgroundWriter(BOTH, tmp_path) as writer:
        writer.submit_batch(["a"], batch_of(1))
    be_killed_at(tmp_path, "a.logits.pt", ["a"], added=1)
    third = {key: values + 2 for key, values in batch_of(1).items()}
    with BackgroundWriter(BOTH, tmp_path, if_exists="skip") as writer:
        assert files_in(tmp_path) == ["a.mask.png"]
        writer.submit_batch(["a"], third)
    assert (writer.stats().written, writer.stats().skipped) == (1, 0)
    check_stored(tmp_path, ["a"], third)


def test_a_second_rank_takes_nothing_away(tmp_path):
    """A file of another rank, newer than the run, is never set aside, nor is the earlier one that it has replaced."""
    (tmp_path / "a.x").write_text("of an earlier run")
    os.utime(tmp_path / "a.x", (1, 1))
    run = Run(id="r", rank=1, world_size=2)
    with opened(LocalTarget(tmp_path, run=run)) as target:
        (tmp_path / "b.x").write_text("of the other rank")
        aside = target.set_aside(["a.x", "b.x", "c.x"], replace_earlier=False)
        assert [name for _, name in aside] == ["a.x"]
        assert not (tmp_path / "a.x").exists()
        (tmp_path / "a.x").write_text("of the other rank")
        target.put_back(aside)
    assert {name: (tmp_path / name).read_text() for name in files_in(tmp_path)} == dict.fromkeys(
        ["a.x", "b.x"], "of the other rank"
    )


def test_a_file_that_does_not_get_its_name_back_is_kept_and_told(tmp_path, monkeypatch, capfd):
    """It is a sample of an earlier run; only the next writer would clear it."""

    def refuse(*_, **__):
        raise PermissionError(13, "no new names here")

    (tmp_path / "a.x").write_text("of an earlier run")
    with opened(LocalTarget(tmp_path)) as target:
        ((temporary, _),) = aside = target.set_aside(["a.x"], replace_earlier=False)
        with monkeypatch.context() as patch:
            patch.setattr("lighter_async.targets.existing_files.name_part", refuse)
            target.put_back(aside)
        assert Path(temporary).read_text() == "of an earlier run"
        told = capfd.readouterr().err
        assert "could not be given its name back (PermissionError: [Errno 13] no new names here)" in told
        assert temporary in told
        target.put_back(aside)
    assert files_in(tmp_path) == ["a.x"]


def test_an_earlier_sample_is_an_error_where_that_is_asked_for(tmp_path):
    """Also half of one, and nothing of the new one is left."""
    with BackgroundWriter(BOTH, tmp_path) as writer:
        writer.submit_batch(["a"], batch_of(1))
    (tmp_path / "a.mask.png").unlink()
    with pytest.raises(WriteError, match="exists already"):
        with BackgroundWriter(BOTH, tmp_path, if_exists="error") as writer:
            writer.submit_batch(["a"], batch_of(1))
    assert files_in(tmp_path) == ["a.logits.pt"]


@pytest.mark.long
def test_a_job_killed_between_the_files_of_a_sample_does_it_again(tmp_path):
    """It is pending, as what came after it, and the next run completes it."""
    names = [str(number) for number in range(4)]
    be_killed_at(tmp_path, "2.logits.pt", names)
    assert os.path.exists(tmp_path / "2.mask.png")
    assert not os.path.exists(tmp_path / "2.logits.pt")
    left = list(pending(range(4), tmp_path, names=names))
    assert left == [2, 3]
    with BackgroundWriter(BOTH, tmp_path, resume=True) as writer:
        for number in left:
            writer.submit(str(number), {key: one[number] for key, one in batch_of(4).items()}, origin=Origin([number]))
    check_stored(tmp_path, names, batch_of(4))
    assert [one for one in verify(tmp_path).findings if one.trouble == "extra"] == []


@encoder(suffix=".bin")
def encode_if_there(value):
    """Bytes, once there is the file that is named."""
    text, path = value
    if not os.path.exists(path):
        raise ValueError("not yet")
    return text.encode()


def test_values_that_failed_are_kept_whole_and_replayed(tmp_path, monkeypatch, capsys):
    """All outputs of a sample, by the names that its error tells."""
    marker, out = tmp_path / "marker", tmp_path / "out"
    monkeypatch.setitem(writer_registry._registry, "encode_if_there", encode_if_there)
    writers = {"mask": "image_2d", "note": "encode_if_there"}
    values = {"mask": batch_of(2)["mask"], "note": [("one", str(marker)), ("two", str(marker))]}
    writer = BackgroundWriter(writers, out, backend="thread", on_error="continue")
    writer.submit_batch(["a", "b"], values, origin=Origin([0, 1]))
    with pytest.raises(WriteError, match="not yet"):
        writer.close()
    assert files_in(out) == []
    marker.touch()
    assert main(["replay", str(out)]) == 0
    assert files_in(out) == ["a.mask.png", "a.note.bin", "b.mask.png", "b.note.bin"]
    assert (out / "b.note.bin").read_bytes() == b"two"
    assert read_manifest(out).names() == {"a", "b"}
    assert verify(out).is_sound


def test_a_kept_value_is_replayed_until_all_of_its_outputs_are_stored(tmp_path, monkeypatch):
    """A later run that stored one of them, and was killed, has not made it useless."""
    marker, out = tmp_path / "marker", tmp_path / "out"
    monkeypatch.setitem(writer_registry._registry, "encode_if_there", encode_if_there)
    writers = {"mask": "image_2d", "note": "encode_if_there"}
    value = {"mask": batch_of(1)["mask"][0], "note": ("one", str(marker))}
    writer = BackgroundWriter(writers, out, backend="thread", on_error="continue")
    writer.submit("a", value, origin=Origin([0]))
    with pytest.raises(WriteError, match="not yet"):
        writer.close()
    marker.touch()
    with BackgroundWriter(writers, out, backend="thread", resume=True) as writer:
        writer.submit("a", value, origin=Origin([0]))
    (out / "a.note.bin").unlink()
    assert drop(verify(out)) == []
    assert main(["replay", str(out)]) == 0
    assert (out / "a.note.bin").read_bytes() == b"one"
    assert read_manifest(out).names() == {"a"}
    assert verify(out).is_sound
