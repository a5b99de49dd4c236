"""The copy itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lighter_async.staging.accelerator import Accelerator, TorchAccelerator
from lighter_async.staging.kinds import is_tensor
from lighter_async.staging.layout import plan_batch, plan_sample
from lighter_async.staging.memory import Memory, PrivateMemory, Slot, SlotPool, size_class
from lighter_async.staging.outputs import plan_batch_of_outputs, plan_sample_of_outputs
from lighter_async.staging.places import Leaf
from lighter_async.staging.plan import Plan
from lighter_async.staging.shared import SharedMemory
from lighter_async.staging.staged import Staged

__all__ = ["StagingPool"]


class StagingPool:
    """One budget of reusable host memory, and the copy of a batch into it.

    Args:
        budget: Bytes of host memory to keep for reuse.
        accelerator: How device tensors are copied; None for PyTorch's own devices.
        shared: Whether other processes are to read the slots.
        reduce: What to compute of a device tensor before it is copied from there, for each output; of a sample that has
            one output alone, for None.
        outputs: The keys of the outputs that a sample has, if it has several.

    Attributes:
        shared: The memory that they map; None if they are not to.
    """

    def __init__(
        self,
        budget: int,
        *,
        accelerator: Accelerator | None = None,
        shared: bool = False,
        reduce: Mapping[str | None, Callable[[Any], Any]] | None = None,
        outputs: Sequence[str] = (),
    ) -> None:
        self._reduce = dict(reduce or {})
        self._outputs = tuple(outputs)
        self._accelerator: Accelerator = accelerator or TorchAccelerator()
        self.shared = SharedMemory(budget, pin=self._accelerator.pin) if shared else None
        memory: Memory = self.shared or PrivateMemory(self._accelerator.allocate)
        self._slots = SlotPool(budget, memory)

    def unshare(self) -> None:
        """Take slots from memory of this process alone from now on. Nothing may be staged yet."""
        self.shared = None
        self._slots = SlotPool(self._slots.budget, PrivateMemory(self._accelerator.allocate))

    def plan_batch(self, values: Any) -> Plan:
        """What staging a batch will take, as `layout.plan_batch` has it."""
        shared = self.shared is not None
        if self._outputs:
            if isinstance(values, Mapping):
                values = {key: self._reduced_all(one, key) for key, one in values.items()}
            elif self._reduce and isinstance(values, Sequence):
                values = [self._reduced_outputs(value) for value in values]
            return plan_batch_of_outputs(values, self._outputs, shared=shared)
        return plan_batch(self._reduced_all(values, None), shared=shared)

    def plan_sample(self, value: Any) -> Plan:
        """The same for one sample."""
        shared = self.shared is not None
        if self._outputs:
            return plan_sample_of_outputs(self._reduced_outputs(value), self._outputs, shared=shared)
        return plan_sample(self._reduced(value, None), shared=shared)

    def _reduced_outputs(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: self._reduced(one, key) for key, one in value.items()}

    def _reduced_all(self, values: Any, key: str | None) -> Any:
        if key in self._reduce and type(values) in (list, tuple):
            return [self._reduced(value, key) for value in values]
        return self._reduced(values, key)

    def _reduced(self, value: Any, key: str | None) -> Any:
        reduce = self._reduce.get(key)
        if reduce is None or not is_tensor(value) or not self._accelerator.owns(value):
            return value
        return reduce(value)

    @property
    def total_bytes(self) -> int:
        """Bytes of host memory held, used or free."""
        return self._slots.total

    def bytes_of(self, plan: Plan) -> int:
        """What a batch counts against the budget until its last sample is stored."""
        return size_class(plan.nbytes, self._slots.budget) + plan.other_bytes

    def stage(self, plan: Plan) -> Staged:
        """Copy a batch. When this returns the caller may overwrite what it handed over."""
        loose = [_clone(value) for value in plan.loose]
        plain = not (loose or plan.kept or plan.has_classes)
        if plan.nbytes == 0:
            return Staged(None, None, plan.rows, plan.values, loose, plan.kept, plain)
        on_device = any(leaf.is_tensor and self._accelerator.owns(source) for leaf, source in plan.sources)
        slot = self._slots.acquire(size_class(plan.nbytes, self._slots.budget), pinned=on_device)
        try:
            ready = self._copy(plan, slot)
        except BaseException:
            # A device that failed between two copies may still write what it has begun.
            if on_device:
                self._slots.forget(slot)
            else:
                self._slots.release(slot)
            raise
        return Staged(slot, ready, plan.rows, plan.values, loose, plan.kept, plain)

    def release(self, staged: Staged) -> None:
        """Take the slot of a batch back once all its samples are stored or dropped."""
        if staged.slot is None:
            return
        if staged.ready is not None:
            # A dropped batch's copy may still be under way; the next batch's bytes must not meet it.
            try:
                staged.ready.synchronize()
            except Exception:
                # The device failed, its samples have failed with it, and whether it still writes is unknown.
                self._slots.forget(staged.slot)
                return
        self._slots.release(staged.slot)

    def forget(self, staged: Staged) -> None:
        """Take the slot of a batch back, never to hand it out again: a thread that hangs may still read it."""
        if staged.slot is not None:
            self._slots.forget(staged.slot)

    def close(self) -> None:
        """Let go of the memory kept for reuse."""
        self._slots.close()

    def _copy(self, plan: Plan, slot: Slot) -> Any:
        on_device = []
        for leaf, source in plan.sources:
            if leaf.nbytes == 0:
                continue
            if not leaf.is_tensor:
                host = slot.memory[leaf.offset : leaf.offset + leaf.nbytes].view(leaf.dtype)
                np.copyto(host.reshape(leaf.shape), source)
                continue
            host = _host(slot, leaf)
            if source.requires_grad:
                source = source.detach()
            if slot.pinned and self._accelerator.owns(source):
                on_device.append((host, source))
            else:
                host.copy_(source)
        return self._accelerator.copy(on_device) if on_device else None


def _host(slot: Slot, leaf: Leaf) -> Any:
    """A slot's memory as a leaf's tensor."""
    if slot.seen_as[0] != leaf:
        import torch

        # Slots outlive the batch, so their tensors must not become inference tensors, which nothing but inference
        # mode may write to.
        with torch.inference_mode(False):
            slot.seen_as[:] = leaf, leaf.view(slot.memory)
    return slot.seen_as[1]


def _clone(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    # Copied to the host first where it is elsewhere; a clone keeps the subclass, sparsity and quantisation.
    value = value.detach()
    return value.clone() if value.device.type == "cpu" else value.cpu()
