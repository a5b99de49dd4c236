"""Packages that only some parts need: which extra of this package installs each, and what is said of a missing one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["EXTRAS", "how_to_install", "not_installed", "optional"]

EXTRAS = {
    "lightning": ("pytorch-lightning", "lightning"),
    "parquet": ("pyarrow",),
    "tiff": ("tifffile",),
    "zarr": ("zarr",),
    "bench": ("matplotlib",),
    "demo": ("scikit-image",),
}
"""The packages that each extra of this package is for, the one that it installs first; one of them is enough."""


def how_to_install(package: str) -> str:
    """The command that installs a package, by the extra that is for it if there is one; or an extra itself."""
    extra = next((extra for extra, group in EXTRAS.items() if package in (extra, *group)), None)
    return f"pip install {package}" if extra is None else f"pip install 'lighter-async[{extra}]'"


def not_installed(clause: str, package: str) -> str:
    """What is said of a package that is missing.

    Args:
        clause: What needs it, which ends in its name: ``"a .zarr array is written by zarr"``.
        package: The package.
    """
    return f"{clause}, which is not installed: {how_to_install(package)}"


@contextmanager
def optional(clause: str, package: str) -> Iterator[None]:
    """Say how to get a package that is imported within, if it is missing.

    Args:
        clause: As of `not_installed`.
        package: The package.

    Raises:
        ImportError: It is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise  # a package that this one needs, which its own error names
        raise ImportError(not_installed(clause, package)) from error
