"""``lighter-async report``: what is known of results, as one page for a browser."""

from __future__ import annotations

import os
from pathlib import Path

from lighter_async.cli.words import counted, printable, refuse
from lighter_async.errors import LighterAsyncError
from lighter_async.report import facts_of, page_of
from lighter_async.whole_files import publish

__all__ = ["run_report"]


def run_report(directory: Path, output: Path | None) -> int:
    """Write the page.

    Args:
        directory: What the writer was given: the directory, or the path of an array or a table.
        output: The file; by default beside `directory`, with ``-report.html`` behind its name.

    Returns:
        0, or 2 if nothing is recorded, it cannot be read, or the page cannot be written.
    """
    if output is None:
        whole = Path(os.path.abspath(directory))
        output = whole.with_name(f"{whole.name or 'results'}-report.html")
    try:
        facts = facts_of(directory)
        page = page_of(facts, Path(os.path.abspath(output))).encode("ascii")
        publish(output, [memoryview(page)])
    except (LighterAsyncError, OSError) as error:
        return refuse(str(error))
    print(f"{counted(facts.samples, 'sample')} of {printable(facts.title)}: {printable(str(output))}")
    return 0
