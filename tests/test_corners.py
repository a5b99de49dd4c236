"""Corners of what a run may store and the next one find: names, numbers and records that few people have."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import uuid

import numpy as np
import pytest
import torch

from lighter_async import (
    ArrayTarget,
    BackgroundWriter,
    DuplicateNameError,
    LocalTarget,
    Origin,
    ResumeError,
    Run,
    TableTarget,
    WriteError,
    pending,
    read_manifest,
)
from lighter_async.callback.stored_series import StoredSeries
from lighter_async.cli import main
from lighter_async.data_set_fingerprint import fingerprint_of
from lighter_async.manifest.verify import drop, verify
from lighter_async.names import Numbers
from lighter_async.runs import begin_run
from lighter_async.targets import local
from lighter_async.workers import kept_in


def store(folder, samples, *, writer="text", **options):
    """Store values by name, each with its index, or None."""
    with BackgroundWriter(writer, folder, backend="thread", max_workers=1, **options) as background:
        for name, (index, value) in samples.items():
            background.submit(name, value, origin=None if index is None else Origin([index]))


def known_of(folder, *, key="", named=True, suffix=".txt"):
    return StoredSeries(folder, writer="text", key=key, named=named, suffix=suffix)


def test_a_name_with_its_suffix_and_one_without_are_one_sample(tmp_path):
    """Another item of that name is refused, whichever of both is stored."""
    store(tmp_path, {"a": (0, "first")})
    known = known_of(tmp_path)
    assert known.missing(["a"], Origin([0]), 1) == []
    with pytest.raises(DuplicateNameError, match=r"a\.txt"):
        known.missing(["a.txt"], Origin([1]), 1)
    assert list(pending(range(2), tmp_path, names=["b", "a.txt"])) == [0]


def test_two_items_of_one_name_are_not_taken_for_one_that_is_stored(tmp_path):
    """Before anything is computed, with both of them."""
    store(tmp_path, {"a": (0, "x"), "b": (1, "x")})
    with pytest.raises(DuplicateNameError, match="items 0 and 3 of the data set are both named 'a'"):
        pending(range(4), tmp_path, names=["a", "b", "c", "a"])
    assert list(pending(range(4), tmp_path, names=["c", "b", "a", "c"])) == [0, 3]


def test_names_may_be_numbers_and_paths_as_the_callback_takes_them(tmp_path):
    """And what else they are is refused."""
    store(tmp_path, {"17": (0, "x"), "x/a.png": (1, "x")})
    names = [17, pathlib.Path("x/a.png"), torch.tensor(3)]
    assert list(pending(range(3), tmp_path, names=names)) == [2]
    assert list(pending(range(3), tmp_path, names=lambda index: names[index])) == [2]
    with pytest.raises(TypeError, match=r"one of the names is object.*a name is a text"):
        pending(range(1), tmp_path, names=[object()])


def test_what_another_output_has_stored_is_not_replaced(tmp_path):
    """An output that is added to a directory whose names are taken is refused, and told whose they are."""
    store(tmp_path, {"a": (0, "image")}, run=Run(key="image"))
    with pytest.raises(DuplicateNameError, match=r"'a\.txt' is a sample of writer 'text' and output 'image'"):
        known_of(tmp_path, key="mask").missing(["a"], Origin([0]), 1)
    assert known_of(tmp_path, key="mask").missing(["b"], Origin([1]), 1) == [0]
    assert known_of(tmp_path, key="mask", suffix=".md").missing(["a"], Origin([0]), 1) == [0]


def test_two_suffixes_of_one_series_are_refused(tmp_path):
    """A sample that one of both has would count for the other; a key tells them apart."""
    with BackgroundWriter("text", tmp_path, backend="thread", writer_options={"suffix": ".one.txt"}) as one:
        one.submit("a", "x", origin=Origin([0]))
        other = BackgroundWriter("text", tmp_path, backend="thread", writer_options={"suffix": ".two.txt"})
        with pytest.raises(ResumeError, match=r"as '\.one\.txt' and as '\.two\.txt'.*key of its own"):
            other.start()
        other.close()
        options = {"suffix": ".two.txt"}
        with BackgroundWriter("text", tmp_path, backend="thread", writer_options=options, run=Run(key="two")) as two:
            two.submit("a", "x", origin=Origin([0]))
    store(tmp_path, {"b": (1, "x")}, writer_options={"suffix": ".two.txt"}, resume=True)
    assert read_manifest(tmp_path).done(key="") == {0, 1}


@pytest.mark.parametrize("index", [-(1 << 63), -1, 10**18, 10**18 + 1, (1 << 63) - 1])
def test_indices_may_be_as_large_as_they_like(tmp_path, index):
    """They are recorded, dropped and found again, by names and as numbers."""
    name = str(index) if index >= 0 else "negative"
    store(tmp_path, {name: (index, "x"), "other": (5, "x")})
    assert read_manifest(tmp_path).done() == {index, 5}
    (tmp_path / f"{name}.txt").write_text("damaged")
    report = verify(tmp_path)
    assert [one.file for one in report.damaged] == [f"{name}.txt"]
    assert drop(report) == []
    assert read_manifest(tmp_path).done() == {5}
    numbers = Numbers(range(max(index, 0), max(index, 0) + 1))
    with BackgroundWriter("text", tmp_path / "numbers", backend="thread") as background:
        background.submit_batch(numbers, ["x"], origin=Origin([index]))
    (record,) = read_manifest(tmp_path / "numbers").records
    assert (record.index, record.name) == (index, str(max(index, 0)))


@pytest.mark.parametrize("kind", ["files", "an array", "a table"])
def test_indices_that_are_no_origin_are_refused_with_the_way_out(tmp_path, kind):
    """With names and without, and nothing of the batch is handed over."""
    target = {"an array": ArrayTarget(tmp_path / "a.npy"), "a table": TableTarget(tmp_path / "a.csv")}.get(kind)
    value, names = ({"x": 1}, None) if kind == "a table" else (np.ones(2), None if target else ["a"])
    with BackgroundWriter("npy" if target is None else None, target=target or LocalTarget(tmp_path)) as background:
        with pytest.raises(TypeError, match=r"origin is an Origin, not a list; write origin=Origin\(indices\)"):
            background.submit_batch(names, [value], origin=[0])
    assert background.stats().accepted == 0


def test_a_file_named_by_a_larger_number_is_nobody_s(tmp_path):
    """Whoever made it beside numbered samples."""
    store(tmp_path, {"0": (0, "x")}, run=Run(numbered=True))
    for digits in (19, 20, 400):
        (tmp_path / f"{'9' * min(digits, 200)}.txt").write_text("x")
        (tmp_path / ("8" * min(digits, 200))).mkdir(exist_ok=True)
    assert list(pending(range(2), tmp_path)) == [1]


def test_three_series_with_indices_of_any_kind_have_samples_in_common(tmp_path):
    """As sets have them."""
    for key in "abc":
        store(tmp_path, {key: (-1, "x"), f"{key}5": (5, "x")}, run=Run(key=key), resume=True)
    assert read_manifest(tmp_path).done() == {-1, 5}


def test_a_shape_of_many_dimensions_costs_no_record(tmp_path):
    """It is left out."""
    with BackgroundWriter("tensor", tmp_path, backend="thread") as background:
        background.submit("a", torch.zeros([1] * 300))
    (record,) = read_manifest(tmp_path).records
    assert (record.name, record.shape, record.dtype) == ("a", None, None)


def test_a_run_config_is_a_word_and_no_library(tmp_path):
    """Or its line would be none that is read."""
    with pytest.raises(TypeError, match="such as a hash"):
        BackgroundWriter("text", tmp_path, run_config=["x" * 100] * 1000)


def test_a_short_line_cannot_say_that_millions_are_stored(tmp_path):
    """Of functions, whose samples have no checksums, names are listed."""
    (tmp_path / ".lighter-async").mkdir()
    span = {"start": 0, "step": 1}
    line = {
        "samples": 1 << 20, "names": span, "index": span, "rank": 0, "loader": 0, "batch": None,
        "time": 0.0, "run": "r",
        "outputs": [{"writer": "w", "key": str(number)} for number in range(64)],
    }  # fmt: skip
    (tmp_path / ".lighter-async/manifest-0.jsonl").write_text(json.dumps(line) + "\n")
    manifest = read_manifest(tmp_path)
    assert (len(manifest.records), manifest.torn) == (0, 1)


def test_thousands_of_runs_that_are_open_at_once_know_each_other(tmp_path):
    """The list tells them by ranges of their numbers, and earlier ones by their names."""
    (tmp_path / ".lighter-async").mkdir()
    ids = [uuid.uuid4().hex for _ in range(2200)]
    with open(tmp_path / ".lighter-async/runs.jsonl", "w") as file:
        for number, one in enumerate(ids):
            about = {"run": one, "sequence": number + 1, "since": number, "beside": [[1, number]] if number else []}
            file.write(json.dumps(about) + "\n")
    first, second, again = (begin_run(str(tmp_path), word, 7) for word in "ABA")
    assert (first.sequence, second.sequence, again) == (2201, 2202, first)
    assert begin_run(str(tmp_path), ids[2], 0).beside == tuple(sorted(ids[:2]))


def test_a_kept_value_whose_name_another_sample_has_stays(tmp_path, capsys):
    """It is told, and neither removed nor written over the other."""
    for rank, (index, value) in enumerate([(0, "first"), (7, "second")]):
        run = Run(id="job", rank=rank, world_size=2)
        background = BackgroundWriter("text", tmp_path, backend="thread", on_error="continue", run=run)
        background.submit("a", value, origin=Origin([index]))
        with contextlib.nullcontext() if rank == 0 else pytest.raises(WriteError, match="two samples of one run"):
            background.close()
    assert len(list(kept_in(tmp_path))) == 1
    assert main(["replay", str(tmp_path)]) == 1
    assert "another sample is stored under this name" in capsys.readouterr().err
    assert len(list(kept_in(tmp_path))) == 1
    assert (tmp_path / "a.txt").read_text() == "first"


def test_the_writer_that_replay_is_given_is_for_its_own_values(tmp_path, monkeypatch):
    """Those of others are written by the ones that are registered."""
    (tmp_path / "corner_formats.py").write_text(
        "from lighter_async import encoder\n"
        "@encoder(suffix='.up')\n"
        "def shout(value):\n    return value.upper().encode()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "out"
    for writer, file in (("text", "x.txt"), ("corner_formats:shout", "x.up")):
        (out / file).mkdir(parents=True)
        background = BackgroundWriter(writer, out, backend="thread", on_error="continue", resume=True)
        background.submit("x", "hi", origin=Origin([0]))
        with pytest.raises(Exception, match="not written"):
            background.close()
        (out / file).rmdir()
    assert main(["replay", str(out), "--writer", "corner_formats:shout"]) == 0
    assert ((out / "x.txt").read_text(), (out / "x.up").read_text()) == ("hi", "HI")


def test_a_clock_that_was_set_back_makes_an_earlier_run_s_file_nobody_else_s(tmp_path):
    """A rank of several replaces it, since the records tell whose it is."""
    for run in ("one", "two"):
        store(tmp_path, {"a": (0, run)}, run=Run(id=run, rank=0, world_size=2))
        os.utime(tmp_path / "a.txt", (4e9, 4e9))
    assert (tmp_path / "a.txt").read_text() == "two"
    assert [one.run for one in read_manifest(tmp_path).records] == ["two"]


def test_a_retry_takes_no_other_rank_s_sample_for_its_own(tmp_path, monkeypatch):
    """Though that one is not recorded yet."""
    run = Run(id="job", rank=1, world_size=2)
    background = BackgroundWriter("text", tmp_path, backend="thread", run=run)
    background.start()
    (tmp_path / "a.txt").write_text("of rank 0")
    write, failing = local.write_part, [OSError(errno.EIO, "passes")]

    def flaky(*arguments, **options):
        if failing:
            raise failing.pop()
        return write(*arguments, **options)

    monkeypatch.setattr(local, "write_part", flaky)
    monkeypatch.setattr("lighter_async.manifest.other_ranks.monotonic", iter(range(0, 1000, 20)).__next__)
    background.submit("a", "of rank 1", origin=Origin([1]))
    with pytest.raises(Exception, match="another rank of this run has stored"):
        background.close()
    assert (tmp_path / "a.txt").read_text() == "of rank 0"


def test_a_link_that_was_made_though_the_system_says_it_failed_is_stored(tmp_path, monkeypatch):
    """As over a network, where the answer gets lost."""
    target = local.LocalTarget(tmp_path, if_exists="error", run=Run(id="job", rank=0, world_size=2))
    target.open()
    link = os.link

    def lossy(*arguments, **options):
        link(*arguments, **options)
        raise OSError(errno.EIO, "the answer is lost")

    monkeypatch.setattr(os, "link", lossy)
    assert target.put("a", [memoryview(b"x")])
    target.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lighter-async", "a"]


class Folder:
    """A data set that knows its folder, and looks into it for each item."""

    def __init__(self, root, labels=()):
        self.labels = list(labels)
        self.root = str(root)


@pytest.mark.parametrize("labels", [[], [f"class {number}" for number in range(300)]])
def test_a_folder_is_looked_into_at_any_depth_and_behind_any_number_of_texts(tmp_path, labels):
    """Before indices of a data set are trusted that lists it."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a").touch()
    before = fingerprint_of(Folder(tmp_path, labels))
    assert before == fingerprint_of(Folder(tmp_path, labels))
    (tmp_path / "deep" / "er" / "a").rename(tmp_path / "deep" / "er" / "b")
    assert fingerprint_of(Folder(tmp_path, labels)) != before


