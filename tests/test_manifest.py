"""The manifest: what its lines say, when they are written, and what is read of them."""

import json
import os
import subprocess
import sys
import threading
from collections import namedtuple

import numpy as np
import pytest
import torch
import xxhash
from harness import Gate

from lighter_async import (
    BackgroundWriter,
    LighterAsyncError,
    LocalTarget,
    Origin,
    Run,
    WriteError,
    open_results,
    pending,
    read_manifest,
)
from lighter_async.cli import main
from lighter_async.manifest.line import FORMAT
from lighter_async.manifest.log import ManifestLog
from lighter_async.names import with_suffix

pytestmark = pytest.mark.usefixtures("one_core")

Pair = namedtuple("Pair", "first second")


def manifest_of(folder, rank=0):
    return folder / ".lighter-async" / f"manifest-{rank}.jsonl"


def lines_of(folder, rank=0):
    """Every line, by plain json."""
    return [json.loads(line) for line in manifest_of(folder, rank).read_text().split("\n")[:-1]]


def samples_of(folder, rank=0):
    """What the lines of samples say by plain json, by the sample's name."""
    found = {}
    for line in lines_of(folder, rank):
        if "samples" in line:
            found.update({sample["name"]: sample for sample in each_sample(line)})
    return found


def each_sample(line):
    """What a line says of each of its samples."""
    count, (output,) = line["samples"], line["outputs"]
    for number in range(count):
        name, index = (
            entry
            if entry is None
            else entry[number]
            if isinstance(entry, list)
            else entry["start"] + number * entry["step"]
            for entry in (line["names"], line["index"])
        )
        is_known = "suffix" in output
        size = output.get("bytes")
        yield {
            **{key: line[key] for key in ("rank", "loader", "batch", "time", "run")},
            **{key: output[key] for key in ("writer", "key")},
            "name": str(name),
            "index": index,
            "file": with_suffix(str(name), output["suffix"]) if is_known else None,
            "bytes": size[number] if isinstance(size, list) else size,
            "xxh3": output["xxh3"][16 * number :][:16] if is_known else None,
            "shape": output.get("shape"),
            "dtype": output.get("dtype"),
        }


def store(folder, names, *, indices=None, text="text", writer="text", loader=0, batch=None, **options):
    with BackgroundWriter(writer, folder, backend="thread", max_workers=1, **options) as background:
        background.submit_batch(
            list(names), [f"{text} {name}" for name in names], origin=Origin(indices, loader=loader, batch=batch)
        )


class GatedLocal(LocalTarget):
    """A directory behind a gate."""

    def __init__(self, directory, gate, **options):
        super().__init__(directory, **options)
        self.gate = gate

    def put(self, name, parts):
        self.gate.passing(name)
        return super().put(name, parts)


def says_truth(folder, line):
    """Whether a line's size and checksum are those of its file."""
    data = (folder / line["file"]).read_bytes()
    return (line["bytes"], line["xxh3"]) == (len(data), xxhash.xxh3_64_hexdigest(data))


# What a line says

BATCHES = {
    "rows": ("tensor", torch.arange(12.0).reshape(3, 4), [("float32", [4])] * 3),
    "bfloat16": ("tensor", torch.zeros(2, 1, 2, dtype=torch.bfloat16), [("bfloat16", [1, 2])] * 2),
    "scalars": ("tensor", torch.arange(3), [("int64", [])] * 3),
    "images": ("image_2d", torch.zeros(2, 3, 8, 9, dtype=torch.uint8), [("uint8", [3, 8, 9])] * 2),
    "texts": ("text", ["a", "", "ü\n"], [(None, None)] * 3),
    "shapes": ("tensor", [torch.zeros(2), torch.zeros(3, 1, dtype=torch.int8)], [("float32", [2]), ("int8", [3, 1])]),
    "arrays": ("tensor", [np.zeros((2, 2)), np.zeros(1, ">i2")], [("float64", [2, 2]), (">i2", [1])]),
    "array of rows": ("tensor", np.zeros((2, 5), np.float16), [("float16", [5])] * 2),
    "empty": ("tensor", torch.zeros(2, 0), [("float32", [0])] * 2),
    "nested": (
        "tensor",
        [{"a": torch.zeros(2), "b": [1, (torch.ones(1),)]}, Pair(1, torch.ones(2))],
        [(None, None)] * 2,
    ),
    "sparse": ("tensor", [torch.eye(3).to_sparse()], [(None, None)]),
    "objects": ("tensor", [None, 3, {"x": "y"}], [(None, None)] * 3),
}


@pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", BATCHES)
def test_a_line_tells_what_was_stored(tmp_path, backend, kind):
    """Name, file, size, checksum, shape, dtype and where it comes from, whatever the value."""
    writer, values, expected = BATCHES[kind]
    names = [f"{kind}/{number}" for number in range(len(expected))]
    run = Run(id="r", rank=2, world_size=3, key="the key")
    with BackgroundWriter(writer, tmp_path, backend=backend, max_workers=1, run=run) as background:
        background.submit_batch(names, values, origin=Origin(range(7, 7 + len(names)), loader=1, batch=5))
        assert background.backend == backend
    lines = samples_of(tmp_path, rank=2)
    assert list(lines) == names
    for position, ((name, line), (dtype, shape)) in enumerate(zip(lines.items(), expected, strict=True)):
        assert says_truth(tmp_path, line)
        assert line["file"] == name + background.writer.suffix
        assert (line["dtype"], line["shape"]) == (dtype, shape)
        assert (line["rank"], line["loader"], line["batch"], line["index"]) == (2, 1, 5, 7 + position)
        assert (line["run"], line["writer"], line["key"]) == (run.id, background.writer.name, "the key")
        assert abs(line["time"] - os.stat(tmp_path / line["file"]).st_mtime) < 60


@pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.long)])
def test_of_a_path_function_only_the_name_is_known(tmp_path, backend):
    """It may write any files, so there is no file, size or checksum, but the value's shape."""

    def write_it(path, value):
        path.write_bytes(value.numpy().tobytes())

    with BackgroundWriter(write_it, tmp_path, backend=backend, max_workers=1) as background:
        background.submit("a", torch.zeros(2, 3), origin=Origin([4]))
    line = samples_of(tmp_path)["a"]
    assert (line["file"], line["bytes"], line["xxh3"]) == (None, None, None)
    assert (line["shape"], line["dtype"], line["index"], line["writer"]) == ([2, 3], "float32", 4, "write_it")


def test_without_an_origin_only_the_index_is_unknown(tmp_path):
    """Such a sample is of the first loader."""
    with BackgroundWriter("text", tmp_path) as background:
        background.submit("a", "b")
    line = samples_of(tmp_path)["a"]
    assert (line["index"], line["loader"], line["batch"]) == (None, 0, None)


STRANGE = [
    '"quoted"',
    "back\\slash",
    "new\nline",
    "tab\t",
    "ünïcode/日本",
    "\u2028 sep",
    "🎉",
    "a/b c/d",
    "\udcff bytes",
    "{}",
]


@pytest.mark.skipif(os.name != "posix", reason="such names are no file names there")
@pytest.mark.parametrize("backend", ["thread", "process"])
def test_names_come_back_as_they_were(tmp_path, backend):
    """A line stays one line whatever the name holds, and so do the run's own words."""
    run = Run(id='run "1"\n', key='k"e\ny')
    with BackgroundWriter("text", tmp_path, backend=backend, run=run) as background:
        background.submit_batch(STRANGE, ["x"] * len(STRANGE), origin=Origin(range(len(STRANGE))))
    assert len(samples_of(tmp_path)) == len(STRANGE)
    manifest = read_manifest(tmp_path)
    assert manifest.torn == 0
    assert [record.name for record in manifest.records] == STRANGE
    assert {(record.run, record.key) for record in manifest.records} == {(run.id, run.key)}
    assert manifest.done() == set(range(len(STRANGE)))
    assert main(["verify", str(tmp_path)]) == 0


