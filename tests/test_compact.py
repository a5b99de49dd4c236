"""Shards are rewritten without what nobody needs, and their samples are made files of."""

import errno
import json
import os
import shutil
import subprocess
import threading

import pytest
import torch
from killing import run_kills
from test_shards import check_whole, encode_text, encode_upper, names_in, store, tar_names, tar_of, values_of

from lighter_async import (
    ArrayTarget,
    BackgroundWriter,
    LocalTarget,
    Origin,
    Run,
    TableTarget,
    TarShards,
    open_results,
    pending,
    read_manifest,
)
from lighter_async.cli import main
from lighter_async.manifest.verify import verify
from lighter_async.names import Numbers
from lighter_async.targets.shards.compact import compact
from lighter_async.targets.shards.removed import COMPACTING, removed_shards
from lighter_async.targets.shards.unpack import unpack

pytestmark = pytest.mark.usefixtures("one_core")

IDENTITY = (
    "name",
    "bytes",
    "xxh3",
    "index",
    "shape",
    "dtype",
    "rank",
    "loader",
    "batch",
    "time",
    "run",
    "writer",
    "key",
)


def identities(folder):
    """What records say of samples, but for where these lie."""
    return [tuple(getattr(record, field) for field in IDENTITY) for record in read_manifest(folder).records]


def damage(folder, name, **options):
    """Change one byte of a sample."""
    record = open_results(folder, **options).record(name)
    data = bytearray((folder / record.file).read_bytes())
    data[record.offset] ^= 1
    (folder / record.file).write_bytes(data)
    return record.file


