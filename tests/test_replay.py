"""Values that could not be written: kept beside their errors, and written once the cause is mended."""

import json
import os
import subprocess
import sys
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import replayable
import torch
from harness import Gate

from lighter_async import BackgroundWriter, Encoder, Origin, Run, WriteError, pending, read_manifest
from lighter_async.cli import main
from lighter_async.manifest.records import Records
from lighter_async.manifest.verify import verify
from lighter_async.workers import kept_in

Pair = namedtuple("Pair", "first second")

both_backends = pytest.mark.parametrize("backend", ["thread", "process"])


@pytest.fixture
def broken(monkeypatch):
    """There is something wrong with the writers of `replayable` until this is called."""
    monkeypatch.setenv(replayable.BROKEN, "1")
    return lambda: monkeypatch.delenv(replayable.BROKEN)


@pytest.fixture(autouse=True)
def _from_the_tests_folder(monkeypatch):
    """A writer's module lies in the working folder, as that of a user's script does."""
    monkeypatch.chdir(Path(__file__).parent)


def failing(value):
    raise ValueError(f"no way to write {type(value).__name__}")


FAILING = Encoder(failing, suffix=".never", name="failing")


def kept(folder):
    return {one.about["name"]: one for one in kept_in(folder)}


def stored(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and ".lighter-async" not in path.parts
    }


def quarantine(folder):
    return folder / ".lighter-async" / "quarantine"


def run_picky(folder, samples, *, writer=replayable.picky, backend="thread", resume=False, run=None):
    """Write samples, some of which may be bad; returns the writer's stats and the failures, by name."""
    background = BackgroundWriter(
        writer, folder, backend=backend, max_workers=1, on_error="continue", resume=resume, run=run
    )
    for index, (name, value) in enumerate(samples.items()):
        background.submit(name, value, origin=Origin([index], batch=index // 2))
    try:
        background.close()
    except WriteError as error:
        return background.stats(), {failure.name: failure for failure in error.failures}
    return background.stats(), {}


SAMPLES = {"a": "good 1", "b": "bad 2", "sub/c": "bad 3", "d": "good 4"}


# Keeping values


@pytest.mark.parametrize(
    ("writer", "backend"),
    [
        (replayable.picky, "process"),
        (replayable.write_picky, "thread"),
        pytest.param(replayable.picky, "thread", marks=pytest.mark.long),
        pytest.param(replayable.write_picky, "process", marks=pytest.mark.long),
    ],
)
def test_a_value_that_fails_is_kept_and_the_run_goes_on(tmp_path, broken, backend, writer):
    """Every other sample is stored, and the end raises all failures, each with the folder of its value."""
    stats, failures = run_picky(tmp_path, SAMPLES, writer=writer, backend=backend)
    assert (stats.accepted, stats.written, stats.failed, stats.pending, stats.dropped) == (4, 2, 2, 0, 0)
    assert sorted(failures) == ["b", "sub/c"]
    assert sorted(stored(tmp_path).values()) == ["'good 1'", "'good 4'"]
    found = kept(tmp_path)
    assert sorted(found) == ["b", "sub/c"]
    for name, one in found.items():
        assert one.value(trust=True) == SAMPLES[name]
        assert failures[name].kept == str(one.folder)
        about = one.about
        assert about["error"].endswith(f"ValueError: no way to write {SAMPLES[name]!r}")
        assert "in check" in about["traceback"]
        index = list(SAMPLES).index(name)
        assert (about["index"], about["loader"], about["batch"]) == (index, 0, index // 2)
        assert (about["writer"], about["rank"], about["attempts"]) == (failures[name].writer, 0, 1)
    assert read_manifest(tmp_path).done() == {0, 3}


@pytest.mark.skipif(sys.platform != "linux", reason="helper processes need Linux")
def test_an_async_writers_values_are_kept(tmp_path, broken):
    """As those of the other kinds."""
    stats, failures = run_picky(tmp_path, SAMPLES, writer=replayable.write_picky_async, backend="auto")
    assert (stats.written, stats.failed) == (2, 2)
    assert sorted(kept(tmp_path)) == sorted(failures) == ["b", "sub/c"]


@pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.long)])
@pytest.mark.parametrize("durability", ["rename", pytest.param("fsync", marks=pytest.mark.long)])
def test_values_of_a_file_system_error_are_kept(tmp_path, backend, durability):
    """Such as where there is a folder in the file's place; after it is gone they are written."""
    (tmp_path / "1.txt").mkdir()
    background = BackgroundWriter("text", tmp_path, backend=backend, on_error="continue", durability=durability)
    background.submit_batch(["0", "1", "2"], ["x", "y", "z"], origin=Origin([0, 1, 2]))
    with pytest.raises(WriteError, match=r"1 sample was not written.*lighter-async replay") as raised:
        background.close()
    assert isinstance(raised.value.cause, OSError)
    assert kept(tmp_path)["1"].value() == "y"

    assert main(["replay", str(tmp_path)]) == 1
    assert list(kept(tmp_path)) == ["1"]
    (tmp_path / "1.txt").rmdir()
    assert main(["replay", str(tmp_path)]) == 0
    assert stored(tmp_path) == {"0.txt": "x", "1.txt": "y", "2.txt": "z"}
    assert not quarantine(tmp_path).exists()
    assert list(pending(range(3), tmp_path)) == []


