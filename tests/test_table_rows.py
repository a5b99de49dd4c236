"""Rows of tables, many at once: the same bytes, values and texts as one by one."""

import csv
import io
import json
import math

import msgspec
import numpy as np
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lighter_async import BackgroundWriter, Origin, TableTarget, open_results
from lighter_async.manifest.keys import key_in_series, keys_in_series
from lighter_async.plain_memory import Rows
from lighter_async.table_row import DTYPES, decode_row, layout_of, pack, pack_row, packed_array, packed_room
from lighter_async.tables import Column, reading
from lighter_async.tables.numbers import texts_of
from lighter_async.tables.text import csv_cells, json_texts, quoted
from lighter_async.writers.table_columns import encode_columns

WHOLE = st.integers(-(1 << 63), (1 << 63) - 1)
VALUES = [st.text(), WHOLE, st.integers(-200, 200), st.floats(allow_nan=False), st.booleans()]
SHAPES = st.sampled_from([(), (1,), (3,), (2, 2)])


@st.composite
def columns(draw):
    """Columns of equally many values, as a worker has them."""
    count = draw(st.integers(1, 8))
    found = {}
    for key in draw(st.lists(st.text(max_size=40), min_size=1, max_size=5, unique=True)):
        if draw(st.booleans()):
            dtype, shape = draw(st.sampled_from(DTYPES)), draw(SHAPES)
            array = draw(arrays.arrays(dtype, (count, *shape)))
            memory = array.reshape(count, -1).view(np.uint8).reshape(count, -1)
            found[key] = Rows(dtype, shape, memory, is_tensor=False), list(array)
        else:
            kind = draw(st.sampled_from(VALUES))
            some = draw(st.sampled_from([kind, st.none() | kind]))
            values = draw(st.lists(some, min_size=count, max_size=count))
            found[key] = values, values
    return found


def is_same(one, other):
    """Also of arrays and lists, and where there are NaNs in them."""
    if isinstance(one, (np.ndarray, np.generic)):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(is_same, one, other))
    return type(one) is type(other) and (one == other or (one != one and other != other))


def filled(encoded, count):
    out = np.empty((count, encoded.nbytes), np.uint8)
    encoded.fill(out)
    return out


@given(columns())
@settings(deadline=None)
def test_each_row_of_encoded_columns_is_read_by_itself(given):
    """With its values, in the order of the columns."""
    encoded = encode_columns({key: column for key, (column, _) in given.items()})
    wanted = [dict(zip(given, row, strict=True)) for row in zip(*(values for _, values in given.values()), strict=True)]
    if encoded is None:  # numbers of more than 64 bits are drawn nowhere, so values differ in length
        uneven = [[one for one in row.values() if one is None or isinstance(one, str)] for row in wanted]
        sizes = [len(pack(some)) for some in uneven]
        assert max(sizes) > min(sizes)
        return
    for row, values in zip(filled(encoded, len(wanted)), wanted, strict=True):
        found = decode_row(row.tobytes())
        assert list(found) == list(values)
        assert all(is_same(found[key], values[key]) for key in values)


@given(columns())
@settings(deadline=None)
def test_rows_that_are_laid_out_alike_are_read_by_columns(given):
    """The same values as row by row."""
    encoded = encode_columns({key: column for key, (column, _) in given.items()})
    if encoded is None:
        return
    rows = filled(encoded, len(next(iter(given.values()))[1]))
    layout = layout_of(rows[0].tobytes())
    assert layout is not None
    assert layout.fit(rows) is None
    for key, (_, wanted) in given.items():
        found = layout.slots[key].values(rows)
        assert all(is_same(wanted[place], _python(found[place], wanted[place])) for place in range(len(rows)))


def _python(value, like):
    """A value of a column as rows have it: of Python's numbers Python's."""
    return value.item() if isinstance(value, np.generic) and not isinstance(like, np.generic) else value


ROWS = st.dictionaries(
    st.text(max_size=40), st.one_of(st.none(), *VALUES, st.lists(WHOLE, max_size=3)), min_size=1, max_size=20
)


