"""Lightning, under both of its names.

The same code is published as `pytorch_lightning` and as `lightning.pytorch`, whose classes are different ones. A
callback here is both, where both are installed, so that either `Trainer` takes it as its own.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from lighter_async.optional_packages import how_to_install

__all__ = ["LightningCallback"]

_PACKAGES = ("pytorch_lightning", "lightning.pytorch")


def _callbacks() -> tuple[type[Any], ...]:
    found = []
    for package in _PACKAGES:
        try:
            if importlib.util.find_spec(package) is None:
                continue
        except ModuleNotFoundError:  # of the package above it
            continue
        found.append(importlib.import_module(package).Callback)
    if not found:
        raise ImportError(
            "lighter_async.FileWriter and BaseWriter are PyTorch Lightning callbacks, and neither pytorch_lightning "
            f"nor lightning is installed: {how_to_install('lightning')}; without Lightning use BackgroundWriter"
        )
    return tuple(found)


# Made at run time, since which classes there are is not known before.
LightningCallback: Any = type("LightningCallback", _callbacks(), {"__module__": __name__})
