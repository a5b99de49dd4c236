"""What tells a data set from others of its length: its own fingerprint, or a hash of its state."""

from __future__ import annotations

import io
import os
import pickle
import stat
from collections.abc import Iterator
from typing import Any

import numpy as np
import xxhash

from lighter_async.names import RESERVED_PREFIX
from lighter_async.staging import is_tensor
from lighter_async.without_links import walk_below

__all__ = ["OF_STATE", "fingerprint_of", "own_fingerprint_of"]

OF_STATE = "xxh3:"
"""What fingerprints begin with that are hashes of a data set's state."""

_MOST_BYTES = 256 << 20  # of a data set's state that are hashed
_MOST_OBJECTS = 5_000_000
_MOST_TEXTS = 256  # that are checked for being paths
_LONGEST_PATH = 4096
_MOST_LISTED = 200_000  # names below a folder
_MOST_WRAPPED = 8  # nested data sets that are searched for paths


def fingerprint_of(dataset: Any) -> str | None:
    """A data set's own fingerprint (`_fingerprint`, as Hugging Face's have), or else a hash of its state.

    None if it has no fingerprint, and its state cannot be pickled or is larger than 256 MB.
    """
    own = own_fingerprint_of(dataset)
    if own is not None:
        return own
    sink = _Sink()
    try:
        # Hashed by themselves, since of the pickled state only the first texts are checked for being paths.
        sink.write(repr(list(_own_paths(dataset))).encode("utf-8", "surrogatepass"))
        _Pickler(sink).dump(dataset)
    except Exception:  # whatever a data set's own pickling raises
        return None
    return OF_STATE + sink.state.hexdigest()


def own_fingerprint_of(dataset: Any) -> str | None:
    """A data set's own fingerprint; None if it has none."""
    try:
        own = getattr(dataset, "_fingerprint", None)
    except Exception:
        return None
    return own if isinstance(own, str) and own else None


class _TooLarge(Exception):
    pass


class _Sink(io.RawIOBase):
    """A file that hashes what is written to it, up to a limit."""

    def __init__(self) -> None:
        self.state = xxhash.xxh3_128()
        self._bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._bytes += view.nbytes
        if self._bytes > _MOST_BYTES:
            raise _TooLarge
        self.state.update(view)
        return view.nbytes


class _Pickler(pickle.Pickler):
    """Pickles a data set's state into a hash, with the contents of tensors and arrays."""

    def __init__(self, sink: _Sink) -> None:
        super().__init__(sink, 5)
        # Without a memo: with one, a text that occurs twice would be pickled otherwise than two equal texts.
        self.fast = True
        self._sink = sink
        self._objects = 0
        self._texts = 0

    def persistent_id(self, value: Any) -> Any:
        self._objects += 1
        if self._objects > _MOST_OBJECTS:
            raise _TooLarge
        if is_tensor(value):
            if value.device.type != "cpu":
                raise _TooLarge
            import torch

            self._sink.write(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
            return "tensor", str(value.dtype), tuple(value.shape)
        if type(value) is np.ndarray and not value.dtype.hasobject:
            self._sink.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
            return "array", str(value.dtype), value.shape
        if type(value) in (set, frozenset):
            # Sorted, since the order differs between processes.
            return "set", sorted(_hash_of(one) for one in value)
        if self._texts < _MOST_TEXTS and isinstance(value, (str, os.PathLike)):
            self._texts += 1
            # A data set may hold only the path of a folder, and read from there for each item.
            if (found := _found_at(value)) is not None:
                return "path", os.fspath(value), found
        return None


def _own_paths(dataset: Any) -> Iterator[Any]:
    """What lies at the paths among the attributes of a data set, and of those that it wraps."""
    for _ in range(_MOST_WRAPPED):
        fields = getattr(dataset, "__dict__", None)
        if not isinstance(fields, dict):
            return
        for name, value in sorted(fields.items()):
            if isinstance(value, (str, os.PathLike)) and (found := _found_at(value)) is not None:
                yield name, os.fspath(value), found
        dataset = fields.get("dataset")


def _hash_of(value: Any) -> str:
    sink = _Sink()
    _Pickler(sink).dump(value)
    return sink.state.hexdigest()


def _listed(folder: str) -> list[str]:
    """All names below a folder, at any depth.

    Raises:
        _TooLarge: There are too many.
    """
    if os.path.abspath(folder) == os.path.abspath(os.sep):
        return sorted(os.listdir(folder))  # more likely a separator than a folder of data
    found: list[str] = []
    for below, files in walk_below(folder, but=RESERVED_PREFIX):
        found.append(below)
        found += [f"{below}/{file}" for file in files]
        if len(found) > _MOST_LISTED:
            raise _TooLarge
    return sorted(found)


def _found_at(path: str | os.PathLike[str]) -> Any:
    """What lies at a path: the names below a folder, or the size and time of a file; None if there is neither."""
    try:
        text = os.fspath(path)
        if not isinstance(text, str) or not 0 < len(text) < _LONGEST_PATH:
            return None
        status = os.stat(text)
        if stat.S_ISDIR(status.st_mode):
            return _listed(text)
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
