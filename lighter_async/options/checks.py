"""What options may be, and which go together."""

from __future__ import annotations

import json
import operator
import os
from typing import Any

from lighter_async.errors import shown
from lighter_async.targets import LocalTarget, Target, directory_of, features_of
from lighter_async.types import Durability, IfExists, OnError, Run
from lighter_async.writers import Encoder, PathFunction, Writer

__all__ = [
    "at_least_one",
    "check_path_function",
    "check_records",
    "check_rows_writer",
    "config_of",
    "one_of",
    "seconds",
    "target_of",
    "whole_number",
]


_LONGEST_CONFIG = 1 << 16


def target_of(
    directory: str | os.PathLike[str] | Target | None,
    target: Target | None,
    *,
    if_exists: IfExists | None,
    durability: Durability | None,
    run: Run | None,
) -> Target:
    """Where the bytes go: the target, or the directory with its options.

    Args:
        directory: A path, or a target in its place.
        target: The target.
        if_exists, durability, run: Options of a directory.

    Raises:
        ValueError: There is neither or both, or an option of a directory beside a target.
        TypeError: The directory is neither a path nor a target.
    """
    if (directory is None) == (target is None):
        raise ValueError(
            "give a directory, or a target instead of it"
            if directory is None
            else "give one of directory and target, not both"
        )
    if target is None:
        if isinstance(directory, Target):
            target = directory
        elif not isinstance(directory, (str, os.PathLike)):
            raise TypeError(
                f"directory is a path or a target, not {type(directory).__name__}; the order is "
                "BackgroundWriter(writer, directory)"
            )
    if target is None:
        assert isinstance(directory, (str, os.PathLike))
        return LocalTarget(directory, if_exists=if_exists or "overwrite", durability=durability or "rename", run=run)
    for option, value in (("if_exists", if_exists), ("durability", durability), ("run", run)):
        if value is not None:
            raise ValueError(f"{option} goes with a directory; a target has its own rule, so set it there")
    return target


def check_path_function(writer: PathFunction, target: Target) -> None:
    """
    Raises:
        ValueError: The target has no paths to hand to a function, or an option that a function need not keep.
    """
    if not features_of(target).has_paths:
        raise ValueError(
            f"writer {writer.name!r} is a function (path, value), and {type(target).__name__} has no paths; "
            "register an encoder (value) -> bytes instead, which writes to any target"
        )
    below = directory_of(target)
    if below is not None and below.if_exists != "overwrite":
        raise ValueError(
            f"if_exists={below.if_exists!r} cannot be kept for writer {writer.name!r}, a function (path, value) that "
            "writes where it likes; register an encoder (value) -> bytes instead"
        )
    if below is not None and below.durability != "rename":
        raise ValueError(
            f"durability={below.durability!r} cannot be kept for writer {writer.name!r}, a function (path, value) "
            "whose files are its own affair; register an encoder (value) -> bytes instead"
        )


def check_rows_writer(writer: Writer, target: Target) -> None:
    """
    Raises:
        ValueError: The target stores rows of an array or a table, and the writer makes something else.
    """
    features = features_of(target)
    if features.takes_arrays:
        name, what = "row", "tensors and arrays as rows of one array"
    elif features.takes_dicts:
        name, what = "table_row", "dicts from columns to values as rows of one table"
    else:
        return
    if not isinstance(writer, Encoder) or not writer.is_built_in or (writer.name, writer.suffix) != (name, ""):
        raise ValueError(
            f"{type(target).__name__} stores {what}, so its writer is {name!r}, not {writer.name!r}; leave the writer "
            "out, or choose another target"
        )


def check_records(target: Target, *, manifest: bool, resume: bool, run_config: Any, on_error: OnError) -> None:
    """
    Raises:
        ValueError: What is to be recorded, or kept, does not go with the target or with each other.
    """
    below = directory_of(target)
    if below is None:
        if resume:
            raise ValueError(f"resume=True needs a manifest, which goes with a directory, not {type(target).__name__}")
        if run_config is not None:
            raise ValueError(
                f"run_config is recorded in a manifest, which goes with a directory, not {type(target).__name__}; "
                "leave it out"
            )
        if on_error == "continue":
            raise ValueError(
                "on_error='continue' keeps values that could not be written below the directory, and "
                f"{type(target).__name__} has none; give a directory"
            )
        return
    features = features_of(target)
    if not manifest and (features.takes_arrays or features.takes_dicts):
        raise ValueError(
            "which rows of an array or a table are there is known by the manifest alone; leave manifest at True"
        )
    if resume and not manifest:
        raise ValueError("resume=True goes on from the manifest; leave manifest at True")
    if resume and below.if_exists != "overwrite":
        raise ValueError(
            "resume=True decides by the manifest what is done, and overwrites what is not; leave if_exists at "
            f"'overwrite' instead of {below.if_exists!r}"
        )


def config_of(run_config: Any) -> Any:
    """What a run is made with, as JSON has it.

    Raises:
        TypeError: JSON does not have it.
    """
    try:
        text = json.dumps(run_config, allow_nan=False)
        if len(text) > _LONGEST_CONFIG:
            raise ValueError(
                f"it has {len(text):,} characters as JSON, of which {_LONGEST_CONFIG:,} are taken; give a word that "
                "tells it from others, such as a hash"
            )
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"run_config is a word, or what JSON has (texts, numbers, lists and dicts of them), but {error}"
        ) from error


def whole_number(value: Any, what: str) -> int:
    """A number that indices may be: of Python, numpy or torch.

    Raises:
        TypeError: It is none.
    """
    kind = type(value)
    if kind is not bool and "bool" not in str(getattr(value, "dtype", "")):
        try:
            number = operator.index(value)
        except (TypeError, RuntimeError, ValueError):
            pass
        else:
            if -(1 << 63) <= number < 1 << 63:
                return number
    raise TypeError(
        f"{what} is a whole number, not {kind.__name__}: {value!r:.100}; indices are those of the data set, and what "
        "else tells samples apart are their names"
    )


def seconds(option: str, value: float, *, least: float) -> float:
    """A number of seconds.

    Raises:
        TypeError: It is no number.
        ValueError: It is less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{option} is a number of seconds, not {type(value).__name__}: {shown(value)}")
    if not value >= least:
        raise ValueError(f"{option} is at least {least:g} seconds, not {value}")
    return float(value)


def one_of(option: str, value: object, words: tuple[str, ...]) -> None:
    """
    Raises:
        ValueError: It is none of the words.
    """
    if value not in words:
        raise ValueError(f"{option} is one of {', '.join(map(repr, words))}, not {value!r}")


def at_least_one(option: str, value: int) -> int:
    """A number of things, of which there is one at least.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is less than 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{option} is a whole number, not {type(value).__name__}: {shown(value)}")
    if value < 1:
        raise ValueError(f"{option} is at least 1, not {value}")
    return value
