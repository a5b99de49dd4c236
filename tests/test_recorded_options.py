"""The options of writers are recorded: files are read back with them, and kept values written with them."""

import json
import pickle
import warnings
from pathlib import Path

import configured
import numpy as np
import pytest
import torch

from lighter_async import (
    BackgroundWriter,
    Encoder,
    Origin,
    ReadError,
    TarShards,
    WriteError,
    encoder,
    open_results,
    read_manifest,
    writer_registry,
)
from lighter_async.cli import main
from lighter_async.workers import kept_in
from lighter_async.writers import recorded_options, resolve_writer, write_json, write_nifti, write_text

CUBE = torch.arange(81, dtype=torch.int16).reshape(3, 3, 3, 3)
MATRIX = np.diag([2.0, 3, 4, 1])


@pytest.fixture(autouse=True)
def _from_the_tests_folder(monkeypatch):
    """A writer's module lies in the working folder, as that of a user's script does."""
    monkeypatch.chdir(Path(__file__).parent)


def store(where, writer, values, *, options=None, **rest):
    with BackgroundWriter(writer, where, backend="thread", writer_options=options or {}, **rest) as background:
        for index, (name, value) in enumerate(values.items()):
            background.submit(name, value, origin=Origin([index]))


def run_lines(folder):
    return [json.loads(line) for line in (folder / ".lighter-async/manifest-0.jsonl").read_bytes().splitlines()[:1]]


# Reading back

READ_BACK = {
    "nifti, channels last": ("nifti", {"channel_dim": -1}, CUBE),
    "nifti, channels in between": ("nifti", {"channel_dim": 1, "suffix": ".nii"}, CUBE),
    "nifti, no channels": ("nifti", {"channel_dim": None}, CUBE[0]),
    "text, latin-1": ("text", {"encoding": "latin-1"}, "Ã¤"),  # whose bytes are "ä" in UTF-8
    "text, utf-16": ("text", {"encoding": "utf-16-le"}, "ab"),
    "safetensors": ("safetensors", {"key": "boxes"}, torch.rand(3, 4)),
}


def plain(value):
    value = value["image"] if isinstance(value, dict) else value
    return value if isinstance(value, str) else np.asarray(value).tolist()


@pytest.mark.parametrize("form", ["files", "shards", "unpacked"])
@pytest.mark.parametrize("name", READ_BACK)
def test_a_value_is_read_back_with_the_options_of_its_run(tmp_path, name, form):
    """Without them a cube's axes would be exchanged, and a text would be another one."""
    writer, options, value = READ_BACK[name]
    where = tmp_path / "stored"
    store(where if form == "files" else TarShards(where), writer, {"a": value}, options=options)
    if form == "unpacked":
        assert main(["unpack", str(where), str(tmp_path / "unpacked")]) in (0, None)
        where = tmp_path / "unpacked"
    results = open_results(where)
    assert plain(results["a"]) == plain(pickle.loads(pickle.dumps(results))["a"]) == plain(value)


def test_each_sample_is_read_with_the_options_of_the_run_that_stored_it(tmp_path):
    """Also where a run went on with others."""
    store(tmp_path, "text", {"a": "ä"}, options={"encoding": "latin-1"})
    store(tmp_path, "text", {"b": "ö"}, options={"encoding": "utf-16"}, resume=True)
    store(tmp_path, "text", {"c": "ü"}, resume=True)
    assert {name: str(value) for name, value in open_results(tmp_path).items()} == {"a": "ä", "b": "ö", "c": "ü"}


def test_each_output_is_read_with_its_own_options(tmp_path):
    """And an encoder that the caller names is taken as it is."""
    options = {"x": {"encoding": "latin-1"}, "y": {"encoding": "utf-16"}}
    store(tmp_path, {"x": "text", "y": "text", "z": "text"}, {"a": {"x": "ä", "y": "ö", "z": "ü"}}, options=options)
    assert [open_results(tmp_path, key=key)["a"] for key in "xyz"] == ["ä", "ö", "ü"]
    with pytest.raises(ReadError, match="UnicodeDecodeError"):
        open_results(tmp_path, key="x", decode=write_text)["a"]


