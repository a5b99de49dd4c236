"""Streams of devices, which are current in a thread: to compute on them in another one, and to wait for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from lighter_async.staging.pickled_objects import tensors_in

if TYPE_CHECKING:
    import torch

__all__ = ["STREAMED", "streams_of", "wait_for"]

STREAMED = frozenset({"cuda", "xpu"})
"""Devices with streams, each by the module of torch that has them; `torch.cuda` is ROCm's, too."""


def streams_of(tensors: Iterable[torch.Tensor]) -> Callable[[], AbstractContextManager[None]]:
    """Makes the streams that this thread computes tensors on current again, later or in another thread.

    Streams are current in a thread. Another one would copy on the default stream, maybe before they are computed.
    """
    found: dict[Any, tuple[Any, Any]] = {}
    for tensor in tensors:
        device = tensor.device
        if device.type in STREAMED and device not in found:
            import torch

            module = torch.get_device_module(device)
            found[device] = module, module.current_stream(device)
    return partial(_current, found) if found else nullcontext


@contextmanager
def _current(streams: Mapping[Any, tuple[Any, Any]]) -> Iterator[None]:
    with ExitStack() as stack:
        for device, (module, stream) in streams.items():
            stack.enter_context(module.device(device))
            stack.enter_context(module.stream(stream))
        yield


def wait_for(things: Iterable[Any]) -> None:
    """Wait until the tensors in objects that nobody copies are computed, since threads read them on other streams."""
    torch = sys.modules.get("torch")
    if torch is None or not any(_is_in_use(torch, kind) for kind in STREAMED):
        return
    tensors = [tensor for thing in things for tensor in tensors_in(thing)]
    for device in {tensor.device for tensor in tensors if tensor.device.type in STREAMED}:
        torch.get_device_module(device).current_stream(device).synchronize()


def _is_in_use(torch: Any, kind: str) -> bool:
    module = getattr(torch, kind, None)  # None while another thread imports torch
    return module is not None and bool(module.is_initialized())