def test_numbered_samples_that_come_by_cost_a_byte_each(tmp_path):
    """And one that a sampler gives twice is written once."""
    known = StoredSeries(tmp_path, writer="text", key="")
    for start in range(0, 100_000, 1000):
        batch = range(start, start + 1000)
        assert known.missing(Numbers(batch), Origin(batch), 1000) == list(range(1000))
    assert known.missing(Numbers(range(10, 12)), Origin(range(10, 12)), 2) == []
    assert sum(map(len, known._met_indices.values())) < 200_000
    assert known._met == {}


def test_an_index_that_no_record_holds_is_refused_as_it_is_without_resume(tmp_path):
    """With a message that says what indices are."""
    store(tmp_path, {"a": (0, "x")})
    with pytest.raises(TypeError, match="is a whole number"):
        known_of(tmp_path).missing(["b"], Origin([1 << 63]), 1)


def test_an_object_that_holds_several_samples_and_is_gone_is_missed(tmp_path):
    """Of every sample that lies in it."""
    store(tmp_path, {"a": (0, "x")})
    output = {"writer": "text", "key": "", "object": "o.bin", "offset": [8, 12], "bytes": 4, "xxh3": "0" * 32}
    line = {"samples": 2, "names": ["d", "e"], "outputs": [output], "index": [5, 6], "rank": 0, "loader": 0}
    with open(tmp_path / ".lighter-async/manifest-0.jsonl", "a") as file:
        file.write(json.dumps(line | {"batch": None, "time": 0.0, "run": "z"}, separators=(",", ":")) + "\n")
    report = verify(tmp_path)
    assert not report.is_sound
    assert {one.file for one in report.damaged} == {"o.bin"}
    (tmp_path / "o.bin").touch()
    assert not any(one.trouble == "extra" for one in verify(tmp_path).findings)