def test_a_run_without_options_has_the_line_that_it_always_had(tmp_path):
    """Which earlier versions read."""
    store(tmp_path / "plain", "text", {"a": "x"})
    store(tmp_path / "suffix", "text", {"a": "x"}, options={"suffix": ".md"})
    for name in ("plain", "suffix"):
        assert not {"options", "lost_options"} & set(run_lines(tmp_path / name)[0])
    store(tmp_path / "other", "json", {"a": 1}, options={"indent": 2, "suffix": ".js"})
    (line,) = run_lines(tmp_path / "other")
    assert (line["suffix"], line["options"]) == (".js", {"indent": 2})
    assert read_manifest(tmp_path / "other").runs[0].options == {"indent": 2}


@pytest.mark.parametrize(
    "changed", [{"options": []}, {"options": "x"}, {"lost_options": "x"}, {"lost_options": [1]}, {"lost_options": {}}]
)
def test_a_line_with_options_that_are_none_is_no_line(tmp_path, changed):
    """It may be anybody's."""
    store(tmp_path, "text", {"a": "x"})
    path = tmp_path / ".lighter-async/manifest-0.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | changed), *rest]) + "\n")
    assert read_manifest(tmp_path).runs == []


@pytest.mark.parametrize("options", [{"channel_dim": "x"}, {"channel_dim": 9}, {"channel_dim": {"a": 1}}])
def test_options_of_anybody_are_checked_before_a_file_is_read_with_them(tmp_path, options):
    """The sample is told."""
    store(tmp_path, "nifti", {"a": CUBE}, options={"channel_dim": -1})
    path = tmp_path / ".lighter-async/manifest-0.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {"options": options}), *rest]) + "\n")
    with pytest.raises(ReadError, match=r"'a'.* channel_dim"):
        open_results(tmp_path)["a"]


def decode_marked(data, *, mark="", trust=None):
    return data.decode().removeprefix(str(mark)), trust


@pytest.fixture
def marked(monkeypatch):
    """A registered encoder of the user's, whose decoder needs its option."""

    @encoder(suffix=".marked", decode=decode_marked)
    def encode_marked(value, *, mark=""):
        return f"{mark}{value}".encode()

    monkeypatch.setitem(writer_registry._registry, "marked", encode_marked)
    encode_marked.name = "marked"
    return encode_marked


def test_a_decoder_of_the_user_gets_options_where_they_are_trusted(tmp_path, marked):
    """They come from a directory of which others may be masters."""
    store(tmp_path, "marked", {"a": "x"}, options={"mark": "> "})
    with pytest.raises(ReadError, match=r"stored with mark='> ', as the directory says; .*trust=True"):
        open_results(tmp_path)["a"]
    assert open_results(tmp_path, trust=True)["a"] == ("x", True)
    assert open_results(tmp_path, decode=marked.with_options(mark="> "))["a"] == ("x", False)


def test_what_json_does_not_have_is_told_as_lost(tmp_path, marked):
    """A file is not read as if the option had not been there."""
    store(tmp_path, "marked", {"a": "x"}, options={"mark": b"> "})
    assert run_lines(tmp_path)[0]["lost_options"] == ["mark"]
    with pytest.raises(ReadError, match="stored with the option 'mark', which could not be recorded"):
        open_results(tmp_path, trust=True)["a"]
    assert open_results(tmp_path, decode=marked.with_options(mark=b"> "))["a"] == ("x", False)


