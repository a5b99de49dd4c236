"""Staging: the one copy of a batch, from wherever it is into reused host memory.

`plan` finds the tensors and arrays of a batch and how many bytes they take; `StagingPool.stage` copies them, as a
batch, into a slot; a worker reads sample after sample from there; `StagingPool.release` gives the slot back. What
reads needs nothing of what copies, which is imported when it is first used.
"""

from typing import TYPE_CHECKING

from lighter_async.lazily import on_first_use
from lighter_async.staging.kinds import is_tensor
from lighter_async.staging.shared_memory import SharedMemory, SharedView
from lighter_async.staging.staged import Staged

if TYPE_CHECKING:
    from lighter_async.staging.accelerator import Accelerator, Ready, TorchAccelerator
    from lighter_async.staging.copying import StagingPool
    from lighter_async.staging.layout import plan_batch, plan_sample
    from lighter_async.staging.plan import Plan
    from lighter_async.staging.streams import streams_of

__all__ = [
    "Accelerator",
    "Plan",
    "Ready",
    "SharedMemory",
    "SharedView",
    "Staged",
    "StagingPool",
    "TorchAccelerator",
    "is_tensor",
    "plan_batch",
    "plan_sample",
    "streams_of",
]

_MODULE_OF = {
    "Accelerator": "accelerator",
    "Plan": "plan",
    "Ready": "accelerator",
    "StagingPool": "copying",
    "TorchAccelerator": "accelerator",
    "plan_batch": "layout",
    "plan_sample": "layout",
    "streams_of": "streams",
}

__getattr__ = on_first_use(__name__, _MODULE_OF)
