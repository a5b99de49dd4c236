"""Images of eight bits for Pillow's encoders: which tensors are images, and their pixels, plane by plane.

Values mean what they mean as PNG (`image.py`). Pillow interleaves planes many times as fast as numpy does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighter_async.plain_memory import Block
from lighter_async.writers.pixels import as_tensor, pixels_of_block, reduced, to_pixels
from lighter_async.writers.scaling import Scale

__all__ = ["pillow_image", "planes_of", "planes_of_block", "reduce_image"]

_MODES = {3: "RGB", 4: "RGBA"}


def planes_of(
    value: Any, writer: str, channels: Mapping[int, str | None], longest: int, scale: Scale
) -> NDArray[np.uint8]:
    """The planes of an image: (C, H, W), uint8.

    Args:
        value: A dense tensor or array, CHW: floats in [0, 1], uint8 or bool.
        writer: Its function's name in error messages.
        channels: By number of channels why they are refused, with the remedy; None for those that are stored.
        longest: Pixels that the format allows on a side.
        scale: As for `to_pixels`.

    Raises:
        ValueError: The value has another rank or number of channels, no pixels, or too many.
        TypeError: The dtype has no single meaning as pixels, or it is no dense tensor or array.
    """
    image = as_tensor(value)
    if problem := _problem(tuple(image.shape), writer, channels, longest):
        raise ValueError(problem)
    planes: NDArray[np.uint8] = to_pixels(image, scale=scale).detach().cpu().contiguous().numpy()
    return planes


def planes_of_block(
    block: Block, channels: Mapping[int, str | None], longest: int, scale: Scale
) -> NDArray[np.uint8] | None:
    """The same without a tensor; None if the value has to be refused, which `planes_of` does with a message."""
    if _problem(block.shape, "", channels, longest):
        return None
    pixels = pixels_of_block(block, None, scale)
    return None if pixels is None else pixels.reshape(block.shape)


def reduce_image(tensor: Any, **options: Any) -> Any:
    """The pixels on an accelerator, which leaves a quarter of a float32's bytes to copy."""
    return reduced(tensor, 3, **options)


def pillow_image(planes: NDArray[np.uint8]) -> Any:
    """Pillow's image of the planes of one."""
    from PIL import Image

    height, width = planes.shape[1:]
    images = [Image.frombuffer("L", (width, height), plane, "raw", "L", 0, 1) for plane in planes]
    return images[0] if len(images) == 1 else Image.merge(_MODES[len(images)], images)


def _problem(shape: tuple[int, ...], writer: str, channels: Mapping[int, str | None], longest: int) -> str | None:
    """Why an image of a shape is refused; None if it is not."""
    if len(shape) != 3:
        hint = "; tensor.unsqueeze(0) adds the channel" if len(shape) == 2 else ""
        return f"{writer} expects a 3D tensor (CHW), got {len(shape)} dimensions of shape {shape}{hint}"
    count, height, width = shape
    if (refused := channels.get(count, "")) is not None:
        *first, last = (str(number) for number, why in channels.items() if why is None)
        takes = f"{', '.join(first)} or {last}"
        hint = "; tensor.movedim(-1, 0) makes CHW of HWC" if channels.get(width, "") is None else ""
        return f"an image has {takes} channels here, got {count} in shape {shape}{refused and f'; {refused}'}{hint}"
    if not height or not width:
        return f"an image needs at least one pixel, got shape {shape}"
    if max(height, width) > longest:
        return f"the format has at most {longest} pixels on a side, got shape {shape}; image_2d writes PNG"
    return None
