"""The one seam to accelerators: copy tensors from a device into host memory while the loop goes on.

docs/gpu.md says what of this was run on a device, and on which.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lighter_async.notices import warn
from lighter_async.staging.streams import STREAMED

if TYPE_CHECKING:
    import torch

__all__ = ["Accelerator", "Ready", "TorchAccelerator"]


class Ready(Protocol):
    """A copy in progress."""

    def synchronize(self) -> None:
        """Wait until the copied bytes are in host memory. Any thread may call this, any number of times."""
        ...

    def query(self) -> bool:
        """Whether they are there already."""
        ...


class Accelerator(Protocol):
    """Copies device tensors into host memory."""

    def owns(self, tensor: torch.Tensor) -> bool:
        """Whether this tensor needs `copy`, and gains from pinned memory."""
        ...

    def pin(self, memory: NDArray[np.uint8]) -> Callable[[], None] | None:
        """Pin host memory, which other processes may share, so that a copy into it goes on by itself.

        Returns:
            A function that unpins it, and raises where that fails. None if it is not pinned: `copy` takes it as well.
        """
        ...

    def copy(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Ready:
        """Begin to copy each ``(host, device)`` pair, and return at once.

        Work launched after this call may overwrite the device tensor. If it raises, nothing is being copied any more,
        as far as the device can tell.
        """
        ...


class TorchAccelerator:
    """Devices with streams that PyTorch knows (CUDA, ROCm, XPU).

    Each batch is first cloned on its device, on the stream that computes, so that the caller may reuse its tensor at
    once (the next replay of a CUDA graph overwrites the outputs of the last one). A side stream then copies the clone
    into pinned memory while the next batch is computed. Where the device has no memory left for a clone, the caller
    waits for the copy instead.

    Clones are held until they are copied, and not left to `Tensor.record_stream`: that makes the allocator record an
    event when a clone is freed, which ends the process where the device has failed meanwhile.
    """

    def __init__(self) -> None:
        self._device: Any = None  # that of the last tensor that was asked about, which memory is pinned for
        self._sides: dict[Any, Any] = {}
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        self._under_way: deque[_Copy] = deque()  # guarded by _lock

    def __reduce__(self) -> tuple[Any, ...]:
        return TorchAccelerator, ()  # streams and what is under way belong to this process

    def owns(self, tensor: torch.Tensor) -> bool:
        if tensor.is_cpu:  # quicker than asking for the device
            return False
        device = tensor.device
        if device.type not in STREAMED:
            return False
        self._device = device
        return True

    def pin(self, memory: NDArray[np.uint8]) -> Callable[[], None] | None:
        device = self._device
        if device is None or device.type != "cuda":
            return None  # PyTorch pins memory that is there already for CUDA and ROCm alone
        import torch

        module = torch.get_device_module(device)
        runtime = module.cudart()
        address = memory.ctypes.data
        # As everywhere here: a thread that never chose a device would otherwise set up the first one, for some
        # hundred megabytes of its memory.
        with module.device(device):
            refused: object
            try:
                refused = int(runtime.cudaHostRegister(address, memory.nbytes, 0))
            except Exception as error:
                refused = str(error)
            if refused:
                _forget_error(runtime, device)
                module.current_stream(device).query()  # raises if it is the device that has failed, not the call
        if refused:
            self._warn(
                f"the system pins no memory for {device} (cudaHostRegister: {refused}), so each hand-over of its "
                "tensors waits until they are computed and copied"
            )
            return None

        def unpin() -> None:
            with module.device(device):
                if refused := int(runtime.cudaHostUnregister(address)):
                    raise RuntimeError(f"memory at {address:#x} stays pinned (cudaHostUnregister: {refused})")

        return unpin

    def copy(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Ready:
        self._let_go_of_clones()
        by_device: dict[Any, list[tuple[Any, Any]]] = {}
        for host, source in pairs:
            by_device.setdefault(source.device, []).append((host, source))
        copy = _Copy()
        try:
            for device, mine in by_device.items():
                self._begin(copy, device, mine)
        except BaseException:
            with suppress(Exception):
                copy.synchronize()
            raise
        with self._lock:
            self._under_way.append(copy)
        return copy

    def _begin(self, copy: _Copy, device: torch.device, pairs: Sequence[tuple[Any, Any]]) -> None:
        import torch

        module = torch.get_device_module(device)
        with module.device(device):
            side = self._sides.get(device)
            if side is None:
                side = self._sides[device] = module.Stream(device)
            clones = []
            for _, source in pairs:
                try:
                    # Contiguous, as the host's memory is: they are turned or expanded here, and not once more on the
                    # side stream.
                    clones.append(source.clone(memory_format=torch.contiguous_format))
                except torch.OutOfMemoryError:
                    break
            # The side stream must not read before the computing stream has written the clones.
            side.wait_stream(module.current_stream(device))
            event = _event(module, device)
            try:
                with module.stream(side):
                    for (host, _), clone in zip(pairs, clones, strict=False):
                        host.copy_(clone, non_blocking=True)
            finally:
                event.record(side)
                copy.add(module, device, event, clones)
            if len(clones) < len(pairs):
                self._warn(
                    f"{device} has no memory left for a copy of what is handed over, so the loop waits until it is "
                    "computed and on the host; a smaller batch, or a smaller queue_bytes, leaves room"
                )
            for host, source in pairs[len(clones) :]:
                # One that is only turned around needs no other memory of the device if it is turned on the host.
                host.copy_(source if source.is_contiguous() else source.cpu())

    def _let_go_of_clones(self) -> None:
        with self._lock:
            while self._under_way and self._under_way[0].is_over():
                self._under_way.popleft()

    def _warn(self, text: str) -> None:
        kind = text.partition("(")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            warn(text)


class _Copy:
    """Copies in progress, of one hand-over: an event for each device, and the clones that are read until then."""

    def __init__(self) -> None:
        self._begun: list[tuple[Any, Any, Any, Sequence[Any]]] = []

    def add(self, module: Any, device: Any, event: Any, clones: Sequence[Any]) -> None:
        self._begun.append((module, device, event, clones))

    def synchronize(self) -> None:
        for module, device, event, _ in self._begun:
            with module.device(device):
                event.synchronize()
        self._begun = []  # and the clones with it, whose memory the computing stream may have again

    def query(self) -> bool:
        for module, device, event, _ in self._begun:
            with module.device(device):
                if not event.query():
                    return False
        self._begun = []
        return True

    def is_over(self) -> bool:
        """Whether nothing is copied any more; after a failure of the device, too."""
        try:
            return self.query()
        except Exception:
            return True


def _event(module: Any, device: Any) -> Any:
    # A thread that waits for an event of CUDA's usual kind keeps a core busy meanwhile.
    return module.Event(blocking=True) if device.type == "cuda" else module.Event()


def _forget_error(runtime: Any, device: Any) -> None:
    """Take back the error of a call that was refused: the next launch of a kernel would be blamed for it."""
    take = getattr(runtime, "cudaGetLastError", None)  # of some of PyTorch's versions
    if take is not None:
        take()
        return
    import torch

    with suppress(Exception):
        torch.full((1,), 0.0, device=device)
