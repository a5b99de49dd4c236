"""A GPU in host memory: streams that a thread works off in an order of its own, events, and an allocator that reuses.

It stands in the place of `torch.cuda`. What a program gets wrong about streams comes out as wrong values: work is done
as late as the streams' order and the events allow, or in a random order; memory that is freed is given to the next one
who asks for it on that stream; and after a failure every call raises.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lighter_async.staging import TorchAccelerator

__all__ = ["FakeAccelerator", "FakeGpu", "FakeTensor"]

PATIENCE = 30  # seconds, for what happens in another thread

Policy = Callable[[list["FakeStream"]], "FakeStream"]


class FakeGpu:
    """The devices, and what `torch.cuda` offers of them.

    Args:
        policy: Chooses which of several streams goes on: ``"random"``, ``"side last"`` or ``"side first"``.
        kind: What devices are called.

    Attributes:
        room: Bytes that are left for clones, or None for any number.
        set_up: The devices that a call was made for, or with which current: each would cost some of its memory.
        launched: Clones and copies that were begun.
        events: With which options they were made.
        pinned: Addresses of memory that is pinned, with its size.
        refusal: The error with which pinning is refused, if it is.
    """

    def __init__(self, policy: str = "random", *, seed: int = 0, kind: str = "cuda") -> None:
        self.kind = kind
        self.room: int | None = None
        self.set_up: set[int] = set()
        self.launched = 0
        self.events: list[dict[str, Any]] = []
        self.pinned: dict[int, int] = {}
        self.refusal = 0
        self.last_error = 0
        self.error: str | None = None
        self._choose = self._policy(policy, seed)
        self._changed = threading.Condition()
        # Guarded by _changed:
        self._streams: list[FakeStream] = []
        self._held: set[FakeStream] = set()
        self._free: dict[tuple[FakeStream, int], list[torch.Tensor]] = {}
        self._ending = False
        self._local = threading.local()
        self._defaults: dict[int, FakeStream] = {}
        self._thread = threading.Thread(target=self._run, name="fake-gpu")
        self._thread.start()

    @staticmethod
    def _policy(policy: str, seed: int) -> Policy:
        chooser = random.Random(seed)
        if policy == "random":
            return chooser.choice
        is_last = policy == "side last"
        return lambda streams: sorted(streams, key=lambda one: one.is_side == is_last)[0]

    # For tests

    def tensor(self, values: torch.Tensor, index: int = 0) -> FakeTensor:
        """A tensor on a device, with values that are there."""
        return FakeTensor(self, torch.device(self.kind, index), values)

    def hold(self, stream: FakeStream) -> None:
        """Keep a stream from going on, until `release`."""
        with self._changed:
            self._held.add(stream)

    def release(self) -> None:
        """Let all streams go on."""
        with self._changed:
            self._held.clear()
            self._changed.notify_all()

    def fail(self, error: str) -> None:
        """Fail for good: nothing goes on, and every call raises."""
        with self._changed:
            self.error = error
            for stream in self._streams:
                stream.work.clear()
            self._streams.clear()
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    # As `torch.cuda` has it

    def Stream(self, device: torch.device) -> FakeStream:
        self.check()
        return FakeStream(self, device, is_side=True)

    def Event(self, **options: Any) -> FakeEvent:
        self.events.append(options)
        return FakeEvent(self)

    def current_stream(self, device: torch.device) -> FakeStream:
        chosen: FakeStream | None = self._chosen.get(device.index)
        return chosen or self.default_stream(device)

    def default_stream(self, device: torch.device) -> FakeStream:
        with self._changed:
            if device.index not in self._defaults:
                self._defaults[device.index] = FakeStream(self, device)
            return self._defaults[device.index]

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before = self._chosen.get(stream.device.index)
        with self.device(stream.device):
            self._chosen[stream.device.index] = stream
            try:
                yield
            finally:
                self._chosen[stream.device.index] = before

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before = self.current_device
        self._local.device = device.index
        try:
            yield
        finally:
            self._local.device = before

    def is_initialized(self) -> bool:
        return bool(self.set_up)

    def cudart(self) -> FakeGpu:
        return self

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        self.note()
        if self.error is not None or self.refusal:
            self.last_error = 1 if self.error is not None else self.refusal
            return self.last_error
        assert not any(start < address + size and address < start + length for start, length in self.pinned.items())
        self.pinned[address] = size
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        self.note()
        if self.error is not None:
            return 1
        del self.pinned[address]
        return 0

    def cudaGetLastError(self) -> int:
        error, self.last_error = self.last_error, 0
        return error

    # Inside

    @property
    def current_device(self) -> int:
        return getattr(self._local, "device", 0)

    @property
    def _chosen(self) -> dict[int, Any]:
        return self._local.__dict__.setdefault("streams", {})

    def note(self) -> None:
        self.set_up.add(self.current_device)

    def check(self) -> None:
        self.note()
        if self.error is not None:
            raise RuntimeError(self.error)

    def add(self, stream: FakeStream, work: Callable[[], None], after: FakeEvent | None = None) -> None:
        with self._changed:
            if not stream.work:
                self._streams.append(stream)
            stream.work.append((work, after))
            self._changed.notify_all()

    def wait(self, event: FakeEvent) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: event.done or self.error, PATIENCE)
        self.check()

    def allocate(self, like: torch.Tensor, stream: FakeStream) -> torch.Tensor:
        with self._changed:
            free = self._free.get((stream, like.nbytes))
            if free:
                return free.pop().view(like.dtype).view(like.shape)
            if self.room is not None:
                if like.nbytes > self.room:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                self.room -= like.nbytes
        return torch.empty(like.shape, dtype=like.dtype)

    def give_back(self, memory: torch.Tensor, stream: FakeStream) -> None:
        flat = memory.view(-1).view(torch.uint8)
        with self._changed:
            self._free.setdefault((stream, flat.nbytes), []).append(flat)

    def _run(self) -> None:
        with self._changed:
            while True:
                able = [one for one in self._streams if one not in self._held and one.is_able]
                if self.error is not None or not able:
                    if self._ending:
                        return
                    self._changed.wait(PATIENCE)
                    continue
                stream = self._choose(able)
                work, _ = stream.work.popleft()
                if not stream.work:
                    self._streams.remove(stream)
                work()
                self._changed.notify_all()


class FakeStream:
    def __init__(self, gpu: FakeGpu, device: torch.device, *, is_side: bool = False) -> None:
        self.gpu, self.device, self.is_side = gpu, device, is_side
        self.work: deque[tuple[Callable[[], None], FakeEvent | None]] = deque()

    @property
    def is_able(self) -> bool:
        """Whether its next work need not wait for an event."""
        _, after = self.work[0]
        return after is None or after.done

    def wait_stream(self, other: FakeStream) -> None:
        event = FakeEvent(self.gpu)
        event.record(other)
        self.gpu.add(self, lambda: None, after=event)

    def query(self) -> bool:
        self.gpu.check()
        return not self.work

    def synchronize(self) -> None:
        event = FakeEvent(self.gpu)
        event.record(self)
        event.synchronize()


class FakeEvent:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu, self.done = gpu, False

    def record(self, stream: FakeStream) -> None:
        self.gpu.check()
        self.gpu.add(stream, lambda: setattr(self, "done", True))

    def query(self) -> bool:
        self.gpu.check()
        return self.done

    def synchronize(self) -> None:
        self.gpu.check()
        self.gpu.wait(self)


class FakeTensor:
    """A tensor of a device; `values` is the device's memory."""

    is_cpu = False

    def __init__(
        self, gpu: FakeGpu, device: torch.device, values: torch.Tensor, stream: FakeStream | None = None
    ) -> None:
        self.gpu, self.device, self.values, self._stream = gpu, device, values, stream

    def __del__(self) -> None:
        if self._stream is not None:
            self.gpu.give_back(self.values, self._stream)

    def fill_(self, number: float) -> None:
        """What the loop computes into it, on its current stream."""
        self._launch(lambda: self.values.fill_(number))

    def is_contiguous(self) -> bool:
        return self.values.is_contiguous()

    def clone(self, *, memory_format: torch.memory_format) -> FakeTensor:
        assert memory_format is torch.contiguous_format
        self.gpu.check()
        stream = self.gpu.current_stream(self.device)
        clone = FakeTensor(self.gpu, self.device, self.gpu.allocate(self.values, stream), stream)
        # Not the clone itself, which would be kept until the work is done: a real device keeps nothing.
        source, memory = self.values, clone.values
        self._launch(lambda: memory.copy_(source))
        return clone

    def cpu(self) -> torch.Tensor:
        self.gpu.current_stream(self.device).synchronize()
        return self.values.clone(memory_format=torch.preserve_format)

    def _launch(self, work: Callable[[], object]) -> None:
        self.gpu.check()
        self.gpu.launched += 1
        self.gpu.add(self.gpu.current_stream(self.device), lambda: (work(), None)[1])

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function is torch.Tensor.copy_, function
        host, source = args
        values = source.values
        source._launch(lambda: host.copy_(values))
        if not (kwargs or {}).get("non_blocking", False):
            source.gpu.current_stream(source.device).synchronize()
        return host


class FakeAccelerator(TorchAccelerator):
    """PyTorch's own, for tensors that `on_device` was given: those of the host are known by their addresses."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, FakeTensor] = {}

    def on_device(self, tensor: FakeTensor) -> torch.Tensor:
        """The tensor to hand over: the device's memory, which nothing but the accelerator may read."""
        self._known[tensor.values.data_ptr()] = tensor
        return tensor.values

    def owns(self, tensor: Any) -> bool:
        known = tensor if isinstance(tensor, FakeTensor) else self._known.get(tensor.data_ptr())
        return known is not None and super().owns(known)  # type: ignore[arg-type]

    def copy(self, pairs: Any) -> Any:
        return super().copy([(host, self._known[source.data_ptr()]) for host, source in pairs])