@pytest.mark.long
@both_backends
def test_samples_are_taken_after_a_failure_was_raised(tmp_path, broken, backend):
    """flush raises what has failed until then, once, and the run goes on behind it."""
    background = BackgroundWriter(
        replayable.picky, tmp_path, backend=backend, max_workers=1, queue_size=1, on_error="continue"
    )
    background.submit("a", "bad")
    with pytest.raises(WriteError) as raised:
        background.flush()
    assert [failure.name for failure in raised.value.failures] == ["a"]
    background.flush()
    for name in ("b", "c", "d"):
        background.submit(name, "bad" if name == "c" else "good")
    assert background.state == "running"
    with pytest.raises(WriteError) as raised:
        background.close()
    assert [failure.name for failure in raised.value.failures] == ["c"]
    background.close()
    assert (background.stats().written, background.stats().failed) == (2, 2)
    assert sorted(kept(tmp_path)) == ["a", "c"]


@both_backends
def test_without_it_the_run_stops_and_nothing_is_kept(tmp_path, broken, backend):
    """That is the default."""
    background = BackgroundWriter(replayable.picky, tmp_path, backend=backend, max_workers=1)
    background.submit("a", "bad")
    with pytest.raises(WriteError) as raised:
        background.flush()
    assert raised.value.failures[0].kept is None
    assert not quarantine(tmp_path).exists()
    with pytest.raises(Exception, match="takes no more samples"):
        background.submit("b", "good")
    background.close()


def test_a_value_that_cannot_be_kept_stops_the_run(tmp_path):
    """It would be lost; and it leaves no empty folder."""
    background = BackgroundWriter(FAILING, tmp_path, backend="thread", on_error="continue")
    background.submit("a", lambda: None)  # which no pickle takes
    with pytest.raises(WriteError) as raised:
        background.flush()
    assert raised.value.kept is None
    assert background.state == "failed"
    background.close()
    assert not quarantine(tmp_path).exists()


def test_the_value_is_kept_as_it_was_handed_over(tmp_path):
    """The caller fills its tensor anew meanwhile."""
    gate = Gate()
    gate.shut()

    def write_it(path, value):
        gate.passing(path.name)
        raise ValueError("no way")

    values = torch.arange(6.0).reshape(2, 3)
    background = BackgroundWriter(write_it, tmp_path, backend="thread", max_workers=1, on_error="continue")
    background.submit_batch(["a", "b"], values)
    values.fill_(-1)
    gate.release()
    with pytest.raises(WriteError):
        background.close()
    assert kept(tmp_path)["a"].value().tolist() == [0, 1, 2]
    assert kept(tmp_path)["b"].value().tolist() == [3, 4, 5]


# Every kind of value

VALUES = {
    "float32": torch.arange(6.0).reshape(2, 3),
    "bfloat16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "bool": torch.tensor([True, False]),
    "complex": torch.tensor([1 + 2j]),
    "scalar": torch.tensor(3),
    "no elements": torch.zeros(0, 4),
    "view": torch.arange(1000).reshape(10, 100)[:, 3],
    "sparse": torch.eye(3).to_sparse(),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "array": np.arange(6.0).reshape(2, 3),
    "big-endian": np.arange(3, dtype=">i4"),
    "structured": np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", "<f8")]),
    "array of objects": np.array([{"a": 1}, None], dtype=object),
    "text": "text ü\n",
    "bytes": b"\x00\xff",
    "none": None,
    "number": 3.5,
    "nested": {"a": [torch.ones(2), (np.zeros(1), "x")], "b": OrderedDict(c=1)},
    "named": Pair(torch.zeros(1), 2),
    "own class": replayable.Prediction("cat", 0.5),
}


