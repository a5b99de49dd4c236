"""One file, whole or not at all, whatever the system does."""

import errno
import os
import re
import stat
import threading

import pytest

from lighter_async import whole_files as files_module
from lighter_async.whole_files import new_token, publish

real_writev, real_write = os.writev, os.write


def parts(*contents):
    return [memoryview(content) for content in contents]


@pytest.fixture(params=["writev", "write"])
def system(request, monkeypatch):
    """A system that gathers parts into one write, and one that cannot."""
    if request.param == "write":
        monkeypatch.delattr(os, "writev")
    return request.param


def replace_write(monkeypatch, system, behave):
    """Let `behave(descriptor, bytes)` do the writing, which returns how many bytes it wrote."""
    if system == "writev":
        monkeypatch.setattr(os, "writev", lambda descriptor, buffers: behave(descriptor, b"".join(buffers)))
    else:
        monkeypatch.setattr(os, "write", lambda descriptor, buffer: behave(descriptor, bytes(buffer)))


def test_the_parts_stand_one_behind_the_other(tmp_path, system):
    """Empty ones count as nothing."""
    publish(tmp_path / "x", parts(b"", b"ab", b"", b"c", b"def", b""))
    publish(str(tmp_path / "empty"), parts(b"", b""))
    publish(tmp_path / "none", [])
    assert {file.name: file.read_bytes() for file in tmp_path.glob("[!.]*")} == {
        "x": b"abcdef",
        "empty": b"",
        "none": b"",
    }


def test_there_may_be_more_parts_than_one_write_takes(tmp_path, system):
    """The system takes 1024 at a time."""
    numbers = [f"{number},".encode() for number in range(5000)]
    publish(tmp_path / "x", parts(*numbers))
    assert (tmp_path / "x").read_bytes() == b"".join(numbers)


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_a_short_write_goes_on_where_it_ended(tmp_path, system, most, monkeypatch):
    """In the middle of a part and between two."""
    replace_write(monkeypatch, system, lambda descriptor, content: real_write(descriptor, content[:most]))
    publish(tmp_path / "x", parts(b"abc", b"", b"d", b"efghij", b"kl"))
    assert (tmp_path / "x").read_bytes() == b"abcdefghijkl"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("existing", [True, False])
def test_a_write_that_fails_halfway_leaves_nothing(tmp_path, system, error, existing, monkeypatch):
    """No temporary file, no half file, and the earlier file as it was."""
    if existing:
        (tmp_path / "x").write_bytes(b"earlier")
    calls = []

    def full(descriptor, content):
        calls.append(content)
        if len(calls) == 3:
            raise error
        return real_write(descriptor, content[:2])

    replace_write(monkeypatch, system, full)
    with pytest.raises(type(error)) as caught:
        publish(tmp_path / "x", parts(b"abcdef", b"ghi"))
    assert caught.value is error
    assert {file.name: file.read_bytes() for file in tmp_path.glob("[!.]*")} == ({"x": b"earlier"} if existing else {})


def test_a_rename_that_fails_leaves_nothing(tmp_path):
    """Such as onto a folder."""
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError, match="x"):
        publish(tmp_path / "x", parts(b"abc"))
    assert [file.name for file in tmp_path.glob("[!.]*")] == ["x"]
    assert list((tmp_path / "x").iterdir()) == []


def test_a_missing_folder_is_an_error(tmp_path):
    """Nothing is made."""
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / "a" / "x", parts(b"abc"))
    assert list(tmp_path.glob("[!.]*")) == []


def test_a_final_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    """The temporary name does not contain it."""
    name = "x" * os.pathconf(tmp_path, "PC_NAME_MAX")
    publish(tmp_path / name, parts(b"abc"))
    assert os.listdir(tmp_path) == [name]


def test_the_temporary_name_tells_whose_it_is(tmp_path, monkeypatch):
    """The writer's token and the process, so that leftovers of the dead can be told from the files of the living."""
    seen = []

    def look(descriptor, buffers):
        seen.extend(os.listdir(tmp_path))
        return real_writev(descriptor, buffers)

    monkeypatch.setattr(os, "writev", look)
    publish(tmp_path / "x", parts(b"abc"), token="abc123")
    publish(tmp_path / "y", parts(b"abc"))
    first, *others = seen
    assert re.fullmatch(rf"\.lighter-async-abc123-{os.getpid()}-\d+\.part", first)
    (second,) = (name for name in others if name != "x")
    assert re.fullmatch(rf"\.lighter-async-[0-9a-f]{{12}}-{os.getpid()}-\d+\.part", second)


def test_tokens_are_unlike():
    """Each writer has one of its own."""
    assert len({new_token() for _ in range(100)}) == 100


def test_the_file_has_the_users_usual_permissions(tmp_path):
    """Those of any file that the user creates, not those of a private temporary file."""
    publish(tmp_path / "ours", parts(b"abc"))
    (tmp_path / "theirs").write_bytes(b"abc")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("[!.]*")}
    assert len(modes) == 1


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_file_that_may_not_be_replaced_is_kept(tmp_path, links, monkeypatch):
    """On file systems with and without hard links; dangling links count as files."""
    if not links:

        def refuse(source, target):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    publish(tmp_path / "x", parts(b"first"), replace=False)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("x", "dangling"):
        with pytest.raises(FileExistsError, match=f"{name}' exists already"):
            publish(tmp_path / name, parts(b"second"), replace=False)
    assert sorted(os.listdir(tmp_path)) == ["dangling", "x"]
    assert (tmp_path / "x").read_bytes() == b"first"


def test_of_several_threads_one_names_its_file(tmp_path):
    """Without replacing, the first one wins and the others are told; there is nothing else afterwards."""
    begin = threading.Barrier(8)
    outcomes = []

    def run(number):
        begin.wait()
        try:
            publish(tmp_path / "x", parts(b"%d" % number * 1000), replace=False)
        except FileExistsError:
            outcomes.append(None)
        else:
            outcomes.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = (number for number in outcomes if number is not None)
    assert len(outcomes) == 8
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"%d" % winner * 1000


def test_a_descriptor_is_closed_whatever_happens(tmp_path, monkeypatch):
    """Thousands of failures must not use up the process's descriptors."""
    opened, closed = [], []
    real_open, real_close = os.open, os.close

    def open_counted(*arguments):
        opened.append(real_open(*arguments))
        return opened[-1]

    def close_counted(descriptor):
        closed.append(descriptor)
        real_close(descriptor)

    def fail(descriptor, buffers):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files_module.os, "open", open_counted)
    monkeypatch.setattr(files_module.os, "close", close_counted)
    publish(tmp_path / "x", parts(b"abc"))
    monkeypatch.setattr(os, "writev", fail)
    with pytest.raises(OSError, match="Input/output error"):
        publish(tmp_path / "y", parts(b"abc"))
    assert len(opened) == 2
    assert closed == opened
