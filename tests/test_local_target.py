"""The local directory as a target."""

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from lighter_async import BackgroundWriter, Encoder, InvalidNameError, LocalTarget, PathTarget, Target, WriteError
from lighter_async.targets import leftovers as leftovers_module
from lighter_async.targets import name_rules

real_writev = os.writev


def parts(*contents):
    return [memoryview(content) for content in contents]


def files(folder):
    """Every file below a folder, the library's own included, but for manifests."""
    return sorted(
        file.relative_to(folder).as_posix()
        for file in Path(folder).rglob("*")
        if not file.is_dir() and file.suffix != ".jsonl"
    )


@pytest.fixture
def open_target(tmp_path):
    """Opens targets, and closes them when the test is over."""
    targets = []

    def make(directory=tmp_path / "out", **options):
        target = LocalTarget(directory, **options)
        target.open()
        targets.append(target)
        return target

    yield make
    for target in targets:
        target.close()


def test_it_is_what_the_seams_promise(tmp_path):
    """A target, and one that has paths."""
    target = LocalTarget(tmp_path)
    assert isinstance(target, Target)
    assert isinstance(target, PathTarget)
    assert target.location == os.path.realpath(tmp_path)


def test_it_stores_whole_files_and_leaves_nothing_else(tmp_path):
    """Folders are made, and the lock and its folder go when the target closes."""
    target = LocalTarget(tmp_path / "deep/out")
    target.open()
    assert target.put("a/b/c.txt", parts(b"x", b"y"))
    assert target.put("d", parts(b""))
    assert len(files(tmp_path)) == 3
    target.close()
    target.close()
    assert files(tmp_path) == ["deep/out/a/b/c.txt", "deep/out/d"]
    assert (tmp_path / "deep/out/a/b/c.txt").read_bytes() == b"xy"
    assert not (tmp_path / "deep/out/.lighter-async").exists()


def test_nothing_is_made_before_it_is_opened(tmp_path):
    """Not even the directory; and closing one that was never opened is fine."""
    target = LocalTarget(tmp_path / "out")
    target.close()
    assert list(tmp_path.glob("[!.]*")) == []


# What is there already


@pytest.mark.parametrize("if_exists", ["overwrite", "skip", "error"])
def test_a_file_of_an_earlier_run_is_replaced_kept_or_an_error(open_target, if_exists):
    """Whichever it is, the file is whole and there is nothing beside it."""
    target = open_target()
    target.put("x", parts(b"earlier"))
    target.close()
    target = open_target(if_exists=if_exists)
    assert target.keeps("x") is (if_exists == "skip")
    assert not target.keeps("y")
    assert target.put("y", parts(b"later"))
    if if_exists == "error":
        with pytest.raises(FileExistsError, match=r"out/x' exists already; remove it, or choose if_exists="):
            target.put("x", parts(b"later"))
    else:
        assert target.put("x", parts(b"later")) is (if_exists == "overwrite")
    target.close()
    assert files(target.directory) == ["x", "y"]
    assert (target.directory / "x").read_bytes() == (b"later" if if_exists == "overwrite" else b"earlier")


def test_another_rule_is_refused(tmp_path):
    """With the three there are."""
    with pytest.raises(ValueError, match="if_exists is one of 'overwrite', 'skip', 'error', not 'replace'"):
        LocalTarget(tmp_path, if_exists="replace")


