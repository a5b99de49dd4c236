"""Reading small tensors back by name, beside a loop of `torch.load`.

Both read the same files in the same order, in turns. The first round of each warms the page cache and does not count.

    python benchmarks/reading.py [--samples 5000] [--rounds 7] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lighter_async import BackgroundWriter, Origin, open_results


def microseconds(read: Callable[[str], torch.Tensor], names: list[str]) -> float:
    """What a sample takes, on average."""
    began = time.perf_counter()
    for name in names:
        read(name)
    return (time.perf_counter() - began) / len(names) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = [f"case.{number}" for number in range(options.samples)]
        with BackgroundWriter("tensor", folder) as writer:
            for start in range(0, len(names), 500):
                part = names[start : start + 500]
                writer.submit_batch(part, torch.rand(len(part), 384), origin=Origin(range(start, start + len(part))))
        began = time.perf_counter()
        results = open_results(folder)
        opening = time.perf_counter() - began
        unchecked = open_results(folder, check=False)
        ways: dict[str, Callable[[str], torch.Tensor]] = {
            "torch.load": lambda name: torch.load(Path(folder, f"{name}.pt"), weights_only=True),
            "results[name]": results.__getitem__,
            "results[name], check=False": unchecked.__getitem__,
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds + 1):
            for way, read in ways.items():
                taken[way].append(microseconds(read, names))
    figures = {"open_results_milliseconds": opening * 1e3}
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"{options.samples} tensors of 384 float32; us a tensor, median (least to most) of {options.rounds}")
    for way, rounds in taken.items():
        counted = rounds[1:]
        figures[way] = statistics.median(counted)
        print(f"  {way:30} {figures[way]:8.1f} ({min(counted):.1f} to {max(counted):.1f})")
    print(f"  opening, once: {opening * 1e3:.0f} ms")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
