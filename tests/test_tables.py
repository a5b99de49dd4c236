"""All samples of a run as rows of one table: typed, in order, resumable, readable at every moment."""

import asyncio
import csv
import enum
import io
import json
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import numpy as np
import pandas
import polars
import pyarrow.parquet
import pytest
import torch
from harness import DEADLINE
from killing import run_kills
from lightning_models import both_packages, lightning_warnings, make_trainer
from sent_to_helpers import DyingTable
from tables_script import NAME, ROWS, check_whole, columns_of, name_of, row_of, store, table_at, whole
from torch.utils.data import DataLoader

from lighter_async import (
    AsyncBackgroundWriter,
    BackgroundWriter,
    CsvWriter,
    DuplicateNameError,
    FileWriter,
    NameTakenError,
    Origin,
    ReadError,
    Run,
    TableTarget,
    TableWriter,
    TarShards,
    WriteError,
    open_results,
    pending,
    read_manifest,
)
from lighter_async.cli import main
from lighter_async.locks.flock import NoLocks
from lighter_async.manifest.verify import verify
from lighter_async.table_row import decode_row
from lighter_async.writers.registry import encoder_of

pytestmark = [lightning_warnings, pytest.mark.usefixtures("one_core")]

FORMATS = ["csv", "jsonl", "parquet"]


@pytest.fixture(scope="module")
def _polars_threads():
    """polars starts threads that stay, which no test is to be blamed for."""
    polars.read_csv(io.BytesIO(b"a\n1\n"))


def write(target, values, names=None, indices=None, **options):
    with BackgroundWriter(target=target, **{"backend": "thread", "max_workers": 1, **options}) as writer:
        writer.submit_batch(names, values, origin=None if indices is None else Origin(indices))
    return writer


def cause_of(write_error):
    (failure,) = write_error.value.failures
    return failure.cause


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# What is in a table


