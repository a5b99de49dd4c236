"""Images as PNG: what a tensor's values mean as pixels. `png.py` makes the file, or Pillow on request."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lighter_async.block import Block
from lighter_async.errors import shown
from lighter_async.writers.base import Encoded, Encoder
from lighter_async.writers.png import check_png, decode_png, encode_png

__all__ = [
    "decode_image_2d",
    "decode_image_3d",
    "encode_image_2d",
    "encode_image_3d",
    "to_pixels",
    "write_image_2d",
    "write_image_3d",
]

Codec = Literal["isal", "pillow"]
Mode = Literal["L", "LA", "RGB", "RGBA", "I;16"]

_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}
_INFERRED = (1, 3, 4)  # without a mode; two channels are mostly the probabilities of two classes

# Values that are converted at once, few enough to stay in a core's cache.
_PIECE = 1 << 17


def to_pixels(tensor: Any, *, mode: Mode | None = None) -> Any:
    """Pixel values as uint8, or uint16 for mode ``"I;16"``, of the same shape.

    Floats are clamped to [0, 1] and scaled to [0, 255], exactly as ``(x.float().clamp(0, 1) *
    255).to(torch.uint8)``; uint8 stays as it is, so that label maps survive; bool becomes 0 and 255.

    For mode ``"I;16"`` they are scaled to [0, 65535], exactly as ``(x.double().clamp(0, 1) * 65535).to(torch.int32)``
    (in double, where the product is exact); uint16 stays as it is; bool becomes 0 and 65535. NaN becomes 0 in both.

    Args:
        tensor: A tensor or a numpy array, of any shape.
        mode: Pillow's name for the kind of image.

    Raises:
        TypeError: The dtype is another integer type or complex, or the value is not a dense tensor or array.
    """
    import torch

    tensor = _as_tensor(tensor)
    wide = mode == "I;16"
    if tensor.dtype is (torch.uint16 if wide else torch.uint8):
        return tensor
    if tensor.dtype is torch.bool:
        return (tensor.to(torch.int32) * 65535).to(torch.uint16) if wide else tensor.to(torch.uint8) * 255
    if tensor.dtype.is_complex:
        raise TypeError(f"an image cannot hold {tensor.dtype}; write tensor.abs(), tensor.real or tensor.angle()")
    if not tensor.dtype.is_floating_point:
        highest, kind = (65535, "uint16") if wide else (255, "uint8")
        raise TypeError(
            f"an image of dtype {tensor.dtype} could mean labels or intensities; convert labels up to {highest} with "
            f".to(torch.{kind}), and intensities with tensor / maximum to floats in [0, 1]"
            + ("" if wide else '; with_options(mode="I;16") writes one channel of torch.uint16 as it is')
        )
    if wide:
        return (tensor.double().clamp(0, 1) * 65535).to(torch.int32).to(torch.uint16)
    return (tensor.float().clamp(0, 1) * 255).to(torch.uint8)


def encode_image_2d(
    tensor: Any,
    *,
    codec: Codec = "isal",
    compress_level: int | None = None,
    filter: str = "adaptive",
    mode: Mode | None = None,
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

    Raises:
        ValueError: The tensor has another rank or number of channels, or no pixels; or an option is out of range.
        TypeError: The dtype has no single meaning as pixels, or the value is not a dense tensor or array.
    """
    tensor = _as_tensor(tensor)
    if tensor.ndim != 3:
        raise ValueError(
            f"write_image_2d expects a 3D tensor (CHW), got {tensor.ndim} dimensions of shape {tuple(tensor.shape)}"
            + ("; tensor.unsqueeze(0) adds the channel" if tensor.ndim == 2 else "")
            + ("; write_image_3d takes CDHW" if tensor.ndim == 4 else "")
        )
    return _encode_tensor(tensor, "write_image_2d", codec, compress_level, filter, mode)


def encode_image_3d(
    tensor: Any,
    *,
    codec: Codec = "isal",
    compress_level: int | None = None,
    filter: str = "adaptive",
    mode: Mode | None = None,
) -> Encoded:
    """A PNG of a volume, its D slices stacked vertically: D * H pixels high, W wide.

    Args:
        tensor: CDHW with 1 (grey), 3 (RGB) or 4 (RGBA) channels; floats in [0, 1], uint8 or bool. With mode ``"LA"``, 2
            channels (grey and alpha); with mode ``"I;16"``, 1 channel of floats in [0, 1], uint16 or bool.
        codec, compress_level, filter, mode: As for `encode_image_2d`.

    Raises:
        ValueError: The tensor has another rank or number of channels, or no pixels; or an option is out of range.
        TypeError: The dtype has no single meaning as pixels, or the value is not a dense tensor or array.
    """
    tensor = _as_tensor(tensor)
    if tensor.ndim != 4:
        raise ValueError(
            f"write_image_3d expects a 4D tensor (CDHW), got {tensor.ndim} dimensions of shape {tuple(tensor.shape)}"
            + ("; tensor.unsqueeze(0) adds the channel" if tensor.ndim == 3 else "")
        )
    channels, depth, height, width = tensor.shape
    stacked = tensor.reshape(channels, depth * height, width)
    return _encode_tensor(stacked, "write_image_3d", codec, compress_level, filter, mode)


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
) -> Encoded | None:
    """The same without a tensor; None if the value has to be refused, which `encode_image_2d` does with a message."""
    if shape[0] not in (_INFERRED if mode is None else (_channels(mode),)):
        return None
    planes = _planes(block, mode)
    return None if planes is None else _encode_planes(planes.reshape(shape), codec, compress_level, filter)


