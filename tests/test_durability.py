"""``durability="fsync"``: what is synced, in which order, and what becomes of a sample whose file cannot be."""

import errno
import os
import threading

import numpy as np
import pytest
from faulty import FaultyTarget, told
from harness import leftovers

from lighter_async import BackgroundWriter, Encoder, LocalTarget, WriteError, read_manifest
from lighter_async.errors import NameTakenError
from lighter_async.manifest import ManifestLog, Stored
from lighter_async.types import Origin, Run
from lighter_async.workers import patience as patience_module

both_backends = pytest.mark.parametrize("backend", ["thread", "process"])


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    for wait in ("_FIRST_WAIT", "_LONGEST_WAIT", "_JITTER", "_FIRST_LOOK", "_RAREST_LOOK"):
        monkeypatch.setattr(patience_module, wait, 0.001)


class Calls:
    """Notes what the system is asked to do with the files below a directory, and fails what it is told to fail.

    A temporary file is called ``part``, with the content that it has when it is synced.
    """

    def __init__(self, monkeypatch, root):
        self._root = os.path.realpath(root)
        self._lock = threading.Lock()
        self.made = []
        self.failing = {}  # calls, with the errors that they end in, from the last on
        for name in ("fsync", "fdatasync", "replace", "link", "write"):
            monkeypatch.setattr(os, name, self._noting(name, getattr(os, name)))

    def _noting(self, name, function):
        def call(*arguments, **options):
            self._note(name, arguments)
            return function(*arguments, **options)

        return call

    def _note(self, name, arguments):
        if isinstance(arguments[0], int):
            path = os.readlink(f"/proc/self/fd/{arguments[0]}")
        else:
            path = os.path.realpath(arguments[-1])
        if not path.startswith(self._root):
            return
        what = os.path.relpath(path, self._root)
        if what.endswith(".part"):
            with open(path) as file:
                what = f"part of {file.read()}"
        elif "manifest" in what:
            what = "manifest"
        with self._lock:
            self.made.append((name, what))
            errors = self.failing.get((name, what))
        if errors:
            raise errors.pop()


@pytest.fixture
def calls(monkeypatch, tmp_path):
    return Calls(monkeypatch, tmp_path / "out")


def stored(folder):
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".lighter-async" not in path.parts
    )


def recorded(folder):
    return sorted(record.name for record in read_manifest(folder).records)


def writer_for(folder, **options):
    return BackgroundWriter(
        Encoder(lambda value: value.encode(), suffix=""),
        folder,
        durability="fsync",
        **{"backend": "thread", "max_workers": 1, **options},
    )


def test_files_then_names_then_folders_then_the_manifest(tmp_path, calls):
    """Each step is on the disk before the next one, and the sample counts as written after the last."""
    writer = writer_for(tmp_path / "out")
    writer.start()
    calls.made.clear()
    writer.submit_batch(["a", "b"], ["A", "B"])
    writer.flush()
    assert calls.made == [
        ("fsync", "part of A"),
        ("replace", "a"),
        ("fsync", "part of B"),
        ("replace", "b"),
        ("fsync", "."),
        ("write", "manifest"),
        ("fdatasync", "manifest"),
    ]
    writer.close()
    assert writer.stats().written == 2


def test_folders_that_were_made_are_synced_up_to_the_directory(tmp_path, calls):
    """Once: a name in a folder is lost with the folder's own."""
    with writer_for(tmp_path / "out") as writer:
        calls.made.clear()
        writer.submit_batch(["x/y/a"], ["A"])
        writer.flush()
        first = list(calls.made)
        calls.made.clear()
        writer.submit_batch(["x/y/b"], ["B"])
        writer.flush()
        second = list(calls.made)
    assert [what for name, what in first if name == "fsync"] == ["part of A", "x/y", "x", "."]
    assert [what for name, what in second if name == "fsync"] == ["part of B", "x/y"]


def test_the_directory_itself_is_synced_when_it_is_opened(tmp_path, monkeypatch):
    """And the folders above it, one of which may have been made for it."""
    calls = Calls(monkeypatch, tmp_path)
    with writer_for(tmp_path / "new" / "out"):
        made = [what for name, what in calls.made if name == "fsync"]
    assert {"new/out", "new", ".", "new/out/.lighter-async"} <= set(made)


def test_without_it_nothing_is_synced(tmp_path, calls):
    """A loop need not wait for the disk."""
    with BackgroundWriter("text", tmp_path / "out", backend="thread") as writer:
        writer.submit("x/a", "A")
    assert not [call for call in calls.made if "sync" in call[0]]


def test_functions_that_write_files_are_refused(tmp_path):
    """What they write, and where, is not known, so it cannot be synced."""
    with pytest.raises(ValueError, match=r"durability='fsync' cannot be kept .* register an encoder"):
        BackgroundWriter(lambda path, value: None, tmp_path, durability="fsync")