@pytest.mark.parametrize(
    ("backend", "durability"),
    [
        *(("thread", "rename"), ("process", "fsync")),
        *(pytest.param(*other, marks=pytest.mark.long) for other in (("thread", "fsync"), ("process", "rename"))),
    ],
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_stand_in_the_order_of_the_data_set(tmp_path, suffix, backend, durability):
    """Whatever worker stores them, and in whatever order they come."""
    path = tmp_path / f"t.{suffix}"
    with BackgroundWriter(target=TableTarget(path, durability=durability), backend=backend, max_workers=2) as writer:
        for some in (range(8, ROWS), range(4), range(4, 8)):
            writer.submit_batch([name_of(index) for index in some], columns_of(some), origin=Origin(some))
    assert writer.stats().written == ROWS
    assert table_at(path) == whole()
    assert [one.name for one in tmp_path.iterdir() if not one.name.startswith(".")] == [path.name]
    results = open_results(path)
    assert [results.at(index) for index in range(ROWS)] == [row_of(index) for index in range(ROWS)]


VALUES = {
    "texts": (["007", "NA", 'a "quoted", one\nof two lines', "", " ", "ä𝄞"], "text"),
    "bools": ([True, False, True, True, False, None], "bool"),
    "whole": ([1, -(2**63), 2**63 - 1, 0, None, 5], "int64"),
    "floats": ([0.1, -1e300, 5e-324, float("inf"), None, -0.0], "float64"),
    "single": (np.float32([0.1, 1e-30, 3.4e38, 2, -1, 0]), "float32"),
    "half": (torch.tensor([0.1, 1, 2, 3, 4, 5]).half(), "float32"),
    "brain": (torch.tensor([0.1, 1, 2, 3, 4, 5]).bfloat16(), "float32"),
    "bytes": (torch.arange(250, 256, dtype=torch.uint8), "uint8"),
    "unsigned": (np.uint64([2**64 - 1, 0, 1, 2, 3, 4]), "uint64"),
    "vectors": (torch.arange(12).reshape(6, 2).float() / 8, "list<float32>"),
    "matrices": (np.arange(24, dtype=np.int16).reshape(6, 2, 2), "list<list<int16>>"),
    "empty": (torch.zeros(6, 0), "list<float32>"),
    "lists": ([[1, 2], [], [3], [4], None, [5]], "list<int64>"),
    "lists of texts": ([["a", "b,"], [], ["x"], ['"'], ["y"], ["z"]], "list<text>"),
    "strings": (np.array(["a", "b", "", "d", "e", "f"]), "text"),
}


def plain(value):
    """A value as Python has it."""
    return value.tolist() if hasattr(value, "tolist") else value


@pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", VALUES)
def test_every_kind_of_value_is_read_back_as_it_was(tmp_path, kind, backend):
    """By `open_results`, and by pyarrow from Parquet with the type it had."""
    values, expected = VALUES[kind]
    path = tmp_path / "t.parquet"
    write(TableTarget(path), {"v": values}, list("abcdef"), range(6), backend=backend)
    wanted = [plain(value) for value in (values.float() if kind in ("half", "brain") else values)]
    assert [plain(value["v"]) for value in open_results(path).values()] == wanted
    table = pyarrow.parquet.read_table(path)
    assert table["v"].to_pylist() == wanted
    names = str(table.schema.field("v").type).replace("string", "text").replace("double", "float64")
    names = names.replace("element: ", "").replace("item: ", "").replace("float>", "float32>")
    assert {"float": "float32"}.get(names, names) == expected
    assert open_results(path).to_arrow().equals(table)


def test_half_precision_is_widened_without_loss(tmp_path):
    """No format here has bfloat16, and not all readers have float16."""
    values = torch.tensor([1e-7, 65504, 0.333]).half()
    write(TableTarget(tmp_path / "t.parquet"), {"v": values}, None, range(3))
    assert torch.equal(torch.tensor(pandas.read_parquet(tmp_path / "t.parquet")["v"].to_numpy()), values.float())


def test_cells_of_csv_are_written_as_they_are(tmp_path):
    """So that "007" is not 7, nothing is told from an empty text, and a list is JSON."""
    rows = [
        {"id": "007", "note": "NA", "v": [1, 2], "x": 0.1, "b": True},
        {"id": "", "note": None, "v": [], "x": float("nan"), "b": False},
        {"id": 'say "a,b"\n', "note": "ü", "v": [0.5], "x": float("-inf"), "b": None},
    ]
    with pytest.raises(WriteError, match="v"):  # lists of whole numbers and of others do not go together
        write(TableTarget(tmp_path / "bad.csv"), rows, ["a", "b", "c"])
    rows[0]["v"] = [1.0, 2.0]
    write(TableTarget(tmp_path / "t.csv"), rows, ["a", "b", "c"], range(3))
    assert (tmp_path / "t.csv").read_text() == (
        'index,name,id,note,v,x,b\n0,a,007,NA,"[1.0,2.0]",0.1,true\n1,b,"",,[],nan,false\n'
        '2,c,"say ""a,b""\n",ü,[0.5],-inf,\n'
    )


def test_lines_of_json_are_json(tmp_path):
    """Which has no NaN: it is null there, and NaN still where the results are opened."""
    rows = [{"x": float("nan"), "v": np.float32([0.1, np.inf])}, {"x": 1.5, "v": None, "t": 'a"\n'}]
    write(TableTarget(tmp_path / "t.jsonl"), rows, ["a", "b"])
    text = (tmp_path / "t.jsonl").read_text()
    assert text == '{"name":"a","x":null,"v":[0.1,null],"t":null}\n{"name":"b","x":1.5,"v":null,"t":"a\\"\\n"}\n'
    assert [json.loads(line)["name"] for line in text.splitlines()] == ["a", "b"]
    back = open_results(tmp_path / "t.jsonl")["a"]
    assert np.isnan(back["x"])
    assert np.array_equal(back["v"], rows[0]["v"])


@pytest.mark.usefixtures("_polars_threads")
@pytest.mark.parametrize("reader", ["pandas", "polars", "duckdb"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_the_packages_that_people_use_read_it(tmp_path, suffix, reader):
    """The same rows, with the same types as far as the format has them."""
    path = tmp_path / f"t.{suffix}"
    values = {
        "n": torch.tensor([3, 2, 1]),
        "x": torch.tensor([0.5, 0.25, 1]),
        "t": ["a", "b,c", "ü"],
        "b": [True, False, True],
    }
    write(TableTarget(path), values, ["c.1", "c.2", "c.3"], range(3))
    wanted = [
        {"index": number, "name": f"c.{number + 1}", "n": 3 - number, "x": x, "t": t, "b": b}
        for number, (x, t, b) in enumerate(zip([0.5, 0.25, 1], values["t"], values["b"], strict=True))
    ]
    if reader == "pandas":
        frame = {"csv": pandas.read_csv, "parquet": pandas.read_parquet}.get(
            suffix, lambda path: pandas.read_json(path, lines=True)
        )(path)
        found = frame.to_dict("records")
    elif reader == "polars":
        found = {"csv": polars.read_csv, "parquet": polars.read_parquet, "jsonl": polars.read_ndjson}[suffix](
            path
        ).to_dicts()
    else:
        with duckdb.connect() as connection:
            found = connection.execute(f"select * from '{path}'").fetchdf().to_dict("records")
    assert found == wanted


def test_tables_tell_samples_apart_by_what_is_known(tmp_path):
    """Indices where there are any, loaders where there are several, and names that are no numbers of theirs."""

    def columns(name, batches):
        path = tmp_path / f"{name}.csv"
        with BackgroundWriter(target=TableTarget(path), backend="thread") as writer:
            for names, origin in batches:
                count = len(names) if names is not None else len(origin.indices)
                writer.submit_batch(names, {"x": list(range(count))}, origin=origin)
        return path.read_text().splitlines()

    assert columns("named", [(["a", "b"], None)]) == ["name,x", "a,0", "b,1"]
    assert columns("both", [(["a", "b"], Origin([1, 0]))]) == ["index,name,x", "0,b,1", "1,a,0"]
    assert columns("indexed", [(None, Origin([1, 0]))]) == ["index,x", "0,1", "1,0"]
    assert columns("loaders", [(None, Origin([0], 1)), (None, Origin([0]))]) == ["index,loader,x", "0,0,0", "0,1,0"]
    assert columns("ids", [(["1000", "1001"], Origin(range(2)))]) == ["index,name,x", "0,1000,0", "1,1001,1"]


def test_a_column_of_the_users_takes_the_place_of_ours(tmp_path):
    """What they call so is theirs."""
    write(TableTarget(tmp_path / "t.csv"), {"name": ["x", "y"], "index": [7, 8], "z": [1, 2]}, ["a", "b"], range(2))
    assert (tmp_path / "t.csv").read_text() == "name,index,z\nx,7,1\ny,8,2\n"


def test_rows_may_lack_columns_and_have_others(tmp_path):
    """There is nothing in the table then."""
    rows = [{"a": 1}, {"a": 2, "b": "x"}, {"b": None}, {"a": None, "b": "y"}]
    write(TableTarget(tmp_path / "t.jsonl"), rows, list("abcd"), range(4))
    found = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [(row["a"], row["b"]) for row in found] == [(1, None), (2, "x"), (None, None), (None, "y")]


def test_a_column_that_has_nothing_is_written_too(tmp_path):
    """As nothing but missing values."""
    for suffix in FORMATS:
        write(TableTarget(tmp_path / f"t.{suffix}"), [{"a": None}, {"a": None}], None, range(2))
    assert pandas.read_parquet(tmp_path / "t.parquet")["a"].isna().all()
    assert (tmp_path / "t.csv").read_text() == "index,a\n0,\n1,\n"


def test_a_table_larger_than_a_chunk_is_one_file(tmp_path):
    """Which is written a chunk at a time."""
    count = 70_000
    path = tmp_path / "t.parquet"
    with BackgroundWriter(target=TableTarget(path), backend="thread") as writer:
        for start in range(0, count, 10_000):
            some = range(start, start + 10_000)
            writer.submit_batch(None, {"x": torch.arange(start, start + 10_000)}, origin=Origin(some))
    file = pyarrow.parquet.ParquetFile(path)
    assert file.metadata.num_row_groups == 3
    assert file.read()["x"].to_pylist() == list(range(count))


def test_alike_rows_are_stored_by_columns(tmp_path, monkeypatch):
    """A unit of tensors is one write of rows that are encoded together."""
    from lighter_async.targets.table.lane import TableLane

    calls = []
    real = TableLane.put_rows

    def put_rows(self, items, on_progress):
        calls.append(len(items.names))
        return real(self, items, on_progress)

    monkeypatch.setattr(TableLane, "put_rows", put_rows)
    values = {"x": torch.arange(50), "v": torch.rand(50, 4).bfloat16(), "b": torch.arange(50) > 25}
    write(TableTarget(tmp_path / "t.parquet"), values, None, range(50))
    assert sum(calls) == 50
    results = open_results(tmp_path / "t.parquet")
    for index in (0, 17, 49):
        row = results.at(index)
        assert (row["x"], row["b"]) == (index, index > 25)
        assert np.array_equal(row["v"], values["v"][index].float().numpy())


# What does not go into a table


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"x": 0.5}, "column 'x' of sample 'b' is float64, and int64 in sample 'a'"),
        ({"x": "1"}, "is text, and int64"),
        ({"x": [1]}, r"is list<int64>, and int64"),
        ({"x": np.int32(1)}, "is int32, and int64"),
        ({"x": True}, "is bool, and int64"),
    ],
)
@pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.long)])
def test_a_type_that_changes_is_an_error_that_names_sample_and_column(tmp_path, backend, second, told):
    """The other samples are in the table."""
    writer = BackgroundWriter(target=TableTarget(tmp_path / "t.csv"), backend=backend, max_workers=2)
    writer.submit("a", {"x": 1})
    writer.flush()
    writer.submit_batch(["b", "c"], [second, {"x": 3}])
    with pytest.raises(WriteError, match=told) as failed:
        writer.close()
    assert [one.name for one in failed.value.failures] == ["b"]
    assert (tmp_path / "t.csv").read_text() == "name,x\na,1\nc,3\n"


def test_workers_and_ranks_agree_on_types(tmp_path):
    """What one has stored, the other may not store otherwise."""
    run = {"id": "one", "world_size": 2}
    first = BackgroundWriter(target=TableTarget(tmp_path / "t.csv", run=Run(rank=0, **run)), backend="thread")
    second = BackgroundWriter(target=TableTarget(tmp_path / "t.csv", run=Run(rank=1, **run)), backend="thread")
    with first:
        first.submit("a", {"x": 1})
        first.flush()
        with pytest.raises(WriteError, match="column 'x' of sample 'b' is text, and int64 in sample 'a'"), second:
            second.submit("b", {"x": "1"})
    assert (tmp_path / "t.csv").read_text() == "name,x\na,1\n"


