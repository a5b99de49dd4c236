"""Names of samples: which may become files, and that each does once in a run."""

import asyncio
import enum
import gc
import os
import posixpath
import re
import sys
import threading
import tracemalloc
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lighter_async import (
    AsyncBackgroundWriter,
    BackgroundWriter,
    DuplicateNameError,
    InvalidNameError,
    LighterAsyncError,
    open_results,
    pending,
    read_manifest,
)
from lighter_async.callback.names_and_samples import names_of
from lighter_async.names import Claims, Numbers, check_names, checks, claims_of, with_suffix, with_suffixes
from lighter_async.names.used_names import _MOST_LATEST

quick = settings(max_examples=300, deadline=None, database=None)


# Which names may become files


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "0",
        "case.1",
        "patient/slice/3",
        "...",
        "..a",
        "a..",
        ".hidden",
        ".hidden/x",
        "a b",
        " ",
        "naïve",
        "日本/写真",
        "-rf",
        "~",
        "a\\b",
        "a\nb",
        "lighter-async",
        "a/x.lighter-async",
        "\udc80",  # a byte that is no UTF-8, as Python names such files
    ],
)
def test_names_that_are_one_file_below_the_directory_are_allowed(name):
    """Folders, dots, spaces, any script, and bytes that are no text."""
    check_names([name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "empty name"),
        ("/", "is an absolute path"),
        ("/etc/passwd", r"is an absolute path.*os\.path\.relpath"),
        ("//a", "is an absolute path"),
        ("..", "climbs out of the writer's directory"),
        ("../a", "climbs out"),
        ("a/..", "climbs out"),
        ("a/../../b", "climbs out"),
        ("a/../b", "climbs out"),
        (".", "has a component '.'"),
        ("./a", r"has a component '\.'.*os\.path\.normpath"),
        ("a/./b", "has a component '.'"),
        ("a//b", "has a component ''"),
        ("a/", "has a component ''"),
        ("a\0b", "holds a NUL character"),
        ("\0", "holds a NUL character"),
        (".lighter-async", "is reserved"),
        (".lighter-async/x", "is reserved"),
        ("a/.lighter-async-1-2-3.part", "is reserved"),
        ("\ud800", "cannot be encoded as a file name"),
        ("a/\udfff", "cannot be encoded as a file name"),
    ],
)
def test_names_that_leave_the_directory_or_are_ambiguous_are_refused(name, message):
    """The error is of this package and a ValueError, and it says why."""
    with pytest.raises(InvalidNameError, match=message) as caught:
        check_names([name])
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, LighterAsyncError)


@pytest.mark.parametrize("name", ["a\\b", "c:x", "con", "NUL.txt", "a/com1.png", "x.", "x ", "a?", "a\x01"])
def test_on_windows_what_is_no_file_name_there_is_refused(monkeypatch, name):
    """Backslashes, drives, devices, and endings that Windows drops."""
    check_names([name])
    monkeypatch.setattr(checks, "_WINDOWS", True)
    with pytest.raises(InvalidNameError, match="not a file name on Windows"):
        check_names([name])
    check_names(["a/b.txt"])


PIECES = st.sampled_from(["..", ".", "/", "", "a", ".lighter-async", "\0", "~", "\\", " ", "é", "\udc80", "\ud800"])


@quick
@given(st.one_of(st.lists(PIECES, max_size=8).map("".join), st.text(max_size=20)))
def test_whatever_is_accepted_stays_below_the_directory(name):
    """One name is one path, below the directory, and not one of the library's own."""
    try:
        check_names([name])
    except InvalidNameError:
        for batch in (["a", name], [name, "a"], ["a", "b/c", name, "d"]):
            with pytest.raises(InvalidNameError):
                check_names(batch)
        assume(False)
    check_names(["a", name, "b/c"])
    for suffix in ("", ".png"):
        path = posixpath.join("/data/out", with_suffix(name, suffix))
        assert posixpath.normpath(path) == path
        assert path.startswith("/data/out/")
        assert os.fsencode(path)
        assert not any(part.startswith(".lighter-async") for part in path.split("/"))


