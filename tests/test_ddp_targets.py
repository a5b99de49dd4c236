"""Shards, arrays and tables on several ranks of Lightning: real processes that talk over gloo."""

import collections
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import ddp_targets_script
import numpy as np
import pandas
import pytest
from ddp_targets_script import ITEMS, SAMPLES, places
from lightning_models import lightning_warnings

from lighter_async import open_results, pending, read_manifest
from lighter_async.manifest.verify import verify

SCRIPT = Path(__file__).with_name("ddp_targets_script.py")

pytestmark = [lightning_warnings, pytest.mark.long]


def run(folder, ranks, *scenarios):
    """Run a job that has to succeed; returns its folder."""
    command = [sys.executable, SCRIPT, folder, str(ranks), *scenarios]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run whose sampler repeats a sample, one in which both ranks compute all, and one that is cut, on two ranks."""
    return run(tmp_path_factory.mktemp("two"), 2, "padded", "everywhere", "cut")


def counts(folder, what, ranks=2):
    """How many samples each writer of all ranks has written, or skipped."""
    told = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(ranks)]
    return [sum(one[what] for one in writer) for writer in zip(*told, strict=True)]


def members(folder):
    """How often each member is in the shards, all of which are sealed."""
    assert list(folder.glob("*.part")) == []
    found = collections.Counter()
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            found.update(tar.getnames())
    return found


def rows(indices):
    return np.array([[index, index**2] for index in indices], np.float32)


def check_whole(folder):
    """Every sample is there, with its name and index, sealed; `verify` finds nothing wrong."""
    names = [f"case.{index}" for index in range(SAMPLES)]
    texts = [f"text of {index}" for index in range(SAMPLES)]
    for place in ("shards", "outputs"):
        results = open_results(folder / place, key="text")
        assert list(results) == names
        assert [results.at(index) for index in range(SAMPLES)] == texts
    assert np.array_equal(open_results(folder / "outputs", key="row").to_array(), rows(range(SAMPLES)))
    assert np.array_equal(np.load(folder / "a.npy"), rows(range(SAMPLES)))
    assert not (folder / "a.npy.part").exists()
    results = open_results(folder / "a.npy")
    assert list(results) == names
    assert all(np.array_equal(results[name], rows([index])[0]) for index, name in enumerate(names))
    check_tables(folder)
    for place in (folder / "shards", folder / "outputs", folder):
        assert verify(place).is_sound
    assert list(pending(ITEMS, *places(folder))) == []


def check_tables(folder):
    """Every sample is a row, once, in the order of the data set, as files and as results."""
    texts = [f"text of {index}" for index in range(SAMPLES)]
    table = pandas.read_parquet(folder / "t.parquet")
    assert table.columns.tolist() == ["index", "name", "row", "text"]
    assert table["index"].tolist() == list(range(SAMPLES))
    assert table["name"].tolist() == [f"case.{index}" for index in range(SAMPLES)]
    assert table["text"].tolist() == texts
    assert np.array_equal(np.stack(table["row"]), rows(range(SAMPLES)))
    lines = [f"{index},{text}" for index, text in enumerate(texts)]
    assert (folder / "numbered.csv").read_text().splitlines() == ["index,text", *lines]
    named, numbered = open_results(folder / "t.parquet"), open_results(folder / "numbered.csv")
    assert len(named) == len(numbered) == SAMPLES
    assert [numbered.at(index) for index in range(SAMPLES)] == [{"text": text} for text in texts]
    assert all(np.array_equal(named[f"case.{index}"]["row"], rows([index])[0]) for index in range(SAMPLES))


def test_what_a_sampler_pads_with_is_stored_once(two):
    """Both ranks compute eleven samples, of 21 in all; the array has its name once both are done."""
    folder = two / "padded"
    check_whole(folder)
    assert counts(folder, "written") == [SAMPLES] * 5
    for place, per_sample in (("shards", 1), ("outputs", 2)):
        assert list(members(folder / place).values()) == [1] * SAMPLES * per_sample


def test_what_every_rank_computes_is_read_once(two):
    """Shards of two ranks may both hold a sample, since ranks do not talk; a row is in its place, whoever stores it."""
    folder = two / "everywhere"
    check_whole(folder)
    assert counts(folder, "accepted") == [2 * SAMPLES] * 5
    for place, per_sample in (("shards", 1), ("outputs", 2)):
        copies = members(folder / place)
        assert len(copies) == SAMPLES * per_sample
        assert set(copies.values()) <= {1, 2}


def test_a_run_that_was_cut_goes_on_with_one_rank(two, tmp_path):
    """Each sample is in one shard, once."""
    folder = tmp_path / "cut"
    shutil.copytree(two / "cut", folder)
    assert [len(read_manifest(folder / place).records) for place in ("shards", "outputs", ".")] == [8, 16, 24]
    assert open_results(folder / "a.npy").mask.sum() == 8
    assert len(pandas.read_parquet(folder / "t.parquet")) == 8
    ddp_targets_script.resumed(folder, 1)
    assert counts(folder, "written", ranks=1) == [SAMPLES - 8] * 5
    check_whole(folder)
    assert set(members(folder / "shards").values()) == set(members(folder / "outputs").values()) == {1}


@pytest.mark.long
@pytest.mark.parametrize("ranks", [2, 4])
def test_a_run_that_was_cut_goes_on_with_several_ranks(two, tmp_path, ranks):
    """As many as before, or more."""
    shutil.copytree(two / "cut", tmp_path / "resumed")
    folder = run(tmp_path, ranks, "resumed") / "resumed"
    assert counts(folder, "written", ranks) == [SAMPLES - 8] * 5
    check_whole(folder)
    assert set(members(folder / "shards").values()) == set(members(folder / "outputs").values()) == {1}
