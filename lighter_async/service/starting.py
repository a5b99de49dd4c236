"""Workers are started: their job is made, the target opened, and the record of the run begun."""

from __future__ import annotations

import os
from collections.abc import Callable

from lighter_async.interrupts import let_through
from lighter_async.manifest import ManifestLog
from lighter_async.same import check_config, check_suffix, warn_of_options
from lighter_async.service.setup import Setup
from lighter_async.session import Session, stored_as
from lighter_async.staging import StagingPool
from lighter_async.targets import DirectoryTarget
from lighter_async.types import Backend, Batch, Result
from lighter_async.workers import Job, Quarantine, make_backend
from lighter_async.writers import recorded_options

__all__ = ["close_job", "start_workers"]


def start_workers(setup: Setup, pool: StagingPool, done: Callable[[Batch, Result], None]) -> tuple[Job, Backend]:
    """Start the workers of a writer.

    Args:
        setup: What the writer is to do.
        pool: Where the samples are copied to.
        done: Told what became of samples.

    Returns:
        What they do, which is to be closed by `close_job`, and the workers.

    Raises:
        ResumeError: What is stored was made with something else.
        BackendUnavailableError: Helper processes cannot be had here.
        OSError: The target cannot be opened, or the system cannot start workers.
    """
    job = _make_job(setup)
    backend = make_backend(
        job,
        done,
        setup.max_workers,
        memory=pool.shared,
        queue_size=setup.queue_size,
        without_helpers=pool.unshare if setup.may_fall_back else None,
    )
    # Before the helpers get their copies of it. A target of the user's own may wait for whatever it likes.
    if setup.directory is not None:
        setup.target.open()
    else:
        let_through(setup.target.open)
    try:
        if job.session.log is not None:
            assert setup.directory is not None
            _begin_record(setup, setup.directory, job.session.log)
        backend.start()
    except BaseException:
        job.session.close()
        raise
    return job, backend


def close_job(setup: Setup, job: Job) -> None:
    """Close the record and the target. Signals come through to one of the user's own, as at its start."""
    if setup.directory is not None:
        job.session.close()
    else:
        let_through(job.session.close)


def _make_job(setup: Setup) -> Job:
    target, options = setup.directory, setup.options
    if target is None:
        return Job(setup.writer, Session(setup.target), setup.patience)
    directory = os.path.abspath(target.directory)  # now, as the target takes it
    log = ManifestLog(
        directory,
        target.run,
        stored_as(setup.writer, target.run.key),
        # A run that keeps what earlier ones have stored adds to that.
        resume=options.resume or target.if_exists == "skip",
        durability=target.durability,
        config=options.run_config,
        store=target.store(),
    )
    quarantine = None
    if options.on_error == "continue":
        quarantine = Quarantine(directory, target.run, target.durability, recorded_options(setup.writer))
    return Job(setup.writer, Session(target, log if options.manifest else None), setup.patience, quarantine)


def _begin_record(setup: Setup, target: DirectoryTarget, log: ManifestLog) -> None:
    for one in log.outputs:
        series = one.writer, one.key
        check_suffix(target.directory, series, one.suffix)
        if setup.options.resume and not setup.options.mix_configs:
            check_config(target.directory, series, setup.options.run_config)
            if target.run.rank == 0:
                warn_of_options(target.directory, one)
    log.begin(target.since or 0)