def test_the_suffix_is_appended_unless_the_name_ends_in_it():
    """So no two names become one file that do not look like it."""
    assert [with_suffix(name, ".png") for name in ("a", "a.png", "a.1", "a.PNG", "a.png.1", "png")] == [
        "a.png",
        "a.png",
        "a.1.png",
        "a.PNG.png",
        "a.png.1.png",
        "png.png",
    ]
    assert with_suffix("a", "") == "a"


def test_there_is_one_name_per_sample(tmp_path):
    """Anything else is refused before anything is queued."""
    with BackgroundWriter("text", tmp_path) as writer:
        with pytest.raises(InvalidNameError, match="is an absolute path"):
            writer.submit(tmp_path / "x", "x")
        with pytest.raises(TypeError, match="names are a sequence with a name per sample, not str: 'ab'"):
            writer.submit_batch("ab", ["x", "y"])
        for names in ({"a": 1, "b": 2}, np.array([["a"], ["b"]]), np.array("a"), torch.ones(2, 1), iter("ab")):
            with pytest.raises(TypeError, match="names are a sequence with a name per sample, not"):
                writer.submit_batch(names, ["x", "y"])
        for name in (None, ["a"], {"a": 1}, object(), 1j):
            with pytest.raises(TypeError, match="a name is a text, a number, a path or a scalar tensor"):
                writer.submit(name, 3.0)
        for flag in (True, False, np.True_, np.array(False), torch.tensor(True)):
            with pytest.raises(TypeError, match=rf"sample is {bool(flag)}, which is no name; write str\(name\)"):
                writer.submit(flag, 3.0)
        for flags in ([1, True], np.array([True, False]), torch.tensor([True, False])):
            with pytest.raises(TypeError, match="the name of a sample is True, which is no name"):
                writer.submit_batch(flags, [3.0, 4.0])
            with pytest.raises(TypeError, match=r"name \d of the batch, under name_key 'id', is True, which is no"):
                names_of(flags, "id")
        with pytest.raises(ValueError, match="Length mismatch: 2 samples and 1 names"):
            writer.submit_batch(["a"], ["x", "y"])
        with pytest.raises(InvalidNameError):
            writer.submit_batch(["fine", "../bad"], ["x", "y"])
        assert writer.stats().accepted == 0
    assert list(tmp_path.glob("[!.]*")) == []


NAMED = [
    ("a/b", "a/b"),
    (7, "7"),
    (-7, "-7"),
    (0.5, "0.5"),
    (Path("a/b"), "a/b"),
    (PureWindowsPath("a\\b"), "a/b"),
    (b"a/b", "a/b"),
    (b"a-\xff", "a-\udcff"),  # as os.listdir(b".") gives it
    (np.bytes_(b"a"), "a"),
    (np.array(b"a"), "a"),
    (np.str_("a"), "a"),
    (np.int64(7), "7"),
    (np.uint8(7), "7"),
    (np.array(7), "7"),
    (np.array("a"), "a"),
    (torch.tensor(7), "7"),
    (torch.tensor(7, dtype=torch.uint8), "7"),
    (torch.tensor(0.5), "0.5"),
    (enum.Enum("Kind", {"one": "a"}, type=str).one, "a"),
]


