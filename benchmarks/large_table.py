"""What making a table of many rows takes at the end: seconds, and memory beyond what the process held before.

A process of its own stores rows of an index, a name, a score and a label in batches of a thousand, and then has the
table written, for each format. Names are a column of texts, or those of the samples, which the records hold, too. The
second figure of memory is what stays of it without the pages of files that the kernel can drop at any time.

    python benchmarks/large_table.py [--rows 10000000] [--suffixes .csv .jsonl .parquet] [--names column samples]
        [--folder DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import environment

_STORE = """
import json, os, sys, threading, time
from pathlib import Path
import torch
from lighter_async import BackgroundWriter, Origin, TableTarget

path, rows, named = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "samples"
torch.set_num_threads(1)
batch = 1000

def status(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))

most, done = 0, threading.Event()

def look():
    global most
    while not done.wait(0.02):
        most = max(most, status("RssAnon"))

if path.suffix == ".parquet":
    import pyarrow.parquet
began = time.perf_counter()
with BackgroundWriter(target=TableTarget(path), backend="thread", max_workers=1) as writer:
    for start in range(0, rows, batch):
        indices = range(start, start + batch)
        names = [f"case.{index:08}" for index in indices]
        columns = {"score": torch.rand(batch), "label": torch.arange(batch) % 10}
        if not named:
            columns = {"id": names, **columns}
        writer.submit_batch(names if named else None, columns, origin=Origin(indices))
    writer.flush()
    loop = time.perf_counter() - began
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS"), status("RssAnon")
    thread = threading.Thread(target=look)
    thread.start()
    began, began_cpu = time.perf_counter(), time.process_time()
    writer.flush(seal=True)
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    done.set()
    thread.join()
    found = {
        "loop_seconds": loop,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "before_mb": before[0] / 1e6,
        "peak_mb": (status("VmHWM") - before[0]) / 1e6,
        "peak_own_mb": (most - before[1]) / 1e6,
    }
print(json.dumps(found))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--suffixes", nargs="*", default=[".csv", ".jsonl", ".parquet"])
    parser.add_argument("--names", nargs="*", default=["column", "samples"], choices=["column", "samples"])
    parser.add_argument("--folder", type=Path, help="where to store; by default a temporary folder")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    for names in options.names:
        for suffix in options.suffixes:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                path = Path(folder, f"t{suffix}")
                command = [sys.executable, "-c", _STORE, str(path), str(options.rows), names]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                found["table_mb"] = os.path.getsize(path) / 1e6
                found["spool_mb"] = sum(one.stat().st_size for one in Path(folder).rglob("*.rows")) / 1e6
            figures[f"{suffix}, names: {names}"] = found
            print(f"{options.rows:,} rows, {suffix}, names: {names}", flush=True)
            for what, figure in found.items():
                print(f"  {what:14} {figure:10,.2f}", flush=True)
            print(f"  bytes a row    {1e6 * found['peak_mb'] / options.rows:10,.1f}", flush=True)
    if options.json:
        _, machine = environment()
        options.json.write_text(json.dumps({"rows": options.rows, "machine": machine, "figures": figures}))


if __name__ == "__main__":
    main()