def _planes(block: Block, mode: Mode | None = None) -> NDArray[Any] | None:
    """`to_pixels` of a block."""
    pixel, within, highest = (np.uint16, np.float64, 65535) if mode == "I;16" else (np.uint8, np.float32, 255)
    if block.dtype == pixel.__name__:
        return block.memory.view(pixel)
    if block.dtype == "bool":
        return block.memory * pixel(highest)
    if block.dtype not in ("bfloat16", "float16", "float32", "float64"):
        return None
    values = block.memory.view(np.uint16 if block.dtype == "bfloat16" else block.dtype)
    pixels = np.empty(values.size, pixel)
    scaled = np.empty(min(_PIECE, values.size), within)
    # As torch does silently: a value too large for float32 becomes infinite, and NaN becomes 0.
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, values.size, _PIECE):
            piece = values[start : start + _PIECE]
            out = scaled[: piece.size]
            if block.dtype == "bfloat16":  # the upper half of a float32
                piece = (piece.astype(np.uint32) << 16).view(np.float32)
            if piece.dtype != within:
                out[...] = piece
                piece = out
            np.clip(piece, 0, 1, out=out)
            np.multiply(out, highest, out=out)
            pixels[start : start + _PIECE] = out
    return pixels


def _as_tensor(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        if value.is_nested or value.layout is not torch.strided:
            kind = "nested" if value.is_nested else f"{value.layout}"
            remedy = "write its parts one by one" if value.is_nested else "write tensor.to_dense()"
            raise TypeError(f"an image is a dense tensor, not a {kind} one; {remedy}")
        if value.is_quantized:
            raise TypeError(f"an image is no quantised tensor ({value.dtype}); write tensor.dequantize()")
        return value
    if not isinstance(value, np.ndarray):
        raise TypeError(f"an image is a tensor or a numpy array, not {type(value).__name__}: {shown(value)}")
    # A copy in the machine's byte order and without negative strides, which tensors cannot have; nor can they be
    # read-only, as arrays in a slot are.
    array = np.array(value, value.dtype.newbyteorder("="), order="C", subok=False)
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise TypeError(f"an image cannot hold numpy's {value.dtype}; convert it to float32 or uint8") from error


def _encode_tensor(
    image: Any, writer: str, codec: Codec, compress_level: int | None, filter: str, mode: Mode | None
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
    planes = to_pixels(image, mode=mode).detach().cpu().contiguous().numpy()
    return _encode_planes(planes, codec, compress_level, filter)


def _channels(mode: Mode) -> int:
    if not isinstance(mode, str) or mode not in _CHANNELS:
        raise ValueError(f"mode is None, 'L', 'LA', 'RGB', 'RGBA' or 'I;16', not {shown(mode)}")
    return _CHANNELS[mode]


def _check(
    *, codec: Codec = "isal", compress_level: int | None = None, filter: str = "adaptive", mode: Mode | None = None
) -> None:
    """
    Raises:
        ValueError: An option is out of range.
    """
    if mode is not None:
        _channels(mode)
    if codec == "isal":
        check_png(compress_level, filter)
        return
    _pillow_level(codec, compress_level)
    check_png(None, filter)


def _pillow_level(codec: str, compress_level: int | None) -> int:
    if codec != "pillow":
        raise ValueError(f"codec is 'isal' or 'pillow', not {shown(codec)}")
    level = 6 if compress_level is None else compress_level
    if level not in range(10):
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


def _reduce(tensor: Any, *, mode: Mode | None = None, **options: Any) -> Any:
    """`to_pixels` on an accelerator, which leaves a quarter of a float32's bytes to copy."""
    import torch

    if mode == "I;16" or not tensor.is_floating_point() or tensor.layout is not torch.strided or tensor.is_nested:
        return tensor  # it has few bytes already, or is refused later, when that fails only its sample
    tensor = tensor.detach()
    values = tensor.float()
    # In place if it is our own tensor: the model needs the device's memory.
    values = values.clamp(0, 1) if values is tensor else values.clamp_(0, 1)
    return values.mul_(255).to(torch.uint8)


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
    reduce=_reduce,
    check=_check,
    decode=decode_image_2d,
)
"""``write_image_2d(path, tensor, *, suffix=".png")``: write a CHW image as PNG."""

write_image_3d = Encoder(
    encode_image_3d,
    suffix=".png",
    name="image_3d",
    encode_block=_encode_block_3d,
    reduce=_reduce,
    check=_check,
    decode=decode_image_3d,
)
"""``write_image_3d(path, tensor, *, suffix=".png")``: write a CDHW volume as PNG, its slices stacked vertically."""