def test_a_run_that_begins_anew_may_have_other_types(tmp_path):
    """One that goes on may not."""
    write(TableTarget(tmp_path / "t.csv"), {"x": [1]}, ["a"])
    with pytest.raises(WriteError, match="is text, and int64 in sample 'a'"):
        write(TableTarget(tmp_path / "t.csv"), {"x": ["1"]}, ["b"], resume=True)
    write(TableTarget(tmp_path / "t.csv"), {"x": ["1"]}, ["b"])
    assert (tmp_path / "t.csv").read_text() == "name,x\nb,1\n"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": {"b": 1}}, r"column 'a' is a dict, .* json.dumps"),
        ({"a": object()}, "column 'a' is object, and a table holds numbers, texts"),
        ({"a": 1 << 64}, "column 'a': 18446744073709551616 takes more than 64 bits"),
        ({"a": 1j}, "column 'a' is complex"),
        ({"a": torch.tensor(1j)}, "column 'a' has dtype complex64"),
        ({"a": np.datetime64("2026-01-01")}, r"column 'a' has dtype datetime64"),
        ({"a": torch.eye(2).to_sparse()}, r"column 'a' is no dense tensor; write tensor.to_dense"),
        ({"a": "\ud800"}, "column 'a': .* is no valid text"),
        ({"a": [1, "x"]}, "column 'a' of sample 's' is a list whose items are int64 and text"),
        ({"a": b"x"}, "column 'a' is bytes"),
        ({"a": np.ma.array([1, 2], mask=[False, True])}, r"column 'a': a masked array .* write array.filled\(value\)"),
        ({"a": np.ma.masked}, "column 'a': a masked array"),
    ],
    ids=lambda one: None,
)
def test_what_a_table_cannot_hold_is_refused_with_the_way_out(tmp_path, value, told):
    """The sample fails, and the message names the column."""
    with (
        pytest.raises(WriteError, match=told),
        BackgroundWriter(target=TableTarget(tmp_path / "t.csv"), backend="thread") as writer,
    ):
        writer.submit("s", value)
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize(
    ("values", "error", "told"),
    [
        (torch.zeros(2, 3), TypeError, "a batch of rows of a table is a dict from columns"),
        ({}, ValueError, "has a column at least"),
        ({"a": [1, 2], "b": [1]}, ValueError, "as many samples of each column"),
        ({1: [1, 2]}, TypeError, "columns of a table have texts as names, not 1"),
        ({"\ud800": [1, 2]}, ValueError, "the name of a column is no valid text"),
        ([1, 2], TypeError, r"a row of a table is a dict from columns to values, not int"),
        ({"a": 3}, TypeError, "column 'a' of a batch is a tensor or array with a batch dimension"),
        ({"a": torch.tensor(3)}, ValueError, "column 'a' needs a batch dimension"),
    ],
    ids=lambda one: None,
)
def test_what_is_no_batch_of_rows_is_refused_at_once(tmp_path, values, error, told):
    """Nothing is taken, and the writer goes on."""
    with BackgroundWriter(target=TableTarget(tmp_path / "t.csv"), backend="thread") as writer:
        with pytest.raises(error, match=told):
            writer.submit_batch(["a", "b"], values)
        with pytest.raises(TypeError, match="a row of a table is a dict from columns to values, not int"):
            writer.submit("a", 3)
        writer.submit("a", {"x": 3})
    assert (tmp_path / "t.csv").read_text() == "name,x\na,3\n"


def test_names_are_left_out_only_where_indices_are_known(tmp_path):
    """Else nothing would tell a row from another."""
    with BackgroundWriter(target=TableTarget(tmp_path / "t.csv"), backend="thread") as writer:
        with pytest.raises(ValueError, match="a sample without a name needs its index"):
            writer.submit_batch(None, {"x": [1]})
        writer.submit_batch(None, {"x": [1]}, origin=Origin([4]))
        with pytest.raises(DuplicateNameError):
            writer.submit_batch(None, {"x": [1]}, origin=Origin([4]))
    assert (tmp_path / "t.csv").read_text() == "index,x\n4,1\n"


@pytest.mark.parametrize(
    ("path", "error", "told"),
    [
        ("t.txt", ValueError, r"a table is stored as .parquet, .csv, .jsonl, and 't.txt' ends otherwise"),
        ("s3://bucket/t.csv", ValueError, "is a URL"),
        (".lighter-async.csv", ValueError, "ends otherwise"),
    ],
)
def test_a_target_that_cannot_be_is_refused(path, error, told):
    """When it is made."""
    with pytest.raises(error, match=told):
        TableTarget(path)


def test_parquet_without_pyarrow_is_refused_with_the_install_line(monkeypatch, tmp_path):
    """When it is made; the other formats need nothing."""
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"pip install 'lighter-async\[parquet\]'"):
        TableTarget(tmp_path / "t.parquet")
    with pytest.raises(ImportError, match=r"lighter-async\[parquet\]"):
        TableWriter(tmp_path / "t.parquet", ["x"])
    write(TableTarget(tmp_path / "t.csv"), {"x": [1]}, ["a"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"writer": "tensor"}, "its writer is 'table_row', not 'tensor'"),
        ({"writer": lambda path, value: None}, "its writer is 'table_row'"),
        ({"manifest": False}, "is known by the manifest alone"),
    ],
    ids=lambda one: None,
)
def test_what_does_not_go_with_a_table_is_refused(tmp_path, options, told):
    """When the writer is made."""
    with pytest.raises(ValueError, match=told):
        BackgroundWriter(options.pop("writer", None), target=TableTarget(tmp_path / "t.csv"), **options)


def test_a_folder_in_the_place_of_the_table_is_refused(tmp_path):
    """Before anything is stored."""
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder, so no table can lie there"):
        BackgroundWriter(target=TableTarget(tmp_path / "t.csv")).start()


# What is there already


@pytest.mark.parametrize("if_exists", ["overwrite", "skip", "error"])
def test_rows_of_an_earlier_run_are_kept_refused_or_replaced(tmp_path, if_exists):
    """A run that replaces begins anew; one that keeps adds to what there is."""
    path = tmp_path / "t.csv"
    write(TableTarget(path), {"x": [1, 2]}, ["a", "b"])
    target = TableTarget(path, if_exists=if_exists)
    if if_exists == "error":
        with pytest.raises(FileExistsError, match=r"t.csv' is there; choose another path"):
            write(target, {"x": [3, 4]}, ["b", "c"])
        assert path.read_text() == "name,x\na,1\nb,2\n"
        return
    writer = write(target, {"x": [3, 4]}, ["b", "c"])
    assert writer.stats().skipped == (1 if if_exists == "skip" else 0)
    assert path.read_text() == ("name,x\nb,3\nc,4\n" if if_exists == "overwrite" else "name,x\na,1\nb,2\nc,4\n")


def test_rows_that_no_run_needs_any_more_are_removed(tmp_path):
    """So that a job that is run again and again takes no more room."""
    for _ in range(3):
        store(tmp_path)
    spools = list((tmp_path / ".lighter-async" / "tables" / NAME).glob("*.rows"))
    assert len(spools) == 1
    check_whole(tmp_path)
    assert verify(tmp_path).is_sound


def test_tables_and_files_share_a_folder(tmp_path):
    """Each has its own records."""
    write(TableTarget(tmp_path / "a.csv"), {"x": [1]}, ["s"])
    write(TableTarget(tmp_path / "b.jsonl"), {"x": [2]}, ["s"])
    with BackgroundWriter("text", tmp_path) as writer:
        writer.submit("s", "three")
    assert open_results(tmp_path / "a.csv")["s"] == {"x": 1}
    assert open_results(tmp_path / "b.jsonl")["s"] == {"x": 2}
    assert open_results(tmp_path, writer="text")["s"] == "three"
    assert verify(tmp_path).findings == []
    assert verify(tmp_path / "a.csv").checked == 1


def test_a_table_of_somebodys_is_replaced_when_it_is_written(tmp_path):
    """As a file is; not before there are rows."""
    (tmp_path / "t.csv").write_text("mine\n")
    with BackgroundWriter(target=TableTarget(tmp_path / "t.csv")) as writer:
        writer.start()
    assert (tmp_path / "t.csv").read_text() == "mine\n"
    write(TableTarget(tmp_path / "t.csv"), {"x": [1]}, ["a"])
    assert (tmp_path / "t.csv").read_text() == "name,x\na,1\n"


