"""Each format beside what people use for it today: a sample to bytes, one thread, taking turns.

Times are the thread's own on the processor, which other programs disturb little. Ours begin with a sample in a worker's
memory, theirs with a tensor. Photographs are scikit-image's, the volume is a scan of nibabel's (a part of its tests'
data). What can only write files writes them into memory.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encoders import Way, block_of, compare, into_buffer, ours, pillow, pixels_of
from measure import MEMORY, Plan, Quiet, folder_in, installed, spread, tell
from PIL import Image
from torch import Tensor
from workloads import cutting

from lighter_async import (
    Encoder,
    write_jpeg,
    write_json,
    write_nifti,
    write_npy,
    write_safetensors,
    write_tiff,
    write_webp,
)
from lighter_async.writers.eight_bit import planes_of_block

__all__ = ["TITLE", "cases", "run"]

TITLE = "Formats"

_REPEATS = {"npy": 300, "safetensors": 300, "json": 200, "jpeg": 31, "webp": 9, "tiff": 31, "nifti": 31}
_NEEDED = {"safetensors": ("safetensors",), "tiff": ("tifffile", "nibabel"), "nifti": ("nibabel",)}
_MORE = {"jpeg": ("simplejpeg", "torchvision"), "nifti": ("monai",)}


def cases(plan: Plan) -> list[str]:
    return list(_CASES)


def run(case: str, plan: Plan) -> dict[str, Any]:
    """The processor's milliseconds and the bytes of each way, by what is written; all are compared with the first."""
    torch.set_num_threads(1)
    repeats = plan.pick(_REPEATS[case], max(3, _REPEATS[case] // 5), 1)
    quiet = Quiet(plan.pick(30.0, 10.0, 0.0))
    needed, more = _NEEDED.get(case, ()), _MORE.get(case, ())
    found: dict[str, Any] = {}
    with folder_in(MEMORY) as folder:
        for title, ways in _CASES[case](folder) if installed(*needed) else ():
            figures = quiet.run(partial(compare, ways, repeats, time.thread_time))
            tell(f"formats, {case}: {title}")
            first = next(iter(figures.values()))
            found[title] = {
                way: {
                    "ms": spread(1e3 * one for one in figure["seconds"]),
                    "faster": spread(
                        other / one for one, other in zip(figure["seconds"], first["seconds"], strict=True)
                    ),
                    "size": round(figure["bytes"] / first["bytes"], 3),
                }
                for way, figure in figures.items()
            }
    missing = [package for package in (*needed, *more) if not installed(package)]
    others = {"others": spread(quiet.shares)} if quiet.shares else {}
    return {**others, "repeats": repeats, "of": found, "left_out": missing}


def npy(folder: Path) -> Iterator[tuple[str, dict[str, Way]]]:
    for count in (384, 150_000):
        tensor = torch.rand(count)
        yield (
            f"{count:,} float32",
            {
                "numpy.save": lambda tensor=tensor: into_buffer(lambda one, file: np.save(file, one.numpy()), tensor),
                "npy": partial(ours, write_npy, block_of(tensor)),
            },
        )


def safetensors(folder: Path) -> Iterator[tuple[str, dict[str, Way]]]:
    from safetensors.torch import save

    for title, value in {"384 float32": {"value": torch.rand(384)}, "a detection": detection()}.items():
        theirs = partial(lambda value: len(save(value)), value)
        yield title, {"safetensors.save": theirs, "safetensors": inside(write_safetensors, value)}


def json_(folder: Path) -> Iterator[tuple[str, dict[str, Way]]]:
    value = {**detection(), "file": "case.1", "seconds": 0.25}

    def theirs() -> int:
        plain = {key: one.tolist() if isinstance(one, Tensor) else one for key, one in value.items()}
        return len(json.dumps(plain).encode())

    yield "a detection", {"json.dumps of lists": theirs, "json": inside(write_json, value)}


def jpeg(folder: Path) -> Iterator[tuple[str, dict[str, Way]]]:
    image = cutting("astronaut", 512)
    block = block_of(image)
    ways: dict[str, Way] = {
        "Pillow": lambda: by_pillow(image, "JPEG", quality=90, subsampling="4:2:0"),
        "jpeg": partial(ours, write_jpeg, block),
    }
    if installed("simplejpeg"):
        import simplejpeg

        options = {"quality": 90, "colorspace": "RGB", "colorsubsampling": "420"}
        ways["simplejpeg"] = lambda: len(simplejpeg.encode_jpeg(pixels_of(image), **options))

        def of_our_pixels() -> int:
            planes = planes_of_block(block, {3: None}, 512, "unit")
            pixels = np.empty((512, 512, 3), np.uint8)
            for channel, plane in enumerate(planes if planes is not None else ()):
                pixels[..., channel] = plane
            return len(simplejpeg.encode_jpeg(pixels, **options))

        ways["simplejpeg, of our pixels"] = of_our_pixels
    if installed("torchvision"):
        from torchvision.io import encode_jpeg

        ways["torchvision"] = lambda: encode_jpeg((image.clamp(0, 1) * 255).to(torch.uint8), quality=90).numel()
    yield "a photograph of 512 x 512", ways


def webp(folder: Path) -> Iterator[tuple[str, dict[str, Way]]]:
    image = cutting("astronaut", 512)
    block = block_of(image)
    lossless = write_webp.with_options(lossless=True, method=0)
    yield (
        "a photograph of 512 x 512",
        {
            "Pillow": lambda: by_pillow(image, "WEBP", quality=80, method=4),
            "webp": partial(ours, write_webp, block),
            "webp, method=0": partial(ours, write_webp.with_options(method=0), block),
            "webp, lossless=True, method=0": partial(ours, lossless, block),
            "PNG by Pillow": lambda: pillow(image, 6),
        },
    )


def tiff(folder: Path) -> Iterator[tuple[str, dict[str, Way]]]:
    import tifffile

    scan = torch.from_numpy(np.ascontiguousarray(np.moveaxis(the_scan()[0], -1, 0)))
    options: dict[str, Any] = {"photometric": "minisblack"}

    def theirs(**more: Any) -> int:
        buffer = BytesIO()
        tifffile.imwrite(buffer, scan.numpy(), **options, **more)
        return buffer.tell()

    block = block_of(scan)
    yield (
        f"a scan, {' x '.join(map(str, scan.shape))} int16",
        {
            "tifffile, zlib": lambda: theirs(compression="zlib", predictor=True),
            "tiff": partial(ours, write_tiff, block),
            "tiff, compress_level=6": partial(ours, write_tiff.with_options(compress_level=6), block),
            "tifffile, not compressed": theirs,
            "tiff, compression=None": partial(ours, write_tiff.with_options(compression=None), block),
        },
    )


def nifti(folder: Path) -> Iterator[tuple[str, dict[str, Way]]]:
    import nibabel

    scan, affine = the_scan()
    for kind, voxels in {
        "int16": scan,
        "float32": scan.astype("f4"),
        "labels, uint8": (scan > 300).astype("u1"),
    }.items():
        tensor = torch.from_numpy(np.ascontiguousarray(voxels))[None]
        value = {"image": tensor, "affine": affine}

        def by_nibabel(tensor: Tensor = tensor) -> int:
            nibabel.save(nibabel.Nifti1Image(tensor[0].numpy(), affine), folder / "nibabel.nii.gz")
            return os.path.getsize(folder / "nibabel.nii.gz")

        ways: dict[str, Way] = {
            "nibabel.save": by_nibabel,
            "nifti": inside(write_nifti, value),
            "nifti, compress_level=6": inside(write_nifti.with_options(compress_level=6), value),
            'nifti, suffix=".nii"': inside(write_nifti.with_options(suffix=".nii"), value),
        }
        if installed("monai"):
            ways["MONAI SaveImage"] = by_monai(tensor, affine, folder)
        yield f"a scan, {' x '.join(map(str, voxels.shape))} {kind}", ways


def by_monai(tensor: Tensor, affine: Any, folder: Path) -> Way:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.data import MetaTensor
        from monai.transforms import SaveImage
    image = MetaTensor(tensor, affine=torch.from_numpy(affine), meta={"filename_or_obj": "monai.nii.gz"})
    save = SaveImage(
        folder, "", ".nii.gz", output_dtype=tensor.numpy().dtype, resample=False, separate_folder=False, print_log=False
    )

    def way() -> int:
        save(image)
        return os.path.getsize(folder / "monai.nii.gz")

    return way


def inside(encoder: Encoder, value: dict[str, Any]) -> Way:
    """Encode a dict, whose tensors are in a worker's memory."""
    held = {key: block_of(one) if isinstance(one, Tensor) else one for key, one in value.items()}
    return lambda: sum(len(part) for part in encoder.encode_blocks(held) or ())


def by_pillow(image: Tensor, kind: str, **options: Any) -> int:
    buffer = BytesIO()
    Image.fromarray(pixels_of(image)).save(buffer, kind, **options)
    return buffer.tell()


def detection() -> dict[str, Tensor]:
    """What a detector finds in an image."""
    return {"boxes": torch.rand(100, 4) * 512, "scores": torch.rand(100), "labels": torch.arange(100)}


@cache
def the_scan() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A volume of nibabel's: its voxels, and its affine."""
    import nibabel

    image = nibabel.load(Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz")
    return np.asanyarray(image.dataobj)[..., 0], image.affine  # type: ignore[attr-defined]


_CASES: dict[str, Callable[[Path], Iterator[tuple[str, dict[str, Way]]]]] = {
    "npy": npy,
    "safetensors": safetensors,
    "json": json_,
    "jpeg": jpeg,
    "webp": webp,
    "tiff": tiff,
    "nifti": nifti,
}
