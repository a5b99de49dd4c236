"""A callback that kills its own process, for configurations that name it."""

import os
import signal
from typing import Any

from lightning.pytorch import Callback

__all__ = ["Killed"]


class Killed(Callback):
    """Ends each rank in the middle of a prediction, as the kernel does where memory is short.

    Args:
        batch: After which of its batches.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """Called by Lightning."""
        if batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGKILL)
