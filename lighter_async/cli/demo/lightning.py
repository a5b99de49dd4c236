"""Lightning, under whichever of its two names is installed."""

from __future__ import annotations

from typing import Any

__all__ = ["lightning"]

lightning: Any
try:
    import pytorch_lightning as lightning
except ModuleNotFoundError:
    import lightning.pytorch as lightning
