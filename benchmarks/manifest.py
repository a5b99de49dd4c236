"""What it takes to read records: ten million samples, by name and by number.

Each way to read (`read_manifest`, `done`, `pending`, `open_results`, `verify`) is a process of its own, with the most
memory that it held. `open_results` is followed by the first look by name, which makes a table, another one, and one by
index. `verify` is measured only if it is asked for, since it needs the files, of 100 bytes each, in one folder.

    python benchmarks/manifest.py [--samples N] [--unit N] [--ways WAY ...] [--kinds KIND ...] [--folder DIR]
        [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import environment

_WRITE = """
import os, sys
from lighter_async.manifest import ManifestLog, OutputName, Stored, checksum
from lighter_async.names import Numbers
from lighter_async.types import Origin, Run

folder, kind, count, unit, with_files = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
log = ManifestLog(folder, Run(numbered=kind == "numbers"), [OutputName("tensor", "", ".pt")])
log.begin(0)

def write(row):
    name, data = f"{row}.pt" if kind == "numbers" else f"subject-{row:08d}.pt", b"%0100d" % row
    file = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT)
    os.write(file, data)
    os.close(file)
    return len(data), checksum([memoryview(data)])

def say(row):
    return 1536, f"{row * 0x9E3779B97F4A7C15 % (1 << 64):016x}"

for first in range(0, count, unit):
    rows = range(first, min(first + unit, count))
    names = Numbers(rows) if kind == "numbers" else [f"subject-{row:08d}" for row in rows]
    parts = map(write if with_files else say, rows)
    stored = [Stored(place, "", *part) for place, part in enumerate(parts)]
    log.append(stored, names, [("float32", (384,))] * len(rows), Origin(rows, batch=first // unit))
log.close()
"""

_WAYS = ("read_manifest", "done", "pending", "open_results")
_KINDS = ("numbers", "names")

_READ = """
import json, sys, time
from lighter_async import read_manifest

folder, kind, count, what = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
if what == "pending":
    from lighter_async import pending
if what == "open_results":
    from lighter_async import ReadError, open_results
if what == "verify":
    from lighter_async.manifest.verify import verify
began, began_cpu = time.perf_counter(), time.process_time()
if what == "read_manifest":
    found = len(read_manifest(folder))
elif what == "open_results":
    results = open_results(folder)
    found = len(results)
elif what == "verify":
    report = verify(folder)
    assert not report.findings, report.counts()
    found = report.checked
elif what == "done":
    found = len(read_manifest(folder).done())
else:
    names = None if kind == "numbers" else (lambda index: f"subject-{index:08d}")
    found = count - len(pending(range(count), folder, names=names))
seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
assert found == count, found
looks = {}
if what == "open_results":
    def look(what, find, *arguments):
        began = time.perf_counter()
        try:
            find(*arguments)
        except ReadError:
            pass  # its file is not there, which shows after it was looked up
        looks[what] = round(time.perf_counter() - began, 5)
    form = "{}" if kind == "numbers" else "subject-{:08d}"
    look("by name", results.record, form.format(count // 3))
    look("then", results.record, form.format(count // 2))
    look("by index", results.at, count // 3)
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"s": round(seconds, 2), "cpu_s": round(cpu, 2), "MB": round(peak / 1e3), "looks": looks}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--unit", type=int, default=100, help="samples that are recorded together")
    parser.add_argument(
        "--ways", nargs="+", choices=(*_WAYS, "verify"), default=_WAYS, help="which ways to read are measured"
    )
    parser.add_argument("--kinds", nargs="+", choices=_KINDS, default=_KINDS, help="how samples are named")
    parser.add_argument(
        "--folder", type=Path, help="where the results lie meanwhile, such as /dev/shm; default: TMPDIR"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, object] = {"environment": environment()[0], "samples": options.samples, "unit": options.unit}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for kind in options.kinds:
            place = f"{folder}/{kind}"
            about = [place, kind, str(options.samples)]
            with_files = "verify" in options.ways
            subprocess.run([sys.executable, "-c", _WRITE, *about, str(options.unit), str(int(with_files))], check=True)
            size = Path(place, ".lighter-async", "manifest-0.jsonl").stat().st_size
            print(f"{options.samples:,} {kind}, {options.unit} a line: {size / 1e6:.0f} MB")
            for what in options.ways:
                done = subprocess.run(
                    [sys.executable, "-W", "ignore", "-c", _READ, *about, what],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                found[f"{kind}, {what}"] = one = json.loads(done.stdout)
                looks = "".join(f"; {look} {seconds} s" for look, seconds in one["looks"].items())
                print(
                    f"  {what:14} {one['s']:7.2f} s {one['cpu_s']:7.2f} s of the processors {one['MB']:6} MB{looks}",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
