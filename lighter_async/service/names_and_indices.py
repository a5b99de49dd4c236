"""What a caller says of its samples, checked and copied: it may fill its own lists anew as soon as the call returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lighter_async.errors import shown
from lighter_async.names import Claims, Numbers, check_names, with_suffixes
from lighter_async.options import whole_number
from lighter_async.targets import ArraysTarget, Target
from lighter_async.types import Origin

__all__ = ["check_indices", "check_origin", "claim_rows", "names_by_index", "own_names", "own_origin", "rows_of"]


def own_names(
    names: Sequence[str], count: int, suffixes: Sequence[str], target: Target
) -> tuple[Sequence[str], Sequence[str]]:
    """The names, as a sequence of our own, and their files: those of all samples for each suffix, one after the other.

    Of numbers with one suffix only the last one's file, which is the longest.

    Args:
        names: One per sample, as the caller has given them.
        count: How many samples there are.
        suffixes: What the names of a sample's files end in, one for each of its outputs.
        target: Where the files go, which may refuse some.

    Raises:
        TypeError: They are not a sequence of texts.
        ValueError: There is not one for each sample.
        InvalidNameError: One cannot be a file's name.
    """
    kind = type(names)
    if kind is not list and kind is not Numbers and (isinstance(names, str) or not isinstance(names, Sequence)):
        array: Any = names
        if getattr(getattr(array, "dtype", None), "kind", "") not in ("U", "O", "T") or array.ndim != 1:
            is_list = getattr(array, "ndim", None) == 1 and hasattr(array, "tolist")
            raise TypeError(
                f"names are a sequence with a name per sample, not {type(names).__name__}: {shown(names)}"
                + (f" and dtype {array.dtype}; list(map(str, names.tolist())) makes texts of them" if is_list else "")
                + "; the order is submit_batch(names, values)"
            )
        names = array.tolist()
    own = names if kind is Numbers else tuple(names)
    if len(own) != count:
        raise ValueError(f"Length mismatch: {count} samples and {len(own)} names; every sample needs one name")
    if not count:
        return own, own
    if kind is Numbers:
        files = [own[-1] + suffixes[0]] if len(suffixes) == 1 else _files(own, suffixes)
    else:
        if set(map(type, own)) != {str}:
            for name in own:
                if not isinstance(name, str):
                    raise TypeError(
                        f"a name is a str, not {type(name).__name__}: {shown(name)}; use str(name) of a number, "
                        "and the order is submit(name, value), or submit_batch(names, values)"
                    )
            own = tuple(map(str.__str__, own))  # of subclasses, such as numpy's
        check_names(own)
        files = _files(own, suffixes)
    target.check(files)
    return own, files


def _files(names: Sequence[str], suffixes: Sequence[str]) -> Sequence[str]:
    if len(suffixes) == 1:
        return with_suffixes(names, suffixes[0])
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
