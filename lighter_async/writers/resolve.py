"""Find the writer that a user means: by a registered name, by ``"module:attribute"``, or given itself; with options."""

from __future__ import annotations

import copy
import functools
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from typing import Any

from lighter_async.errors import describe, meant, shown
from lighter_async.writers.base import Encoder, PathFunction, has_signature
from lighter_async.writers.outputs import Outputs, Writer
from lighter_async.writers.registry import ORDER, writer_registry

__all__ = ["resolve_writer"]


_SEVERAL = re.compile(r"[^=,:]+=[^=,]+(,[^=,:]+=[^=,]+)*")


def resolve_writer(
    writer: str | Callable[..., Any] | Mapping[str, Any], options: Mapping[str, Any] | None = None
) -> Writer:
    """The writer that a user named or passed.

    Args:
        writer: A registered name, ``"module:attribute"``, an `Encoder` or a subclass of it, a `functools.partial` of
            one, or any callable ``(path, value)``. A name may also be that of a class or function that makes a writer,
            which is called with the options. Or a dict of these, one for each output of a sample, also written as
            ``"mask=image_2d,logits=tensor"``.
        options: Keyword options for it; of several outputs a dict with those of each.

    Raises:
        ValueError: The name is not registered, the module or the attribute does not exist, or an option has a value
            that it may not have.
        TypeError: It is neither a name nor callable, cannot be called with ``(path, value)``, or has no such option.
    """
    chosen = _checked(options)
    if isinstance(writer, str) and _SEVERAL.fullmatch(writer) and writer not in writer_registry:
        writer = _of_pairs(writer)
    if isinstance(writer, Mapping):
        return _outputs(writer, chosen)
    if isinstance(writer, str) and ":" in writer and writer not in writer_registry:
        name, found = None, _with_options(_imported(writer), chosen, shown(writer), may_make=True)
    elif isinstance(writer, str):
        name, found = writer, _with_options(writer_registry.get(writer), chosen, shown(writer), may_make=True)
    else:
        name, found = None, _with_options(writer, chosen, _name_of(writer), may_make=False)
    if isinstance(found, Encoder):
        found.check_options()
        return found
    if not callable(found):
        raise TypeError(
            f"writer_fn must be a registered name or a callable (path, value), not {type(found).__name__}: "
            f"{shown(found)}. The order is {ORDER}"
        )
    function = PathFunction.of(found)
    _check_arguments(found, name or function.name)
    return PathFunction(found, name, function.is_async) if name else function


def _of_pairs(text: str) -> dict[str, str]:
    """The writers of several outputs, of one text.

    Raises:
        ValueError: An output is in it twice.
    """
    writers: dict[str, str] = {}
    for key, name in (map(str.strip, one.split("=", 1)) for one in text.split(",")):
        if key in writers:
            raise ValueError(
                f"output {key!r} has two writers in {shown(text)}, and one file; give each writer an output of its own"
            )
        writers[key] = name
    return writers


def _outputs(writers: Mapping[str, Any], options: dict[str, Any]) -> Outputs:
    """The writer of several outputs.

    Raises:
        ValueError, TypeError: As `resolve_writer`, of one of them; or the options are for an output that there is not.
    """
    strange = [key for key in options if key not in writers]
    if strange:
        raise ValueError(
            f"writer_options of several outputs is a dict with a dict for each, and there is no output "
            f"{shown(strange[0])} among {', '.join(map(repr, writers))}{meant(strange, list(writers))}"
        )
    found: dict[str, Encoder] = {}
    for key, one in writers.items():
        made = resolve_writer(one, options.get(key))
        if not isinstance(made, Encoder):
            raise TypeError(
                f"output {key!r}: writer {made.name!r} is no encoder, and of the files of a function (path, value) "
                "nothing is known; several outputs need encoders, such as one made with @encoder(suffix='.ext')"
            )
        found[key] = made
    return Outputs(found)


