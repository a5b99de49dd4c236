"""What a command needs beyond what the package depends on."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

__all__ = ["needs"]


def needs(extra: str, packages: Sequence[Mapping[str, str]]) -> str | None:
    """What is missing, with the line that installs it; None if nothing is.

    Args:
        extra: The extra of this package that installs all of it.
        packages: Groups of import names with the packages' names; of a group, one is enough.
    """
    missing = [
        next(iter(group.values())) for group in packages if not any(importlib.util.find_spec(name) for name in group)
    ]
    if not missing:
        return None
    verb = "is" if len(missing) == 1 else "are"
    return f"needs {' and '.join(missing)}, which {verb} not installed: pip install 'lighter-async[{extra}]'"
