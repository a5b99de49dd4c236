"""Numbers as names: a range of them costs the same, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from lighter_async.errors import InvalidNameError

__all__ = ["Numbers", "first_common", "joined"]


class Numbers(Sequence[str]):
    """The numbers of a range as names. Costs the same for a million of them as for one."""

    __slots__ = ("range",)

    def __init__(self, numbers: range) -> None:
        if numbers and min(numbers[0], numbers[-1]) < 0:
            raise InvalidNameError(f"sample numbers start at 0, got {numbers}")
        self.range = numbers

    def __len__(self) -> int:
        return len(self.range)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Numbers: ...
    def __getitem__(self, index: int | slice) -> str | Numbers:
        return Numbers(self.range[index]) if isinstance(index, slice) else str(self.range[index])


def joined(first: range, more: range) -> range | None:
    """Both as one range, if the one goes on where the other ends. A range of one number has any step."""
    step = first.step if len(first) > 1 else more.step if len(more) > 1 else more[0] - first[0]
    if step < 1 or more[0] - first[-1] != step or (len(more) > 1 and more.step != step):
        return None
    return range(first[0], more[-1] + 1, step)


def first_common(a: range, b: range) -> int | None:
    """The first number that stands in both, or None."""
    start, stop = max(a[0], b[0]), min(a[-1], b[-1])
    if start > stop:
        return None
    # Ranges of one run are short (a batch) or share their step, so walking the shorter one is cheap.
    short, long = (a, b) if len(a) <= len(b) else (b, a)
    if short.step == long.step:
        return start if short[0] % short.step == long[0] % long.step else None
    return next((number for number in short if number in long), None)
