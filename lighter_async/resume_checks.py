"""Whether a resuming run has the same data sets and the same configuration as the runs that it resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sized
from typing import Any

from lighter_async.data_set_fingerprint import OF_STATE, fingerprint_of, own_fingerprint_of
from lighter_async.errors import ResumeError
from lighter_async.locks import held_by
from lighter_async.manifest.line import Config, OutputName
from lighter_async.manifest.reader import Manifest, Series, read_manifest, runs_of
from lighter_async.names import RESERVED_PREFIX
from lighter_async.notices import warn

__all__ = ["check_config", "check_same", "check_suffix", "warn_of_options"]

# Options that change how long a file is, how long it takes to write, or how it is to be read, which is recorded.
_SAME_VALUES = frozenset(
    {"codec", "compress_level", "compression", "filter", "indent", "method", "predictor"}
    | {"channel_dim", "encoding", "key"}
)


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
    elif own is None or before.fingerprint is None or before.fingerprint.startswith(OF_STATE):
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
    now = fingerprint_of(dataset) if before.startswith(OF_STATE) else None
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