def same(one, other):
    if isinstance(one, torch.Tensor):
        return (
            type(other) is type(one)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and torch.equal(dense(one), dense(other))
        )
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tolist() == other.tolist()
    if isinstance(one, dict):
        return (
            type(one) is type(other) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        )
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def dense(tensor):
    return tensor.detach().to_dense()


@pytest.mark.long
@both_backends
def test_values_of_every_kind_come_back_equal(tmp_path, backend):
    """With their types, dtypes and shapes, by themselves and in a batch."""
    background = BackgroundWriter(FAILING, tmp_path, backend=backend, max_workers=1, on_error="continue")
    for name, value in VALUES.items():
        background.submit(name, value)
    background.submit_batch([f"in a batch/{name}" for name in VALUES], list(VALUES.values()))
    background.submit_batch(["row/0", "row/1"], torch.arange(4, dtype=torch.int16).reshape(2, 2))
    with pytest.raises(WriteError) as raised:
        background.close()
    assert [failure.name for failure in raised.value.failures if failure.kept is None] == []
    found = kept(tmp_path)
    for name, value in VALUES.items():
        for prefix in ("", "in a batch/"):
            back = found.pop(prefix + name).value(trust=True)
            if name == "parameter":  # which is a tensor once it is copied
                back = torch.nn.Parameter(back) if type(back) is torch.Tensor else back
            assert same(value, back), (prefix + name, back)
    for row in range(2):
        back = found.pop(f"row/{row}")
        assert same(torch.tensor([2 * row, 2 * row + 1], dtype=torch.int16), back.value())
        assert (back.folder / "value.pt").stat().st_size < 4096
    assert found == {}


@pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.long)])
def test_what_is_replayed_is_what_would_have_been_written(tmp_path, backend):
    """Tensors, images and texts, recorded as the run's own; byte for byte, where the format has no random part."""
    batches = {
        "tensor": torch.arange(12.0).reshape(2, 6),
        "image_2d": torch.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8).to(torch.uint8),
        "text": ["one", "two"],
    }
    for writer, values in batches.items():
        whole, torn = tmp_path / f"{writer}-whole", tmp_path / f"{writer}-torn"
        names = ["x/0", "x/1"]
        with BackgroundWriter(writer, whole, backend=backend) as background:
            background.submit_batch(names, values)
            suffix = background.writer.suffix
        (torn / f"x/1{suffix}").mkdir(parents=True)
        background = BackgroundWriter(writer, torn, backend=backend, on_error="continue", run=Run(key="out", rank=2))
        background.submit_batch(names, values, origin=Origin([5, 6], loader=1, batch=7))
        with pytest.raises(WriteError):
            background.close()
        (torn / f"x/1{suffix}").rmdir()
        assert main(["replay", str(torn)]) == 0
        for file in (f"{name}{suffix}" for name in names):
            if writer == "tensor":  # PyTorch's archives have an identifier each
                assert torch.equal(torch.load(torn / file), torch.load(whole / file))
            else:
                assert (torn / file).read_bytes() == (whole / file).read_bytes()
        record = read_manifest(torn).records[1]
        assert (record.name, record.index, record.loader, record.batch) == ("x/1", 6, 1, 7)
        assert (record.rank, record.key, record.writer) == (2, "out", background.writer.name)
        assert read_manifest(torn).done(loader=1) == {5, 6}
        assert verify(torn).findings == []


# The command


@pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "writer", ["replayable:picky", pytest.param("replayable:Formats.picky", marks=pytest.mark.long)]
)
def test_after_the_cause_is_mended_all_are_written(tmp_path, broken, capsys, backend, writer):
    """They are stored and recorded, nothing is pending, and the quarantine is gone."""
    run_picky(tmp_path, SAMPLES, backend=backend, run=Run(numbered=True))
    assert main(["replay", str(tmp_path), "--writer", writer]) == 1
    out, err = capsys.readouterr()
    assert "0 of 2 values are written; 2 still in quarantine" in out
    assert "b: ValueError: no way to write 'bad 2'" in err
    assert sorted(kept(tmp_path)) == ["b", "sub/c"]
    assert list(pending(range(4), tmp_path)) == [1, 2]

    broken()
    assert main(["replay", str(tmp_path), "--writer", writer]) == 0
    assert "2 of 2 values are written; 0 still in quarantine" in capsys.readouterr().out
    assert stored(tmp_path) == {f"{name}.picky": repr(value) for name, value in SAMPLES.items()}
    assert not quarantine(tmp_path).exists()
    assert list(pending(range(4), tmp_path)) == []
    assert verify(tmp_path).findings == []

    assert main(["replay", str(tmp_path)]) == 0
    assert "0 values are in quarantine" in capsys.readouterr().out