@pytest.mark.parametrize("if_exists", ["skip", "error"])
def test_of_two_targets_that_race_for_a_name_one_stores_it(open_target, if_exists):
    """Also when both saw that there was no such file: the first to finish has it, the other keeps its hands off."""
    one, other = open_target(if_exists=if_exists), open_target(if_exists=if_exists)
    begin = threading.Barrier(2)
    stored, errors = [], []

    def run(target, content):
        for number in range(100):
            begin.wait()
            try:
                if target.put(f"{number}", parts(content)):
                    stored.append((number, content))
            except FileExistsError as error:
                errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in ((one, b"one"), (other, b"other"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in stored) == list(range(100))
    assert len(errors) == (100 if if_exists == "error" else 0)
    for number, content in stored:
        assert (one.directory / f"{number}").read_bytes() == content


@pytest.mark.parametrize("if_exists", ["overwrite", "skip", "error"])
def test_a_folder_under_a_samples_name_is_never_taken_for_the_sample(open_target, if_exists):
    """It is an error whatever the rule, since nothing of the sample is kept there."""
    target = open_target(if_exists=if_exists)
    (target.directory / "x").mkdir()
    assert not target.keeps("x")
    with pytest.raises(OSError, match="x"):
        target.put("x", parts(b"abc"))
    target.close()
    assert files(target.directory) == []


@pytest.mark.parametrize("if_exists", ["overwrite", "skip", "error"])
def test_a_skipped_sample_is_counted_and_not_encoded(tmp_path, if_exists):
    """Through the service: the rule of the directory holds, and skipping saves the encoding."""
    encoded = []

    def encode(value):
        encoded.append(value)
        return value

    write = Encoder(encode, suffix=".x")
    with BackgroundWriter(write, tmp_path) as writer:
        writer.submit("a", b"earlier")
    writer = BackgroundWriter(write, tmp_path, if_exists=if_exists)
    writer.submit("b", b"new")
    writer.flush()
    writer.submit("a", b"later")
    if if_exists == "error":
        with pytest.raises(WriteError, match="writer 'encode' failed on 'a': FileExistsError"):
            writer.close()
    else:
        writer.close()
    stats = writer.stats()
    assert (stats.written, stats.skipped, stats.failed) == {
        "overwrite": (2, 0, 0),
        "skip": (1, 1, 0),
        "error": (1, 0, 1),
    }[if_exists]
    assert encoded.count(b"later") == (if_exists != "skip")
    assert files(tmp_path) == ["a.x", "b.x"]
    assert (tmp_path / "a.x").read_bytes() == (b"later" if if_exists == "overwrite" else b"earlier")


# Errors leave nothing


def test_a_full_disk_leaves_no_file(tmp_path, open_target, monkeypatch):
    """The sample fails, nothing half is left, and the next one is stored."""
    target = open_target()

    def full(descriptor, buffers):
        real_writev(descriptor, [bytes(buffers[0])[:2]])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(OSError, match="No space left"):
        target.put("a/x", parts(b"abcdef"))
    monkeypatch.undo()
    assert target.put("a/y", parts(b"abc"))
    target.close()
    assert files(target.directory) == ["a/y"]


def test_a_failing_encoder_leaves_no_file(tmp_path):
    """Nor a lock, once the writer is closed."""

    def encode(value):
        raise RuntimeError("broken")

    with pytest.raises(WriteError, match="broken"):
        with BackgroundWriter(Encoder(encode, suffix=".x"), tmp_path / "out") as writer:
            writer.submit("a/b", 1)
    assert files(tmp_path) == []


def test_a_folder_that_somebody_removed_is_made_again(open_target):
    """As is the directory itself."""
    target = open_target()
    target.check(["a/b/x"])
    target.put("a/b/x", parts(b"1"))
    (target.directory / "a/b/x").unlink()
    (target.directory / "a/b").rmdir()
    (target.directory / "a").rmdir()
    target.check(["a/b/y"])
    assert target.put("a/b/y", parts(b"2"))
    assert (target.directory / "a/b/y").read_bytes() == b"2"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write to any directory")
def test_a_directory_that_cannot_be_written_to_is_an_error(tmp_path):
    """When the writer starts, not when the first sample fails."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            LocalTarget(tmp_path).open()
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("directory", ["file", "file/below", "file/far/below"])
def test_a_file_where_the_directory_should_be_is_an_error(tmp_path, directory):
    """It names the directory and the way out."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match=f"{directory}' cannot be a directory, because there is a file in its"):
        LocalTarget(tmp_path / directory).open()
    assert files(tmp_path) == ["file"]


def test_a_file_in_the_place_of_the_librarys_own_folder_is_an_error(tmp_path):
    """Not an endless wait for it to go."""
    (tmp_path / ".lighter-async").write_text("x")
    with pytest.raises(FileExistsError, match=r"\.lighter-async"):
        LocalTarget(tmp_path).open()
    assert files(tmp_path) == [".lighter-async"]
    (tmp_path / ".lighter-async").unlink()


# Names that this directory cannot hold


def test_a_file_name_is_measured_in_bytes(open_target):
    """What just fits is stored; one byte more is refused before anything is queued."""
    target = open_target()
    most = os.pathconf(target.directory, "PC_NAME_MAX")
    for fits in ("x" * most, "é" * (most // 2), "folder/" + "x" * most):
        target.check([fits])
        assert target.put(fits, parts(b"abc"))
    for too_long in ("x" * (most + 1), "é" * (most // 2 + 1), "folder/" + "x" * (most + 1)):
        with pytest.raises(InvalidNameError, match=rf"has \d+ bytes, and .* takes {most}; shorten it"):
            target.check([too_long])


@pytest.mark.parametrize("name", ["{}/x", "new/{}/x", "there/{}/x", "there/new/{}/x"])
def test_a_folders_name_is_measured_too(open_target, name):
    """Whether the folders above it exist or not."""
    target = open_target()
    target.put("there/x", parts(b"abc"))
    most = os.pathconf(target.directory, "PC_NAME_MAX")
    target.check([name.format("x" * most)])
    with pytest.raises(InvalidNameError, match=f"has over {most} bytes; shorten it"):
        target.check([name.format("x" * (most + 1))])


def test_a_path_is_measured_with_the_temporary_ending(open_target):
    """What check allows can be stored, down to the last byte."""
    target = open_target()
    most = os.pathconf(target.directory, "PC_PATH_MAX")
    folder = "/".join(["f" * 200] * 25)
    room = most - len(os.fsencode(os.path.abspath(target.directory))) - len("//") - 1
    accepted = refused = 0
    for length in range(room - 80, room + 2):
        for file in ("x" * 100, "y"):
            name = f"{folder[: length - len(file)].rstrip('/')}/{file}"
            try:
                target.check([name])
            except InvalidNameError:
                refused += 1
            else:
                accepted += 1
                assert target.put(name, parts(b"abc"))
    assert accepted > 20
    assert refused > 20
    with pytest.raises(InvalidNameError, match=f"has over {most} bytes; shorten it"):
        target.check([f"{folder}/x"])


def test_a_file_where_a_folder_is_needed_is_refused(open_target):
    """Before anything is queued, and however deep."""
    target = open_target()
    target.put("a/file", parts(b"abc"))
    for name in ("a/file/x", "a/file/b/c/x"):
        with pytest.raises(InvalidNameError, match=r"needs a folder .* but there is a file of that name; rename one"):
            target.check([name])
    for name in ("a/x", "file/x"):
        target.check([name])
        assert target.put(name, parts(b"abc"))


@pytest.mark.parametrize("name", ["link/x", "link/new/x", "a/link/x", "dangling/x"])
@pytest.mark.parametrize("later", [False, True])
def test_nothing_is_stored_through_a_folder_that_is_a_link(open_target, tmp_path, name, later):
    """Whether it is there at hand-over, or appears after it; functions get no path through it either."""
    outside = tmp_path / "outside"
    outside.mkdir()
    target = open_target()
    target.put("a/file", parts(b"abc"))
    if later:
        target.check([name])
    (target.directory / "link").symlink_to(outside)
    (target.directory / "a/link").symlink_to(outside)
    (target.directory / "dangling").symlink_to(outside / "nowhere")
    if not later:
        with pytest.raises(InvalidNameError, match="which is a link"):
            target.check([name])
    with pytest.raises(InvalidNameError, match="has become a link"):
        target.put(name, parts(b"abc"))
    with pytest.raises(InvalidNameError, match="has become a link"):
        target.path(name)
    assert list(outside.iterdir()) == []


def test_a_link_in_the_place_of_the_librarys_own_folder_is_an_error(tmp_path):
    """Locks would be made elsewhere."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.lighter-async").symlink_to(tmp_path / "outside")
    with pytest.raises(NotADirectoryError, match="is a link"):
        LocalTarget(tmp_path / "out").open()
    assert list((tmp_path / "outside").iterdir()) == []


def test_many_folders_are_remembered_within_bounds(open_target, monkeypatch):
    """A folder per sample must not fill the memory."""
    monkeypatch.setattr(name_rules, "_KNOWN_FOLDERS", 10)
    target = open_target()
    for number in range(100):
        target.check([f"{number}/x"])
    assert len(target._rules._folders) <= 10


def test_a_relative_directory_is_that_of_the_moment_it_was_opened(tmp_path, monkeypatch):
    """A job that changes its working directory writes on where it began."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    target = LocalTarget("out")
    target.open()
    monkeypatch.chdir(tmp_path / "elsewhere")
    target.put("a/x", parts(b"abc"))
    assert target.path("b/y") == tmp_path / "out/b/y"
    assert (tmp_path / "out/b").is_dir()
    target.close()
    assert files(tmp_path) == ["out/a/x"]


# Leftovers

DIE_HALFWAY = """
    import os, sys
    from lighter_async import LocalTarget
    target = LocalTarget(sys.argv[1])
    target.open()
    target.put("whole", [memoryview(b"abc")])
    os.makedirs(os.path.join(sys.argv[1], "a"))
    real = os.writev
    def die(descriptor, parts):
        real(descriptor, parts)
        os._exit(9)
    os.writev = die
    target.put("a/half", [memoryview(b"abc")])
"""


def test_what_a_crash_leaves_is_cleared_by_the_next_writer(tmp_path, open_target):
    """And only that: files of a living writer, whole ones, and ones that merely look alike stay."""
    directory = tmp_path / "out"
    living = open_target(directory)
    subprocess_run(DIE_HALFWAY, directory, expect=9)
    left = [file for file in files(directory) if file.endswith(".part")]
    assert len(left) == 1
    assert left[0].startswith("a/.lighter-async-")
    being_written = directory / f".lighter-async-{living._token}-1-1.part"
    look_alike = directory / "a/.lighter-async-000000000000-1-1.part"
    for file in (being_written, look_alike):
        file.write_bytes(b"x")
    open_target(directory).close()
    assert being_written.exists()
    assert look_alike.exists()
    assert not (directory / left[0]).exists()
    assert (directory / "whole").read_bytes() == b"abc"
    assert len(list((directory / ".lighter-async").iterdir())) == 1
    for file in (being_written, look_alike):
        file.unlink()
    living.close()
    assert files(directory) == ["whole"]


def test_clearing_up_is_told_in_the_log(tmp_path, logged, open_target):
    """With the number of files, since somebody may look for the samples that are missing."""
    (tmp_path / ".lighter-async").mkdir()
    (tmp_path / ".lighter-async/0123456789ab.lock").touch()
    (tmp_path / ".lighter-async-0123456789ab-7-0.part").touch()
    open_target(tmp_path).close()
    assert any("removed 1 temporary files that an earlier run left" in message for message in logged.messages)
    assert files(tmp_path) == []


def test_an_opening_that_fails_lets_go_of_its_lock(tmp_path, monkeypatch):
    """So that it can be tried again, and leaves nothing behind."""
    (tmp_path / ".lighter-async").mkdir()
    (tmp_path / ".lighter-async/0123456789ab.lock").touch()
    target = LocalTarget(tmp_path)

    def fail(root, tokens):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(leftovers_module, "_temporary_files", fail)
        with pytest.raises(PermissionError):
            target.open()
    assert files(tmp_path) == [".lighter-async/0123456789ab.lock"]  # of the dead, of whom something may be left
    target.open()
    target.close()
    assert files(tmp_path) == []


@contextmanager
def no_removing(beginning=".lighter-async-"):
    """Temporary files can be neither named nor removed meanwhile, as in a folder that is immutable."""
    with pytest.MonkeyPatch.context() as patch:
        for call in ("unlink", "rename", "replace", "link"):
            real = getattr(os, call)

            def refuse(path, *arguments, real=real, **options):
                name = os.path.basename(path)
                if name.startswith(beginning) and name.endswith(".part"):
                    raise PermissionError(errno.EPERM, "Operation not permitted")
                return real(path, *arguments, **options)

            patch.setattr(os, call, refuse)
        yield


@pytest.mark.parametrize("several", [False, True], ids=["one", "together"])
def test_what_could_not_be_removed_is_removed_once_it_can_be(tmp_path, several):
    """By the next writer, or by the one whose it is when it closes; whoever cannot either goes on without."""
    target = LocalTarget(tmp_path)
    target.open()
    rows = np.zeros((2, 3), np.uint8)
    with no_removing():
        if several:
            outcomes = target.put_small(["a", "b"], rows, lambda number: None)
            assert all(isinstance(one, PermissionError) for one in outcomes)
        else:
            with pytest.raises(PermissionError):
                target.put("a", parts(b"abc"))
        left = [file for file in files(tmp_path) if file.endswith(".part")]
        assert left
        target.close()
        assert len(files(tmp_path)) == len(left) + 1
    later = LocalTarget(tmp_path)
    later.open()
    assert files(tmp_path) == [f".lighter-async/{later._token}.lock"]
    with no_removing(), pytest.raises(PermissionError):
        later.put("a", parts(b"abc"))
    later.close()
    assert files(tmp_path) == []


@pytest.fixture
def immutable(tmp_path):
    """A folder, and the command that makes it immutable, which needs root and a file system that knows it."""
    folder = tmp_path / "a"
    folder.mkdir()
    command = ["chattr", "+i", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no folder can be made immutable here")
    subprocess.run(["chattr", "-i", str(folder)], check=True)
    yield folder, command
    subprocess.run(["chattr", "-i", str(folder)], check=True)


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_folder_that_is_immutable_for_a_while_keeps_no_leftover_for_ever(immutable, tmp_path, backend):
    """What lay there unfinished is removed by the next run that can, whoever has written it."""
    folder, command = immutable

    def encode(value):
        if value == "immutable":
            subprocess.run(command, check=True)
        return value.encode()

    options = {"backend": backend, "max_workers": 1, "resume": True, "durability": "fsync"}
    with pytest.raises(WriteError, match="1 sample was not written"):
        with BackgroundWriter(Encoder(encode, suffix=""), tmp_path, **options) as writer:
            writer.submit_batch(["a/x", "y"], ["unfinished", "immutable"])
    with BackgroundWriter(Encoder(encode, suffix=""), tmp_path, **options) as writer:
        writer.submit("z", "while it is immutable")
    assert len(list(folder.iterdir())) == 1
    subprocess.run(["chattr", "-i", str(folder)], check=True)
    with BackgroundWriter(Encoder(encode, suffix=""), tmp_path, **options) as writer:
        writer.submit("a/x", "stored at last")
    assert files(tmp_path) == ["a/x", "y", "z"]


def test_a_leftover_that_cannot_be_removed_is_told_and_holds_no_run_up(tmp_path, capsys):
    """The rest goes, and this one when it can."""
    (tmp_path / ".lighter-async").mkdir()
    for token in ("0123456789ab", "aaaaaaaaaaaa"):
        (tmp_path / f".lighter-async/{token}.lock").touch()
        (tmp_path / f".lighter-async-{token}-7-0.part").touch()
    target = LocalTarget(tmp_path)
    with no_removing(".lighter-async-0123456789ab"):
        target.open()
    assert not (tmp_path / ".lighter-async/aaaaaaaaaaaa.lock").exists()
    told = capsys.readouterr().err
    assert "temporary files that an earlier run has left" in told
    assert "cannot be removed (PermissionError" in told
    assert target.put("a", parts(b"abc"))
    target.close()
    assert files(tmp_path) == ["a"]


def test_clearing_up_that_is_interrupted_is_gone_on_with_later(tmp_path, monkeypatch, open_target):
    """As by Ctrl-C, where there are many: what is left is still known to be nobody's."""
    (tmp_path / ".lighter-async").mkdir()
    (tmp_path / ".lighter-async/0123456789ab.lock").touch()
    for number in range(3):
        (tmp_path / f".lighter-async-0123456789ab-7-{number}.part").touch()
    real, removed = leftovers_module.remove_below, []

    def interrupted(root, file, **options):
        if removed:
            raise KeyboardInterrupt
        removed.append(file)
        real(root, file, **options)

    with monkeypatch.context() as patch:
        patch.setattr(leftovers_module, "remove_below", interrupted)
        with pytest.raises(KeyboardInterrupt):
            LocalTarget(tmp_path).open()
    open_target(tmp_path).close()
    assert files(tmp_path) == []


def test_targets_on_one_directory_have_a_lock_each(open_target):
    """Closing one leaves the other marked as living; the last one removes the folder."""
    one, other = open_target(), open_target()
    assert len(list((one.directory / ".lighter-async").iterdir())) == 2
    one.close()
    assert [file.name for file in (one.directory / ".lighter-async").iterdir()] == [f"{other._token}.lock"]
    other.put("x", parts(b"abc"))
    other.close()
    assert files(one.directory) == ["x"]


def test_a_folder_that_vanishes_while_it_is_opened_is_made_again(tmp_path, monkeypatch):
    """Another writer's closing may remove the empty lock folder at any moment of our opening."""
    target = LocalTarget(tmp_path)
    real_makedirs = os.makedirs
    events = iter(["gone again", "seen, then gone", "removed after it was made"])

    def unlucky(path, *arguments, **options):
        event = next(events, None)
        if not os.fspath(path).endswith(".lighter-async") or event is None:
            return real_makedirs(path, *arguments, **options)
        if event == "removed after it was made":
            real_makedirs(path, *arguments, **options)
            os.rmdir(path)
            return None
        raise (FileNotFoundError if event == "gone again" else FileExistsError)(errno.EEXIST, event)

    monkeypatch.setattr(os, "makedirs", unlucky)
    target.open()
    assert next(events, None) is None
    target.put("x", parts(b"abc"))
    target.close()
    assert files(tmp_path) == ["x"]


def test_a_lock_that_another_writer_clears_at_the_wrong_moment_is_made_again(tmp_path, monkeypatch):
    """One that looks for dead writers may take and remove our file between its making and its locking."""
    target = LocalTarget(tmp_path)
    real_flock = fcntl.flock
    locked = []

    def cleared(descriptor, operation):
        real_flock(descriptor, operation)
        locked.append(descriptor)
        if len(locked) == 1:
            (lock,) = (tmp_path / ".lighter-async").iterdir()
            lock.unlink()

    monkeypatch.setattr(fcntl, "flock", cleared)
    target.open()
    assert len(locked) == 2
    assert os.listdir(tmp_path / ".lighter-async") == [f"{target._token}.lock"]
    target.close()
    assert files(tmp_path) == []


OPEN_AND_CLOSE = """
    import sys
    from lighter_async import LocalTarget
    sys.stdin.readline()
    for number in range(60):
        target = LocalTarget(sys.argv[1])
        target.open()
        target.put(f"{sys.argv[2]}/{number}", [memoryview(b"abc")])
        target.close()
    assert "torch" not in sys.modules
"""


def subprocess_run(program, *arguments, expect=0):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == expect, done.stderr


def test_processes_open_and_close_one_directory_at_the_same_time(tmp_path):
    """None trips over another's lock or folder, no sample is lost, nothing is left."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(OPEN_AND_CLOSE), str(tmp_path / "out"), str(number)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert files(tmp_path / "out") == sorted(f"{number}/{sample}" for number in range(4) for sample in range(60))
    assert not (tmp_path / "out/.lighter-async").exists()
