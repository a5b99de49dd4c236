"""An ``async def`` writer with aiofiles, registered by name and used from a plain loop.

It is awaited on an event loop of the workers' own, up to `max_workers` samples at once, so the plain loop that hands
the predictions over needs no asyncio at all. Run it with

    pip install aiofiles scikit-image
    python examples/aiofiles_writer.py [DIRECTORY]
"""

import json
import sys
import tempfile
from pathlib import Path

import aiofiles
import torch
from skimage import data

from lighter_async import BackgroundWriter, writer_registry


@writer_registry.register("json_lines")
async def write_json_lines(path: Path, value: dict[str, torch.Tensor]) -> None:
    """One line per entry. A function ``(path, value)`` gets a value of its own, and a path that has no suffix yet."""
    async with aiofiles.open(path.with_name(path.name + ".jsonl"), "w") as file:
        for key, tensor in value.items():
            await file.write(json.dumps({"key": key, "value": tensor.tolist()}) + "\n")


def histogram(photograph: torch.Tensor) -> dict[str, torch.Tensor]:
    """What stands for a model here: the brightness of a photograph (H, W), in 16 bins, and its mean."""
    brightness = photograph.float() / 255
    return {"histogram": torch.histc(brightness, bins=16, min=0, max=1), "mean": brightness.mean()}


def main(directory: Path) -> None:
    photographs = {name: torch.from_numpy(getattr(data, name)()) for name in ("camera", "coins", "moon", "page")}
    with BackgroundWriter("json_lines", directory, max_workers=4) as writer:
        for name, photograph in photographs.items():
            writer.submit(name, histogram(photograph))
    # Leaving the with block has waited until everything is stored.
    print(f"{writer.stats().written} files in {directory}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
