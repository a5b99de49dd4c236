"""Writes the page of the command line from the parser itself, between two comments of the page."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from typing import Any

from lighter_async.cli.parser import make_parser

MARKS = re.compile(r"<!-- commands: begin -->.*<!-- commands: end -->", re.DOTALL)
WIDTH = 100
TITLES = {"positional arguments": "argument", "options": "option"}  # what argparse calls them


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    return MARKS.sub(lambda _: commands(), markdown)


def commands() -> str:
    """A section for each command: what it does, and its arguments in tables."""
    (subparsers,) = (one for one in make_parser()._actions if isinstance(one, argparse._SubParsersAction))
    return "\n\n".join(section(name, parser) for name, parser in subparsers.choices.items())


def section(name: str, parser: argparse.ArgumentParser) -> str:
    """What a command's help says, as Markdown."""
    parser.format_help()  # fills in the meaning of the writer's options
    formatter = argparse.HelpFormatter(parser.prog, width=WIDTH)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, prefix="")
    parts = [f"## {name}", inspect.cleandoc(parser.description or ""), f"```\n{formatter.format_help()}```"]
    for group in parser._action_groups:
        if rows := list(_rows(parser, group)):
            title = TITLES.get(group.title or "", group.title)
            parts.append("\n".join([f"| {title} | meaning |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _rows(parser: argparse.ArgumentParser, group: argparse._ArgumentGroup) -> Iterator[str]:
    formatter = parser._get_formatter()
    for action in group._group_actions:
        if not isinstance(action, argparse._HelpAction):
            how = formatter._format_action_invocation(action)
            what = " ".join(formatter._expand_help(action).split())
            yield f"| `{how}` | {_plain(what)} |"


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")
