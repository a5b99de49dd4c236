"""Writers by name, encoders, and functions (path, value)."""

import asyncio
import functools
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lighter_async import (
    BackgroundWriter,
    Encoder,
    FileWriter,
    WriteError,
    WriterRegistry,
    encoder,
    write_image_2d,
    write_image_3d,
    write_tensor,
    write_text,
    writer_registry,
)
from lighter_async.writers import PathFunction, resolve_writer


@pytest.fixture
def registry(monkeypatch):
    """The registry that names are looked up in, as it was before the test once the test is over."""
    monkeypatch.setattr(writer_registry, "_registry", dict(writer_registry._registry))
    return writer_registry


def plain(path, value):
    Path(path).write_text(str(value))


async def awaited(path, value):
    await asyncio.sleep(0)
    Path(path).write_text(str(value))


class Callable:
    def __call__(self, path, value):
        plain(path, value)

    def method(self, path, value):
        plain(path, value)

    async def async_method(self, path, value):
        await awaited(path, value)


class AsyncCallable:
    async def __call__(self, path, value):
        await awaited(path, value)


# The registry


def test_the_built_in_writers_are_registered():
    """Under the names of the synchronous writer."""
    assert writer_registry.get("tensor") is write_tensor
    assert writer_registry.get("image_2d") is write_image_2d
    assert writer_registry.get("image_3d") is write_image_3d
    assert writer_registry.get("text") is write_text


def test_a_decorator_registers_a_writer_and_leaves_it_as_it_is():
    """So the function can still be called by its own name."""
    registry = WriterRegistry()
    assert registry.register("mine")(plain) is plain
    assert registry.get("mine") is plain


def test_a_name_is_registered_once():
    """A second writer of that name is a ValueError, and the first one stays."""
    registry = WriterRegistry()
    registry.register("mine")(plain)
    with pytest.raises(ValueError, match="Writer with name 'mine' is already registered"):
        registry.register("mine")(awaited)
    assert registry.get("mine") is plain


