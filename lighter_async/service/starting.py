"""Workers are started: their job is made, the target opened, and the record of the run begun."""

from __future__ import annotations

import os
from collections.abc import Callable

from lighter_async.interrupts import let_through
from lighter_async.manifest import ManifestLog
from lighter_async.replacing import WAY_OUT, warn_of_existing
from lighter_async.resume_checks import check_config, check_suffix, warn_of_options
from lighter_async.service.setup import Setup
from lighter_async.staging import StagingPool
from lighter_async.store import OneObject
from lighter_async.target_and_record import Session, stored_as
from lighter_async.targets import DirectoryTarget
from lighter_async.types import Backend, Batch, Result
from lighter_async.workers import Choice, Job, Quarantine, make_backend
from lighter_async.workers.process.interpreter import check_is_no_helper
from lighter_async.writers import recorded_options

__all__ = ["close_job", "make_job", "make_workers", "open_job"]


def make_job(setup: Setup) -> Job:
    """What the workers of a writer do; it is opened by `open_job`, and closed by `close_job`."""
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


def open_job(setup: Setup, job: Job, *, warns: bool = True) -> None:
    """Open the target, and begin the record of the run. Before the helpers get their copies of it.

    Args:
        setup: What the writer is to do.
        job: What its workers do.
        warns: Whether to warn of results that are replaced.

    Raises:
        BackendUnavailableError: This process is no program of the user's, but was started as a helper.
        ResumeError: What is stored was made with something else.
        OSError: The target cannot be opened.
    """
    if setup.choice.is_open:
        check_is_no_helper()  # also where threads were chosen, since other programs are busy
    if warns and setup.directory is not None:
        _warn_of_existing(setup, setup.directory)
    # A target of the user's own may wait for whatever it likes.
    if setup.directory is not None:
        setup.target.open()
    else:
        let_through(setup.target.open)
    if job.session.log is not None:
        assert setup.directory is not None
        try:
            _begin_record(setup, setup.directory, job.session.log)
        except BaseException:
            job.session.close()
            raise


def _warn_of_existing(setup: Setup, target: DirectoryTarget) -> None:
    """Of several ranks the first one does, and nobody where the user has said what is meant."""
    replaces = setup.options.if_exists is None and target.if_exists == "overwrite" and not setup.options.resume
    if replaces and setup.is_first_rank:
        object = target.object if isinstance(target, OneObject) else None
        way_out = WAY_OUT
        if setup.is_target_given:
            way_out = "resume=True goes on with them, and the target's if_exists='skip' keeps them"
        outputs = stored_as(setup.writer, target.run.key)
        warn_of_existing(target.directory, object, target.run, outputs, way_out=way_out)


def make_workers(
    setup: Setup, choice: Choice, pool: StagingPool, job: Job, done: Callable[[Batch, Result], None]
) -> Backend:
    """The workers of a writer, which are not started yet.

    Args:
        setup: What the writer is to do.
        choice: What they are to be.
        pool: Where the samples are copied to.
        job: What they do.
        done: Told what became of samples.

    Raises:
        BackendUnavailableError: Helper processes cannot be had here.
        TypeError: Helper processes cannot be sent what they need.
    """
    if choice.backend == "thread" and pool.shared is not None:
        pool.unshare()
    return make_backend(
        job,
        done,
        setup.max_workers,
        memory=pool.shared,
        queue_size=setup.queue_size,
        without_helpers=pool.unshare if setup.may_fall_back else None,
    )


def close_job(setup: Setup, job: Job) -> None:
    """Close the record and the target. Signals come through to one of the user's own, as at its start."""
    if setup.directory is not None:
        job.session.close()
    else:
        let_through(job.session.close)


def _begin_record(setup: Setup, target: DirectoryTarget, log: ManifestLog) -> None:
    for one in log.outputs:
        series = one.writer, one.key
        check_suffix(target.directory, series, one.suffix)
        if setup.options.resume and not setup.options.mix_configs:
            check_config(target.directory, series, setup.options.run_config)
            if target.run.rank == 0:
                warn_of_options(target.directory, one)
    log.begin(target.since or 0)
