"""Images as PNG: which tensors are images. `pixels.py` makes pixels of values, and `png.py` the file, or Pillow."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import shown
from lighter_async.plain_memory import Block
from lighter_async.writers.base import Encoded, Encoder
from lighter_async.writers.dense import without_class
from lighter_async.writers.pixels import Mode, as_tensor, pixels_of_block, reduced, to_pixels
from lighter_async.writers.png import check_png, decode_png, encode_png
from lighter_async.writers.scaling import Scale, checked_scale, remark_on_range

__all__ = [
    "decode_image_2d",
    "decode_image_3d",
    "encode_image_2d",
    "encode_image_3d",
    "remark_on_image",
    "to_pixels",
    "write_image_2d",
    "write_image_3d",
]

Codec = Literal["isal", "pillow"]

_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}
_INFERRED = (1, 3, 4)  # without a mode; two channels are mostly the probabilities of two classes


def encode_image_2d(
    tensor: Any,
    *,
    codec: Codec = "isal",
    compress_level: int | None = None,
    filter: str = "adaptive",
    mode: Mode | None = None,
    scale: Scale = "unit",
) -> Encoded:
    """A PNG of an image.

    Args:
        tensor: CHW with 1 (grey), 3 (RGB) or 4 (RGBA) channels; floats in [0, 1], uint8 or bool. With mode ``"LA"``, 2
            channels (grey and alpha); with mode ``"I;16"``, 1 channel of floats in [0, 1], uint16 or bool.
        codec: ``"isal"``, ISA-L's deflate with libdeflate's for smooth images, is many times as fast as
            ``"pillow"``, at nearly the size.
        compress_level: 0 to 12 for ``"isal"``: 0 to 3 are ISA-L's levels, from 4 on libdeflate's; by default 1 for
            textured images, and libdeflate's level 2 for smooth ones. 0 to 9 for ``"pillow"``, by default 6.
        filter: ``"adaptive"`` (one for each strip of rows), ``"paeth"``, ``"average"``, ``"sub"``, ``"up"`` or
            ``"none"``; Pillow chooses for itself.
        mode: Pillow's name for the kind of image: ``"L"``, ``"LA"``, ``"RGB"``, ``"RGBA"`` of eight bits, or
            ``"I;16"``, grey of sixteen, for which floats are scaled to 65535; see `to_pixels`. By default the number of
            channels decides.
        scale: What becomes black and what white, in all channels: ``"unit"`` takes 0 and 1 of floats; ``"minmax"`` the
            sample's own minimum and maximum, without infinities; a pair ``(low, high)`` takes these. What is below or
            above is clamped, NaN is black, and so is a sample of one value under ``"minmax"``. Other than with
            ``"unit"``, integers and bools are scaled, too; uint8 (with mode ``"I;16"``, uint16) always stays as it is.

    Raises:
        ValueError: The tensor has another rank or number of channels, or no pixels; or an option is out of range.
        TypeError: The dtype has no single meaning as pixels, or the value is not a dense tensor or array.
    """
    tensor = as_tensor(tensor)
    if tensor.ndim != 3:
        raise ValueError(
            f"write_image_2d expects a 3D tensor (CHW), got {tensor.ndim} dimensions of shape {tuple(tensor.shape)}"
            + ("; tensor.unsqueeze(0) adds the channel" if tensor.ndim == 2 else "")
            + ("; write_image_3d takes CDHW" if tensor.ndim == 4 else "")
        )
    return _encode_tensor(tensor, "write_image_2d", codec, compress_level, filter, mode, scale)


def encode_image_3d(
    tensor: Any,
    *,
    codec: Codec = "isal",
    compress_level: int | None = None,
    filter: str = "adaptive",
    mode: Mode | None = None,
    scale: Scale = "unit",
) -> Encoded:
    """A PNG of a volume, its D slices stacked vertically: D * H pixels high, W wide.

    Args:
        tensor: CDHW with 1 (grey), 3 (RGB) or 4 (RGBA) channels; floats in [0, 1], uint8 or bool. With mode ``"LA"``, 2
            channels (grey and alpha); with mode ``"I;16"``, 1 channel of floats in [0, 1], uint16 or bool.
        codec, compress_level, filter, mode, scale: As for `encode_image_2d`; the sample is the whole volume.

    Raises:
        ValueError: The tensor has another rank or number of channels, or no pixels; or an option is out of range.
        TypeError: The dtype has no single meaning as pixels, or the value is not a dense tensor or array.
    """
    tensor = as_tensor(tensor)
    if tensor.ndim != 4:
        raise ValueError(
            f"write_image_3d expects a 4D tensor (CDHW), got {tensor.ndim} dimensions of shape {tuple(tensor.shape)}"
            + ("; tensor.unsqueeze(0) adds the channel" if tensor.ndim == 3 else "")
        )
    channels, depth, height, width = tensor.shape
    stacked = tensor.reshape(channels, depth * height, width)
    return _encode_tensor(stacked, "write_image_3d", codec, compress_level, filter, mode, scale)


def _encode_block_2d(block: Block, **options: Any) -> Encoded | None:
    return _encode_block(block, block.shape, **options) if len(block.shape) == 3 else None


def _encode_block_3d(block: Block, **options: Any) -> Encoded | None:
    if len(block.shape) != 4:
        return None
    channels, depth, height, width = block.shape
    return _encode_block(block, (channels, depth * height, width), **options)


def _encode_block(
    block: Block,
    shape: tuple[int, ...],
    *,
    codec: Codec = "isal",
    compress_level: int | None = None,
    filter: str = "adaptive",
    mode: Mode | None = None,
    scale: Scale = "unit",
) -> Encoded | None:
    """The same without a tensor; None if the value has to be refused, which `encode_image_2d` does with a message."""
    if shape[0] not in (_INFERRED if mode is None else (_channels(mode),)):
        return None
    planes = pixels_of_block(block, mode, scale)
    return None if planes is None else _encode_planes(planes.reshape(shape), codec, compress_level, filter)


def _encode_tensor(
    image: Any, writer: str, codec: Codec, compress_level: int | None, filter: str, mode: Mode | None, scale: Scale
) -> Encoded:
    channels, height, width = image.shape
    wanted = _INFERRED if mode is None else (_channels(mode),)
    if channels not in wanted:
        has = "an image has 1, 3 or 4 channels"
        hints = [f"mode={name!r} takes {channels}" for name, count in _CHANNELS.items() if count == channels]
        if mode is not None:
            has = f"an image of mode {mode!r} has {wanted[0]} channel{'s' if wanted[0] > 1 else ''}"
        elif hints:
            hints = [f'{writer}.with_options(mode="LA") takes grey and alpha']
        if width in wanted:
            hints.append("tensor.movedim(-1, 0) makes CHW of HWC")
        raise ValueError("; ".join([f"{has}, got {channels} in shape {tuple(image.shape)}", *hints]))
    if height == 0 or width == 0:
        raise ValueError(f"an image needs at least one pixel, got shape {tuple(image.shape)}")
    planes = to_pixels(image, mode=mode, scale=scale).detach().cpu().contiguous().numpy()
    return _encode_planes(planes, codec, compress_level, filter)


def _channels(mode: Mode) -> int:
    if not isinstance(mode, str) or mode not in _CHANNELS:
        raise ValueError(f"mode is None, 'L', 'LA', 'RGB', 'RGBA' or 'I;16', not {shown(mode)}")
    return _CHANNELS[mode]


def _check(
    *,
    codec: Codec = "isal",
    compress_level: int | None = None,
    filter: str = "adaptive",
    mode: Mode | None = None,
    scale: Scale = "unit",
) -> None:
    """
    Raises:
        ValueError: An option is out of range.
    """
    if mode is not None:
        _channels(mode)
    checked_scale(scale)
    if codec == "isal":
        check_png(compress_level, filter)
        return
    _pillow_level(codec, compress_level)
    check_png(None, filter)


def _pillow_level(codec: str, compress_level: int | None) -> int:
    if codec != "pillow":
        raise ValueError(f"codec is 'isal' or 'pillow', not {shown(codec)}")
    level = 6 if compress_level is None else compress_level
    if type(level) is not int or level not in range(10):
        raise ValueError(f"compress_level of codec 'pillow' is 0 to 9, not {shown(compress_level)}")
    return level


def _encode_planes(planes: NDArray[Any], codec: Codec, compress_level: int | None, filter: str) -> Encoded:
    if codec == "isal":
        return encode_png(planes, level=compress_level, filter=filter)
    level = _pillow_level(codec, compress_level)
    from PIL import Image

    pixels = np.ascontiguousarray(np.moveaxis(planes, 0, -1))
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if len(planes) == 1 else pixels).save(buffer, "PNG", compress_level=level)
    return buffer.getbuffer()


def _reduce_2d(tensor: Any, **options: Any) -> Any:
    return reduced(tensor, 3, **options)


def _reduce_3d(tensor: Any, **options: Any) -> Any:
    return reduced(tensor, 4, **options)


def _remark_2d(value: Any, **options: Any) -> str | None:
    return remark_on_image("image_2d", value, **options)


def _remark_3d(value: Any, **options: Any) -> str | None:
    return remark_on_image("image_3d", value, **options)


def remark_on_image(
    writer: str, value: Any, *, mode: Mode | None = None, scale: Scale = "unit", **options: Any
) -> str | None:
    """What a person should know of how an image writer takes such values; None if there is nothing."""
    if scale == "unit":
        return remark_on_range(value, writer)
    kept = "uint16" if mode == "I;16" else "uint8"
    if str(getattr(value, "dtype", "")).removeprefix("torch.") != kept:
        return None
    return f"{writer} writes {kept} as it is, whatever the scale; convert it to float32 to have it scaled"


def decode_image_2d(data: bytes | memoryview) -> NDArray[Any]:
    """The pixels of an image, as `to_pixels` gives them.

    Returns:
        A numpy array, CHW, with memory of its own: uint8 with 1 (grey), 2 (grey and alpha), 3 or 4 channels, or uint16
        with 1 channel for mode ``"I;16"``. So uint8 values are those that were written; floats are scaled to 255
        (65535) and truncated, and bools are 0 and 255 (65535). Written again, it gives the same image.

    Raises:
        Exception: It is not a PNG that this package writes.
    """
    return decode_png(data)


def decode_image_3d(data: bytes | memoryview, *, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """The pixels of a volume, as `to_pixels` gives them.

    Args:
        data: The file's content, with the D slices below each other.
        shape: The volume's shape, CDHW. The manifest has the number of slices, and the file has not.

    Returns:
        A numpy array, CDHW, otherwise as of `decode_image_2d`.

    Raises:
        ValueError: The shape is not known, or does not fit these pixels.
        Exception: It is not a PNG that this package writes.
    """
    pixels = decode_png(data)
    channels, height, width = pixels.shape
    if shape is None:
        raise ValueError(
            f"how many slices the volume's {height} rows of pixels are is not recorded, as of a file that a crash has "
            "left without a record; decode=lambda data: write_image_3d.decode(data, shape=(C, D, H, W)) tells it"
        )
    if len(shape) != 4 or (channels, height, width) != (shape[0], shape[1] * shape[2], shape[3]):
        raise ValueError(f"a PNG of {channels} x {height} x {width} pixels is no volume of shape {shape}")
    return pixels.reshape(shape)


write_image_2d = Encoder(
    encode_image_2d,
    suffix=".png",
    name="image_2d",
    encode_block=_encode_block_2d,
    prepare=without_class,
    reduce=_reduce_2d,
    remark=_remark_2d,
    check=_check,
    decode=decode_image_2d,
)
"""``write_image_2d(path, tensor, *, suffix=".png")``: write a CHW image as PNG."""

write_image_3d = Encoder(
    encode_image_3d,
    suffix=".png",
    name="image_3d",
    encode_block=_encode_block_3d,
    prepare=without_class,
    reduce=_reduce_3d,
    remark=_remark_3d,
    check=_check,
    decode=decode_image_3d,
)
"""``write_image_3d(path, tensor, *, suffix=".png")``: write a CDHW volume as PNG, its slices stacked vertically."""
