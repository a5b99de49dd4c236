"""The target that a callback is given in place of a directory, and how its ranks share it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from lighter_async.targets import SharedTarget, Target, directory_of
from lighter_async.types import Run

__all__ = ["agree_on", "path_of", "target_of_rank"]


def path_of(directory: str | os.PathLike[str] | Target) -> str | os.PathLike[str] | None:
    """The directory that a path or a target stores below; None for a target that stores elsewhere.

    Raises:
        TypeError: It is neither a path nor a target.
    """
    if isinstance(directory, Target):
        below = directory_of(directory)
        return None if below is None else below.directory
    if isinstance(directory, (str, os.PathLike)):
        return directory
    raise TypeError(
        f"directory is a path or a target, not {type(directory).__name__}; the order is "
        "FileWriter(directory, value_key, writer_fn), and a target has the methods of lighter_async.Target"
    )


def target_of_rank(target: Target, run: Run, path: Path | None) -> Target:
    """The target for one rank of a run.

    Args:
        target: The target that the callback was given.
        run: The run, and the rank.
        path: The directory on which the ranks have agreed, if the target stores below one.
    """
    if (below := directory_of(target)) is not None:
        assert path is not None
        return below.of_run(run, path)
    return target.of_run(run) if isinstance(target, SharedTarget) else target


def agree_on(target: Target, trainer: Any) -> str:
    """Check that every rank may store to the target, and that all ranks have the same one.

    An error on one rank is raised on all of them, so that no rank waits for one that has given up.

    Returns:
        An id of this run, the same on all ranks.

    Raises:
        RuntimeError: The target is for one rank only, or the ranks' targets store to different places.
    """
    if trainer.world_size > 1 and not isinstance(target, SharedTarget):
        raise RuntimeError(
            f"{trainer.world_size} ranks cannot store to one {type(target).__name__}, which has no method of_run(run) "
            "to tell it which rank it stores for; predict on one device, give a directory, or add the method "
            "(lighter_async.targets.SharedTarget)"
        )
    own = target.location
    run_id, location = trainer.strategy.broadcast((secrets.token_hex(6), own), src=0)
    if not trainer.strategy.reduce_boolean_decision(own == location):
        who = f"rank {trainer.global_rank}, to {own!r}" if own != location else "another rank, elsewhere"
        raise RuntimeError(
            f"the ranks would store to different places: rank 0 to {location!r} and {who}; give all of them the same "
            "target"
        )
    return str(run_id)
