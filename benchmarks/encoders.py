"""Encoders alone, against what they stand for: bytes to bytes in memory, one thread, taking turns.

PNG: floats of CHW photographs, the conversion to 8-bit pixels included for all, against Pillow at its default level.
`.pt`: tensors of several sizes, against `torch.save`.

    python benchmarks/encoders.py [--quick]
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from measure import Plan, Quiet, installed, median, spread, tell
from PIL import Image
from torch import Tensor
from workloads import PHOTOGRAPHS, cutting

from lighter_async.plain_memory import Block
from lighter_async.writers import write_image_2d, write_tensor

__all__ = ["TITLE", "cases", "run"]

TITLE = "Encoders"

_SIDES = {"png512": 512, "png224": 224}
_SIZES = (64, 1536, 50_000, 600_000)  # bytes
_FILTERS = ("average", "up")
Way = Callable[[], int]  # encodes once, and gives how many bytes came out


def cases(plan: Plan) -> list[str]:
    return plan.pick(["png512", "png224", "pt"], ["png512", "pt"], ["png224", "pt"])


def run(case: str, plan: Plan) -> dict[str, Any]:
    torch.set_num_threads(1)
    return run_pt(plan) if case == "pt" else run_png(_SIDES[case], plan)


def run_png(side: int, plan: Plan) -> dict[str, Any]:
    repeats = plan.pick(9, 5, 1)
    by_photograph = {}
    quiet = Quiet(plan.pick(30.0, 10.0, 0.0))
    for name in plan.pick(PHOTOGRAPHS, PHOTOGRAPHS, PHOTOGRAPHS[:1]):
        ways, missing = png_ways(cutting(name, side))
        by_photograph[name] = quiet.run(partial(compare, ways, repeats))
        tell(f"encoders, PNG of {name}, {side} x {side}")
    pixels = 3 * side * side
    found: dict[str, Any] = {}
    for way in ways:
        ours = [one[way] for one in by_photograph.values()]
        first = [one["Pillow, level 6"] for one in by_photograph.values()]
        found[way] = {
            "mb_per_s": spread(pixels / 1e6 / median(one["seconds"]) for one in ours),
            "faster": spread(
                median(other["seconds"]) / median(one["seconds"]) for one, other in zip(ours, first, strict=True)
            ),
            "size": spread(one["bytes"] / other["bytes"] for one, other in zip(ours, first, strict=True)),
            "by_photograph": {
                name: [
                    float(f"{1e3 * median(one[way]['seconds']):.4g}"),
                    round(one[way]["bytes"] / one["Pillow, level 6"]["bytes"], 4),
                ]
                for name, one in by_photograph.items()
            },
        }
    return {
        "others": spread(quiet.shares),
        "title": f"PNG of {side} x {side} RGB floats, {len(by_photograph)} photographs; medians of {repeats}",
        "ways": found,
        "left_out": missing,
    }


def run_pt(plan: Plan) -> dict[str, Any]:
    repeats = plan.pick(200, 60, 3)
    sizes = {}
    quiet = Quiet(plan.pick(30.0, 10.0, 0.0))
    for size in _SIZES:
        tensor = torch.rand(size // 4)
        block = block_of(tensor)
        write_tensor.encode_block(block)  # the first of a kind is torch.save's
        ways: dict[str, Way] = {
            "torch.save": partial(into_buffer, torch.save, tensor),
            "numpy.save": partial(into_buffer, lambda value, file: np.save(file, value.numpy()), tensor),
            "lighter_async": partial(ours, write_tensor, block),
        }
        if installed("safetensors"):
            from safetensors.torch import save

            ways["safetensors"] = lambda save=save, tensor=tensor: len(save({"value": tensor}))
        found = quiet.run(partial(compare, ways, repeats))
        tell(f"encoders, .pt of {size} bytes")
        first = found["torch.save"]
        sizes[str(size)] = {
            way: {
                "us": spread(1e6 * one for one in figure["seconds"]),
                "faster": spread(other / one for one, other in zip(figure["seconds"], first["seconds"], strict=True)),
                "size": round(figure["bytes"] / first["bytes"], 4),
            }
            for way, figure in found.items()
        }
    missing = [] if installed("safetensors") else ["safetensors"]
    return {
        "others": spread(quiet.shares),
        "title": f"Tensors of float32; medians of {repeats}",
        "sizes": sizes,
        "left_out": missing,
    }


def png_ways(image: Tensor) -> tuple[dict[str, Way], list[str]]:
    """Every encoder for this image, and those that are not installed."""
    block = block_of(image)
    ways: dict[str, Way] = {"Pillow, level 6": partial(pillow, image, 6), "Pillow, level 1": partial(pillow, image, 1)}
    ways["lighter_async"] = partial(ours, write_image_2d, block)
    for kind in _FILTERS:
        ways[f"lighter_async, filter={kind!r}"] = partial(ours, write_image_2d.with_options(filter=kind), block)
    missing = []
    if installed("cv2"):
        import cv2

        ways["OpenCV"] = lambda: len(cv2.imencode(".png", cv2.cvtColor(pixels_of(image), cv2.COLOR_RGB2BGR))[1])
    else:
        missing.append("OpenCV")
    if installed("imagecodecs"):
        import imagecodecs

        ways["imagecodecs, libpng"] = lambda: len(imagecodecs.png_encode(pixels_of(image)))
        ways["imagecodecs, spng"] = lambda: len(imagecodecs.spng_encode(pixels_of(image)))
    else:
        missing.append("imagecodecs")
    if installed("fpng_py"):
        import fpng_py

        height, width = image.shape[1:]
        ways["fpng"] = lambda: len(
            fpng_py.fpng_encode_image_to_memory(
                pixels_of(image).tobytes(), width, height, 3, fpng_py.CompressionFlags.NONE
            )
        )
    else:
        missing.append("fpng")
    return ways, missing


def compare(
    ways: dict[str, Way], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, dict[str, Any]]:
    """The seconds of each way, which take turns, and how many bytes it made."""
    sizes = {name: way() for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = clock()
            way()
            seconds[name].append(clock() - began)
    return {name: {"seconds": seconds[name], "bytes": sizes[name]} for name in ways}


def block_of(tensor: Tensor) -> Block:
    """As a worker has it: the slot's bytes."""
    memory = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().copy()
    return Block(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), memory)