@given(ROWS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_a_layout_fits_no_row_that_it_reads_otherwise(row, random):
    """Of a row with any byte changed, either it is another one, or its values are those that are read row by row."""
    data = pack_row(row)
    layout = layout_of(data)
    assert layout is not None
    for _ in range(30):
        other = bytearray(data)
        other[random.randrange(len(other))] = random.randrange(256)
        rows = np.frombuffer(bytes(other), np.uint8)[None]
        fit = layout.fit(rows)
        if fit is not None and not fit[0]:
            continue
        try:
            found = {key: slot.values(rows)[0] for key, slot in layout.slots.items()}
        except (ValueError, msgspec.DecodeError):
            continue
        wanted = decode_row(bytes(other))
        for key in layout.slots:
            assert is_same(wanted[key], _python(found[key], wanted[key]))


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"\x80\x00",
        b"\x81\xa1a",
        b"\x81\xa1a\xd9",
        b"\x82\xa1a\x01\xa1a\x02",  # one column twice
        b"\x81\x01\x02",
        b"\x81\xa1a\xc7\x02\x01\xff\x00",
        b"\x81\xa1a\xc7\x04\x03\x00\x00\x00\x00",  # another extension
        b"\x81\xa1a\x81\xa1b\x01",
        b"\xc1",
    ],
)
def test_bytes_that_are_no_usual_row_have_no_layout(row):
    """They are read one by one, and refused there if need be."""
    assert layout_of(row) is None


@pytest.mark.parametrize("value", ["ab", None, 7, 0.5, True, [1, "x"], []])
def test_a_value_with_room_takes_no_more_than_it_says(value):
    """Whoever has written it."""
    row = pack_row({"v": packed_room(pack(value), 16), "x": packed_array("int8", (), b"\x05")})
    assert decode_row(row) == {"v": value, "x": 5}
    assert len(row) == len(pack_row({"v": packed_room(bytes(16), 16), "x": packed_array("int8", (), b"\x05")}))
    layout, torn = layout_of(row), bytearray(row)
    torn[layout.slots["v"].begin] = 17
    with pytest.raises(ValueError, match="an extension of msgpack"):
        decode_row(bytes(torn))
    rows = np.frombuffer(row + torn + row, np.uint8).reshape(3, -1)
    assert layout.fit(rows).tolist() == [True, False, True]
    assert layout.slots["v"].values(rows[::2]) == [value, value]


# Texts


@given(arrays.arrays(st.sampled_from(["float32", "float64"]), st.integers(0, 50)))
@settings(deadline=None)
def test_floats_have_the_texts_that_numpy_gives_them(numbers):
    """The shortest that are read back."""
    assert texts_of(numbers) == numbers.astype(np.str_).tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_usual_floats_have_the_texts_that_numpy_gives_them(dtype):
    """Scores, round numbers, and those just beside round numbers, of either sign."""
    random = np.random.default_rng(20)
    some = [random.random(50_000), np.exp(random.uniform(-12, 18, 50_000)), np.arange(10_000) / 1000]
    some += [2.0 ** np.arange(-20, 25), 10.0 ** np.arange(-8, 17), (np.arange(2**18, 2**18 + 5000) + 0.5) / 64]
    numbers = np.concatenate(some).astype(dtype)
    low, high = np.array([-np.inf, np.inf], dtype)
    numbers = np.concatenate([numbers, np.nextafter(numbers, low), np.nextafter(numbers, high)])
    numbers *= random.choice([-1, 1], len(numbers)).astype(dtype)
    assert texts_of(numbers) == numbers.astype(np.str_).tolist()


@pytest.mark.parametrize("dtype", ["bool", "uint64", "int8", "int64"])
def test_whole_numbers_have_their_texts(dtype):
    """All digits of them, and bools as JSON has them."""
    numbers = np.array([0, 1] if dtype == "bool" else [np.iinfo(dtype).min, 0, np.iinfo(dtype).max], dtype)
    assert [json.loads(text) for text in texts_of(numbers)] == numbers.tolist()


TEXTS = st.lists(
    st.one_of(st.none(), st.text("a,\"'\n\r \t\\b", max_size=4), st.text(max_size=6)), min_size=1, max_size=20
)


@given(TEXTS)
@settings(deadline=None)
def test_cells_are_read_as_they_were_given(texts):
    """By the csv module; and they are quoted as if each were alone."""
    cells = csv_cells(Column(texts))
    assert cells == ["" if text is None else quoted(text) for text in texts]
    rows = list(csv.reader(io.StringIO("\n".join(f"{cell},." for cell in cells), newline="")))
    assert rows == [["" if text is None else text, "."] for text in texts]


@given(TEXTS)
@settings(deadline=None)
def test_json_is_read_as_it_was_given(texts):
    """Each text by itself."""
    assert [json.loads(text) for text in json_texts(Column(texts))] == texts


def test_numbers_that_are_not_there_or_are_none_of_json_are_told_apart():
    """Nothing in CSV, and null in JSON."""
    column = Column(np.array([0.5, 0, np.nan], np.float32), np.array([True, False, True]))
    assert csv_cells(column) == ["0.5", "", "nan"]
    assert json_texts(column) == ["0.5", "null", "null"]


# Whole tables


