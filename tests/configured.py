"""Formats and a target that configurations name, in a module that can be imported by its name."""

from __future__ import annotations

from typing import Any

from lighter_async import Encoder, encoder
from lighter_async.targets import LocalTarget

__all__ = ["Lines", "Subfolder", "as_repr", "shared"]


@encoder(suffix=".repr")
def as_repr(value: Any, *, mark: str = "") -> bytes:
    """A value's repr, behind a mark."""
    return f"{mark}{value!r}".encode()


class Lines(Encoder):
    """So many lines of a value's text."""

    def __init__(self, count: int = 1) -> None:
        super().__init__(lambda value: "\n".join([str(value)] * count).encode(), suffix=".lines", name="lines")


def shared(*, anything: int = 0) -> Encoder:
    """Gives away an encoder that others have, too."""
    return as_repr


class Subfolder(LocalTarget):
    """A target of a user's own: a folder below another one."""

    def __init__(self, above: str, name: str = "inner") -> None:
        super().__init__(f"{above}/{name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalTarget, (self.directory,)
