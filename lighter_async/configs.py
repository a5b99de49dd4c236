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
    """A dict or list of plain Python for one of OmegaConf's, also inside dicts, lists and tuples; else the value.

    `hydra.utils.instantiate` hands them over. Helper processes get the options of writers pickled, and should need no
    OmegaConf to read them.

    Raises:
        Exception: As of OmegaConf, if the config refers to something that is missing.
    """
    omegaconf = sys.modules.get("omegaconf")  # whose containers there are only where it has been imported
    return value if omegaconf is None else _plain(value, omegaconf.OmegaConf)


def _plain(value: Any, conf: Any) -> Any:
    if conf.is_config(value):
        return conf.to_container(value, resolve=True, throw_on_missing=True)
    kind = type(value)
    if kind is dict:
        return {key: _plain(one, conf) for key, one in value.items()}
    return kind([_plain(one, conf) for one in value]) if kind is list or kind is tuple else value
