"""The warning that existing predictions will be overwritten."""

import asyncio
import warnings

import numpy as np
import pytest

from lighter_async import (
    ArrayTarget,
    AsyncBackgroundWriter,
    BackgroundWriter,
    LocalTarget,
    Origin,
    Run,
    TableTarget,
    TarShards,
)

OVERWRITTEN = "already exists, existing predictions will be overwritten"


def warnings_of(call):
    """The warnings of a call: their texts and lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [(str(one.message), one.filename, one.lineno) for one in caught]


def store(directory, names="a", **options):
    """One text for each name."""
    with BackgroundWriter("text", directory, backend="thread", **options) as writer:
        writer.submit_batch(list(names), list(names))


def test_a_second_run_is_warned_of_once_at_the_users_line(tmp_path):
    """With the ways out; and the first one is not."""
    assert warnings_of(lambda: store(tmp_path)) == []

    def again():
        writer = BackgroundWriter("text", tmp_path, backend="thread")
        writer.submit("a", "x")
        writer.submit("b", "x")
        writer.close()

    ((text, file, line),) = warnings_of(again)
    assert text.startswith(f"{tmp_path} {OVERWRITTEN}; resume=True goes on")
    assert (file, line) == (__file__, again.__code__.co_firstlineno + 2)


@pytest.mark.parametrize(
    "options", [{"resume": True}, {"if_exists": "skip"}, {"if_exists": "error"}, {"if_exists": "overwrite"}], ids=str
)
def test_who_says_what_is_meant_is_not_warned(tmp_path, options):
    """To go on, to keep, to refuse, or to overwrite."""
    store(tmp_path)
    assert warnings_of(lambda: store(tmp_path, "b", **options)) == []


def test_other_results_are_not_replaced(tmp_path):
    """Those of another writer or key, and of a run that is at work."""
    store(tmp_path)
    with BackgroundWriter("json", tmp_path, backend="thread") as writer:
        assert warnings_of(lambda: writer.submit("a", 1)) == []
    assert warnings_of(lambda: store(tmp_path, run=Run(key="other"))) == []
    first = tmp_path / "beside"
    with BackgroundWriter("text", first, backend="thread") as writer:
        writer.submit("a", "x")
        writer.flush()
        assert warnings_of(lambda: store(first, "b")) == []


def test_without_records_files_of_the_format_count(tmp_path):
    """Others in the folder are none that would be overwritten."""
    (tmp_path / "notes.md").write_text("mine")
    assert warnings_of(lambda: store(tmp_path, manifest=False)) == []
    ((text, _, _),) = warnings_of(lambda: store(tmp_path, manifest=False))
    assert OVERWRITTEN in text


def test_of_several_ranks_the_first_one_warns(tmp_path):
    """Whichever opens first."""
    store(tmp_path)

    def rank(number):
        return warnings_of(lambda: store(tmp_path, str(number), run=Run(id="run", rank=number, world_size=2)))

    assert rank(1) == []
    assert len(rank(0)) == 1


def test_targets_are_warned_of_too(tmp_path):
    """By their paths; an option of the target is the way out."""
    targets = {
        "files": lambda: LocalTarget(tmp_path / "files"),
        "shards": lambda: TarShards(tmp_path / "shards"),
        "e.npy": lambda: ArrayTarget(tmp_path / "e.npy"),
        "t.csv": lambda: TableTarget(tmp_path / "t.csv"),
    }
    values = {"e.npy": np.ones((1, 2)), "t.csv": [{"x": 1}]}

    def run(name):
        with BackgroundWriter(
            "text" if name in ("files", "shards") else None, targets[name](), backend="thread"
        ) as one:
            one.submit_batch(["a"], values.get(name, ["x"]), origin=Origin([0]))

    for name in targets:
        assert warnings_of(lambda: run(name)) == [], name  # noqa: B023
    for name in targets:
        ((text, file, _),) = warnings_of(lambda: run(name))  # noqa: B023
        assert text.startswith(f"{tmp_path / name} {OVERWRITTEN}; resume=True")
        assert "target's if_exists='skip'" in text
        assert file == __file__


@pytest.mark.parametrize("within", [True, False], ids=["async with", "first submit"])
def test_asyncio_is_warned_at_the_users_line(tmp_path, within):
    """Though the writer is started in a thread."""
    store(tmp_path)

    async def again():
        writer = AsyncBackgroundWriter("text", tmp_path, backend="thread")
        if within:
            async with writer:
                await writer.submit("a", "x")
        else:
            await writer.submit("a", "x")
            await writer.close()

    ((text, file, line),) = warnings_of(lambda: asyncio.run(again()))
    assert OVERWRITTEN in text
    assert (file, line) == (__file__, again.__code__.co_firstlineno + (3 if within else 6))


def test_a_warning_that_is_an_error_leaves_nothing_open(tmp_path):
    """The run has not begun, and the next one can."""
    store(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=OVERWRITTEN):
            store(tmp_path, "b")
    store(tmp_path, "b", resume=True)
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == ["a.txt", "b.txt"]
