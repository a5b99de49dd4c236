"""What the help says of a writer's options: the sentences of `options/config.py`, loaded when help is printed."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["OptionParser"]


class OptionParser(argparse.ArgumentParser):
    """A parser that knows which of its arguments are options of a writer."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._of_writer: list[tuple[argparse.Action, str, str]] = []

    def explain(self, action: argparse.Action, option: str, addition: str) -> None:
        """Have the help say of an argument what an option of the writer means.

        Args:
            action: The argument.
            option: The option's name.
            addition: What else there is to say of it, such as its default here.
        """
        self._of_writer.append((action, option, addition))

    def format_help(self) -> str:
        """The help, with all sentences."""
        if self._of_writer:
            from lighter_async.options import meaning_of  # not above, since it needs numpy

            for action, option, addition in self._of_writer:
                meaning = meaning_of(option).replace("`", "").replace("%", "%%")
                action.help = f"{meaning} {addition}".rstrip()
        return super().format_help()