@pytest.mark.parametrize("make", [list, np.array, torch.tensor], ids=["list", "array", "tensor"])
def test_the_callers_indices_may_change_at_once(tmp_path, make):
    """They are the caller's, who fills them anew for the next batch while this one waits."""
    gate = Gate()
    gate.shut()
    indices = make([3, 4])
    with BackgroundWriter("text", target=GatedLocal(tmp_path, gate), backend="thread", max_workers=1) as background:
        background.submit_batch(["a", "b"], ["x", "y"], origin=Origin(indices))
        indices[0], indices[1] = 8, 9
        gate.release()
    assert [line["index"] for line in samples_of(tmp_path).values()] == [3, 4]


def test_many_threads_write_whole_lines(tmp_path):
    """Any JSON reader that goes by lines can read what several threads have written at once."""
    count = 400
    with BackgroundWriter("text", tmp_path, backend="thread", max_workers=8, queue_size=64) as background:
        for number in range(count):
            background.submit(str(number), str(number), origin=Origin([number]))
    lines = manifest_of(tmp_path).read_text().split("\n")
    assert lines.pop() == ""
    assert "" not in lines
    assert len(lines) == 1 + count
    assert read_manifest(tmp_path).done() == set(range(count))


def test_manifest_false_writes_none(tmp_path):
    """The directory holds results alone."""
    for backend in ("thread", "process"):
        with BackgroundWriter("text", tmp_path, backend=backend, manifest=False) as background:
            background.submit(backend, "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["process.txt", "thread.txt"]
    assert len(read_manifest(tmp_path)) == 0


# When a line is there


def test_a_sample_is_recorded_once_it_is_stored(tmp_path):
    """While its file is being written there is no line of it, and of those before it there is."""
    gate = Gate()
    with BackgroundWriter("text", target=GatedLocal(tmp_path, gate), backend="thread", max_workers=1) as background:
        background.submit("a", "x")
        background.flush()
        gate.shut()
        background.submit("b", "y")
        gate.wait_entered(2)
        assert list(samples_of(tmp_path)) == ["a"]
        gate.release()
        background.flush()
        assert list(samples_of(tmp_path)) == ["a", "b"]


def test_a_file_that_is_seen_recorded_is_whole(tmp_path):
    """Whoever reads the manifest while samples are stored finds every file that it tells of, as it tells."""
    stop = threading.Event()
    wrong = []

    def look():
        while not stop.is_set():
            for record in read_manifest(tmp_path).records:
                if not (tmp_path / record.file).is_file() or (tmp_path / record.file).stat().st_size != record.bytes:
                    wrong.append(record)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        with BackgroundWriter("text", tmp_path, backend="process", max_workers=2) as background:
            for number in range(200):
                background.submit(str(number), "x" * number * 50)
    finally:
        stop.set()
        reader.join(30)
    assert wrong == []
    assert len(read_manifest(tmp_path)) == 200


@pytest.mark.parametrize("durability", ["rename", "fsync"])
@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_failed_sample_has_no_line(tmp_path, backend, durability):
    """Those of its batch that are stored have one."""
    (tmp_path / "b.txt").mkdir()
    background = BackgroundWriter("text", tmp_path, backend=backend, max_workers=1, durability=durability)
    background.submit_batch(["a", "b", "c"], ["x", "y", "z"], origin=Origin([0, 1, 2]))
    with pytest.raises(WriteError, match="'b'"):
        background.close()
    assert list(samples_of(tmp_path)) == ["a", "c"]
    assert read_manifest(tmp_path).done() == {0, 2}


def test_a_value_that_no_encoder_takes_has_no_line(tmp_path):
    """It fails before there is anything to store."""
    background = BackgroundWriter("image_2d", tmp_path)
    background.submit("a", "no image", origin=Origin([0]))
    with pytest.raises(WriteError):
        background.close()
    assert samples_of(tmp_path) == {}


def test_a_skipped_sample_is_recorded_by_its_own_run_alone(tmp_path):
    """What the earlier run said of the file holds on."""
    store(tmp_path, ["a"], text="first", indices=[0])
    before = samples_of(tmp_path)
    store(tmp_path, ["a"], text="second", indices=[0], if_exists="skip")
    assert samples_of(tmp_path) == before


def test_a_run_that_keeps_what_there_is_adds_to_it(tmp_path):
    """What it skips, and what it was not given, counts on, as for a run that resumes; not what has been superseded."""
    store(tmp_path, ["a", "b"], text="first", indices=[0, 1])
    store(tmp_path, ["b", "c"], text="second", indices=[1, 2])
    store(tmp_path, ["c", "d"], text="third", indices=[2, 3], if_exists="skip")
    results = open_results(tmp_path)
    assert {name: results[name] for name in results} == {"b": "second b", "c": "second c", "d": "third d"}
    assert list(pending(range(5), tmp_path, names=list("abcde"))) == [0, 4]


# Lines that are not whole


@pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.long)])
def test_a_torn_line_costs_its_own_samples_alone(tmp_path, backend):
    """Wherever a crash cut the last line off: it does not count, and what the next writer records does."""
    with BackgroundWriter("text", tmp_path, backend="thread", max_workers=1) as background:
        background.submit("a", "x", origin=Origin([0]))
        background.flush()
        background.submit("b", "x", origin=Origin([1]))
    whole = manifest_of(tmp_path).read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last + 1, len(whole), 1 if backend == "thread" else 40):
        manifest_of(tmp_path).write_bytes(whole[:cut])
        torn = read_manifest(tmp_path)
        assert (torn.done(), torn.torn) == ({0}, 1)

        with BackgroundWriter("text", tmp_path, backend=backend, max_workers=1, resume=True) as background:
            background.submit("c", "x", origin=Origin([2]))
        manifest = read_manifest(tmp_path)
        # All but its end is a whole line, once the next writer has ended it.
        is_whole = cut == len(whole) - 1
        assert manifest.done() == ({0, 1, 2} if is_whole else {0, 2})
        assert manifest.torn == (0 if is_whole else 1)
        assert len(manifest.runs) == 2


