"""Draw the contact sheet: patches beside their two files, to look at."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lighter_async.cli.demo.model import ORIENTATIONS, SCALES
from lighter_async.cli.demo.photographs import Patches

__all__ = ["draw_sheet"]

_TILE = 132
_GAP = 6
_LABEL = 20
_COLUMNS = 3
_MARGIN = 24
_HEADING = 56
_BACKGROUND, _INK, _FAINT = (250, 250, 248), (30, 30, 34), (110, 110, 118)


def draw_sheet(patches: Patches, edges: Path, textures: Path) -> Image.Image:
    """Draw the patch of each photograph that varies most, with what was read back from its two files.

    Args:
        patches: The input.
        edges: The folder of the PNG files.
        textures: The folder of the .pt files.

    Raises:
        OSError: A file is missing.
    """
    chosen = _most_varied(patches)
    cell_width, cell_height = 3 * _TILE + 2 * _GAP, _TILE + _LABEL + 10
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    width = columns * cell_width + (columns - 1) * _MARGIN + 2 * _MARGIN
    sheet = Image.new("RGB", (width, _HEADING + _LABEL + rows * cell_height + _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    title, small = ImageFont.load_default(18), ImageFont.load_default(13)
    draw.text((_MARGIN, 14), "Written in the background by lighter-async, and read back", _INK, title)
    for column in range(columns):
        x = _MARGIN + column * (cell_width + _MARGIN)
        for place, heading in enumerate(["input", "edges (.png)", "textures (.pt)"]):
            draw.text((x + place * (_TILE + _GAP), _HEADING - 8), heading, _FAINT, small)
    for number, index in enumerate(chosen):
        x = _MARGIN + number % columns * (cell_width + _MARGIN)
        y = _HEADING + 10 + number // columns * cell_height
        patch = patches[index]
        with Image.open(edges / f"{patch['name']}.png") as png:
            found = png.convert("RGB")
        energies = torch.load(textures / f"{patch['name']}.pt", weights_only=True)
        tiles = [_image_of(patch["image"]), found, _image_of(_colours_of(energies))]
        for place, tile in enumerate(tiles):
            shown = tile.resize((_TILE, _TILE), Image.Resampling.NEAREST if place == 2 else Image.Resampling.LANCZOS)
            sheet.paste(shown, (x + place * (_TILE + _GAP), y))
        draw.text((x, y + _TILE + 2), patch["name"], _INK, small)
    return sheet


def _most_varied(patches: Patches) -> list[int]:
    """The patch of each photograph that varies most."""
    best: dict[str, tuple[float, int]] = {}
    for index in range(len(patches)):
        patch = patches[index]
        photograph = patch["name"].partition("/")[0]
        spread = float(patch["image"].std(dim=(1, 2)).sum())
        if spread > best.get(photograph, (-1.0, 0))[0]:
            best[photograph] = spread, index
    return [index for _, index in best.values()]


def _colours_of(energies: Tensor) -> Tensor:
    """Textures (16, H, W) as colours (3, H, W): the hue shows the orientation, the brightness its energy."""
    hues = [colorsys.hsv_to_rgb(number / ORIENTATIONS, 1, 1) for number in range(ORIENTATIONS)] * SCALES
    colours = torch.einsum("ohw,oc->chw", energies, torch.tensor(hues))
    return (colours / colours.max().clamp(min=1e-6)).sqrt()


def _image_of(rgb: Tensor) -> Image.Image:
    pixels = (rgb.clamp(0, 1) * 255).to(torch.uint8).movedim(0, -1).contiguous().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels))
