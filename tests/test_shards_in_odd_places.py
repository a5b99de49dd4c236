"""Shards whose records are removed, whose files are removed, or that come to lie where other things do."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings

import psutil
import pytest
import torch

from lighter_async import BackgroundWriter, Run, TarShards, WriteError, encoder, open_results, pending
from lighter_async.manifest.verify import verify
from lighter_async.targets.shards.lane import ShardLane

FIRST = [f"a{number}" for number in range(20)]
SECOND = [f"b{number}" for number in range(20)]


def batch(first=0):
    return torch.arange(first, first + 20.0)[:, None]


def members_in(folder):
    names = []
    for path in sorted(folder.glob("*.tar")):
        done = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
        names += done.stdout.split()
    return names


def helpers():
    return [one for one in psutil.Process().children() if "lighter_async" in " ".join(one.cmdline())]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("make", [TarShards, str], ids=["shards", "files"])
def test_the_records_are_removed_and_then_helpers_die(tmp_path, make, workers):
    """What they had stored is kept, and found: the helpers in their place read records that are there again."""
    out = tmp_path / "out"
    writer = BackgroundWriter("tensor", make(out), backend="process", max_workers=workers)
    with writer:
        writer.submit_batch(FIRST, batch())
        writer.flush()
        shutil.rmtree(out / ".lighter-async")
        for helper in helpers():
            helper.send_signal(signal.SIGKILL)
        writer.submit_batch(SECOND, batch(100))
    assert writer.stats().written == 40
    results = open_results(out)
    assert sorted(results) == sorted(FIRST + SECOND)
    assert (results["a3"].item(), results["b3"].item()) == (3, 103)
    assert verify(out).is_sound
    if make is TarShards:
        assert sorted(members_in(out)) == sorted(f"{name}.pt" for name in FIRST + SECOND)


def test_what_was_recorded_is_not_cut_off_where_the_records_are_gone(tmp_path):
    """A later sample cannot be recorded, and fails alone."""
    writer = BackgroundWriter("tensor", TarShards(tmp_path), backend="thread", max_workers=1, attempts=1)
    writer.submit_batch(FIRST, batch())
    writer.flush()
    shutil.rmtree(tmp_path / ".lighter-async")
    (tmp_path / ".lighter-async").touch()
    writer.submit("b", torch.ones(1))
    with pytest.raises(WriteError, match=r"1 sample was not written.*File exists"):
        writer.flush()
    (tmp_path / ".lighter-async").unlink()
    writer.close()
    assert sorted(members_in(tmp_path)) == sorted(f"{name}.pt" for name in FIRST)
    assert sorted(open_results(tmp_path)) == sorted(FIRST)


DIES = """
    import os, signal, sys
    import torch
    from lighter_async import BackgroundWriter, TarShards
    from lighter_async.manifest import ManifestLog
    writer = BackgroundWriter("tensor", TarShards(sys.argv[1]), backend="thread", max_workers=1)
    writer.submit("recorded", torch.zeros(500))
    writer.flush()
    # Between storing and recording.
    ManifestLog.append = ManifestLog.append_rows = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    writer.submit_batch([f"m{number}" for number in range(60)], torch.zeros(60, 500))
    writer.flush()
"""


def test_no_shard_gets_the_name_of_one_that_was_removed(tmp_path):
    """Records still tell of that one: its samples are missing, and no part of the name is cut where it had ended."""
    names = FIRST + SECOND
    with BackgroundWriter("tensor", TarShards(tmp_path), backend="thread", max_workers=1) as writer:
        writer.submit_batch(FIRST, batch())
    (removed,) = tmp_path.glob("*.tar")
    removed.unlink()
    with BackgroundWriter("tensor", TarShards(tmp_path), backend="thread", max_workers=1, resume=True) as writer:
        writer.submit_batch(SECOND, batch())
    assert not removed.exists()
    with pytest.warns(UserWarning, match="20 of 40"):
        assert len(pending(range(40), tmp_path, names=names)) == 0
    troubles = [(one.trouble, one.file) for one in verify(tmp_path).findings]
    assert sorted(troubles) == [("extra", removed.with_suffix(".idx").name), *[("missing", removed.name)] * 20]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(DIES), str(tmp_path)], timeout=120)
    assert done.returncode == -signal.SIGKILL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is missing still
        with BackgroundWriter("tensor", TarShards(tmp_path), backend="thread", max_workers=1, resume=True) as writer:
            writer.submit("z", torch.zeros(1))
    assert sorted(members_in(tmp_path)) == sorted([*(f"{name}.pt" for name in SECOND), "recorded.pt", "z.pt"])


@encoder(suffix=".json")
def encode_json(value):
    """A text, as it is."""
    return value.encode()


def test_a_sample_that_is_called_as_the_list_of_shards_is_not_replaced(tmp_path):
    """Who opens the directory for shards is told what lies there."""
    with BackgroundWriter(encode_json, tmp_path, backend="thread", max_workers=1) as writer:
        writer.submit("shards", '{"a": 1}')
    with pytest.raises(FileExistsError, match=r"shards\.json' is no list of shards"):
        BackgroundWriter("tensor", TarShards(tmp_path), backend="thread").start()
    assert (tmp_path / "shards.json").read_text() == '{"a": 1}'


def test_samples_of_another_series_are_no_earlier_ones(tmp_path):
    """Of two outputs that two writers store in one directory, each keeps its own."""
    for key, first in (("mask", 0), ("logits", 100), ("mask", 200)):
        target = TarShards(tmp_path, if_exists="skip", run=Run(key=key))
        with BackgroundWriter("tensor", target, backend="thread", max_workers=1) as writer:
            writer.submit_batch(FIRST, batch(first))
        assert (writer.stats().written, writer.stats().skipped) == ((0, 20) if first == 200 else (20, 0))
    assert open_results(tmp_path, key="logits")["a1"].item() == 101


def test_whatever_settling_raises_fails_all_samples_that_wait(tmp_path, monkeypatch):
    """None of them is forgotten; those after them are stored."""
    settle, full = ShardLane.settle, ShardLane.is_full

    def fail_once(lane, on_progress):
        monkeypatch.setattr(ShardLane, "settle", settle)
        monkeypatch.setattr(ShardLane, "is_full", full)
        raise MemoryError("no more of it")

    monkeypatch.setattr(ShardLane, "settle", fail_once)
    monkeypatch.setattr(ShardLane, "is_full", property(lambda lane: len(lane._waiting) == 3))
    monkeypatch.setattr(ShardLane, "takes_rows", False)
    writer = BackgroundWriter("text", TarShards(tmp_path), backend="thread", max_workers=1)
    writer.submit_batch(["a", "b", "c", "d", "e"], ["1", "2", "3", "4", "5"])
    with pytest.raises(WriteError, match="no more of it") as raised:
        writer.close()
    assert [failure.name for failure in raised.value.failures] == ["a", "b", "c"]
    assert sorted(open_results(tmp_path)) == ["d", "e"]


@contextlib.contextmanager
def unreadable(path):
    os.chmod(path, 0)
    yield
    os.chmod(path, 0o644)


def test_a_part_that_cannot_be_opened_is_told(tmp_path, capfd):
    """It stays as it is."""
    part = tmp_path / "shard-00000-000-000007.tar.part"
    part.mkdir()
    with BackgroundWriter("text", TarShards(tmp_path), backend="thread") as writer:
        writer.submit("a", "1")
    assert "cannot be opened (IsADirectoryError" in capfd.readouterr().err
    assert part.is_dir()
