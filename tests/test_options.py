"""What a writer is made of: where it stores, which writer runs, and with which options."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from typing import get_type_hints

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader

from lighter_async import (
    ArrayWriter,
    AsyncBackgroundWriter,
    BackendUnavailableError,
    BackgroundWriter,
    CsvWriter,
    Encoder,
    FileWriter,
    LocalTarget,
    TableWriter,
    read_manifest,
    writer_registry,
)
from lighter_async.options import CallbackOptions, Options, RowOptions, WriterOptions
from lighter_async.types import Run

FORMATS = """
import lighter_async

class Rot(lighter_async.Encoder):
    def __init__(self, by=13):
        super().__init__(lambda value: bytes(byte + by for byte in value.encode()), suffix=".rot", name="rot")

@lighter_async.encoder(suffix=".upper")
def upper(value, *, mark="!"):
    return (value.upper() + mark).encode()

def plain(path, value, *, mark="?"):
    path.with_suffix(".plain").write_text(value + mark)

class nested:
    again = upper

def make(*, mark="!"):
    return upper.with_options(mark=mark, suffix=".made")

class Files:
    def __init__(self, mark):
        self.mark = mark

    def __call__(self, path, value):
        path.with_suffix(".file").write_text(value + self.mark)

def nothing():
    return 3

number = 5
"""


@pytest.fixture
def formats(tmp_path, monkeypatch):
    """A module of writers, which can be imported here and in helpers."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "my_formats.py").write_text(FORMATS)
    (folder / "my_broken.py").write_text("import no_such_package")
    (folder / "my_failing.py").write_text("1 / 0")
    (folder / "my_lacking.py").write_text("import math; math.missing")
    monkeypatch.syspath_prepend(folder)
    yield "my_formats"
    for module in ("my_formats", "my_broken", "my_failing", "my_lacking"):
        sys.modules.pop(module, None)


