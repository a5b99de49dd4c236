"""A web service that answers with a model's prediction, and stores every prediction in the background.

    pip install starlette uvicorn
    python examples/starlette_app.py [DIRECTORY [PORT]]
    curl --data-binary @photograph.png 'http://127.0.0.1:8000/edges?name=photograph' > edges.png
    curl http://127.0.0.1:8000/stats

The response does not wait for the disk. It waits for room, which is how a disk that is too slow for the service slows
the service down, instead of filling its memory. When the server is told to stop, it stores what it has taken.

A prediction that cannot be stored is no reason to stop storing those of other clients (`on_error="continue"`): it is
kept beside its error, `/stats` counts it, and when the server has stopped, `lighter-async replay DIRECTORY` stores it.
"""

import contextlib
import io
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import uvicorn
from PIL import Image, UnidentifiedImageError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lighter_async import AsyncBackgroundWriter, ClosedError, DuplicateNameError, InvalidNameError, WriteError


class Edges(torch.nn.Module):
    """The length of the Sobel gradient of a grey image (1, H, W) in [0, 1]: fixed weights, nothing to train."""

    def __init__(self) -> None:
        super().__init__()
        across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4
        self.register_buffer("weight", torch.stack([across, across.T])[:, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(image[None], (1, 1, 1, 1), mode="replicate")
        return torch.nn.functional.conv2d(padded, self.weight).norm(dim=1).clamp(0, 1)


model = Edges()


def predict(body: bytes) -> tuple[torch.Tensor, bytes]:
    """The edges of an image file, as a float tensor (1, H, W) and as a PNG. It takes long, so it runs in a thread."""
    with Image.open(io.BytesIO(body)) as image:
        pixels = torch.from_numpy(np.array(image.convert("L")))
    with torch.inference_mode():
        edges = model(pixels[None].float() / 255)
    png = io.BytesIO()
    Image.fromarray((edges[0] * 255).to(torch.uint8).numpy()).save(png, "PNG")
    return edges, png.getvalue()


async def edges(request: Request) -> Response:
    """Answer with the edges of the image in the body, and store them as a tensor."""
    name = request.query_params.get("name") or uuid.uuid4().hex
    try:
        prediction, png = await run_in_threadpool(predict, await request.body())
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError):  # none, or a broken one
        return JSONResponse({"error": "the body is no image"}, status_code=400)
    try:
        # Once this has returned, the prediction will be stored, or kept, and its failure told when the server stops.
        await request.app.state.writer.submit(name, prediction)
    except (InvalidNameError, DuplicateNameError) as error:
        return JSONResponse({"error": str(error)}, status_code=409)
    except (WriteError, ClosedError):  # not even kept, as on a full disk
        return JSONResponse({"error": "predictions are not stored at the moment"}, status_code=503)
    return Response(png, media_type="image/png", headers={"x-name": name})


async def stats(request: Request) -> Response:
    """What the writer has done so far."""
    return JSONResponse(asdict(request.app.state.writer.stats()))


def make_app(directory: Path) -> Starlette:
    """The service, storing below `directory`."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # Opened and closed with the server: leaving waits until everything is stored.
        try:
            async with AsyncBackgroundWriter(
                "tensor", directory, queue_size=64, on_error="continue"
            ) as app.state.writer:
                yield
        except WriteError as error:
            print(error, file=sys.stderr, flush=True)

    return Starlette(
        routes=[Route("/edges", edges, methods=["POST"]), Route("/stats", stats, methods=["GET"])], lifespan=lifespan
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    print(f"storing in {folder}", flush=True)
    uvicorn.run(make_app(folder), host="127.0.0.1", port=int(sys.argv[2]) if len(sys.argv) > 2 else 8000)
