"""Encoders alone, against what they stand for.

Every encoder is given the same values, taking turns, in one process and one thread. PNG: floats of CHW photographs, the
conversion to pixels included, against Pillow at its default level. `.pt`: tensors of several sizes against
`torch.save`.

    python benchmarks/encoders.py [--repeats 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data

from lighter_async.block import Block
from lighter_async.writers import write_image_2d, write_tensor

PHOTOGRAPHS = ("astronaut", "coffee", "hubble_deep_field", "immunohistochemistry", "rocket", "retina")


def block_of(tensor: torch.Tensor) -> Block:
    """As a worker has it: the slot's bytes."""
    memory = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().copy()
    return Block(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), memory)


def compare(ways: dict[str, Callable[[], int]], repeats: int) -> dict[str, dict[str, Any]]:
    """Median and spread of the seconds of each way, which take turns; each gives how many bytes it made."""
    sizes = {name: way() for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    return {
        name: {"seconds": statistics.median(taken), "least": min(taken), "most": max(taken), "bytes": sizes[name]}
        for name, taken in seconds.items()
    }


def pillow(image: torch.Tensor) -> int:
    pixels = (image.float().clamp(0, 1) * 255).to(torch.uint8).movedim(0, -1).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.tell()


def ours(encoder: Any, block: Block) -> int:
    return sum(part.nbytes for part in encoder.encode_block(block))


def torch_save(tensor: torch.Tensor) -> int:
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return buffer.tell()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", help="where to write all figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, one thread")
    print(f"medians of {options.repeats}, taking turns; times and sizes as ratios to the first way\n")
    figures: dict[str, Any] = {}
    print(f"{'PNG of 512 x 512 RGB floats':42}{'Pillow, ms':>12}{'ours, ms':>10}{'faster':>9}{'size':>8}")
    for name in PHOTOGRAPHS:
        pixels = np.ascontiguousarray(getattr(data, name)()[:512, :512, :3])
        image = torch.from_numpy(pixels).movedim(-1, 0).contiguous().float() / 255
        block = block_of(image)
        ways = {"pillow": partial(pillow, image), "ours": partial(ours, write_image_2d, block)}
        for kind in ("average", "up"):
            ways[f"ours, filter={kind!r}"] = partial(ours, write_image_2d.with_options(filter=kind), block)
        figures[f"png/{name}"] = found = compare(ways, options.repeats)
        first = found["pillow"]
        for way, figure in list(found.items())[1:]:
            print(
                f"  {name + way.removeprefix('ours'):40}{first['seconds'] * 1e3:12.1f}{figure['seconds'] * 1e3:10.2f}"
                f"{first['seconds'] / figure['seconds']:9.1f}{figure['bytes'] / first['bytes']:8.3f}"
            )
    print(f"\n{'.pt of float32':36}{'torch.save, us':>14}{'ours, us':>10}{'faster':>9}")
    for count in (16, 384, 12_500, 150_000):
        tensor = torch.rand(count)
        block = block_of(tensor)
        write_tensor.encode_block(block)  # the first of a kind is torch.save's
        ways = {"torch.save": partial(torch_save, tensor), "ours": partial(ours, write_tensor, block)}
        figures[f"pt/{4 * count}"] = found = compare(ways, 20 * options.repeats)
        slow, fast = found["torch.save"]["seconds"], found["ours"]["seconds"]
        print(f"  {f'{4 * count:,} bytes':34}{slow * 1e6:14.1f}{fast * 1e6:10.1f}{slow / fast:9.1f}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
