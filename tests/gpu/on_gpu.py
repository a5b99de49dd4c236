"""What the tests on a device share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

__all__ = ["GPU", "busy", "numbers_in", "stored", "two_gpus"]

GPU = torch.device("cuda", 0)
_CYCLES = 200_000_000  # a tenth of a second, or two


def busy(times: float = 1.0) -> None:
    """Keep the current stream busy for about 0.1 s, so that whatever does not wait for it is far ahead."""
    torch.cuda._sleep(int(times * _CYCLES))


def stored(folder: Path) -> dict[str, Any]:
    """What was stored as `.pt`, by name."""
    return {path.stem: torch.load(path, weights_only=False) for path in folder.glob("[!.]*.pt")}


def numbers_in(folder: Path) -> dict[str, float]:
    """The number that each stored tensor is full of."""
    found = {}
    for name, tensor in stored(folder).items():
        assert tensor.device.type == "cpu"
        assert tensor.min() == tensor.max(), f"{name} is of several batches"
        found[name] = tensor.flatten()[0].item()
    return found


def two_gpus() -> bool:
    return torch.cuda.device_count() > 1
