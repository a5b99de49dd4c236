"""The file of figures: what each case gave, when and on which machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from measure import environment, today

__all__ = ["compact", "entry", "keep", "load"]

Figures = dict[str, Any]


def load(file: Path) -> Figures:
    """What a file holds, or what an empty one would."""
    return json.loads(file.read_text()) if file.exists() else {"environments": {}, "cases": {}}


def entry(cases: dict[str, Figures], level: str) -> Figures:
    """What some cases gave on this machine, in the form of a file."""
    key, machine = environment()
    about = {"date": today(), "on": key, "level": level}
    return {"environments": {key: machine}, "cases": {case: {**about, **found} for case, found in cases.items()}}


def keep(file: Path, new: Figures) -> None:
    """Add figures to a file, in place of older ones of the same cases."""
    figures = load(file)
    for name, entries in new.items():
        figures[name].update(entries)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(compact(figures) + "\n")


def compact(figures: Figures) -> str:
    """JSON with a line for each case."""
    parts = []
    for name, entries in figures.items():
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(found)}" for key, found in entries.items())
        parts.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}"