def test_options_are_recorded_as_they_are_taken():
    """Tuples and arrays for our own writers, which take lists for them; of others only what JSON has."""
    known = recorded_options(resolve_writer("image_2d", {"scale": (np.float32(0.1), np.int64(3)), "mode": None}))
    assert known.given == {"suffix": ".png", "scale": [float(np.float32(0.1)), 3], "mode": None}
    known = recorded_options(write_nifti.with_options(affine=torch.from_numpy(MATRIX), suffix=".nii"))
    assert (known.given["affine"], known.lost) == (MATRIX.tolist(), ())
    known = recorded_options(configured.as_repr.with_options(mark=("a", "b")))
    assert (known.given, known.lost) == ({"suffix": ".repr"}, ("mark",))
    known = recorded_options(resolve_writer({"x": "text", "y": "json"}, {"x": {"encoding": "latin-1"}}))
    assert known.given == {"x": {"suffix": ".txt", "encoding": "latin-1"}, "y": {"suffix": ".json"}}
    for long in (list(range(5000)), [list(range(100))] * 100, {str(key): key for key in range(5000)}):
        known = recorded_options(configured.as_repr.with_options(mark=long))
        assert (known.given, known.lost) == ({"suffix": ".repr"}, ("mark",))
    long = recorded_options(configured.as_repr.with_options(mark="x" * (1 << 17)))
    assert (long.given, long.lost) == ({}, ("suffix", "mark"))


@pytest.mark.parametrize(
    ("writer", "first", "second", "rest", "is_told"),
    [
        ("image_2d", {"scale": "minmax"}, {"scale": (0, 1)}, {}, True),
        ("image_2d", {"scale": (0, 1)}, {}, {}, True),
        ("image_2d", {"scale": (0, 1)}, {"scale": [0, 1]}, {}, False),
        ("image_2d", {"compress_level": 0}, {"codec": "pillow", "filter": "up", "suffix": ".PNG"}, {}, False),
        ("image_2d", {"scale": "minmax"}, {"scale": (0, 1)}, {"mix_configs": True}, False),
        ("image_2d", {"scale": "minmax"}, {"scale": (0, 1)}, {"resume": False}, False),
        ({"a": "jpeg", "b": "jpeg"}, {"a": {"quality": 1}}, {"b": {"quality": 1}}, {}, True),
    ],
)
def test_a_run_that_goes_on_with_other_options_is_told(tmp_path, writer, first, second, rest, is_told):
    """What both store may not mean the same, and nothing in a file says so."""
    value = torch.rand(3, 4, 5) if isinstance(writer, str) else {"a": torch.rand(3, 4, 5), "b": torch.rand(3, 4, 5)}
    store(tmp_path, writer, {"a": value}, options=first)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store(tmp_path, writer, {"b": value}, options=second, **{"resume": True, **rest})
        store(tmp_path, writer, {"c": value}, options=second, **{"resume": True, **rest})
    told = [one for one in caught if "where the run before had" in str(one.message)]
    assert len(told) == (0 if not is_told else 1 if isinstance(writer, str) else 2)
    assert all(one.filename == __file__ for one in told)


# Replaying

REPLAYED = {
    "image, minmax": ("image_2d", {"scale": "minmax"}, torch.rand(3, 4, 5) * 400 - 200),
    "image, a range": ("image_2d", {"scale": (-200, 200)}, torch.rand(3, 4, 5) * 400 - 200),
    "nifti": ("nifti", {"channel_dim": -1, "suffix": ".nii"}, CUBE),
    "nifti, an affine": ("nifti", {"affine": MATRIX, "suffix": ".nii"}, torch.rand(1, 2, 3, 4)),
    "json": ("json", {"not_finite": "null"}, {"a": float("nan")}),
    "text": ("text", {"encoding": "latin-1"}, "ä"),
    "jpeg": ("jpeg", {"quality": 10}, torch.rand(3, 9, 9)),
    "tiff": ("tiff", {"axes": "CYX", "metadata": {"PhysicalSizeX": 0.5}, "suffix": ".ome.tif"}, torch.rand(2, 9, 9)),
    "another suffix": ("text", {"suffix": ".md"}, "x"),
}


