"""Writers by name."""

from __future__ import annotations

import functools
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lighter_async.errors import describe, shown
from lighter_async.writers.base import Encoder, PathFunction, Writer, has_signature
from lighter_async.writers.image import write_image_2d, write_image_3d
from lighter_async.writers.tensor import write_tensor
from lighter_async.writers.text import write_text

__all__ = ["WriterRegistry", "resolve_writer", "writer_registry"]

_W = TypeVar("_W", bound=Callable[..., Any])


class WriterRegistry:
    """Writers by name: encoders, and functions ``(path, value)``."""

    def __init__(self) -> None:
        self._registry: dict[str, Callable[..., Any]] = {}

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
            raise ValueError(
                f"Writer with name {shown(name)} is not registered. "
                f"Registered are: {', '.join(sorted(self._registry))}. "
                "Register yours with @writer_registry.register(...), or pass the function itself. (The order is "
                "BackgroundWriter(writer, directory) and FileWriter(directory, value_key, writer_fn).)"
            )
        return self._registry[name]


writer_registry = WriterRegistry()
"""The registry that names are looked up in."""

writer_registry.register("tensor")(write_tensor)
writer_registry.register("image_2d")(write_image_2d)
writer_registry.register("image_3d")(write_image_3d)
writer_registry.register("text")(write_text)


def encoder_of(name: str, file: str) -> Encoder | None:
    """The registered encoder that a writer's recorded name, and one of its files, tell of; None if none does.

    What is recorded is the encoder's own name, which need not be the one that it is registered under.

    Raises:
        ValueError: There are several, and the file's suffix does not tell which.
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


def resolve_writer(writer: str | Callable[..., Any], options: Mapping[str, Any] | None = None) -> Writer:
    """The writer that a user named or passed.

    Args:
        writer: A registered name, ``"module:attribute"``, an `Encoder` or a subclass of it, a `functools.partial` of
            one, or any callable ``(path, value)``.
        options: Keyword options for it.

    Raises:
        ValueError: The name is not registered, the module or the attribute is not there, or an option has a value that
            it may not have.
        TypeError: It is neither a name nor callable, cannot be called with ``(path, value)``, or has no such option.
    """
    name = writer if isinstance(writer, str) and ":" not in writer else None
    function: Any = writer
    if isinstance(writer, str):
        function = writer_registry.get(writer) if name is not None else _imported(writer)
    function = _with_options(function, options, name or shown(writer))
    if isinstance(function, functools.partial) and isinstance(function.func, Encoder) and not function.args:
        function = function.func.with_options(**function.keywords)
    if isinstance(function, Encoder):
        function.check_options()
        return function
    if not callable(function):
        raise TypeError(
            f"writer_fn must be a registered name or a callable (path, value), not {type(function).__name__}: "
            f"{shown(function)}. The order is BackgroundWriter(writer, directory) and "
            "FileWriter(directory, value_key, writer_fn)"
        )
    found = PathFunction.of(function)
    _check_arguments(function, name or found.name)
    return PathFunction(found.function, name, found.is_async) if name else found


def _imported(writer: str) -> Any:
    """What ``"module:attribute"`` names.

    Raises:
        ValueError: There is no such module or attribute, or importing the module fails.
    """
    module, _, attribute = writer.partition(":")
    try:
        return pkgutil.resolve_name(writer)
    except ModuleNotFoundError as error:
        missing = f"no module {error.name!r} can be imported"
        raise ValueError(
            f"writer {shown(writer)}: {missing}; the form is 'module:attribute', of a module that lies where the job "
            "is started, or is installed"
        ) from error
    except AttributeError as error:
        raise ValueError(f"writer {shown(writer)}: module {module!r} has no {attribute!r}") from error
    except ValueError as error:
        raise ValueError(
            f"writer {shown(writer)} is no name of a writer; the form is 'module:attribute', as in "
            "'my_package.formats:encode_npz'"
        ) from error
    except Exception as error:
        raise ValueError(f"writer {shown(writer)}: importing module {module!r} fails: {describe(error)}") from error


def _with_options(function: Any, options: Mapping[str, Any] | None, name: str) -> Any:
    """A writer with keyword options set; of a subclass of `Encoder`, one made with them.

    Raises:
        TypeError: The options are no mapping from names, or the writer has no such option.
        ValueError: One has a value that it may not have.
    """
    if options is not None and not (isinstance(options, Mapping) and all(isinstance(key, str) for key in options)):
        raise TypeError(f"writer_options is a dict of the writer's keyword options, not {shown(options)}")
    if isinstance(function, type) and issubclass(function, Encoder):
        try:
            return function(**(options or {}))
        except TypeError as error:
            raise TypeError(f"writer {name} cannot be made with {shown(dict(options or {}))}: {error}") from error
    if not options:
        return function
    if isinstance(function, Encoder):
        return function.with_options(**options)
    return functools.partial(function, **options) if callable(function) else function


def _check_arguments(function: Callable[..., Any], name: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        if isinstance(function, functools.partial) and has_signature(function.func):
            raise TypeError(f"writer {name!r} does not take what functools.partial gives it: {error}") from error
        return  # of some functions written in C it is not known
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"writer {name!r} is called with (path, value), but takes {signature}: {error}; a function "
            "(value) -> bytes becomes a writer with @encoder(suffix='.ext')"
        ) from error