@pytest.mark.parametrize(("given", "name"), NAMED, ids=str)
def test_numbers_and_paths_are_names(tmp_path, given, name):
    """As their texts, with `/` between folders: in the service, in asyncio, of a callback, in batches; also to read."""
    with BackgroundWriter("json", tmp_path / "one", backend="thread") as writer:
        writer.submit(given, 1)
        writer.submit_batch([f"{name}-other", f"{name}-more"], [1, 1])
    with BackgroundWriter("json", tmp_path / "batch", backend="thread") as writer:
        writer.submit_batch([given], [1])

    async def store():
        async with AsyncBackgroundWriter("json", tmp_path / "async", backend="thread") as writer:
            await writer.submit(given, 1)
        async with AsyncBackgroundWriter("json", tmp_path / "async batch", backend="thread") as writer:
            await writer.submit_batch((given,), [1])

    asyncio.run(store())
    assert read_manifest(tmp_path / "one").names() == {name, f"{name}-other", f"{name}-more"}
    for folder in ("batch", "async", "async batch"):
        assert read_manifest(tmp_path / folder).names() == {name}
        results = open_results(tmp_path / folder)
        assert list(results) == [name]
        assert (results[given], results.get(given), results.read_bytes(given)) == (1, 1, b"1")
        assert results.record(given).name == name
        assert given in results
    assert names_of([given], "id") == [name]
    assert list(pending(range(1), tmp_path / "batch", names=[given])) == []


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (torch.tensor([7, 8]), ["7", "8"]),
        (np.array([7, 8]), ["7", "8"]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([b"a", b"b"]), ["a", "b"]),
        (np.array([Path("a"), 8], object), ["a", "8"]),
        ((7, Path("a")), ["7", "a"]),
        ([torch.tensor(7), "a"], ["7", "a"]),
        (range(7, 9), ["7", "8"]),
    ],
    ids=str,
)
def test_the_names_of_a_batch_may_be_an_array(tmp_path, given, names):
    """As a data loader makes one of its items' numbers."""
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit_batch(given, ["x", "y"])
    assert read_manifest(tmp_path).names() == set(names)
    assert names_of(given, "id") == names


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (torch.rand(3, 16, 16), "case"),
        (torch.rand(3), Path("case")),
        (np.ones((2, 2)), "case"),
        ({"mask": torch.rand(2)}, "case"),
        (None, "case"),
        (0.87, "case"),
        (torch.tensor(0.87), "case"),
        (np.float32(0.87), "case"),
        (True, "case"),
        (torch.rand(3, 2), torch.rand(3, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("writer", ["json", {"mask": "tensor"}], ids=["one output", "several"])
def test_swapped_arguments_are_told_as_such(tmp_path, name, value, writer):
    """In the service and in asyncio; no tensor is printed, and nothing is taken."""
    told = r"the arguments look swapped: the order is submit\(name, value\), or submit_batch\(names, values\)"

    async def store():
        async with AsyncBackgroundWriter(writer, tmp_path, backend="thread") as background:
            with pytest.raises(TypeError, match=told):
                await background.submit(name, value)
            with pytest.raises(TypeError, match=told):
                background.submit_nowait(name, value)

    asyncio.run(store())
    with BackgroundWriter(writer, tmp_path, backend="thread") as background:
        with pytest.raises(TypeError, match=told) as caught:
            background.submit(name, value)
        for names in ([name, name], torch.rand(2, 3), np.ones((2, 3))):
            with pytest.raises(TypeError, match=told):
                background.submit_batch(names, [value, value])
        assert background.stats().accepted == 0
    assert len(str(caught.value)) < 300


def test_texts_may_have_numbers_as_names(tmp_path):
    """They are not taken for swapped, and neither are numbers with numbers."""
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit(7, "a caption")
        writer.submit(0.5, 0.5)
    assert read_manifest(tmp_path).names() == {"7", "0.5"}


# Numbers


@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.filterwarnings("ignore:the writer for:ResourceWarning")
def test_a_cell_that_is_run_again_and_again_stores_its_samples_anew(tmp_path, backend):
    """Its earlier writer is stored and nobody can reach it, though the garbage collector has not come by yet."""
    gc.collect()
    gc.disable()
    try:
        for text in ("first", "second", "third"):
            writer = BackgroundWriter("text", tmp_path, backend=backend, max_workers=1, if_exists="overwrite")
            writer.submit("a", text)
            writer.flush()
            assert (tmp_path / "a.txt").read_text() == text
            del writer
    finally:
        gc.enable()
    gc.collect()


def test_numbers_are_a_sequence_of_names():
    """Like a list of strings, at no cost."""
    numbers = Numbers(range(1, 10, 3))
    assert list(numbers) == ["1", "4", "7"]
    assert (len(numbers), numbers[0], numbers[-1]) == (3, "1", "7")
    assert list(numbers[1:]) == ["4", "7"]
    assert list(Numbers(range(0))) == []
    with pytest.raises(IndexError):
        numbers[3]


def test_numbers_are_not_negative():
    """A negative one would look like an option, and is a mistake."""
    with pytest.raises(InvalidNameError, match="start at 0"):
        Numbers(range(-1, 3))


# Claims


def claim(claims, names, suffix):
    """As the service does for a batch."""
    if isinstance(names, Numbers):
        claims.claim_numbers(names.range, suffix)
    else:
        claims.claim(with_suffixes(names, suffix), names)


def claimed(*batches):
    claims = Claims()
    for names, suffix in batches:
        claim(claims, names, suffix)
    return claims


def told(batch):
    names, suffix = batch
    return f"{names.range if isinstance(names, Numbers) else names}{suffix}"


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ((["a"], ".png"), (["a"], ".png")),
        ((["a"], ".png"), (["a.png"], ".png")),
        ((["a.png"], ".png"), (["a"], ".png")),
        ((["a.png"], ""), (["a"], ".png")),
        ((["x/a"], ""), (["x/a"], "")),
        ((["4"], ".png"), (Numbers(range(10)), ".png")),
        ((["4.png"], ".png"), (Numbers(range(10)), ".png")),
        ((["4.png"], ""), (Numbers(range(4, 5)), ".png")),
        ((Numbers(range(10)), ".png"), (["4"], ".png")),
        ((Numbers(range(10)), ".png"), (["4.png"], ".png")),
        ((Numbers(range(10)), ".png"), (["4.png"], "")),
        ((Numbers(range(10)), ""), (["4"], "")),
        ((Numbers(range(10)), ".png"), (Numbers(range(9, 12)), ".png")),
        ((Numbers(range(0, 10, 2)), ".png"), (Numbers(range(4, 5)), ".png")),
        ((Numbers(range(0, 10, 2)), ".png"), (Numbers(range(3, 9, 3)), ".png")),
    ],
    ids=told,
)
def test_two_samples_of_a_run_cannot_have_one_file(earlier, later):
    """Whether names are strings or numbers, and with or without the suffix."""
    claims = claimed(earlier)
    with pytest.raises(DuplicateNameError, match="two samples of one run are named"):
        claim(claims, *later)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ((["a"], ".png"), (["a"], ".pt")),
        ((["a"], ".png"), (["A"], ".png")),
        ((["x/a"], ""), (["y/a"], "")),
        ((["a.1"], ".png"), (["a.2"], ".png")),
        ((Numbers(range(10)), ".png"), (["04", "10", "-1", "+4", "4.0", "٤", "4a", "x/4"], ".png")),
        ((Numbers(range(10)), ".png"), (["4"], ".pt")),
        ((Numbers(range(10)), ".png"), (Numbers(range(10)), ".pt")),
        ((Numbers(range(0, 10, 2)), ".png"), (Numbers(range(1, 10, 2)), ".png")),
        ((Numbers(range(0, 10, 2)), ".png"), (["1", "9"], ".png")),
        ((["04"], ".png"), (Numbers(range(10)), ".png")),
        ((Numbers(range(0)), ".png"), (Numbers(range(3)), ".png")),
    ],
    ids=told,
)
def test_names_that_only_look_alike_are_two_files(earlier, later):
    """Another suffix, folder, case, or spelling of a number."""
    claimed(earlier, later)