# Reading, verifying, going on


def test_results_are_read_before_and_after_the_table_is_written(tmp_path):
    """By name, by index, as a table of pandas, and by workers of a data loader."""
    with BackgroundWriter(target=TableTarget(tmp_path / NAME), backend="thread") as writer:
        writer.submit_batch([name_of(index) for index in range(4)], columns_of(range(4)), origin=Origin(range(4)))
        writer.flush()
        assert not (tmp_path / NAME).exists()
        results = open_results(tmp_path / NAME)
        assert results["case.2"] == results.at(2) == row_of(2)
        assert results.to_pandas().to_dict("records") == whole(indices=range(4))
        writer.flush(seal=True)
        assert table_at(tmp_path / NAME) == whole(indices=range(4))
    assert open_results(TableTarget(tmp_path / NAME)).at(3) == row_of(3)
    assert open_results(tmp_path)["case.3"] == row_of(3)
    assert dict(DataLoader(results.dataset(), batch_size=None, num_workers=1)) == {
        name_of(i): row_of(i) for i in range(4)
    }
    assert results.record("case.1").index == 1
    with pytest.raises(TypeError, match="to_array stacks tensors, arrays and numbers"):
        results.to_array()


def test_the_manifest_of_one_table_is_read_by_its_path(tmp_path, capsys):
    """Whatever else lies in its folder; by the function and by the command, before it is written and afterwards."""
    with BackgroundWriter("text", tmp_path, run=Run(key="other")) as writer:
        writer.submit("a", "text")
    store(tmp_path)
    for is_there in (True, False):
        manifest = read_manifest(tmp_path / NAME)
        assert [record.name for record in manifest.records] == [name_of(index) for index in range(ROWS)]
        assert {run.key for run in manifest.runs} == {NAME}
        assert manifest.directory == tmp_path
        assert main(["manifest", str(tmp_path / NAME)]) == 0
        assert [json.loads(line)["index"] for line in capsys.readouterr().out.splitlines()] == list(range(ROWS))
        if is_there:
            (tmp_path / NAME).unlink()
    assert len(read_manifest(TableTarget(tmp_path / NAME))) == ROWS
    assert len(read_manifest(tmp_path)) == ROWS + 1
    assert (len(read_manifest(tmp_path / "none.csv")), read_manifest(tmp_path / "none.csv").runs) == (0, [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no manifest, so it is not known what is stored as 'none\.csv'"):
        open_results(tmp_path / "empty" / "none.csv")


def test_a_flipped_byte_is_found_and_computed_again(tmp_path, capsys):
    """The row is left out of the table meanwhile, which is said."""
    store(tmp_path)
    (spool,) = (tmp_path / ".lighter-async" / "tables" / NAME).glob("*.rows")
    data = bytearray(spool.read_bytes())
    record = open_results(tmp_path / NAME).record("case.5")
    data[record.offset + 9] ^= 1
    spool.write_bytes(data)
    with pytest.raises(ReadError, match=r"case\.5"):
        open_results(tmp_path / NAME)["case.5"]
    with pytest.raises(ReadError, match=r"case\.5"):
        open_results(tmp_path / NAME).to_pandas()
    assert main(["verify", str(tmp_path / NAME)]) == 1
    assert main(["verify", str(tmp_path / NAME), "--repair"]) == 0
    assert "dropped 1: run again with resume=True" in capsys.readouterr().out
    names = [name_of(index) for index in range(ROWS)]
    assert list(pending(range(ROWS), tmp_path / NAME, names=names)) == [5]
    store(tmp_path, resume=True)
    check_whole(tmp_path)


def test_a_damaged_row_is_left_out_and_told(tmp_path, capsys):
    """It costs no other one."""
    store(tmp_path)
    (spool,) = (tmp_path / ".lighter-async" / "tables" / NAME).glob("*.rows")
    data = bytearray(spool.read_bytes())
    data[open_results(tmp_path / NAME).record("case.5").offset + 9] ^= 1
    spool.write_bytes(data)
    write(TableTarget(tmp_path / NAME), columns_of([90]), ["case.90"], [90], resume=True)
    assert "lacks 1 of its rows, which cannot be read: 'case.5' (its row is damaged)" in capsys.readouterr().err
    assert [row["index"] for row in table_at(tmp_path / NAME)] == [*range(5), *range(6, ROWS), 90]


def test_rows_that_somebody_has_removed_are_told_and_computed_again(tmp_path, capsys):
    """The others are in the table."""
    store(tmp_path)
    (spool,) = (tmp_path / ".lighter-async" / "tables" / NAME).glob("*.rows")
    spool.unlink()
    write(TableTarget(tmp_path / NAME), columns_of([90]), ["case.90"], [90], resume=True)
    told = capsys.readouterr().err
    assert f"lacks {ROWS} of its rows, which cannot be read: 'case.0'" in told
    assert f"No such file or directory: '{spool.name}')" in told
    assert [row["index"] for row in table_at(tmp_path / NAME)] == [90]
    assert main(["verify", str(tmp_path / NAME), "--repair"]) == 0
    store(tmp_path, resume=True)
    assert [row["index"] for row in table_at(tmp_path / NAME)] == [*range(ROWS), 90]


@pytest.mark.parametrize("damage", ["removed", "changed", "cut", "never written"])
def test_a_table_that_is_not_as_it_was_written_is_found_and_written_again(tmp_path, capsys, damage):
    """Of the rows, which are stored beside it; so nothing is computed again."""
    store(tmp_path)
    path, text = tmp_path / NAME, (tmp_path / NAME).read_text()
    if damage == "removed":
        path.unlink()
    elif damage == "never written":
        path.unlink()
        (tmp_path / ".lighter-async" / "tables" / NAME / "sealed.json").unlink()
    else:
        path.write_text(text.replace("case.3", "case.4") if damage == "changed" else text[:-5])
    assert main(["verify", str(path)]) == 1
    told = capsys.readouterr().out
    assert re.match(rf"{re.escape(str(path))}: {ROWS} rows, \d+ bytes, compared with the manifest\n", told)
    assert f"  table: {NAME} (" in told
    assert told.endswith("TO BE WRITTEN: 1 table\n--repair writes a table of the rows that are stored\n")
    assert "DAMAGED" not in told
    assert main(["verify", str(tmp_path)]) == 1
    assert main(["verify", str(tmp_path), "--repair"]) == 0
    assert capsys.readouterr().out.endswith(")\nTO BE WRITTEN: 1 table\nwrote 1 table of the rows that are stored\n")
    check_whole(tmp_path)
    assert main(["verify", str(tmp_path)]) == 0


def test_a_run_with_nothing_left_to_do_writes_a_table_that_is_not_there(tmp_path):
    """As after a kill between the last row and the table."""
    store(tmp_path)
    (tmp_path / NAME).unlink()
    store(tmp_path, resume=True)
    check_whole(tmp_path)


def test_a_table_that_is_there_as_it_is_to_be_is_not_written_again(tmp_path):
    """Where nothing was recorded since."""
    with BackgroundWriter(target=TableTarget(tmp_path / "t.csv"), backend="thread") as writer:
        writer.submit("a", {"x": 1})
        writer.flush(seal=True)
        before = (tmp_path / "t.csv").stat().st_ino
    assert (tmp_path / "t.csv").stat().st_ino == before


def test_replay_adds_what_was_kept(tmp_path, capsys, monkeypatch):
    """A sample whose row could not be stored, once that can be."""
    from lighter_async.targets.table.lane import TableLane

    path = tmp_path / "t.csv"
    writer = BackgroundWriter(target=TableTarget(path), backend="thread", on_error="continue", attempts=1)
    writer.submit("a", {"x": torch.tensor(1)}, origin=Origin([0]))
    writer.flush()
    with monkeypatch.context() as patch:
        patch.setattr(TableLane, "_write", _fail)
        writer.submit("b", {"x": torch.tensor(2)}, origin=Origin([1]))
        with pytest.raises(WriteError, match="1 value is kept"):
            writer.close()
    assert path.read_text() == "index,name,x\n0,a,1\n"
    assert main(["replay", str(path)]) == 0
    assert "1 of 1 value is written" in capsys.readouterr().out
    assert path.read_text() == "index,name,x\n0,a,1\n1,b,2\n"


def test_an_index_under_another_name_is_pending(tmp_path):
    """Samples that have names are known by them: a data set that has grown by a file in front loses nothing."""
    write(TableTarget(tmp_path / "t.csv"), {"x": [1, 2]}, ["a", "b"], range(2))
    assert list(pending(range(2), tmp_path / "t.csv", names=["a", "b"])) == []
    assert list(pending(range(3), tmp_path / "t.csv", names=["_", "a", "b"])) == [0]
    write(TableTarget(tmp_path / "t.csv"), {"x": [0]}, ["_"], [0], resume=True)
    assert (tmp_path / "t.csv").read_text().splitlines()[1:] in (
        ["0,a,1", "0,_,0", "1,b,2"],
        ["0,_,0", "0,a,1", "1,b,2"],
    )


def test_rows_that_a_run_has_superseded_are_not_missed(tmp_path):
    """Their files are removed, and `pending` warns of nothing."""
    store(tmp_path)
    write(TableTarget(tmp_path / NAME), columns_of([3], 1), [name_of(3)], [3])
    names = [name_of(index) for index in range(ROWS)]
    assert list(pending(range(ROWS), tmp_path / NAME, names=names)) == [*range(3), *range(4, ROWS)]


def test_members_of_enums_are_stored_by_their_values(tmp_path):
    """As JSON has them, in cells and as names of columns."""

    class Split(str, enum.Enum):
        TEST = "test"

    write(TableTarget(tmp_path / "t.csv"), [{Split.TEST: Split.TEST}], ["a"])
    write(TableTarget(tmp_path / "u.csv"), {Split.TEST: [Split.TEST]}, ["a"])
    assert (tmp_path / "t.csv").read_text() == (tmp_path / "u.csv").read_text() == "name,test\na,test\n"


def test_a_table_that_was_written_before_the_latest_rows_is_found(tmp_path, capsys):
    """A run that has written it early, and is killed later, leaves rows that it lacks."""
    writer = BackgroundWriter(target=TableTarget(tmp_path / NAME), backend="thread", max_workers=1)
    for unit in (range(4), range(4, ROWS)):
        writer.submit_batch([name_of(index) for index in unit], columns_of(unit), origin=Origin(unit))
        writer.flush(seal=unit == range(4))
    assert verify(tmp_path).is_sound  # the writer at work will write it
    assert writer.close_by(DEADLINE) == 0
    assert table_at(tmp_path / NAME) == whole(indices=range(4))
    assert main(["verify", str(tmp_path / NAME)]) == 1
    assert "it was written before 8 of 12 rows were stored" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / NAME), "--repair"]) == 0
    check_whole(tmp_path)