def keep(folder, writer, value, *, options, files, **rest):
    """Have a value kept: folders lie where its files should be, until it was tried."""
    for file in files:
        (folder / file).mkdir(parents=True)
    background = BackgroundWriter(
        writer, folder, on_error="continue", attempts=1, max_workers=1, writer_options=options, **rest
    )
    background.submit("a", value, origin=Origin([0]))
    with pytest.raises(WriteError, match="'a'"):
        background.close()
    for file in files:
        (folder / file).rmdir()


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("manifest", [True, False], ids=["recorded", "not recorded"])
@pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", REPLAYED)
def test_a_kept_value_is_written_as_its_run_would_have_written_it(tmp_path, name, backend, manifest):
    """With the writer's options, and to the file that it would have had."""
    writer, options, value = REPLAYED[name]
    made = resolve_writer(writer, options)
    keep(tmp_path, writer, value, options=options, files=[f"a{made.suffix}"], backend=backend, manifest=manifest)
    assert main(["replay", str(tmp_path)]) == 0
    assert files_in(tmp_path) == {f"a{made.suffix}": b"".join(made.encode(value))}
    if manifest:
        decoded = made.decode(b"".join(made.encode(value)), shape=getattr(value, "shape", None))
        np.testing.assert_equal(open_results(tmp_path)["a"], decoded)


def test_each_output_of_a_kept_value_is_written_with_its_options(tmp_path):
    """All of them, or none."""
    value = {"x": torch.rand(1, 4, 5) * 400 - 200, "y": "ä"}
    options = {"x": {"scale": "minmax"}, "y": {"encoding": "latin-1", "suffix": ".md"}}
    keep(tmp_path, {"x": "image_2d", "y": "text"}, value, options=options, files=["a.y.md"], backend="thread")
    assert main(["replay", str(tmp_path)]) == 0
    made = resolve_writer("image_2d", options["x"])
    assert files_in(tmp_path) == {"a.x.png": b"".join(made.encode(value["x"])), "a.y.md": b"\xe4"}


def replayed(folder, *arguments, capsys):
    code = main(["replay", str(folder), *arguments])
    return code, capsys.readouterr().err


def test_a_writer_of_the_user_gets_options_where_they_are_trusted(tmp_path, marked, capsys):
    """Else the value stays, and the others are written."""
    keep(tmp_path, "marked", "x", options={"mark": "> "}, files=["a.marked"], backend="thread")
    keep(tmp_path, "text", "y", options={}, files=["a.txt"], backend="thread", resume=True)
    code, said = replayed(tmp_path, capsys=capsys)
    assert code == 1
    assert (
        """writer 'marked' was given options, {"suffix": ".marked", "mark": "> "}, as its error says; give --trust"""
        in said
    )
    assert files_in(tmp_path) == {"a.txt": b"y"}
    assert replayed(tmp_path, "--trust", capsys=capsys)[0] == 0
    assert files_in(tmp_path) == {"a.txt": b"y", "a.marked": b"> x"}


def test_an_option_that_is_lost_is_told_by_naming_a_writer_that_has_it(tmp_path, monkeypatch, marked, capsys):
    """Until then the value stays."""
    keep(tmp_path, "marked", "x", options={"mark": b"> "}, files=["a.marked"], backend="thread")
    code, said = replayed(tmp_path, "--trust", capsys=capsys)
    assert code == 1
    assert "writer 'marked' had the option 'mark', which could not be recorded; --writer module:name" in said
    monkeypatch.setattr(configured, "with_mark", marked.with_options(mark=b"> "), raising=False)
    assert replayed(tmp_path, "--writer", "configured:with_mark", capsys=capsys)[0] == 0
    assert files_in(tmp_path) == {"a.marked": b"b'> 'x"}


def test_a_registered_writer_may_have_an_option_that_is_lost(tmp_path, monkeypatch, marked):
    """It is read back and replayed by its name then."""
    monkeypatch.setitem(writer_registry._registry, "marked", marked.with_options(mark=b"> "))
    keep(tmp_path, "marked", "x", options={}, files=["a.marked"], backend="thread")
    assert main(["replay", str(tmp_path)]) == 0
    assert files_in(tmp_path) == {"a.marked": b"b'> 'x"}
    assert open_results(tmp_path)["a"] == ("x", False)