def test_the_error_names_both_samples():
    """The usual cause is equal names from different folders, and the error tells which two and what to do."""
    claims = claimed((["x", "a"], ".png"))
    with pytest.raises(
        DuplicateNameError,
        match=r"named 'a': sample 1 of this run and sample 3 would both become 'a\.png'.*the source folder",
    ) as caught:
        claim(claims, ["b", "a"], ".png")
    assert isinstance(caught.value, ValueError)


def test_a_batch_is_claimed_as_a_whole_or_not_at_all():
    """So the caller can hand it over again with the one name changed."""
    claims = claimed((["a"], ".png"))
    for names in (["b", "a"], ["b", "b"], ["c", "b", "b.png"]):
        with pytest.raises(DuplicateNameError):
            claim(claims, names, ".png")
    claim(claims, ["b", "c"], ".png")


NAMES = st.one_of(
    st.lists(st.sampled_from(["0", "1", "7", "07", "12", "a", "b", "a.x", "7.x"]), max_size=4),
    st.builds(lambda start, count, step: Numbers(range(start, start + count * step, step)),
              st.integers(0, 15), st.integers(0, 6), st.integers(1, 4)),
)  # fmt: skip


@quick
@given(st.lists(st.tuples(NAMES, st.sampled_from(["", ".x"])), max_size=12))
def test_claims_agree_with_a_set_of_file_names(batches):
    """Whatever the order and the kinds of names: refused exactly where a set would have the file already."""
    claims, files = Claims(), set()
    for names, suffix in batches:
        batch = [with_suffix(name, suffix) for name in names]
        if len({*batch, *files}) == len(batch) + len(files):
            claim(claims, names, suffix)
            files.update(batch)
        else:
            with pytest.raises(DuplicateNameError):
                claim(claims, names, suffix)


