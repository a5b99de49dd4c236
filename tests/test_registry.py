"""Writers by name, encoders, and functions (path, value)."""

import asyncio
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from lighter_async import (
    BackgroundWriter,
    Encoder,
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
    with pytest.raises(ValueError, match=r"Registered are: image_2d, image_3d, .*tensor, text\."):
        BackgroundWriter("missing", "somewhere")


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
    """In a call at once, through the service for the sample."""
    with pytest.raises(TypeError, match="quality"):
        write_text(tmp_path / "x", "x", quality=3)
    with pytest.raises(WriteError, match=r"writer 'text' failed on 'x': TypeError: .*quality"):
        with BackgroundWriter(functools.partial(write_text, quality=3), tmp_path) as background:
            background.submit("x", "x")


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
    ids=lambda value: str(value)[:30],
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


@pytest.mark.parametrize("encode", [awaited, functools.partial(awaited), AsyncCallable()], ids=str)
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
