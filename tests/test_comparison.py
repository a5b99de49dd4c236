"""The page that compares says nothing of speed that the page of benchmarks does not say."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "comparison.md").read_text()
BENCHMARKS = (DOCS / "benchmarks.md").read_text()
FIGURE = r"(?<![\d.,-])\d+(?:,\d{3})*(?:\.\d+)?%?(?![\d%]|[.,]\d)"


def figures_of(text):
    """Those with a point or a comma; and whole numbers in a table's cells by themselves."""
    found = set(re.findall(FIGURE, text))
    return {one for one in found if re.search(r"[.,]", one)} | set(re.findall(r"(?<=\| )\d+(?= \|)", text))


@pytest.mark.parametrize("figure", sorted(figures_of(PAGE) - {"0.1.0"}))
def test_a_figure_stands_in_the_page_of_benchmarks(figure):
    """As it is, or it was measured anew since."""
    assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d.,]*\d)", BENCHMARKS), figure


@pytest.mark.parametrize("section", re.findall(r'"((?:The|A|Memory|Files|Rows|What|Encoders)[^"\n]*)"', PAGE))
def test_a_section_that_is_named_is_there(section):
    """So that a reader finds the figures."""
    assert f"\n## {section}\n" in BENCHMARKS