def test_a_class_that_makes_a_writer_is_given_its_options_again(tmp_path, capsys):
    """By the one that is named for it."""
    keep(tmp_path, "configured:Lines", "x", options={"count": 3}, files=["a.lines"], backend="thread")
    assert 'given options, {"count": 3}' in replayed(tmp_path, "--writer", "configured:Lines", capsys=capsys)[1]
    assert replayed(tmp_path, "--writer", "configured:Lines", "--trust", capsys=capsys)[0] == 0
    assert files_in(tmp_path) == {"a.lines": b"x\nx\nx"}


def test_a_function_is_given_its_options_again(tmp_path, monkeypatch):
    """A registered one, of the user's."""

    def write_marked(path, value, *, mark=""):
        if not path.parent.joinpath("ready").exists():
            raise ValueError("not yet")
        path.with_name(path.name + ".f").write_text(f"{mark}{value}")

    monkeypatch.setitem(writer_registry._registry, "write_marked", write_marked)
    keep(tmp_path, "write_marked", "x", options={"mark": "> "}, files=[], backend="thread")
    (tmp_path / "ready").touch()
    assert main(["replay", str(tmp_path)]) == 1
    assert main(["replay", str(tmp_path), "--trust"]) == 0
    assert (tmp_path / "a.f").read_text() == "> x"


def test_what_the_user_changes_of_a_writer_counts_beside_the_options_of_the_run(tmp_path, monkeypatch):
    """A writer that can do what that of the run could not is named for its values."""
    keep(tmp_path, "json", {"a": float("nan")}, options={"indent": 0, "suffix": ".js"}, files=[], backend="thread")
    monkeypatch.setattr(configured, "nulls", write_json.with_options(not_finite="null"), raising=False)
    assert main(["replay", str(tmp_path)]) == 1
    assert main(["replay", str(tmp_path), "--writer", "configured:nulls"]) == 0
    assert files_in(tmp_path) == {"a.js": b'{\n"a": null\n}'}


def test_another_writer_that_the_user_names_is_taken_as_it_is(tmp_path):
    """The options of the one that failed are not its own."""
    keep(tmp_path, "json", {"a": float("nan")}, options={"indent": 0}, files=[], backend="thread")
    assert main(["replay", str(tmp_path), "--writer", "text"]) == 0
    assert files_in(tmp_path) == {"a.txt": b"{'a': nan}"}


def about_of(folder):
    (one,) = kept_in(folder)
    return one.folder / "error.json"


def test_a_value_of_an_earlier_version_is_written_without_options(tmp_path):
    """They were not recorded then."""
    keep(tmp_path, "text", "ä", options={"encoding": "latin-1"}, files=["a.txt"], backend="thread")
    path = about_of(tmp_path)
    about = json.loads(path.read_text())
    del about["options"], about["lost_options"]
    path.write_text(json.dumps(about))
    assert main(["replay", str(tmp_path)]) == 0
    assert files_in(tmp_path) == {"a.txt": "ä".encode()}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"options": []}, "'options' are none"),
        ({"lost_options": "encoding"}, "'options' are none"),
        ({"options": {"encoding": "no such"}}, "unknown encoding: no such"),
        ({"options": {"suffix": ".x/../y"}}, "holds a '/'"),
        ({"options": {"name": "x"}}, "unexpected keyword argument 'name'"),
    ],
)
def test_options_of_anybody_are_checked_before_a_value_is_written_with_them(tmp_path, capsys, changed, told):
    """The value stays, and is told."""
    keep(tmp_path, "text", "ä", options={}, files=["a.txt"], backend="thread")
    path = about_of(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    code, said = replayed(tmp_path, capsys=capsys)
    assert (code, told in said) == (1, True), said
    assert files_in(tmp_path) == {}
    assert path.exists()


def test_an_encoder_that_others_have_too_is_not_marked_as_made():
    """A function that gives away a shared one is called with options of its own."""
    made = resolve_writer("configured:shared", {"anything": 1})
    assert isinstance(made, Encoder)
    assert recorded_options(made).given == {"anything": 1}
    assert recorded_options(configured.as_repr).given == {"suffix": ".repr"}