def test_samples_that_were_dropped_or_stored_again_are_gone_and_all_others_stay(tmp_path, capsys):
    """Their records are as before but for their places, and every reader sees each sample once."""
    values = values_of(*range(12))
    store(tmp_path, values, max_workers=1, unit=6)
    shard = damage(tmp_path, "case.3", decode=encode_text)
    main(["verify", "--repair", str(tmp_path)])
    again = {name: values[name] + "anew" for name in ("case.3", "case.5")}
    store(tmp_path, again, resume=True, max_workers=1)
    values.update(again)
    before, kept = identities(tmp_path), tar_of(tmp_path)
    kept.remove(shard)
    times = {}
    for line in subprocess.run(["tar", "-tvf", tmp_path / shard], capture_output=True, text=True).stdout.splitlines():
        *_, day, hour, name = line.split()
        times[name] = day, hour
    capsys.readouterr()

    assert main(["compact", "--dry-run", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert f"would rewrite {shard}" in told
    assert "would drop 2 members and free" in told
    assert tar_of(tmp_path) == [shard, *kept]

    assert main(["compact", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert f"rewrote {shard}" in told
    assert "dropped 2 members and freed" in told
    check_whole(tmp_path, values)
    assert identities(tmp_path) == before
    assert tar_of(tmp_path) == [*kept, "shard-00000-998-000000.tar"]
    made = subprocess.run(["tar", "-tvf", tmp_path / "shard-00000-998-000000.tar"], capture_output=True, text=True)
    assert {line.split()[-1]: (line.split()[-3], line.split()[-2]) for line in made.stdout.splitlines()}.items() <= (
        times.items()
    )
    assert list(pending(range(12), tmp_path, names=list(values))) == []

    assert main(["compact", str(tmp_path)]) == 0
    assert "dropped 0 members and freed 0.0 MB" in capsys.readouterr().out
    assert identities(tmp_path) == before


def test_a_dry_run_foretells_what_is_freed(tmp_path):
    """To the byte, where each shard gives way to one of its own."""
    store(tmp_path, values_of(*range(8)), max_workers=1)
    store(tmp_path, values_of(0, 1), resume=True, max_workers=1)
    foretold = compact(tmp_path, dry_run=True)
    size = sum(path.stat().st_size for path in tmp_path.glob("*.tar"))
    done = compact(tmp_path)
    assert size - sum(path.stat().st_size for path in tmp_path.glob("*.tar")) == done.freed == foretold.freed > 0
    assert (done.rewritten, done.dropped) == (foretold.rewritten, foretold.dropped)


def test_a_shard_of_which_nothing_counts_is_removed_and_its_name_is_not_used_again(tmp_path):
    """Also that of a run that counts no longer, since a later one began anew; its records are taken back."""
    store(tmp_path, values_of(*range(6)), max_workers=1)
    store(tmp_path, values_of(2, 3), max_workers=1)
    first, second = tar_of(tmp_path)
    assert len(read_manifest(tmp_path).records) == 6
    done = compact(tmp_path)
    assert (done.removed, done.rewritten, done.past) == ([first], [], 4)
    assert tar_of(tmp_path) == [second]
    check_whole(tmp_path, values_of(2, 3))
    assert len(read_manifest(tmp_path).records) == 2

    store(tmp_path, values_of(2, 3, 4), max_workers=1)
    assert compact(tmp_path).removed == [second]
    (third,) = tar_of(tmp_path)
    assert removed_shards(str(tmp_path)) == [first, second]
    store(tmp_path, values_of(2, 3, 4), max_workers=1)
    assert compact(tmp_path).removed == [third]
    (fourth,) = tar_of(tmp_path)
    assert len({first, second, third, fourth}) == 4
    check_whole(tmp_path, values_of(2, 3, 4))


def test_small_shards_become_one_no_larger_than_the_largest(tmp_path):
    """In bytes as in samples."""
    target = TarShards(tmp_path, shard_samples=4)
    store(tmp_path, values_of(*range(20)), target=target, max_workers=1)
    store(tmp_path, values_of(*(n for n in range(20) if n % 4)), target=target, max_workers=1, resume=True, unit=3)
    done = compact(tmp_path)
    assert len(done.rewritten) == 5
    assert [len(tar_names(tmp_path / name)) for name in done.made] == [4, 1]
    check_whole(tmp_path, values_of(*range(20)))


def test_what_ranks_have_stored_twice_is_there_once(tmp_path):
    """A sampler that pads hands one sample to two ranks."""
    values = values_of(*range(4))
    for rank in range(2):
        run = Run(id="r", rank=rank, world_size=2)
        names = {name: values[name] for name in (["case.0", "case.2"] if rank == 0 else ["case.1", "case.3", "case.0"])}
        with BackgroundWriter(encode_text, target=TarShards(tmp_path, run=run), max_workers=1) as writer:
            indices = [int(name[-1]) for name in names]
            writer.submit_batch(list(names), list(names.values()), origin=Origin(indices))
    before = identities(tmp_path)
    assert compact(tmp_path).dropped == 1
    check_whole(tmp_path, values)
    assert identities(tmp_path) == before


def test_outputs_of_a_sample_stay_side_by_side(tmp_path):
    """And a name that needs pax headers stays whole, as does an empty sample."""
    long = "folder/" + "ü" * 120
    names = ["a.b", long, "50% of x", "empty", "last"]

    def value(name):
        return {"low": "" if name == "empty" else f"of {name}", "up": f"of {name}"}

    writers = {"low": encode_text, "up": encode_upper}
    for some in (names, ["last"]):
        with BackgroundWriter(writers, target=TarShards(tmp_path), max_workers=1, resume=some != names) as writer:
            writer.submit_batch(some, [value(name) for name in some], origin=Origin([names.index(one) for one in some]))
    before = identities(tmp_path)
    expected = [one for one in tar_names(tmp_path / tar_of(tmp_path)[0]) if not one.startswith("last")]
    done = compact(tmp_path)
    assert done.dropped == 2
    assert tar_names(tmp_path / done.made[0]) == expected
    assert identities(tmp_path) == before
    for key, field in (("low", str), ("up", str.upper)):
        results = open_results(tmp_path, key=key, decode=bytes.decode)
        assert {name: results[name] for name in results} == {name: field(value(name)[key]) for name in names}
    assert verify(tmp_path).findings == []
    first, *lines = (tmp_path / done.made[0].replace(".tar", ".idx")).read_text().splitlines()
    assert (first, len(lines)) == ("v1.2 4", 4)


def test_a_damaged_sample_is_told_and_its_shard_left(tmp_path, capsys):
    """The others are rewritten; once it is dropped, so is its own."""
    values = values_of(*range(12))
    store(tmp_path, values, target=TarShards(tmp_path, shard_samples=4), max_workers=1)
    store(tmp_path, values_of(0, 4), resume=True, max_workers=1)
    content = {}
    shard = damage(tmp_path, "case.2", decode=encode_text)
    content = (tmp_path / shard).read_bytes()
    assert main(["compact", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "'case.2' has the checksum" in told.err
    assert shard in told.err
    assert (tmp_path / shard).read_bytes() == content
    assert "dropped 1 member" in told.out
    assert [one.trouble for one in verify(tmp_path).findings] == ["wrong checksum"]
    main(["verify", "--repair", str(tmp_path)])
    assert main(["compact", str(tmp_path)]) == 0
    del values["case.2"]
    check_whole(tmp_path, values)


def test_a_damaged_header_is_made_anew(tmp_path):
    """The sample is found by its record, and readers of tar files find it again, and those behind it."""
    values = values_of(*range(6))
    store(tmp_path, values, max_workers=1, unit=6)
    store(tmp_path, values_of(0), resume=True)
    record = open_results(tmp_path, decode=encode_text).record("case.2")
    with open(tmp_path / record.file, "r+b") as file:
        file.seek(record.offset - 512)
        file.write(b"x" * 512)
    compact(tmp_path)
    check_whole(tmp_path, values)


def test_it_does_not_run_beside_a_writer(tmp_path, capsys):
    """Nor does it change anything."""
    store(tmp_path, values_of(*range(6)), max_workers=1)
    store(tmp_path, values_of(1), resume=True, max_workers=1)
    before = names_in(tmp_path, "")
    with BackgroundWriter(encode_text, target=TarShards(tmp_path), resume=True):
        during = names_in(tmp_path, "")
        assert main(["compact", str(tmp_path)]) == 2
        assert main(["compact", "--dry-run", str(tmp_path)]) == 2
        assert names_in(tmp_path, "") == during
    assert "a writer is at work" in capsys.readouterr().err
    assert names_in(tmp_path, "") == before


def test_a_writer_waits_until_it_has_ended(tmp_path):
    """It holds a lock as a writer does, which tells what it is."""
    store(tmp_path, values_of(0), max_workers=1)
    compacting = LocalTarget(tmp_path, run=Run(id=f"{COMPACTING}1"))
    compacting.open()
    writer = TarShards(tmp_path)
    opened = threading.Event()

    def open_writer():
        writer.open()
        opened.set()

    thread = threading.Thread(target=open_writer)
    thread.start()
    while len(list((tmp_path / ".lighter-async").glob("*.lock"))) < 2:  # it has its own lock, and looks for others
        assert thread.is_alive()
    assert not opened.is_set()
    compacting.close()
    thread.join(30)
    assert opened.is_set()
    writer.close()


def test_what_cannot_be_known_is_left(tmp_path, capsys):
    """Shards that were written without a manifest, or whose manifest is gone; and a directory without either."""
    assert main(["compact", str(tmp_path / "none")]) == 2
    assert main(["compact", str(tmp_path)]) == 2
    store(tmp_path, values_of(0), manifest=False, max_workers=1)
    assert main(["compact", str(tmp_path)]) == 2
    assert "no manifest" in capsys.readouterr().err
    store(tmp_path, values_of(1), max_workers=1)
    shards = tar_of(tmp_path)
    assert main(["compact", str(tmp_path)]) == 0
    assert f"left {shards[0]}" in capsys.readouterr().out
    assert tar_of(tmp_path) == shards


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, capsys):
    """What was copied until then is cut off again, and the next one does all of it."""
    store(tmp_path, values_of(*range(6)), max_workers=1, unit=6)
    store(tmp_path, values_of(1), resume=True, max_workers=1)
    before, files = identities(tmp_path), names_in(tmp_path, "")
    written = []

    def write(descriptor, pieces, place, real=os.pwritev):
        written.append(place)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "no space left")
        return real(descriptor, pieces, place)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", write)
        assert main(["compact", str(tmp_path)]) == 1
    assert "no space left" in capsys.readouterr().err
    assert (identities(tmp_path), names_in(tmp_path, "")) == (before, files)
    assert main(["compact", str(tmp_path)]) == 0
    check_whole(tmp_path, values_of(*range(6)))


def test_a_shard_that_is_a_link_is_told(tmp_path, capsys):
    """No link is followed, and the other shards are rewritten."""
    store(
        tmp_path / "a", values_of(*range(6)), max_workers=1, unit=3, target=TarShards(tmp_path / "a", shard_samples=3)
    )
    store(tmp_path / "a", values_of(1, 4), resume=True, max_workers=1)
    first, second, _ = tar_of(tmp_path / "a")
    (tmp_path / "a" / first).rename(tmp_path / "elsewhere")
    (tmp_path / "a" / first).symlink_to(tmp_path / "elsewhere")
    assert main(["compact", str(tmp_path / "a")]) == 1
    told = capsys.readouterr()
    assert f"left {first}: it cannot be read" in told.err
    assert f"rewrote {second}" in told.out
    assert (tmp_path / "a" / first).is_symlink()


def test_files_of_their_own_are_not_touched(tmp_path):
    """Where another writer has stored files in the same directory."""
    store(tmp_path, values_of(*range(3)), max_workers=1)
    store(tmp_path, values_of(1), resume=True, max_workers=1)
    with BackgroundWriter(encode_upper, tmp_path) as writer:
        writer.submit("case.1", "upper")
    inode = (tmp_path / "case.1.up").stat().st_ino
    compact(tmp_path)
    assert (tmp_path / "case.1.up").stat().st_ino == inode
    assert verify(tmp_path).findings == []
    assert open_results(tmp_path, writer="encode_upper", decode=encode_upper)["case.1"] == "UPPER"


def test_a_state_that_was_put_back_keeps_its_shards(tmp_path):
    """Though a list of removed ones that is newer says that they are gone."""
    values = values_of(*range(6))
    store(tmp_path / "a", values, max_workers=1, unit=6)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    store(tmp_path / "a", values_of(1), resume=True, max_workers=1)
    compact(tmp_path / "a")
    shutil.copy(tmp_path / "a/.lighter-async/removed-shards", tmp_path / "b/.lighter-async")
    target = TarShards(tmp_path / "b")
    target.open()
    target.close()
    check_whole(tmp_path / "b", values)


@pytest.mark.parametrize(
    ("job", "torn"),
    [
        pytest.param("compacting", "torn", marks=pytest.mark.long),
        pytest.param("compacting", "whole", marks=pytest.mark.long),
        pytest.param("removing", "torn", marks=pytest.mark.long),
        pytest.param("unpacking", "torn", marks=pytest.mark.long),
    ],
)
def test_killed_at_any_of_its_changes_it_loses_nothing(tmp_path, job, torn):
    """Each sample is readable by its record, and the next one does what is left to do."""
    assert run_kills("compact_script.py", tmp_path, job, torn) >= 20


# Unpacking


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and ".lighter-async" not in path.parts
    }


def test_unpacked_samples_are_files_with_the_same_records(tmp_path, capsys):
    """Of any name, and with several outputs; what was stored again is there once."""
    names = ["case.1", "50% off", "größe", "folder/__deep", "x" * 140, "plain.up"]
    shards, out = tmp_path / "shards", tmp_path / "out"
    writers = {"low": encode_text, "up": encode_upper}
    for some in (names, names[:2]):
        with BackgroundWriter(writers, target=TarShards(shards), resume=some != names) as writer:
            values = [{"low": f"low {name}", "up": f"up {name}"} for name in some]
            writer.submit_batch(some, values, origin=Origin([names.index(one) for one in some]))
    assert main(["unpack", str(shards), str(out)]) == 0
    assert "stored 12 files" in capsys.readouterr().out
    expected = {f"{name}.low.txt": f"low {name}" for name in names}
    expected.update({f"{name}.up.up": f"UP {name.upper()}" for name in names})
    assert files_of(out) == expected
    assert identities(out) == identities(shards)
    assert verify(out).findings == []
    assert list(pending(range(6), out, names=names)) == []
    for key in ("low", "up"):
        there, here = (open_results(folder, key=key, decode=bytes.decode) for folder in (shards, out))
        assert list(here.items()) == list(there.items())
        assert here.at(4) == there.at(4)
    with BackgroundWriter(writers, out, resume=True) as writer:
        writer.submit("more", {"low": "m", "up": "m"}, origin=Origin([6]))
    assert len(open_results(out, key="low", decode=bytes.decode)) == 7


def test_unpacked_files_are_as_a_directory_would_have_had_them(tmp_path):
    """Names and bytes, for numbered samples of a tensor writer too; and the run's data set is known."""
    torch = pytest.importorskip("torch")
    for target in (TarShards(tmp_path / "shards"), tmp_path / "files"):
        with BackgroundWriter("tensor", target) as writer:
            writer.submit_batch(Numbers(range(5)), torch.arange(20.0).reshape(5, 4), origin=Origin(range(5)))
    unpack(tmp_path / "shards", tmp_path / "out")
    for path in (tmp_path / "files").glob("*.pt"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert list(pending(range(7), tmp_path / "out")) == [5, 6]
    assert torch.equal(open_results(tmp_path / "out").at(3), torch.arange(12.0, 16.0))


def test_unpacking_goes_on_with_what_is_missing(tmp_path):
    """A file that is gone or of another size is stored again, and the others are left alone."""
    store(tmp_path / "shards", values_of(*range(9)))
    out = tmp_path / "out"
    assert unpack(tmp_path / "shards", out).stored == 9
    before = {path.name: path.stat().st_ino for path in out.glob("*.txt")}
    (out / "case.3.txt").unlink()
    (out / "case.4.txt").write_text("short")
    done = unpack(tmp_path / "shards", out)
    assert (done.stored, done.kept) == (2, 7)
    after = {path.name: path.stat().st_ino for path in out.glob("*.txt")}
    assert {name for name in before if before[name] == after[name]} >= {
        name for name in before if name not in ("case.3.txt", "case.4.txt")
    }
    assert verify(out).findings == []


def test_a_damaged_sample_is_left_out_and_told(tmp_path, capsys):
    """The others are there, and it is pending in the new directory."""
    store(tmp_path / "shards", values_of(*range(4)))
    damage(tmp_path / "shards", "case.2", decode=encode_text)
    assert main(["unpack", str(tmp_path / "shards"), str(tmp_path / "out")]) == 1
    assert "case.2 is left out: " in capsys.readouterr().err
    assert sorted(files_of(tmp_path / "out")) == ["case.0.txt", "case.1.txt", "case.3.txt"]
    names = [f"case.{number}" for number in range(4)]
    assert list(pending(range(4), tmp_path / "out", names=names)) == [2]


def test_one_series_of_several_is_chosen(tmp_path, capsys):
    """And two whose files would have one name are refused, together or one after the other."""
    shards = tmp_path / "shards"
    for key in ("a", "b"):
        store(shards, {"x": f"of {key}"}, target=TarShards(shards, run=Run(key=key)))
    store(shards, {"x": "of c"}, target=TarShards(shards), writer=encode_upper)
    assert main(["unpack", str(shards), str(tmp_path / "all")]) == 2
    assert "key='a' and with writer='encode_text', key='b'" in capsys.readouterr().err
    assert main(["unpack", str(shards), str(tmp_path / "a"), "--key", "a"]) == 0
    assert files_of(tmp_path / "a") == {"x.txt": "of a"}
    assert main(["unpack", str(shards), str(tmp_path / "a"), "--key", "b"]) == 2
    assert main(["unpack", str(shards), str(tmp_path / "a"), "--writer", "encode_upper"]) == 0
    assert files_of(tmp_path / "a") == {"x.txt": "of a", "x.up": "OF C"}
    assert main(["unpack", str(shards), str(tmp_path / "none"), "--key", "z"]) == 2
    assert not (tmp_path / "none").exists()


def test_where_it_may_not_unpack_to(tmp_path, capsys):
    """In the directory itself, also by way of a link; where results of others are; where a writer is at work."""
    shards = tmp_path / "shards"
    store(shards, values_of(0))
    (tmp_path / "link").symlink_to(shards, target_is_directory=True)
    for out in (shards, shards / "below", tmp_path / "link" / "x"):
        assert main(["unpack", str(shards), str(out)]) == 2
        assert "lies in" in capsys.readouterr().err
    store(tmp_path / "other", values_of(1), target=LocalTarget(tmp_path / "other"))
    assert main(["unpack", str(shards), str(tmp_path / "other")]) == 2
    assert "results of other runs" in capsys.readouterr().err
    with BackgroundWriter(encode_text, tmp_path / "busy"):
        assert main(["unpack", str(shards), str(tmp_path / "busy")]) == 2
    assert "a writer is at work" in capsys.readouterr().err
    assert main(["unpack", str(tmp_path / "nothing"), str(tmp_path / "out")]) == 2


def test_what_holds_no_shards_is_told_with_what_it_holds(tmp_path, capsys):
    """Files and rows need no unpacking, and nothing is made of them."""

    def told():
        for command in (["compact"], ["unpack", str(tmp_path / "out")]):
            assert main([command[0], str(folder), *command[1:]]) == 2
            text = capsys.readouterr().err
            assert f"{str(folder)!r} holds no tar shards, so there is nothing to {command[0]}" in text
        assert not (tmp_path / "out").exists()
        return text.split("; ")[-1].strip()

    folder = tmp_path / "results"
    folder.mkdir()
    assert told() == "it has no manifest"
    with BackgroundWriter("text", folder, backend="thread"):
        pass
    assert told() == "what is stored there is nothing"
    store(folder, values_of(0, 1), target=LocalTarget(folder))
    assert told() == "what is stored there is 2 files"
    with BackgroundWriter(target=ArrayTarget(folder / "a.npy"), backend="thread") as writer:
        writer.submit_batch(None, torch.ones(3), origin=Origin(range(3)))
    with BackgroundWriter(target=TableTarget(folder / "a.csv"), backend="thread") as writer:
        writer.submit("one", {"x": 1})
    assert told() == "what is stored there is 2 files and 4 rows"


def test_compacted_shards_are_listed(tmp_path):
    """In `shards.json`, with their numbers of samples."""
    store(tmp_path, values_of(*range(6)), max_workers=1, unit=6)
    store(tmp_path, values_of(1), resume=True, max_workers=1)
    compact(tmp_path)
    listing = json.loads((tmp_path / "shards.json").read_text())["shardlist"]
    assert [(one["url"], one["nsamples"]) for one in listing] == [
        ("shard-00000-000-000001.tar", 1),
        ("shard-00000-998-000000.tar", 5),
    ]
