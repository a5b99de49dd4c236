"""Names of samples as the names of a tar archive's members.

Readers of WebDataset shards take what comes before the first dot of a member's base name as the sample's key, and what
comes behind it as the field. So the dots of a name are percent-encoded, as are the percent sign itself, blanks and
control characters, which index files separate by, and a component's leading ``__``, which readers keep for themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["NO_SUFFIX", "encoded_name", "member_name", "member_names", "name_of_key", "split_member"]

NO_SUFFIX = ".data"
"""The suffix of members whose samples have none, for readers leave out what has no field."""

_IN_NAMES = re.compile(r"[\x00-\x20.%\x7f]|(?:(?<=/)|\A)_(?=_)")
_IN_SEVERAL = re.compile(r"[\x01-\x20.%\x7f]|(?:(?<=[/\x00])|\A)_(?=_)")  # the same, with NUL between names
_IN_SUFFIXES = re.compile(r"[\x00-\x20%\x7f]|(?<=\A\.)_(?=_)")
_ENCODED = re.compile(r"%([0-9A-F]{2})")


def encoded_name(name: str) -> str:
    """A sample's name as a key: ``case.1`` becomes ``case%2E1``. Different names have different keys."""
    return _IN_NAMES.sub(_encode, name)


def name_of_key(key: str) -> str:
    """The name that `encoded_name` has made a key of."""
    return _ENCODED.sub(lambda found: chr(int(found[1], 16)), key)


def member_name(name: str, suffix: str) -> str:
    """What an output of a sample is called in a shard.

    Args:
        name: The sample's.
        suffix: The output's. Its letters become small, since readers make them so.
    """
    if suffix[:1] != ".":
        stem, dot, rest = suffix.partition(".")
        name, suffix = name + stem, dot + rest
    if len(suffix) < 2:
        suffix = NO_SUFFIX
    return encoded_name(name) + _IN_SUFFIXES.sub(_encode, suffix.lower())


def split_member(member: str) -> tuple[str, str]:
    """The key and the field of a member, as readers of shards split its name; the field is empty if it has none."""
    start = member.rfind("/") + 1
    stem, _, field = member[start:].partition(".")
    return member[:start] + stem, field


def member_names(names: Sequence[str], suffix: str) -> list[str]:
    """The same for several samples, which takes less time than one by one.

    Args:
        names: Theirs; none holds NUL.
        suffix: The output's.
    """
    member = member_name("", suffix)
    if suffix[:1] != "." and len(suffix) >= 2:  # a part of it becomes a part of the name
        return [member_name(name, suffix) for name in names]
    joined = _IN_SEVERAL.sub(_encode, "\0".join(names))
    return [f"{name}{member}" for name in joined.split("\0")]


def _encode(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"
