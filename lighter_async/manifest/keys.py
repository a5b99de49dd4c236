"""Numbers of 64 bits in the place of names: files are compared by these, since ten million of them fit in memory."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from lighter_async.manifest.line import LARGEST

__all__ = ["key_in_series", "key_of", "keys_of", "keys_of_numbers"]

_SEED = secrets.randbits(64)  # so that nobody can choose a name whose key is that of another one
_DIGITS = frozenset("0123456789")
_LONGEST_NUMBER = 19  # digits of a number that a key is made of


def key_of(file: str) -> int:
    """The key of a file, which another file has with odds of 3 in a million among ten million.

    The older of such two would count as not stored, and be computed again.
    """
    if file[:1] in _DIGITS:
        head, dot, tail = file.partition(".")
        is_number = head.isdecimal() and head.isascii() and len(head) <= _LONGEST_NUMBER
        if is_number and (head[0] != "0" or head == "0") and int(head) <= LARGEST:
            return int(keys_of_numbers(np.array([int(head)], np.int64), dot + tail)[0])
    return _hash(file)


def key_in_series(name: str, series: tuple[str, str]) -> int:
    """The key of a sample that lies in an object with others, or nobody knows where."""
    return _hash("\0".join((name, *series)))


def keys_of(files: Sequence[str]) -> NDArray[np.uint64]:
    """As `key_of`, of many."""
    return np.fromiter(map(key_of, files), np.uint64, len(files))


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


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), _SEED)