def store(path, count=400):
    """Rows that are alike, others, and some with and without columns, from several workers and in no order."""
    random = np.random.default_rng(20)
    order = random.permutation(count // 20)
    with BackgroundWriter(target=TableTarget(path), backend="thread", max_workers=3) as writer:
        for number in order.tolist():
            some = range(20 * number, 20 * number + 20)
            batch = {
                "t": [f"t{index}" * (index % 3 + number % 2) for index in some],
                "x": torch.rand(20),
                "n": list(some) if number % 4 else [-index for index in some],
                "v": torch.rand(20, 2),
                "f": [index / 7 for index in some],
                "b": [index % 3 == 0 for index in some],
            }
            if number % 4 == 1:
                batch["l"] = [[f"{index}"] * (index % 3) for index in some]
            if number % 5 == 0:
                del batch["x"]
            rows = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
            if number % 3 == 0:
                for row in rows[::4]:
                    row["t"] = None
            names = None if number % 2 else [f"s.{index}" for index in some]
            writer.submit_batch(names, rows if number % 3 == 0 else batch, origin=Origin(some))
    return path


@pytest.mark.long
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_is_the_same_whether_rows_are_read_together_or_one_by_one(tmp_path, monkeypatch, suffix):
    """Also in smaller parts."""
    path = store(tmp_path / f"t.{suffix}")
    first = content_of(path)
    assert len(first) >= 400
    for name, value in (("ALIKE", 1), ("ALIKE", 1 << 30), ("_BYTES", 1000), ("_SMALL", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(reading, name, value)
            write_again(path)
            assert content_of(path) == first, name


def write_again(path):
    """Have the table written of the rows that are stored."""
    path.unlink()
    with BackgroundWriter(target=TableTarget(path), resume=True) as writer:
        writer.start()


def content_of(path):
    if path.suffix != ".parquet":
        return path.read_text().splitlines()
    table = pyarrow.parquet.read_table(path)
    return [*table.to_pylist(), table.schema]


def test_a_table_has_the_values_that_were_handed_over(tmp_path):
    """Of rows of all kinds, in their order."""
    path = store(tmp_path / "t.parquet")
    table, results = pyarrow.parquet.read_table(path).to_pylist(), open_results(path)
    assert [row["index"] for row in table] == list(range(400))
    for row in table:
        stored = results.at(row["index"])
        assert row["name"] == (str(row["index"]) if row["index"] // 20 % 2 else f"s.{row['index']}")
        for key in ("t", "x", "n", "f", "b", "l"):
            assert row[key] == stored.get(key), key
        assert row["v"] == stored["v"].tolist()


def test_damaged_rows_among_those_that_are_alike_cost_no_other(tmp_path, capsys):
    """Wherever they lie, and a part that was cut off."""
    path = tmp_path / "t.csv"
    with BackgroundWriter(target=TableTarget(path), backend="thread", max_workers=1) as writer:
        for start in range(0, 100, 50):
            some = range(start, start + 50)
            writer.submit_batch(None, {"x": torch.tensor(some), "t": [f"{x:03}" for x in some]}, origin=Origin(some))
    (spool,) = (tmp_path / ".lighter-async/tables/t.csv").glob("*.rows")
    record = open_results(path).record("20")
    data = bytearray(spool.read_bytes())
    for index in (0, 20, 70):
        data[open_results(path).record(str(index)).offset + record.bytes - 1] ^= 1
    spool.write_bytes(data[: -3 * record.bytes])
    write_again(path)
    wanted = [index for index in range(97) if index not in (0, 20, 70)]
    assert path.read_text() == "index,x,t\n" + "".join(f"{index},{index},{index:03}\n" for index in wanted)
    assert "lacks 6 of its rows, which cannot be read: '0' (its row is damaged)" in capsys.readouterr().err


def test_names_that_are_numbers_are_known_as_numbers():
    """Whether a record lists them as texts, or says where they begin."""
    series, numbers = ("table_row", "t.csv"), np.array([0, 7, 123, 10**15])
    as_texts = keys_in_series([*map(str, numbers), "a", "007", ""], series)
    assert keys_in_series(numbers, series).tolist() == as_texts[:4].tolist()
    assert [key_in_series(name, series) for name in ("7", "a", "007", "")] == as_texts[[1, 4, 5, 6]].tolist()
    assert len(set(as_texts.tolist())) == 7
    assert not set(as_texts.tolist()) & set(keys_in_series(numbers, ("table_row", "u.csv")).tolist())


def test_a_number_as_small_as_can_be_is_no_zero():
    """Nor is one with a sign."""
    assert texts_of(np.array([5e-324, -0.0, 0.0])) == ["5e-324", "-0.0", "0.0"]
    assert math.copysign(1, float(texts_of(np.array([-0.0], np.float32))[0])) == -1