def test_names_that_were_put_away_are_still_known():
    """When there are many, and in every array that they were put into."""
    claims = Claims()
    count = 5 * _MOST_LATEST + 10
    for start in range(0, count, 8192):
        claim(claims, [f"n{number}" for number in range(start, min(start + 8192, count))], "")
    assert len(claims._used._hashes) > 1
    assert claims._used._latest
    for number in (0, _MOST_LATEST, 5 * _MOST_LATEST - 1, count - 1):
        with pytest.raises(DuplicateNameError, match=f"run and sample {count + 1} would both become 'n{number}'"):
            claim(claims, ["new", f"n{number}"], "")
    claims.claim_numbers(range(10), "")
    claim(claims, ["new"], "")


def test_a_million_numbers_cost_nothing():
    """Batches of numbers that follow each other are kept as one range, for each rank's share too."""
    claims = Claims()
    tracemalloc.start()
    try:
        for start in range(0, 1_000_000, 1000):
            claims.claim_numbers(range(2 * start + 1, 2 * (start + 1000) + 1, 2), ".pt")
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 100_000
    with pytest.raises(DuplicateNameError, match=r"'1999999\.pt'"):
        claim(claims, ["1999999"], ".pt")


@pytest.mark.long
def test_many_names_cost_eight_bytes_each():
    """As documented, and nothing of the names themselves but for the latest."""
    claims = Claims()
    count = 4 * _MOST_LATEST
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for start in range(0, count, 1024):
            claim(claims, [f"patient/{number}/slice.png" for number in range(start, start + 1024)], "")
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert not claims._used._latest
    assert 8 * count <= used < 8 * count + 50_000


def test_claims_are_taken_once_by_concurrent_threads():
    """Of several threads that claim the same names, exactly one gets each."""
    claims = Claims()
    won = []
    begin = threading.Barrier(4)

    def claim():
        begin.wait()
        for number in range(500):
            try:
                claims.claim([f"n{number}"], [f"n{number}"])
            except DuplicateNameError:
                continue
            won.append(number)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(500))


def test_writers_on_one_directory_share_their_claims(tmp_path):
    """Equal files are refused across them while they are open, whatever path leads there, and free afterwards."""
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with (
        BackgroundWriter("text", tmp_path / "out") as one,
        BackgroundWriter("text", tmp_path / "link" / ".") as other,
        BackgroundWriter("tensor", tmp_path / "out") as tensors,
        BackgroundWriter("text", tmp_path) as elsewhere,
    ):
        one.submit("a", "1")
        with pytest.raises(DuplicateNameError):
            other.submit("a", "2")
        tensors.submit("a", "another suffix")
        elsewhere.submit("a", "another folder")
    with BackgroundWriter("text", tmp_path / "out") as later:
        later.submit("a", "3")
    assert (tmp_path / "out/a.txt").read_text() == "3"


def test_a_closed_writers_names_are_free_though_somebody_keeps_an_exception_of_it(tmp_path):
    """As a notebook keeps the last one, with the frames that it came through."""
    writer = BackgroundWriter("text", tmp_path)
    writer.submit("a", "1")
    with pytest.raises(DuplicateNameError) as kept:
        writer.submit("a", "2")
    other = BackgroundWriter("text", tmp_path)
    other.start()
    writer.close()
    with pytest.raises(DuplicateNameError):
        other.submit("a", "3")
    other.close()
    with BackgroundWriter("text", tmp_path) as later:
        later.submit("a", "4")
    assert (tmp_path / "a.txt").read_text() == "4"
    assert kept.value.__traceback__ is not None