def test_an_unknown_name_is_an_error_that_names_those_there_are():
    """In order, with the way out."""
    registry = WriterRegistry()
    for name in ("b", "a"):
        registry.register(name)(plain)
    with pytest.raises(ValueError, match=r"Writer with name 'c' is not registered\. Registered are: a, b\."):
        registry.get("c")
    own = "image_2d, image_3d, jpeg, json, nifti, npy, row, safetensors, table_row, tensor, text, tiff, webp"
    assert writer_registry._registry.keys() >= {*own.split(", ")}
    # Without those that targets choose themselves, and with what other tests have registered.
    registered = ", ".join(sorted(writer_registry._registry.keys() - {"row", "table_row"}))
    with pytest.raises(ValueError, match=rf"Registered are: {registered}\. .* \(The order is BackgroundWriter"):
        BackgroundWriter("missing", "somewhere")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(("jpg", "jpeg"), ("png", "image_2d"), (".png", "image_2d"), ("PT", "tensor"), ("txt", "text")),
        *(("nii", "nifti"), ("nii.gz", "nifti"), ("tif", "tiff"), ("image2d", "image_2d"), ("Tensor", "tensor")),
        ("package.formats.encode", "package.formats:encode"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_one_that_was_meant(name, meant):
    """By its spelling, or by the suffix of the files."""
    with pytest.raises(ValueError, match=f"{re.escape(repr(name))} is not registered; did you mean '{meant}'\\? Reg"):
        writer_registry.get(name)


def test_registries_are_separate():
    """A registry of one's own has nothing in it, and puts nothing into the library's."""
    registry = WriterRegistry()
    registry.register("tensor")(plain)
    assert writer_registry.get("tensor") is write_tensor
    with pytest.raises(ValueError, match="'text' is not registered"):
        registry.get("text")


# What a writer may be


@pytest.mark.parametrize(
    ("function", "name", "is_async"),
    [
        (plain, "plain", False),
        (awaited, "awaited", True),
        (functools.partial(plain), "plain", False),
        (functools.partial(awaited), "awaited", True),
        (functools.partial(functools.partial(awaited)), "awaited", True),
        (Callable(), "Callable", False),
        (AsyncCallable(), "AsyncCallable", True),
        (functools.partial(AsyncCallable()), "AsyncCallable", True),
        (Callable().method, "method", False),
        (Callable().async_method, "async_method", True),
        (lambda path, value: None, "<lambda>", False),
        (torch.save, "save", False),
    ],
)
def test_any_callable_is_a_writer_and_async_ones_are_recognised(function, name, is_async):
    """Functions, methods, objects with (async) __call__, and partials of them."""
    writer = resolve_writer(function)
    assert isinstance(writer, PathFunction)
    assert (writer.name, writer.is_async) == (name, is_async)
    assert writer.function is function


@pytest.mark.parametrize("writer", [None, 3, b"tensor", ["tensor"], Path("tensor")])
def test_what_is_neither_a_name_nor_callable_is_a_type_error(writer):
    """It says what it got."""
    with pytest.raises(TypeError, match=f"a registered name or a callable .* not {type(writer).__name__}"):
        resolve_writer(writer)


def test_a_registered_thing_that_cannot_be_called_is_a_type_error(registry):
    """When it is used, since a registry takes anything."""
    registry.register("odd")(3)
    with pytest.raises(TypeError, match="not int: 3"):
        resolve_writer("odd")


def test_a_registered_function_goes_by_its_registered_name(registry, tmp_path):
    """In errors too, where the function's own name may say nothing."""

    @registry.register("mine")
    def _(path, value):
        raise RuntimeError("broken")

    assert resolve_writer("mine").name == "mine"
    with pytest.raises(WriteError, match="writer 'mine' failed on 'a': RuntimeError: broken"):
        with BackgroundWriter("mine", tmp_path) as background:
            background.submit("a", 1)


@pytest.mark.parametrize(
    "function", [plain, awaited, functools.partial(plain), Callable(), AsyncCallable(), Callable().async_method]
)
@pytest.mark.parametrize("registered", [True, False])
def test_functions_write_at_the_final_path(registry, tmp_path, function, registered):
    """Registered or passed, plain or async: they get the path itself, its folder made, and no suffix."""
    if registered:
        registry.register("mine")(function)
    with BackgroundWriter("mine" if registered else function, tmp_path) as background:
        background.submit("a/b.txt", "x")
        background.submit_batch(["c", "d"], ["y", "z"])
    assert [(tmp_path / name).read_text() for name in ("a/b.txt", "c", "d")] == ["x", "y", "z"]


def test_a_partial_of_an_encoder_is_an_encoder():
    """Its keywords become options, its suffix the suffix, so that its bytes still go to the target."""
    writer = resolve_writer(functools.partial(write_text, suffix=".md", encoding="utf-16"))
    assert isinstance(writer, Encoder)
    assert (writer.name, writer.suffix) == ("text", ".md")
    assert b"".join(writer.encode("x")) == "x".encode("utf-16")
    assert resolve_writer(functools.partial(writer, encoding="ascii")).suffix == ".md"


def test_an_option_that_an_encoder_does_not_have_is_an_error(tmp_path):
    """At once, with those there are."""
    for give in (
        lambda: write_text(tmp_path / "x", "x", quality=3),
        lambda: write_text.with_options(quality=3),
        lambda: BackgroundWriter(functools.partial(write_text, quality=3), tmp_path),
    ):
        with pytest.raises(TypeError, match=r"'text': .*'quality'; its options are suffix, encoding"):
            give()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"codec": "opencv"}, "codec is 'isal' or 'pillow', not 'opencv'"),
        ({"compress_level": 13}, "compress_level is 0 to 12, not 13"),
        ({"compress_level": "3"}, "compress_level is 0 to 12, not '3'"),
        ({"codec": "pillow", "compress_level": 10}, "compress_level of codec 'pillow' is 0 to 9, not 10"),
        ({"mode": "CMYK"}, "mode is None, 'L', 'LA', 'RGB', 'RGBA' or 'I;16', not 'CMYK'"),
        ({"mode": ["L"]}, "not a list"),
        ({"filter": "best"}, "filter is one of 'none', .* not 'best'"),
        ({"codec": "x" * 100_000}, "not 'xxx.* of length 100000$"),
    ],
    ids=str,
)
@pytest.mark.parametrize("write", [write_image_2d, write_image_3d])
def test_a_value_that_an_option_cannot_have_is_refused_when_it_is_given(write, options, text, tmp_path):
    """With what is allowed, however it is given."""
    for give in (
        lambda: write.with_options(**options),
        lambda: BackgroundWriter(functools.partial(write, **options), tmp_path),
        lambda: write(tmp_path / "x", torch.zeros(1, 2, 2), **options),
    ):
        with pytest.raises(ValueError, match=text):
            give()
    assert list(tmp_path.iterdir()) == []


