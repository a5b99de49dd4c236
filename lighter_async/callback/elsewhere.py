"""Where the ranks of a run store elsewhere than below a directory."""

from __future__ import annotations

import secrets
from typing import Any

from lighter_async.targets import SharedTarget, Target

__all__ = ["agree_on"]


def agree_on(target: Target, trainer: Any) -> str:
    """See that every rank may store to the target, and that it is the same one on all of them.

    What is wrong on one rank is raised on all of them, so that none waits for another that has given up.

    Returns:
        A word that only this run has, the same on all ranks.

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
