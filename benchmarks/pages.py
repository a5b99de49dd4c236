"""How long the page of `lighter-async report` takes to be made, and to open in Chromium.

Small images are stored, each in a file, and the page is opened again and again in a browser without a window: its
overview, and its images. The time is the page's own, from the start of opening it until it is drawn.

    python benchmarks/pages.py [--samples 100000] [--rounds 7] [--folder DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from lighter_async import BackgroundWriter, Origin
from lighter_async.report import facts_of, page_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser import CHROMIUM, Browser

PER_BATCH = 256


def store(folder: Path, samples: int) -> None:
    generator = torch.Generator().manual_seed(0)
    with BackgroundWriter("image_2d", folder) as writer:
        for start in range(0, samples, PER_BATCH):
            numbers = range(start, min(start + PER_BATCH, samples))
            names = [f"patient-{number // 500:05}/slice-{number:07}" for number in numbers]
            images = torch.randint(0, 255, (len(numbers), 3, 12, 12), dtype=torch.uint8, generator=generator)
            writer.submit_batch(names, images, origin=Origin(numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="where to store (default: where temporary files go)")
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    if CHROMIUM is None:
        parser.error("there is no chromium, chromium-browser or google-chrome on the path")
    print(
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]}"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results, page = Path(folder, "results"), Path(folder, "page.html")
        store(results, options.samples)
        making, opening = [], {"": [], "#samples": []}
        for _ in range(options.rounds):
            began = time.perf_counter()
            page.write_text(page_of(facts_of(results), page))
            making.append(time.perf_counter() - began)
        with Browser(Path(folder, "profile")) as browser:
            for _ in range(options.rounds):
                for view, seconds in opening.items():
                    browser.open("about:blank")
                    browser.open(page.as_uri() + view)
                    seconds.append(int(browser.evaluate("document.documentElement.dataset.opened")) / 1e3)
            version = browser.call("Browser.getVersion")["product"]
        figures = {"samples": options.samples, "megabytes": page.stat().st_size / 1e6, "browser": version}
        for name, seconds in (("make", making), ("overview", opening[""]), ("images", opening["#samples"])):
            figures[name] = {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
    for name, figure in figures.items():
        print(f"  {name:12} {figure}")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