def stored(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("backend", ["thread", pytest.param("process", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("writer", "options", "expected"),
    [
        ("upper", None, {"a.upper": b"HI!"}),
        ("upper", {"mark": "#"}, {"a.upper": b"HI#"}),
        ("nested.again", {"mark": "#", "suffix": ".up"}, {"a.up": b"HI#"}),
        ("plain", {"mark": "#"}, {"a.plain": b"hi#"}),
        ("Rot", {"by": 1}, {"a.rot": b"ij"}),
        ("Rot", None, {"a.rot": b"uv"}),
        ("make", None, {"a.made": b"HI!"}),
        ("make", {"mark": "#"}, {"a.made": b"HI#"}),
        ("Files", {"mark": "#"}, {"a.file": b"hi#"}),
    ],
)
def test_a_writer_may_be_named_by_its_module(tmp_path, formats, backend, writer, options, expected):
    """An encoder, a function, or what makes one of them, with its options, whatever the workers are."""
    out = tmp_path / "out"
    with BackgroundWriter(f"{formats}:{writer}", out, writer_options=options, backend=backend) as background:
        background.submit("a", "hi")
    assert stored(out) == expected


@pytest.mark.parametrize(
    ("writer", "options", "message"),
    [
        ("no_such_module:encode", None, "no module 'no_such_module' can be imported"),
        ("my_broken:encode", None, "no module 'no_such_package' can be imported"),
        ("my_failing:encode", None, "importing module 'my_failing' fails: ZeroDivisionError"),
        ("my_lacking:encode", None, "importing module 'my_lacking' fails: AttributeError"),
        ("my_formats:missing", None, "module 'my_formats' has no 'missing'"),
        ("my_formats:uper", None, "has no 'uper'; did you mean 'upper'"),
        ("my_formats:", None, "the form is 'module:attribute'"),
        ("my formats:encode", None, "the form is 'module:attribute'"),
        ("my_formats:number", None, "a callable"),
        ("my_formats:upper", {"marks": 1}, "its options are suffix, mark"),
        ("my_formats:plain", {"marks": 1}, "'marks'; its options are mark"),
        ("my_formats:Rot", {"to": 1}, "'to'; its options are by"),
        ("my_formats:make", {"marks": 1}, "'marks'; its options are mark"),
        ("my_formats:Files", None, "'mark'"),
        ("my_formats:nothing", None, "returned int: 3"),
        ("image_2d", {"compression": 1}, "its options are suffix, codec, compress_level"),
        ("image_2d", {"compress_level": 99}, "compress_level is 0 to 12"),
        ("text", ["encoding"], "writer_options is a dict"),
        ("text", {5: 1}, "writer_options is a dict"),
    ],
)
@pytest.mark.parametrize("make", [BackgroundWriter, AsyncBackgroundWriter, "FileWriter"])
def test_a_wrong_writer_is_refused_when_it_is_made(tmp_path, formats, make, writer, options, message):
    """With what is missing, before there is any sample."""

    def make_it():
        if make == "FileWriter":
            FileWriter(tmp_path / "out", "key", writer, writer_options=options)
        else:
            make(writer, tmp_path / "out", writer_options=options)

    with pytest.raises((ValueError, TypeError), match=message):
        make_it()
    assert not (tmp_path / "out").exists()


def test_the_cause_of_a_failing_import_is_kept(tmp_path, formats):
    """What the module raised is the cause of what is raised here."""
    with pytest.raises(ValueError, match="importing module") as raised:
        BackgroundWriter("my_failing:encode", tmp_path)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_a_registered_name_may_have_a_colon(tmp_path, monkeypatch):
    """What is registered comes before what could be imported."""
    monkeypatch.setattr(writer_registry, "_registry", dict(writer_registry._registry))
    writer_registry.register("mine:own")(lambda path, value: None)
    assert BackgroundWriter("mine:own", tmp_path).writer.name == "mine:own"


def test_options_stay_when_threads_take_over(tmp_path, monkeypatch):
    """Where no helper can be started the same writer runs."""

    def refuse(*_, **__):
        raise BackendUnavailableError("nothing is started here")

    monkeypatch.setattr("lighter_async.workers.process.backend.ProcessBackend.start", refuse)
    with pytest.warns(RuntimeWarning, match="nothing is started here"):
        with BackgroundWriter("text", tmp_path, writer_options={"encoding": "utf-16-le"}, backend="auto") as writer:
            writer.submit("a", "hi")
    assert stored(tmp_path) == {"a.txt": "hi".encode("utf-16-le")}


class Model(pl.LightningModule):
    def predict_step(self, batch, batch_idx):
        return {"image": (batch.reshape(-1, 1, 1, 1) * torch.ones(1, 3, 8, 8)).to(torch.uint8)}


def predict(callback):
    trainer = pl.Trainer(
        accelerator="cpu", callbacks=[callback], logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.predict(Model(), DataLoader(torch.arange(6.0), batch_size=2), return_predictions=False)


@pytest.mark.filterwarnings("ignore:The 'predict_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_the_callback_takes_a_target_and_options(tmp_path):
    """With the target's own rules, and the run's records as for a path."""
    callback = FileWriter(
        LocalTarget(tmp_path / "out", durability="fsync"), "image", "image_2d", writer_options={"compress_level": 0}
    )
    predict(callback)
    assert callback.stats().written == 6
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.done(), manifest.runs[0].durability) == (set(range(6)), "fsync")
    assert manifest.runs[0].series == ("image_2d", "image")
    with Image.open(tmp_path / "out" / "3.png") as image:
        assert image.getpixel((0, 0)) == (3, 3, 3)
    again = FileWriter(LocalTarget(tmp_path / "out"), "image", "image_2d", resume=True)
    predict(again)
    assert again.stats().written == 0


def test_a_target_may_stand_in_the_place_of_a_directory(tmp_path):
    """For the service and its asyncio face."""
    with BackgroundWriter("text", LocalTarget(tmp_path / "out", if_exists="error")) as writer:
        writer.submit("a", "hi")
    assert stored(tmp_path / "out") == {"a.txt": b"hi"}
    assert AsyncBackgroundWriter("text", LocalTarget(tmp_path / "out")).stats().accepted == 0
    with pytest.raises(ValueError, match="if_exists goes with a directory"):
        BackgroundWriter("text", LocalTarget(tmp_path), if_exists="skip")
    with pytest.raises(ValueError, match="one of directory and target"):
        BackgroundWriter("text", LocalTarget(tmp_path), target=LocalTarget(tmp_path))
    with pytest.raises(TypeError, match="a path or a target, not int"):
        BackgroundWriter("text", 5)


class Elsewhere:
    """A target that has no directory."""

    location = "elsewhere"

    def open(self): ...
    def close(self): ...
    def check(self, names): ...
    def keeps(self, name):
        return False

    def put(self, name, parts):
        return True


def test_the_callback_says_which_options_go_with_a_target(tmp_path):
    """A target has its own rules, and records need a directory."""
    with pytest.raises(ValueError, match="resume=True needs a manifest, which goes with a directory, not Elsewhere"):
        FileWriter(Elsewhere(), "key", "text", resume=True)
    with pytest.raises(ValueError, match=r"run_config is recorded in a manifest, .* not Elsewhere"):
        BackgroundWriter("text", Elsewhere(), run_config="model-3.ckpt")
    with pytest.raises(ValueError, match="durability goes with a directory"):
        FileWriter(LocalTarget(tmp_path), "key", "text", durability="fsync")
    with pytest.raises(ValueError, match="URL"):
        FileWriter("s3://bucket/preds", "key", "text")


def test_an_encoder_of_a_module_is_the_module_s_own(formats):
    """So that its records say its name."""
    writer = BackgroundWriter(f"{formats}:upper", "unused", writer_options={"mark": ""})
    assert isinstance(writer.writer, Encoder)
    assert (writer.writer.name, writer.writer.suffix) == ("upper", ".upper")


FACES = {
    BackgroundWriter: WriterOptions,
    AsyncBackgroundWriter: WriterOptions,
    FileWriter: CallbackOptions,
    ArrayWriter: RowOptions,
    TableWriter: RowOptions,
    CsvWriter: RowOptions,
}


@pytest.mark.parametrize("face", FACES)
def test_each_option_is_told_once_and_reaches_every_face(face):
    """Its sentence, its type and its default stand in one place, and in each docstring and signature."""
    doc = " ".join(face.__doc__.split())
    parameters = inspect.signature(face).parameters
    hints, plain = get_type_hints(Options, include_extras=True), get_type_hints(Options)
    for name in get_type_hints(FACES[face]):
        assert f" {name}: {' '.join(hints[name].__metadata__[0].split())}" in doc
        default = next(one.default for one in dataclasses.fields(Options) if one.name == name)
        assert (parameters[name].default, parameters[name].annotation) == (default, plain[name])
        assert get_type_hints(face.__init__)[name] == plain[name]
    assert "{options}" not in face.__doc__


def test_type_checkers_are_told_of_all_options():
    """With the types that they are checked against when a program runs."""
    assert get_type_hints(WriterOptions) == get_type_hints(Options)
    assert get_type_hints(WriterOptions).keys() - get_type_hints(CallbackOptions).keys() == {"run", "accelerator"}


@pytest.mark.parametrize("face", FACES)
def test_an_option_that_there_is_not_is_refused_with_the_nearest(face, tmp_path):
    """Or with all that there are."""
    place = {
        FileWriter: (tmp_path, "key", "text"),
        ArrayWriter: (tmp_path / "a.npy", "key"),
        TableWriter: (tmp_path / "a.jsonl", ["key"]),
        CsvWriter: (tmp_path / "a.csv", ["key"]),
    }.get(face, ("text", tmp_path))
    with pytest.raises(TypeError, match=rf"{face.__name__}\(\) got .*'max_worker'; did you mean 'max_workers'"):
        face(*place, max_worker=2)
    first = "" if FACES[face] is RowOptions else "writer_options, "
    with pytest.raises(TypeError, match=f"'zzz'; its options are {first}backend"):
        face(*place, zzz=2)
    if issubclass(face, FileWriter):
        with pytest.raises(TypeError, match="did you mean 'sigterm_grace'"):
            face(*place, sigterm_grac=2)


@pytest.mark.parametrize(("face", "option"), [(FileWriter, "run"), (FileWriter, "accelerator"), (ArrayWriter, "run")])
def test_an_option_of_another_face_is_refused(face, option, tmp_path):
    """The callback would not look at it."""
    with pytest.raises(TypeError, match=rf"{face.__name__}\(\) got an unexpected keyword argument '{option}'; its op"):
        face(tmp_path / "a.npy", "key", **({"writer_fn": "text"} if face is FileWriter else {}), **{option: None})


@pytest.mark.parametrize(("face", "name"), [(ArrayWriter, "a.npy"), (TableWriter, "a.csv"), (CsvWriter, "a.csv")])
def test_rows_are_written_by_a_writer_without_options(face, name, tmp_path):
    """So none are taken."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'writer_options'"):
        face(tmp_path / name, "key" if face is ArrayWriter else ["key"], writer_options={})


def test_options_of_the_callback_are_attributes(tmp_path):
    """They may be changed between runs, and are checked then."""
    callback = FileWriter(tmp_path, "key", "text", queue_size=3)
    assert (callback.queue_size, callback.on_error, callback.max_workers) == (3, "stop", None)
    callback.queue_size = 5
    assert (callback.options.queue_size, callback.queue_size) == (5, 5)
    with pytest.raises(ValueError, match="queue_size is at least 1"):
        callback.queue_size = 0
    assert callback._background_writer(local_ranks=1, run=Run()).queue_size == 5


def test_lightning_s_command_line_sees_the_callback_s_options(tmp_path):
    """With their types and defaults, from a configuration file."""
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(pl.Callback, "writer")
    given = {"directory": str(tmp_path), "value_key": "image", "writer_fn": "image_2d", "queue_size": 9}

    def parse(**more):
        return parser.parse_object(
            {"writer": {"class_path": "lighter_async.FileWriter", "init_args": {**given, **more}}}
        )

    parsed = parse(writer_options={"compress_level": 1})
    assert (parsed.writer.init_args.queue_size, parsed.writer.init_args.attempts) == (9, Options().attempts)
    assert parser.instantiate(parsed).writer.options.writer_options == {"compress_level": 1}
    for wrong in ({"queue_sizes": 3}, {"queue_size": "many"}, {"backend": "gpu"}):
        with pytest.raises(jsonargparse.ArgumentError):
            parse(**wrong)


@pytest.mark.parametrize("face", FACES)
def test_a_docstring_has_one_section_of_arguments(face):
    """In which each parameter stands once, wherever the interpreter has taken the indentation away."""
    lines = inspect.getdoc(face).split("Args:\n")[1].split("\n\n")[0].splitlines()
    names = [line.split(":")[0].strip() for line in lines if line.startswith("    ") and line[4] != " "]
    assert sorted(names) == sorted(inspect.signature(face).parameters)
    assert max(map(len, lines)) <= 116