def test_a_table_of_a_run_that_counts_no_longer_is_found(tmp_path, capsys):
    """As where the one that has begun anew is killed before it ends."""
    store(tmp_path)
    writer = BackgroundWriter(target=TableTarget(tmp_path / NAME), backend="thread", max_workers=1)
    writer.submit_batch([name_of(0)], columns_of([0], 1), origin=Origin([0]))
    assert writer.close_by(DEADLINE) == 0
    assert table_at(tmp_path / NAME) == whole()
    assert main(["verify", str(tmp_path)]) == 1
    assert "it was written before the latest run" in capsys.readouterr().out
    assert main(["verify", str(tmp_path), "--repair"]) == 0
    assert table_at(tmp_path / NAME) == whole(1, [0])


@pytest.mark.parametrize("put", ["folder", "link", "pipe"])
def test_what_is_in_the_place_of_a_table_is_found_and_told(tmp_path, capsys, put):
    """A link and a pipe are replaced; a folder has to be removed by hand."""
    store(tmp_path)
    path = tmp_path / NAME
    path.rename(tmp_path.parent / "moved.csv")
    if put == "folder":
        path.mkdir()
    elif put == "link":
        path.symlink_to(tmp_path.parent / "moved.csv")
    else:
        os.mkfifo(path)
    assert main(["verify", str(tmp_path)]) == 1
    assert f"table: {NAME} (" in capsys.readouterr().out
    assert main(["verify", str(tmp_path), "--repair"]) == (1 if put == "folder" else 0)
    if put == "folder":
        assert "cannot be repaired" in capsys.readouterr().err
        path.rmdir()
        store(tmp_path, resume=True)
    check_whole(tmp_path)
    (tmp_path.parent / "moved.csv").unlink()


@pytest.mark.parametrize("damage", ["removed", "torn"])
def test_types_that_are_gone_are_taken_from_the_rows(tmp_path, damage):
    """So a run that goes on is told of another type all the same."""
    write(TableTarget(tmp_path / "t.csv"), {"x": [1]}, ["a"])
    file = tmp_path / ".lighter-async/tables/t.csv/columns.json"
    if damage == "removed":
        file.unlink()
    else:
        file.write_text(file.read_text()[:20])
    with pytest.raises(WriteError, match="column 'x' of sample 'b' is text, and int64 in sample 'a'"):
        write(TableTarget(tmp_path / "t.csv"), {"x": ["1"]}, ["b"], resume=True)
    write(TableTarget(tmp_path / "t.csv"), {"x": [2]}, ["c"], resume=True)
    assert (tmp_path / "t.csv").read_text() == "name,x\na,1\nc,2\n"


def test_rows_that_make_no_table_are_told(tmp_path, capsys, monkeypatch):
    """No row is lost, and the table that was there stays."""
    from lighter_async.targets.table.columns import Columns

    path = tmp_path / "t.parquet"
    write(TableTarget(path), {"x": [1]}, ["a"])
    with monkeypatch.context() as patch:
        patch.setattr(Columns, "check", lambda *_: None)
        write(TableTarget(path), {"x": ["1"]}, ["b"], resume=True)
    told = "column 'x' is int64 in sample 'a' and text in 'b'"
    assert told in capsys.readouterr().err
    assert main(["verify", str(path), "--repair"]) == 1
    assert told in capsys.readouterr().err
    assert table_at(path) == [{"name": "a", "x": 1}]
    assert open_results(path)["b"] == {"x": "1"}


@pytest.mark.parametrize("kind", ["show_info", "list<int64", "binary", ">", 3])
def test_types_that_somebody_has_written_are_not_believed(tmp_path, kind):
    """The rows say theirs themselves."""
    path = tmp_path / "t.parquet"
    write(TableTarget(path), {"x": [1]}, ["a"])
    about = {"runs": [read_manifest(tmp_path).runs[0].run], "columns": {"x": [kind, "a"]}}
    (tmp_path / ".lighter-async/tables/t.parquet/columns.json").write_text(json.dumps(about))
    write(TableTarget(path), {"x": [2]}, ["b"], resume=True)
    assert table_at(path) == [{"name": "a", "x": 1}, {"name": "b", "x": 2}]


