"""One part by itself, with options of its own: measured as the suite measures it, and shown as its page shows it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import figures
from measure import MEMORY, place_in
from report import tables

__all__ = ["parser_for", "place_of", "show"]


def parser_for(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """With the options that all parts have: where, how often, and a file for the figures."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--folder", type=Path, default=MEMORY, help=f"on which file system; by default {MEMORY}")
    parser.add_argument("--journaled", metavar="SIZE", help="on an ext4 with a journal in a file there; takes root")
    parser.add_argument("--json", type=Path, help="a file that the figures are added to")
    return parser


@contextmanager
def place_of(options: argparse.Namespace) -> Iterator[tuple[Path, str]]:
    """The folder that the options ask for, and what it is."""
    with place_in(options.folder, options.journaled) as found:
        yield found


def show(part: str, cases: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    """Print the part's tables, and keep its figures where the options say so."""
    new = figures.entry({f"{part}/{case}": found for case, found in cases.items()}, "single")
    if options.json:
        figures.keep(options.json, new)
    print("\n".join(tables(new)))
