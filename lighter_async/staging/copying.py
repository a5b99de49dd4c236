"""Copy batches into reused host memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lighter_async.staging.accelerator import Accelerator, TorchAccelerator
from lighter_async.staging.kinds import is_tensor
from lighter_async.staging.layout import plan_batch, plan_sample
from lighter_async.staging.outputs import as_row, plan_batch_of_dicts, plan_batch_of_outputs, plan_sample_of_outputs
from lighter_async.staging.places import Leaf
from lighter_async.staging.plan import Plan
from lighter_async.staging.private_memory import PrivateMemory
from lighter_async.staging.remarks import Remarks
from lighter_async.staging.shared_memory import SharedMemory
from lighter_async.staging.slots import Memory, Slot, SlotPool, size_class
from lighter_async.staging.staged import Staged
from lighter_async.staging.streams import wait_for

__all__ = ["StagingPool"]


_FIRST_BYTES = 8 << 20  # of memory that are touched before the size of a batch is known
_MOST_SEEN = 16  # tensors that a slot keeps: one for each output of a batch


class StagingPool:
    """One budget of reusable host memory, and the copy of a batch into it.

    Args:
        budget: Bytes of host memory to keep for reuse.
        accelerator: How device tensors are copied; None for PyTorch's own devices.
        shared: Whether other processes are to read the slots.
        reduce: By output, what to compute from a device tensor before it is copied to the host. The key is None if a
            sample has only one output.
        prepare: By output, what makes plain values of a batch or a sample, as of `Encoder`.
        remark: By output, what writers remark on the first values; see `Remarks`.
        outputs: The keys of a sample's outputs, if it has several.
        dicts: Whether each sample is a dict from columns to values, and a batch a dict with all values of each.

    Attributes:
        shared: The memory that other processes map; None if the slots are private.
    """

    def __init__(
        self,
        budget: int,
        *,
        accelerator: Accelerator | None = None,
        shared: bool = False,
        reduce: Mapping[str | None, Callable[[Any], Any]] | None = None,
        prepare: Mapping[str | None, Callable[..., Any]] | None = None,
        remark: Mapping[str | None, Callable[[Any], str | None]] | None = None,
        outputs: Sequence[str] = (),
        dicts: bool = False,
    ) -> None:
        self._remarks = Remarks(remark or {})
        self._reduce = dict(reduce or {})
        self._prepare = dict(prepare or {})
        self._outputs = tuple(outputs)
        self._dicts = dicts
        self._takes_values_as_they_are = not (outputs or dicts or self._reduce or self._prepare)
        self._accelerator: Accelerator = accelerator or TorchAccelerator()
        self.shared = SharedMemory(budget, pin=self._accelerator.pin) if shared else None
        memory: Memory = self.shared or PrivateMemory(self._accelerator.pin)
        self._slots = SlotPool(budget, memory)

    def unshare(self) -> None:
        """Take slots from private memory from now on. Nothing may be staged yet."""
        self.shared = None
        self._slots = SlotPool(self._slots.budget, PrivateMemory(self._accelerator.pin))

    def plan_batch(self, values: Any) -> Plan:
        """The plan of a batch, as of `layout.plan_batch`."""
        shared = self.shared is not None
        if self._takes_values_as_they_are and not self._remarks.is_awaited:
            return plan_batch(values, shared=shared)
        if self._outputs:
            if isinstance(values, Mapping):
                values = {key: self._prepared_batch(one, key) for key, one in values.items()}
            elif isinstance(values, Sequence) and not isinstance(values, (str, bytes)):
                values = [self._prepared_outputs(value) for value in values]
            return plan_batch_of_outputs(values, self._outputs, shared=shared)
        if self._dicts:
            return plan_batch_of_dicts(values, shared=shared)
        return plan_batch(self._prepared_batch(values, None), shared=shared)

    def plan_sample(self, value: Any) -> Plan:
        """The same for one sample."""
        shared = self.shared is not None
        if self._outputs:
            return plan_sample_of_outputs(self._prepared_outputs(value), self._outputs, shared=shared)
        if self._dicts:
            return plan_sample(as_row(value), shared=shared)
        return plan_sample(self._prepared(value, None), shared=shared)

    # What an encoder makes of values before they are copied: plain values first, then fewer bytes on the device.

    def _prepared_outputs(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: self._prepared(one, key) for key, one in value.items()}

    def _prepared_batch(self, values: Any, key: str | None) -> Any:
        self._remarks.look_at(values, key)
        prepare = self._prepare.get(key)
        if prepare is not None and (is_tensor(values) or isinstance(values, np.ndarray)):
            values = prepare(values, is_batch=True)
        elif prepare is not None and type(values) in (list, tuple):
            values = [prepare(value, is_batch=False) for value in values]
        if key in self._reduce and type(values) in (list, tuple):
            return [self._reduced_one(value, key) for value in values]
        return self._reduced_one(values, key)

    def _prepared(self, value: Any, key: str | None) -> Any:
        prepare = self._prepare.get(key)
        return self._reduced(value if prepare is None else prepare(value, is_batch=False), key)

    def _reduced(self, value: Any, key: str | None) -> Any:
        self._remarks.look_at(value, key)
        return self._reduced_one(value, key)

    def _reduced_one(self, value: Any, key: str | None) -> Any:
        reduce = self._reduce.get(key)
        if reduce is None or not is_tensor(value) or not self._accelerator.owns(value):
            return value
        return reduce(value)

    def work_ahead(self) -> None:
        """From now on until `close`, have memory touched before it is needed, in a thread beside the loop."""
        self._slots.work_ahead(_FIRST_BYTES)

    @property
    def total_bytes(self) -> int:
        """Bytes of host memory that batches take, and that is kept for the next ones."""
        return self._slots.total

    def bytes_of(self, plan: Plan) -> int:
        """The bytes that a batch takes from the budget until its last sample is stored."""
        return size_class(plan.nbytes, self._slots.budget) + plan.other_bytes

    def stage(self, plan: Plan) -> Staged:
        """Copy a batch. When this returns, the caller may overwrite its tensors."""
        slots, held, slot, ready, on_device = self._slots, plan.other_bytes, None, None, False
        if held:
            slots.hold(held)
        try:
            loose = [_clone(value) for value in plan.loose] if plan.loose else []
            if plan.kept:
                wait_for(plan.kept)
            if plan.nbytes:
                for leaf, source in plan.sources:
                    if leaf.is_tensor and self._accelerator.owns(source):
                        on_device = True
                        break
                slot = slots.acquire(size_class(plan.nbytes, slots.budget), pinned=on_device)
                ready = self._copy(plan, slot)
        except BaseException:
            if held:
                slots.let_go(held)
            if slot is not None and on_device:
                slots.forget(slot)  # a device that failed between two copies may still be writing the first
            elif slot is not None:
                slots.release(slot)
            raise
        plain = not (loose or plan.kept or plan.has_classes)
        return Staged(slot, ready, plan.rows, plan.values, loose, plan.kept, plain, plan.columns, held)

    def release(self, staged: Staged) -> None:
        """Take the slot of a batch back once all its samples are stored or dropped."""
        if staged.other_bytes:
            self._slots.let_go(staged.other_bytes)
        if staged.slot is None:
            return
        if staged.ready is not None:
            # The copy of a dropped batch may be in progress, and must not overwrite the next batch's bytes.
            try:
                staged.ready.synchronize()
            except Exception:
                # The device failed, and so did its samples; it may or may not still write.
                self._slots.forget(staged.slot)
                return
        self._slots.release(staged.slot)

    def forget(self, staged: Staged) -> None:
        """Give the slot of a batch up for good, since a thread that hangs may still read it."""
        if staged.other_bytes:
            self._slots.let_go(staged.other_bytes)
        if staged.slot is not None:
            self._slots.forget(staged.slot, is_quiet=_has_arrived(staged))

    def close(self) -> None:
        """Free the memory that is kept for reuse."""
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
    """The tensor of a leaf, as a view of the slot."""
    seen, known = slot.seen_as, slot.seen_as.get(leaf.offset)
    if known is None or (known[0] is not leaf and known[0] != leaf):
        import torch

        # Slots outlive the batch, so their tensors must not become inference tensors, which only inference mode may
        # write to.
        with torch.inference_mode(False):
            known = leaf, leaf.view(slot.memory)
        if len(seen) >= _MOST_SEEN:
            seen.clear()
        seen[leaf.offset] = known
    return known[1]


def _has_arrived(staged: Staged) -> bool:
    """Whether a device copies nothing into a batch's slot any more; after a failure of the device, too."""
    try:
        return staged.ready is None or staged.ready.query()
    except Exception:
        return True


def _clone(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    # Both keep the subclass, sparsity and quantisation.
    value = value.detach()
    return value.clone() if value.device.type == "cpu" else value.cpu()
