"""``lighter-async bench``: find the `backend`, `max_workers` and `queue_size` that suit a job on this machine."""

from __future__ import annotations

from lighter_async.cli.bench.options import BadOption, BenchOptions
from lighter_async.cli.extras import needs
from lighter_async.cli.words import say
from lighter_async.errors import LighterAsyncError

__all__ = ["BadOption", "BenchOptions", "run_bench"]


def run_bench(options: BenchOptions) -> int:
    """Run the bench, if the packages that it needs are installed.

    Returns:
        The exit code: 0 for success, 1 if a sample was not written, 2 if the bench cannot run here.

    Raises:
        BadOption: An option cannot be used here.
        KeyboardInterrupt: Ctrl-C.
    """
    packages = [{"rich": "rich"}, *([] if options.plot is None else [{"matplotlib": "matplotlib"}])]
    missing = needs("bench", packages)
    if missing:
        return _failed(f"the bench {missing}", 2)
    from lighter_async.cli.bench.job import run_job

    try:
        run_job(options)
    except OSError as error:
        return _failed(f"the bench cannot write: {error}", 2)
    except LighterAsyncError as error:
        return _failed(str(error), 1)
    return 0


def _failed(reason: str, code: int) -> int:
    say(reason)
    return code
