"""What reads stored samples back: a target says it, and everything that reads uses nothing else."""

import os
import shutil
import warnings
from pathlib import Path

import pytest
import replayable
import torch
from rows_target import RowsTarget
from test_identity import Items, Model

from lighter_async import (
    BackgroundWriter,
    FileWriter,
    LocalTarget,
    Origin,
    ReadError,
    Run,
    WriteError,
    open_results,
    pending,
    read_manifest,
)
from lighter_async.cli.replay import run_replay
from lighter_async.manifest import ManifestLog, OutputName
from lighter_async.manifest.verify import drop, verify
from lighter_async.store import DirectoryStore, source_of
from lighter_async.workers import kept_in

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_lightning import Trainer

both_backends = pytest.mark.parametrize("backend", ["thread", "process"])


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """A target that keeps rows, in a process in which nothing may look for a sample's file."""
    target = RowsTarget(tmp_path / "out", run=Run(numbered=True))

    def no_files(self, *_, **__):
        raise AssertionError("a file was looked for, and the target keeps rows")

    for method in ("read", "stat", "compare", "objects", "has", "identity", "checksum", "remove"):
        monkeypatch.setattr(DirectoryStore, method, no_files)
    return target


def store(target, numbers, *, text="text", key="", **options):
    with BackgroundWriter("text", target.of_run(Run(key=key, numbered=True)), **options) as writer:
        numbers = list(numbers)
        writer.submit_batch([str(n) for n in numbers], [f"{text} {n}" for n in numbers], origin=Origin(numbers))


def forget_the_samples(target):
    """As if a crash had come before they were recorded."""
    manifest = target.directory / ".lighter-async" / "manifest-0.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(line for line in lines if not line.startswith(b'{"samples"')))


# A target of rows


@both_backends
def test_what_a_target_has_stored_is_read_with_its_own_store(rows, backend):
    """Verified, resumed and read back, though there is no file of it."""
    store(rows, range(8), backend=backend)
    assert [path.name for path in rows.directory.iterdir()] == [".lighter-async"]
    assert sorted(rows.store().texts()) == sorted(f"{number}.txt" for number in range(8))
    report = verify(rows)
    assert (report.checked, report.findings) == (8, [])
    assert list(pending(range(10), rows)) == [8, 9]
    results = open_results(rows)
    assert (results["3"], results.at(5), len(results)) == ("text 3", "text 5", 8)
    assert "rows:" in repr(results)


def test_a_damaged_row_is_found_dropped_and_computed_again(rows):
    """Repairing removes the row, and remembers which one it was."""
    store(rows, range(4))
    rows.store().write({"2.txt": b"wrong!"})
    assert [(one.file, one.trouble) for one in verify(rows).findings] == [("2.txt", "wrong checksum")]
    with pytest.raises(ReadError, match="checksum"):
        open_results(rows)["2"]
    assert drop(verify(rows)) == []
    assert "2.txt" not in rows.store().texts()
    assert list(pending(range(4), rows)) == [2]
    store(rows, [2], text="mended", resume=True)
    assert verify(rows).findings == []
    assert open_results(rows)["2"] == "mended 2"