def test_options_are_seen_together():
    """A level that one codec takes and the other does not is refused in either order."""
    with pytest.raises(ValueError, match="0 to 9"):
        write_image_2d.with_options(compress_level=12).with_options(codec="pillow")
    with pytest.raises(ValueError, match="0 to 9"):
        write_image_2d.with_options(codec="pillow").with_options(compress_level=12)
    with pytest.raises(LookupError, match="no-such"):
        write_text.with_options(encoding="no-such")


def test_options_of_ones_own_encoder_are_checked_by_its_signature(tmp_path):
    """Unknown ones at once, those that it lacks when it becomes a writer; one that takes any takes any."""
    mine = encoder(suffix=".x")(lambda value, *, times, odd=False: b"")
    with pytest.raises(TypeError, match="'tims'; its options are suffix, times, odd"):
        mine.with_options(tims=3)
    with pytest.raises(TypeError, match="multiple values"):
        mine.with_options(value=3)
    with pytest.raises(TypeError, match=r"'times'; encoder\.with_options"):
        resolve_writer(mine)
    assert resolve_writer(mine.with_options(odd=True).with_options(times=3)).encode(None) == [b""]
    assert resolve_writer(functools.partial(mine, times=2)).suffix == ".x"
    encoder(suffix=".x")(lambda value, **options: b"").with_options(anything=1)
    with pytest.raises(TypeError, match=r"functools\.partial gives it"):
        encoder(suffix=".x")(functools.partial(lambda value: b"", odd=1)).with_options(even=2)
    with pytest.raises(TypeError, match=r"functools\.partial gives it"):
        resolve_writer(functools.partial(plain, quality=3))


def test_messages_show_little_of_a_users_value(tmp_path):
    """Swapped arguments name the order, and no message holds a tensor or a long name."""
    tensor, long = torch.rand(3, 16, 16), "n" * 1_000_000
    with BackgroundWriter("tensor", tmp_path) as writer:
        for call, text in (
            (lambda: writer.submit(tensor, "a"), "submit(name, value)"),
            (lambda: writer.submit_nowait(tensor.numpy(), "a"), "submit(name, value)"),
            (lambda: writer.submit([0] * 100_000, "a"), "submit(name, value)"),
            (lambda: writer.submit_batch(tensor, ["a", "b", "c"]), "submit_batch(names, values)"),
            (lambda: writer.submit_batch(tensor.numpy(), ["a", "b", "c"]), "submit_batch(names, values)"),
            (lambda: writer.submit_batch(list(tensor), ["a", "b", "c"]), "submit_batch(names, values)"),
            (lambda: writer.submit("/" + long, 1), "absolute"),
            (lambda: writer.submit(long, 1), ""),
            (lambda: BackgroundWriter(long, tmp_path), "BackgroundWriter(writer, directory)"),
            (lambda: BackgroundWriter(tmp_path, "tensor"), "BackgroundWriter(writer, directory)"),
            (lambda: BackgroundWriter("tensor", write_text), "BackgroundWriter(writer, directory)"),
            (lambda: BackgroundWriter("tensor", tmp_path, max_workers=tensor), "max_workers"),
            (lambda: FileWriter(tmp_path, write_text, "image"), "FileWriter(directory, value_key, writer_fn)"),
            (lambda: FileWriter(write_text, "image", tmp_path), "FileWriter(directory, value_key, writer_fn)"),
            (lambda: FileWriter(tmp_path, "tensor", "image"), "FileWriter(directory, value_key, writer_fn)"),
        ):
            with pytest.raises((TypeError, ValueError)) as caught:
                call()
            assert text in str(caught.value)
            assert len(str(caught.value)) < 600
        writer.submit_batch(np.array(["a", "b", "c"]), tensor)
        assert writer.stats().accepted == 3


# Encoders


