"""Whether a resuming run has the same data sets and the same configuration as the runs that it resumes."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
from collections.abc import Iterator, Mapping, Sized
from typing import Any

import numpy as np
import xxhash

from lighter_async.below import walk_below
from lighter_async.errors import ResumeError
from lighter_async.locks import held_by
from lighter_async.manifest.line import Config, OutputName
from lighter_async.manifest.reader import Manifest, Series, read_manifest, runs_of
from lighter_async.names import RESERVED_PREFIX
from lighter_async.notices import warn
from lighter_async.staging import is_tensor

__all__ = ["check_config", "check_same", "check_suffix", "fingerprint_of", "own_fingerprint_of", "warn_of_options"]

# Options that change how long a file is, how long it takes to write, or how it is to be read, which is recorded.
_SAME_VALUES = frozenset(
    {"codec", "compress_level", "compression", "filter", "indent", "method", "predictor"}
    | {"channel_dim", "encoding", "key"}
)
_STATE = "xxh3:"  # the prefix of fingerprints that are hashes of a data set's state
_MOST_BYTES = 256 << 20  # of a data set's state that are hashed
_MOST_OBJECTS = 5_000_000
_MOST_TEXTS = 256  # that are checked for being paths
_LONGEST_PATH = 4096
_MOST_LISTED = 200_000  # names below a folder
_MOST_WRAPPED = 8  # nested data sets that are searched for paths


def check_same(manifest: Manifest, series: Series, loader: int, dataset: Sized) -> None:
    """Refuse to resume numbered samples of another data set.

    A changed hash of its state is only warned of, since that may have other reasons.

    Args:
        manifest: What was stored.
        series: The series.
        loader: The number of the data loader.
        dataset: Its data set now.

    Raises:
        ResumeError: The data set's length, or its own fingerprint, has changed.
    """
    current = manifest.current_runs().get(series, set())
    known = [one for one in manifest.loaders if one.series == series and one.run in current and not one.named]
    # Of the latest run that had this loader, since a run may have had fewer.
    before = next((one.loaders[loader] for one in reversed(known) if loader < len(one.loaders)), None)
    if before is None:
        return
    own = own_fingerprint_of(dataset)
    if before.length is not None and before.length != len(dataset):
        difference = f"had {before.length} items, and has {len(dataset)} now"
    elif own is None or before.fingerprint is None or before.fingerprint.startswith(_STATE):
        if before.fingerprint is not None and own is None:
            _warn_of_state(manifest, before.fingerprint, loader, dataset)
        return
    elif before.fingerprint != own:
        difference = f"had the fingerprint {before.fingerprint!r}, and has {own!r} now"
    else:
        return
    raise ResumeError(
        f"the data set of loader {loader} {difference}, and the samples of writer {series[0]!r} in "
        f"{str(manifest.directory)!r} are numbered, so which of them are stored cannot be told. Give samples names "
        "that stay (name_key=...), use the data set that it was, leave out resume=True to begin anew, or choose "
        "another directory"
    )


def _warn_of_state(manifest: Manifest, before: str, loader: int, dataset: Sized) -> None:
    now = fingerprint_of(dataset) if before.startswith(_STATE) else None
    if now is not None and now != before:
        warn(
            f"the data set of loader {loader} has as many items as before, but another state, and the samples in "
            f"{str(manifest.directory)!r} are numbered: if its items, or their order, have changed, the samples that "
            "count as stored are those of other items; give samples names that stay (name_key=...)"
        )


def check_suffix(directory: str | os.PathLike[str], series: Series, suffix: str) -> None:
    """Refuse a second output of one series, which would differ from the first only in its suffix.

    Raises:
        ResumeError: A run that is open stores the series with another suffix.
    """
    open_now = held_by(os.path.join(directory, RESERVED_PREFIX))
    if len(open_now) < 2 or not suffix:
        return  # no other run is open; or the writer is a function, which names its own files
    for run in runs_of(directory):
        if run.series == series and run.suffix not in ("", suffix) and run.run in open_now:
            raise ResumeError(
                f"writer {series[0]!r} stores samples in {os.fspath(directory)!r} as {run.suffix!r} and as {suffix!r}, "
                "and a sample would count as stored for both once one has it; give each output a key of its own "
                "(run=Run(key=...)), or a directory"
            )


def check_config(directory: str | os.PathLike[str], series: Series, config: Config) -> None:
    """Refuse to resume runs with another configuration.

    Raises:
        ResumeError: A run that counts has another one.
    """
    if config is None:
        return
    manifest = read_manifest(directory)
    current = manifest.current_runs().get(series, set())
    for run in manifest.runs:
        if run.series == series and run.run in current and run.config is not None and run.config != config:
            raise ResumeError(
                f"what writer {series[0]!r} has stored in {str(manifest.directory)!r} was made with "
                f"run_config={run.config!r:.500}, and this run has {config!r:.500}. Leave out resume=True to begin "
                "anew, choose another directory, or give mix_configs=True to have both in one"
            )


def warn_of_options(directory: str | os.PathLike[str], output: OutputName) -> None:
    """Warn where a run goes on with other options than the last one: what both have stored may not mean the same."""
    last = next((run for run in reversed(runs_of(directory)) if run.series == (output.writer, output.key)), None)
    if last is None:
        return
    there, here = _telling(last.options or {}), _telling(json.loads(output.options or "{}"))
    if there != here:
        warn(
            f"writer {output.writer!r} goes on in {os.fspath(directory)!r} with the options {here!r:.500}, where the "
            f"run before had {there!r:.500}: what is stored of both may not mean the same. Leave out resume=True to "
            "begin anew, or give mix_configs=True where that is meant"
        )


def _telling(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in _SAME_VALUES}


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
    return _STATE + sink.state.hexdigest()


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
