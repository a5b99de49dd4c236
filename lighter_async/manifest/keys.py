"""Numbers of 64 bits in the place of names: files are compared by these, since ten million of them fit in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from lighter_async.manifest.line import LARGEST
from lighter_async.names import with_suffixes

__all__ = ["key_in_series", "key_of", "keys_in_series", "keys_of", "keys_of_numbers", "keys_of_places"]

_CHUNK = 1 << 14
_SEED = int.from_bytes(os.urandom(8), "little")  # so that nobody can choose a name whose key is that of another one
_DIGITS = frozenset("0123456789")
_LONGEST_NUMBER = 19  # digits of a number that a key is made of


def key_of(file: str) -> int:
    """The key of a file, which another file has with odds of 3 in a million among ten million.

    The older of such two would count as not stored, and be computed again.
    """
    return int(_keys_of_some([file], "")[0])


def key_in_series(name: str, series: tuple[str, str]) -> int:
    """The key of a sample that lies in an object with others, or of whose files nothing is known."""
    return int(keys_in_series([name], series)[0])


def keys_in_series(names: Sequence[str] | NDArray[Any], series: tuple[str, str]) -> NDArray[np.uint64]:
    """As `key_in_series`, of many.

    Args:
        names: The names, or the numbers that all of them are.
        series: Of all of them.
    """
    rest = "\0".join(("", *series))
    if isinstance(names, np.ndarray):
        return keys_of_numbers(names, rest)
    return _in_parts(names, lambda some: _keys_of_some(some, rest))


def keys_of_places(object: str, offsets: NDArray[Any]) -> NDArray[np.uint64]:
    """The keys of samples that are known by their places in an object, as the rows of an array are."""
    return keys_of_numbers(offsets, f"\0{object}")


def keys_of(files: Sequence[str], suffix: str = "") -> NDArray[np.uint64]:
    """As `key_of`, of many.

    Args:
        files: The files, or the names of samples.
        suffix: What each is to end in, as of `with_suffix`.
    """
    return _in_parts(files, lambda some: _keys_of_some(with_suffixes(some, suffix), ""))


def _in_parts(texts: Sequence[str], keys_of_some: Callable[[Sequence[str]], NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """Keys of some texts at a time, so that the texts and numbers on the way take little memory."""
    keys = np.empty(len(texts), np.uint64)
    for start in range(0, len(texts), _CHUNK):
        keys[start : start + _CHUNK] = keys_of_some(texts[start : start + _CHUNK])
    return keys


def _keys_of_some(texts: Sequence[str], end: str) -> NDArray[np.uint64]:
    """Keys of texts that are longer by an end."""
    if _DIGITS.isdisjoint([text[:1] for text in texts]):
        return np.array([_hash(text + end) for text in texts], np.uint64)
    keys = np.empty(len(texts), np.uint64)
    # Numbers together, which takes a tenth of the time.
    numbered: dict[str, tuple[list[int], list[int]]] = {}
    for place, text in enumerate(texts):
        found = _number_and_rest(text)
        if found is None:
            keys[place] = _hash(text + end)
            continue
        number, rest = found
        places, numbers = numbered.setdefault(rest, ([], []))
        places.append(place)
        numbers.append(number)
    for rest, (places, numbers) in numbered.items():
        keys[places] = keys_of_numbers(np.array(numbers, np.int64), rest + end)
    return keys


def keys_of_numbers(numbers: NDArray[Any], rest: str) -> NDArray[np.uint64]:
    """Keys of numbers with the same rest of the name: different ones for different numbers.

    The steps are those of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    """
    keys = numbers.astype(np.uint64)
    keys += np.uint64(_hash(rest))
    keys ^= keys >> np.uint64(30)
    keys *= np.uint64(0xBF58476D1CE4E5B9)
    keys ^= keys >> np.uint64(27)
    keys *= np.uint64(0x94D049BB133111EB)
    keys ^= keys >> np.uint64(31)
    return keys


def _number_and_rest(file: str) -> tuple[int, str] | None:
    """The number that a file is named after, and what follows it; None if it is named in another way."""
    if file[:1] not in _DIGITS:
        return None
    head, dot, tail = file.partition(".")
    is_number = head.isdecimal() and head.isascii() and len(head) <= _LONGEST_NUMBER
    if not is_number or (head[0] == "0" and head != "0") or int(head) > LARGEST:
        return None
    return int(head), dot + tail


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), _SEED)