def test_a_table_of_many_workers_takes_few_descriptors(tmp_path, monkeypatch):
    """Each worker of each run has a file of its own; they are read some at a time."""
    import resource

    path = tmp_path / "t.csv"
    for index in range(60):
        (tmp_path / ".lighter-async").mkdir(exist_ok=True)
        run = Run(id=f"run-{index}", rank=index, world_size=60)
        writer = BackgroundWriter(target=TableTarget(path, run=run), backend="thread", max_workers=1, resume=True)
        writer.submit(str(index), {"x": index}, origin=Origin([index]))
        assert writer.close_by(DEADLINE) == 0
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 50, limits[1]))
    try:
        write(TableTarget(path), {"x": [60]}, None, [60], resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [row["x"] for row in read_csv(path)] == [str(index) for index in range(61)]


def test_rows_are_no_files_that_can_be_unpacked(tmp_path, capsys):
    """Of a folder that has shards, too, these alone are; and shards alone are compacted."""
    stored = tmp_path / "stored"
    write(TableTarget(stored / "t.csv"), {"x": [1, 2]}, ["a", "b"])
    assert main(["unpack", str(stored), str(tmp_path / "out")]) == 2
    assert "no tar shards, so there is nothing to unpack; what is stored there is 2 rows\n" in capsys.readouterr().err
    assert main(["compact", str(stored)]) == 2
    with BackgroundWriter("text", target=TarShards(stored)) as writer:
        writer.submit_batch(["a", "c"], ["A", "C"])
    assert main(["unpack", str(stored), str(tmp_path / "out")]) == 0
    assert "in no shard, but a file or a row each" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".lighter-async", "a.txt", "c.txt"]
    assert main(["compact", str(stored)]) == 0
    assert verify(stored).findings == []
    assert (stored / "t.csv").read_text() == "name,x\na,1\nb,2\n"


# Crashes


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
@pytest.mark.parametrize(
    ("job", "torn"),
    [
        pytest.param("store", "torn", marks=pytest.mark.long),
        pytest.param("store", "whole", marks=pytest.mark.long),
        *(
            pytest.param(job, torn, marks=pytest.mark.long)
            for job in ("store_synced", "store_over")
            for torn in ("whole", "torn")
        ),
    ],
)
def test_a_job_that_is_killed_at_any_change_goes_on(tmp_path, job, torn):
    """What was said to be stored is there, and the next run stores the rest, once."""
    assert run_kills("tables_script.py", tmp_path, job, torn) > 25


@pytest.mark.parametrize("kind", ["alike", "others"])
@pytest.mark.parametrize("durability", ["rename", pytest.param("fsync", marks=pytest.mark.long)])
def test_a_helper_that_is_killed_costs_no_row(tmp_path, durability, kind):
    """The one that replaces it begins a file of its own."""
    (tmp_path / "deaths").mkdir()
    (tmp_path / "deaths/one").touch()
    target = DyingTable(tmp_path / "t.csv", durability=durability)
    target.deaths = str(tmp_path / "deaths")
    with BackgroundWriter(target=target, backend="process", max_workers=2) as writer:
        for start in range(0, 400, 40):
            numbers = range(start, start + 40)
            values = torch.tensor(numbers) if kind == "alike" else list(numbers)
            writer.submit_batch(None, {"x": values}, origin=Origin(numbers))
    assert not os.listdir(tmp_path / "deaths")
    assert writer.stats().written == 400
    assert [row["x"] for row in read_csv(tmp_path / "t.csv")] == [str(x) for x in range(400)]
    assert len(read_manifest(tmp_path).records) == 400


def test_a_full_disk_fails_the_samples_and_keeps_the_others(small_disk):
    """The table that was there stays, and is whole."""
    path = small_disk / "t.csv"
    write(TableTarget(path), {"x": ["a" * 1000] * 10}, None, range(10))
    before = path.read_text()
    big = [os.urandom(20_000).hex() for _ in range(40)]
    with pytest.raises(WriteError, match="No space left"):
        write(TableTarget(path), {"x": big}, None, range(100, 140), resume=True)
    assert path.read_text() == before or len(read_csv(path)) >= 10
    results = open_results(path)
    assert all(results.at(index)["x"] == "a" * 1000 for index in range(10))
    for record in read_manifest(small_disk).records:
        assert results[record.name]["x"] in ("a" * 1000, big[record.index - 100] if record.index >= 100 else "")


def test_what_cannot_be_recorded_is_not_in_the_table(tmp_path, monkeypatch):
    """It has failed, and its rows are nobody's."""
    from lighter_async.manifest.log import ManifestLog

    path = tmp_path / "t.csv"
    with BackgroundWriter(target=TableTarget(path), backend="thread", max_workers=1) as writer:
        writer.submit("a", {"x": 1})
        writer.flush()
        with monkeypatch.context() as patch:
            patch.setattr(ManifestLog, "append", _fail)
            writer.submit("b", {"x": 2})
            with pytest.raises(WriteError, match="no line"):
                writer.flush()
        writer.close()
    assert path.read_text() == "name,x\na,1\n"
    write(TableTarget(path), {"x": [2]}, ["b"], resume=True)
    assert path.read_text() == "name,x\na,1\nb,2\n"


def _fail(*_, **__):
    raise OSError("no line")


def test_close_by_leaves_the_table_to_the_next_run(tmp_path):
    """What is stored is there; the table takes as long as it takes."""
    writer = BackgroundWriter(target=TableTarget(tmp_path / NAME), backend="thread")
    writer.submit_batch([name_of(0)], columns_of([0]), origin=Origin([0]))
    assert writer.close_by(DEADLINE) == 0
    assert not (tmp_path / NAME).exists()
    assert open_results(tmp_path / NAME)["case.0"] == row_of(0)
    store(tmp_path, resume=True)
    check_whole(tmp_path)


def test_a_table_that_cannot_be_written_is_told_and_fails_no_sample(tmp_path, monkeypatch, capsys):
    """Its rows are stored, and the next writer that is closed writes it."""
    from lighter_async.targets.table import sealing

    with monkeypatch.context() as patch:
        patch.setattr(sealing, "write_table", _fail)
        store(tmp_path)
    assert "t.csv' cannot be written (OSError: no line); what is stored of its rows is kept" in capsys.readouterr().err
    assert not (tmp_path / NAME).exists()
    store(tmp_path, resume=True)
    check_whole(tmp_path)


def test_removing_what_is_recorded_is_an_error(tmp_path, capsys):
    """Samples that are handed over afterwards are not said to be stored in a file that is gone."""
    import shutil

    with BackgroundWriter(target=TableTarget(tmp_path / "t.csv"), backend="thread", max_workers=1) as writer:
        writer.submit("a", {"x": 1})
        writer.flush()
        shutil.rmtree(tmp_path / ".lighter-async" / "tables")
        writer.submit("b", {"x": 2})
        with pytest.raises(WriteError, match="somebody has removed the rows"):
            writer.flush()
    assert "none of its 1 rows can be read: its rows cannot be read (FileNotFoundError" in capsys.readouterr().err
    assert not (tmp_path / "t.csv").exists()


# Ranks


def test_ranks_of_one_process_write_one_table(tmp_path):
    """The last one to close does."""
    run = {"id": "one", "world_size": 3}
    writers = [
        BackgroundWriter(target=TableTarget(tmp_path / NAME, run=Run(rank=rank, **run)), backend="thread")
        for rank in range(3)
    ]
    for rank, writer in enumerate(writers):
        some = range(rank, ROWS, 3)
        writer.submit_batch([name_of(index) for index in some], columns_of(some), origin=Origin(some))
    for writer in (writers[1], writers[2]):
        writer.close()
        assert not (tmp_path / NAME).exists()
    writers[0].close()
    check_whole(tmp_path)


