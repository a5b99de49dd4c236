"""Packages that a command needs beyond those that this package depends on."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

from lighter_async.optional_packages import how_to_install

__all__ = ["needs"]


def needs(extra: str, packages: Sequence[Mapping[str, str]]) -> str | None:
    """The missing packages, with the command that installs them; None if nothing is missing.

    Args:
        extra: The extra of this package that installs all of them.
        packages: Groups of import names with the packages' names. One package of each group is enough.
    """
    missing = [
        next(iter(group.values())) for group in packages if not any(importlib.util.find_spec(name) for name in group)
    ]
    if not missing:
        return None
    verb = "is" if len(missing) == 1 else "are"
    return f"needs {' and '.join(missing)}, which {verb} not installed: {how_to_install(extra)}"
