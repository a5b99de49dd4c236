"""The one seam to accelerators: copy tensors from a device into host memory while the loop goes on.

This code was never run on a GPU: its logic (what is copied, on which stream, and who waits for which event) is
tested with a device made of host memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

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
        """Whether this tensor needs `copy`, and gains from memory of `allocate`."""
        ...

    def allocate(self, nbytes: int) -> torch.Tensor:
        """Pinned host memory: a 1-d uint8 CPU tensor."""
        ...

    def pin(self, memory: NDArray[np.uint8]) -> Callable[[], None]:
        """Pin existing host memory, such as memory shared with other processes; returns a function that unpins it."""
        ...

    def copy(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Ready:
        """Begin to copy each ``(host, device)`` pair, and return at once.

        Work launched after this call may overwrite the device tensor.
        """
        ...


class TorchAccelerator:
    """Devices with streams that PyTorch knows (CUDA, ROCm, XPU).

    Each batch is first cloned on its device, on the stream that computes, so that the caller may reuse its tensor at
    once (the next replay of a CUDA graph overwrites the outputs of the last one). A side stream then copies the clone
    into pinned memory while the next batch is computed. From a device without streams one blocking call copies.
    """

    _STREAMED = frozenset({"cuda", "xpu"})

    def __init__(self) -> None:
        self._streams: dict[torch.device, Any] = {}

    def owns(self, tensor: torch.Tensor) -> bool:
        return not tensor.is_cpu and tensor.device.type in self._STREAMED

    def allocate(self, nbytes: int) -> torch.Tensor:
        import torch

        return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=True)

    def pin(self, memory: NDArray[np.uint8]) -> Callable[[], None]:
        import torch

        # PyTorch pins existing memory for CUDA only. A copy into unpinned memory is slower, but correct.
        if not torch.cuda.is_available():
            return lambda: None
        runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        address = memory.ctypes.data
        torch.cuda.check_error(int(runtime.cudaHostRegister(address, memory.nbytes, 0)))
        return lambda: torch.cuda.check_error(int(runtime.cudaHostUnregister(address)))

    def copy(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Ready:
        import torch

        events = []
        for device in {source.device for _, source in pairs}:
            mine = [(host, source) for host, source in pairs if source.device == device]
            side = self._streams.get(device)
            if side is None:
                side = self._streams[device] = torch.Stream(device)
            snapshots = [(host, source.clone()) for host, source in mine]
            # The side stream must not read before the computing stream has written the clones.
            side.wait_stream(torch.accelerator.current_stream(device))
            with side:
                for host, snapshot in snapshots:
                    host.copy_(snapshot, non_blocking=True)
                    # The allocator must not hand the clone's memory on before the side stream has read it.
                    snapshot.record_stream(side)
            events.append(side.record_event())
        return _All(events)


class _All:
    """Several copies in progress, one per device."""

    def __init__(self, events: Sequence[Any]) -> None:
        self._events = events

    def synchronize(self) -> None:
        for event in self._events:
            event.synchronize()

    def query(self) -> bool:
        return all(event.query() for event in self._events)