def test_ranks_that_close_at_once_write_one_table(tmp_path):
    """Whichever is last, all rows are in it."""
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        run = {"id": "one", "world_size": 4}
        writers = [
            BackgroundWriter(target=TableTarget(folder / NAME, run=Run(rank=rank, **run)), backend="thread")
            for rank in range(4)
        ]
        barrier = threading.Barrier(4)

        def end(rank, writer, barrier=barrier):
            some = range(rank, ROWS, 4)
            writer.submit_batch([name_of(index) for index in some], columns_of(some), origin=Origin(some))
            barrier.wait(DEADLINE)
            writer.close()

        threads = [threading.Thread(target=end, args=one) for one in enumerate(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check_whole(folder)


def test_a_rank_that_begins_late_adds_its_rows(tmp_path):
    """The others may have written the table without them."""
    run = {"id": "one", "world_size": 2}
    for rank in range(2):
        some = range(rank, ROWS, 2)
        names = [name_of(index) for index in some]
        write(TableTarget(tmp_path / NAME, run=Run(rank=rank, **run)), columns_of(some), names, some)
    check_whole(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_ranks_in_processes_of_their_own_store_their_shares(tmp_path, name):
    """At the same time, with helpers each."""
    path = Path(__file__).with_name("tables_script.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path.parents[1]), *sys.path])}
    ranks = [
        subprocess.Popen(
            [sys.executable, path, tmp_path, "rank", str(rank), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        assert rank.stdout.readline() == "ready\n"
    for rank in ranks:
        rank.stdin.write("go\n")
        rank.stdin.flush()
    for rank in ranks:
        with rank:
            assert rank.wait(DEADLINE) == 0
    assert table_at(tmp_path / name) == whole()


def test_a_rank_that_comes_and_goes_while_the_table_is_written_loses_no_row(tmp_path, monkeypatch):
    """Its rows are recorded after whoever writes the table has read the records."""
    from lighter_async.targets.table import sealing

    run = {"id": "one", "world_size": 2}
    shares = [range(rank, ROWS, 2) for rank in range(2)]
    real, calls = sealing.write_table, []

    def write_table(*args):
        calls.append(args)
        if len(calls) == 1:
            names = [name_of(index) for index in shares[1]]
            write(TableTarget(tmp_path / NAME, run=Run(rank=1, **run)), columns_of(shares[1]), names, shares[1])
        return real(*args)

    monkeypatch.setattr(sealing, "write_table", write_table)
    with BackgroundWriter(target=TableTarget(tmp_path / NAME, run=Run(rank=0, **run)), backend="thread") as writer:
        names = [name_of(index) for index in shares[0]]
        writer.submit_batch(names, columns_of(shares[0]), origin=Origin(shares[0]))
        writer.flush(seal=True)
        assert len(calls) == 1
    check_whole(tmp_path)


def test_a_worker_that_begins_while_unused_rows_are_removed_loses_none(tmp_path, monkeypatch):
    """A file that it has made and not locked yet may be taken for one of a worker that has died."""
    from lighter_async.targets.table import spool

    path = tmp_path / "t.csv"
    writer = BackgroundWriter(target=TableTarget(path), backend="thread", max_workers=1)
    looks = []

    def look(descriptor, path):
        if path.endswith(".rows"):
            looks.append(path)
            if len(looks) == 1:
                spool.Spools(str(tmp_path), "t.csv", 0, is_synced=False).idle()
                assert not os.path.exists(path)
        return real(descriptor, path)

    real = spool.try_share
    monkeypatch.setattr(spool, "try_share", look)
    with writer:
        writer.submit("a", {"x": 1})
    assert len(looks) == 2
    assert path.read_text() == "name,x\na,1\n"


def test_two_ranks_with_different_samples_under_one_name_are_told(tmp_path):
    """The last one to close says so."""
    run = {"id": "one", "world_size": 2}
    write(TableTarget(tmp_path / "t.csv", run=Run(rank=0, **run)), {"x": [0]}, ["a"], [0])
    with pytest.raises(NameTakenError, match=r"'a', by rank 0 .* all of them are in their rows"):
        write(TableTarget(tmp_path / "t.csv", run=Run(rank=1, **run)), {"x": [1]}, ["a"], [1])


def test_a_sample_that_two_ranks_store_is_one_row(tmp_path):
    """As a sampler that fills up a batch gives it twice."""
    run = {"id": "one", "world_size": 2}
    for rank, indices in enumerate([[0, 2], [1, 0]]):
        target = TableTarget(tmp_path / "t.csv", run=Run(rank=rank, **run))
        write(target, {"x": indices}, None, indices)
    assert (tmp_path / "t.csv").read_text() == "index,x\n0,0\n1,1\n2,2\n"


def test_without_locks_every_rank_writes_the_table(tmp_path, monkeypatch):
    """So the last one has all rows."""

    def no_locks(*_):
        raise NoLocks

    for module in ("sealing", "spool"):
        for name in ("try_lock", "try_share"):
            monkeypatch.setattr(f"lighter_async.targets.table.{module}.{name}", no_locks)
    run = {"id": "one", "world_size": 2}
    for rank in range(2):
        some = range(rank, ROWS, 2)
        names = [name_of(index) for index in some]
        write(TableTarget(tmp_path / NAME, run=Run(rank=rank, **run)), columns_of(some), names, some)
    check_whole(tmp_path)


# The faces


def test_the_asyncio_face_writes_a_table(tmp_path):
    """With the same calls."""

    async def job():
        async with AsyncBackgroundWriter(target=TableTarget(tmp_path / "t.csv")) as writer:
            await writer.submit_batch(None, {"x": [1, 2]}, origin=Origin(range(2)))
            await writer.submit("b", {"x": 3}, origin=Origin([2]))
            await writer.flush(seal=True)
            assert (tmp_path / "t.csv").exists()

    asyncio.run(job())
    assert (tmp_path / "t.csv").read_text() == "index,name,x\n0,0,1\n1,1,2\n2,b,3\n"


def model_of(package, items=ROWS, **more):
    class Model(package.LightningModule):
        def predict_step(self, batch, batch_idx, dataloader_idx=0):
            return {
                "id": [f"{int(index):03}" for index in batch],
                "label": batch * 2,
                "score": batch.float() / 4,
                "vector": torch.stack([batch, -batch], 1),
                "split": "test",
                **more,
            }

    return Model()


def predict(package, callback, loader=None, **options):
    loader = loader or DataLoader(range(ROWS), batch_size=5)
    make_trainer(package, callback).predict(model_of(package, **options), loader, return_predictions=False)


@both_packages
@pytest.mark.parametrize("suffix", FORMATS)
def test_the_callback_writes_the_rows_of_a_data_set(package, tmp_path, suffix):
    """A text for all samples of a batch is that of each."""
    path = tmp_path / "out" / f"t.{suffix}"
    predict(package, TableWriter(path, ["id", "label", "score", "vector", "split"]))
    results = open_results(path)
    assert len(results) == ROWS
    row = results.at(7)
    assert (row["id"], row["label"], row["score"], row["split"]) == ("007", 14, 1.75, "test")
    assert row["vector"].tolist() == [7, -7]
    assert results.to_pandas().columns.tolist() == ["index", "id", "label", "score", "vector", "split"]
    assert verify(path).is_sound


@both_packages
def test_csv_writer_has_the_interface_of_lighter(package, tmp_path):
    """A path and a list of keys; "007" stays "007"."""
    predict(package, CsvWriter(tmp_path / "t.csv", keys=["id", "label"]))
    rows = read_csv(tmp_path / "t.csv")
    assert [(row["index"], row["id"], row["label"]) for row in rows] == [
        (str(index), f"{index:03}", str(2 * index)) for index in range(ROWS)
    ]
    with pytest.raises(ValueError, match=r"CsvWriter writes .csv files"):
        CsvWriter(tmp_path / "t.parquet", ["id"])


@both_packages
def test_the_callback_names_samples_by_a_key(package, tmp_path):
    """Which is a column then, and a way to look rows up."""
    predict(package, TableWriter(tmp_path / "t.csv", ["label"], name_key="id"))
    assert (tmp_path / "t.csv").read_text().splitlines()[:3] == ["index,name,label", "0,000,0", "1,001,2"]
    assert open_results(tmp_path / "t.csv")["004"] == {"label": 8}


@both_packages
def test_several_loaders_are_told_apart(package, tmp_path):
    """By a column of their own."""
    loaders = [DataLoader(range(3), batch_size=2), DataLoader(range(10, 12), batch_size=2)]
    predict(package, TableWriter(tmp_path / "t.csv", ["label"]), loaders)
    text = "index,loader,label\n0,0,0\n1,0,2\n2,0,4\n0,1,20\n1,1,22\n"
    assert (tmp_path / "t.csv").read_text() == text


@both_packages
@pytest.mark.parametrize("name_key", [None, "id"])
def test_a_callback_that_was_interrupted_goes_on(package, tmp_path, capsys, name_key):
    """Only what is missing is computed, and the table is whole."""

    class Failing(TableWriter):
        def write(self, outputs, batch, batch_idx, dataloader_idx):
            if batch_idx == 1:
                raise RuntimeError("stopped")
            super().write(outputs, batch, batch_idx, dataloader_idx)

    with pytest.raises(RuntimeError, match="stopped"):
        predict(package, Failing(tmp_path / "t.csv", ["label"], name_key))
    left = pending(range(ROWS), tmp_path / "t.csv")
    assert list(left) == list(range(5, ROWS))
    writer = TableWriter(tmp_path / "t.csv", ["label"], name_key, resume=True)
    predict(package, writer, DataLoader(range(ROWS), batch_size=5, sampler=left))
    assert writer.stats().written == ROWS - 5
    assert f"resuming: 5 of {ROWS} are stored in {str(tmp_path / 't.csv')!r}\n" in capsys.readouterr().err
    assert [row["label"] for row in read_csv(tmp_path / "t.csv")] == [str(2 * index) for index in range(ROWS)]


@both_packages
def test_a_callback_says_that_a_table_is_overwritten(package, tmp_path):
    """As of files."""
    predict(package, TableWriter(tmp_path / "t.csv", ["label"]))
    with pytest.warns(UserWarning, match=r"t.csv already exists, existing predictions will be overwritten"):
        predict(package, TableWriter(tmp_path / "t.csv", ["label"]))


@pytest.mark.parametrize(
    ("keys", "error", "told"),
    [
        ("label", TypeError, r"keys is a list of the entries that become columns, not 'label'; write \['score'\]"),
        ([], ValueError, "one or more, and there are none"),
        (["a", "b", "a"], ValueError, "each once, and 'a' is there twice"),
        ([1], TypeError, "keys is a list"),
    ],
)
def test_keys_that_cannot_be_are_refused(tmp_path, keys, error, told):
    """When the callback is made."""
    with pytest.raises(error, match=told):
        TableWriter(tmp_path / "t.csv", keys)


@both_packages
def test_outputs_that_do_not_go_together_are_refused(package, tmp_path):
    """The message names the key."""
    with pytest.raises(KeyError, match=r"TableWriter expected key 'missing' \(keys\)"):
        predict(package, TableWriter(tmp_path / "t.csv", ["label", "missing"]))
    with pytest.raises(ValueError, match="5 under 'label' and 1 under 'loss'"):
        predict(package, TableWriter(tmp_path / "t.csv", ["label", "loss"]), loss=torch.tensor(0.5))


@both_packages
def test_file_writer_takes_the_target_too(package, tmp_path):
    """Of one entry that is a list of rows."""
    predict(
        package,
        FileWriter(TableTarget(tmp_path / "t.csv"), "rows"),
        rows=[{"x": number} for number in range(5)],
        loader=DataLoader(range(5), batch_size=5),
    )
    assert [row["x"] for row in read_csv(tmp_path / "t.csv")] == list("01234")


# The row


def test_rows_are_msgpack(tmp_path):
    """So that anybody can read them."""
    encoder = encoder_of("table_row", "")
    data = b"".join(encoder.encode({"a": 1, "b": "x", "c": None, "d": [1.5, True]}))
    assert data == b"\x84\xa1a\x01\xa1b\xa1x\xa1c\xc0\xa1d\x92\xcb?\xf8\x00\x00\x00\x00\x00\x00\xc3"
    assert encoder.decode(data) == {"a": 1, "b": "x", "c": None, "d": [1.5, True]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x81\x01\x02",
        b"\x81\xa1a\xc7\x00\x02",  # another extension
        b"\x81\xa1a\xc7\x00\x01",
        b"\x81\xa1a\xc7\x02\x01\xff\x00",
        b"\x81\xa1a\xc7\x02\x01\x09\x01",
        b"\x81\xa1a\xc7\x06\x01\x09\x01\xff\xff\xff\xff",
        b"\x81\xa1a\xc7\x06\x01\x09\x00abcd" + b"x",
    ],
)
def test_rows_of_anybodys_are_not_trusted(data):
    """They are refused, and no memory is taken for what they say."""
    with pytest.raises(ValueError, match="these bytes are no row of a table"):
        encoder_of("table_row", "").decode(data)


def test_a_target_can_be_pickled(tmp_path):
    """For helpers, which open it for themselves."""
    target = pickle.loads(pickle.dumps(TableTarget(tmp_path / "t.csv", durability="fsync")))
    assert (target.object, target.durability, target.path) == ("t.csv", "fsync", tmp_path / "t.csv")
    assert target.location == str((tmp_path / "t.csv").resolve())
    with pytest.raises(ValueError, match="is not open"):
        target.lane(0)
    with pytest.raises(TypeError, match="without a record"):
        target.put("a", [])


def test_bytes_between_rows_are_read_as_none(tmp_path):
    """A row is where its record says."""
    write(TableTarget(tmp_path / "t.csv"), {"x": ["é" * 3]}, ["a"])
    record = open_results(tmp_path / "t.csv").record("a")
    data = (tmp_path / record.file).read_bytes()[record.offset :]
    assert decode_row(memoryview(data)) == decode_row(io.BytesIO(data).getvalue()) == {"x": "ééé"}


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_rows_with_texts_are_stored_together(tmp_path, backend):
    """Filled up to one length where they differ; where that would take too much room, or types differ, one by one."""
    batches = [
        {"t": [f"t{index}" * (index % 3 + 1) for index in range(20)], "x": torch.rand(20), "n": list(range(20))},
        {"t": ["same"] * 20, "x": torch.rand(20), "n": [2**63 - 1] * 20},
        {"t": ["x" * 9000, *["y"] * 19], "x": torch.rand(20), "n": [-(2**63)] * 20},
        {"t": [None, *["\N{SNOWMAN}"] * 19], "x": torch.rand(20), "n": list(range(20))},
    ]
    with BackgroundWriter(target=TableTarget(tmp_path / "t.parquet"), backend=backend, max_workers=1) as writer:
        for number, batch in enumerate(batches):
            writer.submit_batch(None, batch, origin=Origin(range(20 * number, 20 * number + 20)))
    found = pandas.read_parquet(tmp_path / "t.parquet")
    assert found["n"].tolist() == [n for batch in batches for n in batch["n"]]
    assert [t if isinstance(t, str) else None for t in found["t"]] == [t for batch in batches for t in batch["t"]]
    assert np.array_equal(found["x"], torch.cat([batch["x"] for batch in batches]))
    assert [row["t"] for row in open_results(tmp_path / "t.parquet").values()][:3] == ["t0", "t1t1", "t2t2t2"]


def test_a_whole_number_too_large_fails_by_itself(tmp_path):
    """Among others that are stored together."""
    with pytest.raises(WriteError, match="column 'n': 9223372036854775808 takes more than 64 bits") as failed:
        write(TableTarget(tmp_path / "t.csv"), {"n": [1, 2**63, 3]}, ["a", "b", "c"])
    assert [one.name for one in failed.value.failures] == ["b"]
    assert (tmp_path / "t.csv").read_text() == "name,n\na,1\nc,3\n"