def test_the_encoder_decorator_makes_a_writer(registry, tmp_path):
    """It has a suffix, a name and the docstring, is called as the built-in ones, and can be registered."""

    @registry.register("csv")
    @encoder(suffix=".csv")
    def encode_csv(value, *, separator=","):
        """Numbers."""
        return separator.join(str(number) for number in value.tolist()).encode()

    assert isinstance(encode_csv, Encoder)
    assert (encode_csv.name, encode_csv.suffix, encode_csv.__doc__) == ("encode_csv", ".csv", "Numbers.")
    assert repr(encode_csv) == "<encoder 'encode_csv', suffix '.csv'>"
    encode_csv(tmp_path / "a", torch.arange(3))
    encode_csv(tmp_path / "b", torch.arange(3), separator=";", suffix=".txt")
    with BackgroundWriter("csv", tmp_path) as background:
        background.submit_batch(["c", "d"], torch.arange(4).view(2, 2))
    texts = {file.name: file.read_text() for file in tmp_path.glob("[!.]*")}
    assert texts == {"a.csv": "0,1,2", "b.txt": "0;1;2", "c.csv": "0,1", "d.csv": "2,3"}


def test_an_encoder_may_have_a_name_of_its_own():
    """For a lambda, whose own says nothing."""
    assert encoder(suffix=".x", name="mine")(lambda value: b"").name == "mine"
    assert Encoder(functools.partial(str.encode, encoding="ascii"), suffix=".x").name == "encode"


@pytest.mark.parametrize(
    ("returned", "content"),
    [
        (b"abc", b"abc"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abc"), b"abc"),
        (b"", b""),
        ([], b""),
        ((), b""),
        ([b"a", bytearray(b"b"), memoryview(b"c"), b""], b"abc"),
        ((b"a", b"bc"), b"abc"),
        (np.arange(6, dtype=np.int16).reshape(2, 3).data, np.arange(6, dtype=np.int16).tobytes()),
        (np.arange(3, dtype=np.uint8), b"\0\1\2"),
        ([np.zeros((2, 0, 3)).data, b"x"], b"x"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("way", ["directly", "service"])
def test_an_encoder_returns_bytes_or_several_parts(tmp_path, returned, content, way):
    """Whatever is bytes-like, one part behind the other; no bytes make an empty file."""
    write = Encoder(lambda value: returned, suffix=".x")
    if way == "directly":
        write(tmp_path / "a", None)
    else:
        with BackgroundWriter(write, tmp_path) as background:
            background.submit("a", None)
            background.flush()
            assert background.stats().bytes_written == len(content)
    assert [file.name for file in tmp_path.glob("[!.]*")] == ["a.x"]
    assert (tmp_path / "a.x").read_bytes() == content


@pytest.mark.parametrize(
    "returned",
    [None, "text", 3, ["text"], [b"a", None], object(), np.zeros(3, "M8[s]"), memoryview(b"abcdef")[::2]],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("way", ["directly", "service"])
def test_an_encoder_that_returns_no_bytes_is_a_type_error_that_names_it(tmp_path, returned, way):
    """And there is no file."""
    write = Encoder(lambda value: returned, suffix=".x", name="mine")
    message = f"encoder 'mine' returned {type(returned).__name__}; it must return bytes"
    if way == "directly":
        with pytest.raises(TypeError, match=message):
            write(tmp_path / "a", None)
    else:
        with pytest.raises(WriteError, match=message) as caught:
            with BackgroundWriter(write, tmp_path) as background:
                background.submit("a", None)
        assert isinstance(caught.value.cause, TypeError)
    assert list(tmp_path.glob("[!.]*")) == []


@pytest.mark.parametrize(
    "encode", [awaited, functools.partial(awaited), AsyncCallable()], ids=["function", "partial", "object"]
)
def test_an_encoder_is_not_async(encode):
    """Encoding is computation; the error says what to register instead."""
    with pytest.raises(TypeError, match=r"encoder '(awaited|AsyncCallable)' is an async function.*path function"):
        encoder(suffix=".x")(encode)


def test_an_encoder_is_made_of_a_function():
    """Anything else is refused at once."""
    with pytest.raises(TypeError, match=r"an encoder is a function \(value\) -> bytes, not bytes"):
        Encoder(b"x", suffix=".x")
    with pytest.raises(ValueError, match=r"suffix 'a/b' holds a '/' or NUL"):
        Encoder(lambda value: b"", suffix="a/b")


@pytest.mark.parametrize("function", [lambda value: b"x", lambda path, value, more: None, lambda path, *, value: None])
def test_a_function_that_cannot_be_called_with_path_and_value_is_refused_at_once(function):
    """Before the first prediction, with the way to make an encoder of it."""
    with pytest.raises(TypeError, match=r"is called with \(path, value\), but takes .*@encoder"):
        resolve_writer(function)


def test_a_function_whose_signature_is_not_known_is_taken():
    """As some of those written in C are."""
    assert resolve_writer(dict.update).name == "update"