@pytest.mark.parametrize("writer", ["write_picky", "write_picky_async"])
def test_functions_are_replayed(tmp_path, broken, writer):
    """Plain and async ones, under the names that they were given."""
    run_picky(tmp_path, SAMPLES, writer=getattr(replayable, writer), backend="auto")
    broken()
    assert main(["replay", str(tmp_path), "--writer", f"replayable:{writer}"]) == 0
    assert stored(tmp_path) == {f"{name}.out": repr(value) for name, value in SAMPLES.items()}
    assert read_manifest(tmp_path).done() == set(range(4))


def test_one_value_that_fails_again_holds_no_other_up(tmp_path, broken, monkeypatch, capsys):
    """Those behind it are written all the same."""
    run_picky(tmp_path, {"a": "bad 1", "b": "bad 2", "c": "bad 3"})
    monkeypatch.setattr(replayable, "check", lambda value: failing(value) if "2" in value else None)
    assert main(["replay", str(tmp_path), "--writer", "replayable:picky"]) == 1
    assert "2 of 3 values are written; 1 still in quarantine" in capsys.readouterr().out
    assert sorted(stored(tmp_path)) == ["a.picky", "c.picky"]
    assert list(kept(tmp_path)) == ["b"]


def test_a_writer_of_another_name_stores_for_the_one_that_failed(tmp_path, broken):
    """Otherwise its samples were a series of their own, of which nearly all were missing."""
    run_picky(tmp_path, SAMPLES)
    assert main(["replay", str(tmp_path), "--writer", "replayable:other"]) == 0
    assert stored(tmp_path)["b.picky"] == "mended 'bad 2'"
    manifest = read_manifest(tmp_path)
    assert manifest.done() == set(range(4))
    assert {run.writer for run in manifest.runs} == {"encode_picky"}
    assert replayable.other.name == "encode_other"


def test_values_of_several_writers_and_keys_go_to_their_own_series(tmp_path, broken):
    """Each is written by the writer that failed on it, where that is registered, and recorded as its."""
    for key in ("one", "two"):
        (tmp_path / f"{key}.txt").mkdir()
        background = BackgroundWriter("text", tmp_path, backend="thread", on_error="continue", run=Run(key=key))
        background.submit(key, "text", origin=Origin([0]))
        with pytest.raises(WriteError):
            background.close()
        (tmp_path / f"{key}.txt").rmdir()
    (tmp_path / "three.pt").mkdir()
    background = BackgroundWriter("tensor", tmp_path, backend="thread", on_error="continue")
    background.submit("three", torch.zeros(2), origin=Origin([0]))
    with pytest.raises(WriteError):
        background.close()
    (tmp_path / "three.pt").rmdir()
    assert main(["replay", str(tmp_path)]) == 0
    manifest = read_manifest(tmp_path)
    assert sorted(record.series for record in manifest.records) == [("tensor", ""), ("text", "one"), ("text", "two")]
    assert manifest.done() == {0}


