"""What others may have left in quarantine: nothing of it runs, hangs a reader, or reaches outside of the directory."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lighter_async import BackgroundWriter, Origin, pending
from lighter_async.cli import main
from lighter_async.manifest.entry import parse
from lighter_async.workers.plain import from_plain, to_plain
from lighter_async.workers.quarantine import kept_in

ABOUT = {
    "name": "a", "writer": "tensor", "attempts": 1, "error": "e", "traceback": "", "key": "", "rank": 0, "run": "r",
    "loader": 0, "batch": None, "index": None, "time": 1.0,
}  # fmt: skip
QUARANTINE = ".lighter-async/quarantine"


class Touches:
    """Makes a folder as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def drop(directory, folder, value, **about):
    place = directory / QUARANTINE / folder
    place.mkdir(parents=True)
    torch.save(value, place / "value.pt")
    (place / "error.json").write_text(json.dumps({**ABOUT, **about}))
    return place


@pytest.mark.parametrize("plain", [{}, {"plain": True}])
def test_a_pickle_does_not_run_and_holds_no_other_up(tmp_path, capsys, plain):
    """It is told, with the way out, and stays."""
    out, proof = tmp_path / "out", tmp_path / "proof"
    drop(out, "1", Touches(proof), **plain)
    drop(out, "2", torch.ones(2), name="b")
    assert main(["replay", str(out)]) == 1
    assert not proof.exists()
    assert "lighter-async: a: " in capsys.readouterr().err
    assert torch.load(out / "b.pt").tolist() == [1, 1]
    assert [one.about["name"] for one in kept_in(out)] == ["a"]
    if not plain:
        main(["replay", str(out), "--trust"])
        assert proof.exists()


def test_a_module_that_an_error_names_is_not_imported(tmp_path, monkeypatch):
    """Though it lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "innocent.py").write_text("open('proof', 'w')\ndef write(path, value): pass\n")
    drop(tmp_path / "out", "1", torch.ones(1), writer="innocent:write")
    assert main(["replay", "out"]) == 2
    assert main(["replay", "out", "--trust"]) == 2
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    "about",
    [
        {"name": "../b"}, {"name": 3}, {"writer": None}, {"rank": -1}, {"rank": True}, {"time": float("nan")},
        {"time": float("inf")}, {"index": "1"}, {"loader": 1 << 70}, {"durability": "never"}, {"key": []},
        {"traceback": "x" * (1 << 20)},
    ],
    ids=lambda value: repr(value)[:60],
)  # fmt: skip
def test_an_error_that_is_not_valid_is_told_and_left_out(tmp_path, capsys, about):
    """The others are written."""
    place = drop(tmp_path, "1", torch.ones(1), **about)
    drop(tmp_path, "2", torch.ones(1), name="good")
    assert main(["replay", str(tmp_path)]) == 1
    assert f"{place} is left out" in capsys.readouterr().err
    assert (tmp_path / "good.pt").is_file()
    assert sorted(path.name for path in place.iterdir()) == ["error.json", "value.pt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")
def test_pipes_links_and_depth_hang_and_break_nothing(tmp_path):
    """In a process of its own, which would wait for ever."""
    out, outside = tmp_path / "out", tmp_path / "outside"
    pipe = drop(out, "1", 0)
    (pipe / "error.json").unlink()
    os.mkfifo(pipe / "error.json")
    value = drop(out, "2", 0)
    (value / "value.pt").unlink()
    os.mkfifo(value / "value.pt")
    (drop(out, "3", 0) / "error.json").write_text("[" * 100_000)
    elsewhere = drop(outside, "4", torch.ones(1), name="linked")
    (out / QUARANTINE / "4").symlink_to(elsewhere)
    drop(out, "5", torch.ones(1), name="good")
    command = [sys.executable, "-m", "lighter_async.cli", "replay", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert (out / "good.pt").is_file()
    assert not (out / "linked.pt").exists()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["error.json", "value.pt"]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*ABOUT, "x"]), inner, max_size=8),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=64) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_an_error_or_a_line_says_breaks_no_reader(tmp_path_factory, content):
    """Random bytes and random JSON."""
    directory = tmp_path_factory.mktemp("any")
    place = directory / QUARANTINE / "1"
    place.mkdir(parents=True)
    (place / "error.json").write_bytes(content)
    told = []
    assert len(list(kept_in(directory, skipped=told.append))) + len(told) == 1
    parse(content)


@pytest.mark.parametrize(
    "value", [1 << 80, -(1 << 70), 1 + 2j, bytearray(b"x"), b"", "", {}, [], ((),), {1: {None: "x"}}]
)
def test_plain_values_come_back(value):
    """With their types."""
    back = from_plain(to_plain(value))
    assert (type(back), back) == (type(value), value)


@pytest.mark.parametrize("sequence", [2**63, 2**63 - 1, 2**40, -5, 0])
def test_a_sequence_number_that_no_run_has_had_costs_no_later_run_its_samples(tmp_path, sequence):
    """In the list of runs, or in a header: what is stored then counts, or the writer says why it cannot."""
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit("0", "x", origin=Origin((0,)))
    own = tmp_path / ".lighter-async"
    with open(own / "runs.jsonl", "a") as file:
        file.write(json.dumps({"run": "h", "sequence": sequence, "since": 0, "beside": []}) + "\n")
    with BackgroundWriter("text", tmp_path, backend="thread", resume=True) as writer:
        writer.submit("1", "x", origin=Origin((1,)))
    assert list(pending(range(3), tmp_path)) == [2]
    (own / "runs.jsonl").unlink()
    header = json.loads((own / "manifest-0.jsonl").read_text().splitlines()[0])
    with open(own / "manifest-0.jsonl", "a") as file:
        file.write(json.dumps({**header, "run": "h", "sequence": sequence, "resume": True}) + "\n")
    try:
        with BackgroundWriter("text", tmp_path, backend="thread", resume=True) as writer:
            writer.submit("2", "x", origin=Origin((2,)))
    except OSError as error:
        assert "remove it" in str(error)  # noqa: PT017
    else:
        assert list(pending(range(3), tmp_path)) == []


def test_a_copy_made_of_links_is_not_written_to(tmp_path):
    """As ``cp -al`` makes one."""
    folder, copy = tmp_path / "out", tmp_path / "copy"
    with BackgroundWriter("text", folder, backend="thread") as writer:
        writer.submit("0", "x", origin=Origin((0,)))
    shutil.copytree(folder, copy, copy_function=os.link)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with BackgroundWriter("text", folder, backend="thread", resume=True) as writer:
        writer.submit("1", "x", origin=Origin((1,)))
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    assert list(pending(range(2), folder)) == []
    assert list(pending(range(2), copy)) == [1]
