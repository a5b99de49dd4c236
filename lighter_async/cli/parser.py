"""The commands and their options."""

from __future__ import annotations

import argparse
from pathlib import Path

import lighter_async
from lighter_async.limits import DEFAULT_QUEUE_SIZE

__all__ = ["make_parser"]

_DEMO = """\
Predict over photographs and write the results in the background.

The photographs that scikit-image ships are cut into overlapping patches. A model with fixed weights finds their edges
and their textures in a Lightning Trainer's predict, on the CPU, and two FileWriters write them: a PNG and a .pt file
per patch. Afterwards every file is compared with what the same model gives in a plain loop that writes inline.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of ``lighter-async``; what it parses has `command`, and `run(options)` where there is a command."""
    parser = argparse.ArgumentParser(
        prog="lighter-async", description="Write predictions to disk in the background, while the loop goes on."
    )
    parser.add_argument("--version", action="version", version=f"lighter-async {lighter_async.__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    _add_demo(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="predict over photographs and write the results in the background",
        description=_DEMO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("demo-output"),
        metavar="DIR",
        help="where the results go (default: ./demo-output); those of an earlier demo there are removed",
    )
    demo.add_argument(
        "--patches", type=_count, metavar="N", help="how many patches to take from all photographs (default: all)"
    )
    demo.add_argument("--quick", action="store_true", help="300 patches, unless --patches says otherwise")
    demo.add_argument("--batch-size", type=_count, default=32, metavar="N", help="patches a batch (default: 32)")
    demo.add_argument(
        "--max-workers",
        type=_count,
        metavar="N",
        help="files that each of the two writers writes at once (default: one per core, at most four)",
    )
    demo.add_argument(
        "--queue-size",
        type=_count,
        default=DEFAULT_QUEUE_SIZE,
        metavar="N",
        help=f"samples that each writer holds at most (default: {DEFAULT_QUEUE_SIZE})",
    )
    demo.set_defaults(run=_run_demo)


def _run_demo(options: argparse.Namespace) -> int:
    # Only now, so that --help is quick.
    from lighter_async.cli.demo import DemoOptions, run_demo

    return run_demo(
        DemoOptions(
            output=options.output,
            patches=options.patches or (300 if options.quick else None),
            batch_size=options.batch_size,
            max_workers=options.max_workers,
            queue_size=options.queue_size,
        )
    )


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number
