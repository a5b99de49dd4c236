"""What libraries of configurations hand over in place of plain dicts, lists and paths."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

__all__ = ["PathLike", "plain"]

if TYPE_CHECKING:
    from typing import TypeAlias

    PathLike: TypeAlias = os.PathLike[str]
else:
    # What LightningCLI reads: jsonargparse makes a text of anything where an `os.PathLike` may stand, also of a target
    # that is misspelt, which would become a directory of that name.
    PathLike = Path


def plain(value: Any) -> Any:
    """A dict or list of plain Python for one of OmegaConf's, as `hydra.utils.instantiate` hands over; else the value.

    Helper processes get the options of writers pickled, and should need no OmegaConf to read them.

    Raises:
        Exception: As of OmegaConf, if the config refers to something that is missing.
    """
    omegaconf = sys.modules.get("omegaconf")  # whose containers there are only where it has been imported
    if omegaconf is None or not omegaconf.OmegaConf.is_config(value):
        return value
    return omegaconf.OmegaConf.to_container(value, resolve=True)