def test_more_files_than_are_held_open(tmp_path, calls):
    """Of 200 samples in one unit at most 64 are open at once, and none is recorded before it is named."""
    most = 0
    real = calls._note

    def note(name, arguments):
        nonlocal most
        real(name, arguments)
        targets = (os.readlink(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd") if _is_open(one))
        most = max(most, sum(target.endswith(".part") for target in targets))

    calls._note = note
    names = [f"{number}" for number in range(200)]
    with writer_for(tmp_path / "out") as writer:
        writer.submit_batch(names, names)
    assert 32 <= most <= 64
    assert stored(tmp_path / "out") == recorded(tmp_path / "out") == sorted(names)
    lines = len(calls.made) - 1 - calls.made[::-1].index(("write", "manifest"))
    assert [name for name, _ in calls.made[:lines]].count("replace") == 200
    assert len([call for call in calls.made if call == ("write", "manifest")]) == 2  # the header and the samples


def _is_open(descriptor):
    return os.path.islink(f"/proc/self/fd/{descriptor}")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_file_that_cannot_be_synced_fails_alone(tmp_path, calls, number):
    """It gets no name and is removed; the others of its group are stored."""
    calls.failing["fsync", "part of B"] = [OSError(number, os.strerror(number))]
    writer = writer_for(tmp_path / "out")
    writer.submit_batch(["a", "b", "c"], ["A", "B", "C"])
    with pytest.raises(WriteError) as raised:
        writer.close()
    assert [(one.name, one.attempts) for one in raised.value.failures] == [("b", 1)]
    assert stored(tmp_path / "out") == recorded(tmp_path / "out") == ["a", "c"]
    assert ("replace", "b") not in calls.made
    assert leftovers(tmp_path) == []


def test_a_file_whose_sync_failed_is_written_anew(tmp_path, calls):
    """Where the error may pass: what the system had of it may be gone."""
    calls.failing["fsync", "part of B"] = [OSError(errno.EIO, "as if from a device"), OSError(errno.EIO, "again")]
    with writer_for(tmp_path / "out") as writer:
        writer.submit_batch(["a", "b", "c"], ["A", "B", "C"])
    assert stored(tmp_path / "out") == recorded(tmp_path / "out") == ["a", "b", "c"]
    assert calls.made.count(("fsync", "part of B")) == 3
    assert calls.made.count(("fsync", "part of A")) == 1
    assert writer.stats().written == 3


def test_attempts_of_a_group_are_counted(tmp_path, calls):
    """The first one counts, too."""
    calls.failing["fsync", "part of B"] = [OSError(errno.EIO, "as if from a device") for _ in range(9)]
    writer = writer_for(tmp_path / "out", attempts=3)
    writer.submit_batch(["a", "b", "c"], ["A", "B", "C"])
    with pytest.raises(WriteError) as raised:
        writer.close()
    assert [(one.name, one.attempts) for one in raised.value.failures] == [("b", 3)]
    assert calls.made.count(("fsync", "part of B")) == 3


def test_a_folder_that_cannot_be_synced_fails_its_own_samples(tmp_path, calls):
    """Those of other folders are stored."""
    calls.failing["fsync", "x"] = [OSError(errno.EROFS, "as if from a device")]
    writer = writer_for(tmp_path / "out")
    writer.submit_batch(["x/a", "y/b"], ["A", "B"])
    with pytest.raises(WriteError) as raised:
        writer.close()
    assert [one.name for one in raised.value.failures] == ["x/a"]
    assert recorded(tmp_path / "out") == ["y/b"]


def test_a_folder_whose_sync_failed_is_synced_again(tmp_path, calls):
    """With its samples, whose files are replaced, whatever becomes of files of earlier runs."""
    calls.failing["fsync", "x"] = [OSError(errno.EIO, "as if from a device")]
    with writer_for(tmp_path / "out", if_exists="error") as writer:
        writer.submit_batch(["x/a", "x/b", "y/c"], ["A", "B", "C"])
    assert recorded(tmp_path / "out") == ["x/a", "x/b", "y/c"]


def test_a_manifest_that_cannot_be_synced_is_written_again(tmp_path, calls):
    """Before its samples count as stored."""
    with writer_for(tmp_path / "out") as writer:
        calls.made.clear()
        calls.failing["fdatasync", "manifest"] = [OSError(errno.EIO, "as if from a device")]
        writer.submit("a", "A")
    assert calls.made.count(("fdatasync", "manifest")) == 2
    assert set(recorded(tmp_path / "out")) == {"a"}
    assert writer.stats().written == 1


def test_a_temporary_file_that_cannot_be_removed_costs_nothing_else(tmp_path, calls, monkeypatch):
    """The sample's own error is told, the others are stored, and no descriptor is left."""
    calls.failing["fsync", "part of B"] = [OSError(errno.EROFS, "as if from a device")]
    real = os.unlink

    def unlink(path, **options):
        if str(path).endswith(".part"):
            raise OSError(errno.EROFS, "as if from a device")
        real(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        writer = writer_for(tmp_path / "out")
        writer.submit_batch(["a", "b", "c"], ["A", "B", "C"])
        with pytest.raises(WriteError) as raised:
            writer.close()
    assert [one.name for one in raised.value.failures] == ["b"]
    assert recorded(tmp_path / "out") == ["a", "c"]
    for left in leftovers(tmp_path):
        os.unlink(left)


@both_backends
def test_what_exists_is_skipped(tmp_path, backend):
    """Files of earlier runs stay as they are."""
    (tmp_path / "b").write_text("old")
    with writer_for(tmp_path, if_exists="skip", backend=backend) as writer:
        writer.submit_batch(["a", "b", "c"], ["A", "B", "C"])
    assert [(tmp_path / name).read_text() for name in "abc"] == ["A", "old", "C"]
    assert recorded(tmp_path) == ["a", "c"]
    assert (writer.stats().written, writer.stats().skipped) == (2, 1)
    assert leftovers(tmp_path) == []


@both_backends
def test_what_exists_is_an_error(tmp_path, backend):
    """Told once, and the others are stored."""
    (tmp_path / "b").write_text("old")
    writer = writer_for(tmp_path, if_exists="error", backend=backend)
    writer.submit_batch(["a", "b", "c"], ["A", "B", "C"])
    with pytest.raises(WriteError, match="exists already") as raised:
        writer.close()
    assert [(one.name, one.attempts) for one in raised.value.failures] == [("b", 1)]
    assert isinstance(raised.value.cause, FileExistsError)
    assert [(tmp_path / name).read_text() for name in "abc"] == ["A", "old", "C"]
    assert leftovers(tmp_path) == []


@both_backends
def test_many_samples_of_both_backends(tmp_path, backend):
    """In several folders and units, with samples that fail among them."""
    counts = tmp_path / "counts"
    counts.mkdir()
    faults = {"0/7.bin": ("EIO", 1), "1/8.bin": ("EACCES", 1), "2/9.bin": ("EIO", 99)}
    target = FaultyTarget(tmp_path / "out", counts, faults, durability="fsync")
    names = [f"{number % 3}/{number}" for number in range(300)]
    names[7], names[8], names[9] = "0/7", "1/8", "2/9"
    names = list(dict.fromkeys(names))
    values = np.arange(len(names) * 4).reshape(len(names), 4)
    writer = BackgroundWriter(Encoder(bytes, suffix=".bin"), target=target, backend=backend, max_workers=2)
    writer.submit_batch(names, values)
    with pytest.raises(WriteError) as raised:
        writer.close()
    assert {one.name: one.attempts for one in raised.value.failures} == {"1/8": 1, "2/9": 4}
    expected = sorted(set(names) - {"1/8", "2/9"})
    assert recorded(tmp_path / "out") == expected
    assert stored(tmp_path / "out") == sorted(f"{name}.bin" for name in expected)
    assert told(counts, "0/7.bin") == 2
    assert leftovers(tmp_path) == []


def test_a_close_that_fails_leaves_no_temporary_file(tmp_path, monkeypatch):
    """A network's file system may say at a file's close that its disk is full."""
    target = LocalTarget(tmp_path)
    target.open()
    real = os.close

    def close(descriptor):
        is_part = os.readlink(f"/proc/self/fd/{descriptor}").endswith(".part")
        real(descriptor)
        if is_part:
            raise OSError(errno.ENOSPC, "as if from a server")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close)
        with pytest.raises(OSError, match="as if from a server"):
            target.put("a", [memoryview(b"A")])
    target.close()
    assert list(tmp_path.iterdir()) == []


def test_a_retry_does_not_replace_another_ranks_sample(tmp_path, calls):
    """Of a name that two ranks store, the second one is refused, also where its first attempt has failed."""
    out = tmp_path / "out"
    first, second = (Run(id="run", rank=rank, world_size=2) for rank in range(2))
    writer = writer_for(out, run=second)
    writer.start()
    calls.failing["fsync", "part of SECOND"] = [OSError(errno.EIO, "as if from a device")]
    # What the other rank, in another process, does.
    other, log = LocalTarget(out, run=first), ManifestLog(out, first, writer="other")
    other.open()
    log.begin(0)
    other.put("a", [memoryview(b"FIRST")])
    log.append([Stored(0, "a", 5, 16 * "0")], ["a"], [None], Origin([3]))
    log.close()
    other.close()
    writer.submit("a", "SECOND", origin=Origin([4]))
    with pytest.raises(WriteError, match=r"index 3 of loader 0, which rank 0 has stored, and index 4") as raised:
        writer.close()
    assert isinstance(raised.value.cause, NameTakenError)
    assert (out / "a").read_text() == "FIRST"