def test_a_torn_header_costs_the_samples_of_no_run_but_its_own(tmp_path):
    """A crash right after a run's beginning leaves those before it done."""
    store(tmp_path, ["a"], indices=[0])
    with open(manifest_of(tmp_path), "a") as file:
        file.write('{"format":1,"run":"half')
    assert read_manifest(tmp_path).done() == {0}
    store(tmp_path, ["b"], indices=[1], resume=True)
    assert read_manifest(tmp_path).done() == {0, 1}


@pytest.mark.parametrize("line", ["5", "[]", '"text"', "null", "{}", '{"name":"a"}', "\0\0\0", "\u00e9"])
def test_lines_that_say_nothing_are_torn(tmp_path, line):
    """Whatever stands there instead of a record, as zeros do after a loss of power."""
    store(tmp_path, ["a"], indices=[0])
    with open(manifest_of(tmp_path), "a") as file:
        file.write(line + "\n")
    manifest = read_manifest(tmp_path)
    assert (manifest.done(), manifest.torn) == ({0}, 1)


def test_half_a_write_is_made_up_for(tmp_path, monkeypatch):
    """Where the system takes a part only, all lines are written again, and another's lines may come between."""
    write, short = os.write, [30]

    def write_some(descriptor, data):
        if short and os.readlink(f"/proc/self/fd/{descriptor}").endswith(".jsonl") and b'"names"' in bytes(data):
            written = write(descriptor, bytes(data)[: short.pop()])
            other = ManifestLog(tmp_path, Run(), writer="text", resume=True)
            other.begin(0)
            other.close()
            return written
        return write(descriptor, data)

    with BackgroundWriter("text", tmp_path, backend="thread", max_workers=1) as background:
        monkeypatch.setattr(os, "write", write_some)
        background.submit_batch(["a", "b"], ["x", "y"], origin=Origin([0, 1]))
    monkeypatch.undo()
    manifest = read_manifest(tmp_path)
    assert (manifest.done(), manifest.torn, len(manifest.runs)) == ({0, 1}, 1, 2)