def test_the_error_says_which_writers_are_open_and_where_they_were_made(tmp_path):
    """As when a cell of a notebook is run again, which leaves its first writer open; and the way out."""
    first = BackgroundWriter("text", tmp_path, backend="thread")
    first.submit("a", "1")
    second = BackgroundWriter("text", tmp_path, backend="thread")
    told = (
        rf"2 writers are open on '{tmp_path}' now \(made at {__file__}:(\d+) and {__file__}:(\d+)\), "
        r"and count as one run: close the earlier one with close\(\), or use `with`\. In a notebook, a cell that is run"
    )
    with pytest.raises(DuplicateNameError, match=told) as caught:
        second.submit("a", "2")
    lines = [int(line) for line in re.search(told, str(caught.value)).groups()]
    assert lines[1] == lines[0] + 2
    first.close()
    second.submit("b", "2")
    with pytest.raises(DuplicateNameError) as caught:
        second.submit("b", "3")
    assert "writers are open" not in str(caught.value)
    second.close()


def test_where_somebody_types_the_error_says_that_the_writer_is_still_open(tmp_path, monkeypatch):
    """A cell that submits is run again, and its writer was made in another one."""
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit_batch(Numbers(range(3)), ["1", "2", "3"])
        with pytest.raises(DuplicateNameError, match=r"still that of the earlier sample.*close\(\) and make another"):
            writer.submit_batch(Numbers(range(3)), ["1", "2", "3"])


def test_claims_live_as_long_as_somebody_holds_them():
    """Nothing of a location is kept once its writers are gone."""
    claims = claims_of("somewhere")
    assert claims_of("somewhere") is claims
    assert claims_of("elsewhere") is not claims
    claim(claims, ["a"], "")
    del claims
    claim(claims_of("somewhere"), ["a"], "")


@pytest.mark.parametrize("inner_first", [False, True])
def test_what_a_closed_writer_has_stored_is_not_replaced_by_one_above_or_below_that_is_open(tmp_path, inner_first):
    """And once all of them are closed the names are free again."""
    (one, name), (other, theirs) = (
        ((tmp_path / "a", "x"), (tmp_path, "a/x")) if inner_first else ((tmp_path, "a/x"), (tmp_path / "a", "x"))
    )
    for text in ("first", "second"):
        with BackgroundWriter("text", other, backend="thread") as longer:
            longer.submit("elsewhere", text)
            with BackgroundWriter("text", one, backend="thread") as shorter:
                shorter.submit(name, text)
            with pytest.raises(DuplicateNameError, match="open on"):
                longer.submit(theirs, "another")
        assert (tmp_path / "a" / "x.txt").read_text() == text


@pytest.mark.parametrize("inner_first", [False, True])
@pytest.mark.parametrize("numbered", [False, True])
def test_a_writer_on_a_folder_of_another_ones_cannot_make_one_file_of_two_samples(tmp_path, inner_first, numbered):
    """Whichever comes first; other names of both are free."""
    from lighter_async.names import Numbers

    inside = Numbers(range(3)) if numbered else ["0", "1", "2"]
    with (
        BackgroundWriter("text", tmp_path, backend="thread") as outer,
        BackgroundWriter("text", tmp_path / "a" / "b", backend="thread") as inner,
    ):
        calls = [
            lambda: outer.submit_batch(["a/b/2", "a/b/9", "2"], ["outer"] * 3),
            lambda: inner.submit_batch(inside, ["inner"] * 3),
        ]
        first, second = reversed(calls) if inner_first else calls
        first()
        with pytest.raises(DuplicateNameError, match="open on"):
            second()
        inner.submit("7", "inner")
        outer.submit("a/b/8", "outer")
    assert (tmp_path / "a" / "b" / "2.txt").read_text() == ("inner" if inner_first else "outer")
    assert (tmp_path / "a" / "b" / "7.txt").read_text() == "inner"