def _imported(writer: str) -> Any:
    """The object that ``"module:attribute"`` names.

    Raises:
        ValueError: There is no such module or attribute, or importing the module fails.
    """
    module, _, attribute = writer.partition(":")
    parts = attribute.split(".")
    if not all(map(str.isidentifier, [*module.split("."), *parts])):
        raise ValueError(
            f"writer {shown(writer)} is no name of a writer; the form is 'module:attribute', as in "
            "'my_package.formats:encode_npz'"
        )
    try:
        found = pkgutil.resolve_name(f"{module}:")
    except ModuleNotFoundError as error:
        missing = error.name or module
        hint = (
            "the form is 'module:attribute', of a module that lies where the job is started, or is installed"
            if f"{module}.".startswith(f"{missing}.")
            else f"module {module!r} needs it"
        )
        raise ValueError(f"writer {shown(writer)}: no module {missing!r} can be imported; {hint}") from error
    except Exception as error:
        raise ValueError(f"writer {shown(writer)}: importing module {module!r} fails: {describe(error)}") from error
    for part in parts:
        try:
            found = getattr(found, part)
        except AttributeError as error:
            import difflib

            # Nearer than of options, since a module has many names.
            near = difflib.get_close_matches(part, dir(found), 1, 0.75)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"writer {shown(writer)}: module {module!r} has no {attribute!r}{hint}") from error
    return found


def _checked(options: Mapping[str, Any] | None) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise TypeError(f"writer_options is a dict of the writer's keyword options, not {shown(options)}")
    return dict(options)


def _with_options(found: Any, options: dict[str, Any], name: str, *, may_make: bool) -> Any:
    """A writer with keyword options set.

    Args:
        found: The object that the user named or passed.
        options: The options.
        name: Its name in error messages.
        may_make: Whether it may be a class or function that makes a writer.

    Raises:
        TypeError: It has no such option, or lacks one.
        ValueError: An option has a value that it may not have.
    """
    if isinstance(found, functools.partial) and isinstance(found.func, Encoder) and not found.args:
        found = found.func.with_options(**found.keywords)
    if isinstance(found, Encoder):
        return found.with_options(**options) if options else found
    if isinstance(found, type) and issubclass(found, Encoder):
        return _made(found, options, name)
    signature = _signature_of(found)
    if signature is None or not (options or may_make):
        return functools.partial(found, **options) if options and callable(found) else found
    own = list(signature.parameters.values())
    if _binds(signature, None, None):
        _check_known(signature, (None, None), options, name, own[2:])
        return functools.partial(found, **options) if options else found
    has_all = all(one.default is not one.empty or one.kind is one.KEYWORD_ONLY for one in own)
    if may_make and (isinstance(found, type) or has_all or (options and _binds(signature, **options))):
        return _made(found, options, name)
    return found  # to be refused as a function (path, value)


def _made(make: Callable[..., Any], options: dict[str, Any], name: str) -> Any:
    """The writer that a class or a function makes."""
    signature = _signature_of(make)
    if signature is not None:
        _check_known(signature, (), options, name, list(signature.parameters.values()))
    made = make(**options)
    if isinstance(made, Encoder):
        made = copy.copy(made)  # it may be one that others have, too
        made.made_with = dict(options)
    if not callable(made):  # as encoders are, too
        raise TypeError(
            f"writer {name} takes no (path, value), so that it was called to make a writer, and returned "
            f"{type(made).__name__}: {shown(made)}; a function (value) -> bytes becomes a writer with "
            "@encoder(suffix='.ext')"
        )
    return made


def _check_known(
    signature: inspect.Signature,
    values: tuple[None, ...],
    options: dict[str, Any],
    name: str,
    own: list[inspect.Parameter],
) -> None:
    """
    Raises:
        TypeError: It has no such option, or needs another one; the message lists its options.
    """
    try:
        signature.bind(*values, **options)
    except TypeError as error:
        names = [one.name for one in own if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        has = f"its options are {', '.join(names)}" if names else "it has no options"
        raise TypeError(f"writer {name}: {error}; {has}{meant(options, names)}") from None


def _signature_of(found: Any) -> inspect.Signature | None:
    """A function's signature; None if it is not a function, or not known, as for some functions written in C."""
    try:
        return inspect.signature(found) if callable(found) else None
    except (TypeError, ValueError):
        return None


def _binds(signature: inspect.Signature, *values: Any, **options: Any) -> bool:
    try:
        signature.bind(*values, **options)
    except TypeError:
        return False
    return True


def _name_of(writer: Any) -> str:
    return repr(PathFunction.of(writer).name) if callable(writer) else shown(writer)


def _check_arguments(function: Callable[..., Any], name: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        if isinstance(function, functools.partial) and has_signature(function.func):
            raise TypeError(f"writer {name!r} does not take what functools.partial gives it: {error}") from error
        return  # not known, as for some functions written in C
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"writer {name!r} is called with (path, value), but takes {signature}: {error}; a function "
            "(value) -> bytes becomes a writer with @encoder(suffix='.ext')"
        ) from error
