"""Lightning collects all predictions in memory unless it is told not to, which is rarely meant beside a writer."""

from __future__ import annotations

from typing import Any

from lighter_async.notices import warn

__all__ = ["warn_if_collected"]


def warn_if_collected(trainer: Any, who: str) -> bool:
    """Warn on rank 0 if a trainer collects predictions, with the ways out; returns whether it has warned.

    Args:
        trainer: A trainer that predicts.
        who: The callback's name.
    """
    if not trainer.predict_loop.return_predictions or not trainer.is_global_zero:
        return False
    warn(
        "Lightning also collects all predictions in memory, because return_predictions is not False; "
        f"trainer.predict(..., return_predictions=False) or {who}(return_predictions=False) stops that, "
        f"and {who}(return_predictions=True) says that it is meant"
    )
    return True
