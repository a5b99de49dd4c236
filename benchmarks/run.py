"""The whole suite, or parts of it, into one JSON file and a page of tables and plots.

    python benchmarks/run.py [--only loops,encoders/png] [--quick | --smoke] [--json FILE] [--page FILE]

Figures of an earlier run in the JSON file are kept where this one does not measure anew. Peers that are not installed
are left out, and named as left out.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

import figures
from measure import Plan, tell
from report import write_page

PARTS = (
    *("loops", "handover", "saturated", "waits", "encoders", "minilm", "memory", "scale", "records", "helpers"),
    *("formats", "shards", "arrays", "tables", "slowdown", "first_second", "by_name", "after_kill"),
)
_DOCS = Path(__file__).parent.parent / "docs"
_FIGURES = _DOCS / "benchmarks" / "figures.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="parts, or cases of them (part/case), with commas between")
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--quick", dest="level", action="store_const", const="quick", help="about eight minutes")
    level.add_argument("--smoke", dest="level", action="store_const", const="smoke", help="whether all of it runs")
    parser.add_argument("--json", type=Path, default=_FIGURES, help="the figures' file")
    parser.add_argument(
        "--page", type=Path, default=None, help="the page (by default docs/benchmarks.md, or beside --json)"
    )
    parser.add_argument("--list", action="store_true", help="name the cases, and run nothing")
    options = parser.parse_args()
    plan = Plan(options.level or "full")
    chosen = [case for case in all_cases(plan) if wanted(case, options.only)]
    if options.list:
        print("\n".join(chosen))
        return
    measure(chosen, plan, options.json)
    page = options.page or (_DOCS / "benchmarks.md" if options.json == _FIGURES else options.json.with_suffix(".md"))
    write_page(figures.load(options.json), page)
    print(f"{page} was written from {options.json}")


def all_cases(plan: Plan) -> list[str]:
    return [f"{part}/{case}" for part in PARTS for case in importlib.import_module(part).cases(plan)]


def wanted(case: str, only: str) -> bool:
    return not only or any(case == one or case.startswith(f"{one}/") for one in only.split(","))


def measure(chosen: list[str], plan: Plan, file: Path) -> None:
    """Run the cases, and keep each one's figures as soon as it is done."""
    for case in chosen:
        part, _, name = case.partition("/")
        began = time.perf_counter()
        result = importlib.import_module(part).run(name, plan)
        tell(f"{case} took {time.perf_counter() - began:.1f} s")
        figures.keep(file, figures.entry({case: result}, plan.level))


if __name__ == "__main__":
    main()
