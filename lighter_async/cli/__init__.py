"""The command line: ``lighter-async``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lighter_async.cli.outlets import outlets
from lighter_async.cli.parser import make_parser

__all__ = ["main"]

_INTERRUPTED = 128 + 2  # as shells report a process that SIGINT ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Where its output goes to a program that has read enough, such as ``head``, the command goes on to its end without
    printing, and its exit code is the same. Commands that do nothing but print (``manifest``, ``watch``) end then.

    Args:
        argv: The arguments after the program's name; by default those of the process.

    Returns:
        The exit code: 0 for success, 1 for a failure, 2 for wrong usage or a missing package, 130 after Ctrl-C.

    Raises:
        SystemExit: From `argparse`, after ``--help``, ``--version`` or wrong arguments.
    """
    with outlets():
        parser = make_parser()
        options = parser.parse_args(argv)
        if options.command is None:
            parser.print_help(sys.stderr)
            return 2
        try:
            code: int = options.run(options)
        except KeyboardInterrupt:
            print("lighter-async: interrupted", file=sys.stderr)
            return _INTERRUPTED
        return code
