"""A format of one's own: an encoder from a value to bytes, registered by name.

Its bytes go where the writer's target stores, each file whole or not at all, with `if_exists` and everything else
that the built-in formats have. Run it with

    python examples/custom_encoder.py [DIRECTORY]
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from skimage import data

from lighter_async import BackgroundWriter, encoder, writer_registry


@writer_registry.register("spectrum")
@encoder(suffix=".npy")
def encode_npy(value: torch.Tensor) -> memoryview:
    """What `numpy.load` reads back.

    The tensor is a view of memory that the next batch will reuse: read it here, and keep nothing of it.
    """
    buffer = io.BytesIO()
    np.save(buffer, value.numpy())
    return buffer.getbuffer()


def main(directory: Path) -> None:
    names = ["camera", "coins", "moon", "page"]
    photographs = [torch.from_numpy(getattr(data, name)()) for name in names]
    with BackgroundWriter("spectrum", directory) as writer:
        # The samples of a batch may differ in shape; here each is a photograph's spectrum.
        writer.submit_batch(names, [torch.fft.rfft2(photograph.float()).abs() for photograph in photographs])
    print(f"{writer.stats().written} files of {writer.stats().bytes_written / 1e6:.1f} MB in {directory}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
