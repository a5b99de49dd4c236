"""What a caller says of its samples, checked and copied: it may fill its own lists anew as soon as the call returns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from lighter_async.errors import shown
from lighter_async.names import Claims, Numbers, check_names, name_of, with_suffixes
from lighter_async.options import whole_number
from lighter_async.targets import ArraysTarget, Target
from lighter_async.types import Origin

__all__ = [
    "check_indices",
    "check_origin",
    "claim_rows",
    "names_by_index",
    "own_names",
    "own_origin",
    "rows_of",
    "text_of",
    "texts_of",
]


def text_of(name: Any, value: Any) -> str:
    """A sample's name as a text: of a text, a number, a path, or a scalar of torch or numpy.

    Args:
        name: As the caller has given it.
        value: The sample, as the caller has given it: a message says where the two look swapped.

    Raises:
        TypeError: It is something else.
    """
    if type(name) is str:
        return name
    texts = texts_of([name], [value])
    assert texts is not None
    return texts[0]


def texts_of(names: Any, values: Any) -> Sequence[str] | None:
    """A batch's names as texts, as of `text_of`; None where they are None.

    Args:
        names: One per sample, as the caller has given them: a sequence, or an array or a tensor of one dimension.
        values: The samples, as the caller has given them.

    Raises:
        TypeError: They are something else.
    """
    kind = type(names)
    texts: Sequence[str] | None = names
    if names is None or kind is Numbers:
        return texts
    if kind is not list and (isinstance(names, (str, bytes)) or not isinstance(names, Sequence)):
        array: Any = names
        if getattr(array, "ndim", None) != 1 or not hasattr(array, "tolist"):
            raise TypeError(
                f"names are a sequence with a name per sample, not {type(names).__name__}: {shown(names)}; "
                + ("the arguments look swapped: " if _look_swapped(names, values) else "")
                + _ORDER
            )
        names = array.tolist()  # at once, since each item of a device tensor would be a transfer of its own
        texts = names
    kinds = set(map(type, names))
    if kinds <= {str}:
        return texts
    # A name may be any number, but a score and its name are more likely to have changed places.
    if _are_texts(values) and (score := next(filter(_is_score, names), None)) is not None:
        raise TypeError(
            f"the name of a sample is {shown(score)}, and its value a text; the arguments look swapped: {_ORDER}; use "
            "str(name) where that is meant"
        )
    own = []
    for name in names:
        try:
            own.append(name_of(name, "the name of a sample"))
        except TypeError as error:
            swapped = "the arguments look swapped: " if _look_swapped(name, values) else ""
            raise TypeError(f"{error}; {swapped}{_ORDER}") from None
    return own


_ORDER = "the order is submit(name, value), or submit_batch(names, values)"


def _look_swapped(names: Any, values: Any) -> bool:
    """Whether the other argument would do as names, or this one only as values."""
    return bool(getattr(names, "ndim", 0)) or _are_texts(values)


def _is_score(name: Any) -> bool:
    """Whether a number is none that counts or numbers something, also as a scalar of torch or numpy."""
    is_scalar = hasattr(name, "item") and getattr(name, "ndim", 0) == 0
    return isinstance(name.item() if is_scalar else name, (bool, float))


def _are_texts(values: Any) -> bool:
    """Whether samples are texts or paths, as names are."""
    if isinstance(values, (str, os.PathLike)):
        return True
    return isinstance(values, Sequence) and bool(values) and all(isinstance(one, (str, os.PathLike)) for one in values)


def own_names(
    names: Sequence[str], count: int, suffixes: Sequence[str], target: Target
) -> tuple[Sequence[str], Sequence[str]]:
    """The names, as a sequence of our own, and their files: those of all samples for each suffix, one after the other.

    Of numbers with one suffix only the last one's file, which is the longest.

    Args:
        names: One per sample, as of `texts_of`.
        count: How many samples there are.
        suffixes: What the names of a sample's files end in, one for each of its outputs.
        target: Where the files go, which may refuse some.

    Raises:
        ValueError: There is not one for each sample.
        InvalidNameError: One cannot be a file's name.
    """
    kind = type(names)
    own = names if kind is Numbers else tuple(names)
    if len(own) != count:
        raise ValueError(f"Length mismatch: {count} samples and {len(own)} names; every sample needs one name")
    if not count:
        return own, own
    if kind is Numbers:
        files = [own[-1] + suffixes[0]] if len(suffixes) == 1 else _files(own, suffixes)
    else:
        check_names(own)
        files = with_suffixes(own, suffixes[0]) if len(suffixes) == 1 else _files(own, suffixes)
    target.check(files)
    return own, files


def _files(names: Sequence[str], suffixes: Sequence[str]) -> Sequence[str]:
    return [file for suffix in suffixes for file in with_suffixes(names, suffix)]


def check_origin(origin: object) -> None:
    """
    Raises:
        TypeError: It is no `Origin`.
    """
    if not isinstance(origin, Origin):
        raise TypeError(f"origin is an Origin, not {shown(origin)}; write origin=Origin(indices)")


def check_indices(origin: Origin, count: int) -> None:
    """
    Raises:
        ValueError: There are indices, but not one for each sample.
    """
    if origin.indices is not None and len(origin.indices) != count:
        raise ValueError(f"Length mismatch: {count} samples and {len(origin.indices)} indices; every sample has one")


def own_origin(origin: Origin) -> Origin:
    """The origin with indices of our own, which may have been a list or a tensor.

    Raises:
        TypeError: An index, or the number of the loader or the batch, is no whole number.
        ValueError: The number of the loader is negative.
    """
    indices: Any = origin.indices
    if (
        (type(indices) is range or indices is None or type(indices) is tuple)
        and type(origin.loader) is int
        and 0 <= origin.loader < _WIDE
        and (origin.batch is None or (type(origin.batch) is int and -_WIDE <= origin.batch < _WIDE))
        and _are_usual(indices)
    ):
        return origin  # which nobody can change
    loader = whole_number(origin.loader, "the number of a loader")
    batch = None if origin.batch is None else whole_number(origin.batch, "the number of a batch")
    if loader < 0:
        raise ValueError(f"loaders count from 0, got {loader}")
    if indices is None:
        return Origin(None, loader, batch)
    own = indices.tolist() if hasattr(indices, "tolist") else indices
    if not _are_usual(own):
        own = [whole_number(one, f"the index of sample {position}") for position, one in enumerate(own)]
    return Origin(own if type(own) is range else tuple(own), loader, batch)


def _are_usual(indices: Any) -> bool:
    """Whether indices, if there are any, are whole numbers of 64 bits in a range, a tuple or a list."""
    if not indices:
        return indices is None or type(indices) in (range, tuple, list)
    if type(indices) is range:
        least, most = indices[0], indices[-1]
        return -_WIDE <= least < _WIDE > most >= -_WIDE
    return type(indices) in (tuple, list) and set(map(type, indices)) == {int} and _fit(indices)


def _fit(indices: Sequence[int]) -> bool:
    return min(indices) >= -_WIDE and max(indices) < _WIDE


_WIDE = 1 << 63

_ROW = " (row)"  # what rows are claimed as, beside names


def rows_of(
    names: Sequence[str] | None, count: int, origin: Origin | None, target: ArraysTarget
) -> tuple[Sequence[str], Sequence[int], Origin | None]:
    """The rows of a batch's samples in an array, with names for those that have none, and their origin as our own.

    Args:
        names: One per sample, as the caller has given them; None names samples by their rows.
        count: How many samples there are.
        origin: Where they come from.
        target: Has the array.

    Raises:
        ValueError: Their indices are not known, or there are no such rows, or not an index for each sample.
        TypeError: As `own_origin`.
    """
    if not count:
        return (names or ()), (), None
    if origin is None or origin.indices is None:
        first = "a sample without a name" if names is None or not len(names) else f"sample {shown(names[0])}"
        raise ValueError(
            f"{first} has no index in the data set, which is its row in an array; hand samples over with "
            "origin=Origin(indices)"
        )
    check_indices(origin, count)
    origin = own_origin(origin)
    assert origin.indices is not None
    rows = target.rows_of(origin.indices, origin.loader, names if names is not None and len(names) == count else None)
    if names is None:
        names = Numbers(rows) if isinstance(rows, range) else list(map(str, rows))
    return names, rows, origin


def names_by_index(count: int, origin: Origin | None) -> Sequence[str]:
    """Names for samples that are known by their indices: these, with the number of their loader if that is not 0.

    Args:
        count: How many samples there are.
        origin: Where they come from, as `own_origin` gives it.

    Raises:
        ValueError: Their indices are not known.
    """
    if not count:
        return ()
    if origin is None or origin.indices is None:
        raise ValueError(
            "a sample without a name needs its index in the data set; hand samples over with names, or with "
            "origin=Origin(indices)"
        )
    if origin.loader:
        return [f"{origin.loader}-{index}" for index in origin.indices]
    is_counting = isinstance(origin.indices, range) and min(origin.indices[0], origin.indices[-1]) >= 0
    return Numbers(origin.indices) if is_counting else list(map(str, origin.indices))  # type: ignore[arg-type]


def claim_rows(claims: Claims, rows: Sequence[int], names: Sequence[str]) -> None:
    """Take the rows of a batch's samples for this run, and their names if these are not the rows; all or none.

    Raises:
        DuplicateNameError: One of them is taken already.
    """
    if isinstance(rows, range) and isinstance(names, Numbers) and rows == names.range and rows.step > 0:
        claims.claim_numbers(rows, _ROW)
        return
    texts = [f"{row}{_ROW}" for row in rows]
    if all(text == name + _ROW for text, name in zip(texts, names, strict=True)):
        claims.claim(texts, names)
    else:
        claims.claim([*texts, *names], [*names, *names])