def test_a_later_format_is_refused(tmp_path):
    """An old reader must not take a part of it for all."""
    store(tmp_path, ["a"])
    with open(manifest_of(tmp_path), "a") as file:
        file.write(json.dumps({"format": FORMAT + 1, "anything": "else"}) + "\n")
    with pytest.raises(LighterAsyncError, match=f"format {FORMAT + 1}.*upgrade"):
        read_manifest(tmp_path)
    assert main(["manifest", str(tmp_path)]) == 2
    assert main(["verify", str(tmp_path)]) == 2


# Reading it


def test_ranks_are_merged_in_the_data_sets_order(tmp_path):
    """By loader and index, whoever stored them, and in which order."""
    run = {"id": "one", "world_size": 3}
    for loader in (1, 0):
        for rank in (2, 0, 1):
            indices = list(range(rank, 9, 3))[::-1]
            names = [f"{loader}/{index}" for index in indices]
            options = {"run": Run(rank=rank, **run), "resume": loader == 0}
            store(tmp_path, names, indices=indices, loader=loader, **options)
    store(tmp_path, ["none"], resume=True)
    manifest = read_manifest(tmp_path)
    assert [(record.loader, record.index) for record in manifest.records] == [
        *((0, index) for index in range(9)),
        (0, None),
        *((1, index) for index in range(9)),
    ]
    assert {record.rank for record in manifest.records} == {0, 1, 2}
    assert manifest.done(loader=1) == set(range(9))
    assert manifest.done() == set(range(9))
    assert manifest.done(loader=2) == set()
    assert len(manifest) == 19


def test_the_latest_line_of_a_file_counts(tmp_path):
    """Of several that stored it one after the other, on whichever rank."""
    for number, rank in enumerate([1, 0, 1, 2]):
        store(tmp_path, ["a"], text=str(number), indices=[0], resume=True, run=Run(rank=rank))
        (record,) = read_manifest(tmp_path).records
        assert record.rank == rank
        assert record.xxh3 == xxhash.xxh3_64_hexdigest((tmp_path / "a.txt").read_bytes())


def test_a_clock_that_was_set_back_changes_nothing_within_a_rank(tmp_path):
    """There the later line is the later one."""
    store(tmp_path, ["a"], text="first", indices=[0])
    lines = lines_of(tmp_path)
    lines[1]["time"] += 3600
    manifest_of(tmp_path).write_text("".join(json.dumps(line) + "\n" for line in lines))
    store(tmp_path, ["a"], text="second", indices=[0], resume=True)
    (record,) = read_manifest(tmp_path).records
    assert record.bytes == len("second a")


def test_what_was_done_before_a_run_that_does_not_resume_is_to_do_again(tmp_path):
    """The files of before stay known, but they do not count as done."""
    store(tmp_path, ["0", "1"], indices=[0, 1])
    store(tmp_path, ["2"], indices=[2], resume=True)
    assert read_manifest(tmp_path).done() == {0, 1, 2}
    store(tmp_path, ["1"], indices=[1])
    manifest = read_manifest(tmp_path)
    assert manifest.done() == {1}
    assert manifest.names() == {"1"}
    assert len(manifest) == 3
    store(tmp_path, ["0"], indices=[0], resume=True)
    assert read_manifest(tmp_path).done() == {0, 1}


def test_a_run_that_begins_afresh_does_so_before_its_first_sample(tmp_path):
    """Its header is enough."""
    store(tmp_path, ["0"], indices=[0])
    with BackgroundWriter("text", tmp_path):
        pass
    assert read_manifest(tmp_path).done() == set()


