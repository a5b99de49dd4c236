"""The page of messages tells of messages that there are."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MESSAGES = re.findall(r"^### `(.*)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)


@cache
def texts():
    """All texts of the package's source, each in one piece, with … in the place of a value."""
    found = []
    for path in (ROOT / "lighter_async").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_one_of_the_package(message):
    """But for the values in it."""
    pattern = re.compile(".*?".join(re.escape(piece.strip()) for piece in message.split("…")), re.DOTALL)
    assert any(map(pattern.search, texts()))


def test_the_page_tells_of_messages():
    """Each once."""
    assert len(MESSAGES) == len(set(MESSAGES)) > 25
