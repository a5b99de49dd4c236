"""Writers by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from lighter_async.errors import shown
from lighter_async.writers.array import write_npy, write_row
from lighter_async.writers.base import Encoder
from lighter_async.writers.image import write_image_2d, write_image_3d
from lighter_async.writers.jpeg import write_jpeg
from lighter_async.writers.json import write_json
from lighter_async.writers.nifti import write_nifti
from lighter_async.writers.safetensors import write_safetensors
from lighter_async.writers.table import write_table_row
from lighter_async.writers.tensor import write_tensor
from lighter_async.writers.text import write_text
from lighter_async.writers.tiff import write_tiff
from lighter_async.writers.webp import write_webp

__all__ = ["ORDER", "WriterRegistry", "encoder_of", "writer_registry"]

_W = TypeVar("_W", bound=Callable[..., Any])

ORDER = "BackgroundWriter(writer, directory) and FileWriter(directory, value_key, writer_fn)"
"""What the arguments' order is, for messages to those who may have swapped them."""

_LONGEST_NAME = 100  # that is compared with others
_OF_TARGETS = {"row", "table_row"}  # which an ArrayTarget and a TableTarget choose themselves


class WriterRegistry:
    """Writers by name: encoders, and functions ``(path, value)``."""

    def __init__(self) -> None:
        self._registry: dict[str, Callable[..., Any]] = {}

    def __repr__(self) -> str:
        return f"<WriterRegistry: {', '.join(self._registry)}>"

    def register(self, name: str) -> Callable[[_W], _W]:
        """A decorator that registers a writer function or an `Encoder`.

        Args:
            name: The name to register it under.

        Raises:
            ValueError: The name is taken.
        """

        def decorator(writer: _W) -> _W:
            if name in self._registry:
                raise ValueError(f"Writer with name '{name}' is already registered. Choose another name.")
            self._registry[name] = writer
            return writer

        return decorator

    def get(self, name: str) -> Callable[..., Any]:
        """The writer registered under `name`.

        Raises:
            ValueError: There is none.
        """
        if name not in self._registry:
            near = self._near(str(name))
            raise ValueError(
                f"Writer with name {shown(name)} is not registered"
                + (f"; did you mean {shown(near)}? " if near else ". ")
                + f"Registered are: {', '.join(sorted(self._registry.keys() - _OF_TARGETS))}. "
                "Register yours with @writer_registry.register(...), or pass the function itself. "
                f"(The order is {ORDER}.)"
            )
        return self._registry[name]

    def _near(self, name: str) -> str | None:
        """What was meant by a name that is not registered, if that can be told."""
        if len(name) > _LONGEST_NAME:
            return None
        ending = "." + name.lower().removeprefix(".")
        for known, writer in self._registry.items():
            if ending in (suffix := getattr(writer, "suffix", ""), suffix.removesuffix(".gz")):
                return known
        module, _, attribute = name.rpartition(".")
        if all(map(str.isidentifier, [*module.split("."), attribute])):
            return f"{module}:{attribute}"
        import difflib

        known_names = [known for known in self._registry if known not in _OF_TARGETS]
        return next(iter(difflib.get_close_matches(name.lower(), known_names, 1)), None)

    def __contains__(self, name: object) -> bool:
        return name in self._registry


writer_registry = WriterRegistry()
"""The registry in which names are looked up."""

writer_registry.register("tensor")(write_tensor)
writer_registry.register("image_2d")(write_image_2d)
writer_registry.register("image_3d")(write_image_3d)
writer_registry.register("text")(write_text)
writer_registry.register("npy")(write_npy)
writer_registry.register("row")(write_row)
writer_registry.register("json")(write_json)
writer_registry.register("nifti")(write_nifti)
writer_registry.register("safetensors")(write_safetensors)
writer_registry.register("jpeg")(write_jpeg)
writer_registry.register("webp")(write_webp)
writer_registry.register("tiff")(write_tiff)
writer_registry.register("table_row")(write_table_row)


def encoder_of(name: str, file: str) -> Encoder | None:
    """The registered encoder with a recorded name and the suffix of a file; None if there is none.

    The recorded name is the encoder's own, which may differ from the name that it is registered under.

    Raises:
        ValueError: There are several, even with that suffix.
    """
    found: list[Encoder] = []
    for writer in writer_registry._registry.values():
        if isinstance(writer, functools.partial) and isinstance(writer.func, Encoder) and not writer.args:
            writer = writer.func.with_options(**writer.keywords)
        if isinstance(writer, Encoder) and writer.name == name and writer not in found:
            found.append(writer)
    if len(found) > 1:
        found = [one for one in found if file.endswith(one.suffix)]
    if len({one.decoder for one in found}) > 1:
        raise ValueError(f"several registered encoders are called {name!r}; decode=ENCODER tells which one it was")
    return found[0] if found else None