def test_the_ranks_of_a_run_that_does_not_resume_do_not_undo_each_other(tmp_path):
    """A rank that comes late counts with those that began before it."""
    for rank in (0, 1):
        store(tmp_path, [str(rank)], indices=[rank], run=Run(id="one", rank=rank, world_size=2))
    assert read_manifest(tmp_path).done() == {0, 1}


@pytest.mark.parametrize("same_run", [False, True])
def test_a_sample_is_done_if_all_series_have_it(tmp_path, same_run):
    """Two writers in one directory, of runs of their own or of one, are told apart."""
    text, tensor = (Run(id="one"), Run(id="one")) if same_run else (Run(), Run())
    with (
        BackgroundWriter("text", tmp_path, run=text) as texts,
        BackgroundWriter("tensor", tmp_path, run=tensor) as tensors,
    ):
        texts.submit_batch(["0", "1"], ["a", "b"], origin=Origin([0, 1]))
        tensors.submit_batch(["1", "2"], torch.zeros(2, 1), origin=Origin([1, 2]))
    manifest = read_manifest(tmp_path)
    assert manifest.done() == {1}
    assert manifest.done(writer="text") == {0, 1}
    assert manifest.done(writer="tensor") == {1, 2}
    assert manifest.done(writer="image_2d") == set()
    assert manifest.names(writer="text") == {"0", "1"}
    # One that begins afresh leaves the other as it is.
    store(tmp_path, ["5"], indices=[5])
    assert read_manifest(tmp_path).done(writer="tensor") == {1, 2}
    assert read_manifest(tmp_path).done(writer="text") == {5}


@pytest.mark.parametrize("same_run", [False, True])
def test_series_of_one_writer_are_told_apart_by_their_keys(tmp_path, same_run):
    """Such as two outputs of a model that are both written as text."""
    for key, indices in (("first", [0, 1]), ("second", [1, 2])):
        run = Run(id="one", key=key) if same_run else Run(key=key)
        store(tmp_path, [f"{key}/{index}" for index in indices], indices=indices, run=run)
    manifest = read_manifest(tmp_path)
    assert manifest.done() == {1}
    assert manifest.done(key="first") == {0, 1}
    assert manifest.names(key="second") == {"second/1", "second/2"}


def test_functions_that_write_the_same_names_are_series_too(tmp_path):
    """What one has written does not take the place of what the other has."""

    def first(path, value):
        path.with_suffix(".a").write_text(value)

    def second(path, value):
        path.with_suffix(".b").write_text(value)

    for function, indices in ((first, [0, 1]), (second, [0])):
        store(tmp_path, [str(index) for index in indices], indices=indices, writer=function)
    manifest = read_manifest(tmp_path)
    assert manifest.done(writer="first") == {0, 1}
    assert manifest.done(writer="second") == {0}


def test_a_directory_without_a_manifest_gives_an_empty_one(tmp_path):
    """Of one that is not there nothing is said either."""
    for folder in (tmp_path, tmp_path / "none"):
        manifest = read_manifest(folder)
        assert (len(manifest), manifest.runs, manifest.done(), manifest.names()) == (0, [], set(), set())
        assert len(manifest.to_pandas()) == 0
        assert manifest.to_arrow().num_rows == 0


def test_other_files_beside_it_are_no_manifests(tmp_path):
    """Such as a copy that an editor has left."""
    store(tmp_path, ["a"])
    for name in ("manifest-0.jsonl~", "manifest-x.jsonl", "manifest-0.json", "xmanifest-0.jsonl"):
        manifest_of(tmp_path).with_name(name).write_text("nothing\n")
    assert read_manifest(tmp_path).torn == 0


