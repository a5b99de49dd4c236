"""Who is at work in a directory: a lock file for each, which the kernel releases when its processes have ended."""

from lighter_async.locks.alone import alone_in, unlink_from_copies
from lighter_async.locks.flock import warn_of
from lighter_async.locks.orphans import wait_for_orphaned_helpers
from lighter_async.locks.owner import Owner, boot_id, this_process
from lighter_async.locks.run_lock import LOCK_ENDING, RunLock, held_by, is_held, owner_of

__all__ = [
    "LOCK_ENDING",
    "Owner",
    "RunLock",
    "alone_in",
    "boot_id",
    "held_by",
    "is_held",
    "owner_of",
    "this_process",
    "unlink_from_copies",
    "wait_for_orphaned_helpers",
    "warn_of",
]