def test_a_row_that_a_crash_left_unrecorded_is_taken_over(rows):
    """It counts as done, is read back, and is recorded by the run that resumes."""
    store(rows, range(3), key="value")
    forget_the_samples(rows)
    assert [one.trouble for one in verify(rows).findings] == ["not recorded"] * 3
    assert list(pending(range(4), rows)) == [3]
    assert open_results(rows).at(1) == "text 1"
    items, writer = Items(f"text {number}" for number in range(4)), FileWriter(rows, "value", "text", resume=True)
    trainer = Trainer(
        accelerator="cpu", callbacks=[writer], logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    loader = torch.utils.data.DataLoader(items, batch_size=1, sampler=pending(items, rows))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(does not have many workers|num_workers|LeafSpec).*")
        trainer.predict(model := Model(), loader, return_predictions=False)
    assert model.seen == ["text 3"]
    assert sorted(one.name for one in read_manifest(rows.directory).records) == ["0", "1", "2", "3"]
    assert verify(rows).findings == []


def test_kept_values_are_written_into_the_target_that_failed(rows, monkeypatch):
    """Unless something later is stored there under their names."""
    monkeypatch.chdir(Path(__file__).parent)
    with monkeypatch.context() as broken:
        broken.setenv(replayable.BROKEN, "1")
        target = rows.of_run(Run())
        writer = BackgroundWriter(replayable.picky, target, backend="thread", on_error="continue")
        with pytest.raises(WriteError, match="2 values are kept"), writer:
            writer.submit_batch(["a", "b", "c"], ["bad 1", "bad 2", "fine"])
    with BackgroundWriter(replayable.picky, rows.of_run(Run()), backend="thread", resume=True) as writer:
        writer.submit("b", "later")
    assert run_replay(rows, writer="replayable:picky", list_only=False) == 0
    assert list(kept_in(rows.directory)) == []
    assert rows.store().texts() == {"a.picky": "'bad 1'", "b.picky": "'later'", "c.picky": "'fine'"}
    assert verify(rows).findings == []


def test_a_manifest_that_was_removed_says_of_rows_what_it_said(rows):
    """Whether a sample is there still, the target's store tells."""
    with BackgroundWriter("text", rows.of_run(Run()), backend="thread") as writer:
        writer.submit_batch(["a", "b"], ["1", "2"])
        writer.flush()
        rows.store().remove("b.txt")
        shutil.rmtree(rows.directory / ".lighter-async")
        writer.submit("c", "3")
    assert sorted(one.name for one in read_manifest(rows.directory).records) == ["a", "c"]


def test_a_row_of_an_earlier_run_is_told_by_its_checksum(rows):
    """Where two ranks may have taken one name."""
    store(rows, range(1))
    log = ManifestLog(rows.directory, Run(id="later"), [OutputName("text", "", ".txt")], store=rows.store())
    assert log.other_ranks.is_earlier("0.txt")
    rows.store().write({"0.txt": b"another"})
    assert not log.other_ranks.is_earlier("0.txt")


# What the writer was given


def test_a_path_and_its_target_are_read_alike(tmp_path):
    """By everything that reads."""
    target = LocalTarget(tmp_path / "out")
    store(target, range(3))
    for where in (tmp_path / "out", str(tmp_path / "out"), target):
        assert verify(where).checked == 3
        assert list(pending(range(4), where)) == [3]
        assert open_results(where).at(2) == "text 2"
        assert run_replay(where, writer=None, list_only=True) == 0
        assert source_of(where).store.location == str(tmp_path / "out")


READERS = {
    "verify": verify,
    "pending": lambda where: pending(range(3), where),
    "open_results": open_results,
    "replay": lambda where: run_replay(where, writer=None, list_only=True),
}
readers = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


class Elsewhere:
    """A target that keeps no records."""

    location = "elsewhere"

    def open(self):
        pass

    def check(self, names):
        pass

    def keeps(self, name):
        return False

    def put(self, name, parts):
        return True

    def close(self):
        pass


@readers
@pytest.mark.parametrize("where", [Elsewhere(), 5, LocalTarget, None], ids=["target", "number", "class", "nothing"])
def test_what_keeps_no_records_cannot_be_read_and_the_error_tells_what_can(read, where):
    """A target that stores elsewhere, or what is none at all."""
    with pytest.raises(TypeError, match=r"a path or a LocalTarget, not .*read what another one has stored"):
        read(where)


@readers
def test_a_url_is_refused_as_the_writer_refuses_it(read):
    """In the same words."""
    with pytest.raises(ValueError, match=r"'s3://bucket/preds' is a URL") as written:
        BackgroundWriter("text", "s3://bucket/preds")
    with pytest.raises(ValueError, match="is a URL") as found:
        read("s3://bucket/preds")
    assert str(found.value) == str(written.value)


# A directory


@pytest.mark.parametrize("kind", ["missing", "short", "link", "linked folder", "folder", "pipe", "file as folder"])
def test_verifying_and_reading_back_tell_of_a_file_in_the_same_words(tmp_path, kind):
    """What is wrong with it, and how."""
    out, file = tmp_path / "out", tmp_path / "out" / "d" / "a.txt"
    with BackgroundWriter("text", out, backend="thread") as writer:
        writer.submit("d/a", "text")
    if kind == "short":
        file.write_text("tex")
    elif kind == "linked folder":
        file.parent.rename(tmp_path / "moved")
        file.parent.symlink_to(tmp_path / "moved")
    elif kind == "file as folder":
        shutil.rmtree(file.parent)
        file.parent.write_text("in the way")
    else:
        file.unlink()
        if kind == "link":
            file.symlink_to("b.txt")
        elif kind == "folder":
            file.mkdir()
        elif kind == "pipe":
            os.mkfifo(file)
    (found,) = verify(out).damaged
    with pytest.raises(ReadError) as caught:
        open_results(out)["d/a"]
    assert (caught.value.trouble, caught.value.detail) == (found.trouble, found.detail)


def test_only_folders_that_numbered_files_can_lie_in_are_looked_into(tmp_path, monkeypatch):
    """When files are looked for that nobody recorded: the directory itself, and those named after a loader."""
    store(LocalTarget(tmp_path), range(3))
    forget_the_samples(LocalTarget(tmp_path))
    for folder in ("huge/deep", "1/huge", "01", "2.5"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "1" / "0.txt").write_text("of the second loader, as earlier versions named it")
    listed, scandir = [], os.scandir

    def noted(path):
        listed.append(os.path.relpath(path, tmp_path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", noted)
    assert list(pending(range(4), tmp_path)) == [3]
    assert sorted(listed) == [".", "1"]
    assert list(pending(range(2), tmp_path, loader=1)) == [1]


def test_nothing_is_recorded_so_far_where_the_manifest_is_gone(tmp_path):
    """A unit that is delivered again is then stored again."""
    log = ManifestLog(tmp_path, Run(), [OutputName("text", "", ".txt")])
    log.begin(0)
    try:
        assert log.recorded(["a"]) == {}
        os.unlink(log.path)
        assert log.recorded(["a"]) == {}
        shutil.rmtree(tmp_path / ".lighter-async")
        assert log.recorded(["a"]) == {}
    finally:
        log.close()


def test_a_target_below_a_directory_without_a_store_is_refused_at_once(tmp_path):
    """With the method that it lacks; not when the first sample is recorded."""

    class Unreadable(LocalTarget):
        store = None

    with pytest.raises(TypeError, match=r"Unreadable says with features.has_directory .* needs a method store\(\)"):
        BackgroundWriter("text", target=Unreadable(tmp_path))