def test_the_list_tells_what_there_is_and_why(tmp_path, broken, capsys):
    """And writes nothing, whatever the writer."""
    run_picky(tmp_path, {"a": "bad 1", "new\nline": "bad 2"})
    broken()
    assert main(["replay", str(tmp_path), "--list", "--writer", "replayable:picky"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    first, second = sorted(lines[:2])  # whichever worker was quicker
    assert first.startswith("a: ")
    assert "ValueError: no way to write 'bad 1'" in first
    assert str(kept(tmp_path)["a"].folder) in first
    assert second.startswith("new\\nline: ")
    assert lines[2] == f"2 values are in quarantine below {tmp_path}"
    assert len(kept(tmp_path)) == 2
    assert stored(tmp_path) == {}


@pytest.mark.parametrize(
    ("writer", "message"),
    [
        (None, "the writer that failed, 'encode_picky' is none that is registered here"),
        ("nonsense", "'nonsense' is none that is registered here"),
        ("replayable:nonsense", "has no 'nonsense'"),
        ("no_such_module:picky", "no module 'no_such_module'"),
        (":picky", "is no name of a writer"),
        ("replayable:", "is no name of a writer"),
        ("replayable:write_nothing", "is called with (path, value)"),
        ("replayable:BROKEN", "cannot be had"),
    ],
)
def test_a_writer_that_is_not_known_is_told_with_the_way_out(tmp_path, broken, capsys, writer, message):
    """Before anything is written, with the status of what cannot run."""
    run_picky(tmp_path, SAMPLES)
    before = (tmp_path / ".lighter-async" / "manifest-0.jsonl").read_bytes()
    assert main(["replay", str(tmp_path), *(["--writer", writer] if writer else [])]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "--writer" in err
    assert err.count("\n") == 1
    assert sorted(kept(tmp_path)) == ["b", "sub/c"]
    assert (tmp_path / ".lighter-async" / "manifest-0.jsonl").read_bytes() == before


def test_a_directory_that_is_not_there_is_told(tmp_path, capsys):
    """It is mostly a mistyped one."""
    for options in ([], ["--list"]):
        assert main(["replay", str(tmp_path / "none"), *options]) == 2
        assert "there is no directory" in capsys.readouterr().err
    assert main(["replay", str(tmp_path)]) == 0
    assert "0 values are in quarantine" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_value_whose_class_is_not_there_is_told(tmp_path, capsys, monkeypatch):
    """It stays in quarantine, and the others are written."""
    module = type(sys)("gone_later")
    exec("class Thing:\n    def __repr__(self):\n        return 'bad thing'\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "gone_later", module)
    monkeypatch.setenv(replayable.BROKEN, "1")
    run_picky(tmp_path, {"a": module.Thing(), "b": "bad 2"})
    monkeypatch.delenv(replayable.BROKEN)
    monkeypatch.delitem(sys.modules, "gone_later")
    assert main(["replay", str(tmp_path), "--writer", "replayable:picky", "--trust"]) == 1
    err = capsys.readouterr().err
    assert "a: its value cannot be loaded here (ModuleNotFoundError: No module named 'gone_later')" in err
    assert stored(tmp_path) == {"b.picky": "'bad 2'"}
    assert list(kept(tmp_path)) == ["a"]


def test_what_a_later_run_has_stored_is_not_replaced(tmp_path, broken, capsys):
    """The kept value is older, so it is dropped."""
    run_picky(tmp_path, SAMPLES)
    broken()
    run_picky(tmp_path, {"a": "new 1", "b": "new 2"}, resume=True)
    assert main(["replay", str(tmp_path), "--writer", "replayable:picky"]) == 0
    out = capsys.readouterr().out
    assert "1 value is not written, since" in out
    assert stored(tmp_path)["b.picky"] == "'new 2'"
    assert stored(tmp_path)["sub/c.picky"] == "'bad 3'"
    assert not quarantine(tmp_path).exists()


def test_records_that_no_kept_value_asks_for_are_not_made(tmp_path, broken, monkeypatch):
    """However many samples are stored beside them."""
    run_picky(tmp_path, SAMPLES | {f"n{number}": "good" for number in range(50)})
    broken()
    run_picky(tmp_path, {"b": "new 2"}, resume=True)
    monkeypatch.setattr(Records, "__iter__", lambda self: pytest.fail("all records were made"))
    assert main(["replay", str(tmp_path), "--writer", "replayable:picky"]) == 0
    assert stored(tmp_path)["b.picky"] == "'new 2'"
    assert stored(tmp_path)["sub/c.picky"] == "'bad 3'"


def test_of_a_sample_that_failed_twice_the_later_value_is_written(tmp_path, broken, capsys):
    """As after a run that was resumed before its cause was mended."""
    for attempt in range(4):
        run_picky(tmp_path, {"a": f"bad {attempt}"}, resume=attempt > 0)
    assert len(list(kept_in(tmp_path))) == 4
    broken()
    assert main(["replay", str(tmp_path), "--writer", "replayable:picky"]) == 0
    assert stored(tmp_path) == {"a.picky": "'bad 3'"}
    assert not quarantine(tmp_path).exists()
    assert "3 values are not written" in capsys.readouterr().out


def test_a_run_without_a_manifest_gets_none(tmp_path, broken):
    """One that knew the replayed samples alone would say that all others are missing."""
    background = BackgroundWriter(replayable.picky, tmp_path, on_error="continue", manifest=False)
    background.submit("a", "bad")
    with pytest.raises(WriteError):
        background.close()
    broken()
    assert main(["replay", str(tmp_path), "--writer", "replayable:picky"]) == 0
    assert stored(tmp_path) == {"a.picky": "'bad'"}
    assert not (tmp_path / ".lighter-async").exists()


def test_an_error_file_that_is_not_whole_is_told(tmp_path, broken, capsys):
    """Its value stays, and the others are written."""
    run_picky(tmp_path, SAMPLES)
    path = kept(tmp_path)["b"].folder / "error.json"
    path.write_text(path.read_text()[:20])
    assert main(["replay", str(tmp_path), "--list"]) == 1
    assert f"{path.parent} is left out" in capsys.readouterr().err
    broken()
    assert main(["replay", str(tmp_path), "--writer", "replayable:picky"]) == 1
    assert list(quarantine(tmp_path).iterdir()) == [path.parent]


@pytest.mark.long
def test_the_command_finds_modules_of_the_working_folder(tmp_path, broken):
    """Of the writer and of the values, in a process of its own, as a user calls it."""
    folder, work = tmp_path / "out", tmp_path / "work"
    work.mkdir()
    (work / "my_formats.py").write_text(Path(replayable.__file__).read_text().replace("replayable-", "mine-"))
    script = (
        "import sys\n"
        "from my_formats import Prediction, picky\n"
        "from lighter_async import BackgroundWriter\n"
        "with BackgroundWriter(picky, sys.argv[1], backend=sys.argv[2], on_error='continue') as writer:\n"
        "    writer.submit(sys.argv[2], Prediction('bad', 0.5))\n"
    )
    (work / "job.py").write_text(script)
    for backend in ("thread", "process"):
        job = subprocess.run(
            [sys.executable, "job.py", str(folder), backend], cwd=work, capture_output=True, text=True, timeout=60
        )
        assert "1 values are kept" in job.stderr or "value is kept" in job.stderr
    assert len(kept(folder)) == 2
    broken()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [
        sys.executable,
        "-m",
        "lighter_async.cli",
        "replay",
        str(folder),
        "--trust",
        "--writer",
        "my_formats:picky",
    ]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 values are written" in done.stdout
    text = "Prediction(label='bad', score=0.5)"
    assert stored(folder) == {"thread.picky": text, "process.picky": text}


def test_error_files_are_json(tmp_path, broken):
    """So that other programs can look at what is kept, whatever the name is."""
    run_picky(tmp_path, {'quo"ted ü\n': "bad"})
    (folder,) = quarantine(tmp_path).iterdir()
    about = json.loads((folder / "error.json").read_text())
    assert about["name"] == 'quo"ted ü\n'
    assert sorted(path.name for path in folder.iterdir()) == ["error.json", "value.pt"]


def test_values_of_a_run_before_one_that_began_anew_are_left_alone(tmp_path, broken, capsys):
    """They would count as that one's results."""
    run_picky(tmp_path, {"a": "bad", "b": "good"})
    broken()
    with BackgroundWriter(replayable.picky, tmp_path, backend="thread") as writer:
        writer.submit("c", "other", origin=Origin([2]))
    assert main(["replay", str(tmp_path), "--writer", "replayable:picky"]) == 0
    assert "began anew" in capsys.readouterr().out
    assert "a.picky" not in stored(tmp_path)
    assert list(kept(tmp_path)) == ["a"]
    assert list(pending(range(3), tmp_path, names="abc")) == [0, 1]


@pytest.mark.parametrize("manifest", [True, False])
def test_a_newer_file_is_not_replaced_whoever_stored_it(tmp_path, broken, manifest):
    """A writer of another name, or one without a manifest."""
    background = BackgroundWriter(
        replayable.picky, tmp_path, backend="thread", on_error="continue", manifest=manifest, resume=manifest
    )
    background.submit("a", "bad old")
    with pytest.raises(WriteError):
        background.close()
    broken()
    mended = Encoder(replayable.encode_picky, suffix=".picky", name="mended")
    with BackgroundWriter(mended, tmp_path, backend="thread", manifest=manifest, resume=manifest) as writer:
        writer.submit("a", "new")
    assert main(["replay", str(tmp_path), "--writer", "replayable:picky"]) == 0
    assert stored(tmp_path)["a.picky"] == "'new'"
    assert kept(tmp_path) == {}
