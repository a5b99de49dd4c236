"""A Lightning prediction job that writes its predictions in the background.

Run it with

    python examples/lightning_predict.py [DIRECTORY]
"""

import sys
import tempfile
from pathlib import Path

import torch
from pytorch_lightning import LightningModule, Trainer
from skimage import data
from torch.utils.data import DataLoader, Dataset

from lighter_async import FileWriter

PATCH_PIXELS = 64


class Patches(Dataset):
    """Photographs in patches: float tensors (3, H, W) in [0, 1], and a name that tells where each comes from."""

    def __init__(self) -> None:
        self.samples = []
        for photograph in ("astronaut", "chelsea", "coffee"):
            pixels = torch.from_numpy(getattr(data, photograph)()).movedim(-1, 0).float() / 255
            for y in range(0, pixels.shape[1] - PATCH_PIXELS + 1, PATCH_PIXELS):
                for x in range(0, pixels.shape[2] - PATCH_PIXELS + 1, PATCH_PIXELS):
                    patch = pixels[:, y : y + PATCH_PIXELS, x : x + PATCH_PIXELS]
                    self.samples.append({"image": patch, "name": f"{photograph}/y{y:04}_x{x:04}"})

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        return self.samples[index]


class Smooth(LightningModule):
    """Smooths by the 5 x 5 binomial filter: fixed weights, nothing to train."""

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("weight", torch.outer(line, line).expand(3, 1, 5, 5).clone())

    def predict_step(self, batch: dict, batch_idx: int) -> dict:
        padded = torch.nn.functional.pad(batch["image"], (2, 2, 2, 2), mode="reflect")
        return {"smooth": torch.nn.functional.conv2d(padded, self.weight, groups=3), "name": batch["name"]}


def main(directory: Path) -> None:
    # One file per sample, named by the outputs' "name": coffee/y0064_x0128.png.
    writer = FileWriter(directory, value_key="smooth", writer_fn="image_2d", name_key="name", max_workers=2)
    trainer = Trainer(accelerator="cpu", devices=1, callbacks=[writer], logger=False, enable_checkpointing=False)
    trainer.predict(Smooth(), DataLoader(Patches(), batch_size=16), return_predictions=False)
    print(f"{writer.stats().written} files in {directory}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