def pixels_of(image: Tensor) -> np.ndarray[Any, Any]:
    """HWC, as all other encoders want it."""
    return (image.float().clamp(0, 1) * 255).to(torch.uint8).movedim(0, -1).contiguous().numpy()


def pillow(image: Tensor, level: int) -> int:
    buffer = io.BytesIO()
    Image.fromarray(pixels_of(image)).save(buffer, "PNG", compress_level=level)
    return buffer.tell()


def ours(encoder: Any, block: Block) -> int:
    return sum(len(memoryview(part).cast("B")) for part in encoder.encode_block(block))


def into_buffer(save: Callable[[Tensor, Any], None], tensor: Tensor) -> int:
    buffer = io.BytesIO()
    save(tensor, buffer)
    return buffer.tell()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    plan = Plan("quick" if options.quick else "full")
    for case in cases(plan):
        found = run(case, plan)
        print(f"\n{found['title']}")
        rows = found["sizes"].items() if case == "pt" else [("", found["ways"])]
        for size, ways in rows:
            for way, figure in ways.items():
                speed = figure.get("mb_per_s") or figure["us"]
                unit = "MB/s" if "mb_per_s" in figure else f"us for {size} bytes"
                print(f"  {way:32}{speed['median']:10.1f} {unit}{figure['faster']['median']:8.1f} times as fast")


if __name__ == "__main__":
    main()
