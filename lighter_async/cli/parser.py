"""The commands and their options."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import lighter_async
from lighter_async.cli.option_help import OptionParser
from lighter_async.limits import DEFAULT_QUEUE_SIZE

__all__ = ["make_parser"]

_DEMO = """\
Predict over photographs and write the results in the background, in less than a minute.

The photographs that scikit-image ships are cut into overlapping patches. A model with fixed weights finds their edges
and their textures in a Lightning Trainer's predict, on the CPU, and two FileWriters write them: a PNG and a .pt file
per patch. Then every file is compared with what the same model gives in a plain loop that writes inline.

Ways to write take turns in three rounds: none, in the background, inline, and inline as it is often written first, with
Image.save and torch.save. A table tells what each of them costs a loop that leaves a core free, and one that waits for
a device. Last, a job is killed with SIGKILL in the middle, the same command is run again, and what it has stored is
verified.

The exit status is 0 if everything is stored as it should be, 1 if not, 2 if the demo cannot run here.
"""

_BENCH = """\
Find out which backend, max_workers and queue_size suit a job on this machine.

A plain loop does steps and hands a batch over after each, with every setting of a grid and, to compare, writing inline
and without writing; the runs take turns. The files go into a new folder that is removed afterwards. At the end it
prints a table, a line to paste into code, and the reason for it.
"""

_PATCHES = 1000  # with which the demo takes less than a minute

_DTYPES = ("bfloat16", "bool", "float16", "float32", "float64", "int16", "int32", "int64", "int8", "uint8")


def _directory(text: str) -> Path:
    """A directory that was named on the command line."""
    try:
        from lighter_async.whole_files import local_path  # not above, since it needs numpy, and --help does not

        return local_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def make_parser() -> OptionParser:
    """The parser of ``lighter-async``. Its result has `command`, and `run(options)` if there is a command."""
    parser = OptionParser(
        prog="lighter-async", description="Write predictions to disk in the background, while the loop goes on."
    )
    parser.add_argument("--version", action="version", version=f"lighter-async {lighter_async.__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    _add_demo(commands)
    _add_info(commands)
    _add_bench(commands)
    _add_verify(commands)
    _add_replay(commands)
    _add_manifest(commands)
    _add_watch(commands)
    _add_report(commands)
    _add_compact(commands)
    _add_unpack(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[OptionParser]) -> None:
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
        help="where the results go (default: ./demo-output); results of an earlier demo there are removed",
    )
    demo.add_argument(
        "--patches",
        type=_count,
        metavar="N",
        help=f"how many patches to take, evenly from all photographs (default: {_PATCHES:,}; there are some 2,600)",
    )
    demo.add_argument("--quick", action="store_true", help="300 patches, unless --patches says otherwise")
    demo.add_argument("--batch-size", type=_count, default=32, metavar="N", help="patches a batch (default: 32)")
    writers = demo.add_argument_group("each writer")
    demo.explain(writers.add_argument("--max-workers", type=_count, metavar="N"), "max_workers", "")
    demo.explain(
        writers.add_argument("--queue-size", type=_count, default=DEFAULT_QUEUE_SIZE, metavar="N"),
        "queue_size",
        f"(default: {DEFAULT_QUEUE_SIZE})",
    )
    demo.set_defaults(run=_run_demo)


def _run_demo(options: argparse.Namespace) -> int:
    # Imported here, so that --help is quick.
    from lighter_async.cli.demo import DemoOptions, run_demo

    return run_demo(
        DemoOptions(
            output=options.output,
            patches=options.patches or (300 if options.quick else _PATCHES),
            batch_size=options.batch_size,
            max_workers=options.max_workers,
            queue_size=options.queue_size,
        )
    )


def _add_info(commands: argparse._SubParsersAction[OptionParser]) -> None:
    info = commands.add_parser(
        "info",
        help="say what there is on this machine, and what backend='auto' would choose",
        description="Say which versions and packages there are, which cores this process sees, and what backend='auto' "
        "would choose here, and why. It starts a helper process to see whether there can be one.",
    )
    info.set_defaults(run=_run_info)


def _run_info(options: argparse.Namespace) -> int:
    from lighter_async.cli.info import run_info

    return run_info()


def _add_bench(commands: argparse._SubParsersAction[OptionParser]) -> None:
    bench = commands.add_parser(
        "bench",
        help="find out which backend, max_workers and queue_size to choose",
        description=_BENCH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    loop = bench.add_argument_group("the loop")
    loop.add_argument(
        "--kind",
        choices=("device", "launch"),
        default="device",
        help="what a step is: waiting for a device (the default), or launching many small calls from the CPU",
    )
    loop.add_argument(
        "--step-ms",
        type=_positive,
        default=20.0,
        metavar="MS",
        help="how long a step takes without writing (default: 20)",
    )
    loop.add_argument("--batch-size", type=_count, default=8, metavar="N", help="samples a step (default: 8)")
    loop.add_argument(
        "--shape",
        type=_counts,
        metavar="N,N,...",
        help="the shape of a sample (default: 3,224,224, or one that suits the format); for texts, the characters",
    )
    loop.add_argument(
        "--dtype", choices=_DTYPES, metavar="NAME", help="the dtype of a sample, such as uint8 (default: float32)"
    )
    loop.add_argument(
        "--format",
        default="tensor",
        metavar="NAME",
        help="the writer: tensor (the default), image_2d, image_3d, text, another registered one such as npy or jpeg, "
        "or a writer of yours as module:name",
    )
    loop.add_argument(
        "--directory",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where to write, in a new folder that is removed afterwards (default: the working folder)",
    )
    grid = bench.add_argument_group("the grid: values of the writer's options to compare, separated by commas")
    bench.explain(
        grid.add_argument("--backends", type=_backends, metavar="NAME,..."),
        "backend",
        "(thread, process or both; compared by default: both, where there are both)",
    )
    bench.explain(
        grid.add_argument("--max-workers", type=_counts, metavar="N,..."),
        "max_workers",
        "(compared by default: 1, 2 and 4, as far as cores go)",
    )
    bench.explain(
        grid.add_argument("--queue-sizes", type=_counts, metavar="N,..."),
        "queue_size",
        f"(compared by default: 256 and {DEFAULT_QUEUE_SIZE})",
    )
    runs = bench.add_argument_group("the runs")
    length = runs.add_mutually_exclusive_group()
    length.add_argument("--steps", type=_count, metavar="N", help="steps of a run")
    length.add_argument("--seconds", type=_positive, metavar="S", help="about how long a run takes (default: 3)")
    runs.add_argument(
        "--repeats", type=_count, default=3, metavar="N", help="how often every setting is run (default: 3)"
    )
    runs.add_argument("--quick", action="store_true", help="a small grid and short runs, in less than a minute")
    results = bench.add_argument_group("the results")
    results.add_argument("--json", type=Path, metavar="FILE", help="write machine, workload and every run there")
    results.add_argument("--plot", type=Path, metavar="FILE", help="draw throughput and slow-down there, as a PNG")
    bench.set_defaults(run=lambda options: _run_bench(options, bench))


def _run_bench(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from lighter_async.cli.bench import BadOption, BenchOptions, run_bench

    try:
        return run_bench(
            BenchOptions(
                kind=options.kind,
                step_seconds=options.step_ms / 1000,
                format=options.format,
                shape=options.shape,
                dtype=options.dtype,
                batch_size=options.batch_size,
                directory=options.directory,
                steps=options.steps,
                seconds=options.seconds,
                backends=options.backends,
                max_workers=options.max_workers,
                queue_sizes=options.queue_sizes,
                repeats=options.repeats,
                quick=options.quick,
                json=options.json,
                plot=options.plot,
            )
        )
    except BadOption as error:
        parser.error(str(error))


def _add_verify(commands: argparse._SubParsersAction[OptionParser]) -> None:
    verify = commands.add_parser(
        "verify",
        help="check that everything that was stored is there, whole and unchanged",
        description="Compare every file and every row with the manifest: missing, of the wrong size or checksum, "
        "unreadable, or not known. The exit status is 0 if all is sound, 1 if something is damaged or a table is to be "
        "written of its rows, 2 if there is no manifest; of several directories the largest of these.",
    )
    verify.add_argument(
        "directories",
        nargs="+",
        type=_directory,
        metavar="DIR",
        help="where the results are, or an array or a table; or a folder above several directories of results",
    )
    verify.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object, with every finding; of several directories a list of them",
    )
    verify.add_argument(
        "--repair",
        action="store_true",
        help="drop what is damaged from directory and manifest, so that a run with resume=True computes it again, and "
        "write tables anew that are not as their rows",
    )
    verify.add_argument("--workers", type=_count, metavar="N", help="files read at once (default: two per core)")
    verify.set_defaults(run=_run_verify)


def _run_verify(options: argparse.Namespace) -> int:
    from lighter_async.cli.verify import run_verify

    return run_verify(options.directories, as_json=options.json, repair=options.repair, workers=options.workers)


def _add_replay(commands: argparse._SubParsersAction[OptionParser]) -> None:
    replay = commands.add_parser(
        "replay",
        help="write the values that could not be written",
        description="With on_error='continue', values that could not be written are kept beside their errors. This "
        "writes them, and removes those that are stored. Tensors, arrays, texts, numbers and containers of them are "
        "loaded without running code; other objects are unpickled, which --trust allows.",
    )
    replay.add_argument("directory", type=_directory, metavar="DIR", help="where the results are")
    replay.add_argument(
        "--writer", metavar="NAME", help="a registered name, or module:name (default: the writer that failed)"
    )
    replay.add_argument(
        "--trust",
        action="store_true",
        help="unpickle values, which may run code, and give writers of yours options that errors tell: only where "
        "all who write there are trusted",
    )
    replay.add_argument("--list", action="store_true", help="only say what there is, and why")
    replay.set_defaults(run=_run_replay)


def _run_replay(options: argparse.Namespace) -> int:
    from lighter_async.cli.replay import run_replay

    return run_replay(options.directory, writer=options.writer, list_only=options.list, trust=options.trust)


def _add_manifest(commands: argparse._SubParsersAction[OptionParser]) -> None:
    manifest = commands.add_parser(
        "manifest",
        help="print what was stored, over all ranks, in the data set's order",
        description="Merge the ranks' manifests, in the data set's order.",
    )
    manifest.add_argument(
        "directory", type=_directory, metavar="DIR", help="where the results are, or an array or a table"
    )
    manifest.add_argument(
        "--output", type=Path, metavar="FILE", help="a .csv, .parquet or .jsonl file (default: JSON lines on stdout)"
    )
    manifest.set_defaults(run=_run_manifest)


def _run_manifest(options: argparse.Namespace) -> int:
    from lighter_async.cli.manifest import run_manifest

    return run_manifest(options.directory, options.output)


def _add_watch(commands: argparse._SubParsersAction[OptionParser]) -> None:
    watch = commands.add_parser(
        "watch",
        help="show how a run goes on: samples stored, how fast, by which ranks, and what failed",
        description="Show what a run stores while it goes on, until it ends or Ctrl-C. It only reads what the run "
        "records. Where there is no terminal to draw on, a line is printed every few seconds. The exit status is 0, "
        "or 2 if the records cannot be read.",
    )
    watch.add_argument("directory", type=_directory, metavar="DIR", help="where the results are")
    watch.add_argument(
        "--seconds",
        type=_positive,
        metavar="S",
        help="how long to wait between two looks (default: 0.5 on a terminal, else 5)",
    )
    watch.set_defaults(run=_run_watch)


def _run_watch(options: argparse.Namespace) -> int:
    from lighter_async.cli.watch import run_watch

    return run_watch(options.directory, seconds=options.seconds)


def _add_report(commands: argparse._SubParsersAction[OptionParser]) -> None:
    report = commands.add_parser(
        "report",
        help="make a page for a browser: throughput, runs, sizes, failures, images",
        description="Write one file of HTML that needs no network: throughput over time, runs and ranks, sizes, "
        "failures with their causes, and the samples with their images, to be searched by name. It shows images from "
        "where they lie, so keep it where it is, or move both together. The exit status is 2 if nothing is recorded.",
    )
    report.add_argument("directory", type=_directory, metavar="DIR", help="where the results are")
    report.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the page (default: DIR-report.html, beside the directory)"
    )
    report.set_defaults(run=_run_report)


def _run_report(options: argparse.Namespace) -> int:
    from lighter_async.cli.report import run_report

    return run_report(options.directory, options.output)


def _add_compact(commands: argparse._SubParsersAction[OptionParser]) -> None:
    compact = commands.add_parser(
        "compact",
        help="rewrite tar shards without what nobody needs any more",
        description="Rewrite tar shards that hold samples which were dropped, were stored again later, or are of runs "
        "that count no longer, since a later one began without resume=True. It may be ended at any moment, and be run "
        "again. The exit status is 0 if all was done, 1 if a shard was left since a sample in it is damaged, 2 if "
        "nothing was tried, as while a writer is at work.",
    )
    compact.add_argument("directory", type=_directory, metavar="DIR", help="where the shards are")
    compact.add_argument("--dry-run", action="store_true", help="change nothing, and say what would be done")
    compact.set_defaults(run=_run_compact)


def _run_compact(options: argparse.Namespace) -> int:
    from lighter_async.cli.compact import run_compact

    return run_compact(options.directory, dry_run=options.dry_run)


def _add_unpack(commands: argparse._SubParsersAction[OptionParser]) -> None:
    unpack = commands.add_parser(
        "unpack",
        help="make files of the samples of tar shards",
        description="Store the samples of tar shards as a file each, with records, as if they had been written so. Run "
        "again, it goes on with what is missing. The exit status is 0 if all are there, 1 if some are damaged or "
        "cannot be stored, 2 if nothing was tried, as where there are no shards.",
    )
    unpack.add_argument("directory", type=_directory, metavar="DIR", help="where the shards are")
    unpack.add_argument("out", type=_directory, metavar="OUT", help="where the files go; it must not lie in DIR")
    unpack.add_argument("--writer", metavar="NAME", help="only what this writer has stored (default: all)")
    unpack.add_argument("--key", metavar="KEY", help="only what was stored with this key (default: all)")
    unpack.set_defaults(run=_run_unpack)


def _run_unpack(options: argparse.Namespace) -> int:
    from lighter_async.cli.unpack import run_unpack

    return run_unpack(options.directory, options.out, writer=options.writer, key=options.key)


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.split(","))


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _backends(text: str) -> tuple[str, ...]:
    names = dict.fromkeys(text.split(","))
    for name in names:
        if name not in ("thread", "process"):
            raise argparse.ArgumentTypeError(
                f"{name!r} is neither 'thread' nor 'process'; give one, or both as thread,process"
            )
    return tuple(names)
