"""Save all figures in a JSON file, for other programs."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lighter_async
from lighter_async.cli.bench.choice import RULE, Choice
from lighter_async.cli.bench.figures import Baseline, Figures, Inline
from lighter_async.cli.bench.loops import Step
from lighter_async.cli.bench.plan import Plan
from lighter_async.cli.bench.runs import Run
from lighter_async.cli.bench.workload import Workload
from lighter_async.limits import memory_bytes, usable_cores

__all__ = ["machine", "machine_line", "save_record"]


def machine() -> dict[str, Any]:
    """The machine on which the figures were measured."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_bytes": memory_bytes(),
    }


def machine_line() -> str:
    """The machine and the versions, in a line."""
    found = machine()
    return (
        f"lighter_async {lighter_async.__version__}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{found['platform']}, {found['processor']}, {found['cores']} cores, {found['memory_bytes'] / 1e9:.0f} GB"
    )


def save_record(
    file: Path,
    *,
    workload: Workload,
    step: Step,
    plan: Plan,
    runs: Sequence[Run],
    baseline: Baseline,
    figures: Sequence[Figures],
    inline: Inline | None,
    choice: Choice,
) -> None:
    """Write the machine, versions, workload, every run in order, the figures, and the recommendation.

    Names end in their unit, seconds or bytes. `setting` is null for a run that wrote nothing, or inline.

    Raises:
        OSError: It cannot be written.
    """
    record = {
        "lighter_async": lighter_async.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__},
        "workload": {**asdict(workload), "calls_per_step": step.calls, "steps": plan.steps},
        "baseline": asdict(baseline),
        "settings": [asdict(one) for one in figures],
        "inline": None if inline is None else asdict(inline),
        "runs": [asdict(run) for run in runs],
        "recommendation": {**asdict(choice), "rule": RULE},
    }
    file.write_text(json.dumps(record, indent=1) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
