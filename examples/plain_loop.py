"""A plain PyTorch loop that writes its predictions in the background.

Run it with

    python examples/plain_loop.py [DIRECTORY]
"""

import sys
import tempfile
from pathlib import Path

import torch
from skimage import data

from lighter_async import BackgroundWriter

PATCH_PIXELS = 64
BATCH_SIZE = 16

# A model with fixed weights: it sharpens, by adding what a Laplacian finds.
SHARPEN = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 5.0, -1.0], [0.0, -1.0, 0.0]])


def model(patches: torch.Tensor) -> torch.Tensor:
    """Sharpened patches, of shape (B, 1, H, W) as the given ones."""
    padded = torch.nn.functional.pad(patches, (1, 1, 1, 1), mode="reflect")
    return torch.nn.functional.conv2d(padded, SHARPEN[None, None]).clamp(0, 1)


def main(directory: Path) -> None:
    photograph = torch.from_numpy(data.camera()).float() / 255
    rows = photograph.unfold(0, PATCH_PIXELS, PATCH_PIXELS).unfold(1, PATCH_PIXELS, PATCH_PIXELS)
    patches = rows.reshape(-1, 1, PATCH_PIXELS, PATCH_PIXELS)

    with BackgroundWriter("image_2d", directory, max_workers=2, queue_size=64) as writer, torch.inference_mode():
        for start in range(0, len(patches), BATCH_SIZE):
            predictions = model(patches[start : start + BATCH_SIZE])
            names = [f"camera/{start + index:04}" for index in range(len(predictions))]
            # Copied here, once; encoded and stored in the background. It waits only while the queue is full.
            writer.submit_batch(names, predictions)
    # Leaving the with block has waited until everything is stored, and would have raised what failed.

    stats = writer.stats()
    print(
        f"{stats.written} files of {stats.bytes_written / 1e6:.1f} MB in {directory}; "
        f"the loop waited {stats.waited_seconds:.2f} s for room"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
