"""``lighter-async demo``: a real prediction job, written in the background, checked, compared, killed and resumed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lighter_async.cli.extras import needs
from lighter_async.cli.words import say
from lighter_async.errors import LighterAsyncError

__all__ = ["DemoOptions", "run_demo"]

# What the extra [demo] installs, as import names with the packages' names. One package of each group is enough.
_NEEDED = [
    {"rich": "rich"},
    {"skimage": "scikit-image"},
    {"pytorch_lightning": "pytorch-lightning", "lightning": "lightning"},
]


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The options of the command line.

    Attributes:
        output: Where the results go.
        patches: The most patches to take. None takes all.
        batch_size: Patches in a batch.
        max_workers: Workers of each writer. None leaves the number to the writer.
        queue_size: The queue's length of each writer.
    """

    output: Path
    patches: int | None
    batch_size: int
    max_workers: int | None
    queue_size: int


def run_demo(options: DemoOptions) -> int:
    """Run the demo, if the packages that it needs are installed.

    Returns:
        The exit code: 0 if every file equals the synchronous run's and the job that was killed is whole, 1 if a file
        differs, is damaged or was not written, 2 if the demo cannot run here.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    missing = needs("demo", _NEEDED)
    if missing:
        return _cannot(missing)
    from lighter_async.cli.demo.job import run_job

    try:
        return run_job(options)
    except OSError as error:
        return _cannot(f"cannot write to {str(options.output)!r}: {error}")
    except LighterAsyncError as error:
        say(str(error))
        return 1


def _cannot(reason: str) -> int:
    say(f"the demo {reason}")
    return 2