def test_tables_have_a_row_for_each_record(tmp_path):
    """Both kinds say the same as the records."""
    with BackgroundWriter("tensor", tmp_path) as background:
        background.submit_batch(["a", "b"], torch.zeros(2, 3, 4), origin=Origin([1, 0], batch=3))
        background.submit("c", {"no": "tensor"})
    manifest = read_manifest(tmp_path)
    frame, table = manifest.to_pandas(), manifest.to_arrow()
    assert list(frame["name"]) == table.column("name").to_pylist() == ["b", "a", "c"]
    assert list(frame.columns) == table.column_names
    assert table.column("shape").to_pylist() == [[3, 4], [3, 4], None]
    assert table.column("index").to_pylist() == [0, 1, None]
    assert frame["bytes"].sum() == sum(path.stat().st_size for path in tmp_path.glob("*.pt"))
    assert frame.loc[0, "xxh3"] == table.column("xxh3")[0].as_py() == manifest.records[0].xxh3
    assert list(frame["dtype"][:2]) == ["float32", "float32"]


# The command


def test_the_command_prints_json_lines_in_order(tmp_path, capsys):
    """One line per sample, as its record says."""
    store(tmp_path, ["b", "a"], indices=[1, 0])
    assert main(["manifest", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["a", "b"]
    assert err == ""


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_the_command_writes_tables(tmp_path, ending):
    """Each format is read back by pandas with all rows."""
    import pandas

    out, table = tmp_path / "out", tmp_path / f"table.{ending}"
    names = ["plain", "with, comma", 'and "quotes"', "new\nline", "ünï"]
    with BackgroundWriter("tensor", out) as background:
        background.submit_batch(names, torch.zeros(5, 2, 3), origin=Origin(range(5)))
    assert main(["manifest", str(out), "--output", str(table)]) == 0
    reads = {"csv": pandas.read_csv, "parquet": pandas.read_parquet}
    frame = pandas.read_json(table, lines=True) if ending == "jsonl" else reads[ending](table)
    assert list(frame["name"]) == names
    assert list(frame["index"]) == list(range(5))
    shape = frame["shape"][0]
    assert list(json.loads(shape) if isinstance(shape, str) else shape) == [2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "is no directory; give the directory that the results were written to"),
        (["."], "has no manifest; give the directory that the results were written to"),
        (["out", "--output", "table.xlsx"], ".csv, .parquet, .jsonl"),
        (["out", "--output", "none/table.csv"], "No such file or directory"),
    ],
)
def test_the_command_says_what_it_cannot_do(tmp_path, monkeypatch, capsys, arguments, message):
    """One line, the status of what cannot run, and nothing on stdout."""
    monkeypatch.chdir(tmp_path)
    store(tmp_path / "out", ["a"])
    assert main(["manifest", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="such names are no file names there")
def test_names_of_no_encoding_are_written_where_that_can_be(tmp_path, capsys):
    """As their bytes to CSV, escaped to JSON, and not at all to Parquet, which is told."""
    with BackgroundWriter("text", tmp_path / "out") as background:
        background.submit("\udcff", "text")
    for ending, status in (("csv", 0), ("jsonl", 0), ("parquet", 2)):
        assert main(["manifest", str(tmp_path / "out"), "--output", str(tmp_path / f"table.{ending}")]) == status
    assert b"\xff" in (tmp_path / "table.csv").read_bytes()
    assert json.loads((tmp_path / "table.jsonl").read_text())["name"] == "\udcff"
    assert "choose .jsonl" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path):
    """As where the output goes to head."""
    store(tmp_path, [str(number) for number in range(3000)])
    command = [sys.executable, "-m", "lighter_async.cli", "manifest", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert b'"name":' in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_a_relative_directory_is_that_of_the_start_for_files_and_manifest_alike(tmp_path, monkeypatch):
    """A script may change its working folder between the two."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    writer = BackgroundWriter("text", "out", backend="thread")
    monkeypatch.chdir(tmp_path / "other")
    with writer:
        writer.submit("a", "b")
    assert list((tmp_path / "one").iterdir()) == []
    assert [record.file for record in read_manifest("out").records] == ["a.txt"]
