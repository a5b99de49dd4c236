"""What a caller says of its samples, checked and copied: it may fill its own lists anew as soon as the call returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lighter_async.errors import shown
from lighter_async.names import Numbers, check_names, with_suffixes
from lighter_async.options import whole_number
from lighter_async.targets import Target
from lighter_async.types import Origin

__all__ = ["check_indices", "own_names", "own_origin"]


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
    if type(names) is not list and (isinstance(names, str) or not isinstance(names, Sequence)):
        array: Any = names
        if getattr(getattr(array, "dtype", None), "kind", "") not in ("U", "O", "T") or array.ndim != 1:
            raise TypeError(
                f"names are a sequence with a name per sample, not {type(names).__name__}: {shown(names)}; "
                "the order is submit_batch(names, values)"
            )
        names = array.tolist()
    own = names if isinstance(names, Numbers) else tuple(names)
    if len(own) != count:
        raise ValueError(f"Length mismatch: {count} samples and {len(own)} names; every sample needs one name")
    if not count:
        return own, own
    if isinstance(own, Numbers):
        files = _files(own if len(suffixes) > 1 else own[-1:], suffixes)
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
    loader = whole_number(origin.loader, "the number of a loader")
    batch = None if origin.batch is None else whole_number(origin.batch, "the number of a batch")
    if loader < 0:
        raise ValueError(f"loaders count from 0, got {loader}")
    if indices is None:
        return Origin(None, loader, batch)
    own = indices.tolist() if hasattr(indices, "tolist") else indices
    is_usual = type(own) is range or (type(own) in (tuple, list) and set(map(type, own)) == {int})
    if not is_usual or max(own, default=0) >= 1 << 63 or min(own, default=0) < -(1 << 63):
        own = [whole_number(one, f"the index of sample {position}") for position, one in enumerate(own)]
    return Origin(own if type(own) is range else tuple(own), loader, batch)
