"""The data: photographs in patches, of which those that are stored already are left out."""

import torch
from lightning.pytorch import LightningDataModule
from skimage import data
from torch.utils.data import DataLoader, Dataset

from lighter_async import pending


class Photographs(Dataset):
    """Patches of photographs: float tensors (3, H, W) in [0, 1], with names such as ``coffee/y0064_x0128``.

    Args:
        patch_pixels: The side of a patch.
    """

    def __init__(self, patch_pixels: int) -> None:
        self.names: list[str] = []
        self.patches: list[torch.Tensor] = []
        for photograph in ("astronaut", "chelsea", "coffee"):
            pixels = torch.from_numpy(getattr(data, photograph)()).movedim(-1, 0).float() / 255
            for y in range(0, pixels.shape[1] - patch_pixels + 1, patch_pixels):
                for x in range(0, pixels.shape[2] - patch_pixels + 1, patch_pixels):
                    self.names.append(f"{photograph}/y{y:04}_x{x:04}")
                    self.patches.append(pixels[:, y : y + patch_pixels, x : x + patch_pixels])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        return {"image": self.patches[index], "name": self.names[index]}


class Patches(LightningDataModule):
    """What is still to be predicted.

    Args:
        directory: Where the predictions are stored.
        patch_pixels: The side of a patch.
        batch_size: Patches in a batch, on each rank.
    """

    def __init__(self, directory: str, patch_pixels: int = 64, batch_size: int = 8) -> None:
        super().__init__()
        self.directory = directory
        self.patch_pixels = patch_pixels
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Look which patches are stored. Lightning calls this on all ranks before any of them stores something."""
        self.photographs = Photographs(self.patch_pixels)
        self.sampler = pending(self.photographs, self.directory, names=self.photographs.names)

    def predict_dataloader(self) -> DataLoader:
        """The patches that are missing, shared out among the ranks by the sampler."""
        return DataLoader(self.photographs, batch_size=self.batch_size, sampler=self.sampler)
