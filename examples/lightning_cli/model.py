"""The model: Sobel's edges, with fixed weights."""

import torch
from lightning.pytorch import LightningModule


class Edges(LightningModule):
    """Finds edges.

    Args:
        threshold: The steepness from which on a pixel is one of an edge.
    """

    def __init__(self, threshold: float = 0.1) -> None:
        super().__init__()
        self.threshold = threshold
        across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        self.register_buffer("weight", torch.stack([across, across.T])[:, None])

    def predict_step(self, batch: dict, batch_idx: int) -> dict:
        """A mask of edges (N, 1, H, W) of bools, which the writer makes images of, and how steep each pixel is."""
        grey = torch.nn.functional.pad(batch["image"].mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        steepness = torch.nn.functional.conv2d(grey, self.weight).norm(dim=1, keepdim=True)
        return {"mask": steepness > self.threshold, "steepness": steepness, "name": batch["name"]}
